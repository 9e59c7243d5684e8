//! For how long kubelets may keep secrets and config maps without asking, by how many nodes
//! there are (`node.alpha.kubernetes.io/ttl`).
//!
//! Of a worker's node nothing is said: there are ten thousands, and each would cost a write.
//!
//! Invariant: a node's value changes only once the number of nodes has left the range that
//! its value is for.

use nautilus_machinery::timestamp::Instant;
use serde_json::{Value, json};

use super::is_workers;
use crate::controller::{Change, Controller};
use crate::kind::{self, Kind};
use crate::object;
use crate::plan::{Plan, Write};
use crate::view::{Key, View, Within};

const TTL: &str = "node.alpha.kubernetes.io/ttl";
/// The least and the most nodes that a value is for, and the value in seconds.
const RANGES: [(usize, usize, &str); 5] = [
    (0, 100, "0"),
    (90, 500, "15"),
    (450, 1000, "30"),
    (900, 2000, "60"),
    (1800, usize::MAX, "300"),
];
/// Nodes that are changed together.
const BATCH_NODES: usize = 100;

/// The controller of that annotation. There is one key: all nodes.
pub struct SecretsTtl;

impl Controller for SecretsTtl {
    fn name(&self) -> &'static str {
        "ttl-controller"
    }

    fn follows(&self) -> &'static [Kind] {
        &[kind::NODES]
    }

    fn concerns(&self, _view: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        let told = |node: Option<&Value>| {
            let node = node.filter(|node| !is_workers(node));
            node.map(|node| object::annotation(node, TTL).map(str::to_owned))
        };
        if told(change.before.as_deref()) != told(change.after.as_deref()) {
            keys.push(Key::new("", "nodes"));
        }
    }

    fn reconcile(&self, view: &dyn View, _key: &Key, _now: Instant) -> Plan {
        let mut plan = Plan::default();
        let mut nodes = view.list(kind::NODES, Within::All);
        nodes.retain(|node| !is_workers(node));
        let count = nodes.len();
        let writes: Vec<Write> = nodes
            .iter()
            .filter_map(|node| {
                let own = object::annotation(node, TTL);
                let wanted = value(count, own);
                let patch = json!({"metadata": {"annotations": {TTL: wanted}}});
                (own != Some(wanted)).then(|| Write::patch(kind::NODES, node, patch))
            })
            .collect();
        for batch in writes.chunks(BATCH_NODES) {
            plan.together(batch.to_vec());
        }
        plan
    }
}

/// The value for so many nodes: the present one, while they are in its range.
fn value(nodes: usize, present: Option<&str>) -> &'static str {
    let holds = |(least, most, _): &&(usize, usize, &str)| (*least..=*most).contains(&nodes);
    let kept = RANGES
        .iter()
        .filter(holds)
        .find(|range| Some(range.2) == present);
    let first = RANGES.iter().find(holds);
    kept.or(first).map_or("0", |range| range.2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cluster, at};

    #[test]
    fn a_value_is_kept_while_the_number_is_in_its_range() {
        for (nodes, present, expected) in [
            (1, None, "0"),
            (100, Some("0"), "0"),
            (101, Some("0"), "15"),
            (95, Some("15"), "15"),
            (89, Some("15"), "0"),
            (1900, Some("300"), "300"),
            (1900, Some("60"), "60"),
            (5000, None, "300"),
            (5, Some("nonsense"), "0"),
        ] {
            assert_eq!(value(nodes, present), expected, "{nodes} {present:?}");
        }
    }

    #[test]
    fn nodes_that_lack_it_get_it() {
        let mut cluster = Cluster::default();
        let key = Key::new("", "nodes");
        let node = cluster.put(kind::NODES, json!({"metadata": {"name": "m"}}));
        assert_eq!(cluster.settle(&SecretsTtl, &key, at(0)), 1);
        let after = cluster.get(kind::NODES, "", "m").expect("a node");
        assert_eq!(object::annotation(&after, TTL), Some("0"));
        let concerned =
            |after| cluster.concerned(&SecretsTtl, kind::NODES, Some(&node), Some(after));
        assert_eq!(concerned(&after), [key]);
        assert_eq!(concerned(&node), []);
    }
}
