//! Membership by the CLI: a fourth node comes, votes, leads and goes.

use std::path::Path;
use std::process::Command;

use nautilus_attest_tee::PlatformSecret;
use nautilus_tests::{Quorum, Streamed, eventually};
use serde_json::Value;
use toml::Table;

/// A configuration for node 4, from node 2's.
fn fourth(quorum: &Quorum) -> (std::path::PathBuf, String) {
    let folder = quorum.dir().join("node-4");
    std::fs::create_dir(&folder).expect("a folder");
    PlatformSecret::load_or_create(&folder.join("platform-secret")).expect("a platform");
    let template = quorum.dir().join("node-2").join("config.toml");
    let text = std::fs::read_to_string(template).expect("node 2's configuration");
    let mut table: Table = text.parse().expect("TOML");
    let path = |path: &Path| toml::Value::from(path.to_str().expect("UTF-8"));
    table["node_id"] = toml::Value::from(4);
    table["data_dir"] = path(&folder.join("data"));
    table["attestation"]["platform_secret"] = path(&folder.join("platform-secret"));
    let mut peer = String::new();
    for section in ["etcd", "api", "peer"] {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        peer = free.local_addr().expect("its address").to_string();
        table[section]["listen"] = toml::Value::from(peer.clone());
    }
    let file = folder.join("config.toml");
    std::fs::write(&file, table.to_string()).expect("written");
    (file, peer)
}

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
    let (configuration, peer) = fourth(&quorum);

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
