//! Claims, pools and devices, case by case.

use serde_json::{Value, json};

use super::super::snapshot::Snapshot;
use super::super::{Chosen, PodInfo, Profile, Unschedulable, explain, search};
use super::*;
use crate::controller::Change;
use crate::kind::{self, Kind};
use crate::object;
use crate::plan::Write;
use crate::testing::at;
use std::sync::Arc;

/// Objects of tests, as a snapshot is told of them.
#[derive(Default)]
pub(super) struct World {
    pub(super) snapshot: Snapshot,
    version: u64,
}

impl World {
    pub(super) fn put(&mut self, kind: Kind, mut object: Value) -> Arc<Value> {
        self.version += 1;
        let name = object::name(&object).to_owned();
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = format!("uid-{name}").into();
        }
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let object = Arc::new(object);
        let (before, after) = (None, Some(object.clone()));
        self.snapshot.apply(&Change {
            kind,
            before,
            after,
        });
        object
    }

    /// In a version that is at least so new.
    pub(super) fn put_at(&mut self, kind: Kind, object: Value, version: u64) -> Arc<Value> {
        self.version = self.version.max(version - 1);
        self.put(kind, object)
    }

    pub(super) fn remove(&mut self, kind: Kind, object: &Arc<Value>) {
        let (before, after) = (Some(object.clone()), None);
        self.snapshot.apply(&Change {
            kind,
            before,
            after,
        });
    }

    pub(super) fn node(&mut self, name: &str) -> Arc<Value> {
        self.put(
            kind::NODES,
            json!({
                "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
                "status": {"allocatable": {"cpu": "8", "memory": "1Gi", "pods": "10"}},
            }),
        )
    }

    /// A class `d` of all devices, and a pool of one slice.
    pub(super) fn pool(&mut self, node: &str, devices: &Value) {
        self.put(
            kind::DEVICE_CLASSES,
            json!({"metadata": {"name": "d"}, "spec": {}}),
        );
        self.put(
            kind::DEVICE_SLICES,
            slice(node, json!({"nodeName": node, "devices": devices})),
        );
    }

    fn claim(&mut self, name: &str, devices: &Value) -> Arc<Value> {
        self.put(kind::DEVICE_CLAIMS, claim(name, devices))
    }

    pub(super) fn schedule(&mut self, pod: &PodInfo) -> Result<Chosen, Unschedulable> {
        search::schedule(&mut self.snapshot, pod, &Profile::default())
    }

    /// The names of the devices that a pod's claims get, or why they get none.
    fn devices(&mut self, claims: &[&str]) -> Result<Vec<String>, String> {
        match self.schedule(&pod("p", claims)) {
            Ok(chosen) => Ok(chosen.devices.claims.iter().flat_map(names).collect()),
            Err(why) => Err(match &why.failed {
                Some(failed) => failed.to_string(),
                None => why.message(""),
            }),
        }
    }
}

fn names(own: &ClaimBinding) -> Vec<String> {
    own.allocation.as_ref().map(devices_of).unwrap_or_default()
}

/// The names of the devices of an allocation.
pub(super) fn devices_of(allocation: &Value) -> Vec<String> {
    object::items(&allocation["devices"]["results"])
        .map(|own| own["device"].as_str().unwrap_or_default().to_owned())
        .collect()
}

pub(super) fn slice(name: &str, mut spec: Value) -> Value {
    spec["driver"] = "x.example".into();
    if spec["pool"].is_null() {
        spec["pool"] = json!({"name": name, "generation": 1, "resourceSliceCount": 1});
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

pub(super) fn claim(name: &str, devices: &Value) -> Value {
    json!({"metadata": {"namespace": "n", "name": name}, "spec": {"devices": devices}})
}

pub(super) fn pod(name: &str, claims: &[&str]) -> PodInfo {
    let claims = claims.iter();
    let claims: Vec<Value> = claims
        .map(|own| json!({"name": own, "resourceClaimName": own}))
        .collect();
    PodInfo::new(Arc::new(json!({
        "metadata": {"namespace": "n", "name": name, "uid": format!("uid-{name}")},
        "spec": {"resourceClaims": claims, "containers": []},
    })))
}

fn exactly(name: &str, mut own: Value) -> Value {
    own["deviceClassName"] = "d".into();
    json!({"name": name, "exactly": own})
}

fn one(own: Value) -> Value {
    json!({"requests": [exactly("r", own)]})
}

fn cel(expression: &str) -> Value {
    json!([{"cel": {"expression": expression}}])
}

#[test]
fn requests_get_the_first_devices_that_will_do() {
    let model = |name: &str, model: &str, slot: i64| json!({"name": name, "attributes": {"model": {"string": model}, "slot": {"int": slot}}});
    let devices = json!([
        model("a", "small", 1),
        model("b", "large", 1),
        model("c", "large", 2),
        {"name": "t", "taints": [{"key": "k", "effect": "NoSchedule"}]},
    ]);
    let large = || cel("device.attributes[\"x.example\"].?model.orValue(\"\") == \"large\"");
    let constraint = |kind: &str| json!([{kind: "x.example/slot"}]);
    let counted = |count: u32| exactly("r", json!({"count": count}));
    let none = "0/1 nodes are available: 1 cannot allocate all claims.";
    for (wanted, expected) in [
        (one(json!({})), Ok(vec!["a"])),
        (one(json!({"count": 2})), Ok(vec!["a", "b"])),
        (one(json!({"count": 4})), Err(none)),
        (
            one(json!({"count": 4, "tolerations": [{"operator": "Exists"}]})),
            Ok(vec!["a", "b", "c", "t"]),
        ),
        (one(json!({"selectors": large()})), Ok(vec!["b"])),
        (
            one(json!({"selectors": large(), "allocationMode": "All"})),
            Ok(vec!["b", "c"]),
        ),
        (
            one(json!({"selectors": cel("false"), "allocationMode": "All"})),
            Err(none),
        ),
        (
            json!({"requests": [exactly("x", json!({"selectors": large()})), exactly("y", json!({}))]}),
            Ok(vec!["b", "a"]),
        ),
        (
            json!({"requests": [counted(2)], "constraints": constraint("distinctAttribute")}),
            Ok(vec!["a", "c"]),
        ),
        (
            json!({
                "requests": [exactly("x", json!({})), exactly("y", json!({"selectors": large()}))],
                "constraints": constraint("matchAttribute"),
            }),
            Ok(vec!["a", "b"]),
        ),
        (
            json!({"requests": [counted(3)], "constraints": constraint("matchAttribute")}),
            Err(none),
        ),
        (
            json!({"requests": [{"name": "r", "firstAvailable": [
                {"name": "many", "deviceClassName": "d", "count": 5},
                {"name": "two", "deviceClassName": "d", "count": 2, "selectors": large()},
            ]}]}),
            Ok(vec!["b", "c"]),
        ),
    ] {
        let mut world = World::default();
        world.node("node");
        world.pool("node", &devices);
        world.claim("c", &wanted);
        let expected = expected.map(|own| own.iter().map(ToString::to_string).collect());
        assert_eq!(
            world.devices(&["c"]),
            expected.map_err(str::to_owned),
            "{wanted}"
        );
    }
}

#[test]
fn what_is_wrong_with_a_claim_is_told_in_the_words_that_users_know() {
    let mut world = World::default();
    world.node("node");
    world.pool("node", &json!([{"name": "a"}]));
    let other_class = json!({"requests": [{"name": "r", "exactly": {"deviceClassName": "none"}}]});
    world.claim("no-class", &other_class);
    world.claim(
        "unfit",
        &one(json!({"selectors": cel("device.attributes[\"x.example\"].none == 1")})),
    );
    let mut deleted = claim("deleted", &one(json!({})));
    deleted["metadata"]["deletionTimestamp"] = "2027-01-01T00:00:00Z".into();
    world.put(kind::DEVICE_CLAIMS, deleted);
    for (name, expected) in [
        (
            "no-class",
            "0/1 nodes are available: request r: device class none does not exist.",
        ),
        (
            "unfit",
            "running \"DynamicResources\" filter plugin: claim n/unfit: selector #0 on device \
             x.example/node/a: CEL runtime error: no such key: none. consider using CEL optional \
             chaining (.? followed by orValue()) or guarding the check with has() for optional \
             fields",
        ),
        (
            "deleted",
            "0/1 nodes are available: resourceclaim \"deleted\" is being deleted.",
        ),
        (
            "absent",
            "0/1 nodes are available: could not find ResourceClaim \"n/absent\".",
        ),
    ] {
        assert_eq!(world.devices(&[name]), Err(expected.to_owned()));
    }
}

#[test]
fn a_claim_of_a_template_is_its_pods_once_the_pod_says_so() {
    let mut world = World::default();
    world.node("node");
    world.pool("node", &json!([{"name": "a"}]));
    let mut own = claim("made", &one(json!({})));
    own["metadata"]["ownerReferences"] = json!([{"uid": "uid-p", "controller": true}]);
    world.put(kind::DEVICE_CLAIMS, own);
    world.claim("foreign", &one(json!({})));
    let with = |statuses: Value| {
        PodInfo::new(Arc::new(json!({
            "metadata": {"namespace": "n", "name": "p", "uid": "uid-p"},
            "spec": {"resourceClaims": [{"name": "c", "resourceClaimTemplateName": "t"}]},
            "status": {"resourceClaimStatuses": statuses},
        })))
    };
    let status = |name: Value| json!([{"name": "c", "resourceClaimName": name}]);
    for (statuses, expected) in [
        (
            json!([]),
            Some("pod \"n/p\": ResourceClaim not created yet"),
        ),
        (status(Value::Null), None),
        (status("made".into()), None),
        (
            status("foreign".into()),
            Some("ResourceClaim n/foreign was not created for Pod n/p (Pod is not owner)"),
        ),
    ] {
        let claims = world.snapshot.devices.claims_of(&with(statuses.clone()));
        assert_eq!(claims.err().as_deref(), expected, "{statuses}");
    }
}

#[test]
fn a_device_is_given_once_until_that_is_seen_or_has_failed() {
    let mut world = World::default();
    world.node("node");
    world.pool("node", &json!([{"name": "only"}]));
    world.claim("one", &one(json!({})));
    world.claim("two", &one(json!({})));
    let first = world.schedule(&pod("p", &["one"])).expect("it is free");
    first.devices.assume(&mut world.snapshot);
    let none = "0/1 nodes are available: 1 cannot allocate all claims.";
    assert_eq!(world.devices(&["two"]), Err(none.to_owned()));
    assert_eq!(
        world.devices(&["one"]).unwrap_err(),
        "0/1 nodes are available: resource claim n/one is in the process of being allocated."
    );
    first.devices.forget(&mut world.snapshot);
    assert_eq!(world.devices(&["two"]), Ok(vec!["only".to_owned()]));
    // Once more, and it is written before that is seen.
    first.devices.assume(&mut world.snapshot);
    let ClaimBinding {
        claim, allocation, ..
    } = &first.devices.claims[0];
    let mut written = (**claim).clone();
    written["metadata"]["resourceVersion"] = "99".into();
    world.snapshot.devices.written(written.clone());
    assert_eq!(
        world.devices(&["two"]),
        Err(none.to_owned()),
        "it is held, no more"
    );
    written["status"]["allocation"] = allocation.clone().expect("it was made");
    written["metadata"]["resourceVersion"] = "100".into();
    world.snapshot.devices.written(written.clone());
    first.devices.forget(&mut world.snapshot);
    assert_eq!(world.devices(&["two"]), Err(none.to_owned()));
    assert_eq!(
        world.devices(&["one"]),
        Ok(Vec::new()),
        "others may share the claim"
    );
    // An older version says nothing new; a newer one without devices frees them.
    world.put(kind::DEVICE_CLAIMS, (**claim).clone());
    assert_eq!(world.devices(&["two"]), Err(none.to_owned()));
    world.version = 100;
    world.put(kind::DEVICE_CLAIMS, (**claim).clone());
    assert_eq!(world.devices(&["two"]), Ok(vec!["only".to_owned()]));
}

#[test]
fn only_the_newest_generation_of_a_pool_counts_and_only_whole() {
    let part = |name: &str, generation: i64, count: u32, device: &str| {
        let pool = json!({"name": "p", "generation": generation, "resourceSliceCount": count});
        let spec = json!({"nodeName": "node", "pool": pool, "devices": [{"name": device}]});
        slice(name, spec)
    };
    let none = "0/1 nodes are available: 1 cannot allocate all claims.";
    let updated = "running \"DynamicResources\" filter plugin: claim n/all, request r: asks for \
                   all devices, but resource pool x.example/p is currently being updated";
    let invalid = "0/1 nodes are available: 1 invalid resource pools were encountered.";
    for (slices, expected, of_all) in [
        (vec![part("1", 1, 1, "a")], Ok("a"), Ok("a")),
        (
            vec![part("1", 1, 1, "a"), part("2", 2, 1, "b")],
            Ok("b"),
            Ok("b"),
        ),
        (
            vec![part("1", 1, 1, "a"), part("2", 2, 2, "b")],
            Err(none),
            Err(updated),
        ),
        (
            vec![part("1", 1, 2, "a"), part("2", 1, 2, "a")],
            Err(invalid),
            Err(
                "running \"DynamicResources\" filter plugin: claim n/all, request r: asks for \
                 all devices, but resource pool x.example/p is currently invalid",
            ),
        ),
    ] {
        let mut world = World::default();
        world.node("node");
        world.put(
            kind::DEVICE_CLASSES,
            json!({"metadata": {"name": "d"}, "spec": {}}),
        );
        for own in slices {
            world.put(kind::DEVICE_SLICES, own);
        }
        world.claim("one", &one(json!({})));
        world.claim("all", &one(json!({"allocationMode": "All"})));
        for (name, expected) in [("one", expected), ("all", of_all)] {
            let expected = expected
                .map(|own| vec![own.to_owned()])
                .map_err(str::to_owned);
            assert_eq!(world.devices(&[name]), expected);
        }
    }
}

#[test]
fn an_allocation_says_from_where_its_devices_are_reached() {
    let term = json!({"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": ["a", "b"]},
    ]});
    let selector = json!({"nodeSelectorTerms": [term]});
    let own = json!({"nodeSelectorTerms": [{"matchFields": [
        {"key": "metadata.name", "operator": "In", "values": ["a"]},
    ]}]});
    for (spec, expected) in [
        (
            json!({"allNodes": true, "devices": [{"name": "d"}]}),
            Value::Null,
        ),
        (
            json!({"nodeName": "a", "devices": [{"name": "d"}]}),
            own.clone(),
        ),
        (
            json!({"nodeSelector": selector, "devices": [{"name": "d"}]}),
            selector,
        ),
        (
            json!({"perDeviceNodeSelection": true, "devices": [
                {"name": "x", "nodeName": "b"}, {"name": "d", "nodeName": "a"},
            ]}),
            own.clone(),
        ),
        (
            json!({"allNodes": true, "devices": [{"name": "d", "bindsToNode": true}]}),
            own,
        ),
    ] {
        let mut world = World::default();
        world.node("a");
        world.put(
            kind::DEVICE_CLASSES,
            json!({"metadata": {"name": "d"}, "spec": {}}),
        );
        world.put(kind::DEVICE_SLICES, slice("s", spec.clone()));
        world.claim("c", &one(json!({})));
        let chosen = world.schedule(&pod("p", &["c"])).expect("a node will do");
        let allocation = chosen.devices.claims[0]
            .allocation
            .clone()
            .expect("it is new");
        assert_eq!(allocation["devices"]["results"][0]["device"], "d");
        assert_eq!(allocation["nodeSelector"], expected, "{spec}");
        // Who shares it must be where it is reached.
        let mut allocated = claim("c", &one(json!({})));
        allocated["status"]["allocation"] = allocation;
        world.put(kind::DEVICE_CLAIMS, allocated);
        world.node("z");
        let profile = Profile::default();
        let explained = explain(&world.snapshot, &pod("q", &["c"]), &profile);
        let fits = |node: &str| {
            let mut verdicts = explained.verdicts.iter();
            verdicts.any(|own| own.node == node && own.rejection.is_none())
        };
        assert!(fits("a"));
        assert_eq!(fits("z"), expected.is_null(), "{spec}");
    }
}

#[test]
fn a_claim_that_keeps_its_only_pod_away_loses_its_devices() {
    let mut world = World::default();
    world.node("a");
    world.pool("b", &json!([{"name": "x"}]));
    let mut own = claim("c", &one(json!({})));
    own["status"] = json!({"allocation": {"nodeSelector": {"nodeSelectorTerms": [{"matchFields": [
        {"key": "metadata.name", "operator": "In", "values": ["b"]}]}]}}});
    let mut why = |users: Value| {
        own["status"]["reservedFor"] = users;
        world.put(kind::DEVICE_CLAIMS, own.clone());
        world
            .schedule(&pod("p", &["c"]))
            .expect_err("it is elsewhere")
    };
    let user = |uid: &str| json!({"resource": "pods", "name": "x", "uid": uid});
    assert!(why(json!([])).to_free.is_some());
    assert!(why(json!([user("uid-p")])).to_free.is_some());
    assert!(why(json!([user("other")])).to_free.is_none());
    let why = why(json!([user("uid-p"), user("other")]));
    assert!(why.to_free.is_none());
    let expected = "0/1 nodes are available: 1 resourceclaim not available on the node.";
    assert_eq!(why.message(""), expected);
}

#[test]
fn a_claim_is_held_then_given_and_reserved() {
    let mut world = World::default();
    world.node("node");
    world.pool("node", &json!([{"name": "only"}]));
    world.claim("c", &one(json!({})));
    let pod = pod("p", &["c"]);
    let chosen = world.schedule(&pod).expect("it is free");
    let own = &chosen.devices.claims[0];
    let write = |seen: &Value| own.write(seen, &pod, at(0));
    let Ok(Write::Update {
        subresource: None,
        object: held,
        ..
    }) = write(&own.claim)
    else {
        panic!("it is held first");
    };
    let finalizer = "resource.kubernetes.io/delete-protection";
    assert_eq!(held["metadata"]["finalizers"], json!([finalizer]));
    let Ok(Write::Update {
        subresource: Some("status"),
        object: given,
        ..
    }) = write(&held)
    else {
        panic!("then it is given");
    };
    let status = &given["status"];
    assert_eq!(
        status["reservedFor"],
        json!([{"resource": "pods", "name": "p", "uid": "uid-p"}])
    );
    assert_eq!(
        status["allocation"]["allocationTimestamp"],
        object::time_field(at(0))
    );
    let again = write(&given).unwrap_err();
    assert_eq!(again, "claim n/c got allocated elsewhere in the meantime");
    let Some(Write::Update { object: let_go, .. }) = released(&given, &pod) else {
        panic!("it is reserved");
    };
    assert!(let_go["status"].get("reservedFor").is_none());
    assert!(released(&own.claim, &pod).is_none());
}

#[test]
fn devices_may_get_ready_late_or_never() {
    use super::binding::{Readiness, readiness};
    let claim = |conditions: Value| {
        let id = json!({"driver": "x", "pool": "p", "device": "d"});
        let mut result = id.clone();
        result["bindingConditions"] = json!(["Ready"]);
        result["bindingFailureConditions"] = json!(["Broken"]);
        let mut told = id;
        told["conditions"] = conditions;
        json!({"metadata": {"name": "c"}, "status": {
            "allocation": {"allocationTimestamp": object::time_field(at(0)),
                "devices": {"results": [result]}},
            "devices": [told],
        }})
    };
    let is = |kind: &str| json!([{"type": kind, "status": "True", "reason": "R", "message": "m"}]);
    let failed = "device binding failed: claim=c, reason=R, message=\"m\"".to_owned();
    for (conditions, seconds, expected) in [
        (json!([]), 1, Ok(Readiness::Pending)),
        (json!([]), 601, Ok(Readiness::TimedOut)),
        (is("Ready"), 601, Ok(Readiness::Ready)),
        (is("Broken"), 1, Err(failed)),
    ] {
        assert_eq!(readiness(&claim(conditions), at(seconds)), expected);
    }
}

#[test]
fn shares_and_partitions_take_from_what_there_is() {
    let mut world = World::default();
    world.node("node");
    let pool = json!({"name": "p", "generation": 1, "resourceSliceCount": 2});
    let counters = json!([{"name": "card", "counters": {"memory": {"value": "40Gi"}}}]);
    world.put(
        kind::DEVICE_CLASSES,
        json!({"metadata": {"name": "d"}, "spec": {}}),
    );
    let spec = json!({"nodeName": "node", "pool": pool, "sharedCounters": counters});
    world.put(kind::DEVICE_SLICES, slice("1", spec));
    let part = |name: &str, memory: &str| {
        json!({"name": name, "consumesCounters": [
            {"counterSet": "card", "counters": {"memory": {"value": memory}}}]})
    };
    let shared = json!({"name": "shared", "allowMultipleAllocations": true,
        "capacity": {"bandwidth": {"value": "10"}}});
    let devices = json!([
        part("half", "20Gi"),
        part("third", "15Gi"),
        part("all", "40Gi"),
        shared
    ]);
    let spec = json!({"nodeName": "node", "pool": pool, "devices": devices});
    world.put(kind::DEVICE_SLICES, slice("2", spec));
    let whole = || cel("!device.allowMultipleAllocations");
    world.claim("two", &one(json!({"count": 2, "selectors": whole()})));
    world.claim("three", &one(json!({"count": 3, "selectors": whole()})));
    let share = |amount: &str| {
        let selectors = cel("device.allowMultipleAllocations");
        let capacity = json!({"requests": {"bandwidth": amount}});
        one(json!({"selectors": selectors, "capacity": capacity}))
    };
    world.claim("six", &share("6"));
    world.claim("four", &share("4"));
    world.claim("five", &share("5"));
    let none = Err("0/1 nodes are available: 1 cannot allocate all claims.".to_owned());
    assert_eq!(
        world.devices(&["two"]),
        Ok(vec!["half".into(), "third".into()])
    );
    assert_eq!(world.devices(&["three"]), none);
    assert_eq!(
        world.devices(&["six", "four"]),
        Ok(vec!["shared".into(); 2])
    );
    assert_eq!(world.devices(&["six", "five"]), none);
    let chosen = world.schedule(&pod("p", &["six"])).expect("there is room");
    chosen.devices.assume(&mut world.snapshot);
    assert_eq!(world.devices(&["five"]), none);
    assert_eq!(world.devices(&["four"]), Ok(vec!["shared".into()]));
    let allocation = chosen.devices.claims[0]
        .allocation
        .clone()
        .expect("it is new");
    let result = &allocation["devices"]["results"][0];
    assert_eq!(result["consumedCapacity"], json!({"bandwidth": "6"}));
    assert_eq!(result["shareID"].as_str().map(str::len), Some(36));
}

#[test]
fn a_search_without_an_end_is_ended() {
    let mut world = World::default();
    world.node("node");
    let devices: Vec<Value> = (0..40)
        .map(|at| json!({"name": format!("d{at}"), "attributes": {"slot": {"int": at % 2}}}))
        .collect();
    world.pool("node", &devices.into());
    world.claim(
        "c",
        &json!({
            "requests": [exactly("r", json!({"count": 21}))],
            "constraints": [{"matchAttribute": "x.example/slot"}],
        }),
    );
    let expected = "running \"DynamicResources\" filter plugin: node node: timed out trying to \
                    allocate devices";
    assert_eq!(world.devices(&["c"]), Err(expected.to_owned()));
}
