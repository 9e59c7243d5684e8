//! What controllers ask of the API by its paths, and scales of any kind: requests of this
//! process to its own router.
//!
//! Invariants
//! - A request has its controller's user, and passes everything that one from outside
//!   passes: fairness, roles, admission, aggregation.
//! - An answer is read up to [`MAX_ANSWER_BYTES`].
//! - A scale is set in the version that it names: a deposed leader's is refused once
//!   anybody else has changed its object.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{Method, StatusCode};
use nautilus_control::Written;
use nautilus_machinery::identity::User;
use nautilus_machinery::status::ApiError;
use nautilus_planner::object;
use nautilus_planner::view::{Answer, Question, Target};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::context::RestContext;
use crate::failure::Failure;
use crate::router::router;

/// Bytes of an answer.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
const JSON: &str = "application/json";
const AGENT: &str = "kube-controller-manager";

/// Answers a question as `user` would be answered.
pub(super) async fn ask(context: &Arc<RestContext>, user: &User, question: &Question) -> Answer {
    let path = match question {
        Question::Get(path) => path.clone(),
        Question::Scale(target) => {
            path_of_scale(context, target).map_err(|error| told(&error.error))?
        }
    };
    let answer = request(context, user, Method::GET, path, None).await;
    answer.map_err(|failure| told(&failure.error))
}

fn told(error: &ApiError) -> (u16, String) {
    (error.code(), error.message().to_owned())
}

/// Sets a scale.
pub(super) async fn set_scale(
    context: &Arc<RestContext>,
    user: &User,
    target: &Target,
    scale: &Value,
) -> Result<Written, Failure> {
    let path = path_of_scale(context, target)?;
    request(context, user, Method::PUT, path, Some(scale)).await?;
    Ok(Written {
        name: object::name(scale).to_owned(),
        revision: 0,
    })
}

fn path_of_scale(context: &RestContext, target: &Target) -> Result<String, Failure> {
    let version = target.api_version.as_str();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let served = context.registry.served();
    let found = served.kinds.find_kind(group, version, &target.kind);
    let refuse = |what: String| ApiError::path_not_found().with_message(what);
    let resource = found.ok_or_else(|| {
        refuse(format!(
            "no matches for kind {:?} in group {group:?}",
            target.kind
        ))
    })?;
    if resource.scale.is_none() {
        let name = match group {
            "" => resource.plural.to_string(),
            group => format!("{}.{group}", resource.plural),
        };
        let what = format!("{name} does not implement the scale subresource");
        return Err(refuse(what).into());
    }
    let prefix = match group {
        "" => "/api".to_owned(),
        group => format!("/apis/{group}"),
    };
    let place = match resource.namespaced {
        true => format!("namespaces/{}/", target.namespace),
        false => String::new(),
    };
    let (plural, name) = (&resource.plural, &target.name);
    Ok(format!("{prefix}/{version}/{place}{plural}/{name}/scale"))
}

async fn request(
    context: &Arc<RestContext>,
    user: &User,
    method: Method,
    path: String,
    body: Option<&Value>,
) -> Result<Value, Failure> {
    let internal = |error: String| Failure::from(ApiError::internal(error));
    let body = match body {
        Some(body) => Body::from(body.to_string()),
        None => Body::empty(),
    };
    let asked = Request::builder()
        .method(method)
        .uri(path)
        .header(ACCEPT, JSON)
        .header(CONTENT_TYPE, JSON)
        .header(USER_AGENT, AGENT)
        .extension(user.clone())
        .body(body)
        .map_err(|error| internal(error.to_string()))?;
    let answer = match router(context.clone()).oneshot(asked).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    };
    let code = answer.status();
    let bytes = to_bytes(answer.into_body(), MAX_ANSWER_BYTES).await;
    let bytes = bytes.map_err(|error| internal(error.to_string()))?;
    let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    if code == StatusCode::OK {
        return Ok(value);
    }
    let text = |field: &str| value[field].as_str().unwrap_or_default();
    let details = &value["details"];
    Err(ApiError::given(code.as_u16(), text("reason"), text("message"), details).into())
}
