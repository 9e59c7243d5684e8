//! `make bench-etcd`: nautilus beside etcd, on the same machine, under the same client.
//!
//! The client shares no code with either side. Both are started afresh for every pair and
//! measured one after the other, in turn; a ratio is formed within a pair, and the median
//! of the pairs' ratios is what counts.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};

use nautilus_bench_etcd::effort::Effort;
use nautilus_bench_etcd::etcd::Etcd;
use nautilus_bench_etcd::ours::Ours;
use nautilus_bench_etcd::plan::{
    ENCRYPTION, FAILOVER, GROWTH, Numbers, Row, SERVE, SNAPSHOT, Wanted, median,
};
use nautilus_bench_etcd::report::{Pair, Report, sizes};
use nautilus_bench_etcd::side::{Side, serving};
use nautilus_bench_etcd::{failover, growth, progress, serve, snapshot};

/// The row that the null cipher is compared by.
const CIPHER_ROW: &str = "put_256b_c64_per_s";

/// Compares nautilus with etcd and prints the numbers as JSON.
#[derive(Parser)]
struct Arguments {
    /// Only these rows (`growth` for the costs by size)
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    only: Vec<String>,
    /// How often the rows that take seconds are measured on both sides
    #[arg(long, default_value_t = 3, value_name = "N")]
    pairs: usize,
    /// How often growth, snapshot and restore are measured on both sides
    #[arg(long, default_value_t = 1, value_name = "N")]
    heavy_pairs: usize,
    /// The most keys of the growth rows
    #[arg(long, default_value_t = 1_000_000, value_name = "KEYS")]
    growth_max: u64,
    /// Show that everything works, in seconds: the numbers mean nothing
    #[arg(long)]
    quick: bool,
    /// Whom to measure
    #[arg(long, value_enum, default_value_t = Sides::Both)]
    sides: Sides,
    /// The binary of nautilus
    #[arg(long, env = "NAUTILUS_BIN", value_name = "FILE")]
    binary: PathBuf,
    /// The same with the null cipher, for the price of encryption
    #[arg(long, env = "NAUTILUS_NULL_CIPHER_BIN", value_name = "FILE")]
    null_cipher_binary: Option<PathBuf>,
    /// The folder of etcd, etcdctl and etcdutl
    #[arg(long, env = "NAUTILUS_E2E_BIN", value_name = "DIR")]
    programs: PathBuf,
    /// Where the data lies while it runs [default: the system's folder for temporary files]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Write etcd.json, RESULTS.md and growth.svg here
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sides {
    Both,
    Etcd,
    Ours,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Ours,
    Peer,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let bench = Bench::new(&arguments)?;
    let mut pairs = Vec::new();
    for number in 0..arguments.pairs.max(arguments.heavy_pairs) {
        pairs.push(bench.pair(number).await?);
    }
    let report = Report::new(&pairs, &sizes(&pairs), &bench.data);
    if let Some(folder) = &arguments.output {
        let version = std::process::Command::new(arguments.programs.join("etcd"))
            .arg("--version")
            .output()
            .context("etcd --version")?;
        let version = String::from_utf8_lossy(&version.stdout);
        let version = version.lines().next().unwrap_or_default();
        report.write(folder, &version.replace(" Version:", ""))?;
    }
    println!("{}", report.to_json()?.trim_end());
    for row in report.missed() {
        progress(&format!("aim missed: {row}"));
    }
    Ok(())
}

struct Bench<'a> {
    arguments: &'a Arguments,
    effort: Effort,
    wanted: Wanted,
    data: PathBuf,
}

impl<'a> Bench<'a> {
    fn new(arguments: &'a Arguments) -> anyhow::Result<Self> {
        let data = arguments.data.clone().unwrap_or_else(std::env::temp_dir);
        std::fs::create_dir_all(&data).with_context(|| data.display().to_string())?;
        let effort = if arguments.quick {
            Effort::quick()
        } else {
            Effort::full(arguments.growth_max)
        };
        Ok(Self {
            arguments,
            effort,
            wanted: Wanted::new(&arguments.only)?,
            data: data.canonicalize()?,
        })
    }

    /// Both sides one after the other; who is first alternates.
    async fn pair(&self, number: usize) -> anyhow::Result<Pair> {
        let mut pair = Pair::default();
        let mut order = [Which::Peer, Which::Ours];
        if number % 2 == 1 {
            order.reverse();
        }
        progress(&format!("pair {}", number + 1));
        if number < self.arguments.pairs {
            for which in order {
                self.light(which, &mut pair).await?;
            }
            self.encryption(&mut pair).await?;
        }
        if number < self.arguments.heavy_pairs {
            for which in order {
                self.grow(which, &mut pair).await?;
            }
            for which in order {
                self.save_and_restore(which, &mut pair).await?;
            }
        }
        Ok(pair)
    }

    /// Whether the rows are wanted of this side.
    fn asks(&self, which: Which, rows: &[Row]) -> bool {
        let runs = match which {
            Which::Ours => self.arguments.sides != Sides::Etcd,
            Which::Peer => self.arguments.sides != Sides::Ours,
        };
        runs && self.wanted.any_of(rows)
    }

    /// A fresh folder, and the side in it: whoever keeps both in this order stops the side
    /// before its folder goes.
    fn prepare(&self, which: Which) -> anyhow::Result<(tempfile::TempDir, Box<dyn Side>)> {
        let folder = self.folder()?;
        let side: Box<dyn Side> = match which {
            Which::Ours => Box::new(Ours::prepare(&self.arguments.binary, folder.path())?),
            Which::Peer => Box::new(Etcd::prepare(&self.arguments.programs, folder.path())?),
        };
        Ok((folder, side))
    }

    fn folder(&self) -> anyhow::Result<tempfile::TempDir> {
        let folder = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(&self.data);
        folder.with_context(|| self.data.display().to_string())
    }

    async fn light(&self, which: Which, pair: &mut Pair) -> anyhow::Result<()> {
        if !self.asks(which, SERVE) && !self.asks(which, FAILOVER) {
            return Ok(());
        }
        let (_folder, mut side) = self.prepare(which)?;
        side.start()?;
        serving(&*side).await?;
        let numbers = numbers(which, pair);
        if self.wanted.any_of(SERVE) {
            serve::measure(&*side, &self.effort, &self.wanted, numbers).await?;
        }
        if self.wanted.any_of(FAILOVER) {
            let mut gaps = Vec::new();
            for _ in 0..self.effort.kills {
                let gap_ms = failover::gap_ms(&mut *side).await?;
                progress(&format!(
                    "{:8} gap at failover: {gap_ms:.0} ms",
                    side.name()
                ));
                gaps.push(gap_ms);
            }
            if let Some(gap_ms) = median(&gaps) {
                numbers.add(FAILOVER[0].what, gap_ms);
            }
        }
        Ok(())
    }

    async fn grow(&self, which: Which, pair: &mut Pair) -> anyhow::Result<()> {
        if !self.asks(which, GROWTH) && !self.wanted.any(&["growth"]) {
            return Ok(());
        }
        if !self.asks(which, GROWTH) && self.arguments.sides != Sides::Both {
            return Ok(());
        }
        let (_folder, mut side) = self.prepare(which)?;
        side.start()?;
        serving(&*side).await?;
        growth::measure(&mut *side, &self.effort, numbers(which, pair)).await
    }

    async fn save_and_restore(&self, which: Which, pair: &mut Pair) -> anyhow::Result<()> {
        if !self.asks(which, SNAPSHOT) {
            return Ok(());
        }
        let (folder, mut side) = self.prepare(which)?;
        side.start()?;
        serving(&*side).await?;
        snapshot::measure(
            &mut *side,
            &self.effort,
            folder.path(),
            numbers(which, pair),
        )
        .await
    }

    /// What encryption takes from the throughput of puts: one minus ours by ours with a
    /// null cipher.
    async fn encryption(&self, pair: &mut Pair) -> anyhow::Result<()> {
        let Some(null_cipher) = &self.arguments.null_cipher_binary else {
            return Ok(());
        };
        if !self.asks(Which::Ours, ENCRYPTION) {
            return Ok(());
        }
        let sealed = self.put_rate(&self.arguments.binary).await?;
        let open = self.put_rate(null_cipher).await?;
        pair.ours.add(ENCRYPTION[0].what, 1.0 - sealed / open);
        Ok(())
    }

    async fn put_rate(&self, binary: &Path) -> anyhow::Result<f64> {
        let folder = self.folder()?;
        let mut side = Ours::prepare(binary, folder.path())?;
        side.start()?;
        serving(&side).await?;
        let only = Wanted::new(&[CIPHER_ROW.to_owned()])?;
        let mut numbers = Numbers::default();
        serve::measure(&side, &self.effort, &only, &mut numbers).await?;
        let rate = numbers.0.get(CIPHER_ROW).copied();
        rate.context("the row was not measured")
    }
}

fn numbers(which: Which, pair: &mut Pair) -> &mut Numbers {
    match which {
        Which::Ours => &mut pair.ours,
        Which::Peer => &mut pair.peer,
    }
}
