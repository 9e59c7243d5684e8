//! Objects that every cluster has: system priority classes, flow schemas, priority
//! levels.
//!
//! Mandatory objects always are what the server goes by; suggested ones follow the server's
//! defaults while their annotation says so or nobody changed them. What the annotation calls
//! a default and is none any more goes.

use std::time::Duration;

use nautilus_admission::fairness::defaults;
use nautilus_admission::priority;
use nautilus_machine::types::KeyRange;
use nautilus_machinery::identity::User;
use nautilus_machinery::strategy::DeleteOptions;
use nautilus_machinery::{fields, resource};
use serde_json::{Value, json};

use super::RETRY_PAUSE;
use crate::account::Account;
use crate::failure::{Failure, unless_lost};
use crate::storage::{Storage, Target, Writer, metadata_text, versioned_object};

/// Between two looks at what requests are served by.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Who owns the fields of these objects.
const FIELD_MANAGER: &str = "api-priority-and-fairness-config-producer-v1";

static USER: Account = Account::new(|| User::internal("system:apiserver"));

/// How far the server's defaults go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ensure {
    /// What is there is made what it must be.
    Mandatory,
    /// What is there follows as long as it is said or known to.
    Suggested,
    /// What is there stays.
    Once,
}

/// Makes what is missing until it is there, then looks again at what requests are served by.
pub(super) async fn keep(storage: &Storage) {
    let fairness = async {
        loop {
            retry(|| ensure_fairness(storage)).await;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::join!(retry(|| ensure_classes(storage)), fairness);
}

/// Until it works.
async fn retry<F: Future<Output = Result<(), Failure>>>(ensure: impl Fn() -> F) {
    while let Err(failure) = ensure().await {
        tracing::warn!(error = %failure.error, "bootstrap objects are not there yet");
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn ensure_classes(storage: &Storage) -> Result<(), Failure> {
    storage.barrier().await?;
    for (name, value, description) in priority::SYSTEM_CLASSES {
        let object = json!({
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": value,
            "preemptionPolicy": "PreemptLowerPriority",
            "description": description,
        });
        ensure(storage, "priorityclasses", name, &object, Ensure::Once).await?;
    }
    Ok(())
}

async fn ensure_fairness(storage: &Storage) -> Result<(), Failure> {
    storage.barrier().await?;
    for (plural, mandatory, suggested) in [
        (
            "prioritylevelconfigurations",
            defaults::mandatory_levels(),
            defaults::suggested_levels(),
        ),
        (
            "flowschemas",
            defaults::mandatory_schemas(),
            defaults::suggested_schemas(),
        ),
    ] {
        for (name, object) in &mandatory {
            ensure(storage, plural, name, object, Ensure::Mandatory).await?;
        }
        for (name, object) in &suggested {
            ensure(storage, plural, name, object, Ensure::Suggested).await?;
        }
        let is_wanted = |name: &str| mandatory.iter().chain(&suggested).any(|own| own.0 == name);
        remove_others(storage, plural, is_wanted).await?;
    }
    Ok(())
}

/// Removes what once was a default: it says so itself.
async fn remove_others(
    storage: &Storage,
    plural: &str,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<(), Failure> {
    let Some(resource) = resource::find(defaults::GROUP, "v1", plural) else {
        return Ok(());
    };
    let range = KeyRange::prefix(resource.storage_prefix());
    let (rows, _) = storage.rows_of(resource, range).await?;
    for row in &rows {
        let object = versioned_object(resource, row)?;
        let name = metadata_text(&object, "name");
        let said = &object["metadata"]["annotations"][defaults::AUTO_UPDATE];
        if is_wanted(name) || said != "true" {
            continue;
        }
        let target = Target {
            resource,
            namespace: None,
            name,
            subresource: None,
        };
        let options = DeleteOptions {
            uid: Some(metadata_text(&object, "uid").to_owned()),
            resource_version: Some(metadata_text(&object, "resourceVersion").to_owned()),
            ..DeleteOptions::default()
        };
        let outcome = storage.delete(&target, &options, &writer()).await;
        unless_lost(outcome)?;
    }
    Ok(())
}

fn writer() -> Writer<'static> {
    Writer {
        field_manager: FIELD_MANAGER,
        ..USER.writer()
    }
}

async fn ensure(
    storage: &Storage,
    plural: &str,
    name: &str,
    object: &Value,
    how: Ensure,
) -> Result<(), Failure> {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let Some(resource) = resource::find(group, version, plural) else {
        return Ok(());
    };
    let target = Target {
        resource,
        namespace: None,
        name,
        subresource: None,
    };
    let outcome = match storage.read(resource, &target.key())? {
        None => storage
            .create(resource, None, object.clone(), &writer())
            .await
            .map(|_| ()),
        Some(_) if how != Ensure::Once => {
            let as_wanted = |present: &Value| {
                let follows = follows(present, how);
                let mut next = present.clone();
                if follows {
                    next["spec"] = object["spec"].clone();
                }
                next["metadata"]["annotations"][defaults::AUTO_UPDATE] = json!(follows.to_string());
                fields::apply_defaults(&resource.schema, &mut next);
                Ok(next)
            };
            let outcome = storage.update(&target, &writer(), as_wanted).await;
            outcome.map(|_| ())
        }
        Some(_) => Ok(()),
    };
    unless_lost(outcome)
}

/// Whether the stored object follows the defaults: it says so, or nobody changed it.
fn follows(object: &Value, how: Ensure) -> bool {
    let metadata = &object["metadata"];
    how == Ensure::Mandatory
        || match metadata["annotations"][defaults::AUTO_UPDATE].as_str() {
            Some(text @ ("true" | "false")) => text == "true",
            _ => metadata["generation"].as_i64() == Some(1),
        }
}
