//! Patch bodies: which kind, how parsed, and what strictness says of the result.

use bytes::Bytes;
use nautilus_machinery::fields::{self, FieldValidation};
use nautilus_machinery::patch::{self, PatchKind};
use nautilus_machinery::resource::{Defined, Resource};
use nautilus_machinery::status::{ApiError, Cause, quote};
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

/// What is wrong, without the sentence about whose body it was.
fn detail(message: &str) -> &str {
    let sentence = message.split_once(" cannot be handled as a ");
    let detail = sentence.and_then(|(_, rest)| rest.split_once(": "));
    detail.map_or(message, |(_, detail)| detail)
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
        let mut patched = patch::apply_loosely(self.kind, schema, current, &self.value)?;
        let refused = |error| self.unfit(schema, current, error);
        self.keep_kind(current, &mut patched).map_err(refused)?;
        if validation != FieldValidation::Ignore {
            let found = self.faults(schema, &patched);
            if validation == FieldValidation::Strict && !found.is_empty() {
                return Err(refused(fields::strict_error(schema, &found)));
            }
            warnings.replace(found);
        }
        fields::conform_owned(schema, patched).map_err(refused)
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
        let refused = |error| self.unfit("", current, error);
        self.keep_kind(current, &mut patched).map_err(refused)?;
        let found = Vec::new();
        let judged =
            crate::custom::judge(resource, defined, &mut patched, found, validation, warnings);
        judged.map_err(refused)?;
        Ok(patched)
    }

    /// A patch does not make an object of another kind: the typed merge drops what it says
    /// of the kind, the others are refused.
    fn keep_kind(&self, current: &Value, patched: &mut Value) -> Result<(), ApiError> {
        let of = |object: &Value| (object["apiVersion"].clone(), object["kind"].clone());
        let kind = of(current);
        if of(patched) == kind || !patched.is_object() {
            return Ok(());
        }
        if self.kind != PatchKind::StrategicMerge {
            return Err(ApiError::bad_request(format!(
                "no kind {} is registered for version {}",
                patched["kind"], patched["apiVersion"]
            )));
        }
        (patched["apiVersion"], patched["kind"]) = kind;
        Ok(())
    }

    /// 422 in place of a 400: it is the patch that makes a body nobody can read.
    fn unfit(&self, schema: &str, current: &Value, error: ApiError) -> ApiError {
        if error.code() != 400 {
            return error;
        }
        let shown = match self.kind {
            PatchKind::StrategicMerge => self.value.to_string(),
            _ => match patch::apply_loosely(self.kind, schema, current, &self.value) {
                Ok(patched) => patched.to_string(),
                Err(error) => return error,
            },
        };
        let cause = Cause {
            field: "patch".to_owned(),
            reason: "FieldValueInvalid".to_owned(),
            message: format!(
                "Invalid value: {}: {}",
                quote(&shown),
                detail(error.message())
            ),
        };
        ApiError::invalid_kind("", "", "", "", vec![cause])
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
