//! What the leader's node does for credentials: it signs approved certificate requests,
//! fills secrets that ask for a token, and says by what nodes may trust the quorum.
//!
//! Invariants
//! - Whatever it does is found again by looking: a new leader goes on where the old one
//!   was lost.
//! - Only what is approved is signed, and only by what the request says it is for.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use nautilus_access::{bootstrap_token, certificates, token};
use nautilus_machine::types::KeyRange;
use nautilus_machine::{EventKind, WatchRequest};
use nautilus_machinery::conditions;
use nautilus_machinery::identity::User;
use nautilus_machinery::resource::{self, Resource};
use nautilus_machinery::strategy::DeleteOptions;
use serde_json::{Value, json};

use super::Access;
use crate::account::Account;
use crate::authority::Authority;
use crate::failure::{Failure, unless_ended};
use crate::ids;
use crate::storage::{Storage, Target, Writer, metadata_text, versioned_object};

/// Everything is looked at again after so long without a change.
const IDLE_PAUSE: Duration = Duration::from_secs(300);
/// The same after a refusal.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// The config map by which pods trust the API server.
const ROOT_CA: &str = "kube-root-ca.crt";
/// The config map by which joining nodes do.
const CLUSTER_INFO: &str = "cluster-info";
/// What its signatures' keys start with.
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";
/// The type of secrets that hold a service account's token.
const ACCOUNT_SECRET: &str = "kubernetes.io/service-account-token";
/// Annotations of such a secret.
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

static CERTIFICATES: Account = Account::new(|| User::controller("certificate-controller"));
static PUBLISHER: Account = Account::new(|| User::controller("root-ca-cert-publisher"));
static CLEANER: Account = Account::new(|| User::controller("token-cleaner"));
static SIGNER: Account = Account::new(|| User::controller("bootstrap-signer"));
/// Who fills secrets has no account of its own in the reference either.
static TOKENS: Account =
    Account::new(|| User::authenticated("system:kube-controller-manager", Vec::new()));

/// One term's work.
pub(crate) struct Leader<'a> {
    /// Fenced by the leader's term.
    pub(crate) storage: &'a Storage,
    /// In whose name the quorum introduces itself for the first time.
    pub(crate) writer: Writer<'a>,
    /// What decides, as of this node.
    pub(crate) access: &'a Arc<Access>,
    /// What signs.
    pub(crate) authority: &'a Authority,
}

/// The kinds that are looked after.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Requests,
    Secrets,
}

impl Kind {
    fn resource(self) -> Option<&'static Arc<Resource>> {
        match self {
            Self::Requests => {
                resource::find(certificates::GROUP, "v1", "certificatesigningrequests")
            }
            Self::Secrets => resource::find("", "v1", "secrets"),
        }
    }
}

impl Leader<'_> {
    /// Looks after a kind until dropped or the watch is lost.
    pub(crate) async fn keep(&self, kind: Kind) -> Result<(), Failure> {
        let Some(resource) = kind.resource() else {
            return std::future::pending().await;
        };
        let range = KeyRange::prefix(resource.storage_prefix());
        let mut watcher = self.storage.kv.watch(WatchRequest {
            range: range.clone(),
            from: None,
            previous: false,
        })?;
        loop {
            self.storage.barrier().await?;
            let (rows, _) = self.storage.rows(range.clone()).await?;
            let mut pause = IDLE_PAUSE;
            for row in &rows {
                let object = versioned_object(resource, row)?;
                allowed(self.look(kind, &object).await, &mut pause)?;
            }
            allowed(self.introduce().await, &mut pause)?;
            while let Ok(events) = tokio::time::timeout(pause, watcher.next()).await {
                for event in events? {
                    if event.kind == EventKind::Put {
                        let object = versioned_object(resource, &event.kv)?;
                        allowed(self.look(kind, &object).await, &mut pause)?;
                    }
                }
                if matches!(kind, Kind::Secrets) {
                    allowed(self.introduce().await, &mut pause)?;
                }
            }
        }
    }

    async fn look(&self, kind: Kind, object: &Value) -> Result<(), Failure> {
        match kind {
            Kind::Requests => self.request(object).await,
            Kind::Secrets => match object["type"].as_str() {
                Some(ACCOUNT_SECRET) => self.account_secret(object).await,
                Some(bootstrap_token::SECRET_TYPE)
                    if bootstrap_token::has_expired(object, ids::now_unix_s()) =>
                {
                    self.delete("", "secrets", object, &CLEANER).await
                }
                _ => Ok(()),
            },
        }
    }

    async fn request(&self, object: &Value) -> Result<(), Failure> {
        if certificates::is_stale(object, ids::now_unix_s()) {
            let plural = "certificatesigningrequests";
            let group = certificates::GROUP;
            return self.delete(group, plural, object, &CERTIFICATES).await;
        }
        self.access.ready(CERTIFICATES.user()).await;
        let may = |user: &_, asked: &_| self.access.authorize(user, asked).is_allowed();
        if let Some(message) = certificates::auto_approval(object, &may) {
            let condition = condition("Approved", "AutoApproved", message);
            return self
                .change_request(object, "approval", |present| {
                    // Somebody may have decided meanwhile.
                    let decided = ["Approved", "Denied"]
                        .iter()
                        .any(|kind| certificates::has_condition(present, kind));
                    (!decided).then(|| with_condition(present, &condition))
                })
                .await;
        }
        let Some(wanted) = certificates::to_sign(object) else {
            return Ok(());
        };
        let validity = Duration::from_secs(certificates::lifetime_s(object));
        let usages = certificates::usages_of(object);
        let issued = wanted.and_then(|request| {
            self.authority
                .issue_requested(&request, &usages, validity)
                .map_err(|error| error.to_string())
        });
        match issued {
            Ok(pem) => {
                tracing::info!(
                    request = metadata_text(object, "name"),
                    user = certificates::requester(object).name,
                    "signed a certificate request"
                );
                self.change_request(object, "status", |present| {
                    certificates::to_sign(present).map(|_| {
                        let mut wanted = present.clone();
                        wanted["status"]["certificate"] = STANDARD.encode(&pem).into();
                        wanted
                    })
                })
                .await
            }
            Err(why) => {
                let condition = condition("Failed", "SignerValidationFailure", &why);
                self.change_request(object, "status", |present| {
                    certificates::to_sign(present).map(|_| with_condition(present, &condition))
                })
                .await
            }
        }
    }

    async fn change_request(
        &self,
        object: &Value,
        subresource: &str,
        change: impl Fn(&Value) -> Option<Value> + Send + Sync,
    ) -> Result<(), Failure> {
        let Some(resource) = Kind::Requests.resource() else {
            return Ok(());
        };
        let target = Target {
            resource,
            namespace: None,
            name: metadata_text(object, "name"),
            subresource: Some(subresource),
        };
        let change = |present: &Value| Ok(change(present).unwrap_or_else(|| present.clone()));
        let writer = CERTIFICATES.writer();
        lost(self.storage.update(&target, &writer, change).await)
    }

    /// A secret that asks for a token gets it; one whose account is gone, goes.
    async fn account_secret(&self, secret: &Value) -> Result<(), Failure> {
        let namespace = metadata_text(secret, "namespace");
        let annotation = |key: &str| {
            secret["metadata"]["annotations"][key]
                .as_str()
                .unwrap_or_default()
        };
        let name = annotation(ACCOUNT_NAME);
        if name.is_empty() || !secret["metadata"]["deletionTimestamp"].is_null() {
            return Ok(());
        }
        let account = self.access.lookup("", "serviceaccounts", namespace, name)?;
        let given = annotation(ACCOUNT_UID);
        let account =
            account.filter(|account| given.is_empty() || metadata_text(account, "uid") == given);
        let Some(account) = account else {
            return self.delete("", "secrets", secret, &TOKENS).await;
        };
        let ca = STANDARD.encode(self.authority.certificate_pem());
        let held = |key: &str| secret["data"][key].as_str().unwrap_or_default();
        let uid = metadata_text(&account, "uid").to_owned();
        if held("ca.crt") == ca
            && held("namespace") == STANDARD.encode(namespace)
            && !held("token").is_empty()
            && given == uid
        {
            return Ok(());
        }
        let claims = token::legacy_claims(&account, secret);
        let token = STANDARD.encode(self.access.accounts.sign(&claims).await?);
        let fill = |present: &Value| {
            let mut wanted = present.clone();
            wanted["metadata"]["annotations"][ACCOUNT_UID] = uid.as_str().into();
            if wanted["data"].is_null() {
                wanted["data"] = json!({});
            }
            wanted["data"]["ca.crt"] = ca.as_str().into();
            wanted["data"]["namespace"] = STANDARD.encode(namespace).into();
            if wanted["data"]["token"].as_str().is_none_or(str::is_empty) {
                wanted["data"]["token"] = token.as_str().into();
            }
            Ok(wanted)
        };
        let Some(resource) = Kind::Secrets.resource() else {
            return Ok(());
        };
        let target = Target {
            resource,
            namespace: Some(namespace),
            name: metadata_text(secret, "name"),
            subresource: None,
        };
        lost(self.storage.update(&target, &TOKENS.writer(), fill).await)
    }

    /// `cluster-info`: where the quorum is and by which authority it is known, signed
    /// with every bootstrap token that may sign.
    async fn introduce(&self) -> Result<(), Failure> {
        let (Some(maps), Some(secrets)) = (
            resource::find("", "v1", "configmaps"),
            Kind::Secrets.resource(),
        ) else {
            return Ok(());
        };
        let present = self
            .access
            .lookup("", "configmaps", "kube-public", CLUSTER_INFO)?;
        let ca = STANDARD.encode(self.authority.certificate_pem());
        let kubeconfig = present
            .as_ref()
            .and_then(|map| map["data"]["kubeconfig"].as_str())
            .filter(|known| known.contains(&ca))
            .map(str::to_owned);
        let kubeconfig = match (kubeconfig, self.storage.kv.leadership().leader) {
            (Some(known), _) => known,
            (None, Some(leader)) => introduction(&leader.api_address, &ca),
            (None, None) => return Ok(()),
        };
        let range = KeyRange::prefix(secrets.namespace_prefix(bootstrap_token::NAMESPACE));
        let (rows, _) = self.storage.rows(range).await?;
        let mut data = json!({ "kubeconfig": kubeconfig });
        for row in &rows {
            let secret = versioned_object(secrets, row)?;
            if bootstrap_token::is_usable(&secret, "signing", ids::now_unix_s()) {
                let id = bootstrap_token::data(&secret, "token-id");
                let key = bootstrap_token::data(&secret, "token-secret");
                data[format!("{SIGNATURE_PREFIX}{id}")] = signature(&kubeconfig, &id, &key).into();
            }
        }
        if present.as_ref().is_some_and(|map| map["data"] == data) {
            return Ok(());
        }
        let (namespace, name) = ("kube-public", CLUSTER_INFO);
        // Its role names the map: it can't make it.
        let writer = match present {
            Some(_) => SIGNER.writer(),
            None => self.writer,
        };
        put_config_map(self.storage, &writer, maps, namespace, name, &data).await
    }

    async fn delete(
        &self,
        group: &str,
        plural: &str,
        object: &Value,
        account: &Account,
    ) -> Result<(), Failure> {
        let Some(resource) = resource::find(group, "v1", plural) else {
            return Ok(());
        };
        let target = Target {
            resource,
            namespace: Some(metadata_text(object, "namespace")).filter(|text| !text.is_empty()),
            name: metadata_text(object, "name"),
            subresource: None,
        };
        let options = DeleteOptions::from_value(&json!({
            "preconditions": { "uid": metadata_text(object, "uid") },
        }))?;
        let writer = account.writer();
        lost(self.storage.delete(&target, &options, &writer).await)
    }
}

/// What a role refuses is tried again soon, and stops nothing else.
fn allowed(outcome: Result<(), Failure>, pause: &mut Duration) -> Result<(), Failure> {
    match outcome {
        Err(failure) if failure.error.code() == 403 => {
            *pause = REFUSED_PAUSE;
            Ok(())
        }
        outcome => outcome,
    }
}

/// Gives a namespace the config map by which its pods trust the API server.
pub(crate) async fn ensure_root_ca(
    storage: &Storage,
    namespace: &str,
    pem: &str,
) -> Result<(), Failure> {
    let Some(maps) = resource::find("", "v1", "configmaps") else {
        return Ok(());
    };
    let data = json!({ "ca.crt": pem });
    let present = storage.read(maps, &maps.key(Some(namespace), ROOT_CA))?;
    if present.is_some_and(|row| row.object["data"] == data) {
        return Ok(());
    }
    let writer = PUBLISHER.writer();
    put_config_map(storage, &writer, maps, namespace, ROOT_CA, &data).await
}

async fn put_config_map(
    storage: &Storage,
    writer: &Writer<'_>,
    maps: &Resource,
    namespace: &str,
    name: &str,
    data: &Value,
) -> Result<(), Failure> {
    let target = Target {
        resource: maps,
        namespace: Some(namespace),
        name,
        subresource: None,
    };
    let with_data = |present: &Value| {
        let mut wanted = present.clone();
        wanted["data"] = data.clone();
        Ok(wanted)
    };
    match storage.update(&target, writer, with_data).await {
        Err(failure) if failure.error.code() == 404 => {
            let mut object = json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": { "name": name, "namespace": namespace },
                "data": data,
            });
            if name == ROOT_CA {
                object["metadata"]["annotations"] = json!({
                    "kubernetes.io/description":
                        "Contains a CA bundle that can be used to verify the kube-apiserver when \
                         using internal endpoints such as the internal service IP or \
                         kubernetes.default.svc. No other usage is guaranteed across \
                         distributions of Kubernetes clusters.",
                });
            }
            lost(storage.create(maps, Some(namespace), object, writer).await)
        }
        outcome => lost(outcome),
    }
}

fn introduction(address: &str, ca: &str) -> String {
    format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {ca}\n    server: \
         {address}\n  name: \"\"\ncontexts: null\ncurrent-context: \"\"\nkind: Config\nusers: null\n"
    )
}

/// RFC 7515, appendix F: HS256 over content that is not repeated.
fn signature(content: &str, id: &str, key: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(json!({ "alg": "HS256", "kid": id }).to_string());
    let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let tag = hmac::sign(&key, message.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(tag))
}

fn condition(kind: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastUpdateTime": ids::now_rfc3339(),
        "lastTransitionTime": ids::now_rfc3339(),
    })
}

fn with_condition(object: &Value, condition: &Value) -> Value {
    let mut wanted = object.clone();
    conditions::set(&mut wanted["status"], condition);
    wanted
}

/// Somebody else changed or removed it meanwhile, or its namespace goes: the next look
/// sees to it. What the object itself makes impossible is told, and not tried again.
fn lost<T>(outcome: Result<T, Failure>) -> Result<(), Failure> {
    match unless_ended(outcome) {
        Err(failure) if failure.error.code() < 500 && failure.error.code() != 403 => {
            tracing::warn!(error = %failure.error, "a credential could not be looked after");
            Ok(())
        }
        outcome => outcome,
    }
}
