//! The ports that each kind of TEE fills.
//!
//! They are synchronous: hardware answers within milliseconds to a second, and the
//! caller decides on which thread to wait.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::binding::ReportData;
use crate::evidence::{Claims, Evidence, Measurement, TeeKind};
use crate::refused::Refused;

/// Milliseconds since the Unix epoch.
pub type UnixMillis = u64;

/// Makes evidence about the TEE this process runs in.
pub trait Quoter: Send + Sync + 'static {
    /// Its kind.
    fn kind(&self) -> TeeKind;
    /// The measurement its evidence will name.
    fn measurement(&self) -> Measurement;
    /// The platform its evidence will name, lower-case hex.
    fn platform(&self) -> String;
    /// Fresh evidence over `report_data`. May block.
    fn quote(&self, report_data: &ReportData) -> Result<Evidence, QuoteError>;
    /// The same, with a public key and a nonce in fields of their own where the kind's
    /// format has them (Nitro's `public_key` and `nonce`). `report_data` must bind both:
    /// it is all that the other kinds show. May block.
    fn quote_with_key(
        &self,
        report_data: &ReportData,
        _public_key: &[u8],
        _nonce: &[u8],
    ) -> Result<Evidence, QuoteError> {
        self.quote(report_data)
    }
    /// Whether [`Quoter::quote`] takes no longer than a signature and waits for
    /// nobody, so that no thread need be lent to it.
    fn quotes_at_once(&self) -> bool {
        false
    }
}

/// Judges whether evidence is genuine, and reads it. Policy comes after it.
pub trait Verifier: Send + Sync + 'static {
    /// The claims of genuine evidence. May block.
    ///
    /// # Errors
    /// `Malformed`, `TooLarge`, `Signature`, `Expired`, `NotYetValid`, `Revoked`,
    /// `OldTcb`, `TcbStatus`, `Chip`, `PrivilegeLevel`, `MissingEndorsement`, or
    /// `Unsupported` for a kind it cannot judge.
    fn verify(&self, evidence: &Evidence, now_ms: UnixMillis) -> Result<Claims, Refused>;
}

/// What vendors say about their platforms, kept at hand: certificates, revocation
/// lists, security levels. Looked up without a network.
///
/// Names and forms (all that a verifier looks up is signed by its vendor, and
/// checked; hex is lower-case):
/// * `amd/chain/<vcek|vlek>/<milan|genoa|turin>`: PEM of the intermediate, then the
///   root. Built in, so that it is only needed to bring another intermediate;
/// * `amd/crl/<milan|genoa|turin>`: DER of the revocation list;
/// * `amd/vcek/<milan|genoa|turin>/<chip id>/<reported TCB>`: DER of a chip's
///   certificate; both hex of the bytes as they stand in the report (Turin: the
///   first 8 of the chip id);
/// * `intel/tcb/<sgx|tdx>/<FMSPC>`, `intel/qe/<sgx|tdx>`: the body as Intel serves it,
///   directly followed by its issuer chain, the PEM that Intel serves in a header,
///   URL-decoded;
/// * `intel/crl/<processor|platform|root>`: DER of the revocation list.
pub trait Endorsements: Send + Sync + 'static {
    /// The endorsement of that name, if it is at hand.
    fn find(&self, name: &str) -> Option<Arc<[u8]>>;
}

/// None at hand.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEndorsements;

impl Endorsements for NoEndorsements {
    fn find(&self, _name: &str) -> Option<Arc<[u8]>> {
        None
    }
}

/// Seals bytes so that only the same code on the same platform opens them.
pub trait Sealer: Send + Sync + 'static {
    /// Seals `plaintext` for `label`, which names its purpose and must be given
    /// again to open it.
    fn seal(&self, label: &str, plaintext: &[u8]) -> Result<Vec<u8>, SealError>;
    /// Opens what [`Sealer::seal`] made.
    fn unseal(&self, label: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError>;
}

/// All that a node needs of its TEE: evidence about itself, and sealing.
pub trait Provider: Quoter + Sealer {
    /// The monotonic counter that the platform offers beside it, if it has one.
    fn counter(&self) -> Option<Arc<dyn Counter>> {
        None
    }
}

/// Keeps sealing keys for TEEs that have none of their own, and releases them to the
/// code they were made for. Shaped as key management services are.
///
/// The key never travels in clear: it is encrypted to the key in the request, in the
/// form of `nautilus-attest-secret`'s envelopes for [`KEY_RELEASE_PURPOSE`].
pub trait KeyRelease: Send + Sync + 'static {
    /// Its name in messages, such as `TPM`.
    fn name(&self) -> String;
    /// Makes a key of 32 bytes. May block.
    fn generate(&self, request: &ReleaseRequest<'_>) -> Result<GeneratedKey, KeyReleaseError>;
    /// The key that [`KeyRelease::generate`] made, from what it asked to keep. May block.
    fn release(
        &self,
        kept: &[u8],
        request: &ReleaseRequest<'_>,
    ) -> Result<Vec<u8>, KeyReleaseError>;
}

/// What the envelope of a released key is for.
pub const KEY_RELEASE_PURPOSE: &[u8] = b"nautilus key release v1";

/// Who asks for a key.
pub struct ReleaseRequest<'a> {
    /// Evidence over [`crate::binding::key_release_report_data`] of the two below.
    pub evidence: &'a Evidence,
    /// X25519, made for this one request: 32 bytes.
    pub public_key: &'a [u8],
    /// What the key is to seal.
    pub label: &'a str,
}

/// A new key.
pub struct GeneratedKey {
    /// To be kept beside what the key seals, and shown to have it again. No secret.
    pub kept: Vec<u8>,
    /// The key, encrypted to the public key of the request.
    pub envelope: Vec<u8>,
}

/// Why no key was made or released.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyReleaseError {
    /// It was not reached, or does not work.
    #[error("{service} did not answer: {reason}")]
    Unavailable {
        /// Its name.
        service: String,
        /// What was seen.
        reason: String,
    },
    /// It does not give the key to this code on this platform.
    #[error("{service} does not release the key to this code here: {reason}")]
    Refused {
        /// Its name.
        service: String,
        /// What it said.
        reason: String,
    },
}

/// A monotonic counter that whoever owns the disk cannot set back: an anchor of
/// freshness. Its value says nothing by itself; it is compared with one that was
/// written down, sealed, when it was read or incremented.
pub trait Counter: Send + Sync + 'static {
    /// The present value. May block.
    ///
    /// # Errors
    /// The hardware was not reached, or its counter is not the one made at first.
    fn read(&self) -> Result<u64, CounterError>;
    /// Adds at least one and gives the value afterwards, larger than every value
    /// read before. May block, and wears the hardware: once a start, not once a
    /// write.
    ///
    /// # Errors
    /// Those of [`Counter::read`]; the counter may have moved nevertheless.
    fn increment(&self) -> Result<u64, CounterError>;
}

/// Why a counter did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CounterError {
    /// The hardware was not reached, or refused.
    #[error("the monotonic counter {counter} did not answer: {reason}")]
    Unavailable {
        /// Where it lives, such as `TPM NV 0x01c10100`.
        counter: String,
        /// What was seen.
        reason: String,
    },
    /// Its value is less than one seen by this process, or it is of another kind
    /// than it was made.
    #[error(
        "the monotonic counter {counter} was replaced or set back: {reason}; recover the node as one that lost its disk"
    )]
    Replaced {
        /// Where it lives.
        counter: String,
        /// What was seen.
        reason: String,
    },
}

/// Why no evidence was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {kind} TEE gave no evidence: {reason}")]
pub struct QuoteError {
    /// The kind asked.
    pub kind: TeeKind,
    /// What it answered.
    pub reason: String,
}

/// Why bytes were not sealed or not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Other code sealed them.
    #[error(
        "sealed under measurement {sealed}, running {running}: start the binary that sealed it, or let the node join anew"
    )]
    Measurement {
        /// The measurement in the blob.
        sealed: Measurement,
        /// This process's.
        running: Measurement,
    },
    /// Another platform sealed them.
    #[error(
        "sealed on platform {sealed}, running on platform {running}: sealed data cannot be moved between machines"
    )]
    Platform {
        /// The platform in the blob, hex.
        sealed: String,
        /// This one, hex.
        running: String,
    },
    /// The header is not one of ours.
    #[error("not a sealed blob: {0}")]
    Malformed(&'static str),
    /// Altered, or sealed for another purpose.
    #[error(
        "sealed blob for {label:?} was altered, or sealed for another purpose or with another platform secret"
    )]
    Corrupt {
        /// The purpose asked for.
        label: String,
    },
    /// More bytes than the limit.
    #[error("sealing {size} bytes is past the limit of {limit} bytes")]
    TooLarge {
        /// Bytes given.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The cryptographic library failed.
    #[error("sealing failed in the cryptographic library")]
    Cryptography,
    /// The platform gave no sealing key.
    #[error("the {kind} TEE gave no sealing key: {reason}")]
    NoKey {
        /// The kind asked.
        kind: TeeKind,
        /// What it answered.
        reason: String,
    },
}
