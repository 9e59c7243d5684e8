//! The admission chain: what every write passes beside its strategy, in the reference's
//! order of plugins.
//!
//! Plugins are pure functions of `nautilus_admission`; this folder looks up what they
//! need and speaks to webhooks.
//!
//! Invariants
//! - Nothing is written that did not pass: the store's writers call this chain, not the
//!   handlers; nothing passes before this node has read who is to be asked.
//! - What a plugin would refuse for want of another object is looked up again behind a
//!   read barrier before it is refused.

mod authorizer;
mod lookup;
mod policies;
mod quota;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use nautilus_admission::attributes::{Attributes, Operation};
use nautilus_admission::matching::Matching;
use nautilus_admission::{
    defaults, devices, limits, pod_security, policy, priority, service_account,
};
use nautilus_machine::Kv;
use nautilus_machinery::resource::Resource;
use nautilus_machinery::status::ApiError;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::audit::Remarks;
use crate::failure::Failure;
use crate::ids;
use crate::registry::Registry;
use crate::storage::{Storage, metadata_text};
use crate::webhook::WebhookClients;

/// How long a write waits for this node to have read who is to be asked.
const READY_PATIENCE: Duration = Duration::from_secs(10);

/// The plugins of one node, and what they read.
pub(crate) struct Admission {
    /// For reading alone: nothing here writes.
    storage: Storage,
    turns: quota::Turns,
    access: Arc<Access>,
    registry: Arc<Registry>,
    policies: policies::Policies,
    webhooks: webhooks::Webhooks,
    clients: Arc<WebhookClients>,
}

impl Admission {
    /// Starts following what the plugins read, until `shutdown`.
    pub(crate) fn start(
        kv: &Arc<dyn Kv>,
        access: Arc<Access>,
        registry: Arc<Registry>,
        clients: Arc<WebhookClients>,
        shutdown: &CancellationToken,
    ) -> Arc<Self> {
        let storage = Storage::new(kv.clone());
        Arc::new(Self {
            turns: quota::Turns::default(),
            access,
            registry,
            policies: policies::Policies::start(kv, shutdown),
            webhooks: webhooks::Webhooks::start(kv, shutdown),
            clients,
            storage,
        })
    }

    /// Waits until webhooks and policies are known: nothing passes before.
    async fn ready(&self, asked: &Attributes<'_>) -> Result<(), Failure> {
        let known = async {
            self.webhooks.ready().await;
            self.policies.ready().await;
        };
        tokio::time::timeout(READY_PATIENCE, known)
            .await
            .map_err(|_| {
                asked
                    .forbidden(None, "not yet ready to handle request")
                    .into()
            })
    }

    /// Whether a mutating plugin may want the object.
    pub(crate) async fn mutates(&self, asked: &Attributes<'_>) -> Result<bool, Failure> {
        self.ready(asked).await?;
        let new = asked.operation == Operation::Create;
        let changed = new || asked.operation == Operation::Update;
        Ok(changed && asked.is("", "pods")
            || asked.is_sub("", "pods", "binding")
            || limits::handles(asked)
            || defaults::protection(asked).is_some()
            || new && (asked.is("", "nodes") || asked.is("networking.k8s.io", "ingresses"))
            || self.webhooks.may_mutate()
            || self.policies.may_mutate())
    }

    /// Lets the mutating plugins and webhooks at the defaulted object; once more where a
    /// webhook changed it.
    pub(crate) async fn mutate(
        &self,
        asked: &Attributes<'_>,
        object: &mut Value,
        remarks: Remarks<'_>,
    ) -> Result<(), Failure> {
        let (mut policies, mut hooks) = (webhooks::Rounds::default(), webhooks::Rounds::default());
        self.run_plugins(asked, object).await?;
        self.apply_policies(asked, object, &mut policies, false)
            .await?;
        self.ask_mutating(asked, Some(object), &mut hooks, false, remarks)
            .await?;
        if policies.changed || hooks.changed {
            self.run_plugins(asked, object).await?;
            policies.begin_again(object);
            self.apply_policies(asked, object, &mut policies, true)
                .await?;
            hooks.begin_again(object);
            self.ask_mutating(asked, Some(object), &mut hooks, true, remarks)
                .await?;
        }
        Ok(())
    }

    /// Lets through what is not kept, as an eviction, a review or the options of a stream:
    /// mutating webhooks may change it, and everybody who validates is asked.
    pub(crate) async fn pass_other(
        &self,
        asked: &Attributes<'_>,
        object: &mut Value,
        remarks: Remarks<'_>,
    ) -> Result<(), Failure> {
        self.ready(asked).await?;
        let mut rounds = webhooks::Rounds::of_other(asked);
        self.ask_mutating(asked, Some(object), &mut rounds, false, remarks)
            .await?;
        self.validate(asked, Some(object), remarks).await
    }

    async fn run_plugins(&self, asked: &Attributes<'_>, object: &mut Value) -> Result<(), Failure> {
        let new = asked.operation == Operation::Create;
        if limits::handles(asked) {
            let ranges = self.all("", "limitranges", asked.namespace)?;
            limits::mutate(asked, object, &ranges);
        }
        if new && asked.is("", "pods") {
            self.give_account(asked, object).await?;
        }
        if new && asked.is("", "nodes") {
            defaults::taint_node(object);
        }
        if asked.is("", "pods") {
            self.give_priority(asked, object).await?;
            defaults::tolerations(object);
        }
        if new
            && asked.is("", "persistentvolumeclaims")
            && defaults::storage_class(object).is_none()
        {
            let classes = self.all("storage.k8s.io", "storageclasses", None)?;
            let found = defaults::default_class(&classes, &defaults::DEFAULT_STORAGE_CLASS);
            if let Some(name) = found {
                object["spec"]["storageClassName"] = json!(name);
            }
        }
        if let Some(finalizer) = defaults::protection(asked) {
            defaults::add_finalizer(object, finalizer);
        }
        if new && asked.is("", "pods") {
            if let Some(class) = self.runtime_class(asked, object).await? {
                defaults::set_runtime_class(asked, object, &class)?;
            }
            self.give_topology(object)?;
        }
        if asked.is_sub("", "pods", "binding") {
            self.give_topology(object)?;
        }
        if new && asked.is("networking.k8s.io", "ingresses") && !defaults::has_ingress_class(object)
        {
            let classes = self.all("networking.k8s.io", "ingressclasses", None)?;
            let found = defaults::default_class(&classes, &defaults::DEFAULT_INGRESS_CLASS);
            if let Some(name) = found {
                object["spec"]["ingressClassName"] = json!(name);
            }
        }
        Ok(())
    }

    /// Asks the validating plugins about the object as it would be stored; of a
    /// deletion, about what it deletes.
    pub(crate) async fn validate(
        &self,
        asked: &Attributes<'_>,
        object: Option<&Value>,
        remarks: Remarks<'_>,
    ) -> Result<(), Failure> {
        self.ready(asked).await?;
        match object {
            Some(object) => self.validate_object(asked, object, remarks).await?,
            None => {
                let mut rounds = webhooks::Rounds::default();
                self.ask_mutating(asked, None, &mut rounds, false, remarks)
                    .await?;
            }
        }
        self.ask_policies(asked, object, remarks).await?;
        self.ask_validating(asked, object, remarks).await
    }

    /// Whether a selector of namespaces picks the one of the request.
    fn in_selected_namespace(
        &self,
        matching: &Matching,
        asked: &Attributes<'_>,
        object: Option<&Value>,
    ) -> Result<bool, Failure> {
        let namespace = match asked.namespace {
            Some(name) if matching.wants_namespace(asked) && !asked.of("", "namespaces") => {
                self.one("", "namespaces", None, name)?
            }
            _ => None,
        };
        Ok(matching.by_namespace(asked, object, namespace.as_ref()))
    }

    async fn validate_object(
        &self,
        asked: &Attributes<'_>,
        object: &Value,
        remarks: Remarks<'_>,
    ) -> Result<(), Failure> {
        if limits::handles(asked) {
            let ranges = self.all("", "limitranges", asked.namespace)?;
            limits::validate(asked, object, &ranges)?;
        }
        if service_account::handles(asked) {
            let named = object["spec"]["serviceAccountName"].as_str();
            let account = match named {
                Some(name) => self.account(asked, name).await?,
                None => None,
            };
            service_account::validate(asked, object, account.as_ref())?;
        }
        self.judge_pod_security(asked, object, remarks).await?;
        if asked.is("scheduling.k8s.io", "priorityclasses") && priority::handles(asked) {
            let classes = self.all("scheduling.k8s.io", "priorityclasses", None)?;
            priority::validate(asked, object, &classes)?;
        }
        if asked.is("", "persistentvolumeclaims") && asked.old.is_some() {
            let class = match defaults::storage_class(object) {
                Some(name) => self.one("storage.k8s.io", "storageclasses", None, name)?,
                None => None,
            };
            defaults::check_resize(asked, object, class.as_ref())?;
        }
        if asked.operation == Operation::Create && asked.is("", "pods") {
            let class = self.runtime_class(asked, object).await?;
            defaults::check_overhead(asked, object, class.as_ref())?;
        }
        Ok(())
    }

    async fn give_account(&self, asked: &Attributes<'_>, pod: &mut Value) -> Result<(), Failure> {
        let Some(name) = service_account::account_of(pod).map(str::to_owned) else {
            return Ok(());
        };
        let Some(account) = self.account(asked, &name).await? else {
            return Err(service_account::missing(asked, pod, &name).into());
        };
        service_account::mutate(pod, &account, &ids::name_suffix());
        Ok(())
    }

    async fn give_priority(&self, asked: &Attributes<'_>, pod: &mut Value) -> Result<(), Failure> {
        let (group, plural) = ("scheduling.k8s.io", "priorityclasses");
        let named = pod["spec"]["priorityClassName"]
            .as_str()
            .unwrap_or_default();
        let classes = match named {
            _ if asked.old.is_some() => Vec::new(),
            "" => self.all(group, plural, None)?,
            name => self
                .one_for_sure(group, plural, None, name)
                .await?
                .into_iter()
                .collect(),
        };
        Ok(priority::mutate(asked, pod, &classes)?)
    }

    async fn runtime_class(
        &self,
        asked: &Attributes<'_>,
        pod: &Value,
    ) -> Result<Option<Value>, Failure> {
        let Some(name) = pod["spec"]["runtimeClassName"].as_str() else {
            return Ok(None);
        };
        let found = self
            .one_for_sure("node.k8s.io", "runtimeclasses", None, name)
            .await?;
        match found {
            Some(class) => Ok(Some(class)),
            None => Err(defaults::missing_runtime_class(asked, pod).into()),
        }
    }

    fn give_topology(&self, pod: &mut Value) -> Result<(), Failure> {
        let name = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        if !name.is_empty()
            && let Some(node) = self.head("nodes", name)?
        {
            defaults::topology_labels(pod, &node);
        }
        Ok(())
    }

    async fn judge_pod_security(
        &self,
        asked: &Attributes<'_>,
        object: &Value,
        remarks: Remarks<'_>,
    ) -> Result<(), Failure> {
        if !pod_security::handles(asked) {
            return Ok(());
        }
        let judgement = if asked.of("", "namespaces") {
            let name = metadata_text(object, "name");
            let pods = || self.all("", "pods", Some(name)).unwrap_or_default();
            pod_security::judge_namespace(asked, object, pods)
        } else {
            let name = asked.namespace.unwrap_or_default();
            let found = self.head_for_sure("namespaces", name).await?;
            let namespace = found.ok_or_else(|| {
                ApiError::internal(format!("failed to lookup namespace \"{name}\""))
            })?;
            pod_security::judge(asked, object, &namespace)
        };
        judgement.warnings.into_iter().for_each(|w| remarks.warn(w));
        for (name, value) in judgement.audit {
            remarks.annotate(&format!("{}{name}", pod_security::AUDIT_PREFIX), &value);
        }
        match judgement.refused {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }
}

/// Refuses an object whose expressions can't be evaluated. Kinds without any pass.
pub(crate) fn check_expressions(
    resource: &Resource,
    old: Option<&Value>,
    object: &Value,
) -> Result<(), ApiError> {
    match resource.group.as_str() {
        "admissionregistration.k8s.io" => policy::check_written(resource, old, object),
        "resource.k8s.io" => devices::check_selectors(resource, old, object),
        _ => Ok(()),
    }
}
