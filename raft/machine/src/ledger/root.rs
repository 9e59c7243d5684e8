//! What is signed of a tree.
//!
//! The bytes that are signed: the label, then each field after its length (8 bytes, big
//! endian), so that no two statements have the same bytes and no signature for another
//! purpose is one of a root.

use crate::ledger::hash::TreeHash;
use crate::types::{NodeId, Revision, UnixMillis};

const LABEL: &[u8] = b"nautilus ledger root v1";

/// What a node says of its ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootStatement {
    /// The quorum's name.
    pub cluster: String,
    /// The node that says it.
    pub node: NodeId,
    /// Leaves in the tree.
    pub size: u64,
    /// The tree's root.
    pub root: TreeHash,
    /// The term of the last entry applied.
    pub term: u64,
    /// The store's revision.
    pub revision: Revision,
    /// When it was said, by the node's clock.
    pub time: UnixMillis,
}

impl RootStatement {
    /// The bytes to sign.
    pub fn to_be_signed(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(192);
        let fields: [&[u8]; 8] = [
            LABEL,
            self.cluster.as_bytes(),
            &self.node.to_be_bytes(),
            &self.size.to_be_bytes(),
            &self.root,
            &self.term.to_be_bytes(),
            &self.revision.to_be_bytes(),
            &self.time.0.to_be_bytes(),
        ];
        for field in fields {
            bytes.extend((field.len() as u64).to_be_bytes());
            bytes.extend_from_slice(field);
        }
        bytes
    }
}
