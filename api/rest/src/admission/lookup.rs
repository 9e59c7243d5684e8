//! What plugins look up: objects of this node's state, newest first seen, without
//! waiting; and once more behind a barrier where their absence would refuse a write.

use std::sync::Arc;

use std::time::Duration;

use nautilus_admission::attributes::Attributes;
use nautilus_admission::service_account;
use nautilus_machine::RangeRequest;
use nautilus_machine::types::KeyRange;
use nautilus_machinery::resource::{self, Resource};
use serde_json::Value;

use super::Admission;
use crate::failure::Failure;
use crate::storage::versioned_object;

/// A fresh namespace's default account is waited for so often.
const ACCOUNT_ATTEMPTS: u32 = 20;
/// Pause between two of them.
const ACCOUNT_PAUSE: Duration = Duration::from_millis(100);

/// A kind that plugins know by name; `None` where it is not served.
fn kind(group: &str, plural: &str) -> Option<&'static Arc<Resource>> {
    resource::find(group, "v1", plural)
}

impl Admission {
    /// One object of this node's state as it is.
    pub(super) fn one(
        &self,
        group: &str,
        plural: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Value>, Failure> {
        let Some(resource) = kind(group, plural).filter(|_| !name.is_empty()) else {
            return Ok(None);
        };
        let row = self
            .storage
            .read(resource, &resource.key(namespace, name))?;
        Ok(row.map(crate::storage::Row::into_versioned))
    }

    /// The same, whose absence is true for the quorum.
    pub(super) async fn one_for_sure(
        &self,
        group: &str,
        plural: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Value>, Failure> {
        if let Some(object) = self.one(group, plural, namespace, name)? {
            return Ok(Some(object));
        }
        self.storage.barrier().await?;
        self.one(group, plural, namespace, name)
    }

    /// An object without a namespace, of the group without a name: no more of it than its
    /// labels and whether it ends.
    pub(super) fn head(&self, plural: &str, name: &str) -> Result<Option<Value>, Failure> {
        let Some(resource) = kind("", plural) else {
            return Ok(None);
        };
        let row = self.storage.read_head(resource, None, name)?;
        Ok(row.map(|row| row.object))
    }

    /// The same, whose absence is true for the quorum.
    pub(super) async fn head_for_sure(
        &self,
        plural: &str,
        name: &str,
    ) -> Result<Option<Value>, Failure> {
        if let Some(head) = self.head(plural, name)? {
            return Ok(Some(head));
        }
        self.storage.barrier().await?;
        self.head(plural, name)
    }

    /// All objects of a kind, of one namespace where it is given.
    pub(super) fn all(
        &self,
        group: &str,
        plural: &str,
        namespace: Option<&str>,
    ) -> Result<Vec<Value>, Failure> {
        let Some(resource) = kind(group, plural) else {
            return Ok(Vec::new());
        };
        let prefix = match namespace.filter(|_| resource.namespaced) {
            Some(namespace) => resource.namespace_prefix(namespace),
            None => resource.storage_prefix(),
        };
        let request = RangeRequest::newest(KeyRange::prefix(prefix));
        let rows = self.storage.kv.range(&request)?.kvs;
        rows.iter()
            .map(|row| versioned_object(resource, row))
            .collect()
    }

    /// A service account of the request's namespace. The default one of a namespace that
    /// was just made is waited for.
    pub(super) async fn account(
        &self,
        asked: &Attributes<'_>,
        name: &str,
    ) -> Result<Option<Value>, Failure> {
        let mut attempts = match name {
            service_account::DEFAULT_ACCOUNT => ACCOUNT_ATTEMPTS,
            _ => 1,
        };
        loop {
            let found = self
                .one_for_sure("", "serviceaccounts", asked.namespace, name)
                .await?;
            attempts -= 1;
            if found.is_some() || attempts == 0 {
                return Ok(found);
            }
            tokio::time::sleep(ACCOUNT_PAUSE).await;
        }
    }
}
