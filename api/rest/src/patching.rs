//! Patch bodies: which kind, how parsed, and what strictness says of the result.

use bytes::Bytes;
use nautilus_machinery::fields::{self, FieldValidation};
use nautilus_machinery::patch::{self, PatchKind};
use nautilus_machinery::resource::{Defined, Resource};
use nautilus_machinery::status::ApiError;
use serde_json::Value;

use crate::body::Warnings;

/// Media types of patches served.
const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// The kind of patch a media type names.
fn kind(media: &str) -> Result<PatchKind, ApiError> {
    match media {
        "application/json-patch+json" => Ok(PatchKind::Json),
        "application/merge-patch+json" => Ok(PatchKind::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchKind::StrategicMerge),
        _ => Err(ApiError::unsupported_media_type(&PATCH_TYPES)),
    }
}

/// A parsed patch and its text.
pub(crate) struct Patch {
    kind: PatchKind,
    value: Value,
    text: Bytes,
}

impl Patch {
    /// Reads a patch of this media type.
    pub(crate) fn read(media: &str, text: Bytes) -> Result<Self, ApiError> {
        let kind = kind(media)?;
        let value = serde_json::from_slice(&text)
            .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
        Ok(Self { kind, value, text })
    }

    /// The patched object, as a typed server would keep it.
    pub(crate) fn apply(
        &self,
        schema: &str,
        current: &Value,
        validation: FieldValidation,
        warnings: &Warnings,
    ) -> Result<Value, ApiError> {
        let patched = patch::apply_loosely(self.kind, schema, current, &self.value)?;
        if validation != FieldValidation::Ignore {
            let found = self.faults(schema, &patched);
            if validation == FieldValidation::Strict && !found.is_empty() {
                return Err(fields::strict_error(schema, &found));
            }
            warnings.replace(found);
        }
        fields::conform_owned(schema, patched)
    }

    /// The patched object of a defined kind, as it is stored.
    pub(crate) fn apply_defined(
        &self,
        resource: &Resource,
        defined: &dyn Defined,
        current: &Value,
        validation: FieldValidation,
        warnings: &Warnings,
    ) -> Result<Value, ApiError> {
        if self.kind == PatchKind::StrategicMerge {
            return Err(ApiError::unsupported_media_type(&[
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/apply-patch+yaml",
            ]));
        }
        let mut patched = patch::apply_loosely(self.kind, "", current, &self.value)?;
        crate::custom::judge(
            resource,
            defined,
            &mut patched,
            Vec::new(),
            validation,
            warnings,
        )?;
        Ok(patched)
    }

    /// Fields named twice in the patch, and fields of the result that its type does
    /// not have (the patch itself may hold directives, which no type has).
    fn faults(&self, schema: &str, patched: &Value) -> Vec<String> {
        let mut found = fields::unknown_and_duplicate(schema, &self.text);
        found.retain(|message| message.starts_with("duplicate field"));
        found.extend(fields::unknown(schema, patched));
        found
    }
}
