//! Pods that come, and when each has its node.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::super::load::to_f64;
use super::shapes::{self, Shape};
use crate::client::{ApiClient, RequestError};

/// Between two pods that come one by one.
const INTERVAL: Duration = Duration::from_millis(10);
/// Requests at once of pods that come together, and of nodes.
const AT_ONCE: u32 = 64;
/// For one more pod to be bound.
const PATIENCE: Duration = Duration::from_secs(120);
/// A store is quiet that takes no more writes than this in a second.
const QUIET_WRITES: u64 = 10;
/// For it to become quiet.
const QUIET_PATIENCE: Duration = Duration::from_secs(60);
/// Bindings that were seen and not yet counted.
const SEEN: usize = 100_000;

/// One API.
pub(super) struct Face {
    clients: Arc<[ApiClient]>,
}

/// What was measured of one kind of pods.
pub(super) struct Numbers {
    /// From creation to binding, sorted.
    waits: Vec<Duration>,
    per_second: f64,
}

impl Numbers {
    pub(super) fn new(mut waits: Vec<Duration>, per_second: f64) -> Self {
        waits.sort_unstable();
        Self { waits, per_second }
    }

    /// The median, in milliseconds.
    pub(super) fn p50_ms(&self) -> f64 {
        self.percentile_ms(50)
    }

    /// The 99th percentile, in milliseconds.
    pub(super) fn p99_ms(&self) -> f64 {
        self.percentile_ms(99)
    }

    /// Pods that were bound in a second while they came together.
    pub(super) fn per_second(&self) -> f64 {
        self.per_second
    }

    fn percentile_ms(&self, percent: usize) -> f64 {
        let index = (self.waits.len() * percent).div_ceil(100).saturating_sub(1);
        let wait = self.waits.get(index);
        wait.map_or(0.0, |wait| wait.as_secs_f64() * 1000.0)
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, output: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            output,
            "bound after {:.1} ms (median), {:.1} ms (99 of 100); {:.0} in a second",
            self.p50_ms(),
            self.p99_ms(),
            self.per_second
        )
    }
}

impl Face {
    /// An API, over these connections.
    pub(super) fn new(clients: Vec<ApiClient>) -> Self {
        Self {
            clients: clients.into(),
        }
    }

    /// The connection of a turn.
    pub(super) fn client(&self, turn: u32) -> &ApiClient {
        &self.clients[turn as usize % self.clients.len()]
    }

    /// Makes the nodes.
    pub(super) async fn make_nodes(&self, count: u32) -> anyhow::Result<()> {
        self.make_all("/api/v1/nodes", count, shapes::node).await
    }

    /// Waits until what came of a load, Events above all, is written: the next load is not
    /// measured beside it.
    pub(super) async fn settle(&self, namespace: &str) -> anyhow::Result<()> {
        let until = Instant::now() + QUIET_PATIENCE;
        let mut before = self.revision(namespace).await?;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = self.revision(namespace).await?;
            let writes = now.saturating_sub(before);
            if writes <= QUIET_WRITES {
                return Ok(());
            }
            if Instant::now() > until {
                let waited = QUIET_PATIENCE.as_secs();
                bail!("{writes} writes a second go on {waited} s after a load");
            }
            before = now;
        }
    }

    /// The store's revision.
    async fn revision(&self, namespace: &str) -> anyhow::Result<u64> {
        let version = self.version(&pods(namespace)).await?;
        version.parse().context("a list has no revision")
    }

    /// The resourceVersion of a path's list.
    async fn version(&self, path: &str) -> anyhow::Result<String> {
        let list = self.client(0).get(&format!("{path}?limit=1"), None).await;
        let list: Object = list.map_err(RequestError::into_failure)?;
        Ok(list.metadata.resource_version)
    }

    /// Pods that come one after the other: how long each was without a node.
    pub(super) async fn one_by_one(
        &self,
        namespace: &str,
        shape: Shape,
        time: Duration,
    ) -> anyhow::Result<Vec<Duration>> {
        let load = format!("{}-one", shape.name());
        let path = pods(namespace);
        let mut bindings = self.watch(&path).await?;
        let count = u32::try_from(time.as_millis() / INTERVAL.as_millis())?;
        let mut made = HashMap::new();
        let mut requests = tokio::task::JoinSet::new();
        let begin = Instant::now();
        for number in 0..count {
            let pod = shape.pod(&load, number);
            let client = self.client(number).clone();
            let path = path.clone();
            tokio::time::sleep_until((begin + INTERVAL * number).into()).await;
            made.insert(format!("{load}-{number}"), Instant::now());
            requests.spawn(async move { client.post(&path, &pod, None).await });
        }
        while let Some(request) = requests.join_next().await {
            request?.map_err(RequestError::into_failure)?;
        }
        let mut waits = Vec::new();
        while waits.len() < made.len() {
            let (name, bound) = next(&mut bindings, waits.len(), made.len()).await?;
            if let Some(made) = made.get(&name) {
                waits.push(bound.saturating_duration_since(*made));
            }
        }
        Ok(waits)
    }

    /// Pods that come together: how many were bound in a second, from the first that came
    /// to the last that was bound.
    pub(super) async fn together(
        &self,
        namespace: &str,
        shape: Shape,
        count: u32,
    ) -> anyhow::Result<f64> {
        let load = format!("{}-all", shape.name());
        let path = pods(namespace);
        let mut bindings = self.watch(&path).await?;
        let begin = Instant::now();
        self.make_all(&path, count, |number| shape.pod(&load, number))
            .await?;
        let (mut bound, mut last) = (0, begin);
        while bound < count as usize {
            let (name, at) = next(&mut bindings, bound, count as usize).await?;
            if name.starts_with(&load) {
                bound += 1;
                last = last.max(at);
            }
        }
        Ok(to_f64(bound) / (last - begin).as_secs_f64().max(f64::EPSILON))
    }

    async fn make_all(
        &self,
        path: &str,
        count: u32,
        object: impl Fn(u32) -> serde_json::Value,
    ) -> anyhow::Result<()> {
        let next = AtomicU32::new(0);
        let makers = (0..AT_ONCE).map(|maker| {
            let (next, object) = (&next, &object);
            async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return Ok(());
                    }
                    let client = self.client(maker);
                    client.post(path, &object(number), None).await?;
                }
            }
        });
        let made = futures_util::future::try_join_all(makers).await;
        made.map(drop).map_err(RequestError::into_failure)
    }

    /// The names of pods of a path as they are bound from now on, and when that was seen.
    async fn watch(&self, path: &str) -> anyhow::Result<mpsc::Receiver<(String, Instant)>> {
        let client = self.client(0).clone();
        let mut version = self.version(path).await?;
        let from = |path: &str, version: &str| {
            format!("{path}?watch=true&allowWatchBookmarks=true&resourceVersion={version}")
        };
        let first = client.open(&from(path, &version)).await;
        let mut answer = first.map_err(RequestError::into_failure)?;
        let (seen, bindings) = mpsc::channel(SEEN);
        let path = path.to_owned();
        tokio::spawn(async move {
            let mut known = HashSet::new();
            loop {
                let mut lines = Lines::default();
                while let Ok(Some(chunk)) = answer.chunk().await {
                    let at = Instant::now();
                    for line in lines.of(&chunk) {
                        let Ok(Event { object }) = serde_json::from_slice(&line) else {
                            return;
                        };
                        let Object { metadata, spec } = object;
                        version = metadata.resource_version;
                        let is_bound = spec.is_some_and(|own| own.node_name.is_some());
                        if is_bound && known.insert(metadata.name.clone()) {
                            let sent = seen.send((metadata.name, at)).await;
                            if sent.is_err() {
                                return;
                            }
                        }
                    }
                }
                // A server ends watches that it finds slow.
                match client.open(&from(&path, &version)).await {
                    Ok(next) => answer = next,
                    Err(_) => return,
                }
            }
        });
        Ok(bindings)
    }
}

fn pods(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

async fn next(
    bindings: &mut mpsc::Receiver<(String, Instant)>,
    bound: usize,
    all: usize,
) -> anyhow::Result<(String, Instant)> {
    match tokio::time::timeout(PATIENCE, bindings.recv()).await {
        Ok(binding) => binding.context("the watch of pods ended"),
        Err(_) => bail!(
            "{bound} of {all} pods are bound, and no more for {} s",
            PATIENCE.as_secs()
        ),
    }
}

/// Whole lines of what comes in pieces.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn of(&mut self, piece: &[u8]) -> Vec<Vec<u8>> {
        self.0.extend_from_slice(piece);
        let Some(end) = self.0.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let rest = self.0.split_off(end + 1);
        let whole = std::mem::replace(&mut self.0, rest);
        let lines = whole.split(|byte| *byte == b'\n');
        lines
            .filter(|line| !line.is_empty())
            .map(<[u8]>::to_vec)
            .collect()
    }
}

#[derive(Deserialize)]
struct Event {
    object: Object,
}

/// A pod, or a list of them.
#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    spec: Option<Spec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    name: String,
    resource_version: String,
}

#[derive(Deserialize)]
struct Spec {
    #[serde(rename = "nodeName")]
    node_name: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let text = b"{\"a\":1}\n{\"b\":2}\n";
        for cut in 0..text.len() {
            let mut lines = Lines::default();
            let mut all = lines.of(&text[..cut]);
            all.extend(lines.of(&text[cut..]));
            assert_eq!(all, [b"{\"a\":1}".to_vec(), b"{\"b\":2}".to_vec()], "{cut}");
        }
    }

    #[test]
    fn percentiles_are_of_the_sorted_waits() {
        let waits = (1..=100).rev().map(Duration::from_millis).collect();
        let numbers = Numbers::new(waits, 1.0);
        assert_eq!((numbers.p50_ms(), numbers.p99_ms()), (50.0, 99.0));
    }
}
