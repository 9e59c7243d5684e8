//! Receipts: roots of the ledger signed by a node, and checked by anybody.
//!
//! [`sign`] runs in the node, [`check`] wherever a receipt has come: it asks nobody.

pub(crate) mod check;
pub(crate) mod sign;
