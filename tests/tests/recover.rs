//! A quorum that lost most of its disks is brought back by its operators, and by nobody
//! else.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nautilus_attest_tee::PlatformSecret;
use nautilus_tests::{NodeStatus, Quorum, Streamed, eventually};
use serde_json::{Value, json};
use toml::Table;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// The CLI's JSON, or what it said instead.
fn ask(quorum: &Quorum, arguments: &[&str]) -> Result<Value, String> {
    let arguments = [arguments, &["--output", "json"]].concat();
    let output = quorum.nautilus(&arguments);
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).expect("JSON")),
        false => Err(said(&output)),
    }
}

/// An operator's new key.
fn key(quorum: &Quorum, name: &str) -> PathBuf {
    let key = rcgen::KeyPair::generate().expect("a key");
    let path = quorum.dir().join(format!("{name}.key"));
    std::fs::write(&path, key.serialize_pem()).expect("written");
    path
}

/// Adds ann and bob to the operators, of whom two must agree from then on.
fn three_operators(quorum: &Quorum) -> [PathBuf; 2] {
    let keys = ["ann", "bob"].map(|name| key(quorum, name));
    let mut policy = ask(quorum, &["policy", "get"]).expect("the policy");
    policy["threshold"] = 2.into();
    for (name, key) in ["ann", "bob"].into_iter().zip(&keys) {
        let public = ask(quorum, &["policy", "key", text(key)]).expect("its public half");
        let operator = json!({ "name": name, "public_key": public["public_key"] });
        policy["operators"]
            .as_array_mut()
            .expect("a list")
            .push(operator);
    }
    let path = quorum.dir().join("changed.json");
    std::fs::write(&path, policy.to_string()).expect("written");
    ask(quorum, &["policy", "apply", text(&path)]).expect("applied");
    keys
}

fn data(quorum: &Quorum, node: u64) -> PathBuf {
    quorum.dir().join(format!("node-{node}")).join("data")
}

/// The terms of a node's copy of the escrow.
fn terms(quorum: &Quorum, node: u64) -> Value {
    let file = std::fs::read(data(quorum, node).join("escrow.json")).unwrap_or_default();
    let escrow: Value = serde_json::from_slice(&file).unwrap_or_default();
    escrow["terms"].clone()
}

fn generations(terms: &Value) -> Vec<u64> {
    let roots = terms["roots"].as_array().into_iter().flatten();
    roots
        .filter_map(|root| root["generation"].as_u64())
        .collect()
}

/// Waits until every node's escrow gives so many operators the roots of these generations.
fn escrowed(quorum: &Quorum, operators: usize, threshold: u64, wanted: &[u64]) {
    for node in 1..=3 {
        eventually("the escrow", || {
            let terms = terms(quorum, node);
            let holders = terms["operators"].as_array().map_or(0, Vec::len);
            let fits = holders == operators && terms["threshold"] == threshold;
            match fits && generations(&terms) == wanted {
                true => Ok(()),
                false => Err(format!("node {node}: {terms}")),
            }
        });
    }
}

fn start(quorum: &Quorum, node: u64, bootstrap: &str) -> Streamed {
    let path = quorum
        .dir()
        .join(format!("node-{node}"))
        .join("config.toml");
    let file = std::fs::read_to_string(&path).expect("its configuration");
    let mut table: Table = file.parse().expect("TOML");
    table.insert("bootstrap".into(), bootstrap.into());
    table.remove("join_addresses");
    std::fs::write(&path, table.to_string()).expect("written");
    let mut command = Command::new(Quorum::binary());
    command.args(["node", "--config"]).arg(&path);
    Streamed::start(command)
}

fn kill_all(quorum: &Quorum) -> Vec<NodeStatus> {
    let nodes = quorum.nodes();
    for node in &nodes {
        quorum.kill(node);
    }
    nodes
}

fn create(quorum: &Quorum, name: &str) {
    quorum.kubectl_ok(&["create", "configmap", name]);
}

/// New credentials by the first operator's key.
fn renew_kubeconfig(quorum: &Quorum, server: &str) {
    eventually("new credentials", || {
        let output = quorum.nautilus(&["kubeconfig", "--server", server]);
        output
            .status
            .success()
            .then_some(())
            .ok_or_else(|| said(&output))
    });
}

/// Whether the name of a kubeconfig's authority ends like this.
fn authority_names(kubeconfig: &str, wanted: &str) -> bool {
    let field = kubeconfig.split("certificate-authority-data: ").nth(1);
    let field = field.and_then(|rest| rest.split_whitespace().next());
    let pem = BASE64
        .decode(field.expect("an authority").trim_matches('"'))
        .expect("base64");
    let pem = String::from_utf8(pem).expect("PEM");
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = BASE64.decode(body).expect("base64");
    der.windows(wanted.len())
        .any(|window| window == wanted.as_bytes())
}

#[test]
fn two_of_three_operators_bring_a_quorum_back_from_one_disk() {
    let quorum = Quorum::start();
    escrowed(&quorum, 1, 1, &[1]);
    let [_ann, bob] = three_operators(&quorum);
    escrowed(&quorum, 3, 2, &[1]);
    create(&quorum, "before-the-rotation");
    ask(&quorum, &["keys", "rotate", "--wait"]).expect("rotated");
    escrowed(&quorum, 3, 2, &[2]);
    create(&quorum, "after-the-rotation");
    let never = ask(&quorum, &["recover", "status"]).expect("the status");
    assert_eq!(never["recoveries"], json!([]));

    let survivor = quorum.leader();
    let server = survivor.api.clone();
    kill_all(&quorum);
    for node in (1..=3).filter(|node| *node != survivor.id) {
        std::fs::remove_dir_all(data(&quorum, node)).expect("removed");
    }
    // What is left has no keys of its own either: they come from the shares alone.
    std::fs::remove_file(data(&quorum, survivor.id).join("sealed-keys")).expect("removed");
    let node = start(&quorum, survivor.id, "recover");

    let status = ["recover", "status", "--server", &server];
    let waiting = eventually("the desk", || ask(&quorum, &status));
    assert_eq!(
        (&waiting["waiting"], &waiting["submitted"]),
        (&json!(true), &json!([]))
    );
    let submit = |key: &Path, more: &[&str]| {
        let submit = ["recover", "submit", "--server", &server, "--key", text(key)];
        ask(&quorum, &[&submit, more].concat())
    };
    let first = quorum.dir().join("operator.key");
    let other_code = submit(&first, &["--measurement", "00ff"]).expect_err("no such code");
    assert!(
        other_code.contains("did not prove what it is"),
        "{other_code}"
    );
    let stranger = submit(&key(&quorum, "eve"), &[]).expect_err("a stranger");
    assert!(
        stranger.contains("no share is sealed to this key"),
        "{stranger}"
    );
    for _ in 0..2 {
        let taken = submit(&first, &[]).expect("taken");
        assert_eq!(
            (&taken["recovered"], &taken["submitted"]),
            (&json!(false), &json!(["admin"]))
        );
    }
    let waiting = ask(&quorum, &status).expect("still the desk");
    assert_eq!(waiting["submitted"], json!(["admin"]));
    let taken = submit(&bob, &[]).expect("taken");
    assert_eq!(taken["recovered"], true);

    let old = quorum.dir().join("old.kubeconfig");
    std::fs::copy(quorum.dir().join("kubeconfig"), &old).expect("kept");
    renew_kubeconfig(&quorum, &server);
    let kubeconfig = std::fs::read_to_string(quorum.dir().join("kubeconfig")).expect("written");
    assert!(
        authority_names(&kubeconfig, "recovery 1"),
        "an authority like any other"
    );
    let there = quorum.kubectl_ok(&["get", "configmaps", "-o", "name"]);
    assert!(
        there.contains("before-the-rotation") && there.contains("after-the-rotation"),
        "{there}"
    );
    create(&quorum, "after-the-recovery");
    let old = [
        "recover",
        "status",
        "--server",
        &server,
        "--kubeconfig",
        text(&old),
    ];
    assert!(
        ask(&quorum, &old).is_err(),
        "the old authority still counts"
    );

    let after = ask(&quorum, &["recover", "status", "--server", &server]).expect("the status");
    let recovery = &after["recoveries"][0];
    let by = recovery["operators"].as_array().expect("operators");
    assert!(
        by.len() == 2 && by.contains(&json!("admin")) && by.contains(&json!("bob")),
        "{after}"
    );
    assert_eq!(
        (&recovery["recovery"], &recovery["nodeId"]),
        (&json!(1), &json!(survivor.id))
    );
    eventually("the event", || {
        let events = quorum.kubectl_ok(&["get", "events"]);
        events
            .contains("QuorumRecovered")
            .then_some(())
            .ok_or(events)
    });
    let members = ask(&quorum, &["member", "list", "--server", &server]).expect("the members");
    assert_eq!(members.as_array().map(Vec::len), Some(1), "{members}");
    eventually("an escrow of the recovered quorum", || {
        let terms = terms(&quorum, survivor.id);
        (terms["recoveries"] == 1)
            .then_some(())
            .ok_or(terms.to_string())
    });

    // The same configuration once more is an ordinary start.
    drop(node);
    let _again = start(&quorum, survivor.id, "recover");
    eventually("an ordinary start", || {
        let output = quorum.kubectl(&["get", "configmap", "after-the-recovery"]);
        output
            .status
            .success()
            .then_some(())
            .ok_or_else(|| said(&output))
    });

    // It grows again, and its keys are rotated away from the disks that were lost.
    let _fourth = grow(&quorum, survivor.id, &server);
    ask(&quorum, &["keys", "rotate", "--wait", "--server", &server]).expect("rotated");
    eventually("the new root in the escrow, at both members", || {
        let both = [survivor.id, 4].map(|node| generations(&terms(&quorum, node)));
        (both == [[3], [3]])
            .then_some(())
            .ok_or(format!("{both:?}"))
    });
}

/// Admits a new master as node 4 through `founder`, starts it, and gives it a vote.
fn grow(quorum: &Quorum, founder: u64, server: &str) -> Streamed {
    let folder = quorum.dir().join("node-4");
    std::fs::create_dir(&folder).expect("a folder");
    PlatformSecret::load_or_create(&folder.join("platform-secret")).expect("a platform");
    let template = quorum
        .dir()
        .join(format!("node-{founder}"))
        .join("config.toml");
    let template = std::fs::read_to_string(template).expect("the founder's configuration");
    let mut table: Table = template.parse().expect("TOML");
    let path = |name: &str| toml::Value::from(text(&folder.join(name)));
    let known = table["peer"]["listen"].clone();
    table.insert("bootstrap".into(), "join".into());
    table.insert("join_addresses".into(), vec![known].into());
    table.insert("node_id".into(), 4.into());
    table.insert("data_dir".into(), path("data"));
    table["attestation"]["platform_secret"] = path("platform-secret");
    let mut peer = String::new();
    for section in ["etcd", "api", "peer"] {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        peer = free.local_addr().expect("its address").to_string();
        table[section]["listen"] = peer.clone().into();
    }
    let file = folder.join("config.toml");
    std::fs::write(&file, table.to_string()).expect("written");
    let admit = ["member", "add", "4", &peer, "--server", server];
    let admitted = quorum.nautilus(&admit);
    assert!(admitted.status.success(), "{}", said(&admitted));
    let mut node = Command::new(Quorum::binary());
    node.args(["node", "--config"]).arg(&file);
    let node = Streamed::start(node);
    eventually("node 4's vote", || {
        let output = quorum.nautilus(&["member", "promote", "4", "--server", server]);
        output
            .status
            .success()
            .then_some(())
            .ok_or_else(|| said(&output))
    });
    node
}

#[test]
fn an_escrow_that_the_host_made_up_recovers_nothing() {
    let quorum = Quorum::start();
    escrowed(&quorum, 1, 1, &[1]);
    // The host has an operator's key of before, and the escrow of then.
    let victim = quorum.follower();
    let file = data(&quorum, victim.id).join("escrow.json");
    let old = std::fs::read(&file).expect("the escrow");
    ask(&quorum, &["keys", "rotate", "--wait"]).expect("rotated");
    escrowed(&quorum, 1, 1, &[2]);
    quorum.kill(&victim);

    // An escrow whose terms were changed opens to nobody.
    let mut altered: Value = serde_json::from_slice(&old).expect("JSON");
    altered["terms"]["recoveries"] = 9.into();
    std::fs::write(&file, altered.to_string()).expect("written");
    let operator = quorum.dir().join("operator.key");
    let submit = [
        "recover",
        "submit",
        "--server",
        &victim.api,
        "--key",
        text(&operator),
    ];
    let node = start(&quorum, victim.id, "recover");
    eventually("the refusal", || match ask(&quorum, &submit) {
        Err(reason) if reason.contains("altered") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    drop(node);

    // Nor does one whose roots the quorum has destroyed since.
    std::fs::write(&file, &old).expect("written");
    let mut node = start(&quorum, victim.id, "recover");
    eventually("the refusal", || match ask(&quorum, &submit) {
        Err(reason) if reason.contains("not this quorum's") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(node.is_running(), "it waits on for a better escrow");
    let status = ["recover", "status", "--server", &victim.api];
    let waiting = ask(&quorum, &status).expect("the desk");
    assert_eq!(waiting["waiting"], true);
    create(&quorum, "the-others-go-on");
}
