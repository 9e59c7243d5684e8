//! `ObjectMeta`: what every kind has in common.
//!
//! Invariant: system fields (uid, times, generation) are set here and nowhere
//! else taken from a client.

use serde_json::{Map, Value, json};

use super::{Context, DeleteOptions};
use crate::resource::Resource;
use crate::status::ApiError;
use crate::validation::{self, Errors};

/// Longest prefix kept of a `generateName`, in bytes: with the suffix it makes a
/// DNS label.
const GENERATE_NAME_MAX_BYTES: usize = 58;
/// What a client may not set.
const SYSTEM_FIELDS: &[&str] = &[
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "generation",
];

pub(super) fn prepare_create(
    resource: &Resource,
    object: &mut Value,
    context: &Context<'_>,
) -> Result<(), ApiError> {
    let Some(metadata) = object["metadata"].as_object_mut() else {
        return Err(ApiError::bad_request("metadata is missing"));
    };
    if metadata
        .get("resourceVersion")
        .and_then(Value::as_str)
        .is_some_and(|v| !v.is_empty())
    {
        return Err(ApiError::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    for name in SYSTEM_FIELDS {
        metadata.remove(*name);
    }
    metadata.insert("uid".to_owned(), json!(context.uid));
    metadata.insert("creationTimestamp".to_owned(), json!(context.now));
    if resource.rules.counts_generation {
        metadata.insert("generation".to_owned(), json!(1));
    }
    if let (true, Some(namespace)) = (resource.namespaced, context.namespace) {
        match metadata.get("namespace").and_then(Value::as_str) {
            Some(own) if !own.is_empty() && own != namespace => return Err(other_namespace()),
            _ => metadata.insert("namespace".to_owned(), json!(namespace)),
        };
    }
    let text = |name: &str| {
        metadata
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (name, prefix) = (text("name"), text("generateName"));
    if name.is_empty() && !prefix.is_empty() {
        let mut end = prefix.len().min(GENERATE_NAME_MAX_BYTES);
        while !prefix.is_char_boundary(end) {
            end -= 1;
        }
        let name = format!("{}{}", &prefix[..end], context.name_suffix);
        metadata.insert("name".to_owned(), json!(name));
    }
    Ok(())
}

fn other_namespace() -> ApiError {
    ApiError::bad_request(
        "the namespace of the provided object does not match the namespace sent on the request",
    )
}

pub(super) fn prepare_update(
    resource: &Resource,
    old: &Value,
    object: &mut Value,
    context: &Context<'_>,
) -> Result<(), ApiError> {
    let name = old["metadata"]["name"].as_str().unwrap_or_default();
    let Some(metadata) = object["metadata"].as_object_mut() else {
        return Err(ApiError::bad_request("metadata is missing"));
    };
    let text = |key: &str| {
        metadata
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let own = text("name");
    if !own.is_empty() && own != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({own}) does not match the name on the URL ({name})"
        )));
    }
    if let (true, Some(namespace)) = (resource.namespaced, context.namespace) {
        let own = text("namespace");
        if !own.is_empty() && own != namespace {
            return Err(other_namespace());
        }
    }
    let (uid, stored) = (
        text("uid"),
        old["metadata"]["uid"].as_str().unwrap_or_default(),
    );
    if !uid.is_empty() && uid != stored {
        return Err(ApiError::conflict_with(
            resource,
            name,
            &uid_mismatch(uid, stored),
        ));
    }
    metadata.insert("name".to_owned(), json!(name));
    for key in SYSTEM_FIELDS
        .iter()
        .copied()
        .chain(["namespace", "uid", "creationTimestamp"])
    {
        match old["metadata"].get(key) {
            Some(value) => {
                metadata.insert(key.to_owned(), value.clone());
            }
            None => {
                metadata.remove(key);
            }
        }
    }
    Ok(())
}

/// Takes the owners of fields out, so that what is done with the object does not have to
/// carry them. `None`: there are none, or the client asks to forget them.
pub(super) fn take_owners(object: &mut Value) -> Option<Value> {
    let metadata = object.get_mut("metadata")?.as_object_mut()?;
    let owners = metadata.shift_remove("managedFields")?;
    let is_empty = |entry: &Value| entry.as_object().is_none_or(Map::is_empty);
    let some = owners
        .as_array()
        .is_some_and(|entries| !entries.iter().all(is_empty));
    some.then_some(owners)
}

/// Puts the owners back, where an object has them: last.
pub(super) fn put_owners(object: &mut Value, owners: Option<Value>) {
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    if let (Some(metadata), Some(owners)) = (metadata, owners) {
        metadata.insert("managedFields".to_owned(), owners);
    }
}

/// Whether the owners of `old` are these, whenever they wrote.
pub(super) fn same_owners(old: &Value, owners: Option<&Value>) -> bool {
    let entries = |list: Option<&Value>| list.and_then(Value::as_array).map_or(0, Vec::len);
    let old = old["metadata"].get("managedFields");
    let (Some(Value::Array(olds)), Some(Value::Array(news))) = (old, owners) else {
        return entries(old) == entries(owners);
    };
    let fields = |entry: &Value| {
        let map = entry.as_object();
        map.map_or(0, |map| map.len() - usize::from(map.contains_key("time")))
    };
    olds.len() == news.len()
        && olds.iter().zip(news).all(|(old, new)| {
            fields(old) == fields(new)
                && old
                    .as_object()
                    .into_iter()
                    .flatten()
                    .all(|(name, value)| name == "time" || new.get(name) == Some(value))
        })
}

/// Whether both say the same but for version and owners.
pub(super) fn alike(old: &Value, new: &Value) -> bool {
    let own = |metadata: &Value| {
        let names = ["resourceVersion", "managedFields"];
        let fields = metadata.as_object().map_or(0, Map::len);
        fields
            - names
                .iter()
                .filter(|name| metadata.get(**name).is_some())
                .count()
    };
    own(old) == own(new)
        && old.as_object().into_iter().flatten().all(|(name, value)| {
            matches!(name.as_str(), "resourceVersion" | "managedFields")
                || new.get(name) == Some(value)
        })
}

fn uid_mismatch(asked: &str, stored: &str) -> String {
    format!(
        "StorageError: invalid object, Code: 4, Precondition failed: UID in precondition: {asked}, \
         UID in object meta: {stored}"
    )
}

pub(super) fn check_preconditions(
    resource: &Resource,
    old: &Value,
    options: &DeleteOptions,
) -> Result<(), ApiError> {
    let text = |key: &str| old["metadata"][key].as_str().unwrap_or_default();
    let refuse = |what: &str, asked: &str, stored: &str| {
        Err(ApiError::conflict_of_kind(
            resource,
            text("name"),
            &format!(
                "the {what} in the precondition ({asked}) does not match the {what} in record ({stored}). The object might have been deleted and then recreated"
            ),
        ))
    };
    match (&options.uid, text("uid")) {
        (Some(asked), stored) if asked != stored => return refuse("UID", asked, stored),
        _ => {}
    }
    match (&options.resource_version, text("resourceVersion")) {
        (Some(asked), stored) if asked != stored => Err(ApiError::conflict_of_kind(
            resource,
            text("name"),
            &format!(
                "the ResourceVersion in the precondition ({asked}) does not match the ResourceVersion in record ({stored}). The object might have been modified"
            ),
        )),
        _ => Ok(()),
    }
}

/// Leaves to an object what its clients wrote into its metadata, whatever `next` says.
pub(super) fn keep(old: &Value, next: &mut Value) {
    let Some(metadata) = next["metadata"].as_object_mut() else {
        return;
    };
    for name in ["labels", "annotations", "finalizers", "ownerReferences"] {
        match &old["metadata"][name] {
            Value::Null => metadata.shift_remove(name),
            kept => metadata.insert(name.to_owned(), kept.clone()),
        };
    }
}

pub(super) fn validate(resource: &Resource, object: &Value, errors: &mut Errors) {
    let metadata = &object["metadata"];
    let text = |key: &str| metadata[key].as_str().unwrap_or_default();
    let (name, prefix) = (text("name"), text("generateName"));
    if !prefix.is_empty() {
        let wrong = resource.name_rule.check(prefix, true);
        errors.each("metadata.generateName", prefix, wrong);
    }
    if name.is_empty() {
        errors.required("metadata.name", "name or generateName is required");
    } else {
        errors.each("metadata.name", name, resource.name_rule.check(name, false));
    }
    let namespace = text("namespace");
    match (resource.namespaced, namespace.is_empty()) {
        (true, true) => errors.required("metadata.namespace", ""),
        (true, false) => {
            errors.each(
                "metadata.namespace",
                namespace,
                validation::dns_label(namespace),
            );
        }
        (false, false) => errors.forbidden("metadata.namespace", "not allowed on this type"),
        (false, true) => {}
    }
    validation::labels(errors, "metadata.labels", metadata.get("labels"));
    validation::annotations(errors, "metadata.annotations", metadata.get("annotations"));
    for (at, finalizer) in metadata["finalizers"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let path = format!("metadata.finalizers[{at}]");
        let finalizer = finalizer.as_str().unwrap_or_default();
        let wrong = validation::qualified_name(finalizer);
        let standard = ["orphan", "foregroundDeletion", "kubernetes"].contains(&finalizer);
        // Definitions, and what they define, may have any.
        let any = resource.defined.is_some() || !resource.rules.cleanup_finalizer.is_empty();
        if wrong.is_empty() && !finalizer.contains('/') && !standard && !any {
            errors.invalid_text(
                &path,
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            );
        }
        errors.each("metadata.finalizers", finalizer, wrong);
    }
    let both = ["orphan", "foregroundDeletion"];
    let list = metadata["finalizers"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    if both.iter().all(|name| list.iter().any(|own| own == name)) {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.invalid("metadata.finalizers", &json!(list), detail);
    }
    validate_owners(metadata, errors);
}

fn validate_owners(metadata: &Value, errors: &mut Errors) {
    let owners = metadata["ownerReferences"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let mut controller: Option<String> = None;
    for (at, owner) in owners.iter().enumerate() {
        let path = format!("metadata.ownerReferences[{at}]");
        let text = |key: &str| owner[key].as_str().unwrap_or_default();
        let version = text("apiVersion");
        let bad_version = version.matches('/').count() > 1 || version.ends_with('/');
        if !version.is_empty() && bad_version {
            let detail = "must be <group>/<version> or <version>";
            errors.invalid_text(&format!("{path}.apiVersion"), version, detail);
        }
        for key in ["apiVersion", "kind", "name", "uid"] {
            if text(key).is_empty() {
                errors.required(&format!("{path}.{key}"), "must not be empty");
            }
        }
        if version == "v1" && text("kind") == "Event" {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            errors.invalid(&path, owner, detail);
        }
        if owner["controller"] == true {
            let own = format!("{}/{}", text("kind"), text("name"));
            if let Some(first) = &controller {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in \
                     references for {first} and {own}"
                );
                errors.invalid("metadata.ownerReferences", &json!(owners), &detail);
            } else {
                controller = Some(own);
            }
        }
    }
}

pub(super) fn validate_update(old: &Value, new: &Value, errors: &mut Errors) {
    if old["metadata"]["deletionTimestamp"].is_null() {
        return;
    }
    let list = |value: &Value| -> Vec<String> {
        let items = value["metadata"]["finalizers"]
            .as_array()
            .into_iter()
            .flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let before = list(old);
    let added: Vec<String> = list(new)
        .into_iter()
        .filter(|f| !before.contains(f))
        .collect();
    if !added.is_empty() {
        let quoted: Vec<String> = added.iter().map(|name| format!("{name:?}")).collect();
        errors.forbidden(
            "metadata.finalizers",
            &format!(
                "no new finalizers can be added if the object is being deleted, found new \
                 finalizers []string{{{}}}",
                quoted.join(", ")
            ),
        );
    }
}
