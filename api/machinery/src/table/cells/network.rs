//! Kinds of the network.

use serde_json::{Value, json};

use super::*;

/// Addresses, ports and hosts shown in full.
const MAX_SHOWN: usize = 3;

fn with_more(shown: &[String], all: usize) -> String {
    let text = shown.join(",");
    match all.checked_sub(MAX_SHOWN).filter(|more| *more > 0) {
        Some(more) => format!("{text} + {more} more..."),
        None if text.is_empty() => UNSET.to_owned(),
        None => text,
    }
}

pub(super) fn endpoints(object: &Value, now: i64) -> Vec<Value> {
    let subsets = list(&object["subsets"]);
    let mut shown = Vec::new();
    let mut all = 0;
    for subset in subsets {
        let addresses = list(&subset["addresses"]);
        let ports = list(&subset["ports"]);
        let each: Vec<Option<i64>> = match ports {
            [] => vec![None],
            ports => ports.iter().map(|port| Some(int(&port["port"]))).collect(),
        };
        for port in each {
            all += addresses.len();
            let left = MAX_SHOWN - shown.len();
            shown.extend(addresses.iter().take(left).map(|address| {
                let address = text(address, "ip");
                match port {
                    None => address.to_owned(),
                    Some(port) if address.contains(':') => format!("[{address}]:{port}"),
                    Some(port) => format!("{address}:{port}"),
                }
            }));
        }
    }
    let cell = match (subsets.is_empty(), all) {
        (true, _) => NONE.to_owned(),
        (false, 0) => String::new(),
        (false, all) => with_more(&shown, all),
    };
    vec![name(object), json!(cell), age(object, now)]
}

pub(super) fn endpoint_slice(object: &Value, now: i64) -> Vec<Value> {
    let ports = list(&object["ports"]);
    let shown: Vec<String> = ports
        .iter()
        .take(MAX_SHOWN)
        .map(|port| match (&port["port"], &port["name"]) {
            (Value::Number(number), _) => number.to_string(),
            (_, Value::String(name)) => name.clone(),
            _ => "*".to_owned(),
        })
        .collect();
    let addresses = list(&object["endpoints"])
        .iter()
        .flat_map(|endpoint| list(&endpoint["addresses"]))
        .map(|address| address.as_str().unwrap_or_default().to_owned());
    let addresses: Vec<String> = addresses.collect();
    let first = addresses.get(..MAX_SHOWN).unwrap_or(&addresses);
    vec![
        name(object),
        json!(text(object, "addressType")),
        json!(with_more(&shown, ports.len())),
        json!(with_more(first, addresses.len())),
        age(object, now),
    ]
}

pub(super) fn ingress(object: &Value, now: i64) -> Vec<Value> {
    let spec = &object["spec"];
    let ports = match list(&spec["tls"]) {
        [] => "80",
        _ => "80, 443",
    };
    vec![
        name(object),
        json!(spec["ingressClassName"].as_str().unwrap_or(NONE)),
        json!(hosts(list(&spec["rules"]))),
        json!(balanced(&object["status"]["loadBalancer"]).join(",")),
        json!(ports),
        age(object, now),
    ]
}

/// Rules without a host count among those that are not shown, as in the reference.
fn hosts(rules: &[Value]) -> String {
    let mut shown: Vec<&str> = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= shown.len() == MAX_SHOWN;
        let host = text(rule, "host");
        if !more && !host.is_empty() {
            shown.push(host);
        }
    }
    match (shown.is_empty(), more) {
        (true, _) => "*".to_owned(),
        (false, true) => {
            let left = rules.len() - MAX_SHOWN;
            format!("{} + {left} more...", shown.join(","))
        }
        (false, false) => shown.join(","),
    }
}

/// Addresses that a load balancer gave.
pub(super) fn balanced(status: &Value) -> Vec<&str> {
    let given = list(&status["ingress"]).iter();
    let given = given.map(|ingress| or(text(ingress, "ip"), text(ingress, "hostname")));
    let mut given: Vec<&str> = given.filter(|address| !address.is_empty()).collect();
    given.sort_unstable();
    given.dedup();
    given
}

pub(super) fn ingress_class(object: &Value, now: i64) -> Vec<Value> {
    let annotations = &object["metadata"]["annotations"];
    let mut own = text(&object["metadata"], "name").to_owned();
    if annotations["ingressclass.kubernetes.io/is-default-class"] == "true" {
        own.push_str(" (default)");
    }
    let parameters = &object["spec"]["parameters"];
    let parameters = match parameters {
        Value::Null => NONE.to_owned(),
        own => {
            let kind = match own["apiGroup"].as_str() {
                Some(group) => format!("{}.{group}", text(own, "kind")),
                None => text(own, "kind").to_owned(),
            };
            format!("{kind}/{}", text(own, "name"))
        }
    };
    vec![
        json!(own),
        json!(text(&object["spec"], "controller")),
        json!(parameters),
        age(object, now),
    ]
}

pub(super) fn network_policy(object: &Value, now: i64) -> Vec<Value> {
    let chosen = &object["spec"]["podSelector"];
    vec![name(object), selector(chosen), age(object, now)]
}

pub(super) fn service_cidr(object: &Value, now: i64) -> Vec<Value> {
    let ranges = strings(&object["spec"]["cidrs"]);
    vec![name(object), json!(ranges.join(",")), age(object, now)]
}

pub(super) fn ip_address(object: &Value, now: i64) -> Vec<Value> {
    let parent = match &object["spec"]["parentRef"] {
        Value::Null => NONE.to_owned(),
        parent => {
            let resource = qualified(text(parent, "resource"), text(parent, "group"));
            let namespace = match text(parent, "namespace") {
                "" => String::new(),
                namespace => format!("/{namespace}"),
            };
            let resource = resource.to_lowercase();
            format!("{resource}{namespace}/{}", text(parent, "name"))
        }
    };
    vec![name(object), json!(parent), age(object, now)]
}
