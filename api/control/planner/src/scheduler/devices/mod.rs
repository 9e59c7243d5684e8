//! Devices that pods claim (`resource.k8s.io/v1`): which of them there are where, which are
//! in use, and which a pod gets on a node.
//!
//! Source: kube-scheduler's plugin `DynamicResources` of v1.37 with its default features, and
//! the allocator of `k8s.io/dynamic-resource-allocation` that it takes with them. Alpha
//! features are left out, as the API drops their fields: attributes of lists, derived
//! attributes, compatibility groups, resources of the node that devices stand for, claims of
//! pod groups. Left out too are extended resources that devices stand for
//! (`DeviceClass.spec.extendedResourceName`): a pod that asks for one as a resource waits.
//!
//! Invariants
//! - A device that is not shared is given to one claim: one that is given counts as given
//!   from the decision until that is seen, or known to have failed.
//! - Which devices are found depends on names alone, never on when objects came.
//! - A search takes a bounded number of steps, and none of the stack.

mod allocation;
mod allocator;
mod binding;
mod capacity;
mod claim;
mod constraint;
mod in_use;
mod inventory;
mod pod_devices;
mod pool;
mod slice;
mod walk;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use binding::{BINDING_TIMEOUT, ClaimBinding, PodDevices, freed, released};
pub(super) use inventory::Inventory;
pub(super) use pod_devices::Devices;
