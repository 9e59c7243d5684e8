//! Objects before and after their strategies.

use serde_json::{Value, json};

use super::*;
use crate::resource::find;

const CONTEXT: Context<'static> = Context {
    now: "2026-01-01T00:00:00Z",
    uid: "u-1",
    name_suffix: "abcde",
    namespace: Some("a"),
    user: "admin",
    field_manager: "test",
};

fn resource(plural: &str) -> &'static Resource {
    find("", "v1", plural).expect("served")
}
