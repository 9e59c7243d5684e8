//! Protocol Buffers by hand: the few messages of etcd's contract that the benches use.
//!
//! A request is written into a buffer that is used again; an answer is looked at field by
//! field without being built. Field numbers are those of etcd's `rpc.proto` and `kv.proto`.

/// Methods.
pub mod path {
    /// `Range`.
    pub const RANGE: &str = "/etcdserverpb.KV/Range";
    /// `Put`.
    pub const PUT: &str = "/etcdserverpb.KV/Put";
    /// `Txn`.
    pub const TXN: &str = "/etcdserverpb.KV/Txn";
    /// `Watch`.
    pub const WATCH: &str = "/etcdserverpb.Watch/Watch";
    /// `LeaseGrant`.
    pub const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
    /// `LeaseKeepAlive`.
    pub const LEASE_KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
    /// `Status`.
    pub const STATUS: &str = "/etcdserverpb.Maintenance/Status";
}

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Varints.
    Number(u64),
    /// Strings, bytes and messages.
    Bytes(&'a [u8]),
}

/// The fields of a message; ends at the first that is not well formed.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

impl Fields<'_> {
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

/// The last number in field `tag`, zero when there is none.
pub fn number(message: &[u8], tag: u64) -> u64 {
    Fields(message)
        .filter_map(|field| match field {
            (at, Value::Number(number)) if at == tag => Some(number),
            _ => None,
        })
        .last()
        .unwrap_or(0)
}

/// The first bytes in field `tag`, empty when there are none.
pub fn bytes(message: &[u8], tag: u64) -> &[u8] {
    Fields(message)
        .find_map(|field| match field {
            (at, Value::Bytes(bytes)) if at == tag => Some(bytes),
            _ => None,
        })
        .unwrap_or_default()
}

/// How often field `tag` occurs.
pub fn occurrences(message: &[u8], tag: u64) -> u64 {
    let count = Fields(message).filter(|(at, _)| *at == tag).count();
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// The revision in an answer's header.
pub fn header_revision(answer: &[u8]) -> u64 {
    number(bytes(answer, 1), 3)
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or(0));
}

fn put_number(out: &mut Vec<u8>, tag: u64, number: u64) {
    varint(out, tag << 3);
    varint(out, number);
}

fn put_bytes(out: &mut Vec<u8>, tag: u64, bytes: &[u8]) {
    varint(out, tag << 3 | 2);
    varint(out, u64::try_from(bytes.len()).unwrap_or(0));
    out.extend_from_slice(bytes);
}

fn put_message(out: &mut Vec<u8>, tag: u64, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    fill(&mut inner);
    put_bytes(out, tag, &inner);
}

/// `PutRequest`.
pub fn put(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    put_bytes(out, 1, key);
    put_bytes(out, 2, value);
}

/// `RangeRequest` of one key, linearizable.
pub fn get(out: &mut Vec<u8>, key: &[u8]) {
    put_bytes(out, 1, key);
}

/// `RangeRequest` of at most `limit` keys of `[from, to)`.
pub fn range(out: &mut Vec<u8>, from: &[u8], to: &[u8], limit: u64) {
    put_bytes(out, 1, from);
    put_bytes(out, 2, to);
    put_number(out, 3, limit);
}

/// `RangeRequest` that only counts `[from, to)`.
pub fn count(out: &mut Vec<u8>, from: &[u8], to: &[u8]) {
    put_bytes(out, 1, from);
    put_bytes(out, 2, to);
    put_number(out, 9, 1);
}

/// The count in a `RangeResponse`.
pub fn range_count(answer: &[u8]) -> u64 {
    number(answer, 4)
}

/// `TxnRequest` that puts all of `pairs`.
pub fn put_many<'a>(out: &mut Vec<u8>, pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
    for (key, value) in pairs {
        put_message(out, 2, |operation| {
            put_message(operation, 2, |request| put(request, key, value));
        });
    }
}

/// `TxnRequest`: if `key`'s modification revision is still `revision` put, else read it.
pub fn put_if_unchanged(out: &mut Vec<u8>, key: &[u8], revision: u64, value: &[u8]) {
    const MOD: u64 = 2;
    put_message(out, 1, |compare| {
        put_number(compare, 2, MOD);
        put_bytes(compare, 3, key);
        put_number(compare, 6, revision);
    });
    put_message(out, 2, |operation| {
        put_message(operation, 2, |request| put(request, key, value));
    });
    put_message(out, 3, |operation| {
        put_message(operation, 1, |request| get(request, key));
    });
}

/// The revision of the key after [`put_if_unchanged`], and whether it was put.
pub fn put_if_unchanged_answer(answer: &[u8]) -> (u64, bool) {
    if number(answer, 2) == 1 {
        return (header_revision(answer), true);
    }
    let operation = bytes(answer, 3);
    let pair = bytes(bytes(operation, 1), 2);
    (number(pair, 3), false)
}

/// `WatchRequest` that creates a watch of one key.
pub fn watch(out: &mut Vec<u8>, key: &[u8]) {
    put_message(out, 1, |create| put_bytes(create, 1, key));
}

/// Whether a `WatchResponse` says that a watch was created.
pub fn watch_created(answer: &[u8]) -> bool {
    number(answer, 3) == 1
}

/// Whether a `WatchResponse` says that a watch has ended.
pub fn watch_canceled(answer: &[u8]) -> bool {
    number(answer, 4) == 1
}

/// The events of a `WatchResponse`.
pub fn watch_events(answer: &[u8]) -> u64 {
    occurrences(answer, 11)
}

/// `LeaseGrantRequest`.
pub fn lease_grant(out: &mut Vec<u8>, id: u64, ttl_s: u64) {
    put_number(out, 1, ttl_s);
    put_number(out, 2, id);
}

/// `LeaseKeepAliveRequest`.
pub fn lease_keep_alive(out: &mut Vec<u8>, id: u64) {
    put_number(out, 1, id);
}

/// The member that answered `Status`, and the leader it knows (zero: none).
pub fn status_answer(answer: &[u8]) -> (u64, u64) {
    (number(bytes(answer, 1), 2), number(answer, 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_is_written_as_the_contract_has_it() {
        let mut out = Vec::new();
        put(&mut out, b"k", &[9; 200]);
        assert_eq!(out[..6], [0x0a, 1, b'k', 0x12, 200, 1]);
        assert_eq!(bytes(&out, 2).len(), 200);
    }

    #[test]
    fn a_lost_comparison_tells_the_keys_revision() {
        let mut answer = Vec::new();
        put_message(&mut answer, 1, |header| put_number(header, 3, 300));
        put_message(&mut answer, 3, |operation| {
            put_message(operation, 1, |range| {
                put_message(range, 2, |pair| {
                    put_bytes(pair, 1, b"key");
                    put_number(pair, 3, 271);
                });
            });
        });
        assert_eq!(put_if_unchanged_answer(&answer), (271, false));
        put_number(&mut answer, 2, 1);
        assert_eq!(put_if_unchanged_answer(&answer), (300, true));
    }

    #[test]
    fn a_cut_message_ends_its_fields() {
        let mut out = Vec::new();
        put_bytes(&mut out, 1, b"abc");
        out.pop();
        assert_eq!(Fields(&out).count(), 0);
    }
}
