//! Persistent volumes and the claims on them: what binds, grows, attaches and frees them.
//!
//! Nothing here touches storage: drivers do, asked by annotations and objects.

pub mod attach;
pub mod binder;
pub mod ephemeral;
pub mod expand;
mod matching;
mod migration;
pub mod unused;

use serde_json::Value;

pub use self::matching::can_be_for;

use crate::kind::STORAGE_CLASSES;
use crate::object;
use crate::view::{Key, View};

/// On a claim: its binding was completed once.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a volume or a claim: a controller bound it, no user.
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a claim: the node that the scheduler chose, where provisioning waits for one.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a claim: who is to make a volume for it; and by its old name.
const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const BETA_STORAGE_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// On a volume that grew: its size before, while its file system or claim has not followed.
const PRE_RESIZE_CAPACITY: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";
/// On a volume: who made it for a claim.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// The class of a claim or a volume, of old.
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// On a class: claims without one get it.
const DEFAULT_CLASS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

/// The class of a claim or a volume, empty for none.
pub fn class(object: &Value) -> &str {
    let of_old = object::annotation(object, BETA_CLASS);
    of_old
        .or_else(|| object["spec"]["storageClassName"].as_str())
        .unwrap_or_default()
}

/// Whether a claim says which class it wants, be it none.
pub fn has_class(claim: &Value) -> bool {
    object::annotation(claim, BETA_CLASS).is_some() || claim["spec"]["storageClassName"].is_string()
}

/// Whether claims of a class are bound only when a pod uses them.
pub fn waits_for_consumer(view: &dyn View, class: &str) -> bool {
    let class = view.get(STORAGE_CLASSES, "", class);
    class.is_some_and(|own| own["volumeBindingMode"] == "WaitForFirstConsumer")
}

fn is_default(class: &Value) -> bool {
    DEFAULT_CLASS
        .iter()
        .any(|name| object::annotation(class, name) == Some("true"))
}

/// The claim that a volume is for.
pub fn claim_of(volume: &Value) -> Option<Key> {
    let reference = &volume["spec"]["claimRef"];
    let text = |field: &str| reference[field].as_str();
    Some(Key::new(text("namespace")?, text("name")?))
}

/// Whether a volume is bound to a claim, or kept for it.
pub fn is_for(volume: &Value, claim: &Value) -> bool {
    let uid = volume["spec"]["claimRef"]["uid"]
        .as_str()
        .unwrap_or_default();
    claim_of(volume) == Some(Key::of(claim)) && (uid.is_empty() || uid == object::uid(claim))
}

fn annotate(object: &mut Value, name: &str, value: &str) {
    let annotations = &mut object["metadata"]["annotations"];
    if !annotations.is_object() {
        *annotations = Value::Object(serde_json::Map::new());
    }
    annotations[name] = value.into();
}

/// The claims that a pod's volumes name, those of ephemeral volumes by their pod included.
pub fn claims_of(pod: &Value) -> impl Iterator<Item = String> {
    let volumes = object::items(&pod["spec"]["volumes"]);
    volumes.filter_map(|volume| claim_name(pod, volume))
}

/// The claim of a pod's volume.
pub fn claim_name(pod: &Value, volume: &Value) -> Option<String> {
    if volume["ephemeral"].is_object() {
        let volume = volume["name"].as_str()?;
        return Some(format!("{}-{volume}", object::name(pod)));
    }
    let claim = volume["persistentVolumeClaim"]["claimName"].as_str()?;
    Some(claim.to_owned())
}
