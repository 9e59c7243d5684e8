//! What the metrics of this crate say, in the words of `/metrics`. Their names are those of
//! client-go's work queues and of kube-scheduler.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

const COUNTERS: [(&str, &str); 7] = [
    (
        "nautilus_events_dropped_total",
        "Events of controllers that were not recorded: too many waited.",
    ),
    (
        "workqueue_adds_total",
        "Keys that a controller was to look at.",
    ),
    (
        "workqueue_retries_total",
        "Keys looked at in vain, to be looked at again.",
    ),
    (
        "scheduler_preemption_attempts_total",
        "Looks for pods that make room for a more important one.",
    ),
    (
        "scheduler_preemption_pdb_violations_total",
        "Disruption budgets that preemptions broke.",
    ),
    (
        "scheduler_queue_incoming_pods_total",
        "Pods that came into a queue, by event and queue.",
    ),
    (
        "scheduler_schedule_attempts_total",
        "Attempts to schedule pods, by result and profile.",
    ),
];
const GAUGES: [(&str, &str); 4] = [
    ("workqueue_depth", "Keys that wait for a controller."),
    ("scheduler_cache_size", "Nodes in the scheduler's snapshot."),
    (
        "scheduler_pending_pods",
        "Pods that wait for a node, by queue.",
    ),
    (
        "scheduler_unschedulable_pods",
        "Pods that a rule turned away, by rule.",
    ),
];
const SECONDS: [(&str, &str); 4] = [
    (
        "workqueue_work_duration_seconds",
        "How long a look at a key took, with its writes.",
    ),
    (
        "scheduler_pod_scheduling_sli_duration_seconds",
        "From a pod's arrival to its binding.",
    ),
    (
        "scheduler_scheduling_algorithm_duration_seconds",
        "How long a decision took.",
    ),
    (
        "scheduler_scheduling_attempt_duration_seconds",
        "How long an attempt took, with its binding.",
    ),
];
const COUNTS: [(&str, &str); 2] = [
    (
        "scheduler_pod_scheduling_attempts",
        "Attempts that a pod needed until it was bound.",
    ),
    (
        "scheduler_preemption_victims",
        "Pods that made room for one.",
    ),
];

/// Describes them; again is no harm.
pub(crate) fn describe() {
    for (name, help) in COUNTERS {
        describe_counter!(name, help);
    }
    for (name, help) in GAUGES {
        describe_gauge!(name, help);
    }
    for (name, help) in SECONDS {
        describe_histogram!(name, Unit::Seconds, help);
    }
    for (name, help) in COUNTS {
        describe_histogram!(name, help);
    }
}
