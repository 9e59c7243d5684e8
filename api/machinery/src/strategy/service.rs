//! Services. No cluster IP is allocated here (there is no allocator yet): a
//! service without one is stored as `None`-less, with `clusterIP` absent, unless
//! the client chose one.
//!
//! Source: `pkg/apis/core/v1/defaults.go`, `pkg/registry/core/service`,
//! `ValidateService` of v1.37.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::Context;
use crate::validation::{self, Errors};

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

pub(super) fn default(service: &mut Value) {
    let spec = &mut service["spec"];
    if !spec.is_object() {
        return;
    }
    if text(spec, "sessionAffinity").is_empty() {
        spec["sessionAffinity"] = json!("None");
    }
    match text(spec, "sessionAffinity") {
        "None" => spec["sessionAffinityConfig"] = Value::Null,
        "ClientIP" if spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].is_null() => {
            spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 10800}});
        }
        _ => {}
    }
    if text(spec, "type").is_empty() {
        spec["type"] = json!("ClusterIP");
    }
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        if text(port, "protocol").is_empty() {
            port["protocol"] = json!("TCP");
        }
        let target = &port["targetPort"];
        if target.is_null() || target == &json!(0) || target == "" {
            port["targetPort"] = port["port"].clone();
        }
    }
    let kind = text(spec, "type").to_owned();
    let external = matches!(kind.as_str(), "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP"
            && spec["externalIPs"]
                .as_array()
                .is_some_and(|l| !l.is_empty()));
    if external && text(spec, "externalTrafficPolicy").is_empty() {
        spec["externalTrafficPolicy"] = json!("Cluster");
    }
    if kind != "ExternalName" {
        if spec["internalTrafficPolicy"].is_null() {
            spec["internalTrafficPolicy"] = json!("Cluster");
        }
        default_families(spec);
    }
    if kind == "LoadBalancer" && spec["allocateLoadBalancerNodePorts"].is_null() {
        spec["allocateLoadBalancerNodePorts"] = json!(true);
    }
}

/// One family, that of the address where there is one; both address fields agree.
fn default_families(spec: &mut Value) {
    let address = text(spec, "clusterIP").to_owned();
    if !address.is_empty() && spec["clusterIPs"].as_array().is_none_or(Vec::is_empty) {
        spec["clusterIPs"] = json!([address]);
    }
    let first = spec["clusterIPs"][0]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if address.is_empty() && !first.is_empty() {
        spec["clusterIP"] = json!(first);
    }
    if spec["ipFamilies"].as_array().is_none_or(Vec::is_empty) {
        let family = if first.contains(':') || address.contains(':') {
            "IPv6"
        } else {
            "IPv4"
        };
        spec["ipFamilies"] = json!([family]);
    }
    if text(spec, "ipFamilyPolicy").is_empty() {
        spec["ipFamilyPolicy"] = json!("SingleStack");
    }
}

pub(super) fn prepare_create(service: &mut Value, _context: &Context<'_>) {
    service["status"] = json!({"loadBalancer": {}});
}

/// What the client left out keeps its value: addresses are given once.
pub(super) fn prepare_update(_subresource: Option<&str>, old: &Value, service: &mut Value) {
    let (before, spec) = (&old["spec"], &mut service["spec"]);
    if !spec.is_object() {
        return;
    }
    let external = |kind: &str| kind == "ExternalName";
    if external(text(before, "type")) || external(text(spec, "type")) {
        return;
    }
    if text(spec, "clusterIP").is_empty() && spec["clusterIPs"].as_array().is_none_or(Vec::is_empty)
    {
        for key in ["clusterIP", "clusterIPs"] {
            spec[key] = before[key].clone();
        }
    }
    for key in ["ipFamilies", "ipFamilyPolicy"] {
        if spec[key].is_null() {
            spec[key] = before[key].clone();
        }
    }
}

pub(super) fn validate(service: &Value, errors: &mut Errors) {
    let spec = &service["spec"];
    let kind = text(spec, "type");
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    if !kinds.contains(&kind) {
        errors.not_supported("spec.type", kind, &kinds);
    }
    let affinities = ["ClientIP", "None"];
    if !affinities.contains(&text(spec, "sessionAffinity")) {
        errors.not_supported(
            "spec.sessionAffinity",
            text(spec, "sessionAffinity"),
            &affinities,
        );
    }
    let headless = text(spec, "clusterIP") == "None";
    let ports = spec["ports"].as_array().map_or(&[][..], Vec::as_slice);
    if kind == "ExternalName" {
        validate_external_name(spec, errors);
    } else if ports.is_empty() && !headless {
        errors.required("spec.ports", "");
    }
    if kind == "LoadBalancer" && headless {
        errors.invalid_text(
            "spec.clusterIP",
            "None",
            "may not be set to 'None' for LoadBalancer services",
        );
    }
    if kind == "NodePort" && headless {
        errors.invalid_text(
            "spec.clusterIPs[0]",
            "None",
            "may not be set to 'None' for NodePort services",
        );
    }
    validate_ports(ports, kind, errors);
    validation::labels(errors, "spec.selector", spec.get("selector"));
    for key in ["clusterIPs", "externalIPs"] {
        for (at, address) in spec[key].as_array().into_iter().flatten().enumerate() {
            let address = address.as_str().unwrap_or_default();
            let none = key == "clusterIPs" && address == "None" && at == 0;
            if !none && address.parse::<IpAddr>().is_err() {
                errors.invalid_text(
                    &format!("spec.{key}[{at}]"),
                    address,
                    "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                );
            }
        }
    }
}

fn validate_external_name(spec: &Value, errors: &mut Errors) {
    let name = text(spec, "externalName").trim_end_matches('.');
    if name.is_empty() {
        errors.required("spec.externalName", "");
    } else {
        errors.each("spec.externalName", name, validation::dns_subdomain(name));
    }
    if !text(spec, "clusterIP").is_empty() {
        errors.forbidden(
            "spec.clusterIPs",
            "may not be set for ExternalName services",
        );
    }
}

fn validate_ports(ports: &[Value], kind: &str, errors: &mut Errors) {
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (at, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{at}]");
        let name = text(port, "name");
        if name.is_empty() {
            if ports.len() > 1 {
                errors.required(&format!("{path}.name"), "");
            }
        } else {
            errors.each(&format!("{path}.name"), name, validation::dns_label(name));
            if !names.insert(name) {
                errors.duplicate(&format!("{path}.name"), &port["name"]);
            }
        }
        let number = port["port"].as_i64().unwrap_or(0);
        for message in validation::port_number(number) {
            errors.invalid(&format!("{path}.port"), &json!(number), &message);
        }
        let protocols = ["SCTP", "TCP", "UDP"];
        let protocol = text(port, "protocol");
        if !protocols.contains(&protocol) {
            errors.not_supported(&format!("{path}.protocol"), protocol, &protocols);
        }
        let target = &port["targetPort"];
        if let Some(number) = target.as_i64() {
            for message in validation::port_number(number) {
                errors.invalid(&format!("{path}.targetPort"), target, &message);
            }
        } else if let Some(name) = target.as_str() {
            errors.each(
                &format!("{path}.targetPort"),
                name,
                validation::port_name(name),
            );
        }
        if !numbers.insert((protocol, number)) {
            // As the reference prints its own form of a port.
            let port = json!({
                "Name": "", "Protocol": protocol, "AppProtocol": null, "Port": number,
                "TargetPort": 0, "NodePort": 0,
            });
            errors.duplicate(&path, &port);
        }
        let node_port = port["nodePort"].as_i64().unwrap_or(0);
        if node_port != 0 && matches!(kind, "ClusterIP" | "ExternalName") {
            let detail = format!("may not be used when `type` is '{kind}'");
            errors.forbidden(&format!("{path}.nodePort"), &detail);
        }
    }
}

pub(super) fn validate_update(old: &Value, new: &Value, errors: &mut Errors) {
    let (old, new) = (&old["spec"], &new["spec"]);
    let external = |spec: &Value| text(spec, "type") == "ExternalName";
    let before = &old["clusterIPs"][0];
    if external(old) || external(new) || before.is_null() || before == &new["clusterIPs"][0] {
        return;
    }
    errors.invalid(
        "spec.clusterIPs[0]",
        &new["clusterIPs"][0],
        "may not change once set",
    );
}
