//! Zones with lost nodes.

use serde_json::json;

use super::*;
use crate::testing::{Cluster, at};

/// Nodes `zone-number`, of which the first `lost` are silent.
fn add(cluster: &mut Cluster, zone: &str, all: usize, lost: usize) {
    for number in 0..all {
        let readiness = if number < lost { "Unknown" } else { "True" };
        let since = object::time_field(at(i64::try_from(number).expect("small")));
        let ready = json!({"type": "Ready", "status": readiness, "lastTransitionTime": since});
        let node = json!({
            "metadata": {
                "name": format!("{zone}-{number:03}"),
                "labels": {"topology.kubernetes.io/zone": zone},
            },
            "status": {"conditions": [ready]},
        });
        cluster.put(kind::NODES, node);
    }
}

fn tainted(cluster: &Cluster) -> Vec<String> {
    let nodes = cluster.list(kind::NODES, Within::All);
    let tainted = nodes.iter().filter(|own| taints::of(own).any(is_loss));
    tainted.map(|own| object::name(own).to_owned()).collect()
}

fn all_zones() -> Key {
    Key::new("", "zones")
}

/// Which are tainted after so many seconds.
fn after(cluster: &mut Cluster, seconds: i64) -> usize {
    for second in 1000..=1000 + seconds {
        cluster.settle(&Zones, &all_zones(), at(second));
    }
    tainted(cluster).len()
}

#[test]
fn lost_nodes_are_tainted_as_fast_as_their_zone_allows() {
    for (case, zones, at_once, in_95_s, in_195_s) in [
        ("few lost", &[(20, 5)][..], 1, 5, 5),
        ("few lost in each", &[(20, 5), (20, 5)], 2, 10, 10),
        ("most lost of a small zone", &[(20, 15)], 0, 0, 0),
        ("most lost of a large zone", &[(60, 50)], 1, 1, 2),
        ("two of three lost are few", &[(3, 2)], 1, 2, 2),
        ("all of one zone lost", &[(20, 20), (20, 0)], 1, 10, 20),
        ("everything lost", &[(20, 20), (5, 5)], 0, 0, 0),
    ] {
        let mut cluster = Cluster::default();
        for (name, (all, lost)) in ["a", "b"].iter().zip(zones) {
            add(&mut cluster, name, *all, *lost);
        }
        let mut later = cluster.clone();
        let found = [
            after(&mut cluster, 0),
            after(&mut later, 95),
            after(&mut later, 195),
        ];
        assert_eq!(found, [at_once, in_95_s, in_195_s], "{case}");
    }
}

#[test]
fn the_next_leader_waits_for_the_zones_turn() {
    let mut cluster = Cluster::default();
    add(&mut cluster, "a", 10, 3);
    cluster.settle(&Zones, &all_zones(), at(100));
    assert_eq!(tainted(&cluster), ["a-000"]);
    let plan = cluster.plan(&Zones, &all_zones(), at(104));
    assert_eq!(
        (plan.is_empty(), plan.again_in),
        (true, Some(Duration::from_secs(6)))
    );
}

#[test]
fn a_node_has_the_taint_of_its_state_at_once() {
    let mut cluster = Cluster::default();
    add(&mut cluster, "a", 10, 1);
    cluster.settle(&Zones, &all_zones(), at(100));
    let key = Key::new("", "a-000");
    for (status, expected) in [
        ("False", Some(taints::NOT_READY)),
        ("Unknown", Some(taints::UNREACHABLE)),
        ("True", None),
    ] {
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
        cluster.merge(kind::NODES, &key, &ready);
        cluster.settle(&Zones, &all_zones(), at(101));
        let node = cluster.get(kind::NODES, "", "a-000").expect("a node");
        let keys: Vec<&str> = taints::of(&node)
            .filter_map(|own| own["key"].as_str())
            .collect();
        assert_eq!(keys, expected.into_iter().collect::<Vec<_>>(), "{status}");
    }
}

#[test]
fn when_all_are_lost_nobody_stays_tainted() {
    let mut cluster = Cluster::default();
    add(&mut cluster, "a", 2, 1);
    cluster.settle(&Zones, &all_zones(), at(100));
    assert_eq!(tainted(&cluster), ["a-000"]);
    let lost = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
    cluster.merge(kind::NODES, &Key::new("", "a-001"), &lost);
    cluster.settle(&Zones, &all_zones(), at(200));
    assert_eq!(tainted(&cluster), [""; 0]);
}

#[test]
fn workers_count_and_are_left_to_their_face_and_the_excluded_do_not_count() {
    let mut cluster = Cluster::default();
    add(&mut cluster, "a", 1, 1);
    let mut worker = json!({
        "metadata": {"name": "w", "annotations": {super::super::WORKER: "w"}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    });
    let key = Key::of(&cluster.put(kind::NODES, worker.clone()));
    assert_eq!(after(&mut cluster, 0), 1);
    worker["status"]["conditions"][0]["status"] = "Unknown".into();
    let mut lost = cluster.clone();
    lost.put(kind::NODES, worker);
    assert_eq!(after(&mut lost, 100), 0);
    let excluded = json!({"metadata": {"labels": {EXCLUDED: ""}}});
    cluster.merge(kind::NODES, &key, &excluded);
    assert_eq!(after(&mut cluster, 100), 0);
}

#[test]
fn a_heartbeat_is_no_reason_to_look() {
    let mut cluster = Cluster::default();
    add(&mut cluster, "a", 1, 0);
    let before = cluster.get(kind::NODES, "", "a-000");
    let key = Key::new("", "a-000");
    let beat = cluster.merge(kind::NODES, &key, &json!({"status": {"images": []}}));
    let keys =
        |after: &Arc<Value>| cluster.concerned(&Zones, kind::NODES, before.as_ref(), Some(after));
    assert_eq!(keys(&beat), []);
    let mut lost = (*beat).clone();
    lost["status"]["conditions"][0]["status"] = "Unknown".into();
    assert_eq!(keys(&Arc::new(lost)), [all_zones()]);
}
