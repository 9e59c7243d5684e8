//! How long a job waits after failures before it makes pods anew.
//!
//! Decision: failures are read from the pods that are there, so that a new leader waits as
//! long as the last one would have; a failed pod that is gone delays nothing.

use std::time::Duration;

use nautilus_machinery::timestamp::Instant;
use serde_json::Value;

use super::pod::{Pod, count_annotation};
use crate::object;

/// The wait after the first failure; it doubles with each failure after it.
const FIRST_MS: i64 = 10_000;
/// The longest wait.
const LONGEST_MS: i64 = 600_000;

/// Failures in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failures {
    count: i64,
    last: Instant,
}

impl Failures {
    /// Those after the last success; `None` for none.
    pub(super) fn after_success(pods: &[Pod]) -> Option<Self> {
        let succeeded = pods.iter().filter(|pod| pod.has_succeeded());
        let success = succeeded.map(|pod| finished(&pod.object)).max();
        // A pod that is on its way out and not tracked was taken away by the job itself.
        let failed = pods
            .iter()
            .filter(|pod| pod.has_failed && (pod.is_tracked || !object::is_deleted(&pod.object)))
            .map(|pod| finished(&pod.object))
            .filter(|at| success.is_none_or(|success| *at > success));
        failed.fold(None, |own: Option<Self>, at| {
            Some(match own {
                None => Self { count: 1, last: at },
                Some(own) => Self {
                    count: own.count + 1,
                    last: own.last.max(at),
                },
            })
        })
    }

    /// Those of an index, of which `pod` is the last.
    pub(super) fn of_index(pod: &Value) -> Self {
        let counted = count_annotation(pod, super::INDEX_FAILURES);
        let ignored = count_annotation(pod, super::INDEX_IGNORED_FAILURES);
        Self {
            count: counted + ignored + 1,
            last: finished(pod),
        }
    }

    /// What is left of the wait at `now`.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let doublings = u32::try_from(self.count - 1).unwrap_or(0).min(16);
        let whole = (FIRST_MS << doublings).min(LONGEST_MS);
        let left = whole.saturating_sub(object::elapsed_ms(self.last, now));
        Duration::from_millis(u64::try_from(left).unwrap_or(0))
    }
}

/// When a pod came to its end: when the last of its containers did; else when it stopped
/// being ready; else when it was deleted; else when it was made.
pub(super) fn finished(pod: &Value) -> Instant {
    let not_ready = object::condition(pod, "Ready").filter(|own| own["status"] == "False");
    let not_ready = not_ready.and_then(|own| object::time(&own["lastTransitionTime"]));
    let deleted = object::time(&pod["metadata"]["deletionTimestamp"]).map(|at| {
        let grace = pod["metadata"]["deletionGracePeriodSeconds"].as_i64();
        Instant {
            seconds: at.seconds - grace.unwrap_or(0),
            ..at
        }
    });
    let never = Instant {
        seconds: 0,
        nanoseconds: 0,
    };
    let known = containers_finished(pod).or(not_ready).or(deleted);
    known.or_else(|| object::created(pod)).unwrap_or(never)
}

fn containers_finished(pod: &Value) -> Option<Instant> {
    let stays = |name: &Value| {
        object::items(&pod["spec"]["initContainers"])
            .any(|own| own["name"] == *name && own["restartPolicy"] == "Always")
    };
    let sidecars = object::items(&pod["status"]["initContainerStatuses"]);
    let sidecars = sidecars.filter(|own| stays(&own["name"]));
    let mut last = None;
    for container in object::items(&pod["status"]["containerStatuses"]).chain(sidecars) {
        let at = object::time(&container["state"]["terminated"]["finishedAt"])?;
        last = last.max(Some(at));
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;
    use serde_json::json;

    #[test]
    fn waits_double_up_to_ten_minutes() {
        for (count, elapsed_s, expected_s) in [
            (1, 0, 10),
            (1, 4, 6),
            (1, 10, 0),
            (1, 11, 0),
            (2, 0, 20),
            (6, 0, 320),
            (7, 0, 600),
            (1000, 1, 599),
        ] {
            let own = Failures { count, last: at(0) };
            let left = own.wait(at(elapsed_s));
            assert_eq!(left, Duration::from_secs(expected_s), "{count}");
        }
    }

    #[test]
    fn a_pod_finished_with_its_last_container() {
        let time = |seconds| object::time_field(at(seconds));
        let ended = |name: &str, seconds| {
            let terminated = json!({"finishedAt": time(seconds)});
            json!({"name": name, "state": {"terminated": terminated}})
        };
        let unready = json!([{"type": "Ready", "status": "False", "lastTransitionTime": time(9)}]);
        for (spec, status, expected_s) in [
            (
                json!({}),
                json!({"containerStatuses": [ended("a", 5), ended("b", 7)]}),
                7,
            ),
            (
                json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}, {"name": "i"}]}),
                json!({
                    "containerStatuses": [ended("a", 5)],
                    "initContainerStatuses": [ended("s", 8), ended("i", 99)],
                }),
                8,
            ),
            (
                json!({}),
                json!({
                    "containerStatuses": [ended("a", 5), {"name": "b", "state": {"running": {}}}],
                    "conditions": unready,
                }),
                9,
            ),
            (json!({}), json!({}), 25),
        ] {
            let metadata = json!({
                "creationTimestamp": time(1),
                "deletionTimestamp": time(30),
                "deletionGracePeriodSeconds": 5,
            });
            let pod = json!({"metadata": metadata, "spec": spec, "status": status});
            assert_eq!(finished(&pod), at(expected_s), "{pod}");
        }
        let made = json!({"metadata": {"creationTimestamp": time(1)}});
        assert_eq!(finished(&made), at(1));
    }
}
