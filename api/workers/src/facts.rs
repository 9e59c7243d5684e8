//! What this face says of its node, injected by the composition root.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
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

/// Evidence made for one challenge.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// What `document` is: a media type.
    pub format: String,
    /// The evidence.
    pub document: Bytes,
}

/// Whether the node can serve, and if not, why.
pub type ReadyProbe = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;
/// Whether events of the chain arrive.
pub type ConnectedProbe = Arc<dyn Fn() -> bool + Send + Sync>;
/// Makes evidence over a nonce.
pub type Attest =
    Arc<dyn Fn(Vec<u8>) -> BoxFuture<'static, Result<Evidence, String>> + Send + Sync>;
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
    /// See [`Kubeconfig`].
    pub kubeconfig: Kubeconfig,
}
