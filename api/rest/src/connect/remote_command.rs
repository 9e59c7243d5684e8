//! `pods/exec` and `pods/attach`.

use axum::extract::Request;
use axum::response::Response;
use http::HeaderMap;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use nautilus_machinery::status::ApiError;
use nautilus_streams::subprotocol::{V5_CHANNEL, requested};
use serde_json::Value;

use super::channels::Translation;
use super::location::container;
use super::options::CommandOptions;
use super::{Connect, Connection};
use crate::failure::Failure;
use crate::stream::wants_websocket;
use crate::upstream::{Forwarding, HostHeader, Upstream, UpstreamError, forward, is_upgrade};

impl Connection {
    /// SPDY, and WebSockets of older protocols, are passed through: kubelets speak them.
    /// What has v5 is translated to SPDY here, unless the node says that it does so
    /// itself.
    pub(super) async fn remote_command(
        self,
        connect: Connect,
        request: Request,
        options: &Value,
    ) -> Result<Response, Failure> {
        let options = CommandOptions::of(options);
        let pod = self.pod().await?;
        let container = container(&options.container, &pod)?;
        let kubelet = self.pods_kubelet(&pod).await?;
        let (what, with_command) = match connect {
            Connect::Exec => ("exec", true),
            _ => ("attach", false),
        };
        let path_and_query = format!(
            "/{what}/{}/{}/{container}{}",
            self.namespace(),
            self.name(),
            options.kubelet_query(with_command)
        );
        if speaks_v5(request.headers()) && !kubelet.translates {
            let translation = Translation {
                upstream: kubelet.upstream,
                path_and_query,
                stdin: options.stdin,
                stdout: options.stdout,
                stderr: options.stderr,
                tty: options.tty,
                permit: self.permit,
                shutdown: self.context.shutdown.clone(),
            };
            return translation.answer(request).await;
        }
        self.pass_through(request, kubelet.upstream, path_and_query)
            .await
    }

    /// The client and the kubelet speak to each other.
    pub(super) async fn pass_through(
        self,
        request: Request,
        upstream: Upstream,
        path_and_query: String,
    ) -> Result<Response, Failure> {
        if !is_upgrade(request.headers()) {
            return Err(ApiError::bad_request("Upgrade request required").into());
        }
        let forwarding = Forwarding {
            upstream,
            path_and_query,
            host: HostHeader::AsAsked,
            headers: HeaderMap::new(),
            links: None,
            unreachable: UpstreamError::while_dialing,
        };
        let shutdown = self.context.shutdown.clone();
        forward(request, forwarding, self.permit, shutdown).await
    }
}

fn speaks_v5(headers: &HeaderMap) -> bool {
    wants_websocket(headers) && protocols(headers).any(|name| name == V5_CHANNEL)
}

/// The WebSocket subprotocols that the client offers.
pub(super) fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(requested)
}
