//! What goes into an archive comes out of it.

use std::sync::Arc;

use nautilus_backup::{Archive, Cut, LeaseTable, Opener, Record, Seal, is_identity, write_archive};
use nautilus_machine::solo::SoloKv;
use nautilus_machine::{Command, LeaseId, Operation, Proposal, Put, Txn, UnixMillis};

use crate::world::{archive, operator, quorum, read, records};

#[test]
fn the_quorum_reads_back_what_it_wrote() {
    let records = records();
    let (whole, written) = archive(&records, &[]);
    let (found, summary) = read(&whole, &Opener::Quorum(quorum())).unwrap();
    assert_eq!(found, records);
    assert_eq!(summary, written);
}

#[test]
fn each_operator_reads_what_was_sealed_to_them() {
    let (one, first) = operator();
    let (two, second) = operator();
    let (whole, written) = archive(&records(), &[first, second]);
    for identity in [one, two] {
        let (_, summary) = read(&whole, &Opener::Operator(identity)).unwrap();
        assert_eq!(summary, written);
    }
}

#[test]
fn anybody_can_check_that_it_is_whole_but_nobody_sees_what_is_in_it() {
    let (_, recipient) = operator();
    let (whole, _) = archive(&records(), &[recipient]);
    let verified = Archive::open(&whole[..])
        .unwrap()
        .verify(&mut |_| {})
        .unwrap();
    assert_eq!(verified.size_bytes, whole.len() as u64);
    assert_eq!(verified.signer, quorum().signing().unwrap().public());
    for planted in [&b"k00042"[..], &[0xab; 32], &[42; 32]] {
        assert!(!whole.windows(planted.len()).any(|window| window == planted));
    }
}

fn put(kv: &SoloKv, key: &str, value: &str) {
    let txn = Txn {
        then: vec![Operation::Put(Put::new(key.to_owned(), value.to_owned()))],
        ..Txn::default()
    };
    kv.apply(Proposal::new(Command::Txn(txn))).expect("applied");
}

#[test]
fn an_archive_of_a_key_space_holds_its_keys_at_the_revision_and_none_of_the_identity() {
    let kv = SoloKv::new(|| UnixMillis(1));
    for n in 0..3_000 {
        put(&kv, &format!("user/{n:04}"), &format!("value {n}"));
    }
    put(&kv, "/nautilus/ca", "secret");
    put(&kv, "/nautilus/registry/pods/a", "pod");
    put(&kv, "~after", "the end");
    let leases: LeaseTable = Arc::new(|| vec![(LeaseId(5), 9_000)]);
    let cut = Cut::take(&kv, &leases).unwrap();
    put(&kv, "user/0001", "later");

    let quorum = quorum();
    let signing = quorum.signing().unwrap();
    let seal = Seal {
        recipients: &[],
        quorum: Some(&quorum),
        signing: &signing,
    };
    let (whole, _) = write_archive(&kv, &cut, Vec::new(), &seal, "alpha", 1).unwrap();
    let (found, summary) = read(&whole, &Opener::Quorum(quorum)).unwrap();
    assert_eq!((summary.keys, summary.leases), (3_002, 1));
    let keys: Vec<_> = found
        .iter()
        .filter_map(|record| match record {
            Record::Key(kv) => Some(kv),
            Record::Lease(_) => None,
        })
        .collect();
    assert!(keys.iter().all(|kv| !is_identity(&kv.key)));
    assert!(keys.iter().any(|kv| kv.key == "/nautilus/registry/pods/a"));
    assert!(keys.is_sorted_by(|one, two| one.key < two.key));
    let first = keys.iter().find(|kv| kv.key == "user/0001").unwrap();
    assert_eq!(first.value, "value 1", "not what was written after the cut");
}
