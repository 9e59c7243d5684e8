//! The JSON-RPC 2.0 face: result forms, error codes and cursors as full nodes give them.

mod checkpoints;
mod events;
mod objects;
mod transactions;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::faults::Answer;
use crate::node::Node;
use crate::view::View;

/// The longest request, in bytes; full nodes have the same limit.
const REQUEST_LIMIT_BYTES: usize = 2 * 1024 * 1024;
/// The most requests in one batch.
const BATCH_LIMIT: usize = 50;
/// When a node that was asked too often may be asked again, in seconds.
const RETRY_AFTER_S: &str = "1";

/// The face at `/`.
pub(crate) fn router(node: Arc<Node>) -> Router {
    Router::new()
        .route("/", post(answer))
        .layer(axum::extract::DefaultBodyLimit::max(REQUEST_LIMIT_BYTES))
        .with_state(node)
}

/// Why a request failed, as JSON-RPC says it.
struct RpcError {
    code: i32,
    message: String,
}

impl RpcError {
    fn invalid(message: impl Into<String>) -> Self {
        Self {
            code: -32602,
            message: message.into(),
        }
    }

    fn failed(message: impl Into<String>) -> Self {
        Self {
            code: -32000,
            message: message.into(),
        }
    }
}

type RpcResult = Result<Value, RpcError>;

async fn answer(State(node): State<Arc<Node>>, body: Bytes) -> Response {
    let faults = node.jsonrpc.faults();
    let request = serde_json::from_slice::<Value>(&body);
    if let Ok(request) = &request {
        for method in methods(request) {
            node.jsonrpc.count(method);
        }
    }
    if faults.slow_ms > 0 {
        tokio::time::sleep(Duration::from_millis(faults.slow_ms)).await;
    }
    match &faults.answer {
        Answer::Unavailable => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Answer::RateLimited => {
            let mut response = StatusCode::TOO_MANY_REQUESTS.into_response();
            let seconds = HeaderValue::from_static(RETRY_AFTER_S);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
            response
        }
        Answer::Garbage => json_response(Body::from(&b"\xff\xfe{\"jsonrpc\":\"2.0\",\"res"[..])),
        answer => {
            let value = match request {
                Ok(request) => handle(&node, answer, &request),
                Err(error) => failure(
                    &Value::Null,
                    &RpcError {
                        code: -32700,
                        message: format!("Parse error: {error}"),
                    },
                ),
            };
            json_response(Body::from(value.to_string()))
        }
    }
}

fn json_response(body: Body) -> Response {
    let mut response = Response::new(body);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn methods(request: &Value) -> impl Iterator<Item = &str> {
    let (batch, one) = match request {
        Value::Array(batch) => (batch.as_slice(), None),
        one => (&[][..], Some(one)),
    };
    let requests = batch.iter().chain(one);
    requests.filter_map(|request| request.get("method")?.as_str())
}

fn handle(node: &Node, answer: &Answer, request: &Value) -> Value {
    let Value::Array(batch) = request else {
        return handle_one(node, answer, request);
    };
    if batch.is_empty() || batch.len() > BATCH_LIMIT {
        return failure(
            &Value::Null,
            &RpcError {
                code: -32005,
                message: format!(
                    "The batch request was too large; at most {BATCH_LIMIT} are served"
                ),
            },
        );
    }
    let answers = batch.iter().map(|one| handle_one(node, answer, one));
    answers.collect()
}

fn handle_one(node: &Node, answer: &Answer, request: &Value) -> Value {
    let id = request.get("id").cloned().unwrap_or(Value::Null);
    let method = request.get("method").and_then(Value::as_str);
    let version = request.get("jsonrpc").and_then(Value::as_str);
    let (Some(method), Some("2.0")) = (method, version) else {
        return failure(
            &id,
            &RpcError {
                code: -32600,
                message: "Invalid request".to_owned(),
            },
        );
    };
    let params = match request.get("params") {
        Some(Value::Array(params)) => Params(params),
        None | Some(Value::Null) => Params(&[]),
        Some(_) => return failure(&id, &RpcError::invalid("params are positional")),
    };
    let result = node.read(answer, |view| call(view, method, params));
    let result = result.unwrap_or_else(|error| Err(RpcError::failed(error.to_string())));
    match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(error) => failure(&id, &error),
    }
}

fn failure(id: &Value, error: &RpcError) -> Value {
    let error = json!({ "code": error.code, "message": error.message });
    json!({ "jsonrpc": "2.0", "id": id, "error": error })
}

fn call(view: &View<'_>, method: &str, params: Params<'_>) -> RpcResult {
    match method {
        "sui_getObject" => objects::get(view, params),
        "sui_multiGetObjects" => objects::get_many(view, params),
        "sui_tryGetPastObject" => objects::get_past(view, params),
        "suix_getDynamicFieldObject" => objects::get_dynamic_field(view, params),
        "suix_getDynamicFields" => objects::list_dynamic_fields(view, params),
        "suix_getOwnedObjects" => objects::list_owned(view, params),
        "suix_queryEvents" => events::query(view, params),
        "sui_getEvents" => events::of_transaction(view, params),
        "sui_getTransactionBlock" => transactions::get(view, params),
        "sui_multiGetTransactionBlocks" => transactions::get_many(view, params),
        "sui_getTotalTransactionBlocks" => transactions::count(view),
        "sui_getCheckpoint" => checkpoints::get(view, params),
        "sui_getCheckpoints" => checkpoints::list(view, params),
        "sui_getLatestCheckpointSequenceNumber" => Ok(json!(view.height().to_string())),
        "sui_getChainIdentifier" => Ok(checkpoints::chain_identifier(view)),
        "suix_getCommitteeInfo" => checkpoints::committee(view, params),
        "suix_getReferenceGasPrice" => Ok(json!(crate::ledger::GAS_PRICE.to_string())),
        _ => Err(RpcError {
            code: -32601,
            message: "Method not found".to_owned(),
        }),
    }
}

/// Positional parameters.
#[derive(Clone, Copy)]
struct Params<'a>(&'a [Value]);

impl Params<'_> {
    fn required<T: DeserializeOwned>(self, place: usize) -> Result<T, RpcError> {
        let value = self.0.get(place);
        let value = value.ok_or_else(|| RpcError::invalid("No more params"))?;
        parse(value)
    }

    fn optional<T: DeserializeOwned>(self, place: usize) -> Result<Option<T>, RpcError> {
        match self.0.get(place) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => parse(value).map(Some),
        }
    }
}

fn parse<T: DeserializeOwned>(value: &Value) -> Result<T, RpcError> {
    T::deserialize(value).map_err(|error| RpcError::invalid(format!("Invalid params: {error}")))
}

/// A page: what there is, whether there is more, and where to go on.
fn page(data: &[Value], more: bool, cursor: &Value) -> Value {
    json!({ "data": data, "nextCursor": cursor, "hasNextPage": more })
}
