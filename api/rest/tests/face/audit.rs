//! The audit log: what is recorded of requests, and that a gap shows.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nautilus_machinery::identity::{AuditNote, User};
use nautilus_rest::audit::chain::{SignedHead, verify};
use nautilus_rest::audit::{Audit, HeadSigner, LogFile};
use nautilus_rest::{RequestLimits, router_with};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::webhooks::{Hooks, patch};
use crate::world::{World, within};

fn signer() -> HeadSigner {
    Arc::new(|head| {
        let hash = head.sha256.map(|byte| format!("{byte:02x}")).concat();
        Box::pin(std::future::ready(Ok(SignedHead {
            cluster: "test".into(),
            node: 1,
            time_ms: 1,
            public_key: String::new(),
            signature: hash,
            evidence: String::new(),
        })))
    })
}

/// A log of that folder, in one file.
fn whole_log(folder: &Path) -> LogFile {
    LogFile {
        path: folder.join("audit.log"),
        max_bytes: 0,
        max_backups: 0,
        max_age: Duration::ZERO,
    }
}

/// A log of every request's metadata, while it is written.
pub(crate) struct Metadata {
    folder: tempfile::TempDir,
    stop: CancellationToken,
    written: tokio::task::JoinHandle<()>,
}

impl Metadata {
    pub(crate) fn start() -> (Self, Arc<Audit>) {
        let folder = tempfile::tempdir().unwrap();
        let policy = json!({
            "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{ "level": "Metadata" }],
        });
        let stop = CancellationToken::new();
        let file = whole_log(folder.path());
        let (audit, written) = Audit::start(policy, file, signer(), stop.clone()).unwrap();
        let log = Self {
            folder,
            stop,
            written,
        };
        (log, audit)
    }

    /// Ends it; the events that were written.
    pub(crate) async fn end(self) -> Vec<Value> {
        self.stop.cancel();
        self.written.await.unwrap();
        let text = std::fs::read_to_string(whole_log(self.folder.path()).path).unwrap();
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

#[tokio::test]
async fn what_another_face_notes_stands_in_the_event_of_its_answer() {
    let (log, audit) = Metadata::start();
    let world =
        World::start_audited(User::anonymous(), RequestLimits::default(), Some(audit)).await;
    let refuse = || async {
        let note = AuditNote {
            key: "nautilus.io/seal-token-refused",
            value: "OtherKey".to_owned(),
        };
        (StatusCode::UNAUTHORIZED, axum::Extension(note))
    };
    let others = axum::Router::new().route("/refuse", axum::routing::get(refuse));
    let face = router_with(world.context.clone(), others);
    let mut request = axum::extract::Request::new(axum::body::Body::empty());
    *request.uri_mut() = "/refuse".parse().unwrap();
    request.extensions_mut().insert(User::anonymous());
    face.oneshot(request).await.unwrap();
    let mut events = log.end().await.into_iter();
    let event = events
        .find(|event| event["stage"] == "ResponseComplete")
        .expect("recorded");
    assert_eq!(event["requestURI"], "/refuse");
    assert_eq!(event["responseStatus"]["code"], 401);
    assert_eq!(
        event["annotations"]["nautilus.io/seal-token-refused"],
        "OtherKey"
    );
}

#[tokio::test]
async fn requests_are_recorded_by_policy_in_a_chain() {
    let folder = tempfile::tempdir().unwrap();
    let file = whole_log(folder.path());
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            { "level": "None", "nonResourceURLs": ["/livez"] },
            { "level": "Metadata", "resources": [{ "group": "", "resources": ["secrets"] }] },
            { "level": "RequestResponse" },
        ],
    });
    let stop = CancellationToken::new();
    let (audit, written) = Audit::start(policy, file.clone(), signer(), stop.clone()).unwrap();
    let admin = User::authenticated("admin", vec!["system:masters".into()]);
    let world = World::start_audited(admin, RequestLimits::default(), Some(audit)).await;
    world.get("/livez").await;
    let secret = json!({ "metadata": { "name": "s" }, "data": { "k": "c2VjcmV0" } });
    let secrets = "/api/v1/namespaces/default/secrets";
    world.call(Method::POST, secrets, &secret).await;
    world
        .config_map("c", &json!({}), &json!({ "k": "v" }))
        .await;
    world
        .get("/api/v1/namespaces/default/configmaps/gone")
        .await;
    let mut watch = world
        .watch("/api/v1/namespaces/default/configmaps?watch=1")
        .await;
    watch.next().await;
    drop(watch);
    stop.cancel();
    written.await.unwrap();
    let text = std::fs::read_to_string(&file.path).unwrap();
    assert!(!text.contains("c2VjcmV0"), "{text}");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<(&str, &str, u64)> = lines
        .iter()
        .filter(|line| line["kind"] == "Event")
        .map(|line| {
            (
                line["verb"].as_str().unwrap(),
                line["stage"].as_str().unwrap(),
                line["responseStatus"]["code"].as_u64().unwrap(),
            )
        })
        .take(4)
        .collect();
    assert_eq!(
        told,
        [
            ("create", "ResponseComplete", 201),
            ("create", "ResponseComplete", 201),
            ("get", "ResponseComplete", 404),
            ("watch", "ResponseStarted", 200),
        ]
    );
    assert_eq!(lines[0]["objectRef"]["resource"], "secrets");
    assert!(lines[0]["requestObject"].is_null(), "{}", lines[0]);
    assert_eq!(lines[1]["requestObject"]["data"]["k"], "v");
    assert_eq!(lines[1]["responseObject"]["metadata"]["name"], "c");
    assert_eq!(
        lines[1]["annotations"]["authorization.k8s.io/decision"],
        "allow"
    );
    assert_eq!(lines[2]["responseStatus"]["reason"], "NotFound");
    let check = |text: &str| {
        verify(text.lines(), &|signed, statement| {
            let hash = statement
                .head
                .sha256
                .map(|byte| format!("{byte:02x}"))
                .concat();
            (signed.signature == hash)
                .then_some(())
                .ok_or_else(|| "unsigned".to_owned())
        })
    };
    let verified = check(&text).expect("the log holds");
    assert_eq!((verified.heads, verified.unsigned), (1, 0));
    let gap: Vec<&str> = text
        .lines()
        .enumerate()
        .filter(|(at, _)| *at != 1)
        .map(|(_, line)| line)
        .collect();
    assert!(check(&gap.join("\n")).is_err());
}

/// A world whose audit log lies in a folder of its own.
struct Audited {
    world: World,
    folder: tempfile::TempDir,
}

impl Audited {
    async fn start(level: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = whole_log(folder.path());
        let policy = json!({
            "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
            "omitStages": ["RequestReceived"], "rules": [{ "level": level }],
        });
        let stop = CancellationToken::new();
        let (audit, _) = Audit::start(policy, file, signer(), stop).unwrap();
        let admin = User::authenticated("admin", vec!["system:masters".into()]);
        let world = World::start_audited(admin, RequestLimits::default(), Some(audit)).await;
        Self { world, folder }
    }

    async fn make(&self, path: &str, object: &Value) -> Value {
        let (status, made) = self.world.call(Method::POST, path, object).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        made
    }

    /// The annotations of the first event that holds: it is asked for again and again.
    async fn annotations(
        &self,
        path: &str,
        object: impl Fn(usize) -> Value,
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        within(async {
            for index in 0.. {
                self.world.call(Method::POST, path, &object(index)).await;
                let text = std::fs::read_to_string(self.folder.path().join("audit.log")).unwrap();
                let found = text
                    .lines()
                    .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                    .map(|event| event["annotations"].clone())
                    .find(|annotations| holds(annotations));
                if let Some(found) = found {
                    return found;
                }
            }
            unreachable!("the loop has no end");
        })
        .await
    }
}

const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(index: usize) -> Value {
    json!({"metadata": {"name": format!("m-{index}")}})
}

/// A mutating webhook that patches, one that does not, one that fails and may; a
/// validating one that fails and may.
async fn hooked(level: &str) -> Value {
    let audited = Audited::start(level).await;
    let hooks = Hooks::start(&audited.world, |request| {
        let mut answer = match request["name"].as_str() {
            Some(name) if name.starts_with("m-") => {
                patch(&json!([{"op": "add", "path": "/metadata/labels", "value": {"seen": "yes"}}]))
            }
            _ => json!({"allowed": true}),
        };
        answer["auditAnnotations"] = json!({"seen": "first", "no name": "is left out"});
        answer
    })
    .await;
    let mut failing = hooks.webhook("failing.example.com");
    failing["failurePolicy"] = json!("Ignore");
    failing["clientConfig"]["url"] = json!("https://127.0.0.1:1/");
    for (plural, webhooks) in [
        (
            "mutatingwebhookconfigurations",
            json!([hooks.webhook("first.example.com"), failing]),
        ),
        ("validatingwebhookconfigurations", json!([failing])),
    ] {
        let object = json!({"metadata": {"name": "hooks"}, "webhooks": webhooks});
        audited
            .make(&format!("{CONFIGURATIONS}/{plural}"), &object)
            .await;
    }
    audited
        .annotations(MAPS, map, |found| {
            [
                "failed-open.validating.webhook.admission.k8s.io/round_0_index_0",
                "mutation.webhook.admission.k8s.io/round_0_index_0",
            ]
            .iter()
            .all(|key| found[key].is_string())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_webhooks_did_is_in_the_audit_log() {
    let mut found = hooked("Request").await;
    // The chain's own.
    let annotations = found.as_object_mut().unwrap();
    annotations.retain(|key, _| !key.starts_with("audit.nautilus/"));
    assert_eq!(
        found,
        json!({
            "authorization.k8s.io/decision": "allow",
            "authorization.k8s.io/reason": "",
            "failed-open.mutation.webhook.admission.k8s.io/round_0_index_1": "failing.example.com",
            "failed-open.validating.webhook.admission.k8s.io/round_0_index_0":
                "failing.example.com",
            "first.example.com/seen": "first",
            "mutation.webhook.admission.k8s.io/round_0_index_0":
                r#"{"configuration":"hooks","webhook":"first.example.com","mutated":true}"#,
            "mutation.webhook.admission.k8s.io/round_0_index_1":
                r#"{"configuration":"hooks","webhook":"failing.example.com","mutated":false}"#,
            "patch.webhook.admission.k8s.io/round_0_index_0": concat!(
                r#"{"configuration":"hooks","webhook":"first.example.com","#,
                r#""patch":[{"op":"add","path":"/metadata/labels","value":{"seen":"yes"}}],"#,
                r#""patchType":"JSONPatch"}"#,
            ),
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_is_no_metadata() {
    let found = hooked("Metadata").await;
    let key = "patch.webhook.admission.k8s.io/round_0_index_0";
    assert_eq!(found.get(key), None);
    assert_eq!(found["first.example.com/seen"], "first");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_policies_found_is_in_the_audit_log() {
    let audited = Audited::start("Metadata").await;
    let policy = json!({"metadata": {"name": "sizes"}, "spec": {
        "matchConstraints": {"resourceRules": [{
            "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
            "resources": ["configmaps"],
        }]},
        "validations": [
            {"expression": "true"},
            {"expression": "has(object.data)", "message": "no data"},
        ],
        "auditAnnotations": [{"key": "named", "valueExpression": "'made ' + object.kind"}],
    }});
    let policies = format!("{CONFIGURATIONS}/validatingadmissionpolicies");
    audited.make(&policies, &policy).await;
    let binding = json!({"metadata": {"name": "softly"}, "spec": {
        "policyName": "sizes", "validationActions": ["Warn", "Audit"],
    }});
    let bindings = format!("{CONFIGURATIONS}/validatingadmissionpolicybindings");
    audited.make(&bindings, &binding).await;
    let key = "validation.policy.admission.k8s.io/validation_failure";
    let found = audited
        .annotations(MAPS, map, |found| found[key].is_string())
        .await;
    assert_eq!(
        found[key],
        concat!(
            r#"[{"message":"no data","policy":"sizes","binding":"softly","expressionIndex":1,"#,
            r#""validationActions":["Warn","Audit"]}]"#,
        )
    );
    assert_eq!(found["sizes/named"], "made ConfigMap");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_pod_security_standards_say_is_in_the_audit_log() {
    let audited = Audited::start("Metadata").await;
    let namespace = json!({"metadata": {"name": "strict", "labels": {
        "pod-security.kubernetes.io/enforce": "baseline",
        "pod-security.kubernetes.io/audit": "restricted",
    }}});
    audited.make("/api/v1/namespaces", &namespace).await;
    let template = |index: usize| {
        json!({
            "metadata": {"name": format!("t-{index}")},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "i", "securityContext": {
                    "allowPrivilegeEscalation": false, "runAsNonRoot": true,
                    "capabilities": {"drop": ["ALL"]},
                }}]},
            },
        })
    };
    let key = "pod-security.kubernetes.io/audit-violations";
    let templates = "/api/v1/namespaces/strict/podtemplates";
    let found = audited
        .annotations(templates, template, |found| found[key].is_string())
        .await;
    assert_eq!(
        found[key],
        "would violate PodSecurity \"restricted:latest\": seccompProfile (pod or container \"c\" \
         must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_an_issued_token_is_in_the_audit_log() {
    let audited = Audited::start("Metadata").await;
    let account = json!({"metadata": {"name": "robot"}});
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    audited.make(accounts, &account).await;
    let key = "authentication.kubernetes.io/issued-credential-id";
    let request = |_| json!({"spec": {}});
    let path = format!("{accounts}/robot/token");
    let found = audited
        .annotations(&path, request, |found| found[key].is_string())
        .await;
    assert!(found[key].as_str().unwrap().starts_with("JTI="), "{found}");
}
