//! Even numbers of like pods over the domains that nodes make.
//!
//! Source: plugin `PodTopologySpread`.

use std::sync::Arc;

use nautilus_machinery::selector::LabelSelector;
use serde_json::{Value, json};

use super::affinity_term::{SpreadConstraint, selects};
use super::fit::MAX_SCORE;
use super::label_index::{NodeSet, Slot};
use super::node::NodeInfo;
use super::plugin::Plugin;
use super::pod::PodInfo;
use super::profile::Profile;
use super::rejection::Rejection;
use super::snapshot::Snapshot;
use crate::kind;
use crate::object;

const HOSTNAME: &str = "kubernetes.io/hostname";

/// The constraints that a node must keep, with what is in each domain.
#[derive(Debug, Clone)]
pub(super) struct Spread {
    constraints: Vec<Counted>,
}

#[derive(Debug, Clone)]
struct Counted {
    constraint: SpreadConstraint,
    /// Of the nodes' labels; `None`: no node has it.
    column: Option<usize>,
    /// The nodes whose pods count.
    counting: NodeSet,
    /// Pods by the label's value; `None`: no domain.
    counts: Vec<Option<i64>>,
    /// In the emptiest domain.
    least: i64,
    /// 1: the pod itself is one of those that are counted.
    own: i64,
}

impl Spread {
    /// `None`: the pod has no such constraints.
    pub(super) fn new(snapshot: &Snapshot, pod: &PodInfo, profile: &Profile) -> Option<Self> {
        let constraints = constraints(snapshot, pod, profile, true);
        if constraints.is_empty() {
            return None;
        }
        let columns = columns(snapshot, &constraints);
        let eligible = Eligible::new(snapshot, pod);
        let whole = |node: &NodeInfo| has_all(snapshot, &columns, node.slot);
        let mut counts = PodCounts::default();
        let counted = constraints.into_iter().zip(&columns);
        let counted = counted.map(|(constraint, column)| {
            let mut own = Counted {
                own: i64::from(selects(constraint.selector.as_ref(), &pod.labels)),
                column: *column,
                counting: NodeSet::none(snapshot.slots()),
                counts: vec![None; column.map_or(0, |own| snapshot.labels.values(own))],
                least: 0,
                constraint,
            };
            let pods = counts.of(snapshot, pod, own.constraint.selector.as_ref());
            for node in snapshot.nodes().filter(|node| whole(node)) {
                if eligible.counts(&own.constraint, node) {
                    own.counting.insert(node.slot);
                    let value = own.value(snapshot, node.slot);
                    let count = own.counts[value].get_or_insert(0);
                    *count += i64::from(pods[node.slot as usize]);
                }
            }
            own.settle();
            own
        });
        Some(Self {
            constraints: counted.collect(),
        })
    }

    /// Why a node will not do.
    pub(super) fn filter(&self, snapshot: &Snapshot, slot: Slot) -> Option<Rejection> {
        let plugin = Plugin::PodTopologySpread;
        for own in &self.constraints {
            let value = own.value(snapshot, slot);
            if value == 0 {
                let reason = "node(s) didn't match pod topology spread constraints \
                              (missing required label)";
                return Some(Rejection::final_one(plugin, reason));
            }
            let count = own.counts[value].unwrap_or_default();
            if count + own.own - own.least > own.constraint.max_skew {
                let reason = "node(s) didn't match pod topology spread constraints";
                return Some(Rejection::resolvable(plugin, reason));
            }
        }
        None
    }

    /// What would be with so many more of a pod on a node.
    pub(super) fn change(
        &mut self,
        snapshot: &Snapshot,
        for_pod: &PodInfo,
        pod: &PodInfo,
        slot: Slot,
        more: i64,
    ) {
        if pod.namespace != for_pod.namespace || pod.is_terminating {
            return;
        }
        for own in &mut self.constraints {
            if own.counting.contains(slot) && selects(own.constraint.selector.as_ref(), &pod.labels)
            {
                let value = own.value(snapshot, slot);
                *own.counts[value].get_or_insert(0) += more;
                own.settle();
            }
        }
    }
}

impl Counted {
    fn value(&self, snapshot: &Snapshot, slot: Slot) -> usize {
        let value = self.column.map(|own| snapshot.labels.value(own, slot));
        value.unwrap_or_default() as usize
    }

    fn settle(&mut self) {
        let domains = self.counts.iter().flatten();
        let least = match domains.clone().count() < self.constraint.min_domains {
            true => None,
            false => domains.min(),
        };
        self.least = least.copied().unwrap_or_default();
    }
}

/// A pod's constraints, or the profile's where it has none, as far as they must be kept or
/// are only liked.
fn constraints(
    snapshot: &Snapshot,
    pod: &PodInfo,
    profile: &Profile,
    is_required: bool,
) -> Vec<SpreadConstraint> {
    let chosen = |all: &[SpreadConstraint]| -> Vec<SpreadConstraint> {
        let chosen = all.iter().filter(|own| own.is_required == is_required);
        chosen.cloned().collect()
    };
    if !pod.spread.is_empty() {
        return chosen(&pod.spread);
    }
    let mut constraints = chosen(&profile.default_spread);
    if constraints.is_empty() {
        return constraints;
    }
    let Some(selector) = workload_selector(snapshot, pod) else {
        return Vec::new();
    };
    for own in &mut constraints {
        own.selector = Some(selector.clone());
    }
    constraints
}

/// Selects the pods of the same services and the same workload; `None`: there are none.
fn workload_selector(snapshot: &Snapshot, pod: &PodInfo) -> Option<LabelSelector> {
    let mut expressions: Vec<Value> = Vec::new();
    let mut require = |labels: &Value| {
        for (key, value) in labels.as_object().into_iter().flatten() {
            // As maps are merged: the last word on a key counts.
            expressions.retain(|own| own["key"] != key.as_str());
            expressions.push(json!({"key": key, "operator": "In", "values": [value]}));
        }
    };
    for service in snapshot.list(kind::SERVICES, &pod.namespace) {
        let selector = &service["spec"]["selector"];
        let labels = selector.as_object().into_iter().flatten();
        let mut labels = labels.map(|(key, value)| (pod.labels.get(key), value.as_str()));
        if labels.all(|(own, value)| own.map(String::as_str) == value) {
            require(selector);
        }
    }
    let owner = object::controller(&pod.object);
    let owner = owner.and_then(|owner| {
        let of_owner = |kind: kind::Kind| {
            let is_it = owner["kind"] == kind.kind && owner["apiVersion"] == kind.api_version();
            let name = owner["name"].as_str().filter(|_| is_it)?;
            Some(&snapshot.get(kind, &pod.namespace, name)?["spec"]["selector"])
        };
        if let Some(labels) = of_owner(kind::REPLICATION_CONTROLLERS) {
            require(labels);
        }
        of_owner(kind::REPLICA_SETS).or_else(|| of_owner(kind::STATEFUL_SETS))
    });
    let mut selector = owner.cloned().unwrap_or_else(|| json!({}));
    let of_owner = object::items(&selector["matchExpressions"]).cloned();
    expressions.extend(of_owner);
    selector["matchExpressions"] = expressions.into();
    let selector = LabelSelector::of_object(&selector).ok()?;
    (!selector.is_empty()).then_some(selector)
}

fn columns(snapshot: &Snapshot, constraints: &[SpreadConstraint]) -> Vec<Option<usize>> {
    let keys = constraints.iter().map(|own| &own.topology_key);
    keys.map(|key| snapshot.labels.column(key)).collect()
}

fn has_all(snapshot: &Snapshot, columns: &[Option<usize>], slot: Slot) -> bool {
    let has =
        |column: &Option<usize>| column.is_some_and(|own| snapshot.labels.value(own, slot) != 0);
    columns.iter().all(has)
}

/// Which nodes count for a constraint.
struct Eligible {
    required: Option<NodeSet>,
    untolerated: Vec<bool>,
}

impl Eligible {
    fn new(snapshot: &Snapshot, pod: &PodInfo) -> Self {
        let required = &pod.required_node;
        Self {
            required: (!required.is_empty()).then(|| snapshot.matching(required)),
            untolerated: snapshot.untolerated(&pod.tolerations),
        }
    }

    fn counts(&self, constraint: &SpreadConstraint, node: &NodeInfo) -> bool {
        let allows = |set: &NodeSet| set.contains(node.slot);
        (!constraint.honors_affinity || self.required.as_ref().is_none_or(allows))
            && (!constraint.honors_taints
                || !node
                    .taints
                    .iter()
                    .any(|own| self.untolerated[*own as usize]))
    }
}

/// Pods by node that selectors select; constraints often have one selector.
#[derive(Default)]
struct PodCounts {
    last: Option<(Option<LabelSelector>, Arc<[u32]>)>,
}

impl PodCounts {
    fn of(
        &mut self,
        snapshot: &Snapshot,
        pod: &PodInfo,
        selector: Option<&LabelSelector>,
    ) -> Arc<[u32]> {
        if let Some((last, counts)) = &self.last
            && last.as_ref() == selector
        {
            return counts.clone();
        }
        let mut counts = vec![0; snapshot.slots()];
        // A selector that selects everything counts nothing, as in the reference.
        if selector.is_some_and(|own| !own.is_empty()) {
            for class in snapshot.classes.of_namespace(&pod.namespace) {
                let example = &class.example;
                if !example.is_terminating && selects(selector, &example.labels) {
                    for (slot, count) in &class.nodes {
                        counts[*slot as usize] += count;
                    }
                }
            }
        }
        let counts: Arc<[u32]> = counts.into();
        self.last = Some((selector.cloned(), counts.clone()));
        counts
    }
}

/// How far `nodes` are from crowding like pods; `None`: the pod does not mind.
pub(super) fn scores(
    snapshot: &Snapshot,
    pod: &PodInfo,
    profile: &Profile,
    nodes: &[Slot],
) -> Option<Vec<i64>> {
    let constraints = constraints(snapshot, pod, profile, false);
    if constraints.is_empty() {
        return None;
    }
    let needs_all = !pod.spread.is_empty() || !profile.is_system_spread;
    let columns = columns(snapshot, &constraints);
    let is_ignored = |slot: Slot| needs_all && !has_all(snapshot, &columns, slot);
    let ignored: Vec<bool> = nodes.iter().map(|slot| is_ignored(*slot)).collect();
    let eligible = Eligible::new(snapshot, pod);
    let mut counts = PodCounts::default();
    let mut sums = vec![0.0; nodes.len()];
    for (constraint, column) in constraints.iter().zip(&columns) {
        let pods = counts.of(snapshot, pod, constraint.selector.as_ref());
        let value = |slot: Slot| {
            let value = column.map(|own| snapshot.labels.value(own, slot));
            value.unwrap_or_default() as usize
        };
        let is_host = constraint.topology_key == HOSTNAME;
        let mut domains: Vec<Option<i64>> =
            vec![None; column.map_or(0, |own| snapshot.labels.values(own)).max(1)];
        let looked_at = nodes.iter().zip(&ignored).filter(|(_, ignored)| !**ignored);
        let size = if is_host {
            looked_at.count()
        } else {
            looked_at.for_each(|(slot, _)| domains[value(*slot)] = Some(0));
            for node in snapshot.nodes().filter(|node| !is_ignored(node.slot)) {
                if let Some(count) = &mut domains[value(node.slot)]
                    && eligible.counts(constraint, node)
                {
                    *count += i64::from(pods[node.slot as usize]);
                }
            }
            domains.iter().flatten().count()
        };
        for ((sum, slot), _) in sums
            .iter_mut()
            .zip(nodes)
            .zip(&ignored)
            .filter(|((_, slot), ignored)| !**ignored && value(**slot) != 0)
        {
            let count = match is_host {
                true => i64::from(pods[*slot as usize]),
                false => domains[value(*slot)].unwrap_or_default(),
            };
            *sum += crowding(count, size, constraint.max_skew);
        }
    }
    Some(normalized(&sums, &ignored))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the reference computes in float64"
)]
fn crowding(count: i64, domains: usize, max_skew: i64) -> f64 {
    count as f64 * ((domains + 2) as f64).ln() + (max_skew - 1) as f64
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the reference rounds to integers"
)]
fn normalized(sums: &[f64], ignored: &[bool]) -> Vec<i64> {
    let rounded: Vec<i64> = sums.iter().map(|own| own.round() as i64).collect();
    let counted = || {
        rounded
            .iter()
            .zip(ignored)
            .filter(|(_, ignored)| !**ignored)
    };
    let least = counted().map(|(own, _)| *own).min().unwrap_or_default();
    let most = counted().map(|(own, _)| *own).max().unwrap_or_default();
    let score = |(own, ignored): (&i64, &bool)| match (ignored, most) {
        (true, _) => 0,
        (false, 0) => MAX_SCORE,
        (false, most) => MAX_SCORE * (most + least - own) / most,
    };
    rounded.iter().zip(ignored).map(score).collect()
}
