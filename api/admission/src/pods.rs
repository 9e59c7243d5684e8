//! What a pod takes, by the rules of its containers: ordinary ones at once, init
//! containers one after another, restartable init containers beside all that follow.

use serde_json::Value;

use crate::values::{Resources, add, items, raise, resources};

/// Resources that may be stated for the pod as a whole.
const POD_LEVEL: [&str; 2] = ["cpu", "memory"];

/// Requests or limits of the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// `requests`.
    Requests,
    /// `limits`.
    Limits,
}

impl Side {
    fn field(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Limits => "limits",
        }
    }
}

/// The pod's requests or limits, without its overhead.
pub fn taken(pod: &Value, side: Side) -> Resources {
    let field = side.field();
    let spec = &pod["spec"];
    let mut sum = Resources::new();
    for container in items(&spec["containers"]) {
        add(&mut sum, &resources(&container["resources"][field]));
    }
    let (mut beside, mut init) = (Resources::new(), Resources::new());
    for container in items(&spec["initContainers"]) {
        let own = resources(&container["resources"][field]);
        if container["restartPolicy"] == "Always" {
            add(&mut sum, &own);
            add(&mut beside, &own);
            raise(&mut init, &beside);
        } else {
            let mut while_it_runs = own;
            add(&mut while_it_runs, &beside);
            raise(&mut init, &while_it_runs);
        }
    }
    raise(&mut sum, &init);
    for (name, amount) in resources(&spec["resources"][field]) {
        if POD_LEVEL.contains(&name.as_str()) || name.starts_with("hugepages-") {
            sum.insert(name, amount);
        }
    }
    sum
}

/// The same with the overhead of its runtime class.
pub fn taken_with_overhead(pod: &Value, side: Side) -> Resources {
    let mut sum = taken(pod, side);
    for (name, amount) in resources(&pod["spec"]["overhead"]) {
        match sum.get(&name) {
            Some(own) => {
                let total = own.plus(&amount);
                sum.insert(name, total);
            }
            // An overhead makes a request, never a limit that was not there.
            None if side == Side::Requests => {
                sum.insert(name, amount);
            }
            None => {}
        }
    }
    sum
}

/// Whether the pod has run to its end.
pub fn is_finished(pod: &Value) -> bool {
    matches!(
        pod["status"]["phase"].as_str(),
        Some("Failed" | "Succeeded")
    )
}
