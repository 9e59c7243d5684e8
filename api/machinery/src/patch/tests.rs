//! Patches as tables of object, patch and result.

use expect_test::expect;
use serde_json::{Value, json};

use super::*;

const POD: &str = "io.k8s.api.core.v1.Pod";
const SERVICE: &str = "io.k8s.api.core.v1.Service";
const CONFIG_MAP: &str = "io.k8s.api.core.v1.ConfigMap";

fn strategic(original: &Value, patch: &Value) -> String {
    match strategic::apply(schema::find(POD).expect("in the table"), original, patch) {
        Ok(value) => value.to_string(),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn strategic_merge_follows_keys_and_directives() {
    let pod = json!({
        "metadata": {"labels": {"a": "1"}, "finalizers": ["x/1", "x/2"]},
        "spec": {
            "containers": [{"name": "a", "image": "1", "env": [{"name": "E", "value": "1"}]}, {"name": "b", "image": "2"}],
            "tolerations": [{"key": "k"}],
            "volumes": [{"name": "v", "emptyDir": {}}],
        },
    });
    let patches = [
        (
            "merge by key",
            json!({"spec": {"containers": [{"name": "b", "image": "3"}, {"name": "c", "image": "4"}]}}),
        ),
        (
            "nested key",
            json!({"spec": {"containers": [{"name": "a", "env": [{"name": "F", "value": "2"}]}]}}),
        ),
        (
            "delete element",
            json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}),
        ),
        (
            "replace list",
            json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}]}}),
        ),
        (
            "atomic list",
            json!({"spec": {"tolerations": [{"key": "l"}]}}),
        ),
        (
            "null deletes",
            json!({"metadata": {"labels": {"a": null, "b": "2"}}}),
        ),
        (
            "replace map",
            json!({"metadata": {"$patch": "replace", "name": "n"}}),
        ),
        ("delete map", json!({"metadata": {"$patch": "delete"}})),
        (
            "primitives merge",
            json!({"metadata": {"finalizers": ["x/3", "x/1"]}}),
        ),
        (
            "primitives delete",
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x/1"]}}),
        ),
        (
            "order",
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "c"}, {"name": "a"}], "containers": [{"name": "c", "image": "5"}]}}),
        ),
        (
            "retain keys",
            json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/p"}}]}}),
        ),
        (
            "order lacks element",
            json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "c"}]}}),
        ),
        (
            "no merge key",
            json!({"spec": {"containers": [{"image": "3"}]}}),
        ),
        ("bad directive", json!({"spec": {"$patch": "explode"}})),
        (
            "bad retain keys",
            json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name"], "hostPath": {}}]}}),
        ),
    ];
    let lines: Vec<String> = patches
        .iter()
        .map(|(name, patch)| format!("{name}: {}", strategic(&pod, patch)))
        .collect();
    expect![[r#"
        merge by key: {"metadata":{"labels":{"a":"1"},"finalizers":["x/1","x/2"]},"spec":{"containers":[{"name":"a","image":"1","env":[{"name":"E","value":"1"}]},{"name":"b","image":"3"},{"name":"c","image":"4"}],"tolerations":[{"key":"k"}],"volumes":[{"name":"v","emptyDir":{}}]}}
        nested key: {"metadata":{"labels":{"a":"1"},"finalizers":["x/1","x/2"]},"spec":{"containers":[{"name":"a","image":"1","env":[{"name":"F","value":"2"},{"name":"E","value":"1"}]},{"name":"b","image":"2"}],"tolerations":[{"key":"k"}],"volumes":[{"name":"v","emptyDir":{}}]}}
        delete element: {"metadata":{"labels":{"a":"1"},"finalizers":["x/1","x/2"]},"spec":{"containers":[{"name":"b","image":"2"}],"tolerations":[{"key":"k"}],"volumes":[{"name":"v","emptyDir":{}}]}}
        replace list: {"metadata":{"labels":{"a":"1"},"finalizers":["x/1","x/2"]},"spec":{"containers":[{"name":"z"}],"tolerations":[{"key":"k"}],"volumes":[{"name":"v","emptyDir":{}}]}}
        atomic list: {"metadata":{"labels":{"a":"1"},"finalizers":["x/1","x/2"]},"spec":{"containers":[{"name":"a","image":"1","env":[{"name":"E","value":"1"}]},{"name":"b","image":"2"}],"tolerations":[{"key":"l"}],"volumes":[{"name":"v","emptyDir":{}}]}}
        null deletes: {"metadata":{"labels":{"b":"2"},"finalizers":["x/1","x/2"]},"spec":{"containers":[{"name":"a","image":"1","env":[{"name":"E","value":"1"}]},{"name":"b","image":"2"}],"tolerations":[{"key":"k"}],"volumes":[{"name":"v","emptyDir":{}}]}}
        replace map: {"metadata":{"name":"n"},"spec":{"containers":[{"name":"a","image":"1","env":[{"name":"E","value":"1"}]},{"name":"b","image":"2"}],"tolerations":[{"key":"k"}],"volumes":[{"name":"v","emptyDir":{}}]}}
        delete map: {"metadata":{},"spec":{"containers":[{"name":"a","image":"1","env":[{"name":"E","value":"1"}]},{"name":"b","image":"2"}],"tolerations":[{"key":"k"}],"volumes":[{"name":"v","emptyDir":{}}]}}
        primitives merge: {"metadata":{"labels":{"a":"1"},"finalizers":["x/3","x/1","x/2"]},"spec":{"containers":[{"name":"a","image":"1","env":[{"name":"E","value":"1"}]},{"name":"b","image":"2"}],"tolerations":[{"key":"k"}],"volumes":[{"name":"v","emptyDir":{}}]}}
        primitives delete: {"metadata":{"labels":{"a":"1"},"finalizers":["x/2"]},"spec":{"containers":[{"name":"a","image":"1","env":[{"name":"E","value":"1"}]},{"name":"b","image":"2"}],"tolerations":[{"key":"k"}],"volumes":[{"name":"v","emptyDir":{}}]}}
        order: {"metadata":{"labels":{"a":"1"},"finalizers":["x/1","x/2"]},"spec":{"containers":[{"name":"b","image":"2"},{"name":"c","image":"5"},{"name":"a","image":"1","env":[{"name":"E","value":"1"}]}],"tolerations":[{"key":"k"}],"volumes":[{"name":"v","emptyDir":{}}]}}
        retain keys: {"metadata":{"labels":{"a":"1"},"finalizers":["x/1","x/2"]},"spec":{"containers":[{"name":"a","image":"1","env":[{"name":"E","value":"1"}]},{"name":"b","image":"2"}],"tolerations":[{"key":"k"}],"volumes":[{"name":"v","hostPath":{"path":"/p"}}]}}
        order lacks element: error: invalid patch format of setElementOrder list
        no merge key: error: map: {"image":"3"} does not contain declared merge key: name
        bad directive: error: unknown patch type: "explode"
        bad retain keys: error: invalid patch format of retainKeys"#]].assert_eq(&lines.join("\n"));
}

#[test]
fn a_map_new_to_the_object_comes_without_nulls_and_directives() {
    let patch = json!({"metadata": {"annotations": {"a": "1", "b": null}}, "spec": {"containers": [{"name": "a", "env": [{"name": "x", "$patch": "delete"}]}]}});
    expect![[
        r#"{"metadata":{"annotations":{"a":"1"}},"spec":{"containers":[{"name":"a","env":[]}]}}"#
    ]]
    .assert_eq(&strategic(&json!({}), &patch));
}

#[test]
fn the_result_of_a_patch_conforms() {
    let service = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let patch = json!({"spec": {"ports": [{"port": 80, "name": "http"}], "nope": 1}});
    let patched = apply(PatchKind::StrategicMerge, SERVICE, &service, &patch).expect("applies");
    assert_eq!(
        patched["spec"].to_string(),
        r#"{"ports":[{"name":"http","port":80,"targetPort":0}]}"#
    );
    let patch = json!({"spec": {"ports": "none"}});
    let error = apply(PatchKind::Merge, SERVICE, &service, &patch).expect_err("no list");
    assert_eq!(error.code(), 400);
}

#[test]
fn a_merge_patch_replaces_lists_and_deletes_by_null() {
    let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c", "finalizers": ["a/b"]}, "data": {"a": "1", "b": "2"}});
    let patch = json!({"metadata": {"finalizers": ["c/d"]}, "data": {"a": null, "c": "3"}});
    let patched = apply(PatchKind::Merge, CONFIG_MAP, &object, &patch).expect("applies");
    assert_eq!(patched["data"], json!({"b": "2", "c": "3"}));
    assert_eq!(patched["metadata"]["finalizers"], json!(["c/d"]));
}

#[test]
fn a_json_patch_that_does_not_fit_is_unprocessable() {
    let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c"}, "data": {"a": "1"}});
    let code = |patch: Value| match apply(PatchKind::Json, CONFIG_MAP, &object, &patch) {
        Ok(_) => 200,
        Err(error) => error.code(),
    };
    assert_eq!(
        code(
            json!([{"op": "test", "path": "/data/a", "value": "1"}, {"op": "add", "path": "/data/b", "value": "2"}])
        ),
        200
    );
    assert_eq!(
        code(json!([{"op": "test", "path": "/data/a", "value": "2"}])),
        422
    );
    assert_eq!(code(json!([{"op": "remove", "path": "/data/z"}])), 422);
    assert_eq!(code(json!({"op": "remove"})), 400);
    assert_eq!(code(json!([{"op": "explode", "path": "/data"}])), 422);
}

#[test]
fn copies_can_not_grow_an_object_without_bound() {
    let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c"}, "data": {"a": "x".repeat(1000)}});
    let copies: Vec<Value> = (0..40)
        .map(|at| json!({"op": "copy", "from": "/data", "path": format!("/data/n{at}")}))
        .collect();
    let error = apply(PatchKind::Json, CONFIG_MAP, &object, &json!(copies)).expect_err("too large");
    assert_eq!(error.code(), 422);
}

proptest::proptest! {
    #[test]
    fn any_patch_is_applied_or_refused(patch in "\\PC{0,80}") {
        let object = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "c"}, "spec": {"containers": [{"name": "a"}]}});
        let patch = json!({"spec": {"containers": [{"name": "a", "$patch": patch}], "$setElementOrder/containers": patch}});
        for kind in [PatchKind::Json, PatchKind::Merge, PatchKind::StrategicMerge] {
            let _ = apply(kind, POD, &object, &patch);
        }
    }
}
