//! Requests to one full node: counted, timed, and held to the rate of all full nodes together.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nautilus_workers::Clock;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::face::FaceError;
use crate::health::Bucket;

/// What every request to one full node goes through.
pub(crate) struct Meter {
    /// `host:port`: never the whole URL, which may hold a key.
    pub(crate) name: String,
    /// What all full nodes take from.
    pub(crate) rate: Arc<Rate>,
    /// How long a request may take.
    pub(crate) request_timeout: Duration,
}

tokio::task_local! {
    /// Milliseconds that the requests of one question have waited for their turns.
    pub(crate) static WAITED_MS: Arc<AtomicU64>;
}

/// So many requests per second.
pub(crate) struct Rate {
    bucket: Mutex<Bucket>,
    clock: Arc<dyn Clock>,
}

impl Rate {
    pub(crate) fn new(requests_per_second: u32, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            bucket: Mutex::new(Bucket::new(requests_per_second)),
            clock,
        })
    }

    /// Waits for a turn; whoever can't wait for ever has a deadline of its own. The full node is not
    /// to be blamed for it.
    async fn turn(&self) {
        while let Err(wait_ms) = self.take() {
            let _nobody_asks =
                WAITED_MS.try_with(|waited_ms| waited_ms.fetch_add(wait_ms, Ordering::Relaxed));
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
    }

    fn take(&self) -> Result<(), u64> {
        self.bucket.lock().take(self.clock.monotonic_ms())
    }
}

impl Meter {
    /// The answer to a request, within its time.
    pub(crate) async fn counted<T>(
        &self,
        method: &'static str,
        request: impl Future<Output = Result<T, FaceError>>,
    ) -> Result<T, FaceError> {
        self.rate.turn().await;
        let started = Instant::now();
        let result = match tokio::time::timeout(self.request_timeout, request).await {
            Err(_) => Err(FaceError::TimedOut(self.request_timeout)),
            // A server may say so by itself; the time is ours either way.
            Ok(Err(FaceError::TimedOut(_))) => Err(FaceError::TimedOut(started.elapsed())),
            Ok(result) => result,
        };
        let outcome = result
            .as_ref()
            .map_or_else(FaceError::outcome, |_| "answered");
        let endpoint = || self.name.clone();
        metrics::counter!(
            "nautilus_sui_requests_total",
            "endpoint" => endpoint(), "method" => method, "outcome" => outcome
        )
        .increment(1);
        metrics::histogram!(
            "nautilus_sui_request_duration_seconds",
            "endpoint" => endpoint(), "method" => method
        )
        .record(started.elapsed().as_secs_f64());
        result
    }
}
