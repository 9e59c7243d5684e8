//! Disks that the host puts back, forks or empties; nodes started twice; all at once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nautilus_attest_protocol::{Counter, CounterError};
use nautilus_consensus::{Ground, MachineCounter, Rejoin, Verdict};
use nautilus_machine::NodeId;

use crate::failover::Load;
use crate::world::{Node, Quorum, eventually, get, put};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Keeps the disk of a stopped node, and puts it back.
struct KeptDisk(tempfile::TempDir);

impl KeptDisk {
    fn of(node: &Node) -> Self {
        let kept = Self(tempfile::tempdir().unwrap());
        copy(&node.dir, kept.0.path());
        kept
    }

    fn put_back(&self, node: &Node) {
        std::fs::remove_dir_all(&node.dir).unwrap();
        copy(self.0.path(), &node.dir);
    }
}

fn rejoined(node: &Node) -> Rejoin {
    let rejoined = node.consensus().rejoined();
    let rejoined = async { tokio::time::timeout(Duration::from_secs(60), rejoined).await };
    node.run(rejoined).expect("came back")
}

fn write(quorum: &Quorum, on: NodeId, name: &str, count: usize) -> Vec<String> {
    let node = quorum.node(on);
    let keys: Vec<_> = (0..count).map(|at| format!("{name}-{at}")).collect();
    for key in &keys {
        node.run(node.kv().propose(put(key, "yes"))).unwrap();
    }
    keys
}

fn missing(node: &Node, keys: &[String]) -> Vec<String> {
    eventually("a barrier", || node.run(node.kv().read_barrier()).is_ok());
    let kv = node.kv();
    let missing = keys.iter().filter(|key| get(kv.as_ref(), key).is_none());
    missing.cloned().collect()
}

#[test]
fn a_rolled_back_disk_under_load_is_named_and_healed_and_nothing_is_lost() {
    let mut quorum = Quorum::of(3);
    let victim = quorum.followers()[0];
    let mut keys = write(&quorum, victim, "before", 20);
    quorum.node_mut(victim).kill_whole();
    let kept = KeptDisk::of(quorum.node(victim));
    quorum.node_mut(victim).start();
    assert_eq!(rejoined(quorum.node(victim)).verdict, Verdict::Consistent);
    keys.extend(write(&quorum, victim, "with-it", 50));
    let others = (1..=3).filter(|id| *id != victim);
    let kvs = others
        .map(|id| {
            (
                quorum.node(id).runtime().handle().clone(),
                quorum.node(id).kv(),
            )
        })
        .collect();
    let load = Load::start(kvs, "under-way", 2);
    quorum.node_mut(victim).kill_whole();
    kept.put_back(quorum.node(victim));
    quorum.node_mut(victim).start();
    let verdict = rejoined(quorum.node(victim)).verdict;
    assert!(
        matches!(verdict, Verdict::RolledBack { disk, acknowledged } if disk < Some(acknowledged)),
        "{verdict:?}"
    );
    keys.extend(load.finish());
    assert_eq!(missing(quorum.node(victim), &keys), Vec::<String>::new());
    // It counts again: with the leader gone it is half of the majority.
    let leader = quorum.leader();
    quorum.node_mut(leader).kill_whole();
    keys.extend(write(&quorum, victim, "after", 5));
    assert_eq!(missing(quorum.node(victim), &keys), Vec::<String>::new());
}

#[test]
fn what_only_the_rolled_back_and_the_absent_node_acknowledged_is_not_lost() {
    let mut quorum = Quorum::tuned(
        3,
        Arc::new(|config| config.limits.propose_timeout = Duration::from_secs(2)),
    );
    let leader = quorum.leader();
    let [victim, lagging] = quorum.followers()[..] else {
        panic!("three nodes");
    };
    write(&quorum, leader, "all", 5);
    quorum.node_mut(victim).kill_whole();
    let kept = KeptDisk::of(quorum.node(victim));
    quorum.node_mut(victim).start();
    rejoined(quorum.node(victim));
    quorum.node_mut(lagging).kill_whole();
    let keys = write(&quorum, leader, "by-two", 20);
    assert_eq!(missing(quorum.node(victim), &keys), Vec::<String>::new());
    quorum.node_mut(victim).kill_whole();
    kept.put_back(quorum.node(victim));
    quorum.node_mut(leader).kill_whole();
    quorum.node_mut(victim).start();
    quorum.node_mut(lagging).start();
    let node = quorum.node(lagging);
    let written = node.run(node.kv().propose(put("by-those-who-forgot", "no")));
    assert!(
        written.is_err(),
        "two nodes that lack what was acknowledged serve"
    );
    quorum.node_mut(leader).start();
    for id in [leader, victim, lagging] {
        assert_eq!(
            missing(quorum.node(id), &keys),
            Vec::<String>::new(),
            "node {id}"
        );
    }
}

#[test]
fn a_node_started_twice_fences_the_older_process() {
    let mut quorum = Quorum::of(3);
    let twin_of = quorum.followers()[0];
    quorum.node_mut(twin_of).kill_whole();
    let kept = KeptDisk::of(quorum.node(twin_of));
    quorum.node_mut(twin_of).start();
    rejoined(quorum.node(twin_of));
    let fatal = quorum.node(twin_of).consensus().fatal();
    let mut twin = Node::new(twin_of, quorum.folder.path().join("twin"), Arc::new(|_| {}));
    kept_at(&kept, &twin);
    twin.start();
    rejoined(&twin);
    let ended = quorum.node(twin_of).run(fatal).to_string();
    assert!(
        ended.contains("fenced") && ended.contains("a second time"),
        "{ended}"
    );
    quorum.node_mut(twin_of).kill_whole();
    let keys = write(&quorum, quorum.leader(), "without-the-older", 5);
    assert_eq!(missing(&twin, &keys), Vec::<String>::new());
}

fn kept_at(kept: &KeptDisk, node: &Node) {
    copy(kept.0.path(), &node.dir);
}

#[test]
fn a_whole_quorum_that_was_killed_goes_on_with_everything() {
    let mut quorum = Quorum::of(3);
    let keys = write(&quorum, 1, "before", 30);
    for id in 1..=3 {
        quorum.node_mut(id).kill_whole();
    }
    for id in 1..=3 {
        quorum.node_mut(id).start();
    }
    quorum.leader();
    for id in 1..=3 {
        assert_eq!(rejoined(quorum.node(id)).ground, Ground::AllTestified);
        assert_eq!(missing(quorum.node(id), &keys), Vec::<String>::new());
    }
}

#[test]
fn with_a_member_lost_for_good_the_leader_lets_a_restarted_one_in() {
    let mut quorum = Quorum::of(5);
    let leader = quorum.leader();
    let followers = quorum.followers();
    let (lost, victim) = (followers[0], followers[1]);
    quorum.node_mut(victim).kill_whole();
    let kept = KeptDisk::of(quorum.node(victim));
    quorum.node_mut(victim).start();
    rejoined(quorum.node(victim));
    quorum.node_mut(lost).kill_whole();
    let keys = write(&quorum, leader, "four", 20);
    assert_eq!(missing(quorum.node(victim), &keys), Vec::<String>::new());
    quorum.node_mut(victim).kill_whole();
    kept.put_back(quorum.node(victim));
    quorum.node_mut(victim).start();
    let rejoin = rejoined(quorum.node(victim));
    assert_eq!(rejoin.ground, Ground::Registered);
    // The three others commit without it: whether the leader had heard of its last
    // acknowledgement decides between the two names of a disk from before.
    assert_ne!(rejoin.verdict, Verdict::Consistent);
    assert_eq!(missing(quorum.node(victim), &keys), Vec::<String>::new());
}

#[test]
fn a_voter_whose_log_was_emptied_has_no_vote_before_it_has_it_again() {
    let mut quorum = Quorum::of(3);
    let victim = quorum.followers()[0];
    let keys = write(&quorum, victim, "before", 30);
    quorum.node_mut(victim).kill_whole();
    std::fs::remove_dir_all(&quorum.node(victim).dir).unwrap();
    quorum.node_mut(victim).start();
    let rejoin = rejoined(quorum.node(victim));
    assert_eq!(rejoin.ground, Ground::Registered);
    assert!(
        matches!(rejoin.verdict, Verdict::RolledBack { disk: None, .. }),
        "{rejoin:?}"
    );
    assert_eq!(missing(quorum.node(victim), &keys), Vec::<String>::new());
}

/// Stands in for a counter of the hardware, outside of the node's directory.
struct FileCounter(std::path::PathBuf);

impl Counter for FileCounter {
    fn read(&self) -> Result<u64, CounterError> {
        Ok(std::fs::read_to_string(&self.0).map_or(0, |text| text.parse().unwrap()))
    }

    fn increment(&self) -> Result<u64, CounterError> {
        let next = self.read()? + 1;
        std::fs::write(&self.0, next.to_string()).unwrap();
        Ok(next)
    }
}

#[test]
fn a_counter_proves_the_disk_of_an_orderly_stop_and_no_other() {
    let counters = tempfile::tempdir().unwrap();
    let folder = counters.path().to_owned();
    let mut quorum = Quorum::tuned(
        3,
        Arc::new(move |config| {
            let file = folder.join(config.node_id.to_string());
            config.counter = Some(MachineCounter(Arc::new(FileCounter(file))));
        }),
    );
    let lost = quorum.leader();
    let others = quorum.followers();
    let keys = write(&quorum, others[0], "before", 10);
    for id in &others {
        assert_eq!(missing(quorum.node(*id), &keys), Vec::<String>::new());
    }
    quorum.node_mut(lost).kill_whole();
    for id in &others {
        quorum.node_mut(*id).shutdown();
    }
    let kept = KeptDisk::of(quorum.node(others[0]));
    // With the third lost for good nobody could testify enough.
    for id in &others {
        quorum.node_mut(*id).start();
    }
    for id in &others {
        assert_eq!(rejoined(quorum.node(*id)).ground, Ground::Counter);
        assert_eq!(missing(quorum.node(*id), &keys), Vec::<String>::new());
    }
    quorum.node_mut(others[0]).shutdown();
    kept.put_back(quorum.node(others[0]));
    quorum.node_mut(others[0]).start();
    quorum.node_mut(lost).start();
    assert_ne!(rejoined(quorum.node(others[0])).ground, Ground::Counter);
}
