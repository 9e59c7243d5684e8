//! What a policy does to a quorum: plain functions on values.
//!
//! Invariant: nothing here is allowed that would leave fewer than a majority of the
//! voters with a measurement that the policy names.

use nautilus_attest_protocol::{EvidencePolicy, UnixMillis};

use super::store::NodeCode;

/// Whether a majority of `voters` satisfies `policy`.
///
/// # Errors
/// In words, who would not, and what to do.
pub(super) fn keeps_a_majority(
    policy: &EvidencePolicy,
    voters: &[u64],
    codes: &[NodeCode],
    now_ms: UnixMillis,
) -> Result<(), String> {
    let (mut satisfying, mut others) = (0, Vec::new());
    for voter in voters {
        match codes.iter().find(|code| code.id == *voter) {
            None => others.push(format!("node {voter}: it is not known yet what it runs")),
            Some(code) => match policy.judge_code(code.tee, &code.measurement, now_ms) {
                Ok(()) => satisfying += 1,
                Err(refused) => others.push(format!("node {voter}: {refused}")),
            },
        }
    }
    if satisfying > voters.len() / 2 {
        return Ok(());
    }
    Err(format!(
        "only {satisfying} of {} voters would satisfy this policy, which is no majority: the quorum \
         could never act again; replace the others first ({})",
        voters.len(),
        others.join("; ")
    ))
}

/// What the leader does about voters that the policy retired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing is to be done.
    Nothing,
    /// The leader itself is retired: another must do it.
    HandOver {
        /// To whom.
        to: u64,
    },
    /// This voter goes.
    Remove(NodeCode),
    /// Somebody should go, and nobody may.
    Refuse {
        /// Who stays for now.
        nodes: Vec<u64>,
    },
}

/// The next step for `voters`, of whom `own` leads. A voter of whom nothing is known
/// counts as one that stays and does not help.
pub(super) fn retirement(
    policy: &EvidencePolicy,
    own: u64,
    voters: &[u64],
    codes: &[NodeCode],
    now_ms: UnixMillis,
) -> Step {
    let code_of = |id: u64| codes.iter().find(|code| code.id == id);
    let judged = |code: &NodeCode| {
        policy
            .judge_code(code.tee, &code.measurement, now_ms)
            .is_ok()
    };
    let retired: Vec<&NodeCode> = voters
        .iter()
        .filter_map(|id| code_of(*id))
        .filter(|code| !judged(code))
        .collect();
    let satisfying: Vec<u64> = voters
        .iter()
        .copied()
        .filter(|id| code_of(*id).is_some_and(judged))
        .collect();
    if retired.is_empty() {
        return Step::Nothing;
    }
    // Both the voters of before and those of after must have a majority that can act.
    if satisfying.len() <= voters.len() / 2 {
        return Step::Refuse {
            nodes: retired.iter().map(|code| code.id).collect(),
        };
    }
    if let Some(other) = retired.iter().find(|code| code.id != own) {
        return Step::Remove((*other).clone());
    }
    match satisfying.first() {
        Some(&to) => Step::HandOver { to },
        None => Step::Refuse { nodes: vec![own] },
    }
}

#[cfg(test)]
mod tests {
    use nautilus_attest_protocol::{Measurement, TeeKind};

    use super::*;

    fn measurement(byte: u8) -> Measurement {
        Measurement::new([byte; 48]).expect("48 bytes")
    }

    fn codes(codes: &[(u64, u8)]) -> Vec<NodeCode> {
        let code = |&(id, byte): &(u64, u8)| NodeCode {
            id,
            tee: TeeKind::Simulated,
            measurement: measurement(byte),
        };
        codes.iter().map(code).collect()
    }

    fn policy(byte: u8) -> EvidencePolicy {
        EvidencePolicy::new(true).allow(TeeKind::Simulated, measurement(byte))
    }

    #[test]
    fn a_policy_that_most_voters_do_not_satisfy_is_refused_with_their_names() {
        let codes = codes(&[(1, 1), (2, 2)]);
        let refused = keeps_a_majority(&policy(2), &[1, 2, 3], &codes, 0).expect_err("refused");
        assert!(refused.contains("only 1 of 3 voters"), "{refused}");
        assert!(refused.contains("node 1: measurement"), "{refused}");
        assert!(refused.contains("node 3: it is not known"), "{refused}");
        assert!(keeps_a_majority(&policy(2), &[2], &codes, 0).is_ok());
    }

    #[test]
    fn two_of_four_are_no_majority() {
        let codes = codes(&[(1, 1), (2, 1), (3, 2), (4, 2)]);
        assert!(keeps_a_majority(&policy(2), &[1, 2, 3, 4], &codes, 0).is_err());
        let step = retirement(&policy(2), 3, &[1, 2, 3, 4], &codes, 0);
        assert_eq!(step, Step::Refuse { nodes: vec![1, 2] });
    }

    #[test]
    fn retired_voters_go_and_a_leader_that_is_retired_hands_over() {
        let codes = codes(&[(1, 1), (2, 2), (3, 2)]);
        let next = |own| retirement(&policy(2), own, &[1, 2, 3], &codes, 0);
        assert_eq!(next(2), Step::Remove(codes[0].clone()));
        assert_eq!(next(1), Step::HandOver { to: 2 });
        assert_eq!(retirement(&policy(2), 2, &[2, 3], &codes, 0), Step::Nothing);
    }

    #[test]
    fn a_voter_of_whom_nothing_is_known_neither_goes_nor_helps() {
        let codes = codes(&[(1, 1), (2, 2)]);
        let step = retirement(&policy(2), 2, &[1, 2, 3], &codes, 0);
        assert_eq!(step, Step::Refuse { nodes: vec![1] });
    }
}
