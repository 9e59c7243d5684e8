//! Walks the model. Each search begins after a script, says how deep it goes, and covers
//! every interleaving up to there; the random walks go on from where searches must stop.
//! All together take about a minute unoptimized on two cores.

#![allow(clippy::unwrap_used)] // a test that can't unwrap has failed

use nautilus_chaos_model::{Action, Bounds, Disk, Message, Role, Rule, World};
use stateright::{Checker, HasDiscoveries, Model, Property};

const LEADERS: &str = "at most one leader in a term";
const VOTES: &str = "no two votes of one node elect in one term";
const LOSS: &str = "no acknowledged entry is lost";

/// A model that begins with a script.
struct Restart(Bounds, World);

impl Restart {
    fn after(bounds: Bounds, script: &[Action]) -> Self {
        let begin = World::begin(&bounds);
        let world = script.iter().fold(begin, |world, action| {
            let next = world.step(&bounds, action);
            next.unwrap_or_else(|| panic!("{action:?} does nothing"))
        });
        Self(bounds, world)
    }
}

impl Model for Restart {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.1.clone()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        world.actions(&self.0, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        world.step(&self.0, &action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(LEADERS, |_, world: &World| world.elections_are_safe()),
            Property::always(VOTES, |_, world: &World| world.votes_are_single()),
            Property::always(LOSS, |_, world: &World| {
                world.nothing_acknowledged_is_lost()
            }),
        ]
    }
}

fn three(rule: Rule) -> Bounds {
    Bounds {
        nodes: 3,
        terms: 3,
        entries: 2,
        restarts: 1,
        twice: false,
        rule,
    }
}

fn ack(follower: u8) -> Action {
    Action::Deliver(Message::Ack {
        follower,
        epoch: 1,
        term: 1,
        upto: 1,
        to: 0,
    })
}

/// The disk every node has at the beginning.
fn first_disk() -> Disk {
    Disk {
        term: 1,
        voted: Some(0),
        log: Vec::new(),
        known: [(0, 1), (1, 1), (2, 1)].into(),
    }
}

/// Node 0 leads; an entry was acknowledged by node 1, and not by the others.
fn acknowledged() -> Vec<Action> {
    vec![Action::Write(0), Action::Send(0, 1), ack(1)]
}

/// Then the host put back node 1's first disk.
fn rolled_back() -> Vec<Action> {
    let mut script = acknowledged();
    script.push(Action::Start(1, first_disk(), false));
    script
}

/// Then the host started a second process of node 1 beside the first.
fn twice() -> Vec<Action> {
    let mut script = acknowledged();
    let disk = World::begin(&three(Rule::Judge));
    let present = script.iter().fold(disk, |world, action| {
        world.step(&three(Rule::Judge), action).unwrap()
    });
    let disk = present.processes[1].as_ref().unwrap().disk.clone();
    script.push(Action::Start(1, disk, true));
    script
}

/// Every interleaving of `depth` steps after the script.
fn explore(bounds: Bounds, script: &[Action], depth: usize) {
    let checker = Restart::after(bounds, script)
        .checker()
        .threads(2)
        .target_max_depth(depth)
        .spawn_bfs()
        .join();
    eprintln!(
        "{} states, depth {depth}, {bounds:?}",
        checker.unique_state_count()
    );
    checker.assert_properties();
}

/// So many random walks from the beginning, each of so many steps; the same ones every
/// time. Prints the walk that breaks something.
fn walk(bounds: Bounds, walks: u64, steps: usize) {
    let mut elections = 0;
    for seed in 1..=walks {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut world = World::begin(&bounds);
        let mut path = Vec::new();
        let mut actions = Vec::new();
        while path.len() < steps {
            actions.clear();
            world.actions(&bounds, &mut actions);
            let next = loop {
                if actions.is_empty() {
                    break None;
                }
                // xorshift64.
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let chosen = usize::try_from(random % actions.len() as u64).unwrap();
                let action = actions.swap_remove(chosen);
                if let Some(next) = world.step(&bounds, &action) {
                    break Some((action, next));
                }
            };
            let Some((action, next)) = next else { break };
            path.push(action);
            world = next;
            for (holds, property) in [
                (world.elections_are_safe(), LEADERS),
                (world.votes_are_single(), VOTES),
                (world.nothing_acknowledged_is_lost(), LOSS),
            ] {
                assert!(
                    holds,
                    "seed {seed} breaks: {property}\n{path:#?}\n{world:#?}"
                );
            }
        }
        elections += world.leaders.len() - 1;
    }
    eprintln!("{walks} walks, {elections} elections, {bounds:?}");
    assert!(elections > 0, "nobody was elected");
}

/// The checker finds how `bounds.rule` breaks `property`.
fn finds(bounds: Bounds, script: &[Action], property: &'static str) {
    let checker = Restart::after(bounds, script)
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AllOf([property].into()))
        .target_max_depth(12)
        .spawn_bfs()
        .join();
    let states = checker.unique_state_count();
    let path = checker.discovery(property);
    let path =
        path.unwrap_or_else(|| panic!("{bounds:?}: {states} states never break: {property}"));
    eprintln!("{:?} breaks after {states} states: {property}", bounds.rule);
    for action in path.into_actions() {
        eprintln!("  {action:?}");
    }
}

#[test]
fn a_script_comes_to_a_leader_that_was_started_again() {
    let bounds = three(Rule::Judge);
    let mut script = rolled_back();
    script.extend([
        Action::Testify(3, 0),
        Action::Testify(3, 2),
        Action::Judge(3),
        Action::Send(0, 3),
        Action::Stand(3),
    ]);
    let Restart(_, world) = Restart::after(bounds, &script);
    let started = world.processes[3].as_ref().unwrap();
    assert!(matches!(started.role, Role::Candidate(_)));
    assert_eq!(started.disk.log.len(), 1, "it has what it had acknowledged");
}

#[test]
fn three_nodes_one_of_them_on_an_old_disk_lose_nothing() {
    explore(three(Rule::Judge), &rolled_back(), 8);
}

#[test]
fn three_nodes_one_of_them_started_twice_lose_nothing() {
    let bounds = Bounds {
        twice: true,
        ..three(Rule::Judge)
    };
    explore(bounds, &twice(), 7);
}

#[test]
fn three_nodes_that_start_again_and_again_lose_nothing() {
    let bounds = Bounds {
        terms: 4,
        entries: 3,
        restarts: 4,
        twice: true,
        ..three(Rule::Judge)
    };
    walk(bounds, 3_000, 60);
}

#[test]
fn five_nodes_that_start_again_and_again_lose_nothing() {
    let bounds = Bounds {
        nodes: 5,
        terms: 4,
        entries: 3,
        restarts: 4,
        twice: true,
        ..three(Rule::Judge)
    };
    walk(bounds, 2_000, 80);
}

#[test]
fn without_the_rule_the_checker_finds_a_lost_entry() {
    finds(three(Rule::TrustDisk), &rolled_back(), LOSS);
}

#[test]
fn without_the_floor_the_checker_finds_a_lost_entry() {
    finds(three(Rule::NoFloor), &rolled_back(), LOSS);
}

#[test]
fn without_the_fence_the_checker_finds_two_votes_of_one_node_that_elect() {
    let bounds = Bounds {
        twice: true,
        ..three(Rule::NoFence)
    };
    let mut script = twice();
    script.extend([
        Action::Testify(3, 0),
        Action::Testify(3, 2),
        Action::Judge(3),
    ]);
    finds(bounds, &script, VOTES);
}
