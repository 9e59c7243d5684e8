//! Receipts of a real quorum: got from every node, checked offline, refused when anything
//! of them is altered, and good after the leader has died.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nautilus_tests::{NodeStatus, Quorum, eventually};
use serde_json::{Value, json};

/// The exit code of what is refused.
const REFUSED: Option<i32> = Some(4);

fn ok(quorum: &Quorum, arguments: &[&str]) -> String {
    let output = quorum.nautilus(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Gets a receipt from one node into a file.
fn get(quorum: &Quorum, node: &NodeStatus, revision: &str, name: &str) -> PathBuf {
    let file = quorum.dir().join(name);
    let arguments = [
        "receipt",
        "get",
        "--revision",
        revision,
        "--server",
        &node.api,
    ];
    let out = ["--out", text(&file)];
    ok(quorum, &[&arguments[..], &out].concat());
    file
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn read(path: &Path) -> Value {
    let bytes = std::fs::read(path).expect("written");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// What a command that must be refused says.
fn refusal(quorum: &Quorum, arguments: &[&str]) -> String {
    let output = quorum.nautilus(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), REFUSED, "{arguments:?}: {said}");
    said
}

/// Creates a config map; gives its revision, and the object in a file.
fn create(quorum: &Quorum, name: &str) -> (String, PathBuf) {
    let created = eventually("a created object", || {
        let output = quorum.kubectl(&["create", "configmap", name, "--from-literal=a=b"]);
        let there = quorum.kubectl(&["get", "configmap", name, "-o", "json"]);
        match there.status.success() {
            true => Ok(there.stdout),
            false => Err(format!("{output:?}")),
        }
    });
    let object: Value = serde_json::from_slice(&created).expect("JSON");
    let file = quorum.dir().join(format!("{name}.json"));
    std::fs::write(&file, &created).expect("written");
    let revision = object["metadata"]["resourceVersion"].as_str();
    (revision.expect("a version").to_owned(), file)
}

/// Flips a bit of a field in hex or base64, or counts a number up.
fn alter(field: &mut Value) {
    let flip = |mut bytes: Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes
    };
    *field = match field {
        Value::Number(number) => json!(number.as_u64().expect("whole") + 1),
        Value::String(text) => {
            let is_hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            match is_hex {
                true => json!(hex::encode(flip(hex::decode(text).expect("hex")))),
                false => json!(BASE64.encode(flip(BASE64.decode(text).expect("base64")))),
            }
        }
        other => panic!("{other} cannot be altered"),
    };
}

#[test]
fn a_receipt_is_got_from_every_node_and_any_change_of_it_is_refused() {
    let quorum = Quorum::start();
    let (revision, object) = create(&quorum, "proved");
    let mut roots = Vec::new();
    for node in quorum.nodes() {
        let file = get(&quorum, &node, &revision, &format!("{}.receipt", node.id));
        let verify = ["receipt", "verify", text(&file), "--object", text(&object)];
        let said = ok(&quorum, &[&verify[..], &["--output", "json"]].concat());
        let said: Value = serde_json::from_str(&said).expect("JSON");
        let key = "/nautilus/registry/configmaps/default/proved";
        assert_eq!((&said["key"], &said["kind"]), (&json!(key), &json!("put")));
        assert_eq!(said["root"]["node"], node.id);
        roots.push(file);
    }
    let leaves = roots.iter().map(|file| read(file)["leaf"].clone());
    let leaves: Vec<Value> = leaves.collect();
    assert!(
        leaves.windows(2).all(|pair| pair[0] == pair[1]),
        "{leaves:?}"
    );

    // A stranger needs the file, the root's public key and the measurement alone.
    let status = quorum.leader();
    let stranger = Command::new(Quorum::binary())
        .args(["receipt", "verify", text(&roots[0]), "--allow-simulated"])
        .arg("--simulated-root-key")
        .arg(quorum.dir().join("simulated-root.pub"))
        .args(["--measurement", &status.measurement.expect("measured")])
        .args(["--dir", text(&quorum.dir().join("nowhere"))])
        .output()
        .expect("the CLI");
    assert!(stranger.status.success(), "{stranger:?}");

    let (evidence, signature, inclusion) = (
        "evidence answers another question",
        "signature does not verify",
        "does not lead from the leaf to the root",
    );
    let alterations = [
        ("/leaf/index", inclusion),
        ("/leaf/revision", inclusion),
        ("/leaf/position", inclusion),
        ("/leaf/term", inclusion),
        ("/leaf/logIndex", inclusion),
        ("/leaf/createRevision", inclusion),
        ("/leaf/keyVersion", inclusion),
        ("/leaf/key", inclusion),
        ("/leaf/valueSha256", inclusion),
        ("/leaf/blinding", inclusion),
        ("/inclusion/0", inclusion),
        ("/value", "the value is not the one that was committed"),
        ("/root/sha256", signature),
        ("/root/size", signature),
        ("/root/term", signature),
        ("/root/revision", signature),
        ("/root/timeMs", signature),
        ("/root/node", evidence),
        ("/root/publicKey", evidence),
        ("/root/evidence", "is not vouched for"),
        ("/version", "of version 2"),
    ];
    let receipt = read(&roots[0]);
    let altered_file = quorum.dir().join("altered.receipt");
    let verify = ["receipt", "verify", text(&altered_file)];
    for (field, expected) in alterations {
        let mut altered = receipt.clone();
        alter(
            altered
                .pointer_mut(field)
                .unwrap_or_else(|| panic!("{field} is not there")),
        );
        std::fs::write(&altered_file, altered.to_string()).expect("written");
        let said = refusal(&quorum, &verify);
        assert!(said.contains(expected), "{field}: {said}");
    }
    let mut altered = receipt.clone();
    let signature_bytes = altered["root"]["signature"].as_str().expect("text");
    let mut bytes = BASE64.decode(signature_bytes).expect("base64");
    *bytes.last_mut().expect("bytes") ^= 1;
    altered["root"]["signature"] = json!(BASE64.encode(bytes));
    std::fs::write(&altered_file, altered.to_string()).expect("written");
    assert!(refusal(&quorum, &verify).contains(signature));

    let mut altered = receipt;
    altered["leaf"]["kind"] = json!("load");
    std::fs::write(&altered_file, altered.to_string()).expect("written");
    assert!(refusal(&quorum, &verify).contains(inclusion));

    let mut other = read(&object);
    other["data"]["a"] = json!("c");
    let other_file = quorum.dir().join("other.json");
    std::fs::write(&other_file, other.to_string()).expect("written");
    let verify = ["receipt", "verify", text(&roots[0])];
    let with_object = [&verify[..], &["--object", text(&other_file)]].concat();
    assert!(refusal(&quorum, &with_object).contains("differs at .data.a"));
    let other_code = "ab".repeat(48);
    let with_measurement = [&verify[..], &["--measurement", &other_code]].concat();
    assert!(refusal(&quorum, &with_measurement).contains("is not vouched for"));
}

#[test]
fn receipts_and_roots_of_before_hold_after_the_leader_is_killed() {
    let quorum = Quorum::start();
    let (revision, object) = create(&quorum, "before");
    let leader = quorum.leader();
    let before = get(&quorum, &leader, &revision, "before.receipt");
    quorum.kill(&leader);
    let (later, _) = create(&quorum, "after");
    let survivor = quorum.leader();
    let after = get(&quorum, &survivor, &later, "after.receipt");

    let object = ["--object", text(&object)];
    ok(
        &quorum,
        &[&["receipt", "verify", text(&before)][..], &object].concat(),
    );
    let again = get(&quorum, &survivor, &revision, "again.receipt");
    ok(
        &quorum,
        &[&["receipt", "verify", text(&again)][..], &object].concat(),
    );
    assert_eq!(read(&again)["leaf"], read(&before)["leaf"]);

    let consistency = ["receipt", "consistency", text(&before)];
    let server = ["--server", &survivor.api];
    ok(
        &quorum,
        &[&consistency[..], &[text(&after)], &server].concat(),
    );
    ok(&quorum, &[&consistency[..], &server].concat());
    let backwards = ["receipt", "consistency", text(&after), text(&before)];
    let said = refusal(&quorum, &[&backwards[..], &server].concat());
    assert!(said.contains("rolled back"), "{said}");

    // The killed node comes back from its disk with the same ledger.
    quorum.up();
    let back = eventually("the killed node", || {
        let nodes = quorum.nodes();
        let back = nodes.into_iter().find(|node| node.id == leader.id);
        back.filter(|node| node.role == "follower" || node.role == "leader")
            .ok_or_else(|| "not there yet".to_owned())
    });
    let file = get(&quorum, &back, &later, "back.receipt");
    assert_eq!(read(&file)["leaf"], read(&after)["leaf"]);
    ok(&quorum, &["receipt", "verify", text(&file)]);
    let from_back = [
        "receipt",
        "consistency",
        text(&before),
        "--server",
        &back.api,
    ];
    ok(&quorum, &from_back);
}
