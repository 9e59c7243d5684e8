//! Charges and counts agree, and refusals read as the reference's.

#![allow(
    clippy::needless_pass_by_value,
    reason = "objects are written where they are used"
)]

use nautilus_machinery::identity::User;
use nautilus_machinery::resource::find;
use proptest::prelude::*;

use super::*;

fn pods() -> &'static Resource {
    find("", "v1", "pods").expect("pods are served")
}

fn asked(user: &User) -> Attributes<'_> {
    Attributes {
        operation: Operation::Create,
        resource: pods(),
        subresource: None,
        namespace: Some("a"),
        name: "web",
        field_manager: "",
        user,
        dry_run: false,
        old: None,
    }
}

fn quota(hard: Value, used: Value, scopes: Value) -> Value {
    json!({
        "metadata": {"name": "q"},
        "spec": {"hard": hard, "scopes": scopes},
        "status": {"hard": hard, "used": used},
    })
}

fn pod(cpu: &str) -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"containers": [
        {"name": "c", "resources": {"requests": {"cpu": cpu}}},
    ]}})
}

#[test]
fn a_pod_beyond_the_hard_limit_is_refused_with_the_sums() {
    let user = User::anonymous();
    let quota = quota(
        json!({"pods": "1", "requests.cpu": "1"}),
        json!({"pods": "1", "requests.cpu": "600m"}),
        json!(null),
    );
    let error = charge(&asked(&user), &pod("500m"), &[quota], 0).expect_err("it is too much");
    assert_eq!(
        error.message(),
        "pods \"web\" is forbidden: exceeded quota: q, requested: pods=1,requests.cpu=500m, used: \
         pods=1,requests.cpu=600m, limited: pods=1,requests.cpu=1"
    );
}

#[test]
fn a_container_that_does_not_say_what_it_takes_fails_a_quota_on_it() {
    let user = User::anonymous();
    let quota = quota(
        json!({"limits.cpu": "1"}),
        json!({"limits.cpu": "0"}),
        json!(null),
    );
    let error = charge(&asked(&user), &pod("500m"), &[quota], 0).expect_err("no limit is said");
    assert_eq!(
        error.message(),
        "pods \"web\" is forbidden: failed quota: q: must specify limits.cpu for: c"
    );
}

#[test]
fn a_quota_that_was_never_counted_lets_nothing_pass() {
    let user = User::anonymous();
    let quota = quota(json!({"pods": "1"}), json!({}), json!(null));
    let error = charge(&asked(&user), &pod("1"), &[quota], 0).expect_err("usage is unknown");
    assert_eq!(
        error.message(),
        "pods \"web\" is forbidden: status unknown for quota: q, resources: pods"
    );
}

#[test]
fn a_pod_out_of_scope_is_not_charged() {
    let user = User::anonymous();
    let quota = quota(
        json!({"pods": "0"}),
        json!({"pods": "0"}),
        json!(["BestEffort"]),
    );
    let charged = charge(&asked(&user), &pod("1"), &[quota], 0);
    assert!(charged.expect("it is out of scope").is_empty());
}

#[test]
fn names_are_tracked_by_the_kind_they_are_about() {
    let services = find("", "v1", "services").expect("services are served");
    assert!(usage::tracks(pods(), "requests.example.com/dongle"));
    assert!(usage::tracks(pods(), "count/pods"));
    assert!(!usage::tracks(pods(), "requests.storage"));
    assert!(usage::tracks(services, "services.nodeports"));
    assert!(!usage::tracks(services, "pods"));
}

proptest! {
    /// Whatever is made and refused, the charges add up to a count of what is there.
    #[test]
    fn charges_equal_a_recount(
        sizes in prop::collection::vec(0_u32..2000, 0..30), hard in 0_u32..8000,
    ) {
        let user = User::anonymous();
        let zero = json!({"pods": "0", "requests.cpu": "0"});
        let limit = json!({"pods": "20", "requests.cpu": format!("{hard}m")});
        let mut quota = quota(limit, zero, json!(null));
        let mut stored = Vec::new();
        for size in sizes {
            let pod = pod(&format!("{size}m"));
            if let Ok(changed) = charge(&asked(&user), &pod, std::slice::from_ref(&quota), 0) {
                for (_, charged) in changed {
                    quota = charged;
                }
                stored.push(pod);
            }
        }
        let status = recount(&quota, [pods()], 0, |_| stored.clone(), |_| 0);
        prop_assert!(same_status(&status, &quota["status"]), "{status} {quota}");
        let used = resources(&quota["status"]["used"]);
        let hard = resources(&quota["status"]["hard"]);
        prop_assert!(used.iter().all(|(name, amount)| *amount <= hard[name]));
    }
}
