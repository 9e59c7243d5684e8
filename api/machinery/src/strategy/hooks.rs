//! Webhooks of admission, and servers of other groups. Expressions are compiled elsewhere.
//!
//! Source: `pkg/apis/admissionregistration`, `kube-aggregator/pkg/apis` of v1.37.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::defaults::{list_mut, object_mut, set_default};
use super::rules::{PLAIN, Rules};
use super::workloads::no_status;
use crate::codec::base64_bytes;
use crate::validation::common::label_selector;
use crate::validation::webhook::{client_config, review_versions, service};
use crate::validation::{At, Errors, dns_1035_label, dns_subdomain, path_segment, qualified_name};

pub(super) const FAILURES: &[&str] = &["Fail", "Ignore"];
pub(super) const MATCHES: &[&str] = &["Equivalent", "Exact"];
const EFFECTS: &[&str] = &["None", "NoneOnDryRun"];
pub(super) const AGAIN: &[&str] = &["IfNeeded", "Never"];
const SCOPES: &[&str] = &["*", "Cluster", "Namespaced"];
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const MAX_CONDITIONS: usize = 64;
const DEFAULT_TIMEOUT_SECONDS: i64 = 10;
const HTTPS: i64 = 443;

/// Webhooks that judge.
pub(crate) static VALIDATING_WEBHOOKS: Rules = Rules {
    counts_generation: true,
    generation_of: &["/webhooks"],
    default: |object| default_webhooks(object, false),
    validate: |at, errors| webhooks(at, false, errors),
    ..PLAIN
};

/// Webhooks that change.
pub(crate) static MUTATING_WEBHOOKS: Rules = Rules {
    counts_generation: true,
    generation_of: &["/webhooks"],
    default: |object| default_webhooks(object, true),
    validate: |at, errors| webhooks(at, true, errors),
    ..PLAIN
};

/// Groups that another server serves.
pub(crate) static API_SERVICE: Rules = Rules {
    has_status: true,
    default: |object| {
        if let Some(spec) = object["spec"].as_object_mut()
            && let Some(service) = object_mut(spec, "service")
        {
            set_default(service, "port", json!(HTTPS));
        }
    },
    prepare_create: |object, _| no_status(object),
    validate: api_service,
    validate_subresource: |_, _, new, errors| {
        for condition in new.get("status.conditions").items() {
            let known = ["True", "False", "Unknown"];
            condition.get("status").one_of(errors, &known);
        }
    },
    ..PLAIN
};

fn default_webhooks(object: &mut Value, mutating: bool) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    for hook in list_mut(map, "webhooks") {
        set_default(hook, "failurePolicy", json!("Fail"));
        set_default(hook, "matchPolicy", json!("Equivalent"));
        set_default(hook, "namespaceSelector", json!({}));
        set_default(hook, "objectSelector", json!({}));
        set_default(hook, "timeoutSeconds", json!(DEFAULT_TIMEOUT_SECONDS));
        if mutating {
            set_default(hook, "reinvocationPolicy", json!("Never"));
        }
        for rule in list_mut(hook, "rules") {
            set_default(rule, "scope", json!("*"));
        }
        if let Some(client) = object_mut(hook, "clientConfig")
            && let Some(service) = object_mut(client, "service")
        {
            set_default(service, "port", json!(HTTPS));
        }
    }
}

fn webhooks(at: &At<'_>, mutating: bool, errors: &mut Errors) {
    let mut names = BTreeSet::new();
    for hook in at.get("webhooks").items() {
        webhook(&hook, mutating, errors);
        review_versions(&hook.get("admissionReviewVersions"), errors);
        let name = hook.get("name");
        if !name.is_empty() && !names.insert(name.text().to_owned()) {
            name.duplicate(errors);
        }
    }
}

fn webhook(at: &At<'_>, mutating: bool, errors: &mut Errors) {
    fully_qualified_name(&at.get("name"), errors);
    for rule in at.get("rules").items() {
        rule_with_operations(&rule, errors);
    }
    at.get("failurePolicy").may_one_of(errors, FAILURES);
    at.get("matchPolicy").may_one_of(errors, MATCHES);
    let effects = at.get("sideEffects");
    if effects.is_null() {
        let detail = format!("must specify one of {}", EFFECTS.join(", "));
        effects.required(errors, &detail);
    }
    effects.may_one_of(errors, EFFECTS);
    let seconds = at.get("timeoutSeconds");
    if seconds.int().is_some_and(|own| !(1..=30).contains(&own)) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        seconds.invalid(errors, detail);
    }
    label_selector(&at.get("namespaceSelector"), errors);
    label_selector(&at.get("objectSelector"), errors);
    if mutating {
        at.get("reinvocationPolicy").may_one_of(errors, AGAIN);
    }
    client_config(&at.get("clientConfig"), errors);
    match_conditions(&at.get("matchConditions"), errors);
}

/// A domain of three parts or more.
fn fully_qualified_name(at: &At<'_>, errors: &mut Errors) {
    if !at.need(errors) {
        return;
    }
    if at.check(errors, dns_subdomain) && at.text().split('.').count() < 3 {
        let detail = "should be a domain with at least three segments separated by dots";
        at.invalid_text(errors, detail);
    }
}

fn has_all(at: &At<'_>) -> bool {
    at.len() > 1 && at.contains("*")
}

pub(super) fn rule_with_operations(at: &At<'_>, errors: &mut Errors) {
    let operations = at.get("operations");
    operations.need(errors);
    if has_all(&operations) {
        let detail = "if '*' is present, must not specify other operations";
        operations.invalid(errors, detail);
    }
    for own in operations.items() {
        own.one_of(errors, OPERATIONS);
    }
    let groups = at.get("apiGroups");
    groups.need(errors);
    if has_all(&groups) {
        let detail = "if '*' is present, must not specify other API groups";
        groups.invalid(errors, detail);
    }
    let versions = at.get("apiVersions");
    versions.need(errors);
    if has_all(&versions) {
        let detail = "if '*' is present, must not specify other API versions";
        versions.invalid(errors, detail);
    }
    for own in versions.items() {
        own.need(errors);
    }
    rule_resources(&at.get("resources"), errors);
    at.get("scope").may_one_of(errors, SCOPES);
}

fn rule_resources(at: &At<'_>, errors: &mut Errors) {
    at.need(errors);
    let (mut whole, mut everywhere) = (BTreeSet::new(), BTreeSet::new());
    let mut plain = false;
    for own in at.items() {
        if !own.need(errors) {
            continue;
        }
        let text = own.text();
        let Some((resource, sub)) = text.split_once('/') else {
            plain = text != "*";
            continue;
        };
        if whole.contains(resource) {
            let detail = format!("if '{resource}/*' is present, must not specify {text}");
            own.invalid_text(errors, &detail);
        }
        if everywhere.contains(sub) {
            let detail = format!("if '*/{sub}' is present, must not specify {text}");
            own.invalid_text(errors, &detail);
        }
        if sub == "*" {
            whole.insert(resource.to_owned());
        }
        if resource == "*" {
            everywhere.insert(sub.to_owned());
        }
    }
    if at.len() > 1 && at.contains("*/*") {
        let detail = "if '*/*' is present, must not specify other resources";
        at.invalid(errors, detail);
    }
    if at.contains("*") && plain {
        let detail = "if '*' is present, must not specify other resources without subresources";
        at.invalid(errors, detail);
    }
}

pub(super) fn match_conditions(at: &At<'_>, errors: &mut Errors) {
    if at.len() > MAX_CONDITIONS {
        at.too_many(errors, MAX_CONDITIONS);
    }
    let mut names = BTreeSet::new();
    for own in at.items() {
        needs_text(&own.get("expression"), "", errors);
        let name = own.get("name");
        name.need_check(errors, qualified_name);
        if !name.is_empty() && !names.insert(name.text().to_owned()) {
            name.duplicate(errors);
        }
    }
}

pub(super) fn needs_text(at: &At<'_>, detail: &str, errors: &mut Errors) -> bool {
    let there = !at.text().trim().is_empty();
    if !there {
        at.required(errors, detail);
    }
    there
}

fn api_service(at: &At<'_>, errors: &mut Errors) {
    let spec = at.get("spec");
    let (group, version) = (spec.get("group"), spec.get("version"));
    let wanted = format!("{}.{}", version.text(), group.text());
    let name = at.get("metadata.name");
    if name.text() != wanted && path_segment(name.text()).is_empty() {
        let detail = format!("must be `spec.version+\".\"+spec.group`: \"{wanted}\"");
        name.invalid_text(errors, &detail);
    }
    if group.is_empty() && version.text() != "v1" {
        let detail = "only v1 may have an empty group and it better be legacy kube";
        group.required(errors, detail);
    }
    group.may_check(errors, dns_subdomain);
    version.check(errors, dns_1035_label);
    for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let own = spec.get(field);
        if !(1..=most).contains(&own.int().unwrap_or(0)) {
            own.invalid_int(errors, &format!("must be positive and less than {most}"));
        }
    }
    let (bundle, unverified) = (spec.get("caBundle"), spec.get("insecureSkipTLSVerify"));
    let server = spec.get("service");
    if server.is_set() {
        service(&server, errors);
        if unverified.is_true() && !bundle.is_empty() {
            unverified.invalid(errors, "may not be true if caBundle is present");
        }
        return;
    }
    if !bundle.is_empty() {
        let bytes = base64_bytes(bundle.text()).map_or(0, |bytes| bytes.len());
        let detail = "local APIServices may not have a caBundle";
        bundle.invalid_as(errors, format!("{bytes} bytes"), detail);
    }
    if unverified.is_true() {
        let detail = "local APIServices may not have insecureSkipTLSVerify";
        unverified.invalid(errors, detail);
    }
}
