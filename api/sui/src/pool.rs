//! Several full nodes as one: asked in their order, the next one when the first is late or fails,
//! all of them together no more than so often.
//!
//! Invariants
//! - Two answers that are compared come from two full nodes.
//! - An answer is waited for no longer than its deadline, whatever full nodes do.

use std::future::Future;
use std::sync::Arc;
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
            let member = &self.members[member?];
            let started = self.clock.monotonic_ms();
            let late = member
                .health
                .lock()
                .latencies
                .hedge_after_ms(self.hedge_after);
            Some((
                question(Arc::clone(&member.face)).map(move |result| (member, started, result)),
                Duration::from_millis(late),
            ))
        };
        let mut late = self.hedge_after;
        for _ in 0..count {
            if let Some((request, usual)) = start(self.next(&mut waiting)) {
                running.push(request);
                late = usual;
            }
        }
        let mut hedge = Box::pin(tokio::time::sleep(late));
        let mut may_hedge = true;
        while told.len() < count {
            tokio::select! {
                ended = running.next() => {
                    let Some((member, started, result)) = ended else { break };
                    self.note(member, started, &result);
                    match result {
                        Ok(answer) => told.push(Told { by: member.name.clone(), answer }),
                        Err(error) => {
                            tracing::debug!(full_node = member.name, %error, "no answer");
                            setbacks.retain(|(name, _)| *name != member.name);
                            setbacks.push((member.name.clone(), error));
                            if let Some((request, _)) = start(self.next(&mut waiting)) {
                                running.push(request);
                            }
                        }
                    }
                }
                () = &mut hedge, if may_hedge => match start(self.next(&mut waiting)) {
                    Some((request, usual)) => {
                        running.push(request);
                        hedge.as_mut().reset(Instant::now() + usual);
                    }
                    None => may_hedge = false,
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

    fn note<T>(&self, member: &Member, started_ms: u64, result: &Result<T, FaceError>) {
        let now = self.clock.monotonic_ms();
        let mut health = member.health.lock();
        let was_closed = health.breaker.is_closed();
        match result {
            Ok(_) => {
                health.breaker.succeeded();
                health.latencies.observe(now.saturating_sub(started_ms));
            }
            Err(FaceError::RateLimited) => health.breaker.told_to_wait(now, chance::draw()),
            Err(error) if error.is_failure() => health.breaker.failed(now, chance::draw()),
            Err(_) => health.breaker.succeeded(),
        }
        let is_closed = health.breaker.is_closed();
        drop(health);
        if let Err(error) = result
            && was_closed
            && !is_closed
        {
            tracing::warn!(full_node = member.name, %error, "a full node is left alone for a while");
        }
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
