//! Services.
//!
//! Addresses and ports are chosen elsewhere, before these checks; what was not chosen
//! is not missed here.
//!
//! Source: `pkg/apis/core/v1/defaults.go`, `pkg/registry/core/service`,
//! `ValidateService`, `pkg/api/service/warnings.go` of v1.37.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::Context;
use super::defaults::{list_mut, object_mut, set_default};
use super::warnings::Warnings;
use crate::validation::common::{legacy_cidr, legacy_ip, parse_ip, port, port_or_name};
use crate::validation::{At, Errors, dns_label, dns_subdomain, labels, qualified_name};

pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

pub(super) fn is_empty_list(value: &Value) -> bool {
    value.as_array().is_none_or(Vec::is_empty)
}

/// Whether something outside the cluster may reach it.
pub(super) fn is_external(spec: &Value) -> bool {
    match text(spec, "type") {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => !is_empty_list(&spec["externalIPs"]),
        _ => false,
    }
}

pub(super) fn needs_health_check(spec: &Value) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

pub(super) fn is_headless(spec: &Value) -> bool {
    spec["clusterIPs"] == json!(["None"])
}

pub(super) fn default(service: &mut Value) {
    let balanced = service["spec"]["type"] == "LoadBalancer";
    if let Some(spec) = service["spec"].as_object_mut() {
        set_default(spec, "sessionAffinity", json!("None"));
        let affinity = spec["sessionAffinity"].as_str().unwrap_or_default();
        match affinity {
            "None" => {
                spec.remove("sessionAffinityConfig");
            }
            "ClientIP" => {
                let config = spec.get("sessionAffinityConfig");
                let seconds = config.and_then(|own| own.pointer("/clientIP/timeoutSeconds"));
                if seconds.is_none_or(Value::is_null) {
                    let config = json!({"clientIP": {"timeoutSeconds": 10800}});
                    spec.insert("sessionAffinityConfig".into(), config);
                }
            }
            _ => {}
        }
        set_default(spec, "type", json!("ClusterIP"));
        for own in list_mut(spec, "ports") {
            set_default(own, "protocol", json!("TCP"));
            let target = own.get("targetPort").unwrap_or(&Value::Null);
            if target.is_null() || target == 0 || target == "" {
                let number = own.get("port").cloned().unwrap_or(json!(0));
                own.insert("targetPort".into(), number);
            }
        }
        if balanced {
            set_default(spec, "allocateLoadBalancerNodePorts", json!(true));
        }
    }
    let spec = &service["spec"];
    let external = is_external(spec) && text(spec, "externalTrafficPolicy").is_empty();
    let internal = spec["internalTrafficPolicy"].is_null()
        && matches!(
            text(spec, "type"),
            "ClusterIP" | "NodePort" | "LoadBalancer"
        );
    if let Some(spec) = service["spec"].as_object_mut() {
        if external {
            spec.insert("externalTrafficPolicy".into(), json!("Cluster"));
        }
        if internal {
            spec.insert("internalTrafficPolicy".into(), json!("Cluster"));
        }
    }
    if balanced
        && let Some(status) = service["status"].as_object_mut()
        && let Some(balancer) = object_mut(status, "loadBalancer")
    {
        for ingress in list_mut(balancer, "ingress") {
            let has_ip = ingress.get("ip").and_then(Value::as_str);
            if has_ip.is_some_and(|ip| !ip.is_empty()) {
                set_default(ingress, "ipMode", json!("VIP"));
            }
        }
    }
}

/// Both forms of the address agree, and the families are those of the addresses; one
/// where there is none. The server's doing, not the client's: nobody owns these fields.
pub(super) fn default_families(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    let address = text(spec, "clusterIP").to_owned();
    if !address.is_empty() && is_empty_list(&spec["clusterIPs"]) {
        spec["clusterIPs"] = json!([address]);
    }
    if text(spec, "type") == "ExternalName" {
        return;
    }
    let policy = text(spec, "ipFamilyPolicy").to_owned();
    let mut families: Vec<&str> = spec["clusterIPs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|own| parse_ip(own.as_str()?))
        .map(|own| if own.is_ipv4() { "IPv4" } else { "IPv6" })
        .collect();
    let stated = spec["ipFamilies"].as_array().map_or(0, Vec::len);
    if policy.is_empty() {
        let dual = stated == 2 || families.len() == 2;
        let policy = if dual {
            "RequireDualStack"
        } else {
            "SingleStack"
        };
        spec["ipFamilyPolicy"] = json!(policy);
    }
    if stated == 0 {
        if families.is_empty() {
            families.push("IPv4");
        }
        spec["ipFamilies"] = json!(families);
    }
}

pub(super) fn prepare_create(service: &mut Value, _context: &Context<'_>) {
    service["status"] = json!({"loadBalancer": {}});
    default_families(&mut service["spec"]);
}

pub(super) fn validate(at: &At<'_>, errors: &mut Errors) {
    let spec = at.get("spec");
    let kind = spec.str("type");
    let headless = is_headless(spec.value);
    let notes = at.get("metadata.annotations");
    let (hints, mode) = (
        "service.kubernetes.io/topology-aware-hints",
        notes.key("service.kubernetes.io/topology-mode"),
    );
    if mode.is_set() && notes.has(hints) && mode.text() != notes.str(hints) {
        let detail = format!("must match annotations[{hints}] when both are specified");
        mode.invalid_text(errors, &detail);
    }
    let ports = spec.get("ports");
    if ports.is_empty() && !headless && kind != "ExternalName" {
        ports.required(errors, "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let detail = format!("may not be set to 'None' for {kind} services");
            spec.get("clusterIPs").item(0).invalid_text(errors, &detail);
        }
        "ExternalName" => external_name(&spec, errors),
        _ => {}
    }
    let mut names = BTreeSet::new();
    for own in ports.items() {
        service_port(&own, ports.len() > 1, &mut names, errors);
    }
    labels(errors, "spec.selector", spec.value.get("selector"));
    affinity(&spec, errors);
    addresses(&spec, errors);
    for address in spec.get("externalIPs").items() {
        if legacy_ip(&address, errors) {
            endpoint_ip(&address, errors);
        }
    }
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    spec.get("type").choice(errors, &kinds);
    unique_ports(&ports, kind, errors);
    source_ranges(at, &spec, errors);
    balancer(&spec, errors);
    policies(&spec, errors);
}

fn external_name(spec: &At<'_>, errors: &mut Errors) {
    let detail = "may not be set for ExternalName services";
    for name in ["clusterIPs", "ipFamilies"] {
        if !spec.get(name).is_empty() {
            spec.get(name).forbidden(errors, detail);
        }
    }
    spec.get("ipFamilyPolicy").absent(errors, detail);
    let at = spec.get("externalName");
    let name = at.text().strip_suffix('.').unwrap_or(at.text());
    if name.is_empty() {
        at.required(errors, "");
    }
    for message in dns_subdomain(name).into_iter().filter(|_| !name.is_empty()) {
        at.invalid_as(errors, name, &message);
    }
}

fn service_port<'a>(
    at: &At<'a>,
    needs_name: bool,
    names: &mut BTreeSet<&'a str>,
    errors: &mut Errors,
) {
    let name = at.get("name");
    if name.is_empty() {
        if needs_name {
            name.required(errors, "");
        }
    } else {
        name.check(errors, dns_label);
        if !names.insert(at.str("name")) {
            name.duplicate(errors);
        }
    }
    port(&at.get("port"), errors);
    at.get("protocol").choice(errors, &["SCTP", "TCP", "UDP"]);
    port_or_name(&at.get("targetPort"), errors);
    let protocol = at.get("appProtocol");
    if protocol.is_set() {
        protocol.check(errors, qualified_name);
    }
}

/// `MaxClientIPServiceAffinitySeconds`: a day.
const MAX_AFFINITY_SECONDS: i64 = 86400;

fn affinity(spec: &At<'_>, errors: &mut Errors) {
    let at = spec.get("sessionAffinity");
    at.choice(errors, &["ClientIP", "None"]);
    let config = spec.get("sessionAffinityConfig");
    if at.text() != "ClientIP" {
        if at.text() == "None" {
            config.absent(errors, "must not be set when session affinity is None");
        }
        return;
    }
    let seconds = config.get("clientIP.timeoutSeconds");
    if let Some(own) = seconds.int()
        && !(1..=MAX_AFFINITY_SECONDS).contains(&own)
    {
        let detail = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
        seconds.invalid(errors, &detail);
    }
}

fn addresses(spec: &At<'_>, errors: &mut Errors) {
    if spec.str("type") == "ExternalName" {
        return;
    }
    let (one, all) = (spec.str("clusterIP"), spec.get("clusterIPs"));
    if one.is_empty() {
        if !all.is_empty() {
            let detail = "must be empty when `clusterIP` is not specified";
            all.invalid(errors, detail);
        }
    } else if all.is_empty() {
        all.required(errors, "");
    } else if all.item(0).text() != one {
        all.invalid(errors, "first value must match `clusterIP`");
    }
    let families = spec.get("ipFamilies");
    let mut seen = BTreeSet::new();
    for family in families.items() {
        family.one_of(errors, &["IPv4", "IPv6"]);
        if !seen.insert(family.value.as_str().unwrap_or_default()) {
            family.duplicate(errors);
        }
    }
    let known = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    spec.get("ipFamilyPolicy").may_one_of(errors, &known);
    let mut bad = false;
    for (index, address) in all.items().enumerate() {
        if index == 0 && address.text() == "None" {
            if all.len() > 1 {
                bad = true;
                all.invalid(errors, "'None' must be the first and only value");
            }
            continue;
        }
        bad |= !legacy_ip(&address, errors);
    }
    if all.len() > 2 {
        all.invalid(errors, "may only hold up to 2 values");
    }
    if bad {
        return;
    }
    let parsed: Vec<IpAddr> = all.items().filter_map(|own| parse_ip(own.text())).collect();
    let dual = parsed.iter().any(IpAddr::is_ipv4) && parsed.iter().any(IpAddr::is_ipv6);
    if all.len() > 1 && !dual {
        let detail = "may specify no more than one IP for each IP family";
        all.invalid(errors, detail);
    }
    for (index, (address, family)) in parsed.iter().zip(families.items()).enumerate() {
        let agrees = match family.text() {
            "IPv4" => address.is_ipv4(),
            "IPv6" => address.is_ipv6(),
            _ => true,
        };
        if !agrees {
            let detail = format!(
                "expected an {} value as indicated by `ipFamilies[{index}]`",
                family.text()
            );
            all.item(index).invalid_text(errors, &detail);
        }
    }
}

/// An address where something may listen that others reach.
pub(crate) fn endpoint_ip(at: &At<'_>, errors: &mut Errors) {
    let Some(address) = parse_ip(at.text()) else {
        at.invalid_text(errors, "must be a valid IP address");
        return;
    };
    let (link, multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            (first & 0xffc0 == 0xfe80, first & 0xff0f == 0xff02)
        }
    };
    if address.is_unspecified() {
        let detail = format!("may not be unspecified ({})", at.text());
        at.invalid_text(errors, &detail);
    }
    if address.is_loopback() {
        let detail = "may not be in the loopback range (127.0.0.0/8, ::1/128)";
        at.invalid_text(errors, detail);
    }
    if link {
        let detail = "may not be in the link-local range (169.254.0.0/16, fe80::/10)";
        at.invalid_text(errors, detail);
    }
    if multicast {
        let detail = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)";
        at.invalid_text(errors, detail);
    }
}

fn unique_ports(at: &At<'_>, kind: &str, errors: &mut Errors) {
    let number = |own: &At<'_>, key: &str| own.value.get(key).and_then(Value::as_i64).unwrap_or(0);
    if kind == "ClusterIP" {
        for own in at.items().filter(|own| number(own, "nodePort") != 0) {
            let detail = "may not be used when `type` is 'ClusterIP'";
            own.get("nodePort").forbidden(errors, detail);
        }
    }
    let mut taken = BTreeSet::new();
    for own in at.items() {
        let node = number(&own, "nodePort");
        if node != 0 && !taken.insert((own.str("protocol").to_owned(), node)) {
            own.get("nodePort").duplicate(errors);
        }
    }
    let mut taken = BTreeSet::new();
    for own in at.items() {
        let (protocol, port) = (own.str("protocol"), number(&own, "port"));
        if !taken.insert((protocol.to_owned(), port)) {
            // As the reference prints its own form of a port.
            let shown = json!({
                "Name": "", "Protocol": protocol, "AppProtocol": null, "Port": port,
                "TargetPort": 0, "NodePort": 0,
            });
            own.duplicate_as(errors, shown);
        }
    }
}

const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

fn source_ranges(service: &At<'_>, spec: &At<'_>, errors: &mut Errors) {
    let at = spec
        .get("loadBalancerSourceRanges")
        .named("LoadBalancerSourceRanges");
    let only = "may only be used when `type` is 'LoadBalancer'";
    let balanced = spec.str("type") == "LoadBalancer";
    if !at.is_empty() {
        if !balanced {
            at.forbidden(errors, only);
        }
        for range in at.items() {
            let bare = Value::from(range.text().trim());
            legacy_cidr(&range.with(&bare), errors);
        }
        return;
    }
    let notes = service.get("metadata.annotations");
    let at = notes.key(SOURCE_RANGES);
    if at.is_null() {
        return;
    }
    if !balanced {
        at.forbidden(errors, only);
    }
    let all = at.text().trim();
    for range in all.split(',').filter(|_| !all.is_empty()) {
        let bare = Value::from(range.trim());
        legacy_cidr(&at.with(&bare), errors);
    }
}

fn balancer(spec: &At<'_>, errors: &mut Errors) {
    let only = "may only be used when `type` is 'LoadBalancer'";
    let class = spec.get("loadBalancerClass");
    if spec.str("type") == "LoadBalancer" {
        if class.is_set() {
            class.check(errors, qualified_name);
        }
        return;
    }
    spec.get("allocateLoadBalancerNodePorts")
        .absent(errors, only);
    class.absent(errors, only);
}

fn policies(spec: &At<'_>, errors: &mut Errors) {
    let external = spec.get("externalTrafficPolicy");
    if is_external(spec.value) {
        external.choice(errors, &["Cluster", "Local"]);
    } else if !external.is_empty() {
        let detail = "may only be set for externally-accessible services";
        external.invalid_text(errors, detail);
    }
    let health = spec.get("healthCheckNodePort");
    if health.int().unwrap_or(0) != 0 {
        if needs_health_check(spec.value) {
            port(&health, errors);
        } else {
            let detail = "may only be set when `type` is 'LoadBalancer' and \
                          `externalTrafficPolicy` is 'Local'";
            health.invalid(errors, detail);
        }
    }
    let internal = spec.get("internalTrafficPolicy");
    internal.may_one_of(errors, &["Cluster", "Local"]);
    let known = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    spec.get("trafficDistribution").may_one_of(errors, &known);
}

pub(super) fn validate_subresource(_: &str, old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    let at = new.get("status.loadBalancer");
    let before = old.get("status.loadBalancer");
    let kind = new.value["spec"]["type"].as_str().unwrap_or_default();
    load_balancer_status(&at, &before, kind == "LoadBalancer", errors);
}

/// What a load balancer reports; `allowed`: there may be one.
fn load_balancer_status(at: &At<'_>, old: &At<'_>, allowed: bool, errors: &mut Errors) {
    let list = at.get("ingress");
    if !allowed && !list.is_empty() {
        let detail = "may only be used when `spec.type` is 'LoadBalancer'";
        list.forbidden(errors, detail);
        return;
    }
    let before = old.get("ingress");
    for ingress in list.items() {
        let (ip, mode) = (ingress.get("ip"), ingress.get("ipMode"));
        let known = before.items().any(|own| own.str("ip") == ip.text());
        if !ip.is_empty() && !known {
            legacy_ip(&ip, errors);
        }
        if mode.is_null() {
            if !ip.is_empty() {
                mode.required(errors, "must be specified when `ip` is set");
            }
        } else if ip.is_empty() {
            mode.forbidden(errors, "may not be specified when `ip` is not set");
        } else {
            mode.one_of(errors, &["Proxy", "VIP"]);
        }
        ingress_host(&ingress.get("hostname"), errors);
    }
}

/// A name, not an address.
pub(crate) fn ingress_host(at: &At<'_>, errors: &mut Errors) {
    if at.is_empty() {
        return;
    }
    at.check(errors, dns_subdomain);
    if parse_ip(at.text()).is_some() {
        at.invalid_text(errors, "must be a DNS name, not an IP address");
    }
}

pub(super) fn warn(_: &Value, service: &At<'_>, warnings: &mut Warnings) {
    let spec = service.get("spec");
    let hints = "service.kubernetes.io/topology-aware-hints";
    if service.get("metadata.annotations").has(hints) {
        warnings.push(format!(
            "annotation {hints} is deprecated, please use service.kubernetes.io/topology-mode instead"
        ));
    }
    let (kind, address) = (spec.str("type"), spec.str("clusterIP"));
    if !address.is_empty() && address != "None" {
        for own in spec.get("clusterIPs").items() {
            warnings.address(&own);
        }
    }
    let headless = kind == "ClusterIP" && address == "None";
    let external = spec.get("externalIPs");
    if headless {
        let what = [
            ("loadBalancerIP", !spec.str("loadBalancerIP").is_empty()),
            ("externalIPs", !external.is_empty()),
            ("SessionAffinity", spec.str("sessionAffinity") != "None"),
        ];
        for (name, _) in what.iter().filter(|(_, ignored)| *ignored) {
            warnings.push(format!("spec.{name} is ignored for headless services"));
        }
    }
    for own in external.items() {
        warnings.address(&own);
    }
    if !external.is_empty() && !headless && kind != "ExternalName" {
        let why =
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters";
        warnings.push(why.to_owned());
    }
    if !spec.str("loadBalancerIP").is_empty() {
        warnings.address(&spec.get("loadBalancerIP"));
    }
    for range in spec.get("loadBalancerSourceRanges").items() {
        warnings.network(&range);
    }
    if kind == "ExternalName" && !external.is_empty() {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if kind != "ExternalName" && !spec.str("externalName").is_empty() {
        let why = "spec.externalName is ignored when spec.type is not \"ExternalName\"";
        warnings.push(why.to_owned());
    }
    if spec.str("trafficDistribution") == "PreferClose" {
        let why = "\"PreferClose\" is deprecated; use \"PreferSameZone\"";
        warnings.add(&spec.get("trafficDistribution"), why);
    }
}
