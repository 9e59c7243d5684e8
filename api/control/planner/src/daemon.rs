//! DaemonSets: one pod on every node that may have one.
//!
//! Invariants
//! - A node that may not have a pod gets none; with `maxSurge` a node has two while the
//!   older one serves and the newer is not available yet, and else one.
//! - A rolling update takes away no available pod that would leave more than
//!   `maxUnavailable` nodes without one.
//! - A pod that fails is replaced after a pause that doubles; how often that happened in a
//!   row stands in its successor's annotations.
//!
//! Source: `pkg/controller/daemon` of v1.37.

mod node;
mod pods;
mod revision;
mod update;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use nautilus_machinery::timestamp::Instant;
use serde_json::Value;

use self::node::{Eligibility, Runs};
use self::revision::Revisions;
use crate::controller::{Change, Controller};
use crate::kind::{CONTROLLER_REVISIONS, DAEMON_SETS, Kind, NODES, PODS};
use crate::object;
use crate::ownership;
use crate::plan::{Failed, Plan, Write};
use crate::view::{Key, View, Within};

/// Pods that a plan makes, and removes, at most.
const BURST_PODS: usize = 250;

/// The controller of DaemonSets.
pub(crate) struct DaemonSets;

impl Controller for DaemonSets {
    fn name(&self) -> &'static str {
        "daemon-set-controller"
    }

    fn component(&self) -> &'static str {
        "daemonset-controller"
    }

    fn follows(&self) -> &'static [Kind] {
        &[DAEMON_SETS, CONTROLLER_REVISIONS, NODES, PODS]
    }

    fn concerns(&self, view: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        match change.kind {
            DAEMON_SETS => keys.push(Key::of(change.object())),
            NODES => touched_by_node(view, change, keys),
            _ => ownership::concerned(view, DAEMON_SETS, change, keys),
        }
    }

    fn reconcile(&self, view: &dyn View, key: &Key, now: Instant) -> Plan {
        let mut plan = Plan::default();
        let Some(set) = view.get(DAEMON_SETS, &key.namespace, &key.name) else {
            return plan;
        };
        // Of a set on its way out, the collector may have its revisions first.
        let Some(selector) = ownership::selector(&set).filter(|_| !object::is_deleted(&set)) else {
            return plan;
        };
        let matches = |own: &Value| selector.matches(own);
        let mut revisions =
            ownership::claim(view, CONTROLLER_REVISIONS, DAEMON_SETS, &set, matches);
        let mut pods = ownership::claim(view, PODS, DAEMON_SETS, &set, matches);
        revisions.write(DAEMON_SETS, &set, &mut plan);
        pods.write(DAEMON_SETS, &set, &mut plan);
        if !plan.is_empty() {
            return plan;
        }
        let pods = pods.objects;
        let revisions = revision::find(view, &set, revisions.objects, &pods, &mut plan);
        let Some(revisions) = revisions else {
            return plan;
        };
        Look::new(view, &set, &pods, revisions, now).decide(&mut plan);
        plan
    }

    fn report(&self, view: &dyn View, key: &Key, _: Instant, failed: &Failed) -> Plan {
        let mut plan = Plan::default();
        if let Some(set) = view.get(DAEMON_SETS, &key.namespace, &key.name)
            && let Some(failure) = crate::pods::failure(DAEMON_SETS, &set, failed)
        {
            plan.then(failure.event);
        }
        plan
    }
}

/// The sets for which a node came to be another place than it was.
fn touched_by_node(view: &dyn View, change: &Change, keys: &mut Vec<Key>) {
    let place = |node: &Value| {
        [
            node["metadata"]["labels"].clone(),
            node["spec"]["taints"].clone(),
        ]
    };
    let places = [&change.before, &change.after].map(|node| node.as_deref().map(place));
    if places[0] == places[1] {
        return;
    }
    for set in view.list(DAEMON_SETS, Within::All) {
        let eligibility = Eligibility::of(&set);
        let runs = |node: &Option<Arc<Value>>| node.as_deref().map(|node| eligibility.runs(node));
        if runs(&change.before) != runs(&change.after) {
            keys.push(Key::of(&set));
        }
    }
}

/// One look at a set, its pods and the nodes.
struct Look<'a> {
    set: &'a Value,
    now: Instant,
    nodes: Vec<(Arc<Value>, Runs)>,
    /// The pods of each node, those left out that have ended and are on their way out.
    by_node: BTreeMap<String, Vec<Arc<Value>>>,
    all: &'a [Arc<Value>],
    revisions: Revisions,
}

/// What is to be done.
#[derive(Default)]
struct Todo {
    remove: Vec<Arc<Value>>,
    /// Nodes that get a pod, and how many failed there in a row.
    make: Vec<(String, u32)>,
    events: Vec<Write>,
}

impl<'a> Look<'a> {
    fn new(
        view: &dyn View,
        set: &'a Value,
        pods: &'a [Arc<Value>],
        revisions: Revisions,
        now: Instant,
    ) -> Self {
        let mut by_node: BTreeMap<String, Vec<Arc<Value>>> = BTreeMap::new();
        for pod in pods {
            if object::is_finished(pod) && object::is_deleted(pod) {
                continue;
            }
            if let Some(node) = pods::node_of(pod) {
                by_node
                    .entry(node.to_owned())
                    .or_default()
                    .push(pod.clone());
            }
        }
        for pods in by_node.values_mut() {
            pods.sort_by_cached_key(|pod| pods::age(pod));
        }
        let eligibility = Eligibility::of(set);
        let nodes = view.list(NODES, Within::All).into_iter();
        let nodes = nodes.map(|node| {
            let runs = eligibility.runs(&node);
            (node, runs)
        });
        Self {
            set,
            now,
            nodes: nodes.collect(),
            by_node,
            all: pods,
            revisions,
        }
    }

    fn decide(&self, plan: &mut Plan) {
        let mut todo = Todo::default();
        for (node, runs) in &self.nodes {
            self.keep_one(node, *runs, &mut todo, plan);
        }
        self.drop_lost(&mut todo);
        // What stands is put right before anything is updated.
        if todo.remove.is_empty() && todo.make.is_empty() {
            self.update(&mut todo);
        }
        plan.together(todo.events);
        todo.remove.truncate(BURST_PODS);
        let removals = todo.remove.iter();
        let removals = removals.map(|pod| crate::pods::delete(DAEMON_SETS, self.set, pod));
        plan.together(removals.collect());
        todo.make.truncate(BURST_PODS);
        let creations = todo.make.iter().map(|(node, failures)| {
            let pod = pods::on_node(self.set, &self.revisions.hash, node, *failures);
            crate::pods::create(DAEMON_SETS, self.set, pod)
        });
        plan.together(creations.collect());
        plan.together(self.revisions.obsolete(self.set, self.all));
        self.write_status(plan);
    }

    /// Brings a node to one pod, or to two that replace each other, or to none.
    fn keep_one(&self, node: &Value, runs: Runs, todo: &mut Todo, plan: &mut Plan) {
        let name = object::name(node);
        let Some(pods) = self.by_node.get(name) else {
            if runs.starts {
                todo.make.push((name.to_owned(), 0));
            }
            return;
        };
        let present = pods.iter().filter(|pod| !object::is_deleted(pod));
        if !runs.stays {
            todo.remove.extend(present.cloned());
            return;
        }
        let mut living: Vec<&Arc<Value>> = Vec::new();
        let mut failures = None;
        for pod in present {
            match pod["status"]["phase"].as_str() {
                Some("Failed") => match pods::pause(pod, self.now) {
                    Some(pause) => plan.again(pause),
                    None => {
                        failures = Some(pods::failures(pod, self.now) + 1);
                        self.replace(node, pod, "FailedDaemonPod", todo);
                    }
                },
                Some("Succeeded") => self.replace(node, pod, "SucceededDaemonPod", todo),
                _ => living.push(pod),
            }
        }
        if living.is_empty()
            && runs.starts
            && let Some(failures) = failures
        {
            todo.make.push((name.to_owned(), failures));
        } else if self.surges() {
            self.keep_surge(name, &living, runs.starts, todo);
        } else {
            todo.remove.extend(living.into_iter().skip(1).cloned());
        }
    }

    fn replace(&self, node: &Value, pod: &Arc<Value>, reason: &'static str, todo: &mut Todo) {
        let (pod_key, node) = (Key::of(pod), object::name(node));
        let event = match reason {
            "FailedDaemonPod" => Write::warning(
                DAEMON_SETS,
                self.set,
                reason,
                format!("Found failed daemon pod {pod_key} on node {node}, will try to kill it"),
            ),
            _ => Write::event(
                DAEMON_SETS,
                self.set,
                reason,
                format!(
                    "Found succeeded daemon pod {pod_key} on node {node}, will try to delete it"
                ),
            ),
        };
        todo.events.push(event);
        todo.remove.push(pod.clone());
    }

    /// Two pods may stand side by side: the oldest of the newest template, until it is
    /// available, and the oldest of another, while it is ready.
    fn keep_surge(&self, node: &str, living: &[&Arc<Value>], starts: bool, todo: &mut Todo) {
        if living.is_empty() && starts {
            todo.make.push((node.to_owned(), 0));
        }
        if living.len() <= 1 {
            return;
        }
        let is_new = |pod: &Value| object::label(pod, pods::HASH) == Some(&self.revisions.hash);
        let (new, old): (Vec<_>, Vec<_>) = living.iter().copied().partition(|pod| is_new(pod));
        let surplus = new.iter().skip(1).chain(old.iter().skip(1));
        todo.remove.extend(surplus.copied().cloned());
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!object::is_ready(old) || self.is_available(new))
        {
            todo.remove.push(Arc::clone(old));
        }
    }

    /// Pods that wait for nodes that are not there: no scheduler will ever bind them.
    fn drop_lost(&self, todo: &mut Todo) {
        let nodes = self.nodes.iter().map(|(node, _)| object::name(node));
        let nodes: BTreeSet<&str> = nodes.collect();
        for (node, pods) in &self.by_node {
            if !nodes.contains(node.as_str()) {
                let unbound = pods.iter().filter(|pod| !pods::is_bound(pod));
                todo.remove.extend(unbound.cloned());
            }
        }
    }

    fn is_available(&self, pod: &Value) -> bool {
        object::is_available(pod, self.min_ready_s(), self.now)
    }

    fn min_ready_s(&self) -> i64 {
        object::number(&self.set["spec"]["minReadySeconds"])
    }

    fn write_status(&self, plan: &mut Plan) {
        let mut status = self.set["status"].clone();
        let (mut desired, mut current, mut misplaced) = (0, 0, 0);
        let (mut ready, mut available, mut updated) = (0, 0, 0);
        for (node, runs) in &self.nodes {
            let pods = self.by_node.get(object::name(node));
            let oldest = pods.and_then(|pods| pods.first());
            if !runs.starts {
                misplaced += i64::from(oldest.is_some());
                continue;
            }
            desired += 1;
            let Some(oldest) = oldest else {
                continue;
            };
            current += 1;
            ready += i64::from(object::is_ready(oldest));
            available += i64::from(self.is_available(oldest));
            updated += i64::from(self.is_updated(oldest));
        }
        for (field, count) in [
            ("currentNumberScheduled", current),
            ("numberMisscheduled", misplaced),
            ("desiredNumberScheduled", desired),
            ("numberReady", ready),
        ] {
            if status[field] != count {
                status[field] = count.into();
            }
        }
        for (field, count) in [
            (
                "observedGeneration",
                object::number(&self.set["metadata"]["generation"]),
            ),
            ("updatedNumberScheduled", updated),
            ("numberAvailable", available),
            ("numberUnavailable", desired - available),
        ] {
            object::set_count(&mut status, field, count);
        }
        if status != self.set["status"] {
            let mut next = self.set.clone();
            next["status"] = status;
            plan.then(Write::status(DAEMON_SETS, next));
        }
        if self.min_ready_s() > 0 && ready != available {
            let pods = self.all.iter().map(|pod| &**pod);
            let after = crate::pods::until_available(pods, self.min_ready_s(), self.now);
            let whole = Duration::from_secs(self.min_ready_s().unsigned_abs());
            plan.again(after.unwrap_or(whole));
        }
    }
}

#[cfg(test)]
mod tests;
