//! A request passed on to an extension server.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use http::header::LOCATION;
use nautilus_machinery::identity::User;
use nautilus_machinery::status::ApiError;

use super::service::ApiService;
use super::{Aggregator, front_proxy, resolve};
use crate::failure::Failure;
use crate::respond;
use crate::storage::Storage;
use crate::upstream::{Forwarding, HostHeader, Permit, UpstreamError, forward};

/// What the reference says when a server can't be asked; clients see the code.
const UNAVAILABLE: &str = "service unavailable\n";

impl Aggregator {
    /// Passes a request on, with the word of this server on who asks.
    pub(crate) async fn pass_on(
        &self,
        service: &Arc<ApiService>,
        user: &User,
        mut request: Request,
        permit: Permit,
        shutdown: tokio_util::sync::CancellationToken,
    ) -> Result<Response, Failure> {
        if !service.available {
            return Ok(unavailable());
        }
        let config = match self.front_proxy().await {
            Ok(front_proxy) => front_proxy.client(service),
            Err(why) => Err(why),
        };
        let config = match config {
            Ok(config) => config,
            Err(why) => {
                tracing::warn!(%why, name = service.name, "an extension server can't be asked");
                let text = format!("{why}\n");
                return Ok(respond::plain(StatusCode::INTERNAL_SERVER_ERROR, &text));
            }
        };
        let upstream = match resolve::upstream(&Storage::new(self.kv.clone()), service, config) {
            Ok(upstream) => upstream,
            Err(why) => {
                tracing::warn!(why = why.message, name = service.name, "no endpoint to ask");
                return Ok(unavailable());
            }
        };
        let asked = request.headers_mut();
        let forged: Vec<_> = asked
            .keys()
            .filter(|name| front_proxy::says_who(name))
            .cloned()
            .collect();
        for name in forged {
            asked.remove(name);
        }
        let headers = front_proxy::headers(user);
        let path_and_query = request.uri().path_and_query();
        let forwarding = Forwarding {
            path_and_query: path_and_query.map_or_else(|| "/".to_owned(), ToString::to_string),
            upstream,
            host: HostHeader::Upstream,
            headers,
            links: None,
            unreachable,
        };
        let answer = match forward(request, forwarding, permit, shutdown).await {
            Ok(answer) => answer,
            Err(failure) => {
                let text = format!("{}\n", failure.error.message());
                return Ok(respond::plain(StatusCode::SERVICE_UNAVAILABLE, &text));
            }
        };
        if answer.status().is_redirection() && answer.headers().contains_key(LOCATION) {
            let text = "the backend attempted to redirect this request, which is not permitted";
            return Ok(respond::plain(StatusCode::BAD_GATEWAY, text));
        }
        Ok(answer)
    }
}

fn unreachable(error: &UpstreamError) -> ApiError {
    ApiError::unavailable(format!("error trying to reach service: {error}"), 0)
}

fn unavailable() -> Response {
    respond::plain(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE)
}
