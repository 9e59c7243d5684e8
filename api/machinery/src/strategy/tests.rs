//! Objects before and after their strategies.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::resource::find;

const CONTEXT: Context<'static> = Context {
    now: "2026-01-01T00:00:00Z",
    uid: "u-1",
    name_suffix: "abcde",
    namespace: Some("a"),
    user: "admin",
    field_manager: "test",
};

fn resource(plural: &str) -> &'static Resource {
    find("", "v1", plural).expect("served")
}

fn create(plural: &str, mut object: Value) -> Value {
    before_create(resource(plural), &mut object, &CONTEXT).expect("a good object");
    object
}

fn refusal(plural: &str, mut object: Value) -> String {
    match before_create(resource(plural), &mut object, &CONTEXT) {
        Ok(()) => format!("accepted: {object}"),
        Err(error) => format!("{} {}", error.code(), error.message()),
    }
}

fn update(
    plural: &str,
    sub: Option<&str>,
    old: &Value,
    new: &Value,
) -> Result<(Change, Value), ApiError> {
    let mut new = new.clone();
    before_update(resource(plural), sub, old, &mut new, &CONTEXT).map(|change| (change, new))
}

fn pod() -> Value {
    create(
        "pods",
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}),
    )
}

fn with(object: &Value, path: &str, value: Value) -> Value {
    let mut object = object.clone();
    let mut at = &mut object;
    for part in path.split('.') {
        at = match part.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[part],
        };
    }
    *at = value;
    object
}

fn check(actual: &Value, expected: &Expect) {
    expected.assert_eq(&serde_json::to_string_pretty(actual).expect("JSON"));
}

#[test]
fn a_bare_pod_gets_the_defaults_of_a_stock_server() {
    check(
        &pod(),
        &expect![[r#"
            {
              "metadata": {
                "name": "p",
                "namespace": "a",
                "uid": "u-1",
                "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z"
              },
              "spec": {
                "containers": [
                  {
                    "name": "c",
                    "image": "nginx",
                    "resources": {},
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                    "imagePullPolicy": "Always"
                  }
                ],
                "restartPolicy": "Always",
                "terminationGracePeriodSeconds": 30,
                "dnsPolicy": "ClusterFirst",
                "securityContext": {},
                "schedulerName": "default-scheduler",
                "enableServiceLinks": true
              },
              "status": {
                "phase": "Pending",
                "qosClass": "BestEffort"
              }
            }"#]],
    );
}

#[test]
fn a_rich_pod_gets_its_probes_volumes_and_resources_filled_in() {
    let pod = create(
        "pods",
        json!({"metadata": {"generateName": "web-"}, "spec": {
            "containers": [{
                "name": "c", "image": "nginx:1.2",
                "livenessProbe": {"httpGet": {"port": 80}},
                "ports": [{"containerPort": 80}],
                "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                "volumeMounts": [{"name": "s", "mountPath": "/s"}],
            }],
            "volumes": [{"name": "s", "secret": {"secretName": "s"}}, {"name": "e"}],
        }}),
    );
    assert_eq!(pod["metadata"]["name"], "web-abcde");
    assert_eq!(
        pod["status"],
        json!({"phase": "Pending", "qosClass": "Guaranteed"})
    );
    check(
        &json!([pod["spec"]["containers"], pod["spec"]["volumes"]]),
        &expect![[r#"
            [
              [
                {
                  "name": "c",
                  "image": "nginx:1.2",
                  "ports": [
                    {
                      "containerPort": 80,
                      "protocol": "TCP"
                    }
                  ],
                  "env": [
                    {
                      "name": "N",
                      "valueFrom": {
                        "fieldRef": {
                          "apiVersion": "v1",
                          "fieldPath": "metadata.name"
                        }
                      }
                    }
                  ],
                  "resources": {
                    "limits": {
                      "cpu": "1",
                      "memory": "1Gi"
                    },
                    "requests": {
                      "cpu": "1",
                      "memory": "1Gi"
                    }
                  },
                  "volumeMounts": [
                    {
                      "name": "s",
                      "mountPath": "/s"
                    }
                  ],
                  "livenessProbe": {
                    "httpGet": {
                      "path": "/",
                      "port": 80,
                      "scheme": "HTTP"
                    },
                    "timeoutSeconds": 1,
                    "periodSeconds": 10,
                    "successThreshold": 1,
                    "failureThreshold": 3
                  },
                  "terminationMessagePath": "/dev/termination-log",
                  "terminationMessagePolicy": "File",
                  "imagePullPolicy": "IfNotPresent"
                }
              ],
              [
                {
                  "name": "s",
                  "secret": {
                    "secretName": "s",
                    "defaultMode": 420
                  }
                },
                {
                  "name": "e",
                  "emptyDir": {}
                }
              ]
            ]"#]],
    );
}

#[test]
fn bad_pods_are_refused_in_the_words_of_the_reference() {
    let good = || json!({"name": "c", "image": "i"});
    let spec = |spec: Value| json!({"metadata": {"name": "p"}, "spec": spec});
    let container = |key: &str, value: Value| {
        let mut container = good();
        container[key] = value;
        spec(json!({"containers": [container]}))
    };
    let messages = [
        refusal("pods", json!({"metadata": {"name": "p"}})),
        refusal(
            "pods",
            json!({"metadata": {}, "spec": {"containers": [good()]}}),
        ),
        refusal(
            "pods",
            json!({"metadata": {"name": "P_1"}, "spec": {"containers": [good()]}}),
        ),
        refusal(
            "pods",
            json!({"metadata": {"name": "p", "namespace": "b"}, "spec": {"containers": [good()]}}),
        ),
        refusal(
            "pods",
            json!({"metadata": {"name": "p", "labels": {"-a": "b c"}}, "spec": {"containers": [good()]}}),
        ),
        refusal("pods", spec(json!({"containers": [{"name": "c"}]}))),
        refusal("pods", spec(json!({"containers": [good(), good()]}))),
        refusal(
            "pods",
            spec(json!({"containers": [good()], "restartPolicy": "Sometimes"})),
        ),
        refusal(
            "pods",
            container("ports", json!([{"containerPort": 70000, "name": "UP"}])),
        ),
        refusal("pods", container("env", json!([{"name": "a=b"}]))),
        refusal(
            "pods",
            container(
                "resources",
                json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
            ),
        ),
        refusal(
            "pods",
            container("resources", json!({"limits": {"cpu": "lots"}})),
        ),
        refusal(
            "pods",
            container("volumeMounts", json!([{"name": "v", "mountPath": "/v"}])),
        ),
        refusal("pods", container("imagePullPolicy", json!("Maybe"))),
        refusal(
            "pods",
            container("livenessProbe", json!({"periodSeconds": -1})),
        ),
        refusal(
            "pods",
            spec(json!({"containers": [good()], "tolerations": [{"operator": "Equal"}]})),
        ),
        refusal(
            "pods",
            spec(
                json!({"containers": [good()], "ephemeralContainers": [{"name": "e", "image": "i"}]}),
            ),
        ),
    ];
    expect![[r#"
        422 Pod "p" is invalid: spec.containers: Required value
        422 Pod "" is invalid: metadata.name: Required value: name or generateName is required
        422 Pod "P_1" is invalid: metadata.name: Invalid value: "P_1": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        400 the namespace of the provided object does not match the namespace sent on the request
        422 Pod "p" is invalid: [metadata.labels: Invalid value: "-a": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]'), metadata.labels: Invalid value: "b c": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')]
        422 Pod "p" is invalid: spec.containers[0].image: Required value
        422 Pod "p" is invalid: spec.containers[1].name: Duplicate value: "c"
        422 Pod "p" is invalid: spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"
        422 Pod "p" is invalid: [spec.containers[0].ports[0].name: Invalid value: "UP": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-), spec.containers[0].ports[0].name: Invalid value: "UP": must contain at least one letter (a-z), spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive]
        422 Pod "p" is invalid: spec.containers[0].env[0].name: Invalid value: "a=b": a valid environment variable name must consist only of printable ASCII characters other than '='
        422 Pod "p" is invalid: spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1
        400 Pod in version "v1" cannot be handled as a Pod: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'
        422 Pod "p" is invalid: spec.containers[0].volumeMounts[0].name: Not found: "v"
        422 Pod "p" is invalid: spec.containers[0].imagePullPolicy: Unsupported value: "Maybe": supported values: "Always", "IfNotPresent", "Never"
        422 Pod "p" is invalid: [spec.containers[0].livenessProbe: Required value: must specify a handler type, spec.containers[0].livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0]
        422 Pod "p" is invalid: spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, which means "match all values and all keys"
        422 Pod "p" is invalid: spec.ephemeralContainers: Forbidden: cannot be set on create"#]].assert_eq(&messages.join("\n"));
}

#[test]
fn the_other_kinds_get_their_defaults() {
    let mut objects = vec![
        create(
            "services",
            json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}}),
        ),
        create(
            "secrets",
            json!({"metadata": {"name": "s"}, "stringData": {"a": "x"}, "data": {"b": "AA=="}}),
        ),
        create(
            "configmaps",
            json!({"metadata": {"name": "c", "uid": "forged", "managedFields": [{}]}, "data": {"a": "1"}}),
        ),
        create(
            "events",
            json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "namespace": "a"}}),
        ),
    ];
    let context = Context {
        namespace: None,
        ..CONTEXT
    };
    for (plural, mut object) in [
        ("namespaces", json!({"metadata": {"name": "n"}})),
        (
            "nodes",
            json!({"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "4"}}}),
        ),
    ] {
        before_create(resource(plural), &mut object, &context).expect("a good object");
        objects.push(object);
    }
    let lines: Vec<String> = objects.iter().map(Value::to_string).collect();
    expect![[r#"
        {"metadata":{"name":"s","namespace":"a","uid":"u-1","creationTimestamp":"2026-01-01T00:00:00Z"},"spec":{"ports":[{"protocol":"TCP","port":80,"targetPort":80}],"selector":{"a":"b"},"type":"ClusterIP","sessionAffinity":"None","ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack","internalTrafficPolicy":"Cluster"},"status":{"loadBalancer":{}}}
        {"metadata":{"name":"s","namespace":"a","uid":"u-1","creationTimestamp":"2026-01-01T00:00:00Z"},"data":{"a":"eA==","b":"AA=="},"type":"Opaque"}
        {"metadata":{"name":"c","namespace":"a","uid":"u-1","creationTimestamp":"2026-01-01T00:00:00Z"},"data":{"a":"1"}}
        {"metadata":{"name":"e","namespace":"a","uid":"u-1","creationTimestamp":"2026-01-01T00:00:00Z"},"involvedObject":{"kind":"Pod","namespace":"a"},"source":{},"firstTimestamp":null,"lastTimestamp":null,"eventTime":null,"reportingComponent":"","reportingInstance":""}
        {"metadata":{"name":"n","uid":"u-1","creationTimestamp":"2026-01-01T00:00:00Z","labels":{"kubernetes.io/metadata.name":"n"}},"spec":{"finalizers":["kubernetes"]},"status":{"phase":"Active"}}
        {"metadata":{"name":"n","uid":"u-1","creationTimestamp":"2026-01-01T00:00:00Z"},"spec":{},"status":{"capacity":{"cpu":"4"},"allocatable":{"cpu":"4"},"daemonEndpoints":{"kubeletEndpoint":{"Port":0}},"nodeInfo":{"machineID":"","systemUUID":"","bootID":"","kernelVersion":"","osImage":"","containerRuntimeVersion":"","kubeletVersion":"","kubeProxyVersion":"","operatingSystem":"","architecture":""}}}"#]].assert_eq(&lines.join("\n"));
}

#[test]
fn the_other_kinds_are_refused_in_the_words_of_the_reference() {
    let named = |mut object: Value| {
        object["metadata"] = json!({"name": "x"});
        object
    };
    let messages = [
        refusal("configmaps", named(json!({"data": {"a b": "1"}}))),
        refusal(
            "configmaps",
            named(json!({"data": {"a": "x".repeat(small::MAX_DATA_BYTES + 1)}})),
        ),
        refusal(
            "configmaps",
            named(json!({"data": {"a": "1"}, "binaryData": {"a": "AA=="}})),
        ),
        refusal("secrets", named(json!({"type": "kubernetes.io/tls"}))),
        refusal("secrets", named(json!({"data": {"a": "no base64"}}))),
        refusal("services", named(json!({"spec": {}}))),
        refusal(
            "services",
            named(json!({"spec": {"type": "Magic", "ports": [{"port": 0}]}})),
        ),
        refusal(
            "services",
            json!({"metadata": {"name": "a.b"}, "spec": {"ports": [{"port": 1}]}}),
        ),
        refusal(
            "services",
            named(json!({"spec": {"ports": [{"port": 1}, {"port": 1}]}})),
        ),
        refusal(
            "events",
            named(json!({"involvedObject": {"namespace": "b"}})),
        ),
    ];
    expect![[r#"
        422 ConfigMap "x" is invalid: data[a b]: Invalid value: "a b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')
        422 ConfigMap "x" is invalid: []: Too long: may not be more than 1048576 bytes
        422 ConfigMap "x" is invalid: data[a]: Invalid value: "a": duplicate of key present in binaryData
        422 Secret "x" is invalid: [data[tls.crt]: Required value, data[tls.key]: Required value]
        400 Secret in version "v1" cannot be handled as a Secret: illegal base64 data at input byte 2
        422 Service "x" is invalid: spec.ports: Required value
        422 Service "x" is invalid: [spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive, spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive, spec.type: Unsupported value: "Magic": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]
        422 Service "a.b" is invalid: metadata.name: Invalid value: "a.b": must not contain dots
        422 Service "x" is invalid: [spec.ports[0].name: Required value, spec.ports[1].name: Required value, spec.ports[1]: Duplicate value: {"Name":"","Protocol":"TCP","AppProtocol":null,"Port":1,"TargetPort":0,"NodePort":0}]
        422 Event "x" is invalid: involvedObject.namespace: Invalid value: "b": does not match event.namespace"#]].assert_eq(&messages.join("\n"));
}

#[test]
fn a_pod_s_spec_hardly_changes() {
    let old = pod();
    let image = with(&old, "spec.containers.0.image", json!("nginx:2"));
    let (change, new) = update("pods", None, &old, &image).expect("images may change");
    assert_eq!(
        (change, &new["metadata"]["generation"]),
        (Change::Write, &json!(2))
    );
    for (path, value) in [
        ("spec.hostname", json!("h")),
        ("spec.containers.0.name", json!("d")),
        ("spec.nodeName", json!("n")),
    ] {
        let error = update("pods", None, &old, &with(&old, path, value)).expect_err(path);
        assert_eq!(error.code(), 422, "{path}");
    }
    let error = update("pods", None, &old, &with(&old, "spec.hostname", json!("h")));
    let message = error.expect_err("immutable").message().to_owned();
    let shown = "(allow it to be set to 1 if it was previously negative)\n@@ -";
    assert!(message.contains(shown), "{message}");
    assert!(
        message.contains("\n- \"Hostname\": \"\",\n+ \"Hostname\": \"h\",\n"),
        "{message}"
    );
}

#[test]
fn status_and_spec_have_their_own_ways_in() {
    let old = pod();
    let running = with(&old, "status.phase", json!("Running"));
    let (change, _) = update("pods", None, &old, &running).expect("ignored");
    assert_eq!(change, Change::Unchanged);
    let both = with(&running, "spec.hostname", json!("h"));
    let (change, new) = update("pods", Some("status"), &old, &both).expect("written");
    assert_eq!(
        (change, &new["status"]["phase"]),
        (Change::Write, &json!("Running"))
    );
    assert_eq!(new["spec"], old["spec"]);
    assert_eq!(new["metadata"]["generation"], 1);
}

#[test]
fn system_fields_survive_whatever_a_client_sends() {
    let old = pod();
    let mut forged = old.clone();
    forged["metadata"] = json!({"name": "p", "creationTimestamp": "2000-01-01T00:00:00Z", "deletionTimestamp": "2000-01-01T00:00:00Z", "generation": 7});
    let (change, new) = update("pods", None, &old, &forged).expect("accepted");
    assert_eq!(change, Change::Unchanged);
    assert_eq!(new["metadata"]["uid"], "u-1");
    assert_eq!(new["metadata"]["creationTimestamp"], CONTEXT.now);
    assert!(new["metadata"]["deletionTimestamp"].is_null());
    let other = with(&old, "metadata.uid", json!("u-2"));
    assert_eq!(
        update("pods", None, &old, &other)
            .expect_err("another pod")
            .code(),
        409
    );
}

#[test]
fn immutable_config_stays() {
    let old = create(
        "configmaps",
        json!({"metadata": {"name": "c"}, "immutable": true, "data": {"a": "1"}}),
    );
    let error = update("configmaps", None, &old, &with(&old, "data.a", json!("2")));
    assert_eq!(
        error.expect_err("immutable").message(),
        "ConfigMap \"c\" is invalid: data: Forbidden: field is immutable when `immutable` is set"
    );
    let old = create(
        "services",
        json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 1}]}}),
    );
    let mut new = with(&old, "spec.clusterIP", json!("10.0.0.2"));
    new["spec"]["clusterIPs"] = json!(["10.0.0.2"]);
    assert_eq!(
        update("services", None, &old, &new)
            .expect_err("immutable")
            .message(),
        "Service \"s\" is invalid: spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"
    );
}

fn delete(plural: &str, object: &Value, grace: Option<i64>) -> Deletion {
    let options = DeleteOptions {
        grace_period_seconds: grace,
        ..DeleteOptions::default()
    };
    before_delete(resource(plural), object, &options, &CONTEXT).expect("may be deleted")
}

fn marked(deletion: Deletion) -> Value {
    match deletion {
        Deletion::Mark(object) => object,
        other => panic!("not marked: {other:?}"),
    }
}

#[test]
fn a_scheduled_pod_gets_its_grace_and_another_goes_at_once() {
    let waiting = pod();
    assert_eq!(delete("pods", &waiting, None), Deletion::Remove);
    let running = with(&waiting, "spec.nodeName", json!("n"));
    assert_eq!(delete("pods", &running, Some(0)), Deletion::Remove);
    let going = marked(delete("pods", &running, None));
    assert_eq!(
        going["metadata"]["deletionTimestamp"],
        "2026-01-01T00:00:30Z"
    );
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(delete("pods", &going, None), Deletion::AlreadyMarked);
    let sooner = marked(delete("pods", &going, Some(10)));
    assert_eq!(
        sooner["metadata"]["deletionTimestamp"],
        "2026-01-01T00:00:10Z"
    );
    assert_eq!(delete("pods", &going, Some(0)), Deletion::Remove);
}

#[test]
fn a_finalizer_holds_an_object_until_it_is_taken_off() {
    let object = create(
        "configmaps",
        json!({"metadata": {"name": "c", "finalizers": ["a/b"]}}),
    );
    let going = marked(delete("configmaps", &object, None));
    assert_eq!(going["metadata"]["deletionTimestamp"], CONTEXT.now);
    let error = update(
        "configmaps",
        None,
        &going,
        &with(&going, "metadata.finalizers", json!(["a/b", "c/d"])),
    );
    assert_eq!(error.expect_err("too late").code(), 422);
    let released = with(&going, "metadata.finalizers", json!([]));
    let (change, _) = update("configmaps", None, &going, &released).expect("accepted");
    assert_eq!(change, Change::Remove);
}

#[test]
fn a_namespace_terminates_and_is_removed_by_finalize() {
    let context = Context {
        namespace: None,
        ..CONTEXT
    };
    let mut namespace = json!({"metadata": {"name": "n"}});
    before_create(resource("namespaces"), &mut namespace, &context).expect("good");
    let going = marked(delete("namespaces", &namespace, None));
    assert_eq!(going["status"]["phase"], "Terminating");
    assert_eq!(delete("namespaces", &going, None), Deletion::AlreadyMarked);
    let refused = admit_to_namespace(resource("pods"), "p", "n", Some(&going));
    assert_eq!(refused.expect_err("terminating").code(), 403);
    let mut done = with(&going, "spec.finalizers", json!([]));
    let change = before_update(
        resource("namespaces"),
        None,
        &going,
        &mut done.clone(),
        &context,
    );
    assert_eq!(change.expect("accepted"), Change::Unchanged);
    let change = before_update(
        resource("namespaces"),
        Some("finalize"),
        &going,
        &mut done,
        &context,
    );
    assert_eq!(change.expect("accepted"), Change::Remove);
    let default = with(&namespace, "metadata.name", json!("default"));
    let options = DeleteOptions::default();
    let refused = before_delete(resource("namespaces"), &default, &options, &context);
    assert_eq!(
        refused.expect_err("immortal").message(),
        "namespaces \"default\" is forbidden: this namespace may not be deleted"
    );
}

#[test]
fn a_precondition_that_does_not_hold_is_a_conflict() {
    let options = DeleteOptions {
        uid: Some("other".to_owned()),
        ..DeleteOptions::default()
    };
    let error =
        before_delete(resource("pods"), &pod(), &options, &CONTEXT).expect_err("another pod");
    assert_eq!(error.code(), 409);
}

#[test]
fn a_pod_is_bound_once() {
    let binding = json!({
        "metadata": {"name": "p", "annotations": {"a": "1"}, "labels": {"zone": "z"}},
        "target": {"kind": "Node", "name": "n"},
    });
    let mut pod = pod();
    pod["metadata"]["generation"] = json!(1);
    pod["status"]["nominatedNodeName"] = json!("m");
    let bound = bind(&pod, &binding, &CONTEXT).expect("free");
    assert_eq!(bound["spec"]["nodeName"], "n");
    assert_eq!(bound["metadata"]["generation"], 1);
    assert_eq!(bound["metadata"]["annotations"]["a"], "1");
    assert_eq!(bound["metadata"]["labels"]["zone"], "z");
    assert!(bound["status"]["nominatedNodeName"].is_null());
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    assert_eq!(
        bind(&bound, &binding, &CONTEXT)
            .expect_err("bound")
            .message(),
        "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n\""
    );
    let nowhere = json!({"target": {"kind": "Node"}});
    assert_eq!(
        bind(&pod, &nowhere, &CONTEXT)
            .expect_err("no target")
            .code(),
        422
    );
}

#[test]
fn options_are_checked() {
    let bad = json!({"propagationPolicy": "Sideways"});
    assert_eq!(
        DeleteOptions::from_value(&bad)
            .expect_err("unknown")
            .message(),
        "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"Sideways\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
    );
    let good = json!({"gracePeriodSeconds": 5, "preconditions": {"uid": "u"}, "dryRun": ["All"]});
    let options = DeleteOptions::from_value(&good).expect("good");
    assert_eq!(
        (options.grace_period_seconds, options.dry_run),
        (Some(5), true)
    );
}
