//! Jobs: pods that run until enough of them have succeeded, or too many failed.
//!
//! Source: KEP-2307 (tracking without lingering pods), KEP-2214 (indexed jobs), KEP-3850
//! (backoff per index), KEP-3939 (replacement), KEP-4368 (managed by others).
//!
//! Invariants
//! - A pod's end counts once (`every_end_counts_once`). A pod that is made holds a
//!   finalizer; its end is noted in the status, by uid or by index, before the finalizer
//!   goes; and what was noted becomes a number only once the finalizer is gone.
//! - A job is finished only when none of its pods is left to be counted or on its way out.

mod backoff;
mod intervals;
mod look;
mod making;
mod pod;
mod policy;
mod tracking;

use nautilus_machinery::selector::LabelSelector;
use nautilus_machinery::timestamp::Instant;
use serde_json::Value;

use crate::controller::{Change, Controller};
use crate::kind::{JOBS, Kind, PODS};
use crate::object;
use crate::ownership;
use crate::plan::{Failed, Plan, Write};
use crate::pods;
use crate::view::{Key, View, Within};
use look::{Making, look};

/// What holds a pod until its end was noted.
const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// The index of a pod: annotation and label.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Failures of a pod's index before it that count.
const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// Failures of a pod's index before it that do not.
const INDEX_IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
/// Who manages jobs that do not say who does.
const MANAGER: &str = "kubernetes.io/job-controller";

/// See the module. Its keys are jobs, and namespaces with an empty name: the pods there
/// that wait for a job that is gone.
#[derive(Debug)]
pub(crate) struct Jobs;

impl Controller for Jobs {
    fn name(&self) -> &'static str {
        "job-controller"
    }

    fn follows(&self) -> &'static [Kind] {
        &[JOBS, PODS]
    }

    fn concerns(&self, view: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        let own = change.object();
        if change.kind == JOBS {
            keys.push(Key::of(own));
            if change.after.is_none() {
                keys.push(strays_of(own));
            }
            return;
        }
        ownership::concerned(view, JOBS, change, keys);
        if change.after.is_some() && pod::is_tracked(own) && job_of(view, own).is_none() {
            keys.push(strays_of(own));
        }
    }

    fn reconcile(&self, view: &dyn View, key: &Key, now: Instant) -> Plan {
        if key.name.is_empty() {
            return strays(view, &key.namespace);
        }
        plan(view, key, now, Making::Allowed)
    }

    fn report(&self, view: &dyn View, key: &Key, now: Instant, failed: &Failed) -> Plan {
        let Some(job) = view.get(JOBS, &key.namespace, &key.name) else {
            return Plan::default();
        };
        let mut told = Plan::default();
        if let Some(failure) = pods::failure(JOBS, &job, failed) {
            told.then(failure.event);
        }
        if let Write::Create { .. } = failed.write {
            // The status does not wait for pods that can't be made.
            told.steps
                .extend(plan(view, key, now, Making::Refused).steps);
        }
        told
    }
}

fn plan(view: &dyn View, key: &Key, now: Instant, making: Making) -> Plan {
    let mut plan = Plan::default();
    let Some(job) = view.get(JOBS, &key.namespace, &key.name) else {
        return plan;
    };
    if !is_managed(&job) {
        return plan;
    }
    if is_finished(&job) {
        let own = view.list(PODS, Within::Controlled(&key.namespace, object::uid(&job)));
        let held = own.iter().filter(|pod| pod::is_tracked(pod));
        plan.together(held.map(|pod| pod::let_go(pod)).collect());
        return plan;
    }
    let Some(selector) = ownership::selector(&job) else {
        return plan;
    };
    let mut claimed = ownership::claim(view, PODS, JOBS, &job, |pod| selector.matches(pod));
    if claimed.writes.is_empty() {
        return look(&job, claimed.objects, now, making);
    }
    for write in &mut claimed.writes {
        track_or_let_go(view, write, &selector);
    }
    claimed.write(JOBS, &job, &mut plan);
    plan
}

/// Adopted pods are held from then on, released ones no more.
fn track_or_let_go(view: &dyn View, write: &mut Write, selector: &LabelSelector) {
    let Write::Patch {
        namespace,
        name,
        patch,
        ..
    } = write
    else {
        return;
    };
    let Some(pod) = view.get(PODS, namespace, name) else {
        return;
    };
    patch["metadata"]["finalizers"] = pod::other_finalizers(&pod).into_iter().cloned().collect();
    if selector.matches(&pod) {
        pod::track(patch);
    }
}

/// Whether a job has come to its end.
pub(crate) fn is_finished(job: &Value) -> bool {
    object::is_true(job, "Complete") || object::is_true(job, "Failed")
}

fn is_managed(job: &Value) -> bool {
    let manager = job["spec"]["managedBy"].as_str();
    manager.is_none_or(|own| own == MANAGER)
}

/// The job that a pod says it belongs to, if that is there.
fn job_of(view: &dyn View, pod: &Value) -> Option<std::sync::Arc<Value>> {
    let owner = object::controller(pod)?;
    let job = view.get(JOBS, object::namespace(pod), owner["name"].as_str()?)?;
    (owner["uid"] == object::uid(&job)).then_some(job)
}

fn strays_of(own: &Value) -> Key {
    Key::new(object::namespace(own), "")
}

/// Lets go of the pods of a namespace that wait for a job that is gone or has ended, and
/// that no job will adopt.
fn strays(view: &dyn View, namespace: &str) -> Plan {
    let mut plan = Plan::default();
    let jobs = view.list(JOBS, Within::Namespace(namespace));
    let is_awaited = |pod: &Value| match object::controller(pod) {
        Some(owner) if owner["kind"] != JOBS.kind || owner["apiVersion"] != "batch/v1" => true,
        Some(_) => job_of(view, pod).is_some_and(|job| !is_managed(&job) || !is_finished(&job)),
        None => jobs.iter().any(|job| {
            let adopts = is_managed(job) && !is_finished(job) && !object::is_deleted(job);
            let selects = |own: LabelSelector| own.matches(pod);
            adopts && !object::is_deleted(pod) && ownership::selector(job).is_some_and(selects)
        }),
    };
    let pods = view.list(PODS, Within::Namespace(namespace));
    let held = pods
        .iter()
        .filter(|pod| pod::is_tracked(pod) && !is_awaited(pod));
    plan.together(held.map(|pod| pod::let_go(pod)).collect());
    plan
}

#[cfg(test)]
mod tests;
