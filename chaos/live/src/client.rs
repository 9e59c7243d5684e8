//! Clients that raise their registers on random nodes and check every read.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::promise::Register;
use crate::random::Random;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes and reads, counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) acknowledged: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) unanswered: AtomicU64,
}

/// An HTTP client with the credentials of a kubeconfig.
pub(crate) fn http(kubeconfig: &Path) -> Result<reqwest::Client> {
    let text = std::fs::read_to_string(kubeconfig)?;
    let field = |name: &str| -> Result<Vec<u8>> {
        let value = text
            .lines()
            .find_map(|line| line.trim().trim_start_matches("- ").strip_prefix(name))
            .and_then(|rest| rest.strip_prefix(": "))
            .with_context(|| format!("{} has no {name}", kubeconfig.display()))?;
        Ok(base64::engine::general_purpose::STANDARD.decode(value.trim().trim_matches('"'))?)
    };
    let mut identity = field("client-certificate-data")?;
    identity.extend_from_slice(b"\n");
    identity.extend(field("client-key-data")?);
    let authority = reqwest::Certificate::from_pem(&field("certificate-authority-data")?)?;
    Ok(reqwest::Client::builder()
        .tls_certs_only([authority])
        .identity(reqwest::Identity::from_pem(&identity)?)
        .timeout(REQUEST_TIMEOUT)
        .connect_timeout(Duration::from_secs(2))
        .build()?)
}

/// One writer with its register.
pub(crate) struct Client {
    pub(crate) name: String,
    pub(crate) http: reqwest::Client,
    pub(crate) register: Arc<Register>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) nodes: u64,
}

impl Client {
    /// Works until `stop`; fails on a broken promise.
    pub(crate) async fn run(&self, stop: &AtomicBool, mut random: Random) -> Result<()> {
        while !stop.load(Ordering::SeqCst) {
            let node = 1 + random.below(self.nodes);
            if random.below(3) == 0 {
                self.read(node).await?;
            } else {
                self.raise(node).await?;
            }
        }
        Ok(())
    }

    /// A linearizable read; unanswered ones prove nothing.
    pub(crate) async fn read(&self, node: u64) -> Result<Option<u64>> {
        let floor = self.register.floor();
        let Some(object) = self.get(node).await? else {
            return Ok(None);
        };
        let value = value_of(&object)?;
        self.register
            .check(&format!("{} on node {node}", self.name), floor, value)?;
        self.counts.reads.fetch_add(1, Ordering::SeqCst);
        Ok(Some(value))
    }

    async fn get(&self, node: u64) -> Result<Option<Value>> {
        let answer = self
            .http
            .get(self.url(node, &format!("/{}", self.name)))
            .send()
            .await;
        match answer {
            Ok(answer) if answer.status() == StatusCode::OK => {
                Ok(answer.json().await.map(Some).unwrap_or_default())
            }
            Ok(answer) if answer.status() == StatusCode::NOT_FOUND => Ok(Some(Value::Null)),
            _ => {
                self.counts.unanswered.fetch_add(1, Ordering::SeqCst);
                Ok(None)
            }
        }
    }

    /// Reads, then writes a higher value on condition that nothing came between.
    async fn raise(&self, node: u64) -> Result<()> {
        let floor = self.register.floor();
        let Some(present) = self.get(node).await? else {
            return Ok(());
        };
        self.register.check(
            &format!("{} on node {node}", self.name),
            floor,
            value_of(&present)?,
        )?;
        let next = self.register.next();
        let mut object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": self.name},
            "data": {"value": next.to_string()},
        });
        let request = if present.is_null() {
            self.http.post(self.url(node, ""))
        } else {
            object["metadata"]["resourceVersion"] = present["metadata"]["resourceVersion"].clone();
            self.http.put(self.url(node, &format!("/{}", self.name)))
        };
        match request.json(&object).send().await {
            Ok(answer) if answer.status().is_success() => {
                self.register.acknowledge(next);
                self.counts.acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            _ => {
                self.counts.unanswered.fetch_add(1, Ordering::SeqCst);
            }
        }
        Ok(())
    }

    fn url(&self, node: u64, rest: &str) -> String {
        format!(
            "{}/api/v1/namespaces/default/configmaps{rest}",
            Cluster::api(node)
        )
    }
}

/// A register's value; 0 before its first write.
fn value_of(object: &Value) -> Result<u64> {
    match object["data"]["value"].as_str() {
        Some(text) => Ok(text.parse()?),
        None => Ok(0),
    }
}
