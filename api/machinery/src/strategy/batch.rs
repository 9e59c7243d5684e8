//! Jobs and cron jobs.
//!
//! Source: `pkg/apis/batch`, `pkg/registry/batch` of v1.37.

use serde_json::{Value, json};

use super::defaults::{list_mut, made, object_mut, set_default};
use super::job_policies::{failure_policy, success_policy};
use super::rules::{PLAIN, Rules};
use super::warnings::Warnings;
use super::workloads::{no_status, template_warnings, warn_of_name};
use super::{Context, internal, pod};
use crate::validation::common::{domain_prefixed_path, label_selector};
use crate::validation::{At, Errors, dns_label};

const IMMUTABLE: &str = "field is immutable";
const LABELS: [(&str, bool); 4] = [
    ("controller-uid", true),
    ("job-name", false),
    ("batch.kubernetes.io/controller-uid", true),
    ("batch.kubernetes.io/job-name", false),
];
/// Most completions without a limit of failed indexes.
const COMPLETIONS_SOFT_LIMIT: i64 = 100_000;
const PARALLELISM_FOR_MANY: i64 = 10_000;
const MAX_PARALLELISM: i64 = 100_000;
const MAX_FAILED_INDEXES: i64 = 100_000;
const FAILED_INDEXES_FOR_MANY: i64 = 10_000;
/// Jobs.
pub(crate) static JOB: Rules = Rules {
    has_status: true,
    counts_generation: true,
    default: default_job,
    prepare_create: prepare_job,
    prepare_update: |_, _, job| take_labels(job),
    validate: validate_job,
    validate_create: generated_selector,
    validate_update: validate_job_update,
    validate_subresource: |sub, old, new, errors| {
        if sub == "status" {
            super::job_status::validate(old, new, errors);
        }
    },
    warn: |old, new, warnings| {
        warn_of_name(old, new, warnings);
        warn_of_job(old, new, "spec", "spec.template", warnings);
    },
    ..PLAIN
};

fn default_job(job: &mut Value) {
    if let Some(spec) = job.as_object_mut().and_then(|map| made(map, "spec")) {
        let absent = |spec: &serde_json::Map<String, Value>, key: &str| {
            spec.get(key).is_none_or(Value::is_null)
        };
        if absent(spec, "completions") && absent(spec, "parallelism") {
            spec.insert("completions".into(), json!(1));
        }
        set_default(spec, "parallelism", json!(1));
        let limit = if absent(spec, "backoffLimitPerIndex") {
            6
        } else {
            i64::from(i32::MAX)
        };
        set_default(spec, "backoffLimit", json!(limit));
        set_default(spec, "completionMode", json!("NonIndexed"));
        set_default(spec, "suspend", json!(false));
        let replaced = if absent(spec, "podFailurePolicy") {
            "TerminatingOrFailed"
        } else {
            "Failed"
        };
        set_default(spec, "podReplacementPolicy", json!(replaced));
        set_default(spec, "manualSelector", json!(false));
        default_job_spec(spec);
    }
}

pub(super) fn default_job_spec(spec: &mut serde_json::Map<String, Value>) {
    if let Some(policy) = object_mut(spec, "podFailurePolicy") {
        for rule in list_mut(policy, "rules") {
            for pattern in list_mut(rule, "onPodConditions") {
                set_default(pattern, "status", json!("True"));
            }
        }
    }
    let mut template = spec.remove("template").unwrap_or_else(|| json!({}));
    pod::defaults::template(&mut template);
    spec.insert("template".into(), template);
}

/// A job without labels has those of its pods.
fn take_labels(job: &mut Value) {
    let labels = job["spec"]["template"]["metadata"]["labels"].clone();
    let filled = |value: &Value| value.as_object().is_some_and(|map| !map.is_empty());
    if filled(&labels) && !filled(&job["metadata"]["labels"]) {
        job["metadata"]["labels"] = labels;
    }
}

/// A job's own labels make its selector, unless it chooses its own.
fn prepare_job(job: &mut Value, _: &Context<'_>) {
    no_status(job);
    let labels = &job["spec"]["template"]["metadata"]["labels"];
    let labelled = labels.as_object().is_some_and(|map| !map.is_empty());
    if job["spec"]["manualSelector"] != true {
        select_own(job);
    }
    if labelled {
        take_labels(job);
    }
}

fn select_own(job: &mut Value) {
    let (name, uid) = (
        job["metadata"]["name"].clone(),
        job["metadata"]["uid"].clone(),
    );
    let labels = &mut job["spec"]["template"]["metadata"]["labels"];
    for (key, is_uid) in LABELS {
        if labels[key].is_null() {
            labels[key] = if is_uid { uid.clone() } else { name.clone() };
        }
    }
    let own = &mut job["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"];
    if own.is_null() {
        *own = uid;
    }
}

fn generated_selector(job: &At<'_>, errors: &mut Errors) {
    let spec = job.get("spec");
    if spec.flag("manualSelector") || !spec.has("selector") {
        return;
    }
    let (name, uid) = (
        job.value["metadata"]["name"].as_str().unwrap_or_default(),
        job.value["metadata"]["uid"].as_str().unwrap_or_default(),
    );
    let labels = spec.get("template.metadata.labels");
    for (key, is_uid) in LABELS {
        let (own, wanted) = (labels.key(key), if is_uid { uid } else { name });
        let detail = format!("must be '{wanted}'");
        if own.is_null() {
            own.required(errors, &detail);
        } else if own.text() != wanted {
            own.with(labels.value).invalid(errors, &detail);
        }
    }
    let selector = spec.get("selector");
    let generated = selector.get("matchLabels").entries().all(|(key, value)| {
        let found = LABELS.iter().find(|(own, _)| *own == key);
        found.is_some_and(|(_, is_uid)| value.text() == if *is_uid { uid } else { name })
    });
    if !generated || !selector.get("matchExpressions").is_empty() {
        selector.invalid(errors, "`selector` not auto-generated");
    }
}

fn validate_job(job: &At<'_>, errors: &mut Errors) {
    let spec = job.get("spec");
    job_spec(&spec, errors);
    let selector = spec.get("selector");
    if selector.is_null() {
        selector.required(errors, "");
    }
    let before = errors.len();
    label_selector(&selector, errors);
    let labels = spec.get("template.metadata.labels");
    let matches = selector
        .get("matchLabels")
        .entries()
        .all(|(key, value)| labels.value.get(key) == Some(value.value));
    if errors.len() == before && (selector.is_null() || !matches) {
        labels.invalid(errors, "`selector` does not match template `labels`");
    }
    let completions = spec.get("completions").int().unwrap_or(0);
    if spec.str("completionMode") == "Indexed" && completions > 0 {
        let name = job.get("metadata.name");
        let longest = format!("{}-{}", name.text(), completions - 1);
        if !dns_label(&longest).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {longest}");
            name.invalid_text(errors, &detail);
        }
    }
}

pub(super) fn job_spec(spec: &At<'_>, errors: &mut Errors) {
    for name in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.get(name).not_negative(errors);
    }
    let per_index = spec.get("backoffLimitPerIndex");
    let most_failed = spec.get("maxFailedIndexes");
    if most_failed.is_set() && per_index.is_null() {
        per_index.required(errors, "when maxFailedIndexes is specified");
    }
    managed_by(&spec.get("managedBy"), errors);
    spec.get("completionMode")
        .may_one_of(errors, &["NonIndexed", "Indexed"]);
    if spec.str("completionMode") == "Indexed" {
        indexed(spec, errors);
    } else if ["", "NonIndexed"].contains(&spec.str("completionMode")) {
        for own in [&per_index, &most_failed] {
            if own.is_set() {
                own.invalid(errors, "requires indexed completion mode");
            }
        }
    }
    failure_policy(spec, errors);
    let success = spec.get("successPolicy");
    if success.is_set() {
        if spec.str("completionMode") == "Indexed" {
            success_policy(spec, &success, errors);
        } else {
            let shown = internal::show("io.k8s.api.batch.v1.SuccessPolicy", success.value);
            success.invalid_shown(errors, &shown, "requires indexed completion mode");
        }
    }
    let known: &[&str] = match spec.has("podFailurePolicy") {
        true => &["Failed"],
        false => &["Failed", "TerminatingOrFailed"],
    };
    spec.get("podReplacementPolicy").may_one_of(errors, known);
    let template = spec.get("template");
    pod::spec::template(&template, errors);
    let policy = template.get("spec.restartPolicy");
    match policy.text() {
        "" | "Always" => policy.required(errors, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if spec.has("podFailurePolicy") => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            policy.invalid_text(errors, detail);
        }
        "OnFailure" | "Never" => {}
        _ => policy.unsupported(errors, &["OnFailure", "Never"]),
    }
}

fn managed_by(at: &At<'_>, errors: &mut Errors) {
    if at.is_null() {
        return;
    }
    domain_prefixed_path(at, errors);
    if at.len() > 63 {
        at.too_long(errors, 63);
    }
}

fn indexed(spec: &At<'_>, errors: &mut Errors) {
    let (completions, parallelism, failed) = (
        spec.get("completions"),
        spec.get("parallelism"),
        spec.get("maxFailedIndexes"),
    );
    if completions.is_null() {
        completions.required(errors, "when completion mode is Indexed");
    }
    let above = |at: &At<'_>, most: i64| at.int().is_some_and(|own| own > most);
    if above(&parallelism, MAX_PARALLELISM) {
        let detail = format!(
            "must be less than or equal to {MAX_PARALLELISM} when completion mode is Indexed"
        );
        parallelism.invalid(errors, &detail);
    }
    if let Some(all) = completions.int()
        && above(&failed, all)
    {
        failed.invalid(errors, "must be less than or equal to completions");
    }
    if above(&failed, MAX_FAILED_INDEXES) {
        let detail = format!("must be less than or equal to {MAX_FAILED_INDEXES}");
        failed.invalid(errors, &detail);
    }
    if !above(&completions, COMPLETIONS_SOFT_LIMIT) || !spec.has("backoffLimitPerIndex") {
        return;
    }
    if failed.is_null() {
        let detail =
            format!("must be specified when completions is above {COMPLETIONS_SOFT_LIMIT}");
        failed.required(errors, &detail);
    }
    for (at, most) in [
        (&parallelism, PARALLELISM_FOR_MANY),
        (&failed, FAILED_INDEXES_FOR_MANY),
    ] {
        if above(at, most) {
            let detail = format!(
                "must be less than or equal to {most} when completions are above \
                 {COMPLETIONS_SOFT_LIMIT} and used with backoff limit per index"
            );
            at.invalid(errors, &detail);
        }
    }
}

fn validate_job_update(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    let suspended = old.value["spec"]["suspend"] == true;
    let started = !old.value["status"]["startTime"].is_null();
    let (old, new) = (old.get("spec"), new.get("spec"));
    let (before, after) = (old.get("completions"), new.get("completions"));
    if new.str("completionMode") != "Indexed" {
        after.unchanged(errors, before.value, IMMUTABLE);
    } else if before.value != after.value
        && after.is_set()
        && after.value != new.get("parallelism").value
    {
        let detail = "can only be modified in tandem with spec.parallelism";
        after.invalid(errors, detail);
    }
    new.get("selector")
        .unchanged(errors, old.get("selector").value, IMMUTABLE);
    template_change(&old, &new, suspended, suspended && !started, errors);
    for name in ["completionMode", "backoffLimitPerIndex", "managedBy"] {
        new.get(name)
            .unchanged(errors, old.get(name).value, IMMUTABLE);
    }
    for (name, kind) in [
        ("podFailurePolicy", "io.k8s.api.batch.v1.PodFailurePolicy"),
        ("successPolicy", "io.k8s.api.batch.v1.SuccessPolicy"),
    ] {
        let at = new.get(name);
        if at.value != old.get(name).value {
            let shown = match at.is_null() {
                true => "null".to_owned(),
                false => internal::show(kind, at.value),
            };
            at.invalid_shown(errors, &shown, IMMUTABLE);
        }
    }
}

/// Where and with what a suspended job runs may change until it has begun.
fn template_change(
    old: &At<'_>,
    new: &At<'_>,
    suspended: bool,
    placeable: bool,
    errors: &mut Errors,
) {
    let (before, at) = (old.get("template"), new.get("template"));
    let mut kept = before.value.clone();
    if suspended || placeable {
        for path in ["labels", "annotations"] {
            kept["metadata"][path] = at.value["metadata"][path].clone();
        }
        for path in ["nodeSelector", "tolerations", "schedulingGates"] {
            kept["spec"][path] = at.value["spec"][path].clone();
        }
        kept["spec"]["affinity"]["nodeAffinity"] =
            at.value["spec"]["affinity"]["nodeAffinity"].clone();
    }
    if suspended {
        for list in ["containers", "initContainers"] {
            let news = at.value["spec"][list]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let olds = kept["spec"][list].as_array_mut();
            for (own, new) in olds.into_iter().flatten().zip(&news) {
                if own["name"] == new["name"] {
                    own["resources"] = new["resources"].clone();
                }
            }
        }
    }
    let (place, kind, same) = if suspended {
        let spec = at.get("spec");
        let same = bare(&kept["spec"]) == bare(spec.value);
        (spec.path(), "io.k8s.api.core.v1.PodSpec", same)
    } else {
        let same = bare(&kept) == bare(at.value);
        (at.path(), "io.k8s.api.core.v1.PodTemplateSpec", same)
    };
    if !same {
        let value = if suspended {
            &at.value["spec"]
        } else {
            at.value
        };
        let shown = internal::show(kind, value);
        errors.invalid_shown(&place, &shown, IMMUTABLE);
    }
}

/// Without what says nothing: null, and objects and lists with nothing in them.
fn bare(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().map(|(key, own)| (key.clone(), bare(own)));
            let said = |own: &Value| {
                !own.is_null()
                    && !own.as_object().is_some_and(serde_json::Map::is_empty)
                    && !own.as_array().is_some_and(Vec::is_empty)
            };
            Value::Object(kept.filter(|(_, own)| said(own)).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(bare).collect()),
        other => other.clone(),
    }
}

pub(super) fn warn_of_job(
    old: &Value,
    new: &At<'_>,
    path: &'static str,
    template: &'static str,
    warnings: &mut Warnings,
) {
    let spec = new.get(path);
    let above = |name: &str, most: i64| spec.value[name].as_i64().is_some_and(|own| own > most);
    if spec.str("completionMode") == "Indexed"
        && above("completions", COMPLETIONS_SOFT_LIMIT)
        && above("parallelism", PARALLELISM_FOR_MANY)
    {
        let why = "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism \
                   higher than 10^4, Kubernetes might not be able to track completedIndexes when a \
                   big number of indexes fail";
        warnings.add(&spec, why);
    }
    template_warnings(old, new, template, warnings);
}
