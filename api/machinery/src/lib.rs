//! The Kubernetes API's general machinery: what can be said about a request and
//! its objects without a clock, a network, a disk or a store.
//!
//! Knows nothing about HTTP, revisions or who leads. Objects are
//! [`serde_json::Value`]s; everything about their kinds stands in two tables:
//! [`schema`] (the fields of every type, generated from the release served) and
//! [`resource`] (the kinds, their verbs, columns and rules).
//!
//! Invariants
//! - Nothing here panics on any input; malformed input is a [`status::ApiError`].
//! - Depth, size and counts are bounded by named constants.
//! - JSON to protobuf and back is the identity on conforming objects.

pub mod allocation;
pub mod codec;
pub mod conditions;
pub mod convert;
pub mod discovery;
pub mod fields;
pub mod identity;
pub mod leaving;
pub mod openapi;
pub mod patch;
pub mod quantity;
pub mod resource;
pub mod review;
pub mod scale;
pub mod schema;
pub mod selector;
pub mod status;
pub mod strategy;
pub mod table;
pub mod timestamp;
pub mod validation;
