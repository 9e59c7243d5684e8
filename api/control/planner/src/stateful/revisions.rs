//! Which template a set's pods have now, and which they shall have.

use std::sync::Arc;

use nautilus_machinery::selector::LabelSelector;
use nautilus_machinery::{resource, strategy};
use serde_json::{Value, json};

use super::identity::{self, Ordinals};
use super::{REVISION_LABEL, claims};
use crate::hash;
use crate::history;
use crate::kind::{CONTROLLER_REVISIONS, STATEFUL_SETS};
use crate::object;
use crate::plan::{Plan, Write};
use crate::pods;
use crate::view::View;

const HASH_LABEL: &str = "controller.kubernetes.io/hash";

/// The revisions of a set.
pub(super) struct Revisions {
    all: Vec<Arc<Value>>,
    /// What the pods were before the update that goes on.
    pub(super) current: Revision,
    /// What the set's template is.
    pub(super) update: Revision,
    /// Names that were taken by something else so far.
    pub(super) collisions: i64,
}

/// One of them.
#[derive(Clone)]
pub(super) struct Revision {
    pub(super) name: String,
    template: Value,
}

impl Revision {
    fn of(revision: &Value) -> Self {
        Self {
            name: object::name(revision).to_owned(),
            template: history::template(revision),
        }
    }
}

/// Finds a set's revisions, and plans what they lack: an owner, the newest of them.
pub(super) fn find(
    view: &dyn View,
    set: &Value,
    selector: &LabelSelector,
    plan: &mut Plan,
) -> Revisions {
    let all = history::list(view, set, selector);
    history::adopt(&all, STATEFUL_SETS, set, plan);
    let mut collisions = set["status"]["collisionCount"].as_i64().unwrap_or_default();
    let update = update(view, set, &all, &mut collisions, plan);
    let current = set["status"]["currentRevision"].as_str();
    let current = all.iter().find(|own| Some(object::name(own)) == current);
    Revisions {
        current: current.map_or_else(|| update.clone(), |own| Revision::of(own)),
        all,
        update,
        collisions,
    }
}

fn update(
    view: &dyn View,
    set: &Value,
    all: &[Arc<Value>],
    collisions: &mut i64,
    plan: &mut Plan,
) -> Revision {
    let data = history::record(&set["spec"]["template"]);
    let number = history::next_number(all);
    let newest = all.last();
    if let Some(newest) = newest.filter(|own| history::same(&own["data"], &data)) {
        return Revision::of(newest);
    }
    let equal = all
        .iter()
        .rev()
        .find(|own| history::same(&own["data"], &data));
    if let Some(equal) = equal {
        // Back to an earlier template: its revision is the newest again.
        let renumbered = json!({ "revision": number });
        plan.then(Write::patch(CONTROLLER_REVISIONS, equal, renumbered));
        return Revision::of(equal);
    }
    if let Some(newest) = newest.filter(|own| gives_the_same(set, own, &data)) {
        return Revision::of(newest);
    }
    loop {
        let hash = hash::name_of(&data, Some(*collisions));
        let name = history::name(set, &hash);
        let taken = view.get(CONTROLLER_REVISIONS, object::namespace(set), &name);
        match taken {
            None => {
                let revision =
                    history::revision(STATEFUL_SETS, set, &data, number, &hash, HASH_LABEL);
                let found = Revision::of(&revision);
                plan.then(Write::create(CONTROLLER_REVISIONS, revision));
                return found;
            }
            Some(taken) if history::same(&taken["data"], &data) => return Revision::of(&taken),
            Some(_) => *collisions += 1,
        }
    }
}

/// Whether a set of this revision's template would be the same once defaults are filled
/// in: revisions outlive the release that wrote them.
fn gives_the_same(set: &Value, revision: &Value, data: &Value) -> bool {
    let kind = STATEFUL_SETS;
    let Some(resource) = resource::find(kind.group, kind.version, kind.plural) else {
        return false;
    };
    let mut restored = set.clone();
    restored["spec"]["template"] = history::template(revision);
    strategy::default_decoded(resource, &mut restored).is_ok()
        && history::same(&history::record(&restored["spec"]["template"]), data)
}

impl Revisions {
    /// A pod that is still to be made, of the revision that its ordinal has.
    pub(super) fn pod(&self, set: &Value, ordinals: Ordinals, ordinal: i64) -> Value {
        let strategy = &set["spec"]["updateStrategy"];
        let kept = match strategy["rollingUpdate"].as_object() {
            Some(rolling) => rolling.get("partition").and_then(Value::as_i64),
            None if strategy["type"] == "RollingUpdate" => {
                set["status"]["currentReplicas"].as_i64()
            }
            None => None,
        };
        let revision = if ordinal < ordinals.start + kept.unwrap_or_default() {
            &self.current
        } else {
            &self.update
        };
        let mut pod = pods::from_template(STATEFUL_SETS, set, &revision.template);
        let name = format!("{}-{ordinal}", object::name(set));
        pod["metadata"]["name"] = name.as_str().into();
        let mut pod = identity::with_identity(pod);
        pod["metadata"]["labels"][REVISION_LABEL] = revision.name.as_str().into();
        pod["spec"]["hostname"] = name.into();
        match set["spec"]["serviceName"].as_str() {
            Some(service) if !service.is_empty() => pod["spec"]["subdomain"] = service.into(),
            _ => {}
        }
        claims::mount(set, &mut pod);
        pod
    }

    /// The end of the oldest revisions that no pod is of, as far as they are too many.
    pub(super) fn over_limit(&self, set: &Value, pods: &[Arc<Value>]) -> Vec<Write> {
        let Some(limit) = set["spec"]["revisionHistoryLimit"].as_u64() else {
            return Vec::new();
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let is_live = |name: &str| {
            let mut revisions = pods.iter().filter_map(|pod| revision_of(pod));
            name == self.current.name
                || name == self.update.name
                || revisions.any(|own| own == name)
        };
        history::over_limit(&self.all, limit, is_live).collect()
    }
}

/// The name of the revision that a pod is of.
pub(super) fn revision_of(pod: &Value) -> Option<&str> {
    object::label(pod, REVISION_LABEL)
}
