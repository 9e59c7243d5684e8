//! Nearness of pods: a pod's own terms, and those of pods that are there already.
//!
//! Source: plugin `InterPodAffinity`. Terms are held against classes of pods, and counted by
//! the values that nodes' labels have.

use std::sync::Arc;

use super::affinity_term::{AffinityTerm, PodAffinities};
use super::classes::Class;
use super::fit::MAX_SCORE;
use super::label_index::Slot;
use super::plugin::Plugin;
use super::pod::PodInfo;
use super::profile::Profile;
use super::rejection::Rejection;
use super::snapshot::Snapshot;

/// Numbers by the values of labels.
#[derive(Debug, Clone, Default)]
struct Counts {
    /// By column, then by value.
    columns: Vec<(usize, Vec<i64>)>,
    /// How many are not zero.
    filled: usize,
}

impl Counts {
    fn add(&mut self, snapshot: &Snapshot, column: usize, slot: Slot, more: i64) {
        let value = snapshot.labels.value(column, slot) as usize;
        if value == 0 {
            return;
        }
        let place = self.columns.iter().position(|(own, _)| *own == column);
        let place = place.unwrap_or_else(|| {
            let values = snapshot.labels.values(column);
            self.columns.push((column, vec![0; values]));
            self.columns.len() - 1
        });
        let count = &mut self.columns[place].1[value];
        let was_filled = *count != 0;
        *count += more;
        match (was_filled, *count != 0) {
            (false, true) => self.filled += 1,
            (true, false) => self.filled -= 1,
            _ => {}
        }
    }

    /// Of a term, on all nodes of a class.
    fn add_class(&mut self, snapshot: &Snapshot, term: &AffinityTerm, class: &Class, weight: i64) {
        if let Some(column) = snapshot.labels.column(&term.topology_key) {
            for (slot, count) in &class.nodes {
                self.add(snapshot, column, *slot, weight * i64::from(*count));
            }
        }
    }

    /// Of a term, on one node.
    fn add_one(&mut self, snapshot: &Snapshot, term: &AffinityTerm, slot: Slot, more: i64) {
        if let Some(column) = snapshot.labels.column(&term.topology_key) {
            self.add(snapshot, column, slot, more);
        }
    }

    fn at(&self, snapshot: &Snapshot, column: usize, slot: Slot) -> i64 {
        let value = snapshot.labels.value(column, slot) as usize;
        let counts = self.columns.iter().find(|(own, _)| *own == column);
        counts.map_or(0, |(_, counts)| counts[value])
    }

    /// Over all labels of a node.
    fn sum(&self, snapshot: &Snapshot, slot: Slot) -> i64 {
        let columns = self.columns.iter();
        columns
            .map(|(column, counts)| counts[snapshot.labels.value(*column, slot) as usize])
            .sum()
    }

    fn has_any(&self, snapshot: &Snapshot, slot: Slot) -> bool {
        let mut columns = self.columns.iter();
        columns.any(|(column, counts)| counts[snapshot.labels.value(*column, slot) as usize] > 0)
    }
}

/// What a node must be by terms of pods.
#[derive(Debug, Clone)]
pub(super) struct InterPod {
    terms: Arc<PodAffinities>,
    /// Pods that all of the pod's terms mean.
    near: Counts,
    /// Pods that one of its terms keeps away from.
    far: Counts,
    /// Pods that keep away from it.
    shunned: Counts,
    /// Whether its own terms mean the pod itself.
    means_itself: bool,
}

impl InterPod {
    /// `None`: nobody has anything to say.
    pub(super) fn new(snapshot: &Snapshot, pod: &PodInfo) -> Option<Self> {
        let mut shunned = Counts::default();
        for class in snapshot.classes.with_terms() {
            for term in &class.example.affinities.required_anti {
                if meets(snapshot, term, pod) {
                    shunned.add_class(snapshot, term, class, 1);
                }
            }
        }
        let terms = pod.affinities.clone();
        if shunned.filled == 0 && terms.required.is_empty() && terms.required_anti.is_empty() {
            return None;
        }
        let (mut near, mut far) = (Counts::default(), Counts::default());
        if let Some(first) = terms.required.first() {
            for class in meant(snapshot, first) {
                if meets_all(snapshot, &terms.required, &class.example) {
                    for term in &terms.required {
                        near.add_class(snapshot, term, class, 1);
                    }
                }
            }
        }
        for term in &terms.required_anti {
            for class in meant(snapshot, term) {
                far.add_class(snapshot, term, class, 1);
            }
        }
        Some(Self {
            means_itself: meets_all(snapshot, &terms.required, pod),
            terms,
            near,
            far,
            shunned,
        })
    }

    /// Why a node will not do.
    pub(super) fn filter(&self, snapshot: &Snapshot, slot: Slot) -> Option<Rejection> {
        let plugin = Plugin::InterPodAffinity;
        if !self.is_near(snapshot, slot) {
            let reason = "node(s) didn't match pod affinity rules";
            return Some(Rejection::final_one(plugin, reason));
        }
        if self.far.has_any(snapshot, slot) {
            let reason = "node(s) didn't match pod anti-affinity rules";
            return Some(Rejection::resolvable(plugin, reason));
        }
        if self.shunned.has_any(snapshot, slot) {
            let reason = "node(s) didn't satisfy existing pods anti-affinity rules";
            return Some(Rejection::resolvable(plugin, reason));
        }
        None
    }

    /// Every term has a pod in the node's domain; or no pod anywhere, and the pod is the
    /// first of those that its terms mean.
    fn is_near(&self, snapshot: &Snapshot, slot: Slot) -> bool {
        let mut all_there = true;
        for term in &self.terms.required {
            let column = snapshot.labels.column(&term.topology_key);
            let column = column.filter(|own| snapshot.labels.value(*own, slot) != 0);
            let Some(column) = column else {
                return false;
            };
            all_there &= self.near.at(snapshot, column, slot) > 0;
        }
        all_there || (self.near.filled == 0 && self.means_itself)
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
        for term in &pod.affinities.required_anti {
            if meets(snapshot, term, for_pod) {
                self.shunned.add_one(snapshot, term, slot, more);
            }
        }
        if meets_all(snapshot, &self.terms.required, pod) {
            for term in &self.terms.required {
                self.near.add_one(snapshot, term, slot, more);
            }
        }
        for term in &self.terms.required_anti {
            if meets(snapshot, term, pod) {
                self.far.add_one(snapshot, term, slot, more);
            }
        }
    }
}

fn meets(snapshot: &Snapshot, term: &AffinityTerm, pod: &PodInfo) -> bool {
    let labels = snapshot.namespace_labels(&pod.namespace);
    term.matches(&pod.namespace, labels, &pod.labels)
}

/// No terms mean nobody.
fn meets_all(snapshot: &Snapshot, terms: &[AffinityTerm], pod: &PodInfo) -> bool {
    !terms.is_empty() && terms.iter().all(|term| meets(snapshot, term, pod))
}

/// The classes that a term means.
fn meant<'a>(snapshot: &'a Snapshot, term: &'a AffinityTerm) -> impl Iterator<Item = &'a Class> {
    let namespaces = snapshot.classes.namespaces();
    namespaces
        .filter(|own| term.means(own, snapshot.namespace_labels(own)))
        .flat_map(|own| snapshot.classes.of_namespace(own))
        .filter(|class| meets(snapshot, term, &class.example))
}

/// How much `nodes` are liked by a pod, and by pods that are there; `None`: nobody minds.
pub(super) fn scores(
    snapshot: &Snapshot,
    pod: &PodInfo,
    profile: &Profile,
    nodes: &[Slot],
) -> Option<Vec<i64>> {
    let terms = &pod.affinities;
    let prefers = !terms.preferred.is_empty() || !terms.preferred_anti.is_empty();
    if profile.ignores_existing_preferences && !prefers {
        return None;
    }
    let mut counts = Counts::default();
    let own = terms.preferred.iter().map(|(weight, term)| (*weight, term));
    let own_anti = terms.preferred_anti.iter();
    let own = own.chain(own_anti.map(|(weight, term)| (-weight, term)));
    for (weight, term) in own {
        for class in meant(snapshot, term) {
            counts.add_class(snapshot, term, class, weight);
        }
    }
    for class in snapshot.classes.with_terms() {
        let theirs = &class.example.affinities;
        let required = theirs.required.iter();
        let required = required.map(|term| (profile.hard_affinity_weight, term));
        let preferred = theirs
            .preferred
            .iter()
            .map(|(weight, term)| (*weight, term));
        let anti = theirs.preferred_anti.iter();
        let anti = anti.map(|(weight, term)| (-weight, term));
        for (weight, term) in required.chain(preferred).chain(anti) {
            if meets(snapshot, term, pod) {
                counts.add_class(snapshot, term, class, weight);
            }
        }
    }
    if counts.columns.is_empty() {
        return None;
    }
    let sums: Vec<i64> = nodes
        .iter()
        .map(|slot| counts.sum(snapshot, *slot))
        .collect();
    Some(stretched(&sums))
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "the reference computes in float64"
)]
fn stretched(sums: &[i64]) -> Vec<i64> {
    let least = sums.iter().copied().min().unwrap_or_default();
    let most = sums.iter().copied().max().unwrap_or_default();
    let range = (most - least) as f64;
    let score = |own: &i64| match most == least {
        true => 0,
        false => (MAX_SCORE as f64 * ((own - least) as f64 / range)) as i64,
    };
    sums.iter().map(score).collect()
}
