//! The chain that a bench's workers are registered on: a stand-in for a full node that runs already
//! (`sui-standin`), and that the bench's quorum is pointed at by its environment.
//!
//! Invariant: every worker has a token of its own, as the chain issues them.

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::fleet::{node_id, owner, token_of_one};
use crate::config::names_chain;
use crate::up::progress::Progress;

/// Workers registered in one checkpoint.
const PER_CHECKPOINT: usize = 1_000;
/// The stake of each, in MIST: what a worker needs.
const STAKE: u64 = 1_000_000_000;

/// Puts `workers` on the chain behind the stand-in's admin face, whose faces then take `slow_ms`.
pub(super) async fn prepare(
    admin: &str,
    workers: usize,
    slow_ms: u64,
    progress: &Progress,
) -> anyhow::Result<()> {
    if !names_chain() {
        bail!(
            "--chain-admin names a stand-in, and nothing names it to the quorum: set \
             NAUTILUS_SUI_FULL_NODES, NAUTILUS_SUI_PACKAGE and NAUTILUS_SUI_REGISTRY"
        );
    }
    let client = reqwest::Client::builder().no_proxy().build()?;
    let admin = admin.trim_end_matches('/');
    for first in (0..workers).step_by(PER_CHECKPOINT) {
        progress.wait(&format!("{first} of {workers} workers are on the chain"));
        let those = first..workers.min(first + PER_CHECKPOINT);
        let operations: Vec<Value> = those.map(registered).collect();
        let request = client.post(format!("{admin}/apply")).json(&operations);
        answered(request).await?;
    }
    for face in ["grpc", "jsonrpc"] {
        let faults = json!({"answer": "truth", "slow_ms": slow_ms});
        let request = client.put(format!("{admin}/faults/{face}")).json(&faults);
        answered(request).await?;
    }
    Ok(())
}

fn registered(worker: usize) -> Value {
    json!({
        "operation": "register_worker",
        "node_id": node_id(worker),
        "owner": owner(worker),
        "stake": STAKE,
        "seal_token": token_of_one(worker),
    })
}

async fn answered(request: reqwest::RequestBuilder) -> anyhow::Result<()> {
    let answer = request.send().await.context("the stand-in's admin face")?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let text = answer.text().await.unwrap_or_default();
    bail!("the stand-in's admin face said {status}: {text}")
}
