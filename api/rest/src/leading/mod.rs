//! What the leader's node does for admission: objects that every cluster has, usage of
//! quotas counted anew, dependents of what is gone, finalizers of what nobody uses,
//! migrations of what is stored, pods of nodes whose stake is gone.
//!
//! Invariants
//! - Every write is fenced by the leader's term, passes admission, and is allowed to its own
//!   service account by its role ([`crate::account`]).
//! - State is rebuilt from the store at the start of a term; a lost watch is a new start.
//! - A task that fails goes on later; it never stops another.

mod bootstrap;
pub(crate) mod compaction;
pub(crate) mod endpoints;
mod flow_schemas;
mod garbage;
mod migrations;
mod policy_types;
mod protection;
mod quotas;
pub(crate) mod removal;

use std::sync::Arc;
use std::time::Duration;

use nautilus_machine::types::{KeyRange, OBJECTS_PREFIX};
use nautilus_machine::{Event, EventKind, Revision, WatchRequest};
use nautilus_machinery::resource::Resource;

use crate::failure::Failure;
use crate::registry::Registry;
use crate::storage::Storage;
use crate::webhook::WebhookClients;

/// Pause after a failure before it is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// One term's work. Ends only by being dropped.
pub(crate) async fn run(storage: Storage, registry: Arc<Registry>, clients: Arc<WebhookClients>) {
    let quotas = quotas::Quotas::new(storage.clone(), registry.clone());
    let garbage = garbage::Garbage::new(storage.clone(), registry.clone());
    let protection = protection::Protection::new(storage.clone());
    let migrations = migrations::Migrations::new(storage.clone(), registry.clone(), clients);
    let removal = removal::Removal::new(storage.clone());
    let parts: [&dyn Part; 5] = [&quotas, &garbage, &protection, &migrations, &removal];
    tokio::join!(
        bootstrap::keep(&storage),
        flow_schemas::keep(&storage),
        policy_types::keep(&storage, &registry),
        follow(&storage, &parts),
        quotas.run(),
        garbage.run(),
        protection.run(),
        migrations.run(),
        removal.run(),
    );
}

/// What looks at every change of an object.
trait Part: Send + Sync {
    /// Everything is read anew from here.
    fn reset(&self);
    /// An object that is there, from the beginning or by a change.
    fn put(&self, change: &Change<'_>);
    /// An object that is gone.
    fn gone(&self, key: &str);
}

/// An object as it stands now.
struct Change<'a> {
    key: &'a str,
    value: &'a [u8],
    /// Whether it was made by this change, or found at the start.
    fresh: bool,
}

impl Change<'_> {
    /// Whether the stored text holds these words: a cheap way to pass over most objects
    /// without reading them.
    fn mentions(&self, words: &str) -> bool {
        memchr::memmem::find(self.value, words.as_bytes()).is_some()
    }

    /// An object with nothing but what says who owns it and how it ends: most of one is
    /// passed over, not read.
    fn ends(&self) -> Option<serde_json::Value> {
        let object: Ends = serde_json::from_slice(self.value).ok()?;
        serde_json::to_value(object).ok()
    }

    fn object(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(self.value).ok()
    }
}

/// See [`Change::ends`].
#[derive(serde::Serialize, serde::Deserialize)]
struct Ends {
    metadata: EndsMetadata,
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct EndsMetadata {
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    owner_references: serde_json::Value,
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    deletion_timestamp: serde_json::Value,
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    finalizers: serde_json::Value,
}

/// Reads everything once and then every change, for all parts.
async fn follow(storage: &Storage, parts: &[&dyn Part]) {
    loop {
        if let Err(failure) = follow_once(storage, parts).await {
            tracing::debug!(error = %failure.error, "objects are read anew");
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn follow_once(storage: &Storage, parts: &[&dyn Part]) -> Result<(), Failure> {
    storage.barrier().await?;
    let range = KeyRange::prefix(OBJECTS_PREFIX.to_vec());
    let from: Revision = storage.kv.revision() + 1;
    let mut watcher = storage.kv.watch(WatchRequest {
        range: range.clone(),
        from: Some(from),
        previous: false,
    })?;
    parts.iter().for_each(|part| part.reset());
    let (rows, _) = storage.rows(range).await?;
    for row in &rows {
        tell(parts, &row.key, Some(&row.value), true);
    }
    drop(rows);
    loop {
        for Event { kind, kv, .. } in watcher.next().await? {
            let value = (kind == EventKind::Put).then_some(&*kv.value);
            tell(parts, &kv.key, value, kv.version == 1);
        }
    }
}

fn tell(parts: &[&dyn Part], key: &[u8], value: Option<&[u8]>, fresh: bool) {
    let Ok(key) = std::str::from_utf8(key) else {
        return;
    };
    for part in parts {
        match value {
            Some(value) => part.put(&Change { key, value, fresh }),
            None => part.gone(key),
        }
    }
}

/// The parts of an object's key: its kind's prefix, its namespace (of a kind that has
/// namespaces) and its name.
fn place<'k>(
    registry: &Registry,
    key: &'k str,
) -> Option<(Arc<Resource>, Option<&'k str>, &'k str)> {
    let rest = key.strip_prefix(std::str::from_utf8(OBJECTS_PREFIX).ok()?)?;
    let served = registry.served();
    let parts: Vec<&str> = rest.split('/').collect();
    let stored = |group: &str, plural: &str, namespaced: bool| {
        served
            .kinds
            .all()
            .iter()
            .find(|kind| {
                kind.stored_as.is_none()
                    && kind.group == group
                    && kind.plural == plural
                    && kind.namespaced == namespaced
            })
            .cloned()
    };
    Some(match parts.as_slice() {
        [plural, name] => (stored("", plural, false)?, None, *name),
        [first, second, name] => match stored("", first, true) {
            Some(kind) => (kind, Some(*second), *name),
            None => (stored(first, second, false)?, None, *name),
        },
        [group, plural, namespace, name] => (stored(group, plural, true)?, Some(*namespace), *name),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_an_object_its_owners_and_its_end_are_read() {
        let read = |value: &serde_json::Value| {
            let value = value.to_string();
            let change = Change {
                key: "",
                value: value.as_bytes(),
                fresh: true,
            };
            change.ends()
        };
        let metadata = json!({"ownerReferences": [{"kind": "ReplicaSet", "uid": "1"}],
            "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["orphan"]});
        let mut object = json!({"kind": "Pod", "metadata": metadata, "spec": {"a": [1]}});
        object["metadata"]["managedFields"] = json!([{"manager": "kubelet"}]);
        assert_eq!(read(&object), Some(json!({ "metadata": metadata })));
        assert_eq!(
            read(&json!({"metadata": {"name": "a"}})),
            Some(json!({"metadata": {}}))
        );
        assert_eq!(read(&json!([])), None);
    }
}
