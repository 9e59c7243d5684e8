//! Whom a pool asks, on paused time.

use std::sync::atomic::AtomicUsize;

use futures_util::future::{BoxFuture, join_all};
use nautilus_workers::chain::Cursor;
use sui_sdk_types::{Address, Digest};

use super::*;
use crate::face::{Asked, CheckpointState, Following, ObjectState, Part, TransactionState};
use crate::meter::{Meter, Rate};

const HOUR: Duration = Duration::from_secs(3600);

struct PausedClock(Instant);

impl Clock for PausedClock {
    fn unix_ms(&self) -> u64 {
        self.monotonic_ms()
    }
    fn monotonic_ms(&self) -> u64 {
        millis(self.0.elapsed())
    }
}

/// A full node that knows nothing, and says so after some time.
struct Blank {
    meter: Meter,
    takes: Duration,
    asked: AtomicUsize,
}

impl Blank {
    fn answer<T: Send + 'static>(&self) -> Asked<'_, Option<T>> {
        let asked: BoxFuture<'_, _> = Box::pin(async {
            self.asked.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(self.takes).await;
            Ok(None)
        });
        Box::pin(self.meter.counted("Blank", asked))
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Face for Blank {
    fn name(&self) -> &str {
        &self.meter.name
    }
    fn object(&self, _: Address) -> Asked<'_, Option<ObjectState>> {
        self.answer()
    }
    fn transaction(&self, _: Digest) -> Asked<'_, Option<TransactionState>> {
        self.answer()
    }
    fn checkpoint(&self, _: Option<u64>, _: Part) -> Asked<'_, Option<CheckpointState>> {
        self.answer()
    }
    fn end_of_epoch(&self, _: u64) -> Asked<'_, Option<u64>> {
        self.answer()
    }
    fn following(&self, _: Cursor, _: usize) -> Asked<'_, Following> {
        Box::pin(async { Err(FaceError::Unsupported("nothing follows")) })
    }
}

/// Full nodes that take so long each, asked no more often than `per_second` together.
fn pool(takes: &[Duration], per_second: u32) -> (Pool, Vec<Arc<Blank>>) {
    let clock: Arc<dyn Clock> = Arc::new(PausedClock(Instant::now()));
    let rate = Rate::new(per_second, Arc::clone(&clock));
    let blanks = takes.iter().zip(0..).map(|(takes, number)| {
        Arc::new(Blank {
            meter: Meter {
                name: format!("full-node-{number}:443"),
                rate: Arc::clone(&rate),
                request_timeout: HOUR * 2,
            },
            takes: *takes,
            asked: AtomicUsize::new(0),
        })
    });
    let blanks: Vec<Arc<Blank>> = blanks.collect();
    let endpoints = blanks.iter().map(|blank| Endpoint {
        name: blank.meter.name.clone(),
        face: Arc::clone(blank) as Arc<dyn Face>,
    });
    let hedge_after = Duration::from_millis(300);
    (Pool::new(endpoints.collect(), clock, hedge_after), blanks)
}

async fn ask(pool: &Pool) -> bool {
    let deadline = Instant::now() + limits::ANSWER_TIMEOUT;
    let question = |face: Arc<dyn Face>| async move { face.end_of_epoch(1).await };
    pool.ask(1, deadline, question).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_full_node_that_hangs_is_left_alone() {
    let (pool, blanks) = pool(&[HOUR, Duration::from_millis(100)], 1000);
    let started = Instant::now();
    for _ in 0..20 {
        assert!(ask(&pool).await, "the other one answers");
    }
    let asked = blanks[0].asked();
    assert!(asked <= limits::FAILURES_UNTIL_OPEN as usize + 3, "{asked}");
    assert!(started.elapsed() < Duration::from_millis(20 * 100 + 7 * 400));
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_alone_is_left_alone_too() {
    let (pool, blanks) = pool(&[HOUR], 1000);
    for _ in 0..20 {
        assert!(!ask(&pool).await);
    }
    let asked = blanks[0].asked();
    assert!(asked < 20, "{asked}");
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_the_rate_of_all_is_no_slowness_of_one() {
    let took = Duration::from_millis(100);
    let (pool, blanks) = pool(&[took, took], 5);
    let answered = join_all((0..12).map(|_| ask(&pool))).await;
    assert!(answered.into_iter().all(|answered| answered));
    assert_eq!((blanks[0].asked(), blanks[1].asked()), (12, 0));
}
