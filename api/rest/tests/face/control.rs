//! Controllers on the leader: through this face, with its rules, quotas and terms.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nautilus_machinery::identity::User;
use nautilus_rest::{ControlSettings, NodeUsage, NodeUsages, RequestLimits};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::admission::Led;
use crate::world::World;

const PODS: &str = "/api/v1/namespaces/default/pods";
const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const MERGE: &str = "application/merge-patch+json";

fn set(name: &str, replicas: u64) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    })
}

async fn patch(led: &Led, path: &str, change: Value) {
    let answer = led
        .world
        .send(Method::PATCH, path, MERGE, change.to_string());
    assert_eq!(answer.await.status(), StatusCode::OK, "{path}");
}

/// Waits until a list has so many items.
async fn until_there_are(led: &Led, path: &str, count: usize) -> Vec<Value> {
    let items = |list: &Value| list["items"].as_array().cloned().unwrap_or_default();
    let list = led.until(path, |_, list| items(list).len() == count).await;
    items(&list)
}

async fn condition(led: &Led, path: &str, kind: &str) -> Value {
    let find = |object: &Value| {
        let conditions = object["status"]["conditions"].as_array().cloned();
        let own = |own: &Value| own["type"] == kind;
        conditions.unwrap_or_default().into_iter().find(own)
    };
    let object = led.until(path, |_, object| find(object).is_some()).await;
    find(&object).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_set_has_its_pods_and_its_status_and_they_go_with_it() {
    let led = Led::start().await;
    led.make(SETS, &set("web", 3)).await;
    let pods = until_there_are(&led, PODS, 3).await;
    for pod in &pods {
        let owner = &pod["metadata"]["ownerReferences"][0];
        assert_eq!(
            (&owner["kind"], &owner["controller"]),
            (&json!("ReplicaSet"), &json!(true))
        );
        // Admission saw it as anybody's.
        assert_eq!(pod["spec"]["serviceAccountName"], "default");
    }
    let path = format!("{SETS}/web");
    let seen = |count: u64| move |_: StatusCode, set: &Value| set["status"]["replicas"] == count;
    led.until(&path, seen(3)).await;
    patch(&led, &path, json!({"spec": {"replicas": 1}})).await;
    until_there_are(&led, PODS, 1).await;
    led.until(&path, seen(1)).await;
    let events = "/api/v1/namespaces/default/events?fieldSelector=reason=SuccessfulCreate";
    until_there_are(&led, events, 3).await;
    led.world.delete(&path).await;
    until_there_are(&led, PODS, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_quota_is_told_in_the_status_and_met_once_there_is_room() {
    let led = Led::start().await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let quota = json!({"metadata": {"name": "few"}, "spec": {"hard": {"pods": "2"}}});
    led.make(quotas, &quota).await;
    let few = format!("{quotas}/few");
    led.until(&few, |_, own| own["status"]["hard"]["pods"] == "2")
        .await;
    led.make(SETS, &set("web", 4)).await;
    until_there_are(&led, PODS, 2).await;
    let path = format!("{SETS}/web");
    let failure = condition(&led, &path, "ReplicaFailure").await;
    assert_eq!(failure["reason"], "FailedCreate");
    let message = failure["message"].as_str().unwrap_or_default();
    assert!(message.contains("exceeded quota: few"), "{message}");
    patch(&led, &few, json!({"spec": {"hard": {"pods": "9"}}})).await;
    // Something has to happen for it to be tried before its backoff ends.
    patch(&led, &path, json!({"spec": {"replicas": 5}})).await;
    until_there_are(&led, PODS, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_may_do_what_its_role_allows() {
    let led = Led::start().await;
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let role = format!("{roles}/system:controller:replicaset-controller");
    let there = led.until(&role, |status, _| status == StatusCode::OK).await;
    let kept =
        |kept: bool| json!({"rbac.authorization.kubernetes.io/autoupdate": kept.to_string()});
    let taken = json!({"metadata": {"annotations": kept(false)}, "rules": []});
    patch(&led, &role, taken).await;
    led.make(SETS, &set("web", 1)).await;
    // One with its role does as much at the same time.
    let others = "/api/v1/namespaces/default/replicationcontrollers";
    let mut other = set("db", 2);
    other["spec"]["selector"] = json!({"app": "db"});
    led.make(others, &other).await;
    let pods = until_there_are(&led, PODS, 2).await;
    assert!(
        pods.iter()
            .all(|pod| pod["metadata"]["labels"]["app"] == "db"),
        "{pods:?}"
    );
    let given = json!({"metadata": {"annotations": kept(true)}, "rules": there["rules"]});
    patch(&led, &role, given).await;
    until_there_are(&led, PODS, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_leader_makes_nothing_and_the_next_one_goes_on_where_it_was() {
    let led = Led::start().await;
    led.make(SETS, &set("web", 2)).await;
    let first = until_there_are(&led, PODS, 2).await;
    let kv = led.world.kv.clone();
    kv.lead(2, false);
    led.make(SETS, &set("db", 1)).await;
    let gone = first[0]["metadata"]["name"].as_str().unwrap_or_default();
    led.world
        .delete(&format!("{PODS}/{gone}?gracePeriodSeconds=0"))
        .await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(until_there_are(&led, PODS, 1).await.len(), 1);
    kv.lead(3, true);
    let pods = until_there_are(&led, PODS, 3).await;
    let of = |app: &str| {
        let own = |pod: &&Value| pod["metadata"]["labels"]["app"] == app;
        pods.iter().filter(own).count()
    };
    assert_eq!((of("web"), of("db")), (2, 1));
}

/// `w-busy` is as busy as can be, others are idle.
struct Usages;

impl NodeUsages for Usages {
    fn of(&self, workers: Vec<String>) -> BoxFuture<'_, Result<Vec<Option<NodeUsage>>, String>> {
        let usage = |worker: String| {
            let share = if worker == "w-busy" { 10_000 } else { 0 };
            Some(NodeUsage {
                cpu_basis_points: Some(share),
                memory_basis_points: Some(share),
                age: Duration::ZERO,
            })
        };
        Box::pin(std::future::ready(Ok(workers
            .into_iter()
            .map(usage)
            .collect())))
    }

    fn worker_annotation(&self) -> &'static str {
        "nautilus.io/node-id"
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_of_the_scheduler_may_look_at_how_busy_nodes_are() {
    let profile = json!({"profiles": [{"plugins": {"score": {
        "disabled": [{"name": "*"}], "enabled": [{"name": "NodeLoad"}]}}}]});
    let settings = ControlSettings::default().with_scheduler(&profile).unwrap();
    let master = User::authenticated("admin", vec!["system:masters".into()]);
    let world = World::start_configured(master, RequestLimits::default(), |facts| {
        facts.node_usages = Some(Arc::new(Usages));
        facts.control = settings;
    })
    .await;
    let led = Led::over(world);
    let whole = json!({"cpu": "64", "memory": "64Gi", "pods": "200"});
    for name in ["busy", "idle"] {
        let worker = json!({"nautilus.io/node-id": format!("w-{name}")});
        let node = json!({
            "metadata": {"name": name, "annotations": worker},
            "status": {"capacity": whole, "allocatable": whole,
                "conditions": [{"type": "Ready", "status": "True"}]},
        });
        led.make("/api/v1/nodes", &node).await;
        // As the workers' face does once the worker beats.
        let ready = json!({"spec": {"taints": null}});
        patch(&led, &format!("/api/v1/nodes/{name}"), ready).await;
    }
    let accounts = "/api/v1/namespaces/default/serviceaccounts/default";
    led.until(accounts, |status, _| status == StatusCode::OK)
        .await;
    // Until the first metrics are known nodes are chosen by lot.
    let (mut made, mut in_a_row) = (0, 0);
    while in_a_row < 12 {
        let name = format!("p{made}");
        let pod = json!({
            "metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        });
        led.make(PODS, &pod).await;
        let node = |pod: &Value| pod["spec"]["nodeName"].as_str().map(str::to_owned);
        let path = format!("{PODS}/{name}");
        let pod = led.until(&path, |_, pod| node(pod).is_some()).await;
        made += 1;
        in_a_row = if node(&pod).as_deref() == Some("idle") {
            in_a_row + 1
        } else {
            0
        };
        assert!(
            made < 300,
            "the busy node is chosen as often as the idle one"
        );
    }
}
