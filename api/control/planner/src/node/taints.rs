//! Taints of nodes and what tolerates them.
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/>

use nautilus_machinery::timestamp::Instant;
use serde_json::{Value, json};

use crate::kind;
use crate::object;
use crate::plan::Write;

pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
pub(super) const NO_SCHEDULE: &str = "NoSchedule";
pub(super) const NO_EXECUTE: &str = "NoExecute";
/// What the taints of stakes begin with.
const STAKES: &str = "nautilus.io/stake-";

/// A node's taints.
pub(super) fn of(node: &Value) -> impl Iterator<Item = &Value> {
    object::items(&node["spec"]["taints"])
}

/// Whether a node has a taint with this effect.
pub(super) fn has(node: &Value, key: &str, effect: &str) -> bool {
    of(node).any(|own| own["key"] == key && own["effect"] == effect)
}

/// The taints for which pods go, but for those of stakes, which are others' business.
pub(super) fn evicting(node: &Value) -> Vec<&Value> {
    let is_stakes = |own: &Value| {
        own["key"]
            .as_str()
            .is_some_and(|key| key.starts_with(STAKES))
    };
    of(node)
        .filter(|own| own["effect"] == NO_EXECUTE && !is_stakes(own))
        .collect()
}

/// The node's taints without those that `drops` names, and with new ones; `None` where they
/// are the same.
pub(super) fn changed(
    node: &Value,
    drops: impl Fn(&Value) -> bool,
    adds: &[(&str, &str)],
    now: Instant,
) -> Option<Value> {
    let before = of(node).count();
    let mut taints: Vec<Value> = of(node).filter(|own| !drops(own)).cloned().collect();
    let mut is_changed = taints.len() != before;
    for (key, effect) in adds {
        if !has(node, key, effect) {
            let added = object::time_field(now);
            taints.push(json!({"key": key, "effect": effect, "timeAdded": added}));
            is_changed = true;
        }
    }
    // Null takes an empty list away.
    let taints = match taints.is_empty() {
        true => Value::Null,
        false => taints.into(),
    };
    is_changed.then_some(taints)
}

/// Sets the taints of a node that was seen, in the version that was seen.
pub(super) fn write(node: &Value, taints: &Value) -> Write {
    let patch = json!({
        "metadata": {"resourceVersion": node["metadata"]["resourceVersion"]},
        "spec": {"taints": taints},
    });
    Write::patch(kind::NODES, node, patch)
}

/// Whether a toleration tolerates a taint.
pub(super) fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let text = |object: &Value, field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let is_any_or_same = |field: &str| {
        let own = text(toleration, field);
        own.is_empty() || own == text(taint, field)
    };
    is_any_or_same("effect")
        && is_any_or_same("key")
        && match text(toleration, "operator").as_str() {
            "Exists" => true,
            "" | "Equal" => text(toleration, "value") == text(taint, "value"),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toleration_names_what_it_tolerates() {
        let taint = json!({"key": "a", "value": "1", "effect": "NoExecute"});
        for (toleration, expected) in [
            (json!({"operator": "Exists"}), true),
            (
                json!({"key": "a", "operator": "Exists", "effect": "NoExecute"}),
                true,
            ),
            (
                json!({"key": "a", "operator": "Exists", "effect": "NoSchedule"}),
                false,
            ),
            (json!({"key": "a", "value": "1"}), true),
            (
                json!({"key": "a", "operator": "Equal", "value": "2"}),
                false,
            ),
            (json!({"key": "b", "operator": "Exists"}), false),
        ] {
            assert_eq!(tolerates(&toleration, &taint), expected, "{toleration}");
        }
    }
}
