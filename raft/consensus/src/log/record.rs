//! What a frame holds: a list of records, and their bytes.
//!
//! Pure. The encoding is fixed (little endian, one tag byte per record) and
//! versioned by the frame's header; unknown tags are an error, never skipped.

use bytes::{Buf, BufMut, Bytes};
use nautilus_machine::LogPosition;

const TAG_ENTRY: u8 = 1;
const TAG_VOTE: u8 = 2;
const TAG_TRUNCATE: u8 = 3;
const TAG_PURGE: u8 = 4;
const TAG_COMMITTED: u8 = 5;

/// What an entry's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum EntryKind {
    /// A new leader's empty entry.
    Blank = 0,
    /// A command of the machine.
    Command = 1,
    /// A membership.
    Membership = 2,
}

impl EntryKind {
    pub(crate) fn from_u32(value: u32) -> Option<Self> {
        match value {
            0 => Some(Self::Blank),
            1 => Some(Self::Command),
            2 => Some(Self::Membership),
            _ => None,
        }
    }
}

/// An entry as the log and the wire carry it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawEntry {
    /// Its place.
    pub(crate) position: LogPosition,
    /// What `body` is.
    pub(crate) kind: EntryKind,
    /// The payload; shared, never copied on its way.
    pub(crate) body: Bytes,
}

/// A vote as it stands on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HardVote {
    /// Its term.
    pub(crate) term: u64,
    /// For whom.
    pub(crate) node: u64,
    /// Whether a quorum granted it.
    pub(crate) committed: bool,
}

/// One thing a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// Append an entry.
    Entry(RawEntry),
    /// The newest vote.
    Vote(HardVote),
    /// Forget every entry from this index on.
    TruncateFrom(u64),
    /// Forget every entry up to here, included.
    Purge(LogPosition),
    /// Everything up to here is committed.
    Committed(LogPosition),
}

impl Record {
    /// Bytes [`Record::encode`] adds.
    pub(crate) fn encoded_len(&self) -> usize {
        match self {
            Self::Entry(entry) => 1 + 8 + 8 + 1 + 4 + entry.body.len(),
            Self::Vote(_) => 1 + 8 + 8 + 1,
            Self::TruncateFrom(_) => 1 + 8,
            Self::Purge(_) | Self::Committed(_) => 1 + 8 + 8,
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Entry(entry) => {
                out.put_u8(TAG_ENTRY);
                put_position(out, entry.position);
                out.put_u8(entry.kind as u8);
                // Bodies are bounded far below 4 GiB by the proposal limit.
                out.put_u32_le(u32::try_from(entry.body.len()).unwrap_or(u32::MAX));
                out.put_slice(&entry.body);
            }
            Self::Vote(vote) => {
                out.put_u8(TAG_VOTE);
                out.put_u64_le(vote.term);
                out.put_u64_le(vote.node);
                out.put_u8(u8::from(vote.committed));
            }
            Self::TruncateFrom(index) => {
                out.put_u8(TAG_TRUNCATE);
                out.put_u64_le(*index);
            }
            Self::Purge(position) => {
                out.put_u8(TAG_PURGE);
                put_position(out, *position);
            }
            Self::Committed(position) => {
                out.put_u8(TAG_COMMITTED);
                put_position(out, *position);
            }
        }
    }

    /// Every record of a frame's plaintext.
    pub(crate) fn decode_all(mut bytes: Bytes) -> Result<Vec<Self>, String> {
        let mut records = Vec::new();
        while bytes.has_remaining() {
            records.push(Self::decode(&mut bytes)?);
        }
        Ok(records)
    }

    fn decode(bytes: &mut Bytes) -> Result<Self, String> {
        let tag = bytes.get_u8();
        match tag {
            TAG_ENTRY => {
                need(bytes, 21)?;
                let position = get_position(bytes);
                let kind = bytes.get_u8();
                let kind = EntryKind::from_u32(u32::from(kind))
                    .ok_or_else(|| format!("unknown kind of entry {kind}"))?;
                let length = bytes.get_u32_le() as usize;
                need(bytes, length)?;
                Ok(Self::Entry(RawEntry {
                    position,
                    kind,
                    body: bytes.split_to(length),
                }))
            }
            TAG_VOTE => {
                need(bytes, 17)?;
                let (term, node) = (bytes.get_u64_le(), bytes.get_u64_le());
                Ok(Self::Vote(HardVote {
                    term,
                    node,
                    committed: bytes.get_u8() != 0,
                }))
            }
            TAG_TRUNCATE => {
                need(bytes, 8)?;
                Ok(Self::TruncateFrom(bytes.get_u64_le()))
            }
            TAG_PURGE => {
                need(bytes, 16)?;
                Ok(Self::Purge(get_position(bytes)))
            }
            TAG_COMMITTED => {
                need(bytes, 16)?;
                Ok(Self::Committed(get_position(bytes)))
            }
            other => Err(format!("unknown kind of record {other}")),
        }
    }
}

fn put_position(out: &mut Vec<u8>, position: LogPosition) {
    out.put_u64_le(position.term);
    out.put_u64_le(position.index);
}

fn get_position(bytes: &mut Bytes) -> LogPosition {
    let term = bytes.get_u64_le();
    LogPosition {
        term,
        index: bytes.get_u64_le(),
    }
}

fn need(bytes: &Bytes, length: usize) -> Result<(), String> {
    if bytes.remaining() < length {
        return Err(format!(
            "a record of {length} bytes has only {}",
            bytes.remaining()
        ));
    }
    Ok(())
}
