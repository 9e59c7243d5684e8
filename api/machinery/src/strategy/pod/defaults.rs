//! What a pod or a template of pods is taken to say where it says nothing.
//!
//! Fields of features that the release has turned off are dropped here, as it does.
//!
//! Source: `pkg/apis/core/v1/defaults.go` and its generated callers, `DropDisabledPodFields`
//! of v1.37. Constant defaults of single fields stand in the table of facts.

use serde_json::{Map, Value, json};

use crate::quantity::Quantity;
use crate::strategy::defaults::{list_mut, object_mut, set_default, set_nonzero};

/// `0644`, the mode of files in volumes.
const FILE_MODE: i64 = 0o644;

const CONTAINER_LISTS: &[&str] = &["containers", "initContainers", "ephemeralContainers"];

/// Defaults of a pod: a template's, and those that only a pod has.
pub(crate) fn pod(pod: &mut Value) {
    if let Some(spec) = pod["spec"].as_object_mut() {
        let negative = |value: &Value| value.as_i64().is_some_and(|seconds| seconds < 0);
        if spec
            .get("terminationGracePeriodSeconds")
            .is_some_and(negative)
        {
            spec.insert("terminationGracePeriodSeconds".into(), json!(1));
        }
        pod_spec(spec);
        set_default(spec, "enableServiceLinks", json!(true));
        let host_network = spec.get("hostNetwork") == Some(&json!(true));
        for name in ["containers", "initContainers"] {
            for container in list_mut(spec, name) {
                if let Some(resources) = object_mut(container, "resources") {
                    request_limits(resources);
                }
                if host_network {
                    host_ports(container);
                }
            }
        }
    }
    addresses(&mut pod["status"]);
}

/// Defaults of a template's pods; nothing where there is no template.
pub(crate) fn template(template: &mut Value) {
    if let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) {
        pod_spec(spec);
    } else if let Some(map) = template.as_object_mut() {
        let mut spec = Map::new();
        pod_spec(&mut spec);
        map.insert("spec".into(), Value::Object(spec));
    }
}

fn pod_spec(spec: &mut Map<String, Value>) {
    let own = |spec: &Map<String, Value>, key: &str| {
        let text = spec.get(key).and_then(Value::as_str).unwrap_or_default();
        text.to_owned()
    };
    let mut account = own(spec, "serviceAccountName");
    if account.is_empty() {
        account = own(spec, "serviceAccount");
    }
    if !account.is_empty() || spec.contains_key("serviceAccount") {
        spec.insert("serviceAccountName".into(), json!(account));
        spec.insert("serviceAccount".into(), json!(account));
    }
    set_default(spec, "dnsPolicy", json!("ClusterFirst"));
    set_default(spec, "restartPolicy", json!("Always"));
    set_default(spec, "securityContext", json!({}));
    set_default(spec, "terminationGracePeriodSeconds", json!(30));
    set_default(spec, "schedulerName", json!("default-scheduler"));
    for name in ["schedulingGroup", "evictionResponders"] {
        spec.remove(name);
    }
    for name in CONTAINER_LISTS {
        for own in list_mut(spec, name) {
            container(own);
        }
    }
    for own in list_mut(spec, "volumes") {
        volume(own);
    }
    if let Some(resources) = object_mut(spec, "resources") {
        round_lists(resources);
    }
    round_list(spec.get_mut("overhead"));
}

fn container(container: &mut Map<String, Value>) {
    let image = container.get("image").and_then(Value::as_str);
    let policy = pull_policy(image.unwrap_or_default());
    set_default(container, "imagePullPolicy", json!(policy));
    let path = "/dev/termination-log";
    set_default(container, "terminationMessagePath", json!(path));
    set_default(container, "terminationMessagePolicy", json!("File"));
    for port in list_mut(container, "ports") {
        set_default(port, "protocol", json!("TCP"));
    }
    for variable in list_mut(container, "env") {
        if let Some(from) = object_mut(variable, "valueFrom") {
            field_ref(from);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(own) = object_mut(container, name) {
            probe(own);
        }
    }
    if let Some(lifecycle) = object_mut(container, "lifecycle") {
        lifecycle.remove("stopSignal");
        for name in ["postStart", "preStop"] {
            if let Some(handler) = object_mut(lifecycle, name) {
                http_get(handler);
            }
        }
    }
    if is_empty(container.get("lifecycle")) {
        container.remove("lifecycle");
    }
    for mount in list_mut(container, "volumeMounts") {
        mount.remove("bindMountOptions");
    }
    if let Some(resources) = object_mut(container, "resources") {
        round_lists(resources);
    }
}

fn is_empty(value: Option<&Value>) -> bool {
    value
        .and_then(Value::as_object)
        .is_some_and(|map| map.values().all(Value::is_null))
}

fn probe(probe: &mut Map<String, Value>) {
    for (name, value) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        set_nonzero(probe, name, value);
    }
    http_get(probe);
    if let Some(grpc) = object_mut(probe, "grpc") {
        grpc.remove("mode");
        set_default(grpc, "service", json!(""));
    }
}

fn http_get(handler: &mut Map<String, Value>) {
    if let Some(get) = object_mut(handler, "httpGet") {
        get.remove("protocol");
        set_default(get, "path", json!("/"));
        set_default(get, "scheme", json!("HTTP"));
    }
}

fn field_ref(owner: &mut Map<String, Value>) {
    if let Some(field) = object_mut(owner, "fieldRef") {
        set_default(field, "apiVersion", json!("v1"));
    }
}

fn host_ports(container: &mut Map<String, Value>) {
    for port in list_mut(container, "ports") {
        let own = port.get("containerPort").and_then(Value::as_i64);
        set_nonzero(port, "hostPort", own.unwrap_or(0));
    }
}

/// Limits and requests are rounded up to the thousandth.
fn round_lists(resources: &mut Map<String, Value>) {
    round_list(resources.get_mut("limits"));
    round_list(resources.get_mut("requests"));
}

/// A list of amounts of resources, each rounded up to the thousandth.
pub(crate) fn round_list(list: Option<&mut Value>) {
    let map = list.and_then(Value::as_object_mut);
    for value in map.into_iter().flat_map(Map::values_mut) {
        let text = value.as_str().unwrap_or_default();
        // Whole numbers and thousandths are round: most amounts are.
        let round = text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b"mkMGTPEi".contains(&byte));
        if !round && let Ok(quantity) = Quantity::parse(text) {
            *value = json!(quantity.rounded_up_to_milli().canonical());
        }
    }
}

/// What is limited and not requested is requested up to its limit.
fn request_limits(resources: &mut Map<String, Value>) {
    let limits = match resources.get("limits").and_then(Value::as_object) {
        Some(limits) if !limits.is_empty() => limits.clone(),
        _ => return,
    };
    let requests = resources.entry("requests").or_insert(Value::Null);
    if requests.is_null() {
        *requests = json!({});
    }
    if let Some(requests) = requests.as_object_mut() {
        for (name, value) in limits {
            requests.entry(name).or_insert(value);
        }
    }
}

fn volume(volume: &mut Map<String, Value>) {
    if volume
        .iter()
        .all(|(name, value)| name == "name" || value.is_null())
    {
        volume.insert("emptyDir".into(), json!({}));
    }
    for name in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = object_mut(volume, name) {
            source.remove("defaultUser");
            set_default(source, "defaultMode", json!(FILE_MODE));
            projected(source);
        }
    }
    if let Some(source) = object_mut(volume, "emptyDir") {
        source.remove("mode");
    }
    if let Some(disk) = object_mut(volume, "azureDisk") {
        azure_disk(disk);
    }
    if let Some(path) = object_mut(volume, "hostPath") {
        set_default(path, "type", json!(""));
    }
    if let Some(image) = object_mut(volume, "image") {
        let reference = image.get("reference").and_then(Value::as_str);
        let policy = pull_policy(reference.unwrap_or_default());
        set_default(image, "pullPolicy", json!(policy));
    }
    let claim = volume
        .get_mut("ephemeral")
        .and_then(|ephemeral| ephemeral.get_mut("volumeClaimTemplate"));
    if let Some(claim) = claim {
        claim_spec(&mut claim["spec"]);
    }
}

/// A disk of Azure: shared, and cached both ways.
pub(crate) fn azure_disk(disk: &mut Map<String, Value>) {
    set_default(disk, "cachingMode", json!("ReadWrite"));
    set_default(disk, "kind", json!("Shared"));
}

fn items(source: &mut Map<String, Value>) {
    for item in list_mut(source, "items") {
        item.remove("user");
        field_ref(item);
    }
}

fn projected(source: &mut Map<String, Value>) {
    items(source);
    for part in list_mut(source, "sources") {
        for name in ["secret", "configMap", "downwardAPI"] {
            if let Some(own) = object_mut(part, name) {
                items(own);
            }
        }
        for name in [
            "serviceAccountToken",
            "clusterTrustBundle",
            "podCertificate",
        ] {
            if let Some(own) = object_mut(part, name) {
                own.remove("user");
            }
        }
        if let Some(token) = object_mut(part, "serviceAccountToken") {
            set_default(token, "expirationSeconds", json!(3600));
        }
    }
}

/// What a claim for a volume is taken to ask for.
pub(crate) fn claim_spec(spec: &mut Value) {
    if let Some(map) = spec.as_object_mut() {
        set_default(map, "volumeMode", json!("Filesystem"));
        if let Some(resources) = object_mut(map, "resources") {
            round_lists(resources);
        }
    }
}

fn addresses(status: &mut Value) {
    let Some(status) = status.as_object_mut() else {
        return;
    };
    let one = status.get("podIP").and_then(Value::as_str);
    let one = one.unwrap_or_default().to_owned();
    let first = status.get("podIPs").and_then(|list| list[0]["ip"].as_str());
    let first = first.unwrap_or_default().to_owned();
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

/// An image whose tag is `latest`, stated or not, is pulled each time; a digest is no tag,
/// and what is no image is never asked for.
fn pull_policy(image: &str) -> &'static str {
    let (named, digest) = match image.split_once('@') {
        Some((named, _)) => (named, true),
        None => (image, false),
    };
    let slash = named.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match named[slash..].find(':') {
        Some(colon) => (&named[..slash + colon], &named[slash + colon + 1..]),
        None => (named, if digest { "" } else { "latest" }),
    };
    let path = match name.split_once('/') {
        // A first part with a dot, colon or capital is a host, and may be any.
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => path,
        _ => name,
    };
    let known =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/".contains(&byte);
    let good = !path.is_empty() && path.bytes().all(known);
    if good && tag == "latest" {
        "Always"
    } else {
        "IfNotPresent"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_latest_tag_is_pulled_always() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1", "IfNotPresent"),
            ("localhost:5000/nginx", "Always"),
            ("nginx@sha256:00", "IfNotPresent"),
            ("nginx:latest@sha256:00", "Always"),
            ("NGINX", "IfNotPresent"),
            ("", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
