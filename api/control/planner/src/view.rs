//! What a planner sees: the objects of the kinds it follows, as of one moment.
//!
//! Invariant: an object is as clients get it, with `resourceVersion`, without
//! `managedFields`.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::kind::Kind;

/// Namespace (empty for none) and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Empty for an object outside of namespaces.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// The key of a name in a namespace (empty: in none).
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of an object.
    pub fn of(object: &Value) -> Self {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        Self::new(text("namespace"), text("name"))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, output: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => output.write_str(&self.name),
            namespace => write!(output, "{namespace}/{}", self.name),
        }
    }
}

/// Which objects of a kind. All but the first two are looked up by an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within<'a> {
    /// All.
    All,
    /// Those of a namespace.
    Namespace(&'a str),
    /// Those of a namespace whose controller (the owner with `controller: true`) has this
    /// uid.
    Controlled(&'a str, &'a str),
    /// Those of a namespace that have no controller.
    Uncontrolled(&'a str),
    /// Pods bound to a node.
    Node(&'a str),
}

/// An object of any kind, named as other objects name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// `apps/v1`.
    pub api_version: String,
    /// `Deployment`.
    pub kind: String,
    /// Empty for none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What no object of the view tells: asked of the API before a plan is made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// The scale of an object of any kind, as `autoscaling/v1` Scale.
    Scale(Target),
    /// What a `GET` of this path answers: metrics of extension servers.
    Get(String),
}

/// How the API answered: an object, or HTTP status and message of the refusal.
pub type Answer = Result<Value, (u16, String)>;

/// What is there. Reads are in the order of namespaces and names, and never fail: what a
/// kind's cache does not have is not there.
pub trait View {
    /// One object.
    fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Arc<Value>>;

    /// The objects of a kind.
    fn list(&self, kind: Kind, within: Within<'_>) -> Vec<Arc<Value>>;

    /// The same without reading them.
    fn keys(&self, kind: Kind, within: Within<'_>) -> Vec<Key>;

    /// The answer to a question, where its controller asked it for this plan.
    fn answer(&self, question: &Question) -> Option<&Answer> {
        let _ = question;
        None
    }
}
