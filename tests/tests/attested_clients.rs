//! Clients that trust evidence alone, against real processes.

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Output};

use nautilus_tests::{Quorum, Streamed, eventually, program};
use serde_json::Value;

/// A measurement that no binary has.
const NOBODYS: &str = "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000001";

fn verify(quorum: &Quorum, address: &str, flags: &[&str]) -> (Output, Value) {
    let fixed = ["attest", "verify", address, "--output", "json"];
    let output = quorum.nautilus(&[&fixed, flags].concat());
    let survey = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output, survey)
}

fn outcomes(survey: &Value) -> Vec<(u64, String)> {
    let members = survey["members"].as_array().expect("members");
    members
        .iter()
        .map(|member| {
            let outcome = member["outcome"].as_str().expect("an outcome");
            (member["id"].as_u64().unwrap_or(0), outcome.to_owned())
        })
        .collect()
}

#[test]
fn a_stranger_judges_every_member_by_its_evidence() {
    let quorum = Quorum::start();
    let nodes = quorum.nodes();
    let address = nodes[1].api.clone();

    let (output, survey) = verify(&quorum, &address, &["--allow-simulated"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let accepted = |id| (id, "accepted".to_owned());
    assert_eq!(outcomes(&survey), [accepted(1), accepted(2), accepted(3)]);
    for (member, node) in survey["members"]
        .as_array()
        .expect("members")
        .iter()
        .zip(&nodes)
    {
        assert_eq!(member["tee"], "simulated");
        assert_eq!(member["address"], node.api);
        assert_eq!(member["role"], "voter");
        assert_eq!(member["policy"], "allowed");
        assert_eq!(member["tcb_status"], "UpToDate");
        let open = member["not_checked"].to_string();
        assert!(open.contains("hardware"), "{open}");
    }
    let keys: std::collections::BTreeSet<String> = survey["members"]
        .as_array()
        .expect("members")
        .iter()
        .map(|member| member["serving_key_sha256"].to_string())
        .collect();
    assert_eq!(keys.len(), 3, "every node serves with a key of its own");

    // Other code than is allowed, and evidence that proves nothing about hardware.
    for (flags, said) in [
        (
            &["--allow-simulated", "--measurement", NOBODYS][..],
            "measurement",
        ),
        (&[][..], "simulated evidence is not allowed"),
    ] {
        let (output, survey) = verify(&quorum, &address, flags);
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        // A refused node's word counts for nothing: it is the only one that was asked.
        assert_eq!(outcomes(&survey).len(), 1);
        let reason = survey["members"][0]["reason"].to_string();
        assert!(reason.contains(said), "{reason}");
        assert_eq!(survey["members"][0]["tee"], "simulated");
    }

    // A dead member is named, and is not taken for a good one.
    let dead = quorum.follower();
    quorum.kill(&dead);
    let alive = nodes
        .iter()
        .find(|node| node.id != dead.id)
        .expect("two others");
    let survey = eventually("a verdict without the dead", || {
        let (output, survey) = verify(&quorum, &alive.api, &["--allow-simulated"]);
        match output.status.code() {
            Some(3) => Ok(survey),
            code => Err(format!("{code:?}: {survey}")),
        }
    });
    let found = outcomes(&survey);
    assert!(
        found.contains(&(dead.id, "unreachable".to_owned())),
        "{found:?}"
    );
    assert_eq!(
        found
            .iter()
            .filter(|(_, outcome)| outcome == "accepted")
            .count(),
        2
    );
}

#[test]
fn evidence_comes_in_every_form() {
    let quorum = Quorum::start();
    let get = |format: &str, nonce: &str| {
        let path = format!("/api/v1/attestation?nonce={nonce}&format={format}");
        quorum.kubectl(&["--context", "nautilus-1", "get", "--raw", &path])
    };
    let nonce = "00112233445566778899aabbccddeeff";
    let json: Value = serde_json::from_slice(&get("json", nonce).stdout).expect("JSON");
    assert_eq!(json["quorum"]["node_id"], 1);
    assert_eq!(json["quorum"]["members"].as_array().map(Vec::len), Some(3));

    let sui: Value = serde_json::from_slice(&get("sui", nonce).stdout).expect("JSON");
    assert_eq!(sui["response"]["intent"], 0);
    assert_eq!(sui["response"]["data"]["nonce"], nonce);
    assert_eq!(sui["public_key"].as_str().map(str::len), Some(64));
    assert_eq!(sui["signature"].as_str().map(str::len), Some(128));

    // A CBOR Web Token (tag 61) of a COSE_Sign1 (tag 18), with the nonce in it.
    let token = get("eat", nonce).stdout;
    assert_eq!(token.get(..3), Some(&[0xd8, 61, 0xd2][..]));
    let nonce_bytes: Vec<u8> = (0..16u8).map(|digit| digit * 0x11).collect();
    assert!(token.windows(16).any(|part| part == nonce_bytes));

    for (format, nonce) in [("xml", nonce), ("raw", "0011"), ("raw", "no-hex-at-all-")] {
        let output = get(format, nonce);
        assert!(!output.status.success(), "{output:?}");
    }
}

#[test]
fn kubectl_gets_short_lived_credentials_by_evidence() {
    let quorum = Quorum::start();
    let file = |name: &str| quorum.dir().join(name).to_str().expect("UTF-8").to_owned();
    let write = |name: &str, flags: &[&str]| {
        let out = file(name);
        let fixed = ["kubeconfig", "--exec", "--out", &out];
        let output = quorum.nautilus(&[&fixed, flags].concat());
        assert!(output.status.success(), "{output:?}");
        std::fs::read_to_string(&out).expect("the kubeconfig")
    };
    let text = write("exec.kubeconfig", &[]);
    assert!(!text.contains("client-key-data"), "{text}");
    let kubectl = |kubeconfig: &str| {
        let mut command = Command::new(program("kubectl"));
        command
            .args(["--kubeconfig", &file(kubeconfig), "--cache-dir"])
            .arg(quorum.dir().join("kubectl-cache"))
            .args(["get", "namespaces", "--output", "name"])
            .env("XDG_CACHE_HOME", quorum.dir().join("cache"));
        command.output().expect("kubectl")
    };
    let output = kubectl("exec.kubeconfig");
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(listed.contains("namespace/default"), "{output:?}");

    // One certificate is kept, for its owner alone and without the key.
    let kept = || {
        let folder = quorum.dir().join("cache").join("nautilus");
        let entries = std::fs::read_dir(folder).expect("the cache");
        let files: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    };
    let before = std::fs::read(kept()).expect("readable");
    assert_eq!(
        std::fs::metadata(kept()).expect("there").mode() & 0o777,
        0o600
    );
    assert!(!String::from_utf8_lossy(&before).contains("PRIVATE KEY"));
    assert!(kubectl("exec.kubeconfig").status.success());
    assert_eq!(
        std::fs::read(kept()).expect("readable"),
        before,
        "it was kept"
    );

    // Rules that the quorum does not satisfy: no credential, and the reason is shown. (The
    // first kubeconfig is written by rules that it does.)
    let strict = text.replace("\"self\"", &format!("\"{NOBODYS}\""));
    assert_ne!(strict, text);
    std::fs::write(file("strict.kubeconfig"), strict).expect("written");
    let output = kubectl("strict.kubeconfig");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("is not accepted"), "{said}");
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

/// The proxy before `quorum`, told of one node only.
fn proxy(quorum: &Quorum, flags: &[&str]) -> (Streamed, String) {
    let plain = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(Quorum::binary());
    command
        .args(["proxy", "--plain", &plain, "--allow-simulated"])
        .args(["--judge-interval", "2s", "--server", &quorum.nodes()[0].api])
        .arg("--simulated-root-key")
        .arg(quorum.dir().join("simulated-root.pub"))
        .args(flags);
    (Streamed::start(command), format!("http://{plain}"))
}

fn plain_kubectl(quorum: &Quorum, server: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("kubectl"));
    command
        .args(["--server", server, "--cache-dir"])
        .arg(quorum.dir().join("plain-cache"))
        .args(arguments)
        .env("KUBECONFIG", "/dev/null");
    command
}

#[test]
fn kubectl_goes_on_through_the_plain_endpoint_when_the_leader_dies() {
    let quorum = Quorum::start();
    let key = quorum.dir().join("operator.key");
    let (_proxy, server) = proxy(&quorum, &["--key", key.to_str().expect("UTF-8")]);
    let run = |arguments: &[&str]| {
        let output = plain_kubectl(&quorum, &server, arguments)
            .output()
            .expect("kubectl");
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    };
    eventually("an answer through the proxy", || {
        run(&["get", "namespaces"])
    });
    run(&["create", "configmap", "before"]).expect("written");
    let mut watching = Streamed::start(plain_kubectl(
        &quorum,
        &server,
        &["get", "configmaps", "--watch", "--output", "name"],
    ));
    watching.wait_for("the first object", |line| line == "configmap/before");

    quorum.kill(&quorum.leader());
    // Reads do not wait for anybody; a write may be told that its outcome is unknown.
    run(&["get", "namespaces"]).expect("another node answers");
    eventually("a write after the leader's death", || {
        run(&["create", "configmap", "after"]).or_else(|said| {
            if said.contains("already exists") {
                Ok(said)
            } else {
                Err(said)
            }
        })
    });
    watching.wait_for("the object written after", |line| line == "configmap/after");
    assert!(watching.is_running(), "the watch was never cut");
}

#[test]
fn a_worker_beats_through_the_plain_endpoint_without_a_certificate() {
    let quorum = Quorum::start();
    let (_proxy, server) = proxy(&quorum, &["--anonymous"]);
    eventually("the proxy's first accepted node", || {
        let output = plain_kubectl(&quorum, &server, &["get", "--raw", "/health"])
            .output()
            .expect("kubectl");
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    });
    let tokens = std::fs::read_to_string(quorum.dir().join("tokens.toml")).expect("tokens.toml");
    let token = tokens
        .lines()
        .find_map(|line| line.trim().strip_prefix("token = "))
        .map(|value| value.trim_matches('"').to_owned())
        .expect("a token");
    let mut command = Command::new(program("worker"));
    command
        .args([
            "--server",
            &server,
            "--token",
            &token,
            "--node-id",
            "worker-1",
        ])
        .args(["--interval=300ms", "--count=0"]);
    let mut worker = Streamed::start(command);
    worker.wait_for("the registration", |line| line.contains("registered"));
    worker.wait_for("a beat", |line| line.contains("acknowledged"));
    quorum.kill(&quorum.leader());
    for _ in 0..5 {
        worker.wait_for("a beat after the leader's death", |line| {
            line.contains("acknowledged")
        });
    }
    assert!(worker.is_running());
    // Nobody's certificate: what needs one is refused.
    let pods = "/api/v1/namespaces/default/pods";
    let output = plain_kubectl(&quorum, &server, &["get", "--raw", pods])
        .output()
        .expect("kubectl");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("system:anonymous"), "{said}");
}
