//! Claims on devices (`resource.k8s.io`): made of the templates that pods name, reserved for
//! pods that are on a node already, and freed once nobody uses them.
//!
//! Invariants
//! - A pod has one claim of each of its templates: before one is made, one that the pod owns
//!   is looked for.
//! - A reservation goes only when its pod is gone, was replaced or will not run again; an
//!   allocation goes with the last reservation.
//!
//! Keys that begin with [`CLAIM`] are claims, the others are pods.

use std::sync::Arc;

use nautilus_machinery::timestamp::Instant;
use serde_json::{Map, Value, json};

use crate::controller::{Change, Controller};
use crate::kind::{DEVICE_CLAIM_TEMPLATES, DEVICE_CLAIMS, Kind, PODS};
use crate::object;
use crate::plan::{Delete, Failed, Plan, Write};
use crate::view::{Key, View, Within};

/// What keys of claims begin with; no name has a slash.
const CLAIM: &str = "claim/";
/// On a claim: which claim of its pod it is.
const POD_CLAIM: &str = "resource.kubernetes.io/pod-claim-name";
/// Holds a claim while devices are allocated to it.
pub(crate) const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// Bytes of a name before the six that make it unique, in one of 63.
const MAX_BASE_BYTES: usize = 57;

/// Looks after claims on devices.
pub(crate) struct DeviceClaims;

impl Controller for DeviceClaims {
    fn name(&self) -> &'static str {
        "resource-claim-controller"
    }

    fn component(&self) -> &'static str {
        "resource_claim"
    }

    fn follows(&self) -> &'static [Kind] {
        &[PODS, DEVICE_CLAIMS, DEVICE_CLAIM_TEMPLATES]
    }

    fn concerns(&self, view: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        let own = change.object();
        let namespace = object::namespace(own);
        let users = |keys: &mut Vec<Key>, uses: &dyn Fn(&Value) -> bool| {
            let pods = view.list(PODS, Within::Namespace(namespace));
            keys.extend(pods.iter().filter(|pod| uses(pod)).map(|pod| Key::of(pod)));
        };
        match change.kind {
            PODS => {
                if change.after.is_none() || is_done(own) {
                    keys.extend(claims_of(own).map(|name| claim_key(namespace, name)));
                } else if object::items(&own["spec"]["resourceClaims"])
                    .next()
                    .is_some()
                {
                    keys.push(Key::of(own));
                }
            }
            DEVICE_CLAIMS => {
                if change.after.is_some() {
                    keys.push(claim_key(namespace, object::name(own)));
                }
                keys.extend(owning_pod(own).map(|pod| Key::new(namespace, pod)));
                let is_allocated = |claim: &Value| claim["status"]["allocation"].is_object();
                if is_allocated(own) && !change.before.as_deref().is_some_and(is_allocated) {
                    users(keys, &|pod| {
                        claims_of(pod).any(|name| name == object::name(own))
                    });
                }
            }
            DEVICE_CLAIM_TEMPLATES => users(keys, &|pod| {
                let mut claims = object::items(&pod["spec"]["resourceClaims"]);
                claims.any(|claim| claim["resourceClaimTemplateName"] == object::name(own))
            }),
            _ => {}
        }
    }

    fn reconcile(&self, view: &dyn View, key: &Key, _: Instant) -> Plan {
        let mut plan = Plan::default();
        if let Some(name) = key.name.strip_prefix(CLAIM) {
            if let Some(claim) = view.get(DEVICE_CLAIMS, &key.namespace, name) {
                free(view, &claim, &mut plan);
            }
        } else if let Some(pod) = view.get(PODS, &key.namespace, &key.name)
            && !object::is_deleted(&pod)
        {
            equip(view, &pod, &mut plan);
        }
        plan
    }

    fn report(&self, view: &dyn View, key: &Key, _: Instant, failed: &Failed) -> Plan {
        let mut plan = Plan::default();
        let pod = view.get(PODS, &key.namespace, &key.name);
        if let (Some(pod), Write::Create { object, .. }) = (pod, &failed.write) {
            let claim = object::annotation(object, POD_CLAIM).unwrap_or_default();
            let why = format!("create ResourceClaim : {}", failed.message);
            plan.then(failure(&pod, claim, &why));
        }
        plan
    }
}

fn claim_key(namespace: &str, name: &str) -> Key {
    Key::new(namespace, format!("{CLAIM}{name}"))
}

/// Whether a pod will not run any more.
fn is_done(pod: &Value) -> bool {
    let is_placed = pod["spec"]["nodeName"]
        .as_str()
        .is_some_and(|node| !node.is_empty());
    object::is_finished(pod) || (object::is_deleted(pod) && !is_placed)
}

fn owning_pod(claim: &Value) -> Option<&str> {
    let owner = object::controller(claim)?;
    let is_pod = owner["apiVersion"] == "v1" && owner["kind"] == "Pod";
    owner["name"].as_str().filter(|_| is_pod)
}

/// The entry of a pod's status for one of its claims.
fn status_of<'a>(pod: &'a Value, claim: &Value) -> Option<&'a Value> {
    let mut statuses = object::items(&pod["status"]["resourceClaimStatuses"]);
    statuses.find(|own| own["name"] == claim["name"])
}

/// The name of the claim behind one of a pod's claims, once it is known.
fn name_of<'a>(pod: &'a Value, claim: &'a Value) -> Option<&'a str> {
    let named = claim["resourceClaimName"].as_str();
    named.or_else(|| status_of(pod, claim)?["resourceClaimName"].as_str())
}

/// The claims that a pod uses, as far as they are there.
fn claims_of(pod: &Value) -> impl Iterator<Item = &str> {
    let claims = object::items(&pod["spec"]["resourceClaims"]);
    let extended = pod["status"]["extendedResourceClaimStatus"]["resourceClaimName"].as_str();
    claims
        .filter_map(|claim| name_of(pod, claim))
        .chain(extended)
}

fn failure(pod: &Value, claim: &str, why: &str) -> Write {
    let message = format!("PodResourceClaim {claim}: {why}");
    Write::warning(PODS, pod, "FailedResourceClaimCreation", message)
}

/// Gives a pod its claims, and has its status name them.
fn equip(view: &dyn View, pod: &Value, plan: &mut Plan) {
    let mut found: Vec<(&str, String)> = Vec::new();
    for claim in object::items(&pod["spec"]["resourceClaims"]) {
        let Some(template) = claim["resourceClaimTemplateName"].as_str() else {
            continue;
        };
        let claim_name = claim["name"].as_str().unwrap_or_default();
        let status = status_of(pod, claim);
        if status.is_some_and(|own| own["resourceClaimName"].is_null()) {
            // It needs none.
            continue;
        }
        let is_there = name_of(pod, claim)
            .and_then(|name| view.get(DEVICE_CLAIMS, object::namespace(pod), name))
            .is_some_and(|own| object::is_controlled_by(&own, object::uid(pod)));
        if is_there {
            continue;
        }
        if let Some(own) = made_before(view, pod, claim_name) {
            found.push((claim_name, object::name(&own).to_owned()));
            continue;
        }
        match view.get(DEVICE_CLAIM_TEMPLATES, object::namespace(pod), template) {
            Some(template) => plan.then(Write::create(
                DEVICE_CLAIMS,
                from_template(pod, claim_name, &template),
            )),
            None => {
                let why = format!(
                    "resource claim template \"{template}\": resourceclaimtemplate.resource.k8s.io \"{template}\" not found"
                );
                return plan.then(failure(pod, claim_name, &why));
            }
        }
    }
    if !found.is_empty() {
        let patch = json!({"status": {"resourceClaimStatuses": statuses(pod, &found)}});
        plan.then(Write::patch_status(PODS, pod, patch));
    }
    let is_placed = pod["spec"]["nodeName"]
        .as_str()
        .is_some_and(|node| !node.is_empty());
    if is_placed && !object::is_finished(pod) {
        reserve(view, pod, plan);
    }
}

/// A claim that was made for a pod's claim, before the pod's status could say so.
fn made_before(view: &dyn View, pod: &Value, claim: &str) -> Option<Arc<Value>> {
    let within = Within::Controlled(object::namespace(pod), object::uid(pod));
    let mut claims = view.list(DEVICE_CLAIMS, within).into_iter();
    claims.find(|own| object::annotation(own, POD_CLAIM) == Some(claim))
}

/// The pod's statuses with these names of claims, by their own names.
fn statuses(pod: &Value, found: &[(&str, String)]) -> Vec<Value> {
    let others = object::items(&pod["status"]["resourceClaimStatuses"])
        .filter(|own| found.iter().all(|(name, _)| own["name"] != *name));
    let mut statuses: Vec<Value> = others.cloned().collect();
    statuses.extend(
        found
            .iter()
            .map(|(name, claim)| json!({"name": name, "resourceClaimName": claim})),
    );
    statuses.sort_by(|one, two| one["name"].as_str().cmp(&two["name"].as_str()));
    statuses
}

fn from_template(pod: &Value, claim: &str, template: &Value) -> Value {
    let spec = &template["spec"];
    let annotations = spec["metadata"]["annotations"].as_object();
    let mut annotations = annotations.cloned().unwrap_or_default();
    annotations.insert(POD_CLAIM.to_owned(), claim.into());
    let mut metadata = Map::new();
    metadata.insert("namespace".to_owned(), object::namespace(pod).into());
    metadata.insert("generateName".to_owned(), base_name(pod, claim).into());
    metadata.insert("annotations".to_owned(), annotations.into());
    if let Some(labels) = spec["metadata"].get("labels") {
        metadata.insert("labels".to_owned(), labels.clone());
    }
    let owner = json!({
        "apiVersion": "v1", "kind": "Pod", "name": object::name(pod), "uid": object::uid(pod),
        "controller": true,
    });
    metadata.insert("ownerReferences".to_owned(), json!([owner]));
    json!({"metadata": metadata, "spec": spec["spec"]})
}

/// What a claim's name begins with: the pod's and the claim's, both shortened alike where
/// they are too long.
fn base_name(pod: &Value, claim: &str) -> String {
    let pod = object::name(pod);
    let base = format!("{pod}-{claim}-");
    if base.len() <= MAX_BASE_BYTES {
        return base;
    }
    let part = |name: &str| {
        let bytes = name.len() * MAX_BASE_BYTES / base.len();
        name.get(..bytes).unwrap_or_default().to_owned()
    };
    format!("{}-{}", part(pod), part(claim))
}

/// Reserves allocated claims for a pod that came to its node past the scheduler.
fn reserve(view: &dyn View, pod: &Value, plan: &mut Plan) {
    for claim in object::items(&pod["spec"]["resourceClaims"]) {
        let found = name_of(pod, claim)
            .and_then(|name| view.get(DEVICE_CLAIMS, object::namespace(pod), name));
        let Some(found) = found else {
            continue;
        };
        let is_own = claim["resourceClaimName"].is_string()
            || object::is_controlled_by(&found, object::uid(pod));
        let mut reserved = object::items(&found["status"]["reservedFor"]);
        let is_reserved = reserved.any(|own| own["uid"] == object::uid(pod));
        if !is_own || is_reserved || !found["status"]["allocation"].is_object() {
            continue;
        }
        let consumer = json!({
            "resource": "pods", "name": object::name(pod), "uid": object::uid(pod),
        });
        let mut consumers: Vec<Value> = object::items(&found["status"]["reservedFor"])
            .cloned()
            .collect();
        consumers.push(consumer);
        let mut status = found["status"].clone();
        status["reservedFor"] = consumers.into();
        write_status(plan, &found, status);
    }
}

fn write_status(plan: &mut Plan, claim: &Value, status: Value) {
    let mut object = object::identity(claim);
    object["status"] = status;
    plan.then(Write::status(DEVICE_CLAIMS, object));
}

/// Takes from a claim the reservations of pods that are done; with the last one its devices,
/// and the claim itself where its pod is done.
fn free(view: &dyn View, claim: &Value, plan: &mut Plan) {
    let reserved: Vec<&Value> = object::items(&claim["status"]["reservedFor"]).collect();
    let remaining: Vec<Value> = reserved
        .iter()
        .filter(|consumer| !is_stale(view, claim, consumer))
        .map(|consumer| (*consumer).clone())
        .collect();
    let is_unused = remaining.is_empty();
    let is_held = object::items(&claim["metadata"]["finalizers"]).any(|own| own == FINALIZER);
    let was_used = !reserved.is_empty();
    let ends = is_held && is_unused && (was_used || object::is_deleted(claim));
    let mut status = claim["status"].clone();
    if let Some(fields) = status.as_object_mut() {
        if is_unused {
            fields.shift_remove("reservedFor");
        } else {
            fields.insert("reservedFor".to_owned(), remaining.into());
        }
        if ends {
            fields.shift_remove("allocation");
        }
        if status != claim["status"] {
            write_status(plan, claim, status);
        }
    }
    if ends {
        let finalizers = object::items(&claim["metadata"]["finalizers"]);
        let others: Vec<&Value> = finalizers.filter(|own| *own != FINALIZER).collect();
        let patch = json!({"metadata": {"finalizers": others}});
        plan.then(Write::patch(DEVICE_CLAIMS, claim, patch));
    }
    if is_unused && !object::is_deleted(claim) && is_of_done_pod(view, claim) {
        plan.then(Write::Delete(Delete::of(DEVICE_CLAIMS, claim)));
    }
}

/// Whether a consumer is a pod that uses the claim no more. Others are not judged.
fn is_stale(view: &dyn View, claim: &Value, consumer: &Value) -> bool {
    let group = consumer["apiGroup"].as_str().unwrap_or_default();
    if !group.is_empty() || consumer["resource"] != "pods" {
        return false;
    }
    let name = consumer["name"].as_str().unwrap_or_default();
    let pod = view.get(PODS, object::namespace(claim), name);
    pod.is_none_or(|pod| consumer["uid"] != object::uid(&pod) || is_done(&pod))
}

/// Whether a claim was made for a pod that is there, but done, or replaced. One whose pod is
/// gone is the garbage collector's.
fn is_of_done_pod(view: &dyn View, claim: &Value) -> bool {
    let pod = owning_pod(claim).and_then(|name| view.get(PODS, object::namespace(claim), name));
    pod.is_some_and(|pod| !object::is_controlled_by(claim, object::uid(&pod)) || is_done(&pod))
}

#[cfg(test)]
mod tests;
