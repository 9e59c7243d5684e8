//! What an apply takes away: fields and elements that its manager applied before,
//! does not apply now, and nobody else owns.

use std::borrow::Cow;

use serde_json::Value;

use super::FieldManager;
use crate::managed::Managed;
use crate::remove::remove;
use crate::schema::TypeView;
use crate::set::Set;
use crate::typed::field_set;

impl FieldManager<'_> {
    /// The merged object without what only the last configuration, of `version`, had.
    /// `managed` holds the new configuration's fields already.
    pub(super) fn prune(
        &self,
        merged: Value,
        managed: &Managed,
        version: &str,
        last: &Set,
    ) -> Result<Value, String> {
        if last.is_empty() {
            return Ok(merged);
        }
        let Some(view) = self.versions.schema(version) else {
            return Ok(merged);
        };
        let Some(in_version) = self.versions.convert(&merged, version) else {
            return Ok(merged);
        };
        let mut owned = Set::default();
        let mut elsewhere: Vec<(String, Set)> = Vec::new();
        for entry in &managed.entries {
            let set = self.reconciled(entry);
            if entry.api_version == version {
                owned = owned.union(&set);
                continue;
            }
            match elsewhere
                .iter_mut()
                .find(|(known, _)| *known == entry.api_version)
            {
                Some((_, known)) => *known = known.union(&set),
                None => elsewhere.push((entry.api_version.clone(), set)),
            }
        }
        if last.difference(&owned).is_empty() {
            // Somebody, this manager perhaps, owns all of it still.
            return Ok(merged);
        }
        let named = |set: &Set| set.with_named_members(&view.schema, Some(view.id));
        let last = named(last);
        let mut pruned = remove(&view, &in_version, &last);
        pruned = keep_owned(&view, &in_version, &pruned, &owned);
        for (other, owned) in &elsewhere {
            pruned = match self.keep_owned_in(other, version, &in_version, &pruned, owned) {
                Some(pruned) => pruned,
                None => pruned,
            };
        }
        // Only what was applied before goes: what was below it unowned stays.
        let gone = named(&field_set(&view, &in_version))
            .difference(&named(&field_set(&view, &pruned)))
            .intersection(&last);
        let pruned = remove(&view, &in_version, &gone);
        if version == self.api_version {
            return Ok(pruned);
        }
        self.versions
            .convert(&pruned, self.api_version)
            .map(Cow::into_owned)
            .ok_or_else(|| format!("no form in {}", self.api_version))
    }

    fn keep_owned_in(
        &self,
        other: &str,
        version: &str,
        merged: &Value,
        pruned: &Value,
        owned: &Set,
    ) -> Option<Value> {
        let view = self.versions.schema(other)?;
        let merged = self.versions.convert(merged, other)?;
        let pruned = self.versions.convert(pruned, other)?;
        let kept = keep_owned(&view, &merged, &pruned, owned);
        Some(self.versions.convert(&kept, version)?.into_owned())
    }
}

/// The pruned object with what of the merged one is owned.
fn keep_owned(view: &TypeView, merged: &Value, pruned: &Value, owned: &Set) -> Value {
    let named = |set: &Set| set.with_named_members(&view.schema, Some(view.id));
    let kept = named(&field_set(view, pruned)).union(&named(owned));
    let gone = named(&field_set(view, merged)).difference(&kept);
    remove(view, merged, &gone)
}
