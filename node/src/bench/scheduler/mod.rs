//! `nautilus bench scheduler`: how soon pods have a node, and how many do in a second.
//!
//! Nodes that nobody runs, and pods that only wait to be bound: first as many as come in an
//! hour of a busy cluster, one after the other, for the time from a pod's creation to its
//! binding; then all together, for the rate. Both without constraints and with: pods in
//! groups that want other nodes than their like, spread over zones. With `--peers`, the same
//! load runs on kube-apiserver and kube-scheduler over three members of etcd. A load begins
//! when the Events of the one before are written. No controllers run on either side: nobody
//! renews the nodes' leases.

mod load;
mod peer;
mod shapes;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::World;
use super::load::NAMESPACE;
use super::report::Row;
use crate::client::ApiClient;
use crate::kubeconfig::Kubeconfig;
use crate::up::layout::Layout;
use crate::up::progress::Progress;
use load::{Face, Numbers};
use peer::Peer;

/// Connections that the pods of a load come over.
const CONNECTIONS: usize = 8;

/// `nautilus bench scheduler`.
#[derive(Args)]
pub(crate) struct SchedulerArgs {
    /// How many nodes there are
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=15_000), value_name = "N")]
    nodes: u32,
    /// How many pods come together
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
    pods: u32,
    /// How long they come one after the other, 100 in a second
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600), value_name = "S")]
    seconds: u64,
    /// Measure kube-scheduler, too: a folder with etcd, kube-apiserver and kube-scheduler
    #[arg(long, env = "NAUTILUS_PEERS", value_name = "DIR")]
    peers: Option<PathBuf>,
}

/// The bench's quorum: its nodes run the scheduler alone.
pub(super) fn quorum(layout: Layout) -> Layout {
    layout.with_controllers(&["kube-scheduler"])
}

/// Measures ours, then the peer's.
pub(super) async fn run(
    world: &World,
    arguments: &SchedulerArgs,
    progress: &Progress,
) -> anyhow::Result<Vec<Row>> {
    let ours = {
        let kubeconfig = Kubeconfig::read(&world.layout.kubeconfig())?;
        let servers = world.quorum.nodes.iter().map(|node| node.server());
        let face = face(servers.cycle().take(CONNECTIONS), &kubeconfig)?;
        measure(&face, "nautilus", arguments, progress).await?
    };
    let Some(programs) = &arguments.peers else {
        return Ok(rows(&ours, None));
    };
    progress.wait("kube-apiserver and kube-scheduler start");
    let peer = Peer::start(programs, &world.layout.root().join("peer")).await?;
    let face = face(
        std::iter::repeat_n(peer.server(), CONNECTIONS),
        peer.kubeconfig(),
    )?;
    let theirs = measure(&face, "kube-scheduler", arguments, progress).await;
    peer.stop()?;
    Ok(rows(
        &ours,
        Some(&theirs.context("measure kube-scheduler")?),
    ))
}

fn face(servers: impl Iterator<Item = String>, kubeconfig: &Kubeconfig) -> anyhow::Result<Face> {
    let clients = servers.map(|server| ApiClient::new(&server, kubeconfig));
    Ok(Face::new(clients.collect::<anyhow::Result<_>>()?))
}

/// What is measured of one scheduler, without constraints and with.
async fn measure(
    face: &Face,
    name: &str,
    arguments: &SchedulerArgs,
    progress: &Progress,
) -> anyhow::Result<[Numbers; 2]> {
    super::load::make_namespace(face.client(0)).await?;
    progress.wait(&format!("{} nodes for {name}", arguments.nodes));
    face.make_nodes(arguments.nodes).await?;
    face.settle(NAMESPACE).await?;
    let mut numbers = Vec::new();
    for shape in [shapes::Shape::Plain, shapes::Shape::Constrained] {
        let calm = Duration::from_secs(arguments.seconds);
        progress.wait(&format!("{name}: {} pods one by one", shape.name()));
        let waits = face.one_by_one(NAMESPACE, shape, calm).await?;
        progress.wait(&format!("{name}: {} pods together", shape.name()));
        let rate = face.together(NAMESPACE, shape, arguments.pods).await?;
        face.settle(NAMESPACE).await?;
        let own = Numbers::new(waits, rate);
        progress.say(&format!("{name}, {} pods: {own}", shape.name()));
        numbers.push(own);
    }
    numbers.try_into().ok().context("two shapes are measured")
}

fn rows(ours: &[Numbers; 2], theirs: Option<&[Numbers; 2]>) -> Vec<Row> {
    let mut rows = Vec::new();
    for (at, suffix) in ["", "_constrained"].into_iter().enumerate() {
        let peer = theirs.map(|own| &own[at]);
        for (what, unit, number) in [
            ("bind_ms_p50", "ms", Numbers::p50_ms as fn(&Numbers) -> f64),
            ("bind_ms_p99", "ms", Numbers::p99_ms),
            ("binds_per_s", "1/s", Numbers::per_second),
        ] {
            let row = Row::new(format!("{what}{suffix}"), unit, number(&ours[at]));
            rows.push(row.beside(peer.map(number)));
        }
    }
    rows
}
