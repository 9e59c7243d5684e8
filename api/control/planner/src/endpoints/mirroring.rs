//! EndpointSlices that say what people wrote as Endpoints of a service without a selector.
//! Source: KEP-0752, "EndpointSlice mirroring".
//!
//! Invariants
//! - A subset has one slice for each family, and of each at most [`MAX_MIRRORED`] addresses.
//! - Locks, and Endpoints that say so, are not mirrored.

use std::collections::BTreeMap;
use std::net::IpAddr;

use nautilus_machinery::allocation::family_of;
use nautilus_machinery::timestamp::Instant;
use serde_json::{Map, Value, json};

use super::packing::{self, Draft, Fate, Wanted};
use super::slices::{ports_key, remove, services_of_slices, slices_of};
use super::subsets::Subsets;
use super::{LEADER, MANAGED_BY, SERVICE_NAME, TRIGGER_TIME, backends};
use crate::controller::{Change, Controller};
use crate::kind::{self, Kind};
use crate::object;
use crate::plan::{Plan, Write};
use crate::pods::name_prefix;
use crate::view::{Key, View};

/// What slices of this controller say keeps them.
const CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
/// Addresses of a subset that are mirrored, at most.
const MAX_MIRRORED: usize = 1000;
/// Label of Endpoints that are not mirrored.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// What `kubectl apply` notes for itself.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The mirroring controller. A key is the Endpoints.
pub struct Mirroring;

impl Controller for Mirroring {
    fn name(&self) -> &'static str {
        "endpointslicemirroring-controller"
    }

    fn component(&self) -> &'static str {
        "endpoint-slice-mirroring-controller"
    }

    fn follows(&self) -> &'static [Kind] {
        &[kind::ENDPOINTS, kind::ENDPOINT_SLICES, kind::SERVICES]
    }

    fn concerns(&self, _view: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        let key = || Key::of(change.object());
        match change.kind {
            kind::ENDPOINTS if change.versions().any(is_mirrored) => keys.push(key()),
            kind::SERVICES => {
                let has_selector = |own: &std::sync::Arc<Value>| backends::selector(own).is_some();
                let before = change.before.as_ref().map(has_selector);
                let after = change.after.as_ref().map(has_selector);
                if before != after {
                    keys.push(key());
                }
            }
            kind::ENDPOINT_SLICES => services_of_slices(change, CONTROLLER, keys),
            _ => {}
        }
    }

    fn reconcile(&self, view: &dyn View, key: &Key, _now: Instant) -> Plan {
        let mut plan = Plan::default();
        let mut drafts = slices_of(view, &key.namespace, &key.name, CONTROLLER);
        let service = view.get(kind::SERVICES, &key.namespace, &key.name);
        let is_theirs = service.is_some_and(|service| backends::selector(&service).is_none());
        let endpoints = view.get(kind::ENDPOINTS, &key.namespace, &key.name);
        let Some(endpoints) = endpoints.filter(|own| is_theirs && is_mirrored(own)) else {
            plan.together(drafts.iter().filter_map(remove).collect());
            return plan;
        };
        let wanted = wanted(&endpoints, &mut plan);
        mirror(&endpoints, &mut drafts, wanted);
        let is_ending = object::is_deleted(&endpoints);
        drafts.retain(|draft| draft.seen.is_some() || !is_ending);
        let written = drafts.iter().filter(|draft| draft.fate == Fate::Changed);
        plan.together(written.map(write).collect());
        let removed = drafts.iter().filter(|draft| draft.fate == Fate::Removed);
        plan.together(removed.filter_map(remove).collect());
        plan
    }
}

fn is_mirrored(endpoints: &Value) -> bool {
    object::label(endpoints, SKIP) != Some("true")
        && object::annotation(endpoints, LEADER).is_none()
}

fn write(draft: &Draft) -> Write {
    let slice = draft.slice.clone();
    match draft.seen {
        Some(_) => Write::update(kind::ENDPOINT_SLICES, slice),
        None => Write::create(kind::ENDPOINT_SLICES, slice),
    }
}

/// The endpoints of a family and a set of ports, by both.
type ByPorts = BTreeMap<(&'static str, String), (Vec<Value>, Wanted)>;

/// What the subsets say, and to the plan what is left out of it.
fn wanted(endpoints: &Value, plan: &mut Plan) -> ByPorts {
    let mut wanted = ByPorts::new();
    let (mut invalid, mut skipped) = (0, 0);
    for subset in Subsets::of(endpoints).pack() {
        let ports: Vec<Value> = object::items(&subset["ports"]).cloned().collect();
        let mut added = 0;
        for (field, ready) in [("addresses", true), ("notReadyAddresses", false)] {
            for address in object::items(&subset[field]) {
                if added == MAX_MIRRORED {
                    skipped += 1;
                    continue;
                }
                let Some((family, endpoint)) = endpoint(address, ready) else {
                    invalid += 1;
                    skipped += 1;
                    continue;
                };
                let group = wanted
                    .entry((family, ports_key(&ports)))
                    .or_insert_with(|| (ports.clone(), Wanted::new()));
                group.1.insert(packing::key_of(&endpoint), endpoint);
                added += 1;
            }
        }
    }
    let mut told = Vec::new();
    let mut tell = |reason, message| {
        told.push(Write::warning(kind::ENDPOINTS, endpoints, reason, message));
    };
    if invalid > 0 {
        let message =
            format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices");
        tell("InvalidIPAddress", message);
    }
    if skipped > invalid {
        let message = format!(
            "A max of {MAX_MIRRORED} addresses can be mirrored to EndpointSlices per Endpoints \
             subset. {skipped} addresses were skipped"
        );
        tell("TooManyAddressesToMirror", message);
    }
    plan.together(told);
    wanted
}

fn endpoint(address: &Value, ready: bool) -> Option<(&'static str, Value)> {
    let ip: IpAddr = address["ip"].as_str()?.parse().ok()?;
    let mut endpoint = json!({"addresses": [ip.to_string()], "conditions": {"ready": ready}});
    for field in ["targetRef", "nodeName", "hostname"] {
        let value = &address[field];
        if !value.is_null() && *value != "" {
            endpoint[field] = value.clone();
        }
    }
    Some((family_of(ip), endpoint))
}

/// Each group has one slice: its own, else one that would go, else a new one.
fn mirror(endpoints: &Value, drafts: &mut Vec<Draft>, wanted: ByPorts) {
    for draft in &mut *drafts {
        draft.fate = Fate::Removed;
    }
    let mut homeless = Vec::new();
    for ((family, key), (ports, wanted)) in wanted {
        let own = drafts.iter_mut().find(|draft| {
            let ports = draft.slice["ports"]
                .as_array()
                .map_or(&[][..], Vec::as_slice);
            draft.fate == Fate::Removed
                && draft.slice["addressType"] == family
                && ports_key(ports) == key
        });
        match own {
            Some(draft) => overwrite(draft, endpoints, ports, wanted),
            None => homeless.push((family, ports, wanted)),
        }
    }
    for (family, ports, wanted) in homeless {
        let free = drafts
            .iter_mut()
            .find(|draft| draft.fate == Fate::Removed && draft.slice["addressType"] == family);
        if let Some(draft) = free {
            overwrite(draft, endpoints, ports, wanted);
        } else {
            let mut draft = Draft::fresh(json!({
                "metadata": {
                    "namespace": object::namespace(endpoints),
                    "generateName": name_prefix(object::name(endpoints)),
                },
                "addressType": family,
            }));
            overwrite(&mut draft, endpoints, ports, wanted);
            drafts.push(draft);
        }
    }
}

fn overwrite(draft: &mut Draft, endpoints: &Value, ports: Vec<Value>, mut wanted: Wanted) {
    let mut list = Vec::with_capacity(wanted.len());
    for own in draft.endpoints() {
        if let Some(endpoint) = wanted.remove(&packing::key_of(own)) {
            // What the slice says stays as it is said where it means the same.
            list.push(match packing::is_same(own, &endpoint) {
                true => own.clone(),
                false => endpoint,
            });
        }
    }
    list.extend(wanted.into_values());
    let before = draft.slice.clone();
    let slice = &mut draft.slice;
    slice["endpoints"] = list.into();
    if ports_key(&ports) != ports_key(before["ports"].as_array().map_or(&[][..], Vec::as_slice))
        || !before["ports"].is_array()
    {
        slice["ports"] = ports.into();
    }
    let metadata = &mut slice["metadata"];
    let mut labels = fields(&endpoints["metadata"]["labels"]);
    labels.insert(SERVICE_NAME.to_owned(), object::name(endpoints).into());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.into());
    metadata["labels"] = labels.into();
    let mut annotations = fields(&endpoints["metadata"]["annotations"]);
    annotations.retain(|name, _| name != TRIGGER_TIME && name != LAST_APPLIED);
    if fields(&metadata["annotations"]) != annotations {
        metadata["annotations"] = annotations.into();
    }
    let owner = object::controller_reference(kind::ENDPOINTS, endpoints);
    if !object::is_controlled_by(&before, object::uid(endpoints)) {
        slice["metadata"]["ownerReferences"] = json!([owner]);
    }
    draft.fate = match draft.seen.is_some() && draft.slice == before {
        true => Fate::Unchanged,
        false => Fate::Changed,
    };
}

fn fields(object: &Value) -> Map<String, Value> {
    object.as_object().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cluster, at};
    use crate::view::Within;

    fn cluster() -> (Cluster, Key) {
        let mut cluster = Cluster::default();
        let metadata = json!({"namespace": "n", "name": "db"});
        cluster.put(kind::SERVICES, json!({"metadata": metadata, "spec": {}}));
        let endpoints = json!({
            "metadata": {
                "namespace": "n", "name": "db",
                "labels": {"team": "a"},
                "annotations": {"note": "x", TRIGGER_TIME: "now", LAST_APPLIED: "{}"},
            },
            "subsets": [{
                "addresses": [{"ip": "10.0.0.1", "nodeName": "m"}, {"ip": "fd00::1"}],
                "notReadyAddresses": [{"ip": "10.0.0.2", "hostname": "two"}],
                "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
            }],
        });
        let key = Key::of(&cluster.put(kind::ENDPOINTS, endpoints));
        (cluster, key)
    }

    fn slices(cluster: &Cluster) -> Vec<std::sync::Arc<Value>> {
        let mut slices = cluster.list(kind::ENDPOINT_SLICES, Within::All);
        slices.sort_by_key(|own| own["addressType"].to_string());
        slices
    }

    #[test]
    fn what_people_wrote_is_said_in_slices() {
        let (mut cluster, key) = cluster();
        assert_eq!(cluster.settle(&Mirroring, &key, at(0)), 1);
        let slices = slices(&cluster);
        let [four, six] = &slices[..] else {
            panic!("a slice for each family: {slices:?}");
        };
        assert_eq!(
            four["endpoints"],
            json!([
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "nodeName": "m"},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}, "hostname": "two"},
            ])
        );
        assert_eq!(six["endpoints"][0]["addresses"], json!(["fd00::1"]));
        assert_eq!(
            four["ports"],
            json!([{"name": "sql", "port": 5432, "protocol": "TCP"}])
        );
        assert_eq!(four["metadata"]["annotations"], json!({"note": "x"}));
        assert_eq!(
            four["metadata"]["labels"],
            json!({
                "team": "a", SERVICE_NAME: "db", MANAGED_BY: CONTROLLER,
            })
        );
    }

    #[test]
    fn slices_are_changed_in_place_and_go_when_nothing_is_to_be_mirrored() {
        let (mut cluster, key) = cluster();
        cluster.settle(&Mirroring, &key, at(0));
        let before = slices(&cluster);
        let other_port = json!({"subsets": [{
            "addresses": [{"ip": "10.0.0.9"}], "ports": [{"port": 1, "protocol": "TCP"}],
        }]});
        cluster.merge(kind::ENDPOINTS, &key, &other_port);
        assert_eq!(cluster.settle(&Mirroring, &key, at(0)), 1);
        let after = slices(&cluster);
        assert_eq!(after.len(), 1);
        assert_eq!(object::uid(&after[0]), object::uid(&before[0]));
        assert_eq!(after[0]["endpoints"][0]["addresses"], json!(["10.0.0.9"]));
        let skip = json!({"metadata": {"labels": {SKIP: "true"}}});
        let leader = json!({"metadata": {"annotations": {LEADER: "{}"}}});
        for (kind, change) in [
            (kind::ENDPOINTS, skip),
            (kind::ENDPOINTS, leader),
            (kind::SERVICES, json!({"spec": {"selector": {"a": "b"}}})),
        ] {
            let mut cluster = cluster.clone();
            cluster.merge(kind, &key, &change);
            cluster.settle(&Mirroring, &key, at(0));
            assert_eq!(slices(&cluster), [], "{change}");
        }
    }

    #[test]
    fn what_is_left_out_is_told() {
        let (mut cluster, key) = cluster();
        let mut addresses: Vec<Value> = (0..1001)
            .map(|number| json!({"ip": format!("10.0.{}.{}", number / 250, number % 250)}))
            .collect();
        addresses.push(json!({"ip": "x"}));
        cluster.merge(
            kind::ENDPOINTS,
            &key,
            &json!({"subsets": [{"addresses": addresses}]}),
        );
        let plan = cluster.plan(&Mirroring, &key, at(0));
        cluster.carry_out(&plan);
        let told: Vec<&str> = cluster.events.iter().map(|(reason, _)| *reason).collect();
        assert_eq!(told, ["TooManyAddressesToMirror"]);
        assert_eq!(
            slices(&cluster)[0]["endpoints"].as_array().map(Vec::len),
            Some(1000)
        );
        let few = json!({"subsets": [{"addresses": [{"ip": "x"}, {"ip": "10.0.0.1"}]}]});
        cluster.merge(kind::ENDPOINTS, &key, &few);
        let plan = cluster.plan(&Mirroring, &key, at(0));
        cluster.carry_out(&plan);
        let message = "Skipped 1 invalid IP addresses when mirroring to EndpointSlices".to_owned();
        assert_eq!(cluster.events.last(), Some(&("InvalidIPAddress", message)));
    }
}
