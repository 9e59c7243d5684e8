//! The next step of a rolling upgrade: state in, step out.
//!
//! The order: allow the new measurement; then, one at a time, a node of the new build
//! joins, catches up and votes, and one of an old build stops and goes; at the end the
//! old measurements are retired. It knows neither clock nor network; whoever carries the
//! steps out looks at the quorum again after each, so that an upgrade that was cut short
//! goes on from whatever it finds.
//!
//! Invariant: no step takes a quorum that can act below a majority of living voters
//! ([`State::can_act`]); a step that would is refused, with the reason.

use serde::Serialize;

/// What a member runs, as far as this upgrade is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Build {
    /// Another build than the one to come.
    Old,
    /// The build to come.
    New,
    /// It has not joined yet.
    Unknown,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Node {
    /// Its id.
    pub(crate) id: u64,
    /// Whether it votes.
    pub(crate) votes: bool,
    /// Whether it answers.
    pub(crate) alive: bool,
    /// Whether it leads.
    pub(crate) leads: bool,
    /// What it runs.
    pub(crate) build: Build,
}

/// Everything the next step follows from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct State {
    /// How many voters the quorum has when nothing is under way.
    pub(crate) size: usize,
    /// Whether the policy names the new measurement.
    pub(crate) new_is_allowed: bool,
    /// Whether the policy names other measurements.
    pub(crate) old_is_allowed: bool,
    /// The members.
    pub(crate) nodes: Vec<Node>,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(crate) enum Step {
    /// Name the new measurement in the policy.
    Allow,
    /// Admit a node of the new build, under an id never used.
    Admit,
    /// Start the node of the new build that was admitted.
    Start {
        /// Which.
        id: u64,
    },
    /// Give it a vote, once it has caught up.
    Promote {
        /// Which.
        id: u64,
    },
    /// Take new clients away from a node of an old build, and stop it in order.
    Stop {
        /// Which.
        id: u64,
    },
    /// Hand leadership to a node of the new build.
    Transfer {
        /// Which.
        to: u64,
    },
    /// Take a node of an old build out of the membership.
    Remove {
        /// Which.
        id: u64,
    },
    /// Take the other measurements out of the policy.
    Retire,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// This.
    Step(Step),
    /// Nothing can be done without breaking the quorum, until this changes.
    Refuse(String),
    /// The upgrade is done.
    Done,
}

impl State {
    fn voters(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.votes)
    }

    fn living(&self) -> usize {
        self.voters().filter(|node| node.alive).count()
    }

    /// Whether a majority of the voters lives.
    pub(crate) fn can_act(&self) -> bool {
        self.living() >= majority(self.voters().count())
    }

    /// The next step.
    pub(crate) fn next(&self) -> Next {
        if !self.can_act() {
            return Next::Refuse(format!(
                "only {} of {} voters answer: start the others first",
                self.living(),
                self.voters().count()
            ));
        }
        if !self.new_is_allowed {
            return Next::Step(Step::Allow);
        }
        if let Some(learner) = self.nodes.iter().find(|node| !node.votes) {
            return self.learner(learner);
        }
        let voters = self.voters().count();
        match self.leaving() {
            Some(_) if voters <= self.size => Next::Step(Step::Admit),
            Some(old) => self.replace(old),
            None if voters < self.size => Next::Step(Step::Admit),
            None if self.old_is_allowed => Next::Step(Step::Retire),
            None => Next::Done,
        }
    }

    /// What to do with a member that does not vote yet.
    fn learner(&self, node: &Node) -> Next {
        let (voters, living) = (self.voters().count(), self.living());
        match (node.build, node.alive) {
            // It can't be of use any more, whether it lives or not.
            (Build::Old, _) => Next::Step(Step::Remove { id: node.id }),
            (_, false) => Next::Step(Step::Start { id: node.id }),
            (_, true) if living + 1 < majority(voters + 1) => Next::Refuse(format!(
                "with node {} there would be {} voters, of whom only {} answer: start the others first",
                node.id,
                voters + 1,
                living + 1
            )),
            (_, true) => Next::Step(Step::Promote { id: node.id }),
        }
    }

    /// The voter of an old build that goes next: one that does not answer first, the
    /// leader last.
    fn leaving(&self) -> Option<&Node> {
        self.voters()
            .filter(|node| node.build == Build::Old)
            .min_by_key(|node| (node.alive, node.leads, node.id))
    }

    /// One voter too many is there: `old` goes.
    fn replace(&self, old: &Node) -> Next {
        let (voters, living) = (self.voters().count(), self.living());
        let others = living - usize::from(old.alive);
        if others < majority(voters - 1) {
            return Next::Refuse(format!(
                "without node {} only {others} of {} voters would answer: start the others first",
                old.id,
                voters - 1
            ));
        }
        if !old.alive {
            return Next::Step(Step::Remove { id: old.id });
        }
        // Stopped first, it ends its clients' requests in order; where that would leave
        // too few for the membership as it is, it goes first and stops then.
        if others >= majority(voters) {
            return Next::Step(Step::Stop { id: old.id });
        }
        let heir = self
            .voters()
            .find(|node| node.alive && node.build == Build::New);
        match heir {
            Some(heir) if old.leads => Next::Step(Step::Transfer { to: heir.id }),
            _ => Next::Step(Step::Remove { id: old.id }),
        }
    }

    /// Every step that is still to come, if each succeeds; ends early with the reason
    /// when one is refused.
    pub(crate) fn plan(&self) -> (Vec<Step>, Option<String>) {
        let (mut state, mut steps) = (self.clone(), Vec::new());
        loop {
            match state.next() {
                Next::Done => return (steps, None),
                Next::Refuse(reason) => return (steps, Some(reason)),
                Next::Step(step) => {
                    state.succeed(&step);
                    steps.push(step);
                }
            }
        }
    }

    /// The state after a step that succeeded.
    fn succeed(&mut self, step: &Step) {
        let next_id = self.nodes.iter().map(|node| node.id).max().unwrap_or(0) + 1;
        match *step {
            Step::Allow => self.new_is_allowed = true,
            Step::Admit => self.nodes.push(Node {
                id: next_id,
                votes: false,
                alive: false,
                leads: false,
                build: Build::Unknown,
            }),
            Step::Start { id } => self.change(id, |node| {
                node.alive = true;
                node.build = Build::New;
            }),
            Step::Promote { id } => self.change(id, |node| node.votes = true),
            Step::Stop { id } => {
                self.change(id, |node| {
                    node.alive = false;
                    node.leads = false;
                });
                self.elect();
            }
            Step::Transfer { to } => {
                for node in &mut self.nodes {
                    node.leads = node.id == to;
                }
            }
            Step::Remove { id } => {
                self.nodes.retain(|node| node.id != id);
                self.elect();
            }
            Step::Retire => self.old_is_allowed = false,
        }
    }

    fn change(&mut self, id: u64, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.nodes.iter_mut().find(|node| node.id == id) {
            change(node);
        }
    }

    fn elect(&mut self) {
        let leads = |node: &Node| node.votes && node.alive && node.leads;
        if self.nodes.iter().any(leads) {
            return;
        }
        for node in &mut self.nodes {
            node.leads = false;
        }
        if let Some(node) = self.nodes.iter_mut().find(|node| node.votes && node.alive) {
            node.leads = true;
        }
    }
}

fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A quorum of `size` old nodes, the first of which leads.
    fn quorum(size: u64) -> State {
        State {
            size: usize::try_from(size).expect("small"),
            new_is_allowed: false,
            old_is_allowed: true,
            nodes: (1..=size)
                .map(|id| Node {
                    id,
                    votes: true,
                    alive: true,
                    leads: id == 1,
                    build: Build::Old,
                })
                .collect(),
        }
    }

    fn done(state: &State) -> bool {
        let voters: Vec<&Node> = state.voters().collect();
        voters.len() == state.size
            && voters.iter().all(|node| node.build == Build::New)
            && !state.old_is_allowed
    }

    #[test]
    fn three_nodes_are_replaced_one_at_a_time_and_the_leader_last() {
        let (steps, refused) = quorum(3).plan();
        let text = serde_json::to_string(&steps).expect("JSON");
        expect_test::expect![[r#"[{"step":"allow"},{"step":"admit"},{"step":"start","id":4},{"step":"promote","id":4},{"step":"stop","id":2},{"step":"remove","id":2},{"step":"admit"},{"step":"start","id":5},{"step":"promote","id":5},{"step":"stop","id":3},{"step":"remove","id":3},{"step":"admit"},{"step":"start","id":6},{"step":"promote","id":6},{"step":"stop","id":1},{"step":"remove","id":1},{"step":"retire"}]"#]]
        .assert_eq(&text);
        assert_eq!(refused, None);
    }

    #[test]
    fn a_quorum_of_one_hands_over_before_the_old_node_goes() {
        let (steps, refused) = quorum(1).plan();
        assert_eq!(refused, None);
        let expected = [
            Step::Transfer { to: 2 },
            Step::Remove { id: 1 },
            Step::Retire,
        ];
        assert_eq!(&steps[steps.len() - 3..], expected);
    }

    #[test]
    fn a_node_that_is_down_goes_first_and_is_not_waited_for() {
        let mut state = quorum(3);
        state.nodes[2].alive = false;
        let (steps, refused) = state.plan();
        assert_eq!(refused, None);
        let first = steps
            .iter()
            .find(|step| matches!(step, Step::Remove { .. }));
        assert_eq!(first, Some(&Step::Remove { id: 3 }));
        assert!(!steps.contains(&Step::Stop { id: 3 }));
    }

    #[test]
    fn a_step_that_would_break_the_quorum_is_refused_with_the_reason() {
        let mut state = quorum(3);
        (state.nodes[1].alive, state.nodes[2].alive) = (false, false);
        let Next::Refuse(reason) = state.next() else {
            panic!("not refused")
        };
        assert_eq!(reason, "only 1 of 3 voters answer: start the others first");
    }

    #[test]
    fn with_a_new_voter_down_an_old_one_that_is_down_too_goes_and_no_living_one() {
        let mut state = quorum(4);
        state.new_is_allowed = true;
        state.nodes.push(Node {
            id: 5,
            votes: true,
            alive: false,
            leads: false,
            build: Build::New,
        });
        state.nodes[3].alive = false;
        let step = state.next();
        assert_eq!(step, Next::Step(Step::Remove { id: 4 }));
    }

    #[test]
    fn an_upgrade_that_was_done_asks_for_nothing() {
        let mut state = quorum(3);
        let (steps, _) = state.plan();
        for step in &steps {
            state.succeed(step);
        }
        assert!(done(&state), "{state:?}");
        assert_eq!(state.next(), Next::Done);
    }

    proptest::proptest! {
        /// Whatever dies, comes back or takes over between two steps: a step never takes
        /// a quorum that can act below a majority, and once all live the upgrade ends.
        #[test]
        fn no_step_breaks_the_quorum_and_every_upgrade_ends(
            size in 1u64..8,
            events in proptest::collection::vec((0u8..4, 0usize..16), 0..80),
        ) {
            let mut state = quorum(size);
            for (event, at) in events {
                let at = at % state.nodes.len();
                match event {
                    0 => state.nodes[at].alive = false,
                    1 if state.nodes[at].build != Build::Unknown => state.nodes[at].alive = true,
                    2 if state.nodes[at].votes && state.nodes[at].alive => {
                        let id = state.nodes[at].id;
                        state.succeed(&Step::Transfer { to: id });
                    }
                    _ => {
                        let could_act = state.can_act();
                        if let Next::Step(step) = state.next() {
                            proptest::prop_assert!(could_act);
                            state.succeed(&step);
                            proptest::prop_assert!(state.can_act(), "after {step:?}: {state:?}");
                        }
                    }
                }
                state.elect();
            }
            for node in &mut state.nodes {
                node.alive = node.build != Build::Unknown;
            }
            let mut left = 200;
            while let Next::Step(step) = state.next() {
                state.succeed(&step);
                proptest::prop_assert!(state.can_act(), "after {step:?}: {state:?}");
                left -= 1;
                proptest::prop_assert!(left > 0, "no end: {state:?}");
            }
            proptest::prop_assert_eq!(state.next(), Next::Done);
            proptest::prop_assert!(done(&state), "{:?}", state);
        }
    }
}
