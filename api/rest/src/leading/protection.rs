//! Claims and volumes that were deleted while something used them go when nothing does.
//!
//! Invariant: our finalizer is taken off only behind a read that shows no user.

use std::collections::BTreeSet;

use nautilus_machine::RangeRequest;
use nautilus_machine::types::KeyRange;
use nautilus_machinery::identity::User;
use nautilus_machinery::resource::{self, Resource};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;

use super::{Change, Part, RETRY_PAUSE};
use crate::account::Account;
use crate::failure::Failure;
use crate::storage::{Storage, Target, versioned_object};

static CLAIMS: Account = Account::new(|| User::controller("pvc-protection-controller"));
static VOLUMES: Account = Account::new(|| User::controller("pv-protection-controller"));
static CLASSES: Account =
    Account::new(|| User::controller("volumeattributesclass-protection-controller"));

/// A kind that is protected.
struct Protected {
    resource: &'static Resource,
    prefix: String,
    finalizer: &'static str,
    account: &'static Account,
}

pub(super) struct Protection {
    storage: Storage,
    kinds: Vec<Protected>,
    /// Keys of objects that were deleted and wait.
    waiting: Mutex<BTreeSet<String>>,
    changed: Notify,
}

impl Protection {
    pub(super) fn new(storage: Storage) -> Self {
        let classes = ("storage.k8s.io", "volumeattributesclasses");
        let kinds = [
            (
                ("", "persistentvolumeclaims"),
                "kubernetes.io/pvc-protection",
                &CLAIMS,
            ),
            (
                ("", "persistentvolumes"),
                "kubernetes.io/pv-protection",
                &VOLUMES,
            ),
            (classes, "kubernetes.io/vac-protection", &CLASSES),
        ];
        let kinds = kinds
            .into_iter()
            .filter_map(|((group, plural), finalizer, account)| {
                let resource = resource::find(group, "v1", plural)?;
                Some(Protected {
                    resource,
                    prefix: resource.storage_prefix(),
                    finalizer,
                    account,
                })
            });
        Self {
            storage,
            kinds: kinds.collect(),
            waiting: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Releases what nobody uses. Ends only by being dropped.
    pub(super) async fn run(&self) {
        loop {
            self.changed.notified().await;
            let waiting = self.waiting.lock().clone();
            let mut failed = false;
            for key in waiting {
                match self.release(&key).await {
                    Ok(true) => {
                        self.waiting.lock().remove(&key);
                    }
                    Ok(false) => {}
                    Err(failure) => {
                        tracing::debug!(%key, error = %failure.error, "released later");
                        failed = true;
                    }
                }
            }
            if failed {
                self.changed.notify_one();
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// True when there is nothing more to do about the object.
    async fn release(&self, key: &str) -> Result<bool, Failure> {
        let Some(own) = self.protected(key) else {
            return Ok(true);
        };
        let (kind, finalizer) = (own.resource, own.finalizer);
        self.storage.barrier().await?;
        let Some(row) = self.storage.read(kind, key)? else {
            return Ok(true);
        };
        if !held_by(&row.object, finalizer) {
            return Ok(true);
        }
        let place = key.strip_prefix(&own.prefix).unwrap_or_default();
        let (namespace, name) = match place.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, place),
        };
        if self.is_used(kind, namespace, name, &row.object)? {
            return Ok(false);
        }
        let target = Target {
            resource: kind,
            namespace,
            name,
            subresource: None,
        };
        let without = |present: &Value| {
            let mut next = present.clone();
            if let Some(finalizers) = next["metadata"]["finalizers"].as_array_mut() {
                finalizers.retain(|own| own != finalizer);
            }
            Ok(next)
        };
        let writer = own.account.writer();
        match self.storage.update(&target, &writer, without).await {
            Err(failure) if failure.error.code() != 404 => Err(failure),
            _ => Ok(true),
        }
    }

    /// What the key's object is protected by, if it is.
    fn protected(&self, key: &str) -> Option<&Protected> {
        let mut kinds = self.kinds.iter();
        kinds.find(|own| key.starts_with(&own.prefix))
    }

    fn is_used(
        &self,
        kind: &Resource,
        namespace: Option<&str>,
        name: &str,
        object: &Value,
    ) -> Result<bool, Failure> {
        match &*kind.plural {
            "persistentvolumes" => Ok(object["status"]["phase"] == "Bound"),
            "persistentvolumeclaims" => self.any("", "pods", namespace, |pod| {
                let ended = matches!(
                    pod["status"]["phase"].as_str(),
                    Some("Succeeded" | "Failed")
                );
                !ended && pod_uses(pod, name)
            }),
            _ => {
                let names = [
                    "/spec/volumeAttributesClassName",
                    "/status/currentVolumeAttributesClassName",
                    "/status/modifyVolumeStatus/targetVolumeAttributesClassName",
                ];
                let uses = |one: &Value| {
                    names
                        .iter()
                        .any(|path| one.pointer(path).is_some_and(|own| own == name))
                };
                Ok(self.any("", "persistentvolumeclaims", None, uses)?
                    || self.any("", "persistentvolumes", None, uses)?)
            }
        }
    }

    fn any(
        &self,
        group: &str,
        plural: &str,
        namespace: Option<&str>,
        uses: impl Fn(&Value) -> bool,
    ) -> Result<bool, Failure> {
        let Some(kind) = resource::find(group, "v1", plural) else {
            return Ok(false);
        };
        let prefix = match namespace {
            Some(namespace) => kind.namespace_prefix(namespace),
            None => kind.storage_prefix(),
        };
        let rows = self
            .storage
            .kv
            .range(&RangeRequest::newest(KeyRange::prefix(prefix)))?
            .kvs;
        for row in &rows {
            if uses(&versioned_object(kind, row)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether a pod has the claim among its volumes, by name or as its own.
fn pod_uses(pod: &Value, claim: &str) -> bool {
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    volumes.into_iter().any(|volume| {
        volume["persistentVolumeClaim"]["claimName"] == claim
            || !volume["ephemeral"].is_null()
                && volume["name"]
                    .as_str()
                    .is_some_and(|name| format!("{pod_name}-{name}") == claim)
    })
}

fn held_by(object: &Value, finalizer: &str) -> bool {
    let finalizers = object["metadata"]["finalizers"].as_array();
    !object["metadata"]["deletionTimestamp"].is_null()
        && finalizers.is_some_and(|list| list.iter().any(|own| own == finalizer))
}

impl Part for Protection {
    fn reset(&self) {
        self.waiting.lock().clear();
    }

    fn put(&self, change: &Change<'_>) {
        if let Some(own) = self.protected(change.key)
            && change.mentions("deletionTimestamp")
            && change
                .object()
                .is_some_and(|object| held_by(&object, own.finalizer))
        {
            self.waiting.lock().insert(change.key.to_owned());
            self.changed.notify_one();
        }
        // A pod that has ended, a volume that was released: somebody may be free now.
        self.gone(change.key);
    }

    fn gone(&self, _: &str) {
        if !self.waiting.lock().is_empty() {
            self.changed.notify_one();
        }
    }
}
