//! A pod as the scheduler sees it: read once, asked often.
//!
//! Invariant: everything a filter or a score asks of a pod stands here; its object is kept
//! for messages and events alone.

use std::sync::Arc;

use serde_json::Value;

use super::affinity_term::{self, Labels, PodAffinities, SpreadConstraint};
use super::disks;
use super::node_selector::{PreferredNode, RequiredNode};
use super::resources::Requests;
use super::taint::Toleration;
use crate::object;
use crate::view::Key;
use crate::volumes;

/// A port of the node that a pod wants for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Address; `0.0.0.0`: all.
    pub address: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// 1 to 65535.
    pub port: u64,
}

impl HostPort {
    const ALL_ADDRESSES: &'static str = "0.0.0.0";

    fn read(port: &Value) -> Option<Self> {
        let text = |field: &str, unsaid: &str| match port[field].as_str() {
            None | Some("") => unsaid.to_owned(),
            Some(said) => said.to_owned(),
        };
        let number = port["hostPort"].as_u64().filter(|number| *number > 0)?;
        Some(Self {
            address: text("hostIP", Self::ALL_ADDRESSES),
            protocol: text("protocol", "TCP"),
            port: number,
        })
    }

    /// Whether no two pods of one node can have both.
    pub fn conflicts(&self, other: &Self) -> bool {
        let all = |own: &Self| own.address == Self::ALL_ADDRESSES;
        self.port == other.port
            && self.protocol == other.protocol
            && (all(self) || all(other) || self.address == other.address)
    }
}

/// A claim of a pod's volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodClaim {
    /// Its name, in the pod's namespace.
    pub name: String,
    /// Whether it is made for this pod and goes with it.
    pub is_ephemeral: bool,
}

/// A claim of a pod on devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodDeviceClaim {
    /// The name of a claim that others may share.
    Named(String),
    /// The name of the claim that was made of the pod's template.
    Made(String),
    /// None was needed.
    NotNeeded,
    /// It is still to be made.
    NotYet,
    /// Of a type that is not known; its name in the pod.
    Unknown(String),
}

impl PodDeviceClaim {
    fn read(pod: &Value, claim: &Value) -> Self {
        let text = |field: &Value| field.as_str().map(str::to_owned);
        let name = text(&claim["name"]).unwrap_or_default();
        if let Some(name) = text(&claim["resourceClaimName"]) {
            return Self::Named(name);
        }
        if !claim["resourceClaimTemplateName"].is_string() {
            return Self::Unknown(name);
        }
        let mut statuses = object::items(&pod["status"]["resourceClaimStatuses"]);
        match statuses.find(|own| own["name"] == *name) {
            None => Self::NotYet,
            Some(own) => text(&own["resourceClaimName"]).map_or(Self::NotNeeded, Self::Made),
        }
    }

    /// The claim's name, where it is known.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Named(name) | Self::Made(name) => Some(name),
            Self::NotNeeded | Self::NotYet | Self::Unknown(_) => None,
        }
    }
}

/// A pod that waits for a node or has one.
#[derive(Debug, Clone)]
pub struct PodInfo {
    /// The pod.
    pub object: Arc<Value>,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `spec.priority`; 0 where it is not said.
    pub priority: i64,
    /// `spec.nodeName`: the node it is bound to, empty for none.
    pub node_name: String,
    /// `status.nominatedNodeName`: the node that is being made free for it, empty for none.
    pub nominated_node: String,
    /// `spec.schedulerName`.
    pub scheduler_name: String,
    /// The names of `spec.schedulingGates`.
    pub gates: Vec<String>,
    /// Whether it is on its way out.
    pub is_terminating: bool,
    /// What it asks for.
    pub requests: Requests,
    /// Ports of the node.
    pub host_ports: Vec<HostPort>,
    /// Taints it tolerates.
    pub tolerations: Vec<Toleration>,
    /// What its node must be.
    pub required_node: RequiredNode,
    /// What its node had better be.
    pub preferred_node: PreferredNode,
    /// What it asks about other pods.
    pub affinities: Arc<PodAffinities>,
    /// How it and its like are to be spread.
    pub spread: Vec<SpreadConstraint>,
    /// Claims of its volumes.
    pub claims: Vec<PodClaim>,
    /// Claims on devices.
    pub device_claims: Vec<PodDeviceClaim>,
    /// Volumes that are disks which pods of one node may not share freely.
    pub(super) disks: Vec<Value>,
    /// Features that its node must declare.
    pub(super) features: Vec<&'static str>,
    /// Images of its containers and volumes, with a tag.
    pub images: Vec<String>,
    /// What other pods' constraints tell it from others by, beside its namespace.
    pub(super) likeness: String,
}

impl PodInfo {
    /// Reads a pod.
    pub fn new(pod: Arc<Value>) -> Self {
        let spec = &pod["spec"];
        let namespace = object::namespace(&pod).to_owned();
        let labels = affinity_term::labels_of(&pod);
        let is_terminating = object::is_deleted(&pod);
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        let constraints = object::items(&spec["topologySpreadConstraints"]);
        let affinities = PodAffinities::read(&spec["affinity"], &namespace);
        Self {
            name: object::name(&pod).to_owned(),
            uid: object::uid(&pod).to_owned(),
            priority: spec["priority"].as_i64().unwrap_or_default(),
            node_name: text(&spec["nodeName"]),
            nominated_node: text(&pod["status"]["nominatedNodeName"]),
            scheduler_name: match spec["schedulerName"].as_str() {
                None | Some("") => DEFAULT_SCHEDULER.to_owned(),
                Some(name) => name.to_owned(),
            },
            gates: object::items(&spec["schedulingGates"])
                .map(|gate| text(&gate["name"]))
                .collect(),
            is_terminating,
            requests: Requests::of(&pod),
            host_ports: host_ports(spec),
            tolerations: Toleration::all(spec),
            required_node: RequiredNode::of(spec),
            preferred_node: PreferredNode::read(
                &spec["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"],
            ),
            affinities: Arc::new(affinities),
            spread: constraints
                .filter_map(|own| SpreadConstraint::read(own, &labels))
                .collect(),
            images: images(spec),
            claims: claims(&pod),
            device_claims: object::items(&spec["resourceClaims"])
                .map(|claim| PodDeviceClaim::read(&pod, claim))
                .collect(),
            disks: object::items(&spec["volumes"])
                .filter(|volume| disks::is_disk(volume))
                .cloned()
                .collect(),
            features: features(spec),
            likeness: likeness(&labels, is_terminating, &spec["affinity"]),
            namespace,
            labels,
            object: pod,
        }
    }

    /// Where it stands.
    pub fn key(&self) -> Key {
        Key::new(&self.namespace, &self.name)
    }

    /// Whether it waits for a node.
    pub fn is_pending(&self) -> bool {
        self.node_name.is_empty() && !self.is_terminating && !object::is_finished(&self.object)
    }
}

/// The scheduler of pods that name none.
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";

fn host_ports(spec: &Value) -> Vec<HostPort> {
    let sidecars = object::items(&spec["initContainers"]);
    let sidecars = sidecars.filter(|own| own["restartPolicy"] == "Always");
    let containers = sidecars.chain(object::items(&spec["containers"]));
    containers
        .flat_map(|container| object::items(&container["ports"]))
        .filter_map(HostPort::read)
        .collect()
}

fn claims(pod: &Value) -> Vec<PodClaim> {
    let volumes = object::items(&pod["spec"]["volumes"]);
    let claims = volumes.filter_map(|volume| {
        Some(PodClaim {
            name: volumes::claim_name(pod, volume)?,
            is_ephemeral: volume["ephemeral"].is_object(),
        })
    });
    claims.collect()
}

/// Source: `k8s.io/component-helpers/nodedeclaredfeatures`.
fn features(spec: &Value) -> Vec<&'static str> {
    let mut features = Vec::new();
    let containers = |fields: &'static [&'static str]| {
        let fields = fields.iter();
        fields.flat_map(|field| object::items(&spec[*field]))
    };
    let running = || containers(&["containers", "initContainers"]);
    let mut rules = running().flat_map(|own| object::items(&own["restartPolicyRules"]));
    if rules.any(|rule| rule["action"] == "RestartAllContainers") {
        features.push("RestartAllContainersOnContainerExits");
    }
    if spec["hostNetwork"] == true && spec["hostUsers"] == false {
        features.push("UserNamespacesHostNetworkSupport");
    }
    let all = containers(&["containers", "initContainers", "ephemeralContainers"]);
    let mut mounts = all.flat_map(|own| object::items(&own["volumeMounts"]));
    if mounts.any(|mount| object::items(&mount["bindMountOptions"]).next().is_some()) {
        features.push("VolumeBindMountOptions");
    }
    features
}

fn images(spec: &Value) -> Vec<String> {
    let containers = ["initContainers", "containers"].into_iter();
    let of_containers = containers
        .flat_map(|field| object::items(&spec[field]))
        .map(|container| &container["image"]);
    let of_volumes = object::items(&spec["volumes"])
        .filter(|volume| volume["image"].is_object())
        .map(|volume| &volume["image"]["reference"]);
    let all = of_containers.chain(of_volumes);
    all.map(|image| with_tag(image.as_str().unwrap_or_default()))
        .collect()
}

/// An image's name as nodes report it.
pub(super) fn with_tag(image: &str) -> String {
    if image.rfind(':') <= image.rfind('/') {
        format!("{image}:latest")
    } else {
        image.to_owned()
    }
}

fn likeness(labels: &Labels, is_terminating: bool, affinity: &Value) -> String {
    let mut text = String::from(if is_terminating { "-" } else { "+" });
    for (key, value) in labels {
        text.push_str(key);
        text.push('=');
        text.push_str(value);
        text.push(',');
    }
    for field in ["podAffinity", "podAntiAffinity"] {
        text.push('\n');
        if affinity[field].is_object() {
            text.push_str(&affinity[field].to_string());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_conflict_on_one_address_or_on_all() {
        let port = |address: &str, protocol: &str, port: u64| {
            let own = json!({"hostIP": address, "protocol": protocol, "hostPort": port});
            HostPort::read(&own).expect("it is one")
        };
        let all = port("", "", 80);
        for (other, expected) in [
            (port("10.0.0.1", "TCP", 80), true),
            (port("", "TCP", 80), true),
            (port("", "UDP", 80), false),
            (port("", "TCP", 81), false),
        ] {
            assert_eq!(all.conflicts(&other), expected, "{other:?}");
        }
        let one = port("10.0.0.1", "TCP", 80);
        assert!(!one.conflicts(&port("10.0.0.2", "TCP", 80)));
        assert!(one.conflicts(&one));
    }

    #[test]
    fn images_have_a_tag() {
        for (image, expected) in [
            ("nginx", "nginx:latest"),
            ("nginx:1", "nginx:1"),
            ("host:5000/nginx", "host:5000/nginx:latest"),
            ("host:5000/nginx:1", "host:5000/nginx:1"),
        ] {
            assert_eq!(with_tag(image), expected);
        }
    }

    #[test]
    fn only_containers_that_run_on_take_ports() {
        let container = |policy: Value, port: u64| json!({"restartPolicy": policy, "ports": [{"hostPort": port}, {"containerPort": 1}]});
        let pod = json!({"spec": {
            "initContainers": [container(Value::Null, 1), container("Always".into(), 2)],
            "containers": [container(Value::Null, 3)],
        }});
        let own = PodInfo::new(Arc::new(pod));
        let ports: Vec<u64> = own.host_ports.iter().map(|own| own.port).collect();
        assert_eq!(ports, [2, 3]);
    }
}
