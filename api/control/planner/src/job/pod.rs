//! A job's pod, and what the job's terms make of it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::policy::{self, Verdict};
use super::{FINALIZER, INDEX};
use crate::kind::PODS;
use crate::object;
use crate::plan::Write;

/// A job's terms, as far as they say how pods count.
pub(super) struct Terms<'a> {
    spec: &'a Value,
    /// Pods that run at once, at most.
    pub(super) parallelism: i64,
    /// Pods that have to succeed; `None`: one success is the end.
    pub(super) completions: Option<i64>,
    /// Whether each pod has an index below `completions`.
    pub(super) is_indexed: bool,
    /// Whether it shall have no pods.
    pub(super) is_suspended: bool,
    /// Failures of an index that are allowed, where counted per index.
    pub(super) index_limit: Option<i64>,
    /// Whether a pod on its way out is replaced only once it has ended.
    pub(super) waits_for_end: bool,
}

impl<'a> Terms<'a> {
    pub(super) fn of(job: &'a Value) -> Self {
        let spec = &job["spec"];
        Self {
            spec,
            parallelism: spec["parallelism"].as_i64().unwrap_or(1),
            completions: spec["completions"].as_i64(),
            is_indexed: spec["completionMode"] == "Indexed",
            is_suspended: spec["suspend"] == true,
            index_limit: spec["backoffLimitPerIndex"].as_i64(),
            waits_for_end: spec["podReplacementPolicy"] == "Failed",
        }
    }

    /// The pod, judged.
    pub(super) fn judge(&self, object: Arc<Value>) -> Pod {
        let phase = object["status"]["phase"].as_str();
        // A pod that is deleted may be gone before it fails.
        let is_leaving = object::is_deleted(&object) && phase != Some("Succeeded");
        let has_failed = phase == Some("Failed") || (!self.waits_for_end && is_leaving);
        let policy = &self.spec["podFailurePolicy"];
        let verdict = policy::judge(policy, &object);
        let index = object::annotation(&object, INDEX).and_then(|text| text.parse().ok());
        Pod {
            index: index.filter(|own: &i64| *own >= 0),
            is_tracked: is_tracked(&object),
            has_failed,
            verdict,
            object,
        }
    }

    /// The index by which a pod counts, if it has one that counts.
    pub(super) fn index(&self, pod: &Pod) -> Option<i64> {
        let completions = self.completions.unwrap_or(0);
        pod.index.filter(|own| *own < completions)
    }

    /// Whether a pod that was not accounted for yet can count.
    pub(super) fn can_count(&self, pod: &Pod) -> bool {
        pod.is_tracked && (!self.is_indexed || self.index(pod).is_some())
    }

    /// Whether a pod's failure is the end of its index.
    pub(super) fn ends_index(&self, pod: &Pod) -> bool {
        let Some(limit) = self.index_limit else {
            return false;
        };
        let failures = count_annotation(&pod.object, super::INDEX_FAILURES);
        match pod.verdict {
            _ if !pod.has_failed => false,
            Verdict::FailsIndex => true,
            Verdict::Ignored => false,
            Verdict::Counts | Verdict::FailsJob(_) => failures >= limit,
        }
    }
}

/// One pod of a job.
pub(super) struct Pod {
    /// The pod.
    pub(super) object: Arc<Value>,
    /// Its index, whether or not that counts.
    pub(super) index: Option<i64>,
    /// Whether it holds the job's finalizer: the job has not let go of it.
    pub(super) is_tracked: bool,
    /// Whether it is taken for failed.
    pub(super) has_failed: bool,
    /// What its failure means, or would mean.
    pub(super) verdict: Verdict,
}

impl Pod {
    pub(super) fn uid(&self) -> &str {
        object::uid(&self.object)
    }

    pub(super) fn has_succeeded(&self) -> bool {
        self.object["status"]["phase"] == "Succeeded"
    }

    pub(super) fn is_active(&self) -> bool {
        object::is_active(&self.object)
    }

    pub(super) fn is_terminating(&self) -> bool {
        object::is_deleted(&self.object) && !object::is_finished(&self.object)
    }

    pub(super) fn is_ready(&self) -> bool {
        object::is_ready(&self.object)
    }
}

/// Whether a pod holds the finalizer of jobs.
pub(super) fn is_tracked(pod: &Value) -> bool {
    object::items(&pod["metadata"]["finalizers"]).any(|own| own == FINALIZER)
}

/// Adds the finalizer of jobs to a pod, or to a patch of it that holds its finalizers.
pub(super) fn track(pod: &mut Value) {
    let finalizers = &mut pod["metadata"]["finalizers"];
    match finalizers.as_array_mut() {
        Some(list) if list.iter().any(|own| own == FINALIZER) => {}
        Some(list) => list.push(FINALIZER.into()),
        None => *finalizers = json!([FINALIZER]),
    }
}

/// The finalizers of a pod without that of jobs.
pub(super) fn other_finalizers(pod: &Value) -> Vec<&Value> {
    let finalizers = object::items(&pod["metadata"]["finalizers"]);
    finalizers.filter(|own| *own != FINALIZER).collect()
}

/// Lets go of a pod that is tracked, in the version that was seen.
pub(super) fn let_go(pod: &Value) -> Write {
    let change = json!({"metadata": {
        "resourceVersion": pod["metadata"]["resourceVersion"],
        "finalizers": other_finalizers(pod),
    }});
    Write::patch(PODS, pod, change)
}

/// A number of failures, as it stands in an annotation; 0 for what is no such number.
pub(super) fn count_annotation(pod: &Value, name: &str) -> i64 {
    let number = object::annotation(pod, name).and_then(|text| text.parse::<i32>().ok());
    number.map_or(0, |own| i64::from(own.max(0)))
}
