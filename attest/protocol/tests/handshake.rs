//! The attested handshake between two parties in one process: who gets in, who is
//! refused, and that the reason is named on both sides.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use nautilus_attest_protocol::binding::{Channel, certificate_report_data, evidence_digest};
use nautilus_attest_protocol::frame::{FRAME_HEADER_BYTES, Frame, FrameKind, Hello, Role};
use nautilus_attest_protocol::handshake::{Failure, Greeting, HandshakeError, Local};
use nautilus_attest_protocol::{
    Claims, Evidence, EvidencePolicy, Measurement, Peer, Refused, Tcb, TeeKind, Verifier,
    admit_certificate,
};
use proptest::prelude::*;

const CODE: u8 = 7;

/// Evidence without a signature: report data, measurement, platform. What is under
/// test is what the evidence is bound to, not who signed it.
fn evidence(report_data: [u8; 64], code: u8, platform: u8) -> Evidence {
    let mut body = report_data.to_vec();
    body.extend([code, platform]);
    Evidence::new(TeeKind::Simulated, body)
}

struct Unsigned;

impl Verifier for Unsigned {
    fn verify(&self, evidence: &Evidence, _now_ms: u64) -> Result<Claims, Refused> {
        let (report_data, rest) =
            evidence
                .body
                .split_first_chunk::<64>()
                .ok_or(Refused::Malformed {
                    what: "evidence",
                    reason: "short".into(),
                })?;
        Ok(Claims {
            tee: evidence.kind,
            measurement: Measurement::new([rest[0]]).unwrap(),
            platform: hex::encode(&rest[1..]),
            debug: false,
            report_data: *report_data,
            tcb: Tcb::nothing_to_say(),
            registers: BTreeMap::new(),
        })
    }
}

#[derive(Clone)]
struct Party {
    local: Local,
    exporter: [u8; 32],
    code: u8,
    platform: u8,
    policy: EvidencePolicy,
    pinned: Option<String>,
    expected_node: Option<u64>,
}

fn party(node_id: u64) -> Party {
    Party {
        local: Local {
            cluster_id: "reef".into(),
            node_id,
            policy_epoch: 4,
            nonce: [node_id as u8; 32],
        },
        exporter: [9; 32],
        code: CODE,
        platform: node_id as u8,
        policy: EvidencePolicy::new(true)
            .allow(TeeKind::Simulated, Measurement::new([CODE]).unwrap()),
        pinned: None,
        expected_node: None,
    }
}

impl Party {
    fn spki(&self) -> Vec<u8> {
        vec![self.local.node_id as u8; 91]
    }

    fn greet(&self, role: Role, peer: &Party) -> (Greeting, Vec<u8>) {
        let channel = Channel {
            role,
            exporter: self.exporter,
            own_spki: self.spki(),
            peer_spki: peer.spki(),
        };
        let certificate = evidence(
            certificate_report_data(&peer.spki()),
            peer.code,
            peer.platform,
        )
        .encode();
        let admission = admit_certificate(&certificate, &peer.spki(), &Unsigned, &self.policy, 0);
        Greeting::start(self.local.clone(), channel, admission, self.expected_node).unwrap()
    }
}

fn frame(bytes: &[u8]) -> Frame {
    let (header, body) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>().unwrap();
    let (kind, length) = Frame::decode_header(*header).unwrap();
    assert_eq!(length, body.len());
    Frame {
        kind,
        body: body.to_vec(),
    }
}

type Outcome = Result<Peer, HandshakeError>;

/// Runs both ends. `tamper` may change each hello and each evidence on its way.
fn run(a: &Party, b: &Party, mut tamper: impl FnMut(Role, &mut Frame)) -> (Outcome, Outcome) {
    let (a_greeting, a_hello) = a.greet(Role::Initiator, b);
    let (b_greeting, b_hello) = b.greet(Role::Responder, a);
    let mut from = |role, bytes: &[u8]| {
        let mut frame = frame(bytes);
        tamper(role, &mut frame);
        frame
    };
    let a_next = a_greeting.receive(&from(Role::Responder, &b_hello));
    let b_next = b_greeting.receive(&from(Role::Initiator, &a_hello));
    let prove = |party: &Party, next: Result<_, Failure>| {
        let proving: nautilus_attest_protocol::handshake::Proving = next?;
        let evidence = evidence(proving.report_data(), party.code, party.platform);
        proving.prove(&evidence)
    };
    let (a_judging, a_frame) = split(prove(a, a_next));
    let (b_judging, b_frame) = split(prove(b, b_next));
    let judge = |party: &Party, judging: Result<_, HandshakeError>, frame: Option<Frame>| {
        let judging: nautilus_attest_protocol::handshake::Judging = judging.map_err(silent)?;
        let frame = frame.expect("a party that goes on has been told something");
        judging.receive(&frame, &Unsigned, &party.policy, party.pinned.as_deref(), 0)
    };
    let (a_concluding, a_verdict) = split(judge(
        a,
        a_judging,
        b_frame.map(|bytes| from(Role::Responder, &bytes)),
    ));
    let (b_concluding, b_verdict) = split(judge(
        b,
        b_judging,
        a_frame.map(|bytes| from(Role::Initiator, &bytes)),
    ));
    let conclude =
        |concluding: Result<nautilus_attest_protocol::handshake::Concluding, HandshakeError>,
         verdict: Option<Vec<u8>>| {
            let verdict = verdict.expect("a party that accepted is told the other's verdict");
            concluding?
                .receive(&frame(&verdict))
                .map_err(|failure| failure.cause)
        };
    let a_outcome = if a_concluding.is_ok() {
        conclude(a_concluding, b_verdict)
    } else {
        Err(a_concluding.err().unwrap())
    };
    let b_outcome = if b_concluding.is_ok() {
        conclude(b_concluding, a_verdict)
    } else {
        Err(b_concluding.err().unwrap())
    };
    (a_outcome, b_outcome)
}

fn silent(cause: HandshakeError) -> Failure {
    Failure { cause, reply: None }
}

fn split<T>(step: Result<(T, Vec<u8>), Failure>) -> (Result<T, HandshakeError>, Option<Vec<u8>>) {
    match step {
        Ok((next, bytes)) => (Ok(next), Some(bytes)),
        Err(failure) => (Err(failure.cause), failure.reply),
    }
}

/// Asserts that `refusing` refuses with a text holding `text`, and that the other
/// end got the same words.
fn assert_both_name(refusing: &Outcome, refused: &Outcome, text: &str) {
    let Err(HandshakeError::Refused(reason)) = refusing else {
        panic!("not refused: {refusing:?}")
    };
    assert!(reason.to_string().contains(text), "{reason}");
    let told = HandshakeError::RefusedByPeer {
        reason: reason.to_string(),
    };
    assert_eq!(refused.as_ref(), Err(&told));
}

#[test]
fn two_masters_of_one_quorum_accept_each_other() {
    let (a, b) = run(&party(1), &party(2), |_, _| ());
    let certificate = evidence(certificate_report_data(&party(2).spki()), CODE, 2).encode();
    assert_eq!(
        a.unwrap(),
        Peer {
            node_id: 2,
            platform: "02".into(),
            measurement: Measurement::new([CODE]).unwrap(),
            tee: TeeKind::Simulated,
            evidence_digest: evidence_digest(&certificate),
        }
    );
    assert_eq!(b.unwrap().node_id, 1);
}

#[test]
fn other_code_is_refused_and_told_why() {
    let (a, b) = run(
        &party(1),
        &Party {
            code: 8,
            ..party(2)
        },
        |_, _| (),
    );
    assert_both_name(
        &a,
        &b,
        "measurement 08 (simulated) is not in the policy, which allows 07",
    );
}

#[test]
fn simulated_evidence_is_refused_where_hardware_is_asked() {
    let strict = Party {
        policy: EvidencePolicy::new(false),
        ..party(1)
    };
    let (a, b) = run(&strict, &party(2), |_, _| ());
    assert_both_name(&a, &b, "simulated evidence is not allowed");
}

#[test]
fn another_cluster_is_refused_on_both_sides() {
    let mut other = party(2);
    other.local.cluster_id = "atoll".into();
    let (a, b) = run(&party(1), &other, |_, _| ());
    assert_eq!(
        a,
        Err(HandshakeError::Refused(Refused::ClusterId {
            seen: "atoll".into(),
            expected: "reef".into()
        }))
    );
    assert_eq!(
        b,
        Err(HandshakeError::Refused(Refused::ClusterId {
            seen: "reef".into(),
            expected: "atoll".into()
        }))
    );
}

#[test]
fn another_node_than_dialed_is_refused() {
    let dialing = Party {
        expected_node: Some(3),
        ..party(1)
    };
    let (a, b) = run(&dialing, &party(2), |_, _| ());
    assert_both_name(&a, &b, "peer is node 2, expected node 3");
}

#[test]
fn two_nodes_with_one_id_refuse_each_other() {
    let (a, b) = run(&party(1), &party(1), |_, _| ());
    assert_eq!(
        a,
        Err(HandshakeError::Refused(Refused::NodeIdInUse { seen: 1 }))
    );
    assert_eq!(
        b,
        Err(HandshakeError::Refused(Refused::NodeIdInUse { seen: 1 }))
    );
}

#[test]
fn a_node_on_another_chip_than_pinned_is_refused() {
    let pinning = Party {
        pinned: Some("aa".into()),
        ..party(1)
    };
    let (a, b) = run(&pinning, &party(2), |_, _| ());
    assert_both_name(
        &a,
        &b,
        "node 2 runs on platform 02, expected the pinned platform aa",
    );
}

#[test]
fn a_node_whose_policy_is_far_behind_is_let_in_to_learn_and_each_judges_by_its_own() {
    let mut behind = party(2);
    behind.local.policy_epoch = 0;
    let (a, b) = run(&party(1), &behind, |_, _| ());
    assert!(a.is_ok() && b.is_ok());
    let mut ahead = party(1);
    ahead.policy =
        EvidencePolicy::new(true).allow(TeeKind::Simulated, Measurement::new([CODE + 1]).unwrap());
    let (a, _) = run(&ahead, &behind, |_, _| ());
    assert!(matches!(
        a,
        Err(HandshakeError::Refused(Refused::Measurement { .. }))
    ));
}

#[test]
fn evidence_from_another_machine_than_the_certificates_is_refused() {
    let (a, b) = run(&party(1), &party(2), |role, frame| {
        if role == Role::Responder && frame.kind == FrameKind::Evidence {
            let mut moved = Evidence::decode(&frame.body).unwrap();
            *moved.body.last_mut().unwrap() = 0x77;
            frame.body = moved.encode();
        }
    });
    assert_both_name(
        &a,
        &b,
        "platform in the certificate's evidence is 02, in the connection's evidence 77",
    );
}

#[test]
fn evidence_before_a_hello_is_refused() {
    let (greeting, _) = party(1).greet(Role::Initiator, &party(2));
    let frame = Frame {
        kind: FrameKind::Evidence,
        body: evidence([0; 64], CODE, 2).encode(),
    };
    let failure = greeting.receive(&frame).err().unwrap();
    assert_eq!(
        failure.cause.to_string(),
        "peer refused: peer sent a frame evidence, expected hello"
    );
}

proptest! {
    #[test]
    fn a_hello_altered_on_its_way_lets_nobody_in(from_initiator in any::<bool>(), field in 0..5, by in 1u8..) {
        let altered = if from_initiator { Role::Initiator } else { Role::Responder };
        let (a, b) = run(&party(1), &party(2), |role, frame| {
            if role == altered && frame.kind == FrameKind::Hello {
                let mut hello = Hello::decode(&frame.body).unwrap();
                match field {
                    0 => hello.role = hello.role.other(),
                    1 => hello.cluster_id.push('x'),
                    2 => hello.node_id += u64::from(by),
                    3 => hello.nonce[usize::from(by) % 32] ^= by,
                    _ => hello.policy_epoch += u64::from(by),
                }
                frame.body = hello.encode();
            }
        });
        prop_assert!(a.is_err() && b.is_err(), "{a:?} {b:?}");
    }

    #[test]
    fn evidence_altered_on_its_way_lets_nobody_in(from_initiator in any::<bool>(), at in 0usize..65, by in 1u8..) {
        let altered = if from_initiator { Role::Initiator } else { Role::Responder };
        let (a, b) = run(&party(1), &party(2), |role, frame| {
            if role == altered && frame.kind == FrameKind::Evidence {
                let mut evidence = Evidence::decode(&frame.body).unwrap();
                evidence.body[at] ^= by;
                frame.body = evidence.encode();
            }
        });
        prop_assert!(a.is_err() && b.is_err(), "{a:?} {b:?}");
    }

    #[test]
    fn a_transcript_replayed_on_another_connection_is_refused(exporter in any::<[u8; 32]>()) {
        prop_assume!(exporter != [9; 32]);
        let mut recorded = Vec::new();
        let (first, _) = run(&party(1), &party(2), |role, frame| {
            if role == Role::Responder {
                recorded.push(frame.clone());
            }
        });
        prop_assert!(first.is_ok());
        // The same victim, even with the same nonce; only the connection is another.
        let victim = Party { exporter, ..party(1) };
        let mut replay = recorded.into_iter();
        let (a, _) = run(&victim, &Party { exporter, ..party(2) }, |role, frame| {
            if role == Role::Responder {
                *frame = replay.next().unwrap();
            }
        });
        let is_wrong_channel = matches!(a, Err(HandshakeError::Refused(Refused::WrongChannel { .. })));
        prop_assert!(is_wrong_channel);
    }

    #[test]
    fn nothing_but_an_accepting_verdict_ends_well(code in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..40)) {
        let (a, _) = party(1).greet(Role::Initiator, &party(2));
        let (b, b_hello) = party(2).greet(Role::Responder, &party(1));
        drop(b);
        let proving = a.receive(&frame(&b_hello)).ok().unwrap();
        let Ok((kind, _)) = Frame::decode_header([code % 4, 0, 0, 0, 0]) else { return Ok(()) };
        let (judging, _) = proving.prove(&evidence([0; 64], CODE, 1)).ok().unwrap();
        let policy = party(1).policy;
        let frame = Frame { kind, body };
        prop_assert!(judging.receive(&frame, &Unsigned, &policy, None, 0).is_err());
    }
}
