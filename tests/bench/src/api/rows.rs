//! The rows of the comparison with kube-apiserver.

use crate::plan::{Aim, Row};

const fn row(what: &'static str, unit: &'static str, aim: Aim) -> Row {
    Row { what, unit, aim }
}

/// Pods that are there while the rows are measured.
pub const PODS: usize = 10_000;
/// Pods of the largest row of memory.
pub const MANY_PODS: usize = 100_000;

/// Every row, in the order of the report.
pub const ROWS: &[Row] = &[
    row("get_per_s", "gets/s", Aim::AtLeast(3.0)),
    row("get_ms_p50", "ms", Aim::Less),
    row("get_ms_p99", "ms", Aim::Less),
    row("list_10k_pods_per_s", "lists/s", Aim::AtLeast(3.0)),
    row("list_10k_pods_ms_p50", "ms", Aim::Less),
    row("list_10k_pods_ms_p99", "ms", Aim::Less),
    row("create_per_s", "creates/s", Aim::AtLeast(3.0)),
    row("create_ms_p50", "ms", Aim::Less),
    row("create_ms_p99", "ms", Aim::Less),
    row("status_patch_per_s", "patches/s", Aim::AtLeast(3.0)),
    row("status_patch_ms_p50", "ms", Aim::Less),
    row("status_patch_ms_p99", "ms", Aim::Less),
    row("apply_per_s", "applies/s", Aim::AtLeast(3.0)),
    row("apply_ms_p50", "ms", Aim::Less),
    row("apply_ms_p99", "ms", Aim::Less),
    row("mixed_ms_p99", "ms", Aim::OursAtMost(50.0)),
    row("mixed_ms_p50", "ms", Aim::Less),
    row("mixed_held_per_s", "requests/s", Aim::More),
    row(
        "watch_fanout_1000_events_per_s",
        "events/s",
        Aim::AtLeast(3.0),
    ),
    row("resident_10k_pods_bytes", "B", Aim::AtMost(0.25)),
    row("resident_10k_pods_all_bytes", "B", Aim::Less),
    row("resident_100k_pods_bytes", "B", Aim::AtMost(0.25)),
    row("resident_100k_pods_all_bytes", "B", Aim::Less),
];
