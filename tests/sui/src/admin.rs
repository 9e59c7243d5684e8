//! The admin face, for tests in other languages and processes: what [`crate::Chain`] and
//! [`crate::Control`] do, over HTTP in JSON.
//!
//! | request | answer |
//! |---|---|
//! | `GET /state` | the chain's ids, height, epoch and committee |
//! | `POST /apply`, one operation or a list (one checkpoint) | receipts |
//! | `POST /fork/apply`, the same on the fork | receipts |
//! | `GET`, `PUT /faults/{grpc,jsonrpc}` | the face's faults |
//! | `GET`, `DELETE /requests/{grpc,jsonrpc}` | the face's counters |

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::chain::Chain;
use crate::faults::{Control, Faults};
use crate::layout;
use crate::node::Node;
use crate::operation::{Operation, Receipt};

/// The longest request, in bytes: ten thousand operations in one checkpoint.
const REQUEST_LIMIT_BYTES: usize = 64 * 1024 * 1024;

type Refused = (StatusCode, String);
type Shared = State<Arc<Node>>;

/// The face's routes.
pub(crate) fn router(node: Arc<Node>) -> Router {
    Router::new()
        .route("/state", get(state))
        .route("/apply", post(apply))
        .route("/fork/apply", post(apply_to_fork))
        .route("/faults/{face}", get(faults).put(set_faults))
        .route("/requests/{face}", get(requests).delete(reset_requests))
        .layer(DefaultBodyLimit::max(REQUEST_LIMIT_BYTES))
        .with_state(node)
}

/// One operation, or all of one checkpoint.
#[derive(Deserialize)]
#[serde(untagged)]
enum Operations {
    One(Box<Operation>),
    Many(Vec<Operation>),
}

async fn state(State(node): Shared) -> Json<Value> {
    let chain = &node.chain;
    let ledger = chain.read();
    let epoch = ledger.epoch();
    let latest = ledger.latest().summary.sequence_number;
    let committee = ledger.committee(epoch).cloned();
    drop(ledger);
    Json(json!({
        "chain_id": chain.chain_id(),
        "package": layout::package(),
        "registry": layout::registry_id(),
        "workers_table": layout::workers_table(),
        "checkpoint": latest,
        "epoch": epoch,
        "committee": committee,
    }))
}

async fn apply(
    State(node): Shared,
    Json(operations): Json<Operations>,
) -> Result<Json<Vec<Receipt>>, Refused> {
    apply_to(&node.chain, operations)
}

async fn apply_to_fork(
    State(node): Shared,
    Json(operations): Json<Operations>,
) -> Result<Json<Vec<Receipt>>, Refused> {
    let fork = node.fork();
    let fork = fork.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    apply_to(&fork, operations)
}

fn apply_to(chain: &Chain, operations: Operations) -> Result<Json<Vec<Receipt>>, Refused> {
    let operations = match operations {
        Operations::One(operation) => vec![*operation],
        Operations::Many(operations) => operations,
    };
    let receipts = chain.apply_all(&operations);
    let receipts = receipts.map_err(|error| (StatusCode::CONFLICT, error.to_string()))?;
    Ok(Json(receipts))
}

async fn faults(State(node): Shared, Path(face): Path<String>) -> Result<Json<Faults>, Refused> {
    Ok(Json(control(&node, &face)?.faults()))
}

async fn set_faults(
    State(node): Shared,
    Path(face): Path<String>,
    Json(faults): Json<Faults>,
) -> Result<Json<Faults>, Refused> {
    let control = control(&node, &face)?;
    control.set(faults);
    Ok(Json(control.faults()))
}

async fn requests(
    State(node): Shared,
    Path(face): Path<String>,
) -> Result<Json<BTreeMap<String, u64>>, Refused> {
    Ok(Json(control(&node, &face)?.requests()))
}

async fn reset_requests(
    State(node): Shared,
    Path(face): Path<String>,
) -> Result<StatusCode, Refused> {
    control(&node, &face)?.reset_requests();
    Ok(StatusCode::NO_CONTENT)
}

fn control<'a>(node: &'a Node, face: &str) -> Result<&'a Control, Refused> {
    match face {
        "grpc" => Ok(&node.grpc),
        "jsonrpc" => Ok(&node.jsonrpc),
        other => Err((
            StatusCode::NOT_FOUND,
            format!("no face {other}: grpc or jsonrpc"),
        )),
    }
}
