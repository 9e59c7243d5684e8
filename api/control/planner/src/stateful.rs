//! StatefulSets: pods with ordinals, each with claims of its own, made, renewed and taken
//! away in order.
//!
//! Invariants
//! - With `OrderedReady` a pod is made only when all before it are available, and one is
//!   taken away only when all after it are gone.
//! - A pod's name, and the names of its claims, depend on its ordinal alone.
//! - One plan is for at most [`BATCH_PODS`] pods; the next goes on from there.
//! - A claim is deleted by nobody but the garbage collector, after its owners.

mod claims;
mod identity;
mod revisions;
mod rollout;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;

use nautilus_machinery::selector::LabelSelector;
use nautilus_machinery::timestamp::Instant;
use serde_json::Value;

use crate::controller::{Change, Controller};
use crate::kind::{CLAIMS, CONTROLLER_REVISIONS, Kind, PODS, STATEFUL_SETS};
use crate::object;
use crate::ownership;
use crate::plan::{Delete, Failed, Plan, Write};
use crate::pods::{self, BATCH_PODS};
use crate::view::{Key, View};
use identity::Ordinals;
use revisions::Revisions;

/// Which revision a pod is of: its name.
const REVISION_LABEL: &str = "controller-revision-hash";

/// Keeps StatefulSets.
pub(crate) struct StatefulSets;

impl Controller for StatefulSets {
    fn name(&self) -> &'static str {
        "statefulset-controller"
    }

    fn follows(&self) -> &'static [Kind] {
        &[STATEFUL_SETS, PODS, CLAIMS, CONTROLLER_REVISIONS]
    }

    fn concerns(&self, view: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        match change.kind {
            STATEFUL_SETS => keys.push(Key::of(change.object())),
            PODS => change.versions().for_each(|pod| {
                keys.extend(identity::set_of_pod(pod).filter(|key| is_there(view, key)));
            }),
            CLAIMS => {
                let sets = identity::sets_of_claim(change.object());
                keys.extend(sets.filter(|key| is_there(view, key)));
            }
            // Of revisions nothing is to be said that their set does not know.
            _ => {}
        }
    }

    fn reconcile(&self, view: &dyn View, key: &Key, now: Instant) -> Plan {
        let mut plan = Plan::default();
        let Some(set) = view.get(STATEFUL_SETS, &key.namespace, &key.name) else {
            return plan;
        };
        // A selector that cannot be read comes right by a change of the set.
        let Ok(selector) = LabelSelector::of_object(&set["spec"]["selector"]) else {
            return plan;
        };
        let mut claimed = ownership::claim(view, PODS, STATEFUL_SETS, &set, |pod| {
            selector.matches(pod) && identity::is_member(object::name(&set), pod)
        });
        claimed.write(STATEFUL_SETS, &set, &mut plan);
        let revisions = revisions::find(view, &set, &selector, &mut plan);
        let truncated = revisions.over_limit(&set, &claimed.objects);
        Sync::new(view, &set, &revisions, &claimed.objects, now).run(&mut plan);
        plan.together(truncated);
        plan
    }

    fn report(&self, view: &dyn View, key: &Key, _: Instant, failed: &Failed) -> Plan {
        let mut plan = Plan::default();
        let Some(set) = view.get(STATEFUL_SETS, &key.namespace, &key.name) else {
            return plan;
        };
        if !failed.namespace_ends
            && let Some((reason, message)) = failure(&set, failed)
        {
            plan.then(Write::warning(STATEFUL_SETS, &set, reason, message));
        }
        plan
    }
}

fn is_there(view: &dyn View, key: &Key) -> bool {
    view.get(STATEFUL_SETS, &key.namespace, &key.name).is_some()
}

/// The event that tells of a failed write.
fn failure(set: &Value, failed: &Failed) -> Option<(&'static str, String)> {
    let (set, error) = (object::name(set), &failed.message);
    let of_pod = |reason: &'static str, verb: &str, pod: &str| {
        let message = format!("{verb} Pod {pod} in StatefulSet {set} failed error: {error}");
        Some((reason, message))
    };
    match &failed.write {
        Write::Create { kind: PODS, object } => {
            of_pod("FailedCreate", "Create", object::name(object))
        }
        Write::Create {
            kind: CLAIMS,
            object,
        } => {
            let claim = object::name(object);
            let ordinal = claim.rsplit('-').next().unwrap_or_default();
            let message = format!(
                "Create Claim {claim} for Pod {set}-{ordinal} in StatefulSet {set} failed error: {error}"
            );
            Some(("FailedCreate", message))
        }
        Write::Update {
            kind: PODS, object, ..
        } => of_pod("FailedUpdate", "Update", object::name(object)),
        Write::Delete(Delete {
            kind: PODS, name, ..
        }) => of_pod("FailedDelete", "Delete", name),
        _ => None,
    }
}

/// A replica: a pod that is there, or one that is still to be made.
enum Replica {
    There(Arc<Value>),
    Missing(Value),
}

impl Replica {
    fn pod(&self) -> &Value {
        match self {
            Self::There(pod) => pod,
            Self::Missing(pod) => pod,
        }
    }
}

/// Whether the rest of a set waits for what was just looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Passed,
    Kept,
}

/// What is to be done for one pod: its claims, then the pod.
#[derive(Default)]
struct Work {
    claims: Vec<Write>,
    pod: Option<Write>,
}

fn push(work: &mut Vec<Work>, own: Work) {
    if own.pod.is_some() || !own.claims.is_empty() {
        work.push(own);
    }
}

/// One look at a set.
struct Sync<'a> {
    view: &'a dyn View,
    set: &'a Value,
    revisions: &'a Revisions,
    pods: &'a [Arc<Value>],
    now: Instant,
    ordinals: Ordinals,
    min_ready_seconds: i64,
    /// `OrderedReady`: one after the other.
    in_order: bool,
}

impl<'a> Sync<'a> {
    fn new(
        view: &'a dyn View,
        set: &'a Value,
        revisions: &'a Revisions,
        pods: &'a [Arc<Value>],
        now: Instant,
    ) -> Self {
        Self {
            view,
            set,
            revisions,
            pods,
            now,
            ordinals: Ordinals::of(set),
            min_ready_seconds: set["spec"]["minReadySeconds"].as_i64().unwrap_or_default(),
            in_order: set["spec"]["podManagementPolicy"] != "Parallel",
        }
    }

    fn run(&self, plan: &mut Plan) {
        let (replicas, condemned) = self.replicas();
        let mut status = status::count(self);
        let mut work = Vec::new();
        if !object::is_deleted(self.set) {
            let turn = self.keep(&replicas, &mut work);
            if turn == Turn::Passed
                && self.condemn(&replicas, &condemned, &mut work) == Turn::Passed
            {
                let gone = rollout::replace(self, &replicas);
                status.forget_current(gone.len());
                work.extend(gone.into_iter().map(|pod| self.delete(pod)));
            }
        }
        // The status says what was seen; it must be told even if the first pod is refused.
        let mut first: Vec<Write> = status.write(self).into_iter().collect();
        let mut pods = Vec::new();
        for own in work.into_iter().take(BATCH_PODS) {
            first.extend(own.claims);
            pods.extend(own.pod);
        }
        plan.together(first);
        plan.together(pods);
        if self.min_ready_seconds > 0 {
            let pods = self.pods.iter().map(|pod| &**pod);
            let wait = pods::until_available(pods, self.min_ready_seconds, self.now);
            if let Some(wait) = wait {
                plan.again(wait);
            }
        }
    }

    /// The replicas by their ordinals, and the pods that are too many, last ordinal first.
    fn replicas(&self) -> (Vec<Replica>, Vec<Arc<Value>>) {
        let mut there: BTreeMap<i64, Arc<Value>> = BTreeMap::new();
        let mut condemned: BTreeMap<i64, Arc<Value>> = BTreeMap::new();
        for pod in self.pods {
            match identity::ordinal(object::name(pod)) {
                Some(ordinal) if self.ordinals.contains(ordinal) => {
                    there.insert(ordinal, pod.clone());
                }
                Some(ordinal) => {
                    condemned.insert(ordinal, pod.clone());
                }
                None => {}
            }
        }
        let replicas = self
            .ordinals
            .iter()
            .map(|ordinal| match there.remove(&ordinal) {
                Some(pod) => Replica::There(pod),
                None => Replica::Missing(self.revisions.pod(self.set, self.ordinals, ordinal)),
            });
        (replicas.collect(), condemned.into_values().rev().collect())
    }

    /// Makes the replicas that are missing, and sets those right that are there.
    fn keep(&self, replicas: &[Replica], work: &mut Vec<Work>) -> Turn {
        for replica in replicas {
            let turn = match replica {
                Replica::Missing(pod) => {
                    work.extend(self.create(pod));
                    Turn::Kept
                }
                Replica::There(pod) => self.keep_one(pod, work),
            };
            if self.in_order && turn == Turn::Kept {
                return Turn::Kept;
            }
        }
        Turn::Passed
    }

    fn keep_one(&self, pod: &Arc<Value>, work: &mut Vec<Work>) -> Turn {
        if object::is_finished(pod) {
            if !object::is_deleted(pod) {
                work.push(self.delete(pod));
            }
            return Turn::Kept;
        }
        let mut claims = Work::default();
        let is_pending = pod["status"]["phase"] == "Pending";
        if is_pending && self.make_claims(pod, &mut claims).is_some() {
            push(work, claims);
            return Turn::Kept;
        }
        if self.in_order && (object::is_deleted(pod) || !self.is_available(pod)) {
            if is_pending {
                self.own_claims(pod, &mut claims);
            }
            push(work, claims);
            return Turn::Kept;
        }
        self.correct(pod, &mut claims);
        push(work, claims);
        Turn::Passed
    }

    /// A pod and its claims, unless a claim or another's pod of its name stands in the way.
    fn create(&self, pod: &Value) -> Option<Work> {
        let namespace = object::namespace(self.set);
        if self.view.get(PODS, namespace, object::name(pod)).is_some()
            || claims::are_of_an_earlier_pod(self.view, self.set, pod)
        {
            return None;
        }
        let mut work = Work::default();
        if let Some(ending) = self.make_claims(pod, &mut work) {
            let message = format!(
                "Create Pod {} in StatefulSet {} failed error: pvc {ending} is being deleted",
                object::name(pod),
                object::name(self.set)
            );
            let event = Write::warning(STATEFUL_SETS, self.set, "FailedCreate", message);
            work.claims.push(event);
        } else {
            let create = Write::create(PODS, pod.clone());
            work.pod = Some(self.told(create, "SuccessfulCreate", "Create", pod));
        }
        Some(work)
    }

    /// The claims that a pod lacks. Returns the name of one that is on its way out: as long
    /// as it is, the pod cannot have it.
    fn make_claims(&self, pod: &Value, work: &mut Work) -> Option<String> {
        let mut ending = None;
        for claim in claims::wanted(self.set, pod) {
            let name = object::name(&claim).to_owned();
            match self.view.get(CLAIMS, object::namespace(self.set), &name) {
                None => {
                    let message = format!(
                        "Create Claim {name} Pod {} in StatefulSet {} success",
                        object::name(pod),
                        object::name(self.set)
                    );
                    let create = Write::create(CLAIMS, claim);
                    let reason = "SuccessfulCreate";
                    work.claims
                        .push(create.told(STATEFUL_SETS, self.set, reason, message));
                }
                Some(there) if object::is_deleted(&there) => ending = ending.or(Some(name)),
                Some(_) => {}
            }
        }
        ending
    }

    /// Gives a pod its identity, its volumes and its claims' owners again.
    fn correct(&self, pod: &Arc<Value>, work: &mut Work) {
        let mut right = identity::with_identity((**pod).clone());
        if !claims::are_mounted(self.set, pod) {
            claims::mount(self.set, &mut right);
            let made = work.claims.len();
            if made == 0 && self.make_claims(pod, work).is_some() {
                return;
            }
        }
        self.own_claims(pod, work);
        if right != **pod {
            let update = Write::update(PODS, right);
            work.pod = Some(self.told(update, "SuccessfulUpdate", "Update", pod));
        }
    }

    /// The owners of a pod's claims as the set's policy wants them.
    fn own_claims(&self, pod: &Value, work: &mut Work) {
        for claim in claims::there(self.view, self.set, pod) {
            let wanted = claims::Owned::of(&claim, self.set, self.ordinals, pod);
            if let Some(references) = wanted.references() {
                // Its role may update claims, but not patch them.
                let mut owned = (*claim).clone();
                owned["metadata"]["ownerReferences"] = references.into();
                work.claims.push(Write::update(CLAIMS, owned));
                if wanted.is_contested() {
                    let message = format!(
                        "PersistentVolumeClaim {} has a conflicting OwnerReference that acts as a manging controller, the retention policy is ignored for this claim",
                        object::name(&claim)
                    );
                    let event =
                        Write::warning(STATEFUL_SETS, self.set, "ConflictingController", message);
                    work.claims.push(event);
                }
            }
        }
    }

    /// Takes the pods away that are too many.
    fn condemn(
        &self,
        replicas: &[Replica],
        condemned: &[Arc<Value>],
        work: &mut Vec<Work>,
    ) -> Turn {
        for pod in condemned {
            let mut owners = Work::default();
            self.own_claims(pod, &mut owners);
            push(work, owners);
        }
        let first_unavailable = self.first_unavailable(replicas, condemned);
        for pod in condemned {
            if object::is_deleted(pod) {
                if self.in_order {
                    return Turn::Kept;
                }
                continue;
            }
            let is_first = first_unavailable == Some(object::name(pod));
            if self.in_order && !is_first && !self.is_available(pod) {
                return Turn::Kept;
            }
            work.push(self.delete(pod));
            if self.in_order {
                return Turn::Kept;
            }
        }
        Turn::Passed
    }

    /// The pod that is not available, and before all others of which that is so: first
    /// the replicas, then those that are too many.
    fn first_unavailable<'p>(
        &self,
        replicas: &'p [Replica],
        condemned: &'p [Arc<Value>],
    ) -> Option<&'p str> {
        let replicas = replicas.iter().map(Replica::pod);
        let mut pods = replicas.chain(condemned.iter().rev().map(|pod| &**pod));
        pods.find(|pod| self.is_unavailable(pod)).map(object::name)
    }

    fn delete(&self, pod: &Value) -> Work {
        let delete = Write::Delete(Delete::of(PODS, pod));
        Work {
            pod: Some(self.told(delete, "SuccessfulDelete", "Delete", pod)),
            ..Work::default()
        }
    }

    /// A write of a pod that the set tells of.
    fn told(&self, write: Write, reason: &'static str, verb: &str, pod: &Value) -> Write {
        let message = format!(
            "{verb} Pod {} in StatefulSet {} successful",
            object::name(pod),
            object::name(self.set)
        );
        write.told(STATEFUL_SETS, self.set, reason, message)
    }

    fn is_running_and_ready(&self, pod: &Value) -> bool {
        pod["status"]["phase"] == "Running" && object::is_ready(pod)
    }

    /// Runs, is ready and has been for long enough.
    fn is_available(&self, pod: &Value) -> bool {
        self.is_running_and_ready(pod)
            && object::is_available(pod, self.min_ready_seconds, self.now)
    }

    fn is_unavailable(&self, pod: &Value) -> bool {
        object::is_deleted(pod) || !object::is_available(pod, self.min_ready_seconds, self.now)
    }
}

#[cfg(test)]
mod tests;
