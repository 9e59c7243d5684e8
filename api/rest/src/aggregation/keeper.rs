//! What the leader's node keeps for extension servers: an APIService for every group and
//! version that this server answers itself, the word on whether the others can be asked,
//! and what they are to know of this server.
//!
//! Invariants
//! - Every write is fenced by the leader's term.
//! - An APIService that somebody else wrote is judged, never changed otherwise.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};
use nautilus_machinery::conditions;
use nautilus_machinery::discovery;
use nautilus_machinery::resource;
use nautilus_machinery::strategy::DeleteOptions;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::front_proxy::{ALLOWED_NAME, EXTRA_PREFIX, GROUP_HEADER, UID_HEADER, USER_HEADER};
use super::service::ApiService;
use super::{Aggregator, GROUP, resolve};
use crate::context::RestContext;
use crate::failure::{Failure, unless_lost};
use crate::ids;
use crate::storage::{Storage, Target, Writer, metadata_text, versioned_object};

/// Says that an APIService is kept by the server, and until when.
const MANAGED_LABEL: &str = "kube-aggregator.kubernetes.io/automanaged";
/// Its value for built-in groups and for those made at run time.
const MANAGED: [&str; 2] = ["onstart", "true"];
/// Where extension servers look for what they need to know.
const CONFIG_MAP: (&str, &str) = ("kube-system", "extension-apiserver-authentication");
/// A pass, even when nothing was seen to change.
const INTERVAL: Duration = Duration::from_secs(10);
/// Extension servers asked at once.
const ASKED_AT_ONCE: usize = 16;
/// Priorities of groups made at run time.
const RUN_TIME_PRIORITIES: (i64, i64) = (1_000, 100);

/// Group, version, priority of the group at least, priority of the version in it; as
/// the release served has them.
const PRIORITIES: [(&str, &str, i64, i64); 22] = [
    ("", "v1", 18_000, 1),
    ("apps", "v1", 17_800, 15),
    ("events.k8s.io", "v1", 17_750, 15),
    ("authentication.k8s.io", "v1", 17_700, 15),
    ("authorization.k8s.io", "v1", 17_600, 15),
    ("autoscaling", "v2", 17_500, 30),
    ("autoscaling", "v1", 17_500, 15),
    ("batch", "v1", 17_400, 15),
    ("certificates.k8s.io", "v1", 17_300, 15),
    ("networking.k8s.io", "v1", 17_200, 15),
    ("policy", "v1", 17_100, 15),
    ("rbac.authorization.k8s.io", "v1", 17_000, 15),
    ("storage.k8s.io", "v1", 16_800, 15),
    ("admissionregistration.k8s.io", "v1", 16_700, 15),
    ("apiextensions.k8s.io", "v1", 16_700, 15),
    ("scheduling.k8s.io", "v1", 16_600, 15),
    ("coordination.k8s.io", "v1", 16_500, 15),
    ("node.k8s.io", "v1", 16_300, 15),
    ("discovery.k8s.io", "v1", 16_200, 15),
    ("resource.k8s.io", "v1", 16_200, 21),
    ("flowcontrol.apiserver.k8s.io", "v1", 16_100, 21),
    ("storagemigration.k8s.io", "v1", 15_800, 15),
];

/// One term's work. Ends only by being dropped.
pub(crate) fn keep<'a>(
    context: &'a RestContext,
    storage: Storage,
    writer: Writer<'static>,
) -> BoxFuture<'a, ()> {
    Box::pin(keep_on(context, storage, writer))
}

async fn keep_on(context: &RestContext, storage: Storage, writer: Writer<'static>) {
    let keeper = Keeper {
        context,
        aggregator: &context.aggregator,
        storage,
        writer,
    };
    let Some(services) = &context.aggregator.services else {
        return std::future::pending().await;
    };
    let mut changes = services.changes();
    loop {
        for (what, kept) in [
            ("what extension servers are to know", keeper.tell().await),
            ("APIServices of this server", keeper.register().await),
            (
                "whether extension servers can be asked",
                keeper.judge().await,
            ),
        ] {
            if let Err(failure) = kept {
                tracing::warn!(error = %failure.error, what, "could not be kept");
            }
        }
        let _ = timeout(INTERVAL, changes.changed()).await;
    }
}

struct Keeper<'a> {
    context: &'a RestContext,
    aggregator: &'a Aggregator,
    storage: Storage,
    writer: Writer<'static>,
}

impl Keeper<'_> {
    /// Keeps the ConfigMap that extension servers read.
    async fn tell(&self) -> Result<(), Failure> {
        let Some(resource) = resource::find("", "v1", "configmaps") else {
            return Ok(());
        };
        let front_proxy = match self.aggregator.front_proxy().await {
            Ok(front_proxy) => front_proxy,
            Err(why) => {
                tracing::warn!(%why, "the front proxy has no authority yet");
                return Ok(());
            }
        };
        let list = |values: &[&str]| json!(values).to_string();
        let data = json!({
            "client-ca-file": self.context.authority.certificate_pem(),
            "requestheader-client-ca-file": front_proxy.authority_pem(),
            "requestheader-allowed-names": list(&[ALLOWED_NAME]),
            "requestheader-username-headers": list(&[USER_HEADER]),
            "requestheader-uid-headers": list(&[UID_HEADER]),
            "requestheader-group-headers": list(&[GROUP_HEADER]),
            "requestheader-extra-headers-prefix": list(&[EXTRA_PREFIX]),
        });
        let (namespace, name) = CONFIG_MAP;
        let target = Target {
            resource,
            namespace: Some(namespace),
            name,
            subresource: None,
        };
        match self.storage.read(resource, &target.key())? {
            Some(row) if row.object["data"] == data => Ok(()),
            Some(_) => {
                let told = |present: &Value| {
                    let mut wanted = present.clone();
                    wanted["data"] = data.clone();
                    Ok(wanted)
                };
                let updated = self.storage.update(&target, &self.writer, told).await;
                unless_lost(updated)
            }
            None => {
                let object = json!({
                    "kind": "ConfigMap", "apiVersion": "v1",
                    "metadata": { "name": name, "namespace": namespace },
                    "data": data,
                });
                let created = self
                    .storage
                    .create(resource, Some(namespace), object, &self.writer)
                    .await;
                unless_lost(created)
            }
        }
    }

    /// Makes the APIServices of what this server answers, and takes away those of what
    /// it answers no more.
    async fn register(&self) -> Result<(), Failure> {
        let Some(resource) = resource::find(GROUP, "v1", "apiservices") else {
            return Ok(());
        };
        let wanted: Vec<Value> = {
            let served = self.context.registry.served();
            discovery::group_versions(&served.kinds)
                .into_iter()
                .filter(|(group, _)| *group != GROUP)
                .map(|(group, version)| local(group, version))
                .collect()
        };
        let names: BTreeSet<&str> = wanted
            .iter()
            .map(|object| metadata_text(object, "name"))
            .collect();
        let range = nautilus_machine::types::KeyRange::prefix(resource.storage_prefix());
        let (rows, _) = self.storage.rows(range).await?;
        let mut present = BTreeSet::new();
        for row in &rows {
            let object = versioned_object(resource, row)?;
            let name = metadata_text(&object, "name").to_owned();
            let label = &object["metadata"]["labels"][MANAGED_LABEL];
            let managed = MANAGED.iter().any(|value| label == *value);
            if managed && !names.contains(name.as_str()) {
                let target = Target {
                    resource,
                    namespace: None,
                    name: &name,
                    subresource: None,
                };
                let options = DeleteOptions::default();
                let deleted = self.storage.delete(&target, &options, &self.writer).await;
                unless_lost(deleted)?;
            }
            present.insert(name);
        }
        for object in &wanted {
            if present.contains(metadata_text(object, "name")) {
                continue;
            }
            let created = self
                .storage
                .create(resource, None, object.clone(), &self.writer)
                .await;
            unless_lost(created)?;
        }
        Ok(())
    }

    /// Sets every APIService's condition `Available`.
    async fn judge(&self) -> Result<(), Failure> {
        let Some(services) = &self.aggregator.services else {
            return Ok(());
        };
        let snapshot = services.snapshot();
        let services: Vec<Arc<ApiService>> = snapshot.objects.values().cloned().collect();
        let judged: Vec<Result<(), Failure>> = stream::iter(services)
            .map(|service| self.judge_one(service))
            .buffer_unordered(ASKED_AT_ONCE)
            .collect()
            .await;
        judged.into_iter().collect()
    }

    async fn judge_one(&self, service: Arc<ApiService>) -> Result<(), Failure> {
        if !service.is_remote() && service.available {
            return Ok(());
        }
        let (status, reason, message) = self.verdict(&service).await;
        self.set(&service, status, reason, &message).await
    }

    async fn verdict(&self, service: &ApiService) -> (&'static str, &'static str, String) {
        if !service.is_remote() {
            let message = "Local APIServices are always available";
            return ("True", "Local", message.to_owned());
        }
        let config = match self.aggregator.front_proxy().await {
            Ok(front_proxy) => front_proxy.client(service),
            Err(why) => Err(why),
        };
        let upstream = match config {
            Ok(config) => resolve::upstream(&self.storage, service, config),
            Err(why) => return ("False", "FailedDiscoveryCheck", why),
        };
        let upstream = match upstream {
            Ok(upstream) => upstream,
            Err(why) => return ("False", why.reason, why.message),
        };
        let path = format!("/{}", service.path());
        match self
            .aggregator
            .ask(service, &path, "application/json")
            .await
        {
            Ok(_) => ("True", "Passed", "all checks passed".to_owned()),
            Err(why) => {
                let url = format!("https://{}{path}", upstream.authority());
                let message = format!("failing or missing response from {url}: {why}");
                ("False", "FailedDiscoveryCheck", message)
            }
        }
    }

    async fn set(
        &self,
        service: &ApiService,
        status: &str,
        reason: &str,
        message: &str,
    ) -> Result<(), Failure> {
        let Some(resource) = resource::find(GROUP, "v1", "apiservices") else {
            return Ok(());
        };
        let target = Target {
            resource,
            namespace: None,
            name: &service.name,
            subresource: Some("status"),
        };
        let now = ids::now_rfc3339();
        let with_condition = |present: &Value| {
            let mut wanted = present.clone();
            let condition = json!({
                "type": "Available",
                "status": status,
                "lastTransitionTime": now,
                "reason": reason,
                "message": message,
            });
            conditions::set(&mut wanted["status"], &condition);
            Ok(wanted)
        };
        let updated = self
            .storage
            .update(&target, &self.writer, with_condition)
            .await;
        unless_lost(updated)
    }
}

/// The APIService of a group and version that this server answers.
fn local(group: &str, version: &str) -> Value {
    let built_in = PRIORITIES
        .iter()
        .find(|(own_group, own_version, ..)| *own_group == group && *own_version == version);
    let (managed, (group_priority, version_priority)) = match built_in {
        Some((.., group_priority, version_priority)) => {
            (MANAGED[0], (*group_priority, *version_priority))
        }
        None => (MANAGED[1], RUN_TIME_PRIORITIES),
    };
    let mut spec = json!({
        "version": version,
        "groupPriorityMinimum": group_priority,
        "versionPriority": version_priority,
    });
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    json!({
        "kind": "APIService",
        "apiVersion": format!("{GROUP}/v1"),
        "metadata": {
            "name": format!("{version}.{group}"),
            "labels": { MANAGED_LABEL: managed },
        },
        "spec": spec,
    })
}
