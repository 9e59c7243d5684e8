//! `nautilus bench workers`: what tens of thousands of workers cost the leader, and what its
//! end costs them.
//!
//! A quorum of real processes; workers that share some hundreds of kept-alive HTTP/1.1
//! connections over TLS through the stable endpoint. They register while the judge of tokens
//! takes as long as a chain does, beat once, and then every [`limits::BEAT_INTERVAL`], spread
//! evenly. First calmly, for the numbers of the leader; then while it is killed again and
//! again, and so long afterwards that a worker whose beats were lost would be found out.

mod chain;
mod connection;
mod fleet;
mod growth;
mod nodes;
mod process;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use nautilus_workers::limits;

use super::load::{Connections, to_f64};
use super::report::{Report, Row};
use super::{World, failover};
use crate::cli::Global;
use crate::up::progress::Progress;
use connection::Target;
use fleet::{Fleet, Issued};
pub(super) use growth::Size;
use process::Usage;

/// The chain's time to answer while workers register, in milliseconds.
const CHAIN_MS: u64 = 300;
/// Calm before each kill and after the last.
const BETWEEN_KILLS: Duration = Duration::from_secs(10);
/// For a leader to write that its workers beat.
const READY_TIMEOUT: Duration = Duration::from_secs(300);
/// For what comes with a start, and with a burst of writes, to be over.
const SETTLE: Duration = Duration::from_secs(5);

/// `nautilus bench workers`.
#[derive(Args)]
pub(crate) struct WorkersArgs {
    /// How many workers register and beat
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..=100_000), value_name = "N")]
    workers: u64,
    /// How long they beat before the first leader is killed
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600), value_name = "S")]
    seconds: u64,
    /// How many leaders are killed
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=100), value_name = "K")]
    kills: u64,
    /// Measure 1,000, 10,000, 50,000 and 100,000 workers, each with a quorum of its own
    #[arg(long, conflicts_with = "workers", requires = "output_dir")]
    growth: bool,
    /// Judge by a running stand-in for a full node (sui-standin) with this admin face, in place of a
    /// file that takes as long: the quorum's environment names its other faces
    #[arg(long, value_name = "URL")]
    chain_admin: Option<String>,
    /// Where growth is written: workers.json and workers.svg
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
}

/// Measures, for one number of workers or for several.
pub(super) async fn run(
    global: &Global,
    arguments: &WorkersArgs,
    progress: &Progress,
) -> anyhow::Result<Report> {
    let count = |workers: u64| usize::try_from(workers).context("--workers");
    if !arguments.growth {
        let workers = count(arguments.workers)?;
        on_chain(arguments, workers, progress).await?;
        let (world, rows) = measured(global, arguments, workers, progress).await?;
        return Ok(Report::new("workers", world.layout.root(), rows));
    }
    let folder = arguments.output_dir.as_ref().context("--output-dir")?;
    on_chain(arguments, growth::LARGEST, progress).await?;
    let mut sizes = Vec::new();
    let mut root = std::env::temp_dir();
    for workers in growth::SIZES {
        let (world, rows) = measured(global, arguments, workers, progress).await?;
        world.layout.root().clone_into(&mut root);
        sizes.push(growth::Size::new(workers, rows));
    }
    growth::write(folder, &root, sizes)
}

/// Puts the workers on the chain, where there is one.
async fn on_chain(
    arguments: &WorkersArgs,
    workers: usize,
    progress: &Progress,
) -> anyhow::Result<()> {
    match &arguments.chain_admin {
        Some(admin) => chain::prepare(admin, workers, CHAIN_MS, progress).await,
        None => Ok(()),
    }
}

/// One quorum, from its start to its end.
async fn measured(
    global: &Global,
    arguments: &WorkersArgs,
    workers: usize,
    progress: &Progress,
) -> anyhow::Result<(World, Vec<Row>)> {
    let world = World::start(global, progress).await?;
    let rows = measure(&world, arguments, workers, progress).await;
    let rows = world.end(progress, rows).await?;
    Ok((world, rows))
}

async fn measure(
    world: &World,
    arguments: &WorkersArgs,
    workers: usize,
    progress: &Progress,
) -> anyhow::Result<Vec<Row>> {
    let api = Connections::open(world, 1)?;
    let target = Target::new(&world.layout.authority(), world.quorum.proxy_port)?;
    let issued = match arguments.chain_admin {
        Some(_) => Issued::OnChain,
        None => Issued::ByFile,
    };
    let mut fleet = Fleet::open(target, workers, issued).await?;
    // The file's tokens are read with the first that is judged: before anything is measured.
    let judge_takes = |takes_ms| match issued {
        Issued::ByFile => fleet::write_tokens(&world.layout.tokens(), takes_ms),
        Issued::OnChain => Ok(()),
    };
    judge_takes(0)?;
    fleet.knock().await?;
    judge_takes(CHAIN_MS)?;
    tokio::time::sleep(SETTLE).await;
    let empty = Usage::of_nodes(world)?;

    progress.wait(&format!("{workers} workers register"));
    let registering = fleet.register().await?;
    progress.say(&format!(
        "{workers} workers registered in {:.1} s",
        registering.as_secs_f64()
    ));
    judge_takes(0)?;
    fleet.first_beats().await?;
    nodes::all_ready(api.any(0, 0), workers, READY_TIMEOUT, progress).await?;
    tokio::time::sleep(SETTLE).await;

    let since = nodes::now()?;
    let started = Instant::now();
    let beating = fleet.beat();
    let calm = Duration::from_secs(arguments.seconds);
    let leader = failover::leader(world, &api).await?;
    let before = Usage::of_node(world, leader)?;
    progress.wait(&format!("they beat for {} s", arguments.seconds));
    tokio::time::sleep(calm).await;
    let after = Usage::of_node(world, leader)?;
    if failover::leader(world, &api).await? != leader {
        bail!("the leader changed by itself while it was measured; nothing of it counts");
    }
    let calm_ended = started.elapsed();

    for number in 1..=arguments.kills {
        tokio::time::sleep(BETWEEN_KILLS).await;
        failover::kill_leader(world, &api, number, arguments.kills, progress).await?;
    }
    if arguments.kills > 0 {
        progress.wait("a worker whose beats were lost would be found out now");
        tokio::time::sleep(limits::LOST_AFTER + BETWEEN_KILLS).await;
    }
    let beats = beating.stop().await?;
    let wrongly = nodes::not_ready_since(api.any(0, 0), workers, &since).await?;
    let calm_beats = beats.until(calm_ended);
    let empty = empty
        .get(&leader)
        .with_context(|| format!("node {leader} was not looked at"))?;
    Ok(vec![
        Row::new("beat_ms_p99", "ms", calm_beats.percentile_ms(99)),
        Row::new("leader_core_share", "share", after.cores_since(&before)),
        Row::new(
            "bytes_per_worker",
            "B",
            (after.resident_bytes - empty.resident_bytes) / to_f64(workers),
        ),
        Row::new("wrongly_not_ready", "workers", to_f64(wrongly)),
        Row::new(
            "registrations_per_s",
            "registrations/s",
            to_f64(workers) / registering.as_secs_f64(),
        ),
        Row::new("workers", "workers", to_f64(workers)),
        Row::new("beats", "beats", to_f64(beats.acknowledged())),
        Row::new("beats_refused", "beats", to_f64(beats.refused)),
    ])
}
