//! kubectl where it waits for others: rollouts that it follows and undoes, a node that it drains.
//! What a kubelet would say is said by patches of statuses; of the drain, what controllers
//! would, too.

use nautilus_tests::kubectl::{all, contains, is, run};
use nautilus_tests::{Quorum, Streamed, WITHOUT_CONTROLLERS, eventually};
use serde_json::json;

/// Makes an object, which must succeed.
fn create(quorum: &Quorum, object: &serde_json::Value) {
    let made = quorum.kubectl_with_input(&["create", "-f", "-"], &object.to_string());
    assert!(made.status.success(), "{made:?}");
}

/// Runs one line, which must be refused with `reason`.
fn is_refused(quorum: &Quorum, line: &[&str], reason: &str) {
    let refused = quorum.kubectl(line);
    let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{line:?} succeeded");
    assert!(complaint.contains(reason), "{line:?}: {complaint}");
}

/// Says of every pod of `web` what its kubelet would once it is ready.
fn get_ready(quorum: &Quorum) {
    let pods = run(quorum, "get pods --selector=app=web -o name");
    let status = json!({ "status": {
        "phase": "Running", "conditions": [{
            "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    } });
    for pod in pods.lines() {
        let patch = ["patch", pod, "--subresource=status", "--type=merge", "-p"];
        // It may be gone by now.
        quorum.kubectl(&[&patch[..], &[&status.to_string()]].concat());
    }
}

#[test]
fn rollouts_are_followed_and_undone() {
    let quorum = Quorum::start();
    let image = "get deployment web -o jsonpath={.spec.template.spec.containers[0].image}";
    run(
        &quorum,
        "create deployment web --image=registry.example/web:1 --replicas=2",
    );
    run(
        &quorum,
        "annotate deployment web kubernetes.io/change-cause=first",
    );
    let pods = |count: usize| {
        eventually("the deployment's pods", || {
            let pods = run(&quorum, "get pods --selector=app=web -o name");
            (pods.lines().count() == count).then_some(()).ok_or(pods)
        });
    };
    pods(2);
    contains(
        &quorum,
        "rollout status deployment/web --watch=false",
        &["0 of 2 updated replicas are available"],
    );
    get_ready(&quorum);
    run(
        &quorum,
        "wait deployment/web --for=condition=Available --timeout=30s",
    );
    contains(
        &quorum,
        "rollout status deployment/web --timeout=30s",
        &["successfully rolled out"],
    );

    // A second revision, followed while it comes, one pod at a time.
    run(
        &quorum,
        "set image deployment/web web=registry.example/web:2",
    );
    run(
        &quorum,
        "annotate deployment web --overwrite kubernetes.io/change-cause=second",
    );
    pods(3);
    let followed = quorum.kubectl_command(&["rollout", "status", "deployment/web"]);
    let mut followed = Streamed::start(followed);
    followed.wait_for("the first replica", |line| {
        line.contains("1 out of 2 new replicas have been updated")
    });
    eventually("the second revision's pods", || {
        get_ready(&quorum);
        let line = "get deployment web -o jsonpath={.status.updatedReplicas}";
        let updated = run(&quorum, line);
        (updated == "2").then_some(()).ok_or(updated)
    });
    get_ready(&quorum);
    followed.wait_for("the end", |line| line.contains("successfully rolled out"));
    assert!(followed.join().success());
    pods(2);

    // Looked back at, and undone; not while it is paused.
    contains(
        &quorum,
        "rollout history deployment/web",
        &["1         first", "2         second"],
    );
    contains(
        &quorum,
        "rollout history deployment/web --revision=1",
        &["registry.example/web:1", "pod-template-hash="],
    );
    run(&quorum, "rollout pause deployment/web");
    is_refused(
        &quorum,
        &["rollout", "undo", "deployment/web"],
        "cannot rollback a paused deployment",
    );
    is_refused(
        &quorum,
        &["rollout", "restart", "deployment/web"],
        "can't restart paused deployment",
    );
    run(&quorum, "rollout resume deployment/web");
    contains(&quorum, "rollout undo deployment/web", &["rolled back"]);
    is(&quorum, image, "registry.example/web:1");
    eventually("the revision that was undone to", || {
        let found = run(&quorum, "rollout history deployment/web");
        found.contains("3         first").then_some(()).ok_or(found)
    });
    contains(
        &quorum,
        "rollout undo deployment/web --to-revision=2",
        &["rolled back"],
    );
    is(&quorum, image, "registry.example/web:2");
    run(&quorum, "rollout restart deployment/web");
    contains(
        &quorum,
        "get deployment web -o yaml",
        &["kubectl.kubernetes.io/restartedAt"],
    );
}

/// A pod on the worker, ready as its kubelet would say.
fn pod_on_worker(quorum: &Quorum, name: &str, owner: Option<&str>) {
    let owners = owner.map(|line| {
        let owner: serde_json::Value =
            serde_json::from_str(&run(quorum, line)).expect("the owner's JSON");
        json!([{
            "apiVersion": owner["apiVersion"], "kind": owner["kind"],
            "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
            "controller": true,
        }])
    });
    create(
        quorum,
        &json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "labels": { "app": name }, "ownerReferences": owners,
            },
            "spec": {
                "nodeName": "worker",
                "containers": [{ "name": "c", "image": "registry.example/c:1" }],
            },
        }),
    );
    let status = json!({ "status": {
        "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }],
    } });
    let line = format!("patch pod {name} --subresource=status --type=merge -p '{status}'");
    run(quorum, &line);
    run(
        quorum,
        &format!("wait pod/{name} --for=condition=Ready --timeout=30s"),
    );
}

#[test]
fn a_node_is_drained_within_disruption_budgets() {
    let quorum = Quorum::start_with(&WITHOUT_CONTROLLERS);
    let wait = ["wait", "--for=create", "node/worker", "--timeout=60s"];
    let mut awaited = Streamed::start(quorum.kubectl_command(&wait));
    create(
        &quorum,
        &json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "worker" } }),
    );
    assert!(awaited.join().success());
    let template = |name: &str| {
        json!({
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "c", "image": "registry.example/c:1" }] },
            },
        })
    };
    for (kind, name) in [("ReplicaSet", "served"), ("DaemonSet", "daemon")] {
        create(
            &quorum,
            &json!({
                "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": name },
                "spec": template(name),
            }),
        );
    }
    pod_on_worker(&quorum, "served", Some("get replicaset served -o json"));
    pod_on_worker(&quorum, "daemon", Some("get daemonset daemon -o json"));
    pod_on_worker(&quorum, "bare", None);
    let budget = |allowed: u32| {
        let status = json!({ "status": {
            "observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 1,
            "desiredHealthy": 1, "expectedPods": 1,
        } });
        let line = "patch pdb served --subresource=status --type=merge -p";
        run(&quorum, &format!("{line} '{status}'"));
    };
    run(
        &quorum,
        "create poddisruptionbudget served --selector=app=served --min-available=1",
    );
    budget(0);

    // What would be lost, and what would come back at once, must be said.
    for reason in [
        "cannot delete Pods that declare no controller",
        "cannot delete DaemonSet-managed Pods",
    ] {
        is_refused(&quorum, &["drain", "worker"], reason);
    }
    contains(&quorum, "get node worker", &["SchedulingDisabled"]);

    // The budget allows none; the drain waits until it allows one.
    let drain = [
        "drain",
        "worker",
        "--force",
        "--ignore-daemonsets",
        "--grace-period=0",
        "--timeout=120s",
    ];
    let mut command = quorum.kubectl_command(&drain);
    command.stderr(std::fs::File::create(quorum.dir().join("drain")).expect("a file"));
    let mut drained = Streamed::start(command);
    drained.wait_for("the bare pod's end", |line| line == "pod/bare evicted");
    eventually("a refusal by the budget", || {
        let complaint = std::fs::read_to_string(quorum.dir().join("drain"));
        let complaint = complaint.map_err(|error| error.to_string())?;
        let refused = "Cannot evict pod as it would violate the pod's disruption budget.";
        complaint.contains(refused).then_some(()).ok_or(complaint)
    });
    is(&quorum, "get pod served -o name", "pod/served");
    budget(1);
    drained.wait_for("the other's end", |line| line == "pod/served evicted");
    drained.wait_for("the end", |line| line == "node/worker drained");
    assert!(drained.join().success());
    is(&quorum, "get pods -o name", "pod/daemon");
    is(
        &quorum,
        "get pdb served -o jsonpath={.status.disruptionsAllowed}",
        "0",
    );
    all(
        &quorum,
        "uncordon worker
         delete node worker",
    );
}
