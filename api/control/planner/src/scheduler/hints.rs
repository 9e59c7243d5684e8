//! Which changes may undo a rejection: of which kind for which rule, and for which pods.
//!
//! Source: `EventsToRegister` and the queueing hints of kube-scheduler's plugins (KEP 4247).
//!
//! Invariant: where a change makes a rule accept a node for a pod, its hint says so. That a
//! hint says so promises nothing.

use nautilus_machinery::quantity::Quantity;
use serde_json::Value;

use super::affinity_term::{self, AffinityTerm, Labels, SpreadConstraint};
use super::devices::{self, Inventory};
use super::fit::is_given_as_devices;
use super::plugin::{Plugin, Plugins};
use super::pod::PodInfo;
use super::resources::Resources;
use super::snapshot::Snapshot;
use super::taint::{Taint, is_tolerated};
use crate::controller::Change;
use crate::kind;
use crate::object;

/// What a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aspect {
    /// A node came.
    NodeAdd,
    /// A node is gone.
    NodeDelete,
    /// Its labels are others.
    NodeLabels,
    /// Its taints are others, or it takes pods again.
    NodeTaints,
    /// It has another amount of something.
    NodeAllocatable,
    /// Its kubelet declares other features.
    NodeFeatures,
    /// A pod has a node.
    PodAdd,
    /// A pod that had a node is gone, or will not come to the node that was kept for it.
    PodDelete,
    /// Labels of a pod that has a node.
    PodLabels,
    /// A pod that has a node asks for less.
    PodScaleDown,
    /// Labels of the pod that waits.
    OwnLabels,
    /// The pod that waits asks for less.
    OwnScaleDown,
    /// The pod that waits tolerates more.
    OwnTolerations,
    /// Of a claim.
    ClaimAdd,
    /// Of a claim.
    ClaimUpdate,
    /// Of a volume.
    VolumeAdd,
    /// Of a volume.
    VolumeUpdate,
    /// Of a storage class.
    ClassAdd,
    /// Of a storage class.
    ClassUpdate,
    /// Of what a node says of its drivers.
    CsiNodeAdd,
    /// Of what a node says of its drivers.
    CsiNodeUpdate,
    /// Of a driver.
    CsiDriverUpdate,
    /// Of how much a driver has room for.
    CapacityAdd,
    /// Of how much a driver has room for.
    CapacityUpdate,
    /// A volume is detached.
    AttachmentDelete,
    /// Of a claim on devices.
    DeviceClaimAdd,
    /// Of a claim on devices.
    DeviceClaimUpdate,
    /// Of a claim on devices.
    DeviceClaimDelete,
    /// The pod that waits has got its claims on devices.
    OwnDeviceClaims,
    /// Of a class of devices.
    DeviceClassAdd,
    /// Of a class of devices.
    DeviceClassUpdate,
    /// Of what a driver says of its devices.
    DeviceSliceAdd,
    /// Of what a driver, or a rule, says of devices.
    DeviceSliceUpdate,
}

impl Aspect {
    /// The rules whose rejections it may undo.
    pub(super) fn concerns(self) -> Plugins {
        use Plugin::*;
        let plugins: &[Plugin] = match self {
            Self::NodeAdd => &[
                NodeName,
                NodeUnschedulable,
                TaintToleration,
                NodeAffinity,
                NodePorts,
                NodeResourcesFit,
                VolumeRestrictions,
                VolumeBinding,
                VolumeZone,
                PodTopologySpread,
                InterPodAffinity,
                DynamicResources,
                NodeDeclaredFeatures,
            ],
            Self::NodeDelete => &[PodTopologySpread],
            Self::NodeLabels => &[
                NodeAffinity,
                VolumeBinding,
                VolumeZone,
                PodTopologySpread,
                InterPodAffinity,
                DynamicResources,
            ],
            Self::NodeTaints | Self::OwnTolerations => {
                &[NodeUnschedulable, TaintToleration, PodTopologySpread]
            }
            Self::NodeAllocatable | Self::DeviceClassAdd | Self::DeviceClassUpdate => {
                &[NodeResourcesFit, DynamicResources]
            }
            Self::PodScaleDown | Self::OwnScaleDown => &[NodeResourcesFit],
            Self::PodAdd | Self::PodLabels | Self::OwnLabels => {
                &[PodTopologySpread, InterPodAffinity]
            }
            Self::PodDelete => &[
                NodePorts,
                NodeResourcesFit,
                VolumeRestrictions,
                NodeVolumeLimits,
                PodTopologySpread,
                InterPodAffinity,
            ],
            Self::ClaimAdd => &[
                VolumeRestrictions,
                NodeVolumeLimits,
                VolumeBinding,
                VolumeZone,
            ],
            Self::ClaimUpdate | Self::VolumeAdd | Self::VolumeUpdate | Self::ClassAdd => {
                &[VolumeBinding, VolumeZone]
            }
            Self::CsiNodeAdd | Self::CsiNodeUpdate => &[NodeVolumeLimits, VolumeBinding],
            Self::ClassUpdate
            | Self::CsiDriverUpdate
            | Self::CapacityAdd
            | Self::CapacityUpdate => &[VolumeBinding],
            Self::NodeFeatures => &[NodeDeclaredFeatures],
            Self::AttachmentDelete => &[NodeVolumeLimits],
            Self::DeviceClaimAdd
            | Self::DeviceClaimUpdate
            | Self::DeviceClaimDelete
            | Self::OwnDeviceClaims
            | Self::DeviceSliceAdd
            | Self::DeviceSliceUpdate => &[DynamicResources],
        };
        plugins.iter().copied().collect()
    }

    /// Its name in metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::NodeAdd => "NodeAdd",
            Self::NodeDelete => "NodeDelete",
            Self::NodeLabels => "NodeUpdateNodeLabel",
            Self::NodeTaints => "NodeUpdateNodeTaint",
            Self::NodeAllocatable => "NodeUpdateNodeAllocatable",
            Self::NodeFeatures => "NodeUpdateNodeDeclaredFeature",
            Self::PodAdd => "AssignedPodAdd",
            Self::PodDelete => "AssignedPodDelete",
            Self::PodLabels => "AssignedPodUpdatePodLabel",
            Self::PodScaleDown => "AssignedPodUpdatePodScaleDown",
            Self::OwnLabels => "TargetPodUpdatePodLabel",
            Self::OwnScaleDown => "TargetPodUpdatePodScaleDown",
            Self::OwnTolerations => "TargetPodUpdatePodToleration",
            Self::ClaimAdd => "PersistentVolumeClaimAdd",
            Self::ClaimUpdate => "PersistentVolumeClaimUpdate",
            Self::VolumeAdd => "PersistentVolumeAdd",
            Self::VolumeUpdate => "PersistentVolumeUpdate",
            Self::ClassAdd => "storage.k8s.io/StorageClassAdd",
            Self::ClassUpdate => "storage.k8s.io/StorageClassUpdate",
            Self::CsiNodeAdd => "storage.k8s.io/CSINodeAdd",
            Self::CsiNodeUpdate => "storage.k8s.io/CSINodeUpdate",
            Self::CsiDriverUpdate => "storage.k8s.io/CSIDriverUpdate",
            Self::CapacityAdd => "storage.k8s.io/CSIStorageCapacityAdd",
            Self::CapacityUpdate => "storage.k8s.io/CSIStorageCapacityUpdate",
            Self::AttachmentDelete => "storage.k8s.io/VolumeAttachmentDelete",
            Self::DeviceClaimAdd => "resource.k8s.io/ResourceClaimAdd",
            Self::DeviceClaimUpdate => "resource.k8s.io/ResourceClaimUpdate",
            Self::DeviceClaimDelete => "resource.k8s.io/ResourceClaimDelete",
            Self::OwnDeviceClaims => "TargetPodUpdatePodGeneratedResourceClaim",
            Self::DeviceClassAdd => "resource.k8s.io/DeviceClassAdd",
            Self::DeviceClassUpdate => "resource.k8s.io/DeviceClassUpdate",
            Self::DeviceSliceAdd => "resource.k8s.io/ResourceSliceAdd",
            Self::DeviceSliceUpdate => "resource.k8s.io/ResourceSliceUpdate",
        }
    }

    /// What a change of anything but a pod is about.
    pub(super) fn of(change: &Change) -> Vec<Self> {
        let aspects = |add: Option<Self>, update: Option<Self>, delete: Option<Self>| {
            let aspect = match (&change.before, &change.after) {
                (None, _) => add,
                (Some(_), Some(_)) => update,
                (Some(_), None) => delete,
            };
            aspect.into_iter().collect()
        };
        let both = |add, update| aspects(Some(add), Some(update), None);
        match (change.kind, &change.before, &change.after) {
            (kind::NODES, Some(before), Some(after)) => Self::of_node(before, after),
            (kind::NODES, ..) => aspects(Some(Self::NodeAdd), None, Some(Self::NodeDelete)),
            (kind::CLAIMS, ..) => both(Self::ClaimAdd, Self::ClaimUpdate),
            (kind::VOLUMES, ..) => both(Self::VolumeAdd, Self::VolumeUpdate),
            (kind::STORAGE_CLASSES, ..) => both(Self::ClassAdd, Self::ClassUpdate),
            (kind::CSI_NODES, ..) => both(Self::CsiNodeAdd, Self::CsiNodeUpdate),
            (kind::CSI_DRIVERS, ..) => aspects(None, Some(Self::CsiDriverUpdate), None),
            (kind::CSI_CAPACITIES, ..) => both(Self::CapacityAdd, Self::CapacityUpdate),
            (kind::VOLUME_ATTACHMENTS, ..) => aspects(None, None, Some(Self::AttachmentDelete)),
            (kind::DEVICE_CLAIMS, ..) => aspects(
                Some(Self::DeviceClaimAdd),
                Some(Self::DeviceClaimUpdate),
                Some(Self::DeviceClaimDelete),
            ),
            (kind::DEVICE_CLASSES, ..) => both(Self::DeviceClassAdd, Self::DeviceClassUpdate),
            (kind::DEVICE_SLICES, ..) => both(Self::DeviceSliceAdd, Self::DeviceSliceUpdate),
            // What it says is as if the slices of the devices said so.
            (kind::DEVICE_TAINT_RULES, ..) => vec![Self::DeviceSliceUpdate],
            _ => Vec::new(),
        }
    }

    fn of_node(before: &Value, after: &Value) -> Vec<Self> {
        let opens = before["spec"]["unschedulable"] == true && !is_cordoned(after);
        let differs = |part: &str, field: &str| before[part][field] != after[part][field];
        [
            (opens || differs("spec", "taints"), Self::NodeTaints),
            (differs("status", "allocatable"), Self::NodeAllocatable),
            (differs("metadata", "labels"), Self::NodeLabels),
            (differs("status", "declaredFeatures"), Self::NodeFeatures),
        ]
        .into_iter()
        .filter_map(|(is_so, aspect)| is_so.then_some(aspect))
        .collect()
    }

    /// What the change of a pod that has a node is about.
    pub(super) fn of_assigned(before: &PodInfo, after: &PodInfo) -> Vec<Self> {
        let mut aspects = Vec::new();
        if before.labels != after.labels {
            aspects.push(Self::PodLabels);
        }
        if asks_for_less(&before.requests.held, &after.requests.held, |_| true) {
            aspects.push(Self::PodScaleDown);
        }
        aspects
    }

    /// What the change of a pod that waits is about.
    pub(super) fn of_waiting(before: &PodInfo, after: &PodInfo) -> Vec<Self> {
        let mut aspects = Vec::new();
        if before.labels != after.labels {
            aspects.push(Self::OwnLabels);
        }
        if asks_for_less(&before.requests.asked, &after.requests.asked, |_| true) {
            aspects.push(Self::OwnScaleDown);
        }
        if before.tolerations != after.tolerations {
            aspects.push(Self::OwnTolerations);
        }
        if before.device_claims != after.device_claims {
            aspects.push(Self::OwnDeviceClaims);
        }
        aspects
    }
}

/// A change as rules see it. Of a pod there is what it says; of all else the object.
pub(super) struct Happened<'a> {
    /// What it is about.
    pub(super) aspect: Aspect,
    /// The object as it was.
    pub(super) before: Option<&'a Value>,
    /// The object as it is.
    pub(super) after: Option<&'a Value>,
    /// The pod as it was.
    pub(super) pod_before: Option<&'a PodInfo>,
    /// The pod as it is.
    pub(super) pod_after: Option<&'a PodInfo>,
}

impl Happened<'_> {
    /// Whether it may undo the rejection of `pod` by a rule that it concerns.
    pub(super) fn helps(&self, plugin: Plugin, pod: &PodInfo, snapshot: &Snapshot) -> bool {
        use Aspect::*;
        match (plugin, self.aspect) {
            (Plugin::NodeUnschedulable, NodeAdd | NodeTaints) => {
                self.newly(|node| !is_cordoned(node))
            }
            (Plugin::NodeUnschedulable, OwnTolerations) => {
                is_tolerated(&Taint::unschedulable(), &pod.tolerations)
            }
            (Plugin::TaintToleration, NodeAdd | NodeTaints) => {
                self.newly(|node| is_open_to(node, pod))
            }
            (Plugin::NodeAffinity, NodeAdd | NodeLabels) => {
                self.newly(|node| pod.required_node.matches(node))
            }
            (Plugin::NodeResourcesFit, NodeAdd | NodeAllocatable) => {
                self.has_room_for(pod, &snapshot.devices)
            }
            (Plugin::NodeResourcesFit, DeviceClassAdd | DeviceClassUpdate) => {
                devices::stands_for_resource_of(self.before, self.after, pod)
            }
            (Plugin::NodeResourcesFit, PodScaleDown) => self.leaves_room_for(pod),
            (Plugin::NodePorts, PodDelete) => self.pod_before.is_none_or(|gone| {
                let taken = |port| gone.host_ports.iter().any(|own| own.conflicts(port));
                pod.host_ports.iter().any(taken)
            }),
            (Plugin::NodeVolumeLimits, PodDelete) => self
                .pod_before
                .is_none_or(|gone| claims(gone).next().is_some()),
            (Plugin::NodeVolumeLimits, CsiNodeUpdate) => self.takes_more_volumes(),
            (Plugin::NodeVolumeLimits, AttachmentDelete) => claims(pod).next().is_some(),
            (Plugin::VolumeRestrictions, PodDelete) => {
                self.pod_before.is_none_or(|gone| shares_volumes(gone, pod))
            }
            (
                Plugin::VolumeRestrictions
                | Plugin::NodeVolumeLimits
                | Plugin::VolumeBinding
                | Plugin::VolumeZone,
                ClaimAdd | ClaimUpdate,
            ) => self.after.is_none_or(|claim| {
                object::namespace(claim) == pod.namespace
                    && claims(pod).any(|own| own == object::name(claim))
            }),
            (Plugin::VolumeBinding, ClassUpdate) => self.differs(|own| &own["allowedTopologies"]),
            (Plugin::VolumeBinding, CsiNodeUpdate) => self.differs(|own| {
                &own["metadata"]["annotations"]["storage.alpha.kubernetes.io/migrated-plugins"]
            }),
            (Plugin::VolumeBinding, CsiDriverUpdate) => {
                let counts = |own: Option<&Value>| {
                    own.is_some_and(|driver| driver["spec"]["storageCapacity"] == true)
                };
                counts(self.before) && !counts(self.after)
            }
            (Plugin::VolumeBinding, CapacityUpdate) => {
                let limits = [self.before, self.after].map(|own| own.and_then(volume_limit));
                limits[1].is_some() && limits[1] > limits[0]
            }
            (Plugin::VolumeZone, ClassAdd) => self
                .after
                .is_none_or(|class| class["volumeBindingMode"] == "WaitForFirstConsumer"),
            (Plugin::VolumeZone, VolumeUpdate) => self.differs(|own| &own["metadata"]["labels"]),
            (Plugin::PodTopologySpread, _) => self.spreads(pod),
            (Plugin::InterPodAffinity, PodAdd | PodDelete | PodLabels) => {
                self.moves_neighbours(pod, |name| snapshot.namespace_labels(name))
            }
            (Plugin::InterPodAffinity, NodeAdd | NodeLabels) => self.moves_domains(pod),
            (Plugin::DynamicResources, DeviceClaimAdd | DeviceClaimUpdate | DeviceClaimDelete) => {
                devices::frees_devices(self.before, self.after)
                    || devices::changes_claim_of(self.before, self.after, pod)
            }
            _ => true,
        }
    }

    /// Whether something is so of a node that was not so before, or the node was not there.
    fn newly(&self, is_so: impl Fn(&Value) -> bool) -> bool {
        self.after.is_none_or(&is_so) && !self.before.is_some_and(&is_so)
    }

    fn differs(&self, field: impl Fn(&Value) -> &Value) -> bool {
        self.before.map(&field) != self.after.map(&field)
    }

    /// Whether the node, were it empty, takes the pod, and has more of what it asks for.
    fn has_room_for(&self, pod: &PodInfo, devices: &Inventory) -> bool {
        let Some(after) = self.after else {
            return true;
        };
        let room = |node: &Value| Resources::of(&node["status"]["allocatable"]);
        let places = |node: &Value| {
            let pods = node["status"]["allocatable"]["pods"].as_str();
            pods.and_then(|text| Quantity::parse(text).ok())
                .map_or(0, |own| own.units_up())
        };
        let now = room(after);
        let asked = &pod.requests.asked;
        let fits = names(asked).all(|name| {
            asked.amount(name) <= now.amount(name) || is_given_as_devices(name, &now, devices)
        });
        if !fits || places(after) == 0 {
            return false;
        }
        self.before.is_none_or(|before| {
            let was = room(before);
            let has_more = |name| {
                asked.amount(name) > 0
                    && (now.amount(name) > was.amount(name)
                        || is_given_as_devices(name, &now, devices))
            };
            places(after) > places(before) || names(asked).any(has_more)
        })
    }

    fn leaves_room_for(&self, pod: &PodInfo) -> bool {
        let (Some(before), Some(after)) = (self.pod_before, self.pod_after) else {
            return true;
        };
        let asked = &pod.requests.asked;
        let matters = |name: &str| asked.amount(name) > 0;
        asks_for_less(&before.requests.held, &after.requests.held, matters)
    }

    fn takes_more_volumes(&self) -> bool {
        let limits = |own: Option<&Value>| -> Vec<(String, i64)> {
            let drivers = own.map(|node| object::items(&node["spec"]["drivers"]));
            let drivers = drivers.into_iter().flatten();
            drivers
                .map(|driver| {
                    let name = driver["name"].as_str().unwrap_or_default();
                    let limit = driver["allocatable"]["count"].as_i64().unwrap_or(0);
                    (name.to_owned(), limit)
                })
                .collect()
        };
        let before = limits(self.before);
        limits(self.after).into_iter().any(|(name, limit)| {
            let was = before.iter().find(|(own, _)| *own == name);
            limit > was.map_or(0, |(_, limit)| *limit)
        })
    }

    /// Whether domains, or the pods that are counted in them, are others for the pod's
    /// spread constraints.
    fn spreads(&self, pod: &PodInfo) -> bool {
        let constraints = &pod.spread;
        if constraints.is_empty() {
            // The profile's turned it away.
            return true;
        }
        let counts = |own: &PodInfo| {
            let selected = |constraint: &SpreadConstraint| {
                affinity_term::selects(constraint.selector.as_ref(), &own.labels)
            };
            constraints.iter().map(selected).collect::<Vec<_>>()
        };
        let domains = |node: &Value| -> Option<Vec<String>> {
            let keys = constraints.iter().map(|own| own.topology_key.as_str());
            keys.map(|key| object::label(node, key).map(str::to_owned))
                .collect()
        };
        match self.aspect {
            Aspect::OwnTolerations => constraints.iter().any(|own| own.honors_taints),
            Aspect::PodAdd | Aspect::PodDelete => {
                let other = self.pod_after.or(self.pod_before);
                other
                    .is_none_or(|own| own.namespace == pod.namespace && counts(own).contains(&true))
            }
            Aspect::PodLabels | Aspect::OwnLabels => {
                let versions = [self.pod_before, self.pod_after];
                let elsewhere = |own: &PodInfo| own.namespace != pod.namespace;
                !versions.iter().flatten().any(|own| elsewhere(own))
                    && self.pod_before.map(counts) != self.pod_after.map(counts)
            }
            _ => {
                let before = self.before.and_then(domains);
                let after = self.after.and_then(domains);
                before != after || (after.is_some() && self.differs(|node| &node["spec"]["taints"]))
            }
        }
    }

    /// Whether a pod came that `pod` wants near, or went that it wants far, or that wanted
    /// it far.
    fn moves_neighbours<'n>(&self, pod: &PodInfo, namespace: impl Fn(&str) -> &'n Labels) -> bool {
        let own = &pod.affinities;
        let means = |term: &AffinityTerm, other: &PodInfo| {
            term.matches(&other.namespace, namespace(&other.namespace), &other.labels)
        };
        let wanted = |other: &PodInfo| own.required.iter().all(|term| means(term, other));
        let shunned = |other: &PodInfo| own.required_anti.iter().any(|term| means(term, other));
        match (self.pod_before, self.pod_after) {
            (Some(before), Some(after)) => {
                (!wanted(before) && wanted(after)) || (shunned(before) && !shunned(after))
            }
            (None, Some(after)) => wanted(after),
            (Some(before), None) => {
                let mut theirs = before.affinities.required_anti.iter();
                let shuns = theirs.any(|term| means(term, pod));
                shunned(before) || shuns
            }
            (None, None) => true,
        }
    }

    /// Whether a node is in another domain for what the pod wants near or far.
    fn moves_domains(&self, pod: &PodInfo) -> bool {
        let own = &pod.affinities;
        let domain = |node: Option<&Value>, term: &AffinityTerm| {
            let label = node.and_then(|own| object::label(own, &term.topology_key));
            label.map(str::to_owned)
        };
        let domains = |term: &AffinityTerm| (domain(self.before, term), domain(self.after, term));
        let joins = |term: &AffinityTerm| {
            let (before, after) = domains(term);
            after.is_some() && before != after
        };
        let leaves = |term: &AffinityTerm| {
            let (before, after) = domains(term);
            self.before.is_none() || (before.is_some() && before != after)
        };
        own.required.iter().any(joins) || own.required_anti.iter().any(leaves)
    }
}

fn is_cordoned(node: &Value) -> bool {
    node["spec"]["unschedulable"] == true
}

fn is_open_to(node: &Value, pod: &PodInfo) -> bool {
    let taints = Taint::all(node);
    let mut keeping = taints.iter().filter(|own| own.effect.keeps_off());
    keeping.all(|taint| is_tolerated(taint, &pod.tolerations))
}

fn names(amounts: &Resources) -> impl Iterator<Item = &str> {
    let scalars = amounts.scalars.keys().map(String::as_str);
    ["cpu", "memory", "ephemeral-storage"]
        .into_iter()
        .chain(scalars)
}

/// Whether there is less of something that matters.
fn asks_for_less(before: &Resources, after: &Resources, matters: impl Fn(&str) -> bool) -> bool {
    names(before).any(|name| matters(name) && before.amount(name) > after.amount(name))
}

/// The claims that a pod's volumes name.
pub(super) fn claims(pod: &PodInfo) -> impl Iterator<Item = String> {
    let volumes = object::items(&pod.object["spec"]["volumes"]);
    volumes.filter_map(|volume| {
        if let Some(name) = volume["persistentVolumeClaim"]["claimName"].as_str() {
            return Some(name.to_owned());
        }
        let name = volume["name"].as_str()?;
        (!volume["ephemeral"].is_null()).then(|| format!("{}-{name}", pod.name))
    })
}

/// Whether two pods may not have a node together for their volumes.
fn shares_volumes(gone: &PodInfo, pod: &PodInfo) -> bool {
    const EXCLUSIVE: [&str; 4] = ["gcePersistentDisk", "awsElasticBlockStore", "iscsi", "rbd"];
    let is_exclusive = |own: &PodInfo| {
        let mut volumes = object::items(&own.object["spec"]["volumes"]);
        volumes.any(|volume| EXCLUSIVE.iter().any(|kind| !volume[*kind].is_null()))
    };
    let shares_claim = || claims(gone).any(|own| claims(pod).any(|other| own == other));
    gone.namespace == pod.namespace && (shares_claim() || (is_exclusive(gone) && is_exclusive(pod)))
}

/// The largest volume that there is room for.
fn volume_limit(capacity: &Value) -> Option<i128> {
    let largest = capacity["maximumVolumeSize"].as_str();
    let text = largest.or_else(|| capacity["capacity"].as_str())?;
    Some(Quantity::parse(text).ok()?.nanounits())
}
