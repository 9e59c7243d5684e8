//! A sealed record opens only as what it was sealed for, and only in its directory.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use nautilus_store::{Aad, Envelope, Keyring, Kind, RootKey, SEAL_OVERHEAD_BYTES};
use proptest::prelude::*;
use tempfile::TempDir;

fn keyring() -> Keyring {
    Keyring::new(RootKey::from_bytes([42; 32]))
}

fn aad(kind: Kind, position: &[u8]) -> Aad<'_> {
    Aad { kind, position }
}

proptest! {
    #[test]
    fn records_open_at_their_place_only(
        plain in proptest::collection::vec(any::<u8>(), 0..200),
        place in proptest::collection::vec(any::<u8>(), 0..20),
        other in proptest::collection::vec(any::<u8>(), 0..20),
        at in any::<prop::sample::Index>(),
        bit in 0..8u8,
    ) {
        let home = TempDir::new().unwrap();
        let envelope = Envelope::open_dir(home.path(), &keyring()).unwrap();
        let sealed = envelope.seal(aad(Kind::LogFrame, &place), &plain);
        prop_assert_eq!(sealed.len(), plain.len() + SEAL_OVERHEAD_BYTES);
        prop_assert_eq!(&envelope.open(aad(Kind::LogFrame, &place), &sealed).unwrap(), &plain);
        prop_assert!(envelope.open(aad(Kind::LogHead, &place), &sealed).is_err());
        if other != place {
            prop_assert!(envelope.open(aad(Kind::LogFrame, &other), &sealed).is_err());
        }
        let mut flipped = sealed.clone();
        flipped[at.index(sealed.len())] ^= 1 << bit;
        prop_assert!(envelope.open(aad(Kind::LogFrame, &place), &flipped).is_err());
        let cut = &sealed[..at.index(sealed.len())];
        prop_assert!(envelope.open(aad(Kind::LogFrame, &place), cut).is_err());
    }
}

#[test]
fn every_incarnation_opens_what_earlier_ones_sealed_and_repeats_no_nonce() {
    let home = TempDir::new().unwrap();
    let mut sealed = Vec::new();
    for _ in 0..5 {
        let envelope = Envelope::open_dir(home.path(), &keyring()).unwrap();
        for _ in 0..5 {
            sealed.push(envelope.seal(aad(Kind::Vote, b"1"), b"the same"));
        }
        for record in &sealed {
            assert_eq!(
                envelope.open(aad(Kind::Vote, b"1"), record).unwrap(),
                b"the same"
            );
        }
    }
    let heads: BTreeSet<&[u8]> = sealed.iter().map(|record| &record[..13]).collect();
    assert_eq!(heads.len(), sealed.len());
}

#[test]
fn a_rolled_back_table_gives_a_fresh_key_not_an_old_one() {
    let home = TempDir::new().unwrap();
    drop(Envelope::open_dir(home.path(), &keyring()).unwrap());
    let table = home.path().join("epochs");
    let old = std::fs::read(&table).unwrap();
    let seal = || {
        let envelope = Envelope::open_dir(home.path(), &keyring()).unwrap();
        envelope.seal(aad(Kind::Vote, b"1"), &[0; 64])
    };
    let first = seal();
    std::fs::write(&table, old).unwrap();
    let second = seal();
    assert_eq!(
        first[..13],
        second[..13],
        "the same epoch and counter come again"
    );
    assert_ne!(first[13..], second[13..], "but under another key");
}

#[test]
fn a_directory_is_opened_once_and_by_its_quorum_only() {
    let home = TempDir::new().unwrap();
    let envelope = Envelope::open_dir(home.path(), &keyring()).unwrap();
    let text = Envelope::open_dir(home.path(), &keyring())
        .err()
        .unwrap()
        .to_string();
    assert!(text.contains("in use"), "{text}");
    drop(envelope);
    let stranger = Keyring::new(RootKey::from_bytes([43; 32]));
    let text = Envelope::open_dir(home.path(), &stranger)
        .err()
        .unwrap()
        .to_string();
    assert!(
        text.contains("epochs") && text.contains("another quorum"),
        "{text}"
    );
}
