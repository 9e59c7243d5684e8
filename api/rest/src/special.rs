//! Requests whose answer is not simply a stored object: bindings, reviews, tokens,
//! scales, connections. One place says which request is whose; what it does stands with
//! the rest of its subject.
//!
//! Invariant: whatever is served here or by the generic handlers is in the table of
//! kinds, with its verbs; what is in the table and served by nobody is answered 405.

use axum::extract::Request;
use axum::response::Response;
use nautilus_machinery::status::ApiError;

use crate::failure::Failure;
use crate::node_metrics;
use crate::resources::Call;
use crate::respond::Form;
use crate::route::ResourceRequest;

/// Who serves a special request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Special {
    /// A pod is bound to a node.
    Bind,
    /// A pod is asked to go.
    Evict,
    /// A token of a service account is asked for.
    Token,
    /// How many replicas there should be.
    Scale,
    /// How busy nodes are.
    NodeMetrics,
    /// In the table, but not served.
    Unserved,
}

/// Whose the request is; `None`: the generic handlers'.
pub(crate) fn of(asked: &ResourceRequest) -> Option<Special> {
    let resource = &asked.resource;
    let subresource = asked.subresource.as_deref().unwrap_or_default();
    match (
        resource.group.as_str(),
        resource.plural.as_str(),
        subresource,
    ) {
        ("", "bindings", "") | ("", "pods", "binding") => Some(Special::Bind),
        ("", "pods", "eviction") => Some(Special::Evict),
        ("", "serviceaccounts", "token") => Some(Special::Token),
        (node_metrics::GROUP, "nodes", "") if resource.defined.is_none() => {
            Some(Special::NodeMetrics)
        }
        (_, _, "scale") => Some(Special::Scale),
        // A body of another kind is not the object itself.
        _ => resource
            .subresource(subresource)
            .filter(|sub| sub.schema != resource.schema)
            .map(|_| Special::Unserved),
    }
}

/// Serves a special request.
pub(crate) async fn serve(
    special: Special,
    call: &Call,
    request: Request,
    form: Form,
) -> Result<Response, Failure> {
    match special {
        Special::Bind => call.bind(request, form).await,
        Special::Evict => crate::eviction::serve(call, request, form).await,
        Special::Token => call.create_token(request, form).await,
        Special::Scale => crate::scale::serve(call, request, form).await,
        Special::NodeMetrics => node_metrics::serve(call, request, form).await,
        Special::Unserved => Err(ApiError::method_not_allowed().into()),
    }
}
