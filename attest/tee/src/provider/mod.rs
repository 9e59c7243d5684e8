//! The TEE this process runs in: found, asked for evidence, and sealed by.
//!
//! | kind | evidence | sealing key |
//! |---|---|---|
//! | Nitro | the security module's ioctl | an attested key release |
//! | SNP | configfs-tsm, or the guest device | derived by the firmware |
//! | TDX | configfs-tsm | an attested key release |
//! | SGX | Gramine's `/dev/attestation` | EGETKEY, through Gramine |
//!
//! None of it was run on hardware: tests run it against a stand-in of the kernel's
//! interface, which release builds do not hold.
//!
//! Invariants: evidence over other report data than was asked is never handed out; a
//! kind that is not there is never played; sealing keys lie in locked memory.

mod detect;
mod intel;
mod kernel;
mod nitro;
mod roots;
mod snp;
#[cfg(test)]
mod stand_in;
#[cfg(test)]
mod tests;
mod tsm;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use nautilus_attest_protocol::{
    Counter, Evidence, KeyRelease, Measurement, Provider, QuoteError, Quoter, ReportData,
    SealError, Sealer, TeeKind,
};
use zeroize::Zeroizing;

pub use detect::{Detection, Sighting};

use crate::{read_unverified, sealing};
use kernel::{Kernel, Linux};
use roots::HardwareRoot;

/// This machine, as its kernel shows it.
#[derive(Clone)]
pub struct Machine {
    kernel: Arc<dyn Kernel>,
}

/// What a node brings to its TEE: what the TEE itself has not.
#[derive(Clone, Default)]
pub struct Companions {
    /// Keeps sealing keys for kinds that derive none.
    pub key_release: Option<Arc<dyn KeyRelease>>,
    /// A monotonic counter.
    pub counter: Option<Arc<dyn Counter>>,
}

/// Why there is no hardware to be had.
#[derive(Debug, thiserror::Error)]
pub enum HardwareError {
    /// None of any kind, or not of the kind asked for.
    #[error("{wanted} was not found: {reasons}")]
    NotFound {
        /// What was looked for.
        wanted: String,
        /// Why it is not there, by kind.
        reasons: String,
    },
    /// It is there, but does not say what it is.
    #[error("the {kind} TEE is there, but does not answer: {reason}")]
    Silent {
        /// Its kind.
        kind: TeeKind,
        /// What was seen.
        reason: String,
    },
}

/// What evidence will name.
struct Identity {
    measurement: Measurement,
    platform: String,
}

impl Machine {
    /// The machine this process runs on.
    pub fn this() -> Self {
        Self::rooted(Path::new("/"))
    }

    /// The machine whose devices and kernel files lie below `root`.
    pub fn rooted(root: &Path) -> Self {
        Self {
            kernel: Arc::new(Linux::new(root)),
        }
    }

    /// The TEE of `kind`, or of whichever kind is there. Never a simulated one. Blocks
    /// while evidence is made once, to learn what it names.
    pub fn open(
        &self,
        kind: Option<TeeKind>,
        companions: Companions,
    ) -> Result<HardwareProvider, HardwareError> {
        let kind = detect::choose(&*self.kernel, kind)?;
        HardwareProvider::open(Arc::clone(&self.kernel), kind, companions)
            .map_err(|reason| HardwareError::Silent { kind, reason })
    }

    /// What is here, of every kind. Blocks as [`Machine::open`] does.
    pub fn detect(&self) -> Detection {
        detect::detect(&*self.kernel)
    }
}

/// The hardware TEE of this process.
pub struct HardwareProvider {
    kernel: Arc<dyn Kernel>,
    kind: TeeKind,
    identity: Identity,
    companions: Companions,
    /// Gramine's files are one for the whole enclave.
    quoting: Mutex<()>,
}

impl HardwareProvider {
    fn open(
        kernel: Arc<dyn Kernel>,
        kind: TeeKind,
        companions: Companions,
    ) -> Result<Self, String> {
        let identity = identity(&*kernel, kind)?;
        Ok(Self {
            kernel,
            kind,
            identity,
            companions,
            quoting: Mutex::new(()),
        })
    }

    fn root(&self) -> HardwareRoot<'_> {
        HardwareRoot {
            kernel: &*self.kernel,
            kind: self.kind,
            key_release: self.companions.key_release.as_deref(),
            quoter: self,
        }
    }

    fn owner(&self) -> sealing::Owner<'_> {
        sealing::Owner {
            kind: self.kind,
            platform: &self.identity.platform,
            measurement: &self.identity.measurement,
        }
    }
}

impl Quoter for HardwareProvider {
    fn kind(&self) -> TeeKind {
        self.kind
    }

    fn measurement(&self) -> Measurement {
        self.identity.measurement.clone()
    }

    fn platform(&self) -> String {
        self.identity.platform.clone()
    }

    fn quote(&self, report_data: &ReportData) -> Result<Evidence, QuoteError> {
        let _one_at_a_time = self.quoting.lock().unwrap_or_else(PoisonError::into_inner);
        let body = quote(&*self.kernel, self.kind, report_data);
        let body = body.map_err(|reason| QuoteError {
            kind: self.kind,
            reason,
        })?;
        Ok(Evidence::new(self.kind, body))
    }

    fn quote_with_key(
        &self,
        report_data: &ReportData,
        public_key: &[u8],
        nonce: &[u8],
    ) -> Result<Evidence, QuoteError> {
        if self.kind != TeeKind::Nitro {
            return self.quote(report_data);
        }
        let document = nitro::quote_with_key(&*self.kernel, report_data, public_key, nonce);
        let document = document.map_err(|reason| QuoteError {
            kind: self.kind,
            reason,
        })?;
        Ok(Evidence::new(self.kind, document))
    }
}

impl Sealer for HardwareProvider {
    fn seal(&self, label: &str, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        sealing::seal(&self.root(), &self.owner(), label, plaintext)
    }

    fn unseal(&self, label: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        sealing::unseal(&self.root(), &self.owner(), label, sealed)
    }
}

impl Provider for HardwareProvider {
    fn counter(&self) -> Option<Arc<dyn Counter>> {
        self.companions.counter.clone()
    }
}

/// The body of evidence over `report_data`.
fn quote(kernel: &dyn Kernel, kind: TeeKind, report_data: &ReportData) -> Result<Vec<u8>, String> {
    match kind {
        TeeKind::Nitro => nitro::quote(kernel, report_data),
        TeeKind::Snp => snp::quote(kernel, report_data),
        TeeKind::Tdx => intel::quote_td(kernel, report_data),
        TeeKind::Sgx => intel::quote_enclave(kernel, report_data),
        TeeKind::Simulated => Err("it is no hardware".to_owned()),
    }
}

/// What the evidence of this process names.
fn identity(kernel: &dyn Kernel, kind: TeeKind) -> Result<Identity, String> {
    if kind == TeeKind::Nitro {
        return nitro::identity(kernel);
    }
    let evidence = Evidence::new(kind, quote(kernel, kind, &[0; 64])?);
    let claims = read_unverified(&evidence).map_err(|refused| refused.to_string())?;
    Ok(Identity {
        measurement: claims.measurement,
        platform: claims.platform,
    })
}
