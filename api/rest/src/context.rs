//! Everything the handlers share: the quorum's ports, this node's facts, limits.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use nautilus_control::Scheduling;
use nautilus_machine::{Cluster, Kv, Ledger, LedgerHead, NodeId};
use nautilus_machinery::resource::Resource;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::admission::Admission;
use crate::aggregation::Aggregator;
use crate::authority::Authority;
use crate::connect::{KubeletSettings, Kubelets};
use crate::cut::NodeConnections;
use crate::fairness::FlowControl;
use crate::joining::Workers;
use crate::node_metrics::{self, NodeUsages};
use crate::receipts::SignedRoot;
use crate::registry::Registry;
use crate::storage::Storage;
use crate::tunnel::Tunnels;
use crate::webhook::WebhookClients;

/// Makes this node's evidence over 64 bytes of report data.
pub type EvidenceSource = Arc<dyn Fn([u8; 64]) -> Result<Vec<u8>, String> + Send + Sync>;
/// Report data of a credential answer: of the client's nonce, the authority's DER
/// `SubjectPublicKeyInfo` and the issued certificate's DER.
pub type CredentialReportData = Arc<dyn Fn(&[u8], &[u8], &[u8]) -> [u8; 64] + Send + Sync>;
/// Hex digest of the evidence this node last verified of a member (or made, for
/// itself); `None` when it has not seen any.
pub type EvidenceDigest = Arc<dyn Fn(NodeId) -> Option<String> + Send + Sync>;
/// Signs a root of the ledger with this node's attested key.
pub type RootSigner =
    Arc<dyn Fn(LedgerHead) -> BoxFuture<'static, Result<SignedRoot, String>> + Send + Sync>;
/// The text of `/metrics`.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// What the composition root knows of this node.
#[derive(Clone)]
pub struct NodeFacts {
    /// The quorum's identity.
    pub cluster: String,
    /// `https://host:port` where this node serves.
    pub api_address: String,
    /// The TEE's name: `simulated`, `nitro`, ...
    pub tee: String,
    /// Hex of this node's measurement.
    pub measurement: String,
    /// See [`EvidenceSource`].
    pub evidence: EvidenceSource,
    /// See [`CredentialReportData`].
    pub credential_report_data: CredentialReportData,
    /// See [`EvidenceDigest`].
    pub evidence_digest: EvidenceDigest,
    /// Proofs of changes.
    pub ledger: Arc<dyn Ledger>,
    /// See [`RootSigner`].
    pub sign_root: RootSigner,
    /// Other issuers whose tokens count, where there are any.
    pub authentication: Option<Arc<nautilus_access::jwt::Configuration>>,
    /// Who issues service accounts' tokens: the first signs, all are believed; empty: the
    /// cluster's name for itself (`--service-account-issuer` of the reference).
    pub service_account_issuers: Vec<String>,
    /// The audit log, where there is one.
    pub audit: Option<Arc<crate::audit::Audit>>,
    /// See [`MetricsText`].
    pub metrics_text: MetricsText,
    /// How nodes' kubelets are reached.
    pub kubelets: KubeletSettings,
    /// The host names and addresses in this node's serving certificate.
    pub serving_names: Vec<String>,
    /// Who judges Seal tokens, where somebody does.
    pub workers: Option<Arc<dyn Workers>>,
    /// Which controllers run while this node leads.
    pub control: crate::control::ControlSettings,
    /// How busy nodes are, where somebody knows: then `metrics.k8s.io` is served.
    pub node_usages: Option<Arc<dyn NodeUsages>>,
}

/// Health checks served at once.
const MAX_HEALTH_CHECKS: usize = 256;

/// Bounds on requests.
#[derive(Debug, Clone)]
pub struct RequestLimits {
    /// Bytes of a request's body; the reference allows 3 MiB.
    pub max_body_bytes: usize,
    /// Reading requests served at once, watches apart. The sum with the next is what
    /// priority levels share (`--max-requests-inflight` of the reference).
    pub max_requests_inflight: usize,
    /// Changing requests served at once (`--max-mutating-requests-inflight`).
    pub max_mutating_requests_inflight: usize,
    /// How long a request waits for its turn.
    pub max_wait: Duration,
    /// Watches served at once.
    pub max_watches: usize,
    /// A request that is no watch ends after this time.
    pub request_timeout: Duration,
    /// Bookmarks come this often to watchers that allow them.
    pub bookmark_interval: Duration,
    /// A watch without `timeoutSeconds` ends after this time and up to as much again.
    pub min_watch_timeout: Duration,
    /// Versions that were replaced are forgotten after one to two of these; zero: never.
    pub compaction_interval: Duration,
    /// `/readyz` trusts a read barrier that is not older than this.
    pub readiness_window: Duration,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            max_body_bytes: 3 * 1024 * 1024,
            max_requests_inflight: 400,
            max_mutating_requests_inflight: 200,
            max_wait: Duration::from_secs(15),
            max_watches: 16_384,
            request_timeout: Duration::from_secs(60),
            bookmark_interval: Duration::from_secs(60),
            min_watch_timeout: Duration::from_secs(1_800),
            compaction_interval: Duration::from_secs(300),
            readiness_window: Duration::from_secs(10),
        }
    }
}

/// The face's shared state.
pub struct RestContext {
    pub(crate) kv: Arc<dyn Kv>,
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) node: NodeFacts,
    pub(crate) limits: RequestLimits,
    pub(crate) shutdown: CancellationToken,
    /// Whose turn it is.
    pub(crate) flow_control: Arc<FlowControl>,
    pub(crate) watches: Arc<Semaphore>,
    /// Health checks have places of their own, so that load does not look like death.
    pub(crate) health_checks: Arc<Semaphore>,
    /// When a read barrier last succeeded for `/readyz`.
    pub(crate) last_barrier: Mutex<Option<Instant>>,
    pub(crate) documents: crate::documents::Documents,
    /// Who may do what.
    pub(crate) access: Arc<Access>,
    /// The kinds served.
    pub(crate) registry: Arc<Registry>,
    pub(crate) caches: crate::cache::Caches,
    /// What every write passes.
    pub(crate) admission: Arc<Admission>,
    pub(crate) webhook_clients: Arc<WebhookClients>,
    pub(crate) aggregator: Arc<Aggregator>,
    pub(crate) tunnels: Arc<Tunnels>,
    node_connections: Arc<NodeConnections>,
    /// Or why none can be reached.
    pub(crate) kubelets: Result<Kubelets, String>,
    /// While this node leads.
    pub(crate) scheduling: Mutex<Weak<Scheduling>>,
}

impl RestContext {
    /// The connections of nodes to this one: to be served with them.
    pub fn node_connections(&self) -> Arc<NodeConnections> {
        self.node_connections.clone()
    }

    /// The store as this process itself writes to it: through admission.
    pub(crate) fn storage(&self) -> Storage {
        Storage::new(self.kv.clone()).admitted(self.admission.clone())
    }

    /// Serves these kinds beside the built-in ones from now on. Watches of a kind that is
    /// gone or has changed end.
    pub(crate) fn serve_kinds(&self, dynamic: Vec<Arc<Resource>>) {
        self.registry.set_dynamic(dynamic);
        self.caches.keep(&self.registry.served().kinds);
    }

    /// The state of one node's API face. `shutdown` ends its watches.
    pub fn new(
        kv: Arc<dyn Kv>,
        cluster: Arc<dyn Cluster>,
        authority: Arc<Authority>,
        node: NodeFacts,
        limits: RequestLimits,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let seats = limits.max_requests_inflight + limits.max_mutating_requests_inflight;
        let seats = u64::try_from(seats).unwrap_or(u64::MAX);
        let flow_control = FlowControl::start(&kv, seats, limits.max_wait, &shutdown);
        let watches = Arc::new(Semaphore::new(limits.max_watches));
        let authentication = node.authentication.clone();
        let issuers = &node.service_account_issuers;
        let workers = node.workers.clone();
        let node_connections = Arc::<NodeConnections>::default();
        if let Some(workers) = workers.clone() {
            cut_barred(workers, node_connections.clone(), shutdown.clone());
        }
        let access = Access::start(&kv, authentication, issuers, workers, &shutdown);
        let caches = crate::cache::Caches::new(kv.clone(), shutdown.clone());
        let aggregator = Aggregator::start(&kv, &node.cluster, &shutdown);
        let tunnels = Tunnels::new(kv.clone(), &node.api_address, &authority);
        let kubelets = Kubelets::new(node.kubelets.clone(), &authority, tunnels.clone());
        let metrics = node.node_usages.is_some().then(node_metrics::kind);
        let registry = Arc::new(Registry::new(metrics.into_iter().collect()));
        let webhook_clients = Arc::new(WebhookClients::new(Storage::new(kv.clone())));
        let admission = Admission::start(
            &kv,
            access.clone(),
            registry.clone(),
            webhook_clients.clone(),
            &shutdown,
        );
        let context = Arc::new(Self {
            aggregator,
            tunnels,
            node_connections,
            kubelets,
            kv,
            cluster,
            authority,
            node,
            limits,
            shutdown,
            flow_control,
            watches,
            health_checks: Arc::new(Semaphore::new(MAX_HEALTH_CHECKS)),
            last_barrier: Mutex::new(None),
            documents: crate::documents::Documents::default(),
            access,
            registry,
            caches,
            admission,
            webhook_clients,
            scheduling: Mutex::default(),
        });
        crate::custom::follow(&context);
        context
    }
}

/// Cuts the connections of nodes as they are barred, until `shutdown`.
fn cut_barred(
    workers: Arc<dyn Workers>,
    connections: Arc<NodeConnections>,
    shutdown: CancellationToken,
) {
    tokio::spawn(async move {
        let cut = |node: &str| connections.end(node);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = workers.each_barred(&cut) => {}
        }
    });
}
