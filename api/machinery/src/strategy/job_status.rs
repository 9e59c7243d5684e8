//! What the job controller may report: counts that only grow, ends that last.
//!
//! Source: `ValidateJobStatusUpdate` of v1.37, as its strategy asks for it.

use std::collections::BTreeSet;

use super::internal;
use super::job_policies::{count_indexes, index_interval};
use crate::validation::{At, Errors};

fn holds(status: &At<'_>, kind: &str) -> bool {
    status
        .get("conditions")
        .items()
        .any(|own| own.str("type") == kind && own.str("status") == "True")
}

/// Checks a new status.
pub(crate) fn validate(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    let (before, at, spec) = (old.get("status"), new.get("status"), new.get("spec"));
    for name in ["active", "succeeded", "failed", "ready", "terminating"] {
        at.get(name).not_negative(errors);
    }
    uncounted(&at.get("uncountedTerminatedPods"), errors);
    ends(&before, &at, &spec, errors);
    finished(&at, errors);
    indexes(&spec, &before, &at, errors);
    let int = |of: &At<'_>, name: &str| of.value[name].as_i64().unwrap_or(0);
    if at.has("ready") && int(&at, "ready") > int(&at, "active") {
        at.get("ready")
            .invalid(errors, "cannot set more ready pods than active");
    }
    for name in ["failed", "succeeded"] {
        if int(&at, name) < int(&before, name) {
            let detail = format!("cannot decrease the {name} counter");
            at.get(name).invalid_int(errors, &detail);
        }
    }
    times(&spec, &before, &at, errors);
}

fn uncounted(at: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for list in ["succeeded", "failed"] {
        for own in at.get(list).items() {
            let text = own.value.as_str().unwrap_or_default();
            if text.is_empty() {
                own.invalid_text(errors, "must not be empty");
            } else if !seen.insert(text.to_owned()) {
                own.duplicate(errors);
            }
        }
    }
}

fn ends(before: &At<'_>, at: &At<'_>, spec: &At<'_>, errors: &mut Errors) {
    let place = at.get("conditions").path();
    let mut refuse = |wrong: bool, detail: &str| {
        if wrong {
            errors.invalid_omitted(&place, detail);
        }
    };
    let (complete, failed) = (holds(at, "Complete"), holds(at, "Failed"));
    let (target, met) = (holds(at, "FailureTarget"), holds(at, "SuccessCriteriaMet"));
    refuse(
        complete && failed,
        "cannot set Complete=True and Failed=true conditions",
    );
    refuse(
        complete && target,
        "cannot set Complete=True and FailureTarget=true conditions",
    );
    refuse(
        failed && !target,
        "cannot set Failed=True condition without the FailureTarget=true condition",
    );
    refuse(
        complete && !met,
        "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
    );
    refuse(
        met && failed,
        "cannot set SuccessCriteriaMet=True and Failed=true conditions",
    );
    refuse(
        met && target,
        "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
    );
    refuse(
        spec.has("successPolicy") && !met && complete,
        "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
    );
    for kind in ["Failed", "Complete", "FailureTarget"] {
        let detail = format!("cannot disable the terminal {kind}=True condition");
        refuse(holds(before, kind) && !holds(at, kind), &detail);
    }
    refuse(
        holds(before, "SuccessCriteriaMet") && !met,
        "cannot disable the SuccessCriteriaMet=True condition",
    );
    refuse(
        holds(before, "Complete") && !holds(before, "SuccessCriteriaMet") && met,
        "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions",
    );
}

fn finished(at: &At<'_>, errors: &mut Errors) {
    if !holds(at, "Complete") && !holds(at, "Failed") {
        return;
    }
    let above = |name: &str| at.value[name].as_i64().is_some_and(|own| own > 0);
    if above("active") {
        at.get("active")
            .invalid(errors, "active>0 is invalid for finished job");
    }
    if !at.has("startTime") {
        at.get("startTime")
            .required(errors, "startTime is required for finished job");
    }
    let pods = at.get("uncountedTerminatedPods");
    if ["succeeded", "failed"]
        .iter()
        .any(|list| !pods.get(list).is_empty())
    {
        let shown = internal::show("io.k8s.api.batch.v1.UncountedTerminatedPods", pods.value);
        pods.invalid_shown(errors, &shown, "must be empty for finished job");
    }
    if above("terminating") {
        at.get("terminating")
            .invalid(errors, "terminating>0 is invalid for finished job");
    }
}

fn times(spec: &At<'_>, before: &At<'_>, at: &At<'_>, errors: &mut Errors) {
    let (start, end) = (at.get("startTime"), at.get("completionTime"));
    if end.is_set() && !holds(at, "Complete") {
        let detail = "cannot set completionTime when there is no Complete=True condition";
        end.invalid(errors, detail);
    }
    if end.is_null() && holds(at, "Complete") {
        end.required(errors, "completionTime is required for Complete jobs");
    }
    // Times in this form sort as they follow.
    if start.is_set() && end.is_set() && end.text() < start.text() {
        end.invalid(errors, "must be equal to or after `startTime`");
    }
    let old_end = before.get("completionTime");
    if end.is_set() && old_end.is_set() && end.value != old_end.value {
        end.invalid(errors, "field is immutable");
    }
    let old_start = before.get("startTime");
    if old_start.is_set() && old_start.value != start.value && !spec.flag("suspend") {
        let detail = "field is immutable for unsuspended job once set";
        start.invalid(errors, detail);
    }
}

fn indexes(spec: &At<'_>, before: &At<'_>, at: &At<'_>, errors: &mut Errors) {
    let (done, failed) = (at.get("completedIndexes"), at.get("failedIndexes"));
    let changed = |name: &str| before.value.get(name) != at.value.get(name);
    if let Some(all) = spec.get("completions").int() {
        if changed("completedIndexes")
            && let Err(why) = count_indexes(done.text(), all)
        {
            let detail = format!("error parsing completedIndexes: {why}");
            done.invalid_text(errors, &detail);
        }
        if changed("failedIndexes")
            && spec.has("backoffLimitPerIndex")
            && let Err(why) = count_indexes(failed.text(), all)
        {
            let detail = format!("error parsing failedIndexes: {why}");
            failed.invalid_text(errors, &detail);
        }
        if let Some(index) = overlap(done.text(), failed.text(), all) {
            let detail = format!("failedIndexes and completedIndexes overlap at index: {index}");
            failed.invalid_text(errors, &detail);
        }
    }
    if !done.is_empty() && spec.str("completionMode") != "Indexed" {
        let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
        done.invalid_text(errors, detail);
    }
    if failed.is_set() && !spec.has("backoffLimitPerIndex") {
        let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        failed.invalid_text(errors, detail);
    }
}

/// The first index that stands in both.
fn overlap(done: &str, failed: &str, completions: i64) -> Option<i64> {
    let intervals = |text: &str| -> Vec<(i64, i64)> {
        let parts = text.split(',').filter(|part| !part.is_empty());
        parts
            .filter_map(|part| index_interval(part, completions).ok())
            .collect()
    };
    let (done, failed) = (intervals(done), intervals(failed));
    let (mut at, mut other) = (0, 0);
    while let (Some(a), Some(b)) = (done.get(at), failed.get(other)) {
        if a.0 <= b.1 && b.0 <= a.1 {
            return Some(a.0.max(b.0));
        }
        if a.0 <= b.0 { at += 1 } else { other += 1 }
    }
    None
}
