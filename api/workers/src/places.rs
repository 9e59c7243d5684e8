//! In which zones the workers are, as labels of their nodes say: the little that is read of a
//! `Node` for it.

use std::collections::BTreeMap;

use nautilus_machine::{KeyRange, KeyValue, Kv, RangeError, Revision, WatchRequest};
use serde::Deserialize;

use crate::node_object::{NODE_ID_ANNOTATION, node_name};
use crate::rows_store::node_key;
use crate::scan::scan;

/// <https://kubernetes.io/docs/reference/labels-annotations-taints/#topologykubernetesiozone>
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// A worker's zone; empty where its node has none.
pub(crate) struct Place {
    pub(crate) node_id: String,
    pub(crate) zone: String,
}

#[derive(Deserialize)]
struct Node {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// What is watched.
pub(crate) fn request(from: Revision) -> WatchRequest {
    WatchRequest {
        range: all(),
        from: Some(from),
        previous: false,
    }
}

/// Where a node's worker is; `None`: it is no worker's node.
pub(crate) fn of(kv: &KeyValue) -> Option<Place> {
    let Node { mut metadata } = serde_json::from_slice(&kv.value).ok()?;
    let node_id = metadata.annotations.remove(NODE_ID_ANNOTATION)?;
    // A kubelet writes its own node's annotations: it speaks for no other worker by them.
    let is_its_own = kv.key == node_key(&node_name(&node_id)).as_bytes();
    is_its_own.then(|| Place {
        node_id,
        zone: metadata.labels.remove(ZONE_LABEL).unwrap_or_default(),
    })
}

/// Those that are in a zone at `revision`.
pub(crate) fn read(kv: &dyn Kv, revision: Revision) -> Result<Vec<Place>, RangeError> {
    let mut places = Vec::new();
    scan(kv, all(), revision, |kv| {
        places.extend(of(kv).filter(|place| !place.zone.is_empty()));
    })?;
    Ok(places)
}

fn all() -> KeyRange {
    KeyRange::prefix(node_key(""))
}
