//! What happens to an object before it is stored: metadata, defaults, the split
//! between spec and status, validation, immutability, graceful deletion.
//!
//! Pure: time, uid and random letters come in the [`Context`]. The revision is
//! none of its business: `metadata.resourceVersion` is left as the caller set
//! it, as are `metadata.managedFields`.
//!
//! Invariants: what a function returns conforms to its type; an update never
//! changes uid, creation time, name or namespace.

mod admission_policies;
pub mod autoscaler_v1;
mod autoscaling;
mod batch;
mod certificates;
mod claim;
mod cron;
mod defaults;
mod defined;
mod devices;
mod difference;
mod flow;
mod hooks;
mod internal;
mod job_policies;
mod job_status;
pub mod metadata;
mod networking;
mod node;
pub mod pod;
mod policy;
mod propagation;
mod quota;
mod resources;
pub mod rules;
pub mod schedule;
mod service;
mod service_change;
mod signers;
mod small;
mod stateful;
mod storage;
mod volumes;
pub mod warnings;
mod workloads;

use serde_json::{Value, json};

use self::warnings::Warnings;
use crate::fields;
use crate::resource::Resource;
use crate::status::{ApiError, Cause};
use crate::timestamp;
use crate::validation::{At, Errors};

/// What a rule may know of the request.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// RFC 3339 to the second, UTC.
    pub now: &'a str,
    /// A fresh uid, used by creations.
    pub uid: &'a str,
    /// Five letters or digits for `generateName`.
    pub name_suffix: &'a str,
    /// The request's namespace.
    pub namespace: Option<&'a str>,
    /// Who asks.
    pub user: &'a str,
    /// The request's `fieldManager`.
    pub field_manager: &'a str,
}

/// What an update comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing differs: there is nothing to write.
    Unchanged,
    /// Write the new object.
    Write,
    /// The object was being deleted and nothing holds it any more: remove it.
    Remove,
}

/// What a deletion comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Deletion {
    /// Remove the object now.
    Remove,
    /// Write this object: marked, and held by its grace period or finalizers.
    Mark(Value),
    /// It is marked already, and the request changes nothing.
    AlreadyMarked,
}

/// The options of a deletion that matter here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds of grace asked for.
    pub grace_period_seconds: Option<i64>,
    /// The uid the object must have.
    pub uid: Option<String>,
    /// The resourceVersion the object must have.
    pub resource_version: Option<String>,
    /// `Background`, `Foreground` or `Orphan`.
    pub propagation_policy: Option<String>,
    /// Whether nothing may be written.
    pub dry_run: bool,
}

impl DeleteOptions {
    /// Reads a conforming `DeleteOptions` object (null: no options).
    pub fn from_value(value: &Value) -> Result<Self, ApiError> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let options = Self {
            grace_period_seconds: value["gracePeriodSeconds"].as_i64(),
            uid: text(&value["preconditions"]["uid"]),
            resource_version: text(&value["preconditions"]["resourceVersion"]),
            propagation_policy: text(&value["propagationPolicy"]).or_else(|| {
                let orphan = value["orphanDependents"].as_bool()?;
                Some(if orphan { "Orphan" } else { "Background" }.to_owned())
            }),
            dry_run: value["dryRun"]
                .as_array()
                .is_some_and(|list| !list.is_empty()),
        };
        options.check(value)?;
        Ok(options)
    }

    fn check(&self, value: &Value) -> Result<(), ApiError> {
        let mut errors = Errors::new();
        if let Some(policy) = value["propagationPolicy"].as_str() {
            let known = ["Foreground", "Background", "Orphan", "nil"];
            if policy == "nil" || !known.contains(&policy) {
                errors.not_supported("propagationPolicy", policy, &known);
            }
            if !value["orphanDependents"].is_null() {
                errors.invalid_text(
                    "propagationPolicy",
                    policy,
                    "orphanDependents and deletionPropagation cannot be both set",
                );
            }
        }
        for item in value["dryRun"].as_array().into_iter().flatten() {
            if item != "All" {
                errors.not_supported("dryRun", item.as_str().unwrap_or_default(), &["All"]);
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid_options(
            "DeleteOptions",
            errors.into_causes(),
        ))
    }
}

/// Fills in the defaults of an object as it came in, before anything is prepared or
/// checked: what mutating admission sees. Idempotent.
///
/// [`default_in_place`] is the same without the last normalization.
pub fn default_decoded(resource: &Resource, object: &mut Value) -> Result<(), ApiError> {
    if let Some(defined) = &resource.defined {
        *object = defined::conform(defined.as_ref(), resource, object.take())?;
        return Ok(());
    }
    let mut new = fields::conform_owned(&resource.schema, object.take())?;
    fields::apply_defaults(&resource.schema, &mut new);
    (resource.rules.default)(&mut new);
    *object = fields::conform_owned(&resource.schema, new)?;
    Ok(())
}

/// Fills in the defaults of a conforming object: what its fields' owners are told by.
pub fn default_in_place(resource: &Resource, object: &mut Value) {
    if resource.defined.is_some() {
        // Defaults came with decoding.
        return;
    }
    fields::apply_defaults(&resource.schema, object);
    (resource.rules.default)(object);
}

/// Makes an object of a request's body ready to be stored for the first time.
pub fn before_create(
    resource: &Resource,
    object: &mut Value,
    context: &Context<'_>,
) -> Result<(), ApiError> {
    if let Some(defined) = &resource.defined {
        return defined::before_create(defined.as_ref(), resource, object, context);
    }
    let rules = resource.rules;
    let owners = metadata::take_owners(object);
    let mut new = fields::conform_owned(&resource.schema, object.take())?;
    fields::apply_defaults(&resource.schema, &mut new);
    (rules.default)(&mut new);
    metadata::prepare_create(resource, &mut new, context)?;
    (rules.prepare_create)(&mut new, context);
    (rules.stamp)(&Value::Null, &mut new, context.now);
    let new = fields::conform_owned(&resource.schema, new)?;
    let mut errors = Errors::new();
    metadata::validate(resource, &new, &mut errors);
    let at = At::root(&new);
    (rules.validate)(&at, &mut errors);
    (rules.validate_create)(&at, &mut errors);
    refuse_invalid(resource, &new, errors)?;
    *object = new;
    metadata::put_owners(object, owners);
    Ok(())
}

/// Makes an object of a request's body ready to replace `old`, through the
/// object itself or one of its subresources.
pub fn before_update(
    resource: &Resource,
    subresource: Option<&str>,
    old: &Value,
    new: &mut Value,
    context: &Context<'_>,
) -> Result<Change, ApiError> {
    // A scale is a way to write the object itself.
    let subresource = subresource.filter(|name| *name != "scale");
    if let Some(defined) = &resource.defined {
        return defined::before_update(defined.as_ref(), resource, subresource, old, new, context);
    }
    let rules = resource.rules;
    let owners = metadata::take_owners(new);
    let mut next = fields::conform_owned(&resource.schema, new.take())?;
    fields::apply_defaults(&resource.schema, &mut next);
    (rules.default)(&mut next);
    metadata::prepare_update(resource, old, &mut next, context)?;
    split(resource, subresource, old, &mut next);
    (rules.prepare_update)(subresource, old, &mut next);
    (rules.stamp)(old, &mut next, context.now);
    let mut next = fields::conform_owned(&resource.schema, next)?;
    // To be given a node is no change of what was asked for.
    let counts = rules.counts_generation && subresource != Some("binding");
    if counts && changes_generation(rules.generation_of, old, &next) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
        next["metadata"]["generation"] = json!(generation + 1);
        next = fields::conform_owned(&resource.schema, next)?;
    }
    let mut errors = Errors::new();
    metadata::validate(resource, &next, &mut errors);
    metadata::validate_update(old, &next, &mut errors);
    let (before, after) = (At::root(old), At::root(&next));
    match subresource {
        None => {
            (rules.validate)(&after, &mut errors);
            (rules.validate_update)(&before, &after, &mut errors);
        }
        Some(name) => (rules.validate_subresource)(name, &before, &after, &mut errors),
    }
    refuse_invalid(resource, &next, errors)?;
    *new = next;
    let unchanged = metadata::same_owners(old, owners.as_ref()) && same(resource, old, new);
    metadata::put_owners(new, owners);
    Ok(match is_released(new) {
        true => Change::Remove,
        false if unchanged => Change::Unchanged,
        false => Change::Write,
    })
}

fn changes_generation(of: &[&str], old: &Value, new: &Value) -> bool {
    of.iter().any(|path| old.pointer(path) != new.pointer(path))
}

/// What every client of a kind is told that will not be served for ever.
pub fn deprecation(resource: &Resource) -> Option<&str> {
    match (
        &resource.defined,
        resource.group.as_str(),
        resource.plural.as_str(),
    ) {
        (Some(defined), _, _) => defined.deprecation(),
        (None, "", "componentstatuses") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        (None, "", "endpoints") => Some(policy::ENDPOINTS_DEPRECATION),
        _ => None,
    }
}

/// What a client is told about an object that is accepted, as it is to be; `old`: as it
/// was, null if it is new.
pub fn warnings(resource: &Resource, old: &Value, new: &Value) -> Vec<String> {
    if let Some(defined) = &resource.defined {
        let mut warnings: Vec<String> = defined
            .deprecation()
            .into_iter()
            .map(str::to_owned)
            .collect();
        let before = Some(old).filter(|old| !old.is_null());
        warnings.extend(defined.check(None, before, new).1);
        return warnings;
    }
    let mut warnings = Warnings::new();
    (resource.rules.warn)(old, &At::root(new), &mut warnings);
    warnings.into_texts()
}

/// Refuses an object for what is wrong with it, each once; nothing wrong passes.
pub fn refuse_invalid(resource: &Resource, object: &Value, errors: Errors) -> Result<(), ApiError> {
    if errors.is_empty() {
        return Ok(());
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    Err(ApiError::invalid(
        resource,
        name,
        errors.into_distinct_causes(),
    ))
}

/// Built-in kinds whose status is written without the object's metadata.
const STATUS_KEEPS_METADATA: &[&str] = &[
    "apiservices.apiregistration.k8s.io",
    "csinodes.storage.k8s.io",
    "evictionrequests.lifecycle.k8s.io",
    "flowschemas.flowcontrol.apiserver.k8s.io",
    "podcertificaterequests.certificates.k8s.io",
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
    "devicetaintrules.resource.k8s.io",
    "resourceclaims.resource.k8s.io",
    "servicecidrs.networking.k8s.io",
    "storageversionmigrations.storagemigration.k8s.io",
    "storageversions.internal.apiserver.k8s.io",
    "validatingadmissionpolicies.admissionregistration.k8s.io",
    "volumeattachments.storage.k8s.io",
];

/// Whether a write of the status leaves the object's metadata as it is.
pub fn status_keeps_metadata(resource: &Resource) -> bool {
    resource.defined.is_some() || STATUS_KEEPS_METADATA.contains(&resource.qualified().as_str())
}

/// Spec and status each have their own way in.
fn split(resource: &Resource, subresource: Option<&str>, old: &Value, next: &mut Value) {
    let Some(map) = next.as_object_mut() else {
        return;
    };
    match subresource {
        None if resource.rules.has_status => {
            map.insert("status".to_owned(), old["status"].clone());
        }
        Some("status") => {
            for (name, value) in old.as_object().into_iter().flatten() {
                if !matches!(name.as_str(), "metadata" | "status") {
                    map.insert(name.clone(), value.clone());
                }
            }
            if status_keeps_metadata(resource) {
                metadata::keep(old, next);
            }
        }
        _ => {}
    }
}

/// Whether both would be stored as the same object, their owners apart. `new` conforms;
/// `old` did when it was stored: a field that differs is compared again as it would be
/// written now.
fn same(resource: &Resource, old: &Value, new: &Value) -> bool {
    let (Some(olds), Some(news)) = (old.as_object(), new.as_object()) else {
        return old == new;
    };
    let alike = |name: &str, old: &Value, new: &Value| match name {
        "metadata" => metadata::alike(old, new),
        _ => old == new,
    };
    let again = |name: &str, old: Option<&Value>, new: &Value| {
        let written = fields::conform_field(&resource.schema, name, old.cloned());
        written.is_some_and(|old| alike(name, &old, new))
    };
    news.iter().all(|(name, new)| {
        let old = olds.get(name);
        old.is_some_and(|old| alike(name, old, new)) || again(name, old, new)
    }) && olds.iter().all(|(name, old)| {
        let gone = !news.contains_key(name);
        !gone || fields::conform_field(&resource.schema, name, Some(old.clone())).is_none()
    })
}

fn is_empty_list(value: &Value) -> bool {
    value.as_array().is_none_or(Vec::is_empty)
}

/// Marked for deletion, and neither grace nor finalizers hold it.
fn is_released(object: &Value) -> bool {
    let metadata = &object["metadata"];
    !metadata["deletionTimestamp"].is_null()
        && is_empty_list(&metadata["finalizers"])
        && is_empty_list(&object["spec"]["finalizers"])
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
}

/// Decides what a deletion does.
pub fn before_delete(
    resource: &Resource,
    old: &Value,
    options: &DeleteOptions,
    context: &Context<'_>,
) -> Result<Deletion, ApiError> {
    metadata::check_preconditions(resource, old, options)?;
    (resource.rules.may_delete)(resource, old)?;
    let next = propagation::with_finalizers(resource, old, options);
    let metadata = &next["metadata"];
    let held =
        !is_empty_list(&metadata["finalizers"]) || !is_empty_list(&old["spec"]["finalizers"]);
    let grace = (resource.rules.grace_seconds)(old, options.grace_period_seconds);
    if !metadata["deletionTimestamp"].is_null() {
        return Ok(delete_again(resource, old, &next, grace, held, options));
    }
    let seconds = grace.unwrap_or(0);
    if seconds == 0 && !held {
        return Ok(Deletion::Remove);
    }
    Ok(Deletion::Mark(mark(resource, &next, seconds, context)?))
}

/// An object that is removed, as the one who removes it is shown it: a kind that knows
/// grace is marked before it goes.
pub fn removed(resource: &Resource, old: Value, context: &Context<'_>) -> Result<Value, ApiError> {
    let graceful = (resource.rules.grace_seconds)(&old, Some(0)).is_some();
    match graceful && old["metadata"]["deletionTimestamp"].is_null() {
        true => mark(resource, &old, 0, context),
        false => Ok(old),
    }
}

/// Marks an object for its deletion, `seconds` from now.
fn mark(
    resource: &Resource,
    object: &Value,
    seconds: i64,
    context: &Context<'_>,
) -> Result<Value, ApiError> {
    let mut marked = object.clone();
    marked["metadata"]["deletionTimestamp"] = json!(later(context.now, seconds));
    if resource.rules.marks_grace {
        marked["metadata"]["deletionGracePeriodSeconds"] = json!(seconds);
    }
    if resource.rules.counts_generation
        && let Some(generation) = object["metadata"]["generation"].as_i64().filter(|g| *g > 0)
    {
        marked["metadata"]["generation"] = json!(generation + 1);
    }
    (resource.rules.mark_deleted)(&mut marked);
    match &resource.defined {
        Some(_) => Ok(marked),
        None => fields::conform_owned(&resource.schema, marked),
    }
}

/// A second deletion may shorten the grace, may change what becomes of dependents (in
/// `next`) while no grace runs, and removes what nothing holds.
fn delete_again(
    resource: &Resource,
    old: &Value,
    next: &Value,
    grace: Option<i64>,
    held: bool,
    options: &DeleteOptions,
) -> Deletion {
    let metadata = &old["metadata"];
    let present = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    let asked = match (grace, options.grace_period_seconds) {
        (Some(0), _) => 0,
        (Some(grace), Some(_)) => grace.min(present),
        _ => present,
    };
    if asked == 0 && !held {
        return Deletion::Remove;
    }
    if asked >= present {
        return match present == 0 && old != next {
            true => Deletion::Mark(next.clone()),
            false => Deletion::AlreadyMarked,
        };
    }
    let mut marked = old.clone();
    let deadline = metadata["deletionTimestamp"].as_str().unwrap_or_default();
    marked["metadata"]["deletionTimestamp"] = json!(later(deadline, asked - present));
    marked["metadata"]["deletionGracePeriodSeconds"] = json!(asked);
    match fields::conform_owned(&resource.schema, marked) {
        Ok(marked) => Deletion::Mark(marked),
        Err(_) => Deletion::AlreadyMarked,
    }
}

/// `now` and some seconds, in the same form.
fn later(now: &str, seconds: i64) -> String {
    timestamp::parse(now)
        .and_then(|instant| timestamp::format_seconds(instant.seconds.saturating_add(seconds)))
        .unwrap_or_else(|| now.to_owned())
}

/// Binds a pod to the node that a `Binding` names.
pub fn bind(pod: &Value, binding: &Value, context: &Context<'_>) -> Result<Value, ApiError> {
    pod::bind(pod, binding, context)
}

/// Whether objects may be created in a namespace: it must exist and not be
/// going away. `namespace` is the stored object, if there is one.
pub fn admit_to_namespace(
    resource: &Resource,
    object_name: &str,
    namespace_name: &str,
    namespace: Option<&Value>,
) -> Result<(), ApiError> {
    let Some(namespace) = namespace else {
        return match crate::resource::find("", "v1", "namespaces") {
            Some(namespaces) => Err(ApiError::not_found(namespaces, namespace_name)),
            None => Err(ApiError::path_not_found()),
        };
    };
    if namespace["metadata"]["deletionTimestamp"].is_null() {
        return Ok(());
    }
    Err(ApiError::forbidden_because(
        resource,
        object_name,
        &format!(
            "unable to create new content in namespace {namespace_name} because it is being \
             terminated"
        ),
    )
    .with_given_cause(Cause {
        field: "metadata.namespace".to_owned(),
        reason: "NamespaceTerminating".to_owned(),
        message: format!("namespace {namespace_name} is being terminated"),
    }))
}

#[cfg(test)]
#[path = "strategy/tests.rs"]
mod tests;
