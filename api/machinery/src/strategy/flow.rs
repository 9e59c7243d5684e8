//! Flows of requests and their priorities.
//!
//! Source: `pkg/apis/flowcontrol` of v1.37.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::defaults::{drop_empty, list_mut, made, object_mut, set_default, set_nonzero};
use super::rules::{PLAIN, Rules};
use super::workloads::no_status;
use crate::validation::{At, Errors, dns_label, dns_subdomain};

const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "proxy",
    "update",
    "watch",
];
const DEFAULT_PRECEDENCE: i64 = 1000;
const MAX_PRECEDENCE: i64 = 10_000;
const MAX_QUEUES: i64 = 10_000_000;
const MAX_HASH_BITS: f64 = 60.0;

/// Which requests belong together, and to which priority.
pub(crate) static FLOW_SCHEMA: Rules = Rules {
    has_status: true,
    counts_generation: true,
    default: |object| {
        if let Some(map) = object.as_object_mut()
            && let Some(spec) = made(map, "spec")
        {
            set_nonzero(spec, "matchingPrecedence", DEFAULT_PRECEDENCE);
            for rule in list_mut(spec, "rules") {
                for own in list_mut(rule, "resourceRules") {
                    drop_empty(own, "namespaces");
                }
            }
        }
    },
    prepare_create: |object, _| no_status(object),
    validate: flow_schema,
    validate_subresource: |_, _, new, errors| conditions(new, errors),
    ..PLAIN
};

/// How many requests of a priority run, and how the others wait.
pub(crate) static PRIORITY_LEVEL: Rules = Rules {
    has_status: true,
    counts_generation: true,
    default: default_level,
    prepare_create: |object, _| no_status(object),
    validate: priority_level,
    validate_subresource: |_, _, new, errors| conditions(new, errors),
    ..PLAIN
};

fn conditions(at: &At<'_>, errors: &mut Errors) {
    let mut kinds = BTreeSet::new();
    for condition in at.get("status.conditions").items() {
        let kind = condition.get("type");
        if !kinds.insert(kind.text().to_owned()) {
            kind.duplicate(errors);
        }
        kind.need(errors);
    }
}

fn default_level(object: &mut Value) {
    let Some(spec) = object["spec"].as_object_mut() else {
        return;
    };
    if let Some(own) = object_mut(spec, "exempt") {
        set_default(own, "nominalConcurrencyShares", json!(0));
        set_default(own, "lendablePercent", json!(0));
    }
    if let Some(own) = object_mut(spec, "limited") {
        set_default(own, "nominalConcurrencyShares", json!(30));
        set_default(own, "lendablePercent", json!(0));
        if let Some(response) = object_mut(own, "limitResponse")
            && let Some(queuing) = object_mut(response, "queuing")
        {
            set_nonzero(queuing, "handSize", 8);
            set_nonzero(queuing, "queues", 64);
            set_nonzero(queuing, "queueLengthLimit", 50);
        }
    }
}

fn flow_schema(at: &At<'_>, errors: &mut Errors) {
    let spec = at.get("spec");
    let precedence = spec.get("matchingPrecedence");
    let own = precedence.int().unwrap_or(0);
    if own <= 0 {
        precedence.invalid_int(errors, "must be a positive value");
    }
    if own > MAX_PRECEDENCE {
        let detail = format!("must not be greater than {MAX_PRECEDENCE}");
        precedence.invalid(errors, &detail);
    }
    if own == 1 && at.get("metadata").str("name") != "exempt" {
        let detail = "only the schema named 'exempt' may have matchingPrecedence 1";
        precedence.invalid(errors, detail);
    }
    let method = spec.get("distinguisherMethod");
    if method.is_set() {
        let known = ["ByNamespace", "ByUser"];
        let kind = method.get("type");
        if !known.contains(&kind.text()) {
            let shown = super::internal::show(
                "io.k8s.api.flowcontrol.v1.FlowDistinguisherMethod",
                method.value,
            );
            errors.not_supported_shown(&kind.path(), &shown, &known);
        }
    }
    let level = spec.get("priorityLevelConfiguration");
    let level = level.get("name");
    if level.is_empty() {
        level.required(errors, "must reference a priority level");
    } else {
        level.check(errors, dns_subdomain);
    }
    for rule in spec.get("rules").items() {
        policy_rule(&rule, errors);
    }
}

fn policy_rule(at: &At<'_>, errors: &mut Errors) {
    let subjects = at.get("subjects");
    if subjects.is_empty() {
        subjects.required(errors, "subjects must contain at least one value");
    }
    for own in subjects.items() {
        subject(&own, errors);
    }
    let (resources, others) = (at.get("resourceRules"), at.get("nonResourceRules"));
    if resources.is_empty() && others.is_empty() {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        at.required(errors, detail);
    }
    for own in resources.items() {
        resource_rule(&own, errors);
    }
    for own in others.items() {
        let urls = own.get("nonResourceURLs");
        verbs(&own.get("verbs"), errors);
        if urls.is_empty() {
            urls.required(errors, "nonResourceURLs must contain at least one value");
        } else if urls.contains("*") {
            if urls.len() > 1 {
                let detail = "if '*' is present, must not specify other non-resource URLs";
                urls.invalid(errors, detail);
            }
        } else {
            for url in urls.items() {
                if let Some(detail) = wrong_url(url.text()) {
                    url.invalid_text(errors, detail);
                }
            }
        }
    }
}

fn subject(at: &At<'_>, errors: &mut Errors) {
    const FIELDS: [(&str, &str); 3] = [
        ("ServiceAccount", "serviceAccount"),
        ("User", "user"),
        ("Group", "group"),
    ];
    let kind = at.get("kind");
    let Some((_, field)) = FIELDS.iter().find(|own| own.0 == kind.text()) else {
        kind.unsupported(errors, &["Group", "ServiceAccount", "User"]);
        return;
    };
    for (other, name) in FIELDS.iter().filter(|own| own.0 != kind.text()) {
        let detail = format!("{name} is forbidden when subject kind is not '{other}'");
        at.get(name).absent(errors, &detail);
    }
    let own = at.get(field);
    if own.is_null() {
        let detail = format!("{field} is required when subject kind is '{}'", kind.text());
        own.required(errors, &detail);
        return;
    }
    let name = own.get("name");
    name.need(errors);
    if *field != "serviceAccount" {
        return;
    }
    if name.text() != "*" {
        name.may_check(errors, dns_subdomain);
    }
    let namespace = own.get("namespace");
    if namespace.is_empty() {
        namespace.required(errors, "must specify namespace for service account");
    } else {
        namespace.check(errors, dns_label);
    }
}

fn verbs(at: &At<'_>, errors: &mut Errors) {
    if at.is_empty() {
        at.required(errors, "verbs must contain at least one value");
    } else if at.contains("*") {
        if at.len() > 1 {
            at.invalid(errors, "if '*' is present, must not specify other verbs");
        }
    } else if at.items().any(|verb| !VERBS.contains(&verb.text())) {
        errors.not_supported_shown(&at.path(), &at.to_string(), VERBS);
    }
}

fn resource_rule(at: &At<'_>, errors: &mut Errors) {
    verbs(&at.get("verbs"), errors);
    for (name, single, plural) in [
        ("apiGroups", "api group", "api groups"),
        ("resources", "resource", "resources"),
    ] {
        let own = at.get(name);
        if own.is_empty() {
            let detail = format!("resource rules must supply at least one {single}");
            own.required(errors, &detail);
        } else if own.len() > 1 && own.contains("*") {
            let detail = format!("if '*' is present, must not specify other {plural}");
            own.invalid(errors, &detail);
        }
    }
    let namespaces = at.get("namespaces");
    if namespaces.is_empty() && !at.flag("clusterScope") {
        let detail =
            "resource rules that are not cluster scoped must supply at least one namespace";
        namespaces.required(errors, detail);
    } else if namespaces.contains("*") {
        if namespaces.len() > 1 {
            let detail = "if '*' is present, must not specify other namespaces";
            namespaces.invalid(errors, detail);
        }
    } else {
        for own in namespaces.items() {
            for message in dns_label(own.text()) {
                let detail =
                    format!("each member of this list must be '*' or a DNS-1123 label; {message}");
                own.invalid_text(errors, &detail);
            }
        }
    }
}

fn wrong_url(text: &str) -> Option<&'static str> {
    let stars = text.matches('*').count();
    match text {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !text.starts_with('/') => Some("must start with slash"),
        _ if text.contains(' ') => Some("must not contain white-space"),
        _ if text.contains("//") => Some("must not contain double slash"),
        _ if stars > 1 || (stars == 1 && !text.ends_with("/*")) => {
            Some("wildcard can only do suffix matching")
        }
        _ => None,
    }
}

fn priority_level(at: &At<'_>, errors: &mut Errors) {
    let spec = at.get("spec");
    let kind = spec.get("type");
    if (at.get("metadata").str("name") == "exempt") != (kind.text() == "Exempt") {
        let detail = "must be 'Exempt' if and only if `name` is 'exempt'";
        kind.invalid_text(errors, detail);
    }
    let (exempt, limited) = (spec.get("exempt"), spec.get("limited"));
    if !kind.is_empty() && kind.text() != "Limited" {
        limited.absent(errors, "");
    }
    match kind.text() {
        "Exempt" => shares(&exempt, errors),
        "Limited" => {
            exempt.absent(errors, "");
            if limited.is_null() {
                limited.required(errors, "");
            } else {
                shares(&limited, errors);
                response(&limited.get("limitResponse"), errors);
                let most = limited.get("borrowingLimitPercent");
                if most.int().is_some_and(|own| own < 0) {
                    let detail = "if specified, must be a non-negative integer";
                    most.invalid(errors, detail);
                }
            }
        }
        _ => {
            kind.choice(errors, &["Exempt", "Limited"]);
        }
    }
}

fn shares(at: &At<'_>, errors: &mut Errors) {
    let own = at.get("nominalConcurrencyShares");
    if own.int().is_some_and(|own| own < 0) {
        own.invalid(errors, "must be a non-negative integer");
    }
    at.get("lendablePercent").within(errors, 0, 100);
}

fn response(at: &At<'_>, errors: &mut Errors) {
    let (kind, queuing) = (at.get("type"), at.get("queuing"));
    if !kind.is_empty() && kind.text() != "Queue" {
        queuing.absent(errors, "");
    }
    match kind.text() {
        "Reject" => {}
        "Queue" if queuing.is_null() => queuing.required(errors, ""),
        "Queue" => queues(&queuing, errors),
        _ => {
            kind.choice(errors, &["Queue", "Reject"]);
        }
    }
}

fn queues(at: &At<'_>, errors: &mut Errors) {
    let number = |name: &str| at.value[name].as_i64().unwrap_or(0);
    let (hand, deck) = (number("handSize"), number("queues"));
    if number("queueLengthLimit") <= 0 {
        at.get("queueLengthLimit")
            .invalid_int(errors, "must be positive");
    }
    let own = at.get("queues");
    if deck <= 0 {
        own.invalid_int(errors, "must be positive");
    } else if deck > MAX_QUEUES {
        own.invalid(errors, &format!("must not be greater than {MAX_QUEUES}"));
    }
    let own = at.get("handSize");
    if hand <= 0 {
        own.invalid_int(errors, "must be positive");
    } else if hand > deck {
        own.invalid(
            errors,
            &format!("should not be greater than queues ({deck})"),
        );
    } else if let (Ok(hand), Ok(deck)) = (i32::try_from(hand), i32::try_from(deck))
        && (f64::from(deck).log2() * f64::from(hand)).ceil() > MAX_HASH_BITS
    {
        let detail = format!(
            "required entropy bits of deckSize {deck} and handSize {hand} should not be greater than {MAX_HASH_BITS}"
        );
        own.invalid(errors, &detail);
    }
}
