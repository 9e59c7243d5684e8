//! Which changes of claims and classes may undo a rejection.

use serde_json::Value;

use super::super::pod::{PodDeviceClaim, PodInfo};
use super::extended::{CLASS_PREFIX, is_made_for_resources};
use crate::object;

/// Whether a claim had devices and has none any more.
pub(in super::super) fn frees_devices(before: Option<&Value>, after: Option<&Value>) -> bool {
    let has =
        |own: Option<&Value>| own.is_some_and(|claim| claim["status"]["allocation"].is_object());
    has(before) && !has(after)
}

/// Whether a claim of the pod is there, or says something else of its devices or users, or
/// one that was made for resources of it is gone.
pub(in super::super) fn changes_claim_of(
    before: Option<&Value>,
    after: Option<&Value>,
    pod: &PodInfo,
) -> bool {
    let Some(claim) = after else {
        return before.is_some_and(|own| {
            is_made_for_resources(own) && object::is_controlled_by(own, &pod.uid)
        });
    };
    let names = |own: &PodDeviceClaim| own.name() == Some(object::name(claim));
    object::namespace(claim) == pod.namespace
        && pod.device_claims.iter().any(names)
        && before.is_none_or(|before| before["status"] != claim["status"])
}

/// Whether a class stands for a resource that the pod asks for, and did not before.
pub(in super::super) fn stands_for_resource_of(
    before: Option<&Value>,
    after: Option<&Value>,
    pod: &PodInfo,
) -> bool {
    let Some(class) = after else {
        return false;
    };
    let asks_for = |name: &str| pod.requests.asked.scalars.contains_key(name);
    let named = |own: &Value| {
        own["spec"]["extendedResourceName"]
            .as_str()
            .map(str::to_owned)
    };
    let is_new = match before {
        None => true,
        Some(before) => named(before) != named(class),
    };
    is_new
        && (named(class).is_some_and(|own| asks_for(&own))
            || (before.is_none() && asks_for(&format!("{CLASS_PREFIX}{}", object::name(class)))))
}
