//! CronJobs: a job whenever a schedule comes due.
//!
//! Source: KEP-19 (cron jobs), KEP-3140 (time zones), KEP-4026 (the annotation of the time).
//!
//! Invariant: there is one job for each time that comes due, whoever leads: its name is made
//! of that time, and what the status says of a job is read from the job itself, which says
//! the time, too (`a_lost_leader_makes_no_job_twice`).

mod clock;
mod due;

use std::sync::Arc;
use std::time::Duration;

use nautilus_machinery::strategy::schedule::Schedule;
use nautilus_machinery::timestamp::{self, Instant};
use serde_json::{Value, json};

use crate::controller::{Change, Controller};
use crate::job;
use crate::kind::{CRON_JOBS, JOBS, Kind};
use crate::object;
use crate::ownership;
use crate::plan::{Delete, Failed, Plan, Propagation, Write};
use crate::view::{Key, View, Within};
use clock::{Clock, Zone};
use due::{Due, due};

/// The time that a job was made for, RFC 3339 in the zone of its CronJob.
const TIME: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// A look is this much later than the time that comes due, for clocks that differ.
const MARGIN: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub(crate) struct CronJobs;

impl Controller for CronJobs {
    fn name(&self) -> &'static str {
        "cronjob-controller"
    }

    fn follows(&self) -> &'static [Kind] {
        &[CRON_JOBS, JOBS]
    }

    fn concerns(&self, _: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        if change.kind == CRON_JOBS {
            keys.push(Key::of(change.object()));
        } else {
            ownership::managers(CRON_JOBS, change, keys);
        }
    }

    fn reconcile(&self, view: &dyn View, key: &Key, now: Instant) -> Plan {
        let mut plan = Plan::default();
        if let Some(cron) = view.get(CRON_JOBS, &key.namespace, &key.name) {
            let jobs = view.list(JOBS, Within::Controlled(&key.namespace, object::uid(&cron)));
            Look::of(&cron, &jobs, now).plan(view, &mut plan);
        }
        plan
    }

    fn report(&self, view: &dyn View, key: &Key, _: Instant, failed: &Failed) -> Plan {
        let mut told = Plan::default();
        let Some(cron) = view.get(CRON_JOBS, &key.namespace, &key.name) else {
            return told;
        };
        let why = &failed.message;
        let (reason, message) = match &failed.write {
            Write::Create { .. } if failed.namespace_ends => return told,
            Write::Create { .. } => ("FailedCreate", format!("Error creating job: {why}")),
            Write::Delete(_) => ("FailedDelete", format!("Deleted job: {why}")),
            _ => return told,
        };
        told.then(Write::warning(CRON_JOBS, &cron, reason, message));
        told
    }
}

/// What one look sees, and the status as it shall be.
struct Look<'a> {
    cron: &'a Value,
    jobs: &'a [Arc<Value>],
    now: Instant,
    status: Value,
    active: Vec<Value>,
    /// Jobs that are removed.
    removed: Vec<&'a Value>,
    events: Vec<Write>,
}

impl<'a> Look<'a> {
    fn of(cron: &'a Value, jobs: &'a [Arc<Value>], now: Instant) -> Self {
        let status = &cron["status"];
        Self {
            cron,
            jobs,
            now,
            status: match status.is_object() {
                true => status.clone(),
                false => json!({}),
            },
            active: object::items(&status["active"]).cloned().collect(),
            removed: Vec::new(),
            events: Vec::new(),
        }
    }

    fn plan(mut self, view: &dyn View, plan: &mut Plan) {
        self.limit_history("Complete", "successfulJobsHistoryLimit");
        self.limit_history("Failed", "failedJobsHistoryLimit");
        self.see_jobs();
        let made = self.due_job(view, plan);
        let removals = self.removed.iter().map(|job| {
            let message = format!("Deleted job {}", object::name(job));
            let removal = Write::Delete(Delete {
                propagation: Some(Propagation::Background),
                ..Delete::of(JOBS, job)
            });
            removal.told(CRON_JOBS, self.cron, "SuccessfulDelete", message)
        });
        plan.together(removals.collect());
        match self.active.is_empty() {
            true => drop(self.status.as_object_mut().map(|own| own.remove("active"))),
            false => self.status["active"] = self.active.into(),
        }
        let before = &self.cron["status"];
        let is_news = ["active", "lastScheduleTime", "lastSuccessfulTime"]
            .iter()
            .any(|field| before[*field] != self.status[*field]);
        if is_news {
            let mut object = object::identity(self.cron);
            object["status"] = self.status;
            plan.then(Write::status(CRON_JOBS, object));
        }
        plan.together(self.events);
        if let Some(job) = made {
            let message = format!("Created job {}", object::name(&job));
            let create = Write::create(JOBS, job);
            plan.then(create.told(CRON_JOBS, self.cron, "SuccessfulCreate", message));
        }
    }

    fn tell(&mut self, reason: &'static str, message: String) {
        let event = Write::event(CRON_JOBS, self.cron, reason, message);
        self.events.push(event);
    }

    fn warn(&mut self, reason: &'static str, message: String) {
        let event = Write::warning(CRON_JOBS, self.cron, reason, message);
        self.events.push(event);
    }

    fn remove(&mut self, job: &'a Value) {
        self.active.retain(|own| own["uid"] != object::uid(job));
        if !object::is_deleted(job) {
            self.removed.push(job);
        }
    }

    /// Removes the oldest of the jobs that ended in one way.
    fn limit_history(&mut self, end: &str, limit: &str) {
        let Some(limit) = self.cron["spec"][limit].as_u64() else {
            return;
        };
        let jobs = self.jobs.iter().map(|job| &**job);
        let mut ended: Vec<&Value> = jobs.filter(|job| object::is_true(job, end)).collect();
        let started = |job: &Value| object::time(&job["status"]["startTime"]);
        ended.sort_by_key(|job| (started(job).is_none(), started(job), object::name(job)));
        let kept = usize::try_from(limit).unwrap_or(usize::MAX);
        let surplus = ended.len().saturating_sub(kept);
        for job in &ended[..surplus] {
            self.remove(job);
        }
    }

    /// Says which jobs run, when the last one was due and when the last one succeeded.
    fn see_jobs(&mut self) {
        for job in self.jobs {
            let (name, uid) = (object::name(job), object::uid(job));
            let is_known = self.active.iter().any(|own| own["uid"] == uid);
            let due = self.time_of(job);
            let later =
                |field: &Value, at: i64| object::time(field).is_none_or(|known| known.seconds < at);
            if let Some(due) = due
                && later(&self.status["lastScheduleTime"], due)
            {
                self.status["lastScheduleTime"] = timestamp::format_seconds(due).into();
            }
            if !job::is_finished(job) {
                if !is_known && due.is_some() && !object::is_deleted(job) {
                    self.active.push(object::reference(JOBS, job));
                } else if !is_known && due.is_none() {
                    let saw = "Saw a job that the controller did not create or forgot";
                    self.warn("UnexpectedJob", format!("{saw}: {name}"));
                }
                continue;
            }
            let end = match object::is_true(job, "Complete") {
                true => "Complete",
                false => "Failed",
            };
            if is_known {
                self.active.retain(|own| own["uid"] != uid);
                let message = format!("Saw completed job: {name}, condition: {end}");
                self.tell("SawCompletedJob", message);
            }
            let completed = &job["status"]["completionTime"];
            if end == "Complete"
                && let Some(at) = object::time(completed)
                && later(&self.status["lastSuccessfulTime"], at.seconds)
            {
                self.status["lastSuccessfulTime"] = completed.clone();
            }
        }
        let is_there = |own: &Value| self.jobs.iter().any(|job| own["uid"] == object::uid(job));
        let (there, missing): (Vec<Value>, Vec<Value>) = std::mem::take(&mut self.active)
            .into_iter()
            .partition(is_there);
        self.active = there;
        for own in missing {
            let name = own["name"].as_str().unwrap_or_default();
            self.tell("MissingJob", format!("Active job went missing: {name}"));
        }
    }

    /// The second since 1970 that a job was made for, if this CronJob made it.
    fn time_of(&self, job: &Value) -> Option<i64> {
        let at = timestamp::parse(object::annotation(job, TIME)?)?.seconds;
        (object::name(job) == self.name_of(at)).then_some(at)
    }

    fn name_of(&self, at: i64) -> String {
        format!("{}-{}", object::name(self.cron), at.div_euclid(60))
    }

    /// The job that is due now, if any; otherwise when to look again.
    fn due_job(&mut self, view: &dyn View, plan: &mut Plan) -> Option<Value> {
        let spec = &self.cron["spec"];
        if object::is_deleted(self.cron) {
            return None;
        }
        let zone = spec["timeZone"].as_str().unwrap_or_default();
        let Some(own_zone) = Zone::of(zone) else {
            let why = format!("invalid timeZone: {zone:?}: unknown time zone {zone}");
            self.warn("UnknownTimeZone", why);
            return None;
        };
        if spec["suspend"] == true {
            return None;
        }
        let text = spec["schedule"].as_str().unwrap_or_default();
        if text.contains("TZ") {
            let why = format!(
                "CRON_TZ or TZ used in schedule {text:?} is not officially supported, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
            );
            self.warn("UnsupportedSchedule", why);
        }
        let schedule = match Schedule::parse(text) {
            Ok(schedule) => schedule,
            Err(why) => {
                let why = format!("unparseable schedule: {text:?} : {why}");
                self.warn("UnparseableSchedule", why);
                return None;
            }
        };
        let clock = Clock::of(schedule, own_zone);
        let last = object::time(&self.status["lastScheduleTime"]);
        let last = last.or_else(|| object::created(self.cron))?;
        let deadline_s = spec["startingDeadlineSeconds"].as_i64();
        let seen = match due(&clock, last, self.now, deadline_s) {
            Ok(seen) => seen,
            Err(why) => {
                self.warn(
                    "InvalidSchedule",
                    format!("invalid schedule: {text} : {why}"),
                );
                return None;
            }
        };
        self.look_again(&clock, last, plan);
        self.job_of(view, zone, seen?, deadline_s)
    }

    /// A look at the next time that comes due.
    fn look_again(&self, clock: &Clock, last: Instant, plan: &mut Plan) {
        let whole = |seconds: i64| Instant {
            seconds,
            nanoseconds: 0,
        };
        let seen = due(clock, last, self.now, None).ok().flatten();
        let from = seen.map_or(last, |seen| whole(seen.at));
        let next = clock.next(from).filter(|next| whole(*next) > self.now);
        if let Some(next) = next.or_else(|| clock.next(self.now)) {
            let left_ms = object::elapsed_ms(self.now, whole(next));
            let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
            plan.again(left + MARGIN);
        }
    }

    fn job_of(
        &mut self,
        view: &dyn View,
        zone: &str,
        seen: Due,
        deadline_s: Option<i64>,
    ) -> Option<Value> {
        if seen.are_many_missed {
            let why = "too many missed start times. Set or decrease \
                       .spec.startingDeadlineSeconds or check clock skew";
            self.warn("TooManyMissedTimes", why.to_owned());
        }
        let at = seen.at;
        let latest = Instant {
            seconds: deadline_s.map_or(i64::MAX, |deadline| at.saturating_add(deadline)),
            nanoseconds: 0,
        };
        if latest < self.now {
            let shown = jiff::Timestamp::from_second(at).ok()?;
            let shown = shown.strftime("%a, %d %b %Y %H:%M:%S +0000");
            let why = format!("Missed scheduled time to start a job: {shown}");
            self.warn("MissSchedule", why);
            return None;
        }
        let name = self.name_of(at);
        let last = object::time(&self.status["lastScheduleTime"]);
        let is_known = self.active.iter().any(|own| own["name"] == name.as_str());
        let namespace = object::namespace(self.cron);
        // A job of that name that is another's stands in the way for good.
        let is_taken = view.get(JOBS, namespace, &name).is_some();
        if is_known || is_taken || last.is_some_and(|last| last.seconds == at) {
            return None;
        }
        match self.cron["spec"]["concurrencyPolicy"].as_str() {
            Some("Forbid") if !self.active.is_empty() => {
                let why = "Not starting job because prior execution is running and \
                           concurrency policy is Forbid";
                self.tell("JobAlreadyActive", why.to_owned());
                return None;
            }
            Some("Replace") => {
                let jobs = self.jobs.iter().map(|job| &**job);
                let running: Vec<&Value> = jobs
                    .filter(|job| self.active.iter().any(|own| own["uid"] == object::uid(job)))
                    .collect();
                running.into_iter().for_each(|job| self.remove(job));
            }
            _ => {}
        }
        let template = &self.cron["spec"]["jobTemplate"];
        let mut metadata = json!({
            "namespace": namespace,
            "name": name,
            "ownerReferences": [object::controller_reference(CRON_JOBS, self.cron)],
        });
        for field in ["labels", "annotations"] {
            if template["metadata"][field].is_object() {
                metadata[field] = template["metadata"][field].clone();
            }
        }
        metadata["annotations"][TIME] = Zone::of(zone)?.show(at).into();
        Some(json!({"metadata": metadata, "spec": template["spec"]}))
    }
}

#[cfg(test)]
mod tests;
