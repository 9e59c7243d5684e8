//! Kinds that are defined by objects: CustomResourceDefinitions make kinds on every node,
//! and the leader looks after the definitions.
//!
//! Invariants
//! - A kind is served only while its definition says that its names are accepted and it
//!   is established; every node follows the definitions by itself.
//! - Conditions of definitions are written by the leader only, in its term.
//! - A definition goes after its last object.

mod conversion;
mod decode;
mod definitions;
mod keep;
mod kind;

pub(crate) use conversion::{in_storage_version, in_version, own_events, own_rows};
pub(crate) use decode::{decode, judge};
pub(crate) use definitions::{check_definition, default_definition, follow};
pub(crate) use keep::{keep, stored_kind};
