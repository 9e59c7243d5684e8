//! Refusals of writes that say what stands instead.

use nautilus_machinery::resource::Resource;
use nautilus_machinery::status::{ApiError, Cause};

use super::Target;
use crate::failure::Failure;

/// 422: an object of this kind is not written over unseen.
pub(super) fn missing_version(target: &Target<'_>) -> Failure {
    let cause = Cause {
        field: "metadata.resourceVersion".into(),
        reason: "FieldValueInvalid".into(),
        message: "Invalid value: 0: must be specified for an update".into(),
    };
    let Resource { group, plural, .. } = target.resource;
    let qualified = target.resource.qualified();
    ApiError::invalid_kind(&qualified, group, plural, target.name, vec![cause]).into()
}

pub(super) fn uid_is_immutable(target: &Target<'_>, wanted: &str) -> Failure {
    let cause = Cause {
        field: "metadata.uid".into(),
        reason: "FieldValueInvalid".into(),
        message: format!("Invalid value: {wanted:?}: field is immutable"),
    };
    ApiError::invalid(target.resource, target.name, vec![cause]).into()
}

pub(super) fn uid_conflict(target: &Target<'_>, wanted: &str, actual: &str) -> Failure {
    let why =
        format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {actual}");
    ApiError::conflict_with(target.resource, target.name, &why).into()
}

pub(super) fn contended(target: &Target<'_>) -> Failure {
    ApiError::conflict(target.resource, target.name).into()
}
