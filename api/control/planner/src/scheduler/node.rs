//! A node with the pods on it, as the scheduler counts them.
//!
//! Invariant: what is counted is what its pods add up to; taking a pod away undoes adding
//! it. Clones are cheap enough to try what would be if pods went or came.

use std::sync::Arc;

use serde_json::Value;

use super::affinity_term::{self, Labels};
use super::label_index::Slot;
use super::node_selector::Labelled;
use super::pod::{HostPort, PodInfo};
use super::resources::{self, Resources};
use crate::object;

/// Bytes of the largest image that is told from larger ones: sums stay far from overflow.
const LARGEST_IMAGE: i64 = 1 << 50;

/// A node, or the place of pods whose node is not known.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    /// Its place in the snapshot.
    pub slot: Slot,
    /// Its name.
    pub name: String,
    /// Whether it is there, or only pods name it.
    pub is_there: bool,
    /// Its labels.
    pub labels: Labels,
    /// What there is.
    pub allocatable: Resources,
    /// How many pods it takes.
    pub allowed_pods: i64,
    /// What its pods hold.
    pub requested: Resources,
    /// Milli-CPUs that its pods count for in scores.
    pub counted_milli_cpu: i64,
    /// Bytes that its pods count for in scores.
    pub counted_memory: i64,
    /// Whether it is cordoned.
    pub is_unschedulable: bool,
    /// The pods on it, assumed ones included.
    pub pods: Vec<Arc<PodInfo>>,
    /// Interned taints.
    pub(super) taints: Vec<u32>,
    /// Interned images, in order.
    pub(super) images: Vec<u32>,
    used_ports: Vec<HostPort>,
    /// What its kubelet says that it has.
    declared_features: Box<[String]>,
}

impl NodeInfo {
    pub(super) fn new(slot: Slot, name: &str) -> Self {
        Self {
            slot,
            name: name.to_owned(),
            is_there: false,
            labels: Labels::new(),
            allocatable: Resources::default(),
            allowed_pods: 0,
            requested: Resources::default(),
            counted_milli_cpu: 0,
            counted_memory: 0,
            is_unschedulable: false,
            pods: Vec::new(),
            taints: Vec::new(),
            images: Vec::new(),
            used_ports: Vec::new(),
            declared_features: Box::default(),
        }
    }

    /// Takes over what the node's object says, but for what is interned.
    pub(super) fn set_object(&mut self, node: Option<&Value>) {
        let nothing = Value::Null;
        let read = node.unwrap_or(&nothing);
        let allocatable = &read["status"]["allocatable"];
        self.labels = affinity_term::labels_of(read);
        self.allocatable = Resources::of(allocatable);
        self.allowed_pods = resources::count(&allocatable["pods"]);
        self.is_unschedulable = read["spec"]["unschedulable"] == true;
        self.is_there = node.is_some();
        let features = object::items(&read["status"]["declaredFeatures"]);
        self.declared_features = features
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
    }

    /// Counts a pod.
    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests.held);
        let requests = &pod.requests;
        self.counted_milli_cpu = self
            .counted_milli_cpu
            .saturating_add(requests.counted_milli_cpu);
        self.counted_memory = self.counted_memory.saturating_add(requests.counted_memory);
        self.used_ports.extend_from_slice(&pod.host_ports);
        self.pods.push(pod);
    }

    /// Takes a pod away; `None`: it is not there.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let place = self.pods.iter().position(|own| own.uid == uid)?;
        let pod = self.pods.swap_remove(place);
        self.requested.subtract(&pod.requests.held);
        let requests = &pod.requests;
        self.counted_milli_cpu = self
            .counted_milli_cpu
            .saturating_sub(requests.counted_milli_cpu);
        self.counted_memory = self.counted_memory.saturating_sub(requests.counted_memory);
        for port in &pod.host_ports {
            if let Some(place) = self.used_ports.iter().position(|own| own == port) {
                self.used_ports.swap_remove(place);
            }
        }
        Some(pod)
    }

    /// Whether its kubelet has all of some features.
    pub(super) fn declares(&self, features: &[&str]) -> bool {
        let has = |feature: &&str| self.declared_features.iter().any(|own| own == *feature);
        features.iter().all(has)
    }

    /// Whether none of the ports is taken.
    pub(super) fn has_free(&self, ports: &[HostPort]) -> bool {
        let taken = |port: &HostPort| self.used_ports.iter().any(|own| own.conflicts(port));
        !ports.iter().any(taken)
    }

    /// The zone in whose turn the node is looked at: region and zone, empty for none.
    pub(super) fn zone(&self) -> String {
        let first = |keys: [&str; 2]| {
            let values = keys.into_iter().find_map(|key| self.labels.get(key));
            values.cloned().unwrap_or_default()
        };
        let zone = first([
            "failure-domain.beta.kubernetes.io/zone",
            "topology.kubernetes.io/zone",
        ]);
        let region = first([
            "failure-domain.beta.kubernetes.io/region",
            "topology.kubernetes.io/region",
        ]);
        match zone.is_empty() && region.is_empty() {
            true => String::new(),
            false => format!("{region}:\0:{zone}"),
        }
    }

    /// Its images by all their names, with their sizes in bytes.
    pub(super) fn images_said(node: &Value) -> impl Iterator<Item = (&str, i64)> {
        object::items(&node["status"]["images"]).flat_map(|image| {
            let size = image["sizeBytes"].as_i64().unwrap_or_default();
            let size = size.clamp(0, LARGEST_IMAGE);
            let names = object::items(&image["names"]).filter_map(Value::as_str);
            names.map(move |name| (name, size))
        })
    }
}

impl Labelled for NodeInfo {
    fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn taking_a_pod_away_undoes_adding_it() {
        let pod = |uid: &str, cpu: &str| {
            let container = json!({"resources": {"requests": {"cpu": cpu, "a/b": 2}},
                "ports": [{"hostPort": 80}]});
            let pod = json!({"metadata": {"uid": uid}, "spec": {"containers": [container]}});
            Arc::new(PodInfo::new(Arc::new(pod)))
        };
        let mut node = NodeInfo::new(0, "n");
        node.add_pod(pod("1", "1"));
        let before = format!("{node:?}");
        node.add_pod(pod("2", "500m"));
        assert_eq!(node.requested.milli_cpu, 1500);
        assert_eq!(node.requested.amount("a/b"), 4);
        assert!(node.remove_pod("2").is_some() && node.remove_pod("2").is_none());
        assert_eq!(format!("{node:?}"), before);
        node.remove_pod("1");
        assert!(node.has_free(&pod("3", "1").host_ports));
    }
}
