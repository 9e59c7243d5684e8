//! Pods: defaults, quality of service, grace, binding.
//!
//! Source: `pkg/apis/core/v1/defaults.go`, `pkg/registry/core/pod` and the stock
//! admission plugins (Priority, DefaultTolerationSeconds, ServiceAccount) of
//! v1.37. The ServiceAccount plugin's token volume is not added: no token can be
//! issued yet.

use serde_json::{Map, Value, json};

use super::Context;
use crate::fields;
use crate::quantity::Quantity;
use crate::resource::{self, Resource};
use crate::status::ApiError;
use crate::validation::Errors;

/// Seconds a pod tolerates a node that is not ready or not reachable.
const TOLERATION_SECONDS: i64 = 300;
/// `0644`, the mode of files in volumes.
const FILE_MODE: i64 = 0o644;

const CONTAINER_LISTS: &[&str] = &["containers", "initContainers", "ephemeralContainers"];

pub(super) fn prepare_create(pod: &mut Value, _context: &Context<'_>) {
    let spec = &mut pod["spec"];
    if let Some(spec) = spec.as_object_mut() {
        let own = |key: &str| {
            spec.get(key)
                .and_then(Value::as_str)
                .filter(|t| !t.is_empty())
                .map(str::to_owned)
        };
        let account = own("serviceAccountName").or_else(|| own("serviceAccount"));
        spec.insert(
            "serviceAccountName".into(),
            json!(account.as_deref().unwrap_or("default")),
        );
        set_default(spec, "priority", json!(0));
        set_default(spec, "preemptionPolicy", json!("PreemptLowerPriority"));
        add_tolerations(spec);
    }
    let qos = quality_of_service(pod);
    let mut status = json!({"phase": "Pending", "qosClass": qos});
    if pod["spec"]["schedulingGates"]
        .as_array()
        .is_some_and(|gates| !gates.is_empty())
    {
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
    pod["status"] = status;
}

fn add_tolerations(spec: &mut Map<String, Value>) {
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    if tolerations.is_null() {
        *tolerations = json!([]);
    }
    let Some(list) = tolerations.as_array_mut() else {
        return;
    };
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let tolerated = list.iter().any(|toleration| {
            let text = |name: &str| toleration[name].as_str().unwrap_or_default();
            (text("key") == key || text("key").is_empty())
                && matches!(text("effect"), "NoExecute" | "")
        });
        if !tolerated {
            list.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": TOLERATION_SECONDS,
            }));
        }
    }
}

pub(super) fn prepare_update(subresource: Option<&str>, old: &Value, pod: &mut Value) {
    match subresource {
        Some("status") => {
            let map = &mut pod["metadata"];
            if let Some(metadata) = map.as_object_mut() {
                match old["metadata"].get("ownerReferences") {
                    Some(owners) => metadata.insert("ownerReferences".into(), owners.clone()),
                    None => metadata.remove("ownerReferences"),
                };
            }
            if pod["status"]["qosClass"]
                .as_str()
                .unwrap_or_default()
                .is_empty()
            {
                pod["status"]["qosClass"] = old["status"]["qosClass"].clone();
            }
        }
        Some("ephemeralcontainers") => {
            let added = pod["spec"]["ephemeralContainers"].clone();
            let version = pod["metadata"]["resourceVersion"].clone();
            *pod = old.clone();
            pod["spec"]["ephemeralContainers"] = added;
            pod["metadata"]["resourceVersion"] = version;
        }
        _ => {
            let kept = old["spec"]["ephemeralContainers"].clone();
            pod["spec"]["ephemeralContainers"] = kept;
        }
    }
}

fn set_default(map: &mut Map<String, Value>, key: &str, value: Value) {
    let absent = map.get(key).is_none_or(|own| own.is_null() || own == "");
    if absent {
        map.insert(key.to_owned(), value);
    }
}

fn set_nonzero(map: &mut Map<String, Value>, key: &str, value: i64) {
    if map.get(key).and_then(Value::as_i64).unwrap_or(0) == 0 {
        map.insert(key.to_owned(), json!(value));
    }
}

pub(super) fn default(pod: &mut Value) {
    let Some(spec) = pod["spec"].as_object_mut() else {
        return;
    };
    default_spec(spec);
    let host_network = spec.get("hostNetwork") == Some(&json!(true));
    for name in CONTAINER_LISTS {
        for container in list_mut(spec, name) {
            default_container(container, host_network && *name != "ephemeralContainers");
        }
    }
    for volume in list_mut(spec, "volumes") {
        default_volume(volume);
    }
    default_pod_ips(&mut pod["status"]);
}

fn list_mut<'a>(
    map: &'a mut Map<String, Value>,
    name: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    map.get_mut(name)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

fn default_spec(spec: &mut Map<String, Value>) {
    let account = spec.get("serviceAccountName").cloned().unwrap_or_default();
    if account.as_str().unwrap_or_default().is_empty() {
        let old_name = spec.get("serviceAccount").cloned().unwrap_or_default();
        spec.insert("serviceAccountName".into(), old_name);
    }
    let account = spec.get("serviceAccountName").cloned().unwrap_or_default();
    spec.insert("serviceAccount".into(), account);
    set_default(spec, "dnsPolicy", json!("ClusterFirst"));
    set_default(spec, "restartPolicy", json!("Always"));
    set_default(spec, "securityContext", json!({}));
    set_default(spec, "terminationGracePeriodSeconds", json!(30));
    if spec
        .get("terminationGracePeriodSeconds")
        .and_then(Value::as_i64)
        .is_some_and(|s| s < 0)
    {
        spec.insert("terminationGracePeriodSeconds".into(), json!(1));
    }
    set_default(spec, "schedulerName", json!("default-scheduler"));
    set_default(spec, "enableServiceLinks", json!(true));
}

fn default_container(container: &mut Map<String, Value>, host_network: bool) {
    let image = container
        .get("image")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let policy = if pulls_always(image) {
        "Always"
    } else {
        "IfNotPresent"
    };
    set_default(container, "imagePullPolicy", json!(policy));
    set_default(
        container,
        "terminationMessagePath",
        json!("/dev/termination-log"),
    );
    set_default(container, "terminationMessagePolicy", json!("File"));
    for port in list_mut(container, "ports") {
        set_default(port, "protocol", json!("TCP"));
        if host_network {
            let own = port
                .get("containerPort")
                .and_then(Value::as_i64)
                .unwrap_or(0);
            set_nonzero(port, "hostPort", own);
        }
    }
    for variable in list_mut(container, "env") {
        if let Some(from) = variable.get_mut("valueFrom").and_then(Value::as_object_mut) {
            default_field_ref(from);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(name).and_then(Value::as_object_mut) {
            default_probe(probe);
        }
    }
    if let Some(lifecycle) = container
        .get_mut("lifecycle")
        .and_then(Value::as_object_mut)
    {
        for name in ["postStart", "preStop"] {
            if let Some(handler) = lifecycle.get_mut(name).and_then(Value::as_object_mut) {
                default_http_get(handler);
            }
        }
    }
    if let Some(resources) = container
        .get_mut("resources")
        .and_then(Value::as_object_mut)
    {
        default_resources(resources);
    }
}

fn default_probe(probe: &mut Map<String, Value>) {
    for (name, value) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        set_nonzero(probe, name, value);
    }
    default_http_get(probe);
    if let Some(grpc) = probe.get_mut("grpc").and_then(Value::as_object_mut) {
        set_default(grpc, "service", json!(""));
    }
}

fn default_http_get(handler: &mut Map<String, Value>) {
    if let Some(get) = handler.get_mut("httpGet").and_then(Value::as_object_mut) {
        set_default(get, "path", json!("/"));
        set_default(get, "scheme", json!("HTTP"));
    }
}

fn default_field_ref(owner: &mut Map<String, Value>) {
    if let Some(field) = owner.get_mut("fieldRef").and_then(Value::as_object_mut) {
        set_default(field, "apiVersion", json!("v1"));
    }
}

/// Requests default to limits; both are rounded up to the thousandth.
fn default_resources(resources: &mut Map<String, Value>) {
    for name in ["limits", "requests"] {
        let map = resources.get_mut(name).and_then(Value::as_object_mut);
        for value in map.into_iter().flat_map(Map::values_mut) {
            let text = value.as_str().unwrap_or_default();
            if let Ok(quantity) = Quantity::parse(text) {
                *value = json!(quantity.rounded_up_to_milli().canonical());
            }
        }
    }
    let limits = resources
        .get("limits")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    if limits.is_empty() {
        return;
    }
    let requests = resources.entry("requests").or_insert_with(|| json!({}));
    if requests.is_null() {
        *requests = json!({});
    }
    for (name, value) in limits {
        if let Some(requests) = requests.as_object_mut() {
            requests.entry(name).or_insert(value);
        }
    }
}

fn default_volume(volume: &mut Map<String, Value>) {
    if volume
        .iter()
        .all(|(name, value)| name == "name" || value.is_null())
    {
        volume.insert("emptyDir".into(), json!({}));
    }
    for name in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(name).and_then(Value::as_object_mut) {
            set_default(source, "defaultMode", json!(FILE_MODE));
            default_volume_source(source);
        }
    }
    if let Some(path) = volume.get_mut("hostPath").and_then(Value::as_object_mut) {
        set_default(path, "type", json!(""));
    }
    if let Some(image) = volume.get_mut("image").and_then(Value::as_object_mut) {
        let reference = image
            .get("reference")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let policy = if pulls_always(reference) {
            "Always"
        } else {
            "IfNotPresent"
        };
        set_default(image, "pullPolicy", json!(policy));
    }
    if let Some(claim) = volume
        .get_mut("ephemeral")
        .and_then(|e| e.get_mut("volumeClaimTemplate"))
        && let Some(spec) = claim.get_mut("spec").and_then(Value::as_object_mut)
    {
        set_default(spec, "volumeMode", json!("Filesystem"));
    }
}

fn default_volume_source(source: &mut Map<String, Value>) {
    for item in list_mut(source, "items") {
        default_field_ref(item);
    }
    for part in list_mut(source, "sources") {
        if let Some(token) = part
            .get_mut("serviceAccountToken")
            .and_then(Value::as_object_mut)
        {
            set_default(token, "expirationSeconds", json!(3600));
        }
        if let Some(downward) = part.get_mut("downwardAPI").and_then(Value::as_object_mut) {
            for item in list_mut(downward, "items") {
                default_field_ref(item);
            }
        }
    }
}

fn default_pod_ips(status: &mut Value) {
    let one = status["podIP"].as_str().unwrap_or_default().to_owned();
    let first = status["podIPs"][0]["ip"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let Some(status) = status.as_object_mut() else {
        return;
    };
    match (one.is_empty(), first.is_empty()) {
        (false, _) if one != first => {
            status.insert("podIPs".into(), json!([{"ip": one}]));
        }
        (true, false) => {
            status.insert("podIP".into(), json!(first));
        }
        _ => {}
    }
}

/// Whether the tag is `latest`, stated or not; a digest is no tag.
fn pulls_always(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    match name.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => !image.is_empty(),
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn quality_of_service(pod: &Value) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    let containers = ["containers", "initContainers"]
        .iter()
        .flat_map(|name| pod["spec"][*name].as_array().into_iter().flatten());
    for container in containers {
        let amount = |list: &str, name: &str| {
            let text = container["resources"][list][name].as_str()?;
            Quantity::parse(text)
                .ok()
                .filter(|quantity| !quantity.is_zero())
        };
        for name in ["cpu", "memory"] {
            let limit = amount("limits", name);
            let request = amount("requests", name).or_else(|| limit.clone());
            any |= request.is_some();
            guaranteed &= limit.is_some() && request == limit;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

pub(super) fn grace_seconds(pod: &Value, asked: Option<i64>) -> Option<i64> {
    let own = pod["spec"]["terminationGracePeriodSeconds"].as_i64();
    let seconds = asked.or(own).unwrap_or(0);
    let unscheduled = pod["spec"]["nodeName"]
        .as_str()
        .unwrap_or_default()
        .is_empty();
    let ended = matches!(
        pod["status"]["phase"].as_str(),
        Some("Failed" | "Succeeded")
    );
    Some(match (unscheduled || ended, seconds) {
        (true, _) => 0,
        (false, seconds) if seconds < 0 => 1,
        (false, seconds) => seconds,
    })
}

/// Puts a pod on the node that a `Binding` names.
pub(super) fn bind(pod: &Value, binding: &Value, context: &Context<'_>) -> Result<Value, ApiError> {
    let Some(pods) = resource::find("", "v1", "pods") else {
        return Err(ApiError::path_not_found());
    };
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    check_binding(pods, name, pod, binding)?;
    let node = binding["target"]["name"].as_str().unwrap_or_default();
    let mut bound = pod.clone();
    bound["spec"]["nodeName"] = json!(node);
    if let Some(annotations) = binding["metadata"]["annotations"].as_object() {
        for (key, value) in annotations {
            bound["metadata"]["annotations"][key] = value.clone();
        }
    }
    set_condition(
        &mut bound["status"],
        &json!({
            "type": "PodScheduled", "status": "True",
            "lastProbeTime": null, "lastTransitionTime": context.now,
        }),
    );
    if let Some(generation) = pod["metadata"]["generation"].as_i64() {
        bound["metadata"]["generation"] = json!(generation + 1);
    }
    fields::conform(&pods.schema, &bound)
}

fn check_binding(
    pods: &Resource,
    name: &str,
    pod: &Value,
    binding: &Value,
) -> Result<(), ApiError> {
    let target = &binding["target"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut errors = Errors::new();
    if !matches!(text(&target["kind"]).as_str(), "" | "Node") {
        errors.not_supported("target.kind", &text(&target["kind"]), &["Node", "<empty>"]);
    }
    if text(&target["name"]).is_empty() {
        errors.required("target.name", "");
    }
    if !errors.is_empty() {
        let bindings = resource::find("", "v1", "bindings").map_or(pods, AsRef::as_ref);
        return Err(ApiError::invalid(bindings, name, errors.into_causes()));
    }
    let refuse = |why: &str| Err(ApiError::conflict_on("pods/binding", name, why));
    let (asked, uid) = (
        text(&binding["metadata"]["uid"]),
        text(&pod["metadata"]["uid"]),
    );
    if !asked.is_empty() && asked != uid {
        return refuse(&format!(
            "Precondition failed: UID in precondition: {asked}, UID in object meta: {uid}"
        ));
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return refuse(&format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        ));
    }
    let node = text(&pod["spec"]["nodeName"]);
    if !node.is_empty() {
        return refuse(&format!(
            "pod {name} is already assigned to node \"{node}\""
        ));
    }
    if pod["spec"]["schedulingGates"]
        .as_array()
        .is_some_and(|gates| !gates.is_empty())
    {
        return refuse(&format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    Ok(())
}

/// Replaces the condition of that type, or adds it.
fn set_condition(status: &mut Value, condition: &Value) {
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(list) = status["conditions"].as_array_mut() else {
        return;
    };
    match list.iter_mut().find(|own| own["type"] == condition["type"]) {
        Some(own) => *own = condition.clone(),
        None => list.push(condition.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_latest_tag_is_pulled_always() {
        for (image, always) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("nginx:1", false),
            ("localhost:5000/nginx", true),
            ("nginx@sha256:00", false),
        ] {
            assert_eq!(pulls_always(image), always, "{image}");
        }
    }
}
