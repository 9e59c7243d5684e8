//! Workloads that keep pods running: deployments, replica sets, stateful sets, daemon
//! sets, replication controllers; templates and revisions.
//!
//! Source: `pkg/apis/apps`, `pkg/registry/{apps,core}` of v1.37.

use serde_json::{Value, json};

use super::defaults::{made, set_default};
use super::rules::{PLAIN, Rules};
use super::warnings::Warnings;
use super::{Context, internal, pod};
use crate::validation::common::{
    SelectorValues, is_empty_selector, label_selector_with, not_more_than_100_percent,
    percent_value, positive_int_or_percent,
};
use crate::validation::{At, Errors, dns_label};

pub(super) const IMMUTABLE: &str = "field is immutable";
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

pub(super) const WORKLOAD: Rules = Rules {
    has_status: true,
    counts_generation: true,
    prepare_create: |object, _| no_status(object),
    warn: warn_of_template,
    ..PLAIN
};

/// Deployments.
pub(crate) static DEPLOYMENT: Rules = Rules {
    generation_of: &["/spec", "/metadata/annotations"],
    default: default_deployment,
    prepare_update: keep_labels,
    validate: validate_deployment,
    validate_update: same_selector,
    validate_subresource: |sub, old, new, errors| {
        if sub == "status" {
            replica_status(old, new, REPLICAS_OF_DEPLOYMENT, "readyReplicas", errors);
        }
    },
    ..WORKLOAD
};

/// Replica sets.
pub(crate) static REPLICA_SET: Rules = Rules {
    default: |object| {
        default_spec(object, |spec| set_default(spec, "replicas", json!(1)));
    },
    validate: validate_replica_set,
    validate_update: same_selector,
    validate_subresource: |sub, old, new, errors| {
        if sub == "status" {
            replica_status(old, new, REPLICAS_OF_SET, "readyReplicas", errors);
        }
    },
    ..WORKLOAD
};

/// Replication controllers.
pub(crate) static REPLICATION_CONTROLLER: Rules = Rules {
    default: default_controller,
    validate: validate_controller,
    validate_subresource: |sub, old, new, errors| {
        if sub == "status" {
            replica_status(old, new, REPLICAS_OF_SET, "readyReplicas", errors);
        }
    },
    ..WORKLOAD
};

/// Daemon sets.
pub(crate) static DAEMON_SET: Rules = Rules {
    default: default_daemon_set,
    prepare_create: prepare_daemon_set,
    prepare_update: count_template,
    validate: validate_daemon_set,
    validate_update: same_selector,
    validate_subresource: daemon_status,
    warn: |old, new, warnings| template_warnings(old, new, "spec.template", warnings),
    ..WORKLOAD
};

/// Templates of pods.
pub(crate) static POD_TEMPLATE: Rules = Rules {
    counts_generation: true,
    generation_of: &["/template"],
    default: |object| pod::defaults::template(&mut object["template"]),
    validate: |at, errors| pod::spec::template(&at.get("template"), errors),
    warn: |old, new, warnings| template_warnings(old, new, "template", warnings),
    ..PLAIN
};

/// Revisions of stateful sets and daemon sets.
pub(crate) static CONTROLLER_REVISION: Rules = Rules {
    validate: |at, errors| {
        at.get("revision").not_negative(errors);
    },
    validate_create: |at, errors| {
        let data = at.get("data");
        match data.value {
            Value::Null => data.required(errors, "data is mandatory"),
            Value::Object(_) => {}
            _ => data.required(errors, "data must be a valid JSON object"),
        }
    },
    validate_update: |old, new, errors| {
        let data = new.get("data");
        if data.value != old.get("data").value {
            data.invalid(errors, IMMUTABLE);
        }
    },
    ..PLAIN
};

pub(super) fn no_status(object: &mut Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert("status".to_owned(), Value::Null);
    }
}

type Fields = serde_json::Map<String, Value>;

/// Fills in the spec of a workload and its template.
pub(super) fn default_spec(object: &mut Value, fill: fn(&mut Fields)) {
    let Some(spec) = object.as_object_mut().and_then(|map| made(map, "spec")) else {
        return;
    };
    fill(spec);
    if let Some(template) = made(spec, "template") {
        let mut own = Value::Object(std::mem::take(template));
        pod::defaults::template(&mut own);
        if let Value::Object(own) = own {
            *template = own;
        }
    }
}

fn default_deployment(object: &mut Value) {
    default_spec(object, |spec| {
        set_default(spec, "replicas", json!(1));
        set_default(spec, "revisionHistoryLimit", json!(10));
        set_default(spec, "progressDeadlineSeconds", json!(600));
        rolling(
            spec,
            "strategy",
            &[("maxUnavailable", json!("25%")), ("maxSurge", json!("25%"))],
        );
    });
}

/// The strategy of an update is to roll, with those limits.
fn rolling(spec: &mut Fields, name: &str, limits: &[(&str, Value)]) {
    let Some(strategy) = made(spec, name) else {
        return;
    };
    set_default(strategy, "type", json!("RollingUpdate"));
    if strategy.get("type") == Some(&json!("RollingUpdate"))
        && let Some(rolling) = made(strategy, "rollingUpdate")
    {
        for (key, value) in limits {
            set_default(rolling, key, value.clone());
        }
    }
}

fn default_daemon_set(object: &mut Value) {
    default_spec(object, |spec| {
        set_default(spec, "revisionHistoryLimit", json!(10));
        rolling(
            spec,
            "updateStrategy",
            &[("maxUnavailable", json!(1)), ("maxSurge", json!(0))],
        );
    });
    // The count of the template's changes is a field of the kind, told as an annotation.
    let count = &mut object["metadata"]["annotations"][TEMPLATE_GENERATION];
    if count.is_null() {
        *count = json!("0");
    }
}

fn default_controller(object: &mut Value) {
    let labels = object["spec"]["template"]["metadata"]["labels"].clone();
    let filled = |value: &Value| value.as_object().is_some_and(|map| !map.is_empty());
    if filled(&labels) {
        if !filled(&object["spec"]["selector"]) {
            object["spec"]["selector"] = labels.clone();
        }
        if !filled(&object["metadata"]["labels"]) {
            object["metadata"]["labels"] = labels;
        }
    }
    if object["spec"]["template"].is_object() {
        pod::defaults::template(&mut object["spec"]["template"]);
    }
    if let Some(spec) = object["spec"].as_object_mut() {
        set_default(spec, "replicas", json!(1));
    }
}

/// A status does not change labels.
fn keep_labels(subresource: Option<&str>, old: &Value, object: &mut Value) {
    if subresource == Some("status") {
        object["metadata"]["labels"] = old["metadata"]["labels"].clone();
    }
}

fn prepare_daemon_set(object: &mut Value, _: &Context<'_>) {
    no_status(object);
    let notes = &mut object["metadata"]["annotations"];
    let counted = notes[TEMPLATE_GENERATION]
        .as_str()
        .and_then(|own| own.parse::<i64>().ok());
    if counted.is_none_or(|own| own < 1) {
        notes[TEMPLATE_GENERATION] = json!("1");
    }
}

/// The server counts the changes of the template, in an annotation.
fn count_template(subresource: Option<&str>, old: &Value, object: &mut Value) {
    if subresource.is_some() {
        return;
    }
    let before = old["metadata"]["annotations"][TEMPLATE_GENERATION].as_str();
    let mut count = before.and_then(|own| own.parse::<i64>().ok()).unwrap_or(0);
    if old["spec"]["template"] != object["spec"]["template"] {
        count += 1;
    }
    object["metadata"]["annotations"][TEMPLATE_GENERATION] = json!(count.to_string());
}

/// Whether a selector's requirements hold for labels.
fn selects(selector: &At<'_>, labels: &At<'_>) -> bool {
    let pairs = selector.get("matchLabels");
    let expressions = selector.get("matchExpressions");
    pairs
        .entries()
        .all(|(key, value)| labels.value.get(key) == Some(value.value))
        && expressions.items().all(|requirement| {
            let own = labels.value.get(requirement.str("key"));
            let listed = || {
                let own = own.and_then(Value::as_str).unwrap_or_default();
                requirement.get("values").contains(own)
            };
            match requirement.str("operator") {
                "In" => own.is_some() && listed(),
                "NotIn" => own.is_none() || !listed(),
                "Exists" => own.is_some(),
                "DoesNotExist" => own.is_none(),
                _ => false,
            }
        })
}

/// How a kind speaks of its selector.
pub(super) struct Selecting {
    /// That it is empty, if it may not be.
    pub(super) empty: &'static str,
    /// That it cannot be read.
    pub(super) unreadable: Option<&'static str>,
    /// Whether there must be one.
    pub(super) needed: bool,
    /// Whether one that selects everything is compared with the template.
    pub(super) everything: bool,
}

/// Checks the selector; the answer is whether the template is to be checked.
pub(super) fn selector(spec: &At<'_>, how: &Selecting, errors: &mut Errors) -> bool {
    let at = spec.get("selector");
    let before = errors.len();
    if at.is_null() {
        if how.needed {
            at.required(errors, "");
        }
    } else {
        label_selector_with(&at, SelectorValues::Checked, errors);
    }
    let readable = at.is_null() || errors.len() == before;
    if at.is_set() && is_empty_selector(&at) && !how.empty.is_empty() {
        at.invalid(errors, how.empty);
    }
    if !readable {
        if let Some(detail) = how.unreadable {
            at.invalid(errors, detail);
            return false;
        }
        return true;
    }
    let labels = spec.get("template.metadata.labels");
    let compared = at.is_null() || how.everything || !is_empty_selector(&at);
    if compared && (at.is_null() || !selects(&at, &labels)) {
        labels.invalid(errors, "`selector` does not match template `labels`");
    }
    true
}

/// Checks that pods of the template run until they are stopped.
pub(super) fn always_running(template: &At<'_>, kind: &str, errors: &mut Errors) {
    let policy = template.get("spec.restartPolicy");
    policy.one_of(errors, &["Always"]);
    let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
    template
        .get("spec.activeDeadlineSeconds")
        .absent(errors, &detail);
}

const REPLICATED: Selecting = Selecting {
    empty: "empty selector is invalid for deployment",
    unreadable: Some("invalid label selector"),
    needed: true,
    everything: false,
};

fn replicated_template(spec: &At<'_>, errors: &mut Errors) {
    if selector(spec, &REPLICATED, errors) {
        let template = spec.get("template");
        pod::spec::template(&template, errors);
        always_running(&template, "ReplicaSet", errors);
    }
}

fn validate_deployment(at: &At<'_>, errors: &mut Errors) {
    let spec = at.get("spec");
    spec.get("replicas").not_negative(errors);
    replicated_template(&spec, errors);
    deployment_strategy(&spec.get("strategy"), errors);
    for name in [
        "minReadySeconds",
        "revisionHistoryLimit",
        "progressDeadlineSeconds",
    ] {
        spec.get(name).not_negative(errors);
    }
    let deadline = spec.get("progressDeadlineSeconds");
    let ready = spec.get("minReadySeconds").int().unwrap_or(0);
    if deadline.int().is_some_and(|own| own <= ready) {
        deadline.invalid(errors, "must be greater than minReadySeconds");
    }
}

fn deployment_strategy(at: &At<'_>, errors: &mut Errors) {
    let rolling = at.get("rollingUpdate");
    match at.str("type") {
        "Recreate" => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            rolling.absent(errors, detail);
        }
        "RollingUpdate" if rolling.is_null() => {
            rolling.required(errors, "this should be defaulted and never be nil");
        }
        "RollingUpdate" => {
            let (down, up) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            positive_int_or_percent(&down, errors);
            positive_int_or_percent(&up, errors);
            if amount(&down) == 0 && amount(&up) == 0 {
                down.invalid(errors, "may not be 0 when `maxSurge` is 0");
            }
            not_more_than_100_percent(&down, errors);
        }
        _ => {
            let shown = internal::show("io.k8s.api.apps.v1.DeploymentStrategy", at.value);
            errors.not_supported_shown(&at.path(), &shown, &["Recreate", "RollingUpdate"]);
        }
    }
}

/// The number, or that of a percentage; of a text that is neither, the number it is.
pub(super) fn amount(at: &At<'_>) -> i64 {
    match at.value {
        Value::String(text) => percent_value(at).unwrap_or_else(|| text.parse().unwrap_or(0)),
        _ => at.int().unwrap_or(0),
    }
}

fn same_selector(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    let at = new.get("spec.selector");
    at.unchanged(errors, old.get("spec.selector").value, IMMUTABLE);
}

fn validate_replica_set(at: &At<'_>, errors: &mut Errors) {
    let spec = at.get("spec");
    spec.get("replicas").not_negative(errors);
    spec.get("minReadySeconds").not_negative(errors);
    replicated_template(&spec, errors);
}

fn validate_controller(at: &At<'_>, errors: &mut Errors) {
    let spec = at.get("spec");
    spec.get("minReadySeconds").not_negative(errors);
    let selector = spec.get("selector");
    if selector.is_empty() {
        selector.required(errors, "");
    }
    spec.get("replicas").not_negative(errors);
    let template = spec.get("template");
    if template.is_null() {
        template.required(errors, "");
        return;
    }
    let labels = template.get("metadata.labels");
    let matches = selector
        .entries()
        .all(|(key, value)| labels.value.get(key) == Some(value.value));
    if !matches {
        labels.invalid(errors, "`selector` does not match template `labels`");
    }
    pod::spec::template(&template, errors);
    always_running(&template, "ReplicationController", errors);
}

fn validate_daemon_set(at: &At<'_>, errors: &mut Errors) {
    let spec = at.get("spec");
    let how = Selecting {
        empty: "empty selector is invalid for daemonset",
        unreadable: None,
        needed: false,
        everything: true,
    };
    selector(&spec, &how, errors);
    let template = spec.get("template");
    pod::spec::template(&template, errors);
    always_running(&template, "DaemonSet", errors);
    spec.get("minReadySeconds").not_negative(errors);
    let strategy = spec.get("updateStrategy");
    match strategy.str("type") {
        "OnDelete" => {}
        "RollingUpdate" => daemon_rolling(&strategy.get("rollingUpdate"), errors),
        _ => {
            let shown =
                internal::show("io.k8s.api.apps.v1.DaemonSetUpdateStrategy", strategy.value);
            let known = ["RollingUpdate", "OnDelete"];
            errors.not_supported_shown(&strategy.path(), &shown, &known);
        }
    }
    spec.get("revisionHistoryLimit").not_negative(errors);
}

fn daemon_rolling(at: &At<'_>, errors: &mut Errors) {
    let (down, up) = (at.get("maxUnavailable"), at.get("maxSurge"));
    for own in [&down, &up] {
        positive_int_or_percent(own, errors);
    }
    for own in [&down, &up] {
        not_more_than_100_percent(own, errors);
    }
    match (amount(&down) != 0, amount(&up) != 0) {
        (true, true) => up.invalid(errors, "may not be set when maxUnavailable is non-zero"),
        (false, false) => down.required(errors, "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

const REPLICAS_OF_DEPLOYMENT: &[&str] = &["updatedReplicas", "readyReplicas", "availableReplicas"];
const REPLICAS_OF_SET: &[&str] = &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
/// Counts of pods: none is negative, and none is more than all there are.
pub(super) fn replica_status(
    old: &At<'_>,
    new: &At<'_>,
    counts: &[&str],
    ready_word: &str,
    errors: &mut Errors,
) {
    let (before, at) = (old.get("status"), new.get("status"));
    let int = |name: &str| at.value.get(name).and_then(Value::as_i64).unwrap_or(0);
    let others = [
        "replicas",
        "observedGeneration",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ];
    for name in others.iter().chain(counts) {
        at.get(name).not_negative(errors);
    }
    for name in counts.iter().filter(|name| int(name) > int("replicas")) {
        at.get(name)
            .invalid(errors, "cannot be greater than status.replicas");
    }
    if int("availableReplicas") > int("readyReplicas") {
        let detail = format!("cannot be greater than {ready_word}");
        at.get("availableReplicas").invalid(errors, &detail);
    }
    collisions(&before, &at, errors);
}

fn collisions(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    let (before, after) = (old.get("collisionCount"), new.get("collisionCount"));
    let lost = match (before.int(), after.int()) {
        (Some(_), None) => true,
        (Some(before), Some(after)) => after < before,
        (None, _) => false,
    };
    if lost {
        after.invalid_int(errors, "cannot be decremented");
    }
}

fn daemon_status(sub: &str, old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    if sub != "status" {
        return;
    }
    let at = new.get("status");
    for name in [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ] {
        at.get(name).not_negative(errors);
    }
    collisions(&old.get("status"), &at, errors);
}

/// Of a name that pods take over.
pub(super) fn warn_of_name(old: &Value, new: &At<'_>, warnings: &mut Warnings) {
    let name = new.get("metadata.name");
    let wrong = dns_label(name.text());
    if old.is_null() && !wrong.is_empty() {
        warnings.add(
            &name,
            &format!(
                "this is used in Pod names and hostnames, which can result in surprising behavior; \
                 a DNS label is recommended: [{}]",
                wrong.join(" ")
            ),
        );
    }
}

pub(super) fn template_warnings(
    old: &Value,
    new: &At<'_>,
    path: &'static str,
    warnings: &mut Warnings,
) {
    // Nothing is told again of what has not changed.
    let generation = |value: &Value| value["metadata"]["generation"].as_i64();
    if old.is_null() || generation(old) != generation(new.value) {
        pod::warnings::template(&new.get(path), warnings);
    }
}

fn warn_of_template(old: &Value, new: &At<'_>, warnings: &mut Warnings) {
    warn_of_name(old, new, warnings);
    template_warnings(old, new, "spec.template", warnings);
}
