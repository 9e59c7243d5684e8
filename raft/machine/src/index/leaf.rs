//! A leaf of the index: up to a hundred or so keys, packed.
//!
//! All keys of a leaf begin with its prefix, which is stored once. Behind it stand the
//! entries in key order, and beside them where each begins:
//!
//! | part | bytes |
//! |---|---|
//! | suffix length ‖ has a lease ‖ lives | varint, the flags in its lowest two bits |
//! | suffix | |
//! | revision, position | varints |
//! | revision − create revision, version | varints, of a living key only |
//! | lease | 8, where there is one |
//!
//! Invariants
//! - Keys are strictly ascending; `starts` has one element a key.
//! - `living` counts the entries whose flag says that they live.
//! - The bytes are the leaf's own: one that cannot be decoded is a bug and panics.

use std::ops::Range;

use crate::encoding::Place;
use crate::index::{Life, Newest};
use crate::types::{LeaseId, Revision};
use crate::varint;

/// Keys that a leaf has at most.
const LEAF_KEYS_MAX: usize = 128;
/// Bytes of a leaf with two or more keys at most.
const LEAF_BYTES_MAX: usize = 4096;
/// Bytes by which a full buffer grows.
const LEAF_GROW_BYTES: usize = 128;
/// Starts by which a full list of them grows.
const LEAF_GROW_STARTS: usize = 8;
/// What an `Arc` keeps beside its value, in bytes.
const ARC_BYTES: usize = 16;

const FLAG_LIVES: u64 = 1;
const FLAG_LEASE: u64 = 2;
const FLAG_BITS: u32 = 2;

/// See the module.
#[derive(Debug, Default, Clone)]
pub(super) struct Leaf {
    bytes: Vec<u8>,
    starts: Vec<u32>,
    prefix_bytes: u32,
    living: u32,
    /// The highest revision ever noted here.
    changed: Revision,
}

/// A key in two parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyParts<'a> {
    pub(crate) prefix: &'a [u8],
    pub(crate) suffix: &'a [u8],
}

impl KeyParts<'_> {
    /// The key in one piece.
    pub(crate) fn to_vec(self) -> Vec<u8> {
        [self.prefix, self.suffix].concat()
    }

    /// Appends the key without its first `skipped` bytes.
    pub(crate) fn push_from(self, skipped: usize, bytes: &mut Vec<u8>) {
        match skipped.checked_sub(self.prefix.len()) {
            Some(of_suffix) => bytes.extend_from_slice(&self.suffix[of_suffix..]),
            None => {
                bytes.extend_from_slice(&self.prefix[skipped..]);
                bytes.extend_from_slice(self.suffix);
            }
        }
    }

    pub(crate) fn len(self) -> usize {
        self.prefix.len() + self.suffix.len()
    }

    /// How many bytes it begins with in common with `other`.
    pub(crate) fn common(self, other: &[u8]) -> usize {
        let in_prefix = common_bytes(self.prefix, other);
        if in_prefix < self.prefix.len() {
            return in_prefix;
        }
        in_prefix + common_bytes(self.suffix, &other[in_prefix..])
    }
}

/// Where an entry's parts stand.
struct Head {
    flags: u64,
    suffix: Range<usize>,
}

impl Leaf {
    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    pub(super) fn living(&self) -> u64 {
        u64::from(self.living)
    }

    pub(super) fn changed(&self) -> Revision {
        self.changed
    }

    /// The memory it takes, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        ARC_BYTES + size_of::<Self>() + self.bytes.capacity() + 4 * self.starts.capacity()
    }

    pub(super) fn is_overfull(&self) -> bool {
        self.len() > 1 && (self.len() > LEAF_KEYS_MAX || self.bytes.len() > LEAF_BYTES_MAX)
    }

    /// Whether it has too little to stay alone.
    pub(super) fn is_sparse(&self) -> bool {
        self.len() < LEAF_KEYS_MAX / 4 && self.bytes.len() < LEAF_BYTES_MAX / 4
    }

    /// Whether the two fit into one that is not soon split again.
    pub(super) fn fits_with(&self, other: &Self) -> bool {
        let grown =
            self.len().max(other.len()) * self.prefix().len().abs_diff(other.prefix().len());
        self.len() + other.len() <= LEAF_KEYS_MAX * 3 / 4
            && self.bytes.len() + other.bytes.len() + grown <= LEAF_BYTES_MAX * 3 / 4
    }

    /// What every key begins with.
    pub(super) fn prefix(&self) -> &[u8] {
        &self.bytes[..self.prefix_bytes as usize]
    }

    /// The key at `at`.
    pub(super) fn key(&self, at: usize) -> KeyParts<'_> {
        KeyParts {
            prefix: self.prefix(),
            suffix: &self.bytes[self.head(at).suffix],
        }
    }

    /// Where `key` stands, or would.
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let Some(wanted) = key.strip_prefix(self.prefix()) else {
            let before_all = key < self.prefix();
            return Err(if before_all { 0 } else { self.len() });
        };
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.bytes[self.head(middle).suffix].cmp(wanted) {
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// The position of the first key that is not before `key`.
    pub(super) fn lower_bound(&self, key: &[u8]) -> usize {
        self.find(key).unwrap_or_else(|at| at)
    }

    /// The newest version of the key at `at`.
    pub(super) fn newest(&self, at: usize) -> Newest {
        let head = self.head(at);
        let mut read = head.suffix.end;
        let mut number = || match varint::read(&self.bytes, &mut read) {
            Some(number) => number,
            None => panic!("entry {at} of a leaf is cut short"),
        };
        let revision = number();
        let sub = number();
        let place = Place {
            revision,
            sub: u32::try_from(sub).unwrap_or_else(|_| panic!("position {sub} in a leaf")),
        };
        if head.flags & FLAG_LIVES == 0 {
            return Newest { place, life: None };
        }
        let create_revision = revision - number();
        let version = number();
        let lease = (head.flags & FLAG_LEASE != 0).then(|| {
            let mut id = [0; 8];
            id.copy_from_slice(&self.bytes[read..read + 8]);
            LeaseId(i64::from_le_bytes(id))
        });
        let life = Life {
            create_revision,
            version,
            lease,
        };
        Newest {
            place,
            life: Some(life),
        }
    }

    /// How many of the first `upto` keys live.
    pub(super) fn living_before(&self, upto: usize) -> u64 {
        if upto == self.len() {
            return self.living();
        }
        let lives = |at: &usize| self.head(*at).flags & FLAG_LIVES != 0;
        (0..upto).filter(lives).count() as u64
    }

    /// Notes the newest version of a key, new or known; gives its position.
    pub(super) fn put(&mut self, key: &[u8], newest: Newest) -> usize {
        let (at, known) = match self.find(key) {
            Ok(at) => (at, true),
            Err(at) => (at, false),
        };
        let (tail, tail_bytes) = encode_tail(newest);
        let tail = &tail[..tail_bytes];
        self.changed = self.changed.max(newest.place.revision);
        self.living += u32::from(newest.life.is_some());
        if known {
            self.replace(at, newest, tail);
        } else {
            if !key.starts_with(self.prefix()) {
                let shared = common_bytes(self.prefix(), key);
                *self = self.pack(0..self.len(), shared);
                self.changed = self.changed.max(newest.place.revision);
                self.living += u32::from(newest.life.is_some());
            }
            self.insert(at, key, newest, tail);
        }
        at
    }

    fn replace(&mut self, at: usize, newest: Newest, tail: &[u8]) {
        let start = self.starts[at] as usize;
        let end = self.end(at);
        let head = self.head(at);
        self.living -= u32::from(head.flags & FLAG_LIVES != 0);
        // Flags are in the first byte of the head, whatever the length of the suffix.
        let flags = flags_of(newest) as u8;
        self.bytes[start] = (self.bytes[start] & !((1 << FLAG_BITS) - 1)) | flags;
        let (from, old) = (head.suffix.end, end - head.suffix.end);
        self.resize(from, old, tail.len());
        self.bytes[from..from + tail.len()].copy_from_slice(tail);
        self.shift(at + 1, old, tail.len());
    }

    fn insert(&mut self, at: usize, key: &[u8], newest: Newest, tail: &[u8]) {
        let suffix = &key[self.prefix().len()..];
        let mut head = [0; varint::VARINT_BYTES_MAX];
        let head_bytes = varint::write(
            &mut head,
            (suffix.len() as u64) << FLAG_BITS | flags_of(newest),
        );
        let size = head_bytes + suffix.len() + tail.len();
        let start = match self.starts.get(at) {
            Some(start) => *start as usize,
            None => self.bytes.len(),
        };
        self.resize(start, 0, size);
        let entry = &mut self.bytes[start..start + size];
        entry[..head_bytes].copy_from_slice(&head[..head_bytes]);
        entry[head_bytes..head_bytes + suffix.len()].copy_from_slice(suffix);
        entry[head_bytes + suffix.len()..].copy_from_slice(tail);
        if self.starts.len() == self.starts.capacity() {
            self.starts.reserve_exact(LEAF_GROW_STARTS);
        }
        self.starts.insert(at, offset(start));
        self.shift(at + 1, 0, size);
    }

    /// Takes out the key at `at`.
    pub(super) fn remove(&mut self, at: usize) {
        let start = self.starts[at] as usize;
        let size = self.end(at) - start;
        self.living -= u32::from(self.head(at).flags & FLAG_LIVES != 0);
        self.resize(start, size, 0);
        self.starts.remove(at);
        self.shift(at, size, 0);
    }

    /// Keeps the keys before `at`; gives the others.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        let right = self.pack(at..self.len(), usize::MAX);
        *self = self.pack(0..at, usize::MAX);
        right
    }

    /// Where to split it after a key was put at `put_at`: keys that come in order fill
    /// their leaves.
    pub(super) fn split_point(&self, put_at: usize) -> usize {
        if put_at + 1 == self.len() {
            return put_at;
        }
        let half = self.bytes.len() / 2;
        let at = self
            .starts
            .partition_point(|start| (*start as usize) < half);
        at.clamp(1, self.len() - 1)
    }

    /// Takes in the keys of a leaf that follows this one.
    pub(super) fn absorb(&mut self, right: &Self) {
        let shared = match right.len() {
            0 => return,
            _ => common_bytes(self.prefix(), &right.key(0).to_vec()).min(right.prefix().len()),
        };
        let mut joined = self.pack(0..self.len(), shared);
        for at in 0..right.len() {
            joined.push(right.key(at), right.entry_flags(at), right.tail(at));
        }
        joined.changed = self.changed.max(right.changed);
        *self = joined;
    }

    /// Appends a key greater than all others: for building in order.
    pub(super) fn append(&mut self, key: &[u8], newest: Newest) {
        self.put(key, newest);
    }

    /// The entries of `range` in a leaf of their own, with the longest prefix that
    /// they share, but not more than `prefix_bytes_max`.
    fn pack(&self, range: Range<usize>, prefix_bytes_max: usize) -> Self {
        let mut packed = Self {
            changed: self.changed,
            ..Self::default()
        };
        if range.is_empty() {
            return packed;
        }
        let first = self.key(range.start).to_vec();
        let shared = self.key(range.end - 1).common(&first).min(prefix_bytes_max);
        let span = self.end(range.end - 1) - self.starts[range.start] as usize;
        let longer = self.prefix().len().saturating_sub(shared) * range.len();
        packed
            .bytes
            .reserve_exact(shared + span + longer + LEAF_GROW_BYTES);
        packed.starts.reserve_exact(range.len() + LEAF_GROW_STARTS);
        packed.bytes.extend_from_slice(&first[..shared]);
        packed.prefix_bytes = offset(shared);
        for at in range {
            packed.push(self.key(at), self.entry_flags(at), self.tail(at));
        }
        packed
    }

    fn push(&mut self, key: KeyParts<'_>, flags: u64, tail: &[u8]) {
        let prefix = self.prefix_bytes as usize;
        self.starts.push(offset(self.bytes.len()));
        let suffix_bytes = (key.len() - prefix) as u64;
        varint::push(&mut self.bytes, suffix_bytes << FLAG_BITS | flags);
        key.push_from(prefix, &mut self.bytes);
        self.bytes.extend_from_slice(tail);
        self.living += u32::from(flags & FLAG_LIVES != 0);
    }

    fn head(&self, at: usize) -> Head {
        let mut read = self.starts[at] as usize;
        let Some(number) = varint::read(&self.bytes, &mut read) else {
            panic!("entry {at} of a leaf has no head");
        };
        let suffix_bytes = (number >> FLAG_BITS) as usize;
        Head {
            flags: number & ((1 << FLAG_BITS) - 1),
            suffix: read..read + suffix_bytes,
        }
    }

    fn entry_flags(&self, at: usize) -> u64 {
        self.head(at).flags
    }

    fn tail(&self, at: usize) -> &[u8] {
        &self.bytes[self.head(at).suffix.end..self.end(at)]
    }

    fn end(&self, at: usize) -> usize {
        match self.starts.get(at + 1) {
            Some(next) => *next as usize,
            None => self.bytes.len(),
        }
    }

    /// Makes `old` bytes at `at` `new` ones; what they hold is to be written.
    fn resize(&mut self, at: usize, old: usize, new: usize) {
        let end = self.bytes.len();
        if let Some(more) = new.checked_sub(old) {
            if self.bytes.capacity() - end < more {
                self.bytes.reserve_exact(more.max(LEAF_GROW_BYTES));
            }
            self.bytes.resize(end + more, 0);
            self.bytes.copy_within(at + old..end, at + new);
        } else {
            self.bytes.copy_within(at + old..end, at + new);
            self.bytes.truncate(end - (old - new));
        }
    }

    /// Moves the starts from `from` on, after `old` bytes before them became `new`.
    fn shift(&mut self, from: usize, old: usize, new: usize) {
        if old == new {
            return;
        }
        for start in &mut self.starts[from..] {
            *start = offset(*start as usize + new - old);
        }
    }
}

fn flags_of(newest: Newest) -> u64 {
    match newest.life {
        None => 0,
        Some(Life { lease: None, .. }) => FLAG_LIVES,
        Some(_) => FLAG_LIVES | FLAG_LEASE,
    }
}

/// Bytes of the largest tail.
const TAIL_BYTES_MAX: usize = 4 * varint::VARINT_BYTES_MAX + 8;

fn encode_tail(newest: Newest) -> ([u8; TAIL_BYTES_MAX], usize) {
    let mut tail = [0; TAIL_BYTES_MAX];
    let mut length = varint::write(&mut tail, newest.place.revision);
    length += varint::write(&mut tail[length..], u64::from(newest.place.sub));
    if let Some(life) = newest.life {
        let age = newest.place.revision - life.create_revision;
        length += varint::write(&mut tail[length..], age);
        length += varint::write(&mut tail[length..], life.version);
        if let Some(lease) = life.lease {
            tail[length..length + 8].copy_from_slice(&lease.0.to_le_bytes());
            length += 8;
        }
    }
    (tail, length)
}

pub(super) fn common_bytes(left: &[u8], right: &[u8]) -> usize {
    left.iter()
        .zip(right)
        .take_while(|(left, right)| left == right)
        .count()
}

/// A leaf's bytes are bounded by one key's, which a proposal's limit bounds.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or_else(|_| panic!("a leaf of {at} bytes"))
}
