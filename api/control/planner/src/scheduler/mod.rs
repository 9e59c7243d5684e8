//! The scheduler: which node a pod goes to.
//!
//! [`Snapshot`] is the cluster, kept up by deltas; [`schedule`] looks for a node as
//! kube-scheduler's default plugins would, by a [`Profile`]; [`Cycle`] is one pod against
//! the snapshot, for whoever wants to try what would be if pods went. Decides, and does
//! nothing: queue, preemption and driver stand around it.

mod affinity_term;
mod claims;
mod classes;
mod cycle;
mod decide;
mod devices;
mod disks;
mod explained;
mod fit;
mod hints;
mod inter_pod;
mod interned;
mod label_index;
mod node;
mod node_selector;
pub mod plugin;
mod pod;
pub mod preempt;
mod profile;
pub mod queue;
mod rejection;
mod resources;
mod score;
mod search;
mod snapshot;
mod spread;
mod storage;
mod taint;
pub mod told;
mod trial;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use affinity_term::{AffinityTerm, Labels, PodAffinities, SpreadConstraint};
pub use claims::BIND_TIMEOUT;
pub use cycle::Cycle;
pub use decide::{Decision, Failure, Placement, Scheduler, Wait};
pub use devices::{BINDING_TIMEOUT, ClaimBinding, ExtendedBinding, PodDevices, freed, released};
pub use label_index::{NodeSet, Slot};
pub use node::NodeInfo;
pub use node_selector::{Labelled, NodeSelector, PreferredNode, RequiredNode};
pub use plugin::{Plugin, Plugins};
pub use pod::{DEFAULT_SCHEDULER, HostPort, PodClaim, PodDeviceClaim, PodInfo};
pub use profile::{FitStrategy, Profile, Shape, Weighted};
pub use rejection::{Rejection, Unschedulable};
pub use resources::{Requests, Resources};
pub use score::PluginScores;
pub use search::{Chosen, Explanation, Verdict, explain, schedule};
pub use snapshot::{FOLLOWED, Snapshot};
pub use storage::PodVolumes;
pub use taint::{Effect, Taint, Toleration, is_tolerated};
