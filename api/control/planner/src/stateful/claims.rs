//! The claims of a set's pods: made of templates, mounted under the templates' names, owned
//! as `persistentVolumeClaimRetentionPolicy` says.
//!
//! While a set deletes its claims with itself, they are its own; while it deletes those of
//! pods that are too many, such a pod owns its claims. Somebody else's claims stay so.

use std::sync::Arc;

use serde_json::{Value, json};

use super::identity::{self, Ordinals};
use crate::kind::{CLAIMS, Kind, PODS, STATEFUL_SETS};
use crate::object;
use crate::view::View;

fn templates(set: &Value) -> impl Iterator<Item = &Value> {
    object::items(&set["spec"]["volumeClaimTemplates"])
}

fn name_of(set: &Value, template: &Value, ordinal: i64) -> String {
    let (template, set) = (object::name(template), object::name(set));
    format!("{template}-{set}-{ordinal}")
}

/// The name of a template and that of a pod's claim of it.
fn names<'a>(set: &'a Value, pod: &Value) -> impl Iterator<Item = (&'a str, String)> + use<'a> {
    let ordinal = identity::ordinal(object::name(pod)).unwrap_or_default();
    templates(set).map(move |own| (object::name(own), name_of(set, own, ordinal)))
}

/// The claims that a pod of the set shall have.
pub(super) fn wanted(set: &Value, pod: &Value) -> Vec<Value> {
    let claims = templates(set)
        .zip(names(set, pod))
        .map(|(template, (_, name))| {
            let mut claim = template.clone();
            let metadata = &mut claim["metadata"];
            metadata["name"] = name.into();
            metadata["namespace"] = object::namespace(set).into();
            let mut labels = metadata["labels"].as_object().cloned().unwrap_or_default();
            let selected = set["spec"]["selector"]["matchLabels"].as_object();
            for (label, value) in selected.into_iter().flatten() {
                labels.insert(label.clone(), value.clone());
            }
            metadata["labels"] = labels.into();
            if when(set, "whenDeleted") == Then::Delete {
                let owner = object::controller_reference(STATEFUL_SETS, set);
                metadata["ownerReferences"] = json!([owner]);
            }
            claim
        });
    claims.collect()
}

/// The claims of a pod that are there.
pub(super) fn there<'a>(
    view: &'a dyn View,
    set: &'a Value,
    pod: &Value,
) -> impl Iterator<Item = Arc<Value>> + use<'a> {
    let names = names(set, pod);
    names.filter_map(move |(_, name)| view.get(CLAIMS, object::namespace(set), &name))
}

/// Whether a pod mounts its claims.
pub(super) fn are_mounted(set: &Value, pod: &Value) -> bool {
    names(set, pod).all(|(template, claim)| {
        let volume = object::items(&pod["spec"]["volumes"]).find(|own| own["name"] == template);
        volume.is_some_and(|own| own["persistentVolumeClaim"]["claimName"] == claim.as_str())
    })
}

/// Has a pod mount its claims, in the place of volumes of the same names.
pub(super) fn mount(set: &Value, pod: &mut Value) {
    let mut volumes: Vec<Value> = names(set, pod)
        .map(|(template, claim)| {
            json!({"name": template, "persistentVolumeClaim": {"claimName": claim}})
        })
        .collect();
    let others = object::items(&pod["spec"]["volumes"])
        .filter(|own| templates(set).all(|template| object::name(template) != own["name"]));
    volumes.extend(others.cloned().collect::<Vec<_>>());
    if !volumes.is_empty() {
        pod["spec"]["volumes"] = volumes.into();
    }
}

/// Whether a claim of a pod that is not there yet goes with an earlier pod of its name.
pub(super) fn are_of_an_earlier_pod(view: &dyn View, set: &Value, pod: &Value) -> bool {
    when(set, "whenScaled") == Then::Delete
        && there(view, set, pod).any(|claim| is_stale(&claim, PODS, pod))
}

/// What becomes of claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Retain,
    Delete,
}

fn when(set: &Value, event: &str) -> Then {
    match set["spec"]["persistentVolumeClaimRetentionPolicy"][event].as_str() {
        Some("Delete") => Then::Delete,
        _ => Then::Retain,
    }
}

/// The owner references of a claim.
fn owners(claim: &Value) -> impl Iterator<Item = &Value> {
    object::items(&claim["metadata"]["ownerReferences"])
}

/// Whether an owner reference names an object, or an earlier one of its name.
fn names_it(owner: &Value, kind: Kind, object: &Value) -> bool {
    owner["apiVersion"] == kind.api_version()
        && owner["kind"] == kind.kind
        && owner["name"] == object::name(object)
}

fn is_stale(claim: &Value, kind: Kind, object: &Value) -> bool {
    let named = owners(claim).find(|owner| names_it(owner, kind, object));
    named.is_some_and(|owner| owner["uid"] != object::uid(object))
}

fn is_owned_by(claim: &Value, object: &Value) -> bool {
    owners(claim).any(|owner| owner["uid"] == object::uid(object))
}

/// A claim and those who may own it.
pub(super) struct Owned<'a> {
    claim: &'a Value,
    set: &'a Value,
    pod: &'a Value,
    by_set: bool,
    by_pod: bool,
}

impl<'a> Owned<'a> {
    /// Whose a claim of a pod shall be.
    pub(super) fn of(claim: &'a Value, set: &'a Value, ordinals: Ordinals, pod: &'a Value) -> Self {
        let ordinal = identity::ordinal(object::name(pod));
        let scaled_down = !ordinal.is_some_and(|ordinal| ordinals.contains(ordinal));
        let with_pod = when(set, "whenScaled") == Then::Delete && scaled_down;
        Self {
            claim,
            set,
            pod,
            by_set: when(set, "whenDeleted") == Then::Delete && !with_pod,
            by_pod: with_pod,
        }
    }

    /// Whether somebody else manages it, against the policy.
    pub(super) fn is_contested(&self) -> bool {
        let retains = ["whenScaled", "whenDeleted"]
            .iter()
            .all(|event| when(self.set, event) == Then::Retain);
        !retains && self.others().any(|owner| owner["controller"] == true)
    }

    fn others(&self) -> impl Iterator<Item = &'a Value> {
        let (set, pod) = (self.set, self.pod);
        owners(self.claim).filter(move |owner| {
            !names_it(owner, STATEFUL_SETS, set) && !names_it(owner, PODS, pod)
        })
    }

    /// Its owners, where they are to change.
    pub(super) fn references(&self) -> Option<Vec<Value>> {
        if self.is_right() {
            return None;
        }
        let mut references: Vec<Value> = self.others().cloned().collect();
        if !self.is_contested() {
            for (wanted, kind, owner) in [
                (self.by_set, STATEFUL_SETS, self.set),
                (self.by_pod, PODS, self.pod),
            ] {
                if wanted {
                    references.push(object::controller_reference(kind, owner));
                }
            }
        }
        Some(references)
    }

    fn is_right(&self) -> bool {
        if is_stale(self.claim, STATEFUL_SETS, self.set) || is_stale(self.claim, PODS, self.pod) {
            // The garbage collector is about to take it.
            return true;
        }
        let is_owned = (
            is_owned_by(self.claim, self.set),
            is_owned_by(self.claim, self.pod),
        );
        if self.is_contested() {
            return is_owned == (false, false);
        }
        let uids = [self.set, self.pod].map(object::uid);
        let all_manage = owners(self.claim)
            .filter(|owner| uids.iter().any(|uid| owner["uid"] == *uid))
            .all(|owner| owner["controller"] == true);
        all_manage && is_owned == (self.by_set, self.by_pod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(scaled: &str, deleted: &str) -> Value {
        json!({
            "metadata": {"namespace": "n", "name": "web", "uid": "s"},
            "spec": {
                "replicas": 1,
                "persistentVolumeClaimRetentionPolicy": {"whenScaled": scaled, "whenDeleted": deleted},
            },
        })
    }

    fn owner(kind: &str, name: &str, uid: &str, controller: bool) -> Value {
        let group = if kind == "Pod" { "v1" } else { "apps/v1" };
        json!({"apiVersion": group, "kind": kind, "name": name, "uid": uid, "controller": controller})
    }

    /// Uids of the owners that a claim is to have; `None`: it stays as it is.
    fn changed(set: &Value, ordinal: i64, owners: &Value) -> Option<Vec<String>> {
        let pod = json!({"metadata": {"name": format!("web-{ordinal}"), "uid": "p"}});
        let claim = json!({"metadata": {"ownerReferences": owners}});
        let owned = Owned::of(&claim, set, Ordinals::of(set), &pod);
        let references = owned.references()?;
        let uids = references.iter().filter_map(|owner| owner["uid"].as_str());
        Some(uids.map(str::to_owned).collect())
    }

    #[test]
    fn claims_are_owned_as_the_policy_says() {
        const KEPT: Option<&[&str]> = None;
        let by_set = || json!([owner("StatefulSet", "web", "s", true)]);
        let loosely = || json!([owner("StatefulSet", "web", "s", false)]);
        let by_pod = || json!([owner("Pod", "web-1", "p", true)]);
        let by_other = || json!([owner("Pod", "x", "x", true)]);
        let by_both = || {
            json!([
                owner("Pod", "x", "x", true),
                owner("StatefulSet", "web", "s", true)
            ])
        };
        let by_earlier = || json!([owner("Pod", "web-1", "old", true)]);
        for (scaled, deleted, ordinal, owners, expected) in [
            ("Retain", "Retain", 0, json!([]), KEPT),
            ("Retain", "Retain", 0, by_set(), Some(&[][..])),
            ("Retain", "Retain", 0, by_other(), KEPT),
            ("Retain", "Delete", 0, json!([]), Some(&["s"][..])),
            ("Retain", "Delete", 0, by_set(), KEPT),
            ("Retain", "Delete", 0, loosely(), Some(&["s"][..])),
            ("Retain", "Delete", 1, json!([]), Some(&["s"][..])),
            ("Delete", "Retain", 0, json!([]), KEPT),
            ("Delete", "Retain", 1, json!([]), Some(&["p"][..])),
            ("Delete", "Retain", 1, by_pod(), KEPT),
            ("Delete", "Delete", 1, by_set(), Some(&["p"][..])),
            ("Delete", "Delete", 0, by_set(), KEPT),
            ("Delete", "Delete", 0, by_other(), KEPT),
            ("Delete", "Delete", 0, by_both(), Some(&["x"][..])),
            ("Delete", "Delete", 1, by_earlier(), KEPT),
        ] {
            let seen = changed(&set(scaled, deleted), ordinal, &owners);
            let expected = expected.map(|uids| uids.iter().map(|uid| (*uid).to_owned()).collect());
            assert_eq!(seen, expected, "{scaled} {deleted} {ordinal} {owners}");
        }
    }
}
