//! Rotations of the quorum's keys: under load, through kills, and away from a member.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use nautilus_tests::{Quorum, Streamed, eventually};
use serde_json::{Value, json};

/// Creates many objects with one kubectl.
fn fill(quorum: &Quorum, name: &str, count: u32) {
    let items: Vec<Value> = (0..count)
        .map(|index| {
            json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": format!("{name}-{index}"), "namespace": "default"},
                "data": {"k": "v".repeat(4000)},
            })
        })
        .collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let output = quorum.kubectl_with_input(&["create", "-f", "-"], &list.to_string());
    assert!(output.status.success(), "{output:?}");
}

fn names(quorum: &Quorum, node: u64) -> BTreeSet<String> {
    let names = quorum.kubectl_on(node, &["get", "configmaps", "-o", "name"]);
    names.lines().map(str::to_owned).collect()
}

/// `nautilus keys ...`, which must succeed.
fn keys(quorum: &Quorum, arguments: &[&str]) -> Value {
    let arguments = [&["keys"], arguments, &["--output", "json"]].concat();
    let output = quorum.nautilus(&arguments);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Each node's id and the generations it holds.
fn held(answer: &Value) -> Vec<(u64, Vec<u64>)> {
    let nodes = answer["nodes"].as_array().expect("nodes");
    let held = |node: &Value| {
        let held = node["held"].as_array().expect("a list").iter();
        held.map(|held| held.as_u64().expect("a number")).collect()
    };
    nodes
        .iter()
        .map(|node| (node["id"].as_u64().expect("an id"), held(node)))
        .collect()
}

fn data(quorum: &Quorum, node: u64) -> PathBuf {
    quorum.dir().join(format!("node-{node}")).join("data")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}

/// The epochs of a directory's table, after asserting that all its data keys are wrapped
/// by `generation`: magic 8, generation 4, count 4, then epoch 4, generation 4, key 40.
fn epochs(table: &Path, generation: u32) -> BTreeSet<u32> {
    let bytes = std::fs::read(table).expect("a table");
    assert_eq!(number(&bytes[8..12]), generation, "{}", table.display());
    let rows = &bytes[16..bytes.len() - 32];
    rows.chunks_exact(48)
        .map(|row| {
            assert_eq!(number(&row[4..8]), generation, "{}", table.display());
            number(&row[..4])
        })
        .collect()
}

/// Asserts that nothing in a stopped node's directory is sealed by an older generation.
fn assert_all_of(folder: &Path, generation: u32) {
    let mut seen = BTreeSet::new();
    for file in files(folder) {
        let bytes = std::fs::read(&file).expect("a file");
        let suffix = file.extension().and_then(|suffix| suffix.to_str());
        let name = file
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let home = file.parent().expect("a folder");
        match (name, suffix) {
            ("epochs", _) => {
                epochs(&file, generation);
            }
            ("CURRENT", _) if home.ends_with("store") => {
                let words: Vec<_> = bytes.split(|byte| *byte == b' ').collect();
                assert_eq!(words[1], generation.to_string().as_bytes());
            }
            (_, Some("snapshot" | "partial" | "writing")) => {
                assert_eq!(number(&bytes[8..12]), generation, "{}", file.display());
            }
            (_, Some("log")) if home.ends_with("log") => {
                let known = epochs(&home.join("epochs"), generation);
                let mut at = 0;
                // magic 4, length 4 LE, number 8, first index 8, then version 1, epoch 4.
                while bytes.get(at..at + 4) == Some(b"NLF1") {
                    let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().expect("4"));
                    assert!(known.contains(&number(&bytes[at + 25..at + 29])));
                    at = (at + 24 + length as usize).next_multiple_of(8);
                }
            }
            (_, Some("sst")) => {
                let engine = home.parent().expect("an engine's folder");
                let known = epochs(&engine.join("epochs"), generation);
                let first = known.first().copied().expect("an epoch");
                for old in 1..first {
                    let mut head = vec![1];
                    head.extend_from_slice(&old.to_be_bytes());
                    head.extend_from_slice(&[0; 6]);
                    let found = bytes.windows(head.len()).any(|window| window == head);
                    assert!(!found, "{} has a row of epoch {old}", file.display());
                }
            }
            _ => continue,
        }
        seen.insert(suffix.unwrap_or(name).to_owned());
    }
    for kind in ["epochs", "CURRENT", "snapshot", "log", "sst"] {
        assert!(seen.contains(kind), "no {kind} among {seen:?}");
    }
}

#[test]
fn a_rotation_under_load_fails_no_request_and_the_old_keys_open_nothing() {
    let quorum = Quorum::start_with(&[("NAUTILUS_CHECKPOINT_EVERY", "100")]);
    fill(&quorum, "before", 150);
    let old: Vec<Vec<u8>> = (1..=3)
        .map(|node| std::fs::read(data(&quorum, node).join("sealed-keys")).expect("sealed keys"))
        .collect();
    let over = AtomicBool::new(false);
    let (after, written) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = 0;
            while !over.load(Ordering::Acquire) {
                quorum.kubectl_ok(&["create", "configmap", &format!("during-{written}")]);
                written += 1;
            }
            written
        });
        let after = keys(&quorum, &["rotate", "--wait"]);
        over.store(true, Ordering::Release);
        (after, writer.join().expect("no request failed"))
    });
    assert_eq!(after["generation"], 2);
    assert!(held(&after).iter().all(|(_, held)| *held == [2]), "{after}");
    assert!(written > 0);
    for node in 1..=3 {
        // kube-root-ca.crt is there too.
        assert!(names(&quorum, node).len() >= 150 + written);
    }

    let stopped = quorum.nautilus(&["down"]);
    assert!(stopped.status.success(), "{stopped:?}");
    for (node, old) in (1..=3).zip(&old) {
        let folder = data(&quorum, node);
        assert_all_of(&folder, 2);
        let kept = std::fs::read(folder.join("sealed-keys")).expect("sealed keys");
        assert_ne!(&kept, old);
        std::fs::write(folder.join("sealed-keys"), old).expect("put back");
        let started = Command::new(Quorum::binary())
            .args(["node", "--config"])
            .arg(
                quorum
                    .dir()
                    .join(format!("node-{node}"))
                    .join("config.toml"),
            )
            .output()
            .expect("the node's end");
        assert!(!started.status.success());
        let said = String::from_utf8_lossy(&started.stderr).into_owned()
            + &String::from_utf8_lossy(&started.stdout);
        assert!(said.contains("generation 2 is not held"), "{said}");
        std::fs::write(folder.join("sealed-keys"), kept).expect("put back");
    }
    quorum.up();
    assert!(names(&quorum, 1).len() >= 150 + written);
}

#[test]
fn a_rotation_goes_on_when_a_follower_and_the_leader_are_killed_in_the_middle() {
    let quorum = Quorum::start_with(&[
        ("NAUTILUS_CHECKPOINT_EVERY", "100"),
        ("NAUTILUS_KEYS_REENCRYPT_BYTES_PER_S", "262144"),
    ]);
    fill(&quorum, "before", 300);
    let begun = keys(&quorum, &["rotate"]);
    assert_eq!(begun["next"], 2);
    // While it is handed out, or while rows are sealed anew. It may even be the node that
    // drew the root, and the only one that had it: then another root is drawn.
    quorum.kill(&quorum.follower());
    eventually("a new root in use", || {
        let now = keys(&quorum, &["status"]);
        if now["generation"].as_u64() > Some(1) {
            Ok(())
        } else {
            Err(now.to_string())
        }
    });
    quorum.up();
    quorum.kill(&quorum.leader());
    quorum.up();
    let generation = eventually("the end of the rotation", || {
        let now = keys(&quorum, &["status"]);
        let generation = now["generation"].as_u64().expect("a number");
        if held(&now).iter().all(|(_, held)| *held == [generation]) {
            Ok(u32::try_from(generation).expect("a small one"))
        } else {
            Err(now.to_string())
        }
    });
    let whole = names(&quorum, 1);
    assert!((0..300).all(|index| whole.contains(&format!("configmap/before-{index}"))));
    let stopped = quorum.nautilus(&["down"]);
    assert!(stopped.status.success(), "{stopped:?}");
    for node in 1..=3 {
        assert_all_of(&data(&quorum, node), generation);
    }
}

#[test]
fn keys_rotated_away_from_a_member_never_reach_it() {
    let quorum = Quorum::start();
    let (configuration, peer) = quorum.fourth(|_| {});
    let added = quorum.nautilus(&["member", "add", "4", &peer]);
    assert!(added.status.success(), "{added:?}");
    let mut node = Command::new(Quorum::binary());
    node.args(["node", "--config"]).arg(&configuration);
    let _running = Streamed::start(node);
    eventually("node 4 with the first root", || {
        let now = keys(&quorum, &["status"]);
        if held(&now).contains(&(4, vec![1])) {
            Ok(())
        } else {
            Err(now.to_string())
        }
    });
    let refused = quorum.nautilus(&["keys", "rotate", "--withhold", "1,2,3"]);
    assert!(!refused.status.success(), "no majority would be left");

    let sealed = data(&quorum, 4).join("sealed-keys");
    let before = std::fs::read(&sealed).expect("sealed keys");
    let after = keys(&quorum, &["rotate", "--withhold", "4", "--wait"]);
    assert_eq!(after["withheld"], json!([4]));
    let wanted = vec![(1, vec![2]), (2, vec![2]), (3, vec![2]), (4, vec![1])];
    assert_eq!(held(&after), wanted);
    // It had applied the row that names the new root, and was left without.
    let name = "written-after-it";
    quorum.kubectl_ok(&["create", "configmap", name]);
    assert_eq!(std::fs::read(&sealed).expect("sealed keys"), before);
    assert_eq!(held(&keys(&quorum, &["status"])), wanted);
    let again = keys(&quorum, &["rotate", "--wait"]);
    let wanted = vec![(1, vec![3]), (2, vec![3]), (3, vec![3]), (4, vec![1])];
    assert_eq!(held(&again), wanted);
}
