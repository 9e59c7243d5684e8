//! The attested handshake: how two masters that already share a TLS connection
//! prove to each other what they are, on this very connection.
//!
//! ```text
//!   Greeting ──peer's hello──► Proving ──own evidence──► Judging ──peer's evidence──► Concluding ──peer's verdict──► Peer
//! ```
//! Both ends walk the same states at the same time. Each state is a type that is
//! consumed by the step out of it, so no step can be left out or taken twice.
//! Every step may instead fail with a [`Failure`], which carries the frame that
//! tells the other end why; a verdict that refuses is heard in every state.
//!
//! Invariants: a [`Peer`] comes only out of [`Concluding`], after its evidence
//! matched [`channel_report_data`] for our own exporter, keys and nonces, and after
//! it has accepted us too.

use crate::binding::{Channel, ReportData, channel_report_data, shown};
use crate::evidence::{Claims, Evidence};
use crate::frame::{
    Frame, FrameKind, HANDSHAKE_VERSION, Hello, MAX_CLUSTER_ID_BYTES, NONCE_BYTES, Verdict,
};
use crate::judge::{Admitted, Peer, judge_peer};
use crate::policy::EvidencePolicy;
use crate::port::{UnixMillis, Verifier};
use crate::refused::Refused;

/// Who this end is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// The quorum, at most [`MAX_CLUSTER_ID_BYTES`].
    pub cluster_id: String,
    /// This node.
    pub node_id: u64,
    /// The policy it judges by. Each end judges by its own: one that is behind, or that
    /// joins by its configuration alone, learns the newer policy over this connection.
    pub policy_epoch: u64,
    /// Fresh random bytes, for this connection alone.
    pub nonce: [u8; NONCE_BYTES],
}

/// Why the handshake ended without a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// We refuse the peer.
    #[error("peer refused: {0}")]
    Refused(#[from] Refused),
    /// The peer refuses us.
    #[error("refused by the peer: {reason}")]
    RefusedByPeer {
        /// In its words.
        reason: String,
    },
}

/// The end of a handshake that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub cause: HandshakeError,
    /// The bytes to send before closing, so that the peer knows too.
    pub reply: Option<Vec<u8>>,
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        let verdict = Verdict::Refused {
            reason: refused.to_string(),
        };
        Self {
            cause: refused.into(),
            reply: Frame::encode(FrameKind::Verdict, &verdict.encode()).ok(),
        }
    }
}

struct Session {
    channel: Channel,
    own: Hello,
}

/// Our hello is on its way; the peer's is awaited.
pub struct Greeting {
    session: Session,
    admission: Result<Admitted, Refused>,
    expected_node: Option<u64>,
}

impl Greeting {
    /// Begins. `admission` is what the first layer thought of the peer's
    /// certificate: a refusal is told to the peer once it listens. `expected_node`
    /// is whom we dialed. Also gives the frame to send.
    ///
    /// # Errors
    /// `TooLarge` when our own cluster id is.
    pub fn start(
        local: Local,
        channel: Channel,
        admission: Result<Admitted, Refused>,
        expected_node: Option<u64>,
    ) -> Result<(Self, Vec<u8>), Refused> {
        if local.cluster_id.len() > MAX_CLUSTER_ID_BYTES {
            let size = local.cluster_id.len();
            return Err(Refused::TooLarge {
                what: "cluster id",
                size,
                limit: MAX_CLUSTER_ID_BYTES,
            });
        }
        let own = Hello {
            version: HANDSHAKE_VERSION,
            role: channel.role,
            cluster_id: local.cluster_id,
            node_id: local.node_id,
            nonce: local.nonce,
            policy_epoch: local.policy_epoch,
        };
        let frame = Frame::encode(FrameKind::Hello, &own.encode())?;
        Ok((
            Self {
                session: Session { channel, own },
                admission,
                expected_node,
            },
            frame,
        ))
    }

    /// Takes the peer's hello.
    ///
    /// # Errors
    /// What the first layer held against the peer, or a hello that does not fit ours.
    pub fn receive(self, frame: &Frame) -> Result<Proving, Failure> {
        let hello = Hello::decode(expect(frame, FrameKind::Hello)?)?;
        let admitted = self.admission?;
        self.session.check_hello(&hello, self.expected_node)?;
        Ok(Proving {
            session: self.session,
            admitted,
            hello,
        })
    }
}

impl Session {
    fn check_hello(&self, peer: &Hello, expected_node: Option<u64>) -> Result<(), Refused> {
        let own = &self.own;
        if peer.role != own.role.other() {
            return Err(Refused::Role {
                seen: peer.role,
                expected: own.role.other(),
            });
        }
        if peer.cluster_id != own.cluster_id {
            let (seen, expected) = (peer.cluster_id.clone(), own.cluster_id.clone());
            return Err(Refused::ClusterId { seen, expected });
        }
        if let Some(expected) = expected_node.filter(|expected| *expected != peer.node_id) {
            return Err(Refused::NodeId {
                seen: peer.node_id,
                expected,
            });
        }
        if peer.node_id == own.node_id {
            return Err(Refused::NodeIdInUse { seen: peer.node_id });
        }
        Ok(())
    }
}

/// Both hellos are known; our evidence is to be made.
pub struct Proving {
    session: Session,
    admitted: Admitted,
    hello: Hello,
}

impl Proving {
    /// The peer's hello, unproven.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// What our evidence must sign.
    pub fn report_data(&self) -> ReportData {
        channel_report_data(&self.session.channel, &self.session.own, &self.hello)
    }

    /// Takes our evidence over [`Proving::report_data`], and gives the frame to send.
    ///
    /// # Errors
    /// `TooLarge` when the evidence is.
    pub fn prove(self, evidence: &Evidence) -> Result<(Judging, Vec<u8>), Failure> {
        let frame = Frame::encode(FrameKind::Evidence, &evidence.encode())?;
        Ok((
            Judging {
                session: self.session,
                admitted: self.admitted,
                hello: self.hello,
            },
            frame,
        ))
    }
}

/// Our evidence is on its way; the peer's is awaited.
pub struct Judging {
    session: Session,
    admitted: Admitted,
    hello: Hello,
}

impl Judging {
    /// The peer's hello, unproven.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Takes the peer's evidence and judges it; `pinned` is the platform the
    /// membership holds for the node it says it is. Gives the verdict's frame.
    ///
    /// # Errors
    /// `WrongChannel`, `Inconsistent`, those of the verifier and of [`judge_peer`].
    pub fn receive(
        self,
        frame: &Frame,
        verifier: &dyn Verifier,
        policy: &EvidencePolicy,
        pinned: Option<&str>,
        now_ms: UnixMillis,
    ) -> Result<(Concluding, Vec<u8>), Failure> {
        let evidence = Evidence::decode(expect(frame, FrameKind::Evidence)?)?;
        let claims = verifier.verify(&evidence, now_ms)?;
        let mirrored = self.session.channel.mirrored();
        let expected = channel_report_data(&mirrored, &self.hello, &self.session.own);
        if claims.report_data != expected {
            let (seen, expected) = (shown(&claims.report_data), shown(&expected));
            return Err(Refused::WrongChannel { seen, expected }.into());
        }
        check_same_origin(&self.admitted.claims, &claims)?;
        let peer = judge_peer(
            &claims,
            &self.hello,
            self.admitted.evidence_digest,
            pinned,
            policy,
            now_ms,
        )?;
        let verdict = Frame::encode(FrameKind::Verdict, &Verdict::Accepted.encode())?;
        Ok((Concluding { peer, claims }, verdict))
    }
}

/// The certificate and the connection must be vouched for by one and the same TEE.
pub(crate) fn check_same_origin(certificate: &Claims, channel: &Claims) -> Result<(), Refused> {
    let pairs = [
        ("TEE", certificate.tee.to_string(), channel.tee.to_string()),
        (
            "measurement",
            certificate.measurement.to_string(),
            channel.measurement.to_string(),
        ),
        (
            "platform",
            certificate.platform.clone(),
            channel.platform.clone(),
        ),
    ];
    for (what, certificate, channel) in pairs {
        if certificate != channel {
            return Err(Refused::Inconsistent {
                what,
                certificate,
                channel,
            });
        }
    }
    Ok(())
}

/// We have accepted the peer; its verdict on us is awaited.
pub struct Concluding {
    peer: Peer,
    claims: Claims,
}

impl Concluding {
    /// What the peer's evidence over this connection has shown.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Takes the peer's verdict. The connection may be used from here on.
    ///
    /// # Errors
    /// `RefusedByPeer`, or a frame that is no verdict.
    pub fn receive(self, frame: &Frame) -> Result<Peer, Failure> {
        if frame.kind != FrameKind::Verdict {
            return Err(Refused::UnexpectedFrame {
                seen: frame.kind,
                expected: FrameKind::Verdict,
            }
            .into());
        }
        match Verdict::decode(&frame.body)? {
            Verdict::Accepted => Ok(self.peer),
            Verdict::Refused { reason } => Err(refused_by_peer(reason)),
        }
    }
}

/// The body of a frame of the kind awaited; a refusal is heard whatever is awaited.
fn expect(frame: &Frame, expected: FrameKind) -> Result<&[u8], Failure> {
    if frame.kind == expected {
        return Ok(&frame.body);
    }
    if frame.kind == FrameKind::Verdict
        && let Verdict::Refused { reason } = Verdict::decode(&frame.body)?
    {
        return Err(refused_by_peer(reason));
    }
    Err(Refused::UnexpectedFrame {
        seen: frame.kind,
        expected,
    }
    .into())
}

fn refused_by_peer(reason: String) -> Failure {
    Failure {
        cause: HandshakeError::RefusedByPeer { reason },
        reply: None,
    }
}
