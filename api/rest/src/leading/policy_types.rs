//! What validating policies' expressions say of the kinds that they name, in their status.
//!
//! Invariant: each generation of a policy is checked, against the kinds that are served then.

use std::collections::BTreeMap;
use std::sync::Arc;

use nautilus_admission::matching::GROUP;
use nautilus_admission::policy::{self, TypedKind};
use nautilus_cel::{Declaration, Field, Shape};
use nautilus_extension::{Schema, declare};
use nautilus_machinery::identity::User;
use nautilus_machinery::resource::{self, Resource};
use nautilus_machinery::schema;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::RETRY_PAUSE;
use crate::account::Account;
use crate::failure::{Failure, unless_gone};
use crate::lister::Lister;
use crate::registry::Registry;
use crate::storage::{Storage, Target, Writer};

/// Who owns the status.
const FIELD_MANAGER: &str = "validatingadmissionpolicy-status";

static USER: Account =
    Account::new(|| User::controller("validatingadmissionpolicy-status-controller"));

/// Keeps the status of all policies. Ends only by being dropped.
pub(super) async fn keep(storage: &Storage, registry: &Registry) {
    let Some(kind) = resource::find(GROUP, "v1", "validatingadmissionpolicies") else {
        return;
    };
    let stop = CancellationToken::new();
    let _stopped = stop.clone().drop_guard();
    let policies = Lister::start(storage.kv.clone(), kind.clone(), Ok, stop);
    let mut changed = policies.changes();
    policies.synced().await;
    loop {
        changed.mark_unchanged();
        let snapshot = policies.snapshot();
        for ((_, name), policy) in &snapshot.objects {
            if !is_observed(policy)
                && let Err(failure) = check(storage, registry, kind, name, policy).await
            {
                tracing::debug!(%name, error = %failure.error, "a policy is checked later");
                changed.mark_changed();
            }
        }
        if changed.has_changed().unwrap_or(false) {
            tokio::time::sleep(RETRY_PAUSE).await;
        } else if changed.changed().await.is_err() {
            return;
        }
    }
}

fn is_observed(policy: &Value) -> bool {
    let generation = policy["metadata"]["generation"].as_i64();
    policy["status"]["observedGeneration"].as_i64() >= generation
}

async fn check(
    storage: &Storage,
    registry: &Registry,
    kind: &Resource,
    name: &str,
    policy: &Value,
) -> Result<(), Failure> {
    let params = params(registry, policy);
    let checked = policy::type_checking(policy, &named(registry, policy), params.as_ref());
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
    let with_status = |present: &Value| {
        let mut next = present.clone();
        next["status"]["observedGeneration"] = policy["metadata"]["generation"].clone();
        next["status"]["typeChecking"] = checked.clone();
        Ok(next)
    };
    unless_gone(storage.update(&target, &writer, with_status).await)
}

/// The kinds that a policy names, in their order.
fn named(registry: &Registry, policy: &Value) -> Vec<TypedKind> {
    let served = registry.served();
    let mut kinds: BTreeMap<(String, String, String), Arc<Resource>> = BTreeMap::new();
    for (group, version, plural) in policy::named_resources(policy) {
        let all = served.kinds.all().iter();
        let found = all.filter(|kind| {
            (group.is_empty() || kind.group == group)
                && kind.version == version
                && kind.plural == plural
        });
        for kind in found {
            let id = [&kind.group, &kind.version, &kind.kind].map(String::clone);
            kinds.insert(id.into(), kind.clone());
        }
    }
    let typed = kinds.values().filter_map(|kind| {
        Some(TypedKind {
            api_version: kind.api_version(),
            kind: kind.kind.clone(),
            declaration: declaration(kind)?,
        })
    });
    typed.collect()
}

fn params(registry: &Registry, policy: &Value) -> Option<Declaration> {
    let named = &policy["spec"]["paramKind"];
    let served = registry.served();
    let mut all = served.kinds.all().iter();
    let kind =
        all.find(|kind| named["apiVersion"] == kind.api_version() && named["kind"] == kind.kind)?;
    declaration(kind)
}

/// What is declared of a kind's objects; none where nothing is known of them.
fn declaration(kind: &Resource) -> Option<Declaration> {
    let Some(defined) = &kind.defined else {
        return policy::declare_type(&kind.schema, &kind.kind);
    };
    let schema = Schema::parse(defined.schema().0).ok()?;
    let declared = declare(&schema, true, &kind.kind)?;
    let Shape::Object(object) = &declared.shape else {
        return Some(declared);
    };
    let mut fields = object.fields.clone();
    let key = "metadata".to_owned();
    let declaration = policy::declare_type(schema::OBJECT_META, &format!("{}.{key}", kind.kind))?;
    fields.insert(key.clone(), Field { key, declaration });
    Some(Declaration::object(kind.kind.clone(), fields))
}
