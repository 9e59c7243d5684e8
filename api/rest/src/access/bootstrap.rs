//! The roles that every cluster has, and roles that gather others': kept by the
//! leader's node.
//!
//! Invariants
//! - Nothing is taken from a role or binding that is there; one that says
//!   `autoupdate: "false"` is not touched.
//! - A gathering role's rules are exactly those of the roles it selects.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{TryStreamExt as _, stream};
use nautilus_access::rbac::bootstrap::{self, Expected};
use nautilus_access::rbac::{self, GROUP, Reconciled};
use nautilus_machine::WatchRequest;
use nautilus_machine::types::KeyRange;
use nautilus_machinery::identity::User;
use nautilus_machinery::resource::{self, Resource};
use nautilus_machinery::status::ApiError;
use nautilus_machinery::strategy::DeleteOptions;
use serde_json::{Value, json};

use crate::account::Account;
use crate::failure::{Failure, unless_lost};
use crate::storage::{Storage, Target, Writer, metadata_text, versioned_object};

/// Whose work gathering is.
static GATHERER: Account = Account::new(|| User::controller("clusterrole-aggregation-controller"));
/// Pause after a role's refusal.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// Objects written at once at a first start.
const WRITES_AT_ONCE: usize = 16;

/// The leader's work on roles.
pub(crate) struct Roles<'a> {
    /// Fenced by the leader's term.
    pub(crate) storage: &'a Storage,
    /// In whose name they are made.
    pub(crate) writer: Writer<'a>,
}

type Present = BTreeMap<(String, String), Value>;

impl Roles<'_> {
    /// Brings what is there to what this release expects. Idempotent.
    pub(crate) async fn ensure(&self) -> Result<(), Failure> {
        let all = bootstrap::all();
        for bindings in [false, true] {
            let mut present: BTreeMap<&str, Present> = BTreeMap::new();
            let wanted = |one: &&Expected| one.plural.ends_with("bindings") == bindings;
            for one in all.iter().filter(wanted) {
                if !present.contains_key(one.plural)
                    && let Some(kind) = kind(one.plural)
                {
                    present.insert(one.plural, self.list(kind).await?);
                }
            }
            let present = &present;
            stream::iter(all.iter().filter(wanted).map(Ok::<_, Failure>))
                .try_for_each_concurrent(WRITES_AT_ONCE, |one| async move {
                    let place = (one.namespace.clone().unwrap_or_default(), one.name.clone());
                    let there = present.get(one.plural).and_then(|all| all.get(&place));
                    self.bring(one, there).await
                })
                .await?;
        }
        Ok(())
    }

    /// Every object of a kind, by namespace and name.
    async fn list(&self, kind: &Resource) -> Result<Present, Failure> {
        let range = KeyRange::prefix(kind.storage_prefix());
        let (rows, _) = self.storage.rows(range).await?;
        let mut present = Present::new();
        for row in &rows {
            let object = versioned_object(kind, row)?;
            let place = (
                metadata_text(&object, "namespace").to_owned(),
                metadata_text(&object, "name").to_owned(),
            );
            present.insert(place, object);
        }
        Ok(present)
    }

    async fn bring(&self, one: &Expected, there: Option<&Value>) -> Result<(), Failure> {
        let Some(resource) = kind(one.plural) else {
            return Ok(());
        };
        let target = Target {
            resource,
            namespace: one.namespace.as_deref(),
            name: &one.name,
            subresource: None,
        };
        let step = there.map(|there| rbac::reconcile(there, &one.object));
        match step.transpose().map_err(ApiError::internal)? {
            Some(Reconciled::Keep) => return Ok(()),
            Some(Reconciled::Update(_)) => {
                let again = |present: &Value| match rbac::reconcile(present, &one.object) {
                    Ok(Reconciled::Update(wanted)) => Ok(wanted),
                    Ok(_) => Ok(present.clone()),
                    Err(error) => Err(ApiError::internal(error).into()),
                };
                return unless_lost(self.storage.update(&target, &self.writer, again).await);
            }
            Some(Reconciled::Recreate) => {
                let options = DeleteOptions::default();
                unless_lost(self.storage.delete(&target, &options, &self.writer).await)?;
            }
            None => {}
        }
        let created = self
            .storage
            .create(resource, target.namespace, one.object.clone(), &self.writer)
            .await;
        unless_lost(created)
    }

    /// Brings the rules of gathering roles up to date.
    pub(crate) async fn aggregate(&self) -> Result<(), Failure> {
        let Some(resource) = kind("clusterroles") else {
            return Ok(());
        };
        // A gathering role may be gathered itself: as often as they can be nested.
        for _ in 0..MAX_NESTED {
            let all: Vec<Value> = self.list(resource).await?.into_values().collect();
            let mut settled_all = true;
            for role in &all {
                let Some(rules) = rbac::aggregated_rules(role, &all) else {
                    continue;
                };
                let rules = serde_json::to_value(rules)
                    .map_err(|error| ApiError::internal(error.to_string()))?;
                let empty = rules.as_array().is_some_and(Vec::is_empty);
                if role["rules"] == rules || (empty && role["rules"].is_null()) {
                    continue;
                }
                settled_all = false;
                let target = Target {
                    resource,
                    namespace: None,
                    name: metadata_text(role, "name"),
                    subresource: None,
                };
                let with_rules = |present: &Value| {
                    let mut wanted = present.clone();
                    wanted["rules"] = rules.clone();
                    Ok(wanted)
                };
                let writer = GATHERER.writer();
                unless_lost(self.storage.update(&target, &writer, with_rules).await)?;
            }
            if settled_all {
                break;
            }
        }
        Ok(())
    }

    /// Keeps gathering roles up to date, until dropped or the watch is lost.
    pub(crate) async fn keep(&self) -> Result<(), Failure> {
        let Some(resource) = kind("clusterroles") else {
            return std::future::pending().await;
        };
        let mut watcher = self.storage.kv.watch(WatchRequest {
            range: KeyRange::prefix(resource.storage_prefix()),
            from: None,
            previous: false,
        })?;
        self.ensure().await?;
        loop {
            let pause = match self.aggregate().await {
                // Its role does not allow it, and may later.
                Err(failure) if failure.error.code() == 403 => REFUSED_PAUSE,
                outcome => outcome.map(|()| Duration::MAX)?,
            };
            if let Ok(events) = tokio::time::timeout(pause, watcher.next()).await {
                events?;
            }
        }
    }
}

/// Passes over gathering roles in a row: each reaches one level deeper.
const MAX_NESTED: usize = 8;

fn kind(plural: &str) -> Option<&'static Arc<Resource>> {
    resource::find(GROUP, "v1", plural)
}

/// A cluster role with these rules and its binding to one user, both of one name: each with
/// the plural that it is stored under.
pub(crate) fn role_of_user(name: &str, user: &str, rules: &Value) -> [(&'static str, Value); 2] {
    let api_version = format!("{GROUP}/v1");
    let metadata = json!({ "name": name });
    let role = json!({
        "kind": "ClusterRole", "apiVersion": api_version, "metadata": metadata, "rules": rules,
    });
    let binding = json!({
        "kind": "ClusterRoleBinding",
        "apiVersion": api_version,
        "metadata": metadata,
        "roleRef": { "apiGroup": GROUP, "kind": "ClusterRole", "name": name },
        "subjects": [{ "apiGroup": GROUP, "kind": "User", "name": user }],
    });
    [("clusterroles", role), ("clusterrolebindings", binding)]
}
