//! What a set says of its pods.

use serde_json::{Value, json};

use super::Sync;
use super::revisions::revision_of;
use crate::kind::STATEFUL_SETS;
use crate::object;
use crate::plan::Write;

/// Pods, counted.
#[derive(Default)]
pub(super) struct Status {
    replicas: i64,
    ready: i64,
    available: i64,
    current: i64,
    updated: i64,
}

/// Counts the pods that are there.
pub(super) fn count(sync: &Sync<'_>) -> Status {
    let mut status = Status::default();
    for pod in sync.pods {
        status.replicas += 1;
        status.ready += i64::from(sync.is_running_and_ready(pod));
        status.available += i64::from(sync.is_available(pod));
        if !object::is_deleted(pod) {
            let revision = revision_of(pod);
            status.current += i64::from(revision == Some(&sync.revisions.current.name));
            status.updated += i64::from(revision == Some(&sync.revisions.update.name));
        }
    }
    status
}

impl Status {
    /// Counts that many pods of the current revision less: they are about to go.
    pub(super) fn forget_current(&mut self, pods: usize) {
        let pods = i64::try_from(pods).unwrap_or(i64::MAX);
        self.current = self.current.saturating_sub(pods).max(0);
    }

    /// The set's status, where it says something else so far.
    pub(super) fn write(mut self, sync: &Sync<'_>) -> Option<Write> {
        let revisions = sync.revisions;
        let wanted = sync.ordinals.count;
        let mut current = &revisions.current.name;
        if [self.updated, self.ready, self.replicas] == [wanted; 3] {
            // The update is complete.
            self.current = self.updated;
            current = &revisions.update.name;
        }
        let before = &sync.set["status"];
        let mut status = before.as_object().cloned().unwrap_or_default();
        let generation = sync.set["metadata"]["generation"].as_i64();
        for (field, number) in [
            ("observedGeneration", generation.unwrap_or_default()),
            ("readyReplicas", self.ready),
            ("currentReplicas", self.current),
            ("updatedReplicas", self.updated),
        ] {
            status.remove(field);
            if number != 0 {
                status.insert(field.to_owned(), number.into());
            }
        }
        for (field, value) in [
            ("replicas", json!(self.replicas)),
            ("availableReplicas", json!(self.available)),
            ("currentRevision", json!(current)),
            ("updateRevision", json!(revisions.update.name)),
            ("collisionCount", json!(revisions.collisions)),
        ] {
            status.insert(field.to_owned(), value);
        }
        let status = Value::Object(status);
        if status == *before {
            return None;
        }
        let mut set = object::identity(sync.set);
        set["status"] = status;
        Some(Write::status(STATEFUL_SETS, set))
    }
}
