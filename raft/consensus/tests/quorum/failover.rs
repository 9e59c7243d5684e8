//! Leaders that die: nothing acknowledged is lost, and somebody leads again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nautilus_machine::{Kv, ProposeError};

use crate::world::{Quorum, eventually, get, put};

/// Writers on every node but the victim; what was acknowledged, and when the last was.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    started: Instant,
    last_ack_us: Arc<AtomicU64>,
    longest_gap_us: Arc<AtomicU64>,
    writers: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Load {
    pub(crate) fn start(
        kvs: Vec<(tokio::runtime::Handle, Arc<dyn Kv>)>,
        name: &str,
        writers_per_node: usize,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let last_ack_us = Arc::new(AtomicU64::new(0));
        let longest_gap_us = Arc::new(AtomicU64::new(0));
        let started = Instant::now();
        let mut writers = Vec::new();
        for (node, (handle, kv)) in kvs.into_iter().enumerate() {
            for writer in 0..writers_per_node {
                let (stop, last, gap) = (
                    Arc::clone(&stop),
                    Arc::clone(&last_ack_us),
                    Arc::clone(&longest_gap_us),
                );
                let (handle, kv) = (handle.clone(), Arc::clone(&kv));
                let prefix = format!("{name}-{node}-{writer}");
                writers.push(std::thread::spawn(move || {
                    let mut acknowledged = Vec::new();
                    for at in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let key = format!("{prefix}-{at}");
                        match handle.block_on(kv.propose(put(&key, "load"))) {
                            Ok(_) => {
                                let now = started.elapsed().as_micros() as u64;
                                let before = last.swap(now, Ordering::Relaxed);
                                gap.fetch_max(now.saturating_sub(before), Ordering::Relaxed);
                                acknowledged.push(key);
                            }
                            Err(ProposeError::Unknown(_) | ProposeError::Unavailable(_)) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                    acknowledged
                }));
            }
        }
        Self {
            stop,
            started,
            last_ack_us,
            longest_gap_us,
            writers,
        }
    }

    /// Forgets gaps so far.
    pub(crate) fn mark(&self) {
        self.last_ack_us
            .store(self.started.elapsed().as_micros() as u64, Ordering::Relaxed);
        self.longest_gap_us.store(0, Ordering::Relaxed);
    }

    pub(crate) fn longest_gap(&self) -> Duration {
        Duration::from_micros(self.longest_gap_us.load(Ordering::Relaxed))
    }

    pub(crate) fn finish(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.writers
            .into_iter()
            .flat_map(|writer| writer.join().unwrap())
            .collect()
    }
}

/// Kills the leader so many times under load; returns the gaps without an acknowledged write.
pub(crate) fn kill_leaders(quorum: &mut Quorum, kills: usize) -> Vec<Duration> {
    let mut acknowledged = Vec::new();
    let mut gaps = Vec::new();
    for kill in 0..kills {
        let leader = quorum.leader();
        let survivors = quorum.followers();
        let kvs = survivors
            .iter()
            .map(|id| {
                (
                    quorum.node(*id).runtime().handle().clone(),
                    quorum.node(*id).kv(),
                )
            })
            .collect();
        let load = Load::start(kvs, &format!("kill-{kill}"), 4);
        std::thread::sleep(Duration::from_millis(300));
        load.mark();
        quorum.node_mut(leader).kill();
        std::thread::sleep(Duration::from_millis(1500));
        gaps.push(load.longest_gap());
        acknowledged.extend(load.finish());
        quorum.node_mut(leader).start();
        let node = quorum.node(leader);
        eventually("the killed node is back", || {
            node.run(node.kv().read_barrier()).is_ok()
        });
    }
    assert!(acknowledged.len() > kills, "the load made no progress");
    for node in &quorum.nodes {
        node.run(node.kv().read_barrier()).unwrap();
        let missing: Vec<_> = acknowledged
            .iter()
            .filter(|key| get(node.kv().as_ref(), key).is_none())
            .collect();
        assert!(
            missing.is_empty(),
            "node {} misses {} acknowledged writes: {missing:?}",
            node.id,
            missing.len()
        );
    }
    gaps
}

#[test]
fn no_acknowledged_write_is_missing_after_leaders_are_killed_under_load() {
    let mut quorum = Quorum::of(3);
    let gaps = kill_leaders(&mut quorum, 5);
    eprintln!("gaps without an acknowledged write: {gaps:?}");
}

#[test]
fn a_follower_that_is_cut_off_does_not_disturb_the_leader() {
    let mut quorum = Quorum::of(3);
    let leader = quorum.leader();
    let term = quorum.node(leader).cluster().status().term;
    let follower = quorum.followers()[0];
    quorum.node_mut(follower).kill();
    quorum.node_mut(follower).start();
    let node = quorum.node(follower);
    eventually("it follows again", || {
        node.run(node.kv().read_barrier()).is_ok()
    });
    assert_eq!(quorum.node(leader).cluster().status().term, term);
    assert_eq!(quorum.leader(), leader);
}

#[test]
fn a_member_that_hangs_up_is_asked_with_pauses() {
    let mut quorum = Quorum::of(3);
    let follower = quorum.followers()[0];
    let address = quorum.node(follower).address;
    quorum.node_mut(follower).kill_whole();
    let listener = std::net::TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let end = Instant::now() + Duration::from_secs(2);
    let mut calls = 0;
    while Instant::now() < end {
        match listener.accept() {
            Ok(_) => calls += 1,
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    // Replication, heartbeats and the rest; without a pause there are thousands.
    assert!(
        (1..200).contains(&calls),
        "{calls} connections in two seconds"
    );
}

#[test]
fn a_node_whose_log_fails_ends_with_the_disks_words_and_loses_nothing_acknowledged() {
    let full = Arc::new(AtomicBool::new(false));
    let mut quorum = Quorum::of(1);
    let node = quorum.node_mut(1);
    node.kill();
    let seen = Arc::clone(&full);
    node.fail_writes(Arc::new(move |_| {
        seen.load(Ordering::Relaxed)
            .then(|| std::io::Error::from(std::io::ErrorKind::StorageFull))
    }));
    node.start();
    quorum.leader();
    let node = quorum.node(1);
    for at in 0..50 {
        node.run(node.kv().propose(put(&format!("kept-{at}"), "yes")))
            .unwrap();
    }
    let fatal = node.consensus().fatal();
    full.store(true, Ordering::Relaxed);
    let refused = node.run(node.kv().propose(put("not-acknowledged", "no")));
    assert!(refused.is_err(), "{refused:?}");
    let fatal = node.run(fatal).to_string();
    assert!(fatal.contains("no storage space"), "{fatal}");
    full.store(false, Ordering::Relaxed);
    quorum.node_mut(1).kill();
    quorum.node_mut(1).start();
    quorum.leader();
    let node = quorum.node(1);
    node.run(node.kv().read_barrier()).unwrap();
    assert!((0..50).all(|at| get(node.kv().as_ref(), &format!("kept-{at}")).is_some()));
}
