//! The roster against a plain model, and the promises it makes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::TokenHash;

const LOST_AFTER_MS: u64 = 90_000;
const SILENT: BeatFacts = BeatFacts {
    stake: None,
    stake_amount: None,
    running_pods: None,
    token_expires_at_s: None,
    load: Load {
        cpu: None,
        memory: None,
        disk: None,
    },
};

fn row(node_id: &str, phase: Phase) -> WorkerRow {
    WorkerRow {
        node_id: node_id.to_owned(),
        node_name: node_id.to_owned(),
        phase,
        owner: "0xa1".to_owned(),
        token_hash: TokenHash([7; 32]),
        token_expires_at_s: None,
        stake: Stake::Active,
        stake_amount: 1,
        running_pods: 0,
        registrations: 1,
        registered_at_ms: 0,
        phase_since_ms: 0,
    }
}

fn roster(rows: Vec<WorkerRow>, now_ms: u64) -> Roster {
    Roster::new(RosterSettings::default(), rows, now_ms)
}

/// Ticks every second up to `to_ms`, as the shell does.
fn run(roster: &mut Roster, from_ms: u64, to_ms: u64) {
    let mut now = from_ms;
    while now < to_ms {
        now += 1000;
        roster.tick(now.min(to_ms));
    }
}

#[test]
fn a_new_leader_gives_every_ready_worker_a_whole_deadline() {
    let mut roster = roster(vec![row("a", Phase::Ready)], 500_000);
    assert!(!roster.has_changes());
    run(&mut roster, 500_000, 500_000 + LOST_AFTER_MS - 1000);
    assert_eq!(roster.phase("a"), Some(Phase::Ready));
    run(
        &mut roster,
        500_000 + LOST_AFTER_MS - 1000,
        500_000 + LOST_AFTER_MS + 1000,
    );
    assert_eq!(roster.phase("a"), Some(Phase::Lost));
    assert_eq!(roster.take_changes(10).len(), 1);
}

#[test]
fn a_leader_that_did_not_run_loses_nobody() {
    let mut roster = roster(vec![row("a", Phase::Ready)], 0);
    assert_eq!(roster.tick(LOST_AFTER_MS * 10), Ticked::default());
    run(&mut roster, LOST_AFTER_MS * 10, LOST_AFTER_MS * 11 - 1000);
    assert_eq!(roster.phase("a"), Some(Phase::Ready));
}

#[test]
fn a_thousand_beats_of_a_ready_worker_replicate_nothing() {
    let mut roster = roster(vec![row("a", Phase::Ready)], 0);
    for now in 0..1000 {
        assert_eq!(roster.beat("a", "0xa1", SILENT, now), Heard::Acknowledged);
    }
    assert!(!roster.has_changes());
}

#[test]
fn the_number_of_pods_is_replicated_once_it_has_moved_by_a_step() {
    let mut roster = roster(vec![row("a", Phase::Ready)], 0);
    let pods = |running_pods| BeatFacts {
        running_pods: Some(running_pods),
        ..SILENT
    };
    roster.beat("a", "0xa1", pods(limits::PODS_STEP - 1), 1);
    assert!(!roster.has_changes());
    roster.beat("a", "0xa1", pods(limits::PODS_STEP), 2);
    assert_eq!(
        roster.take_changes(1)[0].state.running_pods,
        limits::PODS_STEP
    );
}

#[test]
fn a_change_that_failed_to_replicate_is_due_again_and_one_that_was_written_is_not() {
    let mut roster = roster(vec![row("a", Phase::Registered)], 0);
    roster.beat("a", "0xa1", SILENT, 1);
    assert_eq!(roster.take_changes(10)[0].state.phase, Phase::Ready);
    assert!(!roster.has_changes());
    roster.not_replicated("a");
    assert_eq!(roster.take_changes(10)[0].state.phase, Phase::Ready);
    roster.row_written(&row("a", Phase::Ready), 2);
    roster.not_replicated("a");
    assert!(!roster.has_changes());
}

#[test]
fn another_owners_beat_is_no_sign_of_life() {
    let mut roster = roster(vec![row("a", Phase::Registered)], 0);
    assert_eq!(roster.beat("a", "0xb2", SILENT, 1), Heard::NotOwner);
    assert_eq!(roster.phase("a"), Some(Phase::Registered));
}

#[test]
fn a_lost_worker_that_registers_again_gets_a_new_deadline() {
    let mut roster = roster(vec![row("a", Phase::Lost)], 0);
    roster.row_written(
        &WorkerRow {
            registrations: 2,
            ..row("a", Phase::Registered)
        },
        1000,
    );
    assert_eq!(roster.phase("a"), Some(Phase::Registered));
    assert!(!roster.has_changes());
    run(&mut roster, 0, LOST_AFTER_MS + 2000);
    assert_eq!(roster.phase("a"), Some(Phase::Lost));
}

#[test]
fn a_verdict_on_another_token_slashes_nobody() {
    let mut roster = roster(vec![row("a", Phase::Ready)], 0);
    roster.refused("a", &TokenHash([8; 32]), Stake::Slashed);
    assert!(!roster.has_changes());
    roster.refused("a", &TokenHash([7; 32]), Stake::Slashed);
    assert_eq!(roster.take_changes(1)[0].state.stake, Stake::Slashed);
}

#[test]
fn a_token_ends_by_the_clock_and_counts_again_with_a_beat_that_is_taken() {
    let ends = WorkerRow {
        token_expires_at_s: Some(100),
        ..row("a", Phase::Ready)
    };
    let mut roster = roster(vec![ends.clone(), row("b", Phase::Ready)], 0);
    roster.end_tokens(99);
    assert!(!roster.has_changes());
    roster.end_tokens(100);
    let changes = roster.take_changes(10);
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].state.stake, Stake::Expired);
    roster.row_written(
        &WorkerRow {
            stake: Stake::Expired,
            ..ends.clone()
        },
        0,
    );
    // Registered anew with a token that lives longer: that one's end counts.
    roster.row_written(
        &WorkerRow {
            registrations: 2,
            token_expires_at_s: Some(200),
            ..ends
        },
        0,
    );
    roster.end_tokens(150);
    assert!(!roster.has_changes());
    roster.end_tokens(200);
    assert_eq!(roster.take_changes(10)[0].state.stake, Stake::Expired);
    let until_200 = BeatFacts {
        token_expires_at_s: Some(200),
        ..SILENT
    };
    roster.beat("a", "0xa1", until_200, 0);
    assert!(!roster.has_changes());
}

#[test]
fn a_token_that_lives_on_does_so_under_the_next_leader_too() {
    let ends = WorkerRow {
        token_expires_at_s: Some(100),
        ..row("a", Phase::Ready)
    };
    let mut first = roster(vec![ends.clone()], 0);
    let extended = BeatFacts {
        token_expires_at_s: Some(900),
        ..SILENT
    };
    first.beat("a", "0xa1", extended, 50_000);
    first.end_tokens(200);
    let changes = first.take_changes(10);
    assert_eq!(changes.len(), 1);
    let state = changes[0].state;
    assert_eq!(
        (state.token_expires_at_s, state.stake),
        (Some(900), Stake::Active)
    );
    let written = WorkerRow {
        token_expires_at_s: state.token_expires_at_s,
        ..ends
    };
    first.row_written(&written, 60_000);
    first.beat("a", "0xa1", extended, 80_000);
    assert!(!first.has_changes(), "it is written once");
    let mut next = roster(vec![written], 0);
    next.end_tokens(200);
    assert!(!next.has_changes());
    next.end_tokens(900);
    assert_eq!(next.take_changes(1)[0].state.stake, Stake::Expired);
}

#[test]
fn a_workers_word_takes_its_stake_away_and_gives_none_back() {
    let says = |stake| BeatFacts {
        stake: Some(stake),
        ..SILENT
    };
    let mut roster = roster(vec![row("a", Phase::Ready)], 0);
    roster.beat("a", "0xa1", says(Stake::Slashed), 1);
    roster.beat("a", "0xa1", says(Stake::Active), 2);
    assert_eq!(roster.take_changes(9)[0].state.stake, Stake::Slashed);
    let registered = WorkerRow {
        registrations: 2,
        ..row("a", Phase::Ready)
    };
    roster.row_written(&registered, 3);
    assert!(!roster.has_changes());
}

#[test]
fn workers_beyond_the_limit_are_not_tracked() {
    let settings = RosterSettings {
        workers_limit: 1,
        ..RosterSettings::default()
    };
    let mut roster = Roster::new(settings, vec![row("a", Phase::Ready)], 0);
    assert!(roster.is_full());
    roster.row_written(&row("b", Phase::Registered), 0);
    assert_eq!(roster.beat("b", "0xa1", SILENT, 0), Heard::Unknown);
}

/// Workers `a0`, `a1`, … of zone `a`, and one of zone `b` that is heard all the time.
fn partitioned(workers: usize) -> Roster {
    let names: Vec<String> = (0..workers).map(|number| format!("a{number}")).collect();
    let ready = names.iter().map(|name| row(name, Phase::Ready));
    let rows = ready.chain([row("b", Phase::Ready)]).collect();
    let mut roster = roster(rows, 0);
    for name in &names {
        roster.placed(name, "a");
    }
    roster.placed("b", "b");
    roster.all_placed();
    roster
}

#[test]
fn a_partitioned_third_is_lost_at_once_and_evicted_one_by_one() {
    let mut roster = partitioned(300);
    let mut evicted = 0;
    for second in 1..=200 {
        let now = second * 1000;
        if second % 30 == 0 {
            for number in 100..300 {
                roster.beat(&format!("a{number}"), "0xa1", SILENT, now);
            }
            roster.beat("b", "0xa1", SILENT, now);
        }
        evicted += roster.tick(now).evicted;
    }
    let counts = roster.counts();
    assert_eq!(counts.of(Phase::Ready), 201);
    assert_eq!(counts.of(Phase::Lost) + counts.of(Phase::Evicted), 100);
    // From second 90 to 200, one in ten seconds.
    assert_eq!((evicted, counts.of(Phase::Evicted)), (12, 12));
    let changes = roster.take_changes(usize::MAX);
    assert_eq!(changes.len(), 100);
}

#[test]
fn nobody_stays_evicted_when_everybody_falls_silent() {
    let mut roster = partitioned(10);
    roster.beat("b", "0xa1", SILENT, 50_000);
    run(&mut roster, 0, 130_000);
    assert_eq!(roster.counts().of(Phase::Evicted), 5);
    run(&mut roster, 130_000, 150_000);
    assert_eq!(roster.counts().of(Phase::Lost), 11);
    run(&mut roster, 150_000, 900_000);
    assert_eq!(roster.counts().of(Phase::Lost), 11);
    // One is back: the others get an interval before the first of them goes.
    roster.beat("b", "0xa1", SILENT, 900_000);
    run(&mut roster, 900_000, 910_000);
    assert_eq!(roster.counts().of(Phase::Evicted), 0);
    run(&mut roster, 910_000, 912_000);
    assert_eq!(roster.counts().of(Phase::Evicted), 1);
}

#[test]
fn a_worker_that_comes_back_is_evicted_no_more() {
    let mut roster = partitioned(4);
    roster.beat("b", "0xa1", SILENT, 60_000);
    run(&mut roster, 0, 95_000);
    assert_eq!(roster.phase("a0"), Some(Phase::Evicted));
    roster.beat("a0", "0xa1", SILENT, 95_000);
    assert_eq!(roster.phase("a0"), Some(Phase::Ready));
}

#[test]
fn before_the_zones_are_known_nobody_is_evicted() {
    let mut roster = roster(vec![row("a", Phase::Lost), row("b", Phase::Ready)], 0);
    run(&mut roster, 0, 60_000);
    assert_eq!(roster.phase("a"), Some(Phase::Lost));
    roster.all_placed();
    run(&mut roster, 60_000, 61_000);
    assert_eq!(roster.phase("a"), Some(Phase::Evicted));
}

#[derive(Debug, Clone)]
enum Step {
    Register(usize),
    Beat(usize),
    Delete(usize),
    Seconds(u64),
    Replicate,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..4_usize).prop_map(Step::Register),
        (0..4_usize).prop_map(Step::Beat),
        (0..4_usize).prop_map(Step::Delete),
        (1..100_u64).prop_map(Step::Seconds),
        Just(Step::Replicate),
    ];
    prop::collection::vec(step, 1..60)
}

/// What the model knows of a worker: when it was last heard, its registrations, its
/// replicated phase.
type Model = BTreeMap<usize, (u64, u64, Phase)>;

proptest! {
    #[test]
    fn a_worker_is_lost_exactly_when_it_was_silent_for_a_whole_deadline(steps in steps()) {
        let mut now = 0;
        let mut roster = roster(Vec::new(), now);
        let mut model = Model::new();
        for step in steps {
            match step {
                Step::Register(who) => {
                    let registrations = model.get(&who).map_or(1, |worker| worker.1 + 1);
                    let phase = roster.phase(&who.to_string()).map_or(Phase::Registered, |phase| {
                        phase.after(Happening::Registration)
                    });
                    let row = WorkerRow { registrations, ..row(&who.to_string(), phase) };
                    roster.row_written(&row, now);
                    model.insert(who, (now, registrations, phase));
                }
                Step::Beat(who) => {
                    let heard = roster.beat(&who.to_string(), "0xa1", SILENT, now);
                    prop_assert_eq!(heard == Heard::Acknowledged, model.contains_key(&who));
                    if let Some(worker) = model.get_mut(&who) {
                        worker.0 = now;
                    }
                }
                Step::Delete(who) => {
                    roster.row_deleted(&who.to_string());
                    model.remove(&who);
                }
                Step::Seconds(seconds) => {
                    run(&mut roster, now, now + seconds * 1000);
                    now += seconds * 1000;
                }
                Step::Replicate => {
                    for change in roster.take_changes(usize::MAX) {
                        let who: usize = change.node_id.parse().expect("a number");
                        let worker = model.get_mut(&who).expect("only living workers change");
                        worker.2 = change.state.phase;
                        let row = WorkerRow { registrations: worker.1, ..row(&change.node_id, change.state.phase) };
                        roster.row_written(&row, now);
                    }
                    prop_assert!(!roster.has_changes());
                }
            }
            for phase in Phase::ALL {
                let counted = model
                    .keys()
                    .filter(|who| roster.phase(&who.to_string()) == Some(phase))
                    .count();
                prop_assert_eq!(roster.counts().of(phase), counted, "{:?}", phase);
            }
            for (who, (heard_ms, _, replicated)) in &model {
                let phase = roster.phase(&who.to_string()).expect("tracked");
                prop_assert_eq!(phase == Phase::Lost, now - heard_ms >= LOST_AFTER_MS, "{} at {}", who, now);
                prop_assert!(phase == *replicated || roster.has_changes());
            }
        }
    }
}
