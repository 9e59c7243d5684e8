//! The `Lease` of a worker's `Node` in `kube-node-lease`, as a kubelet makes it: pure.
//!
//! It names its holder and no time: a heartbeat is kept in the leader's memory, and a time of
//! renewal that nobody moves would tell readers that the node is gone. A kubelet that runs on
//! the worker renews it, and each renewal counts as a heartbeat.

use serde::Deserialize;
use serde_json::{Value, json};

/// Where the leases of nodes stand.
pub const NAMESPACE: &str = "kube-node-lease";
/// The kubelet's default, in seconds.
const DURATION_S: u32 = 40;

/// A new object of the node `name`, whose own uid is `node_uid`.
pub fn create(name: &str, node_uid: &str, uid: &str, now: &str) -> Value {
    json!({
        "kind": "Lease",
        "apiVersion": "coordination.k8s.io/v1",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": uid,
            "creationTimestamp": now,
            "ownerReferences": [owner(name, node_uid)],
        },
        "spec": {"holderIdentity": name, "leaseDurationSeconds": DURATION_S},
    })
}

/// Lets the lease belong to the `Node` that there is now; `true` when that changed it.
pub fn update(lease: &mut Value, name: &str, node_uid: &str) -> bool {
    let owners = json!([owner(name, node_uid)]);
    let changed = lease["metadata"]["ownerReferences"] != owners;
    if changed && let Some(metadata) = lease["metadata"].as_object_mut() {
        metadata.insert("ownerReferences".to_owned(), owners);
    }
    changed
}

/// Whether somebody renewed the lease between these bytes and those before it: another time
/// stands there than did.
pub fn is_renewed(before: Option<&[u8]>, lease: &[u8]) -> bool {
    let renewed = renew_time(lease);
    renewed.is_some() && renewed != before.and_then(renew_time)
}

fn renew_time(lease: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Lease {
        spec: Spec,
    }
    #[derive(Deserialize)]
    struct Spec {
        #[serde(rename = "renewTime")]
        renew_time: Option<String>,
    }
    let lease: Lease = serde_json::from_slice(lease).ok()?;
    lease.spec.renew_time
}

fn owner(name: &str, node_uid: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "name": name, "uid": node_uid})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_follows_its_node_and_tells_who_renews_it() {
        let mut lease = create("w1", "node-1", "lease-1", "2026-01-01T00:00:00Z");
        assert!(!update(&mut lease, "w1", "node-1"));
        assert!(update(&mut lease, "w1", "node-2"));
        assert_eq!(lease["metadata"]["ownerReferences"][0]["uid"], "node-2");
        let text = |lease: &Value| lease.to_string().into_bytes();
        let made = text(&lease);
        assert!(!is_renewed(None, &made));
        lease["spec"]["renewTime"] = "2026-01-01T00:00:10.000000Z".into();
        let first = text(&lease);
        assert!(is_renewed(Some(&made), &first) && is_renewed(None, &first));
        lease["metadata"]["labels"]["by"] = "somebody".into();
        assert!(!is_renewed(Some(&first), &text(&lease)));
        lease["spec"]["renewTime"] = "2026-01-01T00:00:20.000000Z".into();
        assert!(is_renewed(Some(&first), &text(&lease)));
        assert!(!is_renewed(None, b"{}"));
    }
}
