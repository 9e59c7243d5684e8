//! How a server outside is reached: of webhooks.
//!
//! Source: `k8s.io/apiserver/pkg/util/webhook` of v1.37.

use std::collections::BTreeSet;

use super::{At, Errors, dns_1035_label, dns_subdomain, port_number};

const FORM: &str = "; desired format: https://host[/path]";
const REVIEWS: &[&str] = &["v1", "v1beta1"];

/// The server: a URL or a service.
pub fn client_config(at: &At<'_>, errors: &mut Errors) {
    let (address, own) = (at.get("url"), at.get("service"));
    match (address.is_set(), own.is_set()) {
        (true, false) => url(&address, errors),
        (false, true) => service(&own, errors),
        _ => at.required(errors, "exactly one of url or service is required"),
    }
}

fn url(at: &At<'_>, errors: &mut Errors) {
    let text = at.text();
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    if scheme != "https" {
        let detail = format!("'https' is the only allowed URL scheme{FORM}");
        at.invalid_as(errors, scheme, &detail);
    }
    let (before, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (place, query) = before.split_once('?').unwrap_or((before, ""));
    let authority = place.split('/').next().unwrap_or_default();
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    if host.is_empty() || scheme.is_empty() {
        at.invalid_as(errors, "", &format!("host must be specified{FORM}"));
    }
    if let Some(user) = user {
        at.invalid_as(errors, user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        at.invalid_as(errors, fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        let detail = "query parameters are not permitted in the URL";
        at.invalid_as(errors, query, detail);
    }
}

/// The service; its port is defaulted.
pub fn service(at: &At<'_>, errors: &mut Errors) {
    at.get("name").need(errors);
    at.get("namespace").need(errors);
    let port = at.get("port");
    let wrong = port_number(port.int().unwrap_or(0));
    if !wrong.is_empty() {
        let detail = format!("port is not valid: {}", wrong.join(", "));
        port.invalid_int(errors, &detail);
    }
    let path = at.get("path");
    let text = match path.text() {
        "" | "/" => return,
        "//" => return path.invalid_text(errors, "segment[0] may not be empty"),
        text => text,
    };
    if !text.starts_with('/') {
        path.invalid_text(errors, "must start with a '/'");
    }
    // The first byte is passed over, whatever it is, as in the reference.
    let below = text.get(1..).unwrap_or_default();
    let below = below.strip_suffix('/').unwrap_or(below);
    for (index, step) in below.split('/').enumerate() {
        if step.is_empty() {
            let detail = format!("segment[{index}] may not be empty");
            path.invalid_text(errors, &detail);
            continue;
        }
        for message in dns_subdomain(step) {
            path.invalid_text(errors, &format!("segment[{index}]: {message}"));
        }
    }
}

/// The versions of reviews that a webhook understands.
pub fn review_versions(at: &At<'_>, errors: &mut Errors) {
    let known = REVIEWS.join(", ");
    if at.is_empty() {
        at.required(errors, &format!("must specify one of {known}"));
        return;
    }
    let mut seen = BTreeSet::new();
    for own in at.items() {
        if !seen.insert(own.text().to_owned()) {
            own.invalid_text(errors, "duplicate version");
            continue;
        }
        own.check(errors, dns_1035_label);
    }
    if !REVIEWS.iter().any(|known| at.contains(known)) {
        at.invalid(errors, &format!("must include at least one of {known}"));
    }
}
