//! Attested TLS plugged into consensus's transport port.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::Context as _;
use futures_util::future::BoxFuture;
use nautilus_attest_tls::{
    AttestedEndpoint, AttestedError, AttestedStream, EndpointConfig, Peer, Policy,
};
use nautilus_consensus::{Connection, PeerIdentity, Transport, TransportError};
use nautilus_machine::{Cluster, NodeId};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::identity::Identity;
use crate::config::NodeConfig;
use crate::exit::Failure;

/// Members whose evidence is remembered.
const REMEMBERED_MAX: usize = 64;

/// The quorum's membership, once this node takes part in it.
pub(super) type Membership = Arc<OnceLock<Arc<dyn Cluster>>>;

/// Makes attested connections, and remembers by which evidence.
pub(super) struct AttestedTransport {
    endpoint: AttestedEndpoint,
    node_id: NodeId,
    evidence: Mutex<BTreeMap<NodeId, String>>,
    outcomes: Mutex<Outcomes>,
}

/// What came of the connections this node made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Outcomes {
    /// Everything tried.
    pub(super) attempts: u64,
    /// One end refused the other.
    pub(super) refusals: u64,
}

impl AttestedTransport {
    /// Makes this node's TLS identity. Blocks a thread while the TEE answers.
    pub(super) async fn new(
        config: &NodeConfig,
        identity: &Identity,
        policy: watch::Receiver<Arc<Policy>>,
        members: Membership,
    ) -> anyhow::Result<Self> {
        let pinned = move |node_id: u64| {
            let member = members
                .get()?
                .members()
                .into_iter()
                .find(|member| member.id == node_id);
            member
                .map(|member| member.platform)
                .filter(|platform| !platform.is_empty())
        };
        let endpoint = EndpointConfig {
            cluster_id: config.cluster_id.clone(),
            node_id: config.node_id,
            quoter: Arc::clone(identity.provider()) as _,
            verifier: Arc::clone(identity.verifier()) as _,
            policy,
            renewal_interval: config.attestation.renewal_interval,
            pins: Arc::new(pinned),
        };
        let endpoint = tokio::task::spawn_blocking(|| AttestedEndpoint::new(endpoint))
            .await
            .context("make this node's evidence")?
            .map_err(|error| Failure::Refused.error(error))?;
        Ok(Self {
            endpoint,
            node_id: config.node_id,
            evidence: Mutex::default(),
            outcomes: Mutex::default(),
        })
    }

    /// Hex of the digest of a member's evidence, this node's own included.
    pub(super) fn evidence_digest(&self, node_id: NodeId) -> Option<String> {
        if node_id == self.node_id {
            return Some(hex::encode(self.endpoint.own_evidence_digest()));
        }
        self.remembered().get(&node_id).cloned()
    }

    /// What came of the connections made so far.
    pub(super) fn outcomes(&self) -> Outcomes {
        *self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, refused: bool) {
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.attempts += 1;
        outcomes.refusals += u64::from(refused);
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, String>> {
        self.evidence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attested(&self, stream: AttestedStream, peer: Peer) -> Connection {
        let evidence_digest_hex = hex::encode(peer.evidence_digest);
        let mut remembered = self.remembered();
        if remembered.len() < REMEMBERED_MAX || remembered.contains_key(&peer.node_id) {
            remembered.insert(peer.node_id, evidence_digest_hex.clone());
        }
        Connection {
            stream: Box::new(stream),
            peer: PeerIdentity {
                node_id: peer.node_id,
                platform: peer.platform,
                measurement: peer.measurement.to_string(),
                tee: peer.tee.to_string(),
                evidence_digest_hex,
            },
        }
    }
}

impl Transport for AttestedTransport {
    fn connect<'a>(
        &'a self,
        address: &'a str,
        expect: Option<NodeId>,
    ) -> BoxFuture<'a, Result<Connection, TransportError>> {
        Box::pin(async move {
            let attested = match TcpStream::connect(address).await {
                Ok(tcp) => self
                    .endpoint
                    .connect(tcp, expect)
                    .await
                    .map_err(|e| failed(e, address)),
                Err(error) => Err(TransportError::Unreachable {
                    address: address.to_owned(),
                    reason: error.to_string(),
                }),
            };
            self.count(matches!(attested, Err(TransportError::Refused(_))));
            let (stream, peer) = attested?;
            Ok(self.attested(stream, peer))
        })
    }

    fn accept(&self, tcp: TcpStream) -> BoxFuture<'_, Result<Connection, TransportError>> {
        Box::pin(async move {
            let address = tcp
                .peer_addr()
                .map_or_else(|_| "unknown".to_owned(), |address| address.to_string());
            match self.endpoint.accept(tcp).await {
                Ok((stream, peer)) => Ok(self.attested(stream, peer)),
                Err(error) => {
                    let error = failed(error, &address);
                    if matches!(error, TransportError::Refused(_)) {
                        metrics::counter!("nautilus_peers_refused_total").increment(1);
                    }
                    Err(error)
                }
            }
        })
    }
}

/// In consensus's words: a refusal, after which trying again changes nothing, or no
/// connection for now.
fn failed(error: AttestedError, address: &str) -> TransportError {
    match error {
        AttestedError::Refused(reason) => TransportError::Refused(reason.to_string()),
        AttestedError::RefusedByPeer { reason } => {
            TransportError::Refused(format!("it refuses this node: {reason}"))
        }
        error @ (AttestedError::OwnEvidence(_) | AttestedError::Alert { .. }) => {
            TransportError::Refused(error.to_string())
        }
        error => TransportError::Unreachable {
            address: address.to_owned(),
            reason: error.to_string(),
        },
    }
}
