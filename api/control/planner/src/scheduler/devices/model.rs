//! The search for devices against a plain one that tries everything, and the inventory
//! against one that knows nothing of deltas.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::pod::PodInfo;
use super::super::rejection::Unschedulable;
use super::PodDevices;
use super::tests::{World, claim, pod, slice};
use crate::kind::{self, Kind};

#[derive(Debug, Clone)]
struct Device {
    slot: Option<i64>,
    model: i64,
    memory: i64,
    is_tainted: bool,
    is_taken: bool,
}

#[derive(Debug, Clone)]
struct Ask {
    /// `None`: all.
    count: Option<usize>,
    model: Option<i64>,
    tolerates: bool,
}

#[derive(Debug, Clone)]
struct Wanted {
    /// Alternatives of each request; one: no choice.
    requests: Vec<Vec<Ask>>,
    /// Devices of which requests must be alike, or must not.
    constraint: Option<(bool, BTreeSet<usize>)>,
}

#[derive(Debug, Clone)]
struct Case {
    devices: Vec<Device>,
    memory: i64,
    claims: Vec<Wanted>,
    /// Whether the last of them is of containers that ask for a resource.
    by_resource: bool,
}

impl Case {
    /// Claims that are there.
    fn named(&self) -> &[Wanted] {
        &self.claims[..self.claims.len() - usize::from(self.by_resource)]
    }

    fn pod(&self) -> PodInfo {
        let names: Vec<String> = (0..self.named().len()).map(|at| at.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut pod = (*pod("p", &names).object).clone();
        let asks = self.claims[names.len()..]
            .iter()
            .flat_map(|own| &own.requests);
        let containers = asks.map(|asks| {
            let count = asks[0].count.unwrap_or_default().to_string();
            json!({"resources": {"requests": {RESOURCE: count}}})
        });
        pod["spec"]["containers"] = containers.collect();
        PodInfo::new(Arc::new(pod))
    }
}

const RESOURCE: &str = "x.io/card";

fn device() -> impl Strategy<Value = Device> {
    let flag = || prop::bool::weighted(0.2);
    (of(0..2_i64), 0..2_i64, 0..3_i64, flag(), flag()).prop_map(
        |(slot, model, memory, is_tainted, is_taken)| Device {
            slot,
            model,
            memory,
            is_tainted,
            is_taken,
        },
    )
}

fn ask() -> impl Strategy<Value = Ask> {
    let count = prop_oneof![4 => (1..3_usize).prop_map(Some), 1 => Just(None)];
    (count, of(0..2_i64), any::<bool>()).prop_map(|(count, model, tolerates)| Ask {
        count,
        model,
        tolerates,
    })
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let requests = vec(vec(ask(), 1..3), 1..3);
    let constraint = of((any::<bool>(), prop::collection::btree_set(0..2_usize, 0..3)));
    (requests, constraint).prop_map(|(requests, constraint)| Wanted {
        requests,
        constraint,
    })
}

fn case() -> impl Strategy<Value = Case> {
    let asked = of(vec(1..3_usize, 1..3));
    (vec(device(), 0..6), 0..8_i64, vec(wanted(), 1..3), asked).prop_map(
        |(devices, memory, mut claims, asked)| {
            let by_resource = asked.is_some();
            let ask = |count| Ask {
                count: Some(count),
                model: None,
                tolerates: false,
            };
            claims.extend(asked.map(|asked| Wanted {
                requests: asked.into_iter().map(|own| vec![ask(own)]).collect(),
                constraint: None,
            }));
            Case {
                devices,
                memory,
                claims,
                by_resource,
            }
        },
    )
}

fn objects(case: &Case) -> Vec<(Kind, Value)> {
    let pool = json!({"name": "p", "generation": 1, "resourceSliceCount": 2});
    let devices = case.devices.iter().enumerate().map(|(at, own)| {
        let mut attributes = json!({"model": {"int": own.model}});
        if let Some(slot) = own.slot {
            attributes["slot"] = json!({ "int": slot });
        }
        let mut device = json!({"name": at.to_string(), "attributes": attributes});
        if own.memory > 0 {
            device["consumesCounters"] = json!([{"counterSet": "s",
                "counters": {"memory": {"value": own.memory.to_string()}}}]);
        }
        if own.is_tainted {
            device["taints"] = json!([{"key": "k", "effect": "NoSchedule"}]);
        }
        device
    });
    let devices: Vec<Value> = devices.collect();
    let counters =
        json!([{"name": "s", "counters": {"memory": {"value": case.memory.to_string()}}}]);
    let near = |what: &str, own: Value| json!({"nodeName": "node", "pool": pool, what: own});
    let mut objects = vec![
        (
            kind::DEVICE_CLASSES,
            json!({"metadata": {"name": "d"}, "spec": {"extendedResourceName": RESOURCE}}),
        ),
        (
            kind::DEVICE_SLICES,
            slice("1", near("sharedCounters", counters)),
        ),
        (
            kind::DEVICE_SLICES,
            slice("2", near("devices", devices.into())),
        ),
    ];
    let taken = case
        .devices
        .iter()
        .enumerate()
        .filter(|(_, own)| own.is_taken);
    let taken = taken.map(|(at, _)| {
        json!({"request": "r", "driver": "x.example", "pool": "p", "device": at.to_string()})
    });
    let mut other = claim("other", &json!({"requests": []}));
    other["status"]["allocation"]["devices"]["results"] = taken.collect();
    other["metadata"]["annotations"] =
        json!({"resource.kubernetes.io/extended-resource-claim": "true"});
    other["metadata"]["ownerReferences"] = json!([{"uid": "uid-q", "controller": true}]);
    objects.push((kind::DEVICE_CLAIMS, other));
    for (at, own) in case.named().iter().enumerate() {
        objects.push((
            kind::DEVICE_CLAIMS,
            claim(&at.to_string(), &devices_of(own)),
        ));
    }
    objects
}

fn devices_of(wanted: &Wanted) -> Value {
    let ask = |own: &Ask| {
        let mut ask = json!({"deviceClassName": "d"});
        match own.count {
            Some(count) => ask["count"] = count.into(),
            None => ask["allocationMode"] = "All".into(),
        }
        if let Some(model) = own.model {
            let expression = format!("device.attributes[\"x.example\"].model == {model}");
            ask["selectors"] = json!([{"cel": {"expression": expression}}]);
        }
        if own.tolerates {
            ask["tolerations"] = json!([{"operator": "Exists"}]);
        }
        ask
    };
    let requests = wanted.requests.iter().enumerate().map(|(at, asks)| {
        if let [only] = asks.as_slice() {
            return json!({"name": format!("r{at}"), "exactly": ask(only)});
        }
        let asks = asks.iter().enumerate().map(|(at, own)| {
            let mut ask = ask(own);
            ask["name"] = format!("a{at}").into();
            ask
        });
        json!({"name": format!("r{at}"), "firstAvailable": asks.collect::<Vec<_>>()})
    });
    let mut devices = json!({"requests": requests.collect::<Vec<_>>()});
    if let Some((is_alike, about)) = &wanted.constraint {
        let about: Vec<String> = about.iter().map(|at| format!("r{at}")).collect();
        let kind = if *is_alike {
            "matchAttribute"
        } else {
            "distinctAttribute"
        };
        devices["constraints"] = json!([{kind: "x.example/slot", "requests": about}]);
    }
    devices
}

/// Which devices each request of each claim has.
type Given = Vec<Vec<Vec<usize>>>;

/// Whether claims can have devices: by trying all alternatives and all sets of devices.
fn can_have(case: &Case) -> bool {
    fn go(case: &Case, given: &mut Given) -> bool {
        let (claim, request) = match given.last() {
            None => (0, 0),
            Some(own) if own.len() < case.claims[given.len() - 1].requests.len() => {
                (given.len() - 1, own.len())
            }
            Some(_) => (given.len(), 0),
        };
        if claim == case.claims.len() {
            return holds(case, given);
        }
        for ask in &case.claims[claim].requests[request] {
            for set in sets(case, ask) {
                if request == 0 {
                    given.push(Vec::new());
                }
                given[claim].push(set);
                if go(case, given) {
                    return true;
                }
                given[claim].pop();
                if request == 0 {
                    given.pop();
                }
            }
        }
        false
    }
    go(case, &mut Vec::new())
}

/// The sets of devices that an ask would be content with, by itself.
fn sets(case: &Case, ask: &Ask) -> Vec<Vec<usize>> {
    let is_meant = |at: &usize| ask.model.is_none_or(|own| own == case.devices[*at].model);
    let meant: Vec<usize> = (0..case.devices.len()).filter(is_meant).collect();
    let is_fit = |at: &usize| {
        let own = &case.devices[*at];
        !own.is_taken && (ask.tolerates || !own.is_tainted)
    };
    let Some(count) = ask.count else {
        let will_do = !meant.is_empty() && meant.iter().all(is_fit);
        return will_do.then_some(meant).into_iter().collect();
    };
    (0..1_usize << meant.len())
        .map(|bits| {
            let chosen = meant
                .iter()
                .enumerate()
                .filter(|(at, _)| bits & (1 << at) != 0);
            chosen.map(|(_, own)| *own).collect::<Vec<_>>()
        })
        .filter(|set| set.len() == count && set.iter().all(is_fit))
        .collect()
}

/// Whether no device is given twice, the counters suffice, and constraints hold.
fn holds(case: &Case, given: &Given) -> bool {
    let all: Vec<usize> = given.iter().flatten().flatten().copied().collect();
    let unique: BTreeSet<usize> = all.iter().copied().collect();
    let taken = case
        .devices
        .iter()
        .filter(|own| own.is_taken)
        .map(|own| own.memory);
    let left = case.memory - taken.sum::<i64>();
    let memory: i64 = all.iter().map(|at| case.devices[*at].memory).sum();
    // Counters that are overdrawn are for nobody who takes of any.
    let is_enough = memory <= left || all.iter().all(|at| case.devices[*at].memory == 0);
    unique.len() == all.len()
        && is_enough
        && case.claims.iter().zip(given).all(|(wanted, given)| {
            let Some((is_alike, about)) = &wanted.constraint else {
                return true;
            };
            let requests = given.iter().enumerate();
            let requests = requests.filter(|(at, _)| about.is_empty() || about.contains(at));
            let slots = requests
                .flat_map(|(_, own)| own)
                .map(|at| case.devices[*at].slot);
            let slots: Vec<Option<i64>> = slots.collect();
            let kinds: BTreeSet<Option<i64>> = slots.iter().copied().collect();
            !slots.contains(&None)
                && match is_alike {
                    true => kinds.len() <= 1,
                    false => kinds.len() == slots.len(),
                }
        })
}

/// What was found, by claims and requests.
fn found(case: &Case) -> Result<Given, Unschedulable> {
    let mut world = World::default();
    world.node("node");
    for (kind, object) in objects(case) {
        world.put(kind, object);
    }
    let chosen = world.schedule(&case.pod())?;
    let PodDevices { claims, extended } = &chosen.devices;
    assert_eq!(extended.is_some(), case.by_resource);
    let named = claims
        .iter()
        .map(|own| (own.allocation.as_ref().expect("it is new"), "r", ""));
    let made = extended
        .iter()
        .map(|own| (&own.allocation, "container-", "-request-0"));
    let given = named
        .chain(made)
        .zip(&case.claims)
        .map(|((allocation, before, after), wanted)| {
            let results = allocation["devices"]["results"].as_array().cloned();
            let results = results.unwrap_or_default();
            let requests = (0..wanted.requests.len()).map(|at| {
                let of_request = results.iter().filter(|own| {
                    let name = own["request"].as_str().unwrap_or_default();
                    name.split('/').next() == Some(&format!("{before}{at}{after}"))
                });
                let devices = of_request.filter_map(|own| own["device"].as_str()?.parse().ok());
                devices.collect()
            });
            requests.collect()
        });
    Ok(given.collect())
}

/// Whether the search was given up, as the reference gives it up where a constraint keeps a
/// claim from one of all devices: even where an alternative would have done.
fn is_given_up(case: &Case, why: &Unschedulable) -> bool {
    let mut claims = case.claims.iter();
    let of_all = |own: &Wanted| own.requests.iter().flatten().any(|ask| ask.count.is_none());
    let why = why.failed.as_deref();
    why.is_some_and(|own| own.ends_with("because a claim constraint would not be satisfied"))
        && claims.any(|own| own.constraint.is_some() && of_all(own))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn devices_are_found_where_there_are_some(case in case()) {
        let found = found(&case);
        if found.as_ref().is_err_and(|why| is_given_up(&case, why)) {
            return Ok(());
        }
        prop_assert_eq!(found.is_ok(), can_have(&case));
        if let Ok(found) = found {
            prop_assert!(holds(&case, &found), "{:?}", found);
            for (wanted, given) in case.claims.iter().zip(&found) {
                for (asks, given) in wanted.requests.iter().zip(given) {
                    let mut fit = asks.iter().flat_map(|own| sets(&case, own));
                    prop_assert!(fit.any(|own| own == *given), "{:?}", given);
                }
            }
        }
    }

    #[test]
    fn nothing_is_kept_of_what_is_gone(case in case(), order in any::<u64>()) {
        let mut world = World::default();
        let node = world.node("node");
        world.snapshot.devices.assume_made("uid-q", json!({"devices": {}}));
        let mut made = claim("other", &json!({"requests": []}));
        made["metadata"]["uid"] = "uid-other".into();
        world.snapshot.devices.made("uid-q", &Arc::new(made));
        let mut there: Vec<(Kind, Arc<Value>)> = Vec::new();
        for (kind, object) in objects(&case) {
            world.put(kind, object.clone());
            there.push((kind, world.put(kind, object)));
        }
        let mut order = order;
        while !there.is_empty() {
            let at = usize::try_from(order % there.len() as u64).unwrap_or_default();
            order = order.wrapping_mul(6_364_136_223_846_793_005).rotate_left(17);
            let (kind, object) = there.swap_remove(at);
            world.remove(kind, &object);
        }
        world.remove(kind::NODES, &node);
        prop_assert!(world.snapshot.devices.is_empty());
    }
}
