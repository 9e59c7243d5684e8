//! Reading an archive: its header, its signature, its records.
//!
//! Invariants
//! - A record is handed out only after its frame authenticated under the archive's
//!   key; the end only after counts, hash and signature were found right.
//! - Lengths are believed within named bounds only: a damaged file costs no memory.

use std::io::Read;

use aws_lc_rs::digest;
use bytes::{Buf as _, Bytes, BytesMut};
use nautilus_machine::{KeyValue, LeaseId};

use crate::error::BackupError;
use crate::frames::{Frames, HEAD_BYTES, Position, parse_head};
use crate::header::{HEADER_BYTES_MAX, Header};
use crate::keys::{Opener, SIGNATURE_BYTES, SignerKey};
use crate::record::{
    ContentHash, KEY_BYTES_MAX, KIND_END, KIND_KEY, KIND_LEASE, Lease, Record, Summary,
    VALUE_BYTES_MAX,
};
use crate::writer::{MAGIC, finish, signed};

/// Bytes read at once while a signature is checked.
const READ_BYTES: usize = 256 << 10;

/// What etcdctl pads to, and the hash that it adds.
const BLOCK_BYTES: usize = 512;
const HASH_BYTES: usize = 32;
const TRAILER_BYTES_MAX: u64 = (BLOCK_BYTES + HASH_BYTES) as u64;

/// An archive whose header was read.
pub struct Archive<R: Read> {
    source: R,
    header: Header,
    whole: digest::Context,
    start_bytes: u64,
}

/// An archive whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The whole file's length.
    pub size_bytes: u64,
    /// Who signed it.
    pub signer: SignerKey,
}

impl<R: Read> Archive<R> {
    /// Reads the header. It says what the file says: only [`verify`](Self::verify)
    /// and [`unseal`](Self::unseal) prove it.
    pub fn open(mut source: R) -> Result<Self, BackupError> {
        let mut start = [0; MAGIC.len() + 4];
        let read = source.read_exact(&mut start);
        read.map_err(BackupError::cut("its header"))?;
        let (magic, length) = start.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(BackupError::NotAnArchive("it begins otherwise".into()));
        }
        let length = { length }.get_u32() as usize;
        if length > HEADER_BYTES_MAX {
            return Err(BackupError::NotAnArchive("its header is too long".into()));
        }
        let mut header = vec![0; length];
        let read = source.read_exact(&mut header);
        read.map_err(BackupError::cut("its header"))?;
        let mut whole = digest::Context::new(&digest::SHA256);
        whole.update(&start);
        whole.update(&header);
        Ok(Self {
            source,
            whole,
            start_bytes: (start.len() + header.len()) as u64,
            header: Header::decode(&header)?,
        })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Refuses an archive that another than `expected` says to have signed.
    pub fn expect_signer(&self, expected: &SignerKey) -> Result<(), BackupError> {
        let found = self.header.signer_key()?;
        if found == *expected {
            return Ok(());
        }
        Err(BackupError::OtherSigner {
            found: found.to_string(),
            expected: expected.to_string(),
        })
    }

    /// Reads the whole file and checks its signature: it is whole and unchanged since
    /// it was signed. Needs no key to open it. `progress` hears of bytes read.
    pub fn verify(mut self, progress: &mut dyn FnMut(u64)) -> Result<Verified, BackupError> {
        let signer = self.header.signer_key()?;
        let mut size_bytes = self.start_bytes;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let (at, length, head) = read_head(&mut self.source)?;
            self.whole.update(&head);
            let mut left = length;
            while left > 0 {
                let now = left.min(buffer.len());
                let read = self.source.read_exact(&mut buffer[..now]);
                read.map_err(BackupError::cut("a frame"))?;
                self.whole.update(&buffer[..now]);
                left -= now;
            }
            size_bytes += (HEAD_BYTES + length) as u64;
            progress(size_bytes);
            if at == Position::Last {
                break;
            }
        }
        size_bytes += check_end(&mut self.source, &signer, self.whole)?;
        Ok(Verified { size_bytes, signer })
    }

    /// Opens it.
    pub fn unseal(self, opener: &Opener) -> Result<Records<R>, BackupError> {
        let key = self.header.open(opener)?;
        Ok(Records {
            frames: Frames::new(&key, finish(self.whole.clone())),
            source: self.source,
            header: self.header,
            whole: Some(self.whole),
            chunk: Bytes::new(),
            ended: false,
            content: ContentHash::default(),
            summary: None,
        })
    }
}

/// The records of an opened archive.
pub struct Records<R: Read> {
    source: R,
    header: Header,
    whole: Option<digest::Context>,
    frames: Frames,
    chunk: Bytes,
    ended: bool,
    content: ContentHash,
    summary: Option<Summary>,
}

impl<R: Read> Records<R> {
    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next record; `None` when the archive was read whole and everything about it
    /// was right.
    pub fn next_record(&mut self) -> Result<Option<Record>, BackupError> {
        if self.summary.is_some() {
            return Ok(None);
        }
        let [kind] = self.array()?;
        let record = match kind {
            KIND_LEASE => Record::Lease(Lease {
                id: LeaseId(i64::from_be_bytes(self.array()?)),
                ttl_ms: u64::from_be_bytes(self.array()?),
            }),
            KIND_KEY => Record::Key(self.key_value()?),
            KIND_END => {
                self.end()?;
                return Ok(None);
            }
            other => return Err(BackupError::Content(format!("a record of kind {other}"))),
        };
        self.content.add(&record);
        Ok(Some(record))
    }

    /// What it came to, after the last record.
    pub fn summary(&self) -> Option<Summary> {
        self.summary
    }

    fn key_value(&mut self) -> Result<KeyValue, BackupError> {
        let mut head = Bytes::copy_from_slice(&self.array::<40>()?);
        let (create_revision, mod_revision) = (head.get_u64(), head.get_u64());
        let (version, lease) = (head.get_u64(), head.get_i64());
        let (key_bytes, value_bytes) = (head.get_u32() as usize, head.get_u32() as usize);
        if key_bytes > KEY_BYTES_MAX || value_bytes > VALUE_BYTES_MAX {
            return Err(BackupError::Content("a key or value too large".into()));
        }
        Ok(KeyValue {
            key: self.take(key_bytes)?,
            value: self.take(value_bytes)?,
            create_revision,
            mod_revision,
            version,
            lease: (lease != 0).then_some(LeaseId(lease)),
        })
    }

    fn end(&mut self) -> Result<(), BackupError> {
        let keys = u64::from_be_bytes(self.array()?);
        let leases = u64::from_be_bytes(self.array()?);
        let hash = self.array()?;
        let said = Summary { keys, leases, hash };
        let found = std::mem::take(&mut self.content).finish();
        let announced = (self.header.keys, self.header.leases);
        if said != found || announced != (keys, leases) {
            return Err(BackupError::Content(
                "its records are not those it says it holds".into(),
            ));
        }
        if !self.ended || !self.chunk.is_empty() {
            return Err(BackupError::Content("it goes on after its end".into()));
        }
        let whole = self.whole.take();
        let whole = whole.ok_or_else(|| BackupError::Content("it was read twice".into()))?;
        check_end(&mut self.source, &self.header.signer_key()?, whole)?;
        self.summary = Some(found);
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let mut array = [0; N];
        let mut at = 0;
        while at < N {
            self.more()?;
            let now = self.chunk.len().min(N - at);
            self.chunk.copy_to_slice(&mut array[at..at + now]);
            at += now;
        }
        Ok(array)
    }

    /// Without a copy when it lies in one frame.
    fn take(&mut self, bytes: usize) -> Result<Bytes, BackupError> {
        if bytes == 0 {
            return Ok(Bytes::new());
        }
        self.more()?;
        if bytes <= self.chunk.len() {
            return Ok(self.chunk.split_to(bytes));
        }
        let mut taken = BytesMut::new();
        while taken.len() < bytes {
            self.more()?;
            let now = self.chunk.len().min(bytes - taken.len());
            taken.extend_from_slice(&self.chunk.split_to(now));
        }
        Ok(taken.freeze())
    }

    /// Sees to it that the chunk is not empty.
    fn more(&mut self) -> Result<(), BackupError> {
        while self.chunk.is_empty() {
            if self.ended {
                return Err(BackupError::Content("its records end in the middle".into()));
            }
            let (at, length, head) = read_head(&mut self.source)?;
            let mut sealed = vec![0; length];
            let read = self.source.read_exact(&mut sealed);
            read.map_err(BackupError::cut("a frame"))?;
            if let Some(whole) = &mut self.whole {
                whole.update(&head);
                whole.update(&sealed);
            }
            self.chunk = self.frames.open(sealed, at)?;
            self.ended = at == Position::Last;
        }
        Ok(())
    }
}

fn read_head(source: &mut impl Read) -> Result<(Position, usize, [u8; HEAD_BYTES]), BackupError> {
    let mut head = [0; HEAD_BYTES];
    let read = source.read_exact(&mut head);
    read.map_err(BackupError::cut("its frames"))?;
    let (at, length) = parse_head(head)
        .ok_or_else(|| BackupError::Content("a frame's head makes no sense".into()))?;
    Ok((at, length, head))
}

/// Checks the signature and what may follow it; gives the length of both.
///
/// A snapshot taken by `etcdctl` is followed by zeros up to a multiple of 512 bytes and
/// the SHA-256 of everything before.
fn check_end(
    source: &mut impl Read,
    signer: &SignerKey,
    mut whole: digest::Context,
) -> Result<u64, BackupError> {
    let mut signature = [0; SIGNATURE_BYTES];
    let read = source.read_exact(&mut signature);
    read.map_err(BackupError::cut("its signature"))?;
    signer.verify(&signed(finish(whole.clone())), &signature)?;
    whole.update(&signature);
    let mut rest = Vec::new();
    let read = source.take(TRAILER_BYTES_MAX + 1).read_to_end(&mut rest);
    read.map_err(BackupError::io("read the archive"))?;
    let more = || BackupError::Content("it goes on after its end".into());
    if !rest.is_empty() {
        let padding = rest.len().checked_sub(HASH_BYTES).ok_or_else(more)?;
        let (padding, hash) = rest.split_at(padding);
        whole.update(padding);
        if padding.len() >= BLOCK_BYTES
            || padding.iter().any(|byte| *byte != 0)
            || finish(whole) != hash
        {
            return Err(more());
        }
    }
    Ok((SIGNATURE_BYTES + rest.len()) as u64)
}
