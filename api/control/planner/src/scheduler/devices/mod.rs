//! Devices that pods claim (`resource.k8s.io/v1`): which of them there are where, which are
//! in use, and which a pod gets on a node: for its claims, or for resources that devices stand
//! for there.
//!
//! Source: kube-scheduler's plugin `DynamicResources` of v1.37 with its default features, and
//! the allocator of `k8s.io/dynamic-resource-allocation` that it takes with them. Alpha
//! features are left out, as the API drops their fields: attributes of lists, derived
//! attributes, compatibility groups, resources of the node that devices stand for, claims of
//! pod groups.
//!
//! Invariants
//! - A device that is not shared is given to one claim: one that is given counts as given
//!   from the decision until that is seen, or known to have failed.
//! - Which devices are found depends on what objects say, never on when they were seen.
//! - A search takes a bounded number of steps, and none of the stack.

mod allocation;
mod allocator;
mod binding;
mod capacity;
mod claim;
mod constraint;
mod extended;
mod hints;
mod in_use;
mod inventory;
mod pod_devices;
mod pool;
mod slice;
mod walk;

#[cfg(test)]
mod extended_tests;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub(super) use binding::is_held_by_others;
pub use binding::{BINDING_TIMEOUT, ClaimBinding, ExtendedBinding, PodDevices, freed, released};
pub(super) use extended::{counts, is_made_for_resources};
pub(super) use hints::{changes_claim_of, frees_devices, stands_for_resource_of};
pub(super) use inventory::Inventory;
pub(super) use pod_devices::Devices;
