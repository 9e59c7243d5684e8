//! Creation and change of objects whose kind is defined by an object: the steps of
//! [`super::before_create`] and [`super::before_update`] over [`Defined`].

use serde_json::{Value, json};

use super::{Change, Context, is_released, metadata};
use crate::resource::{Defined, Resource};
use crate::status::ApiError;
use crate::validation::Errors;

/// The object as its kind stores it.
pub(super) fn conform(
    defined: &dyn Defined,
    resource: &Resource,
    mut object: Value,
) -> Result<Value, ApiError> {
    match defined.normalize(&mut object) {
        Ok(_) => Ok(object),
        Err(causes) => {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            Err(ApiError::invalid(resource, name, causes))
        }
    }
}

pub(super) fn before_create(
    defined: &dyn Defined,
    resource: &Resource,
    object: &mut Value,
    context: &Context<'_>,
) -> Result<(), ApiError> {
    let owners = metadata::take_owners(object);
    let mut new = conform(defined, resource, object.take())?;
    if let (true, Some(fields)) = (defined.has_status(), new.as_object_mut()) {
        fields.shift_remove("status");
    }
    metadata::prepare_create(resource, &mut new, context)?;
    new["metadata"]["generation"] = json!(1);
    let new = conform(defined, resource, new)?;
    let mut errors = Errors::new();
    metadata::validate(resource, &new, &mut errors);
    errors.extend(defined.check(None, None, &new).0);
    super::refuse_invalid(resource, &new, errors)?;
    *object = new;
    metadata::put_owners(object, owners);
    Ok(())
}

pub(super) fn before_update(
    defined: &dyn Defined,
    resource: &Resource,
    subresource: Option<&str>,
    old: &Value,
    new: &mut Value,
    context: &Context<'_>,
) -> Result<Change, ApiError> {
    let owners = metadata::take_owners(new);
    let mut next = conform(defined, resource, new.take())?;
    metadata::prepare_update(resource, old, &mut next, context)?;
    split(defined, subresource, old, &mut next);
    if counted(defined, old) != counted(defined, &next) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
        next["metadata"]["generation"] = json!(generation + 1);
    }
    let next = conform(defined, resource, next)?;
    let mut errors = Errors::new();
    metadata::validate(resource, &next, &mut errors);
    metadata::validate_update(old, &next, &mut errors);
    errors.extend(defined.check(subresource, Some(old), &next).0);
    super::refuse_invalid(resource, &next, errors)?;
    *new = next;
    let unchanged = metadata::same_owners(old, owners.as_ref()) && alike(old, new);
    metadata::put_owners(new, owners);
    Ok(match is_released(new) {
        true => Change::Remove,
        false if unchanged => Change::Unchanged,
        false => Change::Write,
    })
}

/// Spec and status each have their own way in, where the kind says so.
fn split(defined: &dyn Defined, subresource: Option<&str>, old: &Value, next: &mut Value) {
    let Some(fields) = next.as_object_mut() else {
        return;
    };
    match subresource {
        None if defined.has_status() => match old.get("status") {
            Some(status) => {
                fields.insert("status".to_owned(), status.clone());
            }
            None => {
                fields.shift_remove("status");
            }
        },
        Some("status") => {
            let status = fields.shift_remove("status");
            let metadata = fields.shift_remove("metadata");
            *fields = old.as_object().cloned().unwrap_or_default();
            fields.shift_remove("status");
            // A status is written with nothing else but who owns it.
            if let Some(metadata) = metadata {
                fields.insert("metadata".to_owned(), metadata);
            }
            if let Some(status) = status {
                fields.insert("status".to_owned(), status);
            }
            metadata::keep(old, next);
        }
        _ => {}
    }
}

/// What of an object its generation counts the changes of.
fn counted(defined: &dyn Defined, object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.shift_remove("metadata");
        if defined.has_status() {
            fields.shift_remove("status");
        }
    }
    object
}

/// Whether both are stored as the same object, their owners apart.
fn alike(old: &Value, new: &Value) -> bool {
    let (Some(olds), Some(news)) = (old.as_object(), new.as_object()) else {
        return old == new;
    };
    olds.len() == news.len()
        && news.iter().all(|(name, new)| {
            olds.get(name).is_some_and(|old| match name.as_str() {
                "metadata" => metadata::alike(old, new),
                _ => old == new,
            })
        })
}
