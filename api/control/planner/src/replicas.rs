//! ReplicaSets and ReplicationControllers: as many pods of a template as were asked for.
//!
//! Invariants
//! - Only pods that have not ended and are not on their way out count, and only such are
//!   claimed.
//! - One plan makes or removes at most [`BATCH_PODS`] pods; the next goes on from there.
//! - A plan leads to a number of pods, never past it.
//!
//! Source: `pkg/controller/{replicaset,replication}` of v1.37.

mod order;

use std::sync::Arc;
use std::time::Duration;

use nautilus_machinery::timestamp::Instant;
use serde_json::{Value, json};

use crate::controller::{Change, Controller};
use crate::kind::{Kind, PODS, REPLICA_SETS, REPLICATION_CONTROLLERS};
use crate::object;
use crate::ownership;
use crate::plan::{Failed, Plan, Write};
use crate::pods::{self, BATCH_PODS};
use crate::view::{Key, View, Within};

const FAILURE: &str = "ReplicaFailure";

/// The controller of a kind whose spec asks for `replicas` of a `template`.
pub struct Replicas {
    kind: Kind,
    name: &'static str,
    follows: &'static [Kind],
}

impl Replicas {
    /// That of ReplicaSets.
    pub fn of_sets() -> Self {
        Self {
            kind: REPLICA_SETS,
            name: "replicaset-controller",
            follows: &[REPLICA_SETS, PODS],
        }
    }

    /// That of ReplicationControllers.
    pub fn of_replication_controllers() -> Self {
        Self {
            kind: REPLICATION_CONTROLLERS,
            name: "replication-controller",
            follows: &[REPLICATION_CONTROLLERS, PODS],
        }
    }

    /// Makes or removes pods until there are as many as were asked for.
    fn manage(
        &self,
        view: &dyn View,
        set: &Value,
        active: &[Arc<Value>],
        now: Instant,
        plan: &mut Plan,
    ) {
        let wanted = usize::try_from(wanted(set)).unwrap_or_default();
        let missing = wanted.saturating_sub(active.len()).min(BATCH_PODS);
        if missing > 0 {
            let pod = pods::from_template(self.kind, set, &set["spec"]["template"]);
            plan.together(vec![pods::create(self.kind, set, pod); missing]);
        }
        let surplus = active.len().saturating_sub(wanted).min(BATCH_PODS);
        let related = || self.related(view, set);
        let doomed = order::first_to_go(active, surplus, related, now);
        let delete = |pod: &Arc<Value>| pods::delete(self.kind, set, pod);
        plan.together(doomed.iter().map(delete).collect());
    }

    /// The pods of this set and of its siblings: those of the same Deployment.
    fn related(&self, view: &dyn View, set: &Value) -> Vec<Arc<Value>> {
        let namespace = object::namespace(set);
        let Some(uid) = object::controller(set).and_then(|owner| owner["uid"].as_str()) else {
            return Vec::new();
        };
        let siblings = view.list(self.kind, Within::Controlled(namespace, uid));
        let pods = siblings
            .iter()
            .flat_map(|own| view.list(PODS, Within::Controlled(namespace, object::uid(own))));
        pods.collect()
    }

    /// The status that follows from the pods, conditions apart.
    fn status(&self, set: &Value, pods: &Pods, now: Instant) -> Value {
        let mut status = set["status"].clone();
        if status["replicas"] != pods.active.len() {
            status["replicas"] = pods.active.len().into();
        }
        let min_ready_s = object::number(&set["spec"]["minReadySeconds"]);
        let labels = &set["spec"]["template"]["metadata"]["labels"];
        let labels = labels.as_object();
        let is_labeled = |pod: &Value| {
            let own = &pod["metadata"]["labels"];
            labels.is_none_or(|all| all.iter().all(|(name, value)| own.get(name) == Some(value)))
        };
        let count = |counts: &dyn Fn(&Value) -> bool| {
            let counted = pods.active.iter().filter(|pod| counts(pod));
            i64::try_from(counted.count()).unwrap_or(i64::MAX)
        };
        let is_available = |pod: &Value| object::is_available(pod, min_ready_s, now);
        for (field, number) in [
            ("fullyLabeledReplicas", count(&is_labeled)),
            ("readyReplicas", count(&object::is_ready)),
            ("availableReplicas", count(&is_available)),
            (
                "observedGeneration",
                object::number(&set["metadata"]["generation"]),
            ),
        ] {
            object::set_count(&mut status, field, number);
        }
        if self.kind == REPLICA_SETS && status["terminatingReplicas"] != pods.terminating {
            status["terminatingReplicas"] = pods.terminating.into();
        }
        status
    }

    /// The pods of a set, unless it selects everything.
    fn pods(&self, view: &dyn View, set: &Value) -> Option<Pods> {
        let selector = ownership::selector(set)?;
        let matches = |pod: &Value| selector.matches(pod);
        let active = object::is_active;
        let claimed = ownership::claim_among(view, PODS, self.kind, set, active, matches);
        let own = Within::Controlled(object::namespace(set), object::uid(set));
        let terminates = |pod: &Value| {
            !object::is_finished(pod) && object::is_deleted(pod) && selector.matches(pod)
        };
        Some(Pods {
            terminating: view
                .list(PODS, own)
                .iter()
                .filter(|pod| terminates(pod))
                .count(),
            active: claimed.objects.clone(),
            claimed,
        })
    }
}

/// What a set has.
struct Pods {
    active: Vec<Arc<Value>>,
    claimed: ownership::Claimed,
    /// Those that are on their way out and have not ended.
    terminating: usize,
}

fn wanted(set: &Value) -> i64 {
    set["spec"]["replicas"].as_i64().unwrap_or(1)
}

fn write_status(kind: Kind, set: &Value, status: Value, plan: &mut Plan) {
    if status != set["status"] {
        let mut next = set.clone();
        next["status"] = status;
        plan.then(Write::status(kind, next));
    }
}

impl Controller for Replicas {
    fn name(&self) -> &'static str {
        self.name
    }

    fn follows(&self) -> &'static [Kind] {
        self.follows
    }

    fn concerns(&self, view: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        if change.kind == self.kind {
            keys.push(Key::of(change.object()));
        } else {
            ownership::concerned(view, self.kind, change, keys);
        }
    }

    fn reconcile(&self, view: &dyn View, key: &Key, now: Instant) -> Plan {
        let mut plan = Plan::default();
        let Some(set) = view.get(self.kind, &key.namespace, &key.name) else {
            return plan;
        };
        let Some(mut pods) = self.pods(view, &set) else {
            return plan;
        };
        pods.claimed.write(self.kind, &set, &mut plan);
        if !object::is_deleted(&set) {
            self.manage(view, &set, &pods.active, now, &mut plan);
        }
        let mut status = self.status(&set, &pods, now);
        object::remove_condition(&mut status, FAILURE);
        let waits = status["readyReplicas"] != status["availableReplicas"];
        write_status(self.kind, &set, status, &mut plan);
        let min_ready_s = object::number(&set["spec"]["minReadySeconds"]);
        if min_ready_s > 0 && waits {
            let active = pods.active.iter().map(|pod| &**pod);
            let after = pods::until_available(active, min_ready_s, now);
            let whole = Duration::from_secs(min_ready_s.unsigned_abs());
            plan.again(after.unwrap_or(whole));
        }
        plan
    }

    fn report(&self, view: &dyn View, key: &Key, now: Instant, failed: &Failed) -> Plan {
        let mut plan = Plan::default();
        let Some(set) = view.get(self.kind, &key.namespace, &key.name) else {
            return plan;
        };
        let failure = pods::failure(self.kind, &set, failed);
        let (Some(failure), Some(pods)) = (failure, self.pods(view, &set)) else {
            return plan;
        };
        plan.then(failure.event);
        let mut status = self.status(&set, &pods, now);
        if object::condition(&set, FAILURE).is_none() {
            let condition = json!({
                "type": FAILURE,
                "status": "True",
                "lastTransitionTime": object::time_field(now),
                "reason": failure.reason,
                "message": failure.message,
            });
            nautilus_machinery::conditions::set(&mut status, &condition);
        }
        write_status(self.kind, &set, status, &mut plan);
        plan
    }
}

#[cfg(test)]
mod tests;
