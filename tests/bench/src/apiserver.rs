//! `make bench-apiserver`: nautilus beside kube-apiserver, on the same machine, under the
//! same client.
//!
//! Both are started afresh for every pair and measured one after the other, in turn; a ratio
//! is formed within a pair, and the median of the pairs' ratios is what counts.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use nautilus_bench_etcd::api::kube::Kube;
use nautilus_bench_etcd::api::measure::{ApiEffort, CLIENTS, measure};
use nautilus_bench_etcd::api::quorum::{Node, Quorum};
use nautilus_bench_etcd::api::report;
use nautilus_bench_etcd::api::rows::{MANY_PODS, PODS, ROWS};
use nautilus_bench_etcd::api::side::ready;
use nautilus_bench_etcd::plan::Wanted;
use nautilus_bench_etcd::progress;
use nautilus_bench_etcd::report::Pair;

/// Compares nautilus with kube-apiserver and prints the numbers as JSON.
#[derive(Parser)]
struct Arguments {
    /// Only these rows
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    only: Vec<String>,
    /// How often both sides are measured
    #[arg(long, default_value_t = 3, value_name = "N")]
    pairs: usize,
    /// Seconds of each measured time
    #[arg(long, default_value_t = 4, value_name = "SECONDS")]
    seconds: u64,
    /// Show that everything works: the numbers mean nothing
    #[arg(long)]
    quick: bool,
    /// Whom to measure
    #[arg(long, value_enum, default_value_t = Sides::Both)]
    sides: Sides,
    /// The node of ours that serves the load
    #[arg(long, value_enum, default_value_t = Node::Leader)]
    node: Node,
    /// The binary of nautilus
    #[arg(long, env = "NAUTILUS_BIN", value_name = "FILE")]
    binary: PathBuf,
    /// The folder of etcd and kube-apiserver
    #[arg(long, env = "NAUTILUS_E2E_BIN", value_name = "DIR")]
    programs: PathBuf,
    /// Where the data lies while it runs [default: the system's folder for temporary files]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Write apiserver.json and a section of RESULTS.md here
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sides {
    Both,
    Kube,
    Ours,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let effort = if arguments.quick {
        ApiEffort {
            warmup: Duration::from_millis(100),
            measured: Duration::from_secs(1),
            quiet: Duration::from_millis(300),
            clients: 4,
            pods: 200,
            many_pods: 400,
        }
    } else {
        ApiEffort {
            warmup: Duration::from_secs(1),
            measured: Duration::from_secs(arguments.seconds),
            quiet: Duration::from_secs(5),
            clients: CLIENTS,
            pods: PODS,
            many_pods: MANY_PODS,
        }
    };
    let wanted = Wanted::among(&arguments.only, ROWS)?;
    let data = arguments.data.clone().unwrap_or_else(std::env::temp_dir);
    std::fs::create_dir_all(&data).with_context(|| data.display().to_string())?;
    let data = data.canonicalize()?;
    let mut pairs = Vec::new();
    for number in 0..arguments.pairs {
        progress(&format!("pair {}", number + 1));
        let mut pair = Pair::default();
        let mut order = [Sides::Kube, Sides::Ours];
        if number % 2 == 1 {
            order.reverse();
        }
        for side in order {
            if arguments.sides != Sides::Both && arguments.sides != side {
                continue;
            }
            let folder = tempfile::Builder::new()
                .prefix("bench-")
                .tempdir_in(&data)?;
            if side == Sides::Kube {
                let kube = Kube::start(&arguments.programs, folder.path())?;
                ready(&kube).await?;
                measure(&kube, &effort, &wanted, &mut pair.peer).await?;
            } else {
                let binary = &arguments.binary;
                let quorum = Quorum::start(binary, folder.path(), arguments.node).await?;
                ready(&quorum).await?;
                measure(&quorum, &effort, &wanted, &mut pair.ours).await?;
            }
        }
        pairs.push(pair);
    }
    let report = report::report(&pairs, &data);
    if let Some(folder) = &arguments.output {
        report::write(&report, folder, "kube-apiserver v1.37.2 over etcd 3.7")?;
    }
    println!("{}", report.to_json()?.trim_end());
    for row in report.missed() {
        progress(&format!("aim missed: {row}"));
    }
    Ok(())
}
