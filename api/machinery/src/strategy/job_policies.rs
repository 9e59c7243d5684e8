//! When a job has failed, and when it has succeeded.
//!
//! Source: `pkg/apis/batch` of v1.37.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::validation::{At, Errors, qualified_name};

const MAX_RULES: usize = 20;

const MAX_EXIT_CODES: usize = 255;

const MAX_INDEXES_BYTES: usize = 64 * 1024;

pub(super) fn failure_policy(spec: &At<'_>, errors: &mut Errors) {
    let rules = spec.get("podFailurePolicy.rules");
    if rules.len() > MAX_RULES {
        rules.too_many(errors, MAX_RULES);
    }
    for rule in rules.items() {
        let action = rule.get("action");
        let actions = ["Count", "FailIndex", "FailJob", "Ignore"];
        match action.text() {
            "" => action.required(errors, &format!("valid values: {}", listed(&actions))),
            "FailIndex" if !spec.has("backoffLimitPerIndex") => {
                action.invalid_text(errors, "requires the backoffLimitPerIndex to be set");
            }
            _ => {
                action.one_of(errors, &actions);
            }
        }
        let (codes, conditions) = (rule.get("onExitCodes"), rule.get("onPodConditions"));
        if codes.is_set() {
            exit_codes(spec.value, &codes, errors);
        }
        pod_conditions(&conditions, errors);
        let which = match (codes.is_set(), conditions.is_empty()) {
            (true, false) => "both OnExitCodes and OnPodConditions is not supported",
            (false, true) => "one of OnExitCodes and OnPodConditions is required",
            _ => continue,
        };
        errors.invalid_omitted(&rule.path(), &format!("specifying {which}"));
    }
}

/// As Go writes a list of texts.
fn listed(texts: &[&str]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| format!("\"{text}\"")).collect();
    format!("[{}]", quoted.join(" "))
}

fn pod_conditions(at: &At<'_>, errors: &mut Errors) {
    if at.len() > MAX_RULES {
        at.too_many(errors, MAX_RULES);
    }
    let known = ["False", "True", "Unknown"];
    for pattern in at.items() {
        pattern.get("type").check(errors, qualified_name);
        let status = pattern.get("status");
        if status.is_empty() {
            status.required(errors, &format!("valid values: {}", listed(&known)));
        } else {
            status.one_of(errors, &known);
        }
    }
}

fn exit_codes(spec: &Value, at: &At<'_>, errors: &mut Errors) {
    let operator = at.get("operator");
    let known = ["In", "NotIn"];
    if operator.is_empty() {
        operator.required(errors, &format!("valid values: {}", listed(&known)));
    } else {
        operator.one_of(errors, &known);
    }
    let name = at.get("containerName");
    let exists = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| {
            spec["template"]["spec"][*list]
                .as_array()
                .into_iter()
                .flatten()
        })
        .any(|container| container["name"] == *name.value);
    if name.is_set() && !exists {
        let detail = "must be one of the container or initContainer names in the pod template";
        name.invalid_text(errors, detail);
    }
    let values = at.get("values");
    if values.is_empty() {
        values.invalid(errors, "at least one value is required");
    } else if values.len() > MAX_EXIT_CODES {
        values.too_many(errors, MAX_EXIT_CODES);
    }
    let (mut seen, mut last, mut ordered) = (BTreeSet::new(), None, true);
    for value in values.items() {
        let own = value.int().unwrap_or(0);
        if operator.text() == "In" && own == 0 {
            value.invalid(errors, "must not be 0 for the In operator");
        }
        if !seen.insert(own) {
            value.duplicate(errors);
        }
        ordered &= last.is_none_or(|last| last <= own);
        last = Some(own);
    }
    if !ordered {
        values.invalid(errors, "must be ordered");
    }
}

pub(super) fn success_policy(spec: &At<'_>, at: &At<'_>, errors: &mut Errors) {
    let rules = at.get("rules");
    if rules.is_empty() {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        rules.required(errors, detail);
    }
    if rules.len() > MAX_RULES {
        rules.too_many(errors, MAX_RULES);
    }
    let completions = spec.get("completions").int().unwrap_or(0);
    for rule in rules.items() {
        let (count, indexes) = (rule.get("succeededCount"), rule.get("succeededIndexes"));
        if count.is_null() && indexes.is_null() {
            let detail = "at least one of succeededCount or succeededIndexes must be specified";
            rule.required(errors, detail);
        }
        let mut total = 0;
        if indexes.is_set() {
            if indexes.len() > MAX_INDEXES_BYTES {
                indexes.too_long(errors, MAX_INDEXES_BYTES);
            }
            match count_indexes(indexes.text(), completions) {
                Ok(all) => total = all,
                Err(why) => {
                    let detail = format!("error parsing succeededIndexes: {why}");
                    indexes.invalid_text(errors, &detail);
                }
            }
        }
        let Some(own) = count.int() else { continue };
        count.not_negative(errors);
        if own > completions {
            let detail = format!(
                "must be less than or equal to {completions} (the number of specified completions)"
            );
            count.invalid(errors, &detail);
        }
        if indexes.is_set() && own > total {
            let detail = format!(
                "must be less than or equal to {total} (the number of indexes in the specified \
                 succeededIndexes field)"
            );
            count.invalid(errors, &detail);
        }
    }
}

/// How many indexes `0,2-4` names.
pub(super) fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let (mut last, mut total) = (None, 0);
    for interval in text.split(',') {
        let (from, to) = index_interval(interval, completions)?;
        if let Some(last) = last
            && last >= from
        {
            return Err(format!(
                "non-increasing order, previous: {last}, current: {from}"
            ));
        }
        total += to - from + 1;
        last = Some(to);
    }
    Ok(total)
}

/// Both ends of `2-4`, or of `2`.
pub(super) fn index_interval(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let parts: Vec<&str> = text.split('-').collect();
    if parts.len() > 2 {
        return Err(format!(
            "the fragment \"{text}\" violates the requirement that an index interval can have at \
             most two parts separated by '-'"
        ));
    }
    let index = |text: &str| {
        let own: i64 = text
            .parse()
            .map_err(|_| format!("cannot convert string to integer for index: \"{text}\""))?;
        if own >= completions {
            return Err(format!("too large index: \"{text}\""));
        }
        Ok(own)
    };
    let from = index(parts[0])?;
    let Some(to) = parts.get(1) else {
        return Ok((from, from));
    };
    let to = index(to)?;
    if from >= to {
        return Err(format!(
            "non-increasing order, previous: {from}, current: {to}"
        ));
    }
    Ok((from, to))
}
