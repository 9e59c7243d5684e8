//! What the quorum says of its workers' nodes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::super::load::query_value;
use crate::client::{ApiClient, RequestError};
use crate::up::progress::Progress;

/// Nodes of one page.
const PAGE: usize = 1_000;
/// Between two looks.
const POLL: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct NodeList {
    metadata: ListMeta,
    items: Vec<Node>,
}

#[derive(Deserialize)]
struct ListMeta {
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Node {
    status: NodeStatus,
}

#[derive(Deserialize)]
struct NodeStatus {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    #[serde(rename = "lastTransitionTime")]
    since: String,
}

impl Node {
    fn ready(&self) -> Option<&Condition> {
        let mut conditions = self.status.conditions.iter();
        conditions.find(|condition| condition.kind == "Ready")
    }

    fn is_ready(&self) -> bool {
        self.ready()
            .is_some_and(|condition| condition.status == "True")
    }
}

/// The time as conditions have it.
pub(super) fn now() -> anyhow::Result<String> {
    let second = jiff::Timestamp::now().as_second();
    Ok(jiff::Timestamp::from_second(second)?.to_string())
}

/// Waits until so many nodes are ready.
pub(super) async fn all_ready(
    client: &ApiClient,
    workers: usize,
    patience: Duration,
    progress: &Progress,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let ready = counted(client, Node::is_ready).await?.0;
        if ready >= workers {
            progress.say(&format!("{ready} nodes are ready"));
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "{ready} of {workers} nodes are ready after {} s",
                patience.as_secs()
            );
        }
        progress.wait(&format!("{ready} of {workers} nodes are ready"));
        tokio::time::sleep(POLL).await;
    }
}

/// How many nodes are not ready, or have not always been since `since`, and those that are
/// missing.
pub(super) async fn not_ready_since(
    client: &ApiClient,
    workers: usize,
    since: &str,
) -> anyhow::Result<usize> {
    // Times in one form compare as texts.
    let always =
        |node: &Node| node.is_ready() && node.ready().is_some_and(|ready| *ready.since <= *since);
    let (always_ready, all) = counted(client, always).await?;
    Ok(workers.max(all) - always_ready)
}

/// How many nodes there are that are so, and how many in all.
async fn counted(
    client: &ApiClient,
    is_so: impl Fn(&Node) -> bool,
) -> anyhow::Result<(usize, usize)> {
    let (mut so, mut all) = (0, 0);
    let mut token = String::new();
    loop {
        let path = format!("/api/v1/nodes?limit={PAGE}&continue={token}");
        let page: NodeList = client
            .get(&path, None)
            .await
            .map_err(RequestError::into_failure)
            .context("list the nodes")?;
        so += page.items.iter().filter(|node| is_so(node)).count();
        all += page.items.len();
        token = match page.metadata.next.as_deref() {
            None | Some("") => return Ok((so, all)),
            Some(next) => query_value(next),
        };
    }
}
