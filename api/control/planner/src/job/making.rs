//! A job's new pods, and which of too many go.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use nautilus_machinery::timestamp::Instant;
use serde_json::{Value, json};

use super::pod::{self, Pod, Terms, count_annotation};
use super::policy::Verdict;
use super::{INDEX, INDEX_FAILURES, INDEX_IGNORED_FAILURES};
use crate::kind::JOBS;
use crate::plan::Write;
use crate::{object, pods};

/// Characters of a prefix that leave room for the five that are drawn.
const MAX_PREFIX_CHARS: usize = 58;

/// The pods to be made, one for each of these: an index, or none.
pub(super) fn pods(
    job: &Value,
    terms: &Terms<'_>,
    replaced: &BTreeMap<i64, &Pod>,
    indexes: &[Option<i64>],
) -> Vec<Write> {
    let pods = indexes.iter().map(|index| match index {
        None => pod(job, terms),
        Some(index) => indexed(job, terms, *index, replaced.get(index).copied()),
    });
    pods.map(|pod| pods::create(JOBS, job, pod)).collect()
}

fn pod(job: &Value, terms: &Terms<'_>) -> Value {
    let mut pod = pods::from_template(JOBS, job, &job["spec"]["template"]);
    pod::track(&mut pod);
    if terms.is_indexed {
        for containers in ["initContainers", "containers"] {
            let list = pod["spec"][containers].as_array_mut();
            list.into_iter().flatten().for_each(tell_index);
        }
    }
    pod
}

fn tell_index(container: &mut Value) {
    const NAME: &str = "JOB_COMPLETION_INDEX";
    if object::items(&container["env"]).any(|own| own["name"] == NAME) {
        return;
    }
    let path = format!("metadata.labels['{INDEX}']");
    let variable = json!({"name": NAME, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    match container["env"].as_array_mut() {
        Some(list) => list.push(variable),
        None => container["env"] = json!([variable]),
    }
}

fn indexed(job: &Value, terms: &Terms<'_>, index: i64, replaced: Option<&Pod>) -> Value {
    let mut pod = pod(job, terms);
    let name = object::name(job);
    let suffix = format!("-{index}-");
    let kept: String = match name.len() + suffix.len() > MAX_PREFIX_CHARS {
        true => name.chars().take(MAX_PREFIX_CHARS - suffix.len()).collect(),
        false => name.to_owned(),
    };
    pod["spec"]["hostname"] = format!("{name}-{index}").into();
    let metadata = &mut pod["metadata"];
    metadata["generateName"] = format!("{kept}{suffix}").into();
    metadata["labels"][INDEX] = index.to_string().into();
    metadata["annotations"][INDEX] = index.to_string().into();
    if terms.index_limit.is_some() {
        let (failures, ignored) = replaced.map_or((0, 0), failures_with);
        metadata["annotations"][INDEX_FAILURES] = failures.to_string().into();
        if ignored > 0 {
            metadata["annotations"][INDEX_IGNORED_FAILURES] = ignored.to_string().into();
        }
    }
    pod
}

/// The failures of an index that count, and those that do not, with its last pod.
fn failures_with(pod: &Pod) -> (i64, i64) {
    let failures = count_annotation(&pod.object, INDEX_FAILURES);
    let ignored = count_annotation(&pod.object, INDEX_IGNORED_FAILURES);
    match pod.verdict {
        Verdict::Ignored => (failures, ignored + 1),
        _ => (failures + 1, ignored),
    }
}

/// Which of the active pods go, so that at least `at_least` do: of an indexed job those
/// without an index that counts, and all but one of each index.
pub(super) fn surplus<'a>(terms: &Terms<'_>, active: &[&'a Pod], at_least: usize) -> Vec<&'a Pod> {
    let mut least_first = active.to_vec();
    least_first.sort_by_key(|pod| usefulness(&pod.object));
    if !terms.is_indexed {
        least_first.truncate(at_least);
        return least_first;
    }
    let mut kept = BTreeSet::new();
    let mut surplus = Vec::new();
    let mut rest = Vec::new();
    for pod in least_first.into_iter().rev() {
        match terms.index(pod) {
            Some(index) if kept.insert(index) => rest.push(pod),
            _ => surplus.push(pod),
        }
    }
    let more = at_least.saturating_sub(surplus.len());
    surplus.extend(rest.into_iter().rev().take(more));
    surplus
}

/// What a pod has come to; the least goes first: not on a node, pending, not ready, ready
/// for a short time, restarted often, young.
fn usefulness(pod: &Value) -> impl Ord + use<> {
    let is_placed = !pod["spec"]["nodeName"].as_str().unwrap_or("").is_empty();
    let phase = match pod["status"]["phase"].as_str() {
        Some("Running") => 2,
        Some("Unknown") => 1,
        _ => 0,
    };
    let ready = object::condition(pod, "Ready").filter(|own| own["status"] == "True");
    let since = ready.and_then(|own| object::time(&own["lastTransitionTime"]));
    let restarts = |list: &str| {
        let containers = object::items(&pod["status"][list]);
        let counts = containers.filter_map(|own| own["restartCount"].as_i64());
        counts.max().unwrap_or(0)
    };
    (
        is_placed,
        phase,
        ready.is_some(),
        longest_first(since),
        Reverse(restarts("containerStatuses")),
        longest_first(object::created(pod)),
    )
}

/// Earlier times are greater; no time is the least.
fn longest_first(time: Option<Instant>) -> Option<Reverse<Instant>> {
    time.map(Reverse)
}
