//! The gRPC face, `sui.rpc.v2`, on the published protobuf definitions; gRPC-web too, as browsers and
//! the TypeScript SDK speak it.

mod ledger;
mod list;
mod render;
mod state;
mod subscription;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use prost::Message;
use sui_rpc::field::{FieldMask, FieldMaskTree, FieldMaskUtil, MessageFields};
use sui_rpc::headers;
use sui_rpc::proto::google::rpc::bad_request::FieldViolation;
use sui_rpc::proto::google::rpc::{BadRequest, Status as RpcStatus};
use sui_rpc::proto::sui::rpc::v2::ErrorReason;
use sui_rpc::proto::sui::rpc::v2::ledger_service_server::LedgerServiceServer;
use sui_rpc::proto::sui::rpc::v2::state_service_server::StateServiceServer;
use sui_rpc::proto::sui::rpc::v2::subscription_service_server::SubscriptionServiceServer;
use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_web::GrpcWebLayer;
use tower::ServiceBuilder;

use crate::faults::Answer;
use crate::node::Node;
use crate::view::View;

/// The services, one node behind all of them.
#[derive(Clone)]
pub(crate) struct Face {
    node: Arc<Node>,
}

/// All services.
pub(crate) fn router(node: Arc<Node>) -> Router {
    let face = Face { node: node.clone() };
    let routes = Routes::new(LedgerServiceServer::new(face.clone()))
        .add_service(StateServiceServer::new(face.clone()))
        .add_service(SubscriptionServiceServer::new(face));
    let service = ServiceBuilder::new()
        .layer(GrpcWebLayer::new())
        .service(routes);
    Router::new()
        .fallback_service(service)
        .layer(from_fn_with_state(node, misbehave))
}

impl Face {
    /// What the face sees of the chain.
    fn read<T>(&self, look: impl FnOnce(&View<'_>) -> Result<T, Status>) -> Result<T, Status> {
        let answer = self.node.grpc.faults().answer;
        let seen = self.node.read(&answer, look);
        seen.map_err(|error| Status::internal(error.to_string()))?
    }
}

/// Counts, delays, and answers in the service's place where the fault says so.
async fn misbehave(State(node): State<Arc<Node>>, request: Request, next: Next) -> Response {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default();
    node.grpc.count(method);
    let faults = node.grpc.faults();
    if faults.slow_ms > 0 {
        tokio::time::sleep(Duration::from_millis(faults.slow_ms)).await;
    }
    let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
    match &faults.answer {
        Answer::Unavailable => refusal(Status::unavailable("the node is down"), content_type),
        Answer::RateLimited => refusal(
            Status::resource_exhausted("too many requests"),
            content_type,
        ),
        Answer::Garbage => {
            let mut response =
                Response::new(Body::from(&b"\x00\x00\x00\x00\x05\xff\xff\xff\xff\xff"[..]));
            set_content_type(response.headers_mut(), content_type);
            response
        }
        answer => {
            let mut response = next.run(request).await;
            let told = node.read(answer, |view| state_headers(view, response.headers_mut()));
            match told {
                Ok(()) => response,
                Err(error) => refusal(Status::internal(error.to_string()), content_type),
            }
        }
    }
}

fn refusal(status: Status, content_type: Option<HeaderValue>) -> Response {
    let mut response = status.into_http::<Body>();
    set_content_type(response.headers_mut(), content_type);
    response
}

fn set_content_type(headers: &mut HeaderMap, value: Option<HeaderValue>) {
    let value = value.unwrap_or(HeaderValue::from_static("application/grpc"));
    headers.insert(header::CONTENT_TYPE, value);
}

/// The state of the chain as of which the answer is, as full nodes tell it in headers.
fn state_headers(view: &View<'_>, headers: &mut HeaderMap) {
    let Some(latest) = view.checkpoint(view.height()) else {
        return;
    };
    let values = [
        (headers::X_SUI_CHAIN_ID, view.chain_id().to_string()),
        (headers::X_SUI_CHAIN, "unknown".to_owned()),
        (headers::X_SUI_CHECKPOINT_HEIGHT, view.height().to_string()),
        (headers::X_SUI_EPOCH, latest.summary.epoch.to_string()),
        (
            headers::X_SUI_TIMESTAMP_MS,
            latest.summary.timestamp_ms.to_string(),
        ),
        (headers::X_SUI_LOWEST_AVAILABLE_CHECKPOINT, "0".to_owned()),
        (
            headers::X_SUI_LOWEST_AVAILABLE_CHECKPOINT_OBJECTS,
            "0".to_owned(),
        ),
    ];
    for (name, value) in values {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
}

/// The read mask of a request, or the default one.
fn mask<M: MessageFields>(mask: Option<FieldMask>, default: &str) -> Result<FieldMaskTree, Status> {
    let mask = mask.unwrap_or_else(|| FieldMask::from_str(default));
    let checked = mask.validate::<M>().map_err(str::to_owned);
    checked.map_err(|path| invalid("read_mask", &format!("invalid read_mask path: {path}")))?;
    Ok(FieldMaskTree::from(mask))
}

/// A required field of a request.
fn field<T: std::str::FromStr<Err: std::fmt::Display>>(
    name: &str,
    value: Option<&str>,
) -> Result<T, Status> {
    let Some(value) = value else {
        let violation = FieldViolation::new(name).with_reason(ErrorReason::FieldMissing);
        return Err(bad_request(violation));
    };
    let parsed = value.parse();
    parsed.map_err(|error| invalid(name, &format!("invalid {name}: {error}")))
}

fn invalid(field: &str, description: &str) -> Status {
    let violation = FieldViolation::new(field)
        .with_description(description)
        .with_reason(ErrorReason::FieldInvalid);
    bad_request(violation)
}

/// `INVALID_ARGUMENT` with the violation among its details.
fn bad_request(violation: FieldViolation) -> Status {
    let message = format!("{}: {}", violation.field, violation.description);
    let request = BadRequest::from(violation);
    let details = prost_types::Any::from_msg(&request).into_iter().collect();
    let status = RpcStatus {
        code: Code::InvalidArgument.into(),
        message: message.clone(),
        details,
    };
    Status::with_details(
        Code::InvalidArgument,
        message,
        status.encode_to_vec().into(),
    )
}
