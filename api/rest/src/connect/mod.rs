//! Streams to containers, and requests passed on to nodes, pods and services.
//!
//! Source: the handlers of `pods/{log,exec,attach,portforward,proxy}`, `nodes/proxy` and
//! `services/proxy` of the release served, and their translation of WebSockets
//! (KEP-4006).
//!
//! Invariants
//! - What is passed on was authorized for the subresource by the verb of its method;
//!   a stream into a container needs `create` too, whatever its method.
//! - Streams and proxies pass admission as `CONNECT`, with their options, before anything
//!   is looked up.
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
use http::{Method, Uri};
use nautilus_access::Decision;
use nautilus_admission::attributes::Operation;
use nautilus_machinery::fields;
use nautilus_machinery::identity::User;
use nautilus_machinery::resource::api_version;
use nautilus_machinery::status::ApiError;
use serde_json::{Value, json};

pub(crate) use kubelet::Kubelets;
pub use kubelet::{KubeletSettings, KubeletTrust, check_kubelet_bundle};

use crate::access;
use crate::audit::{Notes, Remarks};
use crate::body::Warnings;
use crate::context::RestContext;
use crate::failure::Failure;
use crate::resources::Call;
use crate::route::{ResourceRequest, Route};
use crate::storage::{Storage, Target, Writer, attributes};
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
    pub(crate) notes: Arc<Notes>,
    warnings: Arc<Warnings>,
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
            notes: call.notes,
            warnings: call.warnings,
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
            Connect::Proxy => {
                let options = self.admit(connect, request.uri()).await?;
                self.proxy(request, &options).await
            }
            _ => {
                self.check_create(&request)?;
                let options = self.admit(connect, request.uri()).await?;
                match connect {
                    Connect::PortForward => self.port_forward(request, &options).await,
                    _ => self.remote_command(connect, request, &options).await,
                }
            }
        }
    }

    /// A browser opens WebSockets by GET, which must not lead where only `get` is granted.
    fn check_create(&self, request: &Request) -> Result<(), Failure> {
        let route = Route::Resource(self.asked.clone());
        let mut asked = access::attributes(request.method(), request.uri(), &route)?;
        "create".clone_into(&mut asked.verb);
        if let Decision::NoOpinion(reason) = self.context.access.authorize(&self.user, &asked) {
            return Err(asked.forbidden(&self.user, &reason).into());
        }
        Ok(())
    }

    /// The options of the request as admission leaves them.
    async fn admit(&self, connect: Connect, uri: &Uri) -> Result<Value, Failure> {
        let asked = &self.asked;
        let subresource = asked.subresource.as_deref();
        let own = subresource
            .and_then(|name| asked.resource.subresource(name))
            .ok_or_else(ApiError::method_not_allowed)?;
        let proxied = asked.proxied.as_deref().unwrap_or_default();
        let mut options = options::connecting(connect, uri, proxied)?;
        options["kind"] = json!(own.kind);
        options["apiVersion"] = json!(api_version(&own.group, &own.version));
        let mut options = fields::conform_owned(&own.schema, options)?;
        let writer = Writer {
            user: &self.user,
            field_manager: "",
            dry_run: false,
            remarks: Remarks {
                warnings: Some(&self.warnings),
                notes: Some(&self.notes),
            },
        };
        let target = Target {
            resource: &asked.resource,
            namespace: asked.namespace.as_deref(),
            name: self.name(),
            subresource,
        };
        let attributes = attributes(Operation::Connect, &target, &writer, None);
        let admission = &self.context.admission;
        admission
            .pass_other(&attributes, &mut options, writer.remarks)
            .await?;
        Ok(options)
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
