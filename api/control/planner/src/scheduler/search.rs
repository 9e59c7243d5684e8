//! The search for a node: as many that will do as are needed, then the best of them.

use super::cycle::{Cycle, names_of};
use super::devices::PodDevices;
use super::label_index::Slot;
use super::pod::PodInfo;
use super::profile::Profile;
use super::rejection::{Rejection, Unschedulable};
use super::score::PluginScores;
use super::snapshot::Snapshot;
use super::storage::PodVolumes;

/// So many nodes that will do are looked for at least.
const MIN_FEASIBLE: usize = 100;
/// So many percent of the nodes are looked for at least, where nothing is said.
const MIN_PERCENT: usize = 5;
/// So many percent where there are few nodes.
const MOST_PERCENT: usize = 50;
/// One percent less for so many nodes.
const NODES_PER_PERCENT: usize = 125;

/// Where a pod goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// The node's name.
    pub node: String,
    /// What its volumes need there before it is bound.
    pub volumes: PodVolumes,
    /// What its claims get there before it is bound.
    pub devices: PodDevices,
    /// How many nodes were looked at.
    pub evaluated: usize,
    /// How many of them will do.
    pub feasible: usize,
}

/// The decision for one node, for whoever wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The node's name.
    pub node: String,
    /// Why it will not do; `None`: it will.
    pub rejection: Option<Rejection>,
}

/// The whole decision, for whoever wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Why no node needed to be looked at.
    pub before: Option<Rejection>,
    /// Every node, those that will do first.
    pub verdicts: Vec<Verdict>,
    /// What each plugin says of those that will do, in their order.
    pub scores: Vec<PluginScores>,
}

/// Looks for the node of a pod. The next search starts behind the nodes that were looked
/// at, so that all have their turn; of equally good nodes the first is taken.
///
/// # Errors
/// No node will do.
pub fn schedule(
    snapshot: &mut Snapshot,
    pod: &PodInfo,
    profile: &Profile,
) -> Result<Chosen, Unschedulable> {
    let order = snapshot.order();
    let start = snapshot.start;
    let (result, looked_at) = search(snapshot, pod, profile, &order, start);
    if !order.is_empty() {
        snapshot.start = (start + looked_at) % order.len();
    }
    result
}

fn search(
    snapshot: &Snapshot,
    pod: &PodInfo,
    profile: &Profile,
    order: &[Slot],
    start: usize,
) -> (Result<Chosen, Unschedulable>, usize) {
    let mut unschedulable = Unschedulable {
        all_nodes: order.len(),
        ..Unschedulable::default()
    };
    if order.is_empty() {
        return (Err(unschedulable), 0);
    }
    let cycle = match Cycle::new(snapshot, pod, profile) {
        Ok(cycle) => cycle,
        Err(rejection) => {
            unschedulable.before = Some(rejection);
            return (Err(unschedulable), 0);
        }
    };
    let nominated = snapshot.node(&pod.nominated_node);
    if let Some(node) = nominated
        && cycle.filter_beside_nominated(snapshot, node).is_none()
    {
        return (Ok(chosen(&cycle, snapshot, node.slot, [1, 1])), 0);
    }
    let named: Option<Vec<Slot>> = cycle.named.as_ref().map(|own| {
        unschedulable.narrowed_by = own.by;
        let names = names_of(own.by);
        unschedulable.others = Some(format!("node(s) didn't satisfy plugin(s) [{names}]"));
        let nodes = own.nodes.iter().filter_map(|name| snapshot.node(name));
        nodes.map(|node| node.slot).collect()
    });
    let nodes = named.as_deref().unwrap_or(order);
    let enough = enough(nodes.len(), profile.percentage_of_nodes_to_score);
    let mut feasible = Vec::with_capacity(enough);
    for at in 0..nodes.len() {
        let slot = nodes[(start + at) % nodes.len()];
        match cycle.filter_beside_nominated(snapshot, snapshot.at(slot)) {
            Some(rejection) if rejection.is_failure => {
                let (plugin, why) = (rejection.plugin.name(), rejection.reasons.join(", "));
                let failed = format!("running {plugin:?} filter plugin: {why}");
                unschedulable.failed = Some(failed.into());
                return (Err(unschedulable), at + 1);
            }
            Some(rejection) => unschedulable.nodes.push((slot, rejection)),
            None => feasible.push(slot),
        }
        if feasible.len() == enough {
            break;
        }
    }
    let looked_at = feasible.len() + unschedulable.nodes.len();
    let best = match feasible.as_slice() {
        [] => {
            let devices = cycle.devices.as_ref();
            unschedulable.to_free =
                devices.and_then(|own| own.to_free(snapshot, pod, &unschedulable.nodes));
            return (Err(unschedulable), looked_at);
        }
        [only] => *only,
        more => best(more, &cycle.totals(snapshot, more)),
    };
    let chosen = chosen(&cycle, snapshot, best, [looked_at, feasible.len()]);
    (Ok(chosen), looked_at)
}

fn chosen(cycle: &Cycle<'_>, snapshot: &Snapshot, slot: Slot, counts: [usize; 2]) -> Chosen {
    let [evaluated, feasible] = counts;
    let storage = cycle.storage.as_ref();
    let volumes = storage.map(|own| own.volumes(snapshot, slot));
    let devices = cycle.devices.as_ref();
    let devices = devices.map(|own| own.on(snapshot, cycle.pod, slot));
    Chosen {
        devices: devices.unwrap_or_default(),
        volumes: volumes.unwrap_or_default(),
        node: snapshot.at(slot).name.clone(),
        evaluated,
        feasible,
    }
}

fn best(nodes: &[Slot], totals: &[i64]) -> Slot {
    let mut best = 0;
    for (at, total) in totals.iter().enumerate() {
        if *total > totals[best] {
            best = at;
        }
    }
    nodes[best]
}

/// How many nodes that will do are looked for among so many.
fn enough(nodes: usize, percentage: i64) -> usize {
    if nodes < MIN_FEASIBLE {
        return nodes;
    }
    let percent = match usize::try_from(percentage) {
        Ok(said) if said > 0 => said.min(100),
        _ => MOST_PERCENT
            .saturating_sub(nodes / NODES_PER_PERCENT)
            .max(MIN_PERCENT),
    };
    (nodes * percent / 100).max(MIN_FEASIBLE)
}

/// The whole decision for a pod, every node looked at.
pub fn explain(snapshot: &Snapshot, pod: &PodInfo, profile: &Profile) -> Explanation {
    let cycle = match Cycle::new(snapshot, pod, profile) {
        Ok(cycle) => cycle,
        Err(rejection) => {
            return Explanation {
                before: Some(rejection),
                verdicts: Vec::new(),
                scores: Vec::new(),
            };
        }
    };
    let mut feasible = Vec::new();
    let mut verdicts = Vec::new();
    let mut rejected = Vec::new();
    for node in snapshot.nodes() {
        let is_left_out = cycle
            .named
            .as_ref()
            .is_some_and(|own| !own.nodes.contains(&node.name));
        if is_left_out {
            continue;
        }
        let verdict = Verdict {
            node: node.name.clone(),
            rejection: cycle.filter_beside_nominated(snapshot, node),
        };
        if verdict.rejection.is_none() {
            feasible.push(node.slot);
            verdicts.push(verdict);
        } else {
            rejected.push(verdict);
        }
    }
    verdicts.append(&mut rejected);
    Explanation {
        before: None,
        verdicts,
        scores: cycle.scores(snapshot, &feasible),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_nodes_are_looked_for_the_more_there_are() {
        for (nodes, percentage, expected) in [
            (99, 0, 99),
            (100, 0, 100),
            (1000, 0, 420),
            (5000, 0, 500),
            (20_000, 0, 1000),
            (1000, 20, 200),
            (1000, 1, 100),
            (1000, 100, 1000),
        ] {
            assert_eq!(enough(nodes, percentage), expected, "{nodes} {percentage}");
        }
    }
}
