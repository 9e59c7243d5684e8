//! Volumes of a pod's claims: where those that are bound can be reached, and what can be
//! bound or made where.
//!
//! Source: plugins `VolumeBinding` and `VolumeZone`. Volumes of plugins from before CSI are
//! held to what their objects say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nautilus_machinery::quantity::Quantity;
use serde_json::Value;

use super::label_index::{NodeSet, Slot};
use super::node_selector::{NodeSelector, Requirement, Term, Test};
use super::plugin::Plugin;
use super::pod::PodInfo;
use super::profile::{Profile, on_shape};
use super::rejection::Rejection;
use super::snapshot::Snapshot;
use crate::kind;
use crate::object;
use crate::volumes;

const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// Zones of a volume that is in several, as its label lists them.
const ZONES_SEPARATOR: &str = "__";

/// What is to be written before a pod is bound, so that its volumes are there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodVolumes {
    /// Volumes, as seen, and the claims that get them.
    pub bindings: Vec<(Arc<Value>, Arc<Value>)>,
    /// Claims whose volumes are to be made for the node.
    pub provisions: Vec<Arc<Value>>,
}

impl PodVolumes {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty() && self.provisions.is_empty()
    }
}

/// A pod's claims against all nodes.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    bound: Vec<Bound>,
    /// The smallest first.
    unbound: Vec<Arc<Unbound>>,
}

#[derive(Debug, Clone)]
enum Bound {
    Missing,
    Anywhere,
    On(NodeSet),
}

impl Bound {
    fn of(snapshot: &Snapshot, volume: &Value) -> Self {
        match NodeSelector::read(&volume["spec"]["nodeAffinity"]["required"]) {
            None => Self::Anywhere,
            Some(selector) => Self::On(snapshot.matching_selector(&selector)),
        }
    }

    fn reaches(&self, slot: Slot) -> bool {
        match self {
            Self::Missing => false,
            Self::Anywhere => true,
            Self::On(nodes) => nodes.contains(slot),
        }
    }
}

#[derive(Debug)]
struct Unbound {
    claim: Arc<Value>,
    class: String,
    /// Bytes; `None`: it does not say.
    size: Option<i128>,
    selected_node: Option<String>,
    candidates: Vec<Candidate>,
    provision: Provision,
}

/// A volume that the claim can have.
#[derive(Debug)]
struct Candidate {
    volume: Arc<Value>,
    bytes: i128,
    /// It is kept for this claim.
    is_kept: bool,
    reach: Bound,
}

/// Where a volume for the claim can be made.
#[derive(Debug)]
enum Provision {
    Never,
    Made {
        topology: Option<NodeSet>,
        /// Where there is how much room, as far as the driver tells.
        room: Option<Vec<(NodeSet, i128)>>,
    },
}

/// What a node means for a pod's claims.
#[derive(Debug, Default)]
struct OnNode {
    volumes: PodVolumes,
    /// Asked for and there, in bytes, by class.
    bound: BTreeMap<String, (i128, i128)>,
    made: BTreeMap<String, (i128, i128)>,
}

impl Storage {
    /// `None`: the pod has no claims.
    ///
    /// # Errors
    /// Why no node will do.
    pub(super) fn new(snapshot: &Snapshot, pod: &PodInfo) -> Result<Option<Self>, Rejection> {
        let refuse = |what: String| Rejection::final_one(Plugin::VolumeBinding, what);
        if pod.claims.is_empty() {
            return Ok(None);
        }
        let mut claims = Vec::new();
        for own in &pod.claims {
            let name = &own.name;
            let Some(claim) = snapshot.get(kind::CLAIMS, &pod.namespace, name) else {
                return Err(refuse(match own.is_ephemeral {
                    true => format!(
                        "waiting for ephemeral volume controller to create the \
                         persistentvolumeclaim \"{name}\""
                    ),
                    false => not_found("persistentvolumeclaim", name),
                }));
            };
            let problem = if claim["status"]["phase"] == "Lost" {
                let volume = claim["spec"]["volumeName"].as_str().unwrap_or_default();
                format!(
                    "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \
                     \"{volume}\""
                )
            } else if object::is_deleted(claim) {
                format!("persistentvolumeclaim \"{name}\" is being deleted")
            } else if own.is_ephemeral && !object::is_controlled_by(claim, &pod.uid) {
                not_owner(pod, name)
            } else {
                claims.push(claim);
                continue;
            };
            return Err(refuse(problem));
        }
        let mut storage = Self {
            bound: Vec::new(),
            unbound: Vec::new(),
        };
        let mut is_immediate = false;
        for claim in claims {
            let volume = claim["spec"]["volumeName"].as_str().unwrap_or_default();
            let is_complete = object::annotation(claim, volumes::BIND_COMPLETED).is_some();
            let class = class_of(snapshot, claim);
            let waits = class.is_some_and(|own| own["volumeBindingMode"] == WAIT);
            match (volume.is_empty(), is_complete) {
                (false, true) => {
                    let volume = snapshot.get(kind::VOLUMES, "", volume);
                    let bound = volume.map(|own| Bound::of(snapshot, own));
                    storage.bound.push(bound.unwrap_or(Bound::Missing));
                }
                (true, _) if waits => {
                    let unbound = Unbound::new(snapshot, claim, class);
                    storage.unbound.push(Arc::new(unbound));
                }
                _ => is_immediate = true,
            }
        }
        if is_immediate {
            let what = "pod has unbound immediate PersistentVolumeClaims";
            return Err(refuse(what.to_owned()));
        }
        storage
            .unbound
            .sort_by_key(|own| own.size.unwrap_or_default());
        Ok(Some(storage))
    }

    /// Why a node will not do.
    pub(super) fn filter(&self, snapshot: &Snapshot, slot: Slot) -> Option<Rejection> {
        let mut reasons = Vec::new();
        let failing = self.bound.iter().find(|own| !own.reaches(slot));
        if matches!(failing, Some(Bound::On(_))) {
            reasons.push("node(s) didn't match PersistentVolume's node affinity".into());
        }
        match self.on_node(snapshot, slot) {
            Ok(_) => {}
            Err(reason) => reasons.push(reason.into()),
        }
        if matches!(failing, Some(Bound::Missing)) {
            let reason = "node(s) unavailable due to one or more pvc(s) bound to non-existent \
                          pv(s)";
            reasons.push(reason.into());
        }
        Rejection::of_all(Plugin::VolumeBinding, false, reasons)
    }

    /// What is to be written for a node that will do.
    pub(super) fn volumes(&self, snapshot: &Snapshot, slot: Slot) -> PodVolumes {
        let on_node = self.on_node(snapshot, slot);
        on_node.map(|own| own.volumes).unwrap_or_default()
    }

    fn on_node(&self, snapshot: &Snapshot, slot: Slot) -> Result<OnNode, &'static str> {
        const NONE: &str = "node(s) didn't find available persistent volumes to bind";
        let name = &snapshot.at(slot).name;
        let is_elsewhere = |own: &Arc<Unbound>| {
            let selected = own.selected_node.as_ref();
            selected.is_some_and(|node| node != name)
        };
        if self.unbound.iter().any(is_elsewhere) {
            return Err(NONE);
        }
        let mut on_node = OnNode::default();
        let mut taken: BTreeSet<&str> = BTreeSet::new();
        let (selected, open): (Vec<_>, Vec<_>) = self
            .unbound
            .iter()
            .partition(|own| own.selected_node.is_some());
        let mut to_make = selected;
        for own in open {
            let Some(candidate) = own.best(slot, &taken) else {
                to_make.push(own);
                continue;
            };
            taken.insert(object::name(&candidate.volume));
            let sums = on_node.bound.entry(own.class.clone()).or_default();
            sums.0 += own.size.unwrap_or_default();
            sums.1 += candidate.bytes;
            let binding = (candidate.volume.clone(), own.claim.clone());
            on_node.volumes.bindings.push(binding);
        }
        for own in to_make {
            let Provision::Made { topology, room } = &own.provision else {
                return Err(NONE);
            };
            if topology.as_ref().is_some_and(|nodes| !nodes.contains(slot)) {
                return Err(NONE);
            }
            if let Some(room) = room {
                let found = room.iter().find(|(nodes, _)| nodes.contains(slot));
                let Some((_, bytes)) = found else {
                    return Err("node(s) did not have enough free storage");
                };
                let sums = on_node.made.entry(own.class.clone()).or_default();
                sums.0 += own.size.unwrap_or_default();
                sums.1 = *bytes;
            }
            on_node.volumes.provisions.push(own.claim.clone());
        }
        Ok(on_node)
    }

    /// How well the volumes that nodes would give fill what there is.
    pub(super) fn scores(
        &self,
        snapshot: &Snapshot,
        profile: &Profile,
        nodes: &[Slot],
    ) -> Vec<i64> {
        let score = |slot: &Slot| {
            let on_node = self.on_node(snapshot, *slot).unwrap_or_default();
            let sums = match on_node.volumes.bindings.is_empty() {
                false => on_node.bound,
                true => on_node.made,
            };
            let of_class = |(asked, there): &(i128, i128)| {
                let utilization = match *there == 0 || asked > there {
                    true => 100,
                    false => i64::try_from(asked * 100 / there).unwrap_or(100),
                };
                on_shape(&profile.storage_shape, utilization)
            };
            let classes = i64::try_from(sums.len()).unwrap_or(1).max(1);
            let sum: i64 = sums.values().map(of_class).sum();
            // Half away from zero, as `math.Round`; both are positive.
            (sum * 2 + classes) / (classes * 2)
        };
        nodes.iter().map(score).collect()
    }
}

const WAIT: &str = "WaitForFirstConsumer";

fn class_of<'a>(snapshot: &'a Snapshot, claim: &Value) -> Option<&'a Arc<Value>> {
    snapshot.get(kind::STORAGE_CLASSES, "", volumes::class(claim))
}

fn not_found(kind: &str, name: &str) -> String {
    format!("{kind} \"{name}\" not found")
}

/// A claim of another's ephemeral volume.
pub(super) fn not_owner(pod: &PodInfo, claim: &str) -> String {
    let (namespace, name) = (&pod.namespace, &pod.name);
    format!("PVC {namespace}/{claim} was not created for pod {namespace}/{name} (pod is not owner)")
}

/// Bytes, rounded up.
fn bytes(quantity: &Value) -> Option<i128> {
    Some(Quantity::parse(quantity.as_str()?).ok()?.units_up())
}

impl Unbound {
    fn new(snapshot: &Snapshot, claim: &Arc<Value>, class: Option<&Arc<Value>>) -> Self {
        let size = bytes(&claim["spec"]["resources"]["requests"]["storage"]);
        let volumes = snapshot.list(kind::VOLUMES, "");
        let candidates = volumes
            .filter(|volume| volumes::can_be_for(volume, claim))
            .filter_map(|volume| {
                let bytes = bytes(&volume["spec"]["capacity"]["storage"]).unwrap_or_default();
                (bytes >= size.unwrap_or_default()).then(|| Candidate {
                    volume: volume.clone(),
                    bytes,
                    is_kept: volumes::is_for(volume, claim),
                    reach: Bound::of(snapshot, volume),
                })
            });
        Self {
            class: volumes::class(claim).to_owned(),
            size,
            selected_node: object::annotation(claim, volumes::SELECTED_NODE).map(str::to_owned),
            candidates: candidates.collect(),
            provision: match class {
                Some(class) => Provision::new(snapshot, class, size),
                None => Provision::Never,
            },
            claim: claim.clone(),
        }
    }

    /// The volume that is kept for it, or else the smallest.
    fn best(&self, slot: Slot, taken: &BTreeSet<&str>) -> Option<&Candidate> {
        let open = self.candidates.iter();
        let mut open = open.filter(|own| !taken.contains(object::name(&own.volume)));
        if let Some(kept) = open.clone().find(|own| own.is_kept) {
            return Some(kept).filter(|own| own.reach.reaches(slot));
        }
        let mut best: Option<&Candidate> = None;
        for own in open.by_ref().filter(|own| own.reach.reaches(slot)) {
            if best.is_none_or(|best| own.bytes < best.bytes) {
                best = Some(own);
            }
        }
        best
    }
}

impl Provision {
    fn new(snapshot: &Snapshot, class: &Value, size: Option<i128>) -> Self {
        let provisioner = class["provisioner"].as_str().unwrap_or_default();
        if provisioner.is_empty() || provisioner == NO_PROVISIONER {
            return Self::Never;
        }
        let mut topology = None;
        for term in object::items(&class["allowedTopologies"]) {
            let nodes = topology.get_or_insert_with(|| NodeSet::none(snapshot.slots()));
            if let Some(term) = topology_term(term) {
                nodes.join(&snapshot.matching_term(&term));
            }
        }
        let driver = snapshot.get(kind::CSI_DRIVERS, "", provisioner);
        let tells = driver.is_some_and(|own| own["spec"]["storageCapacity"] == true);
        let size = size.filter(|_| tells);
        let room = size.map(|size| {
            let all = snapshot.all(kind::CSI_CAPACITIES);
            let of_class = all.filter(|own| own["storageClassName"] == object::name(class));
            of_class
                .filter_map(|own| {
                    let limit = bytes(&own["maximumVolumeSize"]);
                    let capacity = bytes(&own["capacity"]);
                    let enough = limit.or(capacity).is_some_and(|limit| limit >= size);
                    let nodes = snapshot.matching_term(&selector_term(&own["nodeTopology"])?);
                    enough.then_some((nodes, capacity.unwrap_or_default()))
                })
                .collect()
        });
        Self::Made { topology, room }
    }
}

/// `TopologySelectorTerm`; `None`: it selects nothing.
fn topology_term(term: &Value) -> Option<Term> {
    let expressions = object::items(&term["matchLabelExpressions"]);
    let labels: Vec<Requirement> = expressions
        .filter_map(|own| {
            let values = object::items(&own["values"]).filter_map(Value::as_str);
            Some(Requirement {
                key: own["key"].as_str()?.to_owned(),
                test: Test::In(values.map(str::to_owned).collect()),
            })
        })
        .collect();
    (!labels.is_empty()).then_some(Term {
        labels,
        names: Vec::new(),
    })
}

/// A selector of labels, as a condition on nodes; `None`: there is none.
fn selector_term(selector: &Value) -> Option<Term> {
    selector.as_object()?;
    let equal = selector["matchLabels"].as_object().into_iter().flatten();
    let mut labels: Vec<Requirement> = equal
        .filter_map(|(key, value)| {
            Some(Requirement {
                key: key.clone(),
                test: Test::In(vec![value.as_str()?.to_owned()]),
            })
        })
        .collect();
    for expression in object::items(&selector["matchExpressions"]) {
        labels.push(Requirement::read(expression)?);
    }
    Some(Term {
        labels,
        names: Vec::new(),
    })
}

/// The zones and regions of a pod's bound volumes.
#[derive(Debug, Clone)]
pub(super) struct Zones {
    /// A node must be in one of each.
    topologies: Vec<(&'static str, Vec<String>)>,
}

/// Labels of zones and regions, each of old with its new name.
const ZONE_LABELS: [(&str, &str); 4] = [
    (
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/zone",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/region",
    ),
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    (
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/region",
    ),
];

impl Zones {
    /// `None`: no volume says where it is.
    ///
    /// # Errors
    /// Why no node will do.
    pub(super) fn new(snapshot: &Snapshot, pod: &PodInfo) -> Result<Option<Self>, Rejection> {
        let refuse = |what: String| Err(Rejection::final_one(Plugin::VolumeZone, what));
        let mut topologies = Vec::new();
        for own in pod.claims.iter().filter(|own| !own.is_ephemeral) {
            let Some(claim) = snapshot.get(kind::CLAIMS, &pod.namespace, &own.name) else {
                return refuse(not_found("persistentvolumeclaim", &own.name));
            };
            let volume = claim["spec"]["volumeName"].as_str().unwrap_or_default();
            if volume.is_empty() {
                let class = volumes::class(claim);
                if class.is_empty() {
                    let what = "PersistentVolumeClaim had no pv name and storageClass name";
                    return refuse(what.to_owned());
                }
                match class_of(snapshot, claim) {
                    None => return refuse(not_found("storageclass.storage.k8s.io", class)),
                    Some(own) if own["volumeBindingMode"] == WAIT => continue,
                    Some(_) => return refuse("PersistentVolume had no name".to_owned()),
                }
            }
            let Some(volume) = snapshot.get(kind::VOLUMES, "", volume) else {
                return refuse(not_found("persistentvolume", volume));
            };
            for (label, _) in ZONE_LABELS {
                if let Some(zones) = object::label(volume, label) {
                    let zones = zones.split(ZONES_SEPARATOR).map(str::to_owned);
                    topologies.push((label, zones.collect()));
                }
            }
        }
        Ok((!topologies.is_empty()).then_some(Self { topologies }))
    }

    /// Why a node will not do.
    pub(super) fn filter(&self, snapshot: &Snapshot, slot: Slot) -> Option<Rejection> {
        let labels = &snapshot.at(slot).labels;
        let says = |label: &&str| labels.contains_key(*label);
        if !ZONE_LABELS.iter().any(|(label, _)| says(label)) {
            return None;
        }
        let is_in = |(label, zones): &(&str, Vec<String>)| {
            let of_late = ZONE_LABELS.iter().find(|(own, _)| own == label);
            let own = labels.get(*label);
            let own = own.or_else(|| labels.get(of_late?.1));
            own.is_some_and(|own| zones.contains(own))
        };
        (!self.topologies.iter().all(is_in)).then(|| {
            let reason = "node(s) had no available volume zone";
            Rejection::final_one(Plugin::VolumeZone, reason)
        })
    }
}
