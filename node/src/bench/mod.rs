//! `nautilus bench`: measures a quorum from outside, as its clients see it.
//!
//! A bench of a quorum starts one of real processes of its own, so that nothing else
//! is in the numbers, and stops it at the end whatever happens.

mod attest;
mod failover;
mod load;
mod plain;
mod report;
mod scheduler;
mod store;
mod workers;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::cli::{Global, Output, print};
use crate::up::layout::{Layout, Quorum};
use crate::up::{self, UpArgs, progress::Progress};
use report::Report;

/// Examples of `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  nautilus bench attest
  nautilus bench failover --kills 10
  nautilus bench scheduler --nodes 100 --pods 1000
  nautilus bench store --output json > store.json
  nautilus bench store --dir /mnt/fast/q          on that disk
  nautilus bench workers --workers 2000 --seconds 20";

/// The nodes of a bench's quorum.
const NODES: u64 = 3;

/// `nautilus bench`.
#[derive(Args)]
pub(crate) struct BenchArgs {
    /// The form of the answer
    #[arg(long, short, global = true, value_enum, default_value = "table")]
    output: Output,
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Time to verify evidence of each kind, and connections per second with and without it
    #[command(after_help = "Examples:\n  nautilus bench attest --seconds 5 --output json")]
    Attest(attest::AttestArgs),
    /// Kill the leader again and again under a write load: gaps, and writes lost
    #[command(after_help = "Examples:\n  nautilus bench failover --kills 10 --output json")]
    Failover(failover::FailoverArgs),
    /// How soon pods have a node, and how many do in a second; beside kube-scheduler
    #[command(
        after_help = "Examples:\n  nautilus bench scheduler --nodes 100 --pods 1000\n  nautilus bench scheduler --peers bin --output json"
    )]
    Scheduler(scheduler::SchedulerArgs),
    /// Writes and linearizable reads per second, and their latencies
    #[command(after_help = "Examples:\n  nautilus bench store --seconds 5 --output json")]
    Store(store::StoreArgs),
    /// Workers that register and beat by the ten thousand, while leaders are killed
    #[command(
        after_help = "Examples:\n  nautilus bench workers --workers 2000 --seconds 20\n  nautilus bench workers --growth --output-dir results"
    )]
    Workers(workers::WorkersArgs),
}

/// Runs a bench and prints its report.
pub(crate) async fn run(global: &Global, arguments: BenchArgs) -> anyhow::Result<()> {
    let progress = Progress::start();
    let report = match &arguments.bench {
        Bench::Attest(arguments) => {
            let rows = attest::run(arguments, &progress).await?;
            progress.end();
            Report::new("attest", &std::env::temp_dir(), rows)
        }
        Bench::Failover(arguments) => {
            let world = World::start(global, &progress).await?;
            let rows = failover::run(&world, arguments, &progress).await;
            Report::new(
                "failover",
                world.layout.root(),
                world.end(&progress, rows).await?,
            )
        }
        Bench::Scheduler(arguments) => {
            let world = World::start_with(global, scheduler::quorum, &progress).await?;
            let rows = scheduler::run(&world, arguments, &progress).await;
            Report::new(
                "scheduler",
                world.layout.root(),
                world.end(&progress, rows).await?,
            )
        }
        Bench::Store(arguments) => {
            let world = World::start(global, &progress).await?;
            let rows = store::run(&world, arguments, &progress).await;
            Report::new(
                "store",
                world.layout.root(),
                world.end(&progress, rows).await?,
            )
        }
        Bench::Workers(arguments) => workers::run(global, arguments, &progress).await?,
    };
    match arguments.output {
        Output::Json => print(&serde_json::to_string(&report)?),
        Output::Table => print(&report.to_table()),
    }
    report.verdict()
}

/// A quorum of the bench's own.
pub(crate) struct World {
    layout: Layout,
    quorum: Quorum,
    /// The temporary folder, when none was named.
    temporary: Option<PathBuf>,
}

impl World {
    async fn start(global: &Global, progress: &Progress) -> anyhow::Result<Self> {
        Self::start_with(global, |layout| layout, progress).await
    }

    /// The same with something else in its nodes' settings.
    async fn start_with(
        global: &Global,
        settings: impl FnOnce(Layout) -> Layout,
        progress: &Progress,
    ) -> anyhow::Result<Self> {
        let (dir, temporary) = match global.named_dir() {
            Some(dir) => (dir.to_owned(), None),
            None => {
                let name = format!("nautilus-bench-{}", std::process::id());
                let dir = std::env::temp_dir().join(name);
                (dir.clone(), Some(dir))
            }
        };
        let layout = settings(Layout::new(&dir)?);
        if layout.load()?.is_some() {
            anyhow::bail!(
                "{} holds a quorum already; a bench starts its own: name another folder",
                layout.root().display()
            );
        }
        let arguments = UpArgs {
            nodes: NODES,
            detach: true,
            base_port: None,
            restore: up::RestoreArgs::default(),
        };
        let started = up::bring_up(&layout, &arguments, progress).await;
        match started {
            Ok(quorum) => Ok(Self {
                layout,
                quorum,
                temporary,
            }),
            Err(error) => {
                if let Ok(Some(quorum)) = layout.load() {
                    up::stop(&layout, &quorum, progress).await?;
                }
                Err(error).context("start the bench's quorum")
            }
        }
    }

    /// Stops the quorum and removes what it kept, if the bench went well.
    async fn end<T>(&self, progress: &Progress, result: anyhow::Result<T>) -> anyhow::Result<T> {
        let stopped = up::stop(&self.layout, &self.quorum, progress).await;
        match &result {
            Ok(_) => {
                stopped?;
                self.layout.purge()?;
            }
            Err(_) if self.temporary.is_some() => progress.say(&format!(
                "the nodes' logs are kept in {}",
                self.layout.root().display()
            )),
            Err(_) => {}
        }
        progress.end();
        result
    }
}
