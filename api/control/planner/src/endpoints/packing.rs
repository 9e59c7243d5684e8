//! Endpoints into slices, with as few writes as possible: what stays, stays where it is;
//! what comes, fills slices that are written anyway, then one that has room for all of it,
//! then new ones.
//!
//! Invariant: a slice holds at most [`MAX_ENDPOINTS`], and each endpoint once.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::object;

/// Endpoints of one slice, at most.
pub(super) const MAX_ENDPOINTS: usize = 100;

/// What makes an endpoint the same: addresses, host name, and namespace and name of the
/// pod.
pub(super) type EndpointKey = (Vec<String>, String, String, String);

/// Endpoints that are wanted.
pub(super) type Wanted = BTreeMap<EndpointKey, Value>;

/// The key of an endpoint.
pub(super) fn key_of(endpoint: &Value) -> EndpointKey {
    let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
    let mut addresses: Vec<String> = object::items(&endpoint["addresses"]).map(text).collect();
    addresses.sort();
    let target = &endpoint["targetRef"];
    (
        addresses,
        text(&endpoint["hostname"]),
        text(&target["namespace"]),
        text(&target["name"]),
    )
}

/// Whether two endpoints of one key tell the same but for their hints.
pub(super) fn is_same(one: &Value, other: &Value) -> bool {
    let target = |endpoint: &Value| {
        let target = &endpoint["targetRef"];
        [
            "kind",
            "apiVersion",
            "namespace",
            "name",
            "uid",
            "fieldPath",
        ]
        .map(|field| target[field].as_str().unwrap_or_default().to_owned())
    };
    let fields = |endpoint: &Value| {
        let conditions = &endpoint["conditions"];
        (
            ["nodeName", "zone"].map(|field| endpoint[field].clone()),
            ["ready", "serving", "terminating"].map(|field| conditions[field].clone()),
        )
    };
    fields(one) == fields(other) && target(one) == target(other)
}

/// What is to become of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Unchanged,
    Changed,
    Removed,
}

/// A slice on its way to what it shall be.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    /// As it stands; `None` for a new one.
    pub(super) seen: Option<Arc<Value>>,
    pub(super) slice: Value,
    pub(super) fate: Fate,
}

impl Draft {
    pub(super) fn of(seen: &Arc<Value>) -> Self {
        Self {
            seen: Some(seen.clone()),
            slice: (**seen).clone(),
            fate: Fate::Unchanged,
        }
    }

    pub(super) fn fresh(slice: Value) -> Self {
        Self {
            seen: None,
            slice,
            fate: Fate::Changed,
        }
    }

    pub(super) fn endpoints(&self) -> &[Value] {
        self.slice["endpoints"]
            .as_array()
            .map_or(&[], Vec::as_slice)
    }

    /// Its endpoints, to be changed; `None` where it has no list of them.
    pub(super) fn endpoints_mut(&mut self) -> Option<&mut Vec<Value>> {
        self.slice["endpoints"].as_array_mut()
    }

    fn fill(&mut self, wanted: &mut Wanted) {
        self.fate = Fate::Changed;
        let mut endpoints = std::mem::take(&mut self.slice["endpoints"]);
        if let Some(list) = endpoints.as_array_mut() {
            while list.len() < MAX_ENDPOINTS
                && let Some((_, endpoint)) = wanted.pop_first()
            {
                list.push(endpoint);
            }
        }
        self.slice["endpoints"] = endpoints;
    }

    /// Takes what it has from `wanted`, and drops what nobody wants.
    fn keep(&mut self, wanted: &mut Wanted, labels: &Map<String, Value>, relabel: bool) {
        let mut is_changed = relabel;
        let before = self.endpoints().len();
        let mut kept = Vec::with_capacity(before);
        for own in self.endpoints() {
            let Some(endpoint) = wanted.remove(&key_of(own)) else {
                continue;
            };
            is_changed |= !is_same(own, &endpoint);
            // Its hints are looked at when all slices are known.
            kept.push(match is_same(own, &endpoint) {
                true => own.clone(),
                false => endpoint,
            });
        }
        is_changed |= kept.len() != before;
        if kept.is_empty() && before > 0 {
            self.fate = Fate::Removed;
        } else if is_changed {
            self.fate = Fate::Changed;
            self.slice["endpoints"] = kept.into();
            self.slice["metadata"]["labels"] = labels.clone().into();
        }
    }
}

/// Packs what is wanted into the drafts, all of one family and of the same ports, and adds
/// to them what `fresh` gives where they do not suffice. `labels` are a slice's own, and
/// `has_labels` says whether a slice has them.
pub(super) fn pack(
    drafts: &mut Vec<Draft>,
    mut wanted: Wanted,
    labels: &Map<String, Value>,
    has_labels: impl Fn(&Value) -> bool,
    fresh: impl Fn() -> Value,
) {
    for draft in &mut *drafts {
        let relabel = !has_labels(&draft.slice);
        draft.keep(&mut wanted, labels, relabel);
    }
    // The fullest first.
    let mut changed: Vec<&mut Draft> = drafts
        .iter_mut()
        .filter(|draft| draft.fate == Fate::Changed)
        .collect();
    changed.sort_by_key(|draft| Reverse(draft.endpoints().len()));
    for draft in changed {
        draft.fill(&mut wanted);
    }
    while !wanted.is_empty() {
        match with_room(drafts, wanted.len()) {
            Some(draft) => draft.fill(&mut wanted),
            None => {
                let mut draft = Draft::fresh(fresh());
                draft.fill(&mut wanted);
                drafts.push(draft);
            }
        }
    }
}

/// The untouched slice that is nearest to full once it has so many more.
fn with_room(drafts: &mut [Draft], more: usize) -> Option<&mut Draft> {
    let room = MAX_ENDPOINTS.checked_sub(more).filter(|room| *room > 0)?;
    drafts
        .iter_mut()
        .filter(|draft| draft.fate == Fate::Unchanged && draft.endpoints().len() <= room)
        .max_by_key(|draft| draft.endpoints().len())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn endpoint(number: usize, version: u8) -> Value {
        json!({
            "addresses": [format!("10.0.{}.{}", number / 256, number % 256)],
            "conditions": {"ready": version.is_multiple_of(2)},
        })
    }

    fn wanted(numbers: impl IntoIterator<Item = usize>, version: u8) -> Wanted {
        let endpoints = numbers.into_iter().map(|number| endpoint(number, version));
        endpoints.map(|own| (key_of(&own), own)).collect()
    }

    fn slice(name: &str, numbers: impl IntoIterator<Item = usize>) -> Draft {
        let endpoints: Vec<Value> = numbers.into_iter().map(|one| endpoint(one, 0)).collect();
        Draft::of(&Arc::new(
            json!({"metadata": {"name": name}, "endpoints": endpoints}),
        ))
    }

    fn packed(mut drafts: Vec<Draft>, wanted: Wanted) -> Vec<Draft> {
        let fresh = || json!({"metadata": {}, "endpoints": []});
        pack(&mut drafts, wanted, &Map::new(), |_| true, fresh);
        drafts
    }

    fn shape(drafts: &[Draft]) -> Vec<(usize, Fate)> {
        let one = |draft: &Draft| (draft.endpoints().len(), draft.fate);
        drafts.iter().map(one).collect()
    }

    #[test]
    fn few_slices_are_written() {
        use Fate::{Changed, Removed, Unchanged};
        let three = || {
            vec![
                slice("a", 0..100),
                slice("b", 100..180),
                slice("c", 180..240),
            ]
        };
        for (case, wanted, expected) in [
            (
                "the same",
                wanted(0..240, 0),
                vec![(100, Unchanged), (80, Unchanged), (60, Unchanged)],
            ),
            // The fullest that has room for all.
            (
                "20 more",
                wanted(0..260, 0),
                vec![(100, Unchanged), (100, Changed), (60, Unchanged)],
            ),
            (
                "30 more",
                wanted(0..270, 0),
                vec![(100, Unchanged), (80, Unchanged), (90, Changed)],
            ),
            // None has room for all of them.
            (
                "50 more",
                wanted(0..290, 0),
                vec![
                    (100, Unchanged),
                    (80, Unchanged),
                    (60, Unchanged),
                    (50, Changed),
                ],
            ),
            // What is written anyway is filled.
            (
                "one for another",
                wanted(1..241, 0),
                vec![(100, Changed), (80, Unchanged), (60, Unchanged)],
            ),
            (
                "a slice empties",
                wanted(0..180, 0),
                vec![(100, Unchanged), (80, Unchanged), (60, Removed)],
            ),
            (
                "150 more",
                wanted(0..390, 0),
                vec![
                    (100, Unchanged),
                    (80, Unchanged),
                    (60, Unchanged),
                    (100, Changed),
                    (50, Changed),
                ],
            ),
        ] {
            assert_eq!(shape(&packed(three(), wanted)), expected, "{case}");
        }
    }

    #[test]
    fn a_slice_with_other_labels_is_written() {
        let labels = Map::from_iter([("a".to_owned(), "b".into())]);
        let mut drafts = vec![slice("a", 0..2)];
        pack(
            &mut drafts,
            wanted(0..2, 0),
            &labels,
            |_| false,
            || json!({}),
        );
        assert_eq!(shape(&drafts), [(2, Fate::Changed)]);
        assert_eq!(drafts[0].slice["metadata"]["labels"]["a"], "b");
    }

    proptest! {
        #[test]
        fn every_endpoint_that_is_wanted_is_in_one_slice(
            slices in prop::collection::vec((0..300_usize, 0..100_usize), 0..5),
            numbers in prop::collection::btree_set(0..600_usize, 0..350),
            version in 0..3_u8,
        ) {
            let mut taken = BTreeSet::new();
            let drafts: Vec<Draft> = slices.iter().map(|(from, count)| {
                let own = (*from..from + count).filter(|one| taken.insert(*one));
                slice("x", own.collect::<Vec<_>>())
            }).collect();
            let target = wanted(numbers, version);
            let drafts = packed(drafts, target.clone());
            let mut held = Wanted::new();
            for draft in drafts.iter().filter(|draft| draft.fate != Fate::Removed) {
                prop_assert!(draft.endpoints().len() <= MAX_ENDPOINTS);
                for endpoint in draft.endpoints() {
                    prop_assert!(held.insert(key_of(endpoint), endpoint.clone()).is_none());
                }
            }
            prop_assert_eq!(&held, &target);
            // What was packed is packed no further.
            let again: Vec<Draft> = drafts.iter().filter(|draft| draft.fate != Fate::Removed)
                .map(|draft| Draft::of(&Arc::new(draft.slice.clone()))).collect();
            let again = packed(again, target);
            prop_assert!(again.iter().all(|draft| draft.fate == Fate::Unchanged));
        }
    }
}
