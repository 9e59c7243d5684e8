//! Counts and times of answers, by method. Handles are made once.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::{Counter, Histogram};

/// The methods counted by name; every other is `other`.
const METHODS: [&str; 14] = [
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.KV/RangeStream",
    "/etcdserverpb.KV/Put",
    "/etcdserverpb.KV/DeleteRange",
    "/etcdserverpb.KV/Txn",
    "/etcdserverpb.KV/Compact",
    "/etcdserverpb.Watch/Watch",
    "/etcdserverpb.Lease/LeaseGrant",
    "/etcdserverpb.Lease/LeaseRevoke",
    "/etcdserverpb.Lease/LeaseKeepAlive",
    "/etcdserverpb.Lease/LeaseTimeToLive",
    "/etcdserverpb.Lease/LeaseLeases",
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Cluster/MemberList",
];

/// The meters of all methods.
pub(crate) struct Meters {
    methods: BTreeMap<&'static str, Meter>,
    other: Meter,
}

/// The meter of one method.
pub(crate) struct Meter {
    answered: Counter,
    refused: Counter,
    seconds: Histogram,
}

impl Meters {
    /// Registers every method.
    pub(crate) fn new() -> Self {
        describe_metrics();
        Self {
            methods: METHODS
                .iter()
                .map(|path| (*path, Meter::new(path.trim_start_matches('/'))))
                .collect(),
            other: Meter::new("other"),
        }
    }

    /// The meter of the method at `path`.
    pub(crate) fn of(&self, path: &str) -> &Meter {
        self.methods.get(path).unwrap_or(&self.other)
    }
}

/// Says what the face's metrics mean, and makes those that count rare things stand at
/// zero.
fn describe_metrics() {
    use metrics::{counter, describe_counter, describe_gauge, describe_histogram};
    describe_counter!(
        "nautilus_etcd_requests_total",
        "Requests of etcd clients, by method and outcome."
    );
    describe_histogram!(
        "nautilus_etcd_request_duration_seconds",
        metrics::Unit::Seconds,
        "Time to answer an etcd client; of a stream, until it began."
    );
    describe_gauge!("nautilus_etcd_alarms", "Alarms raised in the cluster.");
    describe_counter!(
        "nautilus_etcd_auto_compactions_total",
        "Compactions made by the configured rule."
    );
    describe_counter!(
        "nautilus_etcd_authentications_refused_total",
        "Names and passwords that were refused."
    );
    counter!("nautilus_etcd_auto_compactions_total").absolute(0);
    counter!("nautilus_etcd_authentications_refused_total").absolute(0);
}

impl Meter {
    fn new(method: &'static str) -> Self {
        let requests = |outcome: &'static str| metrics::counter!("nautilus_etcd_requests_total", "method" => method, "outcome" => outcome);
        Self {
            answered: requests("answered"),
            refused: requests("refused"),
            seconds: metrics::histogram!("nautilus_etcd_request_duration_seconds", "method" => method),
        }
    }

    /// Notes an answer: of a stream, when it began.
    pub(crate) fn record(&self, elapsed: Duration, refused: bool) {
        if refused {
            self.refused.increment(1);
        } else {
            self.answered.increment(1);
        }
        self.seconds.record(elapsed.as_secs_f64());
    }
}
