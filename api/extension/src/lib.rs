//! Kinds that are defined by objects: CustomResourceDefinitions and their structural
//! schemas. Pure: definitions and objects in, verdicts and objects out.
//!
//! Knows nothing of requests, storage or who serves what. Messages and field paths are
//! the reference's, because clients match them.
//!
//! Invariants
//! - A definition that [`definition::validate`] finds nothing wrong with can be served:
//!   its schemas are structural, its patterns compile, its rules compile.
//! - Nothing here panics on any input; recursion follows schemas and objects, whose depth
//!   the machinery bounds; rules spend a budget.

mod columns;
mod convert;
pub mod custom;
mod defaults;
pub mod definition;
mod formats;
mod lists;
mod metadata;
mod path;
mod prune;
mod rules;
mod schema;
mod structural;
mod validate;
pub mod version;

pub use columns::{ColumnPath, cell};
pub use convert::{ConversionError, conversion_review, converted_objects};
pub use defaults::{apply_defaults, prune_nulls};
pub use lists::check_lists;
pub use metadata::{coerce_metadata, validate_embedded};
pub use path::{find_field, parse_field_path};
pub use prune::prune;
pub use rules::{Rules, RulesOutcome, declare};
pub use schema::{Additional, Rule, Schema, SchemaError};
pub use validate::{validate, validate_update};
