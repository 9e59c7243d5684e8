//! What the log promises, one promise a test.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use nautilus_machine::LogPosition;
use nautilus_store::{Envelope, Keyring, RootKey};

use super::record::{EntryKind, HardVote, RawEntry};
use super::{LogError, Wal, WalOptions};

pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    pub(super) keyring: Keyring,
    pub(super) segment_bytes: u64,
    pub(super) cache_bytes: usize,
    write_fault: Option<super::WriteFault>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            keyring: Keyring::new(RootKey::from_bytes([7; 32])),
            segment_bytes: 64 << 10,
            cache_bytes: 1 << 20,
            write_fault: None,
        }
    }

    pub(super) fn open(&self) -> Result<Wal, LogError> {
        let options = WalOptions {
            dir: self.dir.path().to_path_buf(),
            segment_bytes: self.segment_bytes,
            cache_bytes: self.cache_bytes,
            write_fault: self.write_fault.clone(),
        };
        let envelope = Envelope::open_dir(self.dir.path(), &self.keyring).unwrap();
        Wal::open(&options, envelope)
    }

    pub(super) fn fail_writes(&mut self, fault: super::WriteFault) {
        self.write_fault = Some(fault);
    }

    pub(super) fn segments(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        paths.sort();
        paths
    }
}

pub(super) fn entry(term: u64, index: u64, body: &str) -> RawEntry {
    RawEntry {
        position: LogPosition { term, index },
        kind: EntryKind::Command,
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

/// Appends and waits until it is durable.
pub(super) async fn append(wal: &Wal, entries: Vec<RawEntry>) -> Result<(), LogError> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    wal.append(entries, move |result| sender.send(result).unwrap())
        .await?;
    receiver.await.unwrap()
}

fn flip(path: &Path, offset: u64) {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x20], offset).unwrap();
}

/// Bytes of a segment that are not the zeros it was prepared with.
fn used_bytes(path: &Path) -> u64 {
    let bytes = std::fs::read(path).unwrap();
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at as u64 + 1)
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let world = World::new();
    let vote = HardVote {
        term: 3,
        node: 2,
        committed: true,
    };
    let wal = world.open().unwrap();
    wal.save_vote(vote).await.unwrap();
    append(
        &wal,
        (0..50)
            .map(|index| entry(3, index, &format!("value {index}")))
            .collect(),
    )
    .await
    .unwrap();
    wal.save_committed(Some(LogPosition { term: 3, index: 40 }));
    append(&wal, vec![entry(3, 50, "last")]).await.unwrap();
    drop(wal);

    let reader = world.open().unwrap().reader();
    assert_eq!(reader.vote(), Some(vote));
    assert_eq!(reader.committed(), Some(LogPosition { term: 3, index: 40 }));
    let entries = reader.read(0..100, usize::MAX).unwrap();
    assert_eq!(entries.len(), 51);
    assert_eq!(entries[17], entry(3, 17, "value 17"));
    assert_eq!(entries[50], entry(3, 50, "last"));
}

#[tokio::test]
async fn entries_out_of_memory_are_read_from_disk() {
    let mut world = World::new();
    world.cache_bytes = 4096;
    let wal = world.open().unwrap();
    let body = "x".repeat(500);
    for index in 0..200 {
        append(&wal, vec![entry(1, index, &format!("{index} {body}"))])
            .await
            .unwrap();
    }
    let entries = wal.reader().read(0..200, usize::MAX).unwrap();
    assert_eq!(entries.len(), 200);
    assert!(
        entries
            .iter()
            .enumerate()
            .all(|(index, found)| *found == entry(1, index as u64, &format!("{index} {body}")))
    );
}

#[tokio::test]
async fn a_purge_removes_whole_segments_and_survives_a_restart() {
    let world = World::new();
    let wal = world.open().unwrap();
    let body = "x".repeat(1000);
    for index in 0..500 {
        append(&wal, vec![entry(1, index, &body)]).await.unwrap();
    }
    let before = world.segments().len();
    let vote = HardVote {
        term: 9,
        node: 1,
        committed: false,
    };
    wal.save_vote(vote).await.unwrap();
    wal.purge(LogPosition {
        term: 1,
        index: 450,
    })
    .await
    .unwrap();
    append(&wal, vec![entry(1, 500, &body)]).await.unwrap();
    assert!(world.segments().len() < before);
    drop(wal);

    let reader = world.open().unwrap().reader();
    assert_eq!(
        reader.bounds(),
        (
            Some(LogPosition {
                term: 1,
                index: 450
            }),
            Some(LogPosition {
                term: 1,
                index: 500
            })
        )
    );
    assert_eq!(reader.live(), 451..501);
    assert_eq!(reader.vote(), Some(vote));
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_the_log_goes_on() {
    let world = World::new();
    let wal = world.open().unwrap();
    append(&wal, vec![entry(1, 0, "kept")]).await.unwrap();
    drop(wal);
    // Half of a frame that was never synced: a valid header, then rubbish.
    let path = world.segments().pop().unwrap();
    let end = used_bytes(&path).next_multiple_of(8);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let mut torn = b"NLF1".to_vec();
    torn.extend_from_slice(&200_u32.to_le_bytes());
    torn.extend_from_slice(&[0xab; 60]);
    file.write_all_at(&torn, end).unwrap();

    let wal = world.open().unwrap();
    append(&wal, vec![entry(1, 1, "after")]).await.unwrap();
    drop(wal);
    let entries = world
        .open()
        .unwrap()
        .reader()
        .read(0..10, usize::MAX)
        .unwrap();
    assert_eq!(entries, vec![entry(1, 0, "kept"), entry(1, 1, "after")]);
}

#[tokio::test]
async fn every_flipped_byte_is_refused_or_repaired() {
    let mut world = World::new();
    world.segment_bytes = 512;
    let wal = world.open().unwrap();
    let expected: Vec<_> = (0..5)
        .map(|index| entry(2, index, &format!("value {index} {}", "y".repeat(70))))
        .collect();
    for one in &expected {
        append(&wal, vec![one.clone()]).await.unwrap();
    }
    drop(wal);
    for path in world.segments() {
        for offset in 0..std::fs::metadata(&path).unwrap().len() {
            flip(&path, offset);
            match world.open() {
                Ok(wal) => assert_eq!(
                    wal.reader().read(0..100, usize::MAX).unwrap(),
                    expected,
                    "byte {offset} of {}",
                    path.display()
                ),
                Err(error) => {
                    let text = error.to_string();
                    assert!(
                        text.contains("is corrupt at byte")
                            && text.contains("wipe its data directory"),
                        "{text}"
                    );
                }
            }
            // Opening may have cleared what was past the end; there it was zero before.
            let mut byte = [0];
            std::fs::File::open(&path)
                .unwrap()
                .read_exact_at(&mut byte, offset)
                .unwrap();
            if byte[0] != 0 {
                flip(&path, offset);
            }
        }
    }
}

#[tokio::test]
async fn a_synced_frame_at_the_end_that_does_not_open_is_corruption() {
    let world = World::new();
    let wal = world.open().unwrap();
    append(&wal, vec![entry(1, 0, "first")]).await.unwrap();
    append(&wal, vec![entry(1, 1, "second")]).await.unwrap();
    drop(wal);
    let path = world.segments().pop().unwrap();
    flip(&path, used_bytes(&path) - 10);
    let error = world.open().err().unwrap().to_string();
    assert!(
        error.contains(&path.display().to_string()) && error.contains("were synced"),
        "{error}"
    );
}

#[tokio::test]
async fn a_missing_segment_is_corruption() {
    let world = World::new();
    let wal = world.open().unwrap();
    for index in 0..300 {
        append(&wal, vec![entry(1, index, &"z".repeat(1000))])
            .await
            .unwrap();
    }
    drop(wal);
    let segments = world.segments();
    for at in [0, 1, segments.len() - 1] {
        let hidden = segments[at].with_extension("hidden");
        std::fs::rename(&segments[at], &hidden).unwrap();
        assert!(
            matches!(world.open(), Err(LogError::Corrupt { .. })),
            "segment {at}"
        );
        std::fs::rename(&hidden, &segments[at]).unwrap();
    }
    assert!(world.open().is_ok());
}

#[tokio::test]
async fn nothing_written_is_readable_in_the_files() {
    let world = World::new();
    let wal = world.open().unwrap();
    append(&wal, vec![entry(1, 0, "planted-secret-in-the-log")])
        .await
        .unwrap();
    drop(wal);
    for file in std::fs::read_dir(world.dir.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(14).any(|window| window == b"planted-secret"));
    }
}

#[tokio::test]
async fn after_a_failed_write_nothing_is_acknowledged_and_nothing_acknowledged_is_lost() {
    let full = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&full);
    let mut world = World::new();
    world.write_fault = Some(Arc::new(move |_| {
        seen.load(Ordering::Relaxed)
            .then(|| std::io::Error::from(std::io::ErrorKind::StorageFull))
    }));
    let wal = world.open().unwrap();
    append(&wal, vec![entry(1, 0, "acknowledged")])
        .await
        .unwrap();
    full.store(true, Ordering::Relaxed);
    let error = append(&wal, vec![entry(1, 1, "lost")])
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("no storage space"), "{error}");
    full.store(false, Ordering::Relaxed);
    assert!(append(&wal, vec![entry(1, 2, "never")]).await.is_err());
    drop(wal);
    let entries = world
        .open()
        .unwrap()
        .reader()
        .read(0..10, usize::MAX)
        .unwrap();
    assert_eq!(entries, vec![entry(1, 0, "acknowledged")]);
}

#[tokio::test]
async fn concurrent_appends_share_a_sync() {
    let writes = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&writes);
    let mut world = World::new();
    world.write_fault = Some(Arc::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        // Long enough that the others are queued by then.
        std::thread::sleep(std::time::Duration::from_millis(20));
        None
    }));
    let wal = world.open().unwrap();
    let mut waiting = Vec::new();
    for index in 0..100 {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        wal.append(vec![entry(1, index, "grouped")], move |result| {
            sender.send(result).unwrap();
        })
        .await
        .unwrap();
        waiting.push(receiver);
    }
    for receiver in waiting {
        receiver.await.unwrap().unwrap();
    }
    assert!(
        writes.load(Ordering::Relaxed) < 50,
        "{} writes",
        writes.load(Ordering::Relaxed)
    );
}
