//! What happens next to a pod on a node that leaves: pure.
//!
//! Invariants
//! - Before its time of removal a node is drained: pods go as their disruption budgets allow,
//!   those of daemon sets and mirror pods stay.
//! - From then on everything goes, within [`MAX_GRACE_S`]; what its kubelet does not end by then
//!   is taken away, for that kubelet has no access any more.
//! - What tolerates the node's taint for good stays.

use nautilus_machinery::leaving::{REMOVE_FROM_ANNOTATION, SLASHED_TAINT, WITHDRAWN_TAINT};
use nautilus_machinery::timestamp;
use serde_json::Value;

/// Of a pod that a kubelet shows and does not take from here.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The longest that a pod may take to end on a node that is removed, in seconds.
const MAX_GRACE_S: i64 = 30;
/// Seconds that a kubelet has beyond that to say so.
const MARGIN_S: i64 = 10;
/// Seconds after which a pod that could not be taken away is tried again.
const AGAIN_S: i64 = 30;

/// A node that leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaving {
    taint: &'static str,
    /// In Unix seconds.
    remove_from_s: i64,
}

impl Leaving {
    /// Reads a node; `None` for one that stays.
    pub(super) fn of(node: &Value) -> Option<Self> {
        let taints = node["spec"]["taints"].as_array()?;
        let has = |key: &str| taints.iter().any(|taint| taint["key"] == key);
        let at = node["metadata"]["annotations"][REMOVE_FROM_ANNOTATION].as_str();
        let at = at.and_then(timestamp::parse).map(|at| at.seconds);
        if has(SLASHED_TAINT) {
            return Some(Self {
                taint: SLASHED_TAINT,
                remove_from_s: at.unwrap_or(0),
            });
        }
        has(WITHDRAWN_TAINT).then(|| Self {
            taint: WITHDRAWN_TAINT,
            remove_from_s: at.unwrap_or(i64::MAX),
        })
    }
}

/// What happens to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing, whatever the time.
    Stay,
    /// Nothing before this time, in Unix seconds.
    Wait(i64),
    /// It goes if its disruption budget has room.
    Evict,
    /// It goes within so many seconds.
    Delete(i64),
    /// It is taken away; looked at again at this time if something holds it.
    Force(i64),
}

/// Looks at a pod at `now_s`.
pub(super) fn step(pod: &Value, leaving: &Leaving, now_s: i64) -> Step {
    let metadata = &pod["metadata"];
    let ends_s = metadata["deletionTimestamp"]
        .as_str()
        .and_then(timestamp::parse)
        .map(|at| at.seconds);
    if now_s < leaving.remove_from_s {
        let stays = !metadata["annotations"][MIRROR].is_null() || is_of_daemon_set(metadata);
        return match ends_s {
            None if !stays => Step::Evict,
            _ if leaving.remove_from_s == i64::MAX => Step::Stay,
            _ => Step::Wait(leaving.remove_from_s),
        };
    }
    if tolerates(pod, leaving.taint) {
        return Step::Stay;
    }
    match ends_s {
        None => {
            let own = pod["spec"]["terminationGracePeriodSeconds"].as_i64();
            Step::Delete(own.unwrap_or(MAX_GRACE_S).clamp(0, MAX_GRACE_S))
        }
        Some(ends_s) => {
            let latest_s = leaving.remove_from_s.saturating_add(MAX_GRACE_S);
            let force_s = ends_s.min(latest_s).saturating_add(MARGIN_S);
            match now_s < force_s {
                true => Step::Wait(force_s),
                false => Step::Force(now_s.saturating_add(AGAIN_S)),
            }
        }
    }
}

fn is_of_daemon_set(metadata: &Value) -> bool {
    let owners = metadata["ownerReferences"].as_array();
    owners.is_some_and(|owners| {
        owners
            .iter()
            .any(|owner| owner["kind"] == "DaemonSet" && owner["controller"] == true)
    })
}

/// Whether a pod tolerates the taint's execution, and without a limit of time.
/// <https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/>
fn tolerates(pod: &Value, taint: &str) -> bool {
    let tolerations = pod["spec"]["tolerations"].as_array();
    tolerations.is_some_and(|tolerations| {
        tolerations.iter().any(|one| {
            let text = |field: &str| one[field].as_str().unwrap_or_default();
            let any_value = text("operator") == "Exists";
            let key = match text("key") {
                "" => any_value,
                key => key == taint && (any_value || text("value").is_empty()),
            };
            key && matches!(text("effect"), "" | "NoExecute") && one["tolerationSeconds"].is_null()
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const T: i64 = 1_800_000_000;

    fn at(seconds: i64) -> String {
        timestamp::format_seconds(seconds).expect("a time")
    }

    fn leaving(taint: &str, remove_from_s: i64) -> Leaving {
        let node = json!({
            "metadata": {"annotations": {"nautilus.io/remove-from": at(remove_from_s)}},
            "spec": {"taints": [{"key": "other"}, {"key": taint}]},
        });
        Leaving::of(&node).expect("it leaves")
    }

    fn pod(metadata: &Value, spec: &Value) -> Value {
        json!({"metadata": metadata, "spec": spec})
    }

    #[test]
    fn a_node_leaves_by_its_taint_alone() {
        assert_eq!(Leaving::of(&json!({})), None);
        assert_eq!(
            Leaving::of(&json!({"spec": {"taints": [{"key": "a"}]}})),
            None
        );
    }

    #[test]
    fn from_a_node_that_drains_pods_are_evicted_and_those_of_daemon_sets_wait() {
        let leaving = leaving(WITHDRAWN_TAINT, T + 3600);
        let daemon = json!({"ownerReferences": [{"kind": "DaemonSet", "controller": true}]});
        for (metadata, expected) in [
            (json!({}), Step::Evict),
            (daemon, Step::Wait(T + 3600)),
            (
                json!({"annotations": {"kubernetes.io/config.mirror": "x"}}),
                Step::Wait(T + 3600),
            ),
            (
                json!({"deletionTimestamp": at(T + 9)}),
                Step::Wait(T + 3600),
            ),
        ] {
            let pod = pod(&metadata, &json!({}));
            assert_eq!(step(&pod, &leaving, T), expected, "{pod}");
        }
    }

    #[test]
    fn from_a_node_that_is_removed_everything_goes_and_soon() {
        for leaving in [leaving(SLASHED_TAINT, T), leaving(WITHDRAWN_TAINT, T)] {
            let grace = |seconds: i64| {
                pod(
                    &json!({}),
                    &json!({"terminationGracePeriodSeconds": seconds}),
                )
            };
            let going = |ends_s: i64| pod(&json!({"deletionTimestamp": at(ends_s)}), &json!({}));
            let daemon = json!({"ownerReferences": [{"kind": "DaemonSet", "controller": true}]});
            for (pod, now_s, expected) in [
                (grace(5), T, Step::Delete(5)),
                (grace(3600), T, Step::Delete(30)),
                (pod(&daemon, &json!({})), T, Step::Delete(30)),
                (going(T + 30), T, Step::Wait(T + 40)),
                (going(T + 5), T + 15, Step::Force(T + 45)),
                // Whatever it was given before.
                (going(T + 3600), T + 39, Step::Wait(T + 40)),
                (going(T + 3600), T + 40, Step::Force(T + 70)),
            ] {
                assert_eq!(step(&pod, &leaving, now_s), expected, "{pod} at {now_s}");
            }
        }
    }

    #[test]
    fn only_what_tolerates_the_taint_for_good_stays() {
        let leaving = leaving(SLASHED_TAINT, T);
        for (toleration, stays) in [
            (json!({"operator": "Exists"}), true),
            (
                json!({"key": SLASHED_TAINT, "operator": "Exists", "effect": "NoExecute"}),
                true,
            ),
            (
                json!({"key": SLASHED_TAINT, "operator": "Exists", "effect": "NoSchedule"}),
                false,
            ),
            (
                json!({"key": SLASHED_TAINT, "operator": "Exists", "tolerationSeconds": 300}),
                false,
            ),
            (json!({"key": "other", "operator": "Exists"}), false),
        ] {
            let pod = pod(&json!({}), &json!({"tolerations": [toleration]}));
            let stayed = step(&pod, &leaving, T) == Step::Stay;
            assert_eq!(stayed, stays, "{toleration}");
        }
    }
}
