//! Ownership through the `scale` subresource: one field, the replicas, of the object
//! that is scaled, under another name and version.
//!
//! Invariant: entries that have nothing to do with the replicas stay as they are.

use serde_json::Value;

use crate::managed::{Entry, Managed, Operation};
use crate::path::{Path, PathElement};
use crate::set::Set;

/// The version of the subresource.
pub const SCALE_VERSION: &str = "autoscaling/v1";
/// The replicas there.
const SCALE_REPLICAS: &str = "spec.replicas";

/// How one kind's replicas are found.
#[derive(Clone, Copy)]
pub struct ScaleHandler<'a> {
    /// The version of the object in the request, as `apps/v1`.
    pub api_version: &'a str,
    /// The dotted path of the replicas in a version; `None`: the version is not known.
    pub replicas_path: &'a (dyn Fn(&str) -> Option<String> + Sync),
}

impl ScaleHandler<'_> {
    fn path(&self, api_version: &str) -> Option<Path> {
        let path = (self.replicas_path)(api_version)?;
        let path = path.trim_start_matches('.');
        Some(path.split('.').map(PathElement::field).collect())
    }

    /// The entries that the scale object shows: who owns the replicas.
    pub fn to_scale(self, parent: &Value, scale: &mut Value) {
        let managed = Managed::of(parent).unwrap_or_default();
        let mut shown = Managed::default();
        for entry in managed.entries {
            let Some(path) = self.path(&entry.api_version) else {
                continue;
            };
            if !entry.set().has(&path) {
                continue;
            }
            let mut identity = entry.identity;
            if identity.operation == Operation::Update {
                identity.api_version = SCALE_VERSION.to_owned();
            }
            let mut own = Entry::new(identity, SCALE_VERSION, Set::of_fields(&[SCALE_REPLICAS]));
            own.time = entry.time;
            shown.entries.push(own);
        }
        shown.encode_into(scale);
    }

    /// Puts what a write of the scale object changed into the entries of its parent.
    pub fn to_parent(self, scale: &Value, parent: &mut Value) {
        let own = Managed::of(parent).unwrap_or_default();
        let mut scaled = Managed::of(scale).unwrap_or_default();
        let mut managed = Managed::default();
        for mut entry in own.entries {
            let Some(path) = self.path(&entry.api_version) else {
                continue;
            };
            let set = entry.set();
            if !set.has(&path) {
                managed.entries.push(entry);
                continue;
            }
            let mut as_scaled = entry.identity.clone();
            if as_scaled.operation == Operation::Update {
                as_scaled.api_version = SCALE_VERSION.to_owned();
            }
            if scaled.remove(&as_scaled).is_none() {
                let replicas: Set = std::iter::once(path).collect();
                let left = set.difference(&replicas);
                if left.is_empty() {
                    continue;
                }
                entry.set_to(left);
            }
            managed.entries.push(entry);
        }
        let scale_path = Set::of_fields(&[SCALE_REPLICAS]);
        for entry in scaled.entries {
            let Some(path) = self.path(self.api_version) else {
                continue;
            };
            if !entry.holds(&scale_path) {
                continue;
            }
            let mut identity = entry.identity;
            if identity.operation == Operation::Update {
                identity.api_version = self.api_version.to_owned();
            }
            let mut own = Entry::new(identity, self.api_version, std::iter::once(path).collect());
            own.time = entry.time;
            managed.entries.push(own);
        }
        managed.encode_into(parent);
    }
}
