//! What a deleted namespace leaves: the leader empties it, says in its status what is
//! still there, and lets it go when nothing is.
//!
//! Pods go first and are waited for, then everything else (KEP-5080): whatever guards a
//! pod, as a network policy, outlives it. Messages and reasons are the reference's
//! (`pkg/controller/namespace/deletion`).
//!
//! Invariants
//! - A namespace goes only after a scan of every kind, also of those made at run time,
//!   found it empty; no object can be created in it once it is terminating.
//! - Everything is idempotent and read from the store, fenced by the leader's term, and allowed
//!   to its account by its role: what that refuses stands in the namespace's status.

use std::collections::BTreeMap;

use nautilus_machine::types::KeyRange;
use nautilus_machinery::identity::User;
use nautilus_machinery::resource::Resource;
use nautilus_machinery::strategy::DeleteOptions;
use serde_json::{Value, json};

use crate::account::Account;
use crate::failure::Failure;
use crate::ids;
use crate::registry::Registry;
use crate::storage::{
    Deleted, Storage, Target, Updated, metadata_text, namespaces, versioned_object,
};

static USER: Account = Account::new(|| User::controller("namespace-controller"));

/// The types of conditions, each with its reason and message when all is well.
const CONDITIONS: [(&str, &str, &str); 5] = [
    (
        "NamespaceDeletionDiscoveryFailure",
        "ResourcesDiscovered",
        "All resources successfully discovered",
    ),
    (
        "NamespaceDeletionGroupVersionParsingFailure",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    (
        "NamespaceContentRemaining",
        "ContentRemoved",
        "All content successfully removed",
    ),
    (
        "NamespaceFinalizersRemaining",
        "ContentHasNoFinalizers",
        "All content-preserving finalizers finished",
    ),
];
/// Bytes of a condition's message, at most.
const MAX_MESSAGE_BYTES: usize = 4_096;

/// What stands in a namespace's way.
#[derive(Default)]
struct Remaining {
    /// Objects by `plural.group`.
    objects: BTreeMap<String, usize>,
    /// Objects by the finalizer that holds them.
    finalizers: BTreeMap<String, usize>,
    /// What could not be deleted, and why.
    errors: Vec<String>,
}

/// Takes a terminating namespace further; true when it is gone.
pub(crate) async fn terminate(
    storage: &Storage,
    registry: &Registry,
    namespace: &Value,
) -> Result<bool, Failure> {
    let name = metadata_text(namespace, "name");
    let remaining = empty(storage, registry, name).await?;
    let left = !remaining.objects.is_empty() || !remaining.errors.is_empty();
    tell(storage, namespace, &remaining).await?;
    if left {
        return Ok(false);
    }
    finalize(storage, name).await
}

/// Deletes what is in the namespace, pods before all else, and counts what is left.
async fn empty(
    storage: &Storage,
    registry: &Registry,
    namespace: &str,
) -> Result<Remaining, Failure> {
    let served = registry.served();
    let kinds: Vec<_> = served.kinds.all().to_vec();
    drop(served);
    let (pods, others): (Vec<_>, Vec<_>) = kinds
        .iter()
        .filter(|kind| kind.namespaced && kind.stored_as.is_none() && kind.has_verb("delete"))
        .partition(|kind| kind.group.is_empty() && kind.plural == "pods");
    let mut remaining = Remaining::default();
    for kind in pods {
        empty_of(storage, kind, namespace, &mut remaining).await?;
    }
    if remaining.objects.is_empty() && remaining.errors.is_empty() {
        for kind in others {
            empty_of(storage, kind, namespace, &mut remaining).await?;
        }
    }
    Ok(remaining)
}

async fn empty_of(
    storage: &Storage,
    kind: &Resource,
    namespace: &str,
    remaining: &mut Remaining,
) -> Result<(), Failure> {
    let range = KeyRange::prefix(kind.namespace_prefix(namespace));
    let (rows, _) = storage.rows_of(kind, range).await?;
    let options = DeleteOptions::default();
    for row in &rows {
        let object = versioned_object(kind, row)?;
        let target = Target {
            resource: kind,
            namespace: Some(namespace),
            name: metadata_text(&object, "name"),
            subresource: None,
        };
        match storage.delete(&target, &options, &USER.writer()).await {
            Ok(Deleted::Removed(_)) => {}
            Ok(Deleted::Marked(object)) => {
                let held = remaining.objects.entry(group_resource(kind)).or_default();
                *held += 1;
                for finalizer in object["metadata"]["finalizers"]
                    .as_array()
                    .into_iter()
                    .flatten()
                {
                    let name = finalizer.as_str().unwrap_or_default().to_owned();
                    *remaining.finalizers.entry(name).or_default() += 1;
                }
            }
            Err(failure) if failure.error.code() == 404 => {}
            // What the quorum failed at is tried again as a whole.
            Err(failure) if failure.error.code() >= 500 => return Err(failure),
            Err(failure) => remaining.errors.push(failure.error.to_string()),
        }
    }
    Ok(())
}

/// `pods.` for the core group, as the reference writes it.
fn group_resource(kind: &Resource) -> String {
    format!("{}.{}", kind.plural, kind.group)
}

impl Remaining {
    /// Reason and message of a condition that does not stand well.
    fn trouble(&self, condition: &str) -> Option<(&'static str, String)> {
        let listed = |counts: &BTreeMap<String, usize>, before: &str, between: &str| {
            let parts: Vec<String> = counts
                .iter()
                .map(|(name, count)| format!("{name} {between} {count} resource instances"))
                .collect();
            format!("{before}: {}", parts.join(", "))
        };
        match condition {
            "NamespaceDeletionContentFailure" if !self.errors.is_empty() => Some((
                "ContentDeletionFailed",
                format!(
                    "Failed to delete all resource types, {} remaining: {}",
                    self.errors.len(),
                    self.errors.join(", ")
                ),
            )),
            "NamespaceContentRemaining" if !self.objects.is_empty() => Some((
                "SomeResourcesRemain",
                listed(&self.objects, "Some resources are remaining", "has"),
            )),
            "NamespaceFinalizersRemaining" if !self.finalizers.is_empty() => Some((
                "SomeFinalizersRemain",
                listed(
                    &self.finalizers,
                    "Some content in the namespace has finalizers remaining",
                    "in",
                ),
            )),
            _ => None,
        }
    }

    /// The conditions as they are to stand, from those that do; `None`: they stand so.
    fn conditions(&self, present: &Value) -> Option<Value> {
        let mut conditions = present.as_array().cloned().unwrap_or_default();
        let mut changed = false;
        for (kind, well, message) in CONDITIONS {
            let (status, reason, mut message) = match self.trouble(kind) {
                Some((reason, message)) => ("True", reason, message),
                None => ("False", well, message.to_owned()),
            };
            message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
            let at = conditions.iter().position(|own| own["type"] == kind);
            let own = at.map(|at| &conditions[at]);
            if own.is_some_and(|own| {
                own["status"] == status && own["reason"] == reason && own["message"] == *message
            }) {
                continue;
            }
            let since = match own {
                Some(own) if own["status"] == status => own["lastTransitionTime"].clone(),
                _ => json!(ids::now_rfc3339()),
            };
            let condition = json!({
                "type": kind, "status": status, "lastTransitionTime": since,
                "reason": reason, "message": message,
            });
            match at {
                Some(at) => conditions[at] = condition,
                None => conditions.push(condition),
            }
            changed = true;
        }
        changed.then_some(Value::Array(conditions))
    }
}

/// Writes the conditions where they changed.
async fn tell(storage: &Storage, namespace: &Value, remaining: &Remaining) -> Result<(), Failure> {
    if remaining
        .conditions(&namespace["status"]["conditions"])
        .is_none()
    {
        return Ok(());
    }
    let target = Target {
        resource: namespaces()?,
        namespace: None,
        name: metadata_text(namespace, "name"),
        subresource: Some("status"),
    };
    let make = |current: &Value| {
        let mut wanted = current.clone();
        if let Some(conditions) = remaining.conditions(&current["status"]["conditions"]) {
            wanted["status"]["conditions"] = conditions;
        }
        Ok(wanted)
    };
    match storage.update(&target, &USER.writer(), make).await {
        Ok(_) => Ok(()),
        Err(failure) if failure.error.code() == 404 => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// Takes our finalizer off an empty namespace, which removes it unless somebody
/// else's finalizer holds it; true when it is gone.
async fn finalize(storage: &Storage, name: &str) -> Result<bool, Failure> {
    let target = Target {
        resource: namespaces()?,
        namespace: None,
        name,
        subresource: Some("finalize"),
    };
    let without = |current: &Value| {
        let mut wanted = current.clone();
        if let Some(finalizers) = wanted["spec"]["finalizers"].as_array_mut() {
            finalizers.retain(|finalizer| finalizer != "kubernetes");
        }
        Ok(wanted)
    };
    match storage.update(&target, &USER.writer(), without).await {
        Ok(Updated::Removed(_)) => Ok(true),
        Ok(Updated::Stored(_)) => Ok(false),
        Err(failure) if failure.error.code() == 404 => Ok(true),
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_say_what_remains_and_change_only_then() {
        let mut remaining = Remaining::default();
        let well = remaining.conditions(&Value::Null).expect("none stood");
        assert_eq!(well.as_array().map(Vec::len), Some(CONDITIONS.len()));
        assert!(remaining.conditions(&well).is_none());
        remaining.objects.insert("pods.".to_owned(), 2);
        remaining.finalizers.insert("a.b/c".to_owned(), 1);
        let told = remaining.conditions(&well).expect("changed");
        assert_eq!(
            told[3]["message"],
            "Some resources are remaining: pods. has 2 resource instances"
        );
        assert_eq!(told[4]["reason"], "SomeFinalizersRemain");
        assert_eq!(told[0], well[0]);
    }
}
