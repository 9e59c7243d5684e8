//! How a `Node` says that it leaves because the stake behind it is gone: set by whoever knows of
//! stakes, read by whoever empties nodes.

/// What the taints of nodes that leave begin with.
pub const TAINTS_PREFIX: &str = "nautilus.io/stake-";
/// The taint of a node whose stake was slashed.
pub const SLASHED_TAINT: &str = "nautilus.io/stake-slashed";
/// The taint of a node whose stake was withdrawn, or whose token has ended.
pub const WITHDRAWN_TAINT: &str = "nautilus.io/stake-withdrawn";
/// Annotation with the time (RFC 3339) from which on its pods are removed whatever their budgets
/// say, and its certificates count no more.
pub const REMOVE_FROM_ANNOTATION: &str = "nautilus.io/remove-from";
