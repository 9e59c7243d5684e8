//! Resources that devices stand for, case by case.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::node::NodeInfo;
use super::super::{Decision, Placement, Profile, Scheduler, Unschedulable, Wait};
use super::tests::{World, claim, devices_of};
use super::*;
use crate::controller::Change;
use crate::kind::{self, Kind};
use crate::plan::Write;
use crate::scheduler::PodInfo;
use crate::testing::at;

const CARD: &str = "x.io/card";

fn class(name: &str, resource: Option<&str>) -> Value {
    json!({"metadata": {"name": name}, "spec": {"extendedResourceName": resource}})
}

fn pod(name: &str, requests: &Value) -> PodInfo {
    PodInfo::new(Arc::new(json!({
        "metadata": {"namespace": "n", "name": name, "uid": format!("uid-{name}")},
        "spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]},
    })))
}

fn one_card(name: &str) -> PodInfo {
    pod(name, &json!({CARD: "1"}))
}

/// The names of the devices that a pod gets for resources; `None`: it goes without a claim.
fn given(world: &mut World, pod: &PodInfo) -> Result<Option<Vec<String>>, String> {
    let why = |own: Unschedulable| own.message("");
    let chosen = world.schedule(pod).map_err(why)?;
    Ok(chosen
        .devices
        .extended
        .map(|own| devices_of(&own.allocation)))
}

fn devices() -> Value {
    json!([{"name": "a"}, {"name": "b"}])
}

/// One node with devices, which a class says are cards.
fn world_of_cards(devices: &Value) -> World {
    let mut world = World::default();
    world.node("node");
    world.pool("node", devices);
    world.put(kind::DEVICE_CLASSES, class("d", Some(CARD)));
    world
}

#[test]
fn devices_are_given_where_a_node_has_none_of_a_resource_itself() {
    let none = |what: &str| Err(format!("0/1 nodes are available: 1 {what}."));
    let some = |names: &[&str]| Ok(Some(names.iter().map(ToString::to_string).collect()));
    let implicit = "deviceclass.resource.kubernetes.io/d";
    for (allocatable, resource, requests, expected) in [
        (json!({}), Some(CARD), json!({CARD: "2"}), some(&["a", "b"])),
        (
            json!({CARD: "0"}),
            Some(CARD),
            json!({CARD: "1"}),
            some(&["a"]),
        ),
        (
            json!({}),
            Some(CARD),
            json!({CARD: "3"}),
            none("cannot allocate all claims"),
        ),
        (json!({CARD: "1"}), Some(CARD), json!({CARD: "1"}), Ok(None)),
        (
            json!({CARD: "1"}),
            Some(CARD),
            json!({CARD: "2"}),
            none("Insufficient x.io/card"),
        ),
        (
            json!({}),
            None,
            json!({CARD: "1"}),
            none("Insufficient x.io/card"),
        ),
        (json!({}), Some(CARD), json!({CARD: "0"}), Ok(None)),
        (json!({}), None, json!({implicit: "1"}), some(&["a"])),
        (
            json!({implicit: "1"}),
            None,
            json!({implicit: "1"}),
            Ok(None),
        ),
        (
            json!({}),
            Some(CARD),
            json!({CARD: "1", implicit: "1"}),
            some(&["a", "b"]),
        ),
        (
            json!({}),
            Some(CARD),
            json!({CARD: "1", "y.io/card": "1"}),
            none("Insufficient y.io/card"),
        ),
        (
            json!({"y.io/card": "1"}),
            Some(CARD),
            json!({CARD: "1", "y.io/card": "1"}),
            some(&["a"]),
        ),
    ] {
        let mut world = World::default();
        let mut node = (*world.node("node")).clone();
        for (name, amount) in allocatable.as_object().into_iter().flatten() {
            node["status"]["allocatable"][name] = amount.clone();
        }
        world.put(kind::NODES, node);
        world.pool("node", &devices());
        world.put(kind::DEVICE_CLASSES, class("d", resource));
        let found = given(&mut world, &pod("p", &requests));
        assert_eq!(found, expected, "{allocatable} {resource:?} {requests}");
    }
}

#[test]
fn what_is_ignored_is_not_given_by_a_node_that_does_not_have_it() {
    let mut world = world_of_cards(&devices());
    let profile = Profile {
        ignored_groups: ["y.io".to_owned()].into(),
        ..Profile::default()
    };
    let both = pod("p", &json!({CARD: "1", "y.io/card": "1"}));
    let why =
        super::super::schedule(&mut world.snapshot, &both, &profile).expect_err("it has none");
    assert_eq!(
        why.message(""),
        "0/1 nodes are available: 1 cannot fit resource."
    );
}

#[test]
fn claims_of_the_pod_come_first() {
    let mut world = world_of_cards(&devices());
    let request = json!({"requests": [{"name": "r", "exactly": {"deviceClassName": "d"}}]});
    world.put(kind::DEVICE_CLAIMS, claim("own", &request));
    let mut object = (*one_card("p").object).clone();
    object["spec"]["resourceClaims"] = json!([{"name": "own", "resourceClaimName": "own"}]);
    let chosen = world
        .schedule(&PodInfo::new(Arc::new(object)))
        .expect("there are two");
    let own = chosen.devices.claims[0].allocation.as_ref().map(devices_of);
    let made = chosen
        .devices
        .extended
        .map(|own| devices_of(&own.allocation));
    assert_eq!(
        (own, made),
        (Some(vec!["a".to_owned()]), Some(vec!["b".to_owned()]))
    );
}

#[test]
fn of_classes_for_one_resource_the_newest_counts_whenever_they_came() {
    let named = |name: &str, created: &str| {
        let mut own = class(name, Some(CARD));
        own["metadata"]["creationTimestamp"] = format!("2027-01-01T00:00:0{created}Z").into();
        own
    };
    let classes = [named("a", "1"), named("c", "2"), named("b", "2")];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
        let mut world = World::default();
        let mut there: Vec<Arc<Value>> = order
            .map(|at| world.put(kind::DEVICE_CLASSES, classes[at].clone()))
            .into();
        there.sort_by_key(|own| crate::object::name(own).to_owned());
        let behind = |world: &World| {
            let class = world.snapshot.devices.class_behind(CARD);
            class.map(|own| own.name.clone())
        };
        assert_eq!(
            behind(&world).as_deref(),
            Some("b"),
            "the lower name of the newest"
        );
        world.remove(kind::DEVICE_CLASSES, &there[1]);
        assert_eq!(behind(&world).as_deref(), Some("c"));
        // Another name, and it stands for that.
        let mut other = named("c", "2");
        other["spec"]["extendedResourceName"] = "x.io/other".into();
        world.put(kind::DEVICE_CLASSES, other);
        assert_eq!(behind(&world).as_deref(), Some("a"));
        world.remove(kind::DEVICE_CLASSES, &there[0]);
        assert_eq!(behind(&world), None);
    }
}

/// The claim of an [`ExtendedBinding`] once it is made.
fn made(own: &ExtendedBinding) -> Value {
    let Write::Create {
        object: mut claim, ..
    } = own.create()
    else {
        panic!("it is made");
    };
    assert_eq!(claim["metadata"]["name"], Value::Null);
    assert_eq!(claim["metadata"]["uid"], Value::Null);
    claim["metadata"]["name"] = "p-extended-resources-abcde".into();
    claim["metadata"]["uid"] = "uid-made".into();
    claim
}

#[test]
fn devices_of_a_claim_that_is_made_are_held_until_it_is_seen_or_has_failed() {
    let mut world = world_of_cards(&json!([{"name": "only"}]));
    let none = Err("0/1 nodes are available: 1 cannot allocate all claims.".to_owned());
    let only = Ok(Some(vec!["only".to_owned()]));
    let (first, other) = (one_card("p"), one_card("q"));
    let chosen = world.schedule(&first).expect("it is free");
    let extended = chosen
        .devices
        .extended
        .as_ref()
        .expect("it has none itself");
    chosen.devices.assume(&mut world.snapshot);
    assert_eq!(given(&mut world, &other), none);
    chosen.devices.forget(&mut world.snapshot);
    assert_eq!(given(&mut world, &other), only);
    // Once more. One that an earlier attempt made goes meanwhile, and says nothing.
    chosen.devices.assume(&mut world.snapshot);
    let mut earlier = made(extended);
    earlier["metadata"]["uid"] = "uid-earlier".into();
    earlier["status"]["allocation"] = extended.allocation.clone();
    let earlier = world.put(kind::DEVICE_CLAIMS, earlier);
    world.remove(kind::DEVICE_CLAIMS, &earlier);
    assert_eq!(given(&mut world, &other), none);
    let claim = made(extended);
    world
        .snapshot
        .devices
        .made(&first.uid, &Arc::new(claim.clone()));
    assert_eq!(given(&mut world, &other), none, "it has none yet");
    // It is written before anything of it is seen.
    let mut written = claim.clone();
    written["metadata"]["resourceVersion"] = "100".into();
    written["status"]["allocation"] = extended.allocation.clone();
    world.snapshot.devices.written(written.clone());
    chosen.devices.forget(&mut world.snapshot);
    assert_eq!(given(&mut world, &other), none);
    world.put(kind::DEVICE_CLAIMS, claim);
    assert_eq!(
        given(&mut world, &other),
        none,
        "it says less than is known"
    );
    assert!(given(&mut world, &first).is_err(), "its own is in the way");
    let seen = world.put_at(kind::DEVICE_CLAIMS, written, 100);
    assert_eq!(given(&mut world, &other), none);
    world.remove(kind::DEVICE_CLAIMS, &seen);
    assert_eq!(given(&mut world, &other), only, "nothing was counted twice");
}

#[test]
fn the_claim_of_an_earlier_attempt_goes_before_the_next() {
    let mut world = world_of_cards(&devices());
    let pod = one_card("p");
    let chosen = world.schedule(&pod).expect("it is free");
    let mut stale = made(
        chosen
            .devices
            .extended
            .as_ref()
            .expect("it has none itself"),
    );
    stale["metadata"]["finalizers"] = json!(["resource.kubernetes.io/delete-protection", "other"]);
    let stale = world.put(kind::DEVICE_CLAIMS, stale);
    let why = world.schedule(&pod).expect_err("it is in the way");
    let expected = "0/1 nodes are available: 1 cannot schedule extended resource claim.";
    assert_eq!(why.message(""), expected);
    let writes = freed(why.to_free.as_deref().expect("it goes"));
    let [Write::Patch { patch, .. }, Write::Delete(delete)] = writes.as_slice() else {
        panic!("{writes:?}");
    };
    assert_eq!(patch["metadata"]["finalizers"], json!(["other"]));
    assert_eq!(delete.uid, "uid-made");
    assert!(
        world.schedule(&one_card("q")).is_ok(),
        "of others it is none"
    );
    assert!(changes_claim_of(Some(&stale), None, &pod));
    world.remove(kind::DEVICE_CLAIMS, &stale);
    assert!(world.schedule(&pod).is_ok());
}

#[test]
fn the_pod_says_which_claim_its_containers_use() {
    let mut world = world_of_cards(&devices());
    let pod = one_card("p");
    let chosen = world.schedule(&pod).expect("it is free");
    let extended = chosen.devices.extended.expect("it has none itself");
    let tell = extended.tell(&pod, &made(&extended));
    let Write::Patch {
        subresource,
        uid,
        patch,
        ..
    } = &tell
    else {
        panic!("{tell:?}");
    };
    assert_eq!((*subresource, uid.as_str()), (Some("status"), "uid-p"));
    assert_eq!(
        patch["status"]["extendedResourceClaimStatus"],
        json!({
            "requestMappings": [{
                "containerName": "c", "resourceName": CARD, "requestName": "container-0-request-0",
            }],
            "resourceClaimName": "p-extended-resources-abcde",
        })
    );
    let failures = [
        extended.failure(&tell),
        extended.failure(&extended.create()),
    ];
    let expected = [
        "update pod n/p ExtendedResourceClaimStatus",
        "create claim for extended resources n/",
    ];
    assert_eq!(failures, expected);
}

/// A scheduler that is told of objects.
struct Told(Scheduler);

impl Told {
    fn new() -> Self {
        Self(Scheduler::new(vec![Profile::default()]))
    }

    fn put(&mut self, kind: Kind, before: Option<&Value>, after: Value) {
        let change = Change {
            kind,
            before: before.cloned().map(Arc::new),
            after: Some(Arc::new(after)),
        };
        self.0.hear(&change, at(0));
    }

    fn wait(&mut self) -> Wait {
        match self.0.next(at(0)) {
            Some(Decision::Wait(wait)) => wait,
            other => panic!("{other:?}"),
        }
    }

    fn place(&mut self) -> Placement {
        // Behind its backoff.
        match self.0.next(at(60)) {
            Some(Decision::Place(placement)) => placement,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_pod_is_looked_at_again_when_devices_come_to_stand_for_what_it_asks_for() {
    let node = |allocatable: Value| json!({"metadata": {"name": "node"}, "status": {"allocatable": allocatable}});
    let slice = super::tests::slice("s", json!({"nodeName": "node", "devices": devices()}));
    let (with, without) = (class("d", Some(CARD)), class("d", None));
    let roomy = node(json!({"pods": "10"}));
    let busy = node(json!({"pods": "10", CARD: "1"}));
    let two = json!({CARD: "2"});
    let changes = [
        // A class comes, or says another name.
        (
            vec![(kind::NODES, roomy.clone())],
            two.clone(),
            (kind::DEVICE_CLASSES, None, with.clone()),
        ),
        (
            vec![
                (kind::NODES, roomy.clone()),
                (kind::DEVICE_CLASSES, without.clone()),
            ],
            two.clone(),
            (kind::DEVICE_CLASSES, Some(without.clone()), with.clone()),
        ),
        (
            vec![(kind::NODES, roomy.clone())],
            json!({"deviceclass.resource.kubernetes.io/d": "1"}),
            (kind::DEVICE_CLASSES, None, without),
        ),
        // A node has none of itself any more.
        (
            vec![(kind::NODES, busy.clone()), (kind::DEVICE_CLASSES, with)],
            two.clone(),
            (kind::NODES, Some(busy), roomy.clone()),
        ),
    ];
    for (objects, requests, (kind, before, after)) in changes {
        let mut told = Told::new();
        told.put(kind::DEVICE_SLICES, None, slice.clone());
        for (kind, own) in objects {
            told.put(kind, None, own);
        }
        told.put(kind::PODS, None, (*pod("p", &requests).object).clone());
        let wait = told.wait();
        assert!(wait.message.contains("Insufficient"), "{}", wait.message);
        told.put(kind, before.as_ref(), after.clone());
        let placement = told.place();
        assert!(placement.chosen.devices.extended.is_some(), "{after}");
    }
    // What stands for something else helps nobody.
    let mut told = Told::new();
    told.put(kind::NODES, None, roomy);
    told.put(kind::PODS, None, (*pod("p", &two).object).clone());
    told.wait();
    told.put(kind::DEVICE_CLASSES, None, class("e", Some("x.io/other")));
    assert!(told.0.next(at(60)).is_none());
}

#[test]
fn what_an_attempt_left_is_there_until_it_is_removed_and_then_the_pod_is_looked_at() {
    let mut told = Told::new();
    let node = json!({"metadata": {"name": "node"}, "status": {"allocatable": {"pods": "10"}}});
    told.put(kind::NODES, None, node);
    told.put(kind::DEVICE_CLASSES, None, class("d", Some(CARD)));
    let slice = super::tests::slice("s", json!({"nodeName": "node", "devices": devices()}));
    told.put(kind::DEVICE_SLICES, None, slice);
    told.put(kind::PODS, None, (*one_card("p").object).clone());
    let placement = told.place();
    let extended = placement.chosen.devices.extended.as_ref();
    let claim = Arc::new(made(extended.expect("it has none itself")));
    told.0.claim_made(&placement.attempt.pod, &claim);
    // Nothing of it is seen, and it can't be removed.
    told.0.failed(&placement, at(60));
    let Some(Decision::Wait(wait)) = told.0.next(at(120)) else {
        panic!("it is in the way");
    };
    let message = wait.message;
    assert!(
        message.contains("deletion of ResourceClaim completed, "),
        "{message}"
    );
    assert_eq!(wait.freed.as_deref(), Some(&*claim));
    assert!(told.0.next(at(180)).is_none());
    told.0.claim_removed(&claim, at(180));
    assert!(matches!(told.0.next(at(240)), Some(Decision::Place(_))));
}

#[test]
fn devices_count_as_a_nodes_resource_where_that_scores() {
    let mut world = World::default();
    world.node("node");
    world.pool(
        "node",
        &json!([{"name": "a"}, {"name": "b"}, {"name": "c"}]),
    );
    world.put(kind::DEVICE_CLASSES, class("d", Some(CARD)));
    let mut taken = claim("taken", &json!({}));
    taken["status"]["allocation"]["devices"]["results"] =
        json!([{"driver": "x.example", "pool": "node", "device": "b"}]);
    world.put(kind::DEVICE_CLAIMS, taken);
    let devices = &world.snapshot.devices;
    let near = world.snapshot.node("node").expect("it is there");
    assert_eq!(counts(devices, near, CARD), Some((3, 1)));
    assert_eq!(counts(devices, near, "x.io/other"), None);
    assert_eq!(
        counts(devices, &NodeInfo::new(1, "far"), CARD),
        Some((0, 0))
    );
}
