//! Patch bodies: which kind, how parsed, and what strictness says of the result.

use nautilus_machinery::fields::{self, FieldValidation};
use nautilus_machinery::patch::{self, PatchKind};
use nautilus_machinery::status::ApiError;
use serde_json::Value;

use crate::body::Warnings;

/// Media types of patches served.
const PATCH_TYPES: [&str; 3] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// The kind of patch a media type names.
pub(crate) fn kind(media: &str) -> Result<PatchKind, ApiError> {
    match media {
        "application/json-patch+json" => Ok(PatchKind::Json),
        "application/merge-patch+json" => Ok(PatchKind::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchKind::StrategicMerge),
        _ => Err(ApiError::unsupported_media_type(&PATCH_TYPES)),
    }
}

/// Parses a patch's text.
pub(crate) fn parse(content: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(content)
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))
}

/// The patched object, as a typed server would keep it.
pub(crate) fn apply(
    kind: PatchKind,
    schema: &str,
    current: &Value,
    patch: &Value,
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<Value, ApiError> {
    let patched = patch::apply(kind, schema, current, patch)?;
    if validation != FieldValidation::Ignore {
        let text =
            serde_json::to_vec(&patched).map_err(|error| ApiError::internal(error.to_string()))?;
        let unknown = fields::unknown_and_duplicate(schema, &text);
        if validation == FieldValidation::Strict && !unknown.is_empty() {
            return Err(fields::strict_error(schema, &unknown));
        }
        warnings.replace(unknown);
    }
    fields::conform(schema, &patched)
}
