//! Capacity of devices that several claims may have a share of: what a request takes of it,
//! and whether that is left.
//!
//! Invariant: sums are of whole nanounits and never wrap.

use std::collections::BTreeMap;

use nautilus_machinery::quantity::Quantity;
use serde_json::Value;

use crate::object;

/// Nanounits of a unit and of its thousandth.
const UNIT: i128 = 1_000_000_000;
const MILLI: i128 = 1_000_000;
/// Most steps of either kind that the reference counts with.
const MOST: i128 = i64::MAX as i128;

/// Amounts by their names.
pub(super) type Amounts = BTreeMap<String, Quantity>;

/// One capacity of a device.
#[derive(Debug, Clone)]
pub(super) struct Capacity {
    value: Quantity,
    policy: Option<Policy>,
}

/// What may be requested of a capacity.
#[derive(Debug, Clone)]
struct Policy {
    unsaid: Option<Quantity>,
    range: Option<Range>,
    values: Option<Vec<Quantity>>,
}

#[derive(Debug, Clone)]
struct Range {
    min: Option<Quantity>,
    max: Option<Quantity>,
    step: Option<Quantity>,
}

/// The amounts of an object of quantities.
pub(super) fn amounts(own: &Value) -> Amounts {
    let entries = own.as_object().into_iter().flatten();
    let amounts = entries.filter_map(|(name, own)| Some((name.clone(), Quantity::of_json(own)?)));
    amounts.collect()
}

impl Capacity {
    pub(super) fn read(own: &Value) -> Self {
        let policy = &own["requestPolicy"];
        let range = &policy["validRange"];
        let values = policy["validValues"].is_array().then(|| {
            let values = object::items(&policy["validValues"]);
            values.filter_map(Quantity::of_json).collect()
        });
        Self {
            value: Quantity::of_json(&own["value"]).unwrap_or_else(|| Quantity::of_count(0)),
            policy: policy.is_object().then(|| Policy {
                unsaid: Quantity::of_json(&policy["default"]),
                range: range.is_object().then(|| Range {
                    min: Quantity::of_json(&range["min"]),
                    max: Quantity::of_json(&range["max"]),
                    step: Quantity::of_json(&range["step"]),
                }),
                values,
            }),
        }
    }

    /// What a request takes.
    fn consumed(&self, requested: Option<&Quantity>) -> Result<Quantity, String> {
        let policy = self.policy.as_ref();
        let Some(requested) = requested else {
            let unsaid = policy.and_then(|own| own.unsaid.as_ref());
            return Ok(unsaid.unwrap_or(&self.value).clone());
        };
        let Some(policy) = policy else {
            return Ok(requested.clone());
        };
        if let Some((range, min)) = policy
            .range
            .as_ref()
            .and_then(|own| Some((own, own.min.as_ref()?)))
        {
            return range.round_up(min, requested);
        }
        let mut values = policy.values.iter().flatten();
        let fit = values.find(|own| requested <= *own);
        Ok(fit.unwrap_or(requested).clone())
    }

    fn forbids(&self, consumed: &Quantity) -> bool {
        let Some(policy) = &self.policy else {
            return false;
        };
        if policy.unsaid.as_ref() == Some(consumed) {
            return false;
        }
        match (&policy.range, &policy.values) {
            (Some(range), _) => range.forbids(consumed),
            (None, Some(values)) => !values.is_empty() && !values.contains(consumed),
            (None, None) => false,
        }
    }
}

impl Range {
    /// In what steps are counted: thousandths where all bounds are whole ones, or units.
    fn grain(&self) -> i128 {
        let bounds = [&self.min, &self.max, &self.step];
        let mut bounds = bounds.into_iter().flatten();
        let fit = bounds.all(|own| in_milli(own).is_some());
        let is_step = self
            .step
            .as_ref()
            .is_none_or(|own| own.nanounits() >= MILLI);
        if fit && is_step { MILLI } else { UNIT }
    }

    fn round_up(&self, min: &Quantity, requested: &Quantity) -> Result<Quantity, String> {
        const WHAT: &str =
            "capacity request cannot be represented in the device's range arithmetic";
        if requested < min {
            return Ok(min.clone());
        }
        let Some(step) = &self.step else {
            return Ok(requested.clone());
        };
        let text = requested.canonical();
        let grain = self.grain();
        if grain == MILLI && in_milli(requested).is_none() {
            return Err(format!(
                "{WHAT}: request {text} is not a representable milli value"
            ));
        }
        if grain == UNIT && requested.nanounits() > MOST.saturating_mul(UNIT) {
            return Err(format!("{WHAT}: request {text} exceeds MaxInt64"));
        }
        let count = |own: &Quantity| up(own.nanounits(), grain);
        let (least, size) = (count(min), count(step).max(1));
        let steps = up(count(requested) - least, size);
        let rounded = least.saturating_add(size.saturating_mul(steps));
        if rounded > MOST {
            let bound = if grain == MILLI {
                "the milli-value range"
            } else {
                "MaxInt64"
            };
            return Err(format!(
                "{WHAT}: rounding request {text} up to the next step passes {bound}"
            ));
        }
        Ok(step.with_nanounits(rounded.saturating_mul(grain)))
    }

    fn forbids(&self, consumed: &Quantity) -> bool {
        if self.max.as_ref().is_some_and(|max| consumed > max) {
            return true;
        }
        let (Some(step), Some(min)) = (&self.step, &self.min) else {
            return false;
        };
        let grain = self.grain();
        if grain == MILLI && in_milli(consumed).is_none() {
            return true;
        }
        let count = |own: &Quantity| up(own.nanounits(), grain);
        (count(consumed) - count(min)) % count(step).max(1) != 0
    }
}

/// Thousandths, where it is whole ones and not too many.
fn in_milli(own: &Quantity) -> Option<i128> {
    let nanounits = own.nanounits();
    let fits = nanounits % MILLI == 0 && (nanounits / MILLI).abs() <= MOST;
    fits.then_some(nanounits / MILLI)
}

/// How often a size goes into an amount, rounded up.
fn up(amount: i128, size: i128) -> i128 {
    amount.div_euclid(size) + i128::from(amount.rem_euclid(size) != 0)
}

/// Whether a request can have its amounts of a device that some of are taken of already.
///
/// # Errors
/// The request means nothing to any device.
pub(super) fn has_room(
    capacity: &BTreeMap<String, Capacity>,
    requested: &Amounts,
    taken: &[&Amounts],
) -> Result<bool, String> {
    if requested.keys().any(|name| !capacity.contains_key(name)) {
        return Ok(false);
    }
    let consumed = consumed(capacity, requested)?;
    Ok(capacity
        .iter()
        .zip(consumed.values())
        .all(|((name, own), amount)| {
            let mut sum = amount.clone();
            for taken in taken.iter().filter_map(|own| own.get(name)) {
                sum = sum.plus(taken);
            }
            !own.forbids(amount) && sum <= own.value
        }))
}

/// What a request takes of every capacity of a device.
///
/// # Errors
/// The request means nothing to any device.
pub(super) fn consumed(
    capacity: &BTreeMap<String, Capacity>,
    requested: &Amounts,
) -> Result<Amounts, String> {
    let amounts = capacity.iter().map(|(name, own)| {
        let consumed = own.consumed(requested.get(name));
        let consumed = consumed.map_err(|what| format!("capacity \"{name}\": {what}"))?;
        if consumed.is_negative() {
            return Err(format!("capacity \"{name}\": capacity value is negative"));
        }
        Ok((name.clone(), consumed))
    });
    amounts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_are_rounded_to_what_a_device_gives() {
        let range = json!({"value": "10Gi", "requestPolicy": {"default": "1Gi",
            "validRange": {"min": "1Gi", "max": "8Gi", "step": "2Gi"}}});
        let values = json!({"value": "10", "requestPolicy": {"default": "1",
            "validValues": ["1", "2", "5"]}});
        let fractions = json!({"value": "2", "requestPolicy": {"default": "500m",
            "validRange": {"min": "500m", "step": "250m"}}});
        let free = json!({"value": "10"});
        for (own, requested, expected, fits) in [
            (&range, None, "1Gi", true),
            (&range, Some("2Gi"), "3Gi", true),
            (&range, Some("7Gi"), "7Gi", true),
            (&range, Some("8Gi"), "9Gi", false),
            (&values, Some("3"), "5", true),
            (&values, Some("6"), "6", false),
            (&fractions, Some("600m"), "750m", true),
            (&free, None, "10", true),
            (&free, Some("4"), "4", true),
            (&free, Some("11"), "11", false),
        ] {
            let capacity = BTreeMap::from([("c".to_owned(), Capacity::read(own))]);
            let requested = match requested {
                Some(text) => amounts(&json!({"c": text})),
                None => Amounts::new(),
            };
            let taken = consumed(&capacity, &requested).expect("it is understood");
            assert_eq!(taken["c"].canonical(), expected, "{own} {requested:?}");
            let room = has_room(&capacity, &requested, &[]);
            assert_eq!(room, Ok(fits), "{own} {requested:?}");
        }
    }

    #[test]
    fn shares_add_up_to_no_more_than_there_is() {
        let own = json!({"value": "10"});
        let capacity = BTreeMap::from([("c".to_owned(), Capacity::read(&own))]);
        let [four, six, other] = [json!({"c": "4"}), json!({"c": "6"}), json!({"d": "1"})];
        let taken = amounts(&four);
        let room = |asked: &Value| has_room(&capacity, &amounts(asked), &[&taken]);
        assert_eq!(room(&six), Ok(true));
        assert_eq!(room(&json!({"c": "7"})), Ok(false));
        assert_eq!(room(&other), Ok(false), "there is no such capacity");
    }
}
