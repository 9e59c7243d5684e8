//! The keeper of a standing connection: asks the peer for fresh evidence on a timer and
//! on every new policy, answers when the peer asks, and cuts off a peer that no longer
//! satisfies the policy.
//!
//! Invariants: on a new policy what the peer has shown is judged at once, before it is
//! asked; a peer that does not answer within the limit of a handshake is cut off; the
//! keeper ends with its connection, and one connection's end touches no other.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use nautilus_attest_protocol::frame::{Challenge, Frame, FrameKind, NONCE_BYTES, Verdict};
use nautilus_attest_protocol::renewal::Standing;
use nautilus_attest_protocol::{Claims, Policy, Quoter, Refused, Verifier};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::channel::quote;
use crate::credential::unix_millis;
use crate::framing::Order;

/// Counts peers cut off, by reason.
pub const PEERS_CUT_OFF: &str = "nautilus_attest_peers_cut_off_total";
/// Counts evidence renewed over standing connections.
pub const EVIDENCE_RENEWED: &str = "nautilus_attest_evidence_renewed_total";

/// Renewals are spread over this part of their interval, so that a node's connections
/// do not all ask at once: one in so many.
const SPREAD: u32 = 8;

/// What a connection is kept by.
pub(crate) struct Keeper {
    pub(crate) standing: Standing,
    /// What the peer has shown.
    pub(crate) claims: Claims,
    pub(crate) quoter: Arc<dyn Quoter>,
    pub(crate) verifier: Arc<dyn Verifier>,
    pub(crate) policy: watch::Receiver<Arc<Policy>>,
    pub(crate) interval: Duration,
    pub(crate) answer_timeout: Duration,
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) heard: mpsc::Receiver<Frame>,
}

/// Why a peer is cut off.
#[derive(Debug, thiserror::Error)]
enum CutOff {
    #[error("no longer satisfies the policy: {0}")]
    Refused(#[from] Refused),
    #[error("did not renew its evidence within {0:?}")]
    Silent(Duration),
    #[error("refuses this node: {0}")]
    RefusedByPeer(String),
    #[error("can't be asked for fresh evidence: no random nonce was made")]
    NoNonce,
}

impl CutOff {
    /// The metric's label.
    fn reason(&self) -> &'static str {
        match self {
            Self::Refused(refused) => match refused {
                Refused::Measurement { .. } => "measurement",
                Refused::SimulatedNotAllowed { .. } => "simulated",
                Refused::OldTcb { .. } | Refused::TcbStatus { .. } => "tcb",
                Refused::Advisory { .. } => "advisory",
                Refused::Expired { .. } | Refused::NotYetValid { .. } => "time",
                _ => "evidence",
            },
            Self::Silent(_) => "silent",
            Self::RefusedByPeer(_) => "refused_by_peer",
            Self::NoNonce => "no_nonce",
        }
    }
}

/// A challenge whose answer is awaited.
struct Asked {
    challenge: Challenge,
    until: Instant,
}

impl Keeper {
    /// Keeps the connection until it ends.
    pub(crate) async fn run(mut self) {
        let Err(cut) = self.keep().await else { return };
        let node = self.standing.peer_node;
        tracing::warn!(node, reason = %cut, "cut off a peer");
        metrics::counter!(PEERS_CUT_OFF, "reason" => cut.reason()).increment(1);
        let farewell = match &cut {
            CutOff::RefusedByPeer(_) => Vec::new(),
            other => {
                let reason = other.to_string();
                let verdict = Verdict::Refused { reason }.encode();
                Frame::encode(FrameKind::Verdict, &verdict).unwrap_or_default()
            }
        };
        let reason = format!("node {node} {cut}");
        // A connection that has ended by itself needs no cut.
        let _ = self.orders.send(Order::Cut { reason, farewell }).await;
    }

    /// `Ok` when the connection has ended by itself.
    async fn keep(&mut self) -> Result<(), CutOff> {
        let mut asked: Option<Asked> = None;
        let mut policy_may_change = true;
        let mut next = self.next_renewal();
        // The policy may have changed since the handshake judged by it.
        self.judge_again()?;
        loop {
            let until = asked.as_ref().map_or(next, |asked| asked.until);
            tokio::select! {
                frame = self.heard.recv() => {
                    let Some(frame) = frame else { return Ok(()) };
                    if let Some(answer) = self.hear(frame).await? {
                        self.judge_answer(asked.take(), &answer)?;
                        next = self.next_renewal();
                    }
                }
                changed = self.policy.changed(), if policy_may_change => {
                    policy_may_change = changed.is_ok();
                    if policy_may_change {
                        self.judge_again()?;
                        // An answer under way is fresh, and judged by the new policy too.
                        if asked.is_none() {
                            asked = Some(self.ask().await?);
                        }
                    }
                }
                () = sleep_until(until) => match asked {
                    Some(_) => return Err(CutOff::Silent(self.answer_timeout)),
                    None => asked = Some(self.ask().await?),
                },
            }
        }
    }

    fn next_renewal(&self) -> Instant {
        let mut byte = [0; 1];
        // Without randomness they ask at once, which is no harm.
        let _ = rand::fill(&mut byte);
        let earlier = self.interval / SPREAD * u32::from(byte[0]) / 256;
        Instant::now() + self.interval.saturating_sub(earlier)
    }

    /// Judges what the peer has shown by the policy as it is now.
    fn judge_again(&mut self) -> Result<(), CutOff> {
        let policy = Arc::clone(&self.policy.borrow_and_update());
        Ok(policy.evidence.judge(&self.claims, unix_millis())?)
    }

    async fn ask(&self) -> Result<Asked, CutOff> {
        let mut nonce = [0; NONCE_BYTES];
        rand::fill(&mut nonce).map_err(|_| CutOff::NoNonce)?;
        let challenge = Challenge {
            nonce,
            policy_epoch: self.policy.borrow().epoch,
        };
        let frame = Frame::encode(FrameKind::Challenge, &challenge.encode())?;
        // When nobody takes the order the connection has ended.
        let _ = self.orders.send(Order::Send(frame)).await;
        Ok(Asked {
            challenge,
            until: Instant::now() + self.answer_timeout,
        })
    }

    /// Looks at a frame of the peer's; gives the evidence in it, if that is what it is.
    async fn hear(&self, frame: Frame) -> Result<Option<Vec<u8>>, CutOff> {
        match frame.kind {
            FrameKind::Challenge => {
                let challenge = Challenge::decode(&frame.body)?;
                match quote(&self.quoter, self.standing.answer(&challenge)).await {
                    Ok(evidence) => {
                        let frame = Frame::encode(FrameKind::Evidence, &evidence.encode())?;
                        let _ = self.orders.send(Order::Send(frame)).await;
                    }
                    // The peer will cut this node off; here is why.
                    Err(error) => tracing::error!(
                        node = self.standing.peer_node, %error,
                        "a peer asked for fresh evidence and there is none"
                    ),
                }
                Ok(None)
            }
            FrameKind::Evidence => Ok(Some(frame.body)),
            FrameKind::Verdict => match Verdict::decode(&frame.body)? {
                Verdict::Accepted => Ok(None),
                Verdict::Refused { reason } => Err(CutOff::RefusedByPeer(reason)),
            },
            seen @ (FrameKind::Hello | FrameKind::Data) => Err(Refused::UnexpectedFrame {
                seen,
                expected: FrameKind::Evidence,
            }
            .into()),
        }
    }

    fn judge_answer(&mut self, asked: Option<Asked>, evidence: &[u8]) -> Result<(), CutOff> {
        let Some(Asked { challenge, .. }) = asked else {
            return Err(Refused::UnexpectedFrame {
                seen: FrameKind::Evidence,
                expected: FrameKind::Challenge,
            }
            .into());
        };
        let policy = Arc::clone(&self.policy.borrow());
        self.claims = self.standing.judge(
            &challenge,
            evidence,
            &self.claims,
            self.verifier.as_ref(),
            &policy.evidence,
            unix_millis(),
        )?;
        metrics::counter!(EVIDENCE_RENEWED).increment(1);
        tracing::debug!(
            node = self.standing.peer_node,
            policy = policy.epoch,
            "a peer renewed its evidence"
        );
        Ok(())
    }
}
