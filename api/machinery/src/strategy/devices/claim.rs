//! What a claim asks for: requests, constraints over them, configurations.
//!
//! Invariant: constraints and configurations name requests of the same claim.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::EXACT;
use super::names::{Form, driver, few, fully_qualified, label, tolerations, unique};
use crate::validation::{At, Errors, dns_label, dns_subdomain};

const MAX_REQUESTS: usize = 32;
const MAX_FIRST_AVAILABLE: usize = 8;
const MAX_CONSTRAINTS: usize = 32;
const MAX_CONFIGS: usize = 32;
const MAX_SELECTORS: usize = 32;
const MAX_EXPRESSION_BYTES: usize = 10 * 1024;
const MAX_PARAMETERS_BYTES: usize = 10 * 1024;
const ONE: &str = "exactly one of `exactly` or `firstAvailable` is required";
const NOT_A_REQUEST: &str = "must be the name of a request in the claim or the name of a request \
and a subrequest separated by '/'";

/// The names of a claim's requests, each with those of its parts.
pub(super) struct Requests<'a>(BTreeMap<&'a str, BTreeSet<&'a str>>);

impl<'a> Requests<'a> {
    /// Of a claim's spec.
    pub(super) fn of(spec: &'a Value) -> Self {
        let list = |value: &'a Value| value.as_array().into_iter().flatten();
        let name = |value: &'a Value| value["name"].as_str().unwrap_or_default();
        let requests = list(&spec["devices"]["requests"]);
        Self(
            requests
                .map(|one| (name(one), list(&one["firstAvailable"]).map(name).collect()))
                .collect(),
        )
    }

    fn has(&self, reference: &str) -> bool {
        match reference.split_once('/') {
            None => self.0.contains_key(reference),
            Some((name, part)) => self.0.get(name).is_some_and(|parts| parts.contains(part)),
        }
    }
}

/// Checks what is asked for.
pub(super) fn spec(at: &At<'_>, errors: &mut Errors) {
    let names = Requests::of(at.value);
    let devices = at.get("devices");
    let requests = devices.get("requests");
    if few(&requests, MAX_REQUESTS, errors) {
        for own in requests.items() {
            request(&own, errors);
        }
        unique(&requests, |own| own.str("name").to_owned(), errors);
    }
    let constraints = devices.get("constraints");
    if few(&constraints, MAX_CONSTRAINTS, errors) {
        for own in constraints.items() {
            constraint(&own, &names, errors);
        }
    }
    let configs = devices.get("config");
    if few(&configs, MAX_CONFIGS, errors) {
        for own in configs.items() {
            references(&own.get("requests"), &names, errors);
            config(&own, errors);
        }
    }
}

fn request(at: &At<'_>, errors: &mut Errors) {
    label(&at.get("name"), errors);
    let (exactly, parts) = (at.get("exactly"), at.get("firstAvailable"));
    match (exactly.is_set(), !parts.is_empty()) {
        (false, false) => at.required(errors, ONE),
        (true, true) => {
            let detail = format!("{ONE}, but multiple fields are set");
            at.invalid_as(errors, Value::Null, &detail);
        }
        (true, false) => asked(&exactly, errors),
        (false, true) => {
            if few(&parts, MAX_FIRST_AVAILABLE, errors) {
                for part in parts.items() {
                    label(&part.get("name"), errors);
                    asked(&part, errors);
                }
                unique(&parts, |own| own.str("name").to_owned(), errors);
            }
        }
    }
}

fn asked(at: &At<'_>, errors: &mut Errors) {
    at.get("deviceClassName").need_check(errors, dns_subdomain);
    selectors(&at.get("selectors"), errors);
    let (mode, count) = (at.get("allocationMode"), at.get("count"));
    match mode.text() {
        "All" if count.int().unwrap_or(0) != 0 => {
            count.invalid(errors, "must not be specified when allocationMode is 'All'");
        }
        "All" => {}
        EXACT => {
            count.positive(errors);
        }
        _ => mode.unsupported(errors, &["All", EXACT]),
    }
    tolerations(&at.get("tolerations"), errors);
}

/// Selectors of devices, their expressions apart.
pub(super) fn selectors(at: &At<'_>, errors: &mut Errors) {
    if !few(at, MAX_SELECTORS, errors) {
        return;
    }
    for own in at.items() {
        let cel = own.get("cel");
        if cel.is_null() {
            cel.required(errors, "");
        }
        let expression = cel.get("expression");
        if expression.len() > MAX_EXPRESSION_BYTES {
            expression.too_long(errors, MAX_EXPRESSION_BYTES);
        }
    }
}

fn constraint(at: &At<'_>, names: &Requests<'_>, errors: &mut Errors) {
    references(&at.get("requests"), names, errors);
    let (same, distinct) = (at.get("matchAttribute"), at.get("distinctAttribute"));
    if same.is_null() && distinct.is_null() {
        let detail = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but \
                      multiple fields are set";
        at.required(errors, detail);
    }
    for own in [&same, &distinct] {
        if own.is_set() {
            fully_qualified(own, errors);
        }
    }
}

/// Names of requests of the claim, or of their parts.
pub(super) fn references(at: &At<'_>, names: &Requests<'_>, errors: &mut Errors) {
    if few(at, MAX_REQUESTS, errors) {
        for own in at.items() {
            reference(&own, names, errors);
        }
        unique(at, |own| own.text().to_owned(), errors);
    }
}

/// The name of a request of the claim, or of a part of one.
pub(super) fn reference(at: &At<'_>, names: &Requests<'_>, errors: &mut Errors) {
    if at.text().split('/').count() > 2 {
        at.invalid_text(errors, NOT_A_REQUEST);
        return;
    }
    for part in at.text().split('/') {
        for message in dns_label(part) {
            at.invalid_as(errors, part, &message);
        }
    }
    if !names.has(at.text()) {
        at.invalid_text(errors, NOT_A_REQUEST);
    }
}

/// The configurations of a class.
pub(super) fn class_configs(at: &At<'_>, errors: &mut Errors) {
    if few(at, MAX_CONFIGS, errors) {
        for own in at.items() {
            config(&own, errors);
        }
    }
}

/// What a driver is told.
pub(super) fn config(at: &At<'_>, errors: &mut Errors) {
    let opaque = at.get("opaque");
    if opaque.is_null() {
        opaque.required(errors, "");
        return;
    }
    driver(&opaque.get("driver"), Form::Declared, errors);
    raw(&opaque.get("parameters"), MAX_PARAMETERS_BYTES, errors);
}

/// An object of whatever form, of so many bytes at most.
pub(super) fn raw(at: &At<'_>, max_bytes: usize, errors: &mut Errors) {
    if at.is_null() {
        at.required(errors, "");
    } else if at.value.to_string().len() > max_bytes {
        at.too_long(errors, max_bytes);
    } else if !at.value.is_object() {
        at.invalid_as(errors, "<value omitted>", "must be a valid JSON object");
    }
}
