//! Server-side apply over the store: who owns which field after a write, and the
//! requests that apply a configuration.
//!
//! Invariants
//! - Ownership is worked out on the object as the client wants it, defaults filled in,
//!   before admission and strategy change it: nobody owns what they set.
//! - A write that changes nothing but times of ownership is no write.

#[cfg(test)]
mod cost;
mod request;
mod reset;
mod serve;

use std::borrow::Cow;

use nautilus_apply::reset::Reset;
use nautilus_apply::schema::{Schema, TypeView, structural, table};
use nautilus_apply::{FieldManager, Versions};
use nautilus_machinery::resource::{self, Resource};
use nautilus_machinery::{convert, fields, schema};
use serde_json::{Value, json};

use crate::ids;
use crate::storage::Target;

pub(crate) use request::{Configuration, MEDIA_TYPES};

/// How the object of a write came to its owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Ownership {
    /// By what the write changes.
    #[default]
    ByChange,
    /// By an apply, which has worked it out.
    Applied,
}

/// The versions of one kind, through one way in.
struct KindVersions<'a> {
    resource: &'a Resource,
    reset: &'static Reset,
}

impl KindVersions<'_> {
    /// The kind in another version.
    fn in_version(&self, api_version: &str) -> Option<&'static Resource> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        resource::find_kind(group, version, &self.resource.kind).map(|found| &**found)
    }
}

impl Versions for KindVersions<'_> {
    fn schema(&self, api_version: &str) -> Option<TypeView> {
        if let Some(defined) = &self.resource.defined {
            // All versions of a defined kind have its fields, as far as this one knows.
            let (schema, keeps_unknown) = defined.schema();
            let schema = Some(schema).filter(|schema| !schema.is_null());
            return Some(structural::of_json_schema(schema, keeps_unknown));
        }
        if api_version == self.resource.api_version() {
            return Some(table::find(&self.resource.schema).unwrap_or_else(Schema::deduced));
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let found = schema::find_kind(group, version, &self.resource.kind)?;
        table::find(&found.name)
    }

    fn convert<'a>(&self, object: &'a Value, api_version: &str) -> Option<Cow<'a, Value>> {
        let from = object["apiVersion"].as_str().unwrap_or_default();
        if from == api_version {
            return Some(Cow::Borrowed(object));
        }
        if self.resource.defined.is_some() {
            let mut object = object.clone();
            object["apiVersion"] = json!(api_version);
            return Some(Cow::Owned(object));
        }
        let (from, to) = (self.in_version(from)?, self.in_version(api_version)?);
        let stored = convert::to_stored(from, object.clone());
        Some(Cow::Owned(convert::from_stored(to, stored)))
    }

    fn reset(&self, _api_version: &str) -> &Reset {
        self.reset
    }

    fn empty(&self) -> Value {
        let object = json!({
            "kind": self.resource.kind,
            "apiVersion": self.resource.api_version(),
        });
        fields::conform(&self.resource.schema, &object).unwrap_or(object)
    }
}

/// Puts into `wanted` who owns its fields. `current` is what stands; `None`: nothing.
pub(crate) fn track(
    target: &Target<'_>,
    manager: &str,
    current: Option<&Value>,
    wanted: &mut Value,
) {
    let resource: &Resource = target.resource;
    if !tracks(resource, target.subresource) {
        return;
    }
    let versions = KindVersions {
        resource,
        reset: reset::of(resource, target.subresource),
    };
    let api_version = resource.api_version();
    let now = ids::now_rfc3339();
    let fields = FieldManager {
        versions: &versions,
        api_version: &api_version,
        kind: &resource.kind,
        subresource: target.subresource.unwrap_or_default(),
        now: &now,
    };
    match current {
        Some(current) => fields.update(current, wanted, manager),
        None => fields.update(&versions.empty(), wanted, manager),
    }
}

/// Subresources that are only created (a binding, an eviction) have no managers.
fn tracks(resource: &Resource, subresource: Option<&str>) -> bool {
    let Some(name) = subresource else {
        return true;
    };
    resource.subresource(name).is_some_and(|sub| {
        sub.verbs
            .iter()
            .any(|verb| *verb == "update" || *verb == "patch")
    })
}
