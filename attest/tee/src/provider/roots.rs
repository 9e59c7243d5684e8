//! Where the sealing keys of hardware come from.

use nautilus_attest_protocol::binding::key_release_report_data;
use nautilus_attest_protocol::{
    GeneratedKey, KEY_RELEASE_PURPOSE, KeyRelease, KeyReleaseError, Quoter, ReleaseRequest,
    SealError, TeeKind,
};
use nautilus_attest_secret::{EphemeralKey, Secret};

use super::kernel::Kernel;
use super::{intel, snp};
use crate::sealing::{SealingKey, SealingRoot};

/// One kind's way to a sealing key.
pub(super) struct HardwareRoot<'a> {
    pub(super) kernel: &'a dyn Kernel,
    pub(super) kind: TeeKind,
    pub(super) key_release: Option<&'a dyn KeyRelease>,
    pub(super) quoter: &'a dyn Quoter,
}

impl SealingRoot for HardwareRoot<'_> {
    fn fresh(&self, label: &str) -> Result<(SealingKey, Vec<u8>), SealError> {
        match self.kind {
            TeeKind::Sgx => Ok((self.enclave_key()?, Vec::new())),
            TeeKind::Snp => {
                let report = snp::quote(self.kernel, &[0; 64]).map_err(|e| self.no_key(e))?;
                let request = snp::KeyRequest::strictest(&report).map_err(|e| self.no_key(e))?;
                let key = snp::derived_key(self.kernel, &request).map_err(|e| self.no_key(e))?;
                Ok((SealingKey::Long(key), request.encode()))
            }
            TeeKind::Tdx | TeeKind::Nitro | TeeKind::Simulated => {
                let mut kept = Vec::new();
                let key = self.released(label, |service, request| {
                    let GeneratedKey {
                        kept: to_keep,
                        envelope,
                    } = service.generate(request)?;
                    kept = to_keep;
                    Ok(envelope)
                })?;
                Ok((key, kept))
            }
        }
    }

    fn again(&self, label: &str, kept: &[u8]) -> Result<SealingKey, SealError> {
        match self.kind {
            TeeKind::Sgx if kept.is_empty() => self.enclave_key(),
            TeeKind::Sgx => Err(SealError::Malformed("an enclave's key needs nothing kept")),
            TeeKind::Snp => {
                let request = snp::KeyRequest::decode(kept).ok_or(SealError::Malformed(
                    "it names no key that the firmware derives for this guest alone",
                ))?;
                let key = snp::derived_key(self.kernel, &request);
                Ok(SealingKey::Long(key.map_err(|e| self.no_key(e))?))
            }
            TeeKind::Tdx | TeeKind::Nitro | TeeKind::Simulated => {
                self.released(label, |service, request| service.release(kept, request))
            }
        }
    }
}

impl HardwareRoot<'_> {
    fn enclave_key(&self) -> Result<SealingKey, SealError> {
        let key = intel::enclave_key(self.kernel).map_err(|e| self.no_key(e))?;
        Ok(SealingKey::Short(key))
    }

    /// Asks the key release with fresh evidence over a key made for its answer.
    fn released(
        &self,
        label: &str,
        ask: impl FnOnce(&dyn KeyRelease, &ReleaseRequest<'_>) -> Result<Vec<u8>, KeyReleaseError>,
    ) -> Result<SealingKey, SealError> {
        let service = self.key_release.ok_or_else(|| {
            self.no_key(
                "this kind derives none, and no key release is configured (attestation.tpm)",
            )
        })?;
        let key = EphemeralKey::generate().map_err(|_| SealError::Cryptography)?;
        let public_key = &key.public_key()[..];
        let evidence = self
            .quoter
            .quote(&key_release_report_data(public_key, label))
            .map_err(|error| self.no_key(error))?;
        let request = ReleaseRequest {
            evidence: &evidence,
            public_key,
            label,
        };
        let envelope = ask(service, &request).map_err(|error| self.no_key(error))?;
        let released = key
            .open(KEY_RELEASE_PURPOSE, &envelope)
            .map_err(|error| self.no_key(format!("{}: {error}", service.name())))?;
        Secret::from_slice(&released)
            .map(SealingKey::Long)
            .ok_or_else(|| self.no_key(format!("{} gave no 32 bytes", service.name())))
    }

    #[expect(clippy::needless_pass_by_value, reason = "texts and errors alike")]
    fn no_key(&self, reason: impl ToString) -> SealError {
        SealError::NoKey {
            kind: self.kind,
            reason: reason.to_string(),
        }
    }
}
