//! `nautilus bench failover`: what the end of a leader costs its clients.
//!
//! Clients on all nodes create objects with names never used before and note each
//! acknowledgement. The leader is killed again and again. A gap is the longest time
//! without any acknowledgement from one kill to the next. At the end everything is
//! listed: whatever was acknowledged must be there.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use rustix::process::Signal;

use super::World;
use super::load::{self, Connections, to_f64};
use super::report::Row;
use crate::client::RequestError;
use crate::exit::Failure;
use crate::up::progress::Progress;
use crate::up::{self, process};

/// Clients that write at once.
const CLIENTS: usize = 48;
/// Bytes of a value.
const VALUE_BYTES: usize = 256;
/// The load alone, before each kill and after the last.
const CALM: Duration = Duration::from_secs(2);
/// For a leader to be known.
const LEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// For one node to say who leads.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);
/// Between two questions.
const POLL: Duration = Duration::from_millis(50);
/// A client's pause after a failure, so that refusals do not take the processor.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// For a killed process to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// `nautilus bench failover`.
#[derive(Args)]
pub(crate) struct FailoverArgs {
    /// How many leaders are killed
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000), value_name = "N")]
    kills: u64,
}

/// Kills, measures and counts.
pub(super) async fn run(
    world: &World,
    arguments: &FailoverArgs,
    progress: &Progress,
) -> anyhow::Result<Vec<Row>> {
    let connections = Arc::new(Connections::open(world, CLIENTS)?);
    load::make_namespace(connections.any(0, 0)).await?;
    let record = Arc::new(Record::default());
    let writers: Vec<_> = (0..CLIENTS)
        .map(|client| tokio::spawn(write(client, Arc::clone(&connections), Arc::clone(&record))))
        .collect();
    let kills = kill_leaders(world, arguments.kills, &connections, progress).await;
    record.stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.context("a client")?;
    }
    let kills = kills?;
    let acknowledged = record.take();
    let mut gaps = gaps(&acknowledged, &kills);
    gaps.sort_unstable();
    progress.wait("listing everything that was written");
    let present: BTreeSet<String> = load::list_names(connections.any(0, 0))
        .await?
        .into_iter()
        .collect();
    let missing = acknowledged
        .iter()
        .filter(|(_, name)| !present.contains(name))
        .count();
    progress.say(&format!(
        "{} writes acknowledged, {missing} missing",
        acknowledged.len()
    ));
    let gap = |at: usize| gaps.get(at).map_or(0.0, |gap| gap.as_secs_f64() * 1000.0);
    Ok(vec![
        Row::new("gap_ms_min", "ms", gap(0)),
        Row::new(
            "gap_ms_median",
            "ms",
            f64::midpoint(gap((gaps.len() - 1) / 2), gap(gaps.len() / 2)),
        ),
        Row::new("gap_ms_max", "ms", gap(gaps.len() - 1)),
        Row::new("kills", "kills", to_f64(kills.len())),
        Row::new("acknowledged", "writes", to_f64(acknowledged.len())),
        Row::new("acknowledged_missing", "writes", to_f64(missing)),
    ])
}

/// The acknowledgements of all clients.
#[derive(Default)]
struct Record {
    acknowledged: Mutex<Vec<(Instant, String)>>,
    stop: AtomicBool,
}

impl Record {
    fn note(&self, name: String) {
        let mut acknowledged = self
            .acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        acknowledged.push((Instant::now(), name));
    }

    /// Everything noted, by time.
    fn take(&self) -> Vec<(Instant, String)> {
        let mut acknowledged = std::mem::take(
            &mut *self
                .acknowledged
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        acknowledged.sort_unstable();
        acknowledged
    }
}

/// One client: writes on its node, and on the next one after a failure. A write whose
/// outcome is unknown is not counted, and its name is never used again.
async fn write(client: usize, connections: Arc<Connections>, record: Arc<Record>) {
    let value = "v".repeat(VALUE_BYTES);
    let mut turn = 0;
    for round in 0_u64.. {
        if record.stop.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("write-{client}-{round}");
        let body = load::config_map(&name, &value);
        let answer = connections
            .any(client, turn)
            .post(&load::collection(), &body, Some(load::WRITE_TIMEOUT))
            .await;
        match answer {
            Ok(()) => record.note(name),
            Err(_) => {
                turn += 1;
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Kills the leader so many times, starting each victim again; when each fell.
async fn kill_leaders(
    world: &World,
    kills: u64,
    connections: &Connections,
    progress: &Progress,
) -> anyhow::Result<Vec<Instant>> {
    let mut times = Vec::new();
    for number in 1..=kills {
        tokio::time::sleep(CALM).await;
        times.push(kill_leader(world, connections, number, kills, progress).await?);
    }
    tokio::time::sleep(CALM).await;
    Ok(times)
}

/// Kills the leader, the `number`-th of `kills`, and starts it again; when it fell.
pub(super) async fn kill_leader(
    world: &World,
    connections: &Connections,
    number: u64,
    kills: u64,
    progress: &Progress,
) -> anyhow::Result<Instant> {
    let leader = leader(world, connections).await?;
    let files = world.layout.node(leader);
    let fell = Instant::now();
    process::signal(&files, Signal::KILL)
        .with_context(|| format!("node {leader} is not running"))?;
    if !process::ended(&files, KILL_TIMEOUT).await {
        anyhow::bail!("node {leader} outlived SIGKILL");
    }
    let successor = self::leader(world, connections).await?;
    let elected = fell.elapsed().as_millis();
    let node = world
        .quorum
        .nodes
        .iter()
        .find(|node| node.id == leader)
        .context("the leader is of this quorum")?;
    up::start_node(&world.layout, node)?;
    up::ready(&world.layout, &world.quorum, &Progress::silent()).await?;
    progress.say(&format!(
        "kill {number} of {kills}: node {leader} fell, node {successor} known to lead after \
         {elected} ms, all ready again after {} ms",
        fell.elapsed().as_millis()
    ));
    Ok(fell)
}

/// The leader, as the nodes that live agree on it.
pub(super) async fn leader(world: &World, connections: &Connections) -> anyhow::Result<u64> {
    let deadline = Instant::now() + LEADER_TIMEOUT;
    while Instant::now() < deadline {
        for node in &world.quorum.nodes {
            if process::running(&world.layout.node(node.id)).is_none() {
                continue;
            }
            let known: Result<_, RequestError> =
                connections.to(node.id, 0)?.leader(ASK_TIMEOUT).await;
            if let Ok(Some(leader)) = known
                && process::running(&world.layout.node(leader)).is_some()
            {
                return Ok(leader);
            }
        }
        tokio::time::sleep(POLL).await;
    }
    Err(Failure::Unavailable.error("no node leads"))
}

/// For each kill, the longest time without an acknowledgement until the next kill;
/// the write under way when the leader fell counts from its last predecessor.
fn gaps(acknowledged: &[(Instant, String)], kills: &[Instant]) -> Vec<Duration> {
    let times: Vec<Instant> = acknowledged.iter().map(|(time, _)| *time).collect();
    kills
        .iter()
        .enumerate()
        .map(|(index, &kill)| {
            let first = times
                .partition_point(|time| *time <= kill)
                .saturating_sub(1);
            let last = kills.get(index + 1).map_or(times.len(), |next| {
                times.partition_point(|time| time <= next)
            });
            let window = &times[first.min(last)..last];
            window
                .windows(2)
                .map(|pair| pair[1] - pair[0])
                .max()
                .unwrap_or_default()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_the_longest_silence_between_a_kill_and_the_next() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let acknowledged: Vec<_> = [0, 10, 300, 310, 1000, 1010, 1200]
            .map(|ms| (at(ms), String::new()))
            .into();
        let gaps = gaps(&acknowledged, &[at(12), at(1011)]);
        assert_eq!(
            gaps,
            [Duration::from_millis(690), Duration::from_millis(190)]
        );
    }
}
