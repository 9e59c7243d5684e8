//! Proofs checked, by whoever has nothing but the proof and a root that is trusted.
//!
//! Invariant: a proof that is too long, too short or of an impossible size is refused,
//! whatever its hashes.

use crate::ledger::hash::{TreeHash, node_hash};

/// Hashes that a proof has at most: two for each level of a tree of 2^64 leaves.
pub const PROOF_HASHES_MAX: usize = 128;

/// Whether `leaf` is at `index` in the tree of `size` leaves with this root
/// (RFC 9162, section 2.1.3.2).
pub fn verify_inclusion(
    leaf: &TreeHash,
    index: u64,
    size: u64,
    proof: &[TreeHash],
    root: &TreeHash,
) -> bool {
    if index >= size || proof.len() > PROOF_HASHES_MAX {
        return false;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether the tree of `to` leaves begins with the tree of `from` leaves
/// (RFC 9162, section 2.1.4.2).
pub fn verify_consistency(
    from: u64,
    from_root: &TreeHash,
    to: u64,
    to_root: &TreeHash,
    proof: &[TreeHash],
) -> bool {
    if from == 0 || from > to || proof.len() > PROOF_HASHES_MAX {
        return false;
    }
    if from == to {
        return proof.is_empty() && from_root == to_root;
    }
    // A tree that is whole is its own first node.
    let (first, rest) = match (from.is_power_of_two(), proof.split_first()) {
        (true, _) => (from_root, proof),
        (false, Some((first, rest))) => (first, rest),
        (false, None) => return false,
    };
    let (mut at, mut last) = (from - 1, to - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut old, mut new) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old = node_hash(sibling, &old);
            new = node_hash(sibling, &new);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new = node_hash(&new, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && old == *from_root && new == *to_root
}
