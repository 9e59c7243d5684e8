//! What an agent of K3s asks its server for: authorities, certificates, configuration, the
//! servers. Its tunnel is in [`crate::tunnel`].
//!
//! Source: K3s' agent and supervisor (`pkg/agent/config`, `pkg/server/handlers`).
//!
//! Invariants
//! - Certificates are made over the agent's own key: no private key leaves this process.
//! - An agent gets certificates for the node that its credential speaks for, and for the
//!   password that this node came with first.
//! - No name or address of an API server gets into a kubelet's certificate: the same authority
//!   vouches for both.

mod certificates;
mod config;
pub(crate) mod password;

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode};
use nautilus_access::seal;
use nautilus_machinery::identity::User;
use nautilus_machinery::status::ApiError;

use crate::context::RestContext;
use crate::failure::Failure;
use crate::respond;
use crate::route::Route;
use crate::tunnel;

pub(crate) use certificates::controller_role;

/// Where everything stands for which an agent needs a credential.
pub(crate) const PREFIX: &str = "/v1-k3s/";
/// The header in which an agent says which node it is.
pub(crate) const NODE_NAME_HEADER: &str = "k3s-node-name";
const PEM_TYPE: &str = "text/plain";

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum K3sRequest {
    /// The authorities, to whoever asks.
    Authorities,
    /// Whether somebody is there.
    Ping,
    /// The same authorities: of servers and of clients.
    Bundle,
    Config,
    Ready,
    Servers,
    Certificate(Purpose),
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    KubeletServing,
    KubeletClient,
    KubeProxy,
    Controller,
}

impl K3sRequest {
    /// Whether it needs no credential: an agent asks for the authorities before it trusts this
    /// server, and checks them by what its token says.
    pub(crate) fn is_open(self) -> bool {
        matches!(self, Self::Authorities | Self::Ping)
    }
}

/// Reads a method and a path's segments; `None` for what is not of these.
pub(crate) fn parse(method: &Method, parts: &[&str]) -> Option<Route> {
    let certificate = K3sRequest::Certificate;
    let asked = match parts {
        ["cacerts"] => K3sRequest::Authorities,
        ["ping"] => K3sRequest::Ping,
        ["v1-k3s", "client-ca.crt" | "server-ca.crt"] => K3sRequest::Bundle,
        ["v1-k3s", "config"] => K3sRequest::Config,
        ["v1-k3s", "readyz"] => K3sRequest::Ready,
        ["v1-k3s", "apiservers"] => K3sRequest::Servers,
        ["v1-k3s", "serving-kubelet.crt"] => certificate(Purpose::KubeletServing),
        ["v1-k3s", "client-kubelet.crt"] => certificate(Purpose::KubeletClient),
        ["v1-k3s", "client-kube-proxy.crt"] => certificate(Purpose::KubeProxy),
        ["v1-k3s", "client-k3s-controller.crt"] => certificate(Purpose::Controller),
        _ => return None,
    };
    let fits = match asked {
        // Agents that ask for a key of the server's choice get none.
        K3sRequest::Certificate(_) => *method == Method::POST,
        _ => *method == Method::GET || *method == Method::HEAD,
    };
    Some(match fits {
        true => Route::K3s(asked),
        false => Route::MethodNotAllowed,
    })
}

/// The node that a user is, or joins as.
pub(crate) fn node_of(user: &User) -> Option<&str> {
    seal::node_of(user).or_else(|| tunnel::node_of(user))
}

/// Answers.
pub(crate) async fn serve(
    context: &Arc<RestContext>,
    asked: K3sRequest,
    user: &User,
    request: Request,
) -> Result<Response, Failure> {
    match asked {
        K3sRequest::Authorities | K3sRequest::Bundle => {
            let pem = context.authority.certificate_pem();
            Ok(respond::bytes(StatusCode::OK, PEM_TYPE, pem))
        }
        K3sRequest::Ping => Ok(respond::bytes(StatusCode::OK, PEM_TYPE, "pong")),
        K3sRequest::Config => respond::json_document(&config::document(context)?),
        K3sRequest::Servers => respond::json_document(&config::servers(context).into()),
        K3sRequest::Ready => match context.kv.leadership().leader {
            Some(_) => Ok(respond::bytes(StatusCode::OK, PEM_TYPE, "ok")),
            None => Err(ApiError::internal("no leader is known").into()),
        },
        K3sRequest::Certificate(purpose) => {
            certificates::issue(context, purpose, user, request).await
        }
    }
}

/// A text of a header of the agent's; empty where there is none.
fn header<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .trim()
}

/// The node that a request says it is, in the form of names.
pub(crate) fn claimed_node(headers: &HeaderMap) -> Option<String> {
    let name = header(headers, NODE_NAME_HEADER).to_ascii_lowercase();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_asked_for_with_a_request_and_the_rest_is_read() {
        let read = |method: Method, path: &str| {
            let parts: Vec<&str> = path.split('/').collect();
            match parse(&method, &parts) {
                Some(Route::K3s(asked)) => Some(asked),
                Some(Route::MethodNotAllowed) => None,
                _ => panic!("{path} is no path of these"),
            }
        };
        assert_eq!(read(Method::GET, "cacerts"), Some(K3sRequest::Authorities));
        assert_eq!(
            read(Method::POST, "v1-k3s/client-kubelet.crt"),
            Some(K3sRequest::Certificate(Purpose::KubeletClient))
        );
        assert_eq!(read(Method::GET, "v1-k3s/client-kubelet.crt"), None);
        assert_eq!(read(Method::POST, "v1-k3s/config"), None);
        assert!(parse(&Method::GET, &["v1-k3s", "encrypt", "config"]).is_none());
        assert!(parse(&Method::GET, &["v1-k3s", "connect"]).is_none());
    }
}
