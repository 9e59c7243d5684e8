//! Policies as the reference judges.

#![allow(
    clippy::needless_pass_by_value,
    reason = "objects are written where they are used"
)]

use nautilus_cel::{Authorizer, Check, Decision as Allowed};
use serde_json::json;

use super::*;

#[derive(Debug)]
struct Nobody;

impl Authorizer for Nobody {
    fn authorize(&self, check: &Check) -> Allowed {
        Allowed {
            allowed: check.verb == "get",
            ..Allowed::default()
        }
    }
}

fn input<'a>(object: &'a Value, request: &'a Value, params: Option<&'a Value>) -> Input<'a> {
    Input {
        object: Some(object),
        old: None,
        request,
        namespace: None,
        params,
        authorizer: Arc::new(Nobody),
        check: Check::default(),
    }
}

fn policy(spec: Value) -> Policy {
    Policy::of(&json!({"metadata": {"name": "p"}, "spec": spec}))
}

#[test]
fn variables_build_on_earlier_ones_and_messages_are_made() {
    let policy = policy(json!({
        "variables": [
            {"name": "size", "expression": "object.spec.replicas"},
            {"name": "twice", "expression": "variables.size * 2"},
        ],
        "validations": [
            {
                "expression": "variables.twice <= 10",
                "messageExpression": "'twice is ' + string(variables.twice)",
            },
            {"expression": "variables.size > 1", "message": "too few"},
        ],
    }));
    let (object, request) = (json!({"spec": {"replicas": 6}}), json!({}));
    let outcome = policy.validate(&input(&object, &request, None));
    let messages: Vec<&str> = outcome
        .decisions
        .iter()
        .map(|d| d.message.as_str())
        .collect();
    assert_eq!(messages, ["twice is 12"]);
}

#[test]
fn an_expression_that_fails_denies_unless_failures_are_ignored() {
    let spec = |failure: &str| {
        json!({
            "failurePolicy": failure,
            "validations": [{"expression": "object.spec.missing == 1"}],
        })
    };
    let (object, request) = (json!({"spec": {}}), json!({}));
    let strict = policy(spec("Fail")).validate(&input(&object, &request, None));
    assert_eq!(
        strict.decisions[0].message,
        "expression 'object.spec.missing == 1' resulted in error: no such key: missing"
    );
    let lenient = policy(spec("Ignore")).validate(&input(&object, &request, None));
    assert!(lenient.decisions.is_empty());
}

#[test]
fn parameters_and_the_authorizer_may_be_asked() {
    let policy = policy(json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [
            {"expression": "object.spec.replicas <= int(params.data.max)"},
            {"expression": "authorizer.group('').resource('pods').check('delete').allowed()"},
        ],
    }));
    let (object, request) = (json!({"spec": {"replicas": 3}}), json!({}));
    let params = json!({"data": {"max": "3"}});
    let outcome = policy.validate(&input(&object, &request, Some(&params)));
    let failed: Vec<usize> = outcome.decisions.iter().map(|d| d.index).collect();
    assert_eq!(failed, [1]);
}

#[test]
fn mutations_make_patches_and_partial_objects() {
    let policy = policy(json!({"mutations": [
        {"patchType": "JSONPatch", "jsonPatch": {"expression":
            "[JSONPatch{op: 'add', path: '/metadata/labels', value: {'a': 'b'}}]"}},
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{spec: Object.spec{replicas: object.spec.replicas + 1}}"}},
    ]}));
    let (object, request) = (json!({"spec": {"replicas": 3}}), json!({}));
    let input = input(&object, &request, None);
    assert_eq!(
        policy.mutate(0, &input),
        Ok(Some(Change::Patch(json!([
            {"op": "add", "path": "/metadata/labels", "value": {"a": "b"}},
        ]))))
    );
    assert_eq!(
        policy.mutate(1, &input),
        Ok(Some(Change::Apply(json!({"spec": {"replicas": 4}}))))
    );
}

fn deployments() -> TypedKind {
    TypedKind {
        api_version: "apps/v1".to_owned(),
        kind: "Deployment".to_owned(),
        declaration: declare_type("io.k8s.api.apps.v1.Deployment", "Deployment")
            .expect("it is a type"),
    }
}

#[test]
fn expressions_are_checked_against_the_kinds_that_a_policy_names() {
    let policy = json!({"spec": {
        "matchConstraints": {"resourceRules": [
            {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["*/scale", "deployments"]},
            {"apiGroups": ["*"], "apiVersions": ["v1"], "resources": ["pods"]},
        ]},
        "variables": [{"name": "size", "expression": "object.spec.replicas"}],
        "validations": [
            {"expression": "object.spec.replicas > 1 && object.metadata.labels['a'] == 'b'"},
            {"expression": "object.spec.replicaz > 1"},
            {"expression": "variables.size > '1'", "messageExpression": "oldObject.nothing"},
            {"expression": "object.spec.strategy.rollingUpdate.maxSurge == '1'"},
        ],
    }});
    let named: (String, String, String) = ["apps", "v1", "deployments"].map(str::to_owned).into();
    assert_eq!(named_resources(&policy), [named]);
    let checked = type_checking(&policy, &[deployments()], None);
    let warnings = checked["expressionWarnings"]
        .as_array()
        .expect("there are some");
    let told: Vec<(&str, &str)> = warnings
        .iter()
        .map(|one| (text(&one["fieldRef"]), text(&one["warning"])))
        .collect();
    assert_eq!(
        told,
        [
            (
                "spec.validations[1].expression",
                "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'replicaz'\n \
                 | object.spec.replicaz > 1\n | ...........^\n"
            ),
            (
                "spec.validations[2].expression",
                "apps/v1, Kind=Deployment: ERROR: <input>:1:16: found no matching overload for \
                 '_>_' applied to '(int, string)'\n | variables.size > '1'\n \
                 | ...............^\n"
            ),
            (
                "spec.validations[2].messageExpression",
                "apps/v1, Kind=Deployment: ERROR: <input>:1:10: undefined field 'nothing'\n \
                 | oldObject.nothing\n | .........^\n"
            ),
        ]
    );
}

#[test]
fn a_policy_about_no_known_kind_has_no_warnings() {
    let policy = json!({"spec": {"validations": [{"expression": "object.a.b == 1"}]}});
    assert_eq!(type_checking(&policy, &[], None), json!({}));
    let recursive =
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition";
    assert!(declare_type(recursive, "CustomResourceDefinition").is_some());
}
