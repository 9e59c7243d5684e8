//! A rolling upgrade between two builds, under load: no request fails and nothing is
//! lost.

use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};

use nautilus_attest_tee::measure_file;
use nautilus_tests::{Quorum, eventually};
use serde_json::Value;

/// Clients that write at once.
const WRITERS: usize = 2;
/// Objects written before the upgrade begins, by each.
const WRITTEN_BEFORE: usize = 3;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
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

/// Creates objects one after another until told to stop; gives how many, all of which
/// were acknowledged.
fn write_until(quorum: &Quorum, writer: usize, stop: &AtomicBool, begun: &AtomicBool) -> usize {
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let name = format!("w-{writer}-{written}");
        let output = quorum.kubectl(&["create", "configmap", &name]);
        assert!(
            output.status.success(),
            "a request failed: {}",
            said(&output)
        );
        written += 1;
        if written == WRITTEN_BEFORE {
            begun.store(true, Ordering::Relaxed);
        }
    }
    written
}

#[test]
fn every_node_is_replaced_by_another_build_under_load_without_a_failed_request() {
    let quorum = Quorum::start();
    let next = another_build(&quorum);
    let next = next.to_str().expect("UTF-8");
    let (old, new) = (
        measure_file(&Quorum::binary())
            .expect("measured")
            .to_string(),
        measure_file(next.as_ref()).expect("measured").to_string(),
    );
    let plan = quorum.nautilus(&["upgrade", "plan", "--binary", next]);
    assert!(plan.status.success(), "{}", said(&plan));
    assert!(
        said(&plan).contains("retire the old measurements"),
        "{}",
        said(&plan)
    );

    let stop = AtomicBool::new(false);
    let begun: Vec<AtomicBool> = (0..WRITERS).map(|_| AtomicBool::new(false)).collect();
    let written = std::thread::scope(|scope| {
        let writers: Vec<_> = begun
            .iter()
            .enumerate()
            .map(|(writer, begun)| {
                let (quorum, stop) = (&quorum, &stop);
                scope.spawn(move || write_until(quorum, writer, stop, begun))
            })
            .collect();
        eventually("the writers to have begun", || {
            match begun.iter().all(|begun| begun.load(Ordering::Relaxed)) {
                true => Ok(()),
                false => Err("not yet".into()),
            }
        });
        let run = quorum.nautilus(&["upgrade", "run", "--binary", next]);
        stop.store(true, Ordering::Relaxed);
        let written: Vec<usize> = writers
            .into_iter()
            .map(|writer| writer.join().expect("no request failed"))
            .collect();
        assert!(run.status.success(), "{}{}", said(&run), quorum.logs());
        written
    });

    // Three nodes of the new build, under ids never used, and the policy names it alone.
    let nodes = quorum.nodes();
    assert_eq!(nodes.len(), 3, "{nodes:?}");
    for node in &nodes {
        assert!(node.id > 3, "{nodes:?}");
        assert_eq!(node.measurement.as_deref(), Some(new.as_str()));
    }
    let policy = quorum.nautilus(&["policy", "get", "--output", "json"]);
    let policy: Value = serde_json::from_slice(&policy.stdout).expect("JSON");
    let allowed = policy["evidence"]["kinds"]["simulated"]["measurements"].to_string();
    assert!(
        allowed.contains(&new) && !allowed.contains(&old),
        "{allowed}"
    );

    // Everything acknowledged is there, on each of them.
    for node in &nodes {
        let names = quorum.kubectl_on(node.id, &["get", "configmaps", "-o", "name"]);
        for (writer, written) in written.iter().enumerate() {
            assert!(
                *written > WRITTEN_BEFORE,
                "writer {writer} wrote nothing meanwhile"
            );
            for object in 0..*written {
                let name = format!("configmap/w-{writer}-{object}");
                assert!(names.lines().any(|line| line == name), "{name} is lost");
            }
        }
    }
    // Run again, there is nothing to do.
    let again = quorum.nautilus(&["upgrade", "run", "--binary", next]);
    assert!(again.status.success(), "{}", said(&again));
    let status = quorum.nautilus(&["upgrade", "status"]);
    assert!(
        said(&status).contains("no upgrade is under way"),
        "{}",
        said(&status)
    );
}

#[test]
fn an_upgrade_that_was_cut_short_goes_on_from_the_quorums_own_state() {
    let quorum = Quorum::start();
    let next = another_build(&quorum);
    let next = next.to_str().expect("UTF-8");
    let mut run = std::process::Command::new(Quorum::binary());
    run.args(["upgrade", "run", "--binary", next, "--dir"])
        .arg(quorum.dir());
    let mut running = run.spawn().expect("the upgrade");
    eventually("a fourth voter", || {
        let members = quorum.nautilus(&["member", "list", "--output", "json"]);
        let voters = said(&members).matches("\"voter\"").count();
        match voters {
            4.. => Ok(()),
            _ => Err(said(&members)),
        }
    });
    running.kill().expect("cut short");
    running.wait().expect("its end");
    let status = quorum.nautilus(&["upgrade", "status", "--output", "json"]);
    let status: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!(status["under_way"]["size"], 3);

    let other = quorum.nautilus(&[
        "upgrade",
        "run",
        "--measurement",
        "simulated:ab",
        "--node",
        "9=127.0.0.1:1",
    ]);
    assert!(!other.status.success());
    assert!(said(&other).contains("is under way"), "{}", said(&other));

    let again = quorum.nautilus(&["upgrade", "run", "--binary", next]);
    assert!(again.status.success(), "{}{}", said(&again), quorum.logs());
    let nodes = quorum.nodes();
    assert_eq!(nodes.len(), 3, "{nodes:?}");
    assert!(nodes.iter().all(|node| node.id > 3), "{nodes:?}");
}
