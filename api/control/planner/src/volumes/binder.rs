//! Binds claims to volumes, has volumes made for claims, and frees volumes of claims that
//! are gone.
//!
//! Invariants
//! - A volume names its claim before the claim names the volume: at most one claim has it.
//! - A bound claim stays with its volume; when that is gone, it is `Lost` for good.
//! - A volume is released only when its claim is gone, and a volume that was not yet bound
//!   only [`CLAIM_GRACE_S`] after it was made: claims and volumes come into view apart.
//!
//! Keys in a namespace are claims, the others are volumes. An object's own fields are
//! written first and its status at the next look, since both are versions of one object.

use std::sync::Arc;
use std::time::Duration;

use nautilus_machinery::timestamp::Instant;
use serde_json::{Value, json};

use super::matching::{self, Binding};
use super::{
    BETA_STORAGE_PROVISIONER, BIND_COMPLETED, BOUND_BY_CONTROLLER, PRE_RESIZE_CAPACITY,
    PROVISIONED_BY, SELECTED_NODE, STORAGE_PROVISIONER, annotate, claim_of, claims_of, class,
    has_class, is_default, is_for, migration, waits_for_consumer,
};
use crate::controller::{Change, Controller};
use crate::kind::{CLAIMS, Kind, PODS, STORAGE_CLASSES, VOLUMES};
use crate::object;
use crate::plan::{Plan, Write};
use crate::view::{Key, View, Within};

/// After this time whoever waits is told again, in seconds.
const TELL_AGAIN_S: u64 = 300;
/// Seconds after its making in which a volume that is not bound is not released.
const CLAIM_GRACE_S: i64 = 10;

/// Binds claims and volumes.
pub(crate) struct Binder;

impl Controller for Binder {
    fn name(&self) -> &'static str {
        "persistent-volume-binder"
    }

    fn component(&self) -> &'static str {
        "persistentvolume-controller"
    }

    fn follows(&self) -> &'static [Kind] {
        &[CLAIMS, VOLUMES, STORAGE_CLASSES, PODS]
    }

    fn concerns(&self, view: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        match change.kind {
            CLAIMS => {
                keys.push(Key::of(change.object()));
                let volumes = change.versions().filter_map(volume_name);
                keys.extend(volumes.map(|name| Key::new("", name)));
            }
            VOLUMES => {
                keys.push(Key::of(change.object()));
                keys.extend(change.versions().filter_map(claim_of));
                if becomes_available(change) {
                    let volume = change.object();
                    unbound(view, keys, |claim| class(claim) == class(volume));
                }
            }
            STORAGE_CLASSES => {
                let own = change.object();
                unbound(view, keys, |claim| {
                    class(claim) == object::name(own) || (is_default(own) && !has_class(claim))
                });
            }
            PODS if change.before.is_none() && !is_scheduled(change.object()) => {
                let pod = change.object();
                let namespace = object::namespace(pod);
                keys.extend(claims_of(pod).map(|claim| Key::new(namespace, claim)));
            }
            _ => {}
        }
    }

    fn reconcile(&self, view: &dyn View, key: &Key, now: Instant) -> Plan {
        let mut plan = Plan::default();
        if key.namespace.is_empty() {
            if let Some(volume) = view.get(VOLUMES, "", &key.name) {
                match migration::annotated(&volume) {
                    Some(volume) => plan.then(Write::update(VOLUMES, volume)),
                    None => look_at_volume(view, &volume, now, &mut plan),
                }
            }
        } else if let Some(claim) = view.get(CLAIMS, &key.namespace, &key.name) {
            match migration::annotated(&claim) {
                Some(claim) => plan.then(Write::update(CLAIMS, claim)),
                None if has(&claim, BIND_COMPLETED) => look_at_bound(view, &claim, &mut plan),
                None => look_at_unbound(view, &claim, &mut plan),
            }
        }
        plan
    }

    /// One: two claims at once would choose the same volume.
    fn workers(&self) -> usize {
        1
    }
}

fn has(object: &Value, annotation: &str) -> bool {
    object::annotation(object, annotation).is_some()
}

fn volume_name(claim: &Value) -> Option<&str> {
    let name = claim["spec"]["volumeName"].as_str();
    name.filter(|name| !name.is_empty())
}

fn is_scheduled(pod: &Value) -> bool {
    let node = pod["spec"]["nodeName"].as_str();
    node.is_some_and(|node| !node.is_empty()) || object::is_finished(pod)
}

/// At the start of a term every claim is looked at anyway.
fn becomes_available(change: &Change) -> bool {
    let is_free = |volume: &Value| volume["status"]["phase"] == "Available";
    let was_free = change.before.as_deref().is_none_or(is_free);
    !was_free && change.after.as_deref().is_some_and(is_free)
}

fn unbound(view: &dyn View, keys: &mut Vec<Key>, wants: impl Fn(&Value) -> bool) {
    let claims = view.list(CLAIMS, Within::All);
    let waiting = claims
        .iter()
        .filter(|claim| volume_name(claim).is_none() && wants(claim));
    keys.extend(waiting.map(|claim| Key::of(claim)));
}

fn look_at_unbound(view: &dyn View, claim: &Value, plan: &mut Plan) {
    let Some(name) = volume_name(claim) else {
        return look_for_volume(view, claim, plan);
    };
    let Some(volume) = view.get(VOLUMES, "", name) else {
        return set_claim(plan, claim, "Pending", None);
    };
    if is_for(&volume, claim) {
        return bind(plan, &volume, claim);
    }
    if volume["spec"]["claimRef"].is_object() {
        let message = format!("volume \"{name}\" already bound to a different claim.");
        plan.then(Write::warning(CLAIMS, claim, "FailedBinding", message));
        return set_claim(plan, claim, "Pending", None);
    }
    if let Some(reason) = matching::mismatch(&volume, claim) {
        let message = format!("Cannot bind to requested volume \"{name}\": {reason}");
        plan.then(Write::warning(CLAIMS, claim, "VolumeMismatch", message));
        return set_claim(plan, claim, "Pending", None);
    }
    bind(plan, &volume, claim);
}

/// Binds a claim to a volume that does, or has one made.
fn look_for_volume(view: &dyn View, claim: &Value, plan: &mut Plan) {
    let waits = waits_for_consumer(view, class(claim));
    let binding = if waits {
        Binding::Delayed
    } else {
        Binding::Immediate
    };
    if let Some(volume) = matching::best(view, claim, binding) {
        return bind(plan, &volume, claim);
    }
    if !has_class(claim)
        && let Some(default) = default_class(view)
    {
        let mut claim = claim.clone();
        claim["spec"]["storageClassName"] = default.into();
        return plan.then(Write::update(CLAIMS, claim));
    }
    plan.again(Duration::from_secs(TELL_AGAIN_S));
    if waits && !has(claim, SELECTED_NODE) {
        let (reason, message) = consumer(view, claim);
        plan.then(Write::event(CLAIMS, claim, reason, message));
    } else if !class(claim).is_empty() {
        return provision(view, claim, plan);
    } else {
        let message = "no persistent volumes available for this claim and no storage class is set";
        let message = message.to_owned();
        plan.then(Write::event(CLAIMS, claim, "FailedBinding", message));
    }
    set_claim(plan, claim, "Pending", None);
}

/// The newest of the default classes.
fn default_class(view: &dyn View) -> Option<String> {
    let classes = view.list(STORAGE_CLASSES, Within::All);
    let defaults = classes.iter().filter(|class| is_default(class));
    // Of equally old ones the first by name: the list is sorted, and `max_by_key` takes
    // the last.
    let newest = defaults
        .rev()
        .max_by_key(|class| object::created(class).map(|at| at.seconds));
    newest.map(|class| object::name(class).to_owned())
}

/// What a claim waits for.
fn consumer(view: &dyn View, claim: &Value) -> (&'static str, String) {
    let pods = view.list(PODS, Within::Namespace(object::namespace(claim)));
    let users: Vec<&str> = pods
        .iter()
        .filter(|pod| !is_scheduled(pod))
        .filter(|pod| claims_of(pod).any(|own| own == object::name(claim)))
        .map(|pod| object::name(pod))
        .collect();
    match users.as_slice() {
        [] => (
            "WaitForFirstConsumer",
            "waiting for first consumer to be created before binding".to_owned(),
        ),
        [pod] => (
            "WaitForPodScheduled",
            format!("waiting for pod {pod} to be scheduled"),
        ),
        pods => (
            "WaitForPodScheduled",
            format!("waiting for pods {} to be scheduled", pods.join(",")),
        ),
    }
}

/// Asks the class's provisioner for a volume.
fn provision(view: &dyn View, claim: &Value, plan: &mut Plan) {
    let name = class(claim);
    let provisioner = match view.get(STORAGE_CLASSES, "", name) {
        None => Err(format!("storageclass.storage.k8s.io \"{name}\" not found")),
        Some(class) => {
            let own = class["provisioner"].as_str().unwrap_or_default();
            match migration::driver(own) {
                Some(driver) => Ok(driver.to_owned()),
                None if own.starts_with("kubernetes.io/") => {
                    Err(format!("no volume plugin matched name: {own}"))
                }
                None => Ok(own.to_owned()),
            }
        }
    };
    let provisioner = match provisioner {
        Ok(provisioner) => provisioner,
        Err(why) => return plan.then(Write::warning(CLAIMS, claim, "ProvisioningFailed", why)),
    };
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
    );
    if object::annotation(claim, STORAGE_PROVISIONER) == Some(&provisioner) {
        plan.then(Write::event(CLAIMS, claim, "ExternalProvisioning", message));
        return;
    }
    // Told at the next look.
    let mut claim = claim.clone();
    annotate(&mut claim, BETA_STORAGE_PROVISIONER, &provisioner);
    annotate(&mut claim, STORAGE_PROVISIONER, &provisioner);
    plan.then(Write::update(CLAIMS, claim));
}

/// Looks after a claim that was bound.
fn look_at_bound(view: &dyn View, claim: &Value, plan: &mut Plan) {
    let lose = |plan: &mut Plan, reason: &'static str, message: &str| {
        if claim["status"]["phase"] != "Lost" {
            set_claim(plan, claim, "Lost", None);
            plan.then(Write::warning(CLAIMS, claim, reason, message.to_owned()));
        }
    };
    let Some(name) = volume_name(claim) else {
        let message =
            "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
        return lose(plan, "ClaimLost", message);
    };
    let Some(volume) = view.get(VOLUMES, "", name) else {
        let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
        return lose(plan, "ClaimLost", message);
    };
    let reference = &volume["spec"]["claimRef"];
    if reference.is_null() || reference["uid"] == object::uid(claim) {
        return bind(plan, &volume, claim);
    }
    let message = "Two claims are bound to the same volume, this one is bound incorrectly";
    lose(plan, "ClaimMisbound", message);
}

/// Binds the two: the volume first.
fn bind(plan: &mut Plan, volume: &Value, claim: &Value) {
    let mut bound = volume.clone();
    if !is_for(volume, claim) && !has(volume, BOUND_BY_CONTROLLER) {
        annotate(&mut bound, BOUND_BY_CONTROLLER, "yes");
    }
    if !is_for(volume, claim) || volume["spec"]["claimRef"]["uid"] != object::uid(claim) {
        bound["spec"]["claimRef"] = object::reference(CLAIMS, claim);
    }
    if bound == *volume {
        set_volume(plan, volume, "Bound", "");
    } else {
        plan.then(Write::update(VOLUMES, bound));
    }
    let mut bound = claim.clone();
    if volume_name(claim) != Some(object::name(volume)) {
        bound["spec"]["volumeName"] = object::name(volume).into();
        if !has(claim, BOUND_BY_CONTROLLER) {
            annotate(&mut bound, BOUND_BY_CONTROLLER, "yes");
        }
    }
    if !has(claim, BIND_COMPLETED) {
        annotate(&mut bound, BIND_COMPLETED, "yes");
    }
    if bound == *claim {
        set_claim(plan, claim, "Bound", Some(volume));
    } else {
        plan.then(Write::update(CLAIMS, bound));
    }
}

/// The status of a claim in a phase, where it is another.
fn set_claim(plan: &mut Plan, claim: &Value, phase: &str, volume: Option<&Value>) {
    let before = &claim["status"];
    let mut status = before.as_object().cloned().unwrap_or_default();
    let enters = before["phase"] != phase;
    let was_pending = before["phase"] == "Pending";
    status.insert("phase".to_owned(), phase.into());
    let Some(volume) = volume else {
        for field in [
            "accessModes",
            "capacity",
            "currentVolumeAttributesClassName",
        ] {
            status.shift_remove(field);
        }
        return write_status(plan, CLAIMS, claim, status.into());
    };
    status.insert(
        "accessModes".to_owned(),
        volume["spec"]["accessModes"].clone(),
    );
    // A claim that is bound may well be of another size than its volume: while that grows.
    if enters {
        let mut capacity = volume["spec"]["capacity"].clone();
        if let Some(size) = object::annotation(volume, PRE_RESIZE_CAPACITY) {
            capacity = before["capacity"].clone();
            if !capacity.is_object() {
                capacity = json!({});
            }
            capacity["storage"] = size.into();
        }
        status.insert("capacity".to_owned(), capacity);
        if was_pending {
            let attributes = "currentVolumeAttributesClassName";
            match matching::attributes(volume) {
                "" => drop(status.shift_remove(attributes)),
                class => drop(status.insert(attributes.to_owned(), class.into())),
            }
        }
    }
    write_status(plan, CLAIMS, claim, status.into());
}

/// The status of a volume in a phase, where it is in another.
fn set_volume(plan: &mut Plan, volume: &Value, phase: &str, message: &str) {
    if volume["status"]["phase"] == phase {
        return;
    }
    let mut status = volume["status"].as_object().cloned().unwrap_or_default();
    status.insert("phase".to_owned(), phase.into());
    status.shift_remove("message");
    if !message.is_empty() {
        status.insert("message".to_owned(), message.into());
    }
    write_status(plan, VOLUMES, volume, status.into());
}

fn write_status(plan: &mut Plan, kind: Kind, seen: &Value, status: Value) {
    if status != seen["status"] {
        let mut object = object::identity(seen);
        object["status"] = status;
        plan.then(Write::status(kind, object));
    }
}

/// Looks after a volume: whose it is, and whether it is free.
fn look_at_volume(view: &dyn View, volume: &Value, now: Instant, plan: &mut Plan) {
    let uid = volume["spec"]["claimRef"]["uid"]
        .as_str()
        .unwrap_or_default();
    let Some(key) = claim_of(volume).filter(|_| !uid.is_empty()) else {
        return set_volume(plan, volume, "Available", "");
    };
    let claim = view.get(CLAIMS, &key.namespace, &key.name);
    match claim.filter(|claim| object::uid(claim) == uid) {
        None => release(volume, now, plan),
        Some(claim) => match volume_name(&claim) {
            None => tell_of_mode(volume, &claim, plan),
            Some(name) if name == object::name(volume) => set_volume(plan, volume, "Bound", ""),
            Some(_) => give_up(volume, plan),
        },
    }
}

/// The claim is to be bound: it is looked at for that, and says so where it cannot.
fn tell_of_mode(volume: &Value, claim: &Arc<Value>, plan: &mut Plan) {
    if matching::mode(volume) == matching::mode(claim) {
        return;
    }
    let of_volume = format!(
        "Cannot bind PersistentVolume to requested PersistentVolumeClaim \"{}\" due to incompatible volumeMode.",
        object::name(claim)
    );
    let of_claim = format!(
        "Cannot bind PersistentVolume \"{}\" to requested PersistentVolumeClaim due to incompatible volumeMode.",
        object::name(volume)
    );
    plan.together(vec![
        Write::warning(VOLUMES, volume, "VolumeMismatch", of_volume),
        Write::warning(CLAIMS, claim, "VolumeMismatch", of_claim),
    ]);
}

/// The claim has another volume.
fn give_up(volume: &Value, plan: &mut Plan) {
    let policy = &volume["spec"]["persistentVolumeReclaimPolicy"];
    if has(volume, PROVISIONED_BY) && policy == "Delete" {
        return reclaim(volume, plan);
    }
    let mut free = volume.clone();
    if has(volume, BOUND_BY_CONTROLLER) {
        remove(&mut free["spec"], "claimRef");
        remove(&mut free["metadata"]["annotations"], BOUND_BY_CONTROLLER);
    } else {
        // A user keeps it for the claim.
        remove(&mut free["spec"]["claimRef"], "uid");
    }
    plan.then(Write::update(VOLUMES, free));
}

fn remove(fields: &mut Value, name: &str) {
    if let Some(fields) = fields.as_object_mut() {
        fields.shift_remove(name);
    }
}

/// The claim is gone.
fn release(volume: &Value, now: Instant, plan: &mut Plan) {
    let is_new = matches!(
        volume["status"]["phase"].as_str(),
        None | Some("Pending" | "Available")
    );
    let age = object::created(volume).map_or(CLAIM_GRACE_S, |at| now.seconds - at.seconds);
    if is_new && age < CLAIM_GRACE_S {
        let left = u64::try_from(CLAIM_GRACE_S - age).unwrap_or_default();
        return plan.again(Duration::from_secs(left.max(1)));
    }
    reclaim(volume, plan);
}

/// Does with a released volume as its policy says: what is to be deleted is deleted by its
/// driver, which sees the phase.
fn reclaim(volume: &Value, plan: &mut Plan) {
    let failure = match volume["spec"]["persistentVolumeReclaimPolicy"].as_str() {
        _ if has(volume, migration::MIGRATED_TO) => None,
        Some("Recycle") => Some((
            "VolumeFailedRecycle",
            "No recycler plugin found for the volume!".to_owned(),
        )),
        Some("Delete") => undeletable(volume).map(|why| ("VolumeFailedDelete", why)),
        _ => None,
    };
    let phase = &volume["status"]["phase"];
    match failure {
        None if phase != "Failed" => set_volume(plan, volume, "Released", ""),
        Some((reason, message)) if phase != "Failed" => {
            set_volume(plan, volume, "Failed", &message);
            plan.then(Write::warning(VOLUMES, volume, reason, message));
        }
        _ => {}
    }
}

/// Why nobody deletes a volume.
fn undeletable(volume: &Value) -> Option<String> {
    match object::annotation(volume, PROVISIONED_BY).unwrap_or_default() {
        "" if volume["spec"]["csi"].is_object() => None,
        "" => Some(format!(
            "error getting deleter volume plugin for volume \"{}\": no deletable volume plugin matched",
            object::name(volume)
        )),
        plugin if plugin.starts_with("kubernetes.io/") => {
            Some(format!("no volume plugin matched name: {plugin}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
