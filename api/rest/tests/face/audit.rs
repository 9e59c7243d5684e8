//! The audit log: what is recorded of requests, and that a gap shows.

use std::sync::Arc;
use std::time::Duration;

use nautilus_machinery::identity::User;
use nautilus_rest::RequestLimits;
use nautilus_rest::audit::chain::{SignedHead, verify};
use nautilus_rest::audit::{Audit, HeadSigner, LogFile};
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::world::World;

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

#[tokio::test]
async fn requests_are_recorded_by_policy_in_a_chain() {
    let folder = tempfile::tempdir().unwrap();
    let file = LogFile {
        path: folder.path().join("audit.log"),
        max_bytes: 0,
        max_backups: 0,
        max_age: Duration::ZERO,
    };
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
