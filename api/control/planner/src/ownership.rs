//! Who manages what: objects come under an owner by its selector, and leave it so.
//!
//! Invariants
//! - What another owner manages is never touched, and neither is anything for an owner that
//!   is on its way out.
//! - Owners are changed only in the version that was seen.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::kind::Kind;
use crate::object;
use crate::plan::Write;
use crate::view::{View, Within};

/// What came under an owner, and the writes that make it so.
pub struct Claimed {
    /// What the owner manages once the writes are done, in order of names.
    pub objects: Vec<Arc<Value>>,
    /// Adoptions and releases; they go together.
    pub writes: Vec<Write>,
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
    let (namespace, uid) = (object::namespace(owner), object::uid(owner));
    let ends = object::is_deleted(owner);
    let mut claimed = Claimed {
        objects: Vec::new(),
        writes: Vec::new(),
    };
    for own in view.list(kind, Within::Controlled(namespace, uid)) {
        if matches(&own) {
            claimed.objects.push(own);
        } else if !ends {
            claimed.writes.push(release(kind, &own, uid));
        }
    }
    if !ends {
        for orphan in view.list(kind, Within::Uncontrolled(namespace)) {
            if !object::is_deleted(&orphan) && matches(&orphan) {
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
    own(kind, orphan, references)
}

/// Takes an object from the owner of this uid.
pub fn release(kind: Kind, object: &Value, uid: &str) -> Write {
    own(kind, object, references_without(object, uid))
}

/// Gives an object these owners, and no others.
pub fn own(kind: Kind, object: &Value, references: Vec<Value>) -> Write {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::{PODS, REPLICA_SETS};
    use crate::testing::Cluster;

    fn owners_after(owner: &Value, label: &str, references: Value) -> (usize, Value) {
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
            let seen = owners_after(owner, label, references.clone());
            assert_eq!(seen, expected, "{label} {references}");
        }
    }
}
