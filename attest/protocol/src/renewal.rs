//! Evidence renewed over a standing connection.
//!
//! ```text
//!   asker ── Challenge{nonce, policy epoch} ──► prover
//!   asker ◄── Evidence over exporter, keys, nonce, both nodes and the epoch ── prover
//! ```
//! Each end asks when its own timer or its own policy says so, and judges by its own
//! policy; a refusal is told as a [`crate::frame::Verdict`] before the connection ends.
//!
//! Invariants: an answer counts for the challenge that is open, on this connection, from
//! the TEE that was let in; who is asked twice answers twice.

use crate::binding::{Channel, ReportData, renewal_report_data, shown};
use crate::evidence::{Claims, Evidence};
use crate::frame::Challenge;
use crate::handshake::check_same_origin;
use crate::policy::EvidencePolicy;
use crate::port::{UnixMillis, Verifier};
use crate::refused::Refused;

/// A connection whose two ends have accepted each other.
#[derive(Clone, PartialEq, Eq)]
pub struct Standing {
    /// The connection as this end sees it.
    pub channel: Channel,
    /// The quorum of both.
    pub cluster_id: String,
    /// This end's node.
    pub own_node: u64,
    /// The other end's node.
    pub peer_node: u64,
}

impl Standing {
    /// What this end's evidence must sign to answer the peer's challenge.
    pub fn answer(&self, challenge: &Challenge) -> ReportData {
        renewal_report_data(
            &self.channel,
            &self.cluster_id,
            self.own_node,
            self.peer_node,
            challenge,
        )
    }

    /// Judges the peer's answer to `challenge`; `last` is what it has shown before. Gives
    /// what it shows now.
    ///
    /// # Errors
    /// Those of the verifier, `WrongChannel`, `Inconsistent` when another TEE answers,
    /// and those of [`EvidencePolicy::judge`].
    pub fn judge(
        &self,
        challenge: &Challenge,
        encoded_evidence: &[u8],
        last: &Claims,
        verifier: &dyn Verifier,
        policy: &EvidencePolicy,
        now_ms: UnixMillis,
    ) -> Result<Claims, Refused> {
        let claims = verifier.verify(&Evidence::decode(encoded_evidence)?, now_ms)?;
        let expected = renewal_report_data(
            &self.channel.mirrored(),
            &self.cluster_id,
            self.peer_node,
            self.own_node,
            challenge,
        );
        if claims.report_data != expected {
            let (seen, expected) = (shown(&claims.report_data), shown(&expected));
            return Err(Refused::WrongChannel { seen, expected });
        }
        check_same_origin(last, &claims)?;
        policy.judge(&claims, now_ms)?;
        Ok(claims)
    }
}
