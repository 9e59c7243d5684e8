//! EndpointSlices of services with a selector.
//! <https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/>
//!
//! Invariants
//! - Each family of the service has at least one slice of this controller's.
//! - An address that goes is not unpublished before those that come are published.

use std::collections::BTreeMap;
use std::sync::Arc;

use nautilus_machinery::timestamp::Instant;
use serde_json::{Map, Value, json};

use super::backends;
use super::packing::{self, Draft, Fate, Wanted};
use super::{HEADLESS, MANAGED_BY, SERVICE_NAME, TRIGGER_TIME, hints};
use crate::controller::{Change, Controller};
use crate::kind::{self, Kind};
use crate::object;
use crate::plan::{Failed, Plan, Write};
use crate::pods::name_prefix;
use crate::view::{Key, View, Within};

/// What slices of this controller say keeps them.
const CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// The controller of EndpointSlices. A key is a service.
pub struct Slices;

impl Controller for Slices {
    fn name(&self) -> &'static str {
        "endpointslice-controller"
    }

    fn component(&self) -> &'static str {
        "endpoint-slice-controller"
    }

    fn follows(&self) -> &'static [Kind] {
        &[
            kind::SERVICES,
            kind::PODS,
            kind::ENDPOINT_SLICES,
            kind::NODES,
        ]
    }

    fn concerns(&self, view: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        match change.kind {
            kind::SERVICES => keys.push(Key::of(change.object())),
            kind::PODS => backends::after_pod(view, change, keys),
            kind::ENDPOINT_SLICES => services_of_slices(change, CONTROLLER, keys),
            kind::NODES => after_node(view, change, keys),
            _ => {}
        }
    }

    fn reconcile(&self, view: &dyn View, key: &Key, _now: Instant) -> Plan {
        let mut plan = Plan::default();
        let Some(service) = view.get(kind::SERVICES, &key.namespace, &key.name) else {
            return plan;
        };
        let Some(selector) = backends::kept_selector(&service) else {
            return plan;
        };
        let pods = backends::pods(view, &key.namespace, selector);
        let owned = slices_of(view, &key.namespace, &key.name, CONTROLLER);
        let trigger = trigger_time(&service, &owned, &pods);
        let families = backends::families(&service);
        let (mut written, mut removed, mut told) = (Vec::new(), Vec::new(), Vec::new());
        for family in ["IPv4", "IPv6"] {
            let own = owned
                .iter()
                .filter(|own| own.slice["addressType"] == family);
            if !families.contains(&family) {
                removed.extend(own.cloned());
                continue;
            }
            let wanted = wanted(view, &service, &pods, family);
            let mut drafts = drafts(&service, own.cloned().collect(), wanted, family);
            told.extend(hints::set(view, &service, family, &mut drafts));
            reuse(&service, &mut drafts);
            for draft in drafts {
                match draft.fate {
                    Fate::Changed => written.push(draft),
                    Fate::Removed => removed.push(draft),
                    Fate::Unchanged => {}
                }
            }
        }
        if object::is_deleted(&service) {
            written.retain(|draft| draft.seen.is_some());
        }
        let trigger = trigger.as_deref();
        plan.together(written.into_iter().map(|own| write(own, trigger)).collect());
        plan.together(removed.iter().filter_map(remove).collect());
        plan.together(told);
        plan
    }

    fn report(&self, view: &dyn View, key: &Key, _now: Instant, failed: &Failed) -> Plan {
        let mut plan = Plan::default();
        let service = view.get(kind::SERVICES, &key.namespace, &key.name);
        if let Some(service) = service.filter(|_| !failed.namespace_ends) {
            let message = format!(
                "Error updating Endpoint Slices for Service {key}: failed to {} EndpointSlice for \
                 Service {key}: {}",
                verb(&failed.write),
                failed.message
            );
            let reason = "FailedToUpdateEndpointSlices";
            plan.then(Write::warning(kind::SERVICES, &service, reason, message));
        }
        plan
    }
}

fn verb(write: &Write) -> String {
    match write {
        Write::Update { object, .. } => format!("update {}", object::name(object)),
        Write::Delete(delete) => format!("delete {}", delete.name),
        _ => "create".to_owned(),
    }
}

/// The services that a slice of this controller's belongs to, or did.
pub(super) fn services_of_slices(change: &Change, controller: &str, keys: &mut Vec<Key>) {
    let is_ours = |slice: &Value| object::label(slice, MANAGED_BY) == Some(controller);
    if !change.versions().any(is_ours) {
        return;
    }
    for slice in change.versions() {
        if let Some(service) = object::label(slice, SERVICE_NAME) {
            keys.push(Key::new(object::namespace(slice), service));
        }
    }
}

/// A node's zone and existence matter to the services of its pods; its readiness too, where
/// hints go by processors.
fn after_node(view: &dyn View, change: &Change, keys: &mut Vec<Key>) {
    let zone = |node: &Value| object::label(node, hints::ZONE).map(str::to_owned);
    let zones = |node: Option<&Value>| node.map(zone);
    let (before, after) = (change.before.as_deref(), change.after.as_deref());
    let is_moved = zones(before) != zones(after);
    if is_moved {
        let node = object::name(change.object());
        let mut pods: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for pod in view.list(kind::PODS, Within::Node(node)) {
            let namespace = object::namespace(&pod).to_owned();
            pods.entry(namespace).or_default().push(pod);
        }
        for (namespace, pods) in &pods {
            let pods: Vec<&Value> = pods.iter().map(|pod| &**pod).collect();
            backends::services_of(view, namespace, &pods, keys);
        }
    }
    if is_moved || before.map(object::is_ready) != after.map(object::is_ready) {
        let services = view.list(kind::SERVICES, Within::All);
        let in_proportion = services.iter().filter(|own| hints::is_in_proportion(own));
        keys.extend(in_proportion.map(|service| Key::of(service)));
    }
}

/// The slices that a controller keeps for a service.
pub(super) fn slices_of(
    view: &dyn View,
    namespace: &str,
    service: &str,
    controller: &str,
) -> Vec<Draft> {
    let slices = view.list(kind::ENDPOINT_SLICES, Within::Namespace(namespace));
    slices
        .iter()
        .filter(|slice| {
            object::label(slice, SERVICE_NAME) == Some(service)
                && object::label(slice, MANAGED_BY) == Some(controller)
                && !object::is_deleted(slice)
        })
        .map(Draft::of)
        .collect()
}

/// Endpoints and the ports they have, by what tells sets of ports apart.
type ByPorts = BTreeMap<String, (Vec<Value>, Wanted)>;

/// What tells sets of ports apart.
pub(super) fn ports_key(ports: &[Value]) -> String {
    let mut ports: Vec<String> = ports
        .iter()
        .map(|port| {
            let text = |field: &str| port[field].as_str().unwrap_or_default();
            let (name, number) = (text("name"), &port["port"]);
            let protocol = backends::protocol(port);
            format!("{name} {number} {protocol} {}", text("appProtocol"))
        })
        .collect();
    ports.sort();
    ports.join(",")
}

fn wanted(view: &dyn View, service: &Value, pods: &[Arc<Value>], family: &str) -> ByPorts {
    let mut wanted = ByPorts::new();
    for pod in pods.iter().filter(|pod| backends::is_reachable(pod)) {
        let ports = backends::ports(service, pod);
        let group = wanted
            .entry(ports_key(&ports))
            .or_insert_with(|| (ports, Wanted::new()));
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        let node = view.get(kind::NODES, "", node);
        if node.is_none() && !backends::publishes_not_ready(service) {
            continue;
        }
        if let Some(endpoint) = endpoint(service, pod, node.as_deref(), family) {
            group.1.insert(packing::key_of(&endpoint), endpoint);
        }
    }
    wanted
}

fn endpoint(service: &Value, pod: &Value, node: Option<&Value>, family: &str) -> Option<Value> {
    let addresses = backends::addresses(pod, family);
    if addresses.is_empty() {
        return None;
    }
    let serving = object::is_ready(pod);
    let terminating = object::is_deleted(pod);
    let ready = backends::publishes_not_ready(service) || (serving && !terminating);
    let mut endpoint = json!({
        "addresses": addresses,
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": backends::target_reference(pod),
    });
    let place = [
        ("hostname", backends::hostname(pod, service)),
        ("nodeName", pod["spec"]["nodeName"].as_str()),
        (
            "zone",
            node.and_then(|node| object::label(node, hints::ZONE)),
        ),
    ];
    for (field, value) in place {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            endpoint[field] = value.into();
        }
    }
    Some(endpoint)
}

/// The slices of one family as they shall be.
fn drafts(service: &Value, owned: Vec<Draft>, wanted: ByPorts, family: &str) -> Vec<Draft> {
    let mut groups: BTreeMap<String, Vec<Draft>> = BTreeMap::new();
    let mut drafts = Vec::new();
    for mut draft in owned {
        if is_owned(&draft.slice, service) {
            let ports = draft.slice["ports"]
                .as_array()
                .map_or(&[][..], Vec::as_slice);
            groups.entry(ports_key(ports)).or_default().push(draft);
        } else {
            draft.fate = Fate::Removed;
            drafts.push(draft);
        }
    }
    let labels = labels(service);
    for (key, (ports, endpoints)) in wanted {
        let mut own = groups.remove(&key).unwrap_or_default();
        let fresh = || fresh(service, family, &ports);
        packing::pack(
            &mut own,
            endpoints,
            &labels,
            |slice| has_labels(slice, &labels),
            fresh,
        );
        drafts.extend(own);
    }
    for mut draft in groups.into_values().flatten() {
        draft.fate = Fate::Removed;
        drafts.push(draft);
    }
    if drafts.iter().all(|draft| draft.fate == Fate::Removed) {
        keep_a_place(service, family, &mut drafts);
    }
    drafts
}

/// A service without endpoints has one slice that says so.
fn keep_a_place(service: &Value, family: &str, drafts: &mut Vec<Draft>) {
    let place = fresh(service, family, &[]);
    if let [draft] = &mut drafts[..]
        && draft.endpoints().is_empty()
        && object::items(&draft.slice["ports"]).next().is_none()
        && draft.slice["metadata"]["labels"] == place["metadata"]["labels"]
        && is_owned(&draft.slice, service)
    {
        draft.fate = Fate::Unchanged;
    } else {
        drafts.push(Draft::fresh(place));
    }
}

fn is_owned(slice: &Value, service: &Value) -> bool {
    object::items(&slice["metadata"]["ownerReferences"]).any(|owner| {
        owner["uid"] == service["metadata"]["uid"]
            && owner["kind"] == "Service"
            && owner["apiVersion"] == "v1"
    })
}

fn fresh(service: &Value, family: &str, ports: &[Value]) -> Value {
    json!({
        "metadata": {
            "namespace": object::namespace(service),
            "generateName": name_prefix(object::name(service)),
            "labels": labels(service),
            "ownerReferences": [object::controller_reference(kind::SERVICES, service)],
        },
        "addressType": family,
        "endpoints": [],
        "ports": ports,
    })
}

fn is_reserved(label: &str) -> bool {
    [HEADLESS, SERVICE_NAME, MANAGED_BY].contains(&label)
}

/// The labels of a service's slices: its own, and what says whose they are.
fn labels(service: &Value) -> Map<String, Value> {
    let own = service["metadata"]["labels"].as_object();
    let mut labels: Map<String, Value> = own
        .into_iter()
        .flatten()
        .filter(|(label, _)| !is_reserved(label))
        .map(|(label, value)| (label.clone(), value.clone()))
        .collect();
    if backends::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), "".into());
    }
    labels.insert(SERVICE_NAME.to_owned(), object::name(service).into());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.into());
    labels
}

/// Whether a slice has these labels, but for reserved ones, which are set with others only.
fn has_labels(slice: &Value, labels: &Map<String, Value>) -> bool {
    fn own(labels: &Map<String, Value>) -> BTreeMap<&String, &Value> {
        labels
            .iter()
            .filter(|(label, _)| !is_reserved(label))
            .collect()
    }
    let theirs = slice["metadata"]["labels"].as_object();
    theirs.is_some_and(|theirs| own(theirs) == own(labels))
}

/// New slices take the place of those that would go.
fn reuse(service: &Value, drafts: &mut Vec<Draft>) {
    let is_free = |draft: &Draft| draft.fate == Fate::Removed && is_owned(&draft.slice, service);
    while drafts.iter().any(is_free)
        && let Some(new) = drafts.iter().position(|draft| draft.seen.is_none())
    {
        let new = drafts.remove(new).slice;
        if let Some(old) = drafts.iter_mut().find(|draft| is_free(draft)) {
            for field in ["endpoints", "ports"] {
                old.slice[field] = new[field].clone();
            }
            for field in ["labels", "ownerReferences"] {
                old.slice["metadata"][field] = new["metadata"][field].clone();
            }
            old.fate = Fate::Changed;
        }
    }
}

/// Writes a draft, with the time of what caused it.
fn write(draft: Draft, trigger: Option<&str>) -> Write {
    let mut slice = draft.slice;
    let metadata = &mut slice["metadata"];
    if let Some(time) = trigger {
        metadata["annotations"][TRIGGER_TIME] = time.into();
    } else if let Some(annotations) = metadata.get_mut("annotations")
        && let Some(annotations) = annotations.as_object_mut()
    {
        annotations.shift_remove(TRIGGER_TIME);
    }
    match draft.seen {
        Some(_) => Write::update(kind::ENDPOINT_SLICES, slice),
        None => Write::create(kind::ENDPOINT_SLICES, slice),
    }
}

/// Deletes a draft that stands already.
pub(super) fn remove(draft: &Draft) -> Option<Write> {
    let seen = draft.seen.as_deref()?;
    Some(Write::delete(kind::ENDPOINT_SLICES, seen))
}

/// When the first of what is yet to be published happened: a pod's becoming as ready as it
/// is; for a service without slices, its creation.
fn trigger_time(service: &Value, owned: &[Draft], pods: &[Arc<Value>]) -> Option<String> {
    if owned.is_empty() {
        let created = service["metadata"]["creationTimestamp"].as_str();
        return created.map(str::to_owned);
    }
    let published: BTreeMap<(String, String), bool> = owned
        .iter()
        .flat_map(Draft::endpoints)
        .map(|endpoint| {
            let (_, _, namespace, name) = packing::key_of(endpoint);
            let serving = endpoint["conditions"]["serving"] == true;
            ((namespace, name), serving)
        })
        .collect();
    let news = pods.iter().filter(|pod| {
        let key = Key::of(pod);
        published.get(&(key.namespace, key.name)) != Some(&object::is_ready(pod))
    });
    let times = news.filter_map(|pod| backends::ready_since(pod));
    backends::earliest(times).map(str::to_owned)
}

#[cfg(test)]
#[path = "slices_tests.rs"]
mod tests;
