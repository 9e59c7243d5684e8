//! Nodes: each may read what its own pods refer to, and write its own objects.
//!
//! Source: the reference's node authorizer and its `NodeRestriction` admission.

mod authorizer;
mod graph;
mod labels;
mod references;
mod restriction;

pub use authorizer::authorize;
pub use graph::{Graph, PodNeeds};
pub use restriction::{Finder, Restricted, Written, restrict};

#[cfg(test)]
mod tests;

use nautilus_machinery::identity::{NODES_GROUP, User};

/// What comes before a node's name in its user's.
const USER_PREFIX: &str = "system:node:";

/// The name of the node that `user` is: `None` for other users; empty where the user is
/// in the group of nodes and has no node's name.
pub fn name_of(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix(USER_PREFIX)?;
    user.in_group(NODES_GROUP).then_some(name)
}
