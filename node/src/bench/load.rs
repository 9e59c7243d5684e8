//! Clients that write and read config maps over the Kubernetes API.
//!
//! Each client has its own turn-by-turn loop (one request at a time), connections
//! are shared by a few clients each as HTTP/2 streams, as client-go does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::World;
use crate::client::{ApiClient, RequestError};
use crate::kubeconfig::Kubeconfig;

/// The namespace that benches write in.
pub(super) const NAMESPACE: &str = "bench";
/// Clients that share one connection.
const CLIENTS_PER_CONNECTION: usize = 16;
/// For a write to be acknowledged before its client goes on to another node.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(3);
/// Objects of one page when everything is listed.
const PAGE: usize = 5_000;

/// Connections to every node, by node.
pub(super) struct Connections {
    nodes: Vec<(u64, Vec<ApiClient>)>,
}

impl Connections {
    /// Enough connections for so many clients, on every node.
    pub(super) fn open(world: &World, clients: usize) -> anyhow::Result<Self> {
        let kubeconfig = Kubeconfig::read(&world.layout.kubeconfig())?;
        let count = clients.div_ceil(CLIENTS_PER_CONNECTION).max(1);
        let nodes = world.quorum.nodes.iter().map(|node| {
            let connections = (0..count)
                .map(|_| ApiClient::new(&node.server(), &kubeconfig))
                .collect::<anyhow::Result<Vec<_>>>()?;
            Ok((node.id, connections))
        });
        Ok(Self {
            nodes: nodes.collect::<anyhow::Result<_>>()?,
        })
    }

    /// The connection of a client that starts on the `turn`-th node after its own.
    pub(super) fn any(&self, client: usize, turn: usize) -> &ApiClient {
        let (_, connections) = &self.nodes[(client + turn) % self.nodes.len()];
        &connections[(client / self.nodes.len()) % connections.len()]
    }

    /// The connection of a client to one node.
    pub(super) fn to(&self, node: u64, client: usize) -> anyhow::Result<&ApiClient> {
        let (_, connections) = self
            .nodes
            .iter()
            .find(|(id, _)| *id == node)
            .with_context(|| format!("node {node} is not of this quorum"))?;
        Ok(&connections[client % connections.len()])
    }
}

/// Makes the namespace of the bench.
pub(super) async fn make_namespace(client: &ApiClient) -> anyhow::Result<()> {
    let body = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}
    });
    match client.post("/api/v1/namespaces", &body, None).await {
        Ok(()) | Err(RequestError::Refused { code: 409, .. }) => Ok(()),
        Err(error) => Err(error.into_failure().context("make the namespace `bench`")),
    }
}

/// The path of the bench's config maps.
pub(super) fn collection() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps")
}

/// A config map with a value of so many bytes.
pub(super) fn config_map(name: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "data": {"value": value}
    })
}

/// The names of every config map of the bench.
pub(super) async fn list_names(client: &ApiClient) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut token = String::new();
    loop {
        let path = format!("{}?limit={PAGE}&continue={token}", collection());
        let page: Value = client
            .get(&path, None)
            .await
            .map_err(RequestError::into_failure)?;
        let items = page["items"].as_array().context("a list has items")?;
        names.extend(
            items
                .iter()
                .filter_map(|item| item["metadata"]["name"].as_str().map(str::to_owned)),
        );
        token = match page["metadata"]["continue"].as_str() {
            None | Some("") => return Ok(names),
            Some(token) => query_value(token),
        };
    }
}

/// Percent-encodes what a query's value may not hold (RFC 3986, unreserved).
pub(super) fn query_value(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// What a timed load did.
pub(super) struct Measured {
    /// Requests that succeeded.
    pub(super) count: usize,
    /// From the first to the last.
    pub(super) elapsed: Duration,
    /// Each one's time, sorted.
    latencies: Vec<Duration>,
}

impl Measured {
    /// Requests per second.
    pub(super) fn per_second(&self) -> f64 {
        to_f64(self.count) / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// The latency below which this share (0 to 100) of the requests lies, in ms.
    pub(super) fn percentile_ms(&self, percent: usize) -> f64 {
        let index = (self.latencies.len() * percent)
            .div_ceil(100)
            .saturating_sub(1);
        self.latencies
            .get(index)
            .map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
    }
}

/// A count as a number to calculate with; exact up to 2^32.
pub(super) fn to_f64(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

/// Runs `clients` loops of `request(client, round)` for a time. A refused request
/// ends the bench: numbers of a quorum that refuses say nothing.
pub(super) async fn timed<F, R>(
    clients: usize,
    duration: Duration,
    request: F,
) -> anyhow::Result<Measured>
where
    F: Fn(usize, usize) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), RequestError>> + Send,
{
    let request = Arc::new(request);
    let start = Instant::now();
    let end = start + duration;
    let loops = (0..clients).map(|client| {
        let request = Arc::clone(&request);
        tokio::spawn(async move {
            let mut latencies = Vec::new();
            for round in 0.. {
                let begin = Instant::now();
                if begin >= end {
                    break;
                }
                request(client, round).await?;
                latencies.push(begin.elapsed());
            }
            Ok::<_, RequestError>(latencies)
        })
    });
    let mut latencies = Vec::new();
    for finished in futures_util::future::join_all(loops).await {
        latencies.extend(
            finished
                .context("a client")?
                .map_err(RequestError::into_failure)?,
        );
    }
    let elapsed = start.elapsed();
    latencies.sort_unstable();
    Ok(Measured {
        count: latencies.len(),
        elapsed,
        latencies,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_latencies() {
        let measured = Measured {
            count: 100,
            elapsed: Duration::from_secs(2),
            latencies: (1..=100).map(Duration::from_millis).collect(),
        };
        assert_eq!(
            (measured.percentile_ms(50), measured.percentile_ms(99)),
            (50.0, 99.0)
        );
        assert!((measured.per_second() - 50.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_continue_token_survives_the_query() {
        assert_eq!(query_value("a+b/c="), "a%2Bb%2Fc%3D");
    }
}
