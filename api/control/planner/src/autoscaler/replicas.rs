//! How many replicas measurements ask for.

use std::collections::{BTreeMap, BTreeSet};

use nautilus_machinery::timestamp::Instant;
use serde_json::Value;

use super::measure::{Sample, Samples, milli};
use crate::object;

/// After its start, a pod's use of CPU counts only while it is ready.
const CPU_START_S: i64 = 300;
/// A pod that stopped being ready so soon after its start was never ready.
const FIRST_READY_S: i64 = 30;
/// How far off the target is near enough, where no tolerance is given.
const TOLERANCE: f64 = 0.1;
/// No target has more replicas.
const MAX_REPLICAS: i64 = i32::MAX as i64;

/// How far off the target is near enough, either way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tolerance {
    down: f64,
    up: f64,
}

impl Tolerance {
    pub(super) fn of(behaviour: &Value) -> Self {
        let given = |rules: &Value| match &rules["tolerance"] {
            Value::Null => TOLERANCE,
            own => milli_f64(own),
        };
        Self {
            down: given(&behaviour["scaleDown"]),
            up: given(&behaviour["scaleUp"]),
        }
    }

    fn holds(self, ratio: f64) -> bool {
        ((1.0 - self.down)..=(1.0 + self.up)).contains(&ratio)
    }
}

fn milli_f64(quantity: &Value) -> f64 {
    let parsed = quantity
        .as_str()
        .map(nautilus_machinery::quantity::Quantity::parse);
    parsed
        .and_then(Result::ok)
        .map_or(TOLERANCE, |own| own.as_f64())
}

/// The replicas that are there and the pods that are measured.
pub(super) struct Measured<'a> {
    pub(super) current: i64,
    pub(super) tolerance: Tolerance,
    pub(super) now: Instant,
    pub(super) pods: &'a [&'a Value],
}

/// A number of replicas, and what one pod uses: thousandths, and percent where asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proposal {
    pub(super) replicas: i64,
    pub(super) milli: i64,
    pub(super) percent: i64,
}

const NO_PODS: &str = "no pods returned by selector while calculating replica count";
const NO_METRICS: &str = "did not receive metrics for targeted pods (pods might be unready)";

/// What pods should use.
pub(super) enum Goal<'a> {
    /// This many thousandths each.
    Milli(i64),
    /// This part of what their containers (or the one of this name) request.
    Percent {
        percent: i64,
        resource: &'a str,
        container: &'a str,
    },
}

impl Measured<'_> {
    /// By what each pod uses, of which those that do not say, or are not ready yet, are
    /// taken for whatever changes least. `resource` is empty for what is none.
    pub(super) fn by_pods(
        &self,
        goal: &Goal<'_>,
        resource: &str,
        mut samples: Samples,
    ) -> Result<Proposal, String> {
        if self.pods.is_empty() {
            return Err(NO_PODS.to_owned());
        }
        let groups = Groups::of(self.pods, &samples, resource, self.now);
        samples.retain(|name, _| {
            !groups.ignored.contains(name.as_str()) && !groups.unready.contains(name.as_str())
        });
        if samples.is_empty() {
            return Err(NO_METRICS.to_owned());
        }
        let requests = self.requests(goal)?;
        let (ratio, milli, percent) = ratio(goal, &samples, &requests)?;
        let proposal = |replicas: i64| {
            Ok(Proposal {
                replicas,
                milli,
                percent,
            })
        };
        let adds_unready = !groups.unready.is_empty() && ratio > 1.0;
        if !adds_unready && groups.missing.is_empty() {
            return proposal(match self.tolerance.holds(ratio) {
                true => self.current,
                false => ceil(ratio * groups.ready as f64),
            });
        }
        let taken_for = |milli: i64| Sample {
            at: None,
            window_s: 0,
            milli,
        };
        for name in &groups.missing {
            let milli = match goal {
                _ if ratio > 1.0 => 0,
                _ if ratio >= 1.0 => break,
                Goal::Milli(target) => *target,
                Goal::Percent { percent, .. } => {
                    let requested = requests.get(name).copied().unwrap_or(0);
                    requested.saturating_mul(100.max(*percent)) / 100
                }
            };
            samples.insert((*name).to_owned(), taken_for(milli));
        }
        if adds_unready {
            let unready = groups.unready.iter();
            samples.extend(unready.map(|name| ((*name).to_owned(), taken_for(0))));
        }
        let (again, _, _) = self::ratio(goal, &samples, &requests)?;
        let turns = (ratio < 1.0 && again > 1.0) || (ratio > 1.0 && again < 1.0);
        if self.tolerance.holds(again) || turns {
            return proposal(self.current);
        }
        let replicas = ceil(again * samples.len() as f64);
        let contradicts =
            (again < 1.0 && replicas > self.current) || (again > 1.0 && replicas < self.current);
        proposal(if contradicts { self.current } else { replicas })
    }

    /// What each pod requests, in thousandths.
    fn requests(&self, goal: &Goal<'_>) -> Result<BTreeMap<&str, i64>, String> {
        let Goal::Percent {
            resource,
            container,
            ..
        } = goal
        else {
            return Ok(BTreeMap::new());
        };
        let requests = self.pods.iter().map(|pod| {
            let milli = request(pod, resource, container)?;
            Ok((object::name(pod), milli))
        });
        requests.collect()
    }

    /// By the value of something that all pods share.
    pub(super) fn by_value(&self, milli: i64, target: i64) -> Result<Proposal, String> {
        let ratio = milli as f64 / target as f64;
        let replicas = match self.current {
            0 => ceil(ratio),
            current if self.tolerance.holds(ratio) => current,
            _ if self.pods.is_empty() => {
                return Err(format!("unable to calculate ready pods: {NO_PODS}"));
            }
            _ => {
                let ready = self
                    .pods
                    .iter()
                    .filter(|pod| pod["status"]["phase"] == "Running" && object::is_ready(pod));
                ceil(ratio * ready.count() as f64)
            }
        };
        Ok(Proposal {
            replicas,
            milli,
            percent: 0,
        })
    }

    /// By the part of a value that falls to each of the replicas that there are.
    pub(super) fn by_part(&self, milli: i64, target: i64, there: i64) -> Proposal {
        let ratio = milli as f64 / (target as f64 * there as f64);
        Proposal {
            replicas: match self.tolerance.holds(ratio) {
                true => there,
                false => ceil(milli as f64 / target as f64),
            },
            milli: match there {
                0 => 0,
                there => milli.div_euclid(there) + i64::from(milli.rem_euclid(there) != 0),
            },
            percent: 0,
        }
    }
}

/// Rounded up, to a number that replicas can have.
fn ceil(replicas: f64) -> i64 {
    (replicas.ceil() as i64).clamp(0, MAX_REPLICAS)
}

/// How much of the goal is used; what one pod uses, in thousandths and percent.
fn ratio(
    goal: &Goal<'_>,
    samples: &Samples,
    requests: &BTreeMap<&str, i64>,
) -> Result<(f64, i64, i64), String> {
    let count = i64::try_from(samples.len()).unwrap_or(i64::MAX).max(1);
    match goal {
        Goal::Milli(target) => {
            let total = samples
                .values()
                .map(|own| own.milli)
                .fold(0, i64::saturating_add);
            let each = total / count;
            Ok((each as f64 / *target as f64, each, 0))
        }
        Goal::Percent { percent, .. } => {
            let known = samples.iter().filter_map(|(name, own)| {
                let requested = requests.get(name.as_str())?;
                Some((own.milli, *requested))
            });
            let (mut used, mut requested, mut known_count) = (0_i64, 0_i64, 0);
            for (own, request) in known {
                used = used.saturating_add(own);
                requested = requested.saturating_add(request);
                known_count += 1;
            }
            if requested == 0 {
                return Err("no metrics returned matched known pods".to_owned());
            }
            let used_percent = used.saturating_mul(100) / requested;
            let ratio = used_percent as f64 / *percent as f64;
            Ok((ratio, used / known_count, used_percent))
        }
    }
}

/// What a pod requests of a resource, or one of its containers does.
fn request(pod: &Value, resource: &str, container: &str) -> Result<i64, String> {
    let spec = &pod["spec"];
    let name = object::name(pod);
    let whole = &spec["resources"]["requests"];
    if container.is_empty() && whole.as_object().is_some_and(|own| !own.is_empty()) {
        return match &whole[resource] {
            Value::Null => Err(format!(
                "missing pod-level request for {resource} in Pod {name}"
            )),
            own => Ok(milli(own)),
        };
    }
    let sidecars = object::items(&spec["initContainers"]);
    let sidecars = sidecars.filter(|own| own["restartPolicy"] == "Always");
    let mut sum = 0_i64;
    for own in object::items(&spec["containers"]).chain(sidecars) {
        let own_name = own["name"].as_str().unwrap_or_default();
        if !container.is_empty() && container != own_name {
            continue;
        }
        let requested = &own["resources"]["requests"][resource];
        if requested.is_null() {
            return Err(format!(
                "missing request for {resource} in container {own_name} of Pod {name}"
            ));
        }
        sum = sum.saturating_add(milli(requested));
        if container == own_name {
            return Ok(sum);
        }
    }
    match container {
        "" => Ok(sum),
        container => Err(format!("container {container} not found in Pod {name}")),
    }
}

/// Pods by what their measurements are worth.
#[derive(Default)]
struct Groups<'a> {
    ready: usize,
    /// Not up yet: nothing they use counts.
    unready: BTreeSet<&'a str>,
    /// Up, but not measured.
    missing: BTreeSet<&'a str>,
    /// On their way out, or failed.
    ignored: BTreeSet<&'a str>,
}

impl<'a> Groups<'a> {
    fn of(pods: &[&'a Value], samples: &Samples, resource: &str, now: Instant) -> Self {
        let mut groups = Self::default();
        for pod in pods {
            let name = object::name(pod);
            let phase = pod["status"]["phase"].as_str();
            match samples.get(name) {
                _ if object::is_deleted(pod) || phase == Some("Failed") => {
                    groups.ignored.insert(name);
                }
                _ if phase == Some("Pending") => {
                    groups.unready.insert(name);
                }
                None => {
                    groups.missing.insert(name);
                }
                Some(sample) if resource == "cpu" && is_starting(pod, sample, now) => {
                    groups.unready.insert(name);
                }
                Some(_) => groups.ready += 1,
            }
        }
        groups
    }
}

/// Whether a pod's use of CPU is still that of its start.
fn is_starting(pod: &Value, sample: &Sample, now: Instant) -> bool {
    let ready = object::condition(pod, "Ready");
    let started = object::time(&pod["status"]["startTime"]);
    let (Some(ready), Some(started)) = (ready, started) else {
        return true;
    };
    let later = |at: Instant, seconds: i64| Instant {
        seconds: at.seconds.saturating_add(seconds),
        ..at
    };
    let changed = object::time(&ready["lastTransitionTime"]).unwrap_or(started);
    let is_unready = ready["status"] == "False";
    if later(started, CPU_START_S) > now {
        is_unready
            || sample
                .at
                .is_none_or(|at| at < later(changed, sample.window_s))
    } else {
        is_unready && later(started, FIRST_READY_S) > changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;
    use serde_json::json;

    /// A pod that asks for a CPU and has been ready, or not, for an hour.
    fn pod(name: &str, phase: &str, ready: &str) -> Value {
        let long_ago = object::time_field(at(-3600));
        json!({
            "metadata": {"name": name},
            "spec": {"containers": [
                {"name": "c", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}},
            ]},
            "status": {
                "phase": phase,
                "startTime": long_ago,
                "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": long_ago}],
            },
        })
    }

    fn samples(milli: &[i64]) -> Samples {
        let sample = |milli: &i64| Sample {
            at: Some(at(0)),
            window_s: 60,
            milli: *milli,
        };
        let named = milli.iter().enumerate();
        let named = named.filter(|(_, milli)| **milli >= 0);
        named
            .map(|(nth, milli)| (format!("p{nth}"), sample(milli)))
            .collect()
    }

    fn proposed(pods: &[Value], used: &[i64], goal: &Goal<'_>) -> Result<(i64, i64), String> {
        let pods: Vec<&Value> = pods.iter().collect();
        let measured = Measured {
            current: i64::try_from(pods.len()).unwrap(),
            tolerance: Tolerance::of(&Value::Null),
            now: at(0),
            pods: &pods,
        };
        let proposal = measured.by_pods(goal, "cpu", samples(used))?;
        Ok((proposal.replicas, proposal.percent))
    }

    #[test]
    fn replicas_follow_what_pods_use() {
        let of = |phases: &[(&str, &str)]| -> Vec<Value> {
            let pods = phases.iter().enumerate();
            pods.map(|(nth, (phase, ready))| pod(&format!("p{nth}"), phase, ready))
                .collect()
        };
        let (run, wait) = (("Running", "True"), ("Pending", "False"));
        let starting = ("Running", "False");
        for (pods, used, percent, expected) in [
            // Near enough; more; fewer.
            (of(&[run; 3]), vec![520, 500, 510], 50, Ok((3, 51))),
            (of(&[run; 3]), vec![900, 900, 900], 50, Ok((6, 90))),
            (of(&[run; 4]), vec![100, 100, 100, 100], 50, Ok((1, 10))),
            // Pods that are not up use nothing when there shall be more.
            (
                of(&[run, run, wait, wait]),
                vec![900, 900, -1, -1],
                50,
                Ok((4, 90)),
            ),
            (
                of(&[run, run, run, wait]),
                vec![900, 900, 900, -1],
                30,
                Ok((9, 90)),
            ),
            (
                of(&[run, run, starting]),
                vec![900, 900, 900],
                50,
                Ok((4, 90)),
            ),
            // Pods that say nothing use all they ask for when there shall be fewer.
            (of(&[run; 4]), vec![100, 100, -1, -1], 50, Ok((4, 10))),
            (of(&[run; 4]), vec![100, 100, 100, -1], 50, Ok((3, 10))),
            (of(&[run; 4]), vec![900, 900, -1, -1], 50, Ok((4, 90))),
            (
                of(&[("Failed", "False"), run]),
                vec![900, 100],
                50,
                Ok((1, 10)),
            ),
            (of(&[run]), vec![-1], 50, Err(NO_METRICS.to_owned())),
            (of(&[]), vec![], 50, Err(NO_PODS.to_owned())),
        ] {
            let goal = Goal::Percent {
                percent,
                resource: "cpu",
                container: "",
            };
            assert_eq!(
                proposed(&pods, &used, &goal),
                expected,
                "{used:?} {percent}"
            );
        }
        let goal = Goal::Milli(300);
        let two = of(&[run; 2]);
        assert_eq!(proposed(&two, &[900, 300], &goal), Ok((4, 0)));
        assert_eq!(proposed(&two, &[900, -1], &goal), Ok((3, 0)));
        assert_eq!(proposed(&two, &[100, -1], &goal), Ok((2, 0)));
    }

    #[test]
    fn what_is_requested_must_be_known() {
        for (spec, container, expected) in [
            (json!({}), "", Ok(1000)),
            (json!({}), "c", Ok(1000)),
            (json!({}), "x", Err("container x not found in Pod p")),
            (
                json!({"resources": {"requests": {"cpu": "3"}}}),
                "",
                Ok(3000),
            ),
            (
                json!({"resources": {"requests": {"cpu": "3"}}}),
                "c",
                Ok(1000),
            ),
            (
                json!({"resources": {"requests": {"memory": "3"}}}),
                "",
                Err("missing pod-level request for cpu in Pod p"),
            ),
            (
                json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}]}),
                "",
                Err("missing request for cpu in container s of Pod p"),
            ),
            (json!({"initContainers": [{"name": "i"}]}), "", Ok(1000)),
        ] {
            let mut pod = pod("p", "Running", "True");
            nautilus_machinery::patch::merge(&mut pod["spec"], &spec);
            let expected = expected.map_err(str::to_owned);
            assert_eq!(request(&pod, "cpu", container), expected, "{spec}");
        }
    }

    #[test]
    fn replicas_follow_what_is_shared() {
        let pods = [pod("p0", "Running", "True"), pod("p1", "Running", "True")];
        let pods: Vec<&Value> = pods.iter().collect();
        let measured = |current: i64| Measured {
            current,
            tolerance: Tolerance::of(&json!({"scaleUp": {"tolerance": "500m"}})),
            now: at(0),
            pods: &pods,
        };
        let by_value = |current, milli| measured(current).by_value(milli, 1000).unwrap().replicas;
        assert_eq!(
            [by_value(2, 1400), by_value(2, 1600), by_value(2, 800)],
            [2, 4, 2]
        );
        assert_eq!([by_value(0, 2500), by_value(0, 0)], [3, 0]);
        let by_part = |milli| {
            let proposal = measured(2).by_part(milli, 1000, 2);
            (proposal.replicas, proposal.milli)
        };
        assert_eq!(
            [by_part(2900), by_part(3500), by_part(1001)],
            [(2, 1450), (4, 1750), (2, 501)]
        );
    }

    #[test]
    fn a_start_uses_cpu_of_its_own() {
        for (ready, started_s, changed_s, sampled_s, expected) in [
            ("True", -100, -90, -40, true),
            ("True", -100, -90, -30, false),
            ("False", -100, -90, 0, true),
            ("False", -400, -380, 0, true),
            ("False", -400, -360, 0, false),
            ("True", -400, -1, 0, false),
        ] {
            let time = |seconds| object::time_field(at(seconds));
            let mut pod = pod("p", "Running", ready);
            pod["status"]["startTime"] = time(started_s);
            pod["status"]["conditions"][0]["lastTransitionTime"] = time(changed_s);
            let sample = Sample {
                at: Some(at(sampled_s)),
                window_s: 60,
                milli: 1,
            };
            let found = is_starting(&pod, &sample, at(0));
            assert_eq!(
                found, expected,
                "{ready} {started_s} {changed_s} {sampled_s}"
            );
        }
    }
}
