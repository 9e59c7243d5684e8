//! Server-side apply: who owns which field of an object, and what a merge of one
//! manager's intent does to it (KEP-555). Pure: objects in, objects out.
//!
//! Knows nothing of requests, revisions or clocks: time is handed in. A type is
//! what a [`schema::Schema`] says of it, made from the table of built-in types or
//! from a custom resource's JSON schema.
//!
//! Invariants
//! - Applying the same configuration again changes nothing ([`manager`]).
//! - A field set reads back from `fieldsV1` as it was written ([`fields`]).
//! - Nothing panics on any input; depth is bounded by the parser's limit on JSON.

pub mod compare;
pub mod conflict;
pub mod fields;
pub mod managed;
pub mod manager;
pub mod merge;
pub mod path;
pub mod remove;
pub mod reset;
pub mod scale;
pub mod schema;
pub mod set;
pub mod typed;
pub mod value;

pub use conflict::{ApplyError, Conflict};
pub use manager::{FieldManager, Versions};
pub use set::Set;
