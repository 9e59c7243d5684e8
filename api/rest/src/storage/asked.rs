//! A write as admission sees it.

use nautilus_admission::attributes::{Attributes, Operation};
use serde_json::Value;

use super::target::Target;
use super::write::Writer;

/// The request as admission sees it.
pub(crate) fn attributes<'a>(
    operation: Operation,
    target: &Target<'a>,
    writer: &Writer<'a>,
    old: Option<&'a Value>,
) -> Attributes<'a> {
    Attributes {
        operation,
        resource: target.resource,
        subresource: target.subresource,
        namespace: target.asked_namespace(),
        name: target.name,
        field_manager: writer.field_manager,
        user: writer.user,
        dry_run: writer.dry_run,
        old,
    }
}
