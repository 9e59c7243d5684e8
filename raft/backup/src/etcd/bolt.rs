//! bbolt database files: read, and written once in order.
//!
//! Page: id u64 ‖ flags u16 ‖ count u16 ‖ overflow u32, then elements; numbers are
//! little-endian. A leaf's element is flags u32 ‖ pos u32 ‖ key bytes u32 ‖ value bytes
//! u32, a branch's pos u32 ‖ key bytes u32 ‖ page u64; `pos` counts from the element. A
//! bucket is a leaf's value with flag 1: root page u64 ‖ sequence u64, followed by the
//! page itself when the root is 0.
//!
//! Invariants
//! - Whatever a damaged file says, reads stay inside it, depth and the pages visited
//!   are bounded, and memory is bounded by [`PAGE_BYTES_MAX`].

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;

use bytes::{Buf as _, BufMut as _};

use crate::error::BackupError;

/// A key and its value.
type Pair = (Vec<u8>, Vec<u8>);

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const PAGE_HEAD_BYTES: usize = 16;
const ELEMENT_BYTES: usize = 16;
const META_BYTES: usize = 64;
const BUCKET_HEAD_BYTES: usize = 16;
const FLAG_BRANCH: u16 = 1;
const FLAG_LEAF: u16 = 2;
const FLAG_META: u16 = 4;
const FLAG_FREELIST: u16 = 16;
const FLAG_BUCKET: u32 = 1;
/// The sizes of a page that are believed.
const PAGE_SIZES: [u64; 5] = [4_096, 8_192, 16_384, 32_768, 65_536];
/// A page with its overflow, at most: above the largest value etcd can hold.
const PAGE_BYTES_MAX: u64 = 256 << 20;
/// Levels of a tree.
const DEPTH_MAX: usize = 32;
/// The size of a page written.
const WRITTEN_PAGE_BYTES: usize = 4_096;

/// A database, opened for reading.
pub(super) struct Bolt {
    file: File,
    length: u64,
    page_bytes: u64,
    root: u64,
}

/// What is done with an entry: its key, its value, and where in the file the value lies.
pub(super) type Visit<'a> = dyn FnMut(&[u8], &[u8], u64) -> Result<(), BackupError> + 'a;

impl Bolt {
    /// Reads the newest of the two metas of the first `length` bytes of `file`.
    pub(super) fn open(file: File, length: u64) -> Result<Self, BackupError> {
        let metas = std::iter::once(0).chain(PAGE_SIZES);
        let found = metas.filter_map(|at| Meta::read(&file, at));
        let newest = found.max_by_key(|meta| meta.transaction);
        let meta = newest.ok_or_else(|| {
            BackupError::NotAnArchive(
                "it is no bbolt database, or both its metas are damaged".into(),
            )
        })?;
        Ok(Self {
            file,
            length,
            page_bytes: meta.page_bytes,
            root: meta.root,
        })
    }

    /// Visits every entry of a bucket, in the order of keys. A bucket that is not there
    /// is empty.
    pub(super) fn each(&self, bucket: &[u8], visit: &mut Visit<'_>) -> Result<(), BackupError> {
        let mut walk = Walk {
            bolt: self,
            pages_left: self.length / self.page_bytes,
        };
        let mut found: Option<(Vec<u8>, u64)> = None;
        walk.page(self.root, 0, &mut |entry| {
            if entry.flags & FLAG_BUCKET != 0 && entry.key == bucket {
                found = Some((entry.value.to_vec(), entry.value_at));
            }
            Ok(())
        })?;
        let Some((value, value_at)) = found else {
            return Ok(());
        };
        if value.len() < BUCKET_HEAD_BYTES {
            return Err(damaged("a bucket's head is cut"));
        }
        let root = (&value[..8]).get_u64_le();
        let mut plain = |entry: Entry<'_>| visit(entry.key, entry.value, entry.value_at);
        if root == 0 {
            let at = value_at + BUCKET_HEAD_BYTES as u64;
            return walk.elements(&value[BUCKET_HEAD_BYTES..], at, 0, &mut plain);
        }
        walk.page(root, 0, &mut plain)
    }

    /// Reads part of a value that was visited.
    pub(super) fn read_at(&self, at: u64, bytes: usize) -> Result<Vec<u8>, BackupError> {
        let end = at.checked_add(bytes as u64);
        if end.is_none_or(|end| end > self.length) || bytes as u64 > PAGE_BYTES_MAX {
            return Err(damaged("a value lies outside the file"));
        }
        let mut read = vec![0; bytes];
        let done = self.file.read_exact_at(&mut read, at);
        done.map_err(BackupError::io("read the database"))?;
        Ok(read)
    }
}

struct Meta {
    page_bytes: u64,
    root: u64,
    transaction: u64,
}

impl Meta {
    /// The meta of the page at `at`, if it is one whose checksum is right.
    fn read(file: &File, at: u64) -> Option<Self> {
        let mut page = [0; PAGE_HEAD_BYTES + META_BYTES];
        file.read_exact_at(&mut page, at).ok()?;
        let meta = &page[PAGE_HEAD_BYTES..];
        let mut reader = meta;
        let (magic, version) = (reader.get_u32_le(), reader.get_u32_le());
        let (page_bytes, _flags) = (u64::from(reader.get_u32_le()), reader.get_u32_le());
        let (root, _sequence) = (reader.get_u64_le(), reader.get_u64_le());
        let (_freelist, _end) = (reader.get_u64_le(), reader.get_u64_le());
        let (transaction, checksum) = (reader.get_u64_le(), reader.get_u64_le());
        let is_meta = (&page[8..]).get_u16_le() & FLAG_META != 0;
        let is_known = magic == MAGIC && version == VERSION && PAGE_SIZES.contains(&page_bytes);
        let is_whole = checksum == fnv1a(&meta[..META_BYTES - 8]);
        (is_meta && is_known && is_whole && (at == 0 || at == page_bytes)).then_some(Self {
            page_bytes,
            root,
            transaction,
        })
    }
}

#[derive(Clone, Copy)]
struct Entry<'a> {
    flags: u32,
    key: &'a [u8],
    value: &'a [u8],
    value_at: u64,
}

struct Walk<'a> {
    bolt: &'a Bolt,
    pages_left: u64,
}

type VisitEntry<'a> = dyn FnMut(Entry<'_>) -> Result<(), BackupError> + 'a;

impl Walk<'_> {
    fn page(
        &mut self,
        id: u64,
        depth: usize,
        visit: &mut VisitEntry<'_>,
    ) -> Result<(), BackupError> {
        // No page is part of a tree twice: a cycle runs out of pages.
        self.pages_left = self
            .pages_left
            .checked_sub(1)
            .ok_or_else(|| damaged("its pages form a cycle"))?;
        let bolt = self.bolt;
        let at = id.checked_mul(bolt.page_bytes);
        let at = at.ok_or_else(|| damaged("a page lies outside the file"))?;
        let head = bolt.read_at(at, PAGE_HEAD_BYTES)?;
        if (&head[..8]).get_u64_le() != id {
            return Err(damaged("a page has another number than its place"));
        }
        let overflow = u64::from((&head[12..]).get_u32_le());
        let bytes = (overflow + 1).saturating_mul(bolt.page_bytes);
        let bytes = bytes.min(bolt.length.saturating_sub(at));
        let bytes = usize::try_from(bytes).map_err(|_| damaged("a page is too large"))?;
        let page = bolt.read_at(at, bytes)?;
        self.elements(&page, at, depth, visit)
    }

    fn elements(
        &mut self,
        page: &[u8],
        page_at: u64,
        depth: usize,
        visit: &mut VisitEntry<'_>,
    ) -> Result<(), BackupError> {
        if depth >= DEPTH_MAX || page.len() < PAGE_HEAD_BYTES {
            return Err(damaged("a tree is too deep, or a page is cut"));
        }
        let flags = (&page[8..]).get_u16_le();
        let count = usize::from((&page[10..]).get_u16_le());
        for index in 0..count {
            let at = PAGE_HEAD_BYTES + index * ELEMENT_BYTES;
            let element = page.get(at..at + ELEMENT_BYTES);
            let mut element = element.ok_or_else(|| damaged("a page is cut"))?;
            if flags & FLAG_BRANCH != 0 {
                element.advance(8);
                let child = element.get_u64_le();
                self.page(child, depth + 1, visit)?;
                continue;
            }
            if flags & FLAG_LEAF == 0 {
                return Err(damaged("a page of a tree is neither branch nor leaf"));
            }
            let entry_flags = element.get_u32_le();
            let (pos, key_bytes) = (element.get_u32_le() as usize, element.get_u32_le() as usize);
            let value_bytes = element.get_u32_le() as usize;
            let key_at = at + pos;
            let value_at = key_at + key_bytes;
            let (key, value) = page
                .get(key_at..value_at)
                .zip(page.get(value_at..value_at + value_bytes))
                .ok_or_else(|| damaged("an entry lies outside its page"))?;
            visit(Entry {
                flags: entry_flags,
                key,
                value,
                value_at: page_at + value_at as u64,
            })?;
        }
        Ok(())
    }
}

fn damaged(reason: &str) -> BackupError {
    BackupError::Content(format!("the database is damaged: {reason}"))
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Writes a database: buckets one after the other, entries in the order of their keys.
/// The first pages, which know where everything is, are written by [`finish`](Self::finish).
pub(super) struct BoltWriter<W: Write> {
    sink: W,
    next_page: u64,
    buckets: Vec<(Vec<u8>, u64)>,
}

/// A page that points to others, in the making.
type Children = Vec<(Vec<u8>, u64)>;

impl<W: Write> BoltWriter<W> {
    /// Begins behind the metas and the freelist, which need three pages.
    pub(super) fn begin(sink: W) -> Self {
        Self {
            sink,
            next_page: 3,
            buckets: Vec::new(),
        }
    }

    /// Writes a bucket; `next` gives its entries in order.
    pub(super) fn bucket(
        &mut self,
        name: &[u8],
        next: &mut dyn FnMut() -> Result<Option<Pair>, BackupError>,
    ) -> Result<(), BackupError> {
        let mut children = Children::new();
        let mut leaf: Vec<(u32, Vec<u8>, Vec<u8>)> = Vec::new();
        let mut bytes = PAGE_HEAD_BYTES;
        while let Some((key, value)) = next()? {
            let entry_bytes = ELEMENT_BYTES + key.len() + value.len();
            if !leaf.is_empty() && bytes + entry_bytes > WRITTEN_PAGE_BYTES {
                self.leaf(&mut leaf, &mut children)?;
                bytes = PAGE_HEAD_BYTES;
            }
            bytes += entry_bytes;
            leaf.push((0, key, value));
        }
        if !leaf.is_empty() || children.is_empty() {
            self.leaf(&mut leaf, &mut children)?;
        }
        let root = self.tree(children)?;
        self.buckets.push((name.to_vec(), root));
        Ok(())
    }

    /// Writes the bucket of buckets, and gives the sink and the three first pages.
    pub(super) fn finish(mut self) -> Result<(W, Vec<u8>), BackupError> {
        let mut buckets = std::mem::take(&mut self.buckets);
        buckets.sort();
        let mut leaf = buckets
            .into_iter()
            .map(|(name, root)| {
                let mut value = root.to_le_bytes().to_vec();
                value.put_u64_le(0);
                (FLAG_BUCKET, name, value)
            })
            .collect();
        let mut children = Children::new();
        self.leaf(&mut leaf, &mut children)?;
        let root = self.tree(children)?;
        let mut first = Vec::with_capacity(3 * WRITTEN_PAGE_BYTES);
        for transaction in 0..2 {
            first.extend(meta_page(root, self.next_page, transaction));
        }
        let mut freelist = page_head(2, FLAG_FREELIST, 0, 0);
        freelist.resize(WRITTEN_PAGE_BYTES, 0);
        first.extend(freelist);
        Ok((self.sink, first))
    }

    fn tree(&mut self, mut children: Children) -> Result<u64, BackupError> {
        loop {
            if let [(_, root)] = children.as_slice() {
                return Ok(*root);
            }
            let mut parents = Children::new();
            let mut rest = children.as_slice();
            while !rest.is_empty() {
                let taken = branch_length(rest);
                let (now, later) = rest.split_at(taken);
                self.branch(now, &mut parents)?;
                rest = later;
            }
            children = parents;
        }
    }

    fn leaf(
        &mut self,
        entries: &mut Vec<(u32, Vec<u8>, Vec<u8>)>,
        parents: &mut Children,
    ) -> Result<(), BackupError> {
        let mut elements = Vec::with_capacity(entries.len() * ELEMENT_BYTES);
        let mut data = Vec::new();
        for (index, (flags, key, value)) in entries.iter().enumerate() {
            let behind = (entries.len() - index) * ELEMENT_BYTES + data.len();
            elements.put_u32_le(*flags);
            elements.put_u32_le(small(behind)?);
            elements.put_u32_le(small(key.len())?);
            elements.put_u32_le(small(value.len())?);
            data.extend_from_slice(key);
            data.extend_from_slice(value);
        }
        let first = entries.first().map(|(_, key, _)| key.clone());
        let id = self.write_page(FLAG_LEAF, entries.len(), &elements, &data)?;
        parents.push((first.unwrap_or_default(), id));
        entries.clear();
        Ok(())
    }

    fn branch(
        &mut self,
        children: &[(Vec<u8>, u64)],
        parents: &mut Children,
    ) -> Result<(), BackupError> {
        let mut elements = Vec::with_capacity(children.len() * ELEMENT_BYTES);
        let mut data = Vec::new();
        for (index, (key, child)) in children.iter().enumerate() {
            let behind = (children.len() - index) * ELEMENT_BYTES + data.len();
            elements.put_u32_le(small(behind)?);
            elements.put_u32_le(small(key.len())?);
            elements.put_u64_le(*child);
            data.extend_from_slice(key);
        }
        let id = self.write_page(FLAG_BRANCH, children.len(), &elements, &data)?;
        let first = children.first().map(|(key, _)| key.clone());
        parents.push((first.unwrap_or_default(), id));
        Ok(())
    }

    fn write_page(
        &mut self,
        flags: u16,
        count: usize,
        elements: &[u8],
        data: &[u8],
    ) -> Result<u64, BackupError> {
        let id = self.next_page;
        let bytes = PAGE_HEAD_BYTES + elements.len() + data.len();
        let pages = bytes.div_ceil(WRITTEN_PAGE_BYTES);
        let count = u16::try_from(count).map_err(|_| damaged("too many entries for a page"))?;
        let mut page = page_head(id, flags, count, small(pages - 1)?);
        page.extend_from_slice(elements);
        page.extend_from_slice(data);
        page.resize(pages * WRITTEN_PAGE_BYTES, 0);
        let written = self.sink.write_all(&page);
        written.map_err(BackupError::io("write the database"))?;
        self.next_page += pages as u64;
        Ok(id)
    }
}

/// How many of `children` one page takes: at least two, as bbolt wants it, where there
/// are as many, and never so that one is left over.
fn branch_length(children: &[(Vec<u8>, u64)]) -> usize {
    let mut bytes = PAGE_HEAD_BYTES;
    let mut taken = 0;
    for (key, _) in children {
        bytes += ELEMENT_BYTES + key.len();
        if taken >= 2 && bytes > WRITTEN_PAGE_BYTES {
            break;
        }
        taken += 1;
    }
    if children.len() - taken == 1 && taken > 2 {
        taken - 1
    } else {
        taken
    }
}

fn page_head(id: u64, flags: u16, count: u16, overflow: u32) -> Vec<u8> {
    let mut page = Vec::with_capacity(WRITTEN_PAGE_BYTES);
    page.put_u64_le(id);
    page.put_u16_le(flags);
    page.put_u16_le(count);
    page.put_u32_le(overflow);
    page
}

fn meta_page(root: u64, end: u64, transaction: u64) -> Vec<u8> {
    let mut meta = Vec::with_capacity(META_BYTES);
    meta.put_u32_le(MAGIC);
    meta.put_u32_le(VERSION);
    meta.put_u32_le(u32::try_from(WRITTEN_PAGE_BYTES).unwrap_or(u32::MAX));
    meta.put_u32_le(0);
    meta.put_u64_le(root);
    meta.put_u64_le(0);
    meta.put_u64_le(2);
    meta.put_u64_le(end);
    meta.put_u64_le(transaction);
    let checksum = fnv1a(&meta);
    meta.put_u64_le(checksum);
    let mut page = page_head(transaction, FLAG_META, 0, 0);
    page.extend(meta);
    page.resize(WRITTEN_PAGE_BYTES, 0);
    page
}

fn small(number: usize) -> Result<u32, BackupError> {
    u32::try_from(number).map_err(|error| BackupError::Io {
        what: "write the database",
        source: io::Error::other(error),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn entry(n: usize) -> (Vec<u8>, Vec<u8>) {
        let value = if n == 700 { 20_000 } else { n % 90 };
        (format!("key {n:06}").into_bytes(), vec![b'v'; value])
    }

    /// A database with a bucket of `count` entries and an empty one.
    fn written(count: usize) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = BoltWriter::begin(vec![0; 3 * WRITTEN_PAGE_BYTES]);
        let mut entries = (0..count).map(entry);
        writer.bucket(b"key", &mut || Ok(entries.next())).unwrap();
        writer.bucket(b"empty", &mut || Ok(None)).unwrap();
        let (mut whole, first) = writer.finish().unwrap();
        whole[..first.len()].copy_from_slice(&first);
        std::fs::write(file.path(), whole).unwrap();
        file
    }

    fn read(path: &std::path::Path) -> Result<Vec<Pair>, BackupError> {
        let file = File::open(path).unwrap();
        let length = file.metadata().unwrap().len();
        let bolt = Bolt::open(file, length)?;
        let mut found = Vec::new();
        bolt.each(b"key", &mut |key, value, _| {
            found.push((key.to_vec(), value.to_vec()));
            Ok(())
        })?;
        bolt.each(b"empty", &mut |_, _, _| panic!("an entry"))?;
        bolt.each(b"absent", &mut |_, _, _| panic!("an entry"))?;
        Ok(found)
    }

    #[test]
    fn what_is_written_is_read_back_over_several_levels_and_large_values() {
        for count in [0, 1, 2, 100, 20_000] {
            let file = written(count);
            let expected: Vec<_> = (0..count).map(entry).collect();
            assert!(read(file.path()).unwrap() == expected, "{count} entries");
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_or_another_value_but_never_a_panic() {
        let file = written(2_000);
        let whole = std::fs::read(file.path()).unwrap();
        let mut refused = 0;
        for at in (0..whole.len()).step_by(37) {
            let mut changed = whole.clone();
            changed[at] ^= 0xff;
            std::fs::write(file.path(), &changed).unwrap();
            refused += usize::from(read(file.path()).is_err());
        }
        for length in [0, 10, 4_096, 9_000, whole.len() / 2] {
            std::fs::write(file.path(), &whole[..length]).unwrap();
            assert!(read(file.path()).is_err(), "cut at {length}");
        }
        assert!(refused > 10, "{refused}");
    }
}
