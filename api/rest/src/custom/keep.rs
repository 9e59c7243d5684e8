//! What the leader does for definitions: it accepts their names where nobody has them,
//! establishes them, and when one is deleted removes its objects before it.
//!
//! Invariants
//! - Of two definitions that want one name, the one that has it keeps it; else the older.
//! - Every write is fenced by the term.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nautilus_extension::definition::{CLEANUP_FINALIZER, Names};
use nautilus_machine::WatchRequest;
use nautilus_machine::types::KeyRange;
use nautilus_machinery::resource::{self, Resource};
use nautilus_machinery::strategy::DeleteOptions;
use serde_json::{Value, json};

use super::definitions::{definitions, holds};
use crate::failure::Failure;
use crate::ids;
use crate::storage::{Storage, Target, Writer, metadata_text, versioned_object};
use crate::webhook::WebhookClients;

/// Pause after a failure.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// A pass while objects of a definition are going.
const BUSY_PAUSE: Duration = Duration::from_millis(200);
/// A pass when nothing was seen to change.
const IDLE_PAUSE: Duration = Duration::from_secs(30);

/// One term's work. Ends only by being dropped.
pub(crate) async fn keep(storage: &Storage, clients: &Arc<WebhookClients>, writer: Writer<'_>) {
    let Some(resource) = definitions() else {
        return std::future::pending().await;
    };
    loop {
        if let Err(failure) = keep_once(storage, resource, clients, writer).await {
            tracing::warn!(error = %failure.error, "definitions are looked at anew");
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn keep_once(
    storage: &Storage,
    resource: &Resource,
    clients: &Arc<WebhookClients>,
    writer: Writer<'_>,
) -> Result<(), Failure> {
    storage.barrier().await?;
    let range = KeyRange::prefix(resource.storage_prefix());
    let mut watcher = storage.kv.watch(WatchRequest {
        range: range.clone(),
        from: Some(storage.kv.revision() + 1),
        previous: false,
    })?;
    loop {
        let (rows, _) = storage.rows(range.clone()).await?;
        let mut all = Vec::with_capacity(rows.len());
        for row in &rows {
            all.push(versioned_object(resource, row)?);
        }
        let mut pause = IDLE_PAUSE;
        // The older first: who was there keeps its names.
        all.sort_by_key(|object| {
            let metadata = |key: &str| metadata_text(object, key).to_owned();
            (metadata("creationTimestamp"), metadata("name"))
        });
        for at in 0..all.len() {
            if !all[at]["metadata"]["deletionTimestamp"].is_null() {
                match finalize(storage, resource, clients, &all[at], writer).await {
                    Ok(true) => {}
                    Ok(false) => pause = BUSY_PAUSE,
                    // The others are looked after all the same.
                    Err(failure) => {
                        tracing::warn!(error = %failure.error, "a definition cannot go yet");
                        pause = RETRY_PAUSE;
                    }
                }
                continue;
            }
            let Some(wanted) = judged(&all, at) else {
                continue;
            };
            let status = wanted["status"].clone();
            write_status(storage, resource, &wanted, &status, writer).await?;
            all[at] = wanted;
        }
        tokio::select! {
            events = watcher.next() => drop(events?),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn write_status(
    storage: &Storage,
    resource: &Resource,
    object: &Value,
    status: &Value,
    writer: Writer<'_>,
) -> Result<(), Failure> {
    let target = Target {
        resource,
        namespace: None,
        name: metadata_text(object, "name"),
        subresource: Some("status"),
    };
    let make = |current: &Value| {
        let mut wanted = current.clone();
        wanted["status"] = status.clone();
        Ok(wanted)
    };
    match storage.update(&target, &writer, make).await {
        Err(failure) if failure.error.code() != 404 => Err(failure),
        _ => Ok(()),
    }
}

/// The definition with the conditions that it should have; none if it has them.
fn judged(all: &[Value], at: usize) -> Option<Value> {
    let object = &all[at];
    let names = Names::parse(&object["spec"]["names"]);
    let taken = taken_by_others(all, at);
    let mut accepted = Names::parse(&object["status"]["acceptedNames"]);
    let mut conflict: Option<(&str, String)> = None;
    let mut claim = |reason: &'static str, wanted: &str, own: &mut String| {
        if wanted == own || wanted.is_empty() && own.is_empty() {
            return;
        }
        if taken.contains_key(wanted) {
            conflict.get_or_insert((reason, format!("\"{wanted}\" is already in use")));
        } else {
            wanted.clone_into(own);
        }
    };
    claim("PluralConflict", &names.plural, &mut accepted.plural);
    claim("SingularConflict", &names.singular, &mut accepted.singular);
    let short: Vec<&String> = names
        .short_names
        .iter()
        .filter(|s| taken.contains_key(*s))
        .collect();
    if short.is_empty() {
        accepted.short_names.clone_from(&names.short_names);
    }
    let short = short
        .first()
        .map(|name| format!("\"{name}\" is already in use"));
    let kind = format!("kind {}", names.kind);
    let list = format!("kind {}", names.list_kind);
    let mut kinds = None;
    for (reason, key, wanted, own) in [
        ("KindConflict", &kind, &names.kind, &mut accepted.kind),
        (
            "ListKindConflict",
            &list,
            &names.list_kind,
            &mut accepted.list_kind,
        ),
    ] {
        if wanted == own {
            continue;
        }
        if taken.contains_key(key) {
            kinds.get_or_insert((reason, format!("\"{wanted}\" is already in use")));
        } else {
            own.clone_from(wanted);
        }
    }
    accepted.categories.clone_from(&names.categories);
    let conflict = conflict
        .or(short.map(|text| ("ShortNamesConflict", text)))
        .or(kinds);
    let mut wanted = object.clone();
    wanted["status"]["acceptedNames"] = accepted.to_json();
    match &conflict {
        None => {
            set(
                &mut wanted,
                "NamesAccepted",
                "True",
                "NoConflicts",
                "no conflicts found",
            );
        }
        Some((reason, message)) => {
            set(&mut wanted, "NamesAccepted", "False", reason, message);
        }
    }
    if conflict.is_none() {
        set(
            &mut wanted,
            "Established",
            "True",
            "InitialNamesAccepted",
            "the initial names have been accepted",
        );
    } else if !holds(object, "Established") {
        set(
            &mut wanted,
            "Established",
            "False",
            "NotAccepted",
            "not all names are accepted",
        );
    }
    if wanted["status"]["storedVersions"].is_null() {
        nautilus_extension::definition::note_storage_version(&mut wanted);
    }
    (wanted["status"] != object["status"]).then_some(wanted)
}

/// Sets a condition; its time changes only with its status.
fn set(object: &mut Value, kind: &str, status: &str, reason: &str, message: &str) {
    let conditions = &mut object["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(all) = conditions.as_array_mut() else {
        return;
    };
    let present = all.iter_mut().find(|own| own["type"] == kind);
    match present {
        Some(own) if own["status"] == status => {
            // The reason of what is established stays the first one.
            if kind != "Established" {
                own["reason"] = json!(reason);
                own["message"] = json!(message);
            }
        }
        Some(own) => {
            own["status"] = json!(status);
            own["reason"] = json!(reason);
            own["message"] = json!(message);
            own["lastTransitionTime"] = json!(ids::now_rfc3339());
        }
        None => all.push(json!({
            "type": kind,
            "status": status,
            "lastTransitionTime": ids::now_rfc3339(),
            "reason": reason,
            "message": message,
        })),
    }
}

/// Names of the same group that others have: accepted ones, and those of built-in kinds.
fn taken_by_others(all: &[Value], at: usize) -> BTreeMap<String, ()> {
    let object = &all[at];
    let group = object["spec"]["group"].as_str().unwrap_or_default();
    let mut taken = BTreeMap::new();
    let mut take = |names: &Names| {
        for name in [&names.plural, &names.singular]
            .into_iter()
            .chain(&names.short_names)
        {
            if !name.is_empty() {
                taken.insert(name.clone(), ());
            }
        }
        for kind in [&names.kind, &names.list_kind] {
            if !kind.is_empty() {
                taken.insert(format!("kind {kind}"), ());
            }
        }
    };
    for (index, other) in all.iter().enumerate() {
        if index != at && other["spec"]["group"] == group {
            take(&Names::parse(&other["status"]["acceptedNames"]));
        }
    }
    for built_in in resource::all().iter().filter(|own| own.group == group) {
        take(&Names {
            plural: built_in.plural.clone(),
            singular: built_in.singular.clone(),
            kind: built_in.kind.clone(),
            list_kind: built_in.list_kind(),
            short_names: built_in.short_names.clone(),
            categories: Vec::new(),
        });
    }
    taken
}

/// Removes the objects of a definition that is going, and then what holds it. False while
/// objects are left.
async fn finalize(
    storage: &Storage,
    resource: &Resource,
    clients: &Arc<WebhookClients>,
    object: &Value,
    writer: Writer<'_>,
) -> Result<bool, Failure> {
    let held = object["metadata"]["finalizers"]
        .as_array()
        .is_some_and(|all| all.iter().any(|own| own == CLEANUP_FINALIZER));
    if !held {
        return Ok(true);
    }
    if !holds(object, "Terminating") {
        let mut wanted = object.clone();
        set(
            &mut wanted,
            "Terminating",
            "True",
            "InstanceDeletionInProgress",
            "CustomResource deletion is in progress",
        );
        let status = wanted["status"].clone();
        write_status(storage, resource, object, &status, writer).await?;
    }
    // A definition whose name was never accepted has no objects of its own.
    let established = holds(object, "Established");
    if established && !remove_objects(storage, clients, object, writer).await? {
        return Ok(false);
    }
    let target = Target {
        resource,
        namespace: None,
        name: metadata_text(object, "name"),
        subresource: None,
    };
    let make = |current: &Value| {
        let mut wanted = current.clone();
        if let Some(all) = wanted["metadata"]["finalizers"].as_array_mut() {
            all.retain(|own| own != CLEANUP_FINALIZER);
        }
        Ok(wanted)
    };
    match storage.update(&target, &writer, make).await {
        Err(failure) if failure.error.code() != 404 => Err(failure),
        _ => Ok(true),
    }
}

/// The kind of a definition as its objects are stored by what stands in the store now, which
/// this node's registry may not have heard of yet; `None`: nobody defines it.
pub(crate) async fn stored_kind(
    storage: &Storage,
    clients: &Arc<WebhookClients>,
    group: &str,
    plural: &str,
) -> Result<Option<Resource>, Failure> {
    let Some(definitions) = definitions() else {
        return Ok(None);
    };
    storage.barrier().await?;
    let row = storage.read(
        definitions,
        &definitions.key(None, &format!("{plural}.{group}")),
    )?;
    Ok(row.and_then(|row| kind_of(&row.object, clients)))
}

fn kind_of(object: &Value, clients: &Arc<WebhookClients>) -> Option<Resource> {
    let definition = nautilus_extension::definition::Definition::parse(object).ok()?;
    let names = Names::parse(&object["status"]["acceptedNames"]);
    super::kind::stored(&Arc::new(definition), &names, clients)
}

/// Deletes every object of a definition; true when none is left.
async fn remove_objects(
    storage: &Storage,
    clients: &Arc<WebhookClients>,
    object: &Value,
    writer: Writer<'_>,
) -> Result<bool, Failure> {
    let kind = kind_of(object, clients);
    let Some(kind) = &kind else {
        return Ok(true);
    };
    let (rows, _) = storage
        .rows_of(kind, KeyRange::prefix(kind.storage_prefix()))
        .await?;
    for row in &rows {
        let own = versioned_object(kind, row)?;
        if !own["metadata"]["deletionTimestamp"].is_null() {
            continue;
        }
        let target = Target {
            resource: kind,
            namespace: Some(metadata_text(&own, "namespace")).filter(|text| !text.is_empty()),
            name: metadata_text(&own, "name"),
            subresource: None,
        };
        match storage
            .delete(&target, &DeleteOptions::default(), &writer)
            .await
        {
            Err(failure) if failure.error.code() != 404 => return Err(failure),
            _ => {}
        }
    }
    let (rows, _) = storage
        .rows(KeyRange::prefix(kind.storage_prefix()))
        .await?;
    Ok(rows.is_empty())
}
