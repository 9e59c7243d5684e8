//! How much of a device's capacity may be asked for at once: values or a range.
//!
//! Source: KEP-5075; `validateRequestPolicy` of `pkg/apis/resource/validation`, v1.37.
//!
//! Invariant: quantities are compared in nanounits, which hold each exactly; a step is
//! positive and so at least one unit.

use crate::quantity::Quantity;
use crate::validation::{At, Errors};

use super::names::few;

const MAX_VALUES: usize = 10;
const NANO: i128 = 1_000_000_000;

/// A place whose quantity is there.
struct Amount<'a> {
    at: At<'a>,
    own: Quantity,
}

impl Amount<'_> {
    fn nano(&self) -> i128 {
        self.own.nanounits()
    }

    fn text(&self) -> String {
        self.own.canonical()
    }

    /// Whole units, rounded up: steps are counted in them.
    fn units(&self) -> i128 {
        self.own.units_up()
    }

    fn invalid(&self, detail: &str, errors: &mut Errors) {
        self.at.invalid_as(errors, self.text(), detail);
    }
}

fn amount(at: At<'_>) -> Option<Amount<'_>> {
    let own = at.quantity()?;
    Some(Amount { at, own })
}

/// Checks a policy against the capacity it is of.
pub(super) fn policy(capacity: &At<'_>, at: &At<'_>, errors: &mut Errors) {
    let (values, range, default) = (
        at.get("validValues"),
        at.get("validRange"),
        at.get("default"),
    );
    let max = capacity.quantity().unwrap_or_else(|| Quantity::of_count(0));
    let named = match (values.is_empty(), range.is_set()) {
        (true, false) => return,
        (false, true) => {
            let detail = "exactly one policy can be specified, cannot specify \"validValues\" and \
                          \"validRange\" at the same time";
            at.forbidden(errors, detail);
            return;
        }
        (false, false) => "validValues",
        (true, true) => "validRange",
    };
    let Some(default) = default.quantity() else {
        let detail = format!("required when {named} is defined");
        default.required(errors, &detail);
        return;
    };
    match named {
        "validValues" => valid_values(&values, &default, &max, errors),
        _ => valid_range(&range, default, &max, errors),
    }
}

fn valid_values(at: &At<'_>, default: &Quantity, max: &Quantity, errors: &mut Errors) {
    let all: Vec<Amount<'_>> = at.items().filter_map(amount).collect();
    for pair in all.windows(2) {
        if let [one, next] = pair
            && one.nano() > next.nano()
        {
            next.invalid("values must be sorted in ascending order", errors);
        }
    }
    let mut found = false;
    if few(at, MAX_VALUES, errors) {
        let mut seen = std::collections::BTreeSet::new();
        for own in &all {
            if own.nano() > max.nanounits() {
                let detail = format!("option is larger than capacity value: {}", max.canonical());
                own.invalid(&detail, errors);
            }
            found |= own.nano() == default.nanounits();
            if !seen.insert(own.units()) {
                own.at.duplicate_as(errors, own.units().to_string());
            }
        }
    }
    if !found {
        let detail = "default value is not valid according to the requestPolicy";
        at.invalid_as(errors, default.canonical(), detail);
    }
}

fn valid_range(at: &At<'_>, default: Quantity, max_of_all: &Quantity, errors: &mut Errors) {
    let Some(min) = amount(at.get("min")) else {
        let detail = "required when validRange is defined";
        at.get("min").required(errors, detail);
        return;
    };
    let default = Amount {
        at: at.get("default"),
        own: default,
    };
    let (max, step) = (amount(at.get("max")), amount(at.get("step")));
    let (limit, whole) = (max_of_all.nanounits(), max_of_all.canonical());
    if min.nano() > limit {
        min.invalid(
            &format!("min is larger than capacity value: {whole}"),
            errors,
        );
    }
    if default.nano() < min.nano() {
        default.invalid(&format!("default is less than min: {}", min.text()), errors);
    }
    if let Some(max) = &max {
        if min.nano() > max.nano() {
            let detail = format!("min is larger than max: {}", max.text());
            max.at.invalid_as(errors, min.text(), &detail);
        }
        if max.nano() > limit {
            max.invalid(
                &format!("max is larger than capacity value: {whole}"),
                errors,
            );
        }
        if default.nano() > max.nano() {
            default.invalid(&format!("default is more than max: {}", max.text()), errors);
        }
    }
    let bounds: Vec<&Amount<'_>> = [Some(&default), Some(&min), max.as_ref(), step.as_ref()]
        .into_iter()
        .flatten()
        .collect();
    let Some(step) = &step else {
        return;
    };
    if step.nano() <= 0 {
        step.invalid("must be greater than zero", errors);
        return;
    }
    if min.nano() + step.nano() > limit {
        let added = min.own.plus(&step.own).canonical();
        let detail = format!("one step {added} is larger than capacity value: {whole}");
        step.invalid(&detail, errors);
    }
    if !all_in_range(&bounds, errors) {
        return;
    }
    for own in [Some(&default), max.as_ref()].into_iter().flatten() {
        if (own.units() - min.units()) % step.units() != 0 {
            let detail = format!(
                "value is not a multiple of a given step ({}) from ({})",
                step.text(),
                min.text()
            );
            step.at.invalid_as(errors, own.text(), &detail);
        }
    }
}

/// Whether units of all bounds can be counted.
fn all_in_range(bounds: &[&Amount<'_>], errors: &mut Errors) -> bool {
    let mut good = true;
    for own in bounds {
        if own.nano() < 0 {
            own.invalid("must be greater than or equal to 0", errors);
            good = false;
        } else if own.nano() > i128::from(i64::MAX) * NANO {
            own.invalid("must not be larger than 9223372036854775807", errors);
            good = false;
        }
    }
    good
}
