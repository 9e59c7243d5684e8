//! What vendors say about their platforms, kept where verifiers find it.
//!
//! ```text
//! sources, files ──► rows /nautilus/endorsements/NAME ──watch──► every node's memory ──► verifiers
//!          (the leader refreshes)
//! ```
//! Verifiers ask no network: they look into the memory of their node
//! ([`Endorsed`]). Before there is a quorum, and on a client, that is filled from a
//! directory. A verifier's miss is noted in the store, and the leader fetches it.
//!
//! Invariants: what stands in the store was checked against its vendor's signature as
//! far as the issuer is at hand, and is never older than what it replaced; nothing is
//! fetched from an address that nobody configured, unless the node's own hardware
//! needs it.

mod directory;
mod endorsed;
mod face;
mod keeper;
mod row;
mod source;

pub(crate) use directory::{path_of, read_directory};
pub(crate) use endorsed::{Endorsed, follow};
pub(crate) use face::{Listed, PATH, router};
pub(crate) use keeper::{Keeper, describe_metrics};
pub(crate) use row::MAX_ENDORSEMENT_BYTES;
pub(crate) use source::Sources;
