//! Admission policies in CEL, from their objects to refusals, warnings and changes.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::admission::Led;
use crate::world::{World, within};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

fn about_config_maps() -> Value {
    json!({"resourceRules": [{
        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
        "resources": ["configmaps"],
    }]})
}

async fn create(world: &World, plural: &str, name: &str, spec: Value) {
    let object = json!({"metadata": {"name": name}, "spec": spec});
    let (status, made) = world
        .call(Method::POST, &format!("{GROUP}/{plural}"), &object)
        .await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
}

async fn make(world: &World, name: &str, data: Value) -> (StatusCode, Value) {
    let object = json!({"metadata": {"name": name}, "data": data});
    world.call(Method::POST, MAPS, &object).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validating_policy_refuses_by_its_parameters() {
    let world = World::start().await;
    make(&world, "limits", json!({"most": "3"})).await;
    let policy = json!({
        "failurePolicy": "Fail",
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConstraints": about_config_maps(),
        "matchConditions": [{"name": "sized", "expression": "has(object.data.size)"}],
        "variables": [{"name": "size", "expression": "int(object.data.size)"}],
        "validations": [{
            "expression": "variables.size <= int(params.data.most)",
            "messageExpression": "'at most ' + params.data.most",
        }],
    });
    create(&world, "validatingadmissionpolicies", "sizes", policy).await;
    let binding = json!({
        "policyName": "sizes", "validationActions": ["Deny"],
        "paramRef": {
            "name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny",
        },
    });
    create(
        &world,
        "validatingadmissionpolicybindings",
        "sizes",
        binding,
    )
    .await;
    let refused = within(async {
        for index in 0.. {
            let name = format!("probe-{index}");
            let (status, answer) = make(&world, &name, json!({"size": "4"})).await;
            if status != StatusCode::CREATED {
                return (status, answer);
            }
        }
        unreachable!("the loop has no end");
    })
    .await;
    assert_eq!(refused.0, StatusCode::UNPROCESSABLE_ENTITY);
    let message = refused.1["message"].as_str().unwrap_or_default();
    assert!(
        message.ends_with(
            "is forbidden: ValidatingAdmissionPolicy 'sizes' with binding 'sizes' denied request: \
             at most 3"
        ),
        "{message}"
    );
    assert_eq!(refused.1["reason"], "Invalid");
    assert_eq!(
        make(&world, "small", json!({"size": "2"})).await.0,
        StatusCode::CREATED
    );
    assert_eq!(
        make(&world, "unsized", json!({"other": "x"})).await.0,
        StatusCode::CREATED
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_that_warns_lets_the_request_pass() {
    let world = World::start().await;
    let policy = json!({
        "matchConstraints": about_config_maps(),
        "validations": [{"expression": "false", "message": "never good"}],
    });
    create(&world, "validatingadmissionpolicies", "never", policy).await;
    let binding = json!({"policyName": "never", "validationActions": ["Warn"]});
    create(
        &world,
        "validatingadmissionpolicybindings",
        "softly",
        binding,
    )
    .await;
    let warning = within(async {
        for index in 0.. {
            let object = json!({"metadata": {"name": format!("m-{index}")}});
            let answer = world
                .send(Method::POST, MAPS, "application/json", object.to_string())
                .await;
            assert_eq!(answer.status(), StatusCode::CREATED);
            if let Some(warning) = answer.headers().get("warning") {
                return warning.to_str().unwrap_or_default().to_owned();
            }
        }
        unreachable!("the loop has no end");
    })
    .await;
    assert_eq!(
        warning,
        "299 - \"Validation failed for ValidatingAdmissionPolicy 'never' with binding 'softly': \
         never good\""
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mutating_policy_merges_and_patches() {
    let world = World::start().await;
    let policy = json!({
        "failurePolicy": "Fail", "reinvocationPolicy": "Never",
        "matchConstraints": about_config_maps(),
        "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                "Object{metadata: Object.metadata{labels: {'by': 'policy'}}}"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression":
                "[JSONPatch{op: 'add', path: '/metadata/labels/' + \
                 jsonpatch.escapeKey('a/b'), value: 'c'}]"}},
        ],
    });
    create(&world, "mutatingadmissionpolicies", "labels", policy).await;
    let binding = json!({"policyName": "labels"});
    create(&world, "mutatingadmissionpolicybindings", "labels", binding).await;
    let labels = within(async {
        for index in 0.. {
            let (status, made) = make(&world, &format!("m-{index}"), json!({})).await;
            assert_eq!(status, StatusCode::CREATED, "{made}");
            if !made["metadata"]["labels"].is_null() {
                return made["metadata"]["labels"].clone();
            }
        }
        unreachable!("the loop has no end");
    })
    .await;
    assert_eq!(labels, json!({"by": "policy", "a/b": "c"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_s_status_warns_of_what_its_kinds_do_not_have() {
    let led = Led::start().await;
    let path = format!("{GROUP}/validatingadmissionpolicies");
    let policy = json!({"metadata": {"name": "typed"}, "spec": {
        "matchConstraints": about_config_maps(),
        "validations": [
            {"expression": "object.metadata.name != object.data['a']"},
            {"expression": "object.dota.size() > 1"},
        ],
    }});
    led.make(&path, &policy).await;
    let one = format!("{path}/typed");
    let checked = led
        .until(&one, |_, policy| {
            policy["status"]["observedGeneration"] == 1
        })
        .await;
    assert_eq!(
        checked["status"]["typeChecking"],
        json!({"expressionWarnings": [{
            "fieldRef": "spec.validations[1].expression",
            "warning": "v1, Kind=ConfigMap: ERROR: <input>:1:7: undefined field 'dota'\n \
                        | object.dota.size() > 1\n | ......^\n",
        }]})
    );
    let mut better = checked;
    better["spec"]["validations"][1]["expression"] = json!("object.data.size() > 1");
    let (status, answer) = led.world.call(Method::PUT, &one, &better).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let checked = led
        .until(&one, |_, policy| {
            policy["status"]["observedGeneration"] == 2
        })
        .await;
    assert_eq!(checked["status"]["typeChecking"], json!({}));
    led.end().await;
}
