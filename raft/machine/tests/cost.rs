//! What an entry and a key cost, printed: run by hand with `--ignored --nocapture`.
#![allow(clippy::unwrap_used)]

use std::time::Instant;

use nautilus_machine::{
    CheckpointReader, Command, DigestKey, Entry, KeyRange, LogPosition, Machine, MemoryRows,
    Operation, Proposal, Put, RangeRequest, RowBatch, Space, Txn, UnixMillis,
};

const KEYS: u64 = 1_000_000;
const VALUE_BYTES: usize = 256;

fn key(number: u64) -> String {
    // In no order, as names of pods are.
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    format!(
        "/registry/pods/namespace-{:03}/pod-{scattered:011x}",
        scattered % 500
    )
}

struct World {
    machine: Machine,
    rows: MemoryRows,
    next: u64,
    value: Vec<u8>,
}

impl World {
    fn put(&mut self, key: String, batch: &mut RowBatch) {
        let put = Put::new(key, self.value.clone());
        let entry = Entry {
            time: UnixMillis(self.next),
            proposal: Proposal::new(Command::Txn(Txn {
                then: vec![Operation::Put(put)],
                ..Txn::default()
            })),
        };
        let position = LogPosition {
            term: 1,
            index: self.next,
        };
        self.next += 1;
        self.machine
            .apply(position, &entry, &self.rows, batch)
            .unwrap();
    }

    /// Keeps of a batch what the ledger goes on from.
    fn keep_tiles(&mut self, batch: RowBatch) {
        let mut tiles = RowBatch::default();
        for (space, key, row) in batch.into_writes() {
            if let (Space::Ledger, Some(row)) = (space, row) {
                tiles.put(space, &key, row);
            }
        }
        self.rows.write(tiles);
    }

    /// Applies puts in batches that are thrown away but for the last and the tiles of
    /// the ledger: what it costs without rows.
    fn puts(&mut self, what: &str, keys: impl Iterator<Item = u64>) {
        let keys: Vec<String> = keys.map(key).collect();
        let count = keys.len() as u128;
        let start = Instant::now();
        let mut batch = RowBatch::default();
        for (number, key) in keys.into_iter().enumerate() {
            self.put(key, &mut batch);
            if number % 64 == 63 {
                self.keep_tiles(std::mem::take(&mut batch));
            }
        }
        self.machine.write_counters(&mut batch).unwrap();
        self.rows.write(batch);
        println!("{what}: {} ns an entry", start.elapsed().as_nanos() / count);
    }
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    println!("{what}: {} us", start.elapsed().as_micros());
    result
}

#[test]
#[ignore = "prints costs; takes a while"]
fn what_a_million_keys_cost() {
    let mut world = World {
        machine: Machine::new(DigestKey::new(&[7; 32])),
        rows: MemoryRows::default(),
        next: 0,
        value: vec![b'v'; VALUE_BYTES],
    };
    world.puts("fresh puts", 0..KEYS);
    let key_bytes: usize = (0..KEYS).map(|number| key(number).len()).sum();
    let per_key = |world: &World| world.machine.index_memory_bytes() / KEYS;
    println!(
        "index: {} bytes a key, of {} in its name",
        per_key(&world),
        key_bytes as u64 / KEYS
    );
    world.puts("overwrites", (0..KEYS).map(|number| number * 7 % KEYS));
    println!(
        "index with two versions each: {} bytes a key",
        per_key(&world)
    );

    let all = KeyRange::prefix("/registry/");
    let count = |revision| RangeRequest {
        count_only: true,
        revision,
        ..RangeRequest::newest(all.clone())
    };
    timed("count of all", || {
        world.machine.locate(&count(None)).unwrap()
    });
    let half = Some(world.machine.revision() - 1000);
    timed("count of all, 1,000 revisions ago", || {
        world.machine.locate(&count(half)).unwrap()
    });
    let page = RangeRequest {
        limit: Some(500),
        ..RangeRequest::newest(all.clone())
    };
    timed("a page of 500", || world.machine.locate(&page).unwrap());
    timed("1,000 look-ups", || {
        for number in 0..1000 {
            let one = RangeRequest::newest(KeyRange::single(key(number * 997)));
            assert_eq!(world.machine.locate(&one).unwrap().places().len(), 1);
        }
    });
    let checkpoint = timed("a checkpoint taken", || {
        world.machine.index_checkpoint().unwrap()
    });
    let pieces: Vec<Vec<u8>> = timed("encoded", || checkpoint.pieces().collect());
    let bytes: usize = pieces.iter().map(Vec::len).sum();
    println!("{} bytes a key in the checkpoint", bytes as u64 / KEYS);
    let restored = timed("read back", || {
        let mut reader = CheckpointReader::default();
        pieces.iter().for_each(|piece| reader.piece(piece).unwrap());
        // No row is asked for: none was written since.
        reader
            .finish(DigestKey::new(&[7; 32]), &world.rows)
            .unwrap()
    });
    assert_eq!(restored.digest(), world.machine.digest());
}
