//! What lies on the disk, and whether replicas hold the same state.

use std::ops::Range;
use std::path::Path;
use std::process::Command;

use nautilus_tests::{Quorum, eventually, program};
use serde_json::{Value, json};

/// Every file below `folder` with its bytes.
fn files(folder: &Path, visit: &mut dyn FnMut(&Path, &[u8])) {
    for entry in std::fs::read_dir(folder)
        .expect("a readable folder")
        .flatten()
    {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            files(&path, visit);
        } else if kind.is_file()
            && let Ok(bytes) = std::fs::read(&path)
        {
            visit(&path, &bytes);
        }
    }
}

fn holds(bytes: &[u8], needle: &str) -> bool {
    bytes
        .windows(needle.len())
        .any(|window| window == needle.as_bytes())
}

/// Creates many objects with one kubectl.
fn create_configmaps(quorum: &Quorum, namespace: &str, name: &str, value: &str, range: Range<u32>) {
    let items: Vec<Value> = range
        .map(|index| {
            json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": format!("{name}-{index}"), "namespace": namespace},
                "data": {"k": format!("{value}{index}")},
            })
        })
        .collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let output = quorum.kubectl_with_input(&["create", "-f", "-"], &list.to_string());
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn no_name_value_or_token_is_readable_in_any_file_of_a_node() {
    let quorum = Quorum::start_with(&[("NAUTILUS_CHECKPOINT_EVERY", "100")]);
    let planted = ["plantednamespace", "plantedname", "plantedvalue"];
    quorum.kubectl_ok(&["create", "namespace", planted[0]]);
    create_configmaps(&quorum, planted[0], planted[1], planted[2], 0..150);
    // A hundred entries make a checkpoint: logs, tables and snapshots all exist now.
    let encoded = "cGxhbnRlZHZhbHVl"; // base64 of the value, as a secret would hold it
    let tokens = std::fs::read_to_string(quorum.dir().join("tokens.toml")).expect("tokens");
    let token = tokens
        .lines()
        .find_map(|line| line.trim().strip_prefix("token = "))
        .map(|value| value.trim_matches('"').to_owned())
        .expect("a token");
    // The value as a secret holds it, and the token as a worker presents it.
    quorum.kubectl_ok(&[
        "create",
        "secret",
        "generic",
        "s",
        &format!("--from-literal=k={}", planted[2]),
    ]);
    let registered = Command::new(program("worker"))
        .args(["--server", &quorum.follower().api, "--token", &token])
        .args(["--node-id", "worker-1", "--count=1", "--interval=100ms"])
        .arg("--ca")
        .arg(quorum.dir().join("ca.crt"))
        .output()
        .expect("a worker");
    assert!(registered.status.success(), "{registered:?}");
    for node in 1..=3 {
        let folder = quorum
            .dir()
            .join(format!("node-{node}"))
            .join("data/snapshots");
        eventually("a snapshot on every node", || {
            let mut sizes = Vec::new();
            files(&folder, &mut |_, bytes| sizes.push(bytes.len()));
            let whole = sizes.iter().any(|&size| size > 0);
            if whole {
                Ok(())
            } else {
                Err(format!("{sizes:?}"))
            }
        });
    }
    let mut looked_at = 0;
    for node in 1..=3 {
        files(
            &quorum.dir().join(format!("node-{node}")),
            &mut |path, bytes| {
                looked_at += bytes.len();
                for needle in planted.iter().copied().chain([encoded, token.as_str()]) {
                    assert!(
                        !holds(bytes, needle),
                        "{} holds {needle:?} in clear",
                        path.display()
                    );
                }
            },
        );
    }
    assert!(looked_at > 100_000, "only {looked_at} bytes were looked at");
}

#[test]
fn replicas_hold_the_same_state_after_kills_and_a_restart() {
    let quorum = Quorum::start_with(&[("NAUTILUS_CHECKPOINT_EVERY", "100")]);
    create_configmaps(&quorum, "default", "before", "v", 0..120);
    quorum.kill(&quorum.leader());
    eventually("a leader", || {
        let output = quorum.kubectl(&["create", "configmap", "between"]);
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("{output:?}"))
        }
    });
    create_configmaps(&quorum, "default", "after", "v", 0..120);
    quorum.up();
    eventually("three equal digests at one position", || {
        let mut seen = Vec::new();
        for node in 1..=3 {
            let context = format!("nautilus-{node}");
            let output =
                quorum.kubectl(&["--context", &context, "get", "--raw", "/nautilus/v1/status"]);
            let status: Value =
                serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
            seen.push((status["applied"].clone(), status["digest"].clone()));
        }
        let same_position = seen.iter().all(|(position, _)| *position == seen[0].0);
        if !same_position {
            return Err(format!("{seen:?}"));
        }
        assert!(
            seen[0].1.as_str().is_some_and(|digest| digest.len() == 64),
            "{seen:?}"
        );
        assert!(
            seen.iter().all(|(_, digest)| *digest == seen[0].1),
            "diverged: {seen:?}"
        );
        Ok(())
    });
}

#[test]
fn a_flipped_byte_in_the_log_is_named_and_the_node_refuses_to_serve_it() {
    let quorum = Quorum::start();
    for index in 0..10 {
        quorum.kubectl_ok(&["create", "configmap", &format!("c-{index}")]);
    }
    let victim = quorum.follower();
    quorum.kill(&victim);
    let folder = quorum
        .dir()
        .join(format!("node-{}", victim.id))
        .join("data");
    let mut flipped = None;
    files(&folder, &mut |path, bytes| {
        let in_log = path.parent().is_some_and(|parent| parent.ends_with("log"));
        if in_log && bytes.len() > 4096 && flipped.is_none() {
            let mut changed = bytes.to_vec();
            // Inside the first frames, long acknowledged.
            changed[600] ^= 1;
            std::fs::write(path, changed).expect("a changed file");
            flipped = Some(path.to_owned());
        }
    });
    let path = flipped.expect("a log segment");
    let output = Command::new(Quorum::binary())
        .args(["node", "--config"])
        .arg(
            quorum
                .dir()
                .join(format!("node-{}", victim.id))
                .join("config.toml"),
        )
        .output()
        .expect("the node's end");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a name");
    assert!(said.contains(name) && said.contains("corrupt"), "{said}");
    // The other two go on.
    quorum.kubectl_ok(&["create", "configmap", "after"]);
}
