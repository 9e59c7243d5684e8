//! The values of each kind's columns, as kubectl's users know them: one function a kind,
//! of the object and the time (seconds since 1970). They stand by subject below; what
//! every cluster shows stands here.
//!
//! Source: `pkg/printers/internalversion` of v1.37, with everything that `-o wide` shows.
//!
//! Invariant: the reference shows the same of the same object (a test holds it).

mod control;
mod network;
mod pods;
mod storage;
mod workloads;

use serde_json::{Value, json};

use super::duration;
use crate::selector::LabelSelector;
use crate::timestamp;

pub use self::pods::pod;

const NONE: &str = "<none>";
const UNKNOWN: &str = "<unknown>";
const UNSET: &str = "<unset>";

/// A kind's cells, of an object and the time in seconds since 1970.
pub type CellsOf = fn(&Value, i64) -> Vec<Value>;

/// The cells of a built-in kind; [`plain`]'s where it has none of its own.
pub fn of(group: &str, version: &str, plural: &str) -> CellsOf {
    match (group, plural) {
        ("", _) => core(plural),
        ("apps" | "batch" | "policy" | "autoscaling", _) => of_workloads(version, plural),
        ("networking.k8s.io" | "discovery.k8s.io", _) => of_network(plural),
        ("storage.k8s.io" | "resource.k8s.io", _) => of_storage(plural),
        ("coordination.k8s.io", "leases") => lease,
        ("events.k8s.io", "events") => events_event,
        _ => of_control(plural),
    }
}

fn core(plural: &str) -> CellsOf {
    match plural {
        "componentstatuses" => control::component_status,
        "configmaps" => config_map,
        "endpoints" => network::endpoints,
        "events" => event,
        "namespaces" => namespace,
        "nodes" => node,
        "persistentvolumeclaims" => storage::claim,
        "persistentvolumes" => storage::volume,
        "pods" => pod,
        "podtemplates" => workloads::pod_template,
        "replicationcontrollers" => workloads::controller,
        "resourcequotas" => control::quota,
        "secrets" => secret,
        "serviceaccounts" => aged,
        "services" => service,
        _ => plain,
    }
}

fn of_workloads(version: &str, plural: &str) -> CellsOf {
    match plural {
        "controllerrevisions" => workloads::controller_revision,
        "cronjobs" => workloads::cron_job,
        "daemonsets" => workloads::daemon_set,
        "deployments" => workloads::deployment,
        "horizontalpodautoscalers" if version == "v1" => workloads::autoscaler_v1,
        "horizontalpodautoscalers" => workloads::autoscaler,
        "jobs" => workloads::job,
        "poddisruptionbudgets" => workloads::disruption_budget,
        "replicasets" => workloads::replica_set,
        "statefulsets" => workloads::stateful_set,
        _ => plain,
    }
}

fn of_network(plural: &str) -> CellsOf {
    match plural {
        "endpointslices" => network::endpoint_slice,
        "ingressclasses" => network::ingress_class,
        "ingresses" => network::ingress,
        "ipaddresses" => network::ip_address,
        "networkpolicies" => network::network_policy,
        "servicecidrs" => network::service_cidr,
        _ => plain,
    }
}

fn of_storage(plural: &str) -> CellsOf {
    match plural {
        "csidrivers" => storage::csi_driver,
        "csinodes" => storage::csi_node,
        "deviceclasses" | "resourceclaimtemplates" => aged,
        "devicetaintrules" => storage::device_taint,
        "resourceclaims" => storage::resource_claim,
        "resourceslices" => storage::resource_slice,
        "storageclasses" => storage::storage_class,
        "volumeattachments" => storage::attachment,
        "volumeattributesclasses" => storage::attributes_class,
        _ => plain,
    }
}

fn of_control(plural: &str) -> CellsOf {
    match plural {
        "apiservices" => control::api_service,
        "certificatesigningrequests" => control::signing_request,
        "clusterrolebindings" | "rolebindings" => control::role_binding,
        "clustertrustbundles" => control::trust_bundle,
        "customresourcedefinitions" => control::definition,
        "flowschemas" => control::flow_schema,
        "mutatingadmissionpolicies" => control::mutating_policy,
        "mutatingadmissionpolicybindings" | "validatingadmissionpolicybindings" => {
            control::policy_binding
        }
        "mutatingwebhookconfigurations" | "validatingwebhookconfigurations" => control::webhooks,
        "podcertificaterequests" => control::pod_certificate,
        "priorityclasses" => control::priority_class,
        "prioritylevelconfigurations" => control::priority_level,
        "runtimeclasses" => control::runtime_class,
        "storageversionmigrations" => control::migration,
        "validatingadmissionpolicies" => control::validating_policy,
        _ => plain,
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn strings(value: &Value) -> Vec<&str> {
    list(value).iter().filter_map(Value::as_str).collect()
}

fn int(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

/// `3/5`.
fn of_all(part: i64, whole: i64) -> Value {
    json!(format!("{part}/{whole}"))
}

/// `thing.group`, or `thing` of the core group.
fn qualified(thing: &str, group: &str) -> String {
    match group {
        "" => thing.to_owned(),
        group => format!("{thing}.{group}"),
    }
}

fn count(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
}

/// A map of labels, by key.
fn labels(map: &Value) -> Value {
    let map = map.as_object().into_iter().flatten();
    let mut pairs: Vec<String> = map
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort();
    json!(or(&pairs.join(","), NONE))
}

/// A selector object.
fn selector(selector: &Value) -> Value {
    match LabelSelector::of_object(selector) {
        Ok(selector) => json!(or(&selector.to_string(), NONE)),
        Err(_) => json!("<error>"),
    }
}

fn has_condition(status: &Value, kind: &str) -> bool {
    let conditions = list(&status["conditions"]);
    conditions
        .iter()
        .any(|own| own["type"] == kind && own["status"] == "True")
}

fn since(time: &Value, now: i64) -> String {
    match time.as_str().and_then(timestamp::parse) {
        Some(instant) => duration::human(now.saturating_sub(instant.seconds)),
        None => UNKNOWN.to_owned(),
    }
}

fn name(object: &Value) -> Value {
    json!(text(&object["metadata"], "name"))
}

/// How long ago the object was made.
pub fn age(object: &Value, now: i64) -> Value {
    json!(since(&object["metadata"]["creationTimestamp"], now))
}

/// When the object was made.
fn created(object: &Value) -> Value {
    let created = text(&object["metadata"], "creationTimestamp");
    json!(or(created, "0001-01-01T00:00:00Z"))
}

/// Name and time of creation: kinds without columns of their own.
pub fn plain(object: &Value, _now: i64) -> Vec<Value> {
    vec![name(object), created(object)]
}

/// Name and age.
pub fn aged(object: &Value, now: i64) -> Vec<Value> {
    vec![name(object), age(object, now)]
}

/// Config maps.
pub fn config_map(object: &Value, now: i64) -> Vec<Value> {
    let data = count(&object["data"]) + count(&object["binaryData"]);
    vec![name(object), json!(data), age(object, now)]
}

/// Secrets.
pub fn secret(object: &Value, now: i64) -> Vec<Value> {
    let data = count(&object["data"]);
    vec![
        name(object),
        json!(text(object, "type")),
        json!(data),
        age(object, now),
    ]
}

/// Namespaces.
pub fn namespace(object: &Value, now: i64) -> Vec<Value> {
    vec![
        name(object),
        json!(text(&object["status"], "phase")),
        age(object, now),
    ]
}

/// Leases.
pub fn lease(object: &Value, now: i64) -> Vec<Value> {
    vec![
        name(object),
        json!(text(&object["spec"], "holderIdentity")),
        age(object, now),
    ]
}

/// Nodes.
pub fn node(node: &Value, now: i64) -> Vec<Value> {
    let (spec, status) = (&node["spec"], &node["status"]);
    let ready = list(&status["conditions"])
        .iter()
        .find(|condition| condition["type"] == "Ready");
    let mut state = match ready {
        Some(condition) if condition["status"] == "True" => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if spec["unschedulable"] == true {
        state.push_str(",SchedulingDisabled");
    }
    let info = &status["nodeInfo"];
    let mut kernel = or(text(info, "kernelVersion"), UNKNOWN).to_owned();
    if !text(info, "architecture").is_empty() {
        kernel = format!("{kernel} ({})", text(info, "architecture"));
    }
    let address = |kind: &str| {
        let addresses = list(&status["addresses"]);
        let found = addresses.iter().find(|address| address["type"] == kind);
        json!(found.map_or(NONE, |address| text(address, "address")))
    };
    vec![
        name(node),
        json!(state),
        json!(roles(node)),
        age(node, now),
        json!(text(info, "kubeletVersion")),
        address("InternalIP"),
        address("ExternalIP"),
        json!(or(text(info, "osImage"), UNKNOWN)),
        json!(kernel),
        json!(or(text(info, "containerRuntimeVersion"), UNKNOWN)),
    ]
}

fn roles(node: &Value) -> String {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    let mut roles: Vec<&str> = labels
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None if key == "kubernetes.io/role" => value.as_str(),
                None => None,
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() {
        NONE.to_owned()
    } else {
        roles.join(",")
    }
}

/// Services.
pub fn service(service: &Value, now: i64) -> Vec<Value> {
    let spec = &service["spec"];
    let internal = spec["clusterIPs"][0].as_str().unwrap_or(NONE);
    let ports: Vec<String> = list(&spec["ports"]).iter().map(port).collect();
    let ports = if ports.is_empty() {
        NONE.to_owned()
    } else {
        ports.join(",")
    };
    vec![
        name(service),
        json!(text(spec, "type")),
        json!(internal),
        json!(external_address(service)),
        json!(ports),
        age(service, now),
        labels(&spec["selector"]),
    ]
}

fn port(port: &Value) -> String {
    let (number, protocol) = (&port["port"], text(port, "protocol"));
    match port["nodePort"].as_i64() {
        Some(node_port) if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
        _ => format!("{number}/{protocol}"),
    }
}

fn external_address(service: &Value) -> String {
    let spec = &service["spec"];
    let own = list(&spec["externalIPs"]).iter().filter_map(Value::as_str);
    match text(spec, "type") {
        "ClusterIP" | "NodePort" => {
            let own: Vec<&str> = own.collect();
            if own.is_empty() {
                NONE.to_owned()
            } else {
                own.join(",")
            }
        }
        "LoadBalancer" => {
            let given = network::balanced(&service["status"]["loadBalancer"]);
            let all: Vec<&str> = given.into_iter().chain(own).collect();
            if all.is_empty() {
                "<pending>".to_owned()
            } else {
                all.join(",")
            }
        }
        "ExternalName" => text(spec, "externalName").to_owned(),
        _ => UNKNOWN.to_owned(),
    }
}

/// Events of the core group.
pub fn event(event: &Value, now: i64) -> Vec<Value> {
    event_cells(
        event,
        &event["involvedObject"],
        [
            "message",
            "source",
            "firstTimestamp",
            "lastTimestamp",
            "count",
            "reportingComponent",
        ],
        now,
    )
}

/// Events of `events.k8s.io`.
pub fn events_event(event: &Value, now: i64) -> Vec<Value> {
    event_cells(
        event,
        &event["regarding"],
        [
            "note",
            "deprecatedSource",
            "deprecatedFirstTimestamp",
            "deprecatedLastTimestamp",
            "deprecatedCount",
            "reportingController",
        ],
        now,
    )
}

fn event_cells(event: &Value, about: &Value, names: [&str; 6], now: i64) -> Vec<Value> {
    let [message, source, first, last, counted, controller] = names;
    let first = match &event[first] {
        Value::Null => since(&event["eventTime"], now),
        time => since(time, now),
    };
    let mut last = match &event[last] {
        Value::Null => first.clone(),
        time => since(time, now),
    };
    let mut times = event[counted].as_i64().unwrap_or(0).max(1);
    if let Some(series) = event["series"].as_object() {
        last = since(series.get("lastObservedTime").unwrap_or(&Value::Null), now);
        times = series.get("count").and_then(Value::as_i64).unwrap_or(0);
    }
    let kind = text(about, "kind").to_lowercase();
    let target = match text(about, "name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let component = or(text(&event[source], "component"), text(event, controller));
    let host = or(
        text(&event[source], "host"),
        text(event, "reportingInstance"),
    );
    let source = if host.is_empty() {
        component.to_owned()
    } else {
        format!("{component}, {host}")
    };
    vec![
        json!(last),
        json!(text(event, "type")),
        json!(text(event, "reason")),
        json!(target),
        json!(text(about, "fieldPath")),
        json!(source),
        json!(text(event, message).trim()),
        json!(first),
        json!(times),
        name(event),
    ]
}
