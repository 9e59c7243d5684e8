//! Attestation without I/O: evidence in, verdict out.
//!
//! This crate knows no clock, no network, no disk, no random source and no TLS:
//! time, nonces and the connection's exporter come as arguments. It holds
//! * the forms of evidence on the wire ([`Evidence`]) and what a verifier reads
//!   from them ([`Claims`]);
//! * the policy ([`EvidencePolicy`]), the document that a quorum replicates and who may
//!   change it ([`policy`]), and the join rule ([`judge_peer`]);
//! * what evidence is bound to ([`binding`]);
//! * the attested handshake between two masters as a state machine of types
//!   ([`handshake`]), its frames ([`frame`]), and evidence renewed over the connection
//!   that came of it ([`renewal`]);
//! * the rule by which a restarted node takes part again ([`restart`]);
//! * evidence in the forms of standard verifiers ([`eat`]) and of a chain ([`sui`]);
//! * the ports that each kind of TEE fills ([`Quoter`], [`Verifier`], [`Sealer`],
//!   [`Provider`]), those it may need for it ([`Endorsements`], [`KeyRelease`]), and
//!   [`Counter`], which some hardware has.
//!
//! Invariants: a refusal always names what was seen and what was expected; no
//! peer is returned before its fresh evidence matched this very connection; every
//! length read from a peer is bounded by a named constant.

pub mod binding;
pub mod eat;
mod evidence;
pub mod frame;
pub mod handshake;
mod judge;
pub mod policy;
mod port;
mod refused;
pub mod renewal;
pub mod restart;
pub mod sui;

pub use binding::{
    ReportData, attestation_report_data, credential_report_data, ledger_report_data,
    recovery_report_data, sui_report_data,
};
pub use evidence::{
    CMW_INDICATOR_EVIDENCE, Claims, EVIDENCE_EXTENSION_OID, Evidence, INTEL_QUOTE_CBOR_TAG,
    MAX_EVIDENCE_BYTES, MAX_MEASUREMENT_BYTES, Measurement, MeasurementError, SIMULATED_CBOR_TAG,
    Tcb, TcbStatus, TeeKind,
};
pub use judge::{
    Admitted, Peer, admit_certificate, claims_for_relying_party, judge_peer,
    verify_for_relying_party,
};
pub use policy::{EvidencePolicy, OWN_MEASUREMENT_WORD, Policy, PolicyError, PolicyTextError};
pub use port::{
    Counter, CounterError, Endorsements, GeneratedKey, KEY_RELEASE_PURPOSE, KeyRelease,
    KeyReleaseError, NoEndorsements, Provider, QuoteError, Quoter, ReleaseRequest, SealError,
    Sealer, UnixMillis, Verifier,
};
pub use refused::Refused;
