//! What the scheduler measures, by kube-scheduler's names.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use nautilus_machinery::timestamp::Instant;
use nautilus_planner::scheduler::{Decision, Placement, Plugin, Scheduler};

/// Attempts that a pod's time until it has a node is told apart by; more are one.
const MOST_ATTEMPTS: u32 = 16;

/// See the module.
pub(crate) struct Meters {
    algorithm: Histogram,
    pending: [Gauge; 4],
    /// Pods that wait because of each rule.
    unschedulable: Vec<(Plugin, Gauge)>,
    nodes: Gauge,
    preemptions: Counter,
    victims: Histogram,
    violations: Counter,
    attempts: Histogram,
}

impl Meters {
    pub(crate) fn new() -> Self {
        let pending = ["active", "backoff", "unschedulable", "gated"];
        let unschedulable = Plugin::ALL.into_iter().map(|plugin| {
            let gauge = gauge!("scheduler_unschedulable_pods", "plugin" => plugin.name());
            (plugin, gauge)
        });
        Self {
            unschedulable: unschedulable.collect(),
            algorithm: histogram!("scheduler_scheduling_algorithm_duration_seconds"),
            pending: pending.map(|queue| gauge!("scheduler_pending_pods", "queue" => queue)),
            nodes: gauge!("scheduler_cache_size", "type" => "nodes"),
            preemptions: counter!("scheduler_preemption_attempts_total"),
            victims: histogram!("scheduler_preemption_victims"),
            violations: counter!("scheduler_preemption_pdb_violations_total"),
            attempts: histogram!("scheduler_pod_scheduling_attempts"),
        }
    }

    /// One decision, and what the queue is after it.
    pub(crate) fn decided(&self, decision: &Decision, took: Duration, scheduler: &Scheduler) {
        self.algorithm.record(took.as_secs_f64());
        if let Decision::Wait(wait) = decision {
            attempted("unschedulable", &wait.attempt.pod.scheduler_name, took);
            if let Some(violations) = wait.preemption {
                self.preemptions.increment(1);
                self.violations.increment(violations as u64);
            }
            if !wait.victims.is_empty() {
                self.victims.record(wait.victims.len() as f64);
            }
        }
        if let Decision::Fail(failure) = decision {
            attempted("error", &failure.attempt.pod.scheduler_name, took);
        }
        for (plugin, gauge) in &self.unschedulable {
            gauge.set(scheduler.queue().rejected_by(*plugin) as f64);
        }
        let lengths = scheduler.queue().lengths();
        let lengths = [
            lengths.active,
            lengths.backoff,
            lengths.unschedulable,
            lengths.gated,
        ];
        for (gauge, length) in self.pending.iter().zip(lengths) {
            gauge.set(length as f64);
        }
        self.nodes.set(scheduler.snapshot().len() as f64);
        for (event, queue, count) in scheduler.queue().incoming() {
            counter!("scheduler_queue_incoming_pods_total", "event" => event, "queue" => queue)
                .absolute(count);
        }
    }

    /// A pod that was bound; `binding` is how long that took after the decision.
    pub(crate) fn bound(&self, placement: &Placement, binding: Duration, now: Instant) {
        let attempt = &placement.attempt;
        attempted("scheduled", &attempt.pod.scheduler_name, binding);
        self.attempts.record(f64::from(attempt.number));
        let label = match attempt.number {
            number if number < MOST_ATTEMPTS => number.to_string(),
            _ => format!("{MOST_ATTEMPTS}+"),
        };
        let seconds = now.seconds.saturating_sub(attempt.arrived.seconds) as f64;
        let rest = f64::from(now.nanoseconds - attempt.arrived.nanoseconds) / 1e9;
        histogram!("scheduler_pod_scheduling_sli_duration_seconds", "attempts" => label)
            .record(seconds + rest);
    }

    /// A pod that was not bound.
    pub(crate) fn failed(&self, placement: &Placement) {
        let profile = &placement.attempt.pod.scheduler_name;
        attempted("error", profile, Duration::ZERO);
    }
}

fn attempted(result: &'static str, profile: &str, took: Duration) {
    let labels = [
        ("result", result.to_owned()),
        ("profile", profile.to_owned()),
    ];
    counter!("scheduler_schedule_attempts_total", &labels).increment(1);
    histogram!("scheduler_scheduling_attempt_duration_seconds", &labels).record(took.as_secs_f64());
}
