//! Pods with templates of claims, and claims whose pods end.

use super::*;
use crate::testing::{Cluster, at};

fn pod(change: &Value) -> Value {
    let mut pod = json!({
        "metadata": {"namespace": "n", "name": "p", "uid": "1"},
        "spec": {"resourceClaims": [
            {"name": "gpu", "resourceClaimTemplateName": "t"},
            {"name": "net", "resourceClaimName": "shared"},
        ]},
        "status": {"phase": "Pending"},
    });
    nautilus_machinery::patch::merge(&mut pod, change);
    pod
}

fn template() -> Value {
    json!({
        "metadata": {"namespace": "n", "name": "t"},
        "spec": {
            "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
            "spec": {"devices": {"requests": [{"name": "r"}]}},
        },
    })
}

fn claim(name: &str, change: &Value) -> Value {
    let mut claim = json!({"metadata": {"namespace": "n", "name": name}, "status": {}});
    nautilus_machinery::patch::merge(&mut claim, change);
    claim
}

fn allocated(pods: &[(&str, &str)]) -> Value {
    let reserved: Vec<Value> = pods
        .iter()
        .map(|(name, uid)| json!({"resource": "pods", "name": name, "uid": uid}))
        .collect();
    json!({
        "metadata": {"finalizers": [FINALIZER]},
        "status": {"allocation": {"devices": {}}, "reservedFor": reserved},
    })
}

fn settle(cluster: &mut Cluster, name: &str) {
    cluster.settle(&DeviceClaims, &Key::new("n", name), at(0));
}

#[test]
fn a_pod_gets_one_claim_of_its_template_and_is_told_its_name() {
    let mut cluster = Cluster::default();
    cluster.put(DEVICE_CLAIM_TEMPLATES, template());
    cluster.put(PODS, pod(&json!({})));
    settle(&mut cluster, "p");
    let claims = cluster.list(DEVICE_CLAIMS, Within::All);
    assert_eq!(claims.len(), 1);
    let claim = &claims[0];
    assert!(object::name(claim).starts_with("p-gpu-"));
    assert_eq!(
        claim["spec"],
        json!({"devices": {"requests": [{"name": "r"}]}})
    );
    assert_eq!(claim["metadata"]["labels"], json!({"a": "b"}));
    assert_eq!(
        claim["metadata"]["annotations"],
        json!({"c": "d", POD_CLAIM: "gpu"})
    );
    assert!(object::is_controlled_by(claim, "1"));
    let statuses = json!([{"name": "gpu", "resourceClaimName": object::name(claim)}]);
    let pod = cluster.get(PODS, "n", "p").unwrap();
    assert_eq!(pod["status"]["resourceClaimStatuses"], statuses);
    // Lost, it is made again.
    let gone = claim.clone();
    cluster.remove(DEVICE_CLAIMS, &Key::of(&gone));
    let woken = cluster.concerned(&DeviceClaims, DEVICE_CLAIMS, Some(&gone), None);
    assert_eq!(woken, vec![Key::new("n", "p")]);
    settle(&mut cluster, "p");
    let claims = cluster.list(DEVICE_CLAIMS, Within::All);
    assert_eq!(claims.len(), 1);
    assert_ne!(object::name(&claims[0]), object::name(&gone));
}

#[test]
fn a_template_that_is_missing_is_told_of_and_waited_for() {
    let mut cluster = Cluster::default();
    cluster.put(PODS, pod(&json!({})));
    let plan = cluster.plan(&DeviceClaims, &Key::new("n", "p"), at(0));
    cluster.carry_out(&plan);
    let expected = "PodResourceClaim gpu: resource claim template \"t\": resourceclaimtemplate.resource.k8s.io \"t\" not found";
    assert_eq!(
        cluster.events,
        [("FailedResourceClaimCreation", expected.to_owned())]
    );
    let template = cluster.put(DEVICE_CLAIM_TEMPLATES, template());
    let woken = cluster.concerned(&DeviceClaims, DEVICE_CLAIM_TEMPLATES, None, Some(&template));
    assert_eq!(woken, vec![Key::new("n", "p")]);
}

#[test]
fn long_names_are_shortened_alike() {
    for (pod, claim, expected) in [
        ("p".to_owned(), "c", "p-c-".to_owned()),
        ("p".repeat(60), "claim", format!("{}-clai", "p".repeat(51))),
    ] {
        let pod = json!({"metadata": {"name": pod}});
        let base = base_name(&pod, claim);
        assert_eq!(base, expected);
        assert!(base.len() <= MAX_BASE_BYTES);
    }
}

#[test]
fn a_pod_on_a_node_has_its_allocated_claims_reserved() {
    let mut cluster = Cluster::default();
    cluster.put(DEVICE_CLAIM_TEMPLATES, template());
    cluster.put(PODS, pod(&json!({"spec": {"nodeName": "a"}})));
    cluster.put(DEVICE_CLAIMS, claim("shared", &allocated(&[("q", "2")])));
    settle(&mut cluster, "p");
    let shared = cluster.get(DEVICE_CLAIMS, "n", "shared").unwrap();
    let consumers = json!([
        {"resource": "pods", "name": "q", "uid": "2"},
        {"resource": "pods", "name": "p", "uid": "1"},
    ]);
    assert_eq!(shared["status"]["reservedFor"], consumers);
}

#[test]
fn reservations_go_with_their_pods_and_devices_with_the_last() {
    for (pods, kept, is_allocated) in [
        (vec![("p", "1"), ("gone", "3")], vec!["1"], true),
        (vec![("p", "old")], vec![], false),
        (vec![("done", "2")], vec![], false),
        (vec![("p", "1")], vec!["1"], true),
    ] {
        let mut cluster = Cluster::default();
        cluster.put(PODS, pod(&json!({"spec": {"nodeName": "a"}})));
        let done =
            json!({"metadata": {"name": "done", "uid": "2"}, "status": {"phase": "Succeeded"}});
        cluster.put(PODS, pod(&done));
        cluster.put(DEVICE_CLAIMS, claim("c", &allocated(&pods)));
        settle(&mut cluster, "claim/c");
        let claim = cluster.get(DEVICE_CLAIMS, "n", "c").unwrap();
        let reserved = object::items(&claim["status"]["reservedFor"]);
        let uids: Vec<&Value> = reserved.map(|own| &own["uid"]).collect();
        assert_eq!(uids, kept, "{pods:?}");
        assert_eq!(
            claim["status"]["allocation"].is_object(),
            is_allocated,
            "{pods:?}"
        );
        let is_held = object::items(&claim["metadata"]["finalizers"]).count() > 0;
        assert_eq!(is_held, is_allocated, "{pods:?}");
    }
}

#[test]
fn an_allocation_that_nobody_reserved_stays_until_the_claim_ends() {
    let mut cluster = Cluster::default();
    cluster.put(DEVICE_CLAIMS, claim("c", &allocated(&[])));
    settle(&mut cluster, "claim/c");
    let key = Key::new("n", "c");
    assert!(cluster.get(DEVICE_CLAIMS, "n", "c").unwrap()["status"]["allocation"].is_object());
    let ending = json!({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}});
    cluster.merge(DEVICE_CLAIMS, &key, &ending);
    settle(&mut cluster, "claim/c");
    // Nothing holds it any more.
    assert!(cluster.get(DEVICE_CLAIMS, "n", "c").is_none());
}

#[test]
fn a_claim_made_for_a_pod_goes_when_the_pod_is_done() {
    for (phase, expected) in [("Running", true), ("Failed", false)] {
        let mut cluster = Cluster::default();
        let pod = cluster.put(PODS, pod(&json!({"status": {"phase": phase}})));
        let owner = json!([object::controller_reference(PODS, &pod)]);
        cluster.put(
            DEVICE_CLAIMS,
            claim("c", &json!({"metadata": {"ownerReferences": owner}})),
        );
        settle(&mut cluster, "claim/c");
        let is_there = cluster.get(DEVICE_CLAIMS, "n", "c").is_some();
        assert_eq!(is_there, expected, "{phase}");
    }
}

#[test]
fn a_pod_that_ends_wakes_its_claims() {
    let mut cluster = Cluster::default();
    let statuses =
        json!({"status": {"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "g"}]}});
    let before = cluster.put(PODS, pod(&statuses));
    let woken = cluster.concerned(&DeviceClaims, PODS, Some(&before), None);
    assert_eq!(woken, vec![claim_key("n", "g"), claim_key("n", "shared")]);
    let woken = cluster.concerned(&DeviceClaims, PODS, None, Some(&before));
    assert_eq!(woken, vec![Key::new("n", "p")]);
}
