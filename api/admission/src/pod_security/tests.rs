//! Judgements in the reference's words.

#![allow(
    clippy::needless_pass_by_value,
    reason = "objects are written where they are used"
)]

use nautilus_machinery::identity::User;
use nautilus_machinery::resource::find;
use serde_json::json;

use super::*;

fn asked<'a>(user: &'a User, group: &str, plural: &str, old: Option<&'a Value>) -> Attributes<'a> {
    Attributes {
        operation: old.map_or(Operation::Create, |_| Operation::Update),
        resource: find(group, "v1", plural).expect("the kind is served"),
        subresource: None,
        namespace: Some("a"),
        name: "web",
        field_manager: "",
        user,
        dry_run: false,
        old,
    }
}

fn namespace(labels: Value) -> Value {
    json!({"metadata": {"name": "a", "labels": labels}})
}

#[test]
fn a_plain_pod_breaks_the_restricted_standard_in_four_ways() {
    let user = User::anonymous();
    let pod = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c"}]}});
    let strict = namespace(json!({"pod-security.kubernetes.io/enforce": "restricted"}));
    let judgement = judge(&asked(&user, "", "pods", None), &pod, &strict);
    assert_eq!(
        judgement.refused.expect("it is refused").message(),
        "pods \"web\" is forbidden: violates PodSecurity \"restricted:latest\": \
         allowPrivilegeEscalation != false (container \"c\" must set \
         securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \
         \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or \
         container \"c\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or \
         container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
         \"Localhost\")"
    );
}

#[test]
fn a_hardened_pod_keeps_every_version_of_every_standard() {
    let user = User::anonymous();
    let pod = json!({"metadata": {"name": "web"}, "spec": {
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        }}],
    }});
    for version in (0..40).map(|minor| format!("v1.{minor}")) {
        for level in ["baseline", "restricted"] {
            let labels = json!({
                "pod-security.kubernetes.io/enforce": level,
                "pod-security.kubernetes.io/enforce-version": version,
            });
            let judgement = judge(&asked(&user, "", "pods", None), &pod, &namespace(labels));
            assert!(judgement.refused.is_none(), "{level} {version}");
        }
    }
}

#[test]
fn enforcing_warns_about_templates_too() {
    let user = User::anonymous();
    let Some(resource) = find("apps", "v1", "deployments") else {
        return;
    };
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"template": {"spec": {
        "hostNetwork": true, "containers": [{"name": "c", "ports": [{"hostPort": 80}]}],
    }}}});
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline"});
    let asked = Attributes {
        resource,
        ..asked(&user, "", "pods", None)
    };
    let judgement = judge(&asked, &deployment, &namespace(labels));
    assert!(judgement.refused.is_none());
    assert_eq!(
        judgement.warnings,
        [
            "would violate PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true), \
             hostPort (container \"c\" uses hostPort 80)"
        ]
    );
}

#[test]
fn a_label_that_is_no_level_is_refused_with_its_place() {
    let user = User::anonymous();
    let labelled = namespace(json!({"pod-security.kubernetes.io/enforce": "strict"}));
    let judgement = judge_namespace(&asked(&user, "", "namespaces", None), &labelled, Vec::new);
    assert_eq!(
        judgement.refused.expect("it is refused").message(),
        "Namespace \"web\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: \
         Invalid value: \"strict\": must be one of privileged, baseline, restricted"
    );
}

#[test]
fn raising_a_level_names_the_pods_that_break_it() {
    let user = User::anonymous();
    let (old, new) = (
        namespace(json!({})),
        namespace(json!({"pod-security.kubernetes.io/enforce": "baseline"})),
    );
    let pod = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {
            "hostPID": true, "containers": [{"name": "c"}],
        }})
    };
    let pods = [pod("b"), pod("a"), pod("c")];
    let asked = asked(&user, "", "namespaces", Some(&old));
    let judgement = judge_namespace(&asked, &new, || pods.to_vec());
    assert_eq!(
        judgement.warnings,
        [
            "existing pods in namespace \"web\" violate the new PodSecurity enforce level \
             \"baseline:latest\"",
            "a (and 2 other pods): host namespaces",
        ]
    );
}

#[test]
fn an_update_that_touches_no_container_is_not_judged() {
    let user = User::anonymous();
    let pod = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c"}]}});
    let strict = namespace(json!({"pod-security.kubernetes.io/enforce": "restricted"}));
    let judgement = judge(&asked(&user, "", "pods", Some(&pod)), &pod, &strict);
    assert!(judgement.refused.is_none() && judgement.warnings.is_empty());
}

#[test]
fn the_audit_log_hears_which_standard_held_and_what_another_would_refuse() {
    let user = User::anonymous();
    let pod = json!({"metadata": {"name": "web"}, "spec": {
        "hostNetwork": true, "containers": [{"name": "c"}],
    }});
    let audit = |labels: Value| {
        let about = asked(&user, "", "pods", None);
        judge(&about, &pod, &namespace(labels)).audit
    };
    assert_eq!(
        audit(json!({})),
        [("enforce-policy", "privileged:latest".to_owned())]
    );
    assert_eq!(
        audit(json!({
            "pod-security.kubernetes.io/audit": "baseline",
            "pod-security.kubernetes.io/enforce-version": "v1.20",
        })),
        [
            ("enforce-policy", "privileged:v1.20".to_owned()),
            (
                "audit-violations",
                "would violate PodSecurity \"baseline:latest\": host namespaces \
                 (hostNetwork=true)"
                    .to_owned()
            ),
        ]
    );
}
