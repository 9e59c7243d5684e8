//! What must be there without anybody asking: the tasks that the leader's node runs for
//! the quorum.
//!
//! Invariants
//! - Every write is fenced by the leader's term: a deposed leader changes nothing; it passes
//!   admission as anybody's, and a controller's is allowed to its account by its role.
//! - Everything is idempotent and read from the store: a new leader goes on where
//!   the old one was lost.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use nautilus_machine::types::KeyRange;
use nautilus_machine::{Kv, Leadership, WatchRequest, Watcher};
use nautilus_machinery::identity::User;
use nautilus_machinery::resource;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::access::accounts::Accounts;
use crate::access::{BootstrapRoles, Leader, Looked, ensure_root_ca};
use crate::account::Account;
use crate::aggregation;
use crate::context::RestContext;
use crate::control;
use crate::custom;
use crate::failure::{Failure, unless_ended};
use crate::leading;
use crate::namespaces::terminate;
use crate::registry::Registry;
use crate::service_ranges;
use crate::storage::{Storage, Writer, built_in, metadata_text, namespaces, versioned_object};
use crate::{joining, k3s};

/// Namespaces every cluster has.
const DEFAULT_NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// The group of roles and bindings.
const RBAC: &str = "rbac.authorization.k8s.io";
/// The service of the API itself.
const API_SERVICE: &str = "kubernetes";
/// Its cluster address: the first of the reference's default service range.
const API_SERVICE_ADDRESS: &str = "10.96.0.1";
/// The account of pods that name none.
const DEFAULT_ACCOUNT: &str = "default";
/// A pass over the namespaces, even when nothing was seen to change.
const IDLE_PAUSE: Duration = Duration::from_secs(30);
/// The same while a namespace is being emptied or a pass failed.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// Between two looks at the age of signing keys.
const KEYS_PAUSE: Duration = Duration::from_secs(3_600);
/// In whose name the server itself makes what every cluster has; nobody's but this process's.
static USER: Account = Account::new(|| User::internal("system:nautilus-controller"));
static ACCOUNTS: Account = Account::new(|| User::controller("service-account-controller"));

pub(crate) fn writer() -> Writer<'static> {
    USER.writer()
}

/// Why the defaults could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct ControllerError {
    /// What was being done.
    pub what: String,
    /// Why it failed.
    pub reason: String,
}

impl ControllerError {
    pub(crate) fn new(what: impl Into<String>, failure: &Failure) -> Self {
        Self {
            what: what.into(),
            reason: failure.error.to_string(),
        }
    }
}

/// Makes the default namespaces, the `kubernetes` Service and the default
/// ServiceAccounts where they are missing, whoever leads. Idempotent. `api_port` is where
/// nodes serve.
pub async fn ensure_defaults(context: &RestContext, api_port: u16) -> Result<(), ControllerError> {
    make_defaults(&context.storage(), api_port).await
}

async fn make_defaults(storage: &Storage, api_port: u16) -> Result<(), ControllerError> {
    storage
        .barrier()
        .await
        .map_err(|failure| ControllerError::new("defaults could not be read", &failure))?;
    for name in DEFAULT_NAMESPACES {
        let object = json!({
            "kind": "Namespace", "apiVersion": "v1", "metadata": { "name": name },
        });
        ensure(storage, ("", "namespaces"), None, name, &object).await?;
        let (accounts, own) = (("", "serviceaccounts"), default_account(name));
        ensure(storage, accounts, Some(name), DEFAULT_ACCOUNT, &own).await?;
    }
    let ranges = ("networking.k8s.io", "servicecidrs");
    let range = service_ranges::default_object();
    ensure(storage, ranges, None, service_ranges::DEFAULT_NAME, &range).await?;
    let service = json!({
        "kind": "Service",
        "apiVersion": "v1",
        "metadata": {
            "name": API_SERVICE,
            "namespace": "default",
            "labels": { "component": "apiserver", "provider": "kubernetes" },
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": API_SERVICE_ADDRESS,
            "ports": [
                { "name": "https", "protocol": "TCP", "port": 443, "targetPort": api_port },
            ],
        },
    });
    let services = ("", "services");
    ensure(storage, services, Some("default"), API_SERVICE, &service).await
}

/// Makes the roles and bindings of our own, where they are missing: workers join by them, the
/// scheduler reads metrics, and nodes are drained. Idempotent.
async fn make_own_roles(storage: &Storage) -> Result<(), ControllerError> {
    for (name, object) in joining::bindings() {
        ensure(storage, (RBAC, "clusterrolebindings"), None, name, &object).await?;
    }
    let roles = k3s::controller_role()
        .into_iter()
        .chain(control::metrics_role())
        .chain(leading::removal::role());
    for (plural, object) in roles {
        let name = metadata_text(&object, "name");
        ensure(storage, (RBAC, plural), None, name, &object).await?;
    }
    Ok(())
}

/// Makes the roles and bindings that every cluster has, whoever leads. Idempotent.
pub async fn ensure_roles(context: &RestContext) -> Result<(), ControllerError> {
    let storage = context.storage();
    let roles = bootstrap_roles(&storage);
    let made = async {
        roles.ensure().await?;
        roles.aggregate().await
    };
    made.await
        .map_err(|failure| ControllerError::new("roles could not be made", &failure))
}

fn bootstrap_roles(storage: &Storage) -> BootstrapRoles<'_> {
    BootstrapRoles {
        storage,
        writer: writer(),
    }
}

fn default_account(namespace: &str) -> Value {
    json!({
        "kind": "ServiceAccount",
        "apiVersion": "v1",
        "metadata": { "name": DEFAULT_ACCOUNT, "namespace": namespace },
    })
}

/// Gives a namespace the account of pods that name none.
async fn ensure_account(storage: &Storage, namespace: &str) -> Result<(), Failure> {
    let kind = built_in("", "serviceaccounts")?;
    let key = kind.key(Some(namespace), DEFAULT_ACCOUNT);
    if storage.read_row(&key)?.is_some() {
        return Ok(());
    }
    let (object, writer) = (default_account(namespace), ACCOUNTS.writer());
    unless_ended(storage.create(kind, Some(namespace), object, &writer).await)
}

/// Creates an object of a group and plural, version `v1`, unless it is there.
async fn ensure(
    storage: &Storage,
    (group, plural): (&str, &str),
    namespace: Option<&str>,
    name: &str,
    object: &Value,
) -> Result<(), ControllerError> {
    let Some(resource) = resource::find(group, "v1", plural) else {
        return Ok(());
    };
    let what = || format!("{plural} {name:?} could not be made");
    let there = storage
        .read_row(&resource.key(namespace, name))
        .map_err(|failure| ControllerError::new(what(), &failure))?;
    if there.is_some() {
        return Ok(());
    }
    match storage
        .create(resource, namespace, object.clone(), &writer())
        .await
    {
        Ok(_) => Ok(()),
        // Somebody else made it, or the namespace goes: both are fine.
        Err(failure) if matches!(failure.error.code(), 403 | 404 | 409) => Ok(()),
        Err(failure) => Err(ControllerError::new(what(), &failure)),
    }
}

/// Runs the leader's tasks whenever this node leads, until `shutdown`. Every node
/// runs this.
pub async fn run_controllers(
    context: Arc<RestContext>,
    api_port: u16,
    shutdown: CancellationToken,
) {
    let kv = context.kv.clone();
    let mut changes = kv.leadership_changes();
    let mut leadership = kv.leadership();
    loop {
        let changed = if leadership.is_self {
            let term = leadership.term;
            let storage = context.storage().fenced(term);
            let storage = storage.by_role(context.access.clone());
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = next_term(&mut changes, Some(term)) => changed,
                () = lead(&context, &storage, api_port) => None,
                () = leading::run(
                    storage.clone(),
                    context.registry.clone(),
                    context.webhook_clients.clone(),
                ) => None,
                () = service_ranges::run(&storage) => None,
                () = leading::compaction::keep(
                    kv.clone(),
                    term,
                    context.limits.compaction_interval,
                ) => None,
                () = leading::endpoints::keep(
                    storage.clone(),
                    context.cluster.clone(),
                    writer(),
                ) => None,
                () = keep_access(&storage, term) => None,
                () = custom::keep(&storage, &context.webhook_clients, writer()) => None,
                () = keep_credentials(&context, &storage) => None,
                () = aggregation::keep(&context, storage.clone(), writer()) => None,
                () = control::run(&context, &storage) => None,
            }
        } else {
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = next_term(&mut changes, None) => changed,
            }
        };
        let Some(changed) = changed else { return };
        leadership = changed;
    }
}

/// The next leadership that is not this node's of `term`.
async fn next_term(
    changes: &mut (impl futures_util::Stream<Item = Leadership> + Unpin),
    term: Option<u64>,
) -> Option<Leadership> {
    loop {
        let leadership = changes.next().await?;
        if !(leadership.is_self && Some(leadership.term) == term) {
            return Some(leadership);
        }
    }
}

/// One term's work. Ends only by being dropped.
async fn lead(context: &RestContext, storage: &Storage, api_port: u16) {
    let mut made_defaults = false;
    let mut watcher: Option<Box<dyn Watcher>> = None;
    loop {
        if !made_defaults {
            let made = async {
                make_defaults(storage, api_port).await?;
                make_own_roles(storage).await
            };
            match made.await {
                Ok(()) => made_defaults = true,
                Err(error) => tracing::warn!(%error, "defaults are not there yet"),
            }
        }
        if watcher.is_none() {
            watcher = watch_namespaces(&context.kv);
        }
        let pem = context.authority.certificate_pem();
        let pause = match sweep(storage, &context.registry, &pem).await {
            Ok(Pass::Settled) if made_defaults && watcher.is_some() => IDLE_PAUSE,
            Ok(_) => BUSY_PAUSE,
            Err(failure) => {
                tracing::warn!(error = %failure.error, "namespaces could not be swept");
                BUSY_PAUSE
            }
        };
        let ended = tokio::select! {
            changed = next_change(watcher.as_mut()) => !changed,
            () = tokio::time::sleep(pause) => false,
        };
        if ended {
            watcher = None;
        }
    }
}

/// One term's work on roles and on the keys of service accounts. Ends only by being
/// dropped.
async fn keep_access(storage: &Storage, term: u64) {
    loop {
        if let Err(failure) = Accounts::keep_keys(storage, term).await {
            tracing::warn!(error = %failure.error, "signing keys could not be kept");
        }
        let roles = bootstrap_roles(storage);
        if let Ok(Err(failure)) = tokio::time::timeout(KEYS_PAUSE, roles.keep()).await {
            tracing::warn!(error = %failure.error, "roles could not be kept");
        }
        tokio::time::sleep(BUSY_PAUSE).await;
    }
}

/// One term's work on credentials. Ends only by being dropped.
async fn keep_credentials(context: &RestContext, storage: &Storage) {
    let leader = Leader {
        storage,
        writer: writer(),
        access: &context.access,
        authority: &context.authority,
    };
    loop {
        let ended = tokio::select! {
            ended = leader.keep(Looked::Requests) => ended,
            ended = leader.keep(Looked::Secrets) => ended,
        };
        if let Err(failure) = ended {
            tracing::warn!(error = %failure.error, "credentials could not be looked after");
        }
        tokio::time::sleep(BUSY_PAUSE).await;
    }
}

/// Waits for a change of a namespace; false when the watch ended.
async fn next_change(watcher: Option<&mut Box<dyn Watcher>>) -> bool {
    match watcher {
        Some(watcher) => watcher.next().await.is_ok(),
        None => std::future::pending().await,
    }
}

fn watch_namespaces(kv: &Arc<dyn Kv>) -> Option<Box<dyn Watcher>> {
    let resource = namespaces().ok()?;
    let range = KeyRange::prefix(resource.storage_prefix());
    kv.watch(WatchRequest {
        range,
        from: None,
        previous: false,
    })
    .ok()
}

/// What a pass left behind.
enum Pass {
    Settled,
    /// Some namespace is still being emptied.
    Unfinished,
}

async fn sweep(storage: &Storage, registry: &Registry, ca_pem: &str) -> Result<Pass, Failure> {
    storage.barrier().await?;
    let resource = namespaces()?;
    let (rows, _) = storage
        .rows(KeyRange::prefix(resource.storage_prefix()))
        .await?;
    let mut pass = Pass::Settled;
    for row in &rows {
        let namespace = versioned_object(resource, row)?;
        let name = metadata_text(&namespace, "name");
        let settled = if namespace["metadata"]["deletionTimestamp"].is_null() {
            let trusts = ensure_root_ca(storage, name, ca_pem).await;
            let has_account = ensure_account(storage, name).await;
            trusts.and(has_account).map(|()| true)
        } else {
            terminate(storage, registry, &namespace).await
        };
        match settled {
            Ok(true) => {}
            Ok(false) => pass = Pass::Unfinished,
            // The others go on.
            Err(failure) => {
                // A role's refusal was told already.
                if failure.error.code() != 403 {
                    let error = &failure.error;
                    tracing::warn!(namespace = name, %error, "a namespace is looked at later");
                }
                pass = Pass::Unfinished;
            }
        }
    }
    Ok(pass)
}
