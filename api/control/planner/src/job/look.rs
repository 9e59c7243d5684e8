//! One look at a job: how far it has come, whether that is its end, which pods it needs.
//!
//! Decision: the steps of a plan are in an order in which each may be the last one carried
//! out. What ends or is counted is written before a finalizer goes, and pods that end with
//! their job are deleted after that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nautilus_machinery::timestamp::Instant;
use serde_json::{Value, json};

use super::backoff::{Failures, finished};
use super::intervals::Intervals;
use super::making;
use super::pod::{self, Pod, Terms};
use super::policy::{self, Verdict};
use super::tracking::{End, Tracking};
use crate::kind::JOBS;
use crate::object;
use crate::plan::{Plan, Write};
use crate::pods::{self, BATCH_PODS};

/// A look after pods that failed is no earlier than this.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);

/// Whether pods may be made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Making {
    /// They may.
    Allowed,
    /// The API has refused them: everything else is done.
    Refused,
}

/// What one look sees.
pub(super) struct Look<'a> {
    pub(super) job: &'a Value,
    pub(super) terms: Terms<'a>,
    pub(super) now: Instant,
    pub(super) pods: &'a [Pod],
    /// Indexes that have succeeded, and those of them that were noted before.
    pub(super) succeeded_indexes: Intervals,
    pub(super) noted_indexes: Intervals,
    /// Indexes that have failed, where failures count per index.
    pub(super) failed_indexes: Option<Intervals>,
    /// Failed pods that stay until their index has another one, by index.
    pub(super) awaiting: BTreeMap<i64, &'a Pod>,
}

/// What becomes of the pods that are there.
#[derive(Default)]
struct Changes<'a> {
    made: Vec<Option<i64>>,
    removed: Vec<&'a Pod>,
}

/// What is to be written for a job that has not finished, and its pods.
pub(super) fn look(job: &Value, objects: Vec<Arc<Value>>, now: Instant, making: Making) -> Plan {
    let terms = Terms::of(job);
    let mut pods: Vec<Pod> = objects.into_iter().map(|own| terms.judge(own)).collect();
    if terms.is_indexed {
        pods.sort_by_key(|pod| pod.index);
    }
    let look = Look::of(job, terms, &pods, now);
    let mut plan = Plan::default();
    let mut tracking = Tracking::of(job);
    let active: Vec<&Pod> = pods.iter().filter(|pod| pod.is_active()).collect();
    if tracking.status["startTime"].is_null() && !look.terms.is_suspended {
        tracking.status["startTime"] = object::time_field(now);
    }
    let succeeded = match look.terms.is_indexed {
        true => look.succeeded_indexes.total(),
        false => tracking.succeeded(&look),
    };
    let mut end = look.end(&tracking, &mut plan);
    let mut changes = Changes::default();
    let is_ending = end.is_some();
    if is_ending {
        changes.removed.clone_from(&active);
    } else {
        if !object::is_deleted(job) {
            changes = look.manage(&active, succeeded, &mut plan);
        }
        if making == Making::Refused {
            changes.made.clear();
        }
        let left = active.len() + changes.made.len() - changes.removed.len();
        let is_complete = left == 0
            && match look.terms.completions {
                None => succeeded > 0,
                Some(completions) => succeeded >= completions,
            };
        if is_complete {
            end = Some(End::completed());
        } else if !object::is_deleted(job) {
            tracking.suspend(&look);
        }
    }
    let is_ready = |pods: &[&Pod]| pods.iter().filter(|pod| pod.is_ready()).count();
    let terminating = pods.iter().filter(|pod| pod.is_terminating()).count();
    let left = active.len() - changes.removed.len();
    let ready = is_ready(&active) - is_ready(&changes.removed);
    let terminating = terminating + changes.removed.len();
    tracking.track(&look, end, terminating);
    let counts =
        |active: usize| json!({"active": active, "ready": ready, "terminating": terminating});
    let made = making::pods(job, &look.terms, &look.awaiting, &changes.made);
    let removals = || {
        changes
            .removed
            .iter()
            .map(|pod| pods::delete(JOBS, job, &pod.object))
    };
    let release = |pods: &[&Pod]| -> Vec<Write> {
        let tracked = pods.iter().filter(|pod| pod.is_tracked);
        tracked.map(|pod| pod::let_go(&pod.object)).collect()
    };
    if !is_ending {
        // Pods that the job itself takes away do not count: they are let go first.
        plan.together(release(&changes.removed));
        plan.together(removals().collect());
    }
    if tracking.released.is_empty() && !made.is_empty() {
        let active = left + made.len();
        plan.together(made);
        tracking.write(job, &counts(active), &mut plan);
        return plan;
    }
    let released = std::mem::take(&mut tracking.released);
    tracking.write(job, &counts(left), &mut plan);
    plan.together(release(&released));
    if is_ending {
        plan.together(removals().collect());
    }
    plan.together(made);
    plan
}

impl<'a> Look<'a> {
    fn of(job: &'a Value, terms: Terms<'a>, pods: &'a [Pod], now: Instant) -> Self {
        let completions = terms.completions.unwrap_or(0);
        let noted = |field: &str| {
            let text = job["status"][field].as_str().unwrap_or_default();
            Intervals::parse(text, completions)
        };
        let new = |ends: &dyn Fn(&Pod) -> bool| -> Vec<i64> {
            let tracked = pods.iter().filter(|pod| pod.is_tracked && ends(pod));
            tracked.filter_map(|pod| terms.index(pod)).collect()
        };
        let (mut succeeded_indexes, mut failed_indexes) = (Intervals::default(), None);
        let mut awaiting = BTreeMap::new();
        if terms.is_indexed {
            succeeded_indexes = noted("completedIndexes").with(new(&Pod::has_succeeded));
            if terms.index_limit.is_some() {
                let failed = noted("failedIndexes").with(new(&|pod| terms.ends_index(pod)));
                awaiting = last_failed(&terms, pods, &succeeded_indexes.and(&failed));
                failed_indexes = Some(failed);
            }
        }
        Self {
            job,
            now,
            pods,
            succeeded_indexes,
            noted_indexes: noted("completedIndexes"),
            failed_indexes,
            awaiting,
            terms,
        }
    }

    /// Whether and how the job ends, by what it said before, by failures, by its policy of
    /// success.
    fn end(&self, tracking: &Tracking<'_>, plan: &mut Plan) -> Option<End> {
        if let Some(end) = tracking.decided() {
            return Some(end);
        }
        let verdicts = self.pods.iter().filter(|pod| pod.has_failed);
        for pod in verdicts {
            if let Verdict::FailsJob(why) = &pod.verdict {
                return Some(End::failing("PodFailurePolicy", why));
            }
        }
        let spec = &self.job["spec"];
        let limit = spec["backoffLimit"].as_i64().unwrap_or(6);
        if tracking.failed(self) > limit || self.restarts_exceed(limit) {
            let why = "Job has reached the specified backoff limit";
            return Some(End::failing("BackoffLimitExceeded", why));
        }
        if let (Some(seconds), false) = (
            spec["activeDeadlineSeconds"].as_i64(),
            self.terms.is_suspended,
        ) {
            let started = object::time(&tracking.status["startTime"]).unwrap_or(self.now);
            let left = seconds.saturating_mul(1000) - object::elapsed_ms(started, self.now);
            let Some(left) = u64::try_from(left).ok().filter(|left| *left > 0) else {
                let why = "Job was active longer than specified deadline";
                return Some(End::failing("DeadlineExceeded", why));
            };
            plan.again(Duration::from_millis(left));
        }
        self.indexes_end()
    }

    fn indexes_end(&self) -> Option<End> {
        let spec = &self.job["spec"];
        let completions = self.terms.completions.filter(|_| self.terms.is_indexed)?;
        let succeeded = self.succeeded_indexes.total();
        if let Some(failed) = self.failed_indexes.as_ref().map(Intervals::total) {
            if spec["maxFailedIndexes"]
                .as_i64()
                .is_some_and(|most| failed > most)
            {
                let why = "Job has exceeded the specified maximal number of failed indexes";
                return Some(End::failing("MaxFailedIndexesExceeded", why));
            }
            if failed > 0 && failed + succeeded >= completions {
                return Some(End::failing("FailedIndexes", "Job has failed indexes"));
            }
        }
        let met = policy::success(&spec["successPolicy"], completions, &self.succeeded_indexes)?;
        Some(End::met("SuccessPolicy", &met))
    }

    /// Whether containers that are started anew in their pods have been so too often.
    fn restarts_exceed(&self, limit: i64) -> bool {
        if self.job["spec"]["template"]["spec"]["restartPolicy"] != "OnFailure" {
            return false;
        }
        let running = self.pods.iter().map(|pod| &pod.object["status"]);
        let running = running.filter(|own| own["phase"] == "Running" || own["phase"] == "Pending");
        let containers = running.flat_map(|own| {
            let init = object::items(&own["initContainerStatuses"]);
            init.chain(object::items(&own["containerStatuses"]))
        });
        let counts = containers.filter_map(|own| own["restartCount"].as_i64());
        let restarts: i64 = counts.sum();
        restarts > 0 && restarts >= limit
    }

    /// Which pods are made, or else which are taken away.
    fn manage(&self, active: &[&'a Pod], succeeded: i64, plan: &mut Plan) -> Changes<'a> {
        let terms = &self.terms;
        let running = i64::try_from(active.len()).unwrap_or(i64::MAX);
        if terms.is_suspended {
            let removed = active.to_vec();
            return Changes {
                removed,
                made: Vec::new(),
            };
        }
        let wanted = match terms.completions {
            None if succeeded > 0 => running,
            None => terms.parallelism,
            Some(completions) => (completions - succeeded).min(terms.parallelism).max(0),
        };
        let too_many = usize::try_from(running - wanted).unwrap_or(0);
        let mut removed = making::surplus(terms, active, too_many);
        removed.truncate(BATCH_PODS);
        if !removed.is_empty() {
            return Changes {
                removed,
                made: Vec::new(),
            };
        }
        let leaving = self.pods.iter().filter(|pod| pod.is_terminating());
        let leaving = leaving.filter(|_| terms.waits_for_end).count();
        let missing = usize::try_from(wanted - running).unwrap_or(0);
        let missing = missing.saturating_sub(leaving).min(BATCH_PODS);
        let made = match missing {
            0 => Vec::new(),
            missing => self.due(active, missing, plan),
        };
        Changes { removed, made }
    }

    /// As many new pods as are due now, up to `count`.
    fn due(&self, active: &[&Pod], count: usize, plan: &mut Plan) -> Vec<Option<i64>> {
        let mut wait_for = |wait: Duration| plan.again(wait.max(SHORTEST_WAIT));
        if self.terms.index_limit.is_none()
            && let Some(failures) = Failures::after_success(self.pods)
        {
            let wait = failures.wait(self.now);
            if !wait.is_zero() {
                wait_for(wait);
                return Vec::new();
            }
        }
        if !self.terms.is_indexed {
            return vec![None; count];
        }
        let (mut due, mut waits) = (Vec::new(), Vec::new());
        for index in self.pending(active, count) {
            let last = self.awaiting.get(&index);
            let wait = last.map(|pod| Failures::of_index(&pod.object).wait(self.now));
            match wait.filter(|wait| !wait.is_zero()) {
                Some(wait) => waits.push(wait),
                None => due.push(Some(index)),
            }
        }
        if let Some(wait) = waits.into_iter().min() {
            wait_for(wait);
        }
        due
    }

    /// The first indexes that have neither ended nor a pod.
    fn pending(&self, active: &[&Pod], count: usize) -> Vec<i64> {
        let taken = active.iter().filter_map(|pod| pod.index);
        let mut taken = self.succeeded_indexes.with(taken);
        if self.terms.waits_for_end {
            let leaving = self.pods.iter().filter(|pod| pod.is_terminating());
            taken = taken.with(leaving.filter_map(|pod| pod.index));
        }
        if let Some(failed) = &self.failed_indexes {
            taken = taken.and(failed);
        }
        taken.missing(count, self.terms.completions.unwrap_or(0))
    }
}

/// The last failed pod of each index that has neither ended nor an active pod: it carries
/// the count of failures until the next one does.
fn last_failed<'a>(
    terms: &Terms<'_>,
    pods: &'a [Pod],
    ended: &Intervals,
) -> BTreeMap<i64, &'a Pod> {
    let active = pods.iter().filter(|pod| pod.is_active());
    let taken = ended.with(active.filter_map(|pod| pod.index));
    let mut last: BTreeMap<i64, &Pod> = BTreeMap::new();
    let failures = |pod: &Pod| {
        let counted = pod::count_annotation(&pod.object, super::INDEX_FAILURES);
        counted + pod::count_annotation(&pod.object, super::INDEX_IGNORED_FAILURES)
    };
    let failed = pods.iter().filter(|pod| pod.is_tracked && pod.has_failed);
    for pod in failed {
        let Some(index) = terms.index(pod).filter(|index| !taken.has(*index)) else {
            continue;
        };
        let known = last.entry(index).or_insert(pod);
        let is_later = finished(&known.object) <= finished(&pod.object);
        if failures(known) <= failures(pod) && is_later {
            *known = pod;
        }
    }
    last
}
