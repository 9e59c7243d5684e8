//! Controllers of services and nodes, through this face: their roles, its admission and its
//! rules let them do their work.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::admission::Led;

const PODS: &str = "/api/v1/namespaces/default/pods";
const NODES: &str = "/api/v1/nodes";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
const MERGE: &str = "application/merge-patch+json";

fn pod(name: &str, node: &str) -> Value {
    let mut pod = json!({
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    if !node.is_empty() {
        pod["spec"]["nodeName"] = node.into();
    }
    pod
}

async fn patch(led: &Led, path: &str, change: Value) {
    let answer = led
        .world
        .send(Method::PATCH, path, MERGE, change.to_string());
    assert_eq!(answer.await.status(), StatusCode::OK, "{path}");
}

async fn add_node(led: &Led, name: &str, ready: &str) {
    led.make(NODES, &json!({"metadata": {"name": name}})).await;
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}});
    patch(led, &format!("{NODES}/{name}/status"), status).await;
}

/// A pod that runs and is ready.
async fn add_ready(led: &Led, name: &str, node: &str, address: &str) {
    led.make(PODS, &pod(name, node)).await;
    let status = json!({"status": {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    patch(led, &format!("{PODS}/{name}/status"), status).await;
}

/// The slices of a service.
fn slices(service: &str) -> String {
    format!("{SLICES}?labelSelector=kubernetes.io/service-name={service}")
}

fn addresses(list: &Value) -> Vec<String> {
    let slices = list["items"].as_array().into_iter().flatten();
    let endpoints = slices.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    let text = |endpoint: &Value| {
        let address = endpoint["addresses"][0].as_str().unwrap_or_default();
        let ready = &endpoint["conditions"]["ready"];
        format!("{address} {ready}")
    };
    let mut addresses: Vec<String> = endpoints.map(text).collect();
    addresses.sort();
    addresses
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_has_its_ready_pods_in_slices_and_endpoints() {
    let led = Led::start().await;
    add_node(&led, "m", "True").await;
    let service = json!({
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    led.make(SERVICES, &service).await;
    let empty = led
        .until(&slices("web"), |_, list| {
            list["items"].as_array().is_some_and(|own| own.len() == 1)
        })
        .await;
    let labels = &empty["items"][0]["metadata"]["labels"];
    let keeper = "endpointslice-controller.k8s.io";
    assert_eq!(labels["endpointslice.kubernetes.io/managed-by"], keeper);
    for (name, address) in [("a", "10.1.0.1"), ("b", "10.1.0.2")] {
        add_ready(&led, name, "m", address).await;
    }
    let both = ["10.1.0.1 true", "10.1.0.2 true"];
    led.until(&slices("web"), |_, list| addresses(list) == both)
        .await;
    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    patch(&led, &format!("{PODS}/b/status"), unready).await;
    let one = ["10.1.0.1 true", "10.1.0.2 false"];
    led.until(&slices("web"), |_, list| addresses(list) == one)
        .await;
    let endpoints = format!("{ENDPOINTS}/web");
    let seen = led
        .until(&endpoints, |_, own| {
            own["subsets"][0]["notReadyAddresses"][0]["ip"] == "10.1.0.2"
        })
        .await;
    assert_eq!(seen["subsets"][0]["addresses"][0]["ip"], "10.1.0.1");
    let port = json!([{"port": 8080, "protocol": "TCP"}]);
    assert_eq!(seen["subsets"][0]["ports"], port);
    let at_once = json!({"gracePeriodSeconds": 0});
    let path = format!("{PODS}/a");
    led.world.call(Method::DELETE, &path, &at_once).await;
    led.until(&slices("web"), |_, list| {
        addresses(list) == ["10.1.0.2 false"]
    })
    .await;
    led.world.delete(&format!("{SERVICES}/web")).await;
    led.until(&endpoints, |status, _| status == StatusCode::NOT_FOUND)
        .await;
    led.until(&slices("web"), |_, list| list["items"] == json!([]))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_people_write_are_mirrored() {
    let led = Led::start().await;
    let service = json!({"metadata": {"name": "db"}, "spec": {"ports": [{"port": 5432}]}});
    led.make(SERVICES, &service).await;
    let endpoints = json!({
        "metadata": {"name": "db"},
        "subsets": [{"addresses": [{"ip": "10.9.0.1"}], "ports": [{"port": 5432}]}],
    });
    led.make(ENDPOINTS, &endpoints).await;
    led.until(&slices("db"), |_, list| {
        addresses(list) == ["10.9.0.1 true"]
    })
    .await;
    led.world.delete(&format!("{ENDPOINTS}/db")).await;
    led.until(&slices("db"), |_, list| list["items"] == json!([]))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_counts_its_pods_and_evictions_are_allowed_by_it() {
    let led = Led::start().await;
    add_node(&led, "m", "True").await;
    for (name, address) in [("a", "10.1.0.1"), ("b", "10.1.0.2")] {
        add_ready(&led, name, "m", address).await;
    }
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({
        "metadata": {"name": "web"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    });
    led.make(budgets, &budget).await;
    let path = format!("{budgets}/web");
    let seen = led
        .until(&path, |_, own| own["status"]["disruptionsAllowed"] == 1)
        .await;
    assert_eq!(seen["status"]["conditions"][0]["reason"], "SufficientPods");
    let eviction = |name: &str| json!({"metadata": {"name": name}});
    let evict = |name: &'static str| {
        let path = format!("{PODS}/{name}/eviction");
        let led = &led;
        async move { led.world.call(Method::POST, &path, &eviction(name)).await.0 }
    };
    assert_eq!(evict("a").await, StatusCode::CREATED);
    let is_spent = |_: StatusCode, own: &Value| {
        own["status"]["disruptionsAllowed"] == 0 && own["status"]["disruptedPods"].is_null()
    };
    led.until(&path, is_spent).await;
    assert_eq!(evict("b").await, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_node_is_tainted_and_its_pods_go_but_not_where_all_are_lost() {
    let led = Led::start().await;
    add_node(&led, "lost", "False").await;
    let lost = format!("{NODES}/lost");
    let has = |effect: &'static str| {
        move |_: StatusCode, node: &Value| {
            let taints = node["spec"]["taints"].as_array().into_iter().flatten();
            let mut own = taints.filter(|own| own["key"] == "node.kubernetes.io/not-ready");
            own.any(|own| own["effect"] == effect)
        }
    };
    let seen = led.until(&lost, has("NoSchedule")).await;
    assert!(!has("NoExecute")(StatusCode::OK, &seen), "{seen}");
    let mut leaves = pod("leaves", "lost");
    leaves["spec"]["tolerations"] = json!([{
        "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute",
        "tolerationSeconds": 0,
    }]);
    leaves["metadata"]["finalizers"] = json!(["example.com/look"]);
    led.make(PODS, &leaves).await;
    led.make(PODS, &pod("stays", "lost")).await;
    add_node(&led, "other", "True").await;
    led.until(&lost, has("NoExecute")).await;
    let leaves = format!("{PODS}/leaves");
    let gone = led
        .until(&leaves, |_, pod| {
            pod["metadata"]["deletionTimestamp"].is_string()
        })
        .await;
    let conditions = gone["status"]["conditions"].as_array().cloned();
    let target = conditions
        .unwrap_or_default()
        .into_iter()
        .find(|own| own["type"] == "DisruptionTarget");
    assert_eq!(
        target.unwrap_or_default()["reason"],
        "DeletionByTaintManager"
    );
    // Admission lets it stay for a while.
    let (_, stays) = led.world.get(&format!("{PODS}/stays")).await;
    assert_eq!(stays["metadata"]["deletionTimestamp"], Value::Null);
    let back = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    patch(&led, &format!("{lost}/status"), back).await;
    led.until(&lost, |_, node| node["spec"]["taints"].is_null())
        .await;
    led.until(&lost, |_, node| {
        node["metadata"]["annotations"]["node.alpha.kubernetes.io/ttl"] == "0"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_ends_before_it_had_a_node_has_failed() {
    let led = Led::start().await;
    let mut held = pod("held", "");
    held["metadata"]["finalizers"] = json!(["example.com/look"]);
    // Nobody is to find a node for it.
    held["spec"]["schedulerName"] = "nobody".into();
    led.make(PODS, &held).await;
    led.world.delete(&format!("{PODS}/held")).await;
    led.until(&format!("{PODS}/held"), |_, pod| {
        pod["status"]["phase"] == "Failed"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_over_pods_of_what_has_no_scale_allows_nothing_and_says_why() {
    let led = Led::start().await;
    let job = json!({
        "metadata": {"name": "web"},
        "spec": {"template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "containers": [{"name": "c", "image": "i"}],
                "restartPolicy": "Never",
            },
        }},
    });
    led.make("/apis/batch/v1/namespaces/default/jobs", &job)
        .await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({
        "metadata": {"name": "web"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    });
    led.make(budgets, &budget).await;
    let seen = led
        .until(&format!("{budgets}/web"), |_, own| {
            own["status"]["conditions"][0]["reason"] == "SyncFailed"
        })
        .await;
    assert_eq!(
        seen["status"]["conditions"][0]["message"],
        "jobs.batch does not implement the scale subresource"
    );
    assert_eq!(seen["status"]["disruptionsAllowed"], 0);
}
