//! An operator on controller-runtime (`tests/e2e/cmd/operator`): a kind in two versions that its
//! webhook converts, defaults and checks by webhooks, reconciling, owned objects, finalizers,
//! and a leader among replicas; over the death of the quorum's leader, and of its own.

use std::process::Command;

use nautilus_tests::{Quorum, Streamed, eventually, program};

/// A site in the version of old, without what is defaulted.
const SHOP: &str = r#"{"apiVersion":"sites.example.org/v1alpha1","kind":"Site",
    "metadata":{"name":"shop"},"spec":{"image":{"name":"web"}}}"#;

/// More than the operator allows.
const CROWD: &str = r#"{"apiVersion":"sites.example.org/v1","kind":"Site",
    "metadata":{"name":"crowd"},"spec":{"image":"web:1","replicas":10}}"#;

fn replica(quorum: &Quorum, name: &str) -> Streamed {
    let mut command = Command::new(program("operator"));
    command.arg(quorum.dir().join("kubeconfig")).arg(name);
    Streamed::start(command)
}

/// What an object says under a JSON path.
fn field(quorum: &Quorum, object: &[&str], path: &str) -> String {
    let path = format!("jsonpath={path}");
    quorum.kubectl_ok(&[&["get"], object, &["-o", &path]].concat())
}

/// Patches the shop in `version` by merging.
fn patch(quorum: &Quorum, version: &str, merged: &str) {
    let kind = format!("sites.{version}.sites.example.org");
    quorum.kubectl_ok(&["patch", &kind, "shop", "--type=merge", "-p", merged]);
}

#[test]
fn an_operator_goes_on_over_the_death_of_both_leaders() {
    let quorum = Quorum::start();
    let mut first = replica(&quorum, "one");
    first.wait_for("the lead", |line| line == "leading one");
    let mut second = replica(&quorum, "two");

    // Defaulted, warned of, stored in the one version and shown in either.
    let made = eventually("the definition and its webhooks", || {
        let made = quorum.kubectl_with_input(&["create", "-f", "-"], SHOP);
        made.status
            .success()
            .then_some(made)
            .ok_or_else(String::new)
    });
    let warned = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(warned.contains("v1alpha1 Site is deprecated"), "{warned}");
    first.wait_for("the site", |line| line == "settled shop 1 of web:latest");
    let new = ["sites.v1.sites.example.org", "shop"];
    let old = ["sites.v1alpha1.sites.example.org", "shop"];
    let both = |replicas: &str, tag: &str| {
        assert_eq!(field(&quorum, &new, "{.spec.replicas}"), replicas);
        assert_eq!(field(&quorum, &new, "{.spec.image}"), format!("web:{tag}"));
        assert_eq!(field(&quorum, &old, "{.spec.count}"), replicas);
        assert_eq!(field(&quorum, &old, "{.spec.image.tag}"), tag);
        assert_eq!(field(&quorum, &old, "{.metadata.name}"), "shop");
    };
    both("1", "latest");
    assert_eq!(
        field(&quorum, &old, "{.status.conditions[0].type}"),
        "Settled"
    );

    // Refused, with the field, however it is written.
    let refused = quorum.kubectl_with_input(&["create", "-f", "-"], CROWD);
    let reason = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        reason.contains("spec.replicas: Invalid value: 10: at most 9"),
        "{reason}"
    );
    let merged = r#"{"spec":{"count":10}}"#;
    let crowded = quorum.kubectl(&["patch", old[0], "shop", "--type=merge", "-p", merged]);
    let reason = String::from_utf8_lossy(&crowded.stderr).into_owned();
    assert!(reason.contains("spec.replicas"), "{reason}");
    quorum.kubectl_ok(&["annotate", "site", "shop", "sites.example.org/keep=1"]);
    let kept = quorum.kubectl(&["delete", "site", "shop"]);
    let reason = String::from_utf8_lossy(&kept.stderr).into_owned();
    assert!(reason.contains("shop is to be kept"), "{reason}");
    quorum.kubectl_ok(&["annotate", "site", "shop", "sites.example.org/keep-"]);

    // What another changes is put right again.
    let deployment = ["deployment", "shop"];
    quorum.kubectl_ok(&["scale", "deployment", "shop", "--replicas=7"]);
    let replicas = |wanted: &str| {
        eventually("the operator's replicas", || {
            let found = field(&quorum, &deployment, "{.spec.replicas}");
            (found == wanted).then_some(()).ok_or(found)
        });
    };
    replicas("1");

    // The quorum's leader dies; the operator keeps its lead and goes on.
    let lead = ["lease", "sites"];
    let transitions = field(&quorum, &lead, "{.spec.leaseTransitions}");
    quorum.kill(&quorum.leader());
    quorum.leader();
    patch(&quorum, "v1", r#"{"spec":{"replicas":2,"image":"web:1"}}"#);
    first.wait_for("the site", |line| line == "settled shop 2 of web:1");
    replicas("2");
    both("2", "1");
    assert_eq!(
        field(&quorum, &lead, "{.spec.leaseTransitions}"),
        transitions
    );

    // The operator's leader dies; the other takes over, the webhooks too.
    drop(first);
    second.wait_for("the lead", |line| line == "leading two");
    eventually("the webhooks of the other", || {
        let merged = r#"{"spec":{"count":3,"image":{"tag":null}}}"#;
        let words = ["patch", old[0], "shop", "--type=merge", "-p", merged];
        let patched = quorum.kubectl(&words);
        patched
            .status
            .success()
            .then_some(())
            .ok_or_else(String::new)
    });
    second.wait_for("the site", |line| line == "settled shop 3 of web:latest");
    both("3", "latest");

    // What was owned goes with its owner, once the finalizer lets it; and what was defined
    // with its definition.
    quorum.kubectl_ok(&["delete", "site", "shop", "--timeout=60s"]);
    second.wait_for("the release", |line| line == "released shop");
    eventually("the end of what was owned", || {
        let left = quorum.kubectl_ok(&["get", "deployment,service", "-o", "name"]);
        (!left.contains("/shop")).then_some(()).ok_or(left)
    });
    let again = quorum.kubectl_with_input(&["create", "-f", "-"], SHOP);
    assert!(again.status.success());
    second.wait_for("the site", |line| line == "settled shop 1 of web:latest");
    quorum.kubectl_ok(&["delete", "crd", "sites.sites.example.org", "--timeout=60s"]);
    second.wait_for("the release", |line| line == "released shop");
}
