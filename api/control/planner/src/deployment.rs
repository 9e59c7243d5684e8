//! Deployments: one ReplicaSet for each template, and pods moved from the old ones to the
//! new one as the strategy allows.
//!
//! Invariants
//! - A rolling update has at most `replicas + maxSurge` pods, and takes away no available
//!   pod that would leave fewer than `replicas - maxUnavailable`.
//! - A template has one ReplicaSet: it is found by the template, and its name follows from
//!   the template and `status.collisionCount`.
//! - The status follows the sets' statuses as they were seen, not what is being written.
//!
//! Source: `pkg/controller/deployment` of v1.37.

mod annotations;
mod rollback;
mod rollout;
mod scale;
mod set;
mod status;

use nautilus_machinery::timestamp::Instant;
use serde_json::{Value, json};

use self::rollout::Rollout;
use self::set::ReplicaSet;
use crate::controller::{Change, Controller};
use crate::kind::{DEPLOYMENTS, Kind, PODS, REPLICA_SETS};
use crate::object;
use crate::ownership;
use crate::plan::{Failed, Plan, Write};
use crate::view::{Key, View};

/// The label that tells the pods of a Deployment's sets apart.
const TEMPLATE_HASH: &str = "pod-template-hash";
/// Stands for no limit in fields that count seconds or revisions.
const NO_LIMIT: i64 = i32::MAX as i64;

/// The controller of Deployments.
pub(crate) struct Deployments;

impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment-controller"
    }

    fn follows(&self) -> &'static [Kind] {
        &[DEPLOYMENTS, REPLICA_SETS, PODS]
    }

    fn concerns(&self, view: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        match change.kind {
            DEPLOYMENTS => keys.push(Key::of(change.object())),
            REPLICA_SETS => ownership::concerned(view, DEPLOYMENTS, change, keys),
            // A deployment that recreates waits until the last of its old pods is gone.
            _ if change.after.is_none() => keys.extend(recreating(view, change.object())),
            _ => {}
        }
    }

    fn reconcile(&self, view: &dyn View, key: &Key, now: Instant) -> Plan {
        let mut plan = Plan::default();
        let Some(deployment) = view.get(DEPLOYMENTS, &key.namespace, &key.name) else {
            return plan;
        };
        let Some(selector) = ownership::selector(&deployment) else {
            return plan;
        };
        let matches = |set: &Value| selector.matches(set);
        let mut sets = ownership::claim(view, REPLICA_SETS, DEPLOYMENTS, &deployment, matches);
        if !sets.writes.is_empty() {
            sets.write(DEPLOYMENTS, &deployment, &mut plan);
            return plan;
        }
        Rollout::new(view, now, &deployment, &sets.objects).plan()
    }

    fn report(&self, view: &dyn View, key: &Key, now: Instant, failed: &Failed) -> Plan {
        let mut plan = Plan::default();
        let Some(deployment) = view.get(DEPLOYMENTS, &key.namespace, &key.name) else {
            return plan;
        };
        let Write::Create { object: set, .. } = &failed.write else {
            return plan;
        };
        if failed.namespace_ends {
            return plan;
        }
        let (name, why) = (object::name(set), &failed.message);
        let message = format!("Failed to create new replica set {name:?}: {why}");
        let reason = "ReplicaSetCreateError";
        plan.then(Write::warning(
            DEPLOYMENTS,
            &deployment,
            reason,
            message.clone(),
        ));
        let mut next = (*deployment).clone();
        if has_progress_deadline(&next) {
            let condition = status::condition("Progressing", "False", reason, &message, now);
            status::set_condition(&mut next["status"], condition);
        }
        if next != *deployment {
            plan.then(Write::status(DEPLOYMENTS, next));
        }
        plan
    }
}

/// The deployment of a pod, if it recreates its pods.
fn recreating(view: &dyn View, pod: &Value) -> Option<Key> {
    let namespace = object::namespace(pod);
    let owner = |object: &Value, kind: Kind| {
        let owner = object::controller(object).filter(|own| own["kind"] == kind.kind)?;
        let found = view.get(kind, namespace, owner["name"].as_str()?)?;
        (owner["uid"] == object::uid(&found)).then_some(found)
    };
    let set = owner(pod, REPLICA_SETS)?;
    let deployment = owner(&set, DEPLOYMENTS)?;
    (deployment["spec"]["strategy"]["type"] == "Recreate").then(|| Key::of(&deployment))
}

fn replicas(spec_of: &Value) -> i64 {
    spec_of["spec"]["replicas"].as_i64().unwrap_or(1)
}

fn has_progress_deadline(deployment: &Value) -> bool {
    let deadline = deployment["spec"]["progressDeadlineSeconds"].as_i64();
    deadline.is_some_and(|seconds| seconds != NO_LIMIT)
}

/// Whether two templates are the same but for the label that tells sets apart.
fn same_template(one: &Value, two: &Value) -> bool {
    let plain = |template: &Value| {
        let mut template = template.clone();
        let labels = template.pointer_mut("/metadata/labels");
        if let Some(labels) = labels.and_then(Value::as_object_mut) {
            labels.remove(TEMPLATE_HASH);
        }
        template
    };
    crate::history::same(&plain(one), &plain(two))
}

/// A template or selector with the label that tells sets apart at `path`.
fn with_hash(mut holder: Value, path: &[&str], hash: &str) -> Value {
    let mut labels = &mut holder;
    for field in path {
        labels = &mut labels[*field];
    }
    if labels.is_null() {
        *labels = json!({});
    }
    labels[TEMPLATE_HASH] = hash.into();
    holder
}

#[cfg(test)]
mod tests;
