//! The scheduler as a machine of states: told what changes in the cluster, it says one pod
//! after the other where it goes, or why nowhere, and is told what came of that.
//!
//! Invariants
//! - A pod is placed once at a time: from its placement until that fails, or its binding is
//!   seen, it counts on its node and is not in the queue's turn.
//! - Everything follows from the objects and what is under way: after a lost leader the next
//!   one begins with the objects, and the API binds no pod twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nautilus_machinery::timestamp::Instant;
use serde_json::Value;

use super::devices;
use super::hints::{Aspect, Happened};
use super::label_index::Slot;
use super::plugin::{Plugin, Plugins};
use super::pod::{PodDeviceClaim, PodInfo};
use super::preempt::{Budgets, Candidate, Preemption, Preemptor};
use super::profile::Profile;
use super::queue::{Attempt, Queue};
use super::rejection::Unschedulable;
use super::search::{self, Chosen};
use super::snapshot::Snapshot;
use super::trial::Trial;
use crate::controller::Change;
use crate::kind::{self, Kind};
use crate::object;
use crate::view::Key;

/// See the module.
pub struct Scheduler {
    profiles: Vec<Profile>,
    snapshot: Snapshot,
    queue: Queue,
    budgets: BTreeMap<Key, Arc<Value>>,
    /// Pods that wait, by the claims on devices that they name.
    users: BTreeMap<Key, BTreeSet<Key>>,
    /// Where the next look for victims starts.
    offset: usize,
}

/// What comes of one attempt to find a node.
#[derive(Debug, Clone)]
pub enum Decision {
    /// The pod goes to a node. What came of it is told by [`Scheduler::failed`], or seen.
    Place(Placement),
    /// It has none. With victims, what came of their end is told by
    /// [`Scheduler::preempted`].
    Wait(Wait),
    /// Something went wrong. It is tried again after a while.
    Fail(Failure),
    /// It is on its way out: no node is looked for.
    Skip(Arc<PodInfo>),
}

/// A pod and its node.
#[derive(Debug, Clone)]
pub struct Placement {
    /// What the queue knows of it.
    pub attempt: Attempt,
    /// How it was chosen.
    pub chosen: Chosen,
}

/// A pod for which no node could be looked for.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What the queue knows of it.
    pub attempt: Attempt,
    /// What went wrong.
    pub message: String,
}

/// A pod without a node.
#[derive(Debug, Clone)]
pub struct Wait {
    /// What the queue knows of it.
    pub attempt: Attempt,
    /// Why no node will do, in the words that users know.
    pub message: String,
    /// The node that is being made free for it; empty: none is; `None`: as it was.
    pub nominated: Option<String>,
    /// Who goes for it.
    pub victims: Vec<Arc<PodInfo>>,
    /// Less important pods that the same node was being made free for: theirs is no more.
    pub displaced: Vec<Arc<PodInfo>>,
    /// Whether a look for victims was taken, and how many budgets it breaks.
    pub preemption: Option<usize>,
    /// What turned it away.
    pub rejected: Plugins,
    /// A claim on devices, as it was seen, that loses them or goes, so that the pod gets
    /// others.
    pub freed: Option<Arc<Value>>,
}

impl Scheduler {
    /// The kinds it is to be told of.
    pub fn follows() -> Vec<Kind> {
        let kinds = super::snapshot::FOLLOWED.iter().copied();
        kinds.chain([kind::DISRUPTION_BUDGETS]).collect()
    }

    /// A scheduler that knows of nothing yet.
    pub fn new(profiles: Vec<Profile>) -> Self {
        Self {
            profiles,
            snapshot: Snapshot::default(),
            queue: Queue::default(),
            budgets: BTreeMap::new(),
            users: BTreeMap::new(),
            offset: 0,
        }
    }

    /// Whether a profile looks at how busy nodes are.
    pub fn wants_metrics(&self) -> bool {
        let mut weights = self.profiles.iter().flat_map(|own| &own.weights);
        weights.any(|(plugin, weight)| *plugin == Plugin::NodeLoad && *weight > 0)
    }

    /// Takes over how busy nodes are, by a `NodeMetricsList` of `metrics.k8s.io/v1beta1`.
    pub fn set_metrics(&mut self, list: &Value) {
        self.snapshot.set_metrics(list);
    }

    /// Takes a change in.
    pub fn hear(&mut self, change: &Change, now: Instant) {
        match change.kind {
            kind::PODS => self.hear_pod(change, now),
            kind::DISRUPTION_BUDGETS => {
                let key = Key::of(change.object());
                match &change.after {
                    Some(after) => drop(self.budgets.insert(key, after.clone())),
                    None => drop(self.budgets.remove(&key)),
                }
            }
            _ => {
                self.snapshot.apply(change);
                for aspect in Aspect::of(change) {
                    let happened = Happened {
                        aspect,
                        before: change.before.as_deref(),
                        after: change.after.as_deref(),
                        pod_before: None,
                        pod_after: None,
                    };
                    self.wake(&happened, now, |_| true);
                }
                if change.kind == kind::DEVICE_CLAIMS {
                    self.claim_changed(&Key::of(change.object()), now);
                }
            }
        }
    }

    fn hear_pod(&mut self, change: &Change, now: Instant) {
        let read = |pod: &Option<Arc<Value>>| {
            let pod = pod.clone().filter(|own| !object::is_finished(own));
            pod.map(|own| {
                self.known(&own)
                    .unwrap_or_else(|| Arc::new(PodInfo::new(own)))
            })
        };
        let (before, after) = (read(&change.before), read(&change.after));
        let same = |before: &Arc<PodInfo>, after: &Arc<PodInfo>| before.uid == after.uid;
        match (before, after) {
            (Some(before), Some(after)) if same(&before, &after) => {
                self.pod_changed(&before, after, now);
            }
            (before, after) => {
                if let Some(before) = before {
                    self.pod_gone(&before, now);
                }
                if let Some(after) = after {
                    self.pod_came(after, now);
                }
            }
        }
    }

    /// A version of a pod that was read before, if it is the last one.
    fn known(&self, pod: &Arc<Value>) -> Option<Arc<PodInfo>> {
        let is_it = |own: &&Arc<PodInfo>| Arc::ptr_eq(&own.object, pod);
        let waiting = self.queue.waiting(&Key::of(pod)).map(|own| own.pod);
        let bound = || {
            let uid = object::uid(pod);
            let placed = self.snapshot.placed(uid)?.0;
            (!self.snapshot.is_assumed(uid)).then_some(placed)
        };
        waiting.or_else(bound).filter(is_it).cloned()
    }

    fn pod_came(&mut self, pod: Arc<PodInfo>, now: Instant) {
        if !pod.node_name.is_empty() {
            self.snapshot.settle(&pod);
            self.pod_event(Aspect::PodAdd, None, Some(&pod), now, |_| true);
        } else if self.profile_of(&pod.scheduler_name).is_some() {
            if !pod.nominated_node.is_empty() {
                self.snapshot.nominate(pod.clone(), &pod.nominated_node);
            }
            self.follow_claims(None, Some(&pod));
            match self.snapshot.devices.claims_of(&pod) {
                Ok(_) => self.queue.add(pod, now),
                Err(_) => self.queue.add_awaiting(pod, now),
            }
        }
    }

    /// Keeps who waits with which claims on devices.
    fn follow_claims(&mut self, before: Option<&PodInfo>, after: Option<&PodInfo>) {
        if let Some(pod) = before {
            for claim in claims(pod) {
                if let Some(pods) = self.users.get_mut(&claim) {
                    pods.remove(&pod.key());
                    if pods.is_empty() {
                        self.users.remove(&claim);
                    }
                }
            }
        }
        if let Some(pod) = after {
            for claim in claims(pod) {
                self.users.entry(claim).or_default().insert(pod.key());
            }
        }
    }

    /// Pods that name a claim may have all of theirs now, or not any more.
    fn claim_changed(&mut self, claim: &Key, now: Instant) {
        let pods = self.users.get(claim).into_iter().flatten();
        for pod in pods.cloned().collect::<Vec<_>>() {
            self.look_for_claims(&pod, now);
        }
    }

    fn look_for_claims(&mut self, pod: &Key, now: Instant) {
        let Some(waiting) = self.queue.waiting(pod) else {
            return;
        };
        let awaits = self.snapshot.devices.claims_of(waiting.pod).is_err();
        let label = Aspect::DeviceClaimUpdate.label();
        self.queue.set_awaiting(pod, awaits, now, label);
    }

    fn pod_gone(&mut self, pod: &Arc<PodInfo>, now: Instant) {
        self.follow_claims(Some(pod), None);
        self.queue.remove(&pod.key());
        let placed = self.snapshot.placed(&pod.uid).map(|(own, _)| own.clone());
        let was_nominated = self.snapshot.nomination(&pod.uid).is_some();
        self.snapshot.remove(&pod.uid);
        if let Some(placed) = placed {
            self.pod_event(Aspect::PodDelete, Some(&placed), None, now, |_| true);
        } else if was_nominated {
            self.nomination_ended(pod, now);
        }
    }

    fn pod_changed(&mut self, before: &Arc<PodInfo>, pod: Arc<PodInfo>, now: Instant) {
        if !pod.node_name.is_empty() {
            self.follow_claims(Some(before), None);
            self.queue.remove(&pod.key());
            self.snapshot.settle(&pod);
            if before.node_name.is_empty() {
                self.pod_event(Aspect::PodAdd, None, Some(&pod), now, |_| true);
            } else {
                for aspect in Aspect::of_assigned(before, &pod) {
                    self.pod_event(aspect, Some(before), Some(&pod), now, |_| true);
                }
            }
            return;
        }
        if self.profile_of(&pod.scheduler_name).is_none() {
            return;
        }
        self.follow_claims(Some(before), Some(&pod));
        if self.snapshot.is_assumed(&pod.uid) {
            if pod.is_terminating {
                self.snapshot.forget(&pod.uid);
                self.pod_event(Aspect::PodDelete, Some(&pod), None, now, |_| true);
            }
            self.queue.update(pod, now, "", |_| false);
            return;
        }
        // What was decided of it here is newer than what it says of a moment before.
        if before.nominated_node != pod.nominated_node {
            match pod.nominated_node.is_empty() {
                true => self.snapshot.withdraw(&pod.uid),
                false => self.snapshot.nominate(pod.clone(), &pod.nominated_node),
            }
            if !before.nominated_node.is_empty() {
                self.nomination_ended(before, now);
            }
        }
        let aspects = Aspect::of_waiting(before, &pod);
        let snapshot = &self.snapshot;
        let label = aspects.first().map_or("TargetPodUpdate", |own| own.label());
        self.queue.update(pod.clone(), now, label, |plugin| {
            aspects.iter().any(|aspect| {
                let happened = Happened {
                    aspect: *aspect,
                    before: None,
                    after: None,
                    pod_before: Some(before),
                    pod_after: Some(&pod),
                };
                aspect.concerns().contains(plugin) && happened.helps(plugin, &pod, snapshot)
            })
        });
        if !pod.device_claims.is_empty() {
            self.look_for_claims(&pod.key(), now);
        }
    }

    /// A node is not kept any more for a pod: for others, no more important, that is as if
    /// it had left the node.
    fn nomination_ended(&mut self, pod: &Arc<PodInfo>, now: Instant) {
        let may_gain = |other: &PodInfo| other.priority <= pod.priority;
        self.pod_event(Aspect::PodDelete, Some(pod), None, now, may_gain);
    }

    fn pod_event(
        &mut self,
        aspect: Aspect,
        before: Option<&PodInfo>,
        after: Option<&PodInfo>,
        now: Instant,
        may_gain: impl Fn(&PodInfo) -> bool,
    ) {
        let happened = Happened {
            aspect,
            before: None,
            after: None,
            pod_before: before,
            pod_after: after,
        };
        self.wake(&happened, now, may_gain);
    }

    fn wake(&mut self, happened: &Happened<'_>, now: Instant, may_gain: impl Fn(&PodInfo) -> bool) {
        let snapshot = &self.snapshot;
        let aspect = happened.aspect;
        self.queue
            .hear(aspect.concerns(), now, aspect.label(), |pod, plugin| {
                may_gain(pod) && happened.helps(plugin, pod, snapshot)
            });
    }

    /// Decides for the pod whose turn it is.
    pub fn next(&mut self, now: Instant) -> Option<Decision> {
        let attempt = self.queue.pop(now)?;
        if attempt.pod.is_terminating {
            self.queue.remove(&attempt.key);
            return Some(Decision::Skip(attempt.pod));
        }
        self.snapshot.now = now;
        let pod = self.as_nominated(&attempt.pod);
        // Pods of other schedulers are not in the queue.
        let profile = self.profile_of(&pod.scheduler_name)?.clone();
        Some(match search::schedule(&mut self.snapshot, &pod, &profile) {
            Ok(chosen) => {
                self.snapshot.assume(&pod, &chosen.node);
                chosen.volumes.assume(&mut self.snapshot, &chosen.node);
                chosen.devices.assume(&mut self.snapshot);
                Decision::Place(Placement { attempt, chosen })
            }
            Err(Unschedulable {
                failed: Some(message),
                ..
            }) => {
                self.snapshot.withdraw(&pod.uid);
                self.queue.fail(&attempt, now);
                let message = message.into();
                Decision::Fail(Failure { attempt, message })
            }
            Err(why) => Decision::Wait(self.wait(attempt, &pod, &profile, &why, now)),
        })
    }

    /// The pod with the node that is being made free for it, as it was decided last.
    fn as_nominated(&self, pod: &Arc<PodInfo>) -> Arc<PodInfo> {
        let nominated = self.snapshot.nomination(&pod.uid).unwrap_or_default();
        if nominated == pod.nominated_node {
            return pod.clone();
        }
        Arc::new(PodInfo {
            nominated_node: nominated.to_owned(),
            ..(**pod).clone()
        })
    }

    /// What becomes of a pod that no node will do for.
    fn wait(
        &mut self,
        attempt: Attempt,
        pod: &Arc<PodInfo>,
        profile: &Profile,
        why: &Unschedulable,
        now: Instant,
    ) -> Wait {
        let mut wait = Wait {
            message: why.message(""),
            nominated: Some(String::new()),
            victims: Vec::new(),
            displaced: Vec::new(),
            preemption: None,
            rejected: why.plugins(),
            freed: why.to_free.clone(),
            attempt,
        };
        if why.all_nodes == 0 {
            // Any node may do.
            wait.rejected = [Plugin::NodeName].into_iter().collect();
        } else {
            let outcome = self.preempt(pod, profile, why, now);
            let name = |slot: Slot| self.snapshot.at(slot).name.clone();
            let mut after = outcome.message(name);
            if let Some(claim) = &wait.freed {
                let what = match devices::is_made_for_resources(claim) {
                    true => "deletion",
                    false => "deallocation",
                };
                after = format!("{what} of ResourceClaim completed, {after}");
            }
            wait.message = why.message(&after);
            wait.preemption = Some(0);
            match outcome {
                Preemption::NotEligible(_) => wait.nominated = None,
                Preemption::None { .. } => {}
                Preemption::Found(found) => self.make_room(&mut wait, pod, found),
            }
        }
        if wait.nominated.as_deref() == Some("") {
            self.snapshot.withdraw(&pod.uid);
        }
        self.queue.reject(&wait.attempt, wait.rejected, now);
        if !wait.victims.is_empty() {
            self.queue.hold(&wait.attempt.key);
        }
        wait
    }

    fn preempt(
        &mut self,
        pod: &Arc<PodInfo>,
        profile: &Profile,
        why: &Unschedulable,
        now: Instant,
    ) -> Preemption {
        let resolvable = why.nodes.iter().filter(|(_, own)| own.is_resolvable);
        let nodes: Vec<Slot> = resolvable.map(|(slot, _)| *slot).collect();
        let nominated = self.snapshot.node(&pod.nominated_node);
        let nominated = nominated.map(|own| own.slot);
        let preemptor = Preemptor {
            pod,
            nominated: nominated.filter(|own| nodes.contains(own)),
        };
        let budgets = Budgets::of(self.budgets.values().map(|own| &**own));
        self.offset = self.offset.wrapping_add(1);
        let Some(mut trial) = Trial::new(&self.snapshot, pod, profile) else {
            return Preemption::none(why.all_nodes);
        };
        let all = why.all_nodes;
        preemptor.preempt(&mut trial, &nodes, all, &budgets, self.offset, now)
    }

    fn make_room(&mut self, wait: &mut Wait, pod: &Arc<PodInfo>, found: Candidate) {
        let node = self.snapshot.at(found.node).name.clone();
        let others = self.snapshot.nominated_to(&node);
        let others = others.filter(|own| own.priority < pod.priority);
        wait.displaced = others.cloned().collect();
        for own in &wait.displaced {
            self.snapshot.withdraw(&own.uid);
        }
        self.snapshot.nominate(pod.clone(), &node);
        wait.victims = found.victims;
        wait.preemption = Some(found.violations);
        wait.nominated = Some(node);
    }

    /// A placement was not carried out: the pod leaves its node, and is tried again after a
    /// while.
    pub fn failed(&mut self, placement: &Placement, now: Instant) {
        let Attempt { pod, .. } = &placement.attempt;
        placement.chosen.volumes.forget(&mut self.snapshot);
        placement.chosen.devices.forget(&mut self.snapshot);
        if self.snapshot.is_assumed(&pod.uid) {
            self.snapshot.forget(&pod.uid);
            self.pod_event(Aspect::PodDelete, Some(pod), None, now, |_| true);
        }
        self.queue.fail(&placement.attempt, now);
    }

    /// A claim on devices was written as `claim` says, with its new version.
    pub fn claim_written(&mut self, claim: Value) {
        self.snapshot.devices.written(claim);
    }

    /// A claim was made for resources of a pod that goes to its node, and gets its devices next.
    pub fn claim_made(&mut self, pod: &PodInfo, claim: &Arc<Value>) {
        self.snapshot.devices.made(&pod.uid, claim);
    }

    /// A claim that was made for resources of a pod was deleted, or is gone already: as if that
    /// was seen, unless somebody else holds it.
    pub fn claim_removed(&mut self, claim: &Arc<Value>, now: Instant) {
        if self.snapshot.devices.has(claim) && !devices::is_held_by_others(claim) {
            let change = Change {
                kind: kind::DEVICE_CLAIMS,
                before: Some(claim.clone()),
                after: None,
            };
            self.hear(&change, now);
        }
    }

    /// What was to be told to the victims of a pod, or written of its claim, has been, or,
    /// where `at_once`, was not: then the pod is looked at again.
    pub fn preempted(&mut self, key: &Key, at_once: bool, now: Instant) {
        self.queue.release(key, at_once, now);
    }

    /// When [`Self::next`] may decide something though nothing changes.
    pub fn due(&self) -> Option<Instant> {
        self.queue.due()
    }

    /// Whether a pod's turn has come.
    pub fn is_idle(&self) -> bool {
        self.queue.is_idle()
    }

    /// The pods that wait.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The cluster.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The profile of a scheduler's name.
    pub fn profile_of(&self, scheduler_name: &str) -> Option<&Profile> {
        let mut profiles = self.profiles.iter();
        profiles.find(|own| own.scheduler_name == scheduler_name)
    }
}

/// The claims on devices that a pod names, as far as their names are known.
fn claims(pod: &PodInfo) -> impl Iterator<Item = Key> {
    let names = pod.device_claims.iter().filter_map(PodDeviceClaim::name);
    names.map(|name| Key::new(&pod.namespace, name))
}

#[cfg(test)]
#[path = "decide/tests.rs"]
mod tests;
