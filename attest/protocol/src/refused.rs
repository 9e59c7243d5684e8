//! Why a peer, or evidence, is refused: always what was seen and what was expected.
//!
//! The text of these errors is what travels to the refused side and into both
//! logs, so it never holds a secret, and stays well under the limit of a verdict.

use crate::evidence::{Measurement, TcbStatus, TeeKind};
use crate::frame::{FrameKind, Role};
use crate::port::UnixMillis;

/// The most measurements listed in a message.
const LISTED_MEASUREMENTS: usize = 3;

/// The reason of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The code is not one the policy names.
    #[error(
        "measurement {seen} ({tee}) is not in the policy, which allows {}",
        list(allowed)
    )]
    Measurement {
        /// The evidence's kind.
        tee: TeeKind,
        /// Its measurement.
        seen: Measurement,
        /// What the policy allows for the kind.
        allowed: Vec<Measurement>,
    },
    /// The certificate's evidence was made for another key.
    #[error("evidence is for another key: it binds {seen}, the certificate's key needs {expected}")]
    KeyBinding {
        /// Hex of the start of the report data seen.
        seen: String,
        /// Hex of the start of the report data that the key needs.
        expected: String,
    },
    /// The evidence was made for another connection.
    #[error(
        "evidence was made for another connection (replayed or relayed): it binds {seen}, this connection needs {expected}"
    )]
    WrongChannel {
        /// Hex of the start of the report data seen.
        seen: String,
        /// Hex of the start of the report data that this connection needs.
        expected: String,
    },
    /// Evidence given to a relying party answers something else.
    #[error("evidence answers another question: it binds {seen}, this one needs {expected}")]
    Replay {
        /// Hex of the start of the report data seen.
        seen: String,
        /// Hex of the start of the report data expected.
        expected: String,
    },
    /// Simulated evidence where the policy wants hardware.
    #[error("simulated evidence is not allowed by the policy (measurement {seen})")]
    SimulatedNotAllowed {
        /// Its measurement.
        seen: Measurement,
    },
    /// The TEE is in debug mode.
    #[error("the {tee} TEE runs in debug mode, expected production mode")]
    Debug {
        /// The evidence's kind.
        tee: TeeKind,
    },
    /// The peer belongs to another quorum.
    #[error("peer is of cluster {seen:?}, expected {expected:?}")]
    ClusterId {
        /// The peer's.
        seen: String,
        /// Ours.
        expected: String,
    },
    /// Another node answered than was dialed.
    #[error("peer is node {seen}, expected node {expected}")]
    NodeId {
        /// The peer's.
        seen: u64,
        /// Whom we dialed.
        expected: u64,
    },
    /// Two nodes with one id, or a node that dialed itself.
    #[error(
        "peer claims node id {seen}, which is this node's own; every node needs an id of its own"
    )]
    NodeIdInUse {
        /// The id both have.
        seen: u64,
    },
    /// The node runs on another chip than when it joined.
    #[error("node {node_id} runs on platform {seen}, expected the pinned platform {pinned}")]
    Platform {
        /// The node.
        node_id: u64,
        /// The platform its evidence names.
        seen: String,
        /// The platform in the membership.
        pinned: String,
    },
    /// The certificate's evidence and the channel's tell different stories.
    #[error(
        "{what} in the certificate's evidence is {certificate}, in the connection's evidence {channel}"
    )]
    Inconsistent {
        /// Which claim.
        what: &'static str,
        /// What the certificate says.
        certificate: String,
        /// What the fresh evidence says.
        channel: String,
    },
    /// The peer speaks another version of the handshake.
    #[error("peer speaks version {seen} of the attested handshake, expected {expected}")]
    Version {
        /// The peer's.
        seen: u64,
        /// Ours.
        expected: u64,
    },
    /// The peer claims our own side of the connection.
    #[error("peer says it is the {seen}, expected the {expected}")]
    Role {
        /// What it says.
        seen: Role,
        /// What it must be.
        expected: Role,
    },
    /// A frame out of order.
    #[error("peer sent a frame {seen}, expected {expected}")]
    UnexpectedFrame {
        /// What came.
        seen: FrameKind,
        /// What had to come.
        expected: FrameKind,
    },
    /// Bytes that do not parse.
    #[error("{what} is malformed: {reason}")]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// Why it does not parse.
        reason: String,
    },
    /// More bytes than the limit.
    #[error("{what} of {size} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// What was being read.
        what: &'static str,
        /// Bytes announced or seen.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A signature that does not hold.
    #[error("the signature of {what} does not hold under {expected}")]
    Signature {
        /// What is signed.
        what: &'static str,
        /// The key or root it must hold under.
        expected: String,
    },
    /// Too old.
    #[error("{what} expired at {expired_at_ms} ms, it is {now_ms} ms now (since 1970)")]
    Expired {
        /// What expired.
        what: &'static str,
        /// When.
        expired_at_ms: UnixMillis,
        /// The time of judgement.
        now_ms: UnixMillis,
    },
    /// From the future.
    #[error("{what} is not valid before {valid_from_ms} ms, it is {now_ms} ms now (since 1970)")]
    NotYetValid {
        /// What is not yet valid.
        what: &'static str,
        /// From when on it is.
        valid_from_ms: UnixMillis,
        /// The time of judgement.
        now_ms: UnixMillis,
    },
    /// A certificate its issuer has taken back.
    #[error("{what} (serial number {serial}) was revoked by its issuer")]
    Revoked {
        /// Which certificate.
        what: &'static str,
        /// Its serial number, hex.
        serial: String,
    },
    /// The platform runs older firmware than its certificate was made for, or than
    /// the policy wants.
    #[error(
        "platform component {component} has security version {seen}, expected at least {expected}"
    )]
    OldTcb {
        /// Which component.
        component: String,
        /// The version in the evidence.
        seen: u32,
        /// The version expected.
        expected: u32,
    },
    /// The vendor's verdict on the platform's patches is not good enough.
    #[error("the {tee} platform's TCB status is {seen}, which is not accepted")]
    TcbStatus {
        /// The evidence's kind.
        tee: TeeKind,
        /// The vendor's verdict.
        seen: TcbStatus,
    },
    /// An open advisory that the policy does not bear.
    #[error(
        "the vendor's advisory {seen} is open for the {tee} platform, and the policy does not accept it"
    )]
    Advisory {
        /// The evidence's kind.
        tee: TeeKind,
        /// The advisory.
        seen: String,
    },
    /// Too many voters stand on too few vendors.
    #[error(
        "the nodes of {} would be {nodes} of {voters} voters, a majority; the policy's diversity forbids it",
        vendors.join(" and ")
    )]
    Diversity {
        /// The vendors with most nodes.
        vendors: Vec<String>,
        /// Their nodes together.
        nodes: usize,
        /// All voters.
        voters: usize,
    },
    /// The evidence and the certificate that vouches for it name two chips.
    #[error("evidence is of chip {seen}, its certificate is for chip {expected}")]
    Chip {
        /// The chip in the evidence, hex.
        seen: String,
        /// The chip in the certificate, hex.
        expected: String,
    },
    /// Evidence asked for by less privileged code than ours in the same guest.
    #[error("evidence was asked for at privilege level {seen}, expected level {expected}")]
    PrivilegeLevel {
        /// The VMPL in the evidence.
        seen: u32,
        /// The VMPL expected.
        expected: u32,
    },
    /// The vendor's word on the platform is not at hand.
    #[error("the endorsement {name} is not at hand: fetch or import it")]
    MissingEndorsement {
        /// Its name, see [`crate::Endorsements`].
        name: String,
    },
    /// A kind or format this node has no verifier for.
    #[error("{what} is not supported here")]
    Unsupported {
        /// What was seen.
        what: String,
    },
}

fn list(allowed: &[Measurement]) -> String {
    if allowed.is_empty() {
        return "none of this kind".to_owned();
    }
    let mut text: Vec<String> = allowed
        .iter()
        .take(LISTED_MEASUREMENTS)
        .map(ToString::to_string)
        .collect();
    if allowed.len() > LISTED_MEASUREMENTS {
        text.push(format!("and {} more", allowed.len() - LISTED_MEASUREMENTS));
    }
    text.join(", ")
}
