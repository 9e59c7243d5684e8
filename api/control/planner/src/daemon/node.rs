//! Whether a node may have a pod of a DaemonSet.

use serde_json::Value;

use super::pods;
use crate::object;
use crate::scheduler::{Effect, RequiredNode, Taint, Toleration, is_tolerated};

/// What a set asks of nodes.
pub(super) struct Eligibility {
    name: Option<String>,
    required: RequiredNode,
    tolerations: Vec<Toleration>,
}

/// What becomes of a pod on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Runs {
    /// One is made where there is none.
    pub(super) starts: bool,
    /// One that is there stays.
    pub(super) stays: bool,
}

impl Eligibility {
    pub(super) fn of(set: &Value) -> Self {
        let spec = pods::tolerant(&set["spec"]["template"]["spec"]);
        let name = spec["nodeName"].as_str().filter(|name| !name.is_empty());
        Self {
            name: name.map(str::to_owned),
            required: RequiredNode::of(&spec),
            tolerations: Toleration::all(&spec),
        }
    }

    pub(super) fn runs(&self, node: &Value) -> Runs {
        let is_named = self
            .name
            .as_deref()
            .is_none_or(|name| name == object::name(node));
        if !is_named || !self.required.matches(node) {
            return Runs {
                starts: false,
                stays: false,
            };
        }
        let mut taints = Taint::all(node);
        taints.retain(|taint| !is_tolerated(taint, &self.tolerations));
        Runs {
            starts: taints.iter().all(|taint| !taint.effect.keeps_off()),
            stays: taints.iter().all(|taint| taint.effect != Effect::NoExecute),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_is_judged_by_name_affinity_and_taints() {
        let affinity = json!({"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]},
            ]},
        }});
        let taint = |key: &str, effect: &str| json!([{"key": key, "effect": effect}]);
        let none = json!([]);
        for (spec, taints, starts, stays) in [
            (json!({}), &none, true, true),
            (json!({"nodeName": "a"}), &none, true, true),
            (json!({"nodeName": "b"}), &none, false, false),
            (json!({"nodeSelector": {"zone": "a"}}), &none, true, true),
            (json!({"nodeSelector": {"zone": "b"}}), &none, false, false),
            (json!({"affinity": affinity}), &none, false, false),
            (json!({}), &taint("x", "NoSchedule"), false, true),
            (json!({}), &taint("x", "NoExecute"), false, false),
            (json!({}), &taint("x", "PreferNoSchedule"), true, true),
            (
                json!({"tolerations": [{"key": "x", "operator": "Exists"}]}),
                &taint("x", "NoExecute"),
                true,
                true,
            ),
            (
                json!({}),
                &taint("node.kubernetes.io/not-ready", "NoExecute"),
                true,
                true,
            ),
            (
                json!({}),
                &taint("node.kubernetes.io/not-ready", "NoSchedule"),
                false,
                true,
            ),
            (
                json!({}),
                &taint("node.kubernetes.io/unschedulable", "NoSchedule"),
                true,
                true,
            ),
            (
                json!({}),
                &taint("node.kubernetes.io/network-unavailable", "NoSchedule"),
                false,
                true,
            ),
            (
                json!({"hostNetwork": true}),
                &taint("node.kubernetes.io/network-unavailable", "NoSchedule"),
                true,
                true,
            ),
        ] {
            let node = json!({
                "metadata": {"name": "a", "labels": {"zone": "a"}},
                "spec": {"taints": taints},
            });
            let set = json!({"spec": {"template": {"spec": spec}}});
            let expected = Runs { starts, stays };
            assert_eq!(
                Eligibility::of(&set).runs(&node),
                expected,
                "{spec} {taints}"
            );
        }
    }
}
