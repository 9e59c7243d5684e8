//! One node's end of every attested connection: dials, accepts, and keeps the
//! node's TLS identity fresh.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand;
use nautilus_attest_protocol::binding::{Channel, EXPORTER_BYTES, EXPORTER_LABEL};
use nautilus_attest_protocol::frame::{NONCE_BYTES, Role};
use nautilus_attest_protocol::handshake::Local;
use nautilus_attest_protocol::renewal::Standing;
use nautilus_attest_protocol::{Claims, Peer, Policy, Quoter, Verifier};
use rustls::ConnectionCommon;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::admission::{AdmissionFilter, Finding};
use crate::channel::{Judge, Progress, attest, linger};
use crate::configuration;
use crate::credential::{Credential, unix_millis};
use crate::error::{AttestedError, Stage};
use crate::framing::{Framing, HEARD, ORDERS};
use crate::memory::Memory;
use crate::renewal::Keeper;
use crate::stream::AttestedStream;

/// How long everything up to the last verdict may take. Hardware evidence takes up
/// to a second on each side.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often evidence is renewed over a standing connection, when nothing is said.
pub const RENEWAL_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// A name TLS wants and nobody looks at: peers are known by evidence.
const SERVER_NAME: &str = "peer.nautilus.invalid";

/// The platforms that the membership holds for its nodes.
pub trait Pins: Send + Sync + 'static {
    /// The platform (lower-case hex) on which `node_id` joined, if it has.
    fn platform_of(&self, node_id: u64) -> Option<String>;
}

/// No node has a pinned platform yet.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPins;

impl Pins for NoPins {
    fn platform_of(&self, _node_id: u64) -> Option<String> {
        None
    }
}

impl<F: Fn(u64) -> Option<String> + Send + Sync + 'static> Pins for F {
    fn platform_of(&self, node_id: u64) -> Option<String> {
        self(node_id)
    }
}

/// What an endpoint is and whom it lets in.
#[derive(Clone)]
pub struct EndpointConfig {
    /// The quorum's id, at most 128 bytes.
    pub cluster_id: String,
    /// This node's id.
    pub node_id: u64,
    /// Makes this node's evidence.
    pub quoter: Arc<dyn Quoter>,
    /// Judges whether evidence is genuine.
    pub verifier: Arc<dyn Verifier>,
    /// Which genuine evidence is good enough: the policy in force, whoever changes it.
    /// On every change all standing connections are judged and attested anew.
    pub policy: watch::Receiver<Arc<Policy>>,
    /// How often evidence is renewed over a standing connection besides.
    pub renewal_interval: Duration,
    /// The platforms of those who have joined.
    pub pins: Arc<dyn Pins>,
}

/// One node's end of every attested connection.
pub struct AttestedEndpoint {
    config: EndpointConfig,
    /// The first layer's verifier.
    memory: Arc<Memory>,
    provider: Arc<CryptoProvider>,
    credential: Mutex<Arc<Credential>>,
    handshake_timeout: Duration,
}

impl AttestedEndpoint {
    /// Makes the node's key, evidence and certificate. Blocks as long as the TEE does.
    ///
    /// # Errors
    /// `Quote` and `Identity`, or `OwnEvidence` when the node's evidence does not
    /// hold under its own verifier (another root, a wrong clock).
    pub fn new(config: EndpointConfig) -> Result<Self, AttestedError> {
        let credential = Credential::issue(
            config.quoter.as_ref(),
            config.verifier.as_ref(),
            config.node_id,
            unix_millis(),
        )?;
        Ok(Self {
            memory: Arc::new(Memory::new(Arc::clone(&config.verifier))),
            provider: configuration::provider(),
            credential: Mutex::new(Arc::new(credential)),
            handshake_timeout: HANDSHAKE_TIMEOUT,
            config,
        })
    }

    /// The same endpoint with another limit than [`HANDSHAKE_TIMEOUT`].
    #[must_use]
    pub fn with_handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// SHA-256 of the evidence in this node's present certificate: what its peers
    /// see as [`Peer::evidence_digest`].
    pub fn own_evidence_digest(&self) -> [u8; 32] {
        self.credential().evidence_digest
    }

    /// What this node's present certificate claims.
    pub fn own_claims(&self) -> Claims {
        self.credential().claims.clone()
    }

    /// Attests to the node behind `tcp`, as the one that dialed. Not cancel safe:
    /// dropping the future drops the connection.
    ///
    /// # Errors
    /// See [`AttestedError`]; the peer has been told of a refusal.
    pub async fn connect(
        &self,
        tcp: TcpStream,
        expect_node: Option<u64>,
    ) -> Result<(AttestedStream, Peer), AttestedError> {
        let progress = Progress::new();
        self.within_limit(
            &progress,
            Box::pin(self.establish(tcp, Role::Initiator, expect_node, &progress)),
        )
        .await
    }

    /// Attests to the node behind `tcp`, as the one that accepted. Not cancel safe.
    ///
    /// # Errors
    /// See [`AttestedError`]; the peer has been told of a refusal.
    pub async fn accept(&self, tcp: TcpStream) -> Result<(AttestedStream, Peer), AttestedError> {
        let progress = Progress::new();
        self.within_limit(
            &progress,
            Box::pin(self.establish(tcp, Role::Responder, None, &progress)),
        )
        .await
    }

    async fn within_limit<T>(
        &self,
        progress: &Progress,
        work: impl Future<Output = Result<T, AttestedError>>,
    ) -> Result<T, AttestedError> {
        let timeout = self.handshake_timeout;
        match tokio::time::timeout(timeout, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(AttestedError::Timeout {
                stage: progress.stage(),
                timeout,
            }),
        }
    }

    async fn establish(
        &self,
        tcp: TcpStream,
        role: Role,
        expected_node: Option<u64>,
        progress: &Progress,
    ) -> Result<(AttestedStream, Peer), AttestedError> {
        // Frames and Raft messages are written whole; waiting for more only adds delay.
        tcp.set_nodelay(true)
            .map_err(|error| AttestedError::from_io(Stage::TlsHandshake, error))?;
        // One policy judges both layers, whatever changes meanwhile; the keeper looks
        // again.
        let policy = Arc::clone(&self.config.policy.borrow());
        let (mut stream, channel, finding) = self.secure(tcp, role, &policy).await?;
        let mut nonce = [0; NONCE_BYTES];
        rand::fill(&mut nonce)
            .map_err(|_| AttestedError::Identity("no random nonce was made".to_owned()))?;
        let local = Local {
            cluster_id: self.config.cluster_id.clone(),
            node_id: self.config.node_id,
            policy_epoch: policy.epoch,
            nonce,
        };
        let judge = Judge {
            quoter: &self.config.quoter,
            verifier: self.config.verifier.as_ref(),
            policy: &policy.evidence,
            pins: self.config.pins.as_ref(),
            expected_node,
        };
        let of_channel = channel.clone();
        let (peer, claims) = attest(&mut stream, local, channel, finding, &judge, progress).await?;
        tracing::debug!(node = peer.node_id, platform = %peer.platform, tee = %peer.tee, "attested a peer");
        let standing = Standing {
            channel: of_channel,
            cluster_id: self.config.cluster_id.clone(),
            own_node: self.config.node_id,
            peer_node: peer.node_id,
        };
        Ok((self.keep(stream, standing, claims, &peer), peer))
    }

    /// Hands the connection to its keeper, which ends when the stream is dropped.
    fn keep(
        &self,
        stream: TlsStream<TcpStream>,
        standing: Standing,
        claims: Claims,
        peer: &Peer,
    ) -> AttestedStream {
        let (orders, carried_out) = mpsc::channel(ORDERS);
        let (hearing, heard) = mpsc::channel(HEARD);
        let keeper = Keeper {
            standing,
            claims,
            quoter: Arc::clone(&self.config.quoter),
            verifier: Arc::clone(&self.config.verifier),
            policy: self.config.policy.clone(),
            interval: self.config.renewal_interval,
            answer_timeout: self.handshake_timeout,
            orders,
            heard,
        };
        tokio::spawn(keeper.run());
        AttestedStream::new(Framing::new(stream, carried_out, hearing), peer.clone())
    }

    /// The first layer.
    async fn secure(
        &self,
        tcp: TcpStream,
        role: Role,
        policy: &Arc<Policy>,
    ) -> Result<(TlsStream<TcpStream>, Channel, Finding), AttestedError> {
        let credential = self.fresh_credential().await?;
        let filter = Arc::new(AdmissionFilter::new(
            Arc::clone(&self.memory) as Arc<dyn Verifier>,
            Arc::clone(policy),
            self.provider.signature_verification_algorithms,
        ));
        let provider = Arc::clone(&self.provider);
        let (outcome, exporter) = match role {
            Role::Initiator => {
                let config = configuration::client(provider, &credential, Arc::clone(&filter))?;
                let name = ServerName::try_from(SERVER_NAME)
                    .map_err(|error| AttestedError::Identity(error.to_string()))?;
                let connect = TlsConnector::from(Arc::new(config)).connect(name, tcp);
                let stream = settle(connect.into_fallible().await).await?;
                let exporter = export(stream.get_ref().1)?;
                (TlsStream::from(stream), exporter)
            }
            Role::Responder => {
                let config = configuration::server(provider, &credential, Arc::clone(&filter))?;
                let accept = TlsAcceptor::from(Arc::new(config)).accept(tcp);
                let stream = settle(accept.into_fallible().await).await?;
                let exporter = export(stream.get_ref().1)?;
                (TlsStream::from(stream), exporter)
            }
        };
        let finding = filter.finding().ok_or_else(|| {
            AttestedError::Identity("TLS ended without a look at the peer's certificate".to_owned())
        })?;
        let (own_spki, peer_spki) = (credential.spki.clone(), finding.spki.clone());
        Ok((
            outcome,
            Channel {
                role,
                exporter,
                own_spki,
                peer_spki,
            },
            finding,
        ))
    }

    fn credential(&self) -> Arc<Credential> {
        Arc::clone(
            &self
                .credential
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// The present identity, renewed when it is due. Two connections may renew at
    /// once; both identities are good.
    async fn fresh_credential(&self) -> Result<Arc<Credential>, AttestedError> {
        let now_ms = unix_millis();
        let present = self.credential();
        if !present.is_due(now_ms) {
            return Ok(present);
        }
        let config = self.config.clone();
        let issue = move || {
            Credential::issue(
                config.quoter.as_ref(),
                config.verifier.as_ref(),
                config.node_id,
                now_ms,
            )
        };
        let issued = tokio::task::spawn_blocking(issue).await.map_err(|error| {
            AttestedError::Identity(format!("renewing the certificate ended early: {error}"))
        })??;
        let issued = Arc::new(issued);
        *self
            .credential
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Arc::clone(&issued);
        Ok(issued)
    }
}

/// The outcome of TLS; a peer that failed is left time to read our alert.
async fn settle<S>(outcome: Result<S, (std::io::Error, TcpStream)>) -> Result<S, AttestedError> {
    match outcome {
        Ok(stream) => Ok(stream),
        Err((error, mut tcp)) => {
            let error = AttestedError::from_io(Stage::TlsHandshake, error);
            if matches!(error, AttestedError::Refused(_) | AttestedError::Tls { .. }) {
                linger(&mut tcp).await;
            }
            Err(error)
        }
    }
}

fn export<D>(connection: &ConnectionCommon<D>) -> Result<[u8; EXPORTER_BYTES], AttestedError> {
    connection
        .export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None)
        .map_err(|source| AttestedError::Tls {
            stage: Stage::TlsHandshake,
            source,
        })
}

#[cfg(test)]
mod tests;
