//! One ReplicaSet of a Deployment, as it was seen and as it shall be.

use std::sync::Arc;

use serde_json::Value;

use super::annotations::{DESIRED, MAX, REVISION};
use super::replicas;
use crate::object;

/// See the module.
pub(super) struct ReplicaSet {
    /// As it was seen; `None`: it is to be made.
    pub(super) seen: Option<Arc<Value>>,
    /// As it shall be.
    pub(super) next: Value,
}

impl ReplicaSet {
    pub(super) fn seen(set: &Arc<Value>) -> Self {
        Self {
            seen: Some(set.clone()),
            next: (**set).clone(),
        }
    }

    pub(super) fn name(&self) -> &str {
        object::name(&self.next)
    }

    /// Whether it is to be written.
    pub(super) fn is_changed(&self) -> bool {
        self.seen.as_ref().is_none_or(|seen| **seen != self.next)
    }

    /// How many pods it shall have.
    pub(super) fn replicas(&self) -> i64 {
        replicas(&self.next)
    }

    /// Whether it shall have pods.
    pub(super) fn is_active(&self) -> bool {
        self.replicas() > 0
    }

    /// A count of its status.
    pub(super) fn count(&self, field: &str) -> i64 {
        object::number(&self.next["status"][field])
    }

    pub(super) fn available(&self) -> i64 {
        self.count("availableReplicas")
    }

    /// Older sets come first.
    pub(super) fn age(&self) -> (i64, &str) {
        let created = object::created(&self.next).map_or(i64::MAX, |at| at.seconds);
        (created, self.name())
    }

    /// Its revision; 0 for none, `None` for what is not a number.
    pub(super) fn revision(&self) -> Option<i64> {
        match object::annotation(&self.next, REVISION) {
            None => Some(0),
            Some(text) => text.parse().ok(),
        }
    }

    /// How many pods the deployment had when the set was last scaled, and at most.
    pub(super) fn desired(&self) -> Option<i64> {
        self.noted(DESIRED)
    }

    pub(super) fn noted_max(&self) -> Option<i64> {
        self.noted(MAX)
    }

    fn noted(&self, annotation: &str) -> Option<i64> {
        let text = object::annotation(&self.next, annotation)?;
        let number: u32 = text.parse().ok()?;
        i32::try_from(number).ok().map(i64::from)
    }
}
