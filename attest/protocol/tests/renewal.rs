//! Evidence renewed over a standing connection: what an answer must be to count.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use nautilus_attest_protocol::binding::Channel;
use nautilus_attest_protocol::frame::{Challenge, Role};
use nautilus_attest_protocol::renewal::Standing;
use nautilus_attest_protocol::{
    Claims, Evidence, EvidencePolicy, Measurement, Refused, Tcb, TeeKind, Verifier,
};

const CODE: u8 = 7;

/// Evidence without a signature: report data, measurement, platform.
fn evidence(report_data: [u8; 64], code: u8, platform: u8) -> Vec<u8> {
    let body = [&report_data[..], &[code, platform]].concat();
    Evidence::new(TeeKind::Simulated, body).encode()
}

fn claims(report_data: [u8; 64], code: u8, platform: u8) -> Claims {
    Claims {
        tee: TeeKind::Simulated,
        measurement: Measurement::new([code]).unwrap(),
        platform: hex::encode([platform]),
        debug: false,
        report_data,
        tcb: Tcb::nothing_to_say(),
        registers: BTreeMap::new(),
    }
}

struct Unsigned;

impl Verifier for Unsigned {
    fn verify(&self, evidence: &Evidence, _now_ms: u64) -> Result<Claims, Refused> {
        let (report_data, rest) = evidence.body.split_first_chunk::<64>().unwrap();
        Ok(claims(*report_data, rest[0], rest[1]))
    }
}

/// Node 1, which asks, and node 2, which proves, as each sees their connection.
fn ends() -> (Standing, Standing) {
    let channel = Channel {
        role: Role::Initiator,
        exporter: [9; 32],
        own_spki: vec![1; 91],
        peer_spki: vec![2; 91],
    };
    let asker = Standing {
        channel: channel.clone(),
        cluster_id: "reef".into(),
        own_node: 1,
        peer_node: 2,
    };
    let prover = Standing {
        channel: channel.mirrored(),
        own_node: 2,
        peer_node: 1,
        ..asker.clone()
    };
    (asker, prover)
}

fn challenge() -> Challenge {
    Challenge {
        nonce: [5; 32],
        policy_epoch: 4,
    }
}

/// Node 1's judgement of an answer, under a policy that allows `allowed`.
fn judge(answer: &[u8], allowed: u8) -> Result<Claims, Refused> {
    let allowed = Measurement::new([allowed]).unwrap();
    let policy = EvidencePolicy::new(true).allow(TeeKind::Simulated, allowed);
    let last = claims([0; 64], CODE, 2);
    ends()
        .0
        .judge(&challenge(), answer, &last, &Unsigned, &policy, 0)
}

#[test]
fn a_fresh_answer_over_this_connection_counts() {
    let report_data = ends().1.answer(&challenge());
    let shown = judge(&evidence(report_data, CODE, 2), CODE).unwrap();
    assert_eq!(shown, claims(report_data, CODE, 2));
}

#[test]
fn an_answer_to_another_challenge_or_over_another_connection_does_not_count() {
    let (_, prover) = ends();
    let spoil: [fn(&mut Standing, &mut Challenge); 7] = [
        |_, challenge| challenge.nonce[0] ^= 1,
        |_, challenge| challenge.policy_epoch += 1,
        |standing, _| standing.channel.exporter[0] ^= 1,
        |standing, _| standing.channel.own_spki[0] ^= 1,
        |standing, _| standing.cluster_id.push('x'),
        |standing, _| standing.own_node = 3,
        // What node 1 itself would answer, sent back to it.
        |standing, _| *standing = ends().0,
    ];
    for spoil in spoil {
        let (mut standing, mut challenge) = (prover.clone(), challenge());
        spoil(&mut standing, &mut challenge);
        let answer = evidence(standing.answer(&challenge), CODE, 2);
        let refused = judge(&answer, CODE).unwrap_err();
        assert!(matches!(refused, Refused::WrongChannel { .. }), "{refused}");
    }
}

#[test]
fn another_machine_or_other_code_than_was_let_in_is_refused() {
    let report_data = ends().1.answer(&challenge());
    for (code, platform) in [(CODE, 3), (CODE + 1, 2)] {
        let refused = judge(&evidence(report_data, code, platform), code).unwrap_err();
        assert!(matches!(refused, Refused::Inconsistent { .. }), "{refused}");
    }
}

#[test]
fn a_policy_that_has_changed_since_refuses_the_same_evidence() {
    let report_data = ends().1.answer(&challenge());
    let refused = judge(&evidence(report_data, CODE, 2), CODE + 1).unwrap_err();
    assert!(matches!(refused, Refused::Measurement { .. }), "{refused}");
}
