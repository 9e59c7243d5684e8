//! Claims and volumes as users, schedulers and provisioners leave them.

use proptest::prelude::*;

use super::*;
use crate::testing::{Cluster, at};

fn volume(name: &str, change: &Value) -> Value {
    let mut volume = json!({
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "5Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "c",
        },
        "status": {"phase": "Pending"},
    });
    nautilus_machinery::patch::merge(&mut volume, change);
    volume
}

fn claim(name: &str, change: &Value) -> Value {
    let mut claim = json!({
        "metadata": {"namespace": "n", "name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "c",
        },
        "status": {"phase": "Pending"},
    });
    nautilus_machinery::patch::merge(&mut claim, change);
    claim
}

/// Looks at everything until nothing is left to write but events.
fn settle(cluster: &mut Cluster, now: i64) {
    for _ in 0..50 {
        let mut wrote = false;
        for kind in [VOLUMES, CLAIMS] {
            for key in cluster.keys(kind, Within::All) {
                let plan = cluster.plan(&Binder, &key, at(now));
                wrote |= plan.writes().any(|write| !matches!(write, Write::Event(_)));
                cluster.carry_out(&plan);
            }
        }
        if !wrote {
            return;
        }
    }
    panic!("never settles");
}

fn phase(cluster: &Cluster, kind: Kind, name: &str) -> String {
    let namespace = if kind == CLAIMS { "n" } else { "" };
    let object = cluster.get(kind, namespace, name).unwrap();
    object["status"]["phase"].as_str().unwrap().to_owned()
}

fn told(cluster: &Cluster, reason: &str) -> Option<String> {
    let mut events = cluster.events.iter();
    let event = events.find(|(own, _)| *own == reason);
    event.map(|(_, message)| message.clone())
}

#[test]
fn a_claim_and_a_volume_are_bound_to_each_other() {
    let mut cluster = Cluster::default();
    cluster.put(VOLUMES, volume("v", &json!({})));
    cluster.put(CLAIMS, claim("c", &json!({})));
    settle(&mut cluster, 0);
    let volume = cluster.get(VOLUMES, "", "v").unwrap();
    let claim = cluster.get(CLAIMS, "n", "c").unwrap();
    assert_eq!(volume["spec"]["claimRef"]["uid"], claim["metadata"]["uid"]);
    assert_eq!(volume["spec"]["claimRef"]["kind"], "PersistentVolumeClaim");
    assert_eq!(
        volume["metadata"]["annotations"],
        json!({BOUND_BY_CONTROLLER: "yes"})
    );
    assert_eq!(claim["spec"]["volumeName"], "v");
    assert_eq!(
        claim["metadata"]["annotations"],
        json!({BOUND_BY_CONTROLLER: "yes", BIND_COMPLETED: "yes"})
    );
    assert_eq!(volume["status"]["phase"], "Bound");
    assert_eq!(
        claim["status"],
        json!({"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "5Gi"}})
    );
}

#[test]
fn what_users_bound_is_left_as_theirs() {
    let mut cluster = Cluster::default();
    let reference = json!({"namespace": "n", "name": "c"});
    cluster.put(
        VOLUMES,
        volume("v", &json!({"spec": {"claimRef": reference}})),
    );
    cluster.put(CLAIMS, claim("c", &json!({"spec": {"volumeName": "v"}})));
    settle(&mut cluster, 0);
    let volume = cluster.get(VOLUMES, "", "v").unwrap();
    let claim = cluster.get(CLAIMS, "n", "c").unwrap();
    assert!(!has(&volume, BOUND_BY_CONTROLLER) && !has(&claim, BOUND_BY_CONTROLLER));
    assert_eq!(volume["spec"]["claimRef"]["uid"], claim["metadata"]["uid"]);
    assert_eq!(phase(&cluster, CLAIMS, "c"), "Bound");
}

#[test]
fn a_named_volume_must_do_and_be_free() {
    let mut cluster = Cluster::default();
    cluster.put(
        VOLUMES,
        volume("small", &json!({"spec": {"capacity": {"storage": "1Mi"}}})),
    );
    let other = json!({"namespace": "n", "name": "other", "uid": "o"});
    cluster.put(
        CLAIMS,
        claim(
            "other",
            &json!({"metadata": {"uid": "o"}, "spec": {"volumeName": "taken"}}),
        ),
    );
    cluster.put(
        VOLUMES,
        volume("taken", &json!({"spec": {"claimRef": other}})),
    );
    for (name, wanted) in [("a", "small"), ("b", "taken"), ("c", "missing")] {
        cluster.put(
            CLAIMS,
            claim(name, &json!({"spec": {"volumeName": wanted}})),
        );
    }
    settle(&mut cluster, 0);
    for name in ["a", "b", "c"] {
        assert_eq!(phase(&cluster, CLAIMS, name), "Pending", "{name}");
    }
    let mismatch = "Cannot bind to requested volume \"small\": requested PV is too small";
    assert_eq!(told(&cluster, "VolumeMismatch").as_deref(), Some(mismatch));
    let taken = "volume \"taken\" already bound to a different claim.";
    assert_eq!(told(&cluster, "FailedBinding").as_deref(), Some(taken));
    assert_eq!(phase(&cluster, CLAIMS, "other"), "Bound");
}

#[test]
fn a_claim_that_waits_for_a_pod_says_for_which() {
    let mut cluster = Cluster::default();
    let class = json!({"metadata": {"name": "c"}, "provisioner": "x", "volumeBindingMode": "WaitForFirstConsumer"});
    cluster.put(STORAGE_CLASSES, class);
    cluster.put(VOLUMES, volume("v", &json!({})));
    cluster.put(CLAIMS, claim("c", &json!({})));
    settle(&mut cluster, 0);
    assert_eq!(phase(&cluster, CLAIMS, "c"), "Pending");
    let message = "waiting for first consumer to be created before binding";
    assert_eq!(
        told(&cluster, "WaitForFirstConsumer").as_deref(),
        Some(message)
    );
    let volumes = json!([{"name": "d", "persistentVolumeClaim": {"claimName": "c"}}]);
    let pod = json!({"metadata": {"namespace": "n", "name": "p"}, "spec": {"volumes": volumes}});
    let pod = cluster.put(PODS, pod);
    let woken = cluster.concerned(&Binder, PODS, None, Some(&pod));
    assert_eq!(woken, [Key::new("n", "c")]);
    settle(&mut cluster, 0);
    let message = "waiting for pod p to be scheduled";
    assert_eq!(
        told(&cluster, "WaitForPodScheduled").as_deref(),
        Some(message)
    );
    // The scheduler keeps a volume for it.
    let reference = object::reference(CLAIMS, &cluster.get(CLAIMS, "n", "c").unwrap());
    cluster.merge(
        VOLUMES,
        &Key::new("", "v"),
        &json!({"spec": {"claimRef": reference}}),
    );
    settle(&mut cluster, 0);
    assert_eq!(phase(&cluster, CLAIMS, "c"), "Bound");
}

#[test]
fn a_volume_is_asked_for_and_bound_once_it_is_made() {
    let mut cluster = Cluster::default();
    cluster.put(
        STORAGE_CLASSES,
        json!({"metadata": {"name": "c"}, "provisioner": "csi.example"}),
    );
    cluster.put(CLAIMS, claim("c", &json!({})));
    settle(&mut cluster, 0);
    let waiting = cluster.get(CLAIMS, "n", "c").unwrap();
    assert_eq!(
        waiting["metadata"]["annotations"],
        json!({STORAGE_PROVISIONER: "csi.example", BETA_STORAGE_PROVISIONER: "csi.example"})
    );
    let message = told(&cluster, "ExternalProvisioning").unwrap();
    assert!(
        message.contains("external provisioner 'csi.example'"),
        "{message}"
    );
    let reference = object::reference(CLAIMS, &waiting);
    let made = json!({
        "metadata": {"annotations": {PROVISIONED_BY: "csi.example"}},
        "spec": {"claimRef": reference, "persistentVolumeReclaimPolicy": "Delete"},
    });
    let made = cluster.put(VOLUMES, volume("pvc-1", &made));
    let woken = cluster.concerned(&Binder, VOLUMES, None, Some(&made));
    assert!(woken.contains(&Key::new("n", "c")));
    settle(&mut cluster, 0);
    assert_eq!(phase(&cluster, CLAIMS, "c"), "Bound");
    assert_eq!(phase(&cluster, VOLUMES, "pvc-1"), "Bound");
    // Its claim gone, it is released and its driver deletes it.
    let gone = cluster.get(CLAIMS, "n", "c").unwrap();
    cluster.remove(CLAIMS, &Key::new("n", "c"));
    let woken = cluster.concerned(&Binder, CLAIMS, Some(&gone), None);
    assert!(woken.contains(&Key::new("", "pvc-1")));
    settle(&mut cluster, 0);
    assert_eq!(phase(&cluster, VOLUMES, "pvc-1"), "Released");
}

#[test]
fn a_provisioner_that_nobody_runs_is_told_of() {
    for (class, expected) in [
        (None, "storageclass.storage.k8s.io \"c\" not found"),
        (
            Some("kubernetes.io/no-provisioner"),
            "no volume plugin matched name: kubernetes.io/no-provisioner",
        ),
    ] {
        let mut cluster = Cluster::default();
        if let Some(provisioner) = class {
            let class = json!({"metadata": {"name": "c"}, "provisioner": provisioner});
            cluster.put(STORAGE_CLASSES, class);
        }
        cluster.put(CLAIMS, claim("c", &json!({})));
        settle(&mut cluster, 0);
        assert_eq!(
            told(&cluster, "ProvisioningFailed").as_deref(),
            Some(expected)
        );
    }
}

#[test]
fn a_claim_without_a_class_gets_the_newest_default() {
    let class = |name: &str, created: i64| {
        json!({
            "metadata": {
                "name": name,
                "creationTimestamp": object::time_field(at(created)),
                "annotations": {DEFAULT_CLASS_NAME: "true"},
            },
            "provisioner": "x",
        })
    };
    const DEFAULT_CLASS_NAME: &str = super::super::DEFAULT_CLASS[0];
    let unclassed = || claim("c", &json!({"spec": {"storageClassName": null}}));
    let mut cluster = Cluster::default();
    cluster.put(CLAIMS, unclassed());
    settle(&mut cluster, 0);
    let message = "no persistent volumes available for this claim and no storage class is set";
    assert_eq!(told(&cluster, "FailedBinding").as_deref(), Some(message));
    for (name, created) in [("old", 0), ("b", 5), ("a", 5)] {
        cluster.put(STORAGE_CLASSES, class(name, created));
    }
    let default = cluster.get(STORAGE_CLASSES, "", "a").unwrap();
    let woken = cluster.concerned(&Binder, STORAGE_CLASSES, None, Some(&default));
    assert_eq!(woken, [Key::new("n", "c")]);
    settle(&mut cluster, 0);
    let claim = cluster.get(CLAIMS, "n", "c").unwrap();
    assert_eq!(claim["spec"]["storageClassName"], "a");
    // One that wants none stays without.
    cluster.put(
        CLAIMS,
        super::tests::claim("none", &json!({"spec": {"storageClassName": ""}})),
    );
    settle(&mut cluster, 0);
    let claim = cluster.get(CLAIMS, "n", "none").unwrap();
    assert_eq!(claim["spec"]["storageClassName"], "");
}

#[test]
fn a_claim_whose_volume_is_gone_is_lost() {
    let bound = json!({
        "metadata": {"annotations": {BIND_COMPLETED: "yes"}},
        "spec": {"volumeName": "v"},
        "status": {"phase": "Bound", "capacity": {"storage": "5Gi"}},
    });
    let unnamed = json!({"spec": {"volumeName": null}});
    let elsewhere = json!({"namespace": "n", "name": "x", "uid": "x"});
    for (change, with, reason) in [
        (json!({}), None, "ClaimLost"),
        (unnamed, None, "ClaimLost"),
        (
            json!({}),
            Some(json!({"spec": {"claimRef": elsewhere}, "status": {"phase": "Failed"}})),
            "ClaimMisbound",
        ),
    ] {
        let mut cluster = Cluster::default();
        if let Some(with) = with {
            cluster.put(VOLUMES, volume("v", &with));
        }
        let mut claim = claim("c", &bound);
        nautilus_machinery::patch::merge(&mut claim, &change);
        cluster.put(CLAIMS, claim);
        settle(&mut cluster, 0);
        let claim = cluster.get(CLAIMS, "n", "c").unwrap();
        assert_eq!(claim["status"], json!({"phase": "Lost"}));
        assert!(told(&cluster, reason).is_some(), "{reason}");
    }
}

#[test]
fn a_released_volume_ends_as_its_policy_says() {
    let gone = json!({"namespace": "n", "name": "gone", "uid": "gone"});
    let csi = json!({"driver": "x", "volumeHandle": "h"});
    for (policy, annotations, source, expected, event) in [
        ("Retain", json!({}), json!({}), "Released", None),
        (
            "Recycle",
            json!({}),
            json!({}),
            "Failed",
            Some("VolumeFailedRecycle"),
        ),
        ("Delete", json!({}), json!({"csi": csi}), "Released", None),
        (
            "Delete",
            json!({PROVISIONED_BY: "x"}),
            json!({}),
            "Released",
            None,
        ),
        (
            "Delete",
            json!({PROVISIONED_BY: "kubernetes.io/gce-pd"}),
            json!({}),
            "Released",
            None,
        ),
        (
            "Delete",
            json!({PROVISIONED_BY: "kubernetes.io/x"}),
            json!({}),
            "Failed",
            Some("VolumeFailedDelete"),
        ),
        (
            "Delete",
            json!({}),
            json!({}),
            "Failed",
            Some("VolumeFailedDelete"),
        ),
    ] {
        let mut cluster = Cluster::default();
        let mut change = json!({
            "metadata": {"annotations": annotations},
            "spec": {"claimRef": gone, "persistentVolumeReclaimPolicy": policy},
            "status": {"phase": "Bound"},
        });
        nautilus_machinery::patch::merge(&mut change["spec"], &source);
        cluster.put(VOLUMES, volume("v", &change));
        settle(&mut cluster, 0);
        assert_eq!(
            phase(&cluster, VOLUMES, "v"),
            expected,
            "{policy} {annotations}"
        );
        let seen = cluster.events.first().map(|(reason, _)| *reason);
        assert_eq!(seen, event, "{policy} {annotations}");
    }
}

#[test]
fn a_volume_that_was_just_made_waits_for_its_claim_to_come_into_view() {
    let mut cluster = Cluster::default();
    let reference = json!({"namespace": "n", "name": "c", "uid": "1"});
    cluster.put(
        VOLUMES,
        volume("v", &json!({"spec": {"claimRef": reference}})),
    );
    let key = Key::new("", "v");
    let plan = cluster.plan(&Binder, &key, at(CLAIM_GRACE_S - 3));
    assert!(plan.is_empty());
    assert_eq!(plan.again_in, Some(Duration::from_secs(3)));
    settle(&mut cluster, CLAIM_GRACE_S);
    assert_eq!(phase(&cluster, VOLUMES, "v"), "Released");
}

#[test]
fn a_volume_whose_claim_went_elsewhere_is_free_again() {
    for (annotations, policy, reference, expected) in [
        (
            json!({BOUND_BY_CONTROLLER: "yes"}),
            "Retain",
            false,
            "Available",
        ),
        (json!({}), "Retain", true, "Available"),
        (
            json!({PROVISIONED_BY: "x", BOUND_BY_CONTROLLER: "yes"}),
            "Delete",
            true,
            "Released",
        ),
    ] {
        let mut cluster = Cluster::default();
        cluster.put(VOLUMES, volume("mine", &json!({})));
        cluster.put(CLAIMS, claim("c", &json!({"metadata": {"uid": "1"}})));
        settle(&mut cluster, 0);
        let claimed = json!({"namespace": "n", "name": "c", "uid": "1"});
        let change = json!({
            "metadata": {"annotations": annotations},
            "spec": {"claimRef": claimed, "persistentVolumeReclaimPolicy": policy},
        });
        cluster.put(VOLUMES, volume("other", &change));
        settle(&mut cluster, 0);
        let other = cluster.get(VOLUMES, "", "other").unwrap();
        assert_eq!(
            other["spec"]["claimRef"].is_object(),
            reference,
            "{annotations}"
        );
        assert_eq!(phase(&cluster, VOLUMES, "other"), expected, "{annotations}");
    }
}

#[test]
fn a_volume_that_becomes_free_wakes_the_claims_of_its_class() {
    let mut cluster = Cluster::default();
    for (name, change) in [
        ("mine", json!({})),
        ("other", json!({"spec": {"storageClassName": "d"}})),
        ("bound", json!({"spec": {"volumeName": "x"}})),
    ] {
        cluster.put(CLAIMS, claim(name, &change));
    }
    let before = cluster.put(VOLUMES, volume("v", &json!({})));
    let after = cluster.merge(
        VOLUMES,
        &Key::new("", "v"),
        &json!({"status": {"phase": "Available"}}),
    );
    let woken = cluster.concerned(&Binder, VOLUMES, Some(&before), Some(&after));
    assert_eq!(woken, [Key::new("", "v"), Key::new("n", "mine")]);
}

#[test]
fn a_mode_that_does_not_fit_is_told_to_both() {
    let mut cluster = Cluster::default();
    cluster.put(
        CLAIMS,
        claim(
            "c",
            &json!({"metadata": {"uid": "1"}, "spec": {"volumeMode": "Block"}}),
        ),
    );
    let claimed = json!({"namespace": "n", "name": "c", "uid": "1"});
    cluster.put(
        VOLUMES,
        volume("v", &json!({"spec": {"claimRef": claimed}})),
    );
    let plan = cluster.plan(&Binder, &Key::new("", "v"), at(0));
    cluster.carry_out(&plan);
    assert_eq!(cluster.events.len(), 2);
    assert!(
        told(&cluster, "VolumeMismatch")
            .unwrap()
            .contains("incompatible volumeMode")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    /// In whatever order claims and volumes come and go and are looked at, no volume has
    /// two claims, a bound pair names each other, and as many are bound as can be.
    #[test]
    fn no_volume_has_two_claims(steps in proptest::collection::vec((0_u8..6, 0_usize..4), 1..40)) {
        let mut cluster = Cluster::default();
        for (what, which) in steps {
            let (volume_key, claim_key) = (Key::new("", format!("v{which}")), Key::new("n", format!("c{which}")));
            match what {
                0 if cluster.get(VOLUMES, "", &volume_key.name).is_none() => {
                    cluster.put(VOLUMES, volume(&volume_key.name, &json!({})));
                }
                1 if cluster.get(CLAIMS, "n", &claim_key.name).is_none() => {
                    cluster.put(CLAIMS, claim(&claim_key.name, &json!({})));
                }
                2 => cluster.remove(CLAIMS, &claim_key),
                3 => {
                    let plan = cluster.plan(&Binder, &volume_key, at(100));
                    cluster.carry_out(&plan);
                }
                _ => {
                    let plan = cluster.plan(&Binder, &claim_key, at(100));
                    cluster.carry_out(&plan);
                }
            }
        }
        settle(&mut cluster, 100);
        let claims = cluster.list(CLAIMS, Within::All);
        let mut taken: Vec<&str> = claims.iter().filter_map(|claim| volume_name(claim)).collect();
        let bound = taken.len();
        taken.sort_unstable();
        taken.dedup();
        prop_assert_eq!(taken.len(), bound);
        for claim in claims.iter().filter(|claim| volume_name(claim).is_some()) {
            prop_assert_eq!(&claim["status"]["phase"], "Bound");
            let volume = cluster.get(VOLUMES, "", volume_name(claim).unwrap()).unwrap();
            prop_assert_eq!(&volume["spec"]["claimRef"]["uid"], &claim["metadata"]["uid"]);
            prop_assert_eq!(&volume["status"]["phase"], "Bound");
        }
        let free = cluster.list(VOLUMES, Within::All);
        let free = free.iter().filter(|volume| volume["status"]["phase"] == "Available").count();
        prop_assert!(free == 0 || claims.len() == bound);
    }
}
