//! Claims that are to grow: a driver's resizer does it, and is told of those whose plugin
//! it took over from.

use nautilus_machinery::quantity::Quantity;
use nautilus_machinery::timestamp::Instant;
use serde_json::{Value, json};

use super::{PRE_RESIZE_CAPACITY, migration};
use crate::controller::{Change, Controller};
use crate::kind::{CLAIMS, Kind, VOLUMES};
use crate::object;
use crate::plan::{Plan, Write};
use crate::view::{Key, View};

/// On a claim: who makes it grow.
const RESIZER: &str = "volume.kubernetes.io/storage-resizer";

/// Has volumes expanded.
pub(crate) struct Expander;

impl Controller for Expander {
    fn name(&self) -> &'static str {
        "expand-controller"
    }

    fn component(&self) -> &'static str {
        "volume_expand"
    }

    fn follows(&self) -> &'static [Kind] {
        &[CLAIMS, VOLUMES]
    }

    fn concerns(&self, _: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        let (CLAIMS, Some(after)) = (change.kind, change.after.as_deref()) else {
            return;
        };
        let grows = change.before.as_deref().is_none_or(|before| {
            requested(after) > requested(before) || capacity(after) > capacity(before)
        });
        if grows && after["status"]["phase"] == "Bound" {
            keys.push(Key::of(after));
        }
    }

    fn reconcile(&self, view: &dyn View, key: &Key, _: Instant) -> Plan {
        let mut plan = Plan::default();
        let Some(claim) = view.get(CLAIMS, &key.namespace, &key.name) else {
            return plan;
        };
        let volume = claim["spec"]["volumeName"].as_str();
        let Some(volume) = volume.and_then(|name| view.get(VOLUMES, "", name)) else {
            return plan;
        };
        if volume["spec"]["claimRef"]["uid"] != object::uid(&claim) {
            return plan;
        }
        let was_resized = object::annotation(&volume, PRE_RESIZE_CAPACITY).is_some();
        if requested(&claim) <= capacity(&claim) && !was_resized {
            return plan;
        }
        let message = match migration::of_volume(&volume) {
            None => "waiting for an external controller to expand this PVC".to_owned(),
            Some((plugin, driver)) => {
                if object::annotation(&claim, RESIZER) != Some(driver) {
                    let annotations = json!({ RESIZER: driver });
                    let patch = json!({"metadata": {"annotations": annotations}});
                    plan.then(Write::patch_status(CLAIMS, &claim, patch));
                }
                format!(
                    "CSI migration enabled for {plugin}; waiting for external resizer to expand the pvc"
                )
            }
        };
        plan.then(Write::event(CLAIMS, &claim, "ExternalExpanding", message));
        plan
    }
}

fn size(quantity: &Value) -> Option<Quantity> {
    Quantity::parse(quantity.as_str()?).ok()
}

fn requested(claim: &Value) -> Option<Quantity> {
    size(&claim["spec"]["resources"]["requests"]["storage"])
}

fn capacity(claim: &Value) -> Option<Quantity> {
    size(&claim["status"]["capacity"]["storage"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cluster, at};

    fn claim(requested: &str, capacity: &str) -> Value {
        json!({
            "metadata": {"namespace": "n", "name": "c", "uid": "1"},
            "spec": {"volumeName": "v", "resources": {"requests": {"storage": requested}}},
            "status": {"phase": "Bound", "capacity": {"storage": capacity}},
        })
    }

    fn cluster(claim: Value, source: &str, uid: &str) -> Cluster {
        let mut cluster = Cluster::default();
        let spec = json!({"claimRef": {"uid": uid}, source: {}});
        cluster.put(VOLUMES, json!({"metadata": {"name": "v"}, "spec": spec}));
        cluster.put(CLAIMS, claim);
        cluster
    }

    #[test]
    fn who_makes_a_claim_grow_is_told_of() {
        let external = "waiting for an external controller to expand this PVC";
        let migrated = "CSI migration enabled for kubernetes.io/gce-pd; waiting for external resizer to expand the pvc";
        for (requested, capacity, source, uid, expected, resizer) in [
            ("2Gi", "1Gi", "csi", "1", Some(external), None),
            (
                "2Gi",
                "1Gi",
                "gcePersistentDisk",
                "1",
                Some(migrated),
                Some("pd.csi.storage.gke.io"),
            ),
            ("1Gi", "1Gi", "csi", "1", None, None),
            ("2Gi", "1Gi", "csi", "other", None, None),
        ] {
            let mut cluster = cluster(claim(requested, capacity), source, uid);
            let plan = cluster.plan(&Expander, &Key::new("n", "c"), at(0));
            cluster.carry_out(&plan);
            let event = cluster.events.first().map(|(_, message)| message.as_str());
            assert_eq!(event, expected, "{requested} {source} {uid}");
            let claim = cluster.get(CLAIMS, "n", "c").unwrap();
            assert_eq!(object::annotation(&claim, RESIZER), resizer);
        }
    }

    #[test]
    fn a_claim_is_looked_at_when_it_grows() {
        let mut cluster = Cluster::default();
        let mut wakes = |before: Option<Value>, after: Value| {
            let before = before.map(|own| cluster.put(CLAIMS, own));
            let after = cluster.put(CLAIMS, after);
            !cluster
                .concerned(&Expander, CLAIMS, before.as_ref(), Some(&after))
                .is_empty()
        };
        assert!(wakes(None, claim("1Gi", "1Gi")));
        assert!(wakes(Some(claim("1Gi", "1Gi")), claim("2Gi", "1Gi")));
        assert!(wakes(Some(claim("2Gi", "1Gi")), claim("2Gi", "2Gi")));
        assert!(!wakes(Some(claim("2Gi", "2Gi")), claim("2Gi", "2Gi")));
        let mut pending = claim("2Gi", "1Gi");
        pending["status"]["phase"] = "Pending".into();
        assert!(!wakes(None, pending));
    }
}
