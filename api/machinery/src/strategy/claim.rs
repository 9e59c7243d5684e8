//! What a claim for a volume asks for, in a `PersistentVolumeClaim` and in templates.
//!
//! Source: `ValidatePersistentVolumeClaimSpec` of v1.37.

use serde_json::Value;

use crate::validation::common::label_selector;
use crate::validation::{At, Errors, dns_label, dns_subdomain};

/// The ways to mount a volume, in the order messages name them.
pub(crate) const ACCESS_MODES: &[&str] = &[
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];

/// Checks a list of access modes that may not be mixed with the one for a single pod.
pub(crate) fn access_modes(at: &At<'_>, errors: &mut Errors) {
    for mode in at.items() {
        if !ACCESS_MODES.contains(&mode.text()) {
            errors.not_supported(&at.path(), mode.text(), ACCESS_MODES);
        }
    }
    let others = at
        .items()
        .any(|mode| mode.text() != "ReadWriteOncePod" && ACCESS_MODES.contains(&mode.text()));
    if others && at.contains("ReadWriteOncePod") {
        let detail = "may not use ReadWriteOncePod with other access modes";
        at.forbidden(errors, detail);
    }
}

/// Checks the spec of a claim.
pub(crate) fn spec(at: &At<'_>, errors: &mut Errors) {
    let modes = at.get("accessModes");
    if modes.is_empty() {
        modes.required(errors, "at least 1 access mode is required");
    }
    label_selector(&at.get("selector"), errors);
    access_modes(&modes, errors);
    storage(at, errors);
    at.get("storageClassName").may_check(errors, dns_subdomain);
    at.get("volumeMode")
        .may_one_of(errors, &["Block", "Filesystem"]);
    let (source, reference) = (at.get("dataSource"), at.get("dataSourceRef"));
    for own in [&source, &reference] {
        if own.is_set() {
            data_source(own, errors);
        }
    }
    if !reference.str("namespace").is_empty() {
        if source.is_set() {
            let detail = "may not be specified when dataSourceRef.namespace is specified";
            at.invalid_shown(errors, "{}", detail);
        }
    } else if source.is_set() && reference.is_set() {
        let same = ["apiGroup", "kind", "name"]
            .iter()
            .all(|key| source.value.get(key) == reference.value.get(key));
        if !same {
            at.invalid_shown(errors, "{}", "must match dataSourceRef");
        }
    }
    at.get("volumeAttributesClassName")
        .may_check(errors, dns_subdomain);
}

fn storage(at: &At<'_>, errors: &mut Errors) {
    let resources = at.get("resources");
    let value = at.value.pointer("/resources/requests/storage");
    let amount = resources.key("storage").with(value.unwrap_or(&Value::Null));
    let Some(quantity) = amount.quantity() else {
        amount.required(errors, "");
        return;
    };
    if quantity.is_negative() || quantity.is_zero() {
        amount.invalid_as(errors, quantity.canonical(), "must be greater than zero");
    }
}

fn data_source(at: &At<'_>, errors: &mut Errors) {
    at.get("name").need(errors);
    at.get("kind").need(errors);
    let group = at.get("apiGroup");
    if group.is_empty() && at.str("kind") != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        at.invalid_as(errors, at.str("kind"), detail);
    }
    group.may_check(errors, dns_subdomain);
    at.get("namespace").may_check(errors, dns_label);
}
