//! What stands inside an archive: a stream of records, cut into frames anywhere.
//!
//! | kind u8 | then (integers BE) |
//! |---|---|
//! | 1 lease | id i64 ‖ time to live in ms u64 |
//! | 2 key | create revision, mod revision, version u64 each ‖ lease i64 (0: none) ‖ key length u32 ‖ value length u32 ‖ key ‖ value |
//! | 0 end | keys u64 ‖ leases u64 ‖ SHA-256 of the content |
//!
//! Leases come first, by id; keys follow in their order. The content's hash is over
//! the records as they stand here, so that equal content has equal hashes wherever it
//! lies.

use aws_lc_rs::digest;
use bytes::{BufMut as _, Bytes, BytesMut};
use nautilus_machine::{KeyValue, LeaseId};

/// The longest key that is believed.
pub(crate) const KEY_BYTES_MAX: usize = 1 << 20;
/// The longest value that is believed; far above what a proposal can hold.
pub(crate) const VALUE_BYTES_MAX: usize = 64 << 20;

pub(crate) const KIND_END: u8 = 0;
pub(crate) const KIND_LEASE: u8 = 1;
pub(crate) const KIND_KEY: u8 = 2;

/// A lease, as an archive keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// Its whole time to live, in milliseconds.
    pub ttl_ms: u64,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A lease.
    Lease(Lease),
    /// A living key.
    Key(KeyValue),
}

impl Record {
    pub(crate) fn encode(&self, target: &mut BytesMut) {
        match self {
            Self::Lease(lease) => {
                target.put_u8(KIND_LEASE);
                target.put_i64(lease.id.0);
                target.put_u64(lease.ttl_ms);
            }
            Self::Key(kv) => {
                encode_key_head(kv, target);
                target.put_slice(&kv.key);
                target.put_slice(&kv.value);
            }
        }
    }
}

fn encode_key_head(kv: &KeyValue, target: &mut BytesMut) {
    // Keys and values are bounded by the size of a proposal, far below 4 GiB.
    let length = |bytes: &Bytes| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    target.put_u8(KIND_KEY);
    target.put_u64(kv.create_revision);
    target.put_u64(kv.mod_revision);
    target.put_u64(kv.version);
    target.put_i64(kv.lease.map_or(0, |lease| lease.0));
    target.put_u32(length(&kv.key));
    target.put_u32(length(&kv.value));
}

/// What a whole content comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Keys.
    pub keys: u64,
    /// Leases.
    pub leases: u64,
    /// SHA-256 over the records.
    pub hash: [u8; 32],
}

/// Sums up content, record by record.
pub struct ContentHash {
    context: digest::Context,
    scratch: BytesMut,
    keys: u64,
    leases: u64,
}

impl Default for ContentHash {
    fn default() -> Self {
        Self {
            context: digest::Context::new(&digest::SHA256),
            scratch: BytesMut::with_capacity(64),
            keys: 0,
            leases: 0,
        }
    }
}

impl ContentHash {
    /// Adds the next record.
    pub fn add(&mut self, record: &Record) {
        self.scratch.clear();
        match record {
            Record::Lease(_) => {
                self.leases += 1;
                record.encode(&mut self.scratch);
                self.context.update(&self.scratch);
            }
            Record::Key(kv) => {
                self.keys += 1;
                encode_key_head(kv, &mut self.scratch);
                self.context.update(&self.scratch);
                self.context.update(&kv.key);
                self.context.update(&kv.value);
            }
        }
    }

    /// The sum.
    pub fn finish(self) -> Summary {
        let mut hash = [0; 32];
        hash.copy_from_slice(self.context.finish().as_ref());
        Summary {
            keys: self.keys,
            leases: self.leases,
            hash,
        }
    }
}
