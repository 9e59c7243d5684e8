//! Disruption budgets, roles and bindings, priorities, runtime classes, endpoints and
//! slices of them.
//!
//! Source: `pkg/apis/{policy,rbac,scheduling,node,discovery,core}` of v1.37.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::defaults::{drop_empty, list_mut, set_default};
use super::resources::{self, Of};
use super::rules::{PLAIN, Rules};
use super::service::endpoint_ip;
use super::warnings::{Warnings, deprecated_node_label};
use super::workloads::no_status;
use super::{internal, pod};
use crate::validation::common::{
    conditions, fully_qualified_domain, ip, label_selector, legacy_ip, not_more_than_100_percent,
    parse_ip, port, positive_int_or_percent,
};
use crate::validation::{
    At, Errors, dns_label, dns_subdomain, label_value, labels, path_segment, qualified_name,
};

const IMMUTABLE: &str = "field is immutable";
const RBAC: &str = "rbac.authorization.k8s.io";

/// Disruption budgets.
pub(crate) static POD_DISRUPTION_BUDGET: Rules = Rules {
    has_status: true,
    counts_generation: true,
    prepare_create: |object, _| no_status(object),
    validate: validate_budget,
    validate_subresource: |_, _, new, errors| {
        let at = new.get("status");
        conditions(&at.get("conditions"), errors);
        for name in [
            "disruptionsAllowed",
            "currentHealthy",
            "desiredHealthy",
            "expectedPods",
        ] {
            at.get(name).not_negative(errors);
        }
    },
    ..PLAIN
};

/// Roles of a namespace.
pub(crate) static ROLE: Rules = Rules {
    default: default_role,
    validate: |at, errors| {
        for rule in at.get("rules").items() {
            policy_rule(&rule, true, errors);
        }
    },
    ..PLAIN
};

/// Roles of the cluster.
pub(crate) static CLUSTER_ROLE: Rules = Rules {
    default: default_role,
    validate: |at, errors| {
        for rule in at.get("rules").items() {
            policy_rule(&rule, false, errors);
        }
        let aggregation = at.get("aggregationRule");
        if aggregation.is_null() {
            return;
        }
        let selectors = aggregation.get("clusterRoleSelectors");
        if selectors.is_empty() {
            let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
            selectors.required(errors, detail);
        }
        for selector in selectors.items() {
            let before = errors.len();
            label_selector(&selector, errors);
            if errors.len() > before {
                selector.invalid_shown(errors, "null", "invalid label selector.");
            }
        }
    },
    ..PLAIN
};

/// Bindings in a namespace.
pub(crate) static ROLE_BINDING: Rules = Rules {
    default: default_binding,
    validate: |at, errors| binding(at, &["Role", "ClusterRole"], errors),
    validate_update: same_role,
    ..PLAIN
};

/// Bindings in the cluster.
pub(crate) static CLUSTER_ROLE_BINDING: Rules = Rules {
    default: default_binding,
    validate: |at, errors| binding(at, &["ClusterRole"], errors),
    validate_update: same_role,
    ..PLAIN
};

/// Classes of priority.
pub(crate) static PRIORITY_CLASS: Rules = Rules {
    counts_generation: true,
    generation_of: &[],
    default: |object| {
        if let Some(map) = object.as_object_mut() {
            set_default(map, "preemptionPolicy", json!("PreemptLowerPriority"));
        }
    },
    validate_create: validate_priority,
    validate_update: |old, new, errors| {
        let number = |at: &At<'_>| at.int().unwrap_or(0);
        let value = new.get("value");
        if number(&value) != number(&old.get("value")) {
            value.forbidden(errors, "may not be changed in an update.");
        }
        let policy = new.get("preemptionPolicy");
        policy.unchanged(errors, old.get("preemptionPolicy").value, IMMUTABLE);
    },
    ..PLAIN
};

/// Runtimes of containers.
pub(crate) static RUNTIME_CLASS: Rules = Rules {
    validate_create: validate_runtime,
    validate_update: |old, new, errors| {
        new.get("handler").fixed(errors, old.get("handler").value);
    },
    warn: |_, at, warnings| {
        let selector = at.get("scheduling.nodeSelector");
        for (key, _) in selector.entries() {
            if let Some(why) = deprecated_node_label(key) {
                warnings.add(&selector, why);
            }
        }
    },
    ..PLAIN
};

/// Addresses behind a service.
pub(crate) static ENDPOINTS: Rules = Rules {
    default: |object| {
        let subsets = object["subsets"].as_array_mut().into_iter().flatten();
        for subset in subsets.filter_map(Value::as_object_mut) {
            for own in list_mut(subset, "ports") {
                set_default(own, "protocol", json!("TCP"));
            }
        }
    },
    validate: validate_endpoints,
    warn: warn_endpoints,
    ..PLAIN
};

/// Slices of the addresses behind a service.
pub(crate) static ENDPOINT_SLICE: Rules = Rules {
    counts_generation: true,
    generation_of: &["/endpoints", "/ports", "/metadata/labels"],
    default: |object| {
        if let Some(map) = object.as_object_mut() {
            drop_empty(map, "ports");
            for own in list_mut(map, "ports") {
                set_default(own, "protocol", json!("TCP"));
                own.entry("name").or_insert(json!(""));
                if own["name"].is_null() {
                    own.insert("name".into(), json!(""));
                }
            }
        }
    },
    prepare_create: |object, _| drop_topology(object),
    prepare_update: |_, old, object| {
        if object["endpoints"] != old["endpoints"] {
            drop_topology(object);
        }
    },
    validate: validate_slice,
    validate_update: |old, new, errors| {
        let before = old.get("addressType");
        new.get("addressType").fixed(errors, before.value);
    },
    warn: warn_slice,
    ..PLAIN
};

fn validate_budget(at: &At<'_>, errors: &mut Errors) {
    let spec = at.get("spec");
    let (least, most) = (spec.get("minAvailable"), spec.get("maxUnavailable"));
    if least.is_set() && most.is_set() {
        let shown = internal::show("io.k8s.api.policy.v1.PodDisruptionBudgetSpec", spec.value);
        let detail = "minAvailable and maxUnavailable cannot be both set";
        spec.invalid_shown(errors, &shown, detail);
    }
    for own in [&least, &most] {
        if own.is_set() {
            positive_int_or_percent(own, errors);
            not_more_than_100_percent(own, errors);
        }
    }
    label_selector(&spec.get("selector"), errors);
    spec.get("unhealthyPodEvictionPolicy")
        .may_one_of(errors, &["AlwaysAllow", "IfHealthyBudget"]);
}

fn policy_rule(at: &At<'_>, namespaced: bool, errors: &mut Errors) {
    let verbs = at.get("verbs");
    if verbs.is_empty() {
        verbs.required(errors, "");
    }
    let (urls, groups, kinds) = (
        at.get("nonResourceURLs"),
        at.get("apiGroups"),
        at.get("resources"),
    );
    if !urls.is_empty() {
        if namespaced {
            let detail = "namespaced rules cannot apply to non-resource URLs";
            urls.invalid(errors, detail);
        }
        if !groups.is_empty() || !kinds.is_empty() || !at.get("resourceNames").is_empty() {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            urls.invalid(errors, detail);
        }
        return;
    }
    if groups.is_empty() {
        let detail = "resource rules must supply at least one api group";
        groups.required(errors, detail);
    }
    if kinds.is_empty() {
        let detail = "resource rules must supply at least one resource";
        kinds.required(errors, detail);
    }
}

fn default_role(object: &mut Value) {
    if let Some(map) = object.as_object_mut() {
        drop_empty(map, "rules");
    }
}

/// Where an address is was once said by labels.
fn drop_topology(slice: &mut Value) {
    let list = slice["endpoints"].as_array_mut().into_iter().flatten();
    for own in list.filter_map(Value::as_object_mut) {
        own.shift_remove("deprecatedTopology");
    }
}

fn default_binding(object: &mut Value) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    if let Some(role) = super::defaults::made(map, "roleRef") {
        set_default(role, "apiGroup", json!(RBAC));
    }
    for subject in list_mut(map, "subjects") {
        let kind = subject.get("kind").and_then(Value::as_str);
        if matches!(kind, Some("User" | "Group")) {
            set_default(subject, "apiGroup", json!(RBAC));
        }
    }
}

fn binding(at: &At<'_>, kinds: &[&str], errors: &mut Errors) {
    let role = at.get("roleRef");
    role.get("apiGroup").one_of(errors, &[RBAC]);
    role.get("kind").one_of(errors, kinds);
    role.get("name").need_check(errors, path_segment);
    let namespaced = kinds.len() > 1;
    for subject in at.get("subjects").items() {
        let (name, group) = (subject.get("name"), subject.get("apiGroup"));
        name.need(errors);
        match subject.str("kind") {
            "ServiceAccount" => {
                name.may_check(errors, dns_subdomain);
                group.one_of(errors, &[""]);
                if !namespaced {
                    subject.get("namespace").need(errors);
                }
            }
            "User" | "Group" => {
                group.one_of(errors, &[RBAC]);
            }
            _ => {
                let known = ["ServiceAccount", "User", "Group"];
                subject.get("kind").unsupported(errors, &known);
            }
        }
    }
}

fn same_role(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    let at = new.get("roleRef");
    if at.value != old.get("roleRef").value {
        let shown = internal::show("io.k8s.api.rbac.v1.RoleRef", at.value);
        at.invalid_shown(errors, &shown, IMMUTABLE);
    }
}

/// `HighestUserDefinablePriority`: a thousand million.
const HIGHEST_PRIORITY: i64 = 1_000_000_000;
const SYSTEM_PRIORITIES: [(&str, i64); 2] = [
    ("system-node-critical", 2 * HIGHEST_PRIORITY + 1000),
    ("system-cluster-critical", 2 * HIGHEST_PRIORITY),
];

fn validate_priority(at: &At<'_>, errors: &mut Errors) {
    let (name, value) = (at.get("metadata.name"), at.get("value"));
    let own = value.int().unwrap_or(0);
    if name.text().starts_with("system-") {
        let known = SYSTEM_PRIORITIES
            .iter()
            .find(|known| known.0 == name.text());
        let class = name.text();
        let problem = match known {
            None => format!("{class} is not a known system priority class"),
            Some((_, wanted)) if *wanted != own => {
                format!("value of {class} PriorityClass must be {wanted}")
            }
            Some(_) if at.flag("globalDefault") => {
                format!("globalDefault of {class} PriorityClass must be false")
            }
            Some(_) => return preemption(at, errors),
        };
        let detail = format!(
            "priority class names with 'system-' prefix are reserved for system use only. error: {problem}"
        );
        name.forbidden(errors, &detail);
    } else if own > HIGHEST_PRIORITY {
        let detail =
            format!("maximum allowed value of a user defined priority is {HIGHEST_PRIORITY}");
        value.forbidden(errors, &detail);
    }
    preemption(at, errors);
}

fn preemption(at: &At<'_>, errors: &mut Errors) {
    at.get("preemptionPolicy")
        .may_one_of(errors, &["PreemptLowerPriority", "Never"]);
}

fn validate_runtime(at: &At<'_>, errors: &mut Errors) {
    at.get("handler").need_check(errors, dns_label);
    let overhead = at.get("overhead");
    if overhead.is_set() {
        let limits = json!({"limits": overhead.value["podFixed"]});
        let none = BTreeSet::new();
        resources::requirements(&overhead.with(&limits), Of::Container, &none, errors);
    }
    let scheduling = at.get("scheduling");
    let selector = scheduling.get("nodeSelector");
    labels(errors, &selector.path(), Some(selector.value));
    let list = scheduling.get("tolerations");
    pod::tolerations(&list, errors);
    let mut seen = BTreeSet::new();
    for own in list.items() {
        let key = ["key", "operator", "value", "effect"].map(|key| own.str(key).to_owned());
        if !seen.insert(key) {
            let shown = internal::show("io.k8s.api.core.v1.Toleration", own.value);
            errors.duplicate_shown(&own.path(), &shown, "");
        }
    }
}

fn validate_endpoints(at: &At<'_>, errors: &mut Errors) {
    for subset in at.get("subsets").items() {
        let (ready, waiting) = (subset.get("addresses"), subset.get("notReadyAddresses"));
        if ready.is_empty() && waiting.is_empty() {
            subset.required(errors, "must specify `addresses` or `notReadyAddresses`");
        }
        for address in ready.items().chain(waiting.items()) {
            legacy_ip(&address.get("ip"), errors);
            address.get("hostname").may_check(errors, dns_label);
            let node = address.get("nodeName");
            if node.is_set() {
                node.check(errors, dns_subdomain);
            }
            endpoint_ip(&address.get("ip"), errors);
        }
        let ports = subset.get("ports");
        for own in ports.items() {
            let name = own.get("name");
            if ports.len() > 1 && name.is_empty() {
                name.required(errors, "");
            } else {
                name.may_check(errors, dns_label);
            }
            port(&own.get("port"), errors);
            own.get("protocol").choice(errors, &["SCTP", "TCP", "UDP"]);
            let protocol = own.get("appProtocol");
            if protocol.is_set() {
                protocol.check(errors, qualified_name);
            }
        }
    }
}

/// What clients of endpoints are told.
pub(super) const ENDPOINTS_DEPRECATION: &str =
    "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";

fn warn_endpoints(_: &Value, at: &At<'_>, warnings: &mut Warnings) {
    warnings.push(ENDPOINTS_DEPRECATION.to_owned());
    for subset in at.get("subsets").items() {
        for list in ["addresses", "notReadyAddresses"] {
            for address in subset.get(list).items() {
                warnings.address(&address.get("ip"));
            }
        }
    }
}

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_HINTS: usize = 8;

fn validate_slice(at: &At<'_>, errors: &mut Errors) {
    let kind = at.get("addressType");
    kind.choice(errors, &["FQDN", "IPv4", "IPv6"]);
    slice_ports(&at.get("ports"), errors);
    let list = at.get("endpoints");
    if list.len() > MAX_ENDPOINTS {
        list.too_many(errors, MAX_ENDPOINTS);
        return;
    }
    for own in list.items() {
        let addresses = own.get("addresses");
        addresses.need(errors);
        if addresses.len() > MAX_ADDRESSES {
            addresses.too_many(errors, MAX_ADDRESSES);
        }
        for address in addresses.items() {
            slice_address(&addresses, &address, kind.text(), errors);
        }
        let node = own.get("nodeName");
        if node.is_set() {
            node.check(errors, dns_subdomain);
        }
        let name = own.get("hostname");
        if name.is_set() {
            name.check(errors, dns_label);
        }
        hints(&own.get("hints"), errors);
    }
}

fn slice_address(list: &At<'_>, at: &At<'_>, kind: &str, errors: &mut Errors) {
    let of_family = |v4: bool| parse_ip(at.text()).is_some_and(|own| own.is_ipv4() == v4);
    match kind {
        "IPv4" if legacy_ip(at, errors) => {
            if !of_family(true) {
                list.invalid_as(errors, at.text(), "must be an IPv4 address");
            }
            endpoint_ip(at, errors);
        }
        "IPv6" if ip(at, errors) => {
            if !of_family(false) {
                list.invalid_as(errors, at.text(), "must be an IPv6 address");
            }
            endpoint_ip(at, errors);
        }
        "FQDN" => fully_qualified_domain(at, errors),
        _ => {}
    }
}

fn slice_ports(at: &At<'_>, errors: &mut Errors) {
    if at.len() > MAX_PORTS {
        at.too_many(errors, MAX_PORTS);
        return;
    }
    let mut names = BTreeSet::new();
    for own in at.items() {
        let name = own.get("name");
        name.may_check(errors, dns_label);
        if !names.insert(own.str("name")) {
            name.duplicate(errors);
        }
        own.get("protocol").one_of(errors, &["SCTP", "TCP", "UDP"]);
        let protocol = own.get("appProtocol");
        if protocol.is_set() {
            protocol.check(errors, qualified_name);
        }
    }
}

fn hints(at: &At<'_>, errors: &mut Errors) {
    for (list, check) in [
        ("forZones", label_value as fn(&str) -> Vec<String>),
        ("forNodes", dns_subdomain),
    ] {
        let own = at.get(list);
        if own.len() > MAX_HINTS {
            own.too_many(errors, MAX_HINTS);
            return;
        }
        let mut seen = BTreeSet::new();
        for hint in own.items() {
            let name = hint.get("name");
            if !seen.insert(name.text().to_owned()) {
                name.duplicate(errors);
            }
            name.check(errors, check);
        }
    }
}

fn warn_slice(_: &Value, at: &At<'_>, warnings: &mut Warnings) {
    if at.str("addressType") == "FQDN" {
        let why = "FQDN endpoints are deprecated";
        warnings.add(&at.get("spec.addressType"), why);
    }
    for own in at.get("endpoints").items() {
        for address in own.get("addresses").items() {
            warnings.address(&address);
        }
    }
}
