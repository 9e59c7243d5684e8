//! Random entries against a naive model: the same answers, at every revision that
//! can be read; and the machine's own promises: what is restored from the rows, or from
//! a checkpoint of the index and the rows after it, is the running machine, batches may
//! be cut anywhere, replicas are equal.
#![allow(clippy::unwrap_used)]

mod reference;
mod replica;
mod strategies;

use bytes::Bytes;
use nautilus_machine::{
    Event, KeyRange, Machine, MemoryRows, Outcome, RangeRequest, RowBatch, verify_consistency,
    verify_inclusion,
};
use proptest::prelude::*;

use reference::Model;
use replica::{Replica, digest_key};
use strategies::{commands, pieces, request};

/// Whether the two say the same of every revision that can be read, and of the past.
fn compare_all(model: &Model, replica: &Replica) -> Result<(), TestCaseError> {
    let first = model.compacted.max(1);
    for (revision, map) in model.maps.range(first..) {
        let request = RangeRequest {
            revision: Some(*revision),
            ..RangeRequest::newest(KeyRange::prefix("k"))
        };
        let response = replica.range(&request);
        prop_assert_eq!(response.count, map.len() as u64);
        prop_assert_eq!(response.kvs, map.values().cloned().collect::<Vec<_>>());
    }
    let seen = replica.history(first);
    let wanted: Vec<&Event> = model
        .events
        .iter()
        .filter(|event| event.revision() >= first)
        .collect();
    prop_assert_eq!(seen.len(), wanted.len());
    for (seen, wanted) in seen.iter().zip(wanted) {
        prop_assert_eq!((&seen.kind, &seen.kv), (&wanted.kind, &wanted.kv));
        match &seen.prev {
            Some(prev) => prop_assert_eq!(Some(prev), wanted.prev.as_ref()),
            // Compacted away: it was older than the compaction.
            None => prop_assert!(wanted.prev.is_none() || wanted.revision() <= model.compacted),
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_machine_answers_as_the_model_does(
        entries in commands(),
        requests in proptest::collection::vec(request(), 60),
    ) {
        let mut model = Model::new();
        let mut replica = Replica::new();
        let mut time = 0u64;
        for ((step, command, restart), request) in entries.into_iter().zip(requests) {
            time += step;
            let known = model.events.len();
            let digest = replica.machine.digest();
            let applied = replica.apply(time, command.clone());
            prop_assert_eq!(&applied.outcome, &model.apply(&command));
            prop_assert_eq!(applied.revision, model.revision);
            prop_assert_eq!(&replica.events(&applied)[..], &model.events[known..]);
            if matches!(applied.outcome, Outcome::Refused(_)) {
                prop_assert_eq!(replica.machine.digest(), digest, "refused, yet changed");
            }
            match restart {
                0 => replica.restart(),
                1 => replica.take_checkpoint(),
                _ => {}
            }
            let asked = request.revision.unwrap_or(0);
            if asked == 0 || (model.compacted.max(1)..=model.revision).contains(&asked) {
                prop_assert_eq!(replica.range(&request), model.range(&request));
            }
        }
        compare_all(&model, &replica)?;
    }

    #[test]
    fn batches_may_be_cut_anywhere(entries in commands()) {
        let mut one_by_one = Replica::new();
        let mut in_batches = Replica::new();
        let mut time = 0u64;
        for (step, command, cut) in entries {
            time += step;
            let left = one_by_one.apply(time, command.clone());
            let right = in_batches.stage(time, command);
            prop_assert_eq!(left, right);
            if cut < 2 {
                in_batches.write();
            }
        }
        in_batches.write();
        prop_assert_eq!(&one_by_one.rows, &in_batches.rows);
        prop_assert_eq!(one_by_one.machine.digest(), in_batches.machine.digest());
    }

    #[test]
    fn a_start_from_a_checkpoint_goes_on_as_if_it_had_never_stopped(
        before in commands(),
        after in commands(),
        more in commands(),
    ) {
        let mut running = Replica::new();
        let mut started = Replica::new();
        for (step, command, _) in before {
            running.apply(step, command.clone());
            started.apply(step, command);
        }
        started.take_checkpoint();
        let (taken_at, mut compacted) = (started.machine.revision(), 0);
        for (step, command, _) in after {
            running.apply(step, command.clone());
            started.apply(step, command);
            compacted = started.machine.compacted_revision();
        }
        let is_of_use = started.restart_from_checkpoint();
        prop_assert_eq!(is_of_use, compacted <= taken_at);
        for (step, command, _) in more {
            prop_assert_eq!(running.apply(step, command.clone()), started.apply(step, command));
            prop_assert_eq!(running.machine.digest(), started.machine.digest());
        }
        prop_assert_eq!(&running.rows, &started.rows);
        let first = running.machine.compacted_revision().max(1);
        prop_assert_eq!(running.history(first), started.history(first));
    }

    #[test]
    fn every_version_that_is_there_can_be_proved(entries in commands(), load in pieces(), is_loaded in any::<bool>()) {
        let mut replica = Replica::new();
        if is_loaded {
            for piece in load {
                replica.apply(0, piece);
            }
        }
        let mut heads = Vec::new();
        for (step, command, restart) in entries {
            replica.apply(step, command);
            match restart {
                0 => replica.restart(),
                1 => replica.take_checkpoint(),
                2 if !heads.is_empty() => {
                    replica.take_checkpoint();
                    prop_assert!(replica.restart_from_checkpoint());
                }
                _ => {}
            }
            heads.push(*replica.machine.ledger().head());
        }
        let view = replica.machine.ledger();
        let head = *view.head();
        let mut proved = 0;
        for revision in 0..=head.revision {
            let all = view.changes(revision, &|_| true, usize::MAX, &replica.rows).unwrap();
            for change in all {
                let proof = view.inclusion(change.index, &replica.rows).unwrap().unwrap();
                let leaf = change.leaf.hash();
                prop_assert!(verify_inclusion(&leaf, change.index, head.size, &proof, &head.root));
                prop_assert!(change.value.is_none_or(|value| change.leaf.commits_to(&value)));
                proved += 1;
            }
        }
        prop_assert_eq!(proved, replica.machine.version_rows());
        for older in heads.into_iter().filter(|older| older.size > 0) {
            let proof = view.consistency(older.size, head.size, &replica.rows).unwrap();
            let Some(proof) = proof else {
                prop_assert!(replica.machine.compacted_revision() > 0, "nothing was removed");
                continue;
            };
            let (from, to) = ((older.size, &older.root), (head.size, &head.root));
            prop_assert!(verify_consistency(from.0, from.1, to.0, to.1, &proof));
        }
    }

    #[test]
    fn a_loaded_store_is_as_the_one_it_came_from(
        pieces in pieces().prop_flat_map(|pieces| {
            let middle = pieces[1..pieces.len() - 1].to_vec();
            (Just(pieces), Just(middle).prop_shuffle())
        }),
        entries in commands(),
        twice in any::<bool>(),
    ) {
        let (pieces, middle) = pieces;
        let (first, last) = (&pieces[0], &pieces[pieces.len() - 1]);
        let mut model = Model::new();
        let mut replica = Replica::new();
        for piece in [first].into_iter().chain(&middle) {
            prop_assert_eq!(replica.apply(0, piece.clone()).outcome, model.apply(piece));
            if twice {
                let digest = replica.machine.digest();
                prop_assert_eq!(replica.apply(0, piece.clone()).outcome, Outcome::Done);
                prop_assert_eq!(replica.machine.digest(), digest, "a piece counts once");
            }
            let meanwhile = replica.apply(0, entries[0].1.clone());
            prop_assert_eq!(meanwhile.outcome, model.apply(&entries[0].1));
            replica.restart();
        }
        prop_assert_eq!(replica.apply(0, last.clone()).outcome, model.apply(last));
        compare_all(&model, &replica)?;
        replica.restart();
        for (step, command, _) in entries {
            let applied = replica.apply(step, command.clone());
            prop_assert_eq!(applied.outcome, model.apply(&command));
            prop_assert_eq!(applied.revision, model.revision);
        }
        replica.take_checkpoint();
        prop_assert!(replica.restart_from_checkpoint());
        compare_all(&model, &replica)?;
    }

    #[test]
    fn members_agree_on_the_hash_of_a_past_that_did_not_change(
        entries in commands(),
        more in commands(),
    ) {
        let mut replica = Replica::new();
        for (step, command, _) in entries {
            replica.apply(step, command);
        }
        let revision = replica.machine.revision();
        let (hash, compacted) = (replica.hash(None), replica.machine.compacted_revision());
        replica.restart();
        for (step, command, _) in more {
            replica.apply(step, command);
            if replica.machine.compacted_revision() == compacted {
                prop_assert_eq!(replica.hash(Some(revision)).hash, hash.hash);
            }
        }
    }

    #[test]
    fn a_lost_or_replaced_row_is_noticed(entries in commands(), pick in any::<prop::sample::Index>()) {
        let mut replica = Replica::new();
        let mut time = 0u64;
        let mut older = Vec::new();
        for (step, command, _) in entries {
            time += step;
            replica.apply(time, command);
            older.push(replica.rows.clone());
        }
        let rows = all_rows(&replica.rows);
        let (space, row_key, _) = &rows[pick.index(rows.len())];
        let mut lost = replica.rows.clone();
        let mut batch = RowBatch::default();
        batch.delete(*space, row_key);
        lost.write(batch);
        prop_assert!(Machine::restore(digest_key(), &lost).is_err(), "a row was lost unnoticed");

        let before = &older[pick.index(older.len())];
        for (space, row_key, value) in all_rows(before) {
            // An old row of the machine's own is the store's to notice: it binds that
            // row to its notes and to the mark of the last flush.
            if space == nautilus_machine::Space::Meta
                || rows.contains(&(space, row_key.clone(), value.clone()))
            {
                continue;
            }
            let mut replaced = replica.rows.clone();
            let mut batch = RowBatch::default();
            batch.put(space, &row_key, value);
            replaced.write(batch);
            let restored = Machine::restore(digest_key(), &replaced);
            prop_assert!(restored.is_err(), "an old row came back unnoticed");
        }
    }
}

fn all_rows(rows: &MemoryRows) -> Vec<(nautilus_machine::Space, Vec<u8>, Bytes)> {
    use nautilus_machine::{Rows, Space};
    let mut all = Vec::new();
    for space in [Space::Revision, Space::Lease, Space::Meta, Space::Ledger] {
        rows.scan(space, &[], None, &mut |row_key, value| {
            all.push((space, row_key.to_vec(), value));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    }
    all
}
