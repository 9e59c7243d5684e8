//! The index against a plain map of every version, with keys that share much and
//! leaves that split and join.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;
use crate::index::build::Builder;

/// Every version of every key, deletions as `None`.
#[derive(Default)]
struct Plain {
    keys: BTreeMap<Vec<u8>, BTreeMap<Place, Option<Life>>>,
}

impl Plain {
    fn at(&self, key: &[u8], revision: Revision) -> Option<Place> {
        let upto = Place {
            revision,
            sub: u32::MAX,
        };
        let (place, life) = self.keys.get(key)?.range(..=upto).next_back()?;
        life.map(|_| *place)
    }

    fn count_at(&self, range: &KeyRange, revision: Revision) -> u64 {
        let lived = |key: &&Vec<u8>| range.contains(key) && self.at(key, revision).is_some();
        self.keys.keys().filter(lived).count() as u64
    }
}

fn place(revision: Revision) -> Place {
    Place { revision, sub: 0 }
}

fn found_at(index: &KeyIndex, range: &KeyRange, revision: Revision) -> Vec<(Vec<u8>, Place)> {
    let mut found = Vec::new();
    index.visit_at(range, revision, &mut |key, place| {
        found.push((key.to_vec(), place));
        ControlFlow::Continue(())
    });
    found
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    let group = prop_oneof![
        Just("/registry/pods/default/"),
        Just("/nautilus/registry/"),
        Just("/nautilus0"),
        Just("")
    ];
    (group, 0..400u32).prop_map(|(group, number)| format!("{group}{number}").into_bytes())
}

fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        (key(), key()).prop_map(|(start, end)| KeyRange::span(start, end)),
        key().prop_map(KeyRange::single),
        Just(KeyRange::prefix("/registry/")),
        Just(KeyRange::prefix("/nautilus/")),
        Just(KeyRange::prefix("")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_index_finds_and_counts_as_a_plain_map_does(
        writes in proptest::collection::vec((key(), 0..5u8), 1..1500),
        ranges in proptest::collection::vec((range(), 0..1500u64), 20),
        compacted in 0..1500u64,
    ) {
        let (mut index, mut plain) = (KeyIndex::default(), Plain::default());
        let mut revision = 1;
        for (key, kind) in &writes {
            let versions = plain.keys.entry(key.clone()).or_default();
            let life = versions.last_key_value().and_then(|(_, life)| *life);
            if *kind == 0 && life.is_none() {
                continue;
            }
            revision += 1;
            let next = Life {
                create_revision: life.map_or(revision, |life| life.create_revision),
                version: life.map_or(1, |life| life.version + 1),
                lease: (*kind == 1).then_some(LeaseId(7)),
            };
            let before = if *kind == 0 {
                versions.insert(place(revision), None);
                index.delete(key, place(revision))
            } else {
                versions.insert(place(revision), Some(next));
                index.put(key, place(revision), |given| {
                    assert_eq!(given, life);
                    next
                })
            };
            prop_assert_eq!(before.and_then(|before| before.life), life);
        }
        index.check();
        let compacted = compacted.min(revision);
        let mut removed = 0;
        while let Some(swept) = index.sweep(compacted) {
            removed += 1;
            if let Swept::Tombstone(place) = swept {
                let of = |versions: &BTreeMap<Place, Option<Life>>| versions.contains_key(&place);
                let named = plain.keys.iter().find(|(_, versions)| of(versions));
                index.forget(named.unwrap().0, place);
            }
        }
        index.check();
        let gone = |versions: &BTreeMap<Place, Option<Life>>| {
            let kept = versions.range(..=place(compacted)).next_back();
            let older = versions.range(..=place(compacted)).count() - usize::from(kept.is_some());
            let deleted = kept.is_some_and(|(at, life)| life.is_none() && *at < place(compacted));
            older + usize::from(deleted)
        };
        prop_assert_eq!(removed, plain.keys.values().map(gone).sum::<usize>());
        for (range, at) in ranges {
            let at = at.clamp(compacted, revision);
            let wanted: Vec<(Vec<u8>, Place)> = plain
                .keys
                .keys()
                .filter(|key| range.contains(key))
                .filter_map(|key| Some((key.clone(), plain.at(key, at)?)))
                .collect();
            prop_assert_eq!(found_at(&index, &range, at), wanted);
            prop_assert_eq!(index.count_at(&range, at), plain.count_at(&range, at));
            prop_assert_eq!(index.count_living(&range), plain.count_at(&range, revision));
        }
        let kept = |life: &Option<Life>, at: &Place| life.is_some() || place(compacted) <= *at;
        let keys = plain.keys.values().filter_map(|versions| versions.last_key_value());
        let keys = keys.filter(|(at, life)| kept(life, at)).count() as u64;
        prop_assert_eq!(index.keys(), keys);
    }
}

fn life(revision: Revision, version: u64) -> Life {
    Life {
        create_revision: revision,
        version,
        lease: None,
    }
}

#[test]
fn a_clone_stays_as_it_was() {
    let mut index = KeyIndex::default();
    for number in 0..2000u64 {
        let key = format!("key/{number:05}");
        index.put(key.as_bytes(), place(number + 2), |_| life(number + 2, 1));
    }
    let before = index.clone();
    for number in 0..2000u64 {
        let key = format!("key/{number:05}");
        index.delete(key.as_bytes(), place(number + 3000));
    }
    assert_eq!(before.count_living(&KeyRange::prefix("key/")), 2000);
    assert_eq!(index.count_living(&KeyRange::prefix("key/")), 0);
    before.check();
}

#[test]
fn any_version_of_a_key_written_often_is_found() {
    let mut index = KeyIndex::default();
    for revision in 2..20_000u64 {
        index.put(b"hot", place(revision), |_| life(2, revision - 1));
    }
    for revision in (2..20_000u64).step_by(97) {
        assert_eq!(index.at(b"hot", revision), Some(place(revision)));
    }
    assert_eq!(index.at(b"hot", 1), None);
}

#[test]
fn a_key_that_is_gone_leaves_no_memory_behind() {
    let mut index = KeyIndex::default();
    for number in 0..5000u64 {
        let key = format!("{:05}", (number * 7919) % 5000);
        index.put(key.as_bytes(), place(number + 2), |_| life(number + 2, 1));
    }
    let full = index.memory_bytes();
    for number in 0..5000u64 {
        let key = format!("{:05}", (number * 7907) % 5000);
        index.delete(key.as_bytes(), place(number + 6000));
        index.sweep(number + 6001);
        index.sweep(number + 6001);
        index.forget(key.as_bytes(), place(number + 6000));
        if number % 500 == 0 {
            index.check();
        }
    }
    assert_eq!(index.keys(), 0);
    assert!(
        index.memory_bytes() * 20 < full,
        "{} of {full}",
        index.memory_bytes()
    );
}

#[test]
fn keys_out_of_order_build_no_index() {
    let newest = Newest {
        place: place(2),
        life: Some(life(2, 1)),
    };
    let mut builder = Builder::default();
    assert!(builder.key(b"b", newest).is_ok());
    assert!(builder.key(b"a", newest).is_err());
    assert!(builder.key(b"b", newest).is_err());
    assert!(builder.link(place(3), place(3), true).is_err());
}
