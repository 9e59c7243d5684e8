//! Pods: what is set at creation and kept at updates, quality of service, grace,
//! binding. What a pod must look like stands in the files of this folder.
//!
//! Source: `pkg/registry/core/pod` of v1.37.

mod affinity;
mod change;
mod container;
pub(crate) mod defaults;
mod field;
mod probe;
mod security;
pub(crate) mod source;
pub(crate) mod spec;
mod status;
mod volume;
pub(crate) mod warnings;

use serde_json::{Value, json};

pub(crate) use self::affinity::{EFFECTS, node_selector, tolerations};
pub(crate) use self::change::{validate_subresource, validate_update};
use super::Context;
use super::resources;
use super::warnings::Warnings;
use crate::quantity::Quantity;
use crate::resource::{self, Resource};
use crate::status::ApiError;
use crate::validation::{At, Errors};
use crate::{conditions, fields};

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

pub(super) fn prepare_create(pod: &mut Value, context: &Context<'_>) {
    let mut status = json!({"phase": "Pending"});
    if pod["spec"]["schedulingGates"]
        .as_array()
        .is_some_and(|gates| !gates.is_empty())
    {
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "lastTransitionTime": context.now,
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
    let labels = pod["metadata"]["labels"].clone();
    if let Some(spec) = pod.get_mut("spec") {
        add_label_keys(spec, &labels);
    }
    app_armor_fields(pod);
    pod_level_resources(pod);
    status["qosClass"] = json!(quality_of_service(pod));
    pod["status"] = status;
}

/// Selectors that take values from the pod's own labels take them now.
fn add_label_keys(spec: &mut Value, labels: &Value) {
    let each = |list: Option<&mut Value>, visit: &mut dyn FnMut(&mut Value)| {
        let list = list.and_then(Value::as_array_mut);
        list.into_iter().flatten().for_each(visit);
    };
    for name in ["podAffinity", "podAntiAffinity"] {
        let Some(own) = spec.get_mut("affinity").and_then(|own| own.get_mut(name)) else {
            continue;
        };
        let list = own.get_mut("requiredDuringSchedulingIgnoredDuringExecution");
        each(list, &mut |term| select_own_labels(term, labels));
        let list = own.get_mut("preferredDuringSchedulingIgnoredDuringExecution");
        each(list, &mut |weighted| {
            if let Some(term) = weighted.get_mut("podAffinityTerm") {
                select_own_labels(term, labels);
            }
        });
    }
    let list = spec.get_mut("topologySpreadConstraints");
    each(list, &mut |constraint| {
        select_own_labels(constraint, labels);
    });
}

fn select_own_labels(term: &mut Value, labels: &Value) {
    if term.get("labelSelector").is_none_or(Value::is_null) {
        return;
    }
    for (list, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        let keys: Vec<String> = term[list]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|key| key.as_str().map(str::to_owned))
            .collect();
        for key in keys {
            if let Some(value) = labels.get(&key).and_then(Value::as_str) {
                let requirement = json!({"key": key, "operator": operator, "values": [value]});
                let expressions = &mut term["labelSelector"]["matchExpressions"];
                match expressions.as_array_mut() {
                    Some(list) => list.push(requirement),
                    None => *expressions = json!([requirement]),
                }
            }
        }
    }
}

/// The profile that an annotation names, in the form of the field.
fn app_armor_profile(annotation: &str) -> Option<Value> {
    match annotation {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        other => {
            let profile = other.strip_prefix("localhost/")?;
            let good = !profile.is_empty() && profile.trim() == profile;
            good.then(|| json!({"type": "Localhost", "localhostProfile": profile}))
        }
    }
}

/// What annotations say of AppArmor is said by the fields too.
fn app_armor_fields(pod: &mut Value) {
    let own = pod["metadata"]["annotations"].as_object();
    let annotated: Vec<(String, Option<Value>)> = own
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| {
            let name = key.strip_prefix(APP_ARMOR)?;
            Some((name.to_owned(), app_armor_profile(value.as_str()?)))
        })
        .collect();
    if annotated.is_empty() || pod["spec"]["os"]["name"] == "windows" {
        return;
    }
    let whole = pod["spec"]["securityContext"]["appArmorProfile"].clone();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            let found = annotated
                .iter()
                .find(|(name, _)| container["name"] == name.as_str());
            if let Some((_, Some(profile))) = found
                && container["securityContext"]["appArmorProfile"].is_null()
                && profile != &whole
            {
                container["securityContext"]["appArmorProfile"] = profile.clone();
            }
        }
    }
}

/// What a pod as a whole is given where it names some resources and not others.
fn pod_level_resources(pod: &mut Value) {
    let own = &pod["spec"]["resources"];
    let list = |name: &str| own[name].as_object().cloned().unwrap_or_default();
    let (mut limits, mut requests) = (list("limits"), list("requests"));
    if limits.is_empty() && requests.is_empty() {
        return;
    }
    let root = At::root(pod);
    let spec = root.get("spec");
    let supported = |name: &str| matches!(name, "cpu" | "memory") || resources::is_huge_page(name);
    for (name, sum) in resources::aggregate(&spec, "limits") {
        if resources::is_huge_page(&name) && !requests.contains_key(&name) {
            limits.entry(name).or_insert(json!(sum.canonical()));
        }
    }
    for (name, sum) in resources::aggregate(&spec, "requests") {
        if supported(&name) && resources::is_overcommitted(&name) {
            requests.entry(name).or_insert(json!(sum.canonical()));
        }
    }
    for (name, limit) in limits.iter().filter(|(name, _)| supported(name)) {
        requests.entry(name.clone()).or_insert(limit.clone());
    }
    pod["spec"]["resources"]["limits"] = Value::Object(limits);
    pod["spec"]["resources"]["requests"] = Value::Object(requests);
}

pub(super) fn prepare_update(subresource: Option<&str>, old: &Value, pod: &mut Value) {
    match subresource {
        Some("status") => prepare_status(old, pod),
        Some("ephemeralcontainers") => {
            let added = pod["spec"]["ephemeralContainers"].clone();
            keep_all_but_spec(old, pod);
            pod["spec"] = old["spec"].clone();
            pod["spec"]["ephemeralContainers"] = added;
        }
        Some("resize") => prepare_resize(old, pod),
        _ => {
            if pod["spec"]["resources"].is_null() && !old["spec"]["resources"].is_null() {
                pod["spec"]["resources"] = old["spec"]["resources"].clone();
            }
        }
    }
}

fn keep_all_but_spec(old: &Value, pod: &mut Value) {
    let version = pod["metadata"]["resourceVersion"].clone();
    pod["metadata"] = old["metadata"].clone();
    pod["metadata"]["resourceVersion"] = version;
    pod["status"] = old["status"].clone();
}

fn prepare_status(old: &Value, pod: &mut Value) {
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        match old["metadata"].get("ownerReferences") {
            Some(owners) => metadata.insert("ownerReferences".into(), owners.clone()),
            None => metadata.remove("ownerReferences"),
        };
    }
    let (before, status) = (&old["status"], &mut pod["status"]);
    if status["qosClass"].as_str().unwrap_or_default().is_empty() {
        status["qosClass"] = before["qosClass"].clone();
    }
    for key in ["resourceClaimStatuses", "extendedResourceClaimStatus"] {
        if status[key].is_null() && !before[key].is_null() {
            status[key] = before[key].clone();
        }
    }
    if status["observedGeneration"].as_i64().unwrap_or(0) == 0 {
        status["observedGeneration"] = before["observedGeneration"].clone();
    }
    let known: Vec<&Value> = before["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        let own = known.iter().find(|own| own["type"] == condition["type"]);
        if let Some(own) = own
            && condition["observedGeneration"].as_i64().unwrap_or(0) == 0
            && !own["observedGeneration"].is_null()
        {
            condition["observedGeneration"] = own["observedGeneration"].clone();
        }
    }
}

/// A resize changes the resources of containers and of the pod, and nothing else.
fn prepare_resize(old: &Value, pod: &mut Value) {
    let same_length = |list: &str| {
        let length = |value: &Value| value["spec"][list].as_array().map_or(0, Vec::len);
        length(old) == length(pod)
    };
    if !same_length("containers") || !same_length("initContainers") {
        return;
    }
    let wanted = pod["spec"].take();
    keep_all_but_spec(old, pod);
    pod["spec"] = old["spec"].clone();
    pod["spec"]["resources"] = match &wanted["resources"] {
        Value::Null => old["spec"]["resources"].clone(),
        own => own.clone(),
    };
    for list in ["containers", "initContainers"] {
        let new = wanted[list].as_array().map_or(&[][..], Vec::as_slice);
        let Some(kept) = pod["spec"][list].as_array_mut() else {
            continue;
        };
        if kept
            .iter()
            .zip(new)
            .any(|(kept, new)| kept["name"] != new["name"])
        {
            *kept = new.to_vec();
            continue;
        }
        for (kept, new) in kept.iter_mut().zip(new) {
            kept["resources"] = new["resources"].clone();
            kept["resizePolicy"] = new["resizePolicy"].clone();
        }
    }
    pod_level_resources(pod);
}

pub(super) fn warn(old: &Value, pod: &At<'_>, warnings: &mut Warnings) {
    if old.is_null() {
        warnings::on_create(pod, warnings);
    }
}

pub(super) fn validate(pod: &At<'_>, errors: &mut Errors) {
    let (metadata, spec) = (pod.get("metadata"), pod.get("spec"));
    spec::pod_annotations(&metadata.get("annotations"), spec.value, errors);
    spec::spec(&spec, spec::Owner::Pod(metadata.value), errors);
    if spec.str("serviceAccountName").is_empty() {
        for volume in spec.get("volumes").items() {
            let sources = volume.get("projected.sources");
            for source in sources.items() {
                let detail = "must not be specified when serviceAccountName is not set";
                source.get("serviceAccountToken").absent(errors, detail);
            }
        }
    }
    spec.get("terminationGracePeriodSeconds")
        .not_negative(errors);
    for list in ["containers", "initContainers"] {
        for own in spec.get(list).items() {
            container::image_only_for_pods(&own, errors);
        }
    }
}

pub(super) fn validate_create(pod: &At<'_>, errors: &mut Errors) {
    let (metadata, spec) = (pod.get("metadata"), pod.get("spec"));
    let ephemeral = spec.get("ephemeralContainers");
    if !ephemeral.is_empty() {
        ephemeral.forbidden(errors, "cannot be set on create");
    }
    if !spec.str("nodeName").is_empty() && !spec.get("schedulingGates").is_empty() {
        let detail = "cannot be set until all schedulingGates have been cleared";
        spec.get("nodeName").forbidden(errors, detail);
    }
    spec::annotations_agree(&metadata.get("annotations"), &spec, errors);
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn quality_of_service(pod: &Value) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    let own = &pod["spec"]["resources"];
    let filled = |name: &str| own[name].as_object().is_some_and(|list| !list.is_empty());
    if filled("limits") || filled("requests") {
        return quality_of(own);
    }
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

/// The quality of a pod that asks for resources as a whole.
fn quality_of(resources: &Value) -> &'static str {
    let amount = |list: &str, name: &str| {
        let quantity = Quantity::parse(resources[list][name].as_str()?).ok();
        quantity.filter(|quantity| !quantity.is_zero())
    };
    let names = ["cpu", "memory"];
    let any = names
        .iter()
        .any(|name| amount("limits", name).is_some() || amount("requests", name).is_some());
    let same = |name: &&str| {
        let limit = amount("limits", name);
        limit.is_some() && amount("requests", name) == limit
    };
    match (any, names.iter().all(same)) {
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

/// Puts a pod on the node that a `Binding` names, with the binding's annotations and
/// labels. It counts as no change of the spec: `metadata.generation` stays.
pub(super) fn bind(pod: &Value, binding: &Value, context: &Context<'_>) -> Result<Value, ApiError> {
    let Some(pods) = resource::find("", "v1", "pods") else {
        return Err(ApiError::path_not_found());
    };
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    check_binding(pods, name, pod, binding)?;
    let node = binding["target"]["name"].as_str().unwrap_or_default();
    let mut bound = pod.clone();
    bound["spec"]["nodeName"] = json!(node);
    for field in ["annotations", "labels"] {
        for (key, value) in binding["metadata"][field].as_object().into_iter().flatten() {
            bound["metadata"][field][key] = value.clone();
        }
    }
    if let Some(status) = bound["status"].as_object_mut() {
        status.shift_remove("nominatedNodeName");
    }
    conditions::set(
        &mut bound["status"],
        &json!({
            "type": "PodScheduled", "status": "True",
            "lastProbeTime": null, "lastTransitionTime": context.now,
        }),
    );
    fields::conform_owned(&pods.schema, bound)
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
