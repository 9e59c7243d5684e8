//! What this face says of its node, injected by the composition root.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use nautilus_machine::{Member, NodeId};
use nautilus_machinery::identity::User;

/// Facts that do not change while the node runs.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Whether the node runs in a hardware enclave (false when simulated).
    pub enclave: bool,
    /// Names of the parts that serve.
    pub components: Vec<String>,
    /// `simulated`, `snp`, `tdx`, `nitro`, `sgx`.
    pub tee_type: String,
    /// 0 for simulated evidence, higher for hardware.
    pub security_level: u8,
    /// Hex of the measurement.
    pub measurement: String,
}

/// In which form evidence is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvidenceForm {
    /// As it travels between masters.
    Raw,
    /// An Entity Attestation Token.
    Eat,
    /// What contracts on Sui take in.
    Sui,
}

/// Evidence made for one challenge.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// What `document` is: a media type.
    pub format: &'static str,
    /// The evidence.
    pub document: Bytes,
}

/// The quorum as this node sees it, for whoever wants to ask every member.
#[derive(Debug, Clone)]
pub struct QuorumView {
    /// The quorum's name.
    pub cluster: String,
    /// This node.
    pub node_id: NodeId,
    /// The members, by id.
    pub members: Vec<Member>,
}

/// Whether the node can serve, and if not, why.
pub type ReadyProbe = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;
/// Whether events of the chain arrive, and if not, why.
pub type ConnectedProbe = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;
/// Makes evidence over a nonce, in a form.
pub type Attest = Arc<
    dyn Fn(Vec<u8>, EvidenceForm) -> BoxFuture<'static, Result<Evidence, String>> + Send + Sync,
>;
/// See [`QuorumView`].
pub type Quorum = Arc<dyn Fn() -> QuorumView + Send + Sync>;
/// Writes the kubeconfig of an authenticated client (without its private key).
pub type Kubeconfig = Arc<dyn Fn(&User) -> Result<String, String> + Send + Sync>;

/// What this face asks of the rest of the node.
#[derive(Clone)]
pub struct Probes {
    /// See [`ReadyProbe`].
    pub ready: ReadyProbe,
    /// See [`ConnectedProbe`].
    pub sui_connected: ConnectedProbe,
    /// See [`Attest`].
    pub attest: Attest,
    /// See [`Quorum`].
    pub quorum: Quorum,
    /// See [`Kubeconfig`].
    pub kubeconfig: Kubeconfig,
}
