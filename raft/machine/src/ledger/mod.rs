//! The ledger: an append-only Merkle tree over every change that was ever applied, so
//! that anybody who trusts a signed root can check one change without the rest.
//!
//! Knows no clock, keys or signatures: whoever signs a root gives the time, and signs
//! [`RootStatement::to_be_signed`].
//!
//! | file | holds |
//! |---|---|
//! | `hash` | the tree's hashing, RFC 9162 section 2.1.1 |
//! | `leaf` | what one leaf says, and its bytes |
//! | `tiles` | the tree as the machine keeps it: edge in memory, the rest in rows |
//! | `prove` | proofs made from tiles |
//! | `receipt` | what can be asked of a ledger, and answered from a view of it |
//! | `verify` | proofs checked, RFC 9162 sections 2.1.3.2 and 2.1.4.2 |
//! | `root` | what is signed of a tree |
//!
//! Invariants
//! - One leaf per version row, in the order of application; its hash depends on the log
//!   alone, so that replicas have equal roots.
//! - What is needed to prove a leaf is kept exactly as long as its version row, and the
//!   rest of the tree is not: rows are bounded by living versions, not by history.
//! - A leaf cannot be guessed from its hash: it holds a blinding that only members can
//!   compute, and that a receipt gives out for its own leaf alone.

pub(crate) mod hash;
pub(crate) mod leaf;
pub(crate) mod prove;
pub(crate) mod receipt;
pub(crate) mod root;
pub(crate) mod tiles;
pub(crate) mod verify;

#[cfg(test)]
mod tests;
