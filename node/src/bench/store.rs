//! `nautilus bench store`: how fast the quorum writes and reads.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::World;
use super::load::{self, Connections, Measured, timed};
use super::report::Row;
use crate::client::{ApiClient, RequestError};
use crate::up::progress::Progress;

/// Clients at once.
const CLIENTS: [usize; 3] = [1, 64, 512];
/// Bytes of a value, and the name of the size.
const SIZES: [(usize, &str); 2] = [(256, "256b"), (1024, "1k")];
/// Clients of the reads.
const READERS: usize = 64;
/// For the leader to be known.
const LEADER_TIMEOUT: Duration = Duration::from_secs(2);

/// `nautilus bench store`.
#[derive(Args)]
pub(crate) struct StoreArgs {
    /// How long each row is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600), value_name = "S")]
    seconds: u64,
}

/// Measures every row.
pub(super) async fn run(
    world: &World,
    arguments: &StoreArgs,
    progress: &Progress,
) -> anyhow::Result<Vec<Row>> {
    let duration = Duration::from_secs(arguments.seconds);
    let mut rows = Vec::new();
    let first = Connections::open(world, 1)?;
    load::make_namespace(first.any(0, 0)).await?;
    for (bytes, size) in SIZES {
        for clients in CLIENTS {
            progress.wait(&format!("puts of {bytes} B by {clients} clients"));
            let measured = puts(world, bytes, clients, duration).await?;
            push(
                &mut rows,
                &format!("put_{size}_c{clients}"),
                &measured,
                progress,
            );
        }
    }
    let leader = leader(first.any(0, 0)).await?;
    let follower = world
        .quorum
        .nodes
        .iter()
        .map(|node| node.id)
        .find(|&id| id != leader)
        .context("a quorum of three has a follower")?;
    let client = first.to(leader, 0)?;
    let read_me = load::config_map("read-me", &"v".repeat(SIZES[0].0));
    client
        .post(&load::collection(), &read_me, None)
        .await
        .map_err(RequestError::into_failure)?;
    for (node, name) in [(leader, "get_leader"), (follower, "get_follower")] {
        progress.wait(&format!(
            "linearizable reads on node {node} by {READERS} clients"
        ));
        let measured = gets(world, node, duration).await?;
        push(&mut rows, name, &measured, progress);
    }
    Ok(rows)
}

fn push(rows: &mut Vec<Row>, name: &str, measured: &Measured, progress: &Progress) {
    progress.say(&format!("{name}: {:.0}/s", measured.per_second()));
    rows.push(Row::new(
        format!("{name}_per_s"),
        "1/s",
        measured.per_second(),
    ));
    rows.push(Row::new(
        format!("{name}_p50_ms"),
        "ms",
        measured.percentile_ms(50),
    ));
    rows.push(Row::new(
        format!("{name}_p99_ms"),
        "ms",
        measured.percentile_ms(99),
    ));
}

/// New objects, the clients spread over all nodes.
async fn puts(
    world: &World,
    bytes: usize,
    clients: usize,
    duration: Duration,
) -> anyhow::Result<Measured> {
    let connections = Arc::new(Connections::open(world, clients)?);
    let value: Arc<str> = "v".repeat(bytes).into();
    timed(clients, duration, move |client, round| {
        let connections = Arc::clone(&connections);
        let name = format!("put-{bytes}-{clients}-{client}-{round}");
        let body = load::config_map(&name, &value);
        async move {
            connections
                .any(client, 0)
                .post(&load::collection(), &body, None)
                .await
        }
    })
    .await
}

/// One object, read with the guarantee that a list or get without `resourceVersion` has.
async fn gets(world: &World, node: u64, duration: Duration) -> anyhow::Result<Measured> {
    let connections = Connections::open(world, READERS)?;
    let clients: Arc<[ApiClient]> = (0..READERS)
        .map(|client| connections.to(node, client).cloned())
        .collect::<anyhow::Result<_>>()?;
    timed(READERS, duration, move |client, _| {
        let client = clients[client].clone();
        async move {
            let path = format!("{}/read-me", load::collection());
            client
                .get::<serde::de::IgnoredAny>(&path, None)
                .await
                .map(|_| ())
        }
    })
    .await
}

async fn leader(client: &ApiClient) -> anyhow::Result<u64> {
    client
        .leader(LEADER_TIMEOUT)
        .await
        .map_err(RequestError::into_failure)?
        .context("no node leads")
}
