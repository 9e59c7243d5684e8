//! What a write must pass beside validation, and what the leader does about it later.

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::world::{PATIENCE, World};

/// A world whose node does the leader's work too.
pub(crate) struct Led {
    pub(crate) world: World,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Led {
    pub(crate) async fn start() -> Self {
        Self::over(World::start().await)
    }

    /// The leader's work begins in a world that there is.
    pub(crate) fn over(world: World) -> Self {
        let stop = CancellationToken::new();
        let running = tokio::spawn(nautilus_rest::run_controllers(
            world.context.clone(),
            6443,
            stop.clone(),
        ));
        Self {
            world,
            stop,
            running,
        }
    }

    pub(crate) async fn make(&self, path: &str, object: &Value) -> Value {
        let (status, made) = self.world.call(Method::POST, path, object).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        made
    }

    /// Waits until an object satisfies `holds`; the last state seen is given back.
    pub(crate) async fn until(
        &self,
        path: &str,
        holds: impl Fn(StatusCode, &Value) -> bool,
    ) -> Value {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let (status, object) = self.world.get(path).await;
            if holds(status, &object) {
                return object;
            }
            let is_late = tokio::time::Instant::now() > until;
            assert!(!is_late, "{path} stays {status} {object}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// The leader's work ends.
    pub(crate) async fn end(self) -> World {
        self.stop.cancel();
        self.running.await.unwrap();
        self.world
    }
}

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {
            "requests": {"cpu": "100m"}, "limits": {"cpu": "200m"},
        }}]},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_gets_account_token_priority_and_tolerations() {
    let led = Led::start().await;
    led.until(
        "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical",
        |status, _| status == StatusCode::OK,
    )
    .await;
    let mut wanted = pod("web");
    wanted["spec"]["priorityClassName"] = json!("system-node-critical");
    let made = led.make(PODS, &wanted).await;
    let spec = &made["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(spec["priority"], 2_000_001_000);
    assert_eq!(spec["preemptionPolicy"], "PreemptLowerPriority");
    assert_eq!(spec["tolerations"].as_array().map(Vec::len), Some(2));
    let volume = spec["volumes"][0]["name"].as_str().unwrap_or_default();
    assert!(volume.starts_with("kube-api-access-"), "{volume}");
    assert_eq!(
        spec["containers"][0]["volumeMounts"][0]["mountPath"],
        "/var/run/secrets/kubernetes.io/serviceaccount"
    );
    wanted["metadata"]["name"] = json!("other");
    wanted["spec"]["priorityClassName"] = json!("urgent");
    let (status, refused) = led.world.call(Method::POST, PODS, &wanted).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(
        refused["message"],
        "pods \"other\" is forbidden: no PriorityClass with name urgent was found"
    );
    led.end().await;
}

#[tokio::test]
async fn a_pod_has_the_place_of_its_node_however_it_comes_there() {
    let world = World::start().await;
    let node = json!({"metadata": { "name": "node", "labels": {
        "topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "other": "o",
    } } });
    let mut placed = pod("placed");
    placed["spec"]["nodeName"] = "node".into();
    let binding = json!({
        "metadata": { "name": "bound" }, "target": { "kind": "Node", "name": "node" },
    });
    for (path, object) in [
        ("/api/v1/nodes", &node),
        (PODS, &placed),
        (PODS, &pod("bound")),
        (&format!("{PODS}/bound/binding"), &binding),
    ] {
        let (status, answer) = world.call(Method::POST, path, object).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
    }
    for name in ["placed", "bound"] {
        let (_, pod) = world.get(&format!("{PODS}/{name}")).await;
        let labels = &pod["metadata"]["labels"];
        let place = ["zone", "region"].map(|own| &labels[format!("topology.kubernetes.io/{own}")]);
        assert_eq!(place, ["z", "r"], "{pod}");
        assert!(labels["other"].is_null(), "{pod}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_pods_at_once_get_ten_places() {
    let led = Led::start().await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let quota = json!({"metadata": {"name": "ten"}, "spec": {"hard": {"pods": "10"}}});
    led.make(quotas, &quota).await;
    led.until(&format!("{quotas}/ten"), |_, quota| {
        quota["status"]["used"]["pods"] == "0"
    })
    .await;
    let names: Vec<Value> = (0..100).map(|index| pod(&format!("p{index}"))).collect();
    let creates = names
        .iter()
        .map(|pod| led.world.call(Method::POST, PODS, pod));
    let answers = join_all(creates).await;
    let made = answers
        .iter()
        .filter(|(status, _)| *status == StatusCode::CREATED);
    assert_eq!(made.count(), 10);
    let refused = answers
        .iter()
        .find(|(status, _)| *status == StatusCode::FORBIDDEN);
    let message = refused
        .map(|(_, answer)| answer["message"].to_string())
        .unwrap_or_default();
    assert!(
        message.contains("exceeded quota: ten, requested: pods=1, used: pods=10, limited: pods=10"),
        "{message}"
    );
    let (_, quota) = led.world.get(&format!("{quotas}/ten")).await;
    assert_eq!(quota["status"]["used"]["pods"], "10");
    // What is gone is not used any more.
    let (_, pods) = led.world.get(PODS).await;
    let name = pods["items"][0]["metadata"]["name"]
        .as_str()
        .unwrap_or_default();
    led.world
        .delete(&format!("{PODS}/{name}?gracePeriodSeconds=0"))
        .await;
    led.until(&format!("{quotas}/ten"), |_, quota| {
        quota["status"]["used"]["pods"] == "9"
    })
    .await;
    led.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_s_standard_refuses_pods_and_warns_about_templates() {
    let led = Led::start().await;
    let namespace = json!({"metadata": {
        "name": "strict", "labels": {"pod-security.kubernetes.io/enforce": "baseline"},
    }});
    led.make("/api/v1/namespaces", &namespace).await;
    let mut bad = pod("web");
    bad["spec"]["hostNetwork"] = json!(true);
    let path = "/api/v1/namespaces/strict/pods";
    let (status, refused) = led.world.call(Method::POST, path, &bad).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(
        refused["message"],
        "pods \"web\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces \
         (hostNetwork=true)"
    );
    let deployment = json!({
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": bad["spec"]},
        },
    });
    let path = "/apis/apps/v1/namespaces/strict/deployments";
    let answer = led
        .world
        .send(
            Method::POST,
            path,
            "application/json",
            deployment.to_string(),
        )
        .await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(
        answer.headers()["warning"],
        "299 - \"would violate PodSecurity \\\"baseline:latest\\\": host namespaces \
         (hostNetwork=true)\""
    );
    led.end().await;
}

fn owned(name: &str, owner: &Value) -> Value {
    json!({
        "metadata": {"name": name, "ownerReferences": [{
            "apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"], "blockOwnerDeletion": true,
        }]},
    })
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(flavor = "multi_thread")]
async fn dependents_follow_their_owner() {
    let led = Led::start().await;
    let owner = led
        .make(MAPS, &json!({"metadata": {"name": "owner"}}))
        .await;
    led.make(MAPS, &owned("child", &owner)).await;
    led.world.delete(&format!("{MAPS}/owner")).await;
    led.until(&format!("{MAPS}/child"), |status, _| {
        status == StatusCode::NOT_FOUND
    })
    .await;
    led.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_deleted_in_the_foreground_outlives_its_dependents() {
    let led = Led::start().await;
    let owner = led
        .make(MAPS, &json!({"metadata": {"name": "owner"}}))
        .await;
    let mut child = owned("child", &owner);
    child["metadata"]["finalizers"] = json!(["example.com/hold"]);
    led.make(MAPS, &child).await;
    let path = format!("{MAPS}/owner");
    let foreground = json!({"propagationPolicy": "Foreground"});
    let (_, marked) = led.world.call(Method::DELETE, &path, &foreground).await;
    assert_eq!(
        marked["metadata"]["finalizers"],
        json!(["foregroundDeletion"])
    );
    led.until(&format!("{MAPS}/child"), |_, child| {
        !child["metadata"]["deletionTimestamp"].is_null()
    })
    .await;
    let (status, _) = led.world.get(&path).await;
    assert_eq!(status, StatusCode::OK);
    let free = json!({"metadata": {"finalizers": null}});
    let released = led
        .world
        .send(
            Method::PATCH,
            &format!("{MAPS}/child"),
            "application/merge-patch+json",
            free.to_string(),
        )
        .await;
    assert_eq!(released.status(), StatusCode::OK);
    led.until(&path, |status, _| status == StatusCode::NOT_FOUND)
        .await;
    led.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_in_a_circle_do_not_wait_for_each_other() {
    let led = Led::start().await;
    let first = led
        .make(MAPS, &json!({"metadata": {"name": "first"}}))
        .await;
    let second = led.make(MAPS, &owned("second", &first)).await;
    let third = led.make(MAPS, &owned("third", &second)).await;
    let path = format!("{MAPS}/first");
    let closing = json!({"metadata": owned("first", &third)["metadata"]}).to_string();
    let media = "application/merge-patch+json";
    let closed = led.world.send(Method::PATCH, &path, media, closing).await;
    assert_eq!(closed.status(), StatusCode::OK);
    let foreground = json!({"propagationPolicy": "Foreground"});
    led.world.call(Method::DELETE, &path, &foreground).await;
    for name in ["first", "second", "third"] {
        led.until(&format!("{MAPS}/{name}"), |status, _| {
            status == StatusCode::NOT_FOUND
        })
        .await;
    }
    led.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_let_go() {
    let led = Led::start().await;
    let owner = led
        .make(MAPS, &json!({"metadata": {"name": "owner"}}))
        .await;
    led.make(MAPS, &owned("child", &owner)).await;
    let orphan = json!({"propagationPolicy": "Orphan"});
    let path = format!("{MAPS}/owner");
    led.world.call(Method::DELETE, &path, &orphan).await;
    led.until(&path, |status, _| status == StatusCode::NOT_FOUND)
        .await;
    let (status, child) = led.world.get(&format!("{MAPS}/child")).await;
    assert_eq!(status, StatusCode::OK);
    assert!(child["metadata"]["ownerReferences"].is_null(), "{child}");
    led.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_in_use_goes_when_its_pod_is_gone() {
    let led = Led::start().await;
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = json!({"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
    }});
    let made = led.make(claims, &claim).await;
    assert_eq!(
        made["metadata"]["finalizers"],
        json!(["kubernetes.io/pvc-protection"])
    );
    let mut user = pod("user");
    user["spec"]["volumes"] = json!([
        {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
    ]);
    led.make(PODS, &user).await;
    let path = format!("{claims}/data");
    led.world.delete(&path).await;
    let (status, _) = led.world.get(&path).await;
    assert_eq!(status, StatusCode::OK);
    led.world
        .delete(&format!("{PODS}/user?gracePeriodSeconds=0"))
        .await;
    led.until(&path, |status, _| status == StatusCode::NOT_FOUND)
        .await;
    led.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_ranges_fill_in_and_refuse() {
    let led = Led::start().await;
    let ranges = "/api/v1/namespaces/default/limitranges";
    let range = json!({"metadata": {"name": "limits"}, "spec": {"limits": [{
        "type": "Container", "default": {"memory": "64Mi"}, "max": {"cpu": "1", "memory": "1Gi"},
    }]}});
    led.make(ranges, &range).await;
    let made = led.make(PODS, &pod("web")).await;
    let resources = &made["spec"]["containers"][0]["resources"];
    assert_eq!(resources["limits"]["memory"], "64Mi");
    let mut large = pod("large");
    large["spec"]["containers"][0]["resources"]["limits"]["cpu"] = json!("2");
    let (status, refused) = led.world.call(Method::POST, PODS, &large).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(
        refused["message"],
        "pods \"large\" is forbidden: maximum cpu usage per Container is 1, but limit is 2"
    );
    led.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suggested_flow_schemas_are_there_and_follow_their_administrator() {
    let led = Led::start().await;
    let path = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
    let list = led
        .until(path, |_, list| {
            list["items"]
                .as_array()
                .is_some_and(|items| items.len() == 11)
        })
        .await;
    let names: Vec<&str> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|schema| schema["metadata"]["name"].as_str())
        .collect();
    assert!(names.contains(&"system-node-high"), "{names:?}");
    led.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_takes_the_room_that_a_disruption_budget_has() {
    let led = Led::start().await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({
        "metadata": {"name": "web"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    });
    led.make(budgets, &budget).await;
    let media = "application/merge-patch+json";
    let status = json!({"status": {
        "observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2,
        "desiredHealthy": 1, "expectedPods": 2,
    }});
    let path = format!("{budgets}/web/status");
    let patched = led
        .world
        .send(Method::PATCH, &path, media, status.to_string())
        .await;
    assert_eq!(patched.status(), StatusCode::OK);
    for name in ["a", "b"] {
        let mut pod = pod(name);
        pod["metadata"]["labels"] = json!({"app": "web"});
        led.make(PODS, &pod).await;
        let running = json!({"status": {
            "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
        }});
        let path = format!("{PODS}/{name}/status");
        let patched = led
            .world
            .send(Method::PATCH, &path, media, running.to_string())
            .await;
        assert_eq!(patched.status(), StatusCode::OK);
    }
    let evict = async |name: &str| {
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name},
        });
        let path = format!("{PODS}/{name}/eviction");
        led.world.call(Method::POST, &path, &eviction).await
    };
    let (code, answer) = evict("a").await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    let (_, budget) = led.world.get(&format!("{budgets}/web")).await;
    assert_eq!(budget["status"]["disruptionsAllowed"], 0);
    assert!(
        budget["status"]["disruptedPods"]["a"].is_string(),
        "{budget}"
    );
    let (code, answer) = evict("b").await;
    assert_eq!(code, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        answer["message"],
        "Cannot evict pod as it would violate the pod's disruption budget."
    );
    assert_eq!(
        answer["details"]["causes"][0]["message"],
        "The disruption budget web does not allow evicting pods currently"
    );
    let (code, _) = led.world.get(&format!("{PODS}/b")).await;
    assert_eq!(code, StatusCode::OK);
    led.end().await;
}
