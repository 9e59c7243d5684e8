//! The leader's controllers have the rights of their accounts' roles: no more, no less, and
//! one without them holds up nobody else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::admission::Led;
use crate::definitions::MERGE;
use crate::world::within;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const DEFAULT: &str = "/api/v1/namespaces/default";

/// What a controller is seen to do.
struct Deed {
    /// Its account.
    account: &'static str,
    /// Its role.
    role: String,
    /// What its role is asked for: verb, group, resource and subresource.
    right: [&'static str; 4],
    /// What is made, and where.
    made: Vec<(&'static str, Value)>,
    /// What is deleted then.
    deleted: Option<&'static str>,
    /// Where it is seen that it was done.
    seen: &'static str,
    done: fn(StatusCode, &Value) -> bool,
}

fn gone(status: StatusCode, _: &Value) -> bool {
    status == StatusCode::NOT_FOUND
}

fn there(status: StatusCode, _: &Value) -> bool {
    status == StatusCode::OK
}

fn deed(
    account: &'static str,
    right: [&'static str; 4],
    made: Vec<(&'static str, Value)>,
    (seen, done): (&'static str, fn(StatusCode, &Value) -> bool),
) -> Deed {
    Deed {
        account,
        role: format!("{RBAC}/clusterroles/system:controller:{account}"),
        right,
        made,
        deleted: None,
        seen,
        done,
    }
}

fn named(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

/// The four that must not stop each other.
fn main_deeds() -> Vec<Deed> {
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let maps = "/api/v1/namespaces/default/configmaps";
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "none"});
    let orphan = json!({"metadata": {"name": "orphan", "ownerReferences": [owner]}});
    let few = json!({"metadata": {"name": "few"}, "spec": {"hard": {"secrets": "9"}}});
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}});
    let collected = deed(
        "generic-garbage-collector",
        ["delete", "", "configmaps", ""],
        vec![(maps, orphan)],
        ("/api/v1/namespaces/default/configmaps/orphan", gone),
    );
    vec![
        collected,
        deed(
            "resourcequota-controller",
            ["update", "", "resourcequotas", "status"],
            vec![(quotas, few)],
            (
                "/api/v1/namespaces/default/resourcequotas/few",
                |_, quota| quota["status"]["used"]["secrets"].is_string(),
            ),
        ),
        deed(
            "namespace-controller",
            ["update", "", "namespaces", "finalize"],
            vec![("/api/v1/namespaces", named("short"))],
            ("/api/v1/namespaces/short", gone),
        )
        .ending(),
        deed(
            "pvc-protection-controller",
            ["update", "", "persistentvolumeclaims", ""],
            vec![(claims, claim)],
            ("/api/v1/namespaces/default/persistentvolumeclaims/c", gone),
        )
        .ending(),
    ]
}

/// The others that are no part of the kit.
fn other_deeds() -> Vec<Deed> {
    let secrets = "/api/v1/namespaces/default/secrets";
    let volume = json!({"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/v"}}});
    let gathers = json!([{"matchLabels": {"gathered": "yes"}}]);
    let gathering = json!({"metadata": {"name": "all"}, "rules": [],
        "aggregationRule": {"clusterRoleSelectors": gathers}});
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    let gathered = json!({"metadata": {"name": "part", "labels": {"gathered": "yes"}},
        "rules": rules});
    let token = json!({"metadata": {"name": "t", "annotations":
        {"kubernetes.io/service-account.name": "default"}},
        "type": "kubernetes.io/service-account-token"});
    let expired = json!({"metadata": {"name": "bootstrap-token-abcdef"},
        "type": "bootstrap.kubernetes.io/token", "data": {
            "token-id": STANDARD.encode("abcdef"),
            "token-secret": STANDARD.encode("0123456789abcdef"),
            "expiration": STANDARD.encode("2020-01-01T00:00:00Z")}});
    let signing = json!({"metadata": {"name": "bootstrap-token-fedcba"},
        "type": "bootstrap.kubernetes.io/token", "data": {
            "token-id": STANDARD.encode("fedcba"),
            "token-secret": STANDARD.encode("0123456789abcdef"),
            "usage-bootstrap-signing": STANDARD.encode("true")}});
    let range = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.7.0.0/24"]}});
    let policy = json!({"metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
            "operations": ["CREATE"], "resources": ["secrets"]}]},
        "validations": [{"expression": "true"}]}});
    let mut cleaner = deed(
        "token-cleaner",
        ["delete", "", "secrets", ""],
        vec![("/api/v1/namespaces/kube-system/secrets", expired)],
        (
            "/api/v1/namespaces/kube-system/secrets/bootstrap-token-abcdef",
            gone,
        ),
    );
    cleaner.role = format!("{RBAC}/namespaces/kube-system/roles/system:controller:token-cleaner");
    let mut signer = deed(
        "bootstrap-signer",
        ["update", "", "configmaps", ""],
        vec![("/api/v1/namespaces/kube-system/secrets", signing)],
        (
            "/api/v1/namespaces/kube-public/configmaps/cluster-info",
            |_, map| map["data"]["jws-kubeconfig-fedcba"].is_string(),
        ),
    );
    signer.role = format!("{RBAC}/namespaces/kube-public/roles/system:controller:bootstrap-signer");
    let mut tokens = deed(
        "system:kube-controller-manager",
        ["update", "", "secrets", ""],
        vec![(secrets, token)],
        ("/api/v1/namespaces/default/secrets/t", |_, secret| {
            secret["data"]["token"].is_string()
        }),
    );
    tokens.role = format!("{RBAC}/clusterroles/system:kube-controller-manager");
    vec![
        deed(
            "pv-protection-controller",
            ["update", "", "persistentvolumes", ""],
            vec![("/api/v1/persistentvolumes", volume)],
            ("/api/v1/persistentvolumes/v", gone),
        )
        .ending(),
        deed(
            "clusterrole-aggregation-controller",
            ["update", "rbac.authorization.k8s.io", "clusterroles", ""],
            vec![
                ("/apis/rbac.authorization.k8s.io/v1/clusterroles", gathering),
                ("/apis/rbac.authorization.k8s.io/v1/clusterroles", gathered),
            ],
            (
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/all",
                |_, role| role["rules"][0]["resources"][0] == "pods",
            ),
        ),
        deed(
            "root-ca-cert-publisher",
            ["create", "", "configmaps", ""],
            vec![("/api/v1/namespaces", named("new"))],
            ("/api/v1/namespaces/new/configmaps/kube-root-ca.crt", there),
        ),
        deed(
            "service-account-controller",
            ["create", "", "serviceaccounts", ""],
            Vec::new(),
            ("/api/v1/namespaces/new/serviceaccounts/default", there),
        ),
        deed(
            "service-cidrs-controller",
            ["update", "networking.k8s.io", "servicecidrs", "status"],
            vec![("/apis/networking.k8s.io/v1/servicecidrs", range)],
            (
                "/apis/networking.k8s.io/v1/servicecidrs/more",
                |_, range| range["status"]["conditions"][0]["status"] == "True",
            ),
        ),
        deed(
            "validatingadmissionpolicy-status-controller",
            [
                "update",
                "admissionregistration.k8s.io",
                "validatingadmissionpolicies",
                "status",
            ],
            vec![(
                "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
                policy,
            )],
            (
                "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/p",
                |_, policy| policy["status"]["observedGeneration"] == 1,
            ),
        ),
        cleaner,
        signer,
        tokens,
    ]
}

impl Deed {
    /// The same of what is deleted once it is made.
    fn ending(self) -> Self {
        Self {
            deleted: Some(self.seen),
            ..self
        }
    }

    fn user(&self) -> String {
        match self.account.contains(':') {
            true => self.account.to_owned(),
            false => format!("system:serviceaccount:kube-system:{}", self.account),
        }
    }

    /// Waits until the face would let the account do it, or would not.
    async fn until_it_may(&self, led: &Led, may: bool) {
        let [verb, group, resource, subresource] = self.right;
        let namespace = match self.role.split_once("/namespaces/") {
            Some((_, rest)) => rest.split('/').next().unwrap_or_default(),
            None => "default",
        };
        let name = match self.account {
            "bootstrap-signer" => "cluster-info",
            _ => "",
        };
        let review = json!({"spec": {"user": self.user(), "resourceAttributes": {
            "verb": verb, "group": group, "resource": resource, "subresource": subresource,
            "namespace": namespace, "name": name}}});
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        within(async {
            loop {
                let (_, answer) = led.world.call(Method::POST, path, &review).await;
                if answer["status"]["allowed"] == may {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// Takes everything from the account's role; gives what it was.
    async fn take(&self, led: &Led) -> Value {
        let role = led.until(&self.role, there).await;
        self.until_it_may(led, true).await;
        set(led, &self.role, &json!([]), false).await;
        self.until_it_may(led, false).await;
        role["rules"].clone()
    }

    async fn begin(&self, led: &Led) {
        for (path, object) in &self.made {
            led.make(path, object).await;
        }
        if let Some(path) = self.deleted {
            led.world.delete(path).await;
        }
    }

    async fn is_done(&self, led: &Led) -> bool {
        let (status, object) = led.world.get(self.seen).await;
        (self.done)(status, &object)
    }
}

async fn set(led: &Led, role: &str, rules: &Value, kept: bool) {
    let change = json!({"rules": rules,
        "metadata": {"annotations": {AUTO_UPDATE: kept.to_string()}}});
    let answer = led
        .world
        .send(Method::PATCH, role, MERGE, change.to_string());
    assert_eq!(answer.await.status(), StatusCode::OK, "{role}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_controller_has_other_rights_than_its_role_gives() {
    let led = Led::start().await;
    led.until(&format!("{DEFAULT}/configmaps/kube-root-ca.crt"), there)
        .await;
    let mut deeds = main_deeds();
    deeds.extend(other_deeds());
    let mut taken = Vec::new();
    for deed in &deeds {
        taken.push(deed.take(&led).await);
    }
    for deed in &deeds {
        deed.begin(&led).await;
    }
    // One of the kit does its work meanwhile.
    let pod = json!({"metadata": {"labels": {"app": "a"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let set_of_pods = json!({"metadata": {"name": "a"}, "spec": {"replicas": 1,
        "selector": {"matchLabels": {"app": "a"}}, "template": pod}});
    led.make("/apis/apps/v1/namespaces/default/replicasets", &set_of_pods)
        .await;
    led.until(&format!("{DEFAULT}/pods"), |_, list| {
        list["items"].as_array().is_some_and(|pods| pods.len() == 1)
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    for deed in &deeds {
        assert!(!deed.is_done(&led).await, "{} did it", deed.account);
    }
    for (deed, rules) in deeds.iter().zip(&taken) {
        set(&led, &deed.role, rules, true).await;
    }
    for deed in &deeds {
        led.until(deed.seen, deed.done).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_without_its_rights_holds_up_no_other() {
    for at in 0..main_deeds().len() {
        let led = Led::start().await;
        let deeds = main_deeds();
        let rules = deeds[at].take(&led).await;
        for deed in &deeds {
            deed.begin(&led).await;
        }
        for (other, deed) in deeds.iter().enumerate() {
            if other != at {
                led.until(deed.seen, deed.done).await;
            }
        }
        assert!(!deeds[at].is_done(&led).await, "{}", deeds[at].account);
        set(&led, &deeds[at].role, &rules, true).await;
        led.until(deeds[at].seen, deeds[at].done).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_says_what_its_controller_may_not_delete() {
    let led = Led::start().await;
    let role = format!("{RBAC}/clusterroles/system:controller:namespace-controller");
    let rules = led.until(&role, there).await["rules"].clone();
    led.until(&format!("{DEFAULT}/configmaps/kube-root-ca.crt"), there)
        .await;
    let parts = json!([{"apiGroups": [""], "verbs": ["update"],
        "resources": ["namespaces/finalize", "namespaces/status"]}]);
    let deed = &main_deeds()[2];
    deed.take(&led).await;
    set(&led, &role, &parts, false).await;
    deed.until_it_may(&led, true).await;
    led.make("/api/v1/namespaces", &named("short")).await;
    led.until(
        "/api/v1/namespaces/short/configmaps/kube-root-ca.crt",
        there,
    )
    .await;
    led.world.delete(deed.seen).await;
    let why = "User \\\"system:serviceaccount:kube-system:namespace-controller\\\" cannot delete \
               resource \\\"configmaps\\\"";
    led.until(deed.seen, |_, namespace| {
        let conditions = namespace["status"]["conditions"].to_string();
        conditions.contains("ContentDeletionFailed") && conditions.contains(why)
    })
    .await;
    set(&led, &role, &rules, true).await;
    led.until(deed.seen, gone).await;
}
