//! The TEEs this build can play or judge, behind the ports of
//! `nautilus-attest-protocol`.
//!
//! It knows nothing of networks, of TLS or of the quorum. It judges evidence of
//! hardware (AWS Nitro, AMD SEV-SNP, Intel TDX and SGX) under its vendors' roots
//! ([`Verifiers::with_hardware`]), makes it ([`Machine`] finds the kind that is
//! there), and holds the simulated kind: evidence signed
//! by a root key that whoever started the quorum made, a measurement that is the
//! digest of the running binary, and sealing keys drawn from a per-node file. That
//! protects against mistakes, not against the machine's owner, and only a policy
//! that says so accepts it.
//!
//! Invariants: secrets have neither `Debug` nor `Serialize` and are wiped when
//! dropped; secret files are created with mode 0600 and refused when others may
//! read them; evidence of a kind without a verifier is refused by its name.

mod certificate;
mod endorsement;
#[cfg(test)]
mod fixtures;
mod intel;
mod measurement;
mod nitro;
mod platform;
mod provider;
mod root;
mod sealing;
mod secret_file;
mod simulated;
mod snp;
mod tpm;
mod unverified;
mod verifiers;

pub use endorsement::{EndorsementFacts, inspect_endorsement, name_endorsement};
pub use measurement::{measure_file, measure_running_binary};
pub use platform::PlatformSecret;
pub use provider::{Companions, Detection, HardwareError, HardwareProvider, Machine, Sighting};
pub use root::{RootPublicKey, RootPublicKeyError, SimulatedRoot};
pub use sealing::MAX_SEALED_PLAINTEXT_BYTES;
pub use secret_file::SecretFileError;
pub use simulated::{
    CLOCK_SKEW_MS, SIMULATED_EVIDENCE_LIFETIME_MS, SimulatedError, SimulatedProvider,
    SimulatedVerifier,
};
pub use tpm::{
    DEFAULT_PCRS, PcrSelection, PcrSelectionError, Tpm, TpmCounter, TpmError, TpmRelease,
};
pub use unverified::{endorsement_names, read_unverified};
pub use verifiers::Verifiers;
