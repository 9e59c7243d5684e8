//! What admission may know of one request, whichever way it came in.

use nautilus_machinery::identity::User;
use nautilus_machinery::resource::Resource;
use nautilus_machinery::status::ApiError;
use serde_json::Value;

/// What the request does to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A new object, or a new one of a subresource (`pods/binding`).
    Create,
    /// A change, by any verb.
    Update,
    /// A deletion of one object.
    Delete,
    /// A stream to something that is not stored (`pods/exec`).
    Connect,
}

impl Operation {
    /// As rules of webhooks and policies write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// One request, without the object it brings: that may still change.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// What it does.
    pub operation: Operation,
    /// To which kind.
    pub resource: &'a Resource,
    /// Through which subresource.
    pub subresource: Option<&'a str>,
    /// In which namespace; of a namespace, its own name.
    pub namespace: Option<&'a str>,
    /// Of which name; empty while it is to be generated.
    pub name: &'a str,
    /// The request's `fieldManager`; may be empty.
    pub field_manager: &'a str,
    /// Who asks.
    pub user: &'a User,
    /// Whether nothing will be written.
    pub dry_run: bool,
    /// The stored object, of updates and deletions.
    pub old: Option<&'a Value>,
}

impl Attributes<'_> {
    /// Whether it is about objects of this kind themselves, not a subresource.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.subresource.is_none() && self.of(group, plural)
    }

    /// Whether it is about this kind, by whichever way in.
    pub fn of(&self, group: &str, plural: &str) -> bool {
        *self.resource.group == *group && *self.resource.plural == *plural
    }

    /// Whether it is about this subresource of a kind.
    pub fn is_sub(&self, group: &str, plural: &str, subresource: &str) -> bool {
        self.subresource == Some(subresource) && self.of(group, plural)
    }

    /// 403 in admission's words. `object` gives the name where the path has none.
    pub fn forbidden(&self, object: Option<&Value>, why: &str) -> ApiError {
        ApiError::forbidden_because(self.resource, &self.called(object), why)
    }

    /// The name in messages: the path's, the object's, its prefix, or `Unknown`.
    pub fn called(&self, object: Option<&Value>) -> String {
        let metadata = |field: &str| {
            object
                .and_then(|object| object["metadata"][field].as_str())
                .filter(|text| !text.is_empty())
        };
        Some(self.name)
            .filter(|name| !name.is_empty())
            .or_else(|| metadata("name"))
            .or_else(|| metadata("generateName"))
            .unwrap_or("Unknown")
            .to_owned()
    }
}
