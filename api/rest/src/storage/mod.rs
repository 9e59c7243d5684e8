//! The generic store: every kind's objects over the one replicated key space.
//!
//! Objects stand as JSON under `/nautilus/registry/...` without their resourceVersion, which
//! is the key's revision. Knows nothing of HTTP, and of kinds only what the table
//! and the strategies say.
//!
//! Invariants
//! - Every write is a compare-and-swap on the key's revision; nothing is written
//!   over a version that was not read.
//! - A write whose outcome the quorum could not tell is looked up before anything is
//!   answered: a client never learns from an error that a leader was lost.
//! - What is read to refuse a write was read behind a read barrier.

mod allocation;
mod asked;
mod cached;
mod commit;
mod companions;
mod head;
mod lifetime;
mod list;
mod refusals;
mod rights;
mod stored;
mod target;
mod write;

use std::sync::Arc;

use nautilus_machine::types::KeyRange;
use nautilus_machine::{KeyValue, Kv, RangeRequest, Revision};
use nautilus_machinery::convert;
use nautilus_machinery::resource::{self, Resource};
use nautilus_machinery::status::ApiError;
use serde_json::{Value, json};

use crate::access::Access;
use crate::admission::Admission;
use crate::apply::Ownership;
use crate::custom;
use crate::failure::Failure;

pub(crate) use asked::attributes;
pub(crate) use cached::{EntryPage, Listed};
pub(crate) use companions::Companions;
pub(crate) use list::{Page, watch_range};
use rights::Rights;
pub(crate) use stored::stored_bytes;
pub(crate) use target::Target;
pub(crate) use write::{Deleted, Updated, Writer};

/// The store as one request, or one controller of a term, uses it.
#[derive(Clone)]
pub(crate) struct Storage {
    pub(crate) kv: Arc<dyn Kv>,
    /// Writes are applied in this term only, for controllers of the leader.
    guard_term: Option<u64>,
    /// What every write passes; the store's own readers need none.
    admission: Option<Arc<Admission>>,
    /// Who may give which rights away.
    access: Option<Arc<Access>>,
    /// What the writers' roles have to allow; requests were judged before.
    rights: Option<Arc<Rights>>,
    /// As what an update is asked for; `None`: as an update.
    verb: Option<&'static str>,
    ownership: Ownership,
    /// Whether a pod's deletion is charged to its disruption budget.
    evicting: bool,
}

/// One version of one object, as stored.
pub(crate) struct Row {
    /// The object, without resourceVersion.
    pub(crate) object: Value,
    pub(crate) revision: Revision,
}

impl Row {
    fn parse(resource: &Resource, row: &KeyValue) -> Result<Self, Failure> {
        let object = parse_object(resource, row)?;
        Ok(Self {
            object,
            revision: row.mod_revision,
        })
    }

    /// The object as clients see it.
    pub(crate) fn into_versioned(self) -> Value {
        with_version(self.object, self.revision)
    }
}

/// The object of a stored version, as clients see it.
pub(crate) fn versioned_object(resource: &Resource, row: &KeyValue) -> Result<Value, Failure> {
    Ok(with_version(parse_object(resource, row)?, row.mod_revision))
}

fn parse_object(resource: &Resource, row: &KeyValue) -> Result<Value, Failure> {
    let stored: Value = serde_json::from_slice(&row.value).map_err(|error| damaged(row, &error))?;
    if let Some(defined) = &resource.defined {
        let found = stored["apiVersion"].as_str().unwrap_or_default();
        if !defined.reads(found) {
            let key = String::from_utf8_lossy(&row.key);
            let why = format!("the object under {key} was not converted from {found}");
            return Err(ApiError::internal(why).into());
        }
    }
    Ok(convert::from_stored(resource, stored))
}

fn damaged(row: &KeyValue, error: &serde_json::Error) -> ApiError {
    let key = String::from_utf8_lossy(&row.key);
    ApiError::internal(format!("the object under {key} is damaged: {error}"))
}

/// Sets `metadata.resourceVersion`.
pub(crate) fn with_version(mut object: Value, revision: Revision) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".into(), json!(revision.to_string()));
    } else if let Some(fields) = object.as_object_mut() {
        fields.insert(
            "metadata".into(),
            json!({ "resourceVersion": revision.to_string() }),
        );
    }
    object
}

/// Takes `metadata.resourceVersion` out; empty when unset.
pub(crate) fn take_version(object: &mut Value) -> String {
    object
        .get_mut("metadata")
        .and_then(Value::as_object_mut)
        .and_then(|metadata| metadata.shift_remove("resourceVersion"))
        .and_then(|version| version.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// A text of `metadata`, empty when unset.
pub(crate) fn metadata_text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// A built-in kind of version `v1`, which the table has unless it was cut short.
pub(crate) fn built_in(group: &str, plural: &str) -> Result<&'static Arc<Resource>, ApiError> {
    resource::find(group, "v1", plural)
        .ok_or_else(|| ApiError::internal(format!("the table of kinds lacks {plural}")))
}

/// The kind `Namespace` of the table.
pub(crate) fn namespaces() -> Result<&'static Arc<Resource>, ApiError> {
    built_in("", "namespaces")
}

impl Storage {
    pub(crate) fn new(kv: Arc<dyn Kv>) -> Self {
        Self {
            kv,
            guard_term: None,
            admission: None,
            access: None,
            rights: None,
            verb: None,
            ownership: Ownership::default(),
            evicting: false,
        }
    }

    /// The same store, whose deletions of pods take room of their disruption budgets.
    pub(crate) fn evicting(self) -> Self {
        Self {
            evicting: true,
            ..self
        }
    }

    /// The same store, whose updates are asked for as `verb`.
    pub(crate) fn asked_as(self, verb: &'static str) -> Self {
        Self {
            verb: Some(verb),
            ..self
        }
    }

    /// The same store, whose writes come from applies.
    pub(crate) fn applied(self) -> Self {
        Self {
            ownership: Ownership::Applied,
            ..self
        }
    }

    /// The same store, whose writes pass admission.
    pub(crate) fn admitted(self, admission: Arc<Admission>) -> Self {
        Self {
            admission: Some(admission),
            ..self
        }
    }

    /// The same store, whose writers give away no more rights than they have.
    pub(crate) fn guarded(self, access: Arc<Access>) -> Self {
        Self {
            access: Some(access),
            ..self
        }
    }

    /// The same store, whose writes count in `term` only.
    pub(crate) fn fenced(&self, term: u64) -> Self {
        Self {
            guard_term: Some(term),
            ..self.clone()
        }
    }

    /// Waits until reads on this node see everything acknowledged before the call.
    pub(crate) async fn barrier(&self) -> Result<Revision, Failure> {
        Ok(self.kv.read_barrier().await?)
    }

    /// Waits until this node has reached `revision`; 504 if the quorum has not.
    pub(crate) async fn reach(&self, revision: Revision) -> Result<(), Failure> {
        if self.kv.revision() < revision {
            self.barrier().await?;
        }
        let current = self.kv.revision();
        if current < revision {
            return Err(crate::failure::too_large_version(Some(revision), current).into());
        }
        Ok(())
    }

    /// One object of this node's state as it is, of any kind.
    pub(crate) async fn find(
        &self,
        resource: &Resource,
        key: &str,
    ) -> Result<Option<Row>, Failure> {
        let row = self.read_row(key)?.into_iter().collect();
        let row = custom::own_rows(resource, row).await?.pop();
        row.map(|row| Row::parse(resource, &row)).transpose()
    }

    /// The same of a built-in kind: nobody has to be asked to convert it.
    pub(crate) fn read(&self, resource: &Resource, key: &str) -> Result<Option<Row>, Failure> {
        self.read_row(key)?
            .map(|row| Row::parse(resource, &row))
            .transpose()
    }

    /// One key of this node's state as it is.
    pub(crate) fn read_row(&self, key: &str) -> Result<Option<KeyValue>, Failure> {
        let request = RangeRequest::newest(KeyRange::single(key.to_owned()));
        Ok(self.kv.range(&request)?.kvs.into_iter().next())
    }

    /// One object for a client.
    pub(crate) async fn get(
        &self,
        target: &Target<'_>,
        version: crate::options::Version,
    ) -> Result<Value, Failure> {
        use crate::options::Version;
        match version {
            Version::Newest => {
                self.barrier().await?;
            }
            Version::Any => {}
            Version::At(revision) => self.reach(revision).await?,
        }
        let row = self.find(target.resource, &target.key()).await?;
        let row = row.ok_or_else(|| ApiError::not_found(target.resource, target.name))?;
        Ok(row.into_versioned())
    }
}
