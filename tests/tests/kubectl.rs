//! An unmodified kubectl against the quorum: what an operator does in the first
//! hour, on every node.

use nautilus_tests::{Quorum, Streamed, eventually};

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: applied
  labels: {app: web}
spec:
  containers:
  - name: web
    image: registry.example/web:1.0
    ports: [{containerPort: 80}]
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: applied
data:
  colour: green
  shape: round
---
apiVersion: v1
kind: Service
metadata:
  name: applied
spec:
  selector: {app: web}
  ports: [{port: 80}]
"#;

#[test]
fn the_first_hour_with_kubectl() {
    let quorum = Quorum::start();

    // Protobuf bodies (`create`), JSON bodies (`run`), tables (`get`).
    quorum.kubectl_ok(&["create", "namespace", "a"]);
    quorum.kubectl_ok(&["-n", "a", "create", "configmap", "c", "--from-literal=k=v"]);
    quorum.kubectl_ok(&[
        "-n",
        "a",
        "create",
        "secret",
        "generic",
        "s",
        "--from-literal=k=v",
    ]);
    quorum.kubectl_ok(&["-n", "a", "create", "serviceaccount", "robot"]);
    quorum.kubectl_ok(&[
        "-n",
        "a",
        "create",
        "service",
        "clusterip",
        "svc",
        "--tcp=80:8080",
    ]);
    quorum.kubectl_ok(&["-n", "a", "run", "web", "--image=registry.example/web:1.0"]);

    let pods = quorum.kubectl_ok(&["get", "pods", "-A"]);
    let lines: Vec<&str> = pods.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    );
    assert_eq!(
        lines[1].split_whitespace().take(5).collect::<Vec<_>>(),
        ["a", "web", "0/1", "Pending", "0"]
    );
    let wide = quorum.kubectl_ok(&["get", "pods", "-n", "a", "-o", "wide"]);
    assert!(wide.contains("NOMINATED NODE"), "{wide}");

    // Every node answers, and reads what was written through any other.
    for node in 1..=3 {
        let name = format!("through-{node}");
        quorum.kubectl_on(node, &["-n", "a", "create", "configmap", &name]);
        for other in 1..=3 {
            quorum.kubectl_on(other, &["-n", "a", "get", "configmap", &name]);
        }
    }

    // A secret's value comes back; the service got its port's defaults.
    let value = quorum.kubectl_ok(&["-n", "a", "get", "secret", "s", "-o", "jsonpath={.data.k}"]);
    assert_eq!(value, "dg==");
    let service = quorum.kubectl_ok(&[
        "-n",
        "a",
        "get",
        "svc",
        "svc",
        "-o",
        "jsonpath={.spec.type} {.spec.ports[0].protocol} {.spec.ports[0].targetPort}",
    ]);
    assert_eq!(service, "ClusterIP TCP 8080");

    let resources = quorum.kubectl_ok(&["api-resources"]);
    for kind in [
        "pods",
        "configmaps",
        "namespaces",
        "leases",
        "events",
        "serviceaccounts",
    ] {
        assert!(resources.contains(kind), "{kind} is not in\n{resources}");
    }
    let version = quorum.kubectl_ok(&["version"]);
    assert!(version.contains("Server Version: v1.37"), "{version}");
    assert!(
        quorum
            .kubectl_ok(&["explain", "pod.spec.containers"])
            .contains("terminationMessagePath")
    );
    assert!(
        quorum
            .kubectl_ok(&["get", "--raw", "/readyz"])
            .contains("ok")
    );
}

#[test]
fn apply_patch_label_and_delete() {
    let quorum = Quorum::start();
    let apply = |text: &str| {
        let output = quorum.kubectl_with_input(&["apply", "-f", "-"], text);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{printed}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        printed
    };
    assert_eq!(apply(PODS).matches("created").count(), 3);
    assert_eq!(apply(PODS).matches("unchanged").count(), 3);
    // A key that the manifest no longer names goes away, one that it changes changes.
    let changed = PODS
        .replace("  shape: round\n", "")
        .replace("green", "blue");
    assert_eq!(apply(&changed).matches("configured").count(), 1);
    assert_eq!(
        quorum.kubectl_ok(&["get", "cm", "applied", "-o", "jsonpath={.data}"]),
        r#"{"colour":"blue"}"#
    );

    quorum.kubectl_ok(&["label", "pod", "applied", "tier=front"]);
    quorum.kubectl_ok(&["annotate", "pod", "applied", "note=x"]);
    quorum.kubectl_ok(&[
        "patch",
        "cm",
        "applied",
        "--type=merge",
        "-p",
        r#"{"data":{"a":"1"}}"#,
    ]);
    quorum.kubectl_ok(&[
        "patch",
        "cm",
        "applied",
        "--type=json",
        "-p",
        r#"[{"op":"replace","path":"/data/a","value":"2"}]"#,
    ]);
    // The strategic merge finds the container by its name.
    quorum.kubectl_ok(&[
        "patch",
        "pod",
        "applied",
        "-p",
        r#"{"spec":{"containers":[{"name":"web","image":"registry.example/web:2.0"}]}}"#,
    ]);
    let selected = quorum.kubectl_ok(&[
        "get",
        "pods",
        "-l",
        "tier=front,app in (web)",
        "--field-selector=status.phase=Pending",
        "-o",
        "jsonpath={.items[*].spec.containers[*].image}",
    ]);
    assert_eq!(selected, "registry.example/web:2.0");
    assert_eq!(
        quorum.kubectl_ok(&["get", "cm", "applied", "-o", "jsonpath={.data.a}"]),
        "2"
    );

    // A stale copy is refused with the phrase that clients match on.
    let stale = quorum.kubectl_ok(&["get", "cm", "applied", "-o", "json"]);
    quorum.kubectl_ok(&["annotate", "cm", "applied", "changed=since"]);
    let refused = quorum.kubectl_with_input(&["replace", "-f", "-"], &stale);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        message.contains(
            "the object has been modified; please apply your changes to the latest version and try again"
        ),
        "{message}"
    );

    quorum.kubectl_ok(&["delete", "pod", "applied", "--timeout=30s"]);
    quorum.kubectl_ok(&["delete", "cm,svc", "applied"]);
    let gone = quorum.kubectl(&["get", "pod", "applied"]);
    assert!(
        String::from_utf8_lossy(&gone.stderr).contains(r#"pods "applied" not found"#),
        "{gone:?}"
    );
}

#[test]
fn a_deleted_namespace_takes_its_content_along() {
    let quorum = Quorum::start();
    quorum.kubectl_ok(&["create", "namespace", "short"]);
    quorum.kubectl_ok(&["-n", "short", "create", "configmap", "c"]);
    quorum.kubectl_ok(&["delete", "namespace", "short", "--timeout=50s"]);
    let left = quorum.kubectl(&["get", "configmap", "-n", "short", "c"]);
    assert!(!left.status.success(), "{left:?}");
    let refused = quorum.kubectl(&["-n", "short", "create", "configmap", "late"]);
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains(r#"namespaces "short" not found"#),
        "{refused:?}"
    );
}

#[test]
fn unknown_fields_are_refused_by_name() {
    let quorum = Quorum::start();
    let refused = quorum.kubectl_with_input(
        &["create", "-f", "-"],
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"dtaa":{"a":"b"}}"#,
    );
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains(r#"unknown field "dtaa""#), "{message}");
    // The server's own judgement, by field.
    let invalid = quorum.kubectl_with_input(
        &["create", "--validate=false", "-f", "-"],
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"},"spec":{"containers":[]}}"#,
    );
    let message = String::from_utf8_lossy(&invalid.stderr).into_owned();
    assert!(
        message.contains("spec.containers: Required value"),
        "{message}"
    );
}

#[test]
fn watches_print_what_happens_as_it_happens() {
    let quorum = Quorum::start();
    let mut watch = Streamed::start(quorum.kubectl_command(&["get", "pods", "-A", "-w"]));
    quorum.kubectl_ok(&["run", "first", "--image=registry.example/web:1.0"]);
    watch.wait_for("the first pod", |line| line.contains("first"));
    quorum.kubectl_ok(&["delete", "pod", "first", "--wait=false"]);
    quorum.kubectl_ok(&["run", "second", "--image=registry.example/web:1.0"]);
    watch.wait_for("the second pod", |line| line.contains("second"));
    eventually("the first pod's end", || {
        let output = quorum.kubectl(&["get", "pod", "first"]);
        if output.status.success() {
            Err("it is still there".into())
        } else {
            Ok(())
        }
    });
}
