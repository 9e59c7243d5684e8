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
}
