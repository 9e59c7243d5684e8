//! What may change in a pod: through the pod itself very little, through its
//! subresources what they are for.
//!
//! Source: `ValidatePodUpdate`, `ValidatePodResize`,
//! `ValidatePodEphemeralContainersUpdate` of v1.37.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{affinity, quality_of_service, spec, status};
use crate::strategy::{difference, internal};
use crate::validation::{At, Errors};

const UPDATABLE: &str = "pod updates may not change fields other than \
`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
`spec.tolerations` (only additions to existing tolerations),\
`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const POD_SPEC: &str = "io.k8s.api.core.v1.PodSpec";
const MIRROR: &str = "kubernetes.io/config.mirror";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Checks a change of the pod itself.
pub(crate) fn validate_update(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    annotations(old, new, errors);
    let (old, new) = (old.get("spec"), new.get("spec"));
    for list in ["containers", "initContainers"] {
        let at = new.get(list);
        if old.get(list).len() != at.len() {
            at.forbidden(errors, "pod updates may not add or remove containers");
            return;
        }
        for container in at.items() {
            container.get("image").need(errors);
            super::container::image_only_for_pods(&container, errors);
        }
    }
    if !deadline(
        &old.get("activeDeadlineSeconds"),
        &new.get("activeDeadlineSeconds"),
        errors,
    ) {
        return;
    }
    added_tolerations(&old.get("tolerations"), &new.get("tolerations"), errors);
    fewer_gates(
        &old.get("schedulingGates"),
        &new.get("schedulingGates"),
        errors,
    );
    if old.value != new.value {
        let munged = without_updatable(&old, &new, errors);
        if &munged != old.value {
            let before = internal::show_lines(POD_SPEC, old.value);
            let after = internal::show_lines(POD_SPEC, &munged);
            let difference = difference::unified(&before, &after);
            new.forbidden(errors, &format!("{UPDATABLE}\n{difference}"));
        }
    }
}

fn annotations(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    let empty = Map::new();
    let map = |at: &At<'_>| at.value.pointer("/metadata/annotations").cloned();
    let (before, after) = (map(old), map(new));
    let before = before.as_ref().and_then(Value::as_object).unwrap_or(&empty);
    let after = after.as_ref().and_then(Value::as_object).unwrap_or(&empty);
    let at = new.get("metadata.annotations");
    let special = |key: &str| key.starts_with(APP_ARMOR) || key == MIRROR;
    for (key, value) in before.iter().filter(|(key, _)| special(key)) {
        if after.get(key) != Some(value) {
            let detail = match key.as_str() {
                MIRROR => "may not remove or update mirror pod annotation",
                _ => "may not remove or update AppArmor annotations",
            };
            at.key(key).forbidden(errors, detail);
        }
    }
    for key in after.keys().filter(|key| special(key)) {
        if !before.contains_key(key) {
            let detail = match key.as_str() {
                MIRROR => "may not add mirror pod annotation",
                _ => "may not add AppArmor annotations",
            };
            at.key(key).forbidden(errors, detail);
        }
    }
    // The reference looks at what they say once more.
    spec::pod_annotations(&at, &new.value["spec"], errors);
}

fn deadline(old: &At<'_>, new: &At<'_>, errors: &mut Errors) -> bool {
    match (old.int(), new.int()) {
        (_, Some(after)) if !(0..=i64::from(i32::MAX)).contains(&after) => {
            new.within(errors, 0, i64::from(i32::MAX));
            return false;
        }
        (Some(before), Some(after)) if before < after => {
            new.invalid(errors, "must be less than or equal to previous value");
            return false;
        }
        (Some(_), None) => {
            let detail = "must not update from a positive integer to nil value";
            new.invalid(errors, detail);
        }
        _ => {}
    }
    true
}

fn added_tolerations(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    let same = |old: &Value, new: &Value| {
        let keys = ["key", "operator", "value", "effect"];
        keys.iter().all(|key| {
            let text = |value: &Value| value[*key].as_str().unwrap_or_default().to_owned();
            text(old) == text(new)
        })
    };
    for before in old.items() {
        if !new.items().any(|after| same(before.value, after.value)) {
            let detail = "existing toleration can not be modified except its tolerationSeconds";
            new.forbidden(errors, detail);
            return;
        }
    }
    affinity::tolerations(new, errors);
}

fn fewer_gates(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    let added: BTreeMap<&str, usize> = new
        .items()
        .enumerate()
        .map(|(at, gate)| (gate.value["name"].as_str().unwrap_or_default(), at))
        .filter(|(name, _)| !old.items().any(|gate| gate.str("name") == *name))
        .collect();
    for (name, at) in added {
        let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
        new.item(at).get("name").forbidden(errors, &detail);
    }
}

/// The new spec with the fields that may change set back to their old values.
fn without_updatable(old: &At<'_>, new: &At<'_>, errors: &mut Errors) -> Value {
    let mut munged = new.value.clone();
    for list in ["containers", "initContainers"] {
        for (at, container) in old.get(list).items().enumerate() {
            munged[list][at]["image"] = container.value["image"].clone();
        }
    }
    let mut back: Vec<&str> = vec!["activeDeadlineSeconds", "tolerations", "schedulingGates"];
    let grace = "terminationGracePeriodSeconds";
    let negative = old.get(grace).int().is_some_and(|seconds| seconds < 0);
    if negative && new.get(grace).int() == Some(1) {
        back.push(grace);
    }
    if !old.get("schedulingGates").is_empty() {
        node_selector_of_gated(old, new, errors);
        back.push("nodeSelector");
        node_affinity_of_gated(old, new, errors);
        put_back_node_affinity(old.value, &mut munged);
    }
    if let Some(map) = munged.as_object_mut() {
        for key in back {
            match old.value.get(key) {
                Some(value) => map.insert(key.to_owned(), value.clone()),
                None => map.remove(key),
            };
        }
    }
    munged
}

/// While gates hold a pod back, where it may run can be narrowed.
fn node_selector_of_gated(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    let (before, after) = (old.get("nodeSelector"), new.get("nodeSelector"));
    let kept = |(key, value): (&str, At<'_>)| after.value.get(key) == Some(value.value);
    if before.value != after.value && !before.entries().all(kept) {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        after.invalid(errors, detail);
    }
}

fn node_affinity_of_gated(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    const TERMS: &str = "requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    const TERM: &str = "io.k8s.api.core.v1.NodeSelectorTerm";
    let (before, after) = (
        old.get("affinity.nodeAffinity"),
        new.get("affinity.nodeAffinity"),
    );
    if before.value == after.value {
        return;
    }
    let (before, after) = (before.get(TERMS), after.get(TERMS));
    if before.is_empty() {
        return;
    }
    if before.len() != after.len() {
        let shown = internal::show_list(TERM, after.value);
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        after.invalid_shown(errors, &shown, detail);
        return;
    }
    let begins = |old: &Value, new: &Value, list: &str| {
        let items = |value: &Value| value[list].as_array().cloned().unwrap_or_default();
        items(new).starts_with(&items(old))
    };
    for (before, after) in before.items().zip(after.items()) {
        let lists = ["matchExpressions", "matchFields"];
        let empty = lists.iter().all(|list| before.get(list).is_empty());
        let only_more = lists
            .iter()
            .all(|list| begins(before.value, after.value, list));
        let grew = lists.iter().any(|list| !after.get(list).is_empty());
        if (empty && grew) || !only_more {
            let shown = internal::show(TERM, after.value);
            let detail = "only additions are allowed (no mutations or deletions)";
            after.invalid_shown(errors, &shown, detail);
        }
    }
}

fn put_back_node_affinity(old: &Value, munged: &mut Value) {
    let before = old["affinity"]["nodeAffinity"].clone();
    if munged["affinity"]["nodeAffinity"] == before {
        return;
    }
    if before.is_null() {
        if let Some(affinity) = munged["affinity"].as_object_mut() {
            affinity.remove("nodeAffinity");
            if affinity.is_empty() && old["affinity"].is_null() {
                munged.as_object_mut().map(|map| map.remove("affinity"));
            }
        }
    } else {
        munged["affinity"]["nodeAffinity"] = before;
    }
}

/// Checks a change through a subresource.
pub(crate) fn validate_subresource(
    subresource: &str,
    old: &At<'_>,
    new: &At<'_>,
    errors: &mut Errors,
) {
    match subresource {
        "status" => {
            annotations(old, new, errors);
            status::validate(old, new, errors);
        }
        "ephemeralcontainers" => {
            super::validate(new, errors);
            annotations(old, new, errors);
            ephemeral_containers(old, new, errors);
        }
        "resize" => {
            super::validate(new, errors);
            resize(old, new, errors);
        }
        _ => {}
    }
}

fn is_mirror(old: &At<'_>) -> bool {
    let key = "/metadata/annotations/kubernetes.io~1config.mirror";
    old.value.pointer(key).is_some()
}

fn ephemeral_containers(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    if is_mirror(old) {
        *errors = Errors::new();
        errors.forbidden("", "static pods do not support ephemeral containers");
        return;
    }
    let at = new.get("spec.ephemeralContainers");
    for before in old.get("spec.ephemeralContainers").items() {
        let name = before.str("name");
        let what = format!("existing ephemeral containers \"{name}\" may not be");
        match at.items().find(|own| own.str("name") == name) {
            None => at.forbidden(errors, &format!("{what} removed\n")),
            Some(after) if after.value != before.value => {
                let show = |at: &At<'_>| {
                    internal::show_lines("io.k8s.api.core.v1.EphemeralContainer", at.value)
                };
                let difference = difference::unified(&show(&before), &show(&after));
                at.forbidden(errors, &format!("{what} changed\n{difference}"));
            }
            Some(_) => {}
        }
    }
}

fn resize(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    let what = match (is_mirror(old), old.value["spec"]["os"]["name"] == "windows") {
        (true, _) => "static pods cannot be resized",
        (false, true) => "windows pods cannot be resized",
        _ => "",
    };
    if !what.is_empty() {
        *errors = Errors::new();
        errors.forbidden("", what);
        return;
    }
    let before = errors.len();
    let (old_spec, new_spec) = (old.get("spec"), new.get("spec"));
    let class = old.value["status"]["qosClass"].as_str();
    let class = class.unwrap_or_else(|| quality_of_service(old.value));
    if class != quality_of_service(new.value) {
        let shown = new.value["status"]["qosClass"].as_str().unwrap_or_default();
        let detail = "Pod QOS Class may not change as a result of resizing";
        new_spec.invalid_as(errors, shown, detail);
    }
    let statuses = old.get("status.containerStatuses");
    let running = statuses
        .items()
        .find(|status| status.get("state").has("running"));
    if running.is_some_and(|status| !status.has("resources")) {
        let detail = "Pod running on node without support for resize";
        new_spec.forbidden(errors, detail);
    }
    let mut kept = new_spec.value.clone();
    whole_resize(&old_spec, &new_spec, &mut kept, errors);
    if !same_containers(&old_spec, &new_spec, errors) {
        return;
    }
    for list in ["initContainers", "containers"] {
        containers_resize(list, &old_spec, &new_spec, &mut kept, errors);
    }
    if new_spec.get("volumes").value != old_spec.get("volumes").value {
        let detail = "volumes are immutable on resize when \
                      InPlacePodVerticalScalingMemoryBackedVolumes feature gate is disabled";
        new_spec.get("volumes").forbidden(errors, detail);
    }
    if errors.len() == before && &kept != old_spec.value {
        new_spec.forbidden(errors, "only cpu and memory resources are mutable");
    }
}

fn removed(old: &At<'_>, new: &At<'_>) -> bool {
    old.len() > new.len() || old.entries().any(|(name, _)| !new.has(name))
}

fn whole_resize(old: &At<'_>, new: &At<'_>, kept: &mut Value, errors: &mut Errors) {
    let (before, after) = (old.get("resources"), new.get("resources"));
    if before.is_null() && after.is_null() {
        return;
    }
    if before.is_set() && after.is_null() {
        after.forbidden(errors, "pod-level resources cannot be removed");
        return;
    }
    if before.is_set() {
        for (list, what) in [("requests", "requests"), ("limits", "limits")] {
            if removed(&before.get(list), &after.get(list)) {
                let detail = format!("pod-level resource {what} cannot be removed");
                after.get(list).forbidden(errors, &detail);
            }
        }
    }
    keep_compute(&mut kept["resources"], before.value);
    if kept["resources"] != *before.value {
        let detail = "only cpu and memory resources are mutable at pod-level";
        new.forbidden(errors, detail);
    }
}

/// Sets processor and memory back to what they were.
fn keep_compute(resources: &mut Value, old: &Value) {
    for list in ["limits", "requests"] {
        let mut own = resources[list].as_object().cloned().unwrap_or_default();
        for name in ["cpu", "memory"] {
            own.remove(name);
        }
        let before = old[list].as_object();
        let mut all = Map::new();
        for (name, value) in before.into_iter().flatten() {
            if ["cpu", "memory"].contains(&name.as_str()) || own.contains_key(name) {
                let value = own.remove(name).unwrap_or_else(|| value.clone());
                all.insert(name.clone(), value);
            }
        }
        all.extend(own);
        let Some(map) = resources.as_object_mut() else {
            continue;
        };
        if all.is_empty() && before.is_none() {
            map.remove(list);
        } else {
            map.insert(list.to_owned(), Value::Object(all));
        }
    }
    if old.is_null() && resources.as_object().is_some_and(Map::is_empty) {
        *resources = Value::Null;
    }
}

fn same_containers(old: &At<'_>, new: &At<'_>, errors: &mut Errors) -> bool {
    let before = errors.len();
    for list in ["containers", "initContainers"] {
        let (old, new) = (old.get(list), new.get(list));
        if old.len() != new.len() {
            let detail = format!("{list} may not be added or removed on resize");
            new.forbidden(errors, &detail);
            continue;
        }
        for (old, new) in old.items().zip(new.items()) {
            if old.str("name") != new.str("name") {
                let detail = format!("{list} may not be renamed or reordered on resize");
                new.get("name").forbidden(errors, &detail);
            }
        }
    }
    errors.len() == before
}

fn containers_resize(
    list: &str,
    old_spec: &At<'_>,
    new_spec: &At<'_>,
    kept: &mut Value,
    errors: &mut Errors,
) {
    let (old, new) = (old_spec.get(list), new_spec.get(list));
    for (index, (before, after)) in old.items().zip(new.items()).enumerate() {
        let sidecar = before.str("restartPolicy") == "Always";
        let may_change = list == "containers" || sidecar;
        if may_change {
            for (name, what) in [("requests", "requests"), ("limits", "limits")] {
                let (before, after) = (before.get("resources"), after.get("resources"));
                if removed(&before.get(name), &after.get(name)) {
                    let detail = format!("resource {what} cannot be removed");
                    after.get(name).forbidden(errors, &detail);
                }
            }
            let own = &mut kept[list][index];
            keep_compute(&mut own["resources"], &before.value["resources"]);
            if own != before.value {
                if list == "containers" {
                    new_spec.forbidden(errors, "only cpu and memory resources are mutable");
                } else {
                    let detail = "only cpu and memory resources for init or sidecar containers \
                                  are mutable";
                    after.forbidden(errors, detail);
                }
            }
        } else if before.value != after.value {
            let detail = "resources for non-sidecar init containers are immutable";
            new_spec.forbidden(errors, detail);
        }
    }
}
