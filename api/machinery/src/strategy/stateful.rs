//! Stateful sets.
//!
//! Source: `pkg/apis/apps` of v1.37.

use serde_json::{Value, json};

use super::defaults::{made, set_default};
use super::rules::Rules;
use super::warnings::{Warnings, claim_resources};
use super::workloads::{
    IMMUTABLE, Selecting, WORKLOAD, always_running, amount, default_spec, replica_status, selector,
    template_warnings,
};
use super::{claim, internal, pod};
use crate::validation::common::{not_more_than_100_percent, positive_int_or_percent};
use crate::validation::{At, Errors, dns_label};

/// Stateful sets.
pub(crate) static STATEFUL_SET: Rules = Rules {
    default: default_stateful_set,
    validate: validate_stateful_set,
    validate_create: validate_stateful_set_create,
    validate_update: validate_stateful_set_update,
    validate_subresource: |sub, old, new, errors| {
        if sub == "status" {
            replica_status(
                old,
                new,
                REPLICAS_OF_STATEFUL,
                "status.readyReplicas",
                errors,
            );
        }
    },
    warn: warn_stateful_set,
    ..WORKLOAD
};

fn default_stateful_set(object: &mut Value) {
    default_spec(object, |spec| {
        set_default(spec, "podManagementPolicy", json!("OrderedReady"));
        set_default(spec, "replicas", json!(1));
        set_default(spec, "revisionHistoryLimit", json!(10));
        if let Some(strategy) = made(spec, "updateStrategy") {
            if strategy
                .get("type")
                .and_then(Value::as_str)
                .is_none_or(str::is_empty)
            {
                strategy.insert("type".into(), json!("RollingUpdate"));
                made(strategy, "rollingUpdate");
            }
            if strategy.get("type") == Some(&json!("RollingUpdate"))
                && let Some(rolling) = strategy.get_mut("rollingUpdate")
                && let Some(rolling) = rolling.as_object_mut()
            {
                set_default(rolling, "partition", json!(0));
                set_default(rolling, "maxUnavailable", json!(1));
            }
        }
        if let Some(policy) = made(spec, "persistentVolumeClaimRetentionPolicy") {
            set_default(policy, "whenDeleted", json!("Retain"));
            set_default(policy, "whenScaled", json!("Retain"));
        }
        let claims = spec
            .get_mut("volumeClaimTemplates")
            .and_then(Value::as_array_mut);
        for claim in claims.into_iter().flatten() {
            pod::defaults::claim_spec(&mut claim["spec"]);
            claim["apiVersion"] = json!("v1");
            claim["kind"] = json!("PersistentVolumeClaim");
            if claim["status"]["phase"].as_str().is_none_or(str::is_empty) {
                claim["status"]["phase"] = json!("Pending");
            }
        }
    });
}

fn validate_stateful_set(at: &At<'_>, errors: &mut Errors) {
    let spec = at.get("spec");
    let policy = spec.get("podManagementPolicy");
    if !["", "OrderedReady", "Parallel"].contains(&policy.text()) {
        policy.invalid_text(errors, "must be 'OrderedReady' or 'Parallel'");
    }
    stateful_strategy(&spec.get("updateStrategy"), errors);
    let retention = spec.get("persistentVolumeClaimRetentionPolicy");
    for name in ["whenDeleted", "whenScaled"] {
        retention.get(name).one_of(errors, &["Retain", "Delete"]);
    }
    spec.get("replicas").not_negative(errors);
    spec.get("minReadySeconds").not_negative(errors);
    spec.get("ordinals.start").not_negative(errors);
    let how = Selecting {
        empty: "empty selector is invalid for statefulset",
        unreadable: Some(""),
        needed: true,
        everything: false,
    };
    let template = spec.get("template");
    if selector(&spec, &how, errors) {
        let own = stateful_template(spec.value);
        pod::spec::template(&template.with(&own), errors);
    }
    always_running(&template, "StatefulSet", errors);
}

/// The template as its pods will be: named by the set, with the volumes of its claims.
fn stateful_template(spec: &Value) -> Value {
    let mut template = spec["template"].clone();
    let claims = spec["volumeClaimTemplates"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    if let Some(own) = template["spec"].as_object_mut() {
        own.insert("subdomain".into(), Value::Null);
        own.insert("hostname".into(), Value::Null);
        if !claims.is_empty() {
            let name = |claim: &Value| claim["metadata"]["name"].clone();
            let mut volumes: Vec<Value> = claims
                .iter()
                .map(|claim| {
                    let source = json!({"claimName": name(claim)});
                    json!({"name": name(claim), "persistentVolumeClaim": source})
                })
                .collect();
            let kept = own.get("volumes").and_then(Value::as_array);
            for volume in kept.into_iter().flatten() {
                if !claims.iter().any(|claim| name(claim) == volume["name"]) {
                    volumes.push(volume.clone());
                }
            }
            own.insert("volumes".into(), Value::Array(volumes));
        }
    }
    template
}

fn stateful_strategy(at: &At<'_>, errors: &mut Errors) {
    const STRATEGY: &str = "io.k8s.api.apps.v1.StatefulSetUpdateStrategy";
    const ROLLING: &str = "io.k8s.api.apps.v1.RollingUpdateStatefulSetStrategy";
    let rolling = at.get("rollingUpdate");
    match at.str("type") {
        "" => at.required(errors, ""),
        "OnDelete" if rolling.is_set() => {
            let shown = internal::show(ROLLING, rolling.value);
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            rolling.invalid_shown(errors, &shown, detail);
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            rolling.get("partition").not_negative(errors);
            let down = rolling.get("maxUnavailable");
            if down.is_set() {
                positive_int_or_percent(&down, errors);
                if amount(&down) == 0 {
                    down.invalid(errors, "cannot be 0");
                }
                not_more_than_100_percent(&down, errors);
            }
        }
        _ => {
            let shown = internal::show(STRATEGY, at.value);
            at.invalid_shown(errors, &shown, "must be 'RollingUpdate' or 'OnDelete'");
        }
    }
}

fn validate_stateful_set_create(at: &At<'_>, errors: &mut Errors) {
    let spec = at.get("spec");
    for own in spec.get("volumeClaimTemplates").items() {
        claim::spec(&own.get("spec"), errors);
    }
    spec.get("serviceName").may_check(errors, dns_label);
}

fn validate_stateful_set_update(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    let (old, new) = (old.get("spec"), new.get("spec"));
    for name in ["selector", "serviceName", "podManagementPolicy"] {
        let at = new.get(name);
        if at.value != old.get(name).value {
            match at.is_null() {
                true => at.invalid_text(errors, IMMUTABLE),
                false => at.invalid(errors, IMMUTABLE),
            }
        }
    }
    let claims = new.get("volumeClaimTemplates");
    if claims.value != old.get("volumeClaimTemplates").value {
        let shown = internal::show_list("io.k8s.api.core.v1.PersistentVolumeClaim", claims.value);
        claims.invalid_shown(errors, &shown, IMMUTABLE);
    }
}

const REPLICAS_OF_STATEFUL: &[&str] = &[
    "readyReplicas",
    "currentReplicas",
    "updatedReplicas",
    "availableReplicas",
];

fn warn_stateful_set(old: &Value, new: &At<'_>, warnings: &mut Warnings) {
    template_warnings(old, new, "spec.template", warnings);
    for own in new.get("spec.volumeClaimTemplates").items() {
        claim_resources(&own.get("spec.resources"), warnings);
    }
    let limit = new.get("spec.revisionHistoryLimit");
    if limit.int().is_some_and(|own| own < 0) {
        let why = "a negative value retains all historical revisions; a value >= 0 is recommended";
        warnings.add(&limit, why);
    }
}
