//! API priority and fairness around every request: which flow it belongs to, whether it
//! runs, waits or is told to come again.
//!
//! [`nautilus_admission::fairness`] decides; this holds its state, wakes who waits, and
//! follows the configuration in the store.
//!
//! Invariants
//! - A request's seats come back when its answer's head is there, however it ended; a
//!   watch's when its initial events are on their way, and not later than a request's.
//! - Nobody waits longer than [`RequestLimits::max_wait`], and a waiting request that is
//!   dropped by its client leaves its queue.
//! - Before the configuration was read the built-in one holds: there is no time without.
//!
//! [`RequestLimits::max_wait`]: crate::context::RequestLimits::max_wait

mod sizes;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::response::Response;
use http::{HeaderName, HeaderValue};
use nautilus_access::Attributes;
use nautilus_admission::fairness::defaults::GROUP;
use nautilus_admission::fairness::{
    About, Arrival, Classified, Digest, Fairness, FlowSchema, PriorityLevel, Schemas, Ticket,
};
use nautilus_machine::Kv;
use nautilus_machinery::identity::User;
use nautilus_machinery::resource;
use nautilus_machinery::status::ApiError;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::failure::Failure;
use crate::lister::Lister;

/// Which flow schema a request was matched by.
const SCHEMA_HEADER: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
/// Which priority level it was served on.
const LEVEL_HEADER: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");
/// Seconds after which a request that found no room should come again.
const RETRY_AFTER_SECONDS: u32 = 1;

/// The state of one node.
pub(crate) struct FlowControl {
    schemas: ArcSwap<Schemas>,
    core: Mutex<Core>,
    sizes: sizes::Sizes,
    max_wait: Duration,
}

struct Core {
    fairness: Fairness,
    waiters: HashMap<Ticket, oneshot::Sender<()>>,
}

/// The place of a running request; dropped, its seats are free.
pub(crate) struct Seats {
    control: Arc<FlowControl>,
    classified: Classified,
    ticket: Ticket,
    since: Instant,
}

/// Where a request belongs, for the headers of its answer.
#[derive(Clone)]
pub(crate) struct Marks(Classified);

impl Marks {
    /// Says where the request belonged.
    pub(crate) fn put_on(&self, response: &mut Response) {
        let headers = response.headers_mut();
        for (name, uid) in [
            (SCHEMA_HEADER, &self.0.flow.schema_uid),
            (LEVEL_HEADER, &self.0.level_uid),
        ] {
            if let Ok(value) = HeaderValue::from_str(uid) {
                headers.insert(name, value);
            }
        }
    }
}

impl FlowControl {
    /// A node that serves so many seats at once; follows the configuration until
    /// `shutdown`.
    pub(crate) fn start(
        kv: &Arc<dyn Kv>,
        seats: u64,
        max_wait: Duration,
        shutdown: &CancellationToken,
    ) -> Arc<Self> {
        describe_metrics();
        let schemas = Schemas::built_in();
        let control = Arc::new(Self {
            core: Mutex::new(Core {
                fairness: Fairness::new(seats, schemas.levels()),
                waiters: HashMap::new(),
            }),
            schemas: ArcSwap::from_pointee(schemas),
            sizes: sizes::Sizes::new(kv.clone()),
            max_wait,
        });
        control.report_limits();
        if let (Some(schemas), Some(levels)) = (
            resource::find(GROUP, "v1", "flowschemas"),
            resource::find(GROUP, "v1", "prioritylevelconfigurations"),
        ) {
            let schemas = Lister::start(
                kv.clone(),
                schemas.clone(),
                |object| Ok(FlowSchema::of(&object)),
                shutdown.clone(),
            );
            let levels = Lister::start(
                kv.clone(),
                levels.clone(),
                |object| Ok(PriorityLevel::of(&object)),
                shutdown.clone(),
            );
            let following = control.clone().follow(schemas, levels);
            let stopped = shutdown.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = following => {}
                }
            });
        }
        control
    }

    async fn follow(
        self: Arc<Self>,
        schemas: Arc<Lister<FlowSchema>>,
        levels: Arc<Lister<PriorityLevel>>,
    ) {
        let (mut schemas_changed, mut levels_changed) = (schemas.changes(), levels.changes());
        loop {
            let (own, of_levels) = (schemas.snapshot(), levels.snapshot());
            // An empty state is that of a quorum whose leader has not made them yet.
            if own.synced && of_levels.synced && !of_levels.objects.is_empty() {
                self.configure(Schemas::new(
                    own.objects
                        .values()
                        .map(|schema| (**schema).clone())
                        .collect(),
                    of_levels
                        .objects
                        .values()
                        .map(|level| (**level).clone())
                        .collect(),
                ));
            }
            let changed = tokio::select! {
                changed = schemas_changed.changed() => changed,
                changed = levels_changed.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    fn configure(&self, schemas: Schemas) {
        {
            let mut core = self.core.lock();
            core.fairness.configure(schemas.levels());
            core.start_waiting();
        }
        self.schemas.store(Arc::new(schemas));
        self.report_limits();
    }

    fn report_limits(&self) {
        for (name, view) in self.core.lock().fairness.levels() {
            let name = name.to_string();
            for (metric, seats) in [
                (
                    "apiserver_flowcontrol_nominal_limit_seats",
                    view.share.nominal,
                ),
                ("apiserver_flowcontrol_lower_limit_seats", view.share.lower),
                ("apiserver_flowcontrol_upper_limit_seats", view.share.upper),
            ] {
                metrics::gauge!(metric, "priority_level" => name.clone()).set(as_f64(seats));
            }
        }
    }

    /// Where a request belongs.
    pub(crate) fn classify(&self, user: &User, asked: &Attributes) -> Result<Marks, Failure> {
        let schemas = self.schemas.load();
        let resource;
        let about = if asked.is_resource {
            resource = match asked.subresource.as_str() {
                "" => asked.resource.clone(),
                subresource => format!("{}/{subresource}", asked.resource),
            };
            About::Resource {
                group: &asked.group,
                resource: &resource,
                namespace: &asked.namespace,
            }
        } else {
            About::Path(&asked.path)
        };
        let digest = Digest {
            user,
            verb: &asked.verb,
            about,
        };
        schemas.classify(&digest).map(Marks).ok_or_else(|| {
            ApiError::internal("no flow schema matches: the user is in no group").into()
        })
    }

    /// Waits for the request's turn. 429 when there is no room or it took too long.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        marks: &Marks,
        asked: &Attributes,
        query: &[(String, String)],
    ) -> Result<Seats, Failure> {
        let classified = &marks.0;
        let seats = self.sizes.seats(asked, query);
        let came = Instant::now();
        let (arrival, waiter) = {
            let mut core = self.core.lock();
            let most = core.fairness.max_seats(&classified.level);
            let hash = classified.flow.hash;
            let arrival = core
                .fairness
                .arrive(&classified.level, hash, seats.min(most));
            let waiter = match arrival {
                Arrival::Waits(ticket) => {
                    let (wake, waiter) = oneshot::channel();
                    core.waiters.insert(ticket, wake);
                    Some(waiter)
                }
                _ => None,
            };
            (arrival, waiter)
        };
        let ticket = match arrival {
            Arrival::Runs(ticket) | Arrival::Waits(ticket) => ticket,
            Arrival::Refused(refusal) => {
                return Err(self.refused(classified, refusal.as_str()));
            }
        };
        if let Some(waiter) = waiter {
            let place = Waiting {
                control: self,
                classified,
                ticket,
                left: false,
            };
            self.wait(place, waiter, came).await?;
        }
        count(
            "apiserver_flowcontrol_dispatched_requests_total",
            classified,
            &[],
        );
        gauge(classified, 1.0);
        Ok(Seats {
            control: self.clone(),
            classified: classified.clone(),
            ticket,
            since: Instant::now(),
        })
    }

    async fn wait(
        &self,
        mut place: Waiting<'_>,
        waiter: oneshot::Receiver<()>,
        came: Instant,
    ) -> Result<(), Failure> {
        let classified = place.classified;
        let (level, schema) = labels(classified);
        let queued = metrics::gauge!("apiserver_flowcontrol_current_inqueue_requests",
            "priority_level" => level.clone(), "flow_schema" => schema.clone());
        queued.increment(1.0);
        let woken = tokio::time::timeout(self.max_wait, waiter).await.is_ok();
        queued.decrement(1.0);
        // Who was woken at the last moment runs all the same.
        let runs = woken || !place.leave();
        place.left = true;
        metrics::histogram!("apiserver_flowcontrol_request_wait_duration_seconds",
            "priority_level" => level, "flow_schema" => schema, "execute" => runs.to_string())
        .record(came.elapsed().as_secs_f64());
        if runs {
            return Ok(());
        }
        Err(self.refused(classified, "time-out"))
    }

    fn refused(&self, classified: &Classified, reason: &str) -> Failure {
        count(
            "apiserver_flowcontrol_rejected_requests_total",
            classified,
            &[("reason", reason)],
        );
        ApiError::too_many_requests(
            "Too many requests, please try again later.",
            RETRY_AFTER_SECONDS,
        )
        .into()
    }
}

impl Core {
    /// Wakes whoever may run by now.
    fn start_waiting(&mut self) {
        while let Some(ticket) = self.fairness.start_next() {
            // Whoever does not listen any more has left, or gives its seats back.
            if let Some(wake) = self.waiters.remove(&ticket) {
                let _ = wake.send(());
            }
        }
    }
}

/// A place in a queue; dropped while it is held, it is given up.
struct Waiting<'a> {
    control: &'a FlowControl,
    classified: &'a Classified,
    ticket: Ticket,
    left: bool,
}

impl Waiting<'_> {
    /// Leaves the queue; false if the request runs by now.
    fn leave(&self) -> bool {
        let mut core = self.control.core.lock();
        core.waiters.remove(&self.ticket);
        let left = core.fairness.give_up(&self.classified.level, self.ticket);
        core.start_waiting();
        left
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.left && !self.leave() {
            // It was started and nobody is there to run it.
            let mut core = self.control.core.lock();
            core.fairness.finish(&self.classified.level, self.ticket);
            core.start_waiting();
        }
    }
}

impl Seats {
    /// Leaves the seats to who takes long: they come back when the guard is dropped, and
    /// after this time at the latest.
    pub(crate) fn lend(self, at_most: Duration) -> DropGuard {
        let done = CancellationToken::new();
        let ended = done.clone();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(at_most, ended.cancelled()).await;
            drop(self);
        });
        done.drop_guard()
    }
}

impl Drop for Seats {
    fn drop(&mut self) {
        {
            let mut core = self.control.core.lock();
            core.fairness.finish(&self.classified.level, self.ticket);
            core.start_waiting();
        }
        gauge(&self.classified, -1.0);
        let (level, schema) = labels(&self.classified);
        metrics::histogram!("apiserver_flowcontrol_request_execution_seconds",
            "priority_level" => level, "flow_schema" => schema)
        .record(self.since.elapsed().as_secs_f64());
    }
}

fn labels(classified: &Classified) -> (String, String) {
    (
        classified.level.to_string(),
        classified.flow.schema.to_string(),
    )
}

fn count(metric: &'static str, classified: &Classified, more: &[(&'static str, &str)]) {
    let (level, schema) = labels(classified);
    let mut labels = vec![
        metrics::Label::new("priority_level", level),
        metrics::Label::new("flow_schema", schema),
    ];
    for (name, value) in more {
        labels.push(metrics::Label::new(*name, (*value).to_owned()));
    }
    metrics::counter!(metric, labels).increment(1);
}

fn gauge(classified: &Classified, by: f64) {
    let (level, schema) = labels(classified);
    metrics::gauge!("apiserver_flowcontrol_current_executing_requests",
        "priority_level" => level, "flow_schema" => schema)
    .increment(by);
}

fn as_f64(seats: u64) -> f64 {
    f64::from(u32::try_from(seats).unwrap_or(u32::MAX))
}

fn describe_metrics() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_counter!(
        "apiserver_flowcontrol_dispatched_requests_total",
        "Requests that were run, by priority level and flow schema."
    );
    describe_counter!(
        "apiserver_flowcontrol_rejected_requests_total",
        "Requests that were told to come again, by priority level, flow schema and reason."
    );
    describe_gauge!(
        "apiserver_flowcontrol_current_inqueue_requests",
        "Requests that wait for their turn."
    );
    describe_gauge!(
        "apiserver_flowcontrol_current_executing_requests",
        "Requests that run; of a watch its beginning."
    );
    describe_gauge!(
        "apiserver_flowcontrol_nominal_limit_seats",
        "Seats of a priority level by its shares."
    );
    describe_gauge!(
        "apiserver_flowcontrol_lower_limit_seats",
        "Seats that a priority level never lends."
    );
    describe_gauge!(
        "apiserver_flowcontrol_upper_limit_seats",
        "Seats that a priority level may have with what others lend."
    );
    describe_histogram!(
        "apiserver_flowcontrol_request_wait_duration_seconds",
        Unit::Seconds,
        "Time that a request waited for its turn."
    );
    describe_histogram!(
        "apiserver_flowcontrol_request_execution_seconds",
        Unit::Seconds,
        "Time that a request ran; of a watch its beginning."
    );
}

#[cfg(test)]
mod tests;
