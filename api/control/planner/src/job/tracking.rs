//! What a job says of its pods: counted, to be counted, and how it ends.

use std::collections::BTreeSet;

use nautilus_machinery::timestamp::Instant;
use serde_json::{Map, Value, json};

use super::look::Look;
use super::pod::Pod;
use super::policy::Verdict;
use crate::kind::JOBS;
use crate::object;
use crate::plan::{Plan, Write};

/// Uids that a status holds, at most: some 20 KB.
const MAX_UNCOUNTED_PODS: usize = 500;

/// How a job ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    /// The condition that says so first; `Failed` or `Complete` follows.
    first: &'static str,
    reason: String,
    message: String,
}

impl End {
    fn of(first: &'static str, reason: &str, message: &str) -> Self {
        Self {
            first,
            reason: reason.to_owned(),
            message: message.to_owned(),
        }
    }

    pub(super) fn failing(reason: &str, message: &str) -> Self {
        Self::of("FailureTarget", reason, message)
    }

    pub(super) fn met(reason: &str, message: &str) -> Self {
        Self::of("SuccessCriteriaMet", reason, message)
    }

    pub(super) fn completed() -> Self {
        let message = "Reached expected number of succeeded pods";
        Self::met("CompletionsReached", message)
    }

    fn is_success(&self) -> bool {
        self.first == "SuccessCriteriaMet"
    }

    fn last(&self) -> &'static str {
        if self.is_success() {
            "Complete"
        } else {
            "Failed"
        }
    }
}

/// What of a pod's end is written down before the pod is let go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Noted {
    /// Its uid, as one that succeeded.
    Success,
    /// Its uid, as one that failed.
    Failure,
    /// Its index.
    Index,
    /// Nothing, or nothing more.
    Nothing,
}

/// The status as it shall be.
pub(super) struct Tracking<'a> {
    pub(super) status: Value,
    succeeded: Vec<String>,
    failed: Vec<String>,
    /// Pods that the job lets go once the status is written.
    pub(super) released: Vec<&'a Pod>,
    events: Vec<Write>,
}

fn uids(list: &Value) -> Vec<String> {
    let uids = object::items(list).filter_map(Value::as_str);
    uids.map(str::to_owned).collect()
}

fn count(list: &[String]) -> i64 {
    i64::try_from(list.len()).unwrap_or(i64::MAX)
}

impl<'a> Tracking<'a> {
    pub(super) fn of(job: &Value) -> Self {
        let status = &job["status"];
        let uncounted = &status["uncountedTerminatedPods"];
        Self {
            succeeded: uids(&uncounted["succeeded"]),
            failed: uids(&uncounted["failed"]),
            status: match status.is_object() {
                true => status.clone(),
                false => json!({}),
            },
            released: Vec::new(),
            events: Vec::new(),
        }
    }

    fn number(&self, field: &str) -> i64 {
        self.status[field].as_i64().unwrap_or(0)
    }

    /// Pods that have succeeded, counted or not.
    pub(super) fn succeeded(&self, look: &Look<'_>) -> i64 {
        let new = look.pods.iter().filter(|pod| {
            let is_noted = self.succeeded.iter().any(|own| own == pod.uid());
            pod.has_succeeded() && look.terms.can_count(pod) && !is_noted
        });
        let new = i64::try_from(new.count()).unwrap_or(0);
        self.number("succeeded") + count(&self.succeeded) + new
    }

    /// Pods that have failed, counted or not.
    pub(super) fn failed(&self, look: &Look<'_>) -> i64 {
        let new = look.pods.iter().filter(|pod| {
            let is_noted = self.failed.iter().any(|own| own == pod.uid());
            let counts = pod.has_failed && pod.verdict != Verdict::Ignored;
            counts && look.terms.can_count(pod) && !is_noted
        });
        let new = i64::try_from(new.count()).unwrap_or(0);
        self.number("failed") + count(&self.failed) + new
    }

    /// The end that an earlier look has decided.
    pub(super) fn decided(&self) -> Option<End> {
        let conditions = || object::items(&self.status["conditions"]);
        ["SuccessCriteriaMet", "FailureTarget"]
            .into_iter()
            .find_map(|first| {
                let own =
                    conditions().find(|own| own["type"] == first && own["status"] == "True")?;
                let text = |field: &str| own[field].as_str().unwrap_or_default();
                Some(End::of(first, text("reason"), text("message")))
            })
    }

    /// Says whether the job is suspended.
    pub(super) fn suspend(&mut self, look: &Look<'_>) {
        let (status, reason, message, event) = match look.terms.is_suspended {
            true => ("True", "JobSuspended", "Job suspended", "Suspended"),
            false => ("False", "JobResumed", "Job resumed", "Resumed"),
        };
        let known =
            object::items(&self.status["conditions"]).find(|own| own["type"] == "Suspended");
        let is_news = match known {
            None => look.terms.is_suspended,
            Some(own) => {
                own["status"] != status || own["reason"] != reason || own["message"] != message
            }
        };
        if !is_news {
            return;
        }
        // The time that a job is active begins anew.
        self.status["startTime"] = match look.terms.is_suspended {
            true => Value::Null,
            false => object::time_field(look.now),
        };
        self.condition("Suspended", status, reason, message, look.now);
        let told = Write::event(JOBS, look.job, event, message.to_owned());
        self.events.push(told);
    }

    fn condition(&mut self, kind: &str, status: &str, reason: &str, message: &str, now: Instant) {
        let at = object::time_field(now);
        let condition = json!({
            "type": kind,
            "status": status,
            "lastProbeTime": at,
            "lastTransitionTime": at,
            "reason": reason,
            "message": message,
        });
        if !self.status["conditions"].is_array() {
            self.status["conditions"] = json!([]);
        }
        let list = self.status["conditions"].as_array_mut();
        let Some(list) = list else { return };
        match list.iter_mut().find(|own| own["type"] == kind) {
            Some(own) => *own = condition,
            None => list.push(condition),
        }
    }

    /// Counts what was noted and let go, notes what has ended, and says how the job ends.
    pub(super) fn track(&mut self, look: &Look<'a>, end: Option<End>, terminating: usize) {
        self.count_released(look.pods);
        let is_full = self.note(look, end.as_ref());
        if let Some(failed) = &look.failed_indexes {
            self.status["failedIndexes"] = failed.to_string().into();
        }
        if let Some(end) = end {
            let holds = !self.released.is_empty() || !self.succeeded.is_empty();
            let holds = holds || !self.failed.is_empty() || terminating > 0 || is_full;
            self.end(look, &end, !holds);
        }
    }

    /// A pod that was noted and does not hold the finalizer any more is counted.
    fn count_released(&mut self, pods: &[Pod]) {
        let held = pods.iter().filter(|pod| pod.is_tracked).map(Pod::uid);
        let held: BTreeSet<&str> = held.collect();
        for (field, list) in [
            ("succeeded", &mut self.succeeded),
            ("failed", &mut self.failed),
        ] {
            let before = count(list);
            list.retain(|uid| held.contains(uid.as_str()));
            let counted = self.status[field].as_i64().unwrap_or(0) + before - count(list);
            self.status[field] = counted.into();
        }
    }

    /// Notes pods that have ended; whether some are left for the next look.
    fn note(&mut self, look: &Look<'a>, end: Option<&End>) -> bool {
        let fails_all = end.is_some_and(|end| !end.is_success());
        let ends = end.is_some() || object::is_deleted(look.job);
        let mut budget = MAX_UNCOUNTED_PODS;
        budget = budget.saturating_sub(self.succeeded.len() + self.failed.len());
        let mut is_full = false;
        for pod in look.pods.iter().filter(|pod| pod.is_tracked) {
            let waits = look.awaiting.values().any(|own| own.uid() == pod.uid());
            if !(ends || pod.has_succeeded() || (pod.has_failed && !waits)) {
                continue;
            }
            let noted = self.noted(look, pod, fails_all);
            if noted != Noted::Nothing {
                if budget == 0 {
                    is_full = true;
                    continue;
                }
                budget -= 1;
            }
            match noted {
                Noted::Success => self.succeeded.push(pod.uid().to_owned()),
                Noted::Failure => self.failed.push(pod.uid().to_owned()),
                Noted::Index | Noted::Nothing => {}
            }
            self.released.push(pod);
        }
        if look.terms.is_indexed {
            let all = &look.succeeded_indexes;
            self.status["succeeded"] = all.total().into();
            self.status["completedIndexes"] = all.to_string().into();
        }
        is_full
    }

    /// What there is to note of a pod that has ended, or ends with its job.
    fn noted(&self, look: &Look<'_>, pod: &Pod, fails_all: bool) -> Noted {
        let is_in = |list: &[String]| list.iter().any(|own| own == pod.uid());
        let index = look.terms.index(pod);
        let counts = !look.terms.is_indexed || index.is_some();
        if is_in(&self.failed) || is_in(&self.succeeded) || !counts {
            return Noted::Nothing;
        }
        match index {
            _ if !pod.has_succeeded() => {
                let is_failure = pod.has_failed || fails_all;
                match is_failure && pod.verdict != Verdict::Ignored {
                    true => Noted::Failure,
                    false => Noted::Nothing,
                }
            }
            Some(index) if look.terms.is_indexed => match look.noted_indexes.has(index) {
                true => Noted::Nothing,
                false => Noted::Index,
            },
            _ => Noted::Success,
        }
    }

    fn end(&mut self, look: &Look<'a>, end: &End, is_over: bool) {
        let now = look.now;
        if self.decided().is_none() {
            self.condition(end.first, "True", &end.reason, &end.message, now);
        }
        if !is_over {
            return;
        }
        self.condition(end.last(), "True", &end.reason, &end.message, now);
        if !end.is_success() {
            let reason = known_reason(&end.reason);
            let told = Write::warning(JOBS, look.job, reason, end.message.clone());
            self.events.push(told);
            return;
        }
        self.status["completionTime"] = object::time_field(now);
        let completions = look.terms.completions;
        if completions.is_some_and(|all| self.number("succeeded") > all) {
            let message = "Too many succeeded pods running after completion count reached";
            let told = Write::warning(JOBS, look.job, "TooManySucceededPods", message.to_owned());
            self.events.push(told);
        }
        let told = Write::event(JOBS, look.job, "Completed", "Job completed".to_owned());
        self.events.push(told);
    }

    /// Writes the status, with these counts, if it says anything new; then tells of it.
    pub(super) fn write(mut self, job: &Value, counts: &Value, plan: &mut Plan) {
        self.status["uncountedTerminatedPods"] = match (&self.succeeded, &self.failed) {
            (succeeded, failed) if succeeded.is_empty() && failed.is_empty() => json!({}),
            (succeeded, failed) => said(&json!({"succeeded": succeeded, "failed": failed})),
        };
        for (field, count) in counts.as_object().into_iter().flatten() {
            self.status[field] = count.clone();
        }
        if said(&self.status) == said(&job["status"]) {
            return;
        }
        let mut status = said(&self.status);
        // These are told even where they are nothing.
        status["uncountedTerminatedPods"] = self.status["uncountedTerminatedPods"].clone();
        for field in ["ready", "terminating"] {
            status[field] = self.status[field].clone();
        }
        let mut object = object::identity(job);
        object["status"] = status;
        plan.then(Write::status(JOBS, object));
        plan.together(self.events);
    }
}

/// The fields of an object that say something: no nulls, zeros, and nothing empty. An empty
/// list of failed indexes says that indexes are counted.
fn said(object: &Value) -> Value {
    let says = |name: &str, value: &Value| match value {
        Value::Null => false,
        Value::Number(number) => number.as_i64() != Some(0),
        Value::String(text) => !text.is_empty() || name == "failedIndexes",
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(_) => true,
    };
    let fields = object.as_object().into_iter().flatten();
    let fields = fields.filter(|(name, value)| says(name, value));
    let fields: Map<String, Value> = fields
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    Value::Object(fields)
}

/// The reason of an event, among those that jobs fail for.
fn known_reason(reason: &str) -> &'static str {
    const REASONS: [&str; 5] = [
        "BackoffLimitExceeded",
        "DeadlineExceeded",
        "PodFailurePolicy",
        "MaxFailedIndexesExceeded",
        "FailedIndexes",
    ];
    let known = REASONS.into_iter().find(|own| *own == reason);
    known.unwrap_or("Failed")
}
