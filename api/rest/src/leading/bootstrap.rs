//! Objects that every cluster has: system priority classes, flow schemas, priority
//! levels.
//!
//! Mandatory objects always are what the server goes by; suggested ones are made once,
//! and follow the server's defaults while their annotation says so or nobody changed
//! them.

use std::sync::LazyLock;

use nautilus_admission::fairness::defaults;
use nautilus_admission::priority;
use nautilus_machinery::identity::User;
use nautilus_machinery::{fields, resource};
use serde_json::{Value, json};

use super::{Name, RETRY_PAUSE};
use crate::failure::Failure;
use crate::storage::{Storage, Target};

static USER: Name = Name(LazyLock::new(|| User::internal("system:apiserver")));

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

/// Makes what is missing, until it is there; then looks no more in this term, as
/// mandatory objects count whatever is stored.
pub(super) async fn keep(storage: &Storage) {
    while let Err(failure) = ensure_all(storage).await {
        tracing::warn!(error = %failure.error, "bootstrap objects are not there yet");
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    std::future::pending::<()>().await;
}

async fn ensure_all(storage: &Storage) -> Result<(), Failure> {
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
    let levels = "prioritylevelconfigurations";
    for (plural, list, how) in [
        (levels, defaults::mandatory_levels(), Ensure::Mandatory),
        (levels, defaults::suggested_levels(), Ensure::Suggested),
        (
            "flowschemas",
            defaults::mandatory_schemas(),
            Ensure::Mandatory,
        ),
        (
            "flowschemas",
            defaults::suggested_schemas(),
            Ensure::Suggested,
        ),
    ] {
        for (name, object) in list {
            ensure(storage, plural, name, &object, how).await?;
        }
    }
    Ok(())
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
            .create(resource, None, object, &USER.writer())
            .await
            .map(|_| ()),
        Some(row) if how != Ensure::Once && follows(&row.object, how) => {
            let as_wanted = |present: &Value| {
                let mut next = present.clone();
                next["spec"] = object["spec"].clone();
                next["metadata"]["annotations"][defaults::AUTO_UPDATE] = json!("true");
                fields::apply_defaults(&resource.schema, &mut next);
                Ok(next)
            };
            storage
                .update(&target, &USER.writer(), as_wanted)
                .await
                .map(|_| ())
        }
        Some(_) => Ok(()),
    };
    match outcome {
        // Somebody else was first.
        Err(failure) if matches!(failure.error.code(), 404 | 409) => Ok(()),
        outcome => outcome,
    }
}

/// Whether the stored object follows the defaults: it says so, or nobody changed it.
fn follows(object: &Value, how: Ensure) -> bool {
    let metadata = &object["metadata"];
    how == Ensure::Mandatory
        || match metadata["annotations"][defaults::AUTO_UPDATE].as_str() {
            Some(text) => text == "true",
            None => metadata["generation"].as_i64() == Some(1),
        }
}
