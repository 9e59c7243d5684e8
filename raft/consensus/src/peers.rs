//! Who the members are, and the connections to them.
//!
//! Invariant: no byte of ours is sent to, and none is taken from, a peer that is
//! not the member it claims to be on the platform pinned for it. (A node without
//! any membership yet, which just joined, takes whom the transport attested.)

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use hyper_util::rt::TokioIo;
use nautilus_machine::{Member, NodeId};
use parking_lot::Mutex;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::config::{CONNECT_TIMEOUT, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, PEER_MESSAGE_BYTES};
use crate::restart::{Lives, Stamp};
use crate::transport::{Connection, PeerIdentity, Transport};
use crate::types::{StoredMembership, member_of, members_of};
use crate::wire::v1::peer_client::PeerClient;

/// Bytes one stream, and one connection, may have under way.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Replication and elections never wait behind snapshots and forwarded requests, and
/// those not behind snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    Raft,
    Ask,
    Bulk,
}

/// A client of one member.
pub(crate) type Client = PeerClient<InterceptedService<Channel, Stamp>>;

/// Why there is no connection: surely nothing was sent.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotConnected(pub(crate) String);

/// The members and the way to them.
pub(crate) struct Peers {
    own_id: NodeId,
    transport: Arc<dyn Transport>,
    lives: Arc<Lives>,
    membership: ArcSwap<StoredMembership>,
    /// What peers say the membership is, while this node comes back.
    told: ArcSwapOption<StoredMembership>,
    clients: Mutex<BTreeMap<(NodeId, Lane), Client>>,
    /// What was attested of each member on its newest connection.
    attested: Mutex<BTreeMap<NodeId, PeerIdentity>>,
}

impl Peers {
    pub(crate) fn new(
        own_id: NodeId,
        transport: Arc<dyn Transport>,
        lives: Arc<Lives>,
    ) -> Arc<Self> {
        Arc::new(Self {
            own_id,
            transport,
            lives,
            told: ArcSwapOption::empty(),
            membership: ArcSwap::from_pointee(StoredMembership::default()),
            clients: Mutex::new(BTreeMap::new()),
            attested: Mutex::new(BTreeMap::new()),
        })
    }

    /// What a newer life of `peer` outlived is refused.
    pub(crate) fn lives(&self) -> &Lives {
        &self.lives
    }

    /// A membership newer than this node's own.
    pub(crate) fn set_told(&self, membership: Arc<StoredMembership>) {
        self.told.store(Some(membership));
    }

    /// The node's own log says it again.
    pub(crate) fn forget_told(&self) {
        self.told.store(None);
    }

    pub(crate) fn set_membership(&self, membership: Arc<StoredMembership>) {
        for (id, info) in membership.nodes() {
            // An elder one in it is no news.
            let _ = self.lives.hear(*id, info.incarnation);
        }
        let known = membership.clone();
        self.clients
            .lock()
            .retain(|(id, _), _| known.get_node(id).is_some());
        self.attested
            .lock()
            .retain(|id, _| known.get_node(id).is_some());
        self.membership.store(membership);
    }

    /// The newest membership this node knows: its log's, or one that it was told.
    pub(crate) fn membership(&self) -> Arc<StoredMembership> {
        let own = self.membership.load_full();
        match self.told.load_full() {
            Some(told) if told.log_id() > own.log_id() => told,
            _ => own,
        }
    }

    /// The membership of this node's own log.
    pub(crate) fn own_membership(&self) -> Arc<StoredMembership> {
        self.membership.load_full()
    }

    pub(crate) fn members(&self) -> Vec<Member> {
        members_of(&self.membership())
    }

    pub(crate) fn member(&self, id: NodeId) -> Option<Member> {
        member_of(&self.membership(), id)
    }

    /// Whether `peer` may speak as the member it claims to be.
    pub(crate) fn check(&self, peer: &PeerIdentity) -> Result<(), String> {
        let membership = self.membership();
        if membership.nodes().next().is_none() {
            return Ok(());
        }
        let id = peer.node_id;
        let Some(node) = membership.get_node(&id) else {
            return Err(format!("node {id} is not a member of this quorum"));
        };
        if node.platform.is_empty() {
            return Err(format!("node {id} was admitted but has not joined yet"));
        }
        if node.platform != peer.platform {
            return Err(format!(
                "node {id} is pinned to platform {}, but this peer runs on platform {}",
                node.platform, peer.platform
            ));
        }
        Ok(())
    }

    /// What was attested of a member on its newest connection with this node.
    pub(crate) fn attested(&self, id: NodeId) -> Option<PeerIdentity> {
        self.attested.lock().get(&id).cloned()
    }

    /// Remembers what was attested, if it is a member's.
    pub(crate) fn note(&self, peer: &PeerIdentity) {
        if self.membership().get_node(&peer.node_id).is_some() && self.check(peer).is_ok() {
            self.attested.lock().insert(peer.node_id, peer.clone());
        }
    }

    /// A client for a member; it connects when it is used, and again after a failure.
    pub(crate) fn client(self: &Arc<Self>, id: NodeId, lane: Lane) -> Client {
        let mut clients = self.clients.lock();
        let client = clients.entry((id, lane)).or_insert_with(|| {
            let peers = Arc::clone(self);
            wrap(
                Stamp(Some(Arc::clone(&self.lives))),
                endpoint().connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                    let peers = Arc::clone(&peers);
                    async move { peers.connect(id).await.map(TokioIo::new) }
                })),
            )
        });
        client.clone()
    }

    /// A client on a new connection to a member.
    pub(crate) async fn client_of(&self, id: NodeId) -> Result<Client, NotConnected> {
        let connection = self.connect(id).await?;
        client_on(connection, Some(Arc::clone(&self.lives))).await
    }

    async fn connect(&self, id: NodeId) -> Result<Connection, NotConnected> {
        let failed = |reason: String| NotConnected(format!("node {id}: {reason}"));
        let membership = self.membership();
        let node = membership
            .get_node(&id)
            .ok_or_else(|| failed("is not a member".into()))?;
        if id == self.own_id {
            return Err(failed("is this node itself".into()));
        }
        let connected = self.transport.connect(&node.peer_address, Some(id)).await;
        let connection = connected.map_err(|error| failed(error.to_string()))?;
        if connection.peer.node_id != id {
            return Err(failed(format!(
                "{} answers as node {}",
                node.peer_address, connection.peer.node_id
            )));
        }
        self.check(&connection.peer).map_err(failed)?;
        self.note(&connection.peer);
        Ok(connection)
    }
}

/// A client on a connection that is there already (joining).
pub(crate) async fn client_on(
    connection: Connection,
    lives: Option<Arc<Lives>>,
) -> Result<Client, NotConnected> {
    let connection = Arc::new(Mutex::new(Some(connection)));
    let connector = tower::service_fn(move |_: Uri| {
        let taken = connection.lock().take();
        async move {
            taken
                .map(TokioIo::new)
                .ok_or_else(|| NotConnected("the connection broke".into()))
        }
    });
    let channel = endpoint().connect_with_connector(connector).await;
    channel
        .map(|channel| wrap(Stamp(lives), channel))
        .map_err(|error| NotConnected(chain(&error)))
}

fn endpoint() -> Endpoint {
    Endpoint::from_static("http://peer.nautilus")
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
}

fn wrap(stamp: Stamp, channel: Channel) -> Client {
    PeerClient::with_interceptor(channel, stamp)
        .max_decoding_message_size(PEER_MESSAGE_BYTES)
        .max_encoding_message_size(PEER_MESSAGE_BYTES)
}

/// An error with everything under it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

/// Whether a call surely never left this node.
pub(crate) fn never_sent(status: &tonic::Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(inner) = source {
        if inner.is::<NotConnected>() {
            return true;
        }
        source = inner.source();
    }
    false
}
