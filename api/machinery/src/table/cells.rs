//! The values of each kind's columns.

use serde_json::{Value, json};

use super::duration;
use crate::timestamp;

const NONE: &str = "<none>";
const UNKNOWN: &str = "<unknown>";

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn count(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
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

fn age(object: &Value, now: i64) -> Value {
    json!(since(&object["metadata"]["creationTimestamp"], now))
}

/// Name and age.
pub fn plain(object: &Value, now: i64) -> Vec<Value> {
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
    let internal = spec["clusterIPs"][0]
        .as_str()
        .unwrap_or_else(|| text(spec, "clusterIP"));
    let ports: Vec<String> = list(&spec["ports"]).iter().map(port).collect();
    let ports = if ports.is_empty() {
        NONE.to_owned()
    } else {
        ports.join(",")
    };
    let selector = spec["selector"].as_object().into_iter().flatten();
    let mut selector: Vec<String> = selector
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    selector.sort();
    let selector = if selector.is_empty() {
        NONE.to_owned()
    } else {
        selector.join(",")
    };
    vec![
        name(service),
        json!(text(spec, "type")),
        json!(or(internal, NONE)),
        json!(external_address(service)),
        json!(ports),
        age(service, now),
        json!(selector),
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
            let given = list(&service["status"]["loadBalancer"]["ingress"]).iter();
            let given = given.map(|ingress| or(text(ingress, "ip"), text(ingress, "hostname")));
            let mut given: Vec<&str> = given.filter(|address| !address.is_empty()).collect();
            given.sort_unstable();
            given.dedup();
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
    let component = text(&event[source], "component");
    let (component, host) = if component.is_empty() {
        (text(event, controller), text(event, "reportingInstance"))
    } else {
        (component, text(&event[source], "host"))
    };
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

/// Pods.
pub fn pod(pod: &Value, now: i64) -> Vec<Value> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let summary = PodSummary::of(pod);
    let restarts = match (summary.restarts, &summary.last_restart) {
        (0, _) | (_, None) => summary.restarts.to_string(),
        (restarts, Some(time)) => format!("{restarts} ({} ago)", since(&json!(time), now)),
    };
    let gates = list(&spec["readinessGates"]);
    let passed = gates
        .iter()
        .filter(|gate| has_condition(status, text(gate, "conditionType")));
    let gates = match gates.len() {
        0 => NONE.to_owned(),
        all => format!("{}/{all}", passed.count()),
    };
    vec![
        name(pod),
        json!(format!("{}/{}", summary.ready, summary.total)),
        json!(summary.reason),
        json!(restarts),
        age(pod, now),
        json!(or(
            status["podIPs"][0]["ip"].as_str().unwrap_or_default(),
            NONE
        )),
        json!(or(text(spec, "nodeName"), NONE)),
        json!(or(text(status, "nominatedNodeName"), NONE)),
        json!(gates),
    ]
}

fn has_condition(status: &Value, kind: &str) -> bool {
    let conditions = list(&status["conditions"]);
    conditions
        .iter()
        .any(|own| own["type"] == kind && own["status"] == "True")
}

#[derive(Default)]
struct PodSummary {
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<String>,
    reason: String,
}

impl PodSummary {
    fn of(pod: &Value) -> Self {
        let (spec, status) = (&pod["spec"], &pod["status"]);
        let phase = text(status, "phase");
        let mut summary = Self {
            total: list(&spec["containers"]).len()
                + list(&spec["initContainers"])
                    .iter()
                    .filter(|c| is_sidecar(c))
                    .count(),
            reason: or(text(status, "reason"), phase).to_owned(),
            ..Self::default()
        };
        let gated = list(&status["conditions"])
            .iter()
            .any(|own| own["type"] == "PodScheduled" && own["reason"] == "SchedulingGated");
        if gated {
            summary.reason = "SchedulingGated".to_owned();
        }
        let (initializing, sidecars) = summary.initial(spec, status);
        if !initializing || has_condition(status, "Initialized") {
            summary.restarts = sidecars.restarts;
            summary.last_restart = sidecars.last_restart;
            summary.main(status);
        }
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            if text(status, "reason") == "NodeLost" {
                summary.reason = "Unknown".to_owned();
            } else if !matches!(phase, "Failed" | "Succeeded") {
                summary.reason = "Terminating".to_owned();
            }
        }
        summary
    }

    fn count_restarts(&mut self, container: &Value) {
        self.restarts += container["restartCount"].as_i64().unwrap_or(0);
        let finished = container["lastState"]["terminated"]["finishedAt"].as_str();
        if let Some(finished) = finished
            && self
                .last_restart
                .as_deref()
                .is_none_or(|own| own < finished)
        {
            self.last_restart = Some(finished.to_owned());
        }
    }

    /// The init containers: whether they are still at work, and what the
    /// restartable ones among them count.
    fn initial(&mut self, spec: &Value, status: &Value) -> (bool, Self) {
        let mut sidecars = Self::default();
        let containers = list(&spec["initContainers"]);
        for (at, container) in list(&status["initContainerStatuses"]).iter().enumerate() {
            self.count_restarts(container);
            let own = containers.iter().find(|c| c["name"] == container["name"]);
            let sidecar = own.is_some_and(is_sidecar);
            if sidecar {
                sidecars.count_restarts(container);
            }
            let (terminated, waiting) = (
                &container["state"]["terminated"],
                text(&container["state"]["waiting"], "reason"),
            );
            if !terminated.is_null() && terminated["exitCode"].as_i64().unwrap_or(0) == 0 {
                continue;
            }
            if sidecar && container["started"] == true {
                self.ready += usize::from(container["ready"] == true);
                continue;
            }
            self.reason = if !terminated.is_null() {
                format!("Init:{}", end_of(terminated))
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{at}/{}", containers.len())
            };
            return (true, sidecars);
        }
        (false, sidecars)
    }

    fn main(&mut self, status: &Value) {
        let (mut running, mut failure) = (false, String::new());
        for container in list(&status["containerStatuses"]).iter().rev() {
            self.count_restarts(container);
            let state = &container["state"];
            let waiting = text(&state["waiting"], "reason");
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.reason);
            } else if !state["terminated"].is_null() {
                self.reason = end_of(&state["terminated"]);
                if state["terminated"]["exitCode"].as_i64().unwrap_or(0) != 0 {
                    failure.clone_from(&self.reason);
                }
            } else if container["ready"] == true && !state["running"].is_null() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" {
            if running && has_condition(status, "Ready") {
                self.reason = "Running".to_owned();
            } else if !failure.is_empty() {
                self.reason = failure;
            } else if running {
                self.reason = "NotReady".to_owned();
            }
        }
    }
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn end_of(terminated: &Value) -> String {
    let reason = text(terminated, "reason");
    if !reason.is_empty() {
        return reason.to_owned();
    }
    match terminated["signal"].as_i64().unwrap_or(0) {
        0 => format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or(0)),
        signal => format!("Signal:{signal}"),
    }
}
