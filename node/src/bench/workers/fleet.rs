//! The workers: their tokens, registrations and beats. Each connection speaks for every
//! `connections`-th of them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::StatusCode;
use nautilus_workers::limits::BEAT_INTERVAL;
use tokio::task::JoinHandle;

use super::connection::{Connection, Target};
use crate::data_dir::write_durably;

/// Connections that all workers share, kept alive as HTTP clients do.
const CONNECTIONS: usize = 512;
/// Owners, each with one token that speaks for all of their workers.
const OWNERS: usize = 1_000;
/// How long a worker tries to register, or to beat first: masters may be busy, and ask the chain no
/// more often than they may.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two of them.
const RETRY: Duration = Duration::from_millis(500);

/// All workers.
pub(super) struct Fleet {
    workers: usize,
    connections: Vec<Connection>,
    issued: Issued,
}

/// How tokens are issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Issued {
    /// By the development judge's file: one for all workers of an owner.
    ByFile,
    /// On the chain: one for each worker.
    OnChain,
}

impl Issued {
    /// The token of a worker.
    fn token(self, worker: usize) -> String {
        match self {
            Self::ByFile => token(worker),
            Self::OnChain => token_of_one(worker),
        }
    }
}

/// What the development judge goes by: every owner's token, and how long it takes.
pub(super) fn write_tokens(path: &Path, answers_after_ms: u64) -> anyhow::Result<()> {
    let mut text = format!("answers_after_ms = {answers_after_ms}\n");
    for worker in 0..OWNERS {
        text.push_str(&format!(
            "\n[[token]]\ntoken = \"{}\"\nowner = \"{}\"\nstake_amount = 1000000000\n",
            token(worker),
            owner(worker)
        ));
    }
    write_durably(path, text.as_bytes(), 0o600).with_context(|| path.display().to_string())
}

/// Known to the bench's own quorum alone, for as long as it runs.
fn token(worker: usize) -> String {
    format!("bench-seal-token-{:08}", worker % OWNERS)
}

/// The same of a worker whose token is its own.
pub(super) fn token_of_one(worker: usize) -> String {
    format!("bench-own-token-{worker:08}")
}

/// Who owns a worker.
pub(super) fn owner(worker: usize) -> String {
    format!("0x{:064x}", worker % OWNERS)
}

pub(super) fn node_id(worker: usize) -> String {
    format!("bench-worker-{worker:06}")
}

fn registration(worker: usize, issued: Issued) -> anyhow::Result<Bytes> {
    let body = serde_json::json!({
        "node_id": node_id(worker),
        "seal_token": issued.token(worker),
        "timestamp": jiff::Timestamp::now().as_second(),
    });
    Ok(serde_json::to_vec(&body)?.into())
}

/// A beat as a worker with a steady load sends it.
fn beat(worker: usize) -> Bytes {
    let share = worker % 100;
    format!(
        "{{\"node_id\":\"{}\",\"timestamp\":{},\"stake_status\":\"active\",\
         \"stake_amount\":1000000000,\"running_pods\":{},\"resource_usage\":\
         {{\"cpu_percent\":{share}.5,\"memory_percent\":{share}.25,\"disk_percent\":{share}.0}}}}",
        node_id(worker),
        jiff::Timestamp::now().as_second(),
        worker % 8,
    )
    .into()
}

impl Fleet {
    /// Opens the connections.
    pub(super) async fn open(
        target: Arc<Target>,
        workers: usize,
        issued: Issued,
    ) -> anyhow::Result<Self> {
        let mut connections: Vec<_> = (0..CONNECTIONS.min(workers))
            .map(|_| Connection::new(Arc::clone(&target)))
            .collect();
        for connection in &mut connections {
            connection.open().await.context("open the connections")?;
        }
        Ok(Self {
            workers,
            connections,
            issued,
        })
    }

    /// Beats of a worker that never registers, over every connection: it and the file of
    /// tokens are warm then.
    pub(super) async fn knock(&mut self) -> anyhow::Result<()> {
        for connection in &mut self.connections {
            let body = Bytes::from_static(br#"{"node_id":"bench-nobody"}"#);
            let answer = connection
                .post("/api/v1/heartbeat", &self.issued.token(0), &body)
                .await?;
            // A token of the chain is not that node's in the first place.
            if !matches!(answer, StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED) {
                bail!("a worker that never registered got {answer}");
            }
        }
        Ok(())
    }

    /// Registers every worker; how long it took.
    pub(super) async fn register(&mut self) -> anyhow::Result<Duration> {
        let issued = self.issued;
        self.everyone("/api/v1/register-worker", |worker| {
            registration(worker, issued)
        })
        .await
    }

    /// Every worker beats once, as soon as it can.
    pub(super) async fn first_beats(&mut self) -> anyhow::Result<Duration> {
        self.everyone("/api/v1/heartbeat", |worker| Ok(beat(worker)))
            .await
    }

    async fn everyone(
        &mut self,
        path: &'static str,
        body: impl Fn(usize) -> anyhow::Result<Bytes> + Sync,
    ) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let (step, workers, issued) = (self.connections.len(), self.workers, self.issued);
        let body = &body;
        let loops = self
            .connections
            .iter_mut()
            .enumerate()
            .map(|(first, connection)| async move {
                for worker in (first..workers).step_by(step) {
                    let token = issued.token(worker);
                    insist(connection, path, (worker, &token), body).await?;
                }
                Ok::<_, anyhow::Error>(())
            });
        futures_util::future::try_join_all(loops).await?;
        Ok(started.elapsed())
    }

    /// Every worker beats at its time until it is stopped.
    pub(super) fn beat(self) -> Beating {
        let stop = Arc::new(AtomicBool::new(false));
        let started = Instant::now();
        let step = self.connections.len();
        let loops = self
            .connections
            .into_iter()
            .enumerate()
            .map(|(first, connection)| {
                let mine = (first..self.workers).step_by(step).collect();
                let stop = Arc::clone(&stop);
                let fleet = (self.workers, self.issued);
                tokio::spawn(beat_on(connection, mine, fleet, started, stop))
            })
            .collect();
        Beating { stop, loops }
    }
}

async fn insist(
    connection: &mut Connection,
    path: &str,
    (worker, token): (usize, &str),
    body: &(impl Fn(usize) -> anyhow::Result<Bytes> + Sync),
) -> anyhow::Result<()> {
    let mut last = String::new();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match connection.post(path, token, &body(worker)?).await {
            Ok(StatusCode::OK) => return Ok(()),
            Ok(other) => last = other.to_string(),
            Err(error) => last = format!("{error:#}"),
        }
        tokio::time::sleep(RETRY).await;
    }
    bail!("{path} for {}: {last}", node_id(worker))
}

/// Workers that beat.
pub(super) struct Beating {
    stop: Arc<AtomicBool>,
    loops: Vec<JoinHandle<Beats>>,
}

/// What became of beats.
#[derive(Default)]
pub(super) struct Beats {
    /// When each was due, from the start, and how long its acknowledgement took.
    times: Vec<(Duration, Duration)>,
    /// Beats without an acknowledgement.
    pub(super) refused: usize,
}

impl Beating {
    /// Ends the beats once those under way are answered.
    pub(super) async fn stop(self) -> anyhow::Result<Beats> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Beats::default();
        for beats in self.loops {
            let beats = beats.await.context("a connection's beats")?;
            all.times.extend(beats.times);
            all.refused += beats.refused;
        }
        Ok(all)
    }
}

impl Beats {
    /// How many were acknowledged.
    pub(super) fn acknowledged(&self) -> usize {
        self.times.len()
    }

    /// Those that were due by then.
    pub(super) fn until(&self, end: Duration) -> Self {
        let times = self.times.iter().filter(|(due, _)| *due < end);
        Self {
            times: times.copied().collect(),
            refused: 0,
        }
    }

    /// The time within which this share (0 to 100) of them was acknowledged, in ms.
    pub(super) fn percentile_ms(&self, percent: usize) -> f64 {
        let mut took: Vec<Duration> = self.times.iter().map(|(_, took)| *took).collect();
        took.sort_unstable();
        let index = (took.len() * percent).div_ceil(100).saturating_sub(1);
        took.get(index)
            .map_or(0.0, |took| took.as_secs_f64() * 1000.0)
    }
}

/// The beats of the workers that one connection speaks for. A beat that had to wait for the
/// one before it counts from when it was due.
async fn beat_on(
    mut connection: Connection,
    mine: Vec<usize>,
    (workers, issued): (usize, Issued),
    started: Instant,
    stop: Arc<AtomicBool>,
) -> Beats {
    let mut beats = Beats::default();
    for round in 0.. {
        for &worker in &mine {
            let due = due(worker, workers, round);
            let late = started.elapsed() > due;
            tokio::time::sleep_until((started + due).into()).await;
            if stop.load(Ordering::Relaxed) {
                return beats;
            }
            let from = if late { started + due } else { Instant::now() };
            let answer = connection
                .post("/api/v1/heartbeat", &issued.token(worker), &beat(worker))
                .await;
            match answer {
                Ok(StatusCode::OK) => beats.times.push((due, from.elapsed())),
                _ => beats.refused += 1,
            }
        }
    }
    beats
}

/// When a worker's beat is due, from the start: all are spread evenly over an interval.
fn due(worker: usize, workers: usize, round: u32) -> Duration {
    let place = u32::try_from(worker).unwrap_or(u32::MAX);
    let places = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
    BEAT_INTERVAL * round + BEAT_INTERVAL.mul_f64(f64::from(place) / f64::from(places))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_take_turns_over_an_interval() {
        assert_eq!(due(0, 4, 0), Duration::ZERO);
        assert_eq!(due(1, 4, 0), BEAT_INTERVAL / 4);
        assert_eq!(due(3, 4, 2), BEAT_INTERVAL * 2 + BEAT_INTERVAL / 4 * 3);
    }

    #[test]
    fn a_percentile_is_of_the_beats_that_were_due_by_then() {
        let ms = Duration::from_millis;
        let beats = Beats {
            times: (1..=100).map(|at| (ms(at), ms(at))).collect(),
            refused: 3,
        };
        assert!((beats.percentile_ms(99) - 99.0).abs() < f64::EPSILON);
        assert!((beats.until(ms(51)).percentile_ms(99) - 50.0).abs() < f64::EPSILON);
    }
}
