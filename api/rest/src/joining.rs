//! Workers that join with a Seal token: the port to who judges tokens, and what they may do
//! before they have a certificate.
//!
//! Invariants
//! - This face never judges a token; that nobody can judge it now is told from that it does
//!   not count.
//! - What joiners may do stands in bindings that an operator can read and take away.

use futures_util::future::BoxFuture;
use nautilus_access::seal;
use nautilus_machinery::identity::NODES_GROUP;
use serde_json::{Value, json};

/// Why a Seal token opens nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealRefusal {
    /// It does not count.
    #[error("{0}")]
    Invalid(String),
    /// It does not count, and who presents it may not be its owner.
    #[error("{why}")]
    Suspicious {
        /// Why not.
        why: String,
        /// In one word, for the audit log.
        word: &'static str,
    },
    /// It can't be judged now: come again.
    #[error("{0}")]
    Unavailable(String),
}

/// What the workers' face knows.
pub trait Workers: Send + Sync + 'static {
    /// The name of the node that `token` speaks for, which is then registered. `claimed` is the
    /// node that the asker says it is, if it says so: another one is refused.
    fn node_of_token<'a>(
        &'a self,
        token: &'a str,
        claimed: Option<&'a str>,
    ) -> BoxFuture<'a, Result<String, SealRefusal>>;

    /// Why the certificates of the node `name` don't count; `None`: they do.
    fn barred(&self, name: &str) -> Result<Option<String>, String>;

    /// Tells every node that is barred, when it is, and all that are at the beginning. Ends by
    /// being dropped.
    fn each_barred<'a>(&'a self, told: &'a (dyn Fn(&str) + Send + Sync)) -> BoxFuture<'a, ()>;
}

/// Role and group of each binding.
const BINDINGS: [(&str, &str, &str); 3] = [
    (
        "nautilus:seal-bootstrap",
        "system:node-bootstrapper",
        seal::GROUP,
    ),
    (
        "nautilus:seal-autoapprove",
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        seal::GROUP,
    ),
    (
        "nautilus:node-autoapprove-rotation",
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        NODES_GROUP,
    ),
];

/// The cluster role bindings by which workers join, as kubeadm makes them for its own tokens.
pub(crate) fn bindings() -> impl Iterator<Item = (&'static str, Value)> {
    BINDINGS.into_iter().map(|(name, role, group)| {
        let object = json!({
            "kind": "ClusterRoleBinding",
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "metadata": { "name": name },
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role,
            },
            "subjects": [
                { "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group },
            ],
        });
        (name, object)
    })
}
