//! Which pods go so that a more important one has room.
//!
//! Source: `pkg/scheduler/framework/preemption`. On every node where it may help, all less
//! important pods are taken away in thought; those without whose removal the pod fits come
//! back, the most important ones first, and first those that a disruption budget protects.
//! The best of these nodes is chosen.
//!
//! Invariants
//! - A victim is less important than the pod that it makes room for.
//! - A [`Room`] is left as it was found.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nautilus_machinery::selector::LabelSelector;
use nautilus_machinery::timestamp::Instant;
use serde_json::Value;

use super::affinity_term;
use super::label_index::Slot;
use super::pod::PodInfo;
use crate::object;

/// Nodes on which victims were found that are enough to choose from, at least.
const CANDIDATES: usize = 100;
/// The same in percent of the nodes where preemption may help.
const CANDIDATES_PERCENT: usize = 10;
/// Why no pod of a node can go.
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
/// Why a node was not even looked at.
const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";

/// Nodes, and pods on them that can be taken away in thought.
pub trait Room {
    /// The pods of a node.
    fn pods(&self, node: Slot) -> Vec<Arc<PodInfo>>;

    /// A pod leaves its node.
    fn take(&mut self, node: Slot, pod: &Arc<PodInfo>);

    /// A pod that left its node comes back.
    fn put(&mut self, node: Slot, pod: &Arc<PodInfo>);

    /// Whether the pod that wants room fits on a node now, or why not.
    ///
    /// # Errors
    /// The reasons, as messages tell them.
    fn fits(&mut self, node: Slot) -> Result<(), Vec<String>>;
}

/// What comes of a look for victims.
#[derive(Debug, Clone)]
pub enum Preemption {
    /// Room is made on a node.
    Found(Candidate),
    /// None can be made; a nomination from before is void.
    None {
        /// Nodes of the cluster.
        nodes: usize,
        /// How many of them can't have room made, by the reason.
        reasons: BTreeMap<String, usize>,
    },
    /// The pod may not, or room is being made for it already.
    NotEligible(&'static str),
}

/// A node, and the pods that go from it.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The node.
    pub node: Slot,
    /// The most important first.
    pub victims: Vec<Arc<PodInfo>>,
    /// How many of them a disruption budget would have kept.
    pub violations: usize,
}

impl Preemption {
    /// No pod's end helps on any of so many nodes.
    pub fn none(nodes: usize) -> Self {
        Self::None {
            nodes,
            reasons: BTreeMap::from([(NOT_HELPFUL.to_owned(), nodes)]),
        }
    }

    /// What is added to the message of why the pod has no node. `name` gives a node's name.
    pub fn message(&self, name: impl Fn(Slot) -> String) -> String {
        match self {
            Self::Found(candidate) => format!(
                "preemption: found a potential placement for pod on node {}, preempting {} victims",
                name(candidate.node),
                candidate.victims.len()
            ),
            Self::None { nodes, reasons } => {
                format!("preemption: {}", no_node(*nodes, reasons))
            }
            Self::NotEligible(why) => format!("preemption: {why}"),
        }
    }
}

/// `0/5 nodes are available: 3 Insufficient cpu, 2 node(s) were unschedulable.`
pub fn no_node(nodes: usize, reasons: &BTreeMap<String, usize>) -> String {
    let mut parts: Vec<String> = reasons
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    parts.sort();
    let reasons = match parts.is_empty() {
        true => String::new(),
        false => format!(" {}.", parts.join(", ")),
    };
    format!("0/{nodes} nodes are available:{reasons}")
}

/// Budgets, as the pods that go count against them.
pub struct Budgets(Vec<Budget>);

struct Budget {
    namespace: String,
    selector: LabelSelector,
    allowed: i64,
    /// Pods that were let go already.
    disrupted: BTreeSet<String>,
}

impl Budgets {
    /// Those of disruption budgets' objects. One whose selector selects everything, or
    /// can't be read, protects nothing.
    pub fn of<'a>(objects: impl IntoIterator<Item = &'a Value>) -> Self {
        let budgets = objects.into_iter().filter_map(|own| {
            let selector = LabelSelector::of_object(&own["spec"]["selector"]).ok()?;
            let disrupted = own["status"]["disruptedPods"].as_object();
            (!selector.is_empty()).then(|| Budget {
                namespace: object::namespace(own).to_owned(),
                selector,
                allowed: own["status"]["disruptionsAllowed"].as_i64().unwrap_or(0),
                disrupted: disrupted
                    .into_iter()
                    .flatten()
                    .map(|(name, _)| name.clone())
                    .collect(),
            })
        });
        Self(budgets.collect())
    }

    /// Of pods, the most important first, those that budgets protect and the others.
    fn protected(&self, pods: Vec<Arc<PodInfo>>) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
        let mut allowed: Vec<i64> = self.0.iter().map(|own| own.allowed).collect();
        pods.into_iter().partition(|pod| {
            self.0.iter().zip(&mut allowed).any(|(budget, left)| {
                if !budget.protects(pod) {
                    return false;
                }
                *left -= 1;
                *left < 0
            })
        })
    }
}

impl Budget {
    fn protects(&self, pod: &PodInfo) -> bool {
        self.namespace == pod.namespace
            && !pod.labels.is_empty()
            && affinity_term::selects(Some(&self.selector), &pod.labels)
            && !self.disrupted.contains(&pod.name)
    }
}

/// Who wants room.
pub struct Preemptor<'a> {
    /// The pod.
    pub pod: &'a PodInfo,
    /// The node it was nominated for, while that node turns it away for something that
    /// the end of pods can change.
    pub nominated: Option<Slot>,
}

impl Preemptor<'_> {
    /// Looks for victims on `nodes`, those that turn the pod away for something that the
    /// end of pods can change, beginning at `offset`; the cluster has `all` nodes.
    pub fn preempt(
        &self,
        room: &mut impl Room,
        nodes: &[Slot],
        all: usize,
        budgets: &Budgets,
        offset: usize,
        now: Instant,
    ) -> Preemption {
        if let Err(why) = self.is_eligible(room) {
            return Preemption::NotEligible(why);
        }
        let enough = (nodes.len() * CANDIDATES_PERCENT / 100)
            .max(CANDIDATES)
            .min(nodes.len());
        let mut candidates = Vec::new();
        let mut reasons = BTreeMap::new();
        let mut unviolated = 0;
        let rotated = nodes.iter().cycle().skip(offset % nodes.len().max(1));
        for node in rotated.take(nodes.len()) {
            match self.victims(room, *node, budgets, now) {
                Ok(candidate) => {
                    unviolated += usize::from(candidate.violations == 0);
                    candidates.push(candidate);
                }
                Err(why) => {
                    for reason in why {
                        *reasons.entry(reason).or_default() += 1;
                    }
                }
            }
            if unviolated > 0 && candidates.len() >= enough {
                break;
            }
        }
        match choose(candidates, now) {
            Some(candidate) => Preemption::Found(candidate),
            None => {
                if all > nodes.len() {
                    *reasons.entry(NOT_HELPFUL.to_owned()).or_default() += all - nodes.len();
                }
                Preemption::None {
                    nodes: all,
                    reasons,
                }
            }
        }
    }

    fn is_eligible(&self, room: &impl Room) -> Result<(), &'static str> {
        if self.pod.object["spec"]["preemptionPolicy"] == "Never" {
            return Err("not eligible due to preemptionPolicy=Never.");
        }
        let nominated = self.nominated.map(|node| room.pods(node));
        let ends = |pod: &Arc<PodInfo>| {
            pod.priority < self.pod.priority && ends_by_preemption(&pod.object)
        };
        match nominated.is_some_and(|pods| pods.iter().any(ends)) {
            true => Err("not eligible due to a terminating pod on the nominated node."),
            false => Ok(()),
        }
    }

    /// The fewest and least important pods whose end makes room on a node.
    fn victims(
        &self,
        room: &mut impl Room,
        node: Slot,
        budgets: &Budgets,
        now: Instant,
    ) -> Result<Candidate, Vec<String>> {
        let mut pods = room.pods(node);
        pods.retain(|pod| pod.priority < self.pod.priority);
        if pods.is_empty() {
            return Err(vec![NO_VICTIMS.to_owned()]);
        }
        by_importance(&mut pods, now);
        pods.iter().for_each(|pod| room.take(node, pod));
        if let Err(why) = room.fits(node) {
            pods.iter().for_each(|pod| room.put(node, pod));
            return Err(why);
        }
        let (protected, others) = budgets.protected(pods);
        let mut victims = Vec::new();
        reprieve(room, node, protected, &mut victims);
        let violations = victims.len();
        reprieve(room, node, others, &mut victims);
        victims.iter().for_each(|pod| room.put(node, pod));
        if victims.is_empty() {
            // It fits without any pod's end: it was turned away before something changed.
            return Err(Vec::new());
        }
        by_importance(&mut victims, now);
        Ok(Candidate {
            node,
            victims,
            violations,
        })
    }
}

/// Pods come back for as long as there is room; the others are victims.
fn reprieve(
    room: &mut impl Room,
    node: Slot,
    pods: Vec<Arc<PodInfo>>,
    victims: &mut Vec<Arc<PodInfo>>,
) {
    for pod in pods {
        room.put(node, &pod);
        if room.fits(node).is_err() {
            room.take(node, &pod);
            victims.push(pod);
        }
    }
}

/// Whether a pod ends because it made room.
pub fn ends_by_preemption(pod: &Value) -> bool {
    object::is_deleted(pod)
        && object::condition(pod, "DisruptionTarget")
            .is_some_and(|own| own["status"] == "True" && own["reason"] == "PreemptionByScheduler")
}

/// Higher priorities first, then those that have run for longer.
fn by_importance(pods: &mut [Arc<PodInfo>], now: Instant) {
    pods.sort_by_key(|pod| (Reverse(pod.priority), started(pod, now)));
}

fn started(pod: &PodInfo, now: Instant) -> Instant {
    object::time(&pod.object["status"]["startTime"]).unwrap_or(now)
}

/// The node where the fewest budgets are broken; of these the one whose most important
/// victim is the least important; then by the sum of priorities, the number of victims,
/// and the most important ones' time of running.
fn choose(candidates: Vec<Candidate>, now: Instant) -> Option<Candidate> {
    candidates.into_iter().min_by_key(|candidate| {
        let highest = candidate.victims.first().map(|pod| pod.priority);
        // Above zero, so that more victims never weigh less.
        let weight = |pod: &Arc<PodInfo>| pod.priority.saturating_add(1 << 31);
        let sum: i64 = candidate.victims.iter().map(weight).sum();
        let longest = candidate.victims.first().map(|pod| started(pod, now));
        (
            candidate.violations,
            highest,
            sum,
            candidate.victims.len(),
            Reverse(longest),
        )
    })
}

#[cfg(test)]
#[path = "preempt/tests.rs"]
mod tests;
