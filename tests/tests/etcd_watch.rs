//! etcd's watches while the leader dies: whoever watches sees every change once and in
//! order, on a member that lives or resumed on another.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use nautilus_tests::{Etcdctl, NodeStatus, Quorum, Streamed, eventually, other_than};
use serde_json::Value;

/// Keys written while the leader dies.
const KEYS: usize = 40;
/// Keys written before it does.
const BEFORE: usize = 10;

#[test]
fn a_watch_resumed_on_another_member_loses_and_doubles_nothing() {
    let quorum = Quorum::start();
    let etcdctl = quorum.etcdctl();
    let leader = quorum.leader();
    let writer = Writer::start(&etcdctl);
    let mut seen = Vec::new();
    let mut first = Watch::start(&etcdctl, &leader, 1);
    first.read(&mut seen, BEFORE);
    quorum.kill(&leader);

    let other = other_than(&leader, &quorum.nodes());
    let resumed_at = seen.last().expect("events") + 1;
    let mut second = Watch::start(&etcdctl, &other, resumed_at);
    second.read(&mut seen, KEYS);
    writer.finish();
    assert_eq!(seen, written(&etcdctl, &other));
}

#[test]
fn a_watch_on_a_follower_goes_on_when_the_leader_dies() {
    let quorum = Quorum::start();
    let etcdctl = quorum.etcdctl();
    let leader = quorum.leader();
    let follower = other_than(&leader, &quorum.nodes());
    let mut watch = Watch::start(&etcdctl, &follower, 1);
    let writer = Writer::start(&etcdctl);
    writer.wait_for(BEFORE);
    quorum.kill(&leader);

    let mut seen = Vec::new();
    watch.read(&mut seen, KEYS);
    writer.finish();
    assert_eq!(seen, written(&etcdctl, &follower));
}

/// `etcdctl watch` on one member.
struct Watch(Streamed);

impl Watch {
    fn start(etcdctl: &Etcdctl, node: &NodeStatus, from: u64) -> Self {
        let from = format!("--rev={from}");
        let arguments = ["watch", "--prefix", "k/", &from, "--write-out=json"];
        Self(Streamed::start(
            etcdctl.clone().on(node.id).command(&arguments),
        ))
    }

    /// Collects the revisions of events until there are `count` of them.
    fn read(&mut self, seen: &mut Vec<u64>, count: usize) {
        while seen.len() < count {
            let line = self
                .0
                .wait_for("events", |line| line.contains("mod_revision"));
            let answer: Value = serde_json::from_str(&line).expect("JSON");
            let events = answer["Events"].as_array().expect("events");
            seen.extend(events.iter().map(revision_of));
        }
    }
}

fn revision_of(event: &Value) -> u64 {
    let revision = &event["kv"]["mod_revision"];
    revision.as_u64().expect("a revision")
}

/// Creates keys one after another, each once, through whichever member answers.
struct Writer {
    done: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Writer {
    fn start(etcdctl: &Etcdctl) -> Self {
        let (etcdctl, done) = (etcdctl.clone(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            for number in 0..KEYS {
                create(&etcdctl, number);
                count.store(number + 1, Ordering::Release);
            }
        });
        Self { done, thread }
    }

    fn wait_for(&self, count: usize) {
        eventually("writes", || match self.done.load(Ordering::Acquire) {
            done if done >= count => Ok(()),
            done => Err(format!("{done} of {count}")),
        });
    }

    fn finish(self) {
        self.thread.join().expect("every key was written");
    }
}

/// Creates a key unless it is there: an attempt whose answer was lost does no harm.
fn create(etcdctl: &Etcdctl, number: usize) {
    let transaction = format!("create(\"k/{number}\") = \"0\"\n\nput k/{number} value\n\n\n");
    eventually("a write", || {
        let output = etcdctl.call_with_input(&["txn"], &transaction);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then_some(()).ok_or(error)
    });
}

/// The revisions at which the keys were created, in order.
fn written(etcdctl: &Etcdctl, node: &NodeStatus) -> Vec<u64> {
    let member = etcdctl.clone().on(node.id);
    let answer = member.json(&["get", "--prefix", "k/"]);
    let rows = answer["kvs"].as_array().expect("keys");
    let revisions: BTreeSet<u64> = rows
        .iter()
        .map(|row| {
            assert_eq!(row["version"], 1, "every key is written once");
            row["mod_revision"].as_u64().expect("a revision")
        })
        .collect();
    assert_eq!(revisions.len(), KEYS);
    revisions.into_iter().collect()
}
