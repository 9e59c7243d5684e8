//! The condition of flow schemas: whether the priority level that each names exists.
//!
//! Invariant: a condition is written only where it says something else than before.

use std::sync::Arc;

use nautilus_admission::fairness::defaults::GROUP;
use nautilus_machinery::conditions;
use nautilus_machinery::identity::User;
use nautilus_machinery::resource::{self, Resource};
use nautilus_machinery::status::quote;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::RETRY_PAUSE;
use crate::account::Account;
use crate::failure::{Failure, unless_gone};
use crate::ids;
use crate::lister::Lister;
use crate::storage::{Storage, Target, Writer};

/// Who owns the condition.
const FIELD_MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";
const DANGLING: &str = "Dangling";

static USER: Account = Account::new(|| User::internal("system:apiserver"));

/// What is looked at of a flow schema.
struct Schema {
    level: String,
    dangling: Value,
}

/// Keeps the conditions. Ends only by being dropped.
pub(super) async fn keep(storage: &Storage) {
    let (Some(schemas), Some(levels)) = (
        resource::find(GROUP, "v1", "flowschemas"),
        resource::find(GROUP, "v1", "prioritylevelconfigurations"),
    ) else {
        return;
    };
    let stop = CancellationToken::new();
    let _stopped = stop.clone().drop_guard();
    let kv = || storage.kv.clone();
    let own = Lister::start(
        kv(),
        schemas.clone(),
        |object| Ok(read(&object)),
        stop.clone(),
    );
    let levels = Lister::start(kv(), levels.clone(), |_| Ok(()), stop);
    let (mut changed, mut levels_changed) = (own.changes(), levels.changes());
    own.synced().await;
    levels.synced().await;
    loop {
        changed.mark_unchanged();
        levels_changed.mark_unchanged();
        if let Err(failure) = keep_once(storage, schemas, &own, &levels).await {
            tracing::debug!(error = %failure.error, "conditions of flow schemas wait");
            tokio::time::sleep(RETRY_PAUSE).await;
            continue;
        }
        let changed = tokio::select! {
            changed = changed.changed() => changed,
            changed = levels_changed.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

fn read(object: &Value) -> Schema {
    let level = &object["spec"]["priorityLevelConfiguration"]["name"];
    let conditions = object["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    Schema {
        level: level.as_str().unwrap_or_default().to_owned(),
        dangling: conditions
            .find(|condition| condition["type"] == DANGLING)
            .cloned()
            .unwrap_or_default(),
    }
}

async fn keep_once(
    storage: &Storage,
    kind: &Arc<Resource>,
    schemas: &Lister<Schema>,
    levels: &Lister<()>,
) -> Result<(), Failure> {
    let (schemas, levels) = (schemas.snapshot(), levels.snapshot());
    let mut outcome = Ok(());
    for ((_, name), schema) in &schemas.objects {
        let level = &schema.level;
        let exists = levels.objects.contains_key(&(String::new(), level.clone()));
        let condition = condition(level, exists);
        let told = |key: &str| schema.dangling[key] == condition[key];
        if told("status") && told("reason") && told("message") {
            continue;
        }
        let target = Target {
            resource: kind,
            namespace: None,
            name,
            subresource: Some("status"),
        };
        let writer = Writer {
            field_manager: FIELD_MANAGER,
            ..USER.writer()
        };
        let with_condition = |present: &Value| {
            let mut next = present.clone();
            conditions::set(&mut next["status"], &condition);
            Ok(next)
        };
        let told = unless_gone(storage.update(&target, &writer, with_condition).await);
        outcome = outcome.and(told);
    }
    outcome
}

fn condition(level: &str, exists: bool) -> Value {
    let (status, reason, end) = match exists {
        true => ("False", "Found", "it exists"),
        false => ("True", "NotFound", "there is no such object"),
    };
    let joint = if exists { "and" } else { "but" };
    json!({
        "type": DANGLING, "status": status, "lastTransitionTime": ids::now_rfc3339(),
        "reason": reason,
        "message": format!(
            "This FlowSchema references the PriorityLevelConfiguration object named {} {joint} \
             {end}",
            quote(level)
        ),
    })
}
