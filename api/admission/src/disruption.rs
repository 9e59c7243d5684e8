//! Eviction: a pod goes only if its disruption budget has room, and takes that room in
//! the transaction that deletes it.
//!
//! Source: the documentation of API-initiated eviction.

use nautilus_machinery::selector::LabelSelector;
use nautilus_machinery::status::{ApiError, Cause};
use serde_json::{Value, json};

use crate::pods;
use crate::values::{items, text};

/// Evictions that the budget's controller has not confirmed, at most.
const MAX_DISRUPTED_PODS: usize = 2000;
/// What causes of refusals are called.
const CAUSE: &str = "DisruptionBudget";

/// Whether the pod's going disrupts nothing: it has ended, not begun, or goes already.
pub fn ignores_budgets(pod: &Value) -> bool {
    pods::is_finished(pod)
        || pod["status"]["phase"] == "Pending"
        || !pod["metadata"]["deletionTimestamp"].is_null()
}

/// The budget that the eviction changes, with its place among those given; `None` where
/// it changes none. `now`: RFC 3339 to the second.
pub fn charge(
    pod: &Value,
    budgets: &[Value],
    now: &str,
) -> Result<Option<(usize, Value)>, ApiError> {
    if ignores_budgets(pod) {
        return Ok(None);
    }
    let mut own = budgets.iter().enumerate().filter(|(_, budget)| {
        let selector = &budget["spec"]["selector"];
        selector.is_object()
            && LabelSelector::of_object(selector).is_ok_and(|selector| selector.matches(pod))
    });
    let Some((index, budget)) = own.next() else {
        return Ok(None);
    };
    if own.next().is_some() {
        return Err(ApiError::given(
            500,
            "",
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does \
             not support.",
            &Value::Null,
        ));
    }
    if !is_ready(pod) {
        let (status, policy) = (
            &budget["status"],
            text(&budget["spec"]["unhealthyPodEvictionPolicy"]),
        );
        let wanted = number(&status["desiredHealthy"]);
        let enough = number(&status["currentHealthy"]) >= wanted && wanted > 0;
        if policy == "AlwaysAllow" || enough {
            return Ok(None);
        }
    }
    let name = text(&budget["metadata"]["name"]);
    check(budget, name)?;
    let mut next = budget.clone();
    let left = number(&budget["status"]["disruptionsAllowed"]) - 1;
    next["status"]["disruptionsAllowed"] = json!(left);
    if left == 0 {
        exhaust(&mut next, now);
    }
    let pod_name = text(&pod["metadata"]["name"]);
    next["status"]["disruptedPods"][pod_name] = json!(now);
    Ok(Some((index, next)))
}

fn check(budget: &Value, name: &str) -> Result<(), ApiError> {
    let (metadata, status) = (&budget["metadata"], &budget["status"]);
    if number(&status["observedGeneration"]) < number(&metadata["generation"]) {
        return Err(wait(
            10,
            &format!("The disruption budget {name} is still being processed by the server."),
        ));
    }
    let allowed = number(&status["disruptionsAllowed"]);
    let forbid = |why: &str, more: &str| {
        let details = json!({
            "name": name, "group": "policy", "kind": "poddisruptionbudget",
            "causes": [{
                "reason": CAUSE,
                "message": format!(
                    "The disruption budget {name} does not allow evicting pods currently: {more}"
                ),
            }],
        });
        let message = format!("poddisruptionbudget.policy \"{name}\" is forbidden: {why}");
        Err(ApiError::given(403, "Forbidden", &message, &details))
    };
    if allowed < 0 {
        let why = "pdb disruptions allowed is negative";
        return forbid(why, why);
    }
    let disrupted = status["disruptedPods"]
        .as_object()
        .map_or(0, serde_json::Map::len);
    if disrupted > MAX_DISRUPTED_PODS {
        return forbid(
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
            "too many pending evictions not confirmed by PDB controller",
        );
    }
    if allowed > 0 {
        return Ok(());
    }
    let condition = items(&status["conditions"])
        .find(|condition| condition["type"] == "DisruptionAllowed")
        .filter(|condition| condition["status"] == "False");
    let said = condition.map_or("", |condition| text(&condition["message"]));
    let reason = condition.map_or("", |condition| text(&condition["reason"]));
    let (current, wanted) = (
        number(&status["currentHealthy"]),
        number(&status["desiredHealthy"]),
    );
    let budget = format!("The disruption budget {name}");
    let why = match () {
        () if !said.is_empty() && reason == "SyncFailed" => format!(
            "{budget} does not allow evicting pods currently because it failed sync: {said}"
        ),
        () if current <= wanted => {
            format!("{budget} needs {wanted} healthy pods and has {current} currently")
        }
        () if !said.is_empty() => {
            format!("{budget} does not allow evicting pods currently ({reason}): {said}")
        }
        () => format!("{budget} does not allow evicting pods currently"),
    };
    Err(wait(0, &why))
}

/// 429 in the reference's words.
fn wait(retry_after_seconds: u32, why: &str) -> ApiError {
    ApiError::too_many_requests(
        "Cannot evict pod as it would violate the pod's disruption budget.",
        retry_after_seconds,
    )
    .with_given_cause(Cause {
        reason: CAUSE.to_owned(),
        message: why.to_owned(),
        field: String::new(),
    })
}

/// The budget says that it has no room any more.
fn exhaust(budget: &mut Value, now: &str) {
    let generation = budget["metadata"]["generation"].clone();
    let conditions = budget["status"]["conditions"].as_array_mut();
    let own = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "DisruptionAllowed");
    if let Some(condition) = own {
        if condition["status"] != "False" {
            condition["lastTransitionTime"] = json!(now);
        }
        condition["status"] = json!("False");
        condition["reason"] = json!("InsufficientPods");
        condition["observedGeneration"] = generation;
    }
}

/// Marks the pod as going for its eviction.
pub fn mark(pod: &mut Value, now: &str) {
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": now, "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
    });
    let conditions = crate::values::list_at(&mut pod["status"], "conditions");
    match conditions
        .iter_mut()
        .find(|own| own["type"] == "DisruptionTarget")
    {
        Some(own) if own["status"] == "True" => {}
        Some(own) => *own = condition,
        None => conditions.push(condition),
    }
}

fn is_ready(pod: &Value) -> bool {
    items(&pod["status"]["conditions"])
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(ready: &str) -> Value {
        json!({
            "metadata": {"name": "web", "labels": {"app": "web"}},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
        })
    }

    fn budget(allowed: i64) -> Value {
        json!({
            "metadata": {"name": "b", "generation": 1},
            "spec": {"selector": {"matchLabels": {"app": "web"}}},
            "status": {
                "observedGeneration": 1, "disruptionsAllowed": allowed,
                "currentHealthy": 2, "desiredHealthy": 2,
            },
        })
    }

    const NOW: &str = "2026-01-01T00:00:00Z";

    #[test]
    fn an_eviction_takes_one_disruption_and_says_which_pod() {
        let charged = charge(&pod("True"), &[budget(1)], NOW).expect("there is room");
        let (_, next) = charged.expect("the budget changes");
        assert_eq!(next["status"]["disruptionsAllowed"], 0);
        assert_eq!(next["status"]["disruptedPods"], json!({"web": NOW}));
    }

    #[test]
    fn a_budget_without_room_refuses_in_the_reference_s_words() {
        let error = charge(&pod("True"), &[budget(0)], NOW).expect_err("there is no room");
        assert_eq!(error.code(), 429);
        let status = error.to_status();
        assert_eq!(
            status["message"],
            "Cannot evict pod as it would violate the pod's disruption budget."
        );
        assert_eq!(
            status["details"]["causes"],
            json!([{
                "reason": "DisruptionBudget",
                "message": "The disruption budget b needs 2 healthy pods and has 2 currently",
            }])
        );
    }

    #[test]
    fn a_pod_that_is_not_ready_goes_while_the_others_are_enough() {
        assert_eq!(charge(&pod("False"), &[budget(0)], NOW), Ok(None));
    }
}
