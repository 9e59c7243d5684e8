//! A job's rules about pods that failed, and about when it has succeeded enough.
//!
//! Source: KEP-3329 (pod failure policy), KEP-3998 (success policy).

use serde_json::Value;

use super::intervals::Intervals;
use crate::object;

/// What a pod's failure means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts, as any failure.
    Counts,
    /// It does not count.
    Ignored,
    /// Its index has failed.
    FailsIndex,
    /// The job has failed; why.
    FailsJob(String),
}

/// What the first rule that matches says of a pod that failed.
pub(super) fn judge(policy: &Value, pod: &Value) -> Verdict {
    for (at, rule) in object::items(&policy["rules"]).enumerate() {
        let place = format!("{}/{}", object::namespace(pod), object::name(pod));
        let action = rule["action"].as_str().unwrap_or_default();
        let why = if rule["onExitCodes"].is_object() {
            exit_code(&rule["onExitCodes"], pod).map(|(container, code)| {
                format!(
                    "Container {container} for pod {place} failed with exit code {code} \
                     matching {action} rule at index {at}"
                )
            })
        } else {
            condition(&rule["onPodConditions"], pod).map(|kind| {
                format!("Pod {place} has condition {kind} matching {action} rule at index {at}")
            })
        };
        match (why, action) {
            (Some(why), "FailJob") => return Verdict::FailsJob(why),
            (Some(_), "FailIndex") => return Verdict::FailsIndex,
            (Some(_), "Ignore") => return Verdict::Ignored,
            (Some(_), "Count") => return Verdict::Counts,
            _ => {}
        }
    }
    Verdict::Counts
}

/// The container that ended with a code that the rule asks for, and the code.
fn exit_code<'a>(rule: &Value, pod: &'a Value) -> Option<(&'a str, i64)> {
    let status = &pod["status"];
    let containers = object::items(&status["containerStatuses"]);
    let mut containers = containers.chain(object::items(&status["initContainerStatuses"]));
    containers.find_map(|container| {
        let name = container["name"].as_str().unwrap_or_default();
        let code = container["state"]["terminated"]["exitCode"].as_i64()?;
        let is_named = rule["containerName"].as_str().is_none_or(|own| own == name);
        let is_listed = object::items(&rule["values"]).any(|own| own.as_i64() == Some(code));
        let matches = match rule["operator"].as_str() {
            Some("In") => is_listed,
            Some("NotIn") => !is_listed,
            _ => false,
        };
        (code != 0 && is_named && matches).then_some((name, code))
    })
}

fn condition<'a>(patterns: &Value, pod: &'a Value) -> Option<&'a str> {
    let mut conditions = object::items(&pod["status"]["conditions"]);
    let found = conditions.find(|own| {
        object::items(patterns).any(|pattern| {
            let status = pattern["status"].as_str().unwrap_or("True");
            own["type"] == pattern["type"] && own["status"] == status
        })
    });
    found.and_then(|own| own["type"].as_str())
}

/// Which rule these successes meet, if any, in words.
pub(super) fn success(policy: &Value, completions: i64, succeeded: &Intervals) -> Option<String> {
    let enough = |rule: &Value, count: i64| {
        let wanted = rule["succeededCount"].as_i64();
        wanted.is_some_and(|wanted| count >= wanted)
    };
    let met = |rule: &Value| match rule["succeededIndexes"].as_str() {
        Some(indexes) => {
            let wanted = Intervals::parse(indexes, completions);
            let common = wanted.in_common(succeeded);
            wanted.total() > 0 && (common == wanted.total() || enough(rule, common))
        }
        None => enough(rule, succeeded.total()),
    };
    if succeeded.total() == 0 {
        return None;
    }
    let at = object::items(&policy["rules"]).position(met)?;
    Some(format!("Matched rules at index {at}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn exited(code: i64) -> Value {
        json!({
            "metadata": {"namespace": "n", "name": "p"},
            "status": {
                "containerStatuses": [
                    {"name": "side", "state": {"running": {}}},
                    {"name": "main", "state": {"terminated": {"exitCode": code}}},
                ],
                "conditions": [{"type": "DisruptionTarget", "status": "True"}],
            },
        })
    }

    fn codes(action: &str, operator: &str, container: Option<&str>) -> Value {
        let rule = json!({"operator": operator, "values": [3, 4], "containerName": container});
        json!({"action": action, "onExitCodes": rule})
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let disrupted = |action: &str| json!({"action": action, "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]});
        let fails = "Container main for pod n/p failed with exit code 3 matching FailJob rule \
                     at index 1";
        let ends = "Pod n/p has condition DisruptionTarget matching FailJob rule at index 0";
        for (rules, code, expected) in [
            (json!([]), 3, Verdict::Counts),
            (json!([codes("Ignore", "In", None)]), 3, Verdict::Ignored),
            (json!([codes("Ignore", "In", None)]), 5, Verdict::Counts),
            (json!([codes("Ignore", "NotIn", None)]), 5, Verdict::Ignored),
            // A container that ended well never matches.
            (json!([codes("Ignore", "NotIn", None)]), 0, Verdict::Counts),
            (
                json!([codes("Ignore", "In", Some("side"))]),
                3,
                Verdict::Counts,
            ),
            (
                json!([
                    codes("Ignore", "In", Some("side")),
                    codes("FailJob", "In", Some("main"))
                ]),
                3,
                Verdict::FailsJob(fails.to_owned()),
            ),
            (
                json!([disrupted("FailJob"), codes("Ignore", "In", None)]),
                3,
                Verdict::FailsJob(ends.to_owned()),
            ),
            (
                json!([codes("Count", "In", None), disrupted("FailIndex")]),
                3,
                Verdict::Counts,
            ),
            (
                json!([codes("Count", "In", None), disrupted("FailIndex")]),
                9,
                Verdict::FailsIndex,
            ),
        ] {
            let policy = json!({ "rules": rules });
            assert_eq!(judge(&policy, &exited(code)), expected, "{policy}");
        }
    }

    #[test]
    fn enough_successes_meet_a_rule() {
        for (rule, succeeded, expected) in [
            (json!({"succeededIndexes": "0-2"}), "0-2,5", true),
            (json!({"succeededIndexes": "0-2"}), "0,2,5", false),
            (
                json!({"succeededIndexes": "0-2", "succeededCount": 2}),
                "0,2",
                true,
            ),
            (
                json!({"succeededIndexes": "0-2", "succeededCount": 2}),
                "0,5",
                false,
            ),
            (json!({"succeededCount": 2}), "4,5", true),
            (json!({"succeededCount": 2}), "5", false),
            (json!({"succeededIndexes": "0"}), "", false),
        ] {
            let policy = json!({"rules": [{"succeededCount": 9}, rule]});
            let met = success(&policy, 9, &Intervals::parse(succeeded, 9));
            let words = expected.then(|| "Matched rules at index 1".to_owned());
            assert_eq!(met, words, "{policy} {succeeded}");
        }
    }
}
