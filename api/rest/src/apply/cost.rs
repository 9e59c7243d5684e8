//! What ownership costs a status update: figures, not a promise. Run by
//! `cargo test --release -p nautilus-rest --lib apply::cost -- --ignored --nocapture`.

use std::time::Instant;

use nautilus_machinery::resource::{self, Resource};
use nautilus_machinery::strategy::{self, Context};
use serde_json::{Value, json};

use super::track;
use crate::storage::Target;

/// Updates measured.
const ROUNDS: u32 = 500;

fn pods() -> &'static Resource {
    resource::find("", "v1", "pods").expect("a kind")
}

fn pod() -> Value {
    let containers: Vec<Value> = (0..3)
        .map(|at| {
            json!({
                "name": format!("c{at}"), "image": "registry.example.com/image:1",
                "env": (0..8).map(|at| json!({"name": format!("E{at}"), "value": "v"})).collect::<Vec<_>>(),
                "ports": [{"containerPort": 8080}], "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                "livenessProbe": {"httpGet": {"path": "/", "port": 8080}},
            })
        })
        .collect();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}}, "spec": {"containers": containers}})
}

fn status(round: u32) -> Value {
    let conditions: Vec<Value> = ["Initialized", "Ready", "ContainersReady", "PodScheduled"]
        .iter()
        .map(|kind| json!({"type": kind, "status": if round.is_multiple_of(2) { "True" } else { "False" }, "lastTransitionTime": "2026-01-01T00:00:00Z"}))
        .collect();
    json!({"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "conditions": conditions})
}

#[test]
#[ignore = "prints figures"]
fn a_status_update_with_and_without_owners() {
    let now = "2026-01-01T00:00:00Z";
    let context = Context {
        now,
        uid: "u",
        name_suffix: "",
        namespace: Some("default"),
        user: "kubelet",
        field_manager: "kubelet",
    };
    let target = |subresource| Target {
        resource: pods(),
        namespace: Some("default"),
        name: "web",
        subresource,
    };
    let mut stored = pod();
    strategy::default_in_place(pods(), &mut stored);
    track(&target(None), "kube-controller-manager", None, &mut stored);
    strategy::before_create(pods(), &mut stored, &context).expect("a pod");
    let run = |owned: bool| {
        let mut object = stored.clone();
        if !owned && let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.shift_remove("managedFields");
        }
        let mut bytes = serde_json::to_vec(&object).expect("JSON");
        let mut spent = Vec::new();
        for round in 0..ROUNDS {
            let start = Instant::now();
            let live: Value = serde_json::from_slice(&bytes).expect("an object");
            let mut wanted = live.clone();
            wanted["status"] = status(round);
            if owned {
                strategy::default_in_place(pods(), &mut wanted);
                track(&target(Some("status")), "kubelet", Some(&live), &mut wanted);
            }
            strategy::before_update(pods(), Some("status"), &live, &mut wanted, &context)
                .expect("a status");
            bytes = serde_json::to_vec(&wanted).expect("JSON");
            spent.push(start.elapsed());
        }
        // Whatever else the machine does shows in the slow ones.
        spent.sort_unstable();
        (spent[spent.len() / 2], bytes.len())
    };
    run(true);
    let (without, with) = (run(false), run(true));
    println!(
        "a status update's work: {:?} and {} bytes without owners, {:?} and {} bytes with; ratio {:.2}",
        without.0,
        without.1,
        with.0,
        with.1,
        with.0.as_secs_f64() / without.0.as_secs_f64()
    );
}
