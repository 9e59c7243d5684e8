//! Kills and partitions a real quorum at random, and checks what it promised.
//!
//! Each node runs in a network namespace of its own. While clients raise registers
//! and read them on all nodes, one fault at a time strikes: SIGKILL, isolation of a
//! node, a cut between two nodes. At the end everything is healed, every register is
//! read on every node, and the replicas' digests must be equal.

mod client;
mod cluster;
mod network;
mod promise;
mod random;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use serde_json::Value;

use client::{Client, Counts};
use cluster::Cluster;
use network::Network;
use promise::Register;
use random::Random;

const NODES: u64 = 3;
/// How long the healed quorum may take until all nodes answer alike.
const SETTLE: Duration = Duration::from_secs(60);

/// Random kills and partitions against a quorum in network namespaces (needs root).
#[derive(Parser)]
#[command(
    after_help = "Examples:\n  nautilus-chaos-live --seconds 60\n  nautilus-chaos-live --seconds 600 --seed 7 --clients 16"
)]
struct Arguments {
    /// How long faults strike
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Repeats the faults of an earlier run [default: from the clock, printed]
    #[arg(long)]
    seed: Option<u64>,
    /// Clients, each with a register of its own
    #[arg(long, default_value_t = 8)]
    clients: u64,
    /// The binary under test [default: beside this one]
    #[arg(long, env = "NAUTILUS_BIN")]
    binary: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        bail!("a cryptographic provider was installed already");
    }
    let seed = arguments.seed.unwrap_or_else(|| {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        now.as_secs()
    });
    println!("seed {seed}");
    let binary = match arguments.binary {
        Some(binary) => binary,
        None => std::env::current_exe()?.with_file_name("nautilus"),
    };
    let folder = tempfile::Builder::new()
        .prefix("nautilus-chaos-")
        .tempdir()?;
    let network = Network::new(NODES)?;
    let mut cluster = Cluster::found(binary, folder.path(), NODES)?;
    println!("{NODES} nodes are up");

    let http = client::http(&cluster.kubeconfig())?;
    let counts = Arc::new(Counts::default());
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<Arc<Client>> = (0..arguments.clients)
        .map(|index| {
            Arc::new(Client {
                name: format!("register-{index}"),
                http: http.clone(),
                register: Arc::new(Register::default()),
                counts: Arc::clone(&counts),
                nodes: NODES,
            })
        })
        .collect();
    let mut working = tokio::task::JoinSet::new();
    for (index, client) in clients.iter().enumerate() {
        let (client, stop) = (Arc::clone(client), Arc::clone(&stop));
        let random = Random::new(seed ^ (index as u64 + 1));
        working.spawn(async move { client.run(&stop, random).await });
    }

    let struck = strike(&network, &mut cluster, Random::new(seed), arguments.seconds).await;
    stop.store(true, Ordering::SeqCst);
    while let Some(finished) = working.join_next().await {
        finished??;
    }
    let faults = struck?;
    settle(&clients, &http, &mut cluster).await?;
    let acknowledged = counts.acknowledged.load(Ordering::SeqCst);
    println!(
        "{faults} faults; {acknowledged} writes acknowledged, {} reads checked, {} requests unanswered: every promise kept",
        counts.reads.load(Ordering::SeqCst),
        counts.unanswered.load(Ordering::SeqCst),
    );
    ensure!(
        acknowledged > 0,
        "nothing was ever acknowledged: this run proves nothing"
    );
    Ok(())
}

/// One fault after the other; everything is healed when this returns.
async fn strike(
    network: &Network,
    cluster: &mut Cluster,
    mut random: Random,
    seconds: u64,
) -> Result<u64> {
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut faults = 0;
    while Instant::now() < end {
        let node = 1 + random.below(NODES);
        let other = 1 + node % NODES;
        let pause = Duration::from_millis(500 + random.below(2500));
        match random.below(3) {
            0 => {
                println!("kill {node} for {pause:?}");
                cluster.kill(node)?;
                tokio::time::sleep(pause).await;
                cluster.start(node)?;
            }
            1 => {
                println!("isolate {node} for {pause:?}");
                network.isolate(node)?;
                tokio::time::sleep(pause).await;
                network.heal()?;
            }
            _ => {
                println!("cut {node} from {other} for {pause:?}");
                network.cut(node, other)?;
                tokio::time::sleep(pause).await;
                network.heal()?;
            }
        }
        faults += 1;
        tokio::time::sleep(Duration::from_millis(random.below(2000))).await;
        cluster.check_alive()?;
    }
    Ok(faults)
}

/// Waits until every node answers, and checks registers and digests on each.
async fn settle(
    clients: &[Arc<Client>],
    http: &reqwest::Client,
    cluster: &mut Cluster,
) -> Result<()> {
    let deadline = Instant::now() + SETTLE;
    for node in 1..=NODES {
        for client in clients {
            while client.read(node).await?.is_none() {
                cluster.check_alive()?;
                ensure!(
                    Instant::now() < deadline,
                    "node {node} does not answer {SETTLE:?} after the last fault\n{}",
                    cluster.log_tail(node)
                );
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
    loop {
        let mut seen = Vec::new();
        for node in 1..=NODES {
            let url = format!("{}/nautilus/v1/status", Cluster::api(node));
            let status: Value = http.get(url).send().await?.json().await?;
            let digest = status["digest"]
                .as_str()
                .context("a status without a digest")?
                .to_owned();
            seen.push((status["applied"].clone(), digest));
        }
        if seen.iter().all(|(applied, _)| *applied == seen[0].0) {
            ensure!(
                seen.iter().all(|(_, digest)| *digest == seen[0].1),
                "diverged: {seen:?}"
            );
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "the replicas do not come together: {seen:?}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
