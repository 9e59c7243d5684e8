//! The tree against a naive one that keeps every leaf, and against its rows lost.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::hash::{TreeHash, empty_root, leaf_hash, node_hash};
use super::prove::LedgerView;
use super::tiles::Ledger;
use super::verify::{verify_consistency, verify_inclusion};
use crate::digest::DigestKey;
use crate::memory::MemoryRows;
use crate::rows::{RowBatch, Rows, Space};

/// RFC 9162, section 2.1.1, word for word.
fn naive_root(leaves: &[TreeHash]) -> TreeHash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let middle = leaves.len().next_power_of_two() / 2;
            let (left, right) = leaves.split_at(middle);
            node_hash(&naive_root(left), &naive_root(right))
        }
    }
}

fn key() -> DigestKey {
    DigestKey::new(&[3; 32])
}

fn leaf(number: u64) -> TreeHash {
    leaf_hash(&number.to_be_bytes())
}

#[derive(Default)]
struct World {
    ledger: Ledger,
    rows: MemoryRows,
    leaves: Vec<TreeHash>,
    living: BTreeSet<u64>,
}

impl World {
    fn of(size: u64) -> Self {
        let mut world = Self::default();
        world.append(size);
        world
    }

    fn append(&mut self, leaves: u64) {
        let mut batch = RowBatch::default();
        for _ in 0..leaves {
            let number = self.leaves.len() as u64;
            let index = self.ledger.append(&key(), leaf(number), &mut batch);
            assert_eq!(index, number);
            self.leaves.push(leaf(number));
            self.living.insert(number);
        }
        self.rows.write(batch);
    }

    fn forget(&mut self, leaves: impl IntoIterator<Item = u64>) {
        let mut batch = RowBatch::default();
        for leaf in leaves {
            let forgotten = self.ledger.forget(&key(), leaf, &self.rows, &mut batch);
            forgotten.unwrap();
            assert!(self.living.remove(&leaf));
        }
        self.rows.write(batch);
    }

    fn view(&self) -> LedgerView {
        LedgerView::of(&self.ledger, key(), 1, 1, 0)
    }

    fn restart(&mut self) {
        let note = self.ledger.note();
        let restored = Ledger::restore(&note, &self.rows).unwrap();
        assert_eq!(restored, self.ledger);
        self.ledger = restored;
    }

    fn tile_rows(&self) -> usize {
        let mut count = 0;
        self.rows
            .scan(Space::Ledger, &[], None, &mut |_, _| {
                count += 1;
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        count
    }

    fn check_inclusion(&self, index: u64, root: &TreeHash) {
        let (view, size) = (self.view(), self.leaves.len() as u64);
        let proof = view.inclusion(index, &self.rows).unwrap();
        let proof = proof.expect("what lives can be proved");
        let hash = &self.leaves[index as usize];
        assert!(verify_inclusion(hash, index, size, &proof, root));
        assert!(!verify_inclusion(
            &leaf(u64::MAX),
            index,
            size,
            &proof,
            root
        ));
        assert!(!verify_inclusion(hash, index ^ 1, size, &proof, root) || size == 1);
    }
}

#[test]
fn every_tree_up_to_a_few_tiles_is_as_the_naive_one() {
    let mut world = World::default();
    for size in 0..=600 {
        assert_eq!(world.ledger.root(), naive_root(&world.leaves), "of {size}");
        world.restart();
        world.append(1);
    }
}

#[test]
fn roots_are_those_of_the_reference() {
    // The leaves and roots that certificate transparency's implementations test with.
    let leaves: [&[u8]; 8] = [
        b"",
        b"\0",
        b"\x10",
        b" !",
        b"01",
        b"@ABC",
        b"PQRSTUVW",
        b"`abcdefghijklmno",
    ];
    let mut ledger = Ledger::default();
    let mut batch = RowBatch::default();
    for leaf in leaves {
        ledger.append(&key(), leaf_hash(leaf), &mut batch);
    }
    let root = ledger.root().map(|byte| format!("{byte:02x}")).concat();
    assert_eq!(
        root,
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_leaf_of_any_tree_can_be_proved(size in 1u64..5000, picks in prop::collection::vec(any::<prop::sample::Index>(), 8)) {
        let world = World::of(size);
        let root = naive_root(&world.leaves);
        for pick in picks {
            world.check_inclusion(pick.index(size as usize) as u64, &root);
        }
    }

    #[test]
    fn any_two_trees_are_consistent_and_others_are_not(size in 2u64..3000, picks in prop::collection::vec(any::<(prop::sample::Index, prop::sample::Index)>(), 8)) {
        let world = World::of(size);
        let view = world.view();
        for (one, other) in picks {
            let sizes = [one, other].map(|pick| pick.index(size as usize) as u64 + 1);
            let (from, to) = (sizes[0].min(sizes[1]), sizes[0].max(sizes[1]));
            let roots = [from, to].map(|size| naive_root(&world.leaves[..size as usize]));
            let proof = view.consistency(from, to, &world.rows).unwrap().unwrap();
            prop_assert!(verify_consistency(from, &roots[0], to, &roots[1], &proof));
            let mut forked = world.leaves[..from as usize].to_vec();
            forked[one.index(from as usize)] = leaf(u64::MAX);
            prop_assert!(!verify_consistency(from, &naive_root(&forked), to, &roots[1], &proof));
            if !proof.is_empty() {
                prop_assert!(!verify_consistency(from, &roots[0], to, &roots[1], &proof[1..]));
                let mut longer = proof.clone();
                longer.push(leaf(0));
                prop_assert!(!verify_consistency(from, &roots[0], to, &roots[1], &longer));
            }
        }
    }

    #[test]
    fn what_lives_can_be_proved_whatever_is_forgotten(
        steps in prop::collection::vec((1u64..200, prop::collection::vec(any::<prop::sample::Index>(), 0..150), any::<bool>()), 1..6),
    ) {
        let mut world = World::default();
        for (leaves, forgotten, restart) in steps {
            world.append(leaves);
            let mut living: Vec<u64> = world.living.iter().copied().collect();
            let mut chosen = BTreeSet::new();
            for pick in forgotten {
                if !living.is_empty() {
                    chosen.insert(living.swap_remove(pick.index(living.len())));
                }
            }
            world.forget(chosen);
            if restart {
                world.restart();
            }
            let root = naive_root(&world.leaves);
            prop_assert_eq!(world.ledger.root(), root);
            for index in &world.living {
                world.check_inclusion(*index, &root);
            }
        }
    }

    #[test]
    fn rows_are_bounded_by_what_lives(size in 1u64..3000, keep in 0u64..5) {
        let mut world = World::of(size);
        let kept: BTreeSet<u64> = (0..keep).map(|number| number * size / 5).collect();
        let gone: Vec<u64> = world.living.difference(&kept).copied().collect();
        world.forget(gone);
        // A path of tiles for each that lives, and the edge.
        let levels = 4;
        prop_assert!(world.tile_rows() <= (kept.len() + 1) * levels);
        world.append(40);
        let root = naive_root(&world.leaves);
        for index in kept {
            world.check_inclusion(index, &root);
        }
    }
}
