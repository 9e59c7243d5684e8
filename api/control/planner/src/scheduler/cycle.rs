//! One pod against the snapshot: what is worked out once, then each node.
//!
//! Invariant: it holds nothing of the snapshot but counts, so that what would be if pods
//! went or came can be tried with a clone of it and of a node.

use std::collections::BTreeSet;

use super::devices::Devices;
use super::disks::{self, Exclusive};
use super::fit;
use super::inter_pod::InterPod;
use super::label_index::{NodeSet, Slot};
use super::node::NodeInfo;
use super::plugin::{Plugin, Plugins};
use super::pod::PodInfo;
use super::profile::Profile;
use super::rejection::Rejection;
use super::snapshot::Snapshot;
use super::spread::Spread;
use super::storage::{Storage, Zones};
use super::taint::{self, Taint};

/// A pod on its way to a node.
#[derive(Clone)]
pub struct Cycle<'a> {
    pub(super) pod: &'a PodInfo,
    pub(super) profile: &'a Profile,
    /// The filters that have something to say of this pod.
    active: Vec<Plugin>,
    /// Which nodes its selector and affinity allow.
    required: Option<NodeSet>,
    /// Which nodes the profile allows.
    enforced: Option<NodeSet>,
    /// By number: taints that keep it off.
    untolerated: Vec<bool>,
    tolerates_cordons: bool,
    exclusive: Option<Exclusive>,
    pub(super) storage: Option<Storage>,
    zones: Option<Zones>,
    spread: Option<Spread>,
    inter_pod: Option<InterPod>,
    pub(super) devices: Option<Devices>,
    /// The only nodes that come into question, and who says so.
    pub(super) named: Option<Named>,
}

/// The only nodes that come into question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) nodes: BTreeSet<String>,
    pub(super) by: Plugins,
}

impl<'a> Cycle<'a> {
    /// Works out what does not hang on the node.
    ///
    /// # Errors
    /// Why no node needs to be looked at.
    pub fn new(
        snapshot: &Snapshot,
        pod: &'a PodInfo,
        profile: &'a Profile,
    ) -> Result<Self, Rejection> {
        let has = |plugin| profile.filters.contains(plugin);
        let has_required = has(Plugin::NodeAffinity) && !pod.required_node.is_empty();
        let enforced = profile.added_required.as_ref();
        let enforced = enforced.filter(|_| has(Plugin::NodeAffinity));
        let mut cycle = Self {
            pod,
            profile,
            active: Vec::new(),
            required: has_required.then(|| snapshot.matching(&pod.required_node)),
            enforced: enforced.map(|own| snapshot.matching_selector(own)),
            untolerated: snapshot.untolerated(&pod.tolerations),
            tolerates_cordons: taint::is_tolerated(&Taint::unschedulable(), &pod.tolerations),
            exclusive: None,
            storage: None,
            zones: None,
            spread: None,
            inter_pod: None,
            devices: None,
            named: None,
        };
        for plugin in profile.filters.iter() {
            if cycle.prepare(plugin, snapshot)? {
                cycle.active.push(plugin);
            }
        }
        Ok(cycle)
    }

    /// Whether a plugin has something to say of this pod.
    fn prepare(&mut self, plugin: Plugin, snapshot: &Snapshot) -> Result<bool, Rejection> {
        let pod = self.pod;
        Ok(match plugin {
            Plugin::NodeName => {
                if !pod.node_name.is_empty() {
                    self.narrow(plugin, [pod.node_name.clone()].into())?;
                }
                !pod.node_name.is_empty()
            }
            Plugin::NodeUnschedulable => !self.tolerates_cordons,
            Plugin::TaintToleration => self.untolerated.contains(&true),
            Plugin::NodeAffinity => {
                if let Some(names) = &pod.required_node.names {
                    if names.is_empty() {
                        return Err(Rejection::final_one(plugin, "pod affinity terms conflict"));
                    }
                    self.narrow(plugin, names.iter().cloned().collect())?;
                }
                self.required.is_some() || self.enforced.is_some()
            }
            Plugin::NodePorts => !pod.host_ports.is_empty(),
            Plugin::VolumeRestrictions => {
                self.exclusive = Exclusive::new(snapshot, pod)?;
                self.exclusive.is_some()
            }
            Plugin::NodeVolumeLimits => !pod.claims.is_empty(),
            Plugin::VolumeBinding => {
                self.storage = Storage::new(snapshot, pod)?;
                self.storage.is_some()
            }
            Plugin::VolumeZone => {
                self.zones = Zones::new(snapshot, pod)?;
                self.zones.is_some()
            }
            Plugin::NodeDeclaredFeatures => !pod.features.is_empty(),
            Plugin::PodTopologySpread => {
                self.spread = Spread::new(snapshot, pod, self.profile);
                self.spread.is_some()
            }
            Plugin::InterPodAffinity => {
                self.inter_pod = InterPod::new(snapshot, pod);
                self.inter_pod.is_some()
            }
            Plugin::DynamicResources => {
                self.devices = Devices::new(snapshot, pod)?;
                self.devices.is_some()
            }
            _ => true,
        })
    }

    /// Only these nodes come into question.
    fn narrow(&mut self, plugin: Plugin, nodes: BTreeSet<String>) -> Result<(), Rejection> {
        let (nodes, mut by) = match self.named.take() {
            None => (nodes, Plugins::NONE),
            Some(own) => (&own.nodes & &nodes, own.by),
        };
        by.insert(plugin);
        if nodes.is_empty() {
            let names = names_of(by);
            let what = match by.iter().count() {
                1 => format!("node(s) didn't satisfy plugin {names}"),
                _ => format!("node(s) didn't satisfy plugin(s) [{names}] simultaneously"),
            };
            return Err(Rejection::final_one(plugin, what));
        }
        self.named = Some(Named { nodes, by });
        Ok(())
    }

    /// Why a node will not do; `None`: it will.
    pub fn filter(&self, snapshot: &Snapshot, node: &NodeInfo) -> Option<Rejection> {
        let mut active = self.active.iter();
        active.find_map(|plugin| self.ask(*plugin, snapshot, node))
    }

    /// The same on a node that is being made free for others: it must do with those of
    /// them that go first, and without.
    pub fn filter_beside_nominated(
        &self,
        snapshot: &Snapshot,
        node: &NodeInfo,
    ) -> Option<Rejection> {
        if snapshot.has_nominations() {
            let others = snapshot.nominated_to(&node.name);
            let mut others = others
                .filter(|own| own.priority >= self.pod.priority && own.uid != self.pod.uid)
                .peekable();
            if others.peek().is_some() {
                let (mut with, mut cycle) = (node.clone(), self.clone());
                for other in others {
                    cycle.add_pod(snapshot, other, node.slot);
                    with.add_pod(other.clone());
                }
                let rejection = cycle.filter(snapshot, &with);
                if rejection.is_some() {
                    return rejection;
                }
            }
        }
        self.filter(snapshot, node)
    }

    /// What would be if a pod came to a node.
    pub fn add_pod(&mut self, snapshot: &Snapshot, pod: &PodInfo, slot: Slot) {
        self.change(snapshot, pod, slot, 1);
    }

    /// What would be if a pod went from a node.
    pub fn remove_pod(&mut self, snapshot: &Snapshot, pod: &PodInfo, slot: Slot) {
        self.change(snapshot, pod, slot, -1);
    }

    fn change(&mut self, snapshot: &Snapshot, pod: &PodInfo, slot: Slot, more: i64) {
        if let Some(exclusive) = &mut self.exclusive {
            exclusive.change(self.pod, pod, more);
        }
        if let Some(spread) = &mut self.spread {
            spread.change(snapshot, self.pod, pod, slot, more);
        }
        if let Some(inter_pod) = &mut self.inter_pod {
            inter_pod.change(snapshot, self.pod, pod, slot, more);
        }
    }

    fn ask(&self, plugin: Plugin, snapshot: &Snapshot, node: &NodeInfo) -> Option<Rejection> {
        let no = |is_rejected: bool, reason: &'static str| {
            is_rejected.then(|| Rejection::final_one(plugin, reason))
        };
        let is_outside =
            |set: &Option<NodeSet>| set.as_ref().is_some_and(|own| !own.contains(node.slot));
        match plugin {
            Plugin::NodeName => no(
                self.pod.node_name != node.name,
                "node(s) didn't match the requested node name",
            ),
            Plugin::NodeUnschedulable => no(node.is_unschedulable, "node(s) were unschedulable"),
            Plugin::TaintToleration => no(
                node.taints
                    .iter()
                    .any(|own| self.untolerated[*own as usize]),
                "node(s) had untolerated taint(s)",
            ),
            Plugin::NodeAffinity => no(
                is_outside(&self.enforced),
                "node(s) didn't match scheduler-enforced node affinity",
            )
            .or_else(|| {
                no(
                    is_outside(&self.required),
                    "node(s) didn't match Pod's node affinity/selector",
                )
            }),
            Plugin::NodePorts => (!node.has_free(&self.pod.host_ports)).then(|| {
                let reason = "node(s) didn't have free ports for the requested pod ports";
                Rejection::resolvable(plugin, reason)
            }),
            Plugin::NodeResourcesFit => {
                fit::filter(self.pod, self.profile, node, &snapshot.devices)
            }
            Plugin::VolumeRestrictions => self.exclusive.as_ref()?.filter(self.pod, node),
            Plugin::NodeVolumeLimits => disks::limits(snapshot, self.pod, node),
            Plugin::VolumeBinding => self.storage.as_ref()?.filter(snapshot, node.slot),
            Plugin::VolumeZone => self.zones.as_ref()?.filter(snapshot, node.slot),
            Plugin::NodeDeclaredFeatures => no(
                !node.declares(&self.pod.features),
                "node(s) didn't match Pod's required features",
            ),
            Plugin::PodTopologySpread => self.spread.as_ref()?.filter(snapshot, node.slot),
            Plugin::InterPodAffinity => self.inter_pod.as_ref()?.filter(snapshot, node.slot),
            Plugin::DynamicResources => self.devices.as_ref()?.filter(snapshot, node),
            _ => None,
        }
    }
}

pub(super) fn names_of(plugins: Plugins) -> String {
    let mut names: Vec<&str> = plugins.iter().map(Plugin::name).collect();
    names.sort_unstable();
    names.join(" ")
}
