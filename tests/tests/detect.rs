//! The hardware a machine has, as the command line and a node see it. On a machine
//! with a TEE the second test has nothing to show, and says so.

use std::process::{Command, Output};

use nautilus_tests::Quorum;
use serde_json::Value;

fn nautilus(arguments: &[&str]) -> Output {
    Command::new(Quorum::binary())
        .args(arguments)
        .output()
        .expect("the command's end")
}

fn detected() -> Value {
    let output = nautilus(&["attest", "detect", "--output", "json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn every_kind_is_found_or_it_is_said_why_not() {
    let detected = detected();
    let kinds = detected["kinds"].as_array().expect("a list");
    let names: Vec<_> = kinds
        .iter()
        .filter_map(|kind| kind["kind"].as_str())
        .collect();
    assert_eq!(names, ["sgx", "nitro", "tdx", "snp"]);
    for kind in kinds {
        let explained = kind["measurement"].is_string() || kind["reason"].is_string();
        assert!(explained, "{kind}");
    }
    let first = kinds.iter().find(|kind| kind["found"] == true);
    assert_eq!(
        first.map_or(Value::Null, |kind| kind["kind"].clone()),
        detected["chosen"]
    );
    let table = nautilus(&["attest", "detect"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(
        table.starts_with("KIND") && table.contains("nitro"),
        "{table}"
    );
}

#[test]
fn a_node_without_hardware_does_not_start_and_says_what_it_looked_for() {
    if !detected()["chosen"].is_null() {
        eprintln!("this machine has a TEE: nothing to refuse");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("node.toml");
    let data = folder.path().join("data");
    let text = format!(
        "cluster_id = \"a\"\nnode_id = 1\ndata_dir = \"{}\"\nbootstrap = \"join\"\n\
         join_addresses = [\"127.0.0.1:1\"]\n[peer]\nlisten = \"127.0.0.1:0\"\n\
         [api]\nlisten = \"127.0.0.1:0\"\n[attestation]\nallow_simulated = true\n",
        data.display()
    );
    std::fs::write(&file, text).expect("written");
    let output = nautilus(&["node", "--config", file.to_str().expect("UTF-8")]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    for word in [
        "sgx: ",
        "/dev/nsm",
        "configfs",
        "attestation.provider = \\\"simulated\\\"",
    ] {
        assert!(
            said.contains(word) || said.contains(&word.replace('\\', "")),
            "{word}: {said}"
        );
    }
}
