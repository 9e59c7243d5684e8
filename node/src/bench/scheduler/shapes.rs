//! The nodes and pods of the load.

use serde_json::{Value, json};

/// Zones that nodes stand in.
const ZONES: u32 = 5;
/// Pods of one group.
const GROUP: u32 = 50;

/// What pods ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Some CPU and memory.
    Plain,
    /// And other nodes than the rest of their group, which is spread over zones.
    Constrained,
}

impl Shape {
    /// In words.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Constrained => "constrained",
        }
    }

    /// The pod of a number; `load` tells it from those of other loads.
    pub(super) fn pod(self, load: &str, number: u32) -> Value {
        let group = format!("{load}-{}", number / GROUP);
        let mut pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": format!("{load}-{number}"), "labels": {"group": group}},
            "spec": {
                "containers": [{
                    "name": "c",
                    "image": "registry.k8s.io/pause:3.10",
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                }],
                "automountServiceAccountToken": false,
                // Nobody says that the nodes are well.
                "tolerations": [{"operator": "Exists"}],
            },
        });
        if self == Self::Constrained {
            let like = json!({"matchLabels": {"group": group}});
            pod["spec"]["affinity"] = json!({"podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {"labelSelector": like, "topologyKey": "kubernetes.io/hostname"},
                ],
            }});
            pod["spec"]["topologySpreadConstraints"] = json!([{
                "labelSelector": like,
                "topologyKey": "topology.kubernetes.io/zone",
                "maxSkew": 1,
                "whenUnsatisfiable": "DoNotSchedule",
            }]);
        }
        pod
    }
}

/// The node of a number.
pub(super) fn node(number: u32) -> Value {
    let name = format!("node-{number}");
    let room = json!({"cpu": "64", "memory": "256Gi", "pods": "1000"});
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "topology.kubernetes.io/zone": format!("zone-{}", number % ZONES),
            },
        },
        "status": {
            "capacity": room,
            "allocatable": room,
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}
