//! Snapshot files: a consistent state, sealed, that any member can open.
//!
//! magic (8 bytes) ‖ generation u32 BE ‖ wrapped data key (40 bytes) ‖ frames. A frame is
//! last u8 ‖ length u32 BE ‖ ciphertext and tag, by AES-256-GCM under the file's own data
//! key, which any member that holds the generation's root can unwrap; nonce = 0 (4 bytes) ‖ frame number; associated data = hash
//! of all that came before frame 1 (of the clear part, for frame 0) ‖ number ‖ last.
//! Frame 0 is the caller's header; the rest, put together, is a stream of records:
//! space u8 ‖ key length u16 BE ‖ value length u32 BE ‖ key ‖ value, ended by a
//! record of space 0 whose value is the number of rows.
//!
//! Invariants
//! - A frame is at most [`SNAPSHOT_CHUNK_BYTES`] long and is used only after it
//!   authenticated at its number; frames cannot be swapped, dropped or taken from
//!   another file, and the last one says that it is.
//! - The data key is fresh for every file: no nonce comes twice under a key.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use aws_lc_rs::digest;
use bytes::Bytes;
use nautilus_machine::{Digest, MACHINE_ROW, Revision, Space};

use crate::background::give_way;
use crate::cipher::{NONCE_BYTES, SealKey, TAG_BYTES};
use crate::error::StoreError;
use crate::keys::{Generation, Keyring, Purpose, WRAPPED_BYTES, WrappedKey};

/// The largest frame, tag included.
pub const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;
/// The largest header of a caller.
pub const SNAPSHOT_HEADER_BYTES_MAX: usize = SNAPSHOT_CHUNK_BYTES - TAG_BYTES;

const MAGIC: &[u8; 8] = b"NAUTSNP3";
const CLEAR_BYTES: usize = MAGIC.len() + 4 + WRAPPED_BYTES;
const CHUNK_PLAIN_BYTES: usize = SNAPSHOT_CHUNK_BYTES - TAG_BYTES;
/// The largest row that is believed; far above what a proposal can hold.
const VALUE_BYTES_MAX: usize = 64 << 20;
const END_OF_RECORDS: u8 = 0;
/// last u8 ‖ length u32.
const FRAME_HEAD_BYTES: usize = 1 + 4;
/// space u8 ‖ key length u16 ‖ value length u32.
const RECORD_HEAD_BYTES: usize = 1 + 2 + 4;
/// Frames that wait to be sealed and written.
const FRAMES_UNDER_WAY: usize = 2;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The file's length.
    pub size_bytes: u64,
    /// Rows in it.
    pub rows: u64,
    /// The store's revision.
    pub revision: Revision,
    /// The state's digest.
    pub digest: Digest,
}

/// Reads the caller's header of a snapshot file, authenticated.
pub fn read_header(path: &Path, keyring: &Keyring) -> Result<Bytes, StoreError> {
    SnapshotReader::open(path, keyring).map(|reader| reader.header)
}

/// The generation whose root opens a snapshot file, as its head says; `None` when it has
/// no such head.
pub fn snapshot_generation(path: &Path) -> io::Result<Option<Generation>> {
    let mut clear = [0; CLEAR_BYTES];
    match File::open(path)?.read_exact(&mut clear) {
        Ok(()) => Ok(parse_clear(&clear).map(|wrapped| wrapped.generation)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse_clear(clear: &[u8; CLEAR_BYTES]) -> Option<WrappedKey> {
    let (generation, bytes) = clear.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
    Some(WrappedKey {
        generation: Generation::from_be_bytes(*generation),
        bytes: bytes.try_into().ok()?,
    })
}

/// Writes a snapshot: rows are put together by the caller's thread, frames are sealed
/// and written by another.
pub(crate) struct SnapshotWriter<W: Write> {
    /// Full frames on their way to be sealed.
    full: SyncSender<(Frame, bool)>,
    /// Frames that were written, to be filled again.
    empty: Receiver<Frame>,
    /// `None` once it was joined.
    sealer: Option<JoinHandle<io::Result<(W, u64)>>>,
    pending: Frame,
    rows: u64,
}

impl<W: Write + Send + 'static> SnapshotWriter<W> {
    pub(crate) fn begin(mut sink: W, keyring: &Keyring, header: &[u8]) -> io::Result<Self> {
        let (wrapped, key) = keyring.draw(Purpose::Snapshots).map_err(io::Error::other)?;
        let mut clear = Vec::with_capacity(CLEAR_BYTES);
        clear.extend_from_slice(MAGIC);
        clear.extend_from_slice(&wrapped.generation.to_be_bytes());
        clear.extend_from_slice(&wrapped.bytes);
        sink.write_all(&clear)?;
        let mut frames = Frames::new(key, &clear);
        let mut first = Frame::default();
        first.append(header);
        let sealed = first.seal(&mut frames, false);
        sink.write_all(sealed)?;
        let size_bytes = (clear.len() + sealed.len()) as u64;
        frames.bind(&sealed[FRAME_HEAD_BYTES..]);
        let (full, to_seal) = sync_channel(FRAMES_UNDER_WAY);
        let (written, empty) = sync_channel(FRAMES_UNDER_WAY + 1);
        for _ in 0..FRAMES_UNDER_WAY {
            written.send(Frame::default()).map_err(io::Error::other)?;
        }
        let sealer = thread::Builder::new()
            .name("store-seal".to_owned())
            .spawn(move || {
                give_way();
                seal_all(sink, frames, size_bytes, &to_seal, &written)
            })?;
        Ok(Self {
            full,
            empty,
            sealer: Some(sealer),
            pending: Frame::default(),
            rows: 0,
        })
    }

    pub(crate) fn row(&mut self, space: Space, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.rows += 1;
        self.record(space as u8, key, value)
    }

    /// Ends the file; gives the sink, the rows and the length.
    pub(crate) fn finish(mut self) -> io::Result<(W, u64, u64)> {
        let rows = self.rows.to_be_bytes();
        self.record(END_OF_RECORDS, &[], &rows)?;
        self.send(true)?;
        let Self {
            full, sealer, rows, ..
        } = self;
        drop(full);
        let (sink, size_bytes) = join(sealer)?;
        Ok((sink, rows, size_bytes))
    }

    fn record(&mut self, space: u8, key: &[u8], value: &[u8]) -> io::Result<()> {
        let key_bytes = u16::try_from(key.len()).map_err(io::Error::other)?;
        let value_bytes = u32::try_from(value.len()).map_err(io::Error::other)?;
        let mut head = [0; RECORD_HEAD_BYTES];
        head[0] = space;
        head[1..3].copy_from_slice(&key_bytes.to_be_bytes());
        head[3..].copy_from_slice(&value_bytes.to_be_bytes());
        self.append(&head)?;
        self.append(key)?;
        self.append(value)
    }

    fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        loop {
            bytes = self.pending.append(bytes);
            if bytes.is_empty() {
                return Ok(());
            }
            self.send(false)?;
        }
    }

    /// Hands the pending frame over, and takes an empty one.
    fn send(&mut self, last: bool) -> io::Result<()> {
        let Ok(next) = self.empty.recv() else {
            return Err(self.failure());
        };
        let frame = std::mem::replace(&mut self.pending, next);
        self.full.send((frame, last)).map_err(|_| self.failure())
    }

    /// Why the sealer has gone.
    fn failure(&mut self) -> io::Error {
        match join(self.sealer.take()) {
            Ok(_) => io::Error::other("the snapshot's writer ended early"),
            Err(error) => error,
        }
    }
}

fn join<T>(thread: Option<JoinHandle<io::Result<T>>>) -> io::Result<T> {
    let died = || io::Error::other("the snapshot's writer died");
    thread.ok_or_else(died)?.join().map_err(|_| died())?
}

/// Seals and writes frames until no more come; gives the sink and the file's length.
fn seal_all<W: Write>(
    mut sink: W,
    mut frames: Frames,
    mut size_bytes: u64,
    to_seal: &Receiver<(Frame, bool)>,
    written: &SyncSender<Frame>,
) -> io::Result<(W, u64)> {
    while let Ok((mut frame, last)) = to_seal.recv() {
        let sealed = frame.seal(&mut frames, last);
        sink.write_all(sealed)?;
        size_bytes += sealed.len() as u64;
        frame.clear();
        if written.send(frame).is_err() {
            break;
        }
    }
    sink.flush()?;
    Ok((sink, size_bytes))
}

/// One frame's bytes: room for its head, then its text, then its tag.
struct Frame(Vec<u8>);

impl Default for Frame {
    fn default() -> Self {
        let mut bytes = Vec::with_capacity(FRAME_HEAD_BYTES + SNAPSHOT_CHUNK_BYTES);
        bytes.resize(FRAME_HEAD_BYTES, 0);
        Self(bytes)
    }
}

impl Frame {
    fn clear(&mut self) {
        self.0.truncate(FRAME_HEAD_BYTES);
    }

    /// Takes what there is room for; gives the rest.
    fn append<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let room = FRAME_HEAD_BYTES + CHUNK_PLAIN_BYTES - self.0.len();
        let (now, later) = bytes.split_at(room.min(bytes.len()));
        self.0.extend_from_slice(now);
        later
    }

    /// The frame as it stands in the file.
    fn seal(&mut self, frames: &mut Frames, last: bool) -> &[u8] {
        let tag = frames.seal(&mut self.0[FRAME_HEAD_BYTES..], last);
        self.0.extend_from_slice(&tag);
        let length = self.0.len() - FRAME_HEAD_BYTES;
        let length = u32::try_from(length).unwrap_or_else(|_| panic!("a frame of {length} bytes"));
        self.0[0] = u8::from(last);
        self.0[1..FRAME_HEAD_BYTES].copy_from_slice(&length.to_be_bytes());
        &self.0
    }
}

/// What is done with each row of a snapshot.
pub(crate) type RowVisit<'a> = dyn FnMut(Space, &[u8], Vec<u8>) -> Result<(), StoreError> + 'a;

/// Reads a snapshot, frame by frame.
pub(crate) struct SnapshotReader<'a> {
    path: &'a Path,
    file: BufReader<File>,
    frames: Frames,
    pub(crate) header: Bytes,
    sealed: Vec<u8>,
    chunk: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<'a> SnapshotReader<'a> {
    pub(crate) fn open(path: &'a Path, keyring: &Keyring) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(StoreError::io("open", path))?;
        let mut file = BufReader::new(file);
        let mut clear = [0; CLEAR_BYTES];
        file.read_exact(&mut clear)
            .map_err(|error| cut(path, &error))?;
        let wrapped = parse_clear(&clear)
            .ok_or_else(|| refused(path, "it is not a snapshot that this program knows"))?;
        let key = keyring.unwrap(Purpose::Snapshots, &wrapped);
        let key = key.map_err(|error| refused(path, &error.to_string()))?;
        let mut reader = Self {
            path,
            file,
            frames: Frames::new(key, &clear),
            header: Bytes::new(),
            sealed: Vec::new(),
            chunk: Vec::new(),
            at: 0,
            ended: false,
        };
        reader.frame()?;
        reader.header = std::mem::take(&mut reader.chunk).into();
        reader.frames.bind(&reader.sealed);
        Ok(reader)
    }

    /// Visits every row; returns when the whole file has been read and authenticated.
    pub(crate) fn each_row(mut self, visit: &mut RowVisit<'_>) -> Result<u64, StoreError> {
        let path = self.path;
        let mut rows = 0u64;
        loop {
            let [space, k0, k1, value_bytes @ ..] = self.array::<RECORD_HEAD_BYTES>()?;
            let key_bytes = u16::from_be_bytes([k0, k1]);
            let value_bytes = u32::from_be_bytes(value_bytes) as usize;
            if value_bytes > VALUE_BYTES_MAX {
                return Err(refused(path, "it holds a row that is too large"));
            }
            let key = self.take(usize::from(key_bytes))?;
            let value = self.take(value_bytes)?;
            if space == END_OF_RECORDS {
                if value != rows.to_be_bytes() {
                    return Err(refused(
                        path,
                        "it holds another number of rows than it says",
                    ));
                }
                return self.expect_end().map(|()| rows);
            }
            let space = known_space(space, &key)
                .ok_or_else(|| refused(path, "it holds a row that no snapshot has"))?;
            rows += 1;
            visit(space, &key, value)?;
        }
    }

    fn expect_end(mut self) -> Result<(), StoreError> {
        let mut rest = [0];
        let more = self
            .file
            .read(&mut rest)
            .map_err(StoreError::io("read", self.path))?;
        if !self.ended || self.at != self.chunk.len() || more != 0 {
            return Err(refused(self.path, "it goes on after its end"));
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let mut array = [0; N];
        self.fill(&mut array)?;
        Ok(array)
    }

    fn take(&mut self, bytes: usize) -> Result<Vec<u8>, StoreError> {
        let mut taken = vec![0; bytes];
        self.fill(&mut taken)?;
        Ok(taken)
    }

    fn fill(&mut self, mut target: &mut [u8]) -> Result<(), StoreError> {
        while !target.is_empty() {
            if self.at == self.chunk.len() {
                if self.ended {
                    return Err(refused(self.path, "its rows end in the middle"));
                }
                self.frame()?;
                continue;
            }
            let now = (self.chunk.len() - self.at).min(target.len());
            let (head, tail) = target.split_at_mut(now);
            head.copy_from_slice(&self.chunk[self.at..self.at + now]);
            self.at += now;
            target = tail;
        }
        Ok(())
    }

    /// Takes the next frame: as it was sealed, and opened.
    fn frame(&mut self) -> Result<(), StoreError> {
        let path = self.path;
        let mut head = [0; FRAME_HEAD_BYTES];
        self.file
            .read_exact(&mut head)
            .map_err(|error| cut(path, &error))?;
        let [last, length @ ..] = head;
        let length = u32::from_be_bytes(length) as usize;
        if last > 1 || !(TAG_BYTES..=SNAPSHOT_CHUNK_BYTES).contains(&length) {
            return Err(refused(path, &self.frames.damaged()));
        }
        self.sealed.resize(length, 0);
        self.file
            .read_exact(&mut self.sealed)
            .map_err(|error| cut(path, &error))?;
        let damaged = self.frames.damaged();
        if !self.frames.open(&self.sealed, last == 1, &mut self.chunk) {
            return Err(refused(path, &damaged));
        }
        self.at = 0;
        self.ended = last == 1;
        Ok(())
    }
}

/// The sealing of a file's frames, one after the other.
struct Frames {
    key: SealKey,
    clear_hash: digest::Context,
    bound: [u8; 32],
    number: u64,
}

impl Frames {
    fn new(key: SealKey, clear: &[u8]) -> Self {
        let mut clear_hash = digest::Context::new(&digest::SHA256);
        clear_hash.update(clear);
        let bound = finish(clear_hash.clone());
        Self {
            key,
            clear_hash,
            bound,
            number: 0,
        }
    }

    /// Binds the frames to come to the header's frame.
    fn bind(&mut self, sealed_header: &[u8]) {
        self.clear_hash.update(sealed_header);
        self.bound = finish(self.clear_hash.clone());
    }

    /// Encrypts in place; gives the tag.
    fn seal(&mut self, text: &mut [u8], last: bool) -> [u8; TAG_BYTES] {
        let (nonce, aad) = self.next(last);
        self.key.seal(nonce, &aad, text)
    }

    /// Opens a frame into `text`; whether it authenticated.
    fn open(&mut self, sealed: &[u8], last: bool, text: &mut Vec<u8>) -> bool {
        let (nonce, aad) = self.next(last);
        self.key.open(nonce, &aad, sealed, text).is_ok()
    }

    fn next(&mut self, last: bool) -> ([u8; NONCE_BYTES], [u8; 41]) {
        let number = self.number.to_be_bytes();
        self.number += 1;
        let mut nonce = [0; NONCE_BYTES];
        nonce[4..].copy_from_slice(&number);
        let mut aad = [0; 41];
        aad[..32].copy_from_slice(&self.bound);
        aad[32..40].copy_from_slice(&number);
        aad[40] = u8::from(last);
        (nonce, aad)
    }

    fn damaged(&self) -> String {
        format!(
            "frame {} does not authenticate: it was changed or moved, or the file is of another \
             quorum (another root key)",
            self.number
        )
    }
}

fn finish(context: digest::Context) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

fn known_space(space: u8, key: &[u8]) -> Option<Space> {
    match space {
        1 => Some(Space::Revision),
        2 => Some(Space::Lease),
        3 if key == MACHINE_ROW => Some(Space::Meta),
        4 => Some(Space::Ledger),
        _ => None,
    }
}

fn refused(path: &Path, reason: &str) -> StoreError {
    StoreError::Snapshot {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

fn cut(path: &Path, error: &io::Error) -> StoreError {
    refused(path, &format!("it is cut short ({error})"))
}
