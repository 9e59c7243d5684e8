//! The court against a model, and its table of ages.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::row::KeyHash;
use super::*;

const TERMS: Terms = Terms {
    lifetime: limits::VERDICT_LIFETIME,
    negative_lifetime: limits::NEGATIVE_VERDICT_LIFETIME,
    grace: limits::JUDGE_OUTAGE_GRACE,
};
/// When this node started, in Unix milliseconds.
const BEGIN_MS: u64 = 1_790_000_000_000;

fn at(monotonic_ms: u64) -> Now {
    Now {
        unix_ms: BEGIN_MS + monotonic_ms,
        monotonic_ms,
    }
}

fn after(time: Duration) -> Now {
    at(millis(time))
}

fn active(expires_at: Option<u64>) -> Verdict {
    Verdict::Active {
        owner: "0xa1".into(),
        stake_amount: 1,
        expires_at,
    }
}

fn with_row(verdict: Verdict) -> Court {
    let mut court = Court::new(TERMS, at(0));
    court.row_put([0; 32], verdict, BEGIN_MS, 7, at(0));
    court
}

#[test]
fn a_verdict_ages_from_standing_to_asking() {
    let mut court = with_row(active(None));
    let found = |court: &Court, purpose, time| court.finding(&[0; 32], purpose, after(time));
    let (beat, registration) = (Purpose::Beat, Purpose::Registration);
    let refresh = TERMS.lifetime / 2;
    let moment = Duration::from_millis(1);
    for purpose in [beat, registration] {
        let young = found(&court, purpose, refresh - moment);
        assert_eq!(young, Finding::Stands(active(None)));
    }
    let aging = (
        Finding::Aging(active(None)),
        Finding::Ask(Some(active(None))),
    );
    assert_eq!(found(&court, beat, refresh), aging.0);
    assert_eq!(found(&court, registration, refresh), aging.1);
    assert_eq!(found(&court, beat, TERMS.lifetime), aging.1);
    assert_eq!(found(&court, beat, TERMS.grace - moment), aging.1);
    assert_eq!(found(&court, beat, TERMS.grace), Finding::Ask(None));
    // Nobody waits for a judge that is known not to answer, and it is not asked all the time.
    let silent_at = after(TERMS.lifetime);
    assert!(court.reached(false, silent_at) && !court.reached(false, silent_at));
    let retry = TERMS.lifetime + limits::JUDGE_RETRY;
    for purpose in [beat, registration] {
        let stands = Finding::Stands(active(None));
        assert_eq!(found(&court, purpose, retry - moment), stands);
        assert_eq!(found(&court, purpose, retry), aging.0);
    }
    assert_eq!(found(&court, beat, TERMS.grace), Finding::Ask(None));
}

#[test]
fn what_was_judged_together_is_not_asked_for_together() {
    let refresh = |first| {
        let court = Court::new(TERMS, at(0));
        let mut case = [0; 32];
        case[0] = first;
        court.refresh_age(&case)
    };
    assert_eq!(refresh(0), TERMS.lifetime / 2);
    assert!(refresh(128) > refresh(0) && refresh(255) > refresh(128));
    assert!(refresh(255) < TERMS.lifetime * 3 / 4);
}

#[test]
fn no_verdict_is_used_past_its_tokens_expiry_however_far_the_judge_is() {
    let mut court = with_row(active(Some(BEGIN_MS / 1000 + 20)));
    court.reached(false, at(0));
    let found = |court: &Court, s: u64| court.finding(&[0; 32], Purpose::Beat, at(s * 1000));
    assert!(matches!(
        found(&court, 19),
        Finding::Stands(Verdict::Active { .. })
    ));
    assert_eq!(found(&court, 20), Finding::Stands(Verdict::Expired));
    assert_eq!(found(&court, 80), Finding::Ask(Some(Verdict::Expired)));
}

#[test]
fn a_row_from_before_this_nodes_start_has_its_age() {
    let mut court = Court::new(TERMS, at(0));
    let judged_at_ms = BEGIN_MS - millis(TERMS.lifetime);
    court.row_put([0; 32], active(None), judged_at_ms, 7, at(0));
    let found = court.finding(&[0; 32], Purpose::Beat, at(0));
    assert_eq!(found, Finding::Ask(Some(active(None))));
}

#[test]
fn what_strangers_bring_about_is_worth_no_row_unless_it_contradicts_one() {
    let court = Court::new(TERMS, at(0));
    for verdict in [Verdict::Unknown, Verdict::NotOwner, Verdict::Slashed] {
        assert!(!court.is_worth_a_row(&[0; 32], &verdict, at(0)));
        assert!(with_row(active(None)).is_worth_a_row(&[0; 32], &verdict, at(0)));
    }
    assert!(court.is_worth_a_row(&[0; 32], &active(None), at(0)));
    let court = with_row(active(None));
    assert!(!court.is_worth_a_row(&[0; 32], &active(None), at(0)));
    let half = after(limits::VERDICT_LIFETIME / 2);
    assert!(court.is_worth_a_row(&[0; 32], &active(None), half));
}

#[test]
fn a_judgement_that_a_row_overtook_changes_nothing() {
    let mut court = with_row(active(None));
    court.row_put([0; 32], Verdict::Slashed, BEGIN_MS, 8, at(1));
    court.judged([0; 32], active(None), 7, at(2));
    court.row_put([0; 32], active(None), BEGIN_MS, 7, at(2));
    court.row_deleted(&[0; 32], 6);
    let found = court.finding(&[0; 32], Purpose::Beat, at(3));
    assert_eq!(found, Finding::Stands(Verdict::Slashed));
}

#[test]
fn strangers_push_out_strangers_and_no_row() {
    let mut court = with_row(active(None));
    let case = |number: u64| {
        let mut case = [1; 32];
        case[1..9].copy_from_slice(&number.to_be_bytes());
        case
    };
    let many = limits::PASSING_VERDICTS_LIMIT as u64 + 10;
    for number in 0..many {
        court.judged(case(number), Verdict::Unknown, 0, at(number));
    }
    let now = at(many);
    assert_eq!(court.size().0, limits::PASSING_VERDICTS_LIMIT + 1);
    let found = |case| court.finding(&case, Purpose::Beat, now);
    assert_eq!(found([0; 32]), Finding::Stands(active(None)));
    assert_eq!(found(case(9)), Finding::Ask(None));
    assert_eq!(found(case(10)), Finding::Stands(Verdict::Unknown));
}

#[test]
fn the_first_key_binds_and_only_a_newer_proof_binds_another() {
    let mut court = Court::new(TERMS, at(0));
    let token = TokenHash([5; 32]);
    let (own, other) = (Some(KeyHash([1; 32])), Some(KeyHash([2; 32])));
    let presented =
        |key: Option<KeyHash>, is_the_nodes| key.map(|hash| PresentedKey { hash, is_the_nodes });
    let bind = |key, proved_at_s| {
        KeyCheck::Bind(BoundKey {
            key,
            proved_at_s,
            token_expires_at_s: None,
            bound_at_ms: at(0).unix_ms,
        })
    };
    let check = |court: &Court, key, proof| {
        court.check_key(&token, presented(key, false), proof, None, at(0))
    };
    assert_eq!(check(&court, None, None), KeyCheck::Fits);
    assert_eq!(check(&court, own, None), bind(own, None));
    let bound = |key, proved_at_s| BoundKey {
        key,
        proved_at_s,
        token_expires_at_s: None,
        bound_at_ms: 0,
    };
    court.key_put(token, bound(own, None), 1);
    assert_eq!(check(&court, own, None), KeyCheck::Fits);
    assert_eq!(check(&court, other, None), KeyCheck::Other);
    assert_eq!(check(&court, None, None), KeyCheck::Other);
    // A kubelet's next certificate is the quorum's own word for the next key.
    let renewed = court.check_key(&token, presented(other, true), None, None, at(0));
    assert_eq!(renewed, bind(other, None));
    assert_eq!(check(&court, other, Some(9)), bind(other, Some(9)));
    court.key_put(token, bound(other, Some(9)), 2);
    assert_eq!(check(&court, own, Some(9)), KeyCheck::Other);
    assert_eq!(check(&court, None, Some(10)), bind(None, Some(10)));
    court.key_put(token, bound(None, Some(10)), 3);
    assert_eq!(check(&court, None, None), KeyCheck::Fits);
    assert_eq!(check(&court, own, None), bind(own, Some(10)));
}

#[test]
fn when_no_more_tokens_can_be_bound_a_key_is_refused_for_now() {
    let mut court = Court::new(TERMS, at(0));
    let bound = BoundKey {
        key: Some(KeyHash([1; 32])),
        proved_at_s: None,
        token_expires_at_s: None,
        bound_at_ms: 0,
    };
    let token = |number: usize| {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        TokenHash(hash)
    };
    for number in 0..limits::VERDICTS_LIMIT {
        court.key_put(token(number), bound, 1);
    }
    let check = |number, key: u8| {
        let key = PresentedKey {
            hash: KeyHash([key; 32]),
            is_the_nodes: false,
        };
        court.check_key(&token(number), Some(key), None, None, at(0))
    };
    assert_eq!(check(0, 1), KeyCheck::Fits);
    assert_eq!(check(0, 2), KeyCheck::Other);
    assert_eq!(check(limits::VERDICTS_LIMIT, 1), KeyCheck::Full);
}

/// What can happen to one of a few cases.
#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Row(u8, Verdict),
    Judged(u8, Verdict),
    Deleted(u8),
    Reached(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let verdict = prop_oneof![
        Just(active(None)),
        (0..20_000_u64).prop_map(|s| active(Some(BEGIN_MS / 1000 + s))),
        Just(Verdict::Slashed),
        Just(Verdict::Unknown),
    ];
    let step = prop_oneof![
        (0..4_000_000_u64).prop_map(Step::Pass),
        (0..3_u8, verdict.clone()).prop_map(|(case, verdict)| Step::Row(case, verdict)),
        (0..3_u8, verdict).prop_map(|(case, verdict)| Step::Judged(case, verdict)),
        (0..3_u8).prop_map(Step::Deleted),
        any::<bool>().prop_map(Step::Reached),
    ];
    prop::collection::vec(step, 0..60)
}

/// The last thing that counts of a case: what was found, when, and whether a row says so.
type Model = BTreeMap<u8, (Verdict, u64, bool)>;

fn agrees(court: &Court, model: &Model, now_ms: u64) -> Result<(), TestCaseError> {
    let now = at(now_ms);
    for case in 0..3 {
        let finding = court.finding(&[case; 32], Purpose::Beat, now);
        let Some((verdict, judged_ms, has_row)) = model.get(&case) else {
            prop_assert_eq!(finding, Finding::Ask(None));
            continue;
        };
        let age = Duration::from_millis(now_ms - judged_ms);
        let is_over = matches!(verdict, Verdict::Active { expires_at: Some(end_s), .. }
            if now.unix_ms / 1000 >= *end_s);
        let is_good = matches!(verdict, Verdict::Active { .. }) && !is_over;
        let used = match &finding {
            Finding::Stands(verdict) | Finding::Aging(verdict) => Some(verdict),
            Finding::Ask(fallback) => fallback.as_ref(),
        };
        if let Some(used) = used {
            prop_assert_eq!(is_good, matches!(used, Verdict::Active { .. }));
            let holds = age < TERMS.grace || !is_good && age < TERMS.negative_lifetime;
            prop_assert!(holds, "{finding:?} at {age:?}");
        } else {
            prop_assert!(age >= TERMS.grace || !is_good && !has_row);
        }
        if matches!(finding, Finding::Stands(_)) && court.reach().reachable != Some(false) {
            let longest = if is_good {
                TERMS.lifetime * 3 / 4
            } else {
                TERMS.negative_lifetime
            };
            prop_assert!(age < longest);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn whatever_happens_the_last_word_counts_for_as_long_as_it_may(steps in steps()) {
        let mut court = Court::new(TERMS, at(0));
        let mut model = Model::new();
        let (mut now_ms, mut revision) = (0, 0);
        for step in steps {
            match step {
                Step::Pass(ms) => now_ms += ms,
                Step::Row(case, verdict) => {
                    revision += 1;
                    let now = at(now_ms);
                    court.row_put([case; 32], verdict.clone(), now.unix_ms, revision, now);
                    model.insert(case, (verdict, now_ms, true));
                }
                Step::Judged(case, verdict) => {
                    let asked_at = court.revision(&[case; 32]);
                    court.judged([case; 32], verdict.clone(), asked_at, at(now_ms));
                    let has_row = model.get(&case).is_some_and(|(.., has_row)| *has_row);
                    model.insert(case, (verdict, now_ms, has_row));
                }
                Step::Deleted(case) => {
                    revision += 1;
                    court.row_deleted(&[case; 32], revision);
                    model.remove(&case);
                }
                Step::Reached(reachable) => {
                    court.reached(reachable, at(now_ms));
                }
            }
            agrees(&court, &model, now_ms)?;
        }
    }
}
