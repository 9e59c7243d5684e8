//! Endpoints of services with a selector, as they were before slices.
//!
//! Invariants
//! - An object holds at most [`MAX_ADDRESSES`], and says so where there are more.
//! - Endpoints that people wrote go with their service, and never for want of one.

use std::collections::BTreeMap;
use std::sync::Arc;

use nautilus_machinery::timestamp::Instant;
use serde_json::{Map, Value, json};

use super::backends;
use super::subsets::Subsets;
use super::{HEADLESS, LEADER, TRIGGER_TIME};
use crate::controller::{Change, Controller};
use crate::kind::{self, Kind};
use crate::object;
use crate::plan::{Failed, Plan, Write};
use crate::view::{Key, View};

/// Addresses of one object, at most.
const MAX_ADDRESSES: usize = 1000;
/// Annotation of an object that does not hold all.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Label with the name of the controller that keeps an object.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpoint-controller";

/// The controller of Endpoints. A key is a service.
pub struct LegacyEndpoints;

impl Controller for LegacyEndpoints {
    fn name(&self) -> &'static str {
        CONTROLLER
    }

    fn follows(&self) -> &'static [Kind] {
        &[kind::SERVICES, kind::PODS, kind::ENDPOINTS]
    }

    fn concerns(&self, view: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        match change.kind {
            kind::SERVICES => keys.push(Key::of(change.object())),
            kind::PODS => backends::after_pod(view, change, keys),
            // Left over from before this term, or taken away by somebody.
            kind::ENDPOINTS => {
                let is_ours = |own: &Value| object::label(own, MANAGED_BY) == Some(CONTROLLER);
                if change.after.is_none() || change.versions().any(is_ours) {
                    keys.push(Key::of(change.object()));
                }
            }
            _ => {}
        }
    }

    fn reconcile(&self, view: &dyn View, key: &Key, _now: Instant) -> Plan {
        let mut plan = Plan::default();
        let current = view.get(kind::ENDPOINTS, &key.namespace, &key.name);
        let Some(service) = view.get(kind::SERVICES, &key.namespace, &key.name) else {
            let left = current.filter(|own| object::annotation(own, LEADER).is_none());
            plan.together(
                left.iter()
                    .map(|own| Write::delete(kind::ENDPOINTS, own))
                    .collect(),
            );
            return plan;
        };
        let Some(selector) = backends::kept_selector(&service) else {
            return plan;
        };
        let pods = backends::pods(view, &key.namespace, selector);
        let is_new = current.is_none();
        let current = current.unwrap_or_else(|| {
            Arc::new(json!({"metadata": {"namespace": key.namespace, "name": key.name}}))
        });
        let mut next = (*current).clone();
        let mut subsets = subsets(&service, &pods).pack();
        let is_truncated = truncate(&mut subsets);
        let before = Subsets::of(&current).pack();
        if before != subsets {
            next["subsets"] = subsets.into();
        }
        next["metadata"]["labels"] = labels(&service).into();
        let mut annotations = fields(&current["metadata"]["annotations"]);
        match is_truncated {
            true => drop(annotations.insert(OVER_CAPACITY.to_owned(), "truncated".into())),
            false => drop(annotations.shift_remove(OVER_CAPACITY)),
        }
        if annotations != fields(&current["metadata"]["annotations"]) {
            next["metadata"]["annotations"] = annotations.clone().into();
        }
        if is_new || next != *current {
            match trigger_time(&service, &current, &pods, is_new) {
                Some(time) => drop(annotations.insert(TRIGGER_TIME.to_owned(), time.into())),
                None => drop(annotations.shift_remove(TRIGGER_TIME)),
            }
            next["metadata"]["annotations"] = annotations.into();
            plan.then(match is_new {
                true => Write::create(kind::ENDPOINTS, next),
                false => Write::update(kind::ENDPOINTS, next),
            });
        }
        plan
    }

    fn report(&self, view: &dyn View, key: &Key, _now: Instant, failed: &Failed) -> Plan {
        let mut plan = Plan::default();
        let (about, reason, what) = match &failed.write {
            Write::Create { object, .. } => (
                object,
                "FailedToCreateEndpoint",
                "Failed to create endpoint for service",
            ),
            Write::Update { object, .. } => (
                object,
                "FailedToUpdateEndpoint",
                "Failed to update endpoint",
            ),
            _ => return plan,
        };
        let is_there = view
            .get(kind::SERVICES, &key.namespace, &key.name)
            .is_some();
        if is_there && !failed.namespace_ends {
            let message = format!("{what} {key}: {}", failed.message);
            plan.then(Write::warning(kind::ENDPOINTS, about, reason, message));
        }
        plan
    }
}

fn fields(object: &Value) -> Map<String, Value> {
    object.as_object().cloned().unwrap_or_default()
}

/// The first family of a service's: what Endpoints hold.
fn family<'a>(service: &'a Value, pod: &Value) -> &'a str {
    let families = backends::families(service);
    let only_one = |family| !backends::addresses(pod, family).is_empty();
    match families[..] {
        // Headless, and nobody has said: as the pod has it.
        ["IPv4", "IPv6"] if service["spec"]["ipFamilies"].is_null() && !only_one("IPv4") => "IPv6",
        [first, ..] => first,
        [] => "IPv4",
    }
}

fn is_reachable(pod: &Value, service: &Value) -> bool {
    let publishes = backends::publishes_not_ready(service);
    backends::is_reachable(pod) && (publishes || !object::is_deleted(pod))
}

fn is_published_ready(pod: &Value, service: &Value) -> bool {
    backends::publishes_not_ready(service) || object::is_ready(pod)
}

fn subsets(service: &Value, pods: &[Arc<Value>]) -> Subsets {
    let mut subsets = Subsets::default();
    let has_ports = object::items(&service["spec"]["ports"]).next().is_some();
    for pod in pods.iter().filter(|pod| is_reachable(pod, service)) {
        let addresses = backends::addresses(pod, family(service, pod));
        let Some(ip) = addresses.first() else {
            continue;
        };
        let ports = backends::ports(service, pod);
        let is_portless = !has_ports && service["spec"]["clusterIP"] == "None";
        if ports.is_empty() && !is_portless {
            continue;
        }
        let mut address = json!({"ip": ip, "targetRef": backends::target_reference(pod)});
        let node = pod["spec"]["nodeName"].as_str();
        for (field, value) in [
            ("nodeName", node),
            ("hostname", backends::hostname(pod, service)),
        ] {
            if let Some(value) = value {
                address[field] = value.into();
            }
        }
        subsets.add(address, &ports, is_published_ready(pod, service));
    }
    subsets
}

/// Takes away what is too much, of those that are not ready first; whether something was.
fn truncate(subsets: &mut [Value]) -> bool {
    let count = |subset: &Value, field: &str| subset[field].as_array().map_or(0, Vec::len);
    let total = |field: &str| -> usize { subsets.iter().map(|own| count(own, field)).sum() };
    let (ready, not_ready) = (total("addresses"), total("notReadyAddresses"));
    if ready + not_ready <= MAX_ADDRESSES {
        return false;
    }
    let (field, all, most) = match ready > MAX_ADDRESSES {
        true => ("addresses", ready, MAX_ADDRESSES),
        false => ("notReadyAddresses", not_ready, MAX_ADDRESSES - ready),
    };
    let mut left = most;
    for subset in subsets {
        let own = count(subset, field);
        // In proportion, rounded up, while there is room.
        let kept = (own * most).div_ceil(all).min(left).min(own);
        left -= kept;
        if let Some(list) = subset[field].as_array_mut() {
            list.truncate(kept);
        }
        if let Some(fields) = subset.as_object_mut() {
            if field == "addresses" {
                fields.shift_remove("notReadyAddresses");
            }
            fields.retain(|_, list| *list != json!([]));
        }
    }
    true
}

fn labels(service: &Value) -> Map<String, Value> {
    let mut labels = fields(&service["metadata"]["labels"]);
    match backends::is_headless(service) {
        true => drop(labels.insert(HEADLESS.to_owned(), "".into())),
        false => drop(labels.shift_remove(HEADLESS)),
    }
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.into());
    labels
}

/// When the first of what is yet to be published happened.
fn trigger_time(
    service: &Value,
    current: &Value,
    pods: &[Arc<Value>],
    is_new: bool,
) -> Option<String> {
    if is_new {
        let created = service["metadata"]["creationTimestamp"].as_str();
        return created.map(str::to_owned);
    }
    let mut published: BTreeMap<&str, bool> = BTreeMap::new();
    for subset in object::items(&current["subsets"]) {
        for (field, ready) in [("addresses", true), ("notReadyAddresses", false)] {
            for address in object::items(&subset[field]) {
                let uid = address["targetRef"]["uid"].as_str().unwrap_or_default();
                published.insert(uid, ready);
            }
        }
    }
    let news = pods.iter().filter(|pod| {
        let ready = is_published_ready(pod, service);
        is_reachable(pod, service) && published.get(object::uid(pod)) != Some(&ready)
    });
    let times = news.filter_map(|pod| backends::ready_since(pod));
    backends::earliest(times).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cluster, at};

    fn cluster(spec: &Value) -> (Cluster, Key) {
        let mut cluster = Cluster::default();
        let mut service = json!({
            "metadata": {"namespace": "n", "name": "web", "labels": {"team": "a"}},
            "spec": {
                "clusterIP": "10.0.0.1",
                "ipFamilies": ["IPv4"],
                "selector": {"app": "web"},
                "ports": [{"port": 80, "targetPort": 8080}],
            },
        });
        nautilus_machinery::patch::merge(&mut service["spec"], spec);
        let key = Key::of(&cluster.put(kind::SERVICES, service));
        (cluster, key)
    }

    fn add(cluster: &mut Cluster, number: usize, ready: &str) {
        let pod = json!({
            "metadata": {"namespace": "n", "name": format!("p{number}"), "labels": {"app": "web"}},
            "spec": {"nodeName": "node"},
            "status": {
                "phase": "Running",
                "podIPs": [{"ip": format!("10.1.{}.{}", number / 250, number % 250)}],
                "conditions": [{
                    "type": "Ready", "status": ready,
                    "lastTransitionTime": object::time_field(at(100)),
                }],
            },
        });
        cluster.put(kind::PODS, pod);
    }

    fn endpoints(cluster: &Cluster) -> Arc<Value> {
        cluster.get(kind::ENDPOINTS, "n", "web").expect("endpoints")
    }

    #[test]
    fn ready_pods_and_others_are_told_apart() {
        let (mut cluster, key) = cluster(&json!({}));
        assert_eq!(cluster.settle(&LegacyEndpoints, &key, at(0)), 1);
        assert_eq!(endpoints(&cluster).get("subsets"), None);
        add(&mut cluster, 1, "True");
        add(&mut cluster, 2, "False");
        assert_eq!(cluster.settle(&LegacyEndpoints, &key, at(0)), 1);
        let own = endpoints(&cluster);
        let subset = &own["subsets"][0];
        assert_eq!(subset["addresses"][0]["ip"], "10.1.0.1");
        assert_eq!(subset["addresses"][0]["nodeName"], "node");
        assert_eq!(subset["addresses"][0]["targetRef"]["name"], "p1");
        assert_eq!(subset["notReadyAddresses"][0]["ip"], "10.1.0.2");
        assert_eq!(
            subset["ports"],
            json!([{"name": "", "port": 8080, "protocol": "TCP"}])
        );
        assert_eq!(
            own["metadata"]["labels"],
            json!({"team": "a", MANAGED_BY: CONTROLLER})
        );
        let trigger = &own["metadata"]["annotations"][TRIGGER_TIME];
        assert_eq!(*trigger, object::time_field(at(100)));
        let labels = json!({"metadata": {"labels": {"team": "b"}}});
        cluster.merge(kind::SERVICES, &key, &labels);
        cluster.settle(&LegacyEndpoints, &key, at(0));
        assert_eq!(object::label(&endpoints(&cluster), "team"), Some("b"));
    }

    #[test]
    fn a_pod_that_ends_is_published_only_where_all_are() {
        for (publish, expected) in [(false, 0), (true, 1)] {
            let (mut cluster, key) = cluster(&json!({"publishNotReadyAddresses": publish}));
            add(&mut cluster, 1, "False");
            let deleted = json!({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}});
            cluster.merge(kind::PODS, &Key::new("n", "p1"), &deleted);
            cluster.settle(&LegacyEndpoints, &key, at(0));
            let own = endpoints(&cluster);
            let ready = object::items(&own["subsets"][0]["addresses"]).count();
            assert_eq!(ready, expected, "{publish}");
        }
    }

    #[test]
    fn a_thousand_are_kept_and_the_ready_first() {
        for (ready, not_ready, expected) in [
            (600, 400, (600, 400, false)),
            (600, 500, (600, 400, true)),
            (1100, 3, (1000, 0, true)),
        ] {
            let (mut cluster, key) = cluster(&json!({}));
            for number in 0..ready + not_ready {
                let ready = if number < ready { "True" } else { "False" };
                add(&mut cluster, number, ready);
            }
            assert_eq!(cluster.settle(&LegacyEndpoints, &key, at(0)), 1);
            let own = endpoints(&cluster);
            let count = |field: &str| object::items(&own["subsets"][0][field]).count();
            let marked = object::annotation(&own, OVER_CAPACITY) == Some("truncated");
            let found = (count("addresses"), count("notReadyAddresses"), marked);
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_is_cut_is_cut_in_proportion() {
        let subset = |count: usize| json!({"addresses": vec![json!({}); count]});
        let mut subsets = [subset(900), subset(300), subset(3)];
        assert!(truncate(&mut subsets));
        let counts = subsets.map(|own| own["addresses"].as_array().map_or(0, Vec::len));
        assert_eq!(counts, [749, 250, 1]);
    }

    #[test]
    fn endpoints_go_with_their_service_but_locks_and_what_people_prepare_stay() {
        let (mut cluster, key) = cluster(&json!({}));
        cluster.settle(&LegacyEndpoints, &key, at(0));
        let ours = endpoints(&cluster);
        let metadata = json!({"namespace": "n", "name": "prepared"});
        let prepared = cluster.put(kind::ENDPOINTS, json!({ "metadata": metadata }));
        let concerned = |own: &Arc<Value>| {
            cluster.concerned(&LegacyEndpoints, kind::ENDPOINTS, None, Some(own))
        };
        assert_eq!(concerned(&ours), std::slice::from_ref(&key));
        assert_eq!(concerned(&prepared), []);
        cluster.remove(kind::SERVICES, &key);
        cluster.settle(&LegacyEndpoints, &key, at(0));
        assert!(cluster.get(kind::ENDPOINTS, "n", "web").is_none());
        let lock = json!({"metadata": {
            "namespace": "n", "name": "web", "annotations": {LEADER: "{}"},
        }});
        cluster.put(kind::ENDPOINTS, lock);
        assert_eq!(cluster.settle(&LegacyEndpoints, &key, at(0)), 0);
    }
}
