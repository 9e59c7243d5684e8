//! The cluster as the scheduler sees it, kept up by deltas.
//!
//! Invariants
//! - A change of a pod or node costs what it changes, not what there is.
//! - An assumed pod counts on its node until it is forgotten or its binding is seen.
//! - It is as large as what is in the cluster; nothing of what is gone is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nautilus_machinery::timestamp::Instant;
use serde_json::Value;

use super::affinity_term::{self, Labels};
use super::classes::Classes;
use super::devices::Inventory;
use super::interned::Interned;
use super::label_index::{LabelIndex, NodeSet, Slot};
use super::node::NodeInfo;
use super::node_selector::{NodeSelector, RequiredNode, Term};
use super::pod::PodInfo;
use super::resources::Resources;
use super::taint::{self, Taint, Toleration};
use crate::controller::Change;
use crate::kind::{self, Kind};
use crate::object;
use crate::view::Key;

/// The kinds a snapshot is made of.
pub const FOLLOWED: &[Kind] = &[
    kind::PODS,
    kind::NODES,
    kind::NAMESPACES,
    kind::SERVICES,
    kind::REPLICATION_CONTROLLERS,
    kind::REPLICA_SETS,
    kind::STATEFUL_SETS,
    kind::CLAIMS,
    kind::VOLUMES,
    kind::STORAGE_CLASSES,
    kind::CSI_NODES,
    kind::CSI_DRIVERS,
    kind::CSI_CAPACITIES,
    kind::VOLUME_ATTACHMENTS,
    kind::DEVICE_CLAIMS,
    kind::DEVICE_CLASSES,
    kind::DEVICE_SLICES,
    kind::DEVICE_TAINT_RULES,
];

#[derive(Debug)]
struct Placed {
    pod: Arc<PodInfo>,
    slot: Slot,
    is_assumed: bool,
}

/// Nodes, the pods on them, and what else decides where a pod goes.
#[derive(Debug, Default)]
pub struct Snapshot {
    nodes: Vec<NodeInfo>,
    free: Vec<Slot>,
    by_name: BTreeMap<String, Slot>,
    /// Nodes by zone; zones and nodes in the order in which they came.
    zones: Vec<(String, Vec<Slot>)>,
    /// The nodes, taken from zone after zone; made anew when it is asked for.
    order: Option<Vec<Slot>>,
    /// Where the next search starts in the order.
    pub(super) start: usize,
    pub(super) labels: LabelIndex,
    pub(super) taints: Interned<Taint>,
    pub(super) images: Interned<String>,
    /// Bytes of an image, by number, as the first node said that reported it.
    pub(super) image_sizes: Vec<i64>,
    pub(super) classes: Classes,
    /// By uid.
    pods: BTreeMap<String, Placed>,
    /// Pods that wait for a node, by its name and by uid.
    nominated: BTreeMap<String, BTreeMap<String, Arc<PodInfo>>>,
    /// Their nodes, by uid.
    nominations: BTreeMap<String, String>,
    /// How many pods use a claim, by namespace and name.
    claims_used: BTreeMap<Key, u32>,
    namespaces: BTreeMap<String, Labels>,
    objects: BTreeMap<(Kind, Key), Arc<Value>>,
    /// Objects as they will be once what is under way is written.
    reserved: BTreeMap<(Kind, Key), Arc<Value>>,
    pub(super) devices: Inventory,
    /// When it was last decided.
    pub(super) now: Instant,
    /// Attachments by node: their names.
    attachments: BTreeMap<String, BTreeSet<String>>,
    /// Percents of a node that are in use by its metrics: of its CPUs or of its memory,
    /// whichever is fuller. Nodes without metrics are not here.
    busy: BTreeMap<String, i64>,
}

/// The largest percentage.
const WHOLE: i64 = 100;
/// For how idle a node without metrics counts, in percent.
const UNKNOWN_IDLE: i64 = 50;

impl Snapshot {
    /// Takes a change in. Kinds that it is not made of are left out.
    pub fn apply(&mut self, change: &Change) {
        match change.kind {
            kind::PODS => self.apply_pod(change),
            kind::NODES => {
                let name = object::name(change.object()).to_owned();
                self.set_node(&name, change.after.as_ref());
            }
            kind::NAMESPACES => {
                let name = object::name(change.object()).to_owned();
                match &change.after {
                    Some(after) => {
                        let labels = affinity_term::labels_of(after);
                        self.namespaces.insert(name, labels);
                    }
                    None => drop(self.namespaces.remove(&name)),
                }
            }
            kind::DEVICE_CLAIMS
            | kind::DEVICE_CLASSES
            | kind::DEVICE_SLICES
            | kind::DEVICE_TAINT_RULES => self.devices.apply(change),
            other if FOLLOWED.contains(&other) => {
                let key = (other, Key::of(change.object()));
                self.reserved.remove(&key);
                if other == kind::VOLUME_ATTACHMENTS {
                    self.set_attachment(change);
                }
                match &change.after {
                    Some(after) => drop(self.objects.insert(key, after.clone())),
                    None => drop(self.objects.remove(&key)),
                }
            }
            _ => {}
        }
    }

    /// Takes over how busy nodes are, by a `NodeMetricsList` of `metrics.k8s.io/v1beta1`.
    pub fn set_metrics(&mut self, list: &Value) {
        self.busy.clear();
        for metrics in object::items(&list["items"]) {
            let name = object::name(metrics);
            let Some(node) = self.node(name) else {
                continue;
            };
            let used = Resources::of(&metrics["usage"]);
            let share = |used: i64, whole: i64| match whole > 0 {
                true => used.saturating_mul(WHOLE) / whole,
                false => 0,
            };
            let cpu = share(used.milli_cpu, node.allocatable.milli_cpu);
            let memory = share(used.memory, node.allocatable.memory);
            self.busy
                .insert(name.to_owned(), cpu.max(memory).clamp(0, WHOLE));
        }
    }

    /// How idle a node is, in percent.
    pub(super) fn idle(&self, node: &str) -> i64 {
        self.busy
            .get(node)
            .map_or(UNKNOWN_IDLE, |busy| WHOLE - busy)
    }

    fn set_attachment(&mut self, change: &Change) {
        let node = |own: &Value| own["spec"]["nodeName"].as_str().map(str::to_owned);
        let name = object::name(change.object());
        if let Some(node) = change.before.as_deref().and_then(node)
            && let Some(names) = self.attachments.get_mut(&node)
        {
            names.remove(name);
            if names.is_empty() {
                self.attachments.remove(&node);
            }
        }
        if let Some(node) = change.after.as_deref().and_then(node) {
            let names = self.attachments.entry(node).or_default();
            names.insert(name.to_owned());
        }
    }

    /// What is attached to a node.
    pub(super) fn attachments(&self, node: &str) -> impl Iterator<Item = &Arc<Value>> {
        let names = self.attachments.get(node).into_iter().flatten();
        names.filter_map(|name| self.get(kind::VOLUME_ATTACHMENTS, "", name))
    }

    /// Volumes and claims are seen as they will be once what is under way is written: until
    /// they change, or are released.
    pub fn reserve(&mut self, kind: Kind, object: Arc<Value>) {
        self.reserved.insert((kind, Key::of(&object)), object);
    }

    /// What was under way was not written.
    pub fn release(&mut self, kind: Kind, key: &Key) {
        self.reserved.remove(&(kind, key.clone()));
    }

    fn apply_pod(&mut self, change: &Change) {
        let uid = |pod: &Option<Arc<Value>>| pod.as_deref().map(object::uid).map(str::to_owned);
        let (before, after) = (uid(&change.before), uid(&change.after));
        if let Some(before) = before.filter(|own| after.as_ref() != Some(own)) {
            self.take_away(&before);
            self.withdraw(&before);
        }
        let (Some(pod), Some(uid)) = (&change.after, after) else {
            return;
        };
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        if object::is_finished(pod) {
            self.take_away(&uid);
            self.withdraw(&uid);
        } else if !node.is_empty() {
            self.withdraw(&uid);
            self.take_away(&uid);
            self.place(&Arc::new(PodInfo::new(pod.clone())), node, false);
        } else if self.pods.get(&uid).is_some_and(|own| !own.is_assumed) {
            self.take_away(&uid);
        }
    }

    /// Counts a pod on the node that it is bound to.
    pub fn settle(&mut self, pod: &Arc<PodInfo>) {
        self.withdraw(&pod.uid);
        self.take_away(&pod.uid);
        self.place(pod, &pod.node_name, false);
    }

    /// A pod is gone.
    pub fn remove(&mut self, uid: &str) {
        self.withdraw(uid);
        self.take_away(uid);
    }

    /// Counts a pod on a node before its binding is seen.
    pub fn assume(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.withdraw(&pod.uid);
        self.take_away(&pod.uid);
        self.place(pod, node, true);
    }

    /// Takes an assumption back. A pod whose binding was seen stays.
    pub fn forget(&mut self, uid: &str) {
        if self.is_assumed(uid) {
            self.take_away(uid);
        }
    }

    /// Whether a pod counts on a node without its binding having been seen.
    pub fn is_assumed(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|own| own.is_assumed)
    }

    fn place(&mut self, pod: &Arc<PodInfo>, node: &str, is_assumed: bool) {
        let slot = self.slot_of(node);
        self.classes.add(pod, slot);
        for key in claims(pod) {
            *self.claims_used.entry(key).or_default() += 1;
        }
        self.nodes[slot as usize].add_pod(pod.clone());
        let placed = Placed {
            pod: pod.clone(),
            slot,
            is_assumed,
        };
        self.pods.insert(pod.uid.clone(), placed);
    }

    fn take_away(&mut self, uid: &str) {
        if let Some(placed) = self.pods.remove(uid) {
            self.classes.remove(&placed.pod, placed.slot);
            for key in claims(&placed.pod) {
                if let Some(count) = self.claims_used.get_mut(&key) {
                    *count -= 1;
                    if *count == 0 {
                        self.claims_used.remove(&key);
                    }
                }
            }
            self.nodes[placed.slot as usize].remove_pod(uid);
            self.vacate(placed.slot);
        }
    }

    /// A pod that waits until its node has been made free: others of its priority and
    /// below find the node as if it were there.
    pub fn nominate(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.withdraw(&pod.uid);
        self.nominations.insert(pod.uid.clone(), node.to_owned());
        let of_node = self.nominated.entry(node.to_owned()).or_default();
        of_node.insert(pod.uid.clone(), pod);
    }

    /// A pod waits for no node any more.
    pub fn withdraw(&mut self, uid: &str) {
        let Some(node) = self.nominations.remove(uid) else {
            return;
        };
        if let Some(of_node) = self.nominated.get_mut(&node) {
            of_node.remove(uid);
            if of_node.is_empty() {
                self.nominated.remove(&node);
            }
        }
    }

    /// The node that is being made free for a pod.
    pub fn nomination(&self, uid: &str) -> Option<&str> {
        self.nominations.get(uid).map(String::as_str)
    }

    /// The pods that wait for a node to be made free.
    pub fn nominated_to(&self, node: &str) -> impl Iterator<Item = &Arc<PodInfo>> {
        let of_node = self.nominated.get(node).into_iter();
        of_node.flat_map(BTreeMap::values)
    }

    pub(super) fn has_nominations(&self) -> bool {
        !self.nominated.is_empty()
    }

    fn slot_of(&mut self, name: &str) -> Slot {
        if let Some(slot) = self.by_name.get(name) {
            return *slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot = Slot::try_from(self.nodes.len()).unwrap_or_default();
            self.nodes.push(NodeInfo::new(slot, ""));
            slot
        });
        self.nodes[slot as usize] = NodeInfo::new(slot, name);
        self.by_name.insert(name.to_owned(), slot);
        slot
    }

    fn set_node(&mut self, name: &str, object: Option<&Arc<Value>>) {
        if object.is_none() && !self.by_name.contains_key(name) {
            return;
        }
        let slot = self.slot_of(name);
        let node = &mut self.nodes[slot as usize];
        let was_zone = node.is_there.then(|| node.zone());
        let labels_before = std::mem::take(&mut node.labels);
        let taints_before = std::mem::take(&mut node.taints);
        let images_before = std::mem::take(&mut node.images);
        node.set_object(object.map(AsRef::as_ref));
        let zone = object.is_some().then(|| node.zone());
        self.labels.replace(slot, &labels_before, &node.labels);
        if let Some(object) = object {
            let taints = Taint::all(object).into_iter();
            node.taints = taints.map(|taint| self.taints.acquire(taint)).collect();
        }
        for taint in taints_before {
            self.taints.release(taint);
        }
        self.set_images(slot, object.map(AsRef::as_ref), &images_before);
        if was_zone != zone {
            self.move_zones(slot, was_zone.as_deref(), zone);
        }
        self.vacate(slot);
    }

    fn set_images(&mut self, slot: Slot, node: Option<&Value>, before: &[u32]) {
        let mut ids = Vec::new();
        for (name, size) in node.into_iter().flat_map(NodeInfo::images_said) {
            let id = self.images.acquire(name.to_owned());
            if self.image_sizes.len() <= id as usize {
                self.image_sizes.resize(id as usize + 1, 0);
            }
            if self.images.count(id) == 1 {
                self.image_sizes[id as usize] = size;
            }
            match ids.contains(&id) {
                true => self.images.release(id),
                false => ids.push(id),
            }
        }
        for id in before {
            self.images.release(*id);
        }
        ids.sort_unstable();
        self.nodes[slot as usize].images = ids;
    }

    fn move_zones(&mut self, slot: Slot, from: Option<&str>, to: Option<String>) {
        self.order = None;
        if let Some(from) = from {
            if let Some((_, slots)) = self.zones.iter_mut().find(|(own, _)| own == from) {
                slots.retain(|own| *own != slot);
            }
            self.zones.retain(|(_, slots)| !slots.is_empty());
        }
        if let Some(to) = to {
            match self.zones.iter_mut().find(|(own, _)| *own == to) {
                Some((_, slots)) => slots.push(slot),
                None => self.zones.push((to, vec![slot])),
            }
        }
    }

    /// Frees a slot that neither a node nor a pod names.
    fn vacate(&mut self, slot: Slot) {
        let node = &self.nodes[slot as usize];
        if !node.is_there && node.pods.is_empty() && self.by_name.remove(&node.name).is_some() {
            self.free.push(slot);
        }
    }

    /// The nodes in the order in which they are looked at: one of each zone in turn.
    pub(super) fn order(&mut self) -> Vec<Slot> {
        let order = self.order.take().unwrap_or_else(|| {
            let longest = self.zones.iter().map(|(_, slots)| slots.len()).max();
            let turns = 0..longest.unwrap_or_default();
            turns
                .flat_map(|turn| self.zones.iter().filter_map(move |(_, own)| own.get(turn)))
                .copied()
                .collect()
        });
        self.order = Some(order.clone());
        order
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.zones.iter().map(|(_, slots)| slots.len()).sum()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.zones.is_empty()
    }

    /// All nodes, in no order that matters.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.iter().filter(|own| own.is_there)
    }

    /// The node of a name.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        let slot = self.by_name.get(name)?;
        Some(self.at(*slot)).filter(|own| own.is_there)
    }

    /// The node in a slot.
    pub fn at(&self, slot: Slot) -> &NodeInfo {
        &self.nodes[slot as usize]
    }

    /// Above the largest slot.
    pub(super) fn slots(&self) -> usize {
        self.nodes.len()
    }

    /// A pod that counts on a node, with that node's name.
    pub fn placed(&self, uid: &str) -> Option<(&Arc<PodInfo>, &str)> {
        let placed = self.pods.get(uid)?;
        Some((&placed.pod, &self.at(placed.slot).name))
    }

    /// The same by where the pod stands.
    pub fn placed_by_key(&self, key: &Key) -> Option<(&Arc<PodInfo>, &str)> {
        let mut placed = self.pods.values();
        let placed = placed.find(|own| own.pod.key() == *key)?;
        Some((&placed.pod, &self.at(placed.slot).name))
    }

    /// Another object that decides.
    pub(super) fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        let key = (kind, Key::new(namespace, name));
        let reserved = self.reserved.get(&key);
        reserved.or_else(|| self.objects.get(&key))
    }

    /// Whether a pod on a node uses a claim.
    pub(super) fn is_used(&self, namespace: &str, claim: &str) -> bool {
        self.claims_used.contains_key(&Key::new(namespace, claim))
    }

    /// Other objects of a kind, in all namespaces.
    pub(super) fn all(&self, kind: Kind) -> impl Iterator<Item = &Arc<Value>> {
        let from = (kind, Key::new("", ""));
        let objects = self.objects.range(from..);
        objects
            .take_while(move |((own, _), _)| *own == kind)
            .map(|(_, object)| object)
    }

    /// Other objects of a kind, in a namespace; empty: those without one.
    pub(super) fn list<'a>(
        &'a self,
        kind: Kind,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Value>> {
        let from = (kind, Key::new(namespace, ""));
        let objects = self.objects.range(from..);
        objects
            .take_while(move |((own, key), _)| *own == kind && key.namespace == namespace)
            .map(|(key, object)| self.reserved.get(key).unwrap_or(object))
    }

    /// A namespace's labels; none where it is not known.
    pub(super) fn namespace_labels(&self, namespace: &str) -> &Labels {
        const NONE: &Labels = &Labels::new();
        self.namespaces.get(namespace).unwrap_or(NONE)
    }

    /// Whether nothing of nodes and pods is kept.
    #[cfg(test)]
    pub(super) fn is_bare(&self) -> bool {
        self.by_name.is_empty()
            && self.zones.is_empty()
            && self.pods.is_empty()
            && self.labels.is_empty()
            && self.classes.namespaces().next().is_none()
            && self.taints.is_empty()
            && self.images.is_empty()
    }

    /// By number: taints that keep a pod off.
    pub(super) fn untolerated(&self, tolerations: &[Toleration]) -> Vec<bool> {
        self.taints.map(false, |own| {
            own.effect.keeps_off() && !taint::is_tolerated(own, tolerations)
        })
    }

    /// The nodes that are what a pod requires.
    pub(super) fn matching(&self, required: &RequiredNode) -> NodeSet {
        let slots = self.slots();
        let mut set = NodeSet::all(slots);
        for requirement in &required.labels {
            set.keep(&self.labels.matching(requirement, slots));
        }
        if let Some(selector) = &required.selector {
            set.keep(&self.matching_selector(selector));
        }
        set
    }

    /// The nodes that a selector selects.
    pub(super) fn matching_selector(&self, selector: &NodeSelector) -> NodeSet {
        let mut set = NodeSet::none(self.slots());
        for term in &selector.terms {
            set.join(&self.matching_term(term));
        }
        set
    }

    /// The nodes for which all conditions of a term hold.
    pub(super) fn matching_term(&self, term: &Term) -> NodeSet {
        let slots = self.slots();
        let mut set = NodeSet::all(slots);
        for requirement in &term.labels {
            set.keep(&self.labels.matching(requirement, slots));
        }
        for test in &term.names {
            let mut named = NodeSet::none(slots);
            for (name, slot) in &self.by_name {
                if test.passes(Some(name)) {
                    named.insert(*slot);
                }
            }
            set.keep(&named);
        }
        set
    }
}

/// The claims that a pod shares with others.
fn claims(pod: &PodInfo) -> impl Iterator<Item = Key> {
    let claims = pod.claims.iter().filter(|own| !own.is_ephemeral);
    claims.map(|own| Key::new(&pod.namespace, &own.name))
}
