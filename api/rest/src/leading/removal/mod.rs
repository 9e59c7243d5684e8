//! Empties nodes that leave because the stake behind them is gone: drains them first, or removes
//! everything at once ([`step`]).
//!
//! Invariants
//! - Every pod is looked at behind a read barrier before something happens to it, and only that
//!   very pod is deleted.
//! - Passes come at most once in [`PAUSE`], none while no node leaves, and read the pods of nodes
//!   that leave alone.

mod step;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use nautilus_machinery::identity::User;
use nautilus_machinery::leaving::TAINTS_PREFIX;
use nautilus_machinery::resource::{self, Resource};
use nautilus_machinery::strategy::DeleteOptions;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Notify;

use self::step::{Leaving, Step, step};
use super::{Change, Part, RETRY_PAUSE};
use crate::access::role_of_user;
use crate::account::Account;
use crate::failure::{Failure, unless_lost};
use crate::ids;
use crate::storage::{Storage, Target, metadata_text, versioned_object};

/// The taint manager's name in the reference.
static USER: Account = Account::new(|| User::controller("node-controller"));

/// What lets it drain a node: the reference's only deletes.
pub(crate) fn role() -> [(&'static str, Value); 2] {
    let rules = json!([
        { "apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"] },
    ]);
    role_of_user("nautilus:node-removal", &USER.user().name, &rules)
}

/// Between two passes over the pods.
const PAUSE: Duration = Duration::from_secs(1);
/// Before a pod that its budget holds is tried again, in seconds.
const BUDGET_PAUSE_S: i64 = 5;
/// Pods that are deleted at once.
const DELETIONS_AT_ONCE: usize = 16;

pub(super) struct Removal {
    storage: Storage,
    nodes: String,
    pods: Option<(&'static Arc<Resource>, String)>,
    /// Nodes that leave, by name.
    leaving: Mutex<BTreeMap<String, Leaving>>,
    placed: Mutex<PlacedPods>,
    changed: Notify,
}

/// What tells whether a pod is looked at.
#[derive(Deserialize)]
struct Placed {
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    node_name: String,
}

fn node_of(pod: &[u8]) -> Option<String> {
    let placed: Placed = serde_json::from_slice(pod).ok()?;
    Some(placed.spec.node_name)
}

/// Which pods each node has, by their places: `namespace/name`.
#[derive(Default)]
struct PlacedPods {
    by_node: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    node_of: BTreeMap<Arc<str>, Arc<str>>,
}

impl PlacedPods {
    /// The pod at `place` is on `node`; on none, if that is empty.
    fn put(&mut self, place: &str, node: &str) {
        let before = self.node_of.get_key_value(place);
        if before.is_some_and(|(_, before)| **before == *node) {
            return;
        }
        let before = before.map(|(place, before)| (place.clone(), before.clone()));
        if let Some((place, before)) = before {
            self.node_of.remove(&place);
            if let Some(pods) = self.by_node.get_mut(&before) {
                pods.remove(&place);
                if pods.is_empty() {
                    self.by_node.remove(&before);
                }
            }
        }
        if node.is_empty() {
            return;
        }
        let known = self
            .by_node
            .get_key_value(node)
            .map(|(name, _)| name.clone());
        let (place, node): (Arc<str>, Arc<str>) =
            (place.into(), known.unwrap_or_else(|| node.into()));
        self.by_node
            .entry(node.clone())
            .or_default()
            .insert(place.clone());
        self.node_of.insert(place, node);
    }

    fn of(&self, node: &str) -> Vec<Arc<str>> {
        let pods = self.by_node.get(node);
        pods.into_iter().flatten().cloned().collect()
    }
}

impl Removal {
    pub(super) fn new(storage: Storage) -> Self {
        let nodes = resource::find("", "v1", "nodes");
        Self {
            storage,
            nodes: nodes.map_or_else(String::new, |nodes| nodes.storage_prefix()),
            pods: resource::find("", "v1", "pods").map(|pods| (pods, pods.storage_prefix())),
            leaving: Mutex::default(),
            placed: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Namespace and name of the pod under a key.
    fn place_of<'k>(&self, key: &'k str) -> Option<&'k str> {
        key.strip_prefix(self.pods.as_ref()?.1.as_str())
    }

    /// Empties nodes. Ends only by being dropped.
    pub(super) async fn run(&self) {
        loop {
            let next_s = match self.pass().await {
                Ok(next_s) => next_s,
                Err(failure) => {
                    tracing::debug!(error = %failure.error, "nodes are emptied later");
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                }
            };
            tokio::time::sleep(PAUSE).await;
            let left = next_s.map(|at| at.saturating_sub(ids::now_unix_s()).max(0));
            let timer = async {
                match left.and_then(|left| u64::try_from(left).ok()) {
                    Some(left) => tokio::time::sleep(Duration::from_secs(left)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = timer => {}
            }
        }
    }

    /// Looks at every pod of the nodes that leave; when to look again, if nothing changes.
    async fn pass(&self) -> Result<Option<i64>, Failure> {
        let leaving = self.leaving.lock().clone();
        let Some((pods, prefix)) = self.pods.as_ref().filter(|_| !leaving.is_empty()) else {
            return Ok(None);
        };
        self.storage.barrier().await?;
        let now_s = ids::now_unix_s();
        let mut steps = Vec::new();
        for (name, leaving) in &leaving {
            for place in self.placed.lock().of(name) {
                let row = self.storage.read_row(&format!("{prefix}{place}"))?;
                let Some(row) = row.filter(|row| node_of(&row.value).as_ref() == Some(name)) else {
                    continue;
                };
                let pod = versioned_object(pods, &row)?;
                let step = step(&pod, leaving, now_s);
                steps.push((pod, step));
            }
        }
        let looks = stream::iter(steps)
            .map(|(pod, step)| async move { self.take(pods, &pod, step, now_s).await })
            .buffer_unordered(DELETIONS_AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        Ok(looks.into_iter().flatten().min())
    }

    /// Takes a step; when to look again.
    async fn take(&self, pods: &Resource, pod: &Value, step: Step, now_s: i64) -> Option<i64> {
        let (grace_s, again_s) = match step {
            Step::Stay => return None,
            Step::Wait(until_s) => return Some(until_s),
            Step::Evict => (None, now_s + BUDGET_PAUSE_S),
            Step::Delete(grace_s) => (Some(grace_s), now_s + BUDGET_PAUSE_S),
            Step::Force(again_s) => (Some(0), again_s),
        };
        let mut options = json!({"preconditions": {"uid": metadata_text(pod, "uid")}});
        if let Some(grace_s) = grace_s {
            options["gracePeriodSeconds"] = grace_s.into();
        }
        let (namespace, name) = (metadata_text(pod, "namespace"), metadata_text(pod, "name"));
        let target = Target {
            resource: pods,
            namespace: Some(namespace),
            name,
            subresource: None,
        };
        let storage = match step {
            Step::Evict => self.storage.clone().evicting(),
            _ => self.storage.clone(),
        };
        let deleted = async {
            let options = DeleteOptions::from_value(&options)?;
            unless_lost(storage.delete(&target, &options, &USER.writer()).await)
        };
        match deleted.await {
            Ok(()) => tracing::info!(namespace, name, ?step, "a pod leaves with its node"),
            Err(failure) => {
                tracing::debug!(namespace, name, error = %failure.error, "a pod stays for now");
            }
        }
        Some(again_s)
    }
}

impl Part for Removal {
    fn reset(&self) {
        self.leaving.lock().clear();
        *self.placed.lock() = PlacedPods::default();
    }

    fn put(&self, change: &Change<'_>) {
        if let Some(name) = change.key.strip_prefix(&self.nodes) {
            let leaving = change
                .mentions(TAINTS_PREFIX)
                .then(|| change.object())
                .flatten();
            let mut known = self.leaving.lock();
            match leaving.as_ref().and_then(Leaving::of) {
                Some(leaving) if known.get(name) == Some(&leaving) => {}
                Some(leaving) => {
                    known.insert(name.to_owned(), leaving);
                    self.changed.notify_one();
                }
                None => drop(known.remove(name)),
            }
            return;
        }
        if let Some(place) = self.place_of(change.key) {
            let name = node_of(change.value).unwrap_or_default();
            self.placed.lock().put(place, &name);
            if self.leaving.lock().contains_key(&name) {
                self.changed.notify_one();
            }
        }
    }

    fn gone(&self, key: &str) {
        if let Some(name) = key.strip_prefix(&self.nodes) {
            self.leaving.lock().remove(name);
        } else if let Some(place) = self.place_of(key) {
            self.placed.lock().put(place, "");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_found_where_it_is_and_nowhere_else() {
        let mut pods = PlacedPods::default();
        pods.put("default/a", "");
        pods.put("default/a", "w1");
        pods.put("default/b", "w1");
        pods.put("default/a", "w1");
        assert_eq!(pods.of("w1").len(), 2);
        // Deleted, and made anew elsewhere.
        pods.put("default/a", "w2");
        assert_eq!(
            (&*pods.of("w1")[0], &*pods.of("w2")[0]),
            ("default/b", "default/a")
        );
        pods.put("default/a", "");
        pods.put("default/b", "");
        assert!(pods.by_node.is_empty() && pods.node_of.is_empty());
    }
}
