//! From one key space through an archive into another.

use std::sync::Arc;

use nautilus_backup::{
    Archive, BackupError, Cut, Loaded, Opener, Seal, Summary, lease_table, load, write_archive,
};
use nautilus_machine::solo::SoloKv;
use nautilus_machine::{
    Command, KeyRange, Kv, LeaseId, Operation, Outcome, Proposal, Put, RangeError, RangeRequest,
    Refusal, Txn, UnixMillis,
};

use crate::world::{archive, key, quorum};

fn solo() -> SoloKv {
    SoloKv::new(|| UnixMillis(1))
}

fn apply(kv: &SoloKv, command: Command) -> Outcome {
    kv.apply(Proposal::new(command)).unwrap().outcome
}

fn put(kv: &SoloKv, key: &str, value: &str, lease: Option<LeaseId>) {
    let put = Put {
        lease,
        ..Put::new(key.to_owned(), value.to_owned())
    };
    let txn = Txn {
        then: vec![Operation::Put(put)],
        ..Txn::default()
    };
    apply(kv, Command::Txn(txn));
}

fn saved(kv: &SoloKv) -> (Vec<u8>, Summary) {
    let (quorum, table) = (quorum(), lease_table(Arc::new(kv.clone())));
    let signing = quorum.signing().unwrap();
    let seal = Seal {
        recipients: &[],
        quorum: Some(&quorum),
        signing: &signing,
    };
    let cut = Cut::take(kv, &table).unwrap();
    write_archive(kv, &cut, Vec::new(), &seal, "alpha", 1).unwrap()
}

async fn restored(archive: Vec<u8>, kv: &SoloKv, bump: u64) -> Result<Loaded, BackupError> {
    let records =
        Archive::open(std::io::Cursor::new(archive))?.unseal(&Opener::Quorum(quorum()))?;
    let kv: Arc<dyn Kv> = Arc::new(kv.clone());
    load(&kv, records, bump, &mut |_| {}).await
}

#[tokio::test]
async fn ten_thousand_keys_come_back_with_revisions_versions_leases_and_equal_hash() {
    let kv = solo();
    let lease = LeaseId(42);
    apply(
        &kv,
        Command::LeaseGrant {
            id: lease,
            ttl_ms: 60_000,
        },
    );
    for n in 0..10_000 {
        put(&kv, &format!("key/{n:05}"), &format!("value {n}"), None);
    }
    for n in 0..100 {
        put(&kv, &format!("key/{n:05}"), "again", Some(lease));
    }
    put(&kv, "/nautilus/ca", "the old quorum's", None);
    let (archive, written) = saved(&kv);
    assert_eq!(written.keys, 10_000);

    let new = solo();
    let loaded = restored(archive, &new, 0).await.unwrap();
    assert_eq!(loaded.revision, kv.revision());
    assert_eq!(
        (new.revision(), new.compacted_revision()),
        (kv.revision(), kv.revision())
    );
    let (_, again) = saved(&new);
    assert_eq!(again, written);
    let identity = RangeRequest::newest(KeyRange::single("/nautilus/ca"));
    assert_eq!(new.range(&identity).unwrap().count, 0);
    // It goes on from there.
    put(&new, "key/00000", "after", None);
    assert_eq!(new.revision(), kv.revision() + 1);
}

#[tokio::test]
async fn a_bumped_restore_stands_above_and_refuses_the_past() {
    let kv = solo();
    put(&kv, "a", "1", None);
    let (archive, _) = saved(&kv);
    let new = solo();
    let loaded = restored(archive, &new, 1_000).await.unwrap();
    assert_eq!(loaded.revision, kv.revision() + 1_000);
    let past = RangeRequest {
        revision: Some(kv.revision()),
        ..RangeRequest::newest(KeyRange::single("a"))
    };
    assert!(matches!(
        new.range(&past),
        Err(RangeError::Compacted { .. })
    ));
    let now = RangeRequest::newest(KeyRange::single("a"));
    assert_eq!(new.range(&now).unwrap().kvs[0].mod_revision, kv.revision());
}

#[tokio::test]
async fn a_store_that_is_not_empty_takes_nothing() {
    let kv = solo();
    put(&kv, "a", "1", None);
    let (archive, _) = saved(&kv);
    put(&kv, "b", "2", None);
    let error = restored(archive, &kv, 0).await.unwrap_err();
    assert!(matches!(error, BackupError::Store(_)), "{error}");
}

#[tokio::test]
async fn an_archive_that_breaks_off_leaves_a_store_that_serves_no_writes_until_it_is_loaded_whole()
{
    let records: Vec<_> = (0..5_000u64)
        .map(|n| key(&format!("k{n:05}"), &[7; 700], n * 3 + 2))
        .map(without_lease)
        .collect();
    let (whole, _) = archive(&records, &[]);
    let new = solo();
    let mut broken = whole.clone();
    let at = broken.len() - 1_000;
    broken[at] ^= 1;
    assert!(restored(broken, &new, 0).await.is_err());
    let txn = Txn {
        then: vec![Operation::Put(Put::new("x", "y"))],
        ..Txn::default()
    };
    let outcome = apply(&new, Command::Txn(txn));
    assert_eq!(outcome, Outcome::Refused(Refusal::Loading));
    restored(whole, &new, 10_000).await.unwrap();
    assert_eq!(saved(&new).1.keys, 5_000);
}

fn without_lease(record: nautilus_backup::Record) -> nautilus_backup::Record {
    match record {
        nautilus_backup::Record::Key(mut kv) => {
            kv.lease = None;
            nautilus_backup::Record::Key(kv)
        }
        other => other,
    }
}
