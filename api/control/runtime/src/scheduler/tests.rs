//! Pods and nodes over an API whose followers lag, whose writes fail, and whose leader is
//! lost now and then.

use std::collections::{BTreeMap, BTreeSet};

use nautilus_planner::scheduler::Profile;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::testing::Fake;

fn node(name: &str, cpu: u64) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": cpu.to_string(), "pods": "100"}},
    })
}

fn pod(name: &str, priority: i64) -> Value {
    json!({
        "metadata": {"namespace": "n", "name": name},
        "spec": {
            "priority": priority,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}],
        },
    })
}

/// Schedules over `fake` for a time.
async fn run_for(fake: &Arc<Fake>, time: Duration) {
    run_profiles_for(fake, vec![Profile::default()], time).await;
}

async fn run_profiles_for(fake: &Arc<Fake>, profiles: Vec<Profile>, time: Duration) {
    let api: Arc<dyn Api> = Arc::new(fake.clone());
    let scheduling = Scheduling::new(api.clone(), Scheduler::new(profiles));
    let run = crate::run(api, Vec::new(), Some(scheduling));
    let _ = tokio::time::timeout(time, run).await;
}

fn paused(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(test);
}

fn placed(fake: &Fake) -> BTreeMap<String, Vec<String>> {
    let mut placed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in fake.all(kind::PODS) {
        let node = pod["spec"]["nodeName"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        placed
            .entry(node)
            .or_default()
            .push(object::name(&pod).to_owned());
    }
    placed
}

fn condition(fake: &Fake, name: &str) -> Value {
    let pods = fake.all(kind::PODS);
    let pod = pods.iter().find(|own| object::name(own) == name);
    let condition = object::condition(pod.expect("it is there"), "PodScheduled");
    condition.cloned().unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Every pod gets a node, and no node more than it has room for.
    #[test]
    fn all_are_placed_and_none_twice(
        seed in 1_u64..,
        lag_ms in 0_u64..200,
        failing in 0_u64..40,
        terms in 1_u64..4,
    ) {
        paused(async {
            let fake = Fake::new(seed, lag_ms, failing);
            for name in ["a", "b", "c"] {
                fake.put(kind::NODES, node(name, 10));
            }
            for number in 0..30 {
                fake.put(kind::PODS, pod(&format!("p{number}"), 0));
            }
            for _ in 1..terms {
                run_for(&fake, Duration::from_millis(fake.draw(300))).await;
            }
            run_for(&fake, Duration::from_secs(600)).await;
            let placed = placed(&fake);
            let counts: BTreeMap<&str, usize> =
                placed.iter().map(|(node, pods)| (node.as_str(), pods.len())).collect();
            assert_eq!(counts, BTreeMap::from([("a", 10), ("b", 10), ("c", 10)]));
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Every pod gets a device, by a claim or as a resource, and each device goes to one
    /// claim, on the node of its pod.
    #[test]
    fn all_have_their_devices_and_none_is_given_twice(
        seed in 1_u64..,
        lag_ms in 0_u64..200,
        failing in 0_u64..30,
        terms in 1_u64..4,
    ) {
        paused(async {
            let fake = Fake::new(seed, lag_ms, failing);
            let class = json!({"metadata": {"name": "d"}, "spec": {"extendedResourceName": "x.io/d"}});
            fake.put(kind::DEVICE_CLASSES, class);
            for name in ["a", "b"] {
                fake.put(kind::NODES, node(name, 100));
                let devices: Vec<Value> = (0..6).map(|at| json!({"name": at.to_string()})).collect();
                let pool = json!({"name": name, "generation": 1, "resourceSliceCount": 1});
                fake.put(kind::DEVICE_SLICES, json!({"metadata": {"name": name}, "spec": {
                    "driver": "x", "pool": pool, "nodeName": name, "devices": devices}}));
            }
            for number in 0..12 {
                let name = format!("p{number}");
                let mut pod = pod(&name, 0);
                if number % 2 == 1 {
                    pod["spec"]["containers"][0]["resources"]["requests"]["x.io/d"] = "1".into();
                    fake.put(kind::PODS, pod);
                    continue;
                }
                pod["spec"]["resourceClaims"] =
                    json!([{"name": "c", "resourceClaimName": name}]);
                fake.put(kind::PODS, pod);
                let requests = json!([{"name": "r", "exactly": {"deviceClassName": "d"}}]);
                fake.put(kind::DEVICE_CLAIMS, json!({
                    "metadata": {"namespace": "n", "name": name},
                    "spec": {"devices": {"requests": requests}},
                }));
            }
            for _ in 1..terms {
                run_for(&fake, Duration::from_millis(fake.draw(300))).await;
            }
            run_for(&fake, Duration::from_secs(600)).await;
            let pods: BTreeMap<String, Value> = fake
                .all(kind::PODS)
                .into_iter()
                .map(|own| (object::name(&own).to_owned(), own))
                .collect();
            let mut given = std::collections::BTreeSet::new();
            for claim in fake.all(kind::DEVICE_CLAIMS) {
                let owner = object::controller(&claim);
                let name = owner.map_or(&claim["metadata"]["name"], |own| &own["name"]);
                let pod = &pods[name.as_str().expect("a name")];
                if owner.is_some() {
                    let told = &pod["status"]["extendedResourceClaimStatus"];
                    assert_eq!(told["resourceClaimName"], claim["metadata"]["name"], "{claim} {pod}");
                }
                let status = &claim["status"];
                let result = &status["allocation"]["devices"]["results"][0];
                assert_eq!(result["pool"], pod["spec"]["nodeName"], "{claim} {pod}");
                assert_eq!(status["reservedFor"][0]["uid"], *object::uid(pod), "{claim}");
                assert!(given.insert(result.to_string()), "{result} twice");
            }
            assert_eq!(given.len(), 12);
        });
    }
}

#[test]
fn a_pod_is_told_why_it_waits_and_placed_when_a_node_comes() {
    paused(async {
        let fake = Fake::new(7, 5, 0);
        fake.put(kind::NODES, node("a", 1));
        for name in ["first", "second"] {
            fake.put(kind::PODS, pod(name, 0));
            run_for(&fake, Duration::from_secs(20)).await;
        }
        let why = condition(&fake, "second");
        assert_eq!(why["reason"], "Unschedulable");
        let message = why["message"].as_str().expect("a text");
        assert!(
            message.starts_with("0/1 nodes are available: 1 Insufficient cpu."),
            "{message}"
        );
        fake.put(kind::NODES, node("b", 1));
        run_for(&fake, Duration::from_secs(20)).await;
        assert_eq!(placed(&fake)["b"], ["second"]);
    });
}

#[test]
fn who_is_more_important_has_others_end() {
    paused(async {
        let fake = Fake::new(7, 5, 0);
        fake.put(kind::NODES, node("a", 1));
        fake.put(kind::PODS, pod("low", 1));
        run_for(&fake, Duration::from_secs(20)).await;
        fake.put(kind::PODS, pod("high", 9));
        run_for(&fake, Duration::from_secs(60)).await;
        assert_eq!(
            placed(&fake),
            BTreeMap::from([("a".to_owned(), vec!["high".to_owned()])])
        );
        let events = fake.all(crate::events::EVENTS);
        let reasons: Vec<&str> = events
            .iter()
            .filter_map(|own| own["reason"].as_str())
            .collect();
        for expected in ["Scheduled", "FailedScheduling", "Preempted"] {
            assert!(reasons.contains(&expected), "{reasons:?}");
        }
    });
}

#[test]
fn events_are_of_the_profile_that_their_pod_names() {
    paused(async {
        let fake = Fake::new(7, 5, 0);
        fake.put(kind::NODES, node("a", 1));
        let named = |name: &str, priority: i64, scheduler: &str| {
            let mut pod = pod(name, priority);
            pod["spec"]["schedulerName"] = scheduler.into();
            pod
        };
        let profile = |name: &str| Profile {
            scheduler_name: name.to_owned(),
            ..Profile::default()
        };
        let profiles = vec![profile("default-scheduler"), profile("other")];
        let minute = Duration::from_secs(60);
        fake.put(kind::PODS, named("low", 1, "default-scheduler"));
        run_profiles_for(&fake, profiles.clone(), minute).await;
        fake.put(kind::PODS, named("high", 9, "other"));
        run_profiles_for(&fake, profiles, minute).await;
        let events = fake.all(crate::events::EVENTS);
        let authors = events.iter().map(|event| {
            assert_eq!(event["source"]["component"], event["reportingComponent"]);
            let text = |part: &Value| part.as_str().unwrap_or_default().to_owned();
            let about = text(&event["involvedObject"]["name"]);
            (
                text(&event["reason"]),
                about,
                text(&event["reportingComponent"]),
            )
        });
        let authors: BTreeSet<(String, String, String)> = authors.collect();
        let expected = [
            ("FailedScheduling", "high", "other"),
            // Of whom it makes room for.
            ("Preempted", "low", "other"),
            ("Scheduled", "high", "other"),
            ("Scheduled", "low", "default-scheduler"),
        ];
        let expected = expected.map(|(reason, about, author)| {
            (reason.to_owned(), about.to_owned(), author.to_owned())
        });
        assert_eq!(authors, BTreeSet::from(expected));
    });
}
