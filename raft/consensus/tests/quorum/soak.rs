//! Long or loud: run by name, `cargo test --release -p nautilus-consensus --test quorum -- --ignored --nocapture`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::failover::kill_leaders;
use crate::world::{Quorum, put};

/// Processor time of this process so far, all nodes together, in microseconds.
fn processor_us() -> f64 {
    /// `sysconf(_SC_CLK_TCK)` on Linux.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / TICKS_PER_SECOND * 1e6
}

/// Writes from so many tasks over all nodes for a while; returns writes a second.
fn write_for(quorum: &Quorum, duration: Duration, tasks: usize, value_bytes: usize) -> f64 {
    let done = Arc::new(AtomicU64::new(0));
    let value = "w".repeat(value_bytes);
    let started = Instant::now();
    let mut running = Vec::new();
    for task in 0..tasks {
        let node = &quorum.nodes[task % quorum.nodes.len()];
        let (kv, done, value) = (node.kv(), Arc::clone(&done), value.clone());
        running.push(node.runtime().spawn(async move {
            let mut at = 0_u64;
            while started.elapsed() < duration {
                kv.propose(put(&format!("soak-{task}-{}", at % 64), &value))
                    .await
                    .unwrap();
                done.fetch_add(1, Ordering::Relaxed);
                at += 1;
            }
        }));
    }
    for task in running {
        quorum.nodes[0].run(task).unwrap();
    }
    done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
}

/// openraft issue 2116: a purge that races apply under load.
#[test]
#[ignore = "a minute of load"]
fn one_kibibyte_writes_race_snapshots_and_purges() {
    let quorum = Quorum::tuned(
        3,
        Arc::new(|config| {
            config.checkpoint_every_entries = 2000;
            config.log_tail_entries = 1000;
            config.segment_bytes = 8 << 20;
        }),
    );
    let rate = write_for(&quorum, Duration::from_secs(60), 256, 1024);
    for node in &quorum.nodes {
        node.run(node.kv().read_barrier()).unwrap();
    }
    eprintln!("{rate:.0} writes a second of 1 KiB from 256 clients, with a checkpoint every 2000");
}

#[test]
#[ignore = "measures"]
fn measure_throughput() {
    let quorum = Quorum::of(3);
    for (clients, bytes) in [
        (1, 256),
        (1, 1024),
        (64, 256),
        (64, 1024),
        (512, 256),
        (512, 1024),
    ] {
        let (before, seconds) = (processor_us(), 5);
        let rate = write_for(&quorum, Duration::from_secs(seconds), clients, bytes);
        let each = (processor_us() - before) / (rate * seconds as f64);
        eprintln!(
            "{clients} clients, {bytes} B: {rate:.0} writes a second, {each:.0} us of processor each"
        );
    }
    for (name, id) in [
        ("leader", quorum.leader()),
        ("follower", quorum.followers()[0]),
    ] {
        let node = quorum.node(id);
        let done = Arc::new(AtomicU64::new(0));
        let started = Instant::now();
        let readers: Vec<_> = (0..64)
            .map(|_| {
                let (kv, done) = (node.kv(), Arc::clone(&done));
                node.runtime().spawn(async move {
                    while started.elapsed() < Duration::from_secs(3) {
                        kv.read_barrier().await.unwrap();
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for reader in readers {
            node.run(reader).unwrap();
        }
        eprintln!(
            "64 readers on a {name}: {:.0} barriers a second",
            done.load(Ordering::Relaxed) as f64 / 3.0
        );
    }
}

#[test]
#[ignore = "measures"]
fn measure_failover() {
    let mut quorum = Quorum::of(3);
    let mut gaps = kill_leaders(&mut quorum, 10);
    gaps.sort_unstable();
    eprintln!(
        "gap of 10 kills: min {:?}, median {:?}, max {:?}",
        gaps[0],
        gaps[gaps.len() / 2],
        gaps[gaps.len() - 1]
    );
}
