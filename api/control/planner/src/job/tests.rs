//! Jobs over time: tables of what happens and what is there then.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::testing::{Cluster, at};

/// A cluster with one job `n/j`, and its time.
struct World {
    cluster: Cluster,
    now_s: i64,
}

fn key() -> Key {
    Key::new("n", "j")
}

impl World {
    fn of(spec: &Value) -> Self {
        let labels = json!({"job": "j"});
        let mut job = json!({
            "metadata": {"namespace": "n", "name": "j", "generation": 1},
            "spec": {
                "parallelism": 1,
                "completions": 1,
                "backoffLimit": 6,
                "completionMode": "NonIndexed",
                "podReplacementPolicy": "TerminatingOrFailed",
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]},
                },
            },
        });
        nautilus_machinery::patch::merge(&mut job["spec"], spec);
        let mut cluster = Cluster::default();
        cluster.put(JOBS, job);
        Self { cluster, now_s: 0 }
    }

    fn job(&self) -> Arc<Value> {
        self.cluster.get(JOBS, "n", "j").expect("the job is there")
    }

    fn status(&self, field: &str) -> Value {
        self.job()["status"][field].clone()
    }

    fn change_job(&mut self, change: &Value) {
        self.cluster.merge(JOBS, &key(), change);
        self.settle();
    }

    /// Looks at the job until nothing is left to do.
    fn settle(&mut self) {
        self.cluster.settle(&Jobs, &key(), at(self.now_s));
    }

    fn pass(&mut self, seconds: i64) {
        self.now_s += seconds;
        self.settle();
    }

    fn pods(&self) -> Vec<Arc<Value>> {
        self.cluster.list(PODS, Within::Namespace("n"))
    }

    fn active(&self) -> Vec<Arc<Value>> {
        let pods = self.pods().into_iter();
        pods.filter(|pod| object::is_active(pod)).collect()
    }

    fn indexes(&self) -> Vec<String> {
        let active = self.active();
        let indexes = active
            .iter()
            .filter_map(|pod| object::annotation(pod, INDEX));
        let mut indexes: Vec<String> = indexes.map(str::to_owned).collect();
        indexes.sort();
        indexes
    }

    /// A pod comes to its end now.
    fn end(&mut self, pod: &Value, phase: &str, exit_code: i64) {
        let finished = object::time_field(at(self.now_s));
        let ended = json!({"exitCode": exit_code, "finishedAt": finished});
        let status = json!({
            "phase": phase,
            "containerStatuses": [{"name": "c", "state": {"terminated": ended}}],
        });
        self.cluster
            .merge(PODS, &Key::of(pod), &json!({"status": status}));
    }

    fn end_first(&mut self, phase: &str, exit_code: i64) {
        let pod = self.active().first().expect("a pod is active").clone();
        self.end(&pod, phase, exit_code);
        self.settle();
    }

    fn end_index(&mut self, index: &str, phase: &str) {
        let active = self.active();
        let mut active = active.iter();
        let pod = active.find(|pod| object::annotation(pod, INDEX) == Some(index));
        let pod = pod.expect("a pod of the index is active").clone();
        self.end(&pod, phase, i64::from(phase == "Failed"));
        self.settle();
    }

    fn conditions(&self) -> Vec<String> {
        let job = self.job();
        let conditions = object::items(&job["status"]["conditions"]);
        let text = |own: &Value| {
            let part = |field: &str| own[field].as_str().unwrap_or_default().to_owned();
            format!(
                "{}={} {}: {}",
                part("type"),
                part("status"),
                part("reason"),
                part("message")
            )
        };
        conditions.map(text).collect()
    }

    fn reasons(&self) -> Vec<&'static str> {
        let events = self.cluster.events.iter();
        events.map(|(reason, _)| *reason).collect()
    }
}

#[test]
fn a_job_runs_until_enough_pods_succeeded() {
    let mut world = World::of(&json!({"parallelism": 2, "completions": 3}));
    world.settle();
    assert_eq!(world.active().len(), 2);
    assert_eq!(world.status("active"), 2);
    assert_eq!(world.status("startTime"), object::time_field(at(0)));
    world.pass(5);
    world.end_first("Succeeded", 0);
    assert_eq!(
        (world.active().len(), world.status("succeeded")),
        (2, json!(1))
    );
    world.end_first("Succeeded", 0);
    assert_eq!(
        (world.active().len(), world.status("succeeded")),
        (1, json!(2))
    );
    world.pass(5);
    world.end_first("Succeeded", 0);
    let why = "CompletionsReached: Reached expected number of succeeded pods";
    let expected = [
        format!("SuccessCriteriaMet=True {why}"),
        format!("Complete=True {why}"),
    ];
    assert_eq!(world.conditions(), expected);
    assert_eq!(world.status("completionTime"), object::time_field(at(10)));
    assert_eq!(world.status("uncountedTerminatedPods"), json!({}));
    assert_eq!(world.status("active"), Value::Null);
    assert_eq!(world.status("terminating"), 0);
    assert!(world.pods().iter().all(|pod| !pod::is_tracked(pod)));
    let made = ["SuccessfulCreate"; 3];
    assert_eq!(world.reasons(), [&made[..], &["Completed"]].concat());
}

#[test]
fn without_completions_one_success_is_the_end() {
    let mut world = World::of(&json!({"parallelism": 2, "completions": null}));
    world.settle();
    world.end_first("Succeeded", 0);
    assert_eq!(world.active().len(), 1);
    assert_eq!(world.conditions(), [""; 0]);
    world.end_first("Failed", 1);
    assert!(object::is_true(&world.job(), "Complete"));
    assert_eq!(
        (world.status("succeeded"), world.status("failed")),
        (json!(1), json!(1))
    );
}

#[test]
fn failures_are_waited_for_and_then_too_many() {
    let mut world = World::of(&json!({"backoffLimit": 1}));
    world.settle();
    world.end_first("Failed", 1);
    assert_eq!(
        (world.active().len(), world.status("failed")),
        (0, json!(1))
    );
    let plan = world.cluster.plan(&Jobs, &key(), at(4));
    assert_eq!(plan.again_in, Some(Duration::from_secs(6)));
    world.pass(10);
    assert_eq!(world.active().len(), 1);
    world.end_first("Failed", 1);
    let why = "BackoffLimitExceeded: Job has reached the specified backoff limit";
    let expected = [
        format!("FailureTarget=True {why}"),
        format!("Failed=True {why}"),
    ];
    assert_eq!(world.conditions(), expected);
    assert_eq!(world.status("failed"), 2);
    assert_eq!(world.reasons().last(), Some(&"BackoffLimitExceeded"));
    // A success takes the failures before it away.
    let mut world = World::of(&json!({"completions": 9, "parallelism": 2}));
    world.settle();
    world.end_first("Failed", 1);
    world.pass(5);
    world.end_first("Succeeded", 0);
    assert_eq!(world.active().len(), 2);
}

#[test]
fn a_job_that_fails_takes_its_pods_with_it() {
    let mut world = World::of(&json!({
        "parallelism": 3, "completions": 3, "activeDeadlineSeconds": 30,
    }));
    world.settle();
    world.pass(29);
    let plan = world.cluster.plan(&Jobs, &key(), at(29));
    assert_eq!(plan.again_in, Some(Duration::from_secs(1)));
    let held = world.active()[0].clone();
    let finalizers = json!({"metadata": {"finalizers": [FINALIZER, "x/kubelet"]}});
    world.cluster.merge(PODS, &Key::of(&held), &finalizers);
    world.pass(1);
    let why = "DeadlineExceeded: Job was active longer than specified deadline";
    assert_eq!(world.conditions(), [format!("FailureTarget=True {why}")]);
    assert_eq!(world.status("terminating"), 1);
    assert_eq!((world.pods().len(), world.status("failed")), (1, json!(3)));
    world.cluster.remove(PODS, &Key::of(&held));
    world.settle();
    assert_eq!(world.conditions()[1], format!("Failed=True {why}"));
    assert_eq!(world.status("failed"), 3);
}

#[test]
fn a_suspended_job_has_no_pods_and_its_time_begins_anew() {
    let mut world = World::of(&json!({"suspend": true, "completions": 2, "parallelism": 2}));
    world.settle();
    assert_eq!(
        (world.pods().len(), world.status("startTime")),
        (0, Value::Null)
    );
    assert_eq!(
        world.conditions(),
        ["Suspended=True JobSuspended: Job suspended"]
    );
    world.now_s = 50;
    world.change_job(&json!({"spec": {"suspend": false}}));
    assert_eq!(world.active().len(), 2);
    assert_eq!(world.status("startTime"), object::time_field(at(50)));
    assert_eq!(
        world.conditions(),
        ["Suspended=False JobResumed: Job resumed"]
    );
    world.change_job(&json!({"spec": {"suspend": true}}));
    assert_eq!(
        (world.pods().len(), world.status("failed")),
        (0, Value::Null)
    );
    assert_eq!(world.status("startTime"), Value::Null);
    let expected = [
        "Suspended",
        "SuccessfulCreate",
        "SuccessfulCreate",
        "Resumed",
        "SuccessfulDelete",
        "SuccessfulDelete",
        "Suspended",
    ];
    assert_eq!(world.reasons(), expected);
}

#[test]
fn indexes_are_each_run_once() {
    let mut world = World::of(&json!({
        "completionMode": "Indexed", "completions": 4, "parallelism": 2,
    }));
    world.settle();
    assert_eq!(world.indexes(), ["0", "1"]);
    let pod = world.active()[0].clone();
    assert_eq!(pod["spec"]["hostname"], "j-0");
    assert_eq!(pod["metadata"]["generateName"], "j-0-");
    assert_eq!(object::label(&pod, INDEX), Some("0"));
    let path = "metadata.labels['batch.kubernetes.io/job-completion-index']";
    let env = json!([{
        "name": "JOB_COMPLETION_INDEX",
        "valueFrom": {"fieldRef": {"fieldPath": path}},
    }]);
    assert_eq!(pod["spec"]["containers"][0]["env"], env);
    world.end_index("1", "Succeeded");
    assert_eq!(world.indexes(), ["0", "2"]);
    world.pass(5);
    world.end_index("0", "Failed");
    assert_eq!(world.indexes(), ["2"]);
    world.pass(11);
    assert_eq!(world.indexes(), ["0", "2"]);
    for index in ["0", "2", "3"] {
        world.end_index(index, "Succeeded");
    }
    assert_eq!(world.status("completedIndexes"), "0-3");
    assert_eq!(
        (world.status("succeeded"), world.status("failed")),
        (json!(4), json!(1))
    );
    assert!(object::is_true(&world.job(), "Complete"));
}

#[test]
fn indexes_fail_on_their_own() {
    let mut world = World::of(&json!({
        "completionMode": "Indexed", "completions": 3, "parallelism": 3,
        "backoffLimit": 100, "backoffLimitPerIndex": 1, "maxFailedIndexes": 1,
    }));
    world.settle();
    world.end_index("0", "Failed");
    // The failed pod is held until its index has another one, which carries the count.
    assert_eq!(world.status("failed"), Value::Null);
    assert_eq!(world.indexes(), ["1", "2"]);
    world.pass(10);
    assert_eq!(
        (world.indexes().len(), world.status("failed")),
        (3, json!(1))
    );
    let active = world.active();
    let again = active
        .iter()
        .find(|pod| object::annotation(pod, INDEX) == Some("0"));
    let failures = again.and_then(|pod| object::annotation(pod, INDEX_FAILURES));
    assert_eq!(failures, Some("1"));
    world.end_index("0", "Failed");
    assert_eq!(
        (world.status("failedIndexes"), world.indexes().len()),
        (json!("0"), 2)
    );
    let mut ended = World {
        cluster: world.cluster.clone(),
        now_s: world.now_s,
    };
    ended.end_index("1", "Succeeded");
    ended.end_index("2", "Succeeded");
    assert_eq!(
        ended.conditions()[1],
        "Failed=True FailedIndexes: Job has failed indexes"
    );
    world.end_index("1", "Failed");
    world.pass(10);
    world.end_index("1", "Failed");
    let why = "Job has exceeded the specified maximal number of failed indexes";
    let expected = format!("Failed=True MaxFailedIndexesExceeded: {why}");
    assert_eq!(world.conditions()[1], expected);
    assert_eq!(world.status("failedIndexes"), "0,1");
}

#[test]
fn a_policy_says_which_failures_count() {
    let rule = |action: &str, code: i64| {
        let codes = json!({"operator": "In", "values": [code]});
        json!({"action": action, "onExitCodes": codes})
    };
    let rules = json!([rule("Ignore", 7), rule("FailJob", 42)]);
    let mut world = World::of(&json!({
        "backoffLimit": 0, "podReplacementPolicy": "Failed", "podFailurePolicy": {"rules": rules},
    }));
    world.settle();
    world.end_first("Failed", 7);
    world.pass(10);
    assert_eq!(
        (world.active().len(), world.status("failed")),
        (1, Value::Null)
    );
    let name = object::name(&world.active()[0]).to_owned();
    world.end_first("Failed", 42);
    let why = format!(
        "Container c for pod n/{name} failed with exit code 42 matching FailJob rule at index 1"
    );
    assert_eq!(
        world.conditions()[1],
        format!("Failed=True PodFailurePolicy: {why}")
    );
    assert_eq!(world.status("failed"), 1);
}

#[test]
fn enough_successes_end_a_job_and_its_other_pods_do_not_count() {
    let rules = json!([{"succeededIndexes": "1", "succeededCount": 1}]);
    let mut world = World::of(&json!({
        "completionMode": "Indexed", "completions": 3, "parallelism": 3,
        "successPolicy": {"rules": rules},
    }));
    world.settle();
    world.end_index("0", "Succeeded");
    assert_eq!(world.conditions(), [""; 0]);
    world.end_index("1", "Succeeded");
    let why = "SuccessPolicy: Matched rules at index 0";
    let expected = [
        format!("SuccessCriteriaMet=True {why}"),
        format!("Complete=True {why}"),
    ];
    assert_eq!(world.conditions(), expected);
    assert_eq!(
        (world.status("succeeded"), world.status("failed")),
        (json!(2), Value::Null)
    );
    assert_eq!(world.active().len(), 0);
}

#[test]
fn a_pod_on_its_way_out_is_replaced_as_the_policy_says() {
    for (policy, active, failed) in [
        ("TerminatingOrFailed", 1, json!(1)),
        ("Failed", 0, Value::Null),
    ] {
        let mut world = World::of(&json!({"podReplacementPolicy": policy}));
        world.settle();
        let pod = world.active()[0].clone();
        let leaving = json!({"metadata": {
            "deletionTimestamp": object::time_field(at(0)),
            "finalizers": [FINALIZER, "x/kubelet"],
        }});
        world.cluster.merge(PODS, &Key::of(&pod), &leaving);
        world.pass(60);
        assert_eq!(
            (world.active().len(), world.status("failed")),
            (active, failed),
            "{policy}"
        );
        assert_eq!(world.status("terminating"), 1);
        world.end(&pod, "Failed", 1);
        world.pass(60);
        assert_eq!(
            (world.active().len(), world.status("failed")),
            (1, json!(1)),
            "{policy}"
        );
    }
}

#[test]
fn surplus_pods_go_and_those_of_an_index_that_is_taken() {
    let mut world = World::of(&json!({"parallelism": 3, "completions": 9}));
    world.settle();
    let placed = world.active()[1].clone();
    let node = json!({"spec": {"nodeName": "a"}});
    world.cluster.merge(PODS, &Key::of(&placed), &node);
    world.change_job(&json!({"spec": {"parallelism": 1}}));
    let names: Vec<Key> = world.active().iter().map(|pod| Key::of(pod)).collect();
    assert_eq!(
        (names, world.status("failed")),
        (vec![Key::of(&placed)], Value::Null)
    );

    let mut world = World::of(&json!({
        "completionMode": "Indexed", "parallelism": 2, "completions": 2,
    }));
    world.settle();
    let mut twin = (*world.active()[0]).clone();
    twin["metadata"]["name"] = "twin".into();
    twin["metadata"]["uid"] = Value::Null;
    world.cluster.put(PODS, twin);
    world.settle();
    assert_eq!(world.indexes(), ["0", "1"]);
}

#[test]
fn pods_are_adopted_held_and_let_go() {
    let mut world = World::of(&json!({"completions": 2}));
    let metadata = json!({"namespace": "n", "name": "alone", "labels": {"job": "j"}});
    world.cluster.put(PODS, json!({"metadata": metadata}));
    world.settle();
    let pod = world.cluster.get(PODS, "n", "alone").expect("it is there");
    assert!(pod::is_tracked(&pod) && object::is_controlled_by(&pod, object::uid(&world.job())));
    assert_eq!(world.pods().len(), 1);
    let strange = json!({"metadata": {"labels": {"job": "x"}}});
    world.cluster.merge(PODS, &Key::of(&pod), &strange);
    world.settle();
    let pod = world.cluster.get(PODS, "n", "alone").expect("it is there");
    assert!(!pod::is_tracked(&pod) && object::controller(&pod).is_none());
    // A job that others manage is left alone.
    let mut world = World::of(&json!({"managedBy": "example.com/queue"}));
    world.settle();
    assert_eq!(
        (world.pods().len(), world.job()["status"].clone()),
        (0, Value::Null)
    );
}

#[test]
fn a_pod_does_not_wait_for_a_job_that_is_gone() {
    let mut world = World::of(&json!({"parallelism": 2, "completions": 2}));
    world.settle();
    let (job, pod) = (world.job(), world.active()[0].clone());
    let (old, new) = (Some(&job), Some(&pod));
    let concerned =
        |world: &World, kind, before, after| world.cluster.concerned(&Jobs, kind, before, after);
    assert_eq!(concerned(&world, PODS, None, new), [key()]);
    world.cluster.settle(&Jobs, &Key::new("n", ""), at(0));
    assert!(world.pods().iter().all(|pod| pod::is_tracked(pod)));
    world.cluster.remove(JOBS, &key());
    let strays = Key::new("n", "");
    assert_eq!(concerned(&world, JOBS, old, None), [strays.clone(), key()]);
    assert!(concerned(&world, PODS, None, new).contains(&strays));
    world.cluster.settle(&Jobs, &strays, at(0));
    assert!(world.pods().iter().all(|pod| !pod::is_tracked(pod)));
}

#[test]
fn a_status_does_not_wait_for_pods_that_are_refused() {
    let world = World::of(&json!({}));
    let mut after = world.cluster;
    let plan = after.plan(&Jobs, &key(), at(0));
    let creates = plan.writes().filter_map(|write| match write {
        Write::Told(write, _) => Some((**write).clone()),
        _ => None,
    });
    let failed = Failed {
        write: creates.last().expect("a pod is made"),
        code: 403,
        reason: "Forbidden".to_owned(),
        message: "exceeded quota".to_owned(),
        namespace_ends: false,
    };
    let told = Jobs.report(&after, &key(), at(0), &failed);
    after.carry_out(&told);
    let job = after.get(JOBS, "n", "j").expect("it is there");
    assert_eq!(job["status"]["startTime"], object::time_field(at(0)));
    assert_eq!(job["status"]["active"], Value::Null);
    let message = "Error creating: exceeded quota".to_owned();
    assert_eq!(after.events, [("FailedCreate", message)]);
}

#[derive(Debug, Clone)]
enum Happens {
    /// The nth active pod succeeds.
    Succeeds(usize),
    Fails(usize),
    /// The nth active pod is deleted by someone.
    Deleted(usize),
    /// A leader plans and is lost after some writes.
    Looked(usize),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        (0..4_usize).prop_map(Happens::Succeeds),
        (0..4_usize).prop_map(Happens::Fails),
        (0..4_usize).prop_map(Happens::Deleted),
        (0..6_usize).prop_map(Happens::Looked),
        (0..6_usize).prop_map(Happens::Looked),
    ]
}

proptest! {
    #[test]
    fn every_end_counts_once(
        indexed in any::<bool>(),
        story in proptest::collection::vec(happens(), 1..60),
    ) {
        let mode = if indexed { "Indexed" } else { "NonIndexed" };
        let mut world = World::of(&json!({
            "completionMode": mode, "completions": 5, "parallelism": 3, "backoffLimit": 1000,
        }));
        let (mut succeeded, mut failed) = (0, 0);
        for event in story {
            world.now_s += 1000;
            let active = world.active();
            match event {
                Happens::Looked(most) => {
                    let plan = world.cluster.plan(&Jobs, &key(), at(world.now_s));
                    for write in plan.writes().take(most) {
                        world.cluster.write(write);
                    }
                }
                Happens::Succeeds(nth) => if let Some(pod) = active.get(nth) {
                    world.end(pod, "Succeeded", 0);
                    succeeded += 1;
                },
                Happens::Fails(nth) => if let Some(pod) = active.get(nth) {
                    world.end(pod, "Failed", 1);
                    failed += 1;
                },
                Happens::Deleted(nth) => if let Some(pod) = active.get(nth) {
                    let leaving = json!({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}});
                    world.cluster.merge(PODS, &Key::of(pod), &leaving);
                    failed += 1;
                },
            }
        }
        for _ in 0..20 {
            world.pass(1000);
            if let Some(pod) = world.active().first().cloned() {
                world.end(&pod, "Succeeded", 0);
                succeeded += 1;
            }
        }
        prop_assert!(object::is_true(&world.job(), "Complete"), "{}", world.job());
        prop_assert_eq!(world.status("succeeded").as_i64().unwrap_or(0), succeeded);
        prop_assert_eq!(world.status("failed").as_i64().unwrap_or(0), failed);
        prop_assert!(world.pods().iter().all(|pod| !pod::is_tracked(pod)));
    }
}
