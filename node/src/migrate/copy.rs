//! Copying a source into a quorum, and comparing the two.
//!
//! Invariants
//! - Only what differs is written: a copy that was interrupted is resumed by copying
//!   again.
//! - A transaction has at most [`BATCH_KEYS`] keys and about [`BATCH_BYTES`]; at most
//!   [`BATCHES_PENDING`] are under way.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use nautilus_machine::{KeyValue, LeaseId, Revision};
use serde::Serialize;

use super::client::EtcdClient;
use super::source::Source;
use crate::exit::Failure;

/// Keys of a transaction: as many as etcd takes when nothing else is configured.
const BATCH_KEYS: usize = 128;
const BATCH_BYTES: usize = 768 << 10;
const BATCHES_PENDING: usize = 8;
/// The quorum's own keys.
const RESERVED: &[u8] = nautilus_machine::types::RESERVED_PREFIX;

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Copied {
    /// Keys written.
    pub(crate) written: u64,
    /// Keys that were there already, as they should be.
    pub(crate) unchanged: u64,
    /// Leases granted.
    pub(crate) leases_granted: u64,
}

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Side {
    /// At which revision.
    pub(crate) revision: Revision,
    /// Keys.
    pub(crate) keys: u64,
    /// SHA-256 over key, value and lease time of each, in hex.
    pub(crate) hash: String,
}

/// Both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Comparison {
    /// Where the keys came from.
    pub(crate) source: Side,
    /// The quorum.
    pub(crate) target: Side,
    /// Whether they hold the same.
    pub(crate) equal: bool,
}

/// Copies what differs. `progress` hears of keys looked at.
pub(crate) async fn copy(
    source: &mut Source,
    target: &EtcdClient,
    progress: &mut dyn FnMut(u64),
) -> anyhow::Result<Copied> {
    let mut copied = Copied::default();
    let present = target.leases().await?;
    for (&id, &seconds) in &source.leases {
        match present.get(&id) {
            None => {
                target.grant(id, seconds).await?;
                copied.leases_granted += 1;
            }
            Some(found) if *found == seconds => {}
            Some(found) => {
                return Err(Failure::Refused.error(format!(
                    "lease {:x} is there already, with {found} s instead of {seconds} s",
                    id.0
                )));
            }
        }
    }
    let mut pending = FuturesUnordered::new();
    let mut seen = 0;
    source.rewind();
    loop {
        let page = source.page().await?;
        let (Some(first), Some(last)) = (page.first(), page.last()) else {
            break;
        };
        if let Some(own) = page.iter().find(|kv| kv.key.starts_with(RESERVED)) {
            return Err(Failure::Refused.error(format!(
                "key {:?} is under /nautilus/, which is the quorum's own",
                String::from_utf8_lossy(&own.key)
            )));
        }
        seen += page.len() as u64;
        let end = [&last.key[..], b"\0"].concat();
        let there = target.page(&first.key, &end, 0, None).await?.kvs;
        let there: BTreeMap<_, _> = there.iter().map(|kv| (&kv.key, kv)).collect();
        let differs = |kv: &KeyValue| {
            there
                .get(&kv.key)
                .is_none_or(|found| found.value != kv.value || found.lease != kv.lease)
        };
        let (different, same): (Vec<_>, Vec<_>) = page.into_iter().partition(differs);
        copied.unchanged += same.len() as u64;
        copied.written += different.len() as u64;
        for batch in batches(different) {
            while pending.len() >= BATCHES_PENDING {
                pending.next().await.unwrap_or(Ok(()))?;
            }
            pending.push(target.put_all(batch));
        }
        progress(seen);
    }
    while let Some(done) = pending.next().await {
        done?;
    }
    Ok(copied)
}

/// Compares a source with the quorum, each at one revision.
pub(crate) async fn compare(
    source: &mut Source,
    target: EtcdClient,
    progress: &mut dyn FnMut(u64),
) -> anyhow::Result<Comparison> {
    let mut target = Source::live(target).await?;
    let source = side(source, progress).await?;
    let target = side(&mut target, progress).await?;
    Ok(Comparison {
        equal: source.keys == target.keys && source.hash == target.hash,
        source,
        target,
    })
}

async fn side(source: &mut Source, progress: &mut dyn FnMut(u64)) -> anyhow::Result<Side> {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut keys = 0;
    source.rewind();
    loop {
        let page = source.page().await?;
        if page.is_empty() {
            break;
        }
        for kv in &page {
            add(&mut context, kv, &source.leases);
        }
        keys += page.len() as u64;
        progress(keys);
    }
    Ok(Side {
        revision: source.revision,
        keys,
        hash: hex::encode(context.finish()),
    })
}

fn add(context: &mut digest::Context, kv: &KeyValue, leases: &BTreeMap<LeaseId, u64>) {
    let seconds = kv.lease.and_then(|lease| leases.get(&lease)).copied();
    for bytes in [&kv.key, &kv.value] {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    }
    context.update(&seconds.unwrap_or(0).to_be_bytes());
}

/// Cuts keys into transactions.
fn batches(kvs: Vec<KeyValue>) -> Vec<Vec<KeyValue>> {
    let mut batches = Vec::new();
    let mut batch: Vec<KeyValue> = Vec::new();
    let mut bytes = 0;
    for kv in kvs {
        let more = kv.key.len() + kv.value.len();
        if !batch.is_empty() && (batch.len() == BATCH_KEYS || bytes + more > BATCH_BYTES) {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += more;
        batch.push(kv);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize, value_bytes: usize) -> KeyValue {
        KeyValue {
            key: format!("k{n}").into(),
            value: vec![0; value_bytes].into(),
            create_revision: 2,
            mod_revision: 2,
            version: 1,
            lease: None,
        }
    }

    #[test]
    fn a_transaction_is_bounded_in_keys_and_in_bytes() {
        let small = batches((0..300).map(|n| key(n, 10)).collect());
        let lengths: Vec<_> = small.iter().map(Vec::len).collect();
        assert_eq!(lengths, [128, 128, 44]);
        let large = batches((0..5).map(|n| key(n, 500 << 10)).collect());
        assert_eq!(large.len(), 5);
        // One that is larger than a batch goes alone rather than not at all.
        assert_eq!(batches(vec![key(0, 2 << 20)]).len(), 1);
    }

    #[test]
    fn the_time_of_a_lease_is_part_of_the_hash() {
        let mut kv = key(1, 1);
        kv.lease = Some(LeaseId(7));
        let hash = |seconds| {
            let mut context = digest::Context::new(&digest::SHA256);
            add(&mut context, &kv, &BTreeMap::from([(LeaseId(7), seconds)]));
            context.finish().as_ref().to_vec()
        };
        assert_ne!(hash(10), hash(20));
    }
}
