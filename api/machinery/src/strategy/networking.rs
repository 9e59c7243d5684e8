//! Ingresses and their classes, network policies, addresses and ranges of services.
//!
//! Source: `pkg/apis/networking`, `pkg/registry/networking` of v1.37.

use serde_json::{Value, json};

use super::defaults::{list_mut, object_mut, set_default};
use super::rules::{PLAIN, Rules};
use super::service::ingress_host;
use super::warnings::Warnings;
use super::workloads::no_status;
use crate::validation::common::{
    cidr, domain_prefixed_path, ip, label_selector, legacy_cidr, legacy_ip, masked, parse_cidr,
    parse_ip, port, wildcard_dns_subdomain,
};
use crate::validation::{At, Errors, dns_label, dns_subdomain, path_segment, port_name};

const IMMUTABLE: &str = "field is immutable";
const CLASS: &str = "kubernetes.io/ingress.class";
const CLASS_CONTROLLER_MAX_BYTES: usize = 250;

/// Ingresses.
pub(crate) static INGRESS: Rules = Rules {
    has_status: true,
    counts_generation: true,
    prepare_create: |object, _| no_status(object),
    validate: validate_ingress,
    validate_create: |at, errors| {
        let class = at.get("spec.ingressClassName");
        let noted = at.get("metadata.annotations").str(CLASS);
        if class.is_set() && !noted.is_empty() && noted != class.text() {
            let place = at.get("annotations");
            let detail = "must match `ingressClassName` when both are specified";
            place.get(CLASS).invalid_as(errors, noted, detail);
        }
    },
    validate_subresource: |_, old, new, errors| {
        let (before, after) = (
            old.get("status.loadBalancer.ingress"),
            new.get("status.loadBalancer.ingress"),
        );
        for own in after.items() {
            let ip = own.get("ip");
            let known = before.items().any(|own| own.str("ip") == ip.text());
            if !ip.is_empty() && !known {
                legacy_ip(&ip, errors);
            }
            ingress_host(&own.get("hostname"), errors);
        }
    },
    warn: |old, new, warnings| {
        let notes = new.get("metadata.annotations");
        if old.is_null() && notes.has(CLASS) {
            let why = "annotation \"kubernetes.io/ingress.class\" is deprecated, please use \
                       'spec.ingressClassName' instead";
            warnings.push(why.to_owned());
        }
    },
    ..PLAIN
};

/// Classes of ingresses.
pub(crate) static INGRESS_CLASS: Rules = Rules {
    counts_generation: true,
    default: |object| {
        if let Some(spec) = object["spec"].as_object_mut()
            && let Some(parameters) = object_mut(spec, "parameters")
        {
            set_default(parameters, "scope", json!("Cluster"));
        }
    },
    validate: validate_class,
    validate_update: |old, new, errors| {
        let at = new.get("spec.controller");
        at.unchanged(errors, old.get("spec.controller").value, IMMUTABLE);
    },
    ..PLAIN
};

/// Network policies.
pub(crate) static NETWORK_POLICY: Rules = Rules {
    counts_generation: true,
    default: default_policy,
    validate: validate_policy,
    warn: warn_policy,
    ..PLAIN
};

/// Addresses that services hold.
pub(crate) static IP_ADDRESS: Rules = Rules {
    validate: validate_address,
    validate_update: |old, new, errors| {
        let before = old.get("spec.parentRef");
        new.get("spec.parentRef").fixed(errors, before.value);
    },
    ..PLAIN
};

/// Ranges of addresses for services.
pub(crate) static SERVICE_CIDR: Rules = Rules {
    has_status: true,
    prepare_create: |object, _| no_status(object),
    validate_create: |at, errors| ranges(&at.get("spec.cidrs"), errors),
    validate_update: |old, new, errors| {
        let (before, after) = (old.get("spec.cidrs"), new.get("spec.cidrs"));
        match (before.len(), after.len()) {
            (a, b) if a == b || (a == 1 && b == 2) => {
                for (old, new) in before.items().zip(after.items()) {
                    new.unchanged(errors, old.value, IMMUTABLE);
                }
                if a != b {
                    ranges(&after, errors);
                }
            }
            _ => after.invalid(errors, IMMUTABLE),
        }
    },
    ..PLAIN
};

fn validate_ingress(at: &At<'_>, errors: &mut Errors) {
    let spec = at.get("spec");
    let (backend_at, rules) = (spec.get("defaultBackend"), spec.get("rules"));
    if rules.is_empty() && backend_at.is_null() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        spec.with(rules.value).invalid(errors, detail);
    }
    if backend_at.is_set() {
        backend(&backend_at, errors);
    }
    for rule in rules.items() {
        let host = rule.get("host");
        if !host.is_empty() {
            if parse_ip(host.text()).is_some() {
                host.invalid_text(errors, "must be a DNS name, not an IP address");
            }
            host_name(&host, errors);
        }
        let http = rule.get("http");
        if http.is_set() {
            http.get("paths").need(errors);
            for path in http.get("paths").items() {
                http_path(&path, errors);
            }
        }
    }
    for tls in spec.get("tls").items() {
        for host in tls.get("hosts").items() {
            host_name(&host, errors);
        }
        tls.get("secretName").may_check(errors, dns_subdomain);
    }
    let class = spec.get("ingressClassName");
    if class.is_set() {
        class.check(errors, dns_subdomain);
    }
}

fn host_name(at: &At<'_>, errors: &mut Errors) {
    if at.text().contains('*') {
        at.check(errors, wildcard_dns_subdomain);
    } else {
        at.check(errors, dns_subdomain);
    }
}

fn http_path(at: &At<'_>, errors: &mut Errors) {
    let (kind, path) = (at.get("pathType"), at.get("path"));
    if kind.is_null() {
        kind.required(errors, "pathType must be specified");
        return;
    }
    let absolute = path.text().starts_with('/');
    match kind.text() {
        "Exact" | "Prefix" => {
            if !absolute {
                path.invalid_text(errors, "must be an absolute path");
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"] {
                if path.text().contains(part) {
                    path.invalid_text(errors, &format!("must not contain '{part}'"));
                }
            }
            for end in ["/..", "/."] {
                if path.text().ends_with(end) {
                    path.invalid_text(errors, &format!("cannot end with '{end}'"));
                }
            }
        }
        "ImplementationSpecific" => {
            if !path.is_empty() && !absolute {
                path.invalid_text(errors, "must be an absolute path");
            }
        }
        _ => kind.unsupported(errors, &["Exact", "ImplementationSpecific", "Prefix"]),
    }
    backend(&at.get("backend"), errors);
}

fn backend(at: &At<'_>, errors: &mut Errors) {
    let (resource, service) = (at.get("resource"), at.get("service"));
    match (resource.is_set(), service.is_set()) {
        (true, true) => {
            at.invalid_as(errors, "", "cannot set both resource and service backends");
        }
        (true, false) => {
            let group = resource.get("apiGroup");
            if group.is_set() {
                group.check(errors, dns_subdomain);
            }
            resource.get("kind").need_check(errors, path_segment);
            resource.get("name").need_check(errors, path_segment);
        }
        (false, true) => {
            service.get("name").need_check(errors, dns_label);
            let (name, number) = (service.get("port.name"), service.get("port.number"));
            match (name.is_empty(), number.int().unwrap_or(0) == 0) {
                (false, false) => {
                    at.invalid_as(errors, "", "cannot set both port name & port number");
                }
                (false, true) => {
                    name.check(errors, port_name);
                }
                (true, false) => port(&number, errors),
                (true, true) => at.required(errors, "port name or number is required"),
            }
        }
        (false, false) => {
            at.invalid_as(errors, "", "resource or service backend is required");
        }
    }
}

fn validate_class(at: &At<'_>, errors: &mut Errors) {
    let controller = at.get("spec.controller");
    if controller.len() > CLASS_CONTROLLER_MAX_BYTES {
        controller.too_long(errors, CLASS_CONTROLLER_MAX_BYTES);
    }
    domain_prefixed_path(&controller, errors);
    let parameters = at.get("spec.parameters");
    if parameters.is_null() {
        return;
    }
    let group = parameters.get("apiGroup");
    if group.is_set() {
        group.check(errors, dns_subdomain);
    }
    parameters.get("kind").need_check(errors, path_segment);
    parameters.get("name").need_check(errors, path_segment);
    let (scope, namespace) = (parameters.get("scope"), parameters.get("namespace"));
    scope.one_of(errors, &["Cluster", "Namespace"]);
    match scope.text() {
        "Namespace" if namespace.is_null() => {
            namespace.required(errors, "`parameters.scope` is set to 'Namespace'");
        }
        "Namespace" => {
            namespace.check(errors, dns_label);
        }
        "Cluster" => {
            namespace.absent(errors, "`parameters.scope` is set to 'Cluster'");
        }
        _ => {}
    }
}

fn default_policy(object: &mut Value) {
    let Some(spec) = object["spec"].as_object_mut() else {
        return;
    };
    for direction in ["ingress", "egress"] {
        for rule in list_mut(spec, direction) {
            for own in list_mut(rule, "ports") {
                set_default(own, "protocol", json!("TCP"));
            }
        }
    }
    let filled = |value: Option<&Value>| {
        let list = value.and_then(Value::as_array);
        list.is_some_and(|list| !list.is_empty())
    };
    if !filled(spec.get("policyTypes")) {
        let types = match filled(spec.get("egress")) {
            true => json!(["Ingress", "Egress"]),
            false => json!(["Ingress"]),
        };
        spec.insert("policyTypes".into(), types);
    }
}

fn validate_policy(at: &At<'_>, errors: &mut Errors) {
    let spec = at.get("spec");
    label_selector(&spec.get("podSelector"), errors);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.get(direction).items() {
            for own in rule.get("ports").items() {
                policy_port(&own, errors);
            }
            for own in rule.get(peers).items() {
                policy_peer(&own, errors);
            }
        }
    }
    let types = spec.get("policyTypes");
    if types.len() > 2 {
        types.invalid(errors, "may not specify more than two policyTypes");
        return;
    }
    for own in types.items() {
        own.one_of(errors, &["Ingress", "Egress"]);
    }
}

fn policy_port(at: &At<'_>, errors: &mut Errors) {
    at.get("protocol")
        .may_one_of(errors, &["TCP", "UDP", "SCTP"]);
    let (number, end) = (at.get("port"), at.get("endPort"));
    match number.value {
        Value::Null => {
            if end.is_set() {
                end.invalid(errors, "may not be specified when `port` is not specified");
            }
        }
        Value::String(_) => {
            if end.is_set() {
                end.invalid(errors, "may not be specified when `port` is non-numeric");
            }
            number.check(errors, port_name);
        }
        _ => {
            port(&number, errors);
            if end.is_set() {
                if end.int() < number.int() {
                    end.invalid(errors, "must be greater than or equal to `port`");
                }
                port(&end, errors);
            }
        }
    }
}

fn policy_peer(at: &At<'_>, errors: &mut Errors) {
    let selectors = ["podSelector", "namespaceSelector"];
    let mut count = 0;
    for name in selectors.iter().filter(|name| at.has(name)) {
        count += 1;
        label_selector(&at.get(name), errors);
    }
    let block = at.get("ipBlock");
    if block.is_set() {
        ip_block(&block, errors);
        if count > 0 {
            at.forbidden(errors, "may not specify both ipBlock and another peer");
        }
    } else if count == 0 {
        at.required(errors, "must specify a peer");
    }
}

fn ip_block(at: &At<'_>, errors: &mut Errors) {
    let network = at.get("cidr");
    if !network.need(errors) {
        return;
    }
    legacy_cidr(&network, errors);
    let Some((address, length)) = parse_cidr(network.text()) else {
        return;
    };
    for except in at.get("except").items() {
        legacy_cidr(&except, errors);
        let Some((own, own_length)) = parse_cidr(except.text()) else {
            continue;
        };
        let inside = own.is_ipv4() == address.is_ipv4()
            && own_length > length
            && masked(own, length) == masked(address, length);
        if !inside {
            except.invalid_text(errors, "must be a strict subset of `cidr`");
        }
    }
}

fn warn_policy(_: &Value, at: &At<'_>, warnings: &mut Warnings) {
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        let spec = at.get("spec");
        for rule in spec.get(direction).items() {
            for peer in rule.get(peers).items() {
                let block = peer.get("ipBlock");
                if block.is_set() {
                    warnings.network(&block.get("cidr"));
                    for except in block.get("except").items() {
                        warnings.network(&except);
                    }
                }
            }
        }
    }
}

fn validate_address(at: &At<'_>, errors: &mut Errors) {
    let name = at.get("metadata.name");
    if name.is_set() {
        ip(&name, errors);
    }
    let parent = at.get("spec.parentRef");
    if parent.is_null() {
        parent.required(errors, "");
        return;
    }
    parent.get("group").may_check(errors, dns_subdomain);
    parent.get("resource").need_check(errors, path_segment);
    parent.get("name").need_check(errors, path_segment);
    parent.get("namespace").may_check(errors, path_segment);
}

fn ranges(at: &At<'_>, errors: &mut Errors) {
    if at.is_empty() {
        at.required(errors, "at least one CIDR required");
        return;
    }
    if at.len() > 2 {
        let shown = format!("{{\"CIDRs\":{}}}", at.value);
        at.invalid_shown(errors, &shown, "may only hold up to 2 values");
        return;
    }
    for own in at.items() {
        cidr(&own, errors);
    }
    let parsed: Vec<bool> = at
        .items()
        .filter_map(|own| parse_cidr(own.text()).map(|(address, _)| address.is_ipv4()))
        .collect();
    if parsed.len() == 2 && parsed[0] == parsed[1] {
        let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and \
                      2001:db8::/64";
        at.invalid(errors, detail);
    }
}
