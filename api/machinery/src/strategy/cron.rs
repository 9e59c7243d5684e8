//! Jobs by the clock.
//!
//! Source: `pkg/apis/batch` of v1.37.

use serde_json::{Value, json};

use super::batch::{default_job_spec, job_spec, warn_of_job};
use super::defaults::{made, set_default};
use super::rules::{PLAIN, Rules};
use super::schedule::{self, Schedule};
use super::workloads::{no_status, warn_of_name};
use crate::validation::{At, Errors};

/// Cron jobs.
pub(crate) static CRON_JOB: Rules = Rules {
    has_status: true,
    counts_generation: true,
    default: default_cron_job,
    prepare_create: |object, _| no_status(object),
    validate: validate_cron_job,
    validate_create: validate_cron_job_create,
    validate_update: validate_cron_job_update,
    warn: |old, new, warnings| {
        warn_of_name(old, new, warnings);
        let template = "spec.jobTemplate.spec.template";
        warn_of_job(old, new, "spec.jobTemplate.spec", template, warnings);
        if !old.is_null() && new.get("spec").str("schedule").contains("TZ") {
            warnings.push(
                "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details".to_owned(),
            );
        }
    },
    ..PLAIN
};

fn default_cron_job(object: &mut Value) {
    let Some(spec) = object.as_object_mut().and_then(|map| made(map, "spec")) else {
        return;
    };
    set_default(spec, "concurrencyPolicy", json!("Allow"));
    set_default(spec, "suspend", json!(false));
    set_default(spec, "successfulJobsHistoryLimit", json!(3));
    set_default(spec, "failedJobsHistoryLimit", json!(1));
    if let Some(template) = made(spec, "jobTemplate")
        && let Some(spec) = made(template, "spec")
    {
        default_job_spec(spec);
    }
}

fn validate_cron_job(at: &At<'_>, errors: &mut Errors) {
    let spec = at.get("spec");
    let schedule = spec.get("schedule");
    if schedule.need(errors)
        && let Err(why) = Schedule::parse(schedule.text())
    {
        schedule.invalid_text(errors, &why);
    }
    spec.get("startingDeadlineSeconds").not_negative(errors);
    let policies = ["Allow", "Forbid", "Replace"];
    spec.get("concurrencyPolicy").choice(errors, &policies);
    let template = spec.get("jobTemplate");
    let own = template.get("spec");
    job_spec(&own, errors);
    let selector = own.get("selector");
    if selector.is_set() {
        selector.invalid(errors, "`selector` will be auto-generated");
    }
    let manual = own.get("manualSelector");
    if manual.is_true() {
        errors.not_supported_shown(&manual.path(), "true", &["nil", "false"]);
    }
    spec.get("successfulJobsHistoryLimit").not_negative(errors);
    spec.get("failedJobsHistoryLimit").not_negative(errors);
}

fn validate_cron_job_create(at: &At<'_>, errors: &mut Errors) {
    let schedule = at.get("spec.schedule");
    if schedule.text().contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        schedule.invalid_text(errors, detail);
    }
    time_zone(&at.get("spec.timeZone"), errors);
    let name = at.get("metadata.name");
    if name.len() > 52 {
        name.invalid_text(errors, "must be no more than 52 characters");
    }
}

fn validate_cron_job_update(old: &At<'_>, new: &At<'_>, errors: &mut Errors) {
    let (old, new) = (old.get("spec"), new.get("spec"));
    let schedule = new.get("schedule");
    if schedule.text().contains("TZ") {
        let detail = match (old.str("schedule").contains("TZ"), new.has("timeZone")) {
            (true, true) => "cannot use both timeZone field and TZ or CRON_TZ in schedule",
            (true, false) => "",
            (false, _) => "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        };
        if !detail.is_empty() {
            schedule.invalid_text(errors, detail);
        }
    }
    let zone = new.get("timeZone");
    if zone.value != old.get("timeZone").value {
        time_zone(&zone, errors);
    }
}

fn time_zone(at: &At<'_>, errors: &mut Errors) {
    if at.is_null() {
        return;
    }
    let name = at.text();
    if name.is_empty() {
        at.invalid(errors, "timeZone must be nil or non-empty string");
        return;
    }
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-_+".contains(&byte);
    let odd = name.split('/').any(|part| {
        matches!(part, "." | "..")
            || part.starts_with('-')
            || !(1..=14).contains(&part.len())
            || !part.bytes().all(known)
    });
    if odd {
        at.invalid(errors, &format!("unknown time zone {name}"));
        return;
    }
    if name.eq_ignore_ascii_case("local") {
        let detail = "timeZone must be an explicit time zone as defined in \
                      https://www.iana.org/time-zones";
        at.invalid(errors, detail);
    }
    if name != "Local" && !schedule::is_time_zone(name) {
        at.invalid(errors, &format!("unknown time zone {name}"));
    }
}
