//! Records what the reference makes of every scenario of the corpus, or of those whose
//! names hold one of the arguments.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use nautilus_tests::workloads::{self, Cluster, Nodes, Player, Reference, Scenario, each};

fn main() -> Result<ExitCode> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let scenarios = workloads::corpus(&wanted.join(" "))?;
    let reference = Reference::start();
    let cluster = Cluster::start(&reference.kubeconfig(), &Nodes::Standard);
    let failures = each(&scenarios, |scenario| record(&cluster, scenario));
    for failure in &failures {
        eprintln!("{failure}");
    }
    eprintln!(
        "recorded {} of {}",
        scenarios.len() - failures.len(),
        scenarios.len()
    );
    Ok(match failures.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn record(cluster: &Cluster, scenario: &Scenario) -> Result<()> {
    let mut player = Player::new(cluster, scenario)?;
    let played = player.record();
    player.end()?;
    let path = scenario.golden();
    std::fs::create_dir_all(path.parent().context("a folder")?)?;
    std::fs::write(path, played?.text())?;
    Ok(())
}
