//! What a write does to the ownership of fields, and what an apply does to the object.
//!
//! An update's changes become the updater's, whoever had them. An apply merges a
//! configuration, takes away what its manager applied before and now does not, and
//! is refused where it would change what others own, unless it is forced.
//!
//! Source: KEP-555 and the behaviour of the release served, held by recorded cases
//! (`tests/golden`).
//!
//! Invariants
//! - An apply of the same configuration again changes nothing, times included.
//! - System fields (names, uid, times of the object) have no owner.
//! - At most [`MAX_UPDATE_ENTRIES`] entries of updates stay.

mod cap;
mod last_applied;
mod prune;
mod reconcile;

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::compare::{Comparison, compare};
use crate::conflict::{self, ApplyError, Conflict};
use crate::managed::{Entry, Identity, Managed, Operation, asks_to_reset};
use crate::merge::merge;
use crate::reset::Reset;
use crate::schema::TypeView;
use crate::set::Set;
use crate::typed::{self, Duplicates};
use crate::value::equal;

/// Entries of updates kept for an object; older ones are merged into one.
pub const MAX_UPDATE_ENTRIES: usize = 10;
/// The manager of everything that stood before the first apply.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// kubectl's apply, whose client-side annotation is followed.
const KUBECTL: &str = "kubectl";

/// The types and forms of one kind in its versions.
pub trait Versions {
    /// The kind's type in a version (`apps/v1`); `None`: it is not served there.
    fn schema(&self, api_version: &str) -> Option<TypeView>;
    /// The object in another version; `None`: it has none there.
    fn convert<'a>(&self, object: &'a Value, api_version: &str) -> Option<Cow<'a, Value>>;
    /// What is reset on this way in, in a version.
    fn reset(&self, api_version: &str) -> &Reset;
    /// The kind's empty object in the request's version, with the fields that are
    /// always written.
    fn empty(&self) -> Value;
}

/// One write's view of field management.
pub struct FieldManager<'a> {
    /// The kind's versions.
    pub versions: &'a dyn Versions,
    /// The version of the request, as `apps/v1`.
    pub api_version: &'a str,
    /// The kind, as `Deployment`.
    pub kind: &'a str,
    /// The subresource written through, or empty.
    pub subresource: &'a str,
    /// RFC 3339, UTC, to the second.
    pub now: &'a str,
}

impl FieldManager<'_> {
    /// Puts into `new` who owns its fields after this write of `manager`. `live` is what
    /// stands now, or the kind's empty object at a creation. Never fails: where the
    /// objects can't be compared, the present entries stay.
    pub fn update(&self, live: &Value, new: &mut Value, manager: &str) {
        let Some(metadata) = new.get_mut("metadata").and_then(Value::as_object_mut) else {
            return;
        };
        let own = metadata.shift_remove("managedFields");
        let stored = live["metadata"].get("managedFields");
        let managed = self.decode_live_or_new(stored, own);
        match self.updated(live, new, managed, manager) {
            Ok(managed) => managed.encode_into(new),
            Err(_) => {
                if let (Some(stored), Some(metadata)) = (stored, new["metadata"].as_object_mut()) {
                    metadata.insert("managedFields".to_owned(), stored.clone());
                }
            }
        }
    }

    /// A subresource can't set entries; an object can, or ask to forget them, and one
    /// that has none keeps what stands.
    fn decode_live_or_new(&self, stored: Option<&Value>, own: Option<Value>) -> Managed {
        if own.as_ref() == stored {
            return Managed::decode(own).unwrap_or_default();
        }
        let live = || Managed::decode(stored.cloned()).unwrap_or_default();
        if !self.subresource.is_empty() {
            return live();
        }
        if asks_to_reset(own.as_ref()) {
            return Managed::default();
        }
        match Managed::decode_strictly(own) {
            Ok(managed) if !managed.is_empty() => managed,
            _ => live(),
        }
    }

    fn updated(
        &self,
        live: &Value,
        new: &Value,
        managed: Managed,
        manager: &str,
    ) -> Result<Managed, String> {
        let exists = live["metadata"]["uid"]
            .as_str()
            .is_some_and(|uid| !uid.is_empty());
        if managed.is_empty() && exists {
            // Nobody ever asked who owns what.
            return Ok(managed);
        }
        self.take_over(live, new, managed, manager)
    }

    fn take_over(
        &self,
        live: &Value,
        new: &Value,
        mut managed: Managed,
        manager: &str,
    ) -> Result<Managed, String> {
        let found = self.compare(live, new)?;
        let taken = found.changed().difference(system_fields());
        let identity = Identity::new(
            manager,
            Operation::Update,
            self.api_version,
            self.subresource,
        );
        // The common case: a manager writes again what it wrote before.
        let settled = managed
            .get(&identity)
            .is_some_and(|own| own.holds(&taken) && !own.may_touch(&found.removed));
        self.give_up(
            live,
            new,
            &found,
            &mut managed,
            settled.then_some(&identity),
        )?;
        if !taken.is_empty() {
            match managed.get_mut(&identity) {
                Some(own) if own.holds(&taken) => {}
                Some(own) => own.set_to(own.set().union(&taken)),
                None => {
                    let entry = Entry::new(identity.clone(), self.api_version, taken);
                    managed.entries.push(entry);
                }
            }
            if let Some(own) = managed.get_mut(&identity) {
                own.time = self.now.to_owned();
            }
        }
        cap::cap_updates(&mut managed);
        Ok(managed)
    }

    fn view(&self) -> Result<TypeView, String> {
        self.versions.schema(self.api_version).ok_or_else(|| {
            format!(
                "no corresponding type for {}, Kind={}",
                self.api_version, self.kind
            )
        })
    }

    fn compare(&self, live: &Value, new: &Value) -> Result<Comparison, String> {
        let found = compare(&self.view()?, live, new)
            .map_err(|why| format!("failed to compare objects: {why}"))?;
        Ok(found.filtered(self.versions.reset(self.api_version)))
    }

    /// Takes from every entry but `but` what the write changed or removed.
    fn give_up(
        &self,
        live: &Value,
        new: &Value,
        found: &Comparison,
        managed: &mut Managed,
        but: Option<&Identity>,
    ) -> Result<(), String> {
        if managed.entries.is_empty() {
            return Ok(());
        }
        let lost = found.changed().union(&found.removed);
        let mut others = Vec::new();
        let mut entries = std::mem::take(&mut managed.entries);
        for entry in &mut entries {
            if but == Some(&entry.identity) {
                continue;
            }
            if entry.api_version == self.api_version {
                self.take_from(entry, &lost)?;
                continue;
            }
            let Some(lost) = self.lost_in(&entry.api_version, live, new, &mut others)? else {
                entry.set_to(Set::default());
                continue;
            };
            self.take_from(entry, &lost)?;
        }
        entries.retain(|entry| !entry.is_gone());
        managed.entries = entries;
        Ok(())
    }

    fn take_from(&self, entry: &mut Entry, lost: &Set) -> Result<(), String> {
        if entry.may_touch(lost) {
            let set = self.reconciled(entry);
            entry.set_to(set.difference(lost));
        }
        Ok(())
    }

    /// What changed or went, in another version; `None`: that version is no more.
    fn lost_in(
        &self,
        api_version: &str,
        live: &Value,
        new: &Value,
        known: &mut Vec<(String, Option<Set>)>,
    ) -> Result<Option<Set>, String> {
        if let Some((_, lost)) = known.iter().find(|(version, _)| version == api_version) {
            return Ok(lost.clone());
        }
        let lost = match self.changes_in(api_version, live, new)? {
            Some(found) => Some(found.changed().union(&found.removed)),
            None => None,
        };
        known.push((api_version.to_owned(), lost.clone()));
        Ok(lost)
    }

    fn changes_in(
        &self,
        api_version: &str,
        live: &Value,
        new: &Value,
    ) -> Result<Option<Comparison>, String> {
        let Some(view) = self.versions.schema(api_version) else {
            return Ok(None);
        };
        let (Some(live), Some(new)) = (
            self.versions.convert(live, api_version),
            self.versions.convert(new, api_version),
        ) else {
            return Ok(None);
        };
        let found = compare(&view, &live, &new)
            .map_err(|why| format!("failed to compare objects: {why}"))?;
        Ok(Some(found.filtered(self.versions.reset(api_version))))
    }

    /// An entry's set, where a list or map has become atomic since it was written:
    /// who owned parts of it owns it.
    fn reconciled(&self, entry: &Entry) -> Set {
        let set = entry.set();
        match self.versions.schema(&entry.api_version) {
            Some(view) => reconcile::reconcile(&view.schema, Some(view.id), &set),
            None => set,
        }
    }

    /// Merges a configuration into the object that stands, or the kind's empty one.
    /// The result has its entries; it may be the object as it stands.
    pub fn apply(
        &self,
        live: &Value,
        config: &Value,
        manager: &str,
        force: bool,
    ) -> Result<Value, ApplyError> {
        self.check_config(config)?;
        let mut applied = match self.apply_once(live, config, manager, force) {
            Err(ApplyError::Conflicts(conflicts)) if manager == KUBECTL => {
                self.apply_over_client_side(live, config, manager, conflicts)?
            }
            applied => applied?,
        };
        if manager == KUBECTL {
            last_applied::follow(&mut applied, config);
        }
        Ok(applied)
    }

    fn check_config(&self, config: &Value) -> Result<(), ApplyError> {
        let text = |name: &str| config[name].as_str().unwrap_or_default();
        if (text("apiVersion"), text("kind")) != (self.api_version, self.kind) {
            return Err(ApplyError::BadRequest(format!(
                "invalid object type: {}",
                shown(text("apiVersion"), text("kind"))
            )));
        }
        if config["metadata"]["managedFields"].is_array() {
            return Err(ApplyError::BadRequest(
                "metadata.managedFields must be nil".to_owned(),
            ));
        }
        Ok(())
    }

    fn apply_once(
        &self,
        live: &Value,
        config: &Value,
        manager: &str,
        force: bool,
    ) -> Result<Value, ApplyError> {
        let failed = ApplyError::Failed;
        let mut managed = Managed::of(live)
            .map_err(|why| failed(format!("failed to decode managed fields: {why}")))?;
        let live = without_entries(live);
        if managed.is_empty() {
            let empty = self.versions.empty();
            managed = self
                .take_over(&empty, &live, managed, BEFORE_FIRST_APPLY)
                .map_err(|why| {
                    failed(format!(
                        "failed to create manager for existing fields: {why}"
                    ))
                })?;
        }
        let view = self.view().map_err(failed)?;
        typed::validate(&view, config, Duplicates::Refused).map_err(|why| {
            failed(format!(
                "failed to create typed patch object ({}): {why}",
                self.named(config)
            ))
        })?;
        let merged = merge(&view, &live, config)
            .map_err(|why| failed(format!("failed to merge config: {why}")))?;
        let identity = Identity::new(manager, Operation::Apply, "", self.subresource);
        let last = managed
            .get(&identity)
            .map(|entry| (entry.api_version.clone(), self.reconciled(entry)));
        let set = self
            .versions
            .reset(self.api_version)
            .filter(typed::field_set(&view, config));
        let time = managed
            .remove(&identity)
            .map(|entry| entry.time)
            .unwrap_or_default();
        let mut own = Entry::new(identity.clone(), self.api_version, set);
        own.time = time;
        managed.entries.push(own);
        let merged = match last {
            Some((version, last)) => self
                .prune(merged, &managed, &version, &last)
                .map_err(|why| failed(format!("failed to prune fields: {why}")))?,
            None => merged,
        };
        let found = self.compare(&live, &merged).map_err(failed)?;
        if !force {
            self.refuse_conflicts(&live, &merged, &found, &managed, &identity)?;
        }
        self.give_up(&live, &merged, &found, &mut managed, Some(&identity))
            .map_err(failed)?;
        strip(&mut managed, &identity);
        let unchanged = equal(&live, &merged);
        if let (false, Some(own)) = (unchanged, managed.get_mut(&identity)) {
            own.time = self.now.to_owned();
        }
        let mut applied = match unchanged {
            true => live.into_owned(),
            false => merged,
        };
        ensure_metadata(&mut applied);
        managed.encode_into(&mut applied);
        Ok(applied)
    }

    fn refuse_conflicts(
        &self,
        live: &Value,
        merged: &Value,
        found: &Comparison,
        managed: &Managed,
        own: &Identity,
    ) -> Result<(), ApplyError> {
        let changed = found.changed();
        let mut conflicts = Vec::new();
        for entry in managed.entries.iter().filter(|e| e.identity != *own) {
            let other;
            let changed = if entry.api_version == self.api_version {
                &changed
            } else {
                let found = self
                    .changes_in(&entry.api_version, live, merged)
                    .map_err(ApplyError::Failed)?;
                other = found.map(|found| found.changed()).unwrap_or_default();
                &other
            };
            if !entry.may_touch(changed) {
                continue;
            }
            let paths = self.reconciled(entry).intersection(changed).paths();
            conflicts.extend(paths.into_iter().map(|path| Conflict {
                manager: entry.identity.clone(),
                path,
            }));
        }
        if conflicts.is_empty() {
            return Ok(());
        }
        conflicts.sort_by_cached_key(|conflict| conflict.manager.key());
        Err(ApplyError::Conflicts(conflicts))
    }

    /// kubectl takes over what its client-side apply set.
    fn apply_over_client_side(
        &self,
        live: &Value,
        config: &Value,
        manager: &str,
        conflicts: Vec<Conflict>,
    ) -> Result<Value, ApplyError> {
        let view = self.view().map_err(ApplyError::Failed)?;
        let Some(own) = last_applied::owned(&view, live, self.api_version) else {
            return Err(ApplyError::Conflicts(conflicts));
        };
        if conflict::fields(&conflicts).difference(&own).is_empty() {
            return self.apply_once(live, config, manager, true);
        }
        let rest = conflicts
            .into_iter()
            .filter(|conflict| !own.has(&conflict.path));
        Err(ApplyError::Conflicts(rest.collect()))
    }

    /// `namespace/name; group/version, Kind=Kind`.
    fn named(&self, object: &Value) -> String {
        let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
        format!(
            "{}/{}; {}",
            text("namespace"),
            text("name"),
            shown(self.api_version, self.kind)
        )
    }
}

/// `group/version, Kind=Kind`.
fn shown(api_version: &str, kind: &str) -> String {
    let slash = if api_version.contains('/') { "" } else { "/" };
    format!("{slash}{api_version}, Kind={kind}")
}

/// The object without its entries, which no entry owns.
fn without_entries(object: &Value) -> Cow<'_, Value> {
    match object["metadata"].get("managedFields") {
        None => Cow::Borrowed(object),
        Some(_) => {
            let mut bare = Map::new();
            for (name, value) in object.as_object().into_iter().flatten() {
                let value = match (name.as_str(), value) {
                    ("metadata", Value::Object(metadata)) => {
                        let fields = metadata.iter().filter(|(name, _)| *name != "managedFields");
                        let fields = fields.map(|(name, value)| (name.clone(), value.clone()));
                        Value::Object(fields.collect())
                    }
                    _ => value.clone(),
                };
                bare.insert(name.clone(), value);
            }
            Cow::Owned(Value::Object(bare))
        }
    }
}

fn ensure_metadata(object: &mut Value) {
    if let Value::Object(map) = object {
        let metadata = map.entry("metadata").or_insert(Value::Null);
        if !metadata.is_object() {
            *metadata = Value::Object(Map::new());
        }
    }
}

/// What nobody owns: the object's names, and what the server sets.
fn system_fields() -> &'static Set {
    static FIELDS: std::sync::LazyLock<Set> = std::sync::LazyLock::new(|| {
        Set::of_fields(&[
            "apiVersion",
            "kind",
            "metadata",
            "metadata.name",
            "metadata.namespace",
            "metadata.creationTimestamp",
            "metadata.selfLink",
            "metadata.uid",
            "metadata.clusterName",
            "metadata.generation",
            "metadata.managedFields",
            "metadata.resourceVersion",
        ])
    });
    &FIELDS
}

fn strip(managed: &mut Managed, identity: &Identity) {
    if let Some(own) = managed.get_mut(identity) {
        own.set_to(own.set().difference(system_fields()));
    }
    managed.entries.retain(|entry| !entry.is_gone());
}
