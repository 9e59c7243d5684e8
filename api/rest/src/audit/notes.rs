//! What is found out while a request is served, for its client and for the audit log.
//!
//! Invariants
//! - An annotation is written once: what came first stands.
//! - Nothing is kept of a request that the policy does not record, and not more than
//!   [`MAX_ANNOTATION_BYTES`] of one that it does.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::Request;
use nautilus_access::audit::Level;
use nautilus_machinery::identity::User;
use nautilus_machinery::validation;
use parking_lot::Mutex;

use crate::body::Warnings;

/// Bytes of one event's annotations, keys and values, at most.
const MAX_ANNOTATION_BYTES: usize = 1024 * 1024;

/// What is found out while a request is judged and served.
pub(crate) struct Notes {
    level: Level,
    impersonated: Mutex<Option<User>>,
    annotations: Mutex<Annotations>,
}

#[derive(Default)]
struct Annotations {
    bytes: usize,
    by_key: BTreeMap<String, String>,
}

impl Default for Notes {
    /// Of a request that is not recorded.
    fn default() -> Self {
        Self::at(Level::None)
    }
}

impl Notes {
    /// Of a request that is recorded at this level.
    pub(super) fn at(level: Level) -> Self {
        Self {
            level,
            impersonated: Mutex::default(),
            annotations: Mutex::default(),
        }
    }

    /// Those of a request.
    pub(crate) fn of(request: &Request) -> Arc<Self> {
        let own = request.extensions().get::<Arc<Self>>();
        own.cloned().unwrap_or_default()
    }

    /// The request goes on as this user.
    pub(crate) fn acts_as(&self, user: &User) {
        *self.impersonated.lock() = Some(user.clone());
    }

    /// The request was allowed, or not, for this reason.
    pub(crate) fn decided(&self, allowed: bool, reason: &str) {
        let decision = if allowed { "allow" } else { "forbid" };
        self.annotate("authorization.k8s.io/decision", decision);
        self.annotate("authorization.k8s.io/reason", reason);
    }

    /// Whether the request is recorded at that level, or with more.
    pub(crate) fn records(&self, level: Level) -> bool {
        self.level >= level
    }

    /// Keeps an annotation, `prefix/name`, unless there is one of that key.
    pub(crate) fn annotate(&self, key: &str, value: &str) {
        if !self.records(Level::Metadata) {
            return;
        }
        if !key.contains('/') || !validation::qualified_name(key).is_empty() {
            tracing::warn!(key, "an audit annotation has no qualified name");
            return;
        }
        let mut annotations = self.annotations.lock();
        if annotations.by_key.contains_key(key) {
            return;
        }
        let bytes = annotations.bytes + key.len() + value.len();
        if bytes > MAX_ANNOTATION_BYTES {
            tracing::warn!(key, "the audit annotations of a request are too large");
            return;
        }
        annotations.bytes = bytes;
        annotations.by_key.insert(key.to_owned(), value.to_owned());
    }

    pub(super) fn take_impersonated(&self) -> Option<User> {
        self.impersonated.lock().take()
    }

    pub(super) fn take_annotations(&self) -> BTreeMap<String, String> {
        std::mem::take(&mut *self.annotations.lock()).by_key
    }
}

/// Who hears what is said beside an answer; nobody listens to a controller.
#[derive(Clone, Copy, Default)]
pub(crate) struct Remarks<'a> {
    /// What the client hears.
    pub(crate) warnings: Option<&'a Warnings>,
    /// What the audit log holds.
    pub(crate) notes: Option<&'a Notes>,
}

impl Remarks<'_> {
    /// Warns the client.
    pub(crate) fn warn(&self, message: impl Into<String>) {
        if let Some(warnings) = self.warnings {
            warnings.add(message.into());
        }
    }

    /// Annotates the request's event.
    pub(crate) fn annotate(&self, key: &str, value: &str) {
        if let Some(notes) = self.notes {
            notes.annotate(key, value);
        }
    }

    /// Whether the request is recorded at that level, or with more.
    pub(crate) fn records(&self, level: Level) -> bool {
        self.notes.is_some_and(|notes| notes.records(level))
    }
}
