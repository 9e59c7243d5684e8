//! Where a service's pods are reached: slices of endpoints ([`slices`]), mirrors of what
//! people wrote as Endpoints ([`mirroring`]), and the Endpoints of before slices
//! ([`legacy`]).
//!
//! Invariants
//! - What is written follows from the services, pods and nodes alone; what is right already
//!   is not written again.
//! - Objects of services without a selector belong to whoever wrote them.

mod backends;
mod hints;
mod legacy;
mod mirroring;
mod packing;
mod slices;
mod subsets;

pub use legacy::LegacyEndpoints;
pub use mirroring::Mirroring;
pub use slices::Slices;

/// When what caused the last change happened:
/// <https://kubernetes.io/docs/reference/labels-annotations-taints/#endpoints-kubernetes-io-last-change-trigger-time>
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Label of what belongs to a service without an address of its own.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Label with the name of the service that a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label with the name of the controller that keeps a slice.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Annotation of objects that are locks: nobody's endpoints.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
