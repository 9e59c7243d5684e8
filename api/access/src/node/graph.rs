//! Which node needs which object: counted as pods come and go, so that a question is
//! answered by one look.
//!
//! Invariants
//! - An object counts as needed by a node exactly while some pod on the node names it,
//!   or a volume claimed by such a pod does.
//! - A mirror pod, which a node makes itself, gives its node nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::references::{self, Kind, Place};

/// The annotation of pods that a node made.
pub(super) const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// What nodes need. Objects are set as they become, and unset when they go.
#[derive(Debug, Default)]
pub struct Graph {
    pods: BTreeMap<Place, PodNeeds>,
    /// How many pods of each node name an object.
    uses: BTreeMap<(Kind, Place), BTreeMap<String, usize>>,
    /// Claim and secrets of each volume.
    volumes: BTreeMap<String, (Place, Vec<Place>)>,
    /// Volumes by the secrets they name.
    by_secret: BTreeMap<Place, BTreeSet<String>>,
    /// Nodes of attachments, slices and the like, by plural and place.
    owned: BTreeMap<(&'static str, Place), String>,
}

/// What a pod gives its node.
#[derive(Debug, Clone, PartialEq)]
pub struct PodNeeds {
    node: String,
    names: BTreeSet<(Kind, String)>,
}

impl PodNeeds {
    /// Reads a pod; `None` while it is on no node.
    pub fn read(pod: &Value) -> Option<Self> {
        let node = pod["spec"]["nodeName"]
            .as_str()
            .filter(|node| !node.is_empty())?;
        let mirror = !pod["metadata"]["annotations"][MIRROR_ANNOTATION].is_null();
        let names = if mirror {
            BTreeSet::new()
        } else {
            references::of_pod(pod).into_iter().collect()
        };
        Some(Self {
            node: node.to_owned(),
            names,
        })
    }
}

/// The kinds of objects that say themselves whose node they are of.
const OWNED: [&str; 3] = [
    "volumeattachments",
    "resourceslices",
    "podcertificaterequests",
];

impl Graph {
    /// A pod became this; `None`: it is gone, or on no node.
    pub fn set_pod(&mut self, namespace: &str, name: &str, needs: Option<PodNeeds>) {
        let place = (namespace.to_owned(), name.to_owned());
        if self.pods.get(&place) == needs.as_ref() {
            return;
        }
        if let Some(old) = self.pods.remove(&place) {
            for (kind, name) in old.names {
                let key = (kind, (namespace.to_owned(), name));
                let Some(nodes) = self.uses.get_mut(&key) else {
                    continue;
                };
                if let Some(count) = nodes.get_mut(&old.node) {
                    *count -= 1;
                    if *count == 0 {
                        nodes.remove(&old.node);
                    }
                }
                if nodes.is_empty() {
                    self.uses.remove(&key);
                }
            }
        }
        let Some(needs) = needs else { return };
        for (kind, name) in &needs.names {
            let nodes = self
                .uses
                .entry((*kind, (namespace.to_owned(), name.clone())))
                .or_default();
            *nodes.entry(needs.node.clone()).or_default() += 1;
        }
        self.pods.insert(place, needs);
    }

    /// A persistent volume became this; `None`: it is gone.
    pub fn set_volume(&mut self, name: &str, volume: Option<&Value>) {
        if let Some((_, secrets)) = self.volumes.remove(name) {
            for secret in secrets {
                if let Some(volumes) = self.by_secret.get_mut(&secret) {
                    volumes.remove(name);
                    if volumes.is_empty() {
                        self.by_secret.remove(&secret);
                    }
                }
            }
        }
        let Some((claim, secrets)) = volume.and_then(references::of_volume) else {
            return;
        };
        for secret in &secrets {
            let volumes = self.by_secret.entry(secret.clone()).or_default();
            volumes.insert(name.to_owned());
        }
        self.volumes.insert(name.to_owned(), (claim, secrets));
    }

    /// An object of `plural` that names its node became this; `None`: it is gone.
    pub fn set_owned(&mut self, plural: &str, namespace: &str, name: &str, object: Option<&Value>) {
        let Some(plural) = OWNED.into_iter().find(|own| *own == plural) else {
            return;
        };
        let key = (plural, (namespace.to_owned(), name.to_owned()));
        let node = object
            .and_then(|object| object["spec"]["nodeName"].as_str())
            .filter(|node| !node.is_empty());
        match node {
            Some(node) => self.owned.insert(key, node.to_owned()),
            None => self.owned.remove(&key),
        };
    }

    /// Whether `node` needs the object.
    pub(super) fn needs(&self, node: &str, plural: &str, namespace: &str, name: &str) -> bool {
        let place = || (namespace.to_owned(), name.to_owned());
        let used = |kind: Kind, place: Place| {
            self.uses
                .get(&(kind, place))
                .is_some_and(|nodes| nodes.contains_key(node))
        };
        let volume = |name: &str| {
            self.volumes
                .get(name)
                .is_some_and(|(claim, _)| used(Kind::Claim, claim.clone()))
        };
        match plural {
            "pods" => self.pods.get(&place()).is_some_and(|pod| pod.node == node),
            "secrets" => {
                used(Kind::Secret, place())
                    || self
                        .by_secret
                        .get(&place())
                        .is_some_and(|volumes| volumes.iter().any(|name| volume(name)))
            }
            "configmaps" => used(Kind::ConfigMap, place()),
            "serviceaccounts" => used(Kind::Account, place()),
            "persistentvolumeclaims" => used(Kind::Claim, place()),
            "resourceclaims" => used(Kind::ResourceClaim, place()),
            "persistentvolumes" => volume(name),
            _ => OWNED
                .into_iter()
                .find(|own| *own == plural)
                .and_then(|own| self.owned.get(&(own, place())))
                .is_some_and(|owner| owner == node),
        }
    }
}
