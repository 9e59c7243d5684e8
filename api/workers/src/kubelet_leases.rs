//! Kubelets of workers renew the leases of their nodes: which workers live, read from the
//! events of those keys.

use nautilus_machine::{Event, EventKind, KeyRange, Kv, RangeRequest, Revision, WatchRequest};

use crate::lease_object;
use crate::node_object::{NODE_ID_ANNOTATION, node_name};
use crate::row::WorkerRow;
use crate::rows_store::{leases_prefix, node_key};

/// What is watched.
pub(crate) fn request(from: Revision) -> WatchRequest {
    WatchRequest {
        range: KeyRange::prefix(leases_prefix()),
        from: Some(from),
        previous: true,
    }
}

/// Ids of the workers whose leases somebody has renewed.
pub(crate) fn renewed(kv: &dyn Kv, events: &[Event]) -> Vec<String> {
    let prefix = leases_prefix();
    let names = events.iter().filter_map(|event| {
        let before = event.prev.as_ref().map(|kv| &kv.value[..]);
        let renewed =
            event.kind == EventKind::Put && lease_object::is_renewed(before, &event.kv.value);
        let key = std::str::from_utf8(&event.kv.key).ok()?;
        key.strip_prefix(&prefix).filter(|_| renewed)
    });
    names.filter_map(|name| node_id(kv, name)).collect()
}

/// Which worker a node is, if it is one.
pub(crate) fn node_id(kv: &dyn Kv, name: &str) -> Option<String> {
    let read = |key: String| {
        let request = RangeRequest::newest(KeyRange::single(key));
        kv.range(&request).ok()?.kvs.into_iter().next()
    };
    // Most ids are names already.
    if read(WorkerRow::key(name)).is_some() {
        return Some(name.to_owned());
    }
    let node: serde_json::Value = serde_json::from_slice(&read(node_key(name))?.value).ok()?;
    let id = node["metadata"]["annotations"][NODE_ID_ANNOTATION].as_str()?;
    (node_name(id) == name).then(|| id.to_owned())
}
