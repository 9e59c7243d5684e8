//! What a host can do with disks and processes of real nodes: put a disk back under
//! load, start a node twice, take all away at once; and what operators can do when too
//! little is left.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nautilus_tests::{Quorum, Streamed, eventually};
use toml::Table;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("the folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("its type").is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("copied")),
        }
    }
}

fn log_of(quorum: &Quorum, node: u64) -> String {
    let path = quorum.dir().join(format!("node-{node}")).join("log");
    std::fs::read_to_string(path).unwrap_or_default()
}

fn create(quorum: &Quorum, name: &str) -> bool {
    quorum
        .kubectl(&["create", "configmap", name])
        .status
        .success()
}

/// The configmaps of those names that are there, in the node's own view.
fn missing_on(quorum: &Quorum, node: u64, names: &[String]) -> Vec<String> {
    let there = quorum.kubectl_on(node, &["get", "configmaps", "-o", "name"]);
    let there: Vec<&str> = there
        .lines()
        .filter_map(|line| line.strip_prefix("configmap/"))
        .collect();
    let missing = names.iter().filter(|name| !there.contains(&name.as_str()));
    missing.cloned().collect()
}

#[test]
fn a_disk_put_back_under_load_is_named_and_healed_and_nothing_is_lost() {
    let quorum = Quorum::start();
    let victim = quorum.follower();
    let data = quorum
        .dir()
        .join(format!("node-{}", victim.id))
        .join("data");
    let mut names = Vec::new();
    for at in 0..3 {
        names.push(format!("before-{at}"));
        assert!(create(&quorum, &names[at]));
    }
    quorum.kill(&victim);
    let kept = tempfile::tempdir().expect("a folder");
    copy(&data, kept.path());
    quorum.up();
    for at in 0..5 {
        let name = format!("with-it-{at}");
        assert!(create(&quorum, &name));
        names.push(name);
    }
    eventually("it has them", || {
        match missing_on(&quorum, victim.id, &names).as_slice() {
            [] => Ok(()),
            missing => Err(format!("{missing:?}")),
        }
    });

    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut acknowledged = Vec::new();
            for at in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let name = format!("under-way-{at}");
                if create(&quorum, &name) {
                    acknowledged.push(name);
                }
            }
            acknowledged
        });
        let running = quorum.nodes();
        let running = running.iter().find(|node| node.id == victim.id);
        quorum.kill(running.expect("it runs"));
        std::fs::remove_dir_all(&data).expect("removed");
        copy(kept.path(), &data);
        quorum.up();
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer")
    });
    assert!(!acknowledged.is_empty(), "nothing was written meanwhile");
    names.extend(acknowledged);

    let log = log_of(&quorum, victim.id);
    assert!(log.contains("rolled back disk"), "{log}");
    eventually("it has everything again", || {
        match missing_on(&quorum, victim.id, &names).as_slice() {
            [] => Ok(()),
            missing => Err(format!("{missing:?}")),
        }
    });
    eventually("the event", || {
        let events = quorum.kubectl_ok(&["get", "events"]);
        match events.contains("DiskRolledBack") {
            true => Ok(()),
            false => Err(events),
        }
    });
    // It counts again: with the leader gone the two that are left go on.
    quorum.kill(&quorum.leader());
    eventually("a write without the leader", || {
        match create(&quorum, "after") {
            true => Ok(()),
            false => Err("refused".into()),
        }
    });
    quorum.up();
    for node in 1..=3 {
        assert_eq!(missing_on(&quorum, node, &names), Vec::<String>::new());
    }
}

#[test]
fn a_node_started_a_second_time_from_a_copy_fences_the_first() {
    let quorum = Quorum::start();
    let first = quorum.follower();
    let folder = quorum.dir().join(format!("node-{}", first.id));
    quorum.kill(&first);
    let twin = tempfile::tempdir().expect("a folder");
    copy(&folder, twin.path());
    quorum.up();

    let text = std::fs::read_to_string(twin.path().join("config.toml")).expect("its configuration");
    let mut table: Table = text.parse().expect("TOML");
    table["data_dir"] = toml::Value::from(twin.path().join("data").to_str().expect("UTF-8"));
    for section in ["etcd", "api", "peer"] {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("its address").to_string();
        let section = table[section].as_table_mut().expect("a section");
        section.insert("listen".into(), address.clone().into());
        section.insert("advertise".into(), address.into());
    }
    let configuration = twin.path().join("config.toml");
    std::fs::write(&configuration, table.to_string()).expect("written");
    let mut second = Command::new(Quorum::binary());
    second.args(["node", "--config"]).arg(&configuration);
    let _second = Streamed::start(second);

    eventually("the first one's end", || {
        let log = log_of(&quorum, first.id);
        match log.contains("fenced") && log.contains("started a second time") {
            true => Ok(()),
            false => Err(log),
        }
    });
    // One that was under way on the fenced node may fail; the next goes elsewhere.
    let mut tries = 0..;
    eventually("a write without the first", || {
        let name = format!("without-the-first-{}", tries.next().unwrap_or_default());
        match create(&quorum, &name) {
            true => Ok(()),
            false => Err("refused".into()),
        }
    });
}

#[test]
fn a_whole_quorum_that_is_killed_goes_on_without_operators() {
    let quorum = Quorum::start();
    let names: Vec<String> = (0..3).map(|at| format!("kept-{at}")).collect();
    assert!(names.iter().all(|name| create(&quorum, name)));
    for node in quorum.nodes() {
        quorum.kill(&node);
    }
    quorum.up();
    for node in 1..=3 {
        assert_eq!(missing_on(&quorum, node, &names), Vec::<String>::new());
    }
}
