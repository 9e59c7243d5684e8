//! An operator on controller-runtime: reconciling, owned objects, finalizers and a leader
//! among replicas (`tests/e2e/cmd/operator`).

use std::process::Command;

use nautilus_tests::{Quorum, Streamed, eventually, program};

fn replica(quorum: &Quorum, name: &str) -> Streamed {
    let mut command = Command::new(program("operator"));
    command.arg(quorum.dir().join("kubeconfig")).arg(name);
    Streamed::start(command)
}

#[test]
fn an_operator_settles_its_objects_and_hands_over_its_lead() {
    let quorum = Quorum::start();
    let mut first = replica(&quorum, "one");
    first.wait_for("the lead", |line| line == "leading one");
    let mut second = replica(&quorum, "two");
    let kubectl = |words: &[&str]| quorum.kubectl_ok(words);
    kubectl(&[
        "create",
        "configmap",
        "shop",
        "--from-literal=replicas=2",
        "--from-literal=image=web:1",
    ]);
    kubectl(&["label", "configmap", "shop", "site=x"]);
    first.wait_for("the site", |line| line == "settled shop 2 of web:1");
    let replicas = [
        "get",
        "deployment",
        "shop",
        "-o",
        "jsonpath={.spec.replicas}",
    ];
    assert_eq!(kubectl(&replicas), "2");
    assert!(kubectl(&["get", "service", "shop", "-o", "name"]).contains("service/shop"));

    // What another changes is put right again.
    kubectl(&["scale", "deployment", "shop", "--replicas=7"]);
    eventually("the operator's replicas", || {
        match kubectl(&replicas).as_str() {
            "2" => Ok(()),
            other => Err(other.to_owned()),
        }
    });

    // The leader goes; the other takes over, and does what is new.
    drop(first);
    second.wait_for("the lead", |line| line == "leading two");
    kubectl(&[
        "patch",
        "configmap",
        "shop",
        "--type=merge",
        "-p",
        r#"{"data":{"replicas":"3"}}"#,
    ]);
    second.wait_for("the site", |line| line == "settled shop 3 of web:1");

    // What was owned goes with its owner, once the finalizer lets it.
    kubectl(&["delete", "configmap", "shop", "--timeout=60s"]);
    eventually("the end of what was owned", || {
        let left = kubectl(&["get", "deployment,service", "-l", "app!=x", "-o", "name"]);
        match left.contains("/shop") {
            true => Err(left),
            false => Ok(()),
        }
    });
}
