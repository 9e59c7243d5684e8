//! Probes and hooks of containers.
//!
//! Source: `validateProbe`, `validateHandler` of `pkg/apis/core/validation`, v1.37.

use serde_json::Value;

use crate::validation::common::{http_header_name, port_or_name};
use crate::validation::{At, Errors};

/// Checks what a container asks to be probed by.
pub(crate) fn probes(container: &At<'_>, errors: &mut Errors) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let at = container.get(name);
        if at.is_null() {
            continue;
        }
        probe(&at, errors);
        let grace = at.get("terminationGracePeriodSeconds");
        if name != "readinessProbe" {
            let threshold = at.get("successThreshold");
            if threshold.int() != Some(1) {
                threshold.invalid_int(errors, "must be 1");
            }
        } else if grace.is_set() {
            grace.invalid(errors, "must not be set for readinessProbes");
        }
    }
}

fn probe(at: &At<'_>, errors: &mut Errors) {
    handler(at, &["exec", "httpGet", "tcpSocket", "grpc"], None, errors);
    for name in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        at.get(name).not_negative(errors);
    }
    let grace = at.get("terminationGracePeriodSeconds");
    if grace.int().is_some_and(|seconds| seconds <= 0) {
        grace.invalid(errors, "must be greater than 0");
    }
}

/// Checks the hooks of a container whose pod ends within `grace` seconds.
pub(crate) fn lifecycle(at: &At<'_>, grace: Option<i64>, errors: &mut Errors) {
    for name in ["postStart", "preStop"] {
        let hook = at.get(name);
        if hook.is_set() {
            handler(
                &hook,
                &["exec", "httpGet", "tcpSocket", "sleep"],
                grace,
                errors,
            );
        }
    }
}

fn handler(at: &At<'_>, kinds: &[&str], grace: Option<i64>, errors: &mut Errors) {
    let mut count = 0;
    for kind in kinds {
        let own = at.get(kind);
        if own.is_null() {
            continue;
        }
        count += 1;
        match *kind {
            _ if count > 1 => own.forbidden(errors, "may not specify more than 1 handler type"),
            "exec" => {
                own.get("command").need(errors);
            }
            "httpGet" => http_get(&own, errors),
            "sleep" => sleep(&own, grace, errors),
            _ => port_or_name(&own.get("port"), errors),
        }
    }
    if count == 0 {
        at.required(errors, "must specify a handler type");
    }
}

fn sleep(at: &At<'_>, grace: Option<i64>, errors: &mut Errors) {
    let seconds = at.value.get("seconds").and_then(Value::as_i64).unwrap_or(0);
    if let Some(grace) = grace
        && !(0..=grace).contains(&seconds)
    {
        let detail =
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        at.invalid_as(errors, seconds, &detail);
    }
}

fn http_get(at: &At<'_>, errors: &mut Errors) {
    at.get("path").need(errors);
    port_or_name(&at.get("port"), errors);
    at.get("scheme").one_of(errors, &["HTTP", "HTTPS"]);
    let headers = at.get("httpHeaders");
    for header in headers.items() {
        for message in http_header_name(header.str("name")) {
            headers.invalid_as(errors, header.str("name"), &message);
        }
    }
}
