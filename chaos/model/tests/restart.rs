//! Walks the model. Bounds stand at each test; all of them together take a minute or two
//! on two cores.

#![allow(clippy::unwrap_used)] // a test that can't unwrap has failed

use nautilus_chaos_model::{Action, Bounds, Rule, World};
use stateright::{Checker, Model, Property, UniformChooser};

const LEADERS: &str = "at most one leader in a term";
const VOTES: &str = "no two votes of one node are counted in one term";
const LOSS: &str = "no acknowledged entry is lost";

struct Restart(Bounds);

impl Model for Restart {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::begin(&self.0)]
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
            Property::sometimes("something is acknowledged", |_, world: &World| {
                !world.acknowledged.is_empty()
            }),
            Property::sometimes("a started node leads", |_, world: &World| {
                let mut started = world.processes.iter().flatten();
                started.any(|process| {
                    process.epoch > 1
                        && matches!(process.role, nautilus_chaos_model::Role::Leader { .. })
                })
            }),
        ]
    }
}

fn three(rule: Rule) -> Bounds {
    Bounds {
        nodes: 3,
        terms: 2,
        entries: 1,
        restarts: 1,
        twice: true,
        rule,
    }
}

/// Every state within the bounds.
fn exhaust(bounds: Bounds) {
    let checker = Restart(bounds).checker().threads(2).spawn_bfs().join();
    eprintln!("{} states, {bounds:?}", checker.unique_state_count());
    checker.assert_properties();
}

/// So many states along random walks.
fn walk(bounds: Bounds, states: usize) {
    let checker = Restart(bounds)
        .checker()
        .threads(2)
        .target_state_count(states)
        .spawn_simulation(6, UniformChooser)
        .join();
    eprintln!("{} states walked, {bounds:?}", checker.state_count());
    for property in [LEADERS, VOTES, LOSS] {
        checker.assert_no_discovery(property);
    }
}

fn finds(rule: Rule, property: &'static str) {
    let checker = Restart(three(rule))
        .checker()
        .threads(2)
        .finish_when(stateright::HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let path = checker.discovery(property);
    let path = path.unwrap_or_else(|| panic!("{rule:?} is not found to break: {property}"));
    eprintln!("{rule:?}: {}", path.into_actions().len());
}

#[test]
fn three_nodes_that_start_again_lose_nothing() {
    exhaust(three(Rule::Judge));
}

#[test]
fn three_nodes_that_start_again_and_again_lose_nothing() {
    let bounds = Bounds {
        terms: 4,
        entries: 3,
        restarts: 4,
        ..three(Rule::Judge)
    };
    walk(bounds, 400_000);
}

#[test]
fn five_nodes_that_start_again_lose_nothing() {
    let bounds = Bounds {
        nodes: 5,
        terms: 4,
        entries: 3,
        restarts: 4,
        ..three(Rule::Judge)
    };
    walk(bounds, 400_000);
}

#[test]
fn without_the_rule_the_checker_finds_a_lost_entry() {
    finds(Rule::TrustDisk, LOSS);
}
