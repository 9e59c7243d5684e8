//! What would be if pods left a node: [`Room`] of a snapshot and one pod.
//!
//! Invariant: the snapshot stays as it is; what is tried is a copy of one node and of what
//! was worked out of the pod.

use std::sync::Arc;

use super::cycle::Cycle;
use super::label_index::Slot;
use super::node::NodeInfo;
use super::pod::PodInfo;
use super::preempt::Room;
use super::profile::Profile;
use super::snapshot::Snapshot;

/// See the module.
pub(super) struct Trial<'a> {
    snapshot: &'a Snapshot,
    cycle: Cycle<'a>,
    /// The node that is tried now.
    node: Option<(NodeInfo, Cycle<'a>)>,
}

impl<'a> Trial<'a> {
    /// A trial for a pod; `None`: no node needs to be looked at for it.
    pub(super) fn new(
        snapshot: &'a Snapshot,
        pod: &'a PodInfo,
        profile: &'a Profile,
    ) -> Option<Self> {
        Some(Self {
            snapshot,
            cycle: Cycle::new(snapshot, pod, profile).ok()?,
            node: None,
        })
    }

    fn tried(&mut self, slot: Slot) -> &mut (NodeInfo, Cycle<'a>) {
        let (snapshot, cycle) = (self.snapshot, &self.cycle);
        let other = self.node.take().filter(|(node, _)| node.slot == slot);
        self.node
            .insert(other.unwrap_or_else(|| (snapshot.at(slot).clone(), cycle.clone())))
    }
}

impl Room for Trial<'_> {
    fn pods(&self, node: Slot) -> Vec<Arc<PodInfo>> {
        self.snapshot.at(node).pods.clone()
    }

    fn take(&mut self, slot: Slot, pod: &Arc<PodInfo>) {
        let snapshot = self.snapshot;
        let (node, cycle) = self.tried(slot);
        cycle.remove_pod(snapshot, pod, slot);
        node.remove_pod(&pod.uid);
    }

    fn put(&mut self, slot: Slot, pod: &Arc<PodInfo>) {
        let snapshot = self.snapshot;
        let (node, cycle) = self.tried(slot);
        cycle.add_pod(snapshot, pod, slot);
        node.add_pod(pod.clone());
    }

    fn fits(&mut self, slot: Slot) -> Result<(), Vec<String>> {
        let snapshot = self.snapshot;
        let (node, cycle) = self.tried(slot);
        match cycle.filter_beside_nominated(snapshot, node) {
            None => Ok(()),
            Some(rejection) => {
                let reasons = rejection.reasons.into_iter();
                Err(reasons.map(|own| own.into_owned()).collect())
            }
        }
    }
}
