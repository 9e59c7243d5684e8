//! Taints of nodes and what tolerates them.

use serde_json::Value;

use crate::object;

/// What a taint does to pods that do not tolerate it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// They do not come.
    NoSchedule,
    /// They rather do not come.
    PreferNoSchedule,
    /// They do not come, and go.
    NoExecute,
}

impl Effect {
    fn read(effect: &Value) -> Option<Self> {
        match effect.as_str()? {
            "NoSchedule" => Some(Self::NoSchedule),
            "PreferNoSchedule" => Some(Self::PreferNoSchedule),
            "NoExecute" => Some(Self::NoExecute),
            _ => None,
        }
    }

    /// Whether new pods are kept off.
    pub fn keeps_off(self) -> bool {
        self != Self::PreferNoSchedule
    }
}

/// A taint of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value; empty for none.
    pub value: String,
    /// What it does.
    pub effect: Effect,
}

impl Taint {
    /// What a cordoned node amounts to.
    pub fn unschedulable() -> Self {
        Self {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            value: String::new(),
            effect: Effect::NoSchedule,
        }
    }

    /// Those of a node.
    pub fn all(node: &Value) -> Vec<Self> {
        let taints = object::items(&node["spec"]["taints"]);
        let read = |taint: &Value| {
            Some(Self {
                key: taint["key"].as_str()?.to_owned(),
                value: taint["value"].as_str().unwrap_or_default().to_owned(),
                effect: Effect::read(&taint["effect"])?,
            })
        };
        taints.filter_map(read).collect()
    }
}

/// `Toleration`. Those that compare numbers tolerate nothing, as where the reference's
/// gate for them is shut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toleration {
    /// `None`: any key.
    key: Option<String>,
    /// `None`: any value.
    value: Option<String>,
    /// `None`: any effect.
    effect: Option<Effect>,
}

impl Toleration {
    /// Those of a pod's `spec`.
    pub fn all(spec: &Value) -> Vec<Self> {
        let read = |own: &Value| {
            let text = |field: &str| own[field].as_str().unwrap_or_default();
            let value = match text("operator") {
                "" | "Equal" => Some(text("value").to_owned()),
                "Exists" => None,
                _ => return None,
            };
            let effect = match text("effect") {
                "" => None,
                _ => Some(Effect::read(&own["effect"])?),
            };
            let key = Some(text("key")).filter(|key| !key.is_empty());
            Some(Self {
                key: key.map(str::to_owned),
                value,
                effect,
            })
        };
        object::items(&spec["tolerations"])
            .filter_map(read)
            .collect()
    }

    /// Whether it tolerates a taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|own| own == taint.effect)
            && self.key.as_ref().is_none_or(|own| *own == taint.key)
            && self.value.as_ref().is_none_or(|own| *own == taint.value)
    }

    /// Whether it says something of taints that only deter.
    pub(super) fn is_for_preferences(&self) -> bool {
        self.effect
            .is_none_or(|own| own == Effect::PreferNoSchedule)
    }
}

/// Whether one of `tolerations` tolerates a taint.
pub fn is_tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|own| own.tolerates(taint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_toleration_fits_by_key_value_and_effect_where_it_names_them() {
        let node =
            json!({"spec": {"taints": [{"key": "a", "value": "1", "effect": "NoSchedule"}]}});
        let taint = &Taint::all(&node)[0];
        for (toleration, expected) in [
            (json!({"key": "a", "value": "1"}), true),
            (
                json!({"key": "a", "operator": "Equal", "value": "2"}),
                false,
            ),
            (json!({"key": "a", "operator": "Exists"}), true),
            (json!({"operator": "Exists"}), true),
            (json!({"key": "b", "operator": "Exists"}), false),
            (json!({"operator": "Exists", "effect": "NoExecute"}), false),
            (json!({"key": "a", "operator": "Gt", "value": "0"}), false),
            (
                json!({"key": "a", "operator": "Exists", "effect": "NoSchedule"}),
                true,
            ),
        ] {
            let own = Toleration::all(&json!({ "tolerations": [toleration] }));
            assert_eq!(is_tolerated(taint, &own), expected, "{toleration}");
        }
    }
}
