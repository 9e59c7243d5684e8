//! Policies of admission and where they apply. Expressions are compiled elsewhere.
//!
//! Source: `pkg/apis/admissionregistration` of v1.37.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::defaults::{list_mut, object_mut, set_default};
use super::hooks::{AGAIN, FAILURES, MATCHES, match_conditions, needs_text, rule_with_operations};
use super::rules::{PLAIN, Rules};
use super::workloads::no_status;
use crate::validation::common::{conditions, label_selector};
use crate::validation::{At, Errors, dns_1035_label, dns_subdomain, path_segment, qualified_name};

const MUTATING_OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "UPDATE"];

const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge"];

const MAX_NOTES: usize = 20;

const MAX_NOTE_BYTES: usize = 5 * 1024;

/// Policies that judge.
pub(crate) static VALIDATING_POLICY: Rules = Rules {
    has_status: true,
    counts_generation: true,
    default: |object| default_policy(object, "matchConstraints"),
    prepare_create: |object, _| no_status(object),
    validate: |at, errors| {
        let spec = at.get("spec");
        policy(&spec, errors);
        validations(at, &spec, errors);
    },
    validate_subresource: |_, _, new, errors| {
        conditions(&new.get("status.conditions"), errors);
        let warnings = new.get("status.typeChecking.expressionWarnings");
        for own in warnings.items() {
            own.get("warning").need(errors);
            own.get("fieldRef").need(errors);
        }
    },
    ..PLAIN
};

/// Policies that change.
pub(crate) static MUTATING_POLICY: Rules = Rules {
    counts_generation: true,
    default: |object| default_policy(object, "matchConstraints"),
    validate: |at, errors| {
        let spec = at.get("spec");
        policy(&spec, errors);
        mutating_rules(&spec.get("matchConstraints"), errors);
        mutations(&spec.get("mutations"), errors);
        let again = spec.get("reinvocationPolicy");
        again.choice(errors, AGAIN);
    },
    ..PLAIN
};

/// Where policies that judge apply.
pub(crate) static VALIDATING_BINDING: Rules = Rules {
    counts_generation: true,
    default: |object| default_policy(object, "matchResources"),
    validate: |at, errors| {
        let spec = at.get("spec");
        binding(&spec, errors);
        actions(&spec.get("validationActions"), errors);
    },
    ..PLAIN
};

/// Where policies that change apply.
pub(crate) static MUTATING_BINDING: Rules = Rules {
    counts_generation: true,
    default: |object| default_policy(object, "matchResources"),
    validate: |at, errors| {
        let spec = at.get("spec");
        binding(&spec, errors);
        mutating_rules(&spec.get("matchResources"), errors);
    },
    ..PLAIN
};

fn default_policy(object: &mut Value, matches: &str) {
    let Some(spec) = object["spec"].as_object_mut() else {
        return;
    };
    if matches == "matchConstraints" {
        set_default(spec, "failurePolicy", json!("Fail"));
    }
    if let Some(own) = object_mut(spec, matches) {
        default_matches(own);
    }
}

fn default_matches(own: &mut Map<String, Value>) {
    set_default(own, "matchPolicy", json!("Equivalent"));
    set_default(own, "namespaceSelector", json!({}));
    set_default(own, "objectSelector", json!({}));
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in list_mut(own, list) {
            set_default(rule, "scope", json!("*"));
        }
    }
}

/// What both kinds of policies have.
fn policy(spec: &At<'_>, errors: &mut Errors) {
    spec.get("failurePolicy").choice(errors, FAILURES);
    let params = spec.get("paramKind");
    if params.is_set() {
        param_kind(&params, errors);
    }
    let matches = spec.get("matchConstraints");
    if matches.is_null() {
        matches.required(errors, "");
    } else {
        match_resources(&matches, errors);
        matches.get("resourceRules").need(errors);
    }
    match_conditions(&spec.get("matchConditions"), errors);
    for own in spec.get("variables").items() {
        let name = own.get("name");
        if needs_text(&name, "name is not specified", errors) && !is_identifier(name.text()) {
            name.invalid_text(errors, "must be a valid CEL identifier");
        }
        needs_text(
            &own.get("expression"),
            "expression is not specified",
            errors,
        );
    }
}

fn is_identifier(text: &str) -> bool {
    const RESERVED: &[&str] = &[
        "as",
        "break",
        "const",
        "continue",
        "else",
        "false",
        "for",
        "function",
        "if",
        "import",
        "in",
        "let",
        "loop",
        "namespace",
        "null",
        "package",
        "return",
        "true",
        "var",
        "void",
        "while",
    ];
    let good = |byte: u8| byte == b'_' || byte.is_ascii_alphanumeric();
    let first = text
        .bytes()
        .next()
        .is_some_and(|byte| !byte.is_ascii_digit());
    first && text.bytes().all(good) && !RESERVED.contains(&text)
}

fn param_kind(at: &At<'_>, errors: &mut Errors) {
    let version = at.get("apiVersion");
    let text = version.text();
    let parts: Vec<&str> = text.split('/').collect();
    match parts.as_slice() {
        [""] => version.required(errors, ""),
        ["", ""] => version.invalid_text(errors, "version must be specified"),
        [_, _, _, ..] => {
            let detail = format!("unexpected GroupVersion string: {text}");
            version.invalid_text(errors, &detail);
        }
        [.., own] => {
            if let [group, _] = parts.as_slice()
                && !group.is_empty()
            {
                let wrong = dns_subdomain(group);
                if !wrong.is_empty() {
                    version.invalid_as(errors, *group, &wrong.join(","));
                }
            }
            let wrong = dns_1035_label(own);
            if own.is_empty() {
                version.invalid_text(errors, "version must be specified");
            } else if !wrong.is_empty() {
                version.invalid_as(errors, *own, &wrong.join(","));
            }
        }
        [] => {}
    }
    let kind = at.get("kind");
    if kind.need(errors) {
        let wrong = dns_1035_label(&kind.text().to_lowercase());
        if !wrong.is_empty() {
            let detail = format!(
                "may have mixed case, but should otherwise match: {}",
                wrong.join(",")
            );
            kind.invalid_text(errors, &detail);
        }
    }
}

fn match_resources(at: &At<'_>, errors: &mut Errors) {
    if at.is_null() {
        return;
    }
    let policy = at.get("matchPolicy");
    if policy.is_null() {
        policy.required(errors, "");
    } else {
        policy.one_of(errors, MATCHES);
    }
    label_selector(&at.get("namespaceSelector"), errors);
    label_selector(&at.get("objectSelector"), errors);
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in at.get(list).items() {
            let mut names = BTreeSet::new();
            for name in rule.get("resourceNames").items() {
                name.check(errors, path_segment);
                if !names.insert(name.text().to_owned()) {
                    name.duplicate(errors);
                }
            }
            rule_with_operations(&rule, errors);
        }
    }
}

fn mutating_rules(matches: &At<'_>, errors: &mut Errors) {
    for rule in matches.get("resourceRules").items() {
        for own in rule.get("operations").items() {
            if !MUTATING_OPERATIONS.contains(&own.text()) {
                let place = matches.get("resourceRules.operations").path();
                errors.not_supported(&place, own.text(), MUTATING_OPERATIONS);
            }
        }
    }
}

fn validations(at: &At<'_>, spec: &At<'_>, errors: &mut Errors) {
    let (checks, notes) = (spec.get("validations"), spec.get("auditAnnotations"));
    if checks.is_empty() && notes.is_empty() {
        let detail = "validations or auditAnnotations must contain at least one item";
        checks.required(errors, detail);
        notes.required(errors, detail);
        return;
    }
    for own in checks.items() {
        needs_text(
            &own.get("expression"),
            "expression is not specified",
            errors,
        );
        for name in ["messageExpression", "message"] {
            let text = own.get(name);
            let trimmed = text.text().trim();
            if !text.is_empty() && trimmed.is_empty() {
                text.invalid_text(errors, "must be non-empty if specified");
            } else if name == "message" && trimmed.contains(['\n', '\r']) {
                text.invalid_text(errors, "must not contain line breaks");
            }
        }
        own.get("reason").may_one_of(errors, REASONS);
    }
    if notes.len() > MAX_NOTES {
        let detail = format!("must not have more than {MAX_NOTES} auditAnnotations");
        notes.invalid(errors, &detail);
    }
    let policy = at.get("metadata").str("name");
    let mut keys = BTreeSet::new();
    for own in notes.items() {
        let key = own.get("key");
        if policy.is_empty() {
            key.invalid_text(errors, "requires metadata.name be non-empty");
        } else {
            let full = format!("{policy}/{}", key.text());
            for message in qualified_name(&full) {
                key.invalid_as(errors, full.as_str(), &message);
            }
        }
        let value = own.get("valueExpression");
        if needs_text(&value, "valueExpression is not specified", errors)
            && value.text().trim().len() > MAX_NOTE_BYTES
        {
            let detail = format!("must not exceed {MAX_NOTE_BYTES} bytes in length");
            value.required(errors, &detail);
        }
        if !keys.insert(key.text().to_owned()) {
            key.duplicate(errors);
        }
    }
}

fn mutations(at: &At<'_>, errors: &mut Errors) {
    if at.is_empty() {
        at.required(errors, "mutations must contain at least one item");
    }
    for own in at.items() {
        let (apply, patch) = (own.get("applyConfiguration"), own.get("jsonPatch"));
        let kind = own.get("patchType");
        let (wanted, other, shown) = match kind.text() {
            "JSONPatch" => (&patch, &apply, "{applyConfiguration}"),
            "ApplyConfiguration" => (&apply, &patch, "{jsonPatch}"),
            _ => {
                kind.choice(errors, &["ApplyConfiguration", "JSONPatch"]);
                continue;
            }
        };
        if wanted.is_null() {
            let detail = format!("must be specified when patchType is {}", kind.text());
            wanted.required(errors, &detail);
        } else {
            needs_text(&wanted.get("expression"), "", errors);
        }
        if other.is_set() {
            let detail = format!("must not be specified when patchType is {}", kind.text());
            other.invalid_as(errors, shown, &detail);
        }
    }
}

fn binding(spec: &At<'_>, errors: &mut Errors) {
    spec.get("policyName").need_check(errors, dns_subdomain);
    let params = spec.get("paramRef");
    if params.is_set() {
        let (name, selector) = (params.get("name"), params.get("selector"));
        let detail = "name and selector are mutually exclusive";
        let both = !name.is_empty() && selector.is_set();
        name.may_check(errors, path_segment);
        label_selector(&selector, errors);
        if both {
            name.forbidden(errors, detail);
            selector.forbidden(errors, detail);
        }
        if name.is_empty() && selector.is_null() {
            params.required(errors, "one of name or selector must be specified");
        }
        params
            .get("parameterNotFoundAction")
            .choice(errors, &["Deny", "Allow"]);
    }
    match_resources(&spec.get("matchResources"), errors);
}

fn actions(at: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for own in at.items() {
        own.one_of(errors, &["Audit", "Deny", "Warn"]);
        if !seen.insert(own.text().to_owned()) {
            own.duplicate(errors);
        }
    }
    if at.contains("Deny") && at.contains("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure \
                      information in the API response and headers serves no purpose)";
        at.invalid(errors, detail);
    }
    at.need(errors);
}
