//! Quotas at the write: what an object takes is charged in the object's own
//! transaction, at the revision of the quota that was read.
//!
//! Invariants
//! - Charge and object are written together or not at all.
//! - A lost comparison of a quota makes the store try the whole write again.
//! - Writers of this node in one namespace with quotas take turns, so that many at
//!   once do not only get in each other's way.

use std::sync::Arc;

use nautilus_admission::attributes::Attributes;
use nautilus_admission::quota;
use nautilus_machine::types::KeyRange;
use nautilus_machine::{Compare, Operation, Put, RangeRequest, Revision};
use nautilus_machinery::resource::{self, Resource};
use serde_json::Value;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::Admission;
use crate::failure::Failure;
use crate::ids;
use crate::storage::{Companions, stored_bytes, take_version, versioned_object};

/// Turns of namespaces; two namespaces may share one.
const STRIPES: usize = 64;

/// The turns.
pub(super) struct Turns(Vec<std::sync::Arc<Mutex<()>>>);

impl Default for Turns {
    fn default() -> Self {
        Self((0..STRIPES).map(|_| std::sync::Arc::default()).collect())
    }
}

impl Turns {
    async fn take(&self, namespace: &str) -> OwnedMutexGuard<()> {
        let sum = namespace.bytes().fold(0_usize, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(byte.into())
        });
        self.0[sum % STRIPES].clone().lock_owned().await
    }
}

fn quotas() -> Option<&'static Arc<Resource>> {
    resource::find("", "v1", "resourcequotas")
}

impl Admission {
    /// Adds to a write what it must change among the namespace's quotas; 403 where they
    /// do not allow it.
    pub(crate) async fn charge(
        &self,
        asked: &Attributes<'_>,
        object: &Value,
        companions: &mut Companions,
    ) -> Result<(), Failure> {
        let (Some(resource), Some(namespace)) = (quotas(), asked.namespace) else {
            return Ok(());
        };
        if !quota::handles(asked, object) {
            return Ok(());
        }
        let range = KeyRange::prefix(resource.namespace_prefix(namespace));
        if self.rows_of(&range)?.is_empty() {
            return Ok(());
        }
        let turn = self.turns.take(namespace).await;
        let charged = match self.charge_now(asked, object, resource, &range) {
            Ok(charged) => charged,
            // The refusal must be true for the quorum.
            Err(_) => {
                self.storage.barrier().await?;
                self.charge_now(asked, object, resource, &range)?
            }
        };
        if charged.is_empty() {
            return Ok(());
        }
        for (key, revision, mut quota) in charged {
            take_version(&mut quota);
            companions
                .compare
                .push(Compare::mod_revision(key.clone(), revision));
            let put = Put::new(key, stored_bytes(resource, &quota)?);
            companions.then.push(Operation::Put(put));
        }
        companions.turn = Some(turn);
        Ok(())
    }

    fn rows_of(&self, range: &KeyRange) -> Result<Vec<nautilus_machine::KeyValue>, Failure> {
        Ok(self
            .storage
            .kv
            .range(&RangeRequest::newest(range.clone()))?
            .kvs)
    }

    fn charge_now(
        &self,
        asked: &Attributes<'_>,
        object: &Value,
        resource: &Resource,
        range: &KeyRange,
    ) -> Result<Vec<(String, Revision, Value)>, Failure> {
        let rows = self.rows_of(range)?;
        let quotas: Vec<Value> = rows
            .iter()
            .map(|row| versioned_object(resource, row))
            .collect::<Result<_, _>>()?;
        let changed = quota::charge(asked, object, &quotas, ids::now_unix_s())?;
        Ok(changed
            .into_iter()
            .map(|(index, quota)| {
                let row = &rows[index];
                let key = String::from_utf8_lossy(&row.key).into_owned();
                (key, row.mod_revision, quota)
            })
            .collect())
    }
}
