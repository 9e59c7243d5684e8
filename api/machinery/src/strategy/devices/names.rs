//! Names of drivers, pools, attributes and resources, and small parts that several of the
//! group's kinds have: taints, tolerations, conditions of binding.
//!
//! Invariant: a list that is too long is not looked into.

use std::collections::BTreeSet;

use crate::strategy::pod::source::csi_driver_name;
use crate::validation::common::{c_identifier, dns_subdomain_any_case};
use crate::validation::{At, Errors, dns_label, dns_subdomain, label_value, qualified_name};

const MAX_DRIVER_BYTES: usize = 63;
const MAX_POOL_BYTES: usize = 253;
const MAX_IDENTIFIER_BYTES: usize = 32;
const MAX_BINDING_CONDITIONS: usize = 4;
const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];
const UUID: &str = "must be a lowercase UUID in 8-4-4-4-12 format";

/// The reference checks some names by code and some by declarations, in different words.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// By code.
    Own,
    /// By declarations.
    Declared,
}

/// Whether a list is short enough to be looked into.
pub(super) fn few(at: &At<'_>, max: usize, errors: &mut Errors) -> bool {
    let good = at.len() <= max;
    if !good {
        at.too_many(errors, max);
    }
    good
}

/// Refuses elements that share a key with one before.
pub(super) fn unique<K: Ord>(at: &At<'_>, key: impl Fn(&At<'_>) -> K, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for item in at.items() {
        if !seen.insert(key(&item)) {
            item.duplicate(errors);
        }
    }
}

/// A driver's name.
pub(super) fn driver(at: &At<'_>, form: Form, errors: &mut Errors) {
    match form {
        Form::Own => csi_driver_name(at, errors),
        Form::Declared => {
            if !at.need(errors) {
                return;
            }
            if at.text().chars().count() > MAX_DRIVER_BYTES {
                let message =
                    format!("Too long: may not be more than {MAX_DRIVER_BYTES} characters");
                errors.other(&at.path(), "FieldValueTooLong", message);
            }
            at.check(errors, dns_subdomain_any_case);
        }
    }
}

/// A pool's name: subdomains, separated by slashes.
pub(super) fn pool(at: &At<'_>, form: Form, errors: &mut Errors) {
    if !at.need(errors) {
        return;
    }
    if at.len() > MAX_POOL_BYTES {
        at.too_long(errors, MAX_POOL_BYTES);
    }
    for (index, part) in at.text().split('/').enumerate() {
        if form == Form::Declared && part.is_empty() {
            at.invalid_text(errors, &format!("segment {index}: must not be empty"));
            continue;
        }
        for message in dns_subdomain(part) {
            let message = match form {
                Form::Own => message,
                Form::Declared => format!("segment {index}: {message}"),
            };
            at.invalid_as(errors, part, &message);
        }
    }
}

/// An attribute's or a capacity's name at that place, with a domain or without.
pub(super) fn qualified(at: &At<'_>, name: &str, form: Form, errors: &mut Errors) {
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        [name] => identifier(at, name, errors),
        [domain, name] => {
            let (no_domain, no_name) = match form {
                Form::Own => ("the domain must not be empty", "the name must not be empty"),
                Form::Declared => ("prefix must not be empty", "name must not be empty"),
            };
            if domain.is_empty() {
                at.invalid_as(errors, "", no_domain);
            } else {
                if domain.len() > MAX_DRIVER_BYTES {
                    at.too_long(errors, MAX_DRIVER_BYTES);
                }
                let wrong = match form {
                    Form::Own => dns_subdomain(&domain.to_lowercase()),
                    Form::Declared => dns_subdomain(domain)
                        .into_iter()
                        .map(|message| format!("prefix: {message}"))
                        .collect(),
                };
                for message in wrong {
                    at.invalid_as(errors, *domain, &message);
                }
            }
            if name.is_empty() {
                at.invalid_as(errors, "", no_name);
            } else {
                identifier(at, name, errors);
            }
        }
        // More slashes pass in the reference.
        _ => {}
    }
}

fn identifier(at: &At<'_>, name: &str, errors: &mut Errors) {
    if name.len() > MAX_IDENTIFIER_BYTES {
        at.too_long(errors, MAX_IDENTIFIER_BYTES);
    }
    for message in c_identifier(name) {
        at.invalid_as(errors, name, &message);
    }
}

/// An attribute's name with its domain.
pub(super) fn fully_qualified(at: &At<'_>, errors: &mut Errors) {
    qualified(at, at.text(), Form::Declared, errors);
    if !at.text().contains('/') {
        let detail = "a fully qualified name must be a domain and a name separated by a slash";
        at.invalid_text(errors, detail);
    }
}

/// A resource that pods ask for by that name.
pub(super) fn extended_resource(at: &At<'_>, errors: &mut Errors) {
    let name = at.text();
    if !name.contains('/') {
        let detail = "a name must be a domain-prefixed path, such as 'example.com/my-prop'";
        at.invalid_text(errors, detail);
    } else if name.contains("kubernetes.io/") {
        at.invalid_text(errors, "must not have \"kubernetes.io/\" domain");
    }
    if name.starts_with("requests.") {
        at.invalid_text(errors, "must not have \"requests.\" prefix");
    }
    for message in qualified_name(&format!("requests.{name}")) {
        at.invalid_text(errors, &message);
    }
}

/// A share's id, if there is one.
pub(super) fn share(at: &At<'_>, errors: &mut Errors) {
    let digits = |part: &str| {
        part.bytes()
            .all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
    };
    let sizes = at.text().split('-').map(str::len);
    let good = sizes.eq([8usize, 4, 4, 4, 12]) && at.text().split('-').all(digits);
    if at.is_set() && !good {
        at.invalid_text(errors, UUID);
    }
}

/// A taint; an effect that it had before is not judged again.
pub(super) fn taint(effect_before: Option<&str>, at: &At<'_>, errors: &mut Errors) {
    at.get("key").check(errors, qualified_name);
    at.get("value").may_check(errors, label_value);
    let effect = at.get("effect");
    if effect_before != Some(effect.text()) {
        effect.choice(errors, EFFECTS);
    }
}

/// Tolerations of taints.
pub(super) fn tolerations(at: &At<'_>, errors: &mut Errors) {
    for own in at.items() {
        own.get("key").may_check(errors, qualified_name);
        let value = own.get("value");
        match own.str("operator") {
            "Exists" if !value.is_empty() => {
                value.invalid(errors, "must be empty for operator `Exists`");
            }
            "Exists" => {}
            "Equal" => {
                value.check(errors, label_value);
            }
            _ => {
                own.get("operator").choice(errors, &["Equal", "Exists"]);
            }
        }
        let effect = own.get("effect");
        if !effect.is_empty() {
            effect.one_of(errors, EFFECTS);
        }
    }
}

/// The conditions that a device must have before a pod is bound, and those that refuse it.
pub(super) fn binding(at: &At<'_>, errors: &mut Errors) {
    let wanted = at.get("bindingConditions");
    let refusing = at.get("bindingFailureConditions");
    for list in [&wanted, &refusing] {
        if few(list, MAX_BINDING_CONDITIONS, errors) {
            for own in list.items() {
                own.check(errors, qualified_name);
            }
        }
        unique(list, |own| own.text().to_owned(), errors);
    }
    for own in refusing.items() {
        if wanted.contains(own.text()) {
            let detail = "bindingFailureConditions must not overlap with bindingConditions";
            own.invalid(errors, detail);
        }
    }
    if wanted.is_empty() && !refusing.is_empty() {
        let detail = "bindingConditions are required to use bindingFailureConditions";
        wanted.invalid(errors, detail);
    }
    if refusing.is_empty() && !wanted.is_empty() {
        let detail = "bindingFailureConditions are required to use bindingConditions";
        refusing.invalid(errors, detail);
    }
}

/// A device's or a request's own name.
pub(super) fn label(at: &At<'_>, errors: &mut Errors) {
    at.check(errors, dns_label);
}
