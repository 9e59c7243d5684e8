//! Expressions that select devices: of claims, of what claims are made from, of classes.
//!
//! Source: `k8s.io/dynamic-resource-allocation` `cel` of v1.37: what an expression may cost;
//! the rest stands in `nautilus_cel`.
//!
//! Invariant: a list of selectors that stays as it was is not judged again.

use nautilus_cel::DeviceSelector;
use nautilus_machinery::resource::Resource;
use nautilus_machinery::status::ApiError;
use nautilus_machinery::strategy;
use nautilus_machinery::validation::{At, Errors};
use serde_json::Value;

/// Cost of one expression over the largest device.
const MAX_COST: u64 = 1_000_000;

/// Refuses an object of the group `resource.k8s.io` that is written for what is wrong with
/// its expressions. `old`: as it was.
pub fn check_selectors(
    resource: &Resource,
    old: Option<&Value>,
    object: &Value,
) -> Result<(), ApiError> {
    let mut errors = Errors::new();
    let root = At::root(object);
    let spec = root.get("spec");
    match (resource.plural.as_str(), old) {
        // What is asked for never changes.
        ("resourceclaims", None) => of_claim(&spec, &mut errors),
        ("resourceclaimtemplates", None) => of_claim(&spec.get("spec"), &mut errors),
        ("deviceclasses", old) => {
            let own = spec.get("selectors");
            let before = old.map_or(&Value::Null, |old| &old["spec"]["selectors"]);
            if own.value != before {
                selectors(&own, &mut errors);
            }
        }
        _ => {}
    }
    strategy::refuse_invalid(resource, object, errors)
}

fn of_claim(spec: &At<'_>, errors: &mut Errors) {
    for request in spec.get("devices.requests").items() {
        let exactly = request.get("exactly");
        selectors(&exactly.get("selectors"), errors);
        for part in request.get("firstAvailable").items() {
            selectors(&part.get("selectors"), errors);
        }
    }
}

fn selectors(at: &At<'_>, errors: &mut Errors) {
    for own in at.items() {
        let expression = own.get("cel.expression");
        match DeviceSelector::compile(expression.text()) {
            Err(unfit) => expression.invalid_text(errors, &unfit.to_string()),
            Ok(selector) if selector.max_cost() > MAX_COST => {
                expression.forbidden(errors, "too complex, exceeds cost limit");
            }
            Ok(_) => {}
        }
    }
}
