//! Finished jobs that say how long they are wanted, removed after that.
//!
//! Source: KEP-592.

use std::time::Duration;

use nautilus_machinery::timestamp::Instant;
use serde_json::Value;

use crate::controller::{Change, Controller};
use crate::kind::{JOBS, Kind};
use crate::object;
use crate::plan::{Delete, Plan, Propagation, Write};
use crate::view::{Key, View};

/// See the module.
#[derive(Debug)]
pub(crate) struct TimeToLive;

impl Controller for TimeToLive {
    fn name(&self) -> &'static str {
        "ttl-after-finished-controller"
    }

    fn follows(&self) -> &'static [Kind] {
        &[JOBS]
    }

    fn concerns(&self, _: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        if change
            .after
            .as_deref()
            .is_some_and(|job| end(job).is_some())
        {
            keys.push(Key::of(change.object()));
        }
    }

    fn reconcile(&self, view: &dyn View, key: &Key, now: Instant) -> Plan {
        let mut plan = Plan::default();
        let Some(job) = view.get(JOBS, &key.namespace, &key.name) else {
            return plan;
        };
        let Some(end_s) = end(&job) else {
            return plan;
        };
        match u64::try_from(end_s - now.seconds) {
            Ok(left_s) if left_s > 0 => plan.again(Duration::from_secs(left_s)),
            // In the version that was seen: the time may have been changed since.
            _ => plan.then(Write::Delete(Delete {
                resource_version: job["metadata"]["resourceVersion"]
                    .as_str()
                    .map(str::to_owned),
                propagation: Some(Propagation::Foreground),
                ..Delete::of(JOBS, &job)
            })),
        }
        plan
    }
}

/// The second since 1970 at which a job that has finished is not wanted any more.
fn end(job: &Value) -> Option<i64> {
    let wanted_s = job["spec"]["ttlSecondsAfterFinished"].as_i64()?;
    if object::is_deleted(job) {
        return None;
    }
    let mut conditions = object::items(&job["status"]["conditions"]);
    let finished = conditions.find(|own| {
        (own["type"] == "Complete" || own["type"] == "Failed") && own["status"] == "True"
    })?;
    let finished = object::time(&finished["lastTransitionTime"])?;
    Some(finished.seconds.saturating_add(wanted_s))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cluster, at};
    use serde_json::json;

    #[test]
    fn a_finished_job_is_removed_when_its_time_is_over() {
        let ended = |kind: &str| {
            let since = object::time_field(at(100));
            json!([{"type": kind, "status": "True", "lastTransitionTime": since}])
        };
        let key = Key::new("n", "j");
        for (wanted_s, conditions, now_s, left_s, is_removed) in [
            (json!(30), ended("Complete"), 100, Some(30), false),
            (json!(30), ended("Failed"), 129, Some(1), false),
            (json!(30), ended("Failed"), 130, None, true),
            (json!(0), ended("Complete"), 100, None, true),
            (json!(null), ended("Complete"), 900, None, false),
            (json!(0), ended("Suspended"), 900, None, false),
        ] {
            let mut cluster = Cluster::default();
            let job = cluster.put(
                JOBS,
                json!({
                    "metadata": {"namespace": "n", "name": "j"},
                    "spec": {"ttlSecondsAfterFinished": wanted_s},
                    "status": {"conditions": conditions},
                }),
            );
            let plan = cluster.plan(&TimeToLive, &key, at(now_s));
            assert_eq!(plan.again_in, left_s.map(Duration::from_secs), "{job}");
            cluster.carry_out(&plan);
            let is_there = cluster.get(JOBS, "n", "j").is_some();
            assert_eq!(!is_there, is_removed, "{job}");
            let concerned = cluster.concerned(&TimeToLive, JOBS, None, Some(&job));
            assert_eq!(
                !concerned.is_empty(),
                left_s.is_some() || is_removed,
                "{job}"
            );
        }
    }
}
