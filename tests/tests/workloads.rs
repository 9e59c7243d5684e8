//! The corpus on a quorum: every scenario comes to the end states that the reference comes
//! to, and does so too when the leader is lost right after a step.
//! `WORKLOADS="WORD WORD"` plays those alone whose names hold a word. What takes minutes is
//! for `make workloads`.

use anyhow::{Context as _, Result};
use nautilus_tests::Quorum;
use nautilus_tests::workloads::{Cluster, Nodes, Played, Player, Scenario, corpus, each};

fn expected(scenario: &Scenario) -> Result<Played> {
    let golden = std::fs::read(scenario.golden()).context("run `make workloads-golden`")?;
    Ok(serde_json::from_slice(&golden)?)
}

fn play(cluster: &Cluster, scenario: &Scenario, after_step: impl Fn(usize)) -> Result<()> {
    let mut player = Player::new(cluster, scenario)?;
    let repeated = player.repeat(&expected(scenario)?, after_step);
    player.end()?;
    repeated
}

fn scenarios() -> Vec<Scenario> {
    corpus(&std::env::var("WORKLOADS").unwrap_or_default()).expect("the corpus")
}

fn none(failures: &[String]) {
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn played(scenarios: &[Scenario]) {
    let quorum = Quorum::start();
    let cluster = Cluster::start(&quorum.dir().join("kubeconfig"), &Nodes::Standard);
    none(&each(scenarios, |scenario| {
        play(&cluster, scenario, |_| ())
    }));
}

#[test]
fn workloads_end_as_the_reference_ends_them() {
    let mut scenarios = scenarios();
    scenarios.retain(|scenario| !scenario.alone);
    played(&scenarios);
}

#[test]
#[ignore = "one after the other, for minutes: `make workloads`"]
fn workloads_that_want_the_cluster_for_themselves_end_so_too() {
    let mut scenarios = scenarios();
    scenarios.retain(|scenario| scenario.alone);
    played(&scenarios);
}

/// One scenario of each class, and each way in which nodes are lost.
const WITHOUT_LEADER: [&str; 16] = [
    "autoscalers/at-least",
    "budgets/min-available",
    "cronjobs/suspended",
    "daemonsets/everywhere",
    "deployments/rolling",
    "devices/one-device",
    "jobs/indexed",
    "nodes/broken",
    "nodes/drain",
    "owners/namespace-ends",
    "quotas/pods",
    "replicasets/scale",
    "scheduling/preemption",
    "services/cluster-ip",
    "statefulsets/ordered",
    "volumes/bound",
];

/// The leader is killed right after every step, and comes back.
#[test]
#[ignore = "each step costs a leader, for minutes: `make workloads`"]
fn a_lost_leader_changes_no_end() {
    let mut scenarios = scenarios();
    scenarios.retain(|scenario| WITHOUT_LEADER.contains(&scenario.name.as_str()));
    let quorum = Quorum::start();
    let cluster = Cluster::start(&quorum.dir().join("kubeconfig"), &Nodes::Standard);
    let lose_leader = |_| {
        quorum.kill(&quorum.leader());
        quorum.up();
    };
    let failures: Vec<String> = scenarios
        .iter()
        .filter_map(|scenario| {
            let played = play(&cluster, scenario, lose_leader);
            Some(format!("{}: {:#}", scenario.name, played.err()?))
        })
        .collect();
    none(&failures);
}
