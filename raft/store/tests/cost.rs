//! What applying, reading and opening cost. Measures only: run by name with
//! `cargo test --release --workspace --test cost -- --ignored --nocapture`.
#![allow(clippy::unwrap_used)]

mod world;

use std::time::Instant;

use bytes::Bytes;
use nautilus_machine::{
    Command, Entry, KeyRange, LogPosition, Operation, Proposal, Put, RangeRequest, Txn, UnixMillis,
};
use nautilus_store::Store;
use world::World;

const VALUE_BYTES: usize = 256;

fn put(index: u64, key: u64, value: &Bytes) -> (LogPosition, Entry) {
    let put = Put::new(format!("/registry/pods/default/{key:012}"), value.clone());
    let txn = Txn {
        then: vec![Operation::Put(put)],
        ..Txn::default()
    };
    let entry = Entry {
        time: UnixMillis(index),
        proposal: Proposal::new(Command::Txn(txn)),
    };
    (LogPosition { term: 1, index }, entry)
}

struct Load {
    next: u64,
    value: Bytes,
}

impl Load {
    fn new() -> Self {
        Self {
            next: 0,
            value: vec![b'v'; VALUE_BYTES].into(),
        }
    }

    /// Puts `keys` in batches; gives microseconds for each.
    fn run(&mut self, store: &Store, keys: impl Iterator<Item = u64>, batch: usize) -> f64 {
        let entries: Vec<_> = keys
            .map(|key| {
                self.next += 1;
                put(self.next, key, &self.value)
            })
            .collect();
        let note = Bytes::from_static(&[7; 24]);
        let clock = Clock::start();
        for chunk in entries.chunks(batch) {
            store
                .apply(chunk, &[("raft/applied", note.clone())])
                .unwrap();
        }
        clock.micros(entries.len() as u64)
    }
}

/// Processor time, of all threads, and of the wall: the machine may be busy otherwise.
#[derive(Clone, Copy)]
struct Clock {
    wall: Instant,
    processor_ticks: u64,
}

impl Clock {
    fn start() -> Self {
        Self {
            wall: Instant::now(),
            processor_ticks: processor_ticks(),
        }
    }

    fn processor_seconds(self) -> f64 {
        (processor_ticks() - self.processor_ticks) as f64 / 100.0
    }

    fn micros(self, count: u64) -> f64 {
        self.processor_seconds() * 1e6 / count as f64
    }
}

impl std::fmt::Display for Clock {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (wall, processor) = (self.wall.elapsed(), self.processor_seconds());
        write!(
            out,
            "{:.2} s ({processor:.2} s processor)",
            wall.as_secs_f64()
        )
    }
}

/// User and system time of the process, in hundredths of a second.
fn processor_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    fields
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().unwrap())
        .sum()
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    let kib: String = line.chars().filter(char::is_ascii_digit).collect();
    kib.parse::<u64>().unwrap() / 1024
}

/// A step of a linear congruence, to visit keys in no order.
fn scattered(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |n| (n * 7919 + 13) % count)
}

#[test]
#[ignore = "measures"]
fn a_put_and_a_get() {
    let count = 200_000;
    for batch in [1, 16, 128, 1024] {
        let world = World::new();
        let store = world.open();
        let mut load = Load::new();
        let fresh = load.run(&store, scattered(count), batch);
        let over = load.run(&store, scattered(count), batch);
        let clock = Clock::start();
        for key in scattered(count) {
            let range = KeyRange::single(format!("/registry/pods/default/{key:012}"));
            let read = store.range(&RangeRequest::newest(range)).unwrap();
            assert_eq!(read.kvs.len(), 1);
        }
        let get = clock.micros(count);
        println!(
            "batch {batch:5}: fresh {fresh:6.2} us, overwrite {over:6.2} us, get {get:6.2} us"
        );
    }
}

#[test]
#[ignore = "measures"]
fn a_start() {
    for count in [100_000, 1_000_000] {
        let world = World::new();
        let store = world.open();
        Load::new().run(&store, scattered(count), 512);
        let clock = Clock::start();
        store.flush().unwrap();
        println!(
            "{count} keys: flushed in {clock}; {} MiB resident",
            resident_mib()
        );
        drop(store);
        let clock = Clock::start();
        let store = world.open();
        println!("opened in {clock}");
        let clock = Clock::start();
        let path = world.file("snapshot");
        let info = store.view().unwrap().write_to(&path, Bytes::new()).unwrap();
        println!(
            "snapshot of {} MiB written in {clock}",
            info.size_bytes >> 20
        );
        let clock = Clock::start();
        store.verify(&path).unwrap();
        println!("verified in {clock}");
        let other = World::new();
        let joined = other.open();
        let clock = Clock::start();
        joined.install(&path, &[]).unwrap();
        println!("installed in {clock}");
    }
}
