//! Objects of one kind in memory, as what they mean to a decider of this process:
//! roles to the authorizer, webhooks' configurations to admission, definitions to
//! the registry of kinds.
//!
//! For kinds with few objects that are read on every request. Reads never wait and
//! never fail; they see what this node has applied.
//!
//! Invariants
//! - A snapshot is the state of one revision: nothing of a later one, nothing missing.
//! - An object that cannot be read as `T` is left out and logged, with its name.
//! - After an error of the watch everything is listed anew; the old snapshot serves
//!   until then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use nautilus_machine::types::KeyRange;
use nautilus_machine::{EventKind, KeyValue, Kv, Revision, WatchRequest};
use nautilus_machinery::resource::Resource;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::storage::{Storage, versioned_object};

/// Pause after a failed list or a lost watch.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// A kind's objects at one revision, by namespace (empty for none) and name.
pub(crate) struct Snapshot<T> {
    /// Whether the state was ever read.
    pub(crate) synced: bool,
    pub(crate) objects: BTreeMap<Place, Arc<T>>,
}

/// Namespace (empty for none) and name.
pub(crate) type Place = (String, String);

/// Takes what a kind's objects become, in the order of revisions.
pub(crate) trait Sink<T>: Send + Sync {
    /// The whole state as of `revision`, in the place of what was.
    fn reset(&self, revision: Revision, objects: BTreeMap<Place, Arc<T>>);
    /// What changed up to `revision`; `None`: it is gone, or cannot be read.
    fn change(&self, revision: Revision, changes: Vec<(Place, Option<Arc<T>>)>);
}

/// Lists and watches a kind until `shutdown` and hands everything to `sink`. `read`
/// makes a `T` of an object as clients see it, or says why not.
pub(crate) fn follow<T: Send + Sync + 'static>(
    kv: Arc<dyn Kv>,
    resource: Arc<Resource>,
    read: fn(Value) -> Result<T, String>,
    sink: Arc<dyn Sink<T>>,
    shutdown: CancellationToken,
) {
    tokio::spawn(async move {
        let run = async {
            loop {
                if let Err(failure) = follow_once(&kv, &resource, read, sink.as_ref()).await {
                    tracing::debug!(kind = %resource.kind, error = %failure.error, "listing anew");
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = run => {}
        }
    });
}

async fn follow_once<T>(
    kv: &Arc<dyn Kv>,
    resource: &Resource,
    read: fn(Value) -> Result<T, String>,
    sink: &dyn Sink<T>,
) -> Result<(), Failure> {
    let range = KeyRange::prefix(resource.storage_prefix());
    let (rows, revision) = Storage::new(kv.clone()).rows(range.clone()).await?;
    let objects = rows
        .iter()
        .filter_map(|row| Some((place(resource, row)?, parse(resource, row, read)?)))
        .collect();
    sink.reset(revision, objects);
    let mut watcher = kv.watch(WatchRequest {
        range,
        from: Some(revision + 1),
        previous: false,
    })?;
    loop {
        let events = watcher.next().await?;
        let changes = events
            .iter()
            .filter_map(|event| {
                let object = match event.kind {
                    EventKind::Put => parse(resource, &event.kv, read),
                    EventKind::Delete => None,
                };
                Some((place(resource, &event.kv)?, object))
            })
            .collect();
        sink.change(watcher.progress(), changes);
    }
}

/// See the module.
pub(crate) struct Lister<T> {
    snapshot: ArcSwap<Snapshot<T>>,
    changed: watch::Sender<Revision>,
}

impl<T: Send + Sync + 'static> Lister<T> {
    /// Follows a kind until `shutdown`.
    pub(crate) fn start(
        kv: Arc<dyn Kv>,
        resource: Arc<Resource>,
        read: fn(Value) -> Result<T, String>,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let lister = Arc::new(Self {
            snapshot: ArcSwap::from_pointee(Snapshot {
                synced: false,
                objects: BTreeMap::new(),
            }),
            changed: watch::Sender::new(0),
        });
        follow(kv, resource, read, lister.clone(), shutdown);
        lister
    }

    /// The newest state that this node has seen.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot<T>> {
        self.snapshot.load_full()
    }

    /// The revision of the snapshot, and every change of it.
    pub(crate) fn changes(&self) -> watch::Receiver<Revision> {
        self.changed.subscribe()
    }

    /// Waits until the state was read once.
    pub(crate) async fn synced(&self) {
        if self.snapshot.load().synced {
            return;
        }
        let mut changes = self.changes();
        // The sender lives as long as `self`.
        let _ = changes.wait_for(|_| self.snapshot.load().synced).await;
    }
}

impl<T: Send + Sync> Sink<T> for Lister<T> {
    fn reset(&self, revision: Revision, objects: BTreeMap<Place, Arc<T>>) {
        self.snapshot.store(Arc::new(Snapshot {
            synced: true,
            objects,
        }));
        self.changed.send_replace(revision);
    }

    fn change(&self, revision: Revision, changes: Vec<(Place, Option<Arc<T>>)>) {
        let mut objects = self.snapshot.load().objects.clone();
        for (place, object) in changes {
            match object {
                Some(object) => objects.insert(place, object),
                None => objects.remove(&place),
            };
        }
        self.reset(revision, objects);
    }
}

/// Namespace and name, from the key.
fn place(resource: &Resource, row: &KeyValue) -> Option<Place> {
    let key = std::str::from_utf8(&row.key).ok()?;
    let rest = key.strip_prefix(&resource.storage_prefix())?;
    Some(match rest.split_once('/') {
        Some((namespace, name)) => (namespace.to_owned(), name.to_owned()),
        None => (String::new(), rest.to_owned()),
    })
}

fn parse<T>(
    resource: &Resource,
    row: &KeyValue,
    read: fn(Value) -> Result<T, String>,
) -> Option<Arc<T>> {
    let object = versioned_object(resource, row)
        .map_err(|failure| failure.error.to_string())
        .and_then(read);
    match object {
        Ok(object) => Some(Arc::new(object)),
        Err(error) => {
            let key = String::from_utf8_lossy(&row.key);
            tracing::warn!(%key, %error, "an object does not count: it cannot be read");
            None
        }
    }
}
