//! Who manages what: objects come under an owner by its selector, and leave it so.
//!
//! Invariants
//! - What another owner manages is never touched, and neither is anything for an owner that
//!   is on its way out.
//! - Owners are changed only in the version that was seen.
//! - Before anything is adopted, the owner is seen to be there in the version that was
//!   planned from: the collector may be orphaning its dependents.

use std::sync::Arc;

use nautilus_machinery::selector::LabelSelector;
use serde_json::{Value, json};

use crate::controller::Change;
use crate::kind::Kind;
use crate::object;
use crate::plan::{Plan, Write};
use crate::view::{Key, View, Within};

/// What came under an owner, and the writes that make it so.
pub struct Claimed {
    /// What the owner manages once the writes are done, in order of names.
    pub objects: Vec<Arc<Value>>,
    /// Adoptions and releases; they go together.
    pub writes: Vec<Write>,
    /// Whether something is adopted.
    pub adopts: bool,
}

impl Claimed {
    /// Moves the writes to a plan, adoptions behind another look at `owner`.
    pub fn write(&mut self, owners: Kind, owner: &Value, plan: &mut Plan) {
        if self.adopts {
            // Changes nothing, but fails where the owner is gone or has changed.
            plan.then(Write::status(owners, owner.clone()));
        }
        plan.together(std::mem::take(&mut self.writes));
    }
}

/// What `owner`, of the kind `owners`, manages of a kind: what it has and what has nobody, as
/// far as `matches` says. What it has against that is let go.
pub fn claim(
    view: &dyn View,
    kind: Kind,
    owners: Kind,
    owner: &Value,
    matches: impl Fn(&Value) -> bool,
) -> Claimed {
    claim_among(view, kind, owners, owner, |_| true, matches)
}

/// The same of what is `eligible`; the rest stays as it is.
pub fn claim_among(
    view: &dyn View,
    kind: Kind,
    owners: Kind,
    owner: &Value,
    eligible: impl Fn(&Value) -> bool,
    matches: impl Fn(&Value) -> bool,
) -> Claimed {
    let (namespace, uid) = (object::namespace(owner), object::uid(owner));
    let ends = object::is_deleted(owner);
    let mut claimed = Claimed {
        objects: Vec::new(),
        writes: Vec::new(),
        adopts: false,
    };
    let mut owned = view.list(kind, Within::Controlled(namespace, uid));
    owned.retain(|own| eligible(own));
    for own in owned {
        if matches(&own) {
            claimed.objects.push(own);
        } else if !ends {
            claimed.writes.push(release(kind, &own, uid));
        }
    }
    if !ends {
        for orphan in view.list(kind, Within::Uncontrolled(namespace)) {
            if !object::is_deleted(&orphan) && matches(&orphan) && eligible(&orphan) {
                claimed.adopts = true;
                claimed.writes.push(adopt(kind, &orphan, owners, owner));
                claimed.objects.push(orphan);
            }
        }
    }
    claimed
        .objects
        .sort_by(|one, two| object::name(one).cmp(object::name(two)));
    claimed
}

/// Has `owner` manage an object that nobody manages.
pub fn adopt(kind: Kind, orphan: &Value, owners: Kind, owner: &Value) -> Write {
    let uid = object::uid(owner);
    let mut references = references_without(orphan, uid);
    references.push(object::controller_reference(owners, owner));
    own(kind, orphan, &references)
}

/// Takes an object from the owner of this uid.
pub fn release(kind: Kind, object: &Value, uid: &str) -> Write {
    own(kind, object, &references_without(object, uid))
}

/// Gives an object these owners, and no others.
pub fn own(kind: Kind, object: &Value, references: &[Value]) -> Write {
    let version = &object["metadata"]["resourceVersion"];
    let metadata = json!({"resourceVersion": version, "ownerReferences": references});
    Write::patch(kind, object, json!({ "metadata": metadata }))
}

fn references_without(object: &Value, uid: &str) -> Vec<Value> {
    let references = object::items(&object["metadata"]["ownerReferences"]);
    references
        .filter(|owner| owner["uid"] != uid)
        .cloned()
        .collect()
}

/// The owners of `owner_kind` that a change of one of their dependents concerns: whoever
/// manages or managed it; where nobody does and that is new, whoever selects it.
pub fn concerned(view: &dyn View, owner_kind: Kind, change: &Change, keys: &mut Vec<Key>) {
    managers(owner_kind, change, keys);
    let Some(after) = change.after.as_deref() else {
        return;
    };
    if object::controller(after).is_some() || object::is_deleted(after) {
        return;
    }
    let is_new = change.before.as_deref().is_none_or(|before| {
        before["metadata"]["labels"] != after["metadata"]["labels"]
            || object::controller(before).is_some()
    });
    if is_new {
        selecting(view, owner_kind, after, keys);
    }
}

/// The owners of `owner_kind` that manage or managed what has changed.
pub fn managers(owner_kind: Kind, change: &Change, keys: &mut Vec<Key>) {
    for version in change.versions() {
        if let Some(owner) = object::controller(version) {
            let name = owner["name"].as_str().unwrap_or_default();
            if is_of(owner_kind, owner) {
                keys.push(Key::new(object::namespace(version), name));
            }
        }
    }
}

/// Owners of a kind whose selector matches an object of their namespace.
fn selecting(view: &dyn View, owner_kind: Kind, dependent: &Value, keys: &mut Vec<Key>) {
    for owner in view.list(owner_kind, Within::Namespace(object::namespace(dependent))) {
        let selects = selector(&owner).is_some_and(|own| own.matches(dependent));
        if selects {
            keys.push(Key::of(&owner));
        }
    }
}

/// The selector of an owner, as an object or as plain labels (ReplicationController);
/// `None` where it selects everything or cannot be read.
pub fn selector(owner: &Value) -> Option<LabelSelector> {
    let selector = &owner["spec"]["selector"];
    let plain = selector.as_object()?.values().any(Value::is_string);
    let selector = if plain {
        LabelSelector::of_object(&json!({ "matchLabels": selector }))
    } else {
        LabelSelector::of_object(selector)
    };
    selector.ok().filter(|own| !own.is_empty())
}

fn is_of(kind: Kind, owner: &Value) -> bool {
    let group = owner["apiVersion"].as_str().map_or("", |version| {
        version.split_once('/').map_or("", |(group, _)| group)
    });
    owner["kind"] == kind.kind && group == kind.group
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::{PODS, REPLICA_SETS};
    use crate::testing::Cluster;

    fn owners_after(owner: &Value, label: &str, references: &Value) -> (usize, Value) {
        let mut cluster = Cluster::default();
        let metadata = json!({
            "namespace": "n", "name": "p", "labels": {"app": label}, "ownerReferences": references,
        });
        cluster.put(PODS, json!({ "metadata": metadata }));
        let matches = |pod: &Value| object::label(pod, "app") == Some("a");
        let claimed = claim(&cluster, PODS, REPLICA_SETS, owner, matches);
        let mut plan = crate::plan::Plan::default();
        plan.together(claimed.writes);
        cluster.carry_out(&plan);
        let pod = cluster.get(PODS, "n", "p").unwrap();
        let owners = object::items(&pod["metadata"]["ownerReferences"]);
        let names: Vec<&Value> = owners.map(|owner| &owner["uid"]).collect();
        (claimed.objects.len(), json!(names))
    }

    #[test]
    fn an_owner_has_what_it_selects_and_nobody_elses() {
        let owner = json!({"metadata": {"namespace": "n", "name": "r", "uid": "1"}});
        let mut ending = owner.clone();
        ending["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z".into();
        let owned = |uid: &str| json!([{"uid": uid, "controller": true}]);
        let helped = json!([{"uid": "3"}]);
        for (owner, label, references, expected) in [
            (&owner, "a", json!(null), (1, json!(["1"]))),
            (&owner, "b", json!(null), (0, json!([]))),
            (&owner, "a", helped, (1, json!(["3", "1"]))),
            (&owner, "a", owned("1"), (1, json!(["1"]))),
            (&owner, "b", owned("1"), (0, json!([]))),
            (&owner, "a", owned("2"), (0, json!(["2"]))),
            (&ending, "a", json!(null), (0, json!([]))),
            (&ending, "b", owned("1"), (0, json!(["1"]))),
            (&ending, "a", owned("1"), (1, json!(["1"]))),
        ] {
            let seen = owners_after(owner, label, &references);
            assert_eq!(seen, expected, "{label} {references}");
        }
    }

    fn pod(name: &str, label: &str, owners: &Value) -> Value {
        json!({"metadata": {
            "namespace": "n", "name": name, "labels": {"app": label}, "ownerReferences": owners,
        }})
    }

    fn set(name: &str, label: &str) -> Value {
        json!({
            "metadata": {"namespace": "n", "name": name, "uid": name},
            "spec": {"selector": {"matchLabels": {"app": label}}},
        })
    }

    #[test]
    fn an_owner_is_looked_at_again_before_it_adopts() {
        let mut cluster = Cluster::default();
        let web = cluster.put(REPLICA_SETS, set("web", "web"));
        let steps = |cluster: &Cluster| {
            let selector = selector(&web).expect("it selects");
            let matches = |pod: &Value| selector.matches(pod);
            let active = |pod: &Value| object::is_active(pod);
            let mut claimed = claim_among(cluster, PODS, REPLICA_SETS, &web, active, matches);
            let mut plan = Plan::default();
            claimed.write(REPLICA_SETS, &web, &mut plan);
            plan.steps
        };
        let mut ended = pod("ended", "web", &Value::Null);
        ended["status"]["phase"] = "Failed".into();
        cluster.put(PODS, ended);
        let strayed = json!([{"uid": "web", "controller": true}]);
        cluster.put(PODS, pod("strayed", "db", &strayed));
        assert_eq!(steps(&cluster).len(), 1);
        cluster.put(PODS, pod("alone", "web", &Value::Null));
        let steps = steps(&cluster);
        assert_eq!(steps[0], [Write::status(REPLICA_SETS, (*web).clone())]);
        assert_eq!((steps.len(), steps[1].len()), (2, 2));
    }

    #[test]
    fn a_change_concerns_old_and_new_owners_and_whoever_selects_an_orphan() {
        let mut cluster = Cluster::default();
        cluster.put(REPLICA_SETS, set("web", "web"));
        cluster.put(REPLICA_SETS, set("db", "db"));
        let mut all = set("all", "x");
        all["spec"]["selector"] = json!({});
        cluster.put(REPLICA_SETS, all);
        let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "db",
            "uid": "db", "controller": true}]);
        let owned = || Some(pod("p", "web", &owner));
        let orphan = || Some(pod("p", "web", &Value::Null));
        let strange = json!([{"apiVersion": "v1", "kind": "ReplicationController", "name": "rc",
            "uid": "rc", "controller": true}]);
        for (before, after, expected) in [
            (None, owned(), vec!["db"]),
            (owned(), None, vec!["db"]),
            (None, orphan(), vec!["web"]),
            (orphan(), orphan(), vec![]),
            (orphan(), None, vec![]),
            (owned(), orphan(), vec!["db", "web"]),
            (Some(pod("p", "x", &Value::Null)), orphan(), vec!["web"]),
            (None, Some(pod("p", "web", &strange)), vec![]),
        ] {
            let change = Change {
                kind: PODS,
                before: before.map(Arc::new),
                after: after.map(Arc::new),
            };
            let mut keys = Vec::new();
            concerned(&cluster, REPLICA_SETS, &change, &mut keys);
            let names: Vec<_> = keys.iter().map(|key| key.name.as_str()).collect();
            assert_eq!(names, expected, "{:?}", change.object());
        }
    }
}
