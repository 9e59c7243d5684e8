//! The audit log: events by policy, in a chain that shows gaps ([`chain`]), in a file of
//! the host's ([`file`]).
//!
//! What a policy asks to record of bodies stands in that file in clear: the policy is
//! the operator's decision, and there is no log without one.
//!
//! Invariants
//! - An event is queued before the request goes on, and before its answer does: where
//!   the queue is full, requests wait.
//! - Events that could not be written are counted and logged, and leave no gap that
//!   looks like tampering: the chain goes on after them.

pub mod chain;
mod file;
mod notes;
mod recording;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nautilus_access::audit::Policy;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use chain::{Head, SignedHead};
pub use file::LogFile;
use file::Writer;
pub(crate) use notes::{Notes, Remarks};
pub(crate) use recording::Recording;

/// Events that wait to be written.
const MAX_QUEUED: usize = 4_096;
/// Events written in one go.
const MAX_BATCH: usize = 256;
/// A head is signed after so many events.
const HEAD_EVERY: usize = 1_000;
/// And after so long, where there was one.
const HEAD_INTERVAL: Duration = Duration::from_secs(60);

/// Signs a head with this node's attested key.
pub type HeadSigner =
    Arc<dyn Fn(Head) -> BoxFuture<'static, Result<SignedHead, String>> + Send + Sync>;

/// The audit log of one node.
pub struct Audit {
    policy: Policy,
    events: mpsc::Sender<Value>,
}

impl Audit {
    /// Opens the log and writes until `shutdown`; what is queued then is still written.
    pub fn start(
        policy: Value,
        settings: LogFile,
        sign: HeadSigner,
        shutdown: CancellationToken,
    ) -> Result<(Arc<Self>, tokio::task::JoinHandle<()>), String> {
        let policy = Policy::read(policy)?;
        let writer = Writer::open(settings).map_err(|error| error.to_string())?;
        let (events, queue) = mpsc::channel(MAX_QUEUED);
        metrics::describe_counter!(
            "apiserver_audit_error_total",
            "Audit events that could not be written."
        );
        metrics::counter!("apiserver_audit_error_total").increment(0);
        let task = Task {
            writer: Some(writer),
            sign,
            since_head: 0,
        };
        let running = tokio::spawn(task.run(queue, shutdown));
        Ok((Arc::new(Self { policy, events }), running))
    }

    async fn record(&self, event: Option<Value>) {
        if let Some(event) = event
            && self.events.send(event).await.is_err()
        {
            lost(1, "the log is closed");
        }
    }

    /// Without waiting, for the end of an answer that nobody waits for.
    fn record_now(&self, event: Option<Value>) {
        if let Some(event) = event
            && let Err(error) = self.events.try_send(event)
        {
            lost(1, &error.to_string());
        }
    }
}

fn lost(events: u64, why: &str) {
    metrics::counter!("apiserver_audit_error_total").increment(events);
    tracing::error!(events, why, "audit events were not written");
}

struct Task {
    /// Away while a batch is written.
    writer: Option<Writer>,
    sign: HeadSigner,
    since_head: usize,
}

impl Task {
    async fn run(mut self, mut queue: mpsc::Receiver<Value>, shutdown: CancellationToken) {
        let mut timer = tokio::time::interval(HEAD_INTERVAL);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(MAX_BATCH);
        loop {
            let stopping = tokio::select! {
                biased;
                read = queue.recv_many(&mut batch, MAX_BATCH) => read == 0,
                _ = timer.tick() => {
                    self.sign_head().await;
                    false
                }
                () = shutdown.cancelled(), if !queue.is_closed() => {
                    queue.close();
                    false
                }
            };
            self.write(std::mem::take(&mut batch)).await;
            if self.since_head >= HEAD_EVERY || stopping {
                self.sign_head().await;
            }
            if stopping {
                return;
            }
        }
    }

    async fn write(&mut self, batch: Vec<Value>) {
        if batch.is_empty() {
            return;
        }
        let count = batch.len();
        let full = self
            .with_writer(move |writer| {
                for event in batch {
                    let (line, after) = writer.head.event(event);
                    writer.append(&line, after)?;
                }
                Ok(writer.is_full())
            })
            .await;
        self.since_head += count;
        match full {
            Ok(false) => {}
            Ok(true) => {
                // The old file ends with a head, and the new one begins with another.
                self.sign_head().await;
                let stamp = stamp();
                if let Err(error) = self.with_writer(move |writer| writer.rotate(&stamp)).await {
                    tracing::error!(%error, "the audit log could not be rotated");
                }
                self.since_head = 1;
                self.sign_head().await;
            }
            Err(error) => lost(count as u64, &error.to_string()),
        }
    }

    async fn sign_head(&mut self) {
        let Some(head) = self.writer.as_ref().map(|writer| writer.head) else {
            return;
        };
        if self.since_head == 0 {
            return;
        }
        match (self.sign)(head).await {
            Ok(signed) => {
                let written = self
                    .with_writer(move |writer| {
                        let (line, after) = writer.head.signed(signed);
                        writer.append(&line, after)
                    })
                    .await;
                match written {
                    Ok(()) => self.since_head = 0,
                    Err(error) => lost(1, &error.to_string()),
                }
            }
            Err(error) => tracing::error!(%error, "no head of the audit log could be signed"),
        }
    }

    async fn with_writer<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Writer) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let Some(mut writer) = self.writer.take() else {
            return Err(io::Error::other("the writer of the audit log is gone"));
        };
        let (writer, done) = tokio::task::spawn_blocking(move || {
            let done = work(&mut writer);
            (writer, done)
        })
        .await
        .map_err(io::Error::other)?;
        self.writer = Some(writer);
        done
    }
}

/// The time in a rotated file's name, as `2026-01-02T03-04-05.678`.
fn stamp() -> String {
    let now = jiff::Timestamp::now();
    now.strftime("%Y-%m-%dT%H-%M-%S.%3f").to_string()
}
