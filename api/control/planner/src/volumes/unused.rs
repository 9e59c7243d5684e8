//! Whether a bound claim has a pod that has not ended, and since when that is so: its
//! condition `Unused` (KEP-5541). When claims may go is decided elsewhere.

use nautilus_machinery::timestamp::Instant;
use serde_json::{Value, json};

use super::claims_of;
use crate::controller::{Change, Controller};
use crate::kind::{CLAIMS, Kind, PODS};
use crate::object;
use crate::plan::{Plan, Write};
use crate::view::{Key, View, Within};

const UNUSED: &str = "Unused";

/// Keeps the condition.
pub(crate) struct Unused;

impl Controller for Unused {
    fn name(&self) -> &'static str {
        "pvc-protection-controller"
    }

    fn follows(&self) -> &'static [Kind] {
        &[PODS, CLAIMS]
    }

    fn concerns(&self, _: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        let own = change.object();
        match change.kind {
            CLAIMS => keys.push(Key::of(own)),
            PODS => {
                let claims = change.versions().flat_map(claims_of);
                keys.extend(claims.map(|claim| Key::new(object::namespace(own), claim)));
            }
            _ => {}
        }
    }

    fn reconcile(&self, view: &dyn View, key: &Key, now: Instant) -> Plan {
        let mut plan = Plan::default();
        let Some(claim) = view.get(CLAIMS, &key.namespace, &key.name) else {
            return plan;
        };
        if object::is_deleted(&claim) || claim["status"]["phase"] != "Bound" {
            return plan;
        }
        let pods = view.list(PODS, Within::Namespace(&key.namespace));
        let used = pods.iter().any(|pod| uses(pod, &claim));
        let state = if used { "False" } else { "True" };
        if object::condition(&claim, UNUSED).is_some_and(|own| own["status"] == state) {
            return plan;
        }
        let (reason, message) = match used {
            true => ("PodUsingPVC", "A pod is currently referencing this PVC"),
            false => (
                "NoPodsUsingPVC",
                "No pods are currently referencing this PVC",
            ),
        };
        let condition = json!({
            "type": UNUSED, "status": state, "lastProbeTime": null,
            "lastTransitionTime": object::time_field(now), "reason": reason, "message": message,
        });
        let mut conditions: Vec<Value> = object::items(&claim["status"]["conditions"])
            .cloned()
            .collect();
        match conditions.iter_mut().find(|own| own["type"] == UNUSED) {
            Some(own) => *own = condition,
            None => conditions.push(condition),
        }
        let mut next = object::identity(&claim);
        next["status"] = claim["status"].clone();
        next["status"]["conditions"] = conditions.into();
        plan.then(Write::status(CLAIMS, next));
        plan
    }
}

/// Whether a pod that has not ended has the claim among its volumes: by name, or as its own.
fn uses(pod: &Value, claim: &Value) -> bool {
    let name = object::name(claim);
    let by_name = |volume: &Value| volume["persistentVolumeClaim"]["claimName"] == name;
    let mut volumes = object::items(&pod["spec"]["volumes"]);
    !object::is_finished(pod)
        && claims_of(pod).any(|own| own == name)
        && (volumes.any(by_name) || object::is_controlled_by(claim, object::uid(pod)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cluster, at};

    #[test]
    fn a_bound_claim_says_whether_a_pod_uses_it() {
        let mut cluster = Cluster::default();
        let key = Key::new("n", "data");
        let state = |cluster: &Cluster| {
            let claim = cluster.get(CLAIMS, "n", "data").unwrap();
            let condition = object::condition(&claim, UNUSED).cloned();
            condition.map(|own| own["status"].as_str().unwrap().to_owned())
        };
        let metadata = json!({"namespace": "n", "name": "data"});
        cluster.put(
            CLAIMS,
            json!({"metadata": metadata, "status": {"phase": "Pending"}}),
        );
        cluster.settle(&Unused, &key, at(0));
        assert_eq!(state(&cluster), None);

        cluster.merge(CLAIMS, &key, &json!({"status": {"phase": "Bound"}}));
        cluster.settle(&Unused, &key, at(0));
        assert_eq!(state(&cluster).as_deref(), Some("True"));

        let volume = json!({"persistentVolumeClaim": {"claimName": "data"}});
        let pod = json!({
            "metadata": {"namespace": "n", "name": "p"}, "spec": {"volumes": [volume]},
        });
        let pod = cluster.put(PODS, pod);
        let concerned = cluster.concerned(&Unused, PODS, None, Some(&pod));
        assert_eq!(concerned, std::slice::from_ref(&key));
        cluster.settle(&Unused, &key, at(1));
        assert_eq!(state(&cluster).as_deref(), Some("False"));

        let ended = json!({"status": {"phase": "Succeeded"}});
        cluster.merge(PODS, &Key::new("n", "p"), &ended);
        cluster.settle(&Unused, &key, at(2));
        assert_eq!(state(&cluster).as_deref(), Some("True"));
    }

    #[test]
    fn a_claim_made_for_another_pod_is_not_used_by_one_of_its_name() {
        let mut cluster = Cluster::default();
        let owner = json!({"uid": "other", "controller": true});
        let metadata = json!({"namespace": "n", "name": "p-v", "ownerReferences": [owner]});
        let claim = json!({"metadata": metadata, "status": {"phase": "Bound"}});
        cluster.put(CLAIMS, claim);
        let volume = json!({"name": "v", "ephemeral": {}});
        cluster.put(
            PODS,
            json!({
                "metadata": {"namespace": "n", "name": "p"}, "spec": {"volumes": [volume]},
            }),
        );
        cluster.settle(&Unused, &Key::new("n", "p-v"), at(0));
        let claim = cluster.get(CLAIMS, "n", "p-v").unwrap();
        assert!(object::is_true(&claim, UNUSED));
    }
}
