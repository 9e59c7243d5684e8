//! The templates a DaemonSet had: which of its revisions is the present one, and which are
//! not needed any more.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::pods::HASH;
use crate::hash;
use crate::history;
use crate::kind::{CONTROLLER_REVISIONS, DAEMON_SETS, PODS};
use crate::object;
use crate::plan::{Plan, Write};
use crate::view::View;

/// See the module.
pub(super) struct Revisions {
    /// What pods of the present template have as their label.
    pub(super) hash: String,
    /// Those of other templates, oldest first.
    old: Vec<Arc<Value>>,
}

/// Finds the revisions, and plans what is to be made of them. `None`: the name of a new one
/// is taken, and the plan is to try another.
pub(super) fn find(
    view: &dyn View,
    set: &Value,
    mut revisions: Vec<Arc<Value>>,
    pods: &[Arc<Value>],
    plan: &mut Plan,
) -> Option<Revisions> {
    for revision in &revisions {
        if object::label(revision, HASH).is_none() {
            let labels = json!({HASH: object::name(revision)});
            let patch = json!({"metadata": {"labels": labels}});
            plan.then(Write::patch(CONTROLLER_REVISIONS, revision, patch));
        }
    }
    revisions.sort_by_key(|own| history::number(own));
    let data = history::record(&set["spec"]["template"]);
    let (mut current, old): (Vec<_>, Vec<_>) = revisions
        .into_iter()
        .partition(|own| history::same(&own["data"], &data));
    let number = history::next_number(&old);
    let Some(newest) = current.pop() else {
        return make(view, set, &data, number, plan).map(|hash| Revisions { hash, old });
    };
    let hash = hash_of(&newest).to_owned();
    if !current.is_empty() {
        let others = pods
            .iter()
            .filter(|pod| object::label(pod, HASH) != Some(&hash));
        let patch = json!({"metadata": {"labels": {HASH: hash}}});
        plan.together(
            others
                .map(|pod| Write::patch(PODS, pod, patch.clone()))
                .collect(),
        );
        let doubles = current
            .iter()
            .map(|own| Write::delete(CONTROLLER_REVISIONS, own));
        plan.together(doubles.collect());
    }
    if history::number(&newest) < number {
        let patch = json!({ "revision": number });
        plan.then(Write::patch(CONTROLLER_REVISIONS, &newest, patch));
    }
    Some(Revisions { hash, old })
}

fn hash_of(revision: &Value) -> &str {
    object::label(revision, HASH).unwrap_or_else(|| object::name(revision))
}

fn make(
    view: &dyn View,
    set: &Value,
    data: &Value,
    number: i64,
    plan: &mut Plan,
) -> Option<String> {
    let collisions = set["status"]["collisionCount"].as_i64();
    let hash = hash::name_of(&set["spec"]["template"], collisions);
    let name = history::name(set, &hash);
    match view.get(CONTROLLER_REVISIONS, object::namespace(set), &name) {
        Some(taken) if history::same(&taken["data"], data) => Some(hash_of(&taken).to_owned()),
        Some(_) => {
            let mut next = set.clone();
            next["status"]["collisionCount"] = (collisions.unwrap_or_default() + 1).into();
            plan.then(Write::status(DAEMON_SETS, next));
            None
        }
        None => {
            let revision = history::revision(DAEMON_SETS, set, data, number, &hash, HASH);
            plan.then(Write::create(CONTROLLER_REVISIONS, revision));
            Some(hash)
        }
    }
}

impl Revisions {
    /// Removes the oldest that no pod has, down to the set's limit.
    pub(super) fn obsolete(&self, set: &Value, pods: &[Arc<Value>]) -> Vec<Write> {
        let limit = set["spec"]["revisionHistoryLimit"].as_i64().unwrap_or(10);
        let over = self
            .old
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or_default());
        let live: BTreeSet<&str> = pods
            .iter()
            .filter_map(|pod| object::label(pod, HASH))
            .collect();
        let unused = self.old.iter().filter(|own| !live.contains(hash_of(own)));
        let obsolete = unused.take(over);
        obsolete
            .map(|own| Write::delete(CONTROLLER_REVISIONS, own))
            .collect()
    }
}
