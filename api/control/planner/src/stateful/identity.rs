//! Which pod is which: names, ordinals, the labels that tell of them.

use serde_json::{Value, json};

use crate::object;
use crate::view::Key;

const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The ordinals that a set wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ordinals {
    /// The first.
    pub(super) start: i64,
    /// How many.
    pub(super) count: i64,
}

impl Ordinals {
    /// Of a set's `ordinals.start` and `replicas`.
    pub(super) fn of(set: &Value) -> Self {
        let start = set["spec"]["ordinals"]["start"].as_i64();
        Self {
            start: start.unwrap_or_default(),
            count: set["spec"]["replicas"].as_i64().unwrap_or(1),
        }
    }

    pub(super) fn contains(self, ordinal: i64) -> bool {
        (self.start..self.start + self.count).contains(&ordinal)
    }

    pub(super) fn iter(self) -> impl Iterator<Item = i64> {
        self.start..self.start + self.count
    }
}

/// `set-3` in two: everything before the last dash, and the digits.
fn split(pod: &str) -> Option<(&str, &str)> {
    let (set, digits) = pod.rsplit_once('-')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some((set, digits))
}

/// The ordinal in a pod's name.
pub(super) fn ordinal(pod: &str) -> Option<i64> {
    let (_, digits) = split(pod)?;
    digits.parse::<i32>().ok().map(i64::from)
}

/// Whether a pod is named as one of a set's.
pub(super) fn is_member(set: &str, pod: &Value) -> bool {
    split(object::name(pod)).is_some_and(|(own, _)| own == set)
}

/// The set that a pod is named after.
pub(super) fn set_of_pod(pod: &Value) -> Option<Key> {
    let (set, _) = split(object::name(pod))?;
    Some(Key::new(object::namespace(pod), set))
}

/// The sets that a claim may be named after: `template-set-3`, and names may have dashes.
pub(super) fn sets_of_claim(claim: &Value) -> impl Iterator<Item = Key> {
    let namespace = object::namespace(claim);
    let name = split(object::name(claim)).map_or("", |(name, _)| name);
    let dashes = name.match_indices('-').map(|(at, _)| at);
    dashes.map(move |at| Key::new(namespace, &name[at + 1..]))
}

/// A pod with the labels of its identity.
pub(super) fn with_identity(mut pod: Value) -> Value {
    let name = object::name(&pod).to_owned();
    let Some(ordinal) = ordinal(&name) else {
        return pod;
    };
    if object::label(&pod, POD_NAME_LABEL) != Some(&name) {
        if !pod["metadata"]["labels"].is_object() {
            pod["metadata"]["labels"] = json!({});
        }
        pod["metadata"]["labels"][POD_NAME_LABEL] = name.into();
        pod["metadata"]["labels"][POD_INDEX_LABEL] = ordinal.to_string().into();
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_sets_and_ordinals() {
        for (name, set, expected) in [
            ("web-0", Some("web"), Some(0)),
            ("a-web-12", Some("a-web"), Some(12)),
            ("web-", None, None),
            ("web-x1", None, None),
            ("web", None, None),
            ("web-99999999999", Some("web"), None),
        ] {
            let pod = json!({"metadata": {"name": name, "namespace": "n"}});
            assert_eq!(
                set_of_pod(&pod).map(|key| key.name).as_deref(),
                set,
                "{name}"
            );
            assert_eq!(ordinal(name), expected, "{name}");
        }
    }

    #[test]
    fn a_claim_may_be_of_any_set_that_its_name_ends_with() {
        let claim = json!({"metadata": {"name": "data-a-web-3", "namespace": "n"}});
        let sets: Vec<String> = sets_of_claim(&claim).map(|key| key.name).collect();
        assert_eq!(sets, ["a-web", "web"]);
    }
}
