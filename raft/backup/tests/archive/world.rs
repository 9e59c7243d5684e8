//! A small key space and archives of it.

use bytes::Bytes;
use nautilus_backup::{
    Archive, ArchiveInfo, ArchiveWriter, BackupError, Identity, Lease, Opener, QuorumKey,
    Recipient, Record, Seal, Summary,
};
use nautilus_machine::{KeyValue, LeaseId};

pub(crate) fn quorum() -> QuorumKey {
    QuorumKey::from_root(&[7; 32])
}

pub(crate) fn key(name: &str, value: &[u8], revision: u64) -> Record {
    Record::Key(KeyValue {
        key: Bytes::copy_from_slice(name.as_bytes()),
        value: Bytes::copy_from_slice(value),
        create_revision: revision,
        mod_revision: revision + 1,
        version: 2,
        lease: revision.is_multiple_of(3).then_some(LeaseId(77)),
    })
}

/// Enough of them to need several frames, and one that is larger than a frame.
pub(crate) fn records() -> Vec<Record> {
    let lease = Record::Lease(Lease {
        id: LeaseId(77),
        ttl_ms: 60_000,
    });
    let large = vec![0xab; 3 << 20];
    let keys = (0..2_000u64).map(|n| key(&format!("k{n:05}"), &vec![(n % 251) as u8; 700], n + 2));
    std::iter::once(lease)
        .chain(keys)
        .chain([key("large", &large, 5_000), key("empty", b"", 5_001)])
        .collect()
}

/// An archive sealed to the quorum and to `recipients`.
pub(crate) fn archive(records: &[Record], recipients: &[Recipient]) -> (Vec<u8>, Summary) {
    let quorum = quorum();
    let signing = quorum.signing().unwrap();
    let leases = records
        .iter()
        .filter(|record| matches!(record, Record::Lease(_)))
        .count() as u64;
    let info = ArchiveInfo {
        cluster: "alpha".into(),
        revision: 6_000,
        keys: records.len() as u64 - leases,
        leases,
        created_unix_ms: 1,
    };
    let seal = Seal {
        recipients,
        quorum: recipients.is_empty().then_some(&quorum),
        signing: &signing,
    };
    let mut writer = ArchiveWriter::begin(Vec::new(), &seal, info).unwrap();
    for record in records {
        writer.add(record).unwrap();
    }
    writer.finish().unwrap()
}

pub(crate) fn read(archive: &[u8], opener: &Opener) -> Result<(Vec<Record>, Summary), BackupError> {
    let mut records = Archive::open(archive)?.unseal(opener)?;
    let mut found = Vec::new();
    while let Some(record) = records.next_record()? {
        found.push(record);
    }
    Ok((found, records.summary().expect("read whole")))
}

pub(crate) fn operator() -> (Identity, Recipient) {
    let identity = Identity::generate().unwrap();
    let recipient = identity.recipient().unwrap();
    (identity, recipient)
}
