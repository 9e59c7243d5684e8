//! Usage of quotas, counted anew: when a quota is made or changed, when something of its
//! namespace is gone, and now and then.
//!
//! Invariants
//! - A count is of one revision, and is written only if the quota was not charged since:
//!   a charge is never lost.
//! - Counting takes a bounded share of the time: the pause after a count grows with it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nautilus_admission::quota;
use nautilus_machine::types::KeyRange;
use nautilus_machine::{RangeRequest, Revision};
use nautilus_machinery::identity::User;
use nautilus_machinery::resource::{self, Resource};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Change, Part, RETRY_PAUSE, place};
use crate::account::Account;
use crate::failure::Failure;
use crate::ids;
use crate::registry::Registry;
use crate::storage::{Storage, Target, metadata_text, versioned_object};

static USER: Account = Account::new(|| User::controller("resourcequota-controller"));
/// Everything is counted anew so often, whatever was seen.
const FULL_PERIOD: Duration = Duration::from_secs(300);
/// Changes are gathered for so long.
const GATHER: Duration = Duration::from_millis(20);
/// After a count, so many times its duration belong to others.
const REST_FACTOR: u32 = 4;
/// Counts of one quota that charges overtook, before it is left for later.
const MAX_ATTEMPTS: u32 = 16;

#[derive(Default)]
struct State {
    /// Namespaces with quotas.
    namespaces: BTreeSet<String>,
    /// Those to count.
    dirty: BTreeSet<String>,
}

pub(super) struct Quotas {
    storage: Storage,
    registry: Arc<Registry>,
    prefix: Option<String>,
    state: Mutex<State>,
    changed: Notify,
}

impl Quotas {
    pub(super) fn new(storage: Storage, registry: Arc<Registry>) -> Self {
        Self {
            storage,
            registry,
            prefix: quotas().map(Resource::storage_prefix),
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Counts what is dirty. Ends only by being dropped.
    pub(super) async fn run(&self) {
        let mut full = Instant::now() + FULL_PERIOD;
        loop {
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(full) => {
                    full = Instant::now() + FULL_PERIOD;
                    let mut state = self.state.lock();
                    state.dirty = state.namespaces.clone();
                }
            }
            tokio::time::sleep(GATHER).await;
            let dirty = std::mem::take(&mut self.state.lock().dirty);
            let begun = Instant::now();
            for namespace in dirty {
                if let Err(failure) = self.count(&namespace).await {
                    tracing::debug!(%namespace, error = %failure.error, "quotas are counted later");
                    self.state.lock().dirty.insert(namespace);
                    self.changed.notify_one();
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
            tokio::time::sleep(begun.elapsed() * REST_FACTOR).await;
        }
    }

    fn mark(&self, namespace: &str) {
        self.state.lock().dirty.insert(namespace.to_owned());
        self.changed.notify_one();
    }

    async fn count(&self, namespace: &str) -> Result<(), Failure> {
        let Some(resource) = quotas() else {
            return Ok(());
        };
        let range = KeyRange::prefix(resource.namespace_prefix(namespace));
        let rows = self.storage.kv.range(&RangeRequest::newest(range))?.kvs;
        if rows.is_empty() {
            self.state.lock().namespaces.remove(namespace);
        }
        for row in &rows {
            let object = versioned_object(resource, row)?;
            self.count_one(resource, namespace, metadata_text(&object, "name"))
                .await?;
        }
        Ok(())
    }

    async fn count_one(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<(), Failure> {
        let target = Target {
            resource,
            namespace: Some(namespace),
            name,
            subresource: Some("status"),
        };
        for _ in 0..MAX_ATTEMPTS {
            // The store does not read an older version than it has applied: quota and
            // objects are read at the same revision, or the write is lost.
            let revision = self.storage.kv.revision();
            let Some(row) = self.storage.read(resource, &target.key())? else {
                return Ok(());
            };
            let status = self.counted(namespace, &row.object, revision)?;
            if row.revision > revision {
                continue;
            }
            if quota::same_status(&status, &row.object["status"]) {
                return Ok(());
            }
            let version = row.revision.to_string();
            let with_status = |present: &Value| {
                let mut next = present.clone();
                next["status"] = status.clone();
                next["metadata"]["resourceVersion"] = version.as_str().into();
                Ok(next)
            };
            match self
                .storage
                .update(&target, &USER.writer(), with_status)
                .await
            {
                Err(failure) if failure.error.code() == 409 => {}
                Err(failure) if failure.error.code() == 404 => return Ok(()),
                outcome => return outcome.map(|_| ()),
            }
        }
        self.mark(namespace);
        Ok(())
    }

    fn counted(
        &self,
        namespace: &str,
        quota: &Value,
        revision: Revision,
    ) -> Result<Value, Failure> {
        let served = self.registry.served();
        let kinds: Vec<&Resource> = served
            .kinds
            .all()
            .iter()
            .map(|kind| &**kind)
            .filter(|kind| {
                kind.namespaced && kind.stored_as.is_none() && quota::concerns(quota, kind)
            })
            .collect();
        let request = |kind: &Resource, count_only: bool| RangeRequest {
            revision: Some(revision),
            count_only,
            ..RangeRequest::newest(KeyRange::prefix(kind.namespace_prefix(namespace)))
        };
        let failed = std::cell::RefCell::new(None);
        let note = |failure: Failure| {
            failed.borrow_mut().get_or_insert(failure);
        };
        let objects = |kind: &Resource| match self.storage.kv.range(&request(kind, false)) {
            Ok(answer) => {
                let read = answer.kvs.iter().map(|row| versioned_object(kind, row));
                read.filter_map(|object| object.map_err(note).ok())
                    .collect()
            }
            Err(error) => {
                note(error.into());
                Vec::new()
            }
        };
        let count = |kind: &Resource| match self.storage.kv.range(&request(kind, true)) {
            Ok(answer) => answer.count,
            Err(error) => {
                note(error.into());
                0
            }
        };
        let status = quota::recount(quota, kinds, ids::now_unix_s(), objects, count);
        match failed.into_inner() {
            Some(failure) => Err(failure),
            None => Ok(status),
        }
    }
}

impl Part for Quotas {
    fn reset(&self) {
        *self.state.lock() = State::default();
    }

    fn put(&self, change: &Change<'_>) {
        let own = self
            .prefix
            .as_deref()
            .and_then(|prefix| change.key.strip_prefix(prefix));
        if let Some((namespace, _)) = own.and_then(|rest| rest.split_once('/')) {
            self.state.lock().namespaces.insert(namespace.to_owned());
            // A charge changes the usage alone; there is nothing to count then.
            let current = change.object().is_some_and(|quota| {
                let (spec, status) = (&quota["spec"]["hard"], &quota["status"]);
                let counted = status["used"].as_object().map(serde_json::Map::len);
                status["hard"] == *spec && counted == spec.as_object().map(serde_json::Map::len)
            });
            if change.fresh || !current {
                self.mark(namespace);
            }
            return;
        }
        // What has run to its end takes no more.
        if !change.fresh
            && (change.mentions("\"phase\":\"Succeeded\"")
                || change.mentions("\"phase\":\"Failed\""))
        {
            self.gone(change.key);
        }
    }

    fn gone(&self, key: &str) {
        if self.state.lock().namespaces.is_empty() {
            return;
        }
        let Some((_, Some(namespace), _)) = place(&self.registry, key) else {
            return;
        };
        if self.state.lock().namespaces.contains(namespace) {
            self.mark(namespace);
        }
    }
}

fn quotas() -> Option<&'static Resource> {
    resource::find("", "v1", "resourcequotas").map(|kind| &**kind)
}
