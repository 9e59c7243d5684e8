//! The policy by the CLI: k of n operators change it, nobody else does, and a node
//! whose measurement is retired loses its vote.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nautilus_attest_tee::measure_file;
use nautilus_tests::{Quorum, Streamed, eventually};
use serde_json::Value;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The CLI, which must succeed.
fn ok(quorum: &Quorum, arguments: &[&str]) -> String {
    let output = quorum.nautilus(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    said(&output)
}

/// The CLI, which must fail by this exit code, saying this.
fn refused(quorum: &Quorum, code: i32, arguments: &[&str], words: &str) {
    let output = quorum.nautilus(arguments);
    assert_eq!(output.status.code(), Some(code), "{}", said(&output));
    assert!(said(&output).contains(words), "{}", said(&output));
}

fn json(quorum: &Quorum, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--output", "json"]].concat();
    let output = quorum.nautilus(&arguments);
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// An operator's new key.
fn key(quorum: &Quorum, name: &str, algorithm: &'static rcgen::SignatureAlgorithm) -> PathBuf {
    let key = rcgen::KeyPair::generate_for(algorithm).expect("a key");
    let path = quorum.dir().join(format!("{name}.key"));
    std::fs::write(&path, key.serialize_pem()).expect("written");
    path
}

/// The present policy in a file, changed.
fn changed(quorum: &Quorum, change: impl FnOnce(&mut Value)) -> PathBuf {
    let mut policy = json(quorum, &["policy", "get"]);
    change(&mut policy);
    let path = quorum.dir().join("changed.json");
    std::fs::write(&path, policy.to_string()).expect("written");
    path
}

fn epoch(quorum: &Quorum) -> u64 {
    let policy = json(quorum, &["policy", "get"]);
    policy["epoch"].as_u64().expect("an epoch")
}

/// Names three operators, two of whom must sign; gives the two new ones' keys.
fn three_operators(quorum: &Quorum) -> [PathBuf; 2] {
    let keys = [
        key(quorum, "ann", &rcgen::PKCS_ED25519),
        key(quorum, "bob", &rcgen::PKCS_ECDSA_P256_SHA256),
    ];
    let path = changed(quorum, |policy| {
        policy["threshold"] = 2.into();
        for (name, key) in ["ann", "bob"].into_iter().zip(&keys) {
            let public = json(quorum, &["policy", "key", text(key)]);
            let operator = serde_json::json!({ "name": name, "public_key": public["public_key"] });
            let operators = policy["operators"].as_array_mut().expect("operators");
            operators.push(operator);
        }
    });
    let said = ok(quorum, &["policy", "apply", text(&path)]);
    assert!(said.contains("policy epoch 2 is in force"), "{said}");
    keys
}

fn roles(quorum: &Quorum) -> Vec<(u64, String)> {
    let members = json(quorum, &["member", "list"]);
    let members = members.as_array().expect("a list").iter();
    members
        .map(|member| {
            let role = member["role"].as_str().unwrap_or_default().to_owned();
            (member["id"].as_u64().expect("an id"), role)
        })
        .collect()
}

/// The same program with a byte after its end: it runs, and it measures otherwise.
fn another_build(quorum: &Quorum) -> PathBuf {
    let path = quorum.dir().join("nautilus-next");
    let mut bytes = std::fs::read(Quorum::binary()).expect("the binary");
    bytes.push(0);
    std::fs::write(&path, bytes).expect("a copy");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode).expect("executable");
    path
}

#[test]
fn two_of_three_operators_change_the_policy_and_nobody_else_does() {
    let quorum = Quorum::start();
    assert_eq!(epoch(&quorum), 1);
    let [ann, bob] = three_operators(&quorum);

    let measurement = "ab".repeat(48);
    let path = changed(&quorum, |policy| {
        let allowed = &mut policy["evidence"]["kinds"]["simulated"]["measurements"];
        let allowed = allowed.as_array_mut().expect("measurements");
        allowed.push(serde_json::json!({ "measurement": measurement, "name": "next" }));
    });
    let diff = ok(&quorum, &["policy", "diff", text(&path)]);
    let line = format!("+ simulated measurement {measurement} (next)");
    assert!(diff.contains(&line), "{diff}");

    // One is not enough, and its approval waits.
    let one = ok(
        &quorum,
        &["policy", "apply", text(&path), "--key", text(&ann)],
    );
    assert!(
        one.contains("1 of 2 operators have approved; 1 more"),
        "{one}"
    );
    assert_eq!(epoch(&quorum), 2);
    // The same one again is not another one.
    let again = ok(
        &quorum,
        &["policy", "apply", text(&path), "--key", text(&ann)],
    );
    assert!(again.contains("1 of 2 operators"), "{again}");
    // A stranger is none.
    let stranger = key(&quorum, "eve", &rcgen::PKCS_ED25519);
    refused(
        &quorum,
        4,
        &["policy", "apply", text(&path), "--key", text(&stranger)],
        "is not an operator's",
    );
    // A signature for another quorum, handed in past the CLI, does not hold.
    let pending = json(&quorum, &["policy", "pending"]);
    let digest = pending[0]["digest"].as_str().expect("a digest").to_owned();
    let mut forged = serde_json::json!({
        "document": pending[0]["document"],
        "approvals": pending[0]["approvals"],
    });
    forged["approvals"][0]["signature"] = "00".repeat(64).into();
    let body = quorum.dir().join("forged.json");
    std::fs::write(&body, forged.to_string()).expect("written");
    let posted = quorum.kubectl(&[
        "create",
        "--raw",
        "/nautilus/v1/policy/changes",
        "-f",
        text(&body),
    ]);
    assert!(!posted.status.success());
    assert!(
        said(&posted).contains("signature of operator"),
        "{}",
        said(&posted)
    );

    let shown = ok(&quorum, &["policy", "pending"]);
    assert!(
        shown.contains(&line) && shown.contains(&digest[..16]),
        "{shown}"
    );
    let two = ok(
        &quorum,
        &["policy", "approve", &digest[..12], "--key", text(&bob)],
    );
    assert!(two.contains("policy epoch 3 is in force"), "{two}");
    assert_eq!(epoch(&quorum), 3);
    // The file was made from an epoch that is past.
    refused(
        &quorum,
        4,
        &["policy", "apply", text(&path), "--key", text(&ann)],
        "made from policy epoch 2",
    );
    let history = ok(&quorum, &["policy", "history"]);
    assert!(
        history.contains("ann, bob") || history.contains("bob, ann"),
        "{history}"
    );

    // Every node judges by it, a restarted one at once.
    let follower = quorum.follower();
    quorum.kill(&follower);
    quorum.up();
    let log = quorum.dir().join(format!("node-{}/log", follower.id));
    let log = std::fs::read_to_string(log).expect("its log");
    assert!(
        log.contains("origin=LastKnown") && log.contains("epoch=3"),
        "{log}"
    );
}

#[test]
fn a_policy_that_would_end_the_quorum_is_refused() {
    let quorum = Quorum::start();
    let path = changed(&quorum, |policy| {
        let kinds = &mut policy["evidence"]["kinds"];
        kinds["simulated"]["measurements"] =
            serde_json::json!([{ "measurement": "ab".repeat(48) }]);
    });
    eventually("what the voters run to be known", || {
        let output = quorum.nautilus(&["policy", "apply", text(&path)]);
        assert!(!output.status.success());
        let said = said(&output);
        if said.contains("only 0 of 3 voters would satisfy this policy")
            && !said.contains("not known")
        {
            Ok(())
        } else {
            Err(said)
        }
    });
    quorum.kubectl_ok(&["create", "configmap", "it-goes-on"]);
}

#[test]
fn a_node_whose_measurement_is_retired_is_cut_off_and_loses_its_vote() {
    let quorum = Quorum::start_with(&[("NAUTILUS_ATTESTATION_RENEWAL_INTERVAL", "500ms")]);
    let next = another_build(&quorum);
    let measurement = measure_file(&next).expect("measured").to_string();
    let path = changed(&quorum, |policy| {
        let allowed = &mut policy["evidence"]["kinds"]["simulated"]["measurements"];
        let allowed = allowed.as_array_mut().expect("measurements");
        allowed.push(serde_json::json!({ "measurement": measurement, "name": "next" }));
    });
    ok(&quorum, &["policy", "apply", text(&path)]);
    let present = measure_file(&Quorum::binary()).expect("measured");
    let (configuration, peer) = quorum.fourth(|table| {
        // It accepts the quorum's build too.
        let allowed = vec!["self".to_owned(), present.to_string()];
        table["attestation"]["allowed_measurements"] = toml::Value::from(allowed);
    });
    ok(&quorum, &["member", "add", "4", &peer]);
    let mut node = Command::new(&next);
    node.args(["node", "--config"]).arg(&configuration);
    let _running = Streamed::start(node);
    eventually("node 4's vote", || {
        let output = quorum.nautilus(&["member", "promote", "4"]);
        match output.status.success() {
            true => Ok(()),
            false => Err(said(&output)),
        }
    });

    let path = changed(&quorum, |policy| {
        let allowed = &mut policy["evidence"]["kinds"]["simulated"]["measurements"];
        let allowed = allowed.as_array_mut().expect("measurements");
        allowed.retain(|allowed| allowed["measurement"] != measurement.as_str());
    });
    ok(&quorum, &["policy", "apply", text(&path)]);
    eventually("three voters", || {
        let roles = roles(&quorum);
        match roles.len() {
            3 => Ok(()),
            _ => Err(format!("{roles:?}")),
        }
    });
    let logs = quorum.logs();
    assert!(logs.contains("cut off a peer"), "{logs}");
    assert!(logs.contains("took the vote from a node"), "{logs}");
    let cut: u64 = (1..=3).map(|node| cut_off(&quorum, node)).sum();
    assert!(cut >= 1, "no node counts a peer cut off");
    // The others renewed their evidence all the while, and go on.
    quorum.kubectl_ok(&["create", "configmap", "it-goes-on"]);
}

/// How many peers a node has cut off for their measurement.
fn cut_off(quorum: &Quorum, node: u64) -> u64 {
    let metrics = quorum.kubectl_on(node, &["get", "--raw", "/metrics"]);
    let counts = metrics.lines().filter_map(|line| {
        let labels = line.strip_prefix("nautilus_attest_peers_cut_off_total{")?;
        let (labels, count) = labels.split_once("} ")?;
        labels
            .contains("measurement")
            .then(|| count.parse::<u64>().ok())?
    });
    counts.sum()
}
