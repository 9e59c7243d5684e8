//! Nodes that can't be reached: they hold a tunnel to a master, in the form of K3s
//! (`/v1-k3s/connect`), and masters reach their kubelets through it, each through the
//! one that holds it.
//!
//! Invariants
//! - A node opens its own tunnel alone: by a client certificate in its name.
//! - Nothing but the node's own kubelet is reached through it: the address is always
//!   the loopback address there.
//! - A row that names the holder is a hint: a master that holds no such tunnel says so.

mod session;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts as _, Request};
use axum::response::Response;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper_util::rt::TokioIo;
use nautilus_machine::types::KeyRange;
use nautilus_machine::{
    Command, Compare, CompareOp, CompareTarget, Kv, Operation, Proposal, Put, RangeRequest, Txn,
};
use nautilus_machinery::identity::{NODE_USER_PREFIX, NODES_GROUP, User};
use nautilus_machinery::status::ApiError;
use parking_lot::Mutex;
use rustls::ClientConfig;

use self::session::Session;
use crate::authority::Authority;
use crate::context::RestContext;
use crate::failure::Failure;
use crate::options::Query;
use crate::upstream::{
    ComponentIdentity, Permit, Security, Stream, Trust, Upstream, UpstreamError, client_config,
    exchange, is_upgrade, splice,
};

/// Where the rows stand that say which master holds a node's tunnel.
const ROWS: &str = "/nautilus/tunnels/";
/// As whom a master asks another.
const MASTER_USER: &str = "system:nautilus-master";
const MASTER_GROUP: &str = "system:masters";
/// Where a master asks another for a connection through its tunnel.
pub(crate) const DIAL_PATH: &str = "/nautilus/v1/tunnel";
/// What such a connection is upgraded to.
const PROTOCOL: &str = "nautilus-tunnel";
/// Bytes of one message of a worker's, at most.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
/// Tunnels of one master, at most.
const MAX_TUNNELS: usize = 65_536;

/// The tunnels that end here, and the way to the others.
pub(crate) struct Tunnels {
    kv: Arc<dyn Kv>,
    /// `https://host:port` of this master.
    own: String,
    sessions: Mutex<BTreeMap<String, Arc<Session>>>,
    /// To other masters.
    client: Result<Arc<ClientConfig>, String>,
}

impl Tunnels {
    pub(crate) fn new(kv: Arc<dyn Kv>, own: &str, authority: &Arc<Authority>) -> Arc<Self> {
        let issuer = authority.clone();
        let identity = ComponentIdentity::new(
            MASTER_USER,
            Box::new(move || issuer.issue_component(MASTER_USER, &[MASTER_GROUP.to_owned()])),
        );
        let client = Trust::own(authority).and_then(|trust| client_config(trust, Some(identity)));
        Arc::new(Self {
            kv,
            own: own.to_owned(),
            sessions: Mutex::default(),
            client,
        })
    }

    /// A connection to a port of the node's loopback address through its tunnel; `None`
    /// where nobody holds one.
    pub(crate) async fn dial(
        &self,
        node: &str,
        port: u16,
    ) -> Option<Result<Stream, UpstreamError>> {
        let session = self.sessions.lock().get(node).cloned();
        if let Some(session) = session {
            let dialed = session.dial(&format!("127.0.0.1:{port}")).await;
            return Some(dialed.map(|stream| Box::new(stream) as Stream));
        }
        let holder = self.holder(node)?;
        if holder == self.own {
            return None;
        }
        self.dial_through(&holder, node, port).await
    }

    fn holder(&self, node: &str) -> Option<String> {
        let request = RangeRequest::newest(KeyRange::single(format!("{ROWS}{node}")));
        let row = self.kv.range(&request).ok()?.kvs.into_iter().next()?;
        String::from_utf8(row.value.to_vec()).ok()
    }

    /// Through another master; `None` where it does not hold the tunnel (any more).
    async fn dial_through(
        &self,
        holder: &str,
        node: &str,
        port: u16,
    ) -> Option<Result<Stream, UpstreamError>> {
        let failed = |why: String| Some(Err(UpstreamError(why)));
        let config = match &self.client {
            Ok(config) => config.clone(),
            Err(why) => return failed(why.clone()),
        };
        let (host, master_port) = holder.strip_prefix("https://")?.rsplit_once(':')?;
        let upstream = Upstream {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: master_port.parse().ok()?,
            security: Security::Tls(config, None),
            tunnel: None,
        };
        let mut request = http::Request::new(Body::empty());
        *request.uri_mut() = format!("{DIAL_PATH}?node={node}&port={port}")
            .parse()
            .ok()?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(&upstream.authority()).ok()?);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
        let mut answer = match Box::pin(exchange(&upstream, request)).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::info!(%error, holder, node, "the master that held a tunnel is not there");
                return None;
            }
        };
        match answer.status() {
            StatusCode::SWITCHING_PROTOCOLS => match hyper::upgrade::on(&mut answer).await {
                Ok(stream) => Some(Ok(Box::new(TokioIo::new(stream)))),
                Err(error) => failed(error.to_string()),
            },
            StatusCode::NOT_FOUND => None,
            status => failed(format!("the master that holds the tunnel said {status}")),
        }
    }

    async fn note(&self, node: &str) {
        let put = Operation::Put(Put::new(
            format!("{ROWS}{node}"),
            self.own.clone().into_bytes(),
        ));
        self.write(Vec::new(), put).await;
    }

    /// Takes the row away if it still names this master.
    async fn forget(&self, node: &str) {
        let key = format!("{ROWS}{node}");
        let own = Compare {
            range: KeyRange::single(key.clone()),
            target: CompareTarget::Value(self.own.clone().into()),
            op: CompareOp::Equal,
        };
        let delete = Operation::Delete {
            range: KeyRange::single(key),
            prev_kv: false,
        };
        self.write(vec![own], delete).await;
    }

    async fn write(&self, compare: Vec<Compare>, then: Operation) {
        let proposal = Proposal::new(Command::Txn(Txn {
            compare,
            then: vec![then],
            otherwise: Vec::new(),
        }));
        if let Err(error) = self.kv.propose(proposal).await {
            tracing::info!(%error, "where a tunnel ends could not be noted");
        }
    }
}

/// The node that a user is, if it is one.
pub(crate) fn node_of(user: &User) -> Option<&str> {
    user.name
        .strip_prefix(NODE_USER_PREFIX)
        .filter(|name| !name.is_empty() && user.in_group(NODES_GROUP))
}

/// `GET /v1-k3s/connect`: a node brings its tunnel.
pub(crate) async fn connect(
    context: &Arc<RestContext>,
    user: &User,
    request: Request,
    permit: Permit,
) -> Result<Response, Failure> {
    let node = node_of(user).ok_or_else(ApiError::unauthorized)?.to_owned();
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    let tunnels = context.tunnels.clone();
    if tunnels.sessions.lock().len() >= MAX_TUNNELS {
        return Err(ApiError::too_many_requests("too many tunnels end here", 10).into());
    }
    let shutdown = context.shutdown.clone();
    let upgrade = upgrade
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let (session, run) = Session::over(socket);
        let before = tunnels
            .sessions
            .lock()
            .insert(node.clone(), session.clone());
        if let Some(before) = before {
            before.ended.cancel();
        }
        tracing::info!(node, "a tunnel begins");
        tunnels.note(&node).await;
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = session.ended.cancelled() => {}
            () = run => {}
        }
        let own = {
            let mut sessions = tunnels.sessions.lock();
            let own = sessions
                .get(&node)
                .is_some_and(|present| Arc::ptr_eq(present, &session));
            if own {
                sessions.remove(&node);
            }
            own
        };
        tracing::info!(node, "a tunnel ended");
        if own {
            tunnels.forget(&node).await;
        }
        drop(permit);
    }))
}

/// `GET /nautilus/v1/tunnel?node=NAME&port=PORT`: another master wants a connection
/// through a tunnel that ends here.
pub(crate) async fn dial(
    context: &Arc<RestContext>,
    mut request: Request,
    permit: Permit,
) -> Result<Response, Failure> {
    if !is_upgrade(request.headers()) {
        return Err(ApiError::bad_request("Upgrade request required").into());
    }
    let (node, port) = {
        let query = Query::of(request.uri());
        let port = query.text("port").and_then(|port| port.parse::<u16>().ok());
        let port = port.ok_or_else(|| ApiError::bad_request("port is no number of a port"))?;
        (query.text("node").unwrap_or_default().to_owned(), port)
    };
    let session = context.tunnels.sessions.lock().get(&node).cloned();
    let session = session.ok_or_else(ApiError::path_not_found)?;
    let stream = session
        .dial(&format!("127.0.0.1:{port}"))
        .await
        .map_err(|error| error.while_dialing())?;
    let client = hyper::upgrade::on(&mut request);
    let shutdown = context.shutdown.clone();
    tokio::spawn(async move {
        let joined = async {
            if let Ok(client) = client.await {
                splice(TokioIo::new(client), stream).await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = joined => {}
        }
        drop(permit);
    });
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    Ok(response)
}
