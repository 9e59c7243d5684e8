//! What a planner wants written, and what came of it.
//!
//! Invariants
//! - Whatever overwrites or removes an object names the version or the uid that was seen:
//!   nothing is done to another object of the same name.
//! - The steps of a plan are carried out in order, the writes of a step together; after a
//!   write that fails, no later step begins. Events never fail a plan.

use std::time::Duration;

use serde_json::Value;

use crate::kind::Kind;
use crate::object;
use crate::view::Target;

/// What happens to the dependents of what is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They go after it.
    Background,
    /// They go before it.
    Foreground,
    /// They stay.
    Orphan,
}

impl Propagation {
    /// `propagationPolicy` of `DeleteOptions`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Foreground => "Foreground",
            Self::Orphan => "Orphan",
        }
    }
}

/// The deletion of one object.
#[derive(Debug, Clone, PartialEq)]
pub struct Delete {
    /// Its kind.
    pub kind: Kind,
    /// Empty for none.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// It goes only while it has this uid.
    pub uid: String,
    /// And, where given, only in this version.
    pub resource_version: Option<String>,
    /// Seconds of grace; its own where absent.
    pub grace_seconds: Option<i64>,
    /// Its kind's default where absent.
    pub propagation: Option<Propagation>,
}

impl Delete {
    /// The deletion of an object that was seen.
    pub fn of(kind: Kind, seen: &Value) -> Self {
        Self {
            kind,
            namespace: object::namespace(seen).to_owned(),
            name: object::name(seen).to_owned(),
            uid: object::uid(seen).to_owned(),
            resource_version: None,
            grace_seconds: None,
            propagation: None,
        }
    }
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// A new object; `metadata.namespace` says where, and `generateName` has a name drawn.
    Create {
        /// Its kind.
        kind: Kind,
        /// All of it but `kind` and `apiVersion`, which may be absent.
        object: Value,
    },
    /// An object in the place of the version it names in `metadata.resourceVersion`.
    Update {
        /// Its kind.
        kind: Kind,
        /// `status`, `scale` ..., or the object itself.
        subresource: Option<&'static str>,
        /// The whole object as it shall be.
        object: Value,
    },
    /// A change of some fields, whatever the version: a JSON merge patch (RFC 7386).
    Patch {
        /// Its kind.
        kind: Kind,
        /// `status`, ..., or the object itself.
        subresource: Option<&'static str>,
        /// Empty for none.
        namespace: String,
        /// Its name.
        name: String,
        /// It is changed only while it has this uid; empty: whichever it has. `metadata.resourceVersion` in the
        /// patch, where given, asks for that version.
        uid: String,
        /// The patch.
        patch: Value,
    },
    /// A deletion; an object that is gone already is no failure.
    Delete(Delete),
    /// The deletion of a pod as its disruption budget allows.
    Evict(Delete),
    /// A pod goes to a node (`pods/binding`).
    Bind {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        name: String,
        /// The pod's uid.
        uid: String,
        /// The node's name.
        node: String,
    },
    /// How many replicas an object of any kind shall have: the `autoscaling/v1` Scale that
    /// was answered, with another `spec.replicas`, in the version that it names.
    Scale {
        /// Whose scale.
        target: Target,
        /// The scale.
        scale: Value,
    },
    /// An Event of the API, gathered with others of its like. Never fails.
    Event(Event),
    /// A write, and an event once it is done. [`NAME`] in its message stands for the name
    /// of what was written.
    Told(Box<Write>, Event),
}

/// What stands for the name of what was written, in the event of a [`Write::Told`]: it is
/// drawn only then.
pub const NAME: &str = "{name}";

/// What people are told of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// `involvedObject`: `kind`, `apiVersion`, `namespace`, `name`, `uid`,
    /// `resourceVersion`, `fieldPath`.
    pub regarding: Value,
    /// `Warning` in the place of `Normal`.
    pub warning: bool,
    /// One word: `SuccessfulCreate`.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

impl Write {
    /// A new object.
    pub fn create(kind: Kind, object: Value) -> Self {
        Self::Create { kind, object }
    }

    /// The whole object, in the place of the version it was seen in.
    pub fn update(kind: Kind, object: Value) -> Self {
        Self::Update {
            kind,
            subresource: None,
            object,
        }
    }

    /// The status of an object that was seen, and its annotations where they are given and
    /// its kind lets a status change them; the rest of `object` does not count.
    pub fn status(kind: Kind, object: Value) -> Self {
        Self::Update {
            kind,
            subresource: Some("status"),
            object,
        }
    }

    /// Some fields of an object that was seen.
    pub fn patch(kind: Kind, seen: &Value, patch: Value) -> Self {
        Self::patch_of(kind, None, seen, patch)
    }

    /// Some fields of the status of an object that was seen; the patch holds `status`.
    pub fn patch_status(kind: Kind, seen: &Value, patch: Value) -> Self {
        Self::patch_of(kind, Some("status"), seen, patch)
    }

    fn patch_of(kind: Kind, subresource: Option<&'static str>, seen: &Value, patch: Value) -> Self {
        Self::Patch {
            kind,
            subresource,
            namespace: object::namespace(seen).to_owned(),
            name: object::name(seen).to_owned(),
            uid: object::uid(seen).to_owned(),
            patch,
        }
    }

    /// The deletion of an object that was seen, in the background.
    pub fn delete(kind: Kind, seen: &Value) -> Self {
        Self::Delete(Delete {
            propagation: Some(Propagation::Background),
            ..Delete::of(kind, seen)
        })
    }

    /// Something that people should know.
    pub fn event(kind: Kind, about: &Value, reason: &'static str, message: String) -> Self {
        Self::Event(Event {
            regarding: object::reference(kind, about),
            warning: false,
            reason,
            message,
        })
    }

    /// The same write, and an event about `about` once it is done.
    pub fn told(self, kind: Kind, about: &Value, reason: &'static str, message: String) -> Self {
        let event = Event {
            regarding: object::reference(kind, about),
            warning: false,
            reason,
            message,
        };
        Self::Told(Box::new(self), event)
    }

    /// Something that people should look at.
    pub fn warning(kind: Kind, about: &Value, reason: &'static str, message: String) -> Self {
        Self::Event(Event {
            regarding: object::reference(kind, about),
            warning: true,
            reason,
            message,
        })
    }
}

/// What is to be written for one key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// One after the other; the writes of one together.
    pub steps: Vec<Vec<Write>>,
    /// The key is looked at again after this time, whatever happens.
    pub again_in: Option<Duration>,
}

impl Plan {
    /// Adds a step of one write.
    pub fn then(&mut self, write: Write) {
        self.steps.push(vec![write]);
    }

    /// Adds a step of writes that go together.
    pub fn together(&mut self, writes: Vec<Write>) {
        if !writes.is_empty() {
            self.steps.push(writes);
        }
    }

    /// Has the key looked at again after this time, or earlier if that was asked for.
    pub fn again(&mut self, after: Duration) {
        self.again_in = Some(self.again_in.map_or(after, |own| own.min(after)));
    }

    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// All writes, in order.
    pub fn writes(&self) -> impl Iterator<Item = &Write> {
        self.steps.iter().flatten()
    }
}

/// How a write failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Failed {
    /// The write, without what would have been told of it.
    pub write: Write,
    /// HTTP status: 403, 409, 422, 429, 500, ...
    pub code: u16,
    /// `reason` of the `Status`: `Forbidden`, `Invalid`, ...
    pub reason: String,
    /// `message` of the `Status`.
    pub message: String,
    /// Whether the namespace is on its way out, so that nothing can be made there.
    pub namespace_ends: bool,
}
