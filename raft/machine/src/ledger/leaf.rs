//! What a leaf says: one change of one key, as it was applied.
//!
//! The bytes that are hashed: version u8 ‖ kind u8 ‖ revision u64 ‖ position u32 ‖ term
//! u64 ‖ log index u64 ‖ create revision u64 ‖ version of the key u64 ‖ blinding (32) ‖
//! key length u32 ‖ key ‖ SHA-256 of the value (32, of a deletion none); numbers big
//! endian. Everything but the key has a fixed length, so that no two leaves have the
//! same bytes.

use bytes::Bytes;

use crate::encoding::Place;
use crate::ledger::hash::{TreeHash, leaf_hash, sha256};
use crate::types::{KeyValue, LogPosition, Revision};

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 2 + 8 + 4 + 8 + 8 + 8 + 8 + 32 + 4;

/// What happened to the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LeafKind {
    /// It was created or written.
    Put = 1,
    /// It was deleted.
    Delete = 2,
    /// It was taken over from another store, with the revision that it had there.
    Load = 3,
}

/// One change of one key, as the quorum applied it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// What happened.
    pub kind: LeafKind,
    /// The revision that it has.
    pub revision: Revision,
    /// Its position among the changes of the revision, from 0.
    pub position: u32,
    /// The Raft entry that made it.
    pub log: LogPosition,
    /// The revision that created the key's life; 0 of a deletion.
    pub create_revision: Revision,
    /// Puts since creation; 0 of a deletion.
    pub key_version: u64,
    /// 32 bytes that nobody but members can compute: without them the leaf's hash says
    /// nothing about a value that could be guessed.
    pub blinding: [u8; 32],
    /// The key.
    pub key: Bytes,
    /// SHA-256 of the value; `None` of a deletion.
    pub value_sha256: Option<TreeHash>,
}

impl Leaf {
    /// The leaf of a put.
    pub(crate) fn of_put(
        kind: LeafKind,
        place: Place,
        log: LogPosition,
        blinding: [u8; 32],
        kv: &KeyValue,
    ) -> Self {
        Self {
            kind,
            revision: place.revision,
            position: place.sub,
            log,
            create_revision: kv.create_revision,
            key_version: kv.version,
            blinding,
            key: kv.key.clone(),
            value_sha256: Some(sha256(&kv.value)),
        }
    }

    /// The leaf of a deletion.
    pub(crate) fn of_delete(
        place: Place,
        log: LogPosition,
        blinding: [u8; 32],
        key: &Bytes,
    ) -> Self {
        Self {
            kind: LeafKind::Delete,
            revision: place.revision,
            position: place.sub,
            log,
            create_revision: 0,
            key_version: 0,
            blinding,
            key: key.clone(),
            value_sha256: None,
        }
    }

    /// Its hash in the tree.
    pub fn hash(&self) -> TreeHash {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.key.len() + 32);
        bytes.extend([VERSION, self.kind as u8]);
        bytes.extend(self.revision.to_be_bytes());
        bytes.extend(self.position.to_be_bytes());
        bytes.extend(self.log.term.to_be_bytes());
        bytes.extend(self.log.index.to_be_bytes());
        bytes.extend(self.create_revision.to_be_bytes());
        bytes.extend(self.key_version.to_be_bytes());
        bytes.extend(self.blinding);
        // Keys are bounded by the proposal's size, far below 4 GiB; a longer one from
        // elsewhere is in no ledger.
        let key_bytes = u32::try_from(self.key.len()).unwrap_or(u32::MAX);
        bytes.extend(key_bytes.to_be_bytes());
        bytes.extend_from_slice(&self.key);
        bytes.extend(self.value_sha256.iter().flatten());
        leaf_hash(&bytes)
    }

    /// Whether `value` is the one that the leaf commits to.
    pub fn commits_to(&self, value: &[u8]) -> bool {
        self.value_sha256 == Some(sha256(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::DigestKey;

    fn leaf(key: u8, value: &'static str) -> Leaf {
        let place = Place {
            revision: 7,
            sub: 0,
        };
        let kv = KeyValue {
            key: "secret".into(),
            value: value.into(),
            create_revision: 7,
            mod_revision: 7,
            version: 1,
            lease: None,
        };
        let blinding = DigestKey::new(&[key; 32]).blinding(place);
        Leaf::of_put(LeafKind::Put, place, LogPosition::default(), blinding, &kv)
    }

    #[test]
    fn a_leaf_cannot_be_guessed_without_its_blinding() {
        assert_eq!(leaf(1, "0000").hash(), leaf(1, "0000").hash());
        assert_ne!(leaf(1, "0000").hash(), leaf(2, "0000").hash());
        let place = Place {
            revision: 7,
            sub: 1,
        };
        let other = DigestKey::new(&[1; 32]).blinding(place);
        assert_ne!(leaf(1, "0000").blinding, other, "each leaf has its own");
    }

    #[test]
    fn every_field_is_in_the_hash() {
        let base = leaf(1, "0000");
        let mut seen = vec![base.hash()];
        let mut other = |change: &dyn Fn(&mut Leaf)| {
            let mut leaf = base.clone();
            change(&mut leaf);
            assert!(!seen.contains(&leaf.hash()));
            seen.push(leaf.hash());
        };
        other(&|leaf| leaf.kind = LeafKind::Load);
        other(&|leaf| leaf.revision += 1);
        other(&|leaf| leaf.position += 1);
        other(&|leaf| leaf.log.term += 1);
        other(&|leaf| leaf.log.index += 1);
        other(&|leaf| leaf.create_revision += 1);
        other(&|leaf| leaf.key_version += 1);
        other(&|leaf| leaf.blinding[31] ^= 1);
        other(&|leaf| leaf.key = "secreu".into());
        other(&|leaf| leaf.value_sha256 = None);
        other(&|leaf| leaf.value_sha256 = Some(sha256(b"0001")));
    }
}
