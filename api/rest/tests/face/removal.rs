//! Nodes that leave because their stake is gone: what becomes of their pods.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::admission::Led;

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn node(led: &Led, name: &str, taint: &str, effect: &str, remove_from: &str) {
    let node = json!({
        "metadata": {"name": name, "annotations": {"nautilus.io/remove-from": remove_from}},
        "spec": {"taints": [{"key": taint, "effect": effect}]},
    });
    led.make("/api/v1/nodes", &node).await;
}

async fn pod(led: &Led, name: &str, node: &str, more: Value) {
    let mut pod = json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
    });
    for (field, value) in more.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    led.make(PODS, &pod).await;
    let running = json!({"status": {
        "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
    }});
    let path = format!("{PODS}/{name}/status");
    let media = "application/merge-patch+json";
    let patched = led
        .world
        .send(Method::PATCH, &path, media, running.to_string())
        .await;
    assert_eq!(patched.status(), StatusCode::OK);
}

async fn account(led: &Led) {
    let path = "/api/v1/namespaces/default/serviceaccounts/default";
    led.until(path, |status, _| status == StatusCode::OK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slashed_stake_empties_its_node_though_no_kubelet_helps() {
    let led = Led::start().await;
    account(&led).await;
    pod(&led, "a", "w1", json!({})).await;
    pod(
        &led,
        "tolerant",
        "w1",
        json!({"tolerations": [{"operator": "Exists"}]}),
    )
    .await;
    pod(&led, "elsewhere", "w2", json!({})).await;
    let long_ago = "2026-01-01T00:00:00Z";
    let taint = "nautilus.io/stake-slashed";
    node(&led, "w1", taint, "NoExecute", long_ago).await;
    let gone = |status: StatusCode, _: &Value| status == StatusCode::NOT_FOUND;
    led.until(&format!("{PODS}/a"), gone).await;
    // One that comes later goes, too.
    pod(&led, "b", "w1", json!({})).await;
    led.until(&format!("{PODS}/b"), gone).await;
    for name in ["tolerant", "elsewhere"] {
        let (status, pod) = led.world.get(&format!("{PODS}/{name}")).await;
        assert_eq!(status, StatusCode::OK, "{name}");
        assert!(pod["metadata"]["deletionTimestamp"].is_null(), "{pod}");
    }
    led.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_stake_drains_its_node_within_the_disruption_budgets() {
    let led = Led::start().await;
    account(&led).await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({
        "metadata": {"name": "held"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "held"}}},
    });
    led.make(budgets, &budget).await;
    pod(&led, "held", "w1", json!({})).await;
    pod(&led, "free", "w1", json!({})).await;
    let taint = "nautilus.io/stake-withdrawn";
    node(&led, "w1", taint, "NoSchedule", "2999-01-01T00:00:00Z").await;
    led.until(&format!("{PODS}/free"), |_, pod| {
        pod["metadata"]["deletionTimestamp"].is_string()
    })
    .await;
    let (_, held) = led.world.get(&format!("{PODS}/held")).await;
    assert!(held["metadata"]["deletionTimestamp"].is_null(), "{held}");

    // Its time is over.
    let over = json!({"metadata": {"annotations": {
        "nautilus.io/remove-from": "2026-01-01T00:00:00Z",
    }}});
    let media = "application/merge-patch+json";
    let patched = led
        .world
        .send(Method::PATCH, "/api/v1/nodes/w1", media, over.to_string())
        .await;
    assert_eq!(patched.status(), StatusCode::OK);
    for name in ["held", "free"] {
        let gone = |status: StatusCode, _: &Value| status == StatusCode::NOT_FOUND;
        led.until(&format!("{PODS}/{name}"), gone).await;
    }
    led.end().await;
}
