//! Volumes that a pod's claims get before the pod is bound: what is written, what is counted
//! on until it is seen, and when all is there.
//!
//! Source: the binder of plugin `VolumeBinding`.
//!
//! Invariant: no volume is given to two claims: one that is given counts as given until that
//! is seen, or known to have failed.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::snapshot::Snapshot;
use super::storage::PodVolumes;
use crate::controller::Change;
use crate::kind::{self, Kind};
use crate::object;
use crate::plan::Write;
use crate::view::{Key, View};
use crate::volumes::BIND_COMPLETED;

/// For all of a pod's claims to be bound.
pub const BIND_TIMEOUT: Duration = Duration::from_secs(600);

const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

impl PodVolumes {
    /// What is to be written so that the claims have their volumes on a node.
    pub fn writes(&self, node: &str) -> Vec<Write> {
        let bindings = self.bindings.iter();
        let bindings =
            bindings.map(|(volume, claim)| Write::update(kind::VOLUMES, given(volume, claim)));
        let provisions = self.provisions.iter();
        let provisions = provisions.map(|claim| Write::update(kind::CLAIMS, selected(claim, node)));
        bindings.chain(provisions).collect()
    }

    /// Counts on what is to be written.
    pub(super) fn assume(&self, snapshot: &mut Snapshot, node: &str) {
        for (volume, claim) in &self.bindings {
            replace(
                snapshot,
                kind::VOLUMES,
                volume,
                Arc::new(given(volume, claim)),
            );
        }
        for claim in &self.provisions {
            replace(
                snapshot,
                kind::CLAIMS,
                claim,
                Arc::new(selected(claim, node)),
            );
        }
    }

    /// Counts on it no more. What has been seen in another version since stays.
    pub(super) fn forget(&self, snapshot: &mut Snapshot) {
        for (volume, _) in &self.bindings {
            replace(snapshot, kind::VOLUMES, volume, volume.clone());
        }
        for claim in &self.provisions {
            replace(snapshot, kind::CLAIMS, claim, claim.clone());
        }
    }

    /// Whether all claims are bound.
    ///
    /// # Errors
    /// Why one of them will not be.
    pub fn are_bound(&self, view: &dyn View, node: &str) -> Result<bool, String> {
        let seen = |claim: &Value| {
            let found = view.get(kind::CLAIMS, object::namespace(claim), object::name(claim));
            let found = found.filter(|own| object::uid(own) == object::uid(claim));
            found
                .ok_or_else(|| format!("persistentvolumeclaim {:?} not found", object::name(claim)))
        };
        let is_bound = |claim: &Value| {
            !claim["spec"]["volumeName"]
                .as_str()
                .unwrap_or_default()
                .is_empty()
                && object::annotation(claim, BIND_COMPLETED).is_some()
        };
        let mut all = true;
        for (volume, claim) in &self.bindings {
            let name = object::name(volume);
            let seen_volume = view.get(kind::VOLUMES, "", name);
            if seen_volume
                .is_some_and(|own| is_newer(&own, volume) && own["spec"]["claimRef"].is_null())
            {
                return Err(format!("ClaimRef got reset for pv {name:?}"));
            }
            all &= is_bound(&*seen(claim)?);
        }
        for claim in &self.provisions {
            let own = seen(claim)?;
            if is_newer(&own, claim) && object::annotation(&own, SELECTED_NODE) != Some(node) {
                return Err(format!(
                    "provisioning failed for PVC {:?}",
                    object::name(claim)
                ));
            }
            all &= is_bound(&own);
        }
        Ok(all)
    }
}

/// Whether an object is in another version than the one that was written over.
fn is_newer(own: &Value, before: &Value) -> bool {
    own["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]
}

/// A volume that is a claim's.
fn given(volume: &Value, claim: &Value) -> Value {
    let mut volume = volume.clone();
    volume["spec"]["claimRef"] = json!({
        "kind": "PersistentVolumeClaim",
        "apiVersion": "v1",
        "namespace": object::namespace(claim),
        "name": object::name(claim),
        "uid": object::uid(claim),
        "resourceVersion": claim["metadata"]["resourceVersion"],
    });
    volume["metadata"]["annotations"][BOUND_BY_CONTROLLER] = "yes".into();
    volume
}

/// A claim whose volume is to be made for a node.
fn selected(claim: &Value, node: &str) -> Value {
    let mut claim = claim.clone();
    claim["metadata"]["annotations"][SELECTED_NODE] = node.into();
    claim
}

/// Puts an object in the place of the same version.
fn replace(snapshot: &mut Snapshot, kind: Kind, seen: &Arc<Value>, with: Arc<Value>) {
    let key = Key::of(seen);
    let now = snapshot.get(kind, &key.namespace, &key.name).cloned();
    if now.is_some_and(|own| !is_newer(&own, seen)) {
        snapshot.apply(&Change {
            kind,
            before: None,
            after: Some(with),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;

    fn volumes(cluster: &mut Cluster) -> PodVolumes {
        let claim = |name: &str| json!({"metadata": {"namespace": "n", "name": name}, "spec": {}});
        let volume = json!({"metadata": {"name": "v"}, "spec": {}});
        PodVolumes {
            bindings: vec![(
                cluster.put(kind::VOLUMES, volume),
                cluster.put(kind::CLAIMS, claim("given")),
            )],
            provisions: vec![cluster.put(kind::CLAIMS, claim("made"))],
        }
    }

    fn carry_out(cluster: &mut Cluster, own: &PodVolumes) {
        let mut plan = crate::plan::Plan::default();
        plan.together(own.writes("node"));
        cluster.carry_out(&plan);
    }

    fn bind(cluster: &mut Cluster, name: &str) {
        let bound = json!({"metadata": {"annotations": {BIND_COMPLETED: "yes"}},
            "spec": {"volumeName": "v"}});
        cluster.merge(kind::CLAIMS, &Key::new("n", name), &bound);
    }

    #[test]
    fn claims_are_bound_once_their_volumes_are_there() {
        let mut cluster = Cluster::default();
        let own = volumes(&mut cluster);
        assert_eq!(own.are_bound(&cluster, "node"), Ok(false));
        carry_out(&mut cluster, &own);
        let volume = cluster.get(kind::VOLUMES, "", "v").expect("it is there");
        assert_eq!(
            volume["spec"]["claimRef"]["uid"],
            *object::uid(&own.bindings[0].1)
        );
        let made = cluster.get(kind::CLAIMS, "n", "made").expect("it is there");
        assert_eq!(object::annotation(&made, SELECTED_NODE), Some("node"));
        assert_eq!(own.are_bound(&cluster, "node"), Ok(false));
        bind(&mut cluster, "given");
        assert_eq!(own.are_bound(&cluster, "node"), Ok(false));
        bind(&mut cluster, "made");
        assert_eq!(own.are_bound(&cluster, "node"), Ok(true));
    }

    #[test]
    fn what_will_not_be_bound_says_why() {
        let no_node = json!({"metadata": {"annotations": {SELECTED_NODE: null}}});
        let no_claim = json!({"spec": {"claimRef": null}});
        for (kind, key, change, expected) in [
            (
                kind::CLAIMS,
                Key::new("n", "made"),
                no_node,
                "provisioning failed for PVC \"made\"",
            ),
            (
                kind::VOLUMES,
                Key::new("", "v"),
                no_claim,
                "ClaimRef got reset for pv \"v\"",
            ),
        ] {
            let mut cluster = Cluster::default();
            let own = volumes(&mut cluster);
            carry_out(&mut cluster, &own);
            cluster.merge(kind, &key, &change);
            assert_eq!(own.are_bound(&cluster, "node"), Err(expected.to_owned()));
        }
    }

    #[test]
    fn what_is_counted_on_is_seen_or_forgotten() {
        let mut cluster = Cluster::default();
        let own = volumes(&mut cluster);
        let mut snapshot = Snapshot::default();
        for (kind, object) in [
            (kind::VOLUMES, &own.bindings[0].0),
            (kind::CLAIMS, &own.bindings[0].1),
            (kind::CLAIMS, &own.provisions[0]),
        ] {
            snapshot.apply(&Change {
                kind,
                before: None,
                after: Some(object.clone()),
            });
        }
        let is_given = |snapshot: &Snapshot| {
            let volume = snapshot.get(kind::VOLUMES, "", "v").expect("it is there");
            volume["spec"]["claimRef"].is_object()
        };
        own.assume(&mut snapshot, "node");
        assert!(is_given(&snapshot));
        own.forget(&mut snapshot);
        assert!(!is_given(&snapshot));
        own.assume(&mut snapshot, "node");
        carry_out(&mut cluster, &own);
        snapshot.apply(&Change {
            kind: kind::VOLUMES,
            before: None,
            after: cluster.get(kind::VOLUMES, "", "v"),
        });
        own.forget(&mut snapshot);
        assert!(is_given(&snapshot), "that was seen");
    }
}
