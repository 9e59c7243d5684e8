//! Storage migrations: a `StorageVersionMigration` names a kind, and every object of it
//! that was written before is written anew in the version in which the kind is stored.
//!
//! Source: KEP-4192, and `storagemigration.k8s.io/v1` of the API's reference.
//!
//! Invariants
//! - The version is the one that the definition in the store names behind a barrier; the
//!   revision of that is noted in the status before the first object is read.
//! - An object is written anew only at the revision it was read at; its content is its own,
//!   so neither admission nor validation is asked.
//! - Migrations run one after the other, [`PAGE`] objects at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nautilus_machine::types::{KeyRange, OBJECTS_PREFIX};
use nautilus_machine::{RangeRequest, Revision};
use nautilus_machinery::conditions;
use nautilus_machinery::identity::User;
use nautilus_machinery::resource::Resource;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Change, Part, RETRY_PAUSE};
use crate::account::Account;
use crate::custom;
use crate::failure::{Failure, unless_gone};
use crate::ids;
use crate::registry::Registry;
use crate::storage::{Storage, Target, built_in, metadata_text};
use crate::webhook::WebhookClients;

static USER: Account = Account::new(|| User::controller("storage-version-migrator-controller"));
/// Where migrations stand.
const PREFIX: &str = "storagemigration.k8s.io/storageversionmigrations/";
/// How long a kind may be missing: its definition may be on its way.
const KIND_PATIENCE: Duration = Duration::from_secs(60);
/// Objects read together.
const PAGE: u64 = 500;

pub(super) struct Migrations {
    storage: Storage,
    registry: Arc<Registry>,
    clients: Arc<WebhookClients>,
    /// Those to look at, by name, and since when.
    waiting: Mutex<BTreeMap<String, Instant>>,
    changed: Notify,
}

impl Migrations {
    pub(super) fn new(
        storage: Storage,
        registry: Arc<Registry>,
        clients: Arc<WebhookClients>,
    ) -> Self {
        Self {
            storage,
            registry,
            clients,
            waiting: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Runs what is asked for. Ends only by being dropped.
    pub(super) async fn run(&self) {
        loop {
            self.changed.notified().await;
            let waiting = std::mem::take(&mut *self.waiting.lock());
            let mut again = BTreeMap::new();
            for (name, since) in waiting {
                match self.migrate(&name, since).await {
                    Ok(true) => {}
                    Ok(false) => {
                        again.insert(name, since);
                    }
                    Err(failure) => {
                        // A role's refusal was told already.
                        if failure.error.code() != 403 {
                            tracing::warn!(%name, error = %failure.error, "migrated later");
                        }
                        again.insert(name, since);
                    }
                }
            }
            if !again.is_empty() {
                self.waiting.lock().append(&mut again);
                self.changed.notify_one();
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// True when there is nothing more to do for the migration.
    async fn migrate(&self, name: &str, since: Instant) -> Result<bool, Failure> {
        self.storage.barrier().await?;
        let migrations = built_in("storagemigration.k8s.io", "storageversionmigrations")?;
        let Some(row) = self.storage.read(migrations, &migrations.key(None, name))? else {
            return Ok(true);
        };
        let migration = row.into_versioned();
        if holds(&migration, "Succeeded") || holds(&migration, "Failed") {
            return Ok(true);
        }
        let asked = &migration["spec"]["resource"];
        let kind = self
            .kind(
                asked["group"].as_str().unwrap_or_default(),
                asked["resource"].as_str().unwrap_or_default(),
            )
            .await?;
        let Some(kind) = kind else {
            if since.elapsed() < KIND_PATIENCE {
                return Ok(false);
            }
            let why = "resource does not exist in discovery".to_owned();
            self.fail(&migration, why).await?;
            return Ok(true);
        };
        if !kind.is_stored() {
            let why = format!("objects of resource {:?} are not stored", kind.plural);
            self.fail(&migration, why).await?;
            return Ok(true);
        }
        let until = match migration["status"]["resourceVersion"].as_str() {
            Some(noted) => noted.parse().unwrap_or_else(|_| self.storage.kv.revision()),
            None => {
                let until = self.storage.kv.revision();
                self.note(
                    &migration,
                    "Running",
                    "MigrationRunning",
                    "The migration is running",
                    until,
                )
                .await?;
                until
            }
        };
        let total = self.rewrite_all(&kind).await?;
        let verified = match total {
            0 => "The migration is running".to_owned(),
            _ => format!("The migration is running, {total} objects verified migrated"),
        };
        self.note(&migration, "Running", "MigrationRunning", &verified, until)
            .await?;
        let reason = "StorageVersionMigrationSucceeded";
        self.note(
            &migration,
            "Succeeded",
            reason,
            "Migration completed",
            until,
        )
        .await?;
        Ok(true)
    }

    /// The kind of that name, in the version in which it is stored.
    async fn kind(&self, group: &str, plural: &str) -> Result<Option<Arc<Resource>>, Failure> {
        let served = self.registry.served();
        let built_in = served.kinds.all().iter().find(|kind| {
            kind.defined.is_none()
                && kind.stored_as.is_none()
                && kind.group == group
                && kind.plural == plural
        });
        match built_in {
            Some(kind) => Ok(Some(kind.clone())),
            None => {
                let kind = custom::stored_kind(&self.storage, &self.clients, group, plural);
                Ok(kind.await?.map(Arc::new))
            }
        }
    }

    /// Looks at every object; how many there are.
    async fn rewrite_all(&self, kind: &Resource) -> Result<usize, Failure> {
        let mut range = KeyRange::prefix(kind.storage_prefix());
        let mut total = 0;
        loop {
            let request = RangeRequest {
                limit: Some(PAGE),
                ..RangeRequest::newest(range.clone())
            };
            let rows = self.storage.kv.range(&request)?.kvs;
            let Some(last) = rows.last() else {
                return Ok(total);
            };
            range.start = [&last.key[..], b"\0"].concat().into();
            total += rows.len();
            self.storage.rewrite(kind, rows, &USER.writer()).await?;
        }
    }

    async fn fail(&self, migration: &Value, why: String) -> Result<(), Failure> {
        let until = self.storage.kv.revision();
        let reason = "StorageVersionMigrationFailed";
        self.note(migration, "Failed", reason, &why, until).await
    }

    /// Sets a condition to true, and the revision if none is noted.
    async fn note(
        &self,
        migration: &Value,
        condition: &str,
        reason: &str,
        message: &str,
        until: Revision,
    ) -> Result<(), Failure> {
        let target = Target {
            resource: built_in("storagemigration.k8s.io", "storageversionmigrations")?,
            namespace: None,
            name: metadata_text(migration, "name"),
            subresource: Some("status"),
        };
        let make = |present: &Value| {
            let mut wanted = present.clone();
            // Another one of its name has to be run for itself.
            if metadata_text(present, "uid") != metadata_text(migration, "uid") {
                return Ok(wanted);
            }
            let status = &mut wanted["status"];
            if status["resourceVersion"].is_null() {
                status["resourceVersion"] = json!(until.to_string());
            }
            let condition = json!({
                "type": condition, "status": "True", "reason": reason,
                "message": message, "lastTransitionTime": ids::now_rfc3339(),
            });
            conditions::set(status, &condition);
            Ok(wanted)
        };
        unless_gone(self.storage.update(&target, &USER.writer(), make).await)
    }
}

impl Part for Migrations {
    fn reset(&self) {
        self.waiting.lock().clear();
    }

    fn put(&self, change: &Change<'_>) {
        if let Some(name) = name_of(change.key) {
            let mut waiting = self.waiting.lock();
            waiting.entry(name.to_owned()).or_insert_with(Instant::now);
            self.changed.notify_one();
        }
    }

    fn gone(&self, key: &str) {
        if let Some(name) = name_of(key) {
            self.waiting.lock().remove(name);
        }
    }
}

fn name_of(key: &str) -> Option<&str> {
    let objects = std::str::from_utf8(OBJECTS_PREFIX).ok()?;
    key.strip_prefix(objects)?.strip_prefix(PREFIX)
}

fn holds(migration: &Value, condition: &str) -> bool {
    let conditions = migration["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|own| own["type"] == condition && own["status"] == "True")
}
