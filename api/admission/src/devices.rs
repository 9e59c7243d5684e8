//! Expressions that select devices: of claims, of what claims are made from, of classes.
//!
//! Source: `k8s.io/dynamic-resource-allocation` `cel` of v1.37: what a device is to an
//! expression, and what an expression may come to and may cost.
//!
//! Invariant: a list of selectors that stays as it was is not judged again.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use nautilus_cel::{Declaration, Environment, Field, Program, Type};
use nautilus_machinery::resource::Resource;
use nautilus_machinery::status::ApiError;
use nautilus_machinery::strategy;
use nautilus_machinery::validation::{At, Errors};
use serde_json::Value;

/// Cost of one expression over the largest device.
const MAX_COST: u64 = 1_000_000;
const MAX_DOMAIN_BYTES: u64 = 63;
const MAX_VALUE_BYTES: u64 = 64;
const MAX_ENTRIES: u64 = 32;

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
        match Program::compile(expression.text(), &DEVICE, &[]) {
            Err(error) => {
                expression.invalid_text(errors, &format!("compilation failed: {error}"));
            }
            Ok(program) => match program.result_type() {
                Type::Bool | Type::Any if program.cost().max > MAX_COST => {
                    expression.forbidden(errors, "too complex, exceeds cost limit");
                }
                Type::Bool | Type::Any => {}
                other => {
                    let detail = format!("must evaluate to bool or the unknown type, not {other}");
                    expression.invalid_text(errors, &detail);
                }
            },
        }
    }
}

/// A device, as expressions see it.
static DEVICE: LazyLock<Environment> = LazyLock::new(|| {
    let by_name = |value| {
        let of_domain = Declaration::map(value, Some(MAX_ENTRIES));
        Declaration::map(of_domain, Some(MAX_ENTRIES))
    };
    let field = |name: &str, declaration| {
        let key = name.to_owned();
        (name.to_owned(), Field { key, declaration })
    };
    let fields: BTreeMap<String, Field> = [
        field("driver", Declaration::string(Some(MAX_DOMAIN_BYTES))),
        field("allowMultipleAllocations", Declaration::bool()),
        field("attributes", by_name(Declaration::any(MAX_VALUE_BYTES))),
        field(
            "capacity",
            by_name(Declaration::other(Type::Opaque("kubernetes.Quantity"))),
        ),
    ]
    .into_iter()
    .collect();
    let mut environment = Environment::kubernetes();
    environment
        .declare(
            "device",
            Declaration::object("kubernetes.DRADevice", fields),
        )
        .allow_binding();
    environment
});
