//! Requests of certificates and bundles of trust anchors. Of a request only the frame is
//! looked at, not what is signed in it.
//!
//! Source: `pkg/apis/certificates`, `pkg/registry/certificates` of v1.37.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::rules::{PLAIN, Rules};
use super::signers::signer_name;
use crate::codec::base64_bytes;
use crate::validation::{At, Errors};

const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const MIN_SECONDS: i64 = 600;
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// Requests of certificates.
pub(crate) static SIGNING_REQUEST: Rules = Rules {
    has_status: true,
    prepare_create: |object, _| object["status"] = json!({}),
    prepare_update: |subresource, old, object| {
        object["spec"] = old["spec"].clone();
        match subresource {
            Some("approval") => {
                let conditions = object["status"]["conditions"].clone();
                object["status"] = old["status"].clone();
                object["status"]["conditions"] = conditions;
            }
            Some(_) => {
                keep(APPROVED, old, object);
                keep(DENIED, old, object);
            }
            None => object["status"] = old["status"].clone(),
        }
    },
    stamp,
    validate: request,
    validate_subresource: |name, old, new, errors| {
        request(new, errors);
        conditions(name, old, new, errors);
    },
    ..PLAIN
};

/// Bundles of trust anchors.
pub(crate) static TRUST_BUNDLE: Rules = Rules {
    validate: |at, errors| {
        let signer = at.get("spec.signerName");
        if !signer.is_empty() {
            signer_name(&signer, errors);
        }
    },
    validate_create: anchors,
    validate_update: |old, new, errors| {
        let before = old.get("spec.signerName");
        let at = new.get("spec.signerName");
        at.unchanged(errors, before.value, "field is immutable");
        if new.get("spec.trustBundle").value != old.get("spec.trustBundle").value {
            anchors(new, errors);
        }
    },
    ..PLAIN
};

fn anchors(at: &At<'_>, errors: &mut Errors) {
    let bundle = at.get("spec.trustBundle");
    if !bundle.text().contains("-----BEGIN CERTIFICATE-----") {
        let detail = "at least one trust anchor must be provided";
        bundle.invalid_as(errors, "<value omitted>", detail);
    }
}

fn list(object: &Value) -> &[Value] {
    object["status"]["conditions"]
        .as_array()
        .map_or(&[], Vec::as_slice)
}

fn of<'a>(object: &'a Value, kind: &str) -> Vec<&'a Value> {
    list(object)
        .iter()
        .filter(|own| own["type"] == kind)
        .collect()
}

/// As many conditions as before are those of before.
fn keep(kind: &str, old: &Value, object: &mut Value) {
    let before = of(old, kind);
    if before.len() != of(object, kind).len() {
        return;
    }
    let now = object["status"]["conditions"].as_array_mut();
    let now = now.into_iter().flatten().filter(|own| own["type"] == kind);
    for (own, before) in now.zip(before) {
        own.clone_from(before);
    }
}

/// Conditions say when they were written, and since when they stand.
fn stamp(old: &Value, object: &mut Value, now: &str) {
    let conditions = object["status"]["conditions"].as_array_mut();
    for condition in conditions.into_iter().flatten() {
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = json!(now);
        }
        if condition["lastTransitionTime"].is_null() {
            let same = |before: &&Value| {
                before["type"] == condition["type"] && before["status"] == condition["status"]
            };
            let before = list(old).iter().find(same);
            let since = before.map(|before| &before["lastTransitionTime"]);
            let since = since.filter(|since| !since.is_null()).cloned();
            condition["lastTransitionTime"] = since.unwrap_or_else(|| json!(now));
        }
    }
}

fn request(at: &At<'_>, errors: &mut Errors) {
    let spec = at.get("spec");
    let own = spec.get("request");
    let bytes = base64_bytes(own.text()).unwrap_or_default();
    let framed = String::from_utf8_lossy(&bytes).contains("-----BEGIN CERTIFICATE REQUEST-----");
    if !framed {
        own.invalid(errors, "PEM block type must be CERTIFICATE REQUEST");
    }
    let usages = spec.get("usages");
    usages.need(errors);
    let mut seen = BTreeSet::new();
    for usage in usages.items() {
        usage.one_of(errors, USAGES);
        if !seen.insert(usage.text().to_owned()) {
            usage.duplicate(errors);
        }
    }
    let signer = spec.get("signerName");
    if signer.text() == LEGACY_SIGNER {
        let detail = "the legacy signerName is not allowed via this API version";
        signer.invalid_text(errors, detail);
    } else {
        signer_name(&signer, errors);
    }
    let seconds = spec.get("expirationSeconds");
    if seconds.int().is_some_and(|own| own < MIN_SECONDS) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        seconds.invalid(errors, detail);
    }
    let conditions = at.get("status.conditions");
    let mut kinds = BTreeSet::new();
    for condition in conditions.items() {
        let kind = condition.get("type");
        kind.need(errors);
        let decided = [APPROVED, DENIED, FAILED].contains(&kind.text());
        let known: &[&str] = if decided {
            &["True"]
        } else {
            &["False", "True", "Unknown"]
        };
        condition.get("status").choice(errors, known);
        let other = match kind.text() {
            APPROVED => DENIED,
            DENIED => APPROVED,
            _ => "",
        };
        if kinds.contains(other) {
            exclusive(&conditions, errors);
        }
        if !kinds.insert(kind.text().to_owned()) {
            kind.duplicate(errors);
        }
    }
}

fn exclusive(at: &At<'_>, errors: &mut Errors) {
    let one = |kind: &str| format!("conditions[{{\"type\": \"{kind}\"}}]");
    let (approved, denied) = (one(APPROVED), one(DENIED));
    let detail = format!("must specify at most one of: `{approved}`, `{denied}`");
    at.invalid_as(errors, format!("{{{approved}, {denied}}}"), &detail);
}

fn conditions(subresource: &str, old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    let at = new.get("status.conditions");
    for kind in [APPROVED, DENIED, FAILED] {
        let (before, after) = (of(old.value, kind), of(new.value, kind));
        if after.len() < before.len() {
            let detail = format!("updates may not remove a condition of type \"{kind}\"");
            at.forbidden(errors, &detail);
        }
        let decides = kind != FAILED && subresource != "approval";
        if decides && after.len() > before.len() {
            let detail = format!("updates may not add a condition of type \"{kind}\"");
            at.forbidden(errors, &detail);
        }
    }
    let (before, after) = (old.get("status.certificate"), new.get("status.certificate"));
    if before.value == after.value {
        return;
    }
    if subresource != "status" {
        after.forbidden(errors, "updates may not set certificate content");
    } else if !before.is_empty() {
        let detail = "updates may not modify existing certificate content";
        after.forbidden(errors, detail);
    }
    let bytes = base64_bytes(after.text()).unwrap_or_default();
    if !bytes.is_empty() && !String::from_utf8_lossy(&bytes).contains("-----BEGIN ") {
        let detail = "must contain at least one CERTIFICATE PEM block";
        after.invalid_as(errors, "<certificate data>", detail);
    }
}
