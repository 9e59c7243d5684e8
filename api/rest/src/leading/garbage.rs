//! The garbage collector: dependents go after their last owner, owners that are deleted
//! in the foreground go after what blocks them, and orphans are let go.
//!
//! Source: the documentation of owners and dependents, of garbage collection and of
//! finalizers. An owner is known by its kind, its place and its uid; whoever names an
//! owner of a kind that is not served is left alone.
//!
//! Invariants
//! - An object is deleted only if a read behind a barrier showed that none of its owners
//!   is there, with the uid it was read with as a precondition.
//! - A finalizer of propagation is taken off only when what it stands for is done.
//! - What is kept in memory are the keys of dependents, not of all objects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use nautilus_machinery::identity::User;
use nautilus_machinery::resource::Resource;
use nautilus_machinery::strategy::DeleteOptions;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;

use super::{Change, Part, RETRY_PAUSE, place};
use crate::account::Account;
use crate::failure::{Failure, unless_gone};
use crate::registry::Registry;
use crate::storage::{Row, Storage, Target, metadata_text};

static USER: Account = Account::new(|| User::controller("generic-garbage-collector"));
/// Objects looked at together.
const AT_ONCE: usize = 16;
/// Holds an object until its blocking dependents are gone.
const FOREGROUND: &str = "foregroundDeletion";
/// Holds an object until its dependents are let go.
const ORPHAN: &str = "orphan";

#[derive(Default)]
struct State {
    /// Keys of dependents, by the key of the owner they name.
    dependents: BTreeMap<String, BTreeSet<String>>,
    /// Keys of the owners that a dependent names.
    owners: BTreeMap<String, BTreeSet<String>>,
    /// Objects that wait for their dependents.
    deleting: BTreeSet<String>,
    dirty: BTreeSet<String>,
}

pub(super) struct Garbage {
    storage: Storage,
    registry: Arc<Registry>,
    state: Mutex<State>,
    changed: Notify,
}

/// One owner reference, and where its owner would stand.
struct Owner {
    key: String,
    uid: String,
    blocks: bool,
    kind: Arc<Resource>,
}

impl Garbage {
    pub(super) fn new(storage: Storage, registry: Arc<Registry>) -> Self {
        Self {
            storage,
            registry,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Looks at what changed. Ends only by being dropped.
    pub(super) async fn run(&self) {
        loop {
            self.changed.notified().await;
            let dirty = std::mem::take(&mut self.state.lock().dirty);
            if dirty.is_empty() {
                continue;
            }
            // One barrier for all of them: what they were told of is before it.
            let failed = match self.storage.barrier().await {
                Err(_) => dirty,
                Ok(_) => {
                    stream::iter(dirty)
                        .map(|key| async move {
                            let outcome = self.look_at(&key).await;
                            outcome.err().map(|failure| (key, failure))
                        })
                        .buffer_unordered(AT_ONCE)
                        .filter_map(|failed| async move {
                            let (key, failure) = failed?;
                            tracing::debug!(%key, error = %failure.error, "looked at later");
                            Some(key)
                        })
                        .collect()
                        .await
                }
            };
            if !failed.is_empty() {
                self.state.lock().dirty.extend(failed);
                self.changed.notify_one();
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }

    fn mark(&self, state: &mut State, key: &str) {
        state.dirty.insert(key.to_owned());
        self.changed.notify_one();
    }

    async fn look_at(&self, key: &str) -> Result<(), Failure> {
        let Some((kind, namespace, name)) = place(&self.registry, key) else {
            return Ok(());
        };
        let Some(row) = self.storage.find(&kind, key).await? else {
            return Ok(());
        };
        let target = Target {
            resource: &kind,
            namespace,
            name,
            subresource: None,
        };
        if is_deleted(&row.object) {
            if has_finalizer(&row.object, ORPHAN) {
                return self.let_go(&target, &row).await;
            }
            if has_finalizer(&row.object, FOREGROUND) {
                return self.finish_foreground(&target, &row).await;
            }
            return Ok(());
        }
        self.collect(&target, &row).await
    }

    /// Deletes an object whose owners are all gone or wait for it.
    async fn collect(&self, target: &Target<'_>, row: &Row) -> Result<(), Failure> {
        let references = row.object["metadata"]["ownerReferences"].as_array();
        let Some(references) = references.filter(|list| !list.is_empty()) else {
            return Ok(());
        };
        let (mut gone, mut waiting) = (BTreeSet::new(), BTreeSet::new());
        for reference in references {
            let uid = reference["uid"].as_str().unwrap_or_default();
            let Some(owner) = self.owner(reference, target.namespace) else {
                continue;
            };
            match self.storage.find(&owner.kind, &owner.key).await? {
                Some(found) if metadata_text(&found.object, "uid") == owner.uid => {
                    let waits =
                        is_deleted(&found.object) && has_finalizer(&found.object, FOREGROUND);
                    if waits {
                        waiting.insert(uid);
                    }
                }
                _ => {
                    gone.insert(uid);
                }
            }
        }
        let solid = references.len() > gone.len() + waiting.len();
        if gone.is_empty() && waiting.is_empty() {
            return Ok(());
        }
        if solid {
            // Those that are left go on without the others.
            let dropped: BTreeSet<&str> = gone.union(&waiting).copied().collect();
            return self.drop_references(target, &dropped).await;
        }
        let foreground = !waiting.is_empty() && self.has_dependents(&target.key());
        if foreground && self.closes_a_circle(&target.key()).await? {
            self.unblock_owners(target).await?;
        }
        let policy = match () {
            () if foreground => "Foreground",
            () if has_finalizer(&row.object, ORPHAN) => "Orphan",
            () if has_finalizer(&row.object, FOREGROUND) => "Foreground",
            () => "Background",
        };
        let options = DeleteOptions {
            uid: Some(metadata_text(&row.object, "uid").to_owned()),
            propagation_policy: Some(policy.to_owned()),
            ..DeleteOptions::default()
        };
        let outcome = self
            .storage
            .delete(target, &options, &USER.writer())
            .await
            .map(|_| ());
        unless_gone(outcome)
    }

    /// Whether a dependent waits for its own dependents already: owners in a circle would
    /// wait for each other.
    async fn closes_a_circle(&self, key: &str) -> Result<bool, Failure> {
        for key in self.dependents_of(key) {
            let Some((kind, _, _)) = place(&self.registry, &key) else {
                continue;
            };
            let found = self.storage.find(&kind, &key).await?;
            let waits = found.is_some_and(|row| {
                is_deleted(&row.object) && has_finalizer(&row.object, FOREGROUND)
            });
            if waits {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lets the owners of an object go without it.
    async fn unblock_owners(&self, target: &Target<'_>) -> Result<(), Failure> {
        let unblocked = |present: &Value| {
            let mut next = present.clone();
            let references = next["metadata"]["ownerReferences"].as_array_mut();
            for reference in references.into_iter().flatten() {
                reference["blockOwnerDeletion"] = Value::Bool(false);
            }
            Ok(next)
        };
        let outcome = self.storage.update(target, &USER.writer(), unblocked).await;
        unless_gone(outcome)
    }

    /// Takes the owner off the dependents of an object that is deleted alone.
    async fn let_go(&self, target: &Target<'_>, row: &Row) -> Result<(), Failure> {
        let uid = metadata_text(&row.object, "uid");
        let own = BTreeSet::from([uid]);
        for key in self.dependents_of(&target.key()) {
            if let Some((kind, namespace, name)) = place(&self.registry, &key) {
                let dependent = Target {
                    resource: &kind,
                    namespace,
                    name,
                    subresource: None,
                };
                self.drop_references(&dependent, &own).await?;
            }
        }
        self.drop_finalizer(target, ORPHAN).await
    }

    /// Lets an owner go when no dependent blocks it; until then sees to it that they go.
    async fn finish_foreground(&self, target: &Target<'_>, row: &Row) -> Result<(), Failure> {
        let uid = metadata_text(&row.object, "uid");
        let mut blocked = false;
        for key in self.dependents_of(&target.key()) {
            let Some((kind, namespace, name)) = place(&self.registry, &key) else {
                continue;
            };
            let Some(dependent) = self.storage.find(&kind, &key).await? else {
                continue;
            };
            let references = dependent.object["metadata"]["ownerReferences"].as_array();
            let blocks = references
                .into_iter()
                .flatten()
                .filter_map(|reference| self.owner(reference, namespace))
                .any(|owner| owner.uid == uid && owner.blocks);
            if !blocks {
                continue;
            }
            blocked = true;
            if !is_deleted(&dependent.object) {
                let dependent_target = Target {
                    resource: &kind,
                    namespace,
                    name,
                    subresource: None,
                };
                // Deep graphs are gone through by their own changes, not by recursion.
                Box::pin(self.collect(&dependent_target, &dependent)).await?;
            }
        }
        if blocked {
            return Ok(());
        }
        self.drop_finalizer(target, FOREGROUND).await
    }

    async fn drop_references(
        &self,
        target: &Target<'_>,
        uids: &BTreeSet<&str>,
    ) -> Result<(), Failure> {
        let without = |present: &Value| {
            let mut next = present.clone();
            if let Some(references) = next["metadata"]["ownerReferences"].as_array_mut() {
                references.retain(|own| !uids.contains(own["uid"].as_str().unwrap_or_default()));
            }
            Ok(next)
        };
        let outcome = self.storage.update(target, &USER.writer(), without).await;
        unless_gone(outcome)
    }

    async fn drop_finalizer(&self, target: &Target<'_>, finalizer: &str) -> Result<(), Failure> {
        let without = |present: &Value| {
            let mut next = present.clone();
            if let Some(finalizers) = next["metadata"]["finalizers"].as_array_mut() {
                finalizers.retain(|own| own != finalizer);
            }
            Ok(next)
        };
        let outcome = self.storage.update(target, &USER.writer(), without).await;
        unless_gone(outcome)
    }

    fn dependents_of(&self, key: &str) -> Vec<String> {
        let state = self.state.lock();
        let found = state.dependents.get(key);
        found.map_or_else(Vec::new, |keys| keys.iter().cloned().collect())
    }

    fn has_dependents(&self, key: &str) -> bool {
        self.state.lock().dependents.contains_key(key)
    }

    /// The owner that a reference of an object in `namespace` names.
    fn owner(&self, reference: &Value, namespace: Option<&str>) -> Option<Owner> {
        let text = |field: &str| reference[field].as_str().unwrap_or_default();
        let api_version = text("apiVersion");
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let served = self.registry.served();
        let kind = served
            .kinds
            .find_kind(group, version, text("kind"))?
            .clone();
        let key = match (kind.namespaced, namespace) {
            (true, Some(namespace)) => kind.key(Some(namespace), text("name")),
            // An object without a namespace can't be owned by one that has one.
            (true, None) => return None,
            (false, _) => kind.key(None, text("name")),
        };
        Some(Owner {
            key,
            uid: text("uid").to_owned(),
            blocks: reference["blockOwnerDeletion"] == true,
            kind,
        })
    }

    fn forget(state: &mut State, key: &str) {
        for owner in state.owners.remove(key).unwrap_or_default() {
            if let Some(dependents) = state.dependents.get_mut(&owner) {
                dependents.remove(key);
                if dependents.is_empty() {
                    state.dependents.remove(&owner);
                }
            }
        }
    }
}

impl Part for Garbage {
    fn reset(&self) {
        *self.state.lock() = State::default();
    }

    fn put(&self, change: &Change<'_>) {
        let (owned, deleted) = (
            change.mentions("ownerReferences"),
            change.mentions("deletionTimestamp"),
        );
        let object = match owned || deleted {
            true => change.ends(),
            false => None,
        };
        let owners: BTreeSet<String> = match &object {
            Some(object) => {
                let namespace = place(&self.registry, change.key).and_then(|(_, ns, _)| ns);
                let references = object["metadata"]["ownerReferences"].as_array();
                references
                    .into_iter()
                    .flatten()
                    .filter_map(|reference| self.owner(reference, namespace))
                    .map(|owner| owner.key)
                    .collect()
            }
            None => BTreeSet::new(),
        };
        let mut state = self.state.lock();
        let before = state.owners.get(change.key).cloned().unwrap_or_default();
        // An owner that waits for it may be free now: it may not block it any more.
        let waiting: Vec<String> = before.intersection(&state.deleting).cloned().collect();
        for owner in waiting {
            self.mark(&mut state, &owner);
        }
        if before != owners {
            Self::forget(&mut state, change.key);
            for owner in &owners {
                let dependents = state.dependents.entry(owner.clone()).or_default();
                dependents.insert(change.key.to_owned());
            }
            if !owners.is_empty() {
                state.owners.insert(change.key.to_owned(), owners);
                self.mark(&mut state, change.key);
            }
        }
        let waits = object.as_ref().is_some_and(|object| {
            is_deleted(object)
                && [FOREGROUND, ORPHAN]
                    .iter()
                    .any(|own| has_finalizer(object, own))
        });
        if waits {
            state.deleting.insert(change.key.to_owned());
            self.mark(&mut state, change.key);
        } else {
            state.deleting.remove(change.key);
        }
        // Another object of the name of an owner, or one that waits for its dependents.
        if change.fresh || waits {
            for dependent in state
                .dependents
                .get(change.key)
                .cloned()
                .unwrap_or_default()
            {
                self.mark(&mut state, &dependent);
            }
        }
    }

    fn gone(&self, key: &str) {
        let mut state = self.state.lock();
        let owners = state.owners.get(key).cloned().unwrap_or_default();
        Self::forget(&mut state, key);
        state.deleting.remove(key);
        for owner in owners {
            if state.deleting.contains(&owner) {
                self.mark(&mut state, &owner);
            }
        }
        for dependent in state.dependents.get(key).cloned().unwrap_or_default() {
            self.mark(&mut state, &dependent);
        }
    }
}

fn is_deleted(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    let finalizers = object["metadata"]["finalizers"].as_array();
    finalizers.is_some_and(|list| list.iter().any(|own| own == finalizer))
}
