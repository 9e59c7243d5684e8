//! Whatever comes and goes, seats are not exceeded, flows are served in turn, and what
//! a level keeps to itself is there.

use std::collections::{BTreeMap, VecDeque};

use nautilus_machinery::identity::User;
use proptest::prelude::*;

use super::*;

fn level(name: &str, shares: u64, lends: u64, queues: usize) -> PriorityLevel {
    PriorityLevel {
        name: name.into(),
        uid: "".into(),
        exempt: false,
        shares,
        lendable_percent: lends,
        borrowing_limit_percent: None,
        queuing: (queues > 0).then_some(Queuing {
            queues,
            hand_size: queues.min(3),
            length_limit: 20,
        }),
    }
}

#[derive(Debug, Clone)]
enum Step {
    Arrive { level: usize, flow: u64, seats: u64 },
    Finish(usize),
    GiveUp(usize),
    Configure(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_usize, 0..5_u64, 1..4_u64)
            .prop_map(|(level, flow, seats)| Step::Arrive { level, flow, seats }),
        4 => any::<usize>().prop_map(Step::Finish),
        1 => any::<usize>().prop_map(Step::GiveUp),
        1 => (1..60_u64).prop_map(Step::Configure),
    ]
}

const LEVELS: [&str; 3] = ["a", "b", "c"];

fn levels(shares: u64) -> Vec<PriorityLevel> {
    vec![
        level("a", 30, 50, 8),
        level("b", shares, 90, 1),
        level("c", 10, 0, 0),
    ]
}

proptest! {
    #[test]
    fn seats_are_never_exceeded_and_a_flow_is_served_in_order(
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut fairness = Fairness::new(12, &levels(20));
        let mut running: Vec<(usize, Ticket)> = Vec::new();
        let mut waiting: BTreeMap<(usize, u64), VecDeque<Ticket>> = BTreeMap::new();
        // A level whose share shrank may be over until what runs has ended.
        let mut most = fairness.capacity();
        for step in steps {
            match step {
                Step::Arrive { level, flow, seats } => {
                    match fairness.arrive(LEVELS[level], flow, seats) {
                        Arrival::Runs(ticket) => running.push((level, ticket)),
                        Arrival::Waits(ticket) => {
                            waiting.entry((level, flow)).or_default().push_back(ticket);
                        }
                        Arrival::Refused(_) => {}
                    }
                }
                Step::Finish(which) if !running.is_empty() => {
                    let (level, ticket) = running.swap_remove(which % running.len());
                    fairness.finish(LEVELS[level], ticket);
                }
                Step::GiveUp(which) => {
                    let all: Vec<_> = waiting
                        .iter()
                        .flat_map(|(key, list)| list.iter().map(|ticket| (*key, *ticket)))
                        .collect();
                    if let Some((key, ticket)) = all.get(which % all.len().max(1)) {
                        prop_assert!(fairness.give_up(LEVELS[key.0], *ticket));
                        waiting.entry(*key).or_default().retain(|own| own != ticket);
                    }
                }
                Step::Configure(shares) => {
                    fairness.configure(&levels(shares));
                    let used: u64 = fairness.levels().map(|(_, view)| view.used).sum();
                    most = fairness.capacity().max(used);
                }
                Step::Finish(_) => {}
            }
            while let Some(ticket) = fairness.start_next() {
                let found = waiting
                    .iter_mut()
                    .find(|(_, list)| list.contains(&ticket));
                let (key, list) = found.expect("what is started has waited");
                prop_assert_eq!(list.pop_front(), Some(ticket), "out of order in a flow");
                running.push((key.0, ticket));
            }
            let used: u64 = fairness.levels().map(|(_, view)| view.used).sum();
            // A request wider than its level may run alone there.
            prop_assert!(used <= most.max(fairness.capacity()) + 3 * 3, "{used} of {most}");
            for (_, view) in fairness.levels() {
                prop_assert!(view.used <= view.share.upper.max(3).max(most));
            }
        }
        // Nothing is left behind: when everything ends, everything was served.
        while let Some((level, ticket)) = running.pop() {
            fairness.finish(LEVELS[level], ticket);
            while let Some(ticket) = fairness.start_next() {
                for ((level, _), list) in &mut waiting {
                    if list.contains(&ticket) {
                        list.retain(|own| *own != ticket);
                        running.push((*level, ticket));
                    }
                }
            }
        }
        prop_assert!(waiting.values().all(VecDeque::is_empty), "somebody starved");
    }
}

#[test]
fn a_noisy_flow_does_not_hold_up_a_quiet_one() {
    let mut fairness = Fairness::new(1, &[level("a", 1, 0, 8)]);
    let Arrival::Runs(mut running) = fairness.arrive("a", 1, 1) else {
        panic!("the first runs");
    };
    for _ in 0..15 {
        assert!(matches!(fairness.arrive("a", 1, 1), Arrival::Waits(_)));
    }
    let Arrival::Waits(quiet) = fairness.arrive("a", 0x9e37_79b9_7f4a_7c15, 1) else {
        panic!("the quiet one waits");
    };
    let mut turns = 0;
    while running != quiet {
        fairness.finish("a", running);
        running = fairness.start_next().expect("somebody waits");
        turns += 1;
    }
    assert!(turns <= 8, "it waited for {turns} of the noisy flow's");
}

#[test]
fn lent_seats_come_back_and_kept_ones_were_never_away() {
    let levels = [level("a", 50, 50, 4), level("b", 50, 0, 4)];
    let mut fairness = Fairness::new(20, &levels);
    let runs = |arrival| match arrival {
        Arrival::Runs(ticket) => Some(ticket),
        _ => None,
    };
    let taken: Vec<Ticket> = (0..30)
        .filter_map(|flow| runs(fairness.arrive("b", flow, 1)))
        .collect();
    // Its own ten, and the five that the other lends.
    assert_eq!(taken.len(), 15);
    let kept = (0..10).filter_map(|flow| runs(fairness.arrive("a", flow, 1)));
    assert_eq!(kept.count(), 5);
    fairness.finish("b", taken[0]);
    let next = fairness.start_next().expect("both levels wait");
    let used: BTreeMap<&str, u64> = fairness
        .levels()
        .map(|(name, view)| (&**name, view.used))
        .collect();
    assert_eq!(used["a"], 6, "{next:?} is not the lender's");
}

#[test]
fn requests_belong_where_the_defaults_put_them() {
    let schemas = Schemas::built_in();
    let leases = About::Resource {
        group: "coordination.k8s.io",
        resource: "leases",
        namespace: "kube-node-lease",
    };
    let pods = About::Resource {
        group: "",
        resource: "pods",
        namespace: "",
    };
    let place = |name: &str, groups: &[&str], verb: &str, about| {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let user = User::authenticated(name, groups);
        let digest = Digest {
            user: &user,
            verb,
            about,
        };
        schemas
            .classify(&digest)
            .map(|found| format!("{}/{}", found.flow.schema, found.level))
            .unwrap_or_default()
    };
    let node = ("system:node:n1", ["system:nodes"]);
    for (wanted, found) in [
        (
            "exempt/exempt",
            place("admin", &["system:masters"], "list", pods),
        ),
        (
            "system-node-high/node-high",
            place(node.0, &node.1, "update", leases),
        ),
        ("system-nodes/system", place(node.0, &node.1, "list", pods)),
        (
            "system-leader-election/leader-election",
            place("system:serviceaccount:kube-system:x", &[], "update", leases),
        ),
        (
            "probes/exempt",
            place("jane", &[], "get", About::Path("/readyz/etcd")),
        ),
        (
            "global-default/global-default",
            place("jane", &[], "list", pods),
        ),
    ] {
        assert_eq!(found, wanted);
    }
}
