//! The tree's hashing: SHA-256 with a prefix that keeps leaves and nodes apart
//! (RFC 9162, section 2.1.1).

use aws_lc_rs::digest::{Context, SHA256, digest};

/// A SHA-256 of the tree: of a leaf, of a node, or of the root.
pub type TreeHash = [u8; 32];

const LEAF_PREFIX: u8 = 0;
const NODE_PREFIX: u8 = 1;

/// The root of the tree without leaves.
pub(crate) fn empty_root() -> TreeHash {
    sha256(&[])
}

/// The hash of a leaf with these bytes.
pub(crate) fn leaf_hash(leaf: &[u8]) -> TreeHash {
    let mut context = Context::new(&SHA256);
    context.update(&[LEAF_PREFIX]);
    context.update(leaf);
    to_hash(context.finish().as_ref())
}

/// The hash of the node over two others.
pub(crate) fn node_hash(left: &TreeHash, right: &TreeHash) -> TreeHash {
    let mut node = [NODE_PREFIX; 65];
    node[1..33].copy_from_slice(left);
    node[33..].copy_from_slice(right);
    sha256(&node)
}

/// The root of a whole subtree, over a power of two of hashes.
pub(crate) fn whole_root(hashes: &[TreeHash]) -> TreeHash {
    assert!(
        hashes.len().is_power_of_two(),
        "a whole subtree has a power of two of leaves"
    );
    let mut level = hashes.to_vec();
    while level.len() > 1 {
        level = level
            .chunks_exact(2)
            .map(|pair| node_hash(&pair[0], &pair[1]))
            .collect();
    }
    level[0]
}

pub(crate) fn sha256(bytes: &[u8]) -> TreeHash {
    to_hash(digest(&SHA256, bytes).as_ref())
}

fn to_hash(bytes: &[u8]) -> TreeHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(bytes);
    hash
}
