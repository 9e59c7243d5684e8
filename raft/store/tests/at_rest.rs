//! Nothing readable on the disk, and nothing wrong served from it.
#![allow(clippy::unwrap_used)]

mod world;

use std::fs;
use std::path::Path;

use bytes::Bytes;
use nautilus_store::{SNAPSHOT_CHUNK_BYTES, Store};
use rocksdb::{ColumnFamily, DB, Options};
use world::{World, content, copy_dir, engine_dir, files, keyring, refused, try_content};

/// RocksDB's own text files, which hold nothing of ours and are not read back.
const HARMLESS: [&str; 3] = ["LOG", "LOCK", "IDENTITY"];

#[test]
fn no_name_and_no_value_is_readable_in_any_file() {
    let world = World::new();
    let store = world.open();
    world.fill(&store);
    store.flush().unwrap();
    let path = world.file("snapshot");
    let header = Bytes::from(world::PLANTED_HEADER);
    store.view().unwrap().write_to(&path, header).unwrap();
    store
        .install(&path, &[("applied", Bytes::from(world::PLANTED_NOTE))])
        .unwrap();
    world.put(&store, world::PLANTED_KEY, world::PLANTED_VALUE);
    store.flush().unwrap();
    drop(store);
    let planted = [
        "planted",
        "registry/secrets",
        "leased",
        world::PLANTED_KEY,
        world::PLANTED_VALUE,
        world::PLANTED_NOTE,
        world::PLANTED_HEADER,
    ];
    let all = files(world.home.path());
    assert!(
        all.iter()
            .any(|file| file.extension().is_some_and(|e| e == "sst")),
        "{all:?}"
    );
    for file in all {
        let bytes = fs::read(&file).unwrap();
        for text in planted {
            let found = bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes());
            assert!(!found, "{text:?} is readable in {}", file.display());
        }
    }
}

#[test]
fn a_flipped_byte_anywhere_is_named_or_harmless() {
    let world = World::new();
    let store = world.open();
    world.fill(&store);
    store.flush().unwrap();
    world.put(&store, "second", "flush");
    store.flush().unwrap();
    let wanted = content(&store);
    drop(store);
    let (mut refusals, mut harmless) = (0, 0);
    for file in files(&world.dir()) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let length = fs::metadata(&file).unwrap().len() as usize;
        let points = if name.ends_with(".sst") || name.starts_with("MANIFEST") {
            60
        } else {
            12
        };
        for offset in (0..length).step_by((length / points).max(1)) {
            let victim = world.file("victim");
            copy_dir(&world.dir(), &victim);
            let target = victim.join(file.strip_prefix(world.dir()).unwrap());
            flip(&target, offset);
            match Store::open(&victim, &keyring()) {
                Err(error) => {
                    let text = error.to_string();
                    let named = text.contains("engine-")
                        || text.contains("CURRENT")
                        || text.contains("row");
                    assert!(named, "{name} at {offset}: {text}");
                    assert!(text.contains("join again"), "{name} at {offset}: {text}");
                    assert!(!HARMLESS.contains(&&*name), "{name} at {offset}: {text}");
                    refusals += 1;
                }
                Ok(store) => {
                    match try_content(&store) {
                        Ok(found) => assert_eq!(found, wanted, "{name} at {offset}"),
                        Err(text) => assert!(text.contains("row"), "{name} at {offset}: {text}"),
                    }
                    harmless += 1;
                }
            }
            fs::remove_dir_all(&victim).unwrap();
        }
    }
    assert!(
        refusals > 100 && harmless > 10,
        "{refusals} refused, {harmless} harmless"
    );
}

#[test]
fn a_damaged_snapshot_is_never_installed() {
    let world = World::new();
    let store = world.open();
    world.fill(&store);
    for number in 0..3u8 {
        world.put(
            &store,
            &format!("large/{number}"),
            vec![number; SNAPSHOT_CHUNK_BYTES],
        );
    }
    let path = world.file("snapshot");
    store
        .view()
        .unwrap()
        .write_to(&path, Bytes::from("header"))
        .unwrap();
    let whole = fs::read(&path).unwrap();
    let memory = Store::open_memory(&keyring()).unwrap();
    let empty = content(&memory);
    let try_with = |bytes: &[u8], what: &str| {
        fs::write(&path, bytes).unwrap();
        let text = refused(memory.install(&path, &[]));
        assert!(text.contains("is refused"), "{what}: {text}");
        assert_eq!(content(&memory), empty, "{what}");
    };
    for offset in (0..whole.len()).step_by(whole.len() / 40).chain(0..60) {
        let mut bytes = whole.clone();
        bytes[offset] ^= 0x10;
        try_with(&bytes, &format!("flipped at {offset}"));
    }
    for length in (0..whole.len())
        .step_by(whole.len() / 20)
        .chain([whole.len() - 1])
    {
        try_with(&whole[..length], &format!("cut at {length}"));
    }
    let frames = frames(&whole);
    assert!(frames.len() >= 4, "{} frames", frames.len());
    let with = |order: &[usize]| {
        let mut bytes = whole[..frames[0].start].to_vec();
        order
            .iter()
            .for_each(|n| bytes.extend_from_slice(&whole[frames[*n].clone()]));
        bytes
    };
    let mut order: Vec<usize> = (0..frames.len()).collect();
    order.swap(1, 2);
    try_with(&with(&order), "frames swapped");
    let dropped: Vec<usize> = (0..frames.len()).filter(|n| *n != 2).collect();
    try_with(&with(&dropped), "a frame dropped");
    let cut: Vec<usize> = (0..frames.len() - 1).collect();
    try_with(&with(&cut), "the last frame dropped");
    let mut longer = whole.clone();
    longer.push(0);
    try_with(&longer, "a byte appended");
    fs::write(&path, &whole).unwrap();
    memory.install(&path, &[]).unwrap();
}

#[test]
fn a_deleted_row_is_noticed_and_named() {
    let world = World::new();
    let store = world.open();
    world.fill(&store);
    store.flush().unwrap();
    drop(store);
    // What was written after the index's checkpoint, and all if there is none, is
    // noticed at the start; the rest when it is read.
    let copy = world.file("read");
    copy_dir(&world.dir(), &copy);
    tamper(&copy, |raw| raw.delete(&version_key(30)));
    let text = try_content(&Store::open(&copy, &keyring()).unwrap()).unwrap_err();
    assert!(text.contains("revision 30 position 0 is missing"), "{text}");
    forget_index(&world.dir());
    // Above the compaction every row is known by name.
    let copy = world.file("copy");
    copy_dir(&world.dir(), &copy);
    let key = version_key(30);
    tamper(&copy, |raw| raw.delete(&key));
    let text = refused(Store::open(&copy, &keyring()));
    assert!(text.contains("revision 30 position 0 is missing"), "{text}");
    // Below it the number of rows tells.
    let key = first_version_below(&world.dir(), 20);
    tamper(&world.dir(), |raw| raw.delete(&key));
    let text = refused(Store::open(&world.dir(), &keyring()));
    assert!(text.contains("versions are there"), "{text}");
}

#[test]
fn rows_swapped_between_positions_are_refused() {
    let world = World::new();
    let store = world.open();
    world.fill(&store);
    store.flush().unwrap();
    drop(store);
    forget_index(&world.dir());
    let (one, other) = (version_key(30), version_key(31));
    tamper(&world.dir(), |raw| {
        let first = raw.get(&one).unwrap();
        let second = raw.get(&other).unwrap();
        raw.put(&one, &second);
        raw.put(&other, &first);
    });
    let text = refused(Store::open(&world.dir(), &keyring()));
    assert!(text.contains("Revision row 000000000000001e"), "{text}");
    assert!(text.contains("moved from another place"), "{text}");
}

#[test]
fn a_row_put_back_to_an_older_one_is_refused() {
    let world = World::new();
    let store = world.open();
    world.fill(&store);
    store.flush().unwrap();
    drop(store);
    let rows = [b"\x03shell".to_vec(), b"\x03machine".to_vec()];
    let old: Vec<Vec<u8>> = rows.iter().map(|row| read_raw(&world.dir(), row)).collect();
    let store = world.open();
    world.apply(&store, nautilus_machine::Command::CompactStep);
    store.flush().unwrap();
    drop(store);
    for (row, value) in rows.iter().zip(&old) {
        let copy = world.file("copy");
        copy_dir(&world.dir(), &copy);
        tamper(&copy, |raw| raw.put(row, value));
        let text = refused(Store::open(&copy, &keyring()));
        assert!(text.contains("one is an old one"), "{text}");
        fs::remove_dir_all(&copy).unwrap();
    }
    // Both: they fit each other, but not the mark of the last flush.
    tamper(&world.dir(), |raw| {
        rows.iter()
            .zip(&old)
            .for_each(|(row, value)| raw.put(row, value));
    });
    let text = refused(Store::open(&world.dir(), &keyring()));
    assert!(text.contains("lost or took back"), "{text}");
}

#[test]
fn rows_rolled_back_behind_the_last_flush_are_refused() {
    let world = World::new();
    let store = world.open();
    world.fill(&store);
    store.flush().unwrap();
    let old = world.file("old");
    copy_dir(&engine_dir(&world.dir(), 1).join("rows"), &old);
    world.put(&store, "later", "confirmed");
    store.flush().unwrap();
    drop(store);
    let rows = engine_dir(&world.dir(), 1).join("rows");
    fs::remove_dir_all(&rows).unwrap();
    copy_dir(&old, &rows);
    let text = refused(Store::open(&world.dir(), &keyring()));
    assert!(text.contains("lost or took back"), "{text}");
}

#[test]
fn a_missing_file_is_named() {
    let world = World::new();
    let store = world.open();
    world.fill(&store);
    store.flush().unwrap();
    drop(store);
    for file in ["CURRENT", "epochs", "flushed", "rows/CURRENT"] {
        let copy = world.file("copy");
        copy_dir(&world.dir(), &copy);
        let path = match file {
            "CURRENT" => copy.join(file),
            _ => engine_dir(&copy, 1).join(file),
        };
        fs::remove_file(path).unwrap();
        let text = refused(Store::open(&copy, &keyring()));
        let name = file.split('/').next().unwrap();
        assert!(text.contains(name), "{file}: {text}");
        fs::remove_dir_all(&copy).unwrap();
    }
}

fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 0x40;
    fs::write(path, bytes).unwrap();
}

/// The frames of a snapshot file, heads included.
fn frames(whole: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut frames = Vec::new();
    let mut at = 8 + 4 + 40;
    while at < whole.len() {
        let length: [u8; 4] = whole[at + 1..at + 5].try_into().unwrap();
        let end = at + 5 + u32::from_be_bytes(length) as usize;
        frames.push(at..end);
        at = end;
    }
    frames
}

fn version_key(revision: u64) -> Vec<u8> {
    let mut key = vec![1];
    key.extend_from_slice(&revision.to_be_bytes());
    key.extend_from_slice(&0u32.to_be_bytes());
    key
}

/// Makes the next start read all rows.
fn forget_index(dir: &Path) {
    fs::remove_file(engine_dir(dir, 1).join("index")).unwrap();
}

/// What somebody can do who writes to the disk: change rows with RocksDB itself.
fn tamper(dir: &Path, change: impl FnOnce(&Raw)) {
    let raw = Raw::open(dir);
    change(&raw);
    for family in ["default", "state"] {
        raw.0.flush_cf(raw.0.cf_handle(family).unwrap()).unwrap();
    }
}

fn read_raw(dir: &Path, key: &[u8]) -> Vec<u8> {
    Raw::open(dir).get(key).unwrap()
}

fn first_version_below(dir: &Path, revision: u64) -> Vec<u8> {
    let raw = Raw::open(dir);
    let found = (2..revision)
        .map(version_key)
        .find(|key| raw.get(key).is_some());
    found.unwrap()
}

/// The engine's rows as they stand on the disk.
struct Raw(DB);

impl Raw {
    fn open(dir: &Path) -> Self {
        let rows = engine_dir(dir, 1).join("rows");
        Self(DB::open_cf(&Options::default(), rows, ["default", "state"]).unwrap())
    }

    fn family(&self, key: &[u8]) -> &ColumnFamily {
        let name = if key[0] == 1 { "default" } else { "state" };
        self.0.cf_handle(name).unwrap()
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get_cf(self.family(key), key).unwrap()
    }

    fn put(&self, key: &[u8], value: &[u8]) {
        self.0.put_cf(self.family(key), key, value).unwrap();
    }

    fn delete(&self, key: &[u8]) {
        self.0.delete_cf(self.family(key), key).unwrap();
    }
}
