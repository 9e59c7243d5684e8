//! Streams to containers, and requests passed on to nodes, pods and services.
//!
//! Source: the handlers of `pods/{log,exec,attach,portforward,proxy}`, `nodes/proxy` and
//! `services/proxy` of the release served, and their translation of WebSockets
//! (KEP-4006).
//!
//! Invariants
//! - What is passed on was authorized for the subresource by the verb of its method;
//!   a stream into a container needs `create` too, whatever its method.
//! - The server holds no more of a stream than a few buffers' worth.

mod channels;
mod error_stream;
mod kubelet;
mod location;
mod log;
mod options;
mod portforward;
mod proxy;
mod remote_command;

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use http::Method;
use nautilus_access::Decision;
use nautilus_machinery::identity::User;
use nautilus_machinery::status::ApiError;

pub(crate) use kubelet::Kubelets;
pub use kubelet::{KubeletSettings, KubeletTrust, check_kubelet_bundle};

use crate::access;
use crate::context::RestContext;
use crate::failure::Failure;
use crate::resources::Call;
use crate::route::{ResourceRequest, Route};
use crate::storage::Storage;
use crate::upstream::Permit;

/// What is asked of a node, a pod or a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connect {
    Log,
    Exec,
    Attach,
    PortForward,
    Proxy,
}

/// What this request connects to, if it is of that sort.
pub(crate) fn asked(request: &ResourceRequest) -> Option<Connect> {
    if !request.resource.group.is_empty() {
        return None;
    }
    match (
        request.resource.plural.as_str(),
        request.subresource.as_deref()?,
    ) {
        ("pods", "log") => Some(Connect::Log),
        ("pods", "exec") => Some(Connect::Exec),
        ("pods", "attach") => Some(Connect::Attach),
        ("pods", "portforward") => Some(Connect::PortForward),
        ("pods" | "nodes" | "services", "proxy") => Some(Connect::Proxy),
        _ => None,
    }
}

/// One such request being served.
pub(crate) struct Connection {
    pub(crate) context: Arc<RestContext>,
    pub(crate) asked: ResourceRequest,
    pub(crate) user: User,
    /// Held for as long as the stream goes on.
    pub(crate) permit: Permit,
}

impl Connection {
    /// A resource request that is of this sort.
    pub(crate) fn of(call: Call) -> Self {
        Self {
            context: call.context,
            asked: call.asked,
            user: call.user,
            permit: call.watch_permit,
        }
    }

    /// Serves the request.
    pub(crate) async fn serve(
        self,
        connect: Connect,
        request: Request,
    ) -> Result<Response, Failure> {
        let method = request.method();
        let served = match connect {
            Connect::Log => method == Method::GET,
            Connect::Exec | Connect::Attach | Connect::PortForward => {
                method == Method::GET || method == Method::POST
            }
            Connect::Proxy => true,
        };
        if !served {
            return Err(ApiError::method_not_allowed().into());
        }
        match connect {
            Connect::Log => self.log(request).await,
            Connect::Proxy => self.proxy(request).await,
            _ => self.stream(connect, request).await,
        }
    }

    /// A browser opens WebSockets by GET, which must not lead where only `get` is granted.
    async fn stream(self, connect: Connect, request: Request) -> Result<Response, Failure> {
        let route = Route::Resource(self.asked.clone());
        let mut asked = access::attributes(request.method(), request.uri(), &route)?;
        "create".clone_into(&mut asked.verb);
        if let Decision::NoOpinion(reason) = self.context.access.authorize(&self.user, &asked) {
            return Err(asked.forbidden(&self.user, &reason).into());
        }
        match connect {
            Connect::PortForward => self.port_forward(request).await,
            _ => self.remote_command(connect, request).await,
        }
    }

    fn storage(&self) -> Storage {
        Storage::new(self.context.kv.clone())
    }

    fn kubelets(&self) -> Result<&Kubelets, ApiError> {
        let kubelets = self.context.kubelets.as_ref();
        kubelets.map_err(|why| ApiError::internal(format!("kubelets can't be reached: {why}")))
    }

    fn namespace(&self) -> &str {
        self.asked.namespace.as_deref().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.asked.name.as_deref().unwrap_or_default()
    }
}
