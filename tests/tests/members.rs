//! Membership by the CLI: a fourth node comes, votes, leads and goes.

use std::process::Command;

use nautilus_tests::{Quorum, Streamed, eventually};
use serde_json::Value;

fn roles(quorum: &Quorum) -> Vec<(u64, String)> {
    let output = quorum.nautilus(&["member", "list", "--output", "json"]);
    assert!(output.status.success(), "{output:?}");
    let members: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let members = members.as_array().or_else(|| members["members"].as_array());
    members
        .expect("a list")
        .iter()
        .map(|member| {
            let role = member["role"].as_str().unwrap_or_default().to_owned();
            (member["id"].as_u64().expect("an id"), role)
        })
        .collect()
}

#[test]
fn a_fourth_node_joins_votes_leads_and_is_removed() {
    let quorum = Quorum::start();
    quorum.kubectl_ok(&["create", "configmap", "before-it-came"]);
    let (configuration, peer) = quorum.fourth(|_| {});

    // Nobody is let in who was not admitted.
    let mut node = Command::new(Quorum::binary());
    node.args(["node", "--config"]).arg(&configuration);
    let refused = node.output().expect("the node's end");
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("nautilus member add 4"), "{said}");

    let accepted = |arguments: &[&str]| {
        let output = quorum.nautilus(arguments);
        assert!(output.status.success(), "{output:?}");
    };
    accepted(&["member", "add", "4", &peer]);
    assert!(roles(&quorum).contains(&(4, "learner".to_owned())));
    let _running = Streamed::start(node);
    eventually("node 4's promotion", || {
        let output = quorum.nautilus(&["member", "promote", "4"]);
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("{output:?}"))
        }
    });
    assert_eq!(
        roles(&quorum)
            .iter()
            .filter(|(_, role)| role == "voter")
            .count(),
        4
    );

    accepted(&["member", "transfer", "4"]);
    eventually("a write under the new leader", || {
        let output = quorum.kubectl(&["create", "configmap", "while-it-leads"]);
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("{output:?}"))
        }
    });
    accepted(&["member", "remove", "4"]);
    eventually("three voters", || {
        let roles = roles(&quorum);
        if roles.len() == 3 {
            Ok(())
        } else {
            Err(format!("{roles:?}"))
        }
    });
    quorum.kubectl_ok(&["get", "configmap", "before-it-came", "while-it-leads"]);
}
