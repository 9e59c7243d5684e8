//! Where a pod may run: selectors of nodes, affinity, spread, tolerations.
//!
//! Source: `validateAffinity`, `validateTopologySpreadConstraints`,
//! `ValidateTolerations` of `pkg/apis/core/validation`, v1.37.

use std::collections::BTreeSet;

use crate::validation::common::label_selector;
use crate::validation::{At, Errors, dns_label, dns_subdomain, label_value, qualified_name};

/// Checks all of a pod's affinity.
pub(crate) fn affinity(at: &At<'_>, errors: &mut Errors) {
    let node = at.get("nodeAffinity");
    let required = node.get("requiredDuringSchedulingIgnoredDuringExecution");
    if required.is_set() {
        node_selector(&required, errors);
    }
    for term in node
        .get("preferredDuringSchedulingIgnoredDuringExecution")
        .items()
    {
        weight(&term.get("weight"), errors);
        selector_term(&term.get("preference"), false, errors);
    }
    for name in ["podAffinity", "podAntiAffinity"] {
        let own = at.get(name);
        for term in own
            .get("requiredDuringSchedulingIgnoredDuringExecution")
            .items()
        {
            pod_term(&term, errors);
        }
        for term in own
            .get("preferredDuringSchedulingIgnoredDuringExecution")
            .items()
        {
            weight(&term.get("weight"), errors);
            pod_term(&term.get("podAffinityTerm"), errors);
        }
    }
}

fn weight(at: &At<'_>, errors: &mut Errors) {
    if !(1..=100).contains(&at.int().unwrap_or(0)) {
        at.invalid_int(errors, "must be in the range 1-100");
    }
}

/// Checks a selector of nodes: one of its terms has to hold.
pub(crate) fn node_selector(at: &At<'_>, errors: &mut Errors) {
    let terms = at.get("nodeSelectorTerms");
    if terms.is_empty() {
        terms.required(errors, "must have at least one node selector term");
    }
    for term in terms.items() {
        selector_term(&term, true, errors);
    }
}

fn selector_term(at: &At<'_>, check_values: bool, errors: &mut Errors) {
    for requirement in at.get("matchExpressions").items() {
        let values = requirement.get("values");
        match requirement.str("operator") {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                values.required(errors, detail);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                values.forbidden(errors, detail);
            }
            "Gt" | "Lt" if values.len() != 1 => {
                let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                values.required(errors, detail);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            _ => requirement
                .get("operator")
                .invalid_text(errors, "not a valid selector operator"),
        }
        requirement.get("key").check(errors, qualified_name);
        if check_values {
            for value in values.items() {
                value.check(errors, label_value);
            }
        }
    }
    for requirement in at.get("matchFields").items() {
        let values = requirement.get("values");
        match requirement.str("operator") {
            "In" | "NotIn" if values.len() != 1 => {
                let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                values.required(errors, detail);
            }
            "In" | "NotIn" => {}
            _ => requirement
                .get("operator")
                .invalid_text(errors, "not a valid selector operator"),
        }
        if requirement.str("key") == "metadata.name" {
            for value in values.items() {
                value.check(errors, dns_subdomain);
            }
        } else {
            let key = requirement.get("key");
            key.invalid_text(errors, "not a valid field selector key");
        }
    }
}

fn pod_term(at: &At<'_>, errors: &mut Errors) {
    label_selector(&at.get("labelSelector"), errors);
    label_selector(&at.get("namespaceSelector"), errors);
    for namespace in at.get("namespaces").items() {
        let own = at.get("namespace").with(namespace.value);
        own.check(errors, dns_label);
    }
    label_keys(at, errors);
    let key = at.get("topologyKey");
    if key.is_empty() {
        key.required(errors, "can not be empty");
    }
    key.check(errors, qualified_name);
}

/// The keys that a term adds to its selector from the pod's own labels.
fn label_keys(at: &At<'_>, errors: &mut Errors) {
    let (matching, mismatching) = (at.get("matchLabelKeys"), at.get("mismatchLabelKeys"));
    if matching.is_empty() && mismatching.is_empty() {
        return;
    }
    let selector = at.get("labelSelector");
    for keys in [&matching, &mismatching] {
        if keys.is_empty() {
            continue;
        }
        if selector.is_null() {
            let detail = "must not be specified when labelSelector is not set";
            keys.forbidden(errors, detail);
            continue;
        }
        for key in keys.items() {
            key.check(errors, qualified_name);
        }
    }
    let labels = selector.get("matchLabels");
    let mut seen: BTreeSet<&str> = labels.entries().map(|(key, _)| key).collect();
    let expressions = selector.get("matchExpressions");
    for expression in expressions.items() {
        let key = expression.str("key");
        let index = matching.items().rposition(|own| own.text() == key);
        if let Some(index) = index
            && seen.contains(key)
        {
            let detail = "exists in both matchLabelKeys and labelSelector";
            at.item(index).invalid_as(errors, key, detail);
        }
        seen.insert(key);
    }
    for key in matching.items() {
        if mismatching.contains(key.text()) {
            let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
            key.invalid_text(errors, detail);
        }
    }
}

/// Checks how a pod wants to be spread.
pub(crate) fn topology_spread(at: &At<'_>, errors: &mut Errors) {
    let pair = |at: &At<'_>| {
        let (key, action) = (at.str("topologyKey"), at.str("whenUnsatisfiable"));
        format!("{{{key}, {action}}}")
    };
    for (index, constraint) in at.items().enumerate() {
        constraint.get("maxSkew").positive(errors);
        let key = constraint.get("topologyKey");
        if key.is_empty() {
            key.required(errors, "can not be empty");
        }
        let action = constraint.get("whenUnsatisfiable");
        action.one_of(errors, &["DoNotSchedule", "ScheduleAnyway"]);
        let own = pair(&constraint);
        if at.items().skip(index + 1).any(|later| pair(&later) == own) {
            constraint
                .get("{topologyKey, whenUnsatisfiable}")
                .duplicate_as(errors, own);
        }
        let domains = constraint.get("minDomains");
        if domains.is_set() {
            domains.positive(errors);
            if action.text() != "DoNotSchedule" {
                let detail = format!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}",
                    action.text()
                );
                domains.invalid(errors, &detail);
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            constraint
                .get(policy)
                .may_one_of(errors, &["Honor", "Ignore"]);
        }
        label_keys(&constraint, errors);
        label_selector(&constraint.get("labelSelector"), errors);
    }
}

/// The effects of taints, as messages list them.
pub(crate) const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Checks tolerations of taints.
pub(crate) fn tolerations(at: &At<'_>, errors: &mut Errors) {
    for toleration in at.items() {
        let (key, operator, effect) = (
            toleration.get("key"),
            toleration.get("operator"),
            toleration.get("effect"),
        );
        key.may_check(errors, qualified_name);
        if key.is_empty() && operator.text() != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all \
                          values and all keys\"";
            operator.invalid_text(errors, detail);
        }
        if toleration.has("tolerationSeconds") && effect.text() != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            effect.invalid_text(errors, detail);
        }
        let value = toleration.str("value");
        match operator.text() {
            "" | "Equal" => {
                let wrong = label_value(value);
                if !wrong.is_empty() {
                    operator.invalid_as(errors, value, &wrong.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                operator.invalid_as(errors, value, detail);
            }
            "Exists" => {}
            "Gt" | "Lt" => operator.unsupported(errors, &["Equal", "Exists", "Lt", "Gt"]),
            _ => operator.unsupported(errors, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            effect.one_of(errors, EFFECTS);
        }
    }
}
