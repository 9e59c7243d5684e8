//! The pods behind a service, and what a pod offers to it.

use std::net::IpAddr;
use std::sync::Arc;

use nautilus_machinery::allocation::family_of;
use serde_json::{Map, Value, json};

use crate::controller::Change;
use crate::kind;
use crate::object;
use crate::view::{Key, View, Within};

/// The labels that a service's pods have; `None`: its endpoints are not kept here.
pub(super) fn selector(service: &Value) -> Option<&Map<String, Value>> {
    let selector = service["spec"]["selector"].as_object();
    selector.filter(|selector| !selector.is_empty())
}

/// The same, of a service that is not just another name.
pub(super) fn kept_selector(service: &Value) -> Option<&Map<String, Value>> {
    selector(service).filter(|_| service["spec"]["type"] != "ExternalName")
}

fn selects(selector: &Map<String, Value>, pod: &Value) -> bool {
    let labels = &pod["metadata"]["labels"];
    selector.iter().all(|(name, value)| labels[name] == *value)
}

/// The pods that a selector finds, by name.
pub(super) fn pods(
    view: &dyn View,
    namespace: &str,
    selector: &Map<String, Value>,
) -> Vec<Arc<Value>> {
    let mut pods = view.list(kind::PODS, Within::Namespace(namespace));
    pods.retain(|pod| selects(selector, pod));
    pods
}

/// The services that a pod is, or was, behind.
pub(super) fn services_of(view: &dyn View, namespace: &str, pods: &[&Value], keys: &mut Vec<Key>) {
    for service in view.list(kind::SERVICES, Within::Namespace(namespace)) {
        let Some(selector) = kept_selector(&service) else {
            continue;
        };
        if pods.iter().any(|pod| selects(selector, pod)) {
            keys.push(Key::of(&service));
        }
    }
}

/// The services whose endpoints may be others after the change of a pod.
pub(super) fn after_pod(view: &dyn View, change: &Change, keys: &mut Vec<Key>) {
    if let (Some(before), Some(after)) = (&change.before, &change.after)
        && offers(before) == offers(after)
    {
        return;
    }
    let versions: Vec<&Value> = change.versions().collect();
    let namespace = object::namespace(change.object());
    services_of(view, namespace, &versions, keys);
}

/// Everything of a pod that endpoints tell.
fn offers(pod: &Value) -> impl PartialEq + '_ {
    (
        &pod["metadata"]["labels"],
        &pod["spec"]["nodeName"],
        (&pod["spec"]["hostname"], &pod["spec"]["subdomain"]),
        &pod["status"]["podIPs"],
        object::is_ready(pod),
        object::is_finished(pod),
        object::is_deleted(pod),
    )
}

/// Whether a pod has an address and has not ended.
pub(super) fn is_reachable(pod: &Value) -> bool {
    !object::is_finished(pod) && object::items(&pod["status"]["podIPs"]).next().is_some()
}

/// The pod's addresses of a family (`IPv4`, `IPv6`), in their usual form.
pub(super) fn addresses(pod: &Value, family: &str) -> Vec<String> {
    let all = object::items(&pod["status"]["podIPs"]);
    let parsed = all.filter_map(|one| one["ip"].as_str()?.parse::<IpAddr>().ok());
    parsed
        .filter(|address| family_of(*address) == family)
        .map(|address| address.to_string())
        .collect()
}

/// The families that a service's endpoints have, those of its addresses.
pub(super) fn families(service: &Value) -> Vec<&str> {
    let spec = &service["spec"];
    let told: Vec<&str> = object::items(&spec["ipFamilies"])
        .filter_map(Value::as_str)
        .collect();
    if !told.is_empty() {
        return told;
    }
    let address = spec["clusterIP"].as_str().map(str::parse::<IpAddr>);
    match address {
        Some(Ok(address)) => vec![family_of(address)],
        _ => vec!["IPv4", "IPv6"],
    }
}

/// Whether a service has no address of its own.
pub(super) fn is_headless(service: &Value) -> bool {
    matches!(
        service["spec"]["clusterIP"].as_str(),
        None | Some("" | "None")
    )
}

/// Whether pods that are not ready are published as if they were.
pub(super) fn publishes_not_ready(service: &Value) -> bool {
    service["spec"]["publishNotReadyAddresses"] == true
}

/// The ports of a service as the pod has them; those that it does not have are left out.
pub(super) fn ports(service: &Value, pod: &Value) -> Vec<Value> {
    let ports = object::items(&service["spec"]["ports"]);
    ports
        .filter_map(|own| {
            let mut port = json!({
                "name": own["name"].as_str().unwrap_or_default(),
                "port": target(own, pod)?,
                "protocol": protocol(own),
            });
            if let Some(application) = own["appProtocol"].as_str() {
                port["appProtocol"] = application.into();
            }
            Some(port)
        })
        .collect()
}

pub(super) fn protocol(port: &Value) -> &str {
    port["protocol"].as_str().unwrap_or("TCP")
}

fn target(service_port: &Value, pod: &Value) -> Option<i64> {
    let target = &service_port["targetPort"];
    let Some(name) = target.as_str() else {
        return target.as_i64().or(service_port["port"].as_i64());
    };
    let spec = &pod["spec"];
    let sidecars = object::items(&spec["initContainers"])
        .filter(|container| container["restartPolicy"] == "Always");
    let mut ports = object::items(&spec["containers"])
        .chain(sidecars)
        .flat_map(|container| object::items(&container["ports"]));
    let port = ports.find(|own| own["name"] == name && protocol(own) == protocol(service_port))?;
    port["containerPort"].as_i64()
}

/// The name by which a pod is found below the service's, where it has asked for one.
pub(super) fn hostname<'a>(pod: &'a Value, service: &Value) -> Option<&'a str> {
    let spec = &pod["spec"];
    let hostname = spec["hostname"].as_str().filter(|name| !name.is_empty())?;
    (spec["subdomain"] == service["metadata"]["name"]).then_some(hostname)
}

/// `targetRef` of an endpoint.
pub(super) fn target_reference(pod: &Value) -> Value {
    json!({
        "kind": "Pod",
        "namespace": object::namespace(pod),
        "name": object::name(pod),
        "uid": object::uid(pod),
    })
}

/// Since when a pod is as ready as it is.
pub(super) fn ready_since(pod: &Value) -> Option<&str> {
    object::condition(pod, "Ready")?["lastTransitionTime"].as_str()
}

/// The earliest of times in RFC 3339 to the second.
pub(super) fn earliest<'a>(times: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    times.into_iter().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_port_is_the_pods_own_and_an_absent_one_is_left_out() {
        let container = |name: &str, port: u16| json!({"ports": [{"name": name, "containerPort": port, "protocol": "TCP"}]});
        let mut sidecar = container("mesh", 15000);
        sidecar["restartPolicy"] = "Always".into();
        let pod = json!({"spec": {
            "containers": [container("web", 8080)],
            "initContainers": [container("setup", 1), sidecar],
        }});
        let port = |target: Value| json!({"port": 80, "targetPort": target, "protocol": "TCP"});
        for (target, expected) in [
            (json!(9090), Some(9090)),
            (json!("web"), Some(8080)),
            (json!("mesh"), Some(15000)),
            (json!("setup"), None),
            (json!("other"), None),
        ] {
            let service = json!({"spec": {"ports": [port(target.clone())]}});
            let ports = ports(&service, &pod);
            let number = ports.first().and_then(|port| port["port"].as_i64());
            assert_eq!(number, expected, "{target}");
        }
        let other_protocol = json!({"port": 80, "targetPort": "web", "protocol": "UDP"});
        assert_eq!(target(&other_protocol, &pod), None);
    }

    #[test]
    fn families_are_the_services_own() {
        for (spec, expected) in [
            (json!({"ipFamilies": ["IPv6"]}), vec!["IPv6"]),
            (json!({"clusterIP": "10.0.0.1"}), vec!["IPv4"]),
            (json!({"clusterIP": "fd00::1"}), vec!["IPv6"]),
            (json!({"clusterIP": "None"}), vec!["IPv4", "IPv6"]),
        ] {
            assert_eq!(families(&json!({ "spec": spec })), expected);
        }
    }
}
