//! What a cluster holds, without what differs from run to run: uids, times, versions,
//! addresses, drawn names, hashes of templates, and (unless they count) nodes' names.
//! Objects that are then alike are one entry with their count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value, json};

use super::cluster::items_of;
use super::scenario::Placement;

/// Texts that stand for times, uids, addresses, and minutes since 1970 as in jobs' names.
static VARYING: LazyLock<[(Regex, &str); 7]> = LazyLock::new(|| {
    [
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
        (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UID"),
        (r"\b\d{1,3}(\.\d{1,3}){3}\b", "ADDRESS"),
        (r"^Mon|^Tue|^Wed|^Thu|^Fri|^Sat|^Sun", "DAY"),
        (r"-\d{8}\b", "-MINUTE"),
        // Whether preemption would help: asked, the reference fails there ("not found"), as its
        // plugin of devices has not seen the pod yet; ours answers.
        ("(unbound immediate PersistentVolumeClaims\\.) .*$", "$1"),
        // Names of pods that could not be made, in messages.
        (
            r#"-[bcdfghjklmnpqrstvwxz2456789]{5}" is forbidden"#,
            r#"-*" is forbidden"#,
        ),
    ]
    .map(|(pattern, word)| (Regex::new(pattern).expect("a pattern"), word))
});

/// Fields that say when something was, wherever they stand.
const TIMES: [&str; 6] = [
    "lastHeartbeatTime",
    "lastProbeTime",
    "lastTransitionTime",
    "lastUpdateTime",
    "resourceVersion",
    "timeAdded",
];

/// Lists whose order says nothing.
const UNORDERED: [&str; 8] = [
    "addresses",
    "conditions",
    "endpoints",
    "finalizers",
    "notReadyAddresses",
    "ports",
    "subsets",
    "taints",
];

/// What counts of a pod's spec; the rest its author or a default has written.
const POD_SPEC: [&str; 13] = [
    "activeDeadlineSeconds",
    "affinity",
    "hostname",
    "nodeName",
    "nodeSelector",
    "priority",
    "priorityClassName",
    "restartPolicy",
    "schedulerName",
    "schedulingGates",
    "subdomain",
    "tolerations",
    "volumes",
];

/// What counts of a pod's status; the rest kwok has written.
const POD_STATUS: [&str; 6] = [
    "conditions",
    "extendedResourceClaimStatus",
    "nominatedNodeName",
    "phase",
    "qosClass",
    "reason",
];

/// Objects of one moment, each with its `kind`, as they are compared: sorted.
pub(super) fn end_state(
    objects: &[Value],
    nodes: &[Value],
    namespace: &str,
    placement: &Placement,
) -> Value {
    let names = Names::of(objects, nodes, placement);
    let mut counts: BTreeMap<(String, String, String), (Value, u64)> = BTreeMap::new();
    for object in objects {
        let bare = bare(object, namespace, &names);
        let text = |field: &str| bare[field].as_str().unwrap_or_default().to_owned();
        let key = (text("kind"), text("name"), bare.to_string());
        counts.entry(key).or_insert((bare, 0)).1 += 1;
    }
    let mut state: Vec<Value> = Vec::new();
    for (mut bare, count) in counts.into_values() {
        if count > 1 {
            bare["count"] = count.into();
        }
        state.push(bare);
    }
    if let Placement::Spread(label) = placement {
        state.push(json!({
            "kind": "Placement", "name": label, "pods": spread(objects, nodes, label),
        }));
    }
    state.into()
}

/// How many pods are in each domain of a label, most first.
fn spread(objects: &[Value], nodes: &[Value], label: &str) -> Vec<u64> {
    let mut domains: BTreeMap<&str, u64> = BTreeMap::new();
    let pods = objects.iter().filter(|object| object["kind"] == "Pod");
    for pod in pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()) {
        let on = &pod["spec"]["nodeName"];
        let node = nodes.iter().find(|node| node["metadata"]["name"] == *on);
        let domain = node.and_then(|node| node["metadata"]["labels"][label].as_str());
        if let Some(domain) = domain {
            *domains.entry(domain).or_default() += 1;
        }
    }
    let mut counts: Vec<u64> = domains.into_values().collect();
    counts.sort_unstable_by(|one, other| other.cmp(one));
    counts
}

/// Names that were drawn or computed, and what stands for them.
struct Names {
    whole: BTreeMap<String, String>,
    hashes: BTreeSet<String>,
    /// Whether nodes' names count.
    exact: bool,
}

impl Names {
    fn of(objects: &[Value], nodes: &[Value], placement: &Placement) -> Self {
        let mut whole = BTreeMap::new();
        let mut hashes = BTreeSet::new();
        let exact = matches!(placement, Placement::Exact);
        if !exact {
            let names = nodes
                .iter()
                .filter_map(|node| node["metadata"]["name"].as_str());
            whole.extend(names.map(|name| (name.to_owned(), "NODE".to_owned())));
        }
        for object in objects {
            let metadata = &object["metadata"];
            if let (Some(name), Some(prefix)) =
                (metadata["name"].as_str(), metadata["generateName"].as_str())
                && name.starts_with(prefix)
                && name != prefix
            {
                whole.insert(name.to_owned(), format!("{prefix}*"));
            }
            for label in ["pod-template-hash", "controller.kubernetes.io/hash"] {
                if let Some(hash) = metadata["labels"][label].as_str() {
                    hashes.insert(hash.to_owned());
                }
            }
            if let Some(hash) = metadata["labels"]["controller-revision-hash"].as_str() {
                let last = hash.rsplit('-').next().unwrap_or(hash);
                hashes.insert(last.to_owned());
            }
        }
        Self {
            whole,
            hashes,
            exact,
        }
    }

    /// A text as it is compared.
    fn plain(&self, text: &str) -> String {
        let mut plain = match self.whole.get(text) {
            Some(alias) => alias.clone(),
            None => self
                .whole
                .iter()
                .filter(|(name, _)| name.len() > 5)
                .fold(text.to_owned(), |text, (name, alias)| {
                    text.replace(name.as_str(), alias)
                }),
        };
        for hash in &self.hashes {
            plain = plain.replace(hash.as_str(), "HASH");
        }
        for (pattern, word) in &*VARYING {
            plain = pattern.replace_all(&plain, *word).into_owned();
        }
        plain
    }

    /// A value as it is compared: nulls and times left out, texts plain.
    fn value(&self, value: &Value, generation: &Value) -> Value {
        match value {
            Value::String(text) => self.plain(text).into(),
            Value::Array(list) => {
                let list = list.iter().map(|item| self.value(item, generation));
                list.collect::<Vec<_>>().into()
            }
            Value::Object(fields) => {
                let mut plain = Map::new();
                for (field, value) in fields {
                    let value = match field.as_str() {
                        "observedGeneration" => json!(value == generation),
                        field if TIMES.contains(&field) => continue,
                        // Of an endpoint; as its node.
                        "zone" if !self.exact => continue,
                        _ => self.value(value, generation),
                    };
                    plain.insert(self.plain(field), sorted(field, without_empty(value)));
                }
                plain.into()
            }
            other => other.clone(),
        }
    }
}

fn sorted(field: &str, value: Value) -> Value {
    match value {
        Value::Array(mut list) if UNORDERED.contains(&field) => {
            list.sort_by_cached_key(Value::to_string);
            list.into()
        }
        other => other,
    }
}

/// One object as it is compared.
fn bare(object: &Value, namespace: &str, names: &Names) -> Value {
    let metadata = &object["metadata"];
    let kind = object["kind"].as_str().unwrap_or_default();
    let mut bare = json!({ "kind": kind, "name": metadata["name"] });
    if metadata["namespace"]
        .as_str()
        .is_some_and(|own| own != namespace)
    {
        bare["namespace"] = metadata["namespace"].clone();
    }
    if kind != "Node" {
        for field in ["labels", "annotations", "finalizers"] {
            bare[field] = metadata[field].clone();
        }
        let owners = items_of(&metadata["ownerReferences"]).map(|owner| {
            let role = match owner["controller"] == true {
                true => "controlled by",
                false => "owned by",
            };
            format!("{role} {}/{}", text(&owner["kind"]), text(&owner["name"]))
        });
        bare["owners"] = owners.collect::<Vec<_>>().into();
    }
    bare["deleted"] = metadata["deletionTimestamp"].is_string().into();
    bare["spec"] = spec(kind, &object["spec"]);
    bare["status"] = status(kind, &object["status"]);
    bare["revision"] = object["revision"].clone();
    for field in ["endpoints", "subsets", "ports", "addressType"] {
        bare[field] = object[field].clone();
    }
    if kind == "Pod"
        && !names.exact
        && let Some(labels) = bare["labels"].as_object_mut()
    {
        labels.retain(|label, _| !label.starts_with("topology.kubernetes.io/"));
    }
    if let Some(annotations) = bare["annotations"].as_object_mut() {
        annotations.remove("endpoints.kubernetes.io/last-change-trigger-time");
    }
    without_empty(names.value(&bare, &metadata["generation"]))
}

fn spec(kind: &str, seen: &Value) -> Value {
    let mut spec = seen.clone();
    let Some(fields) = spec.as_object_mut() else {
        return Value::Null;
    };
    match kind {
        "Pod" => {
            let images = images(&seen["containers"]);
            fields.retain(|field, _| POD_SPEC.contains(&field.as_str()));
            if let Some(volumes) = fields.get_mut("volumes").and_then(Value::as_array_mut) {
                volumes.retain(|volume| volume.get("persistentVolumeClaim").is_some());
            }
            if let Some(list) = fields.get_mut("tolerations").and_then(Value::as_array_mut) {
                list.retain(|one| one["tolerationSeconds"] != 300);
            }
            fields.insert("images".to_owned(), images);
        }
        "Node" => fields.retain(|field, _| ["taints", "unschedulable"].contains(&field.as_str())),
        "PersistentVolume" => {
            fields.remove("nodeAffinity");
            if let Some(claim) = fields.get_mut("claimRef") {
                *claim = json!({ "namespace": claim["namespace"], "name": claim["name"] });
            }
        }
        _ => {
            if let Some(template) = fields.remove("template") {
                let images = images(&template["spec"]["containers"]);
                fields.insert("images".to_owned(), images);
            }
        }
    }
    spec
}

fn images(containers: &Value) -> Value {
    let images = items_of(containers).map(|container| container["image"].clone());
    images.collect::<Vec<_>>().into()
}

fn status(kind: &str, seen: &Value) -> Value {
    let mut status = seen.clone();
    let Some(fields) = status.as_object_mut() else {
        return Value::Null;
    };
    match kind {
        "Pod" => fields.retain(|field, _| POD_STATUS.contains(&field.as_str())),
        "Node" => {
            let ready = items_of(&seen["conditions"]).find(|own| own["type"] == "Ready");
            return json!({ "ready": ready.map(|own| json!([own["status"], own["reason"]])) });
        }
        _ => {}
    }
    status
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Without nulls, `false`, and empty lists, maps and texts.
fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields
                .into_iter()
                .map(|(name, value)| (name, without_empty(value)));
            let kept = fields.filter(|(_, value)| match value {
                Value::Null | Value::Bool(false) => false,
                Value::Array(list) => !list.is_empty(),
                Value::Object(map) => !map.is_empty(),
                Value::String(text) => !text.is_empty(),
                Value::Bool(true) | Value::Number(_) => true,
            });
            Value::Object(kept.collect())
        }
        Value::Array(list) => list.into_iter().map(without_empty).collect(),
        other => other,
    }
}

/// What two states do not have in common, for people: objects that are in one alone, or,
/// where they have one of the same kind and name, the fields in which those differ.
pub fn difference(expected: &Value, seen: &Value) -> Vec<String> {
    let only = |one: &Value, other: &Value| -> Vec<Value> {
        let others: Vec<&Value> = items_of(other).collect();
        items_of(one)
            .filter(|own| !others.contains(own))
            .cloned()
            .collect()
    };
    let mut extra = only(seen, expected);
    let mut lines = Vec::new();
    for missing in only(expected, seen) {
        let name = |object: &Value| (object["kind"].clone(), object["name"].clone());
        let title = format!("{} {}", text(&missing["kind"]), text(&missing["name"]));
        match extra.iter().position(|own| name(own) == name(&missing)) {
            Some(at) => {
                let other = extra.remove(at);
                fields(&title, &missing, &other, &mut lines);
            }
            None => lines.push(format!("{title}: missing {missing}")),
        }
    }
    lines.extend(extra.iter().map(|own| format!("not expected: {own}")));
    lines
}

/// The paths at which two values differ.
fn fields(path: &str, expected: &Value, seen: &Value, lines: &mut Vec<String>) {
    match (expected, seen) {
        (Value::Object(one), Value::Object(other)) => {
            let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for name in names {
                let path = format!("{path}.{name}");
                fields(&path, &expected[name.as_str()], &seen[name.as_str()], lines);
            }
        }
        _ if expected == seen => {}
        _ => lines.push(format!("{path}: expected {expected}, seen {seen}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(suffix: &str, node: &str) -> Value {
        json!({
            "kind": "Pod",
            "metadata": {
                "name": format!("web-{suffix}"), "generateName": "web-", "generation": 1,
                "namespace": "n", "uid": format!("00000000-0000-4000-8000-0000000{suffix}"),
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": { "nodeName": node },
            "status": { "phase": "Running", "podIP": "10.0.0.1", "conditions": [
                { "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" },
            ] },
        })
    }

    fn node(name: &str) -> Value {
        json!({ "metadata": { "name": name, "labels": { "zone": name } } })
    }

    #[test]
    fn what_differs_from_run_to_run_does_not_count() {
        let nodes = [node("one"), node("two")];
        let state = |pods: &[Value], placement: &Placement| end_state(pods, &nodes, "n", placement);
        let one = [pod("abcde", "one"), pod("fghij", "two")];
        let other = [pod("vwxyz", "two"), pod("klmno", "two")];
        let any = Placement::Any;
        assert_eq!(state(&one, &any), state(&other, &any));
        assert_eq!(state(&one, &any)[0]["count"], 2);
        for placement in [Placement::Exact, Placement::Spread("zone".to_owned())] {
            assert_ne!(state(&one, &placement), state(&other, &placement));
        }
        let mut failed = other;
        failed[0]["status"]["phase"] = "Failed".into();
        assert_ne!(state(&one, &any), state(&failed, &any));
    }
}
