//! What this node is: its TEE, and what it accepts of others.

use std::sync::Arc;

use anyhow::Context as _;
use nautilus_attest_protocol::{Endorsements, EvidencePolicy, Provider, TeeKind};
use nautilus_attest_tee::{
    Companions, HardwareError, Machine, PlatformSecret, SimulatedProvider, SimulatedRoot,
    SimulatedVerifier, Tpm, TpmCounter, TpmRelease, Verifiers,
};

use crate::config::{self, Attestation};
use crate::exit::Failure;
use crate::policy::store::NodeCode;

/// The TEE and the policy.
pub(crate) struct Identity {
    provider: Arc<dyn Provider>,
    verifier: Arc<Verifiers>,
    policy: EvidencePolicy,
}

impl Identity {
    /// Starts the TEE and reads the policy. Blocks while the binary is measured, or the
    /// hardware asked.
    pub(super) fn new(
        attestation: &Attestation,
        endorsements: Arc<dyn Endorsements>,
    ) -> anyhow::Result<Self> {
        let verifiers = Verifiers::with_hardware(endorsements);
        let companions = companions(attestation.tpm.as_ref())?;
        let (provider, verifier): (Arc<dyn Provider>, Verifiers) = match &attestation.provider {
            config::Provider::Simulated {
                root,
                platform_secret,
            } => {
                let root = SimulatedRoot::load(root).context("attestation.simulated_root")?;
                let secret = PlatformSecret::load_or_create(platform_secret)
                    .context("attestation.platform_secret")?;
                let verifier = Arc::new(SimulatedVerifier::new(root.public_key()));
                let provider = SimulatedProvider::for_this_process(root, secret)?
                    .with_counter(companions.counter);
                let verifiers = verifiers.with(TeeKind::Simulated, verifier);
                (Arc::new(provider), verifiers)
            }
            config::Provider::Hardware(kind) => {
                let provider = Machine::this().open(*kind, companions);
                (
                    Arc::new(provider.map_err(|error| no_hardware(&error))?),
                    verifiers,
                )
            }
        };
        let entries = attestation.allowed_measurements.iter().map(String::as_str);
        let policy = EvidencePolicy::from_text(
            entries,
            attestation.allow_simulated,
            provider.kind(),
            &provider.measurement(),
        )
        .map_err(|error| Failure::Usage.error(error))?;
        Ok(Self {
            provider,
            verifier: Arc::new(verifier),
            policy,
        })
    }

    /// The TEE.
    pub(super) fn provider(&self) -> &Arc<dyn Provider> {
        &self.provider
    }

    /// Judges others' evidence.
    pub(super) fn verifier(&self) -> &Arc<Verifiers> {
        &self.verifier
    }

    /// What is accepted.
    pub(super) fn policy(&self) -> &EvidencePolicy {
        &self.policy
    }

    /// What this node runs.
    pub(super) fn code(&self, node_id: u64) -> NodeCode {
        NodeCode {
            id: node_id,
            tee: self.provider.kind(),
            measurement: self.provider.measurement(),
        }
    }

    /// Hex of the measurement.
    pub(super) fn measurement(&self) -> String {
        self.provider.measurement().to_string()
    }

    /// The TEE's kind.
    pub(super) fn kind(&self) -> TeeKind {
        self.provider.kind()
    }

    /// The TEE's name.
    pub(super) fn tee(&self) -> String {
        self.provider.kind().to_string()
    }

    /// Whether hardware stands behind the evidence.
    pub(super) fn is_hardware(&self) -> bool {
        self.provider.kind() != TeeKind::Simulated
    }

    /// Encoded evidence over 64 bytes of report data. May block.
    pub(super) fn evidence(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, String> {
        let evidence = self
            .provider
            .quote(report_data)
            .map_err(|error| error.to_string())?;
        Ok(evidence.encode())
    }

    /// Evidence that shows a public key and a nonce where the TEE has fields for them,
    /// in the TEE's own format. May block.
    pub(super) fn document_with_key(
        &self,
        report_data: &[u8; 64],
        public_key: &[u8],
        nonce: &[u8],
    ) -> Result<Vec<u8>, String> {
        let evidence = self
            .provider
            .quote_with_key(report_data, public_key, nonce)
            .map_err(|error| error.to_string())?;
        Ok(evidence.body)
    }
}

/// What the TPM does for the TEE.
fn companions(tpm: Option<&config::Tpm>) -> anyhow::Result<Companions> {
    let Some(config::Tpm { path, registers }) = tpm else {
        return Ok(Companions::default());
    };
    let named = || format!("attestation.tpm {}", path.display());
    let tpm = Arc::new(Tpm::open(path).with_context(named)?);
    let counter = TpmCounter::open(Arc::clone(&tpm)).with_context(named)?;
    Ok(Companions {
        key_release: Some(Arc::new(TpmRelease::new(tpm, *registers))),
        counter: Some(Arc::new(counter)),
    })
}

/// Simulated evidence is never a way out that is taken without being told to.
fn no_hardware(error: &HardwareError) -> anyhow::Error {
    let advice = match error {
        HardwareError::NotFound { .. } => {
            "; run this inside a TEE, or, for a development quorum that proves nothing, write \
             attestation.provider = \"simulated\" and attestation.allow_simulated = true"
        }
        HardwareError::Silent { .. } => "; `nautilus attest detect` says more",
    };
    Failure::Refused.error(format!("attestation.provider: {error}{advice}"))
}
