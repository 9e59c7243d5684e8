//! What is wrong with how a definition's objects are converted.

use nautilus_machinery::validation::{self, Errors, dns_1035_label, dns_subdomain};
use serde_json::{Value, json};

use crate::schema::{list, texts};

pub(super) fn conversion(errors: &mut Errors, conversion: &Value) {
    if conversion.is_null() {
        return;
    }
    let path = "spec.conversion";
    let strategy = conversion["strategy"].as_str().unwrap_or_default();
    match strategy {
        "" => errors.required(&format!("{path}.strategy"), ""),
        "None" | "Webhook" => {}
        other => {
            errors.not_supported(&format!("{path}.strategy"), other, &["None", "Webhook"]);
        }
    }
    let webhook = &conversion["webhook"];
    if strategy != "Webhook" {
        if !webhook["clientConfig"].is_null() {
            errors.forbidden(
                &format!("{path}.webhookClientConfig"),
                "should not be set when strategy is not set to Webhook",
            );
        }
        if list(&webhook["conversionReviewVersions"]).next().is_some() {
            errors.forbidden(
                &format!("{path}.conversionReviewVersions"),
                "should not be set when strategy is not set to Webhook",
            );
        }
        return;
    }
    client_config(
        errors,
        &format!("{path}.webhookClientConfig"),
        &webhook["clientConfig"],
    );
    review_versions(
        errors,
        &format!("{path}.conversionReviewVersions"),
        &texts(&webhook["conversionReviewVersions"]),
    );
}

fn client_config(errors: &mut Errors, path: &str, client: &Value) {
    if client.is_null() {
        return errors.required(path, "required when strategy is set to Webhook");
    }
    match (client["url"].as_str(), client["service"].is_object()) {
        (Some(url), false) => webhook_url(errors, &format!("{path}.url"), url),
        (None, true) => service(errors, &format!("{path}.service"), &client["service"]),
        _ => errors.required(path, "exactly one of url or service is required"),
    }
}

fn webhook_url(errors: &mut Errors, path: &str, url: &str) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if scheme != "https" {
        errors.invalid_text(
            path,
            scheme,
            &format!("'https' is the only allowed URL scheme{FORM}"),
        );
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() || scheme.is_empty() {
        errors.invalid_text(path, "", &format!("host must be specified{FORM}"));
    }
    if let Some((user, _)) = host.rsplit_once('@') {
        errors.invalid_text(path, user, "user information is not permitted in the URL");
    }
    if let Some((_, fragment)) = rest.split_once('#') {
        errors.invalid_text(path, fragment, "fragments are not permitted in the URL");
    }
    let query = rest
        .split('#')
        .next()
        .and_then(|rest| rest.split_once('?'))
        .map(|(_, query)| query);
    if let Some(query) = query {
        errors.invalid_text(path, query, "query parameters are not permitted in the URL");
    }
}

fn service(errors: &mut Errors, path: &str, service: &Value) {
    for key in ["name", "namespace"] {
        if service[key].as_str().is_none_or(str::is_empty) {
            errors.required(&format!("{path}.{key}"), "");
        }
    }
    let port = service["port"].as_i64().unwrap_or(443);
    let wrong = validation::port_number(port);
    if !wrong.is_empty() {
        errors.invalid(
            &format!("{path}.port"),
            &json!(port),
            &format!("port is not valid: {}", wrong.join(", ")),
        );
    }
    let at = format!("{path}.path");
    match service["path"].as_str().unwrap_or_default() {
        "" | "/" => {}
        "//" => errors.invalid_text(&at, "//", "segment[0] may not be empty"),
        text => {
            if !text.starts_with('/') {
                errors.invalid_text(&at, text, "must start with a '/'");
            }
            let inner = text.get(1..).unwrap_or_default();
            let inner = inner.strip_suffix('/').unwrap_or(inner);
            for (index, segment) in inner.split('/').enumerate() {
                if segment.is_empty() {
                    errors.invalid_text(&at, text, &format!("segment[{index}] may not be empty"));
                    continue;
                }
                for wrong in dns_subdomain(segment) {
                    errors.invalid_text(&at, text, &format!("segment[{index}]: {wrong}"));
                }
            }
        }
    }
}

fn review_versions(errors: &mut Errors, path: &str, versions: &[String]) {
    if versions.is_empty() {
        return errors.required(path, "");
    }
    for (at, version) in versions.iter().enumerate() {
        let at_path = format!("{path}[{at}]");
        if versions[..at].contains(version) {
            errors.invalid_text(&at_path, version, "duplicate version");
            continue;
        }
        errors.each(&at_path, version, dns_1035_label(version));
    }
    if !versions
        .iter()
        .any(|version| version == "v1" || version == "v1beta1")
    {
        errors.invalid(
            path,
            &json!(versions),
            "must include at least one of v1, v1beta1",
        );
    }
}
