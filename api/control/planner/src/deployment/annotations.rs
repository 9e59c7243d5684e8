//! What stands in the annotations of a Deployment and its ReplicaSets: revisions, and how
//! many pods there were when a set was last scaled.

use serde_json::Value;

use super::ReplicaSet;
use crate::object;

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";
pub(super) const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";

/// Bytes of the revisions that a set had before, at most.
const MAX_HISTORY_BYTES: usize = 2_000;

/// Those that belong to one object, and are not handed from a deployment to its sets.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    ROLLBACK_TO,
];

/// Copies the annotations that are handed on.
pub(super) fn hand_on(from: &Value, to: &mut Value) {
    let handed = from["metadata"]["annotations"].as_object();
    for (name, value) in handed.into_iter().flatten() {
        if !OWN.contains(&name.as_str()) {
            to["metadata"]["annotations"][name] = value.clone();
        }
    }
}

/// Gives a deployment the annotations it had with a set that it goes back to.
pub(super) fn hand_back(set: &Value, deployment: &mut Value) {
    if let Some(own) = deployment["metadata"]["annotations"].as_object_mut() {
        own.retain(|name, _| OWN.contains(&name.as_str()));
    }
    hand_on(set, deployment);
}

/// Makes a set the newest: it has at least this revision, and notes those it had.
pub(super) fn advance(set: &mut ReplicaSet, revision: i64) {
    let before = object::annotation(&set.next, REVISION).unwrap_or_default();
    let number = if before.is_empty() {
        Some(0)
    } else {
        before.parse::<i64>().ok()
    };
    if number.is_none_or(|number| number >= revision) {
        return;
    }
    let history = object::annotation(&set.next, REVISION_HISTORY).unwrap_or_default();
    let history = (!before.is_empty())
        .then(|| remembered(history, before))
        .flatten();
    let annotations = &mut set.next["metadata"]["annotations"];
    annotations[REVISION] = revision.to_string().into();
    if let Some(history) = history {
        annotations[REVISION_HISTORY] = history.into();
    }
}

/// The history with one revision more, the oldest dropped where it would be too long.
fn remembered(history: &str, revision: &str) -> Option<String> {
    if history.is_empty() {
        return Some(revision.to_owned());
    }
    let mut rest = history;
    while rest.len() + 1 + revision.len() > MAX_HISTORY_BYTES {
        rest = rest.split_once(',').map_or("", |(_, rest)| rest);
        if rest.is_empty() {
            return (revision.len() <= MAX_HISTORY_BYTES).then(|| revision.to_owned());
        }
    }
    Some(format!("{rest},{revision}"))
}

/// Notes how many pods the deployment wants, and has at most.
pub(super) fn note_size(set: &mut ReplicaSet, desired: i64, max: i64) {
    let annotations = &mut set.next["metadata"]["annotations"];
    annotations[DESIRED] = desired.to_string().into();
    annotations[MAX] = max.to_string().into();
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(annotations: &Value) -> ReplicaSet {
        ReplicaSet {
            seen: None,
            next: json!({"metadata": {"annotations": annotations}}),
        }
    }

    #[test]
    fn a_set_that_comes_back_notes_the_revisions_it_had() {
        for (before, revision, expected) in [
            (json!({}), 1, json!({REVISION: "1"})),
            (json!({REVISION: "3"}), 3, json!({REVISION: "3"})),
            (json!({REVISION: "7"}), 3, json!({REVISION: "7"})),
            (
                json!({REVISION: "1"}),
                3,
                json!({REVISION: "3", REVISION_HISTORY: "1"}),
            ),
            (
                json!({REVISION: "3", REVISION_HISTORY: "1"}),
                5,
                json!({REVISION: "5", REVISION_HISTORY: "1,3"}),
            ),
            (json!({REVISION: "x"}), 3, json!({REVISION: "x"})),
        ] {
            let mut set = set(&before);
            advance(&mut set, revision);
            assert_eq!(set.next["metadata"]["annotations"], expected);
        }
    }

    #[test]
    fn the_oldest_revisions_are_forgotten() {
        let long = vec!["123"; MAX_HISTORY_BYTES / 4].join(",");
        let next = remembered(&long, "456").expect("there is room");
        assert!(next.len() <= MAX_HISTORY_BYTES && next.ends_with(",123,456"));
        assert_eq!(next.len(), long.len());
    }

    #[test]
    fn what_belongs_to_one_object_is_not_handed_on() {
        let deployment = json!({"metadata": {"annotations": {
            REVISION: "4", DESIRED: "9", "kubernetes.io/change-cause": "edit",
        }}});
        let mut set = json!({"metadata": {"annotations": {
            REVISION: "2", "kubernetes.io/change-cause": "create", "more": "x",
        }}});
        let mut back = deployment.clone();
        hand_back(&set, &mut back);
        let expected = json!({
            REVISION: "4", DESIRED: "9", "kubernetes.io/change-cause": "create", "more": "x",
        });
        assert_eq!(back["metadata"]["annotations"], expected);
        hand_on(&deployment, &mut set);
        let expected = json!({REVISION: "2", "kubernetes.io/change-cause": "edit", "more": "x"});
        assert_eq!(set["metadata"]["annotations"], expected);
    }
}
