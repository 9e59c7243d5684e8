//! etcd snapshots, written and read back.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use nautilus_backup::{BackupError, EtcdExport, EtcdSnapshot, Integrity, Lease, Record};
use nautilus_machine::{KeyValue, LeaseId};

fn records() -> Vec<Record> {
    let lease = Record::Lease(Lease {
        id: LeaseId(77),
        ttl_ms: 60_000,
    });
    let keys = (0..3_000u64).map(|n| {
        Record::Key(KeyValue {
            key: format!("key/{n:05}").into(),
            value: Bytes::from(vec![b'v'; (n % 300) as usize]),
            // In another order than the keys', three to a revision.
            create_revision: 2 + (5_000 - n) / 3,
            mod_revision: 2 + (5_000 - n) / 3,
            version: 1,
            lease: (n == 5).then_some(LeaseId(77)),
        })
    });
    std::iter::once(lease).chain(keys).collect()
}

fn written() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut export = EtcdExport::begin(file.path()).unwrap();
    for record in records() {
        export.add(&record).unwrap();
    }
    export.finish(9_000).unwrap();
    file
}

#[test]
fn an_export_read_back_is_what_was_exported() {
    let file = written();
    let snapshot = EtcdSnapshot::open(file.path(), Integrity::Hashed).unwrap();
    assert_eq!((snapshot.revision(), snapshot.keys()), (9_000, 3_000));
    let mut found = Vec::new();
    snapshot
        .each_record(&mut |record| {
            found.push(record);
            Ok(())
        })
        .unwrap();
    assert_eq!(found, records());
    assert_eq!(snapshot.page(b"key/02999", 10).unwrap().len(), 1);
}

#[test]
fn a_changed_or_cut_snapshot_is_refused() {
    let file = written();
    let whole = std::fs::read(file.path()).unwrap();
    let mut changed = whole.clone();
    changed[40_000] ^= 1;
    std::fs::write(file.path(), &changed).unwrap();
    let error = EtcdSnapshot::open(file.path(), Integrity::Hashed)
        .err()
        .unwrap();
    assert!(error.to_string().contains("SHA-256"), "{error}");
    std::fs::write(file.path(), &whole[..whole.len() - 32]).unwrap();
    let error = EtcdSnapshot::open(file.path(), Integrity::Hashed)
        .err()
        .unwrap();
    assert!(matches!(error, BackupError::NotAnArchive(_)), "{error}");
    let unchecked = EtcdSnapshot::open(file.path(), Integrity::Unchecked).unwrap();
    assert_eq!(unchecked.keys(), 3_000);
}

#[test]
fn the_quorums_own_keys_are_not_taken_from_elsewhere() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut export = EtcdExport::begin(file.path()).unwrap();
    let Some(Record::Key(mut kv)) = records().pop() else {
        panic!("a key")
    };
    kv.key = "/nautilus/ca".into();
    export.add(&Record::Key(kv)).unwrap();
    export.finish(9_000).unwrap();
    let error = EtcdSnapshot::open(file.path(), Integrity::Hashed)
        .err()
        .unwrap();
    assert!(error.to_string().contains("/nautilus/ca"), "{error}");
}
