//! What follows for a worker's node from the state of its stake: pure.
//!
//! Invariants
//! - A slashed stake removes at once; one that was withdrawn, or whose token has ended, drains
//!   first, until a time that does not move while the stake stays gone.
//! - What an operator cordoned stays cordoned when the stake is back.

use nautilus_machinery::leaving::{REMOVE_FROM_ANNOTATION, SLASHED_TAINT, WITHDRAWN_TAINT};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::lifecycle::Stake;

/// Annotation of a node that was cordoned for its stake, and not by an operator.
const CORDONED_ANNOTATION: &str = "nautilus.io/cordoned";

/// A node that leaves, as a row under [`BARRED_PREFIX`]: looked up for every request of a
/// kubelet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barred {
    /// Why its certificates don't count.
    pub reason: String,
    /// From when on, in Unix milliseconds.
    pub from_ms: u64,
}

/// Rows of nodes that leave begin with this; the rest is the node's name.
pub const BARRED_PREFIX: &str = "/nautilus/barred/";

/// Where a node stands with its stake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Stays,
    Drains,
    Removed,
}

fn standing(stake: Stake) -> Standing {
    match stake {
        Stake::Active => Standing::Stays,
        Stake::Withdrawn | Stake::Expired => Standing::Drains,
        Stake::Slashed => Standing::Removed,
    }
}

/// What the row of a worker that leaves says, with `before` the present one; `None` for one
/// that stays.
pub fn barred(stake: Stake, before: Option<&Barred>, now_ms: u64, drain_ms: u64) -> Option<Barred> {
    let from_ms = match standing(stake) {
        Standing::Stays => return None,
        Standing::Drains => before.map_or(now_ms.saturating_add(drain_ms), |old| old.from_ms),
        Standing::Removed => before.map_or(now_ms, |old| old.from_ms.min(now_ms)),
    };
    let reason = match stake {
        Stake::Slashed => "its stake was slashed",
        Stake::Expired => "its token has expired",
        Stake::Active | Stake::Withdrawn => "its stake was withdrawn",
    };
    Some(Barred {
        reason: reason.to_owned(),
        from_ms,
    })
}

/// Cordons and taints a node as its stake wants it, or takes back what was done for that.
/// `remove_from` is [`Barred::from_ms`] in RFC 3339.
pub(crate) fn apply(
    metadata: &mut Map<String, Value>,
    spec: &mut Map<String, Value>,
    stake: Stake,
    remove_from: Option<&str>,
    now: &str,
) {
    let wanted = match standing(stake) {
        Standing::Stays => None,
        Standing::Drains => Some((WITHDRAWN_TAINT, "NoSchedule")),
        Standing::Removed => Some((SLASHED_TAINT, "NoExecute")),
    };
    let annotations = crate::node_object::child(metadata, "annotations");
    match remove_from {
        Some(time) if wanted.is_some() => {
            annotations.insert(REMOVE_FROM_ANNOTATION.to_owned(), time.into());
        }
        _ => drop(annotations.shift_remove(REMOVE_FROM_ANNOTATION)),
    }
    if wanted.is_some() {
        if spec.get("unschedulable") != Some(&Value::Bool(true)) {
            spec.insert("unschedulable".to_owned(), true.into());
            annotations.insert(CORDONED_ANNOTATION.to_owned(), "stake".into());
        }
    } else if annotations.shift_remove(CORDONED_ANNOTATION).is_some() {
        spec.shift_remove("unschedulable");
    }
    let taints = crate::node_object::list(spec, "taints");
    taints.retain(|taint| {
        let key = taint["key"].as_str().unwrap_or_default();
        (key != SLASHED_TAINT && key != WITHDRAWN_TAINT)
            || wanted.is_some_and(|(wanted, _)| wanted == key)
    });
    if let Some((key, effect)) = wanted
        && !taints.iter().any(|taint| taint["key"] == key)
    {
        taints.push(json!({"key": key, "effect": effect, "timeAdded": now}));
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_drain_ends_when_it_was_to_end_and_a_slash_ends_it_now() {
        let (now, drain) = (1_000, 500);
        let first = barred(Stake::Withdrawn, None, now, drain).expect("it leaves");
        assert_eq!(first.from_ms, 1_500);
        let later = barred(Stake::Expired, Some(&first), 1_400, drain).expect("it leaves");
        assert_eq!(later.from_ms, 1_500);
        let slashed = barred(Stake::Slashed, Some(&later), 1_450, drain).expect("it leaves");
        assert_eq!(slashed.from_ms, 1_450);
        assert_eq!(slashed.reason, "its stake was slashed");
        assert_eq!(barred(Stake::Active, Some(&slashed), 2_000, drain), None);
    }

    /// Applies stakes in a row to a node that was made thus.
    fn after(node: &Value, stakes: &[Stake]) -> String {
        let part = |name: &str| node[name].as_object().cloned().unwrap_or_default();
        let (mut metadata, mut spec) = (part("metadata"), part("spec"));
        for stake in stakes {
            let from = (*stake != Stake::Active).then_some("THEN");
            apply(&mut metadata, &mut spec, *stake, from, "NOW");
        }
        json!({"metadata": metadata, "spec": spec}).to_string()
    }

    #[test]
    fn a_node_that_leaves_is_cordoned_and_tainted_and_comes_back_as_it_was() {
        expect![[r#"{"metadata":{"annotations":{"nautilus.io/remove-from":"THEN","nautilus.io/cordoned":"stake"}},"spec":{"unschedulable":true,"taints":[{"key":"nautilus.io/stake-withdrawn","effect":"NoSchedule","timeAdded":"NOW"}]}}"#]]
            .assert_eq(&after(&json!({}), &[Stake::Withdrawn]));
        expect![[r#"{"metadata":{"annotations":{"nautilus.io/remove-from":"THEN","nautilus.io/cordoned":"stake"}},"spec":{"unschedulable":true,"taints":[{"key":"nautilus.io/stake-slashed","effect":"NoExecute","timeAdded":"NOW"}]}}"#]]
            .assert_eq(&after(&json!({}), &[Stake::Expired, Stake::Slashed]));
        expect![[r#"{"metadata":{"annotations":{}},"spec":{"taints":[]}}"#]]
            .assert_eq(&after(&json!({}), &[Stake::Slashed, Stake::Active]));
    }

    #[test]
    fn what_an_operator_cordoned_stays_cordoned() {
        let cordoned = json!({"spec": {"unschedulable": true, "taints": [{"key": "own"}]}});
        expect![[r#"{"metadata":{"annotations":{}},"spec":{"unschedulable":true,"taints":[{"key":"own"}]}}"#]]
            .assert_eq(&after(&cordoned, &[Stake::Slashed, Stake::Active]));
    }
}
