//! Several full nodes as one: asked in their order, the next one when the first is late or fails,
//! all of them together no more than so often.
//!
//! Invariants
//! - Two answers that are compared come from two full nodes.
//! - An answer is waited for no longer than its deadline, whatever full nodes do.
//! - A full node that others overtake, or that is asked in vain, fails by that; the wait for the
//!   rate of all of them is none of its faults.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use nautilus_workers::Clock;
use nautilus_workers::chain::ChainError;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::chance;
use crate::face::{Face, FaceError};
use crate::health::{Breaker, Latencies, millis, pause_ms};
use crate::limits;
use crate::meter::WAITED_MS;

/// One full node.
pub(crate) struct Endpoint {
    /// `host:port`: never the whole URL, which may hold a key.
    pub(crate) name: String,
    pub(crate) face: Arc<dyn Face>,
}

/// The full nodes of one chain.
pub(crate) struct Pool {
    members: Vec<Member>,
    clock: Arc<dyn Clock>,
    hedge_after: Duration,
    reached_at_ms: Mutex<Option<u64>>,
}

struct Member {
    name: String,
    face: Arc<dyn Face>,
    health: Mutex<Health>,
}

struct Health {
    breaker: Breaker,
    latencies: Latencies,
}

/// An answer and who gave it.
pub(crate) struct Told<T> {
    pub(crate) by: String,
    pub(crate) answer: T,
}

impl Pool {
    pub(crate) fn new(
        endpoints: Vec<Endpoint>,
        clock: Arc<dyn Clock>,
        hedge_after: Duration,
    ) -> Self {
        let members = endpoints.into_iter().map(|endpoint| Member {
            name: endpoint.name,
            face: endpoint.face,
            health: Mutex::new(Health {
                breaker: Breaker::Closed { failures: 0 },
                latencies: Latencies::default(),
            }),
        });
        Self {
            members: members.collect(),
            clock,
            hedge_after,
            reached_at_ms: Mutex::new(None),
        }
    }

    /// Whether an answer came of late.
    pub(crate) fn is_reachable(&self) -> bool {
        let reached = *self.reached_at_ms.lock();
        reached.is_some_and(|at_ms| {
            self.clock.monotonic_ms().saturating_sub(at_ms) < millis(limits::REACHABLE_FOR)
        })
    }

    /// What `count` different full nodes answer to `question` until `deadline`.
    pub(crate) async fn ask<T, Q, A>(
        &self,
        count: usize,
        deadline: Instant,
        question: Q,
    ) -> Result<Vec<Told<T>>, Unanswered>
    where
        Q: Fn(Arc<dyn Face>) -> A,
        A: Future<Output = Result<T, FaceError>>,
    {
        let mut setbacks = Vec::new();
        let asked = async {
            for round in 0..limits::ROUNDS {
                if round > 0 {
                    let pause = pause_ms(limits::ROUND_PAUSE, round, chance::draw());
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
                let told = self.round(count, &question, &mut setbacks).await;
                if told.len() == count {
                    return Some(told);
                }
            }
            None
        };
        let told = timeout_at(deadline, asked).await;
        if let Ok(Some(_)) = &told {
            *self.reached_at_ms.lock() = Some(self.clock.monotonic_ms());
        }
        metrics::gauge!("nautilus_sui_reachable").set(f64::from(u8::from(self.is_reachable())));
        if let Ok(Some(told)) = told {
            return Ok(told);
        }
        Err(Unanswered {
            asked: self.members.len(),
            setbacks,
        })
    }

    /// Asks each that may be asked once at most, until `count` have answered.
    async fn round<T, Q, A>(
        &self,
        count: usize,
        question: &Q,
        setbacks: &mut Vec<(String, FaceError)>,
    ) -> Vec<Told<T>>
    where
        Q: Fn(Arc<dyn Face>) -> A,
        A: Future<Output = Result<T, FaceError>>,
    {
        let mut waiting = self.in_order().into_iter();
        let mut running = FuturesUnordered::new();
        let mut told: Vec<Told<T>> = Vec::new();
        let start = |member: Option<usize>| {
            let under_way = UnderWay::of(self, &self.members[member?]);
            let patience = Patience::of(&under_way);
            let waited_ms = Arc::clone(&under_way.waited_ms);
            let asked = question(Arc::clone(&under_way.member.face));
            let asked = WAITED_MS.scope(waited_ms, asked);
            Some((asked.map(move |result| (under_way, result)), patience))
        };
        let mut patience = None;
        for _ in 0..count {
            if let Some((request, usual)) = start(self.next(&mut waiting)) {
                running.push(request);
                patience = Some(usual);
            }
        }
        let late = patience.as_ref().map_or(Duration::ZERO, |it| it.usual);
        let mut hedge = Box::pin(tokio::time::sleep(late));
        while told.len() < count {
            tokio::select! {
                ended = running.next() => {
                    let Some((under_way, result)) = ended else { break };
                    let member = under_way.member;
                    let name = &member.name;
                    match result {
                        Ok(answer) => {
                            under_way.ended(None);
                            told.push(Told { by: name.clone(), answer });
                        }
                        Err(error) => {
                            under_way.ended(Some(&error));
                            tracing::debug!(full_node = name, %error, "no answer");
                            setbacks.retain(|(known, _)| known != name);
                            setbacks.push((name.clone(), error));
                            if let Some((request, _)) = start(self.next(&mut waiting)) {
                                running.push(request);
                            }
                        }
                    }
                }
                () = &mut hedge, if patience.is_some() => {
                    let excused = patience.as_mut().and_then(Patience::excused);
                    if let Some(more) = excused {
                        hedge.as_mut().reset(Instant::now() + more);
                        continue;
                    }
                    patience = start(self.next(&mut waiting)).map(|(request, usual)| {
                        running.push(request);
                        hedge.as_mut().reset(Instant::now() + usual.usual);
                        usual
                    });
                },
            }
        }
        told
    }

    /// The configured order, those that failed last at the end.
    fn in_order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.members.len()).collect();
        order.sort_by_key(|member| match self.members[*member].health.lock().breaker {
            Breaker::Closed { failures: 0 } => 0,
            Breaker::Closed { .. } => 1,
            Breaker::Open { .. } | Breaker::Trial { .. } => 2,
        });
        order
    }

    /// The next that its breaker lets through.
    fn next(&self, waiting: &mut impl Iterator<Item = usize>) -> Option<usize> {
        let now = self.clock.monotonic_ms();
        waiting.find(|member| self.members[*member].health.lock().breaker.admit(now))
    }
}

/// A question that one full node was asked.
struct UnderWay<'a> {
    member: &'a Member,
    clock: &'a dyn Clock,
    started_ms: u64,
    /// What its requests waited for the rate of all full nodes.
    waited_ms: Arc<AtomicU64>,
    /// How long it may take.
    usual: Duration,
    has_ended: bool,
}

impl<'a> UnderWay<'a> {
    fn of(pool: &'a Pool, member: &'a Member) -> Self {
        let latencies = &member.health.lock().latencies;
        Self {
            member,
            clock: &*pool.clock,
            started_ms: pool.clock.monotonic_ms(),
            waited_ms: Arc::default(),
            usual: Duration::from_millis(latencies.hedge_after_ms(pool.hedge_after)),
            has_ended: false,
        }
    }

    /// What the full node itself has taken.
    fn took_ms(&self, now_ms: u64) -> u64 {
        let waited_ms = self.waited_ms.load(Ordering::Relaxed);
        now_ms.saturating_sub(self.started_ms.saturating_add(waited_ms))
    }

    /// It was answered, or failed.
    fn ended(mut self, error: Option<&FaceError>) {
        self.has_ended = true;
        let now_ms = self.clock.monotonic_ms();
        self.judge(error, |health| match error {
            None => {
                health.breaker.succeeded();
                health.latencies.observe(self.took_ms(now_ms));
            }
            Some(FaceError::RateLimited) => health.breaker.told_to_wait(now_ms, chance::draw()),
            Some(error) if error.is_failure() => health.breaker.failed(now_ms, chance::draw()),
            Some(_) => health.breaker.succeeded(),
        });
    }

    fn judge(&self, why: Option<&FaceError>, judge: impl FnOnce(&mut Health)) {
        let mut health = self.member.health.lock();
        let was_closed = health.breaker.is_closed();
        judge(&mut health);
        let is_closed = health.breaker.is_closed();
        drop(health);
        if was_closed && !is_closed {
            let why = why.map_or_else(|| "it is overtaken".to_owned(), ToString::to_string);
            let name = &self.member.name;
            tracing::warn!(
                full_node = name,
                why,
                "a full node is left alone for a while"
            );
        }
    }
}

/// Nobody waits for it any more: another was faster, or the time is up.
impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let now_ms = self.clock.monotonic_ms();
        if !self.has_ended && self.took_ms(now_ms) >= millis(self.usual) {
            self.judge(None, |health| health.breaker.failed(now_ms, chance::draw()));
        }
    }
}

/// How long the full node that was asked last is waited for before another is asked too.
struct Patience {
    usual: Duration,
    waited_ms: Arc<AtomicU64>,
    excused_ms: u64,
}

impl Patience {
    fn of(under_way: &UnderWay<'_>) -> Self {
        Self {
            usual: under_way.usual,
            waited_ms: Arc::clone(&under_way.waited_ms),
            excused_ms: 0,
        }
    }

    /// As much time again as was spent on waiting for the rate of all full nodes: asking another
    /// would only wait for the same.
    fn excused(&mut self) -> Option<Duration> {
        let waited_ms = self.waited_ms.load(Ordering::Relaxed);
        let more = waited_ms.saturating_sub(self.excused_ms);
        self.excused_ms = waited_ms;
        (more > 0).then(|| Duration::from_millis(more))
    }
}

/// Why too few full nodes answered: the last that each of them said.
pub(crate) struct Unanswered {
    asked: usize,
    setbacks: Vec<(String, FaceError)>,
}

impl Unanswered {
    /// Whether each full node says that it does not have what was asked for.
    pub(crate) fn is_gone(&self) -> bool {
        let gone = |(_, error): &(_, FaceError)| matches!(error, FaceError::Gone(_));
        self.setbacks.len() == self.asked && self.setbacks.iter().all(gone)
    }
}

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.setbacks.is_empty() {
            return write!(
                f,
                "none of {} full nodes may be asked or answered in time",
                self.asked
            );
        }
        let each: Vec<String> = self
            .setbacks
            .iter()
            .map(|(name, error)| format!("{name}: {error}"))
            .collect();
        f.write_str(&each.join("; "))
    }
}

impl From<Unanswered> for ChainError {
    fn from(unanswered: Unanswered) -> Self {
        Self::OutOfReach(unanswered.to_string())
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
