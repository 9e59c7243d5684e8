//! The claims of pods' ephemeral volumes: made of the templates in the pods, gone with them.

use nautilus_machinery::timestamp::Instant;
use serde_json::{Map, Value, json};

use super::{claim_name, claims_of};
use crate::controller::{Change, Controller};
use crate::kind::{CLAIMS, Kind, PODS};
use crate::object;
use crate::plan::{Failed, Plan, Write};
use crate::view::{Key, View, Within};

/// Makes claims for pods.
pub(crate) struct Ephemeral;

impl Controller for Ephemeral {
    fn name(&self) -> &'static str {
        "ephemeral-volume-controller"
    }

    fn component(&self) -> &'static str {
        "ephemeral_volume"
    }

    fn follows(&self) -> &'static [Kind] {
        &[PODS, CLAIMS]
    }

    fn concerns(&self, view: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        let own = change.object();
        match change.kind {
            PODS if change.before.is_none() && has_ephemeral(own) => keys.push(Key::of(own)),
            CLAIMS if change.after.is_none() => {
                let pods = view.list(PODS, Within::Namespace(object::namespace(own)));
                let users = pods.iter().filter(|pod| {
                    has_ephemeral(pod) && claims_of(pod).any(|claim| claim == object::name(own))
                });
                keys.extend(users.map(|pod| Key::of(pod)));
            }
            _ => {}
        }
    }

    fn reconcile(&self, view: &dyn View, key: &Key, _: Instant) -> Plan {
        let mut plan = Plan::default();
        let Some(pod) = view.get(PODS, &key.namespace, &key.name) else {
            return plan;
        };
        if object::is_deleted(&pod) {
            return plan;
        }
        for volume in ephemeral(&pod) {
            let Some(name) = claim_name(&pod, volume) else {
                continue;
            };
            match view.get(CLAIMS, &key.namespace, &name) {
                None => plan.then(Write::create(CLAIMS, claim(&pod, volume, &name))),
                Some(claim) if object::is_controlled_by(&claim, object::uid(&pod)) => {}
                Some(_) => {
                    let why = format!(
                        "PVC {}/{name} was not created for pod {key} (pod is not owner)",
                        key.namespace
                    );
                    plan.then(failure(&pod, volume, &why));
                    return plan;
                }
            }
        }
        plan
    }

    fn report(&self, view: &dyn View, key: &Key, _: Instant, failed: &Failed) -> Plan {
        let mut plan = Plan::default();
        let pod = view.get(PODS, &key.namespace, &key.name);
        if let (Some(pod), Write::Create { object, .. }) = (pod, &failed.write) {
            let name = object::name(object);
            let mut volumes = ephemeral(&pod);
            let volume = volumes.find(|own| claim_name(&pod, own).as_deref() == Some(name));
            if let Some(volume) = volume {
                let why = format!("create PVC {name}: {}", failed.message);
                plan.then(failure(&pod, volume, &why));
            }
        }
        plan
    }
}

fn ephemeral(pod: &Value) -> impl Iterator<Item = &Value> {
    object::items(&pod["spec"]["volumes"]).filter(|volume| volume["ephemeral"].is_object())
}

fn has_ephemeral(pod: &Value) -> bool {
    ephemeral(pod).next().is_some()
}

fn failure(pod: &Value, volume: &Value, why: &str) -> Write {
    let volume = volume["name"].as_str().unwrap_or_default();
    let message = format!("ephemeral volume {volume}: {why}");
    Write::warning(PODS, pod, "FailedBinding", message)
}

fn claim(pod: &Value, volume: &Value, name: &str) -> Value {
    let template = &volume["ephemeral"]["volumeClaimTemplate"];
    let mut metadata = Map::new();
    for field in ["labels", "annotations"] {
        if let Some(value) = template["metadata"].get(field) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    metadata.insert("namespace".to_owned(), object::namespace(pod).into());
    metadata.insert("name".to_owned(), name.into());
    let owners = json!([object::controller_reference(PODS, pod)]);
    metadata.insert("ownerReferences".to_owned(), owners);
    json!({"metadata": metadata, "spec": template["spec"]})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cluster, at};

    fn pod() -> Value {
        let template = json!({
            "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
            "spec": {"accessModes": ["ReadWriteOnce"]},
        });
        json!({
            "metadata": {"namespace": "n", "name": "p", "uid": "1"},
            "spec": {"volumes": [
                {"name": "tmp", "emptyDir": {}},
                {"name": "data", "ephemeral": {"volumeClaimTemplate": template}},
            ]},
        })
    }

    #[test]
    fn a_pod_gets_the_claims_of_its_ephemeral_volumes_and_gets_them_again() {
        let mut cluster = Cluster::default();
        let key = Key::new("n", "p");
        let pod = cluster.put(PODS, pod());
        assert_eq!(
            cluster.concerned(&Ephemeral, PODS, None, Some(&pod)),
            vec![key.clone()]
        );
        cluster.settle(&Ephemeral, &key, at(0));
        let claim = cluster.get(CLAIMS, "n", "p-data").unwrap();
        assert_eq!(claim["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(claim["metadata"]["annotations"], json!({"c": "d"}));
        assert_eq!(claim["spec"], json!({"accessModes": ["ReadWriteOnce"]}));
        assert!(object::is_controlled_by(&claim, "1"));
        cluster.remove(CLAIMS, &Key::new("n", "p-data"));
        assert_eq!(
            cluster.concerned(&Ephemeral, CLAIMS, Some(&claim), None),
            vec![key.clone()]
        );
        cluster.settle(&Ephemeral, &key, at(0));
        assert!(cluster.get(CLAIMS, "n", "p-data").is_some());
    }

    #[test]
    fn somebody_elses_claim_is_not_used() {
        let mut cluster = Cluster::default();
        cluster.put(PODS, pod());
        cluster.put(
            CLAIMS,
            json!({"metadata": {"namespace": "n", "name": "p-data"}}),
        );
        let plan = cluster.plan(&Ephemeral, &Key::new("n", "p"), at(0));
        cluster.carry_out(&plan);
        let expected =
            "ephemeral volume data: PVC n/p-data was not created for pod n/p (pod is not owner)";
        assert_eq!(cluster.events, [("FailedBinding", expected.to_owned())]);
    }

    #[test]
    fn a_pod_that_ends_gets_nothing_and_a_refused_claim_is_told_of() {
        let mut cluster = Cluster::default();
        let key = Key::new("n", "p");
        cluster.put(PODS, pod());
        let plan = cluster.plan(&Ephemeral, &key, at(0));
        let failed = Failed {
            write: plan.steps[0][0].clone(),
            code: 403,
            reason: "Forbidden".to_owned(),
            message: "exceeded quota".to_owned(),
            namespace_ends: false,
        };
        let told = Ephemeral.report(&cluster, &key, at(0), &failed);
        cluster.carry_out(&told);
        let expected = "ephemeral volume data: create PVC p-data: exceeded quota";
        assert_eq!(cluster.events, [("FailedBinding", expected.to_owned())]);
        let ending = json!({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}});
        cluster.merge(PODS, &key, &ending);
        assert!(cluster.plan(&Ephemeral, &key, at(0)).is_empty());
    }
}
