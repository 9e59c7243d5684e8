//! Labels of nodes by columns: per key a dense vector of interned values, so that a
//! condition on labels is one scan of numbers, and a node's domain is one look.
//!
//! Invariants
//! - A value or key that no node has is not kept: the index is as large as the nodes'
//!   labels are.
//! - Value 0 of every column means: no such label.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::affinity_term::Labels;
use super::node_selector::{Requirement, Test};

/// The place of a node in all dense vectors.
pub type Slot = u32;

/// A set of slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSet {
    words: Vec<u64>,
}

impl NodeSet {
    fn filled(slots: usize, word: u64) -> Self {
        Self {
            words: vec![word; slots.div_ceil(64)],
        }
    }

    pub(super) fn none(slots: usize) -> Self {
        Self::filled(slots, 0)
    }

    pub(super) fn all(slots: usize) -> Self {
        Self::filled(slots, u64::MAX)
    }

    pub(super) fn insert(&mut self, slot: Slot) {
        if let Some(word) = self.words.get_mut(slot as usize / 64) {
            *word |= 1 << (slot % 64);
        }
    }

    /// Whether a node is in it.
    pub fn contains(&self, slot: Slot) -> bool {
        let word = self.words.get(slot as usize / 64);
        word.is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    pub(super) fn keep(&mut self, other: &Self) {
        for (own, other) in self.words.iter_mut().zip(&other.words) {
            *own &= other;
        }
    }

    pub(super) fn join(&mut self, other: &Self) {
        for (own, other) in self.words.iter_mut().zip(&other.words) {
            *own |= other;
        }
    }
}

#[derive(Debug, Default)]
struct Column {
    ids: BTreeMap<Arc<str>, u32>,
    /// By id; the first stands for no value.
    names: Vec<Option<Arc<str>>>,
    /// Nodes with each value.
    counts: Vec<u32>,
    free: Vec<u32>,
    /// By slot.
    values: Vec<u32>,
}

impl Column {
    fn set(&mut self, slot: Slot, value: Option<&str>) {
        let place = slot as usize;
        if self.values.len() <= place {
            self.values.resize(place + 1, 0);
        }
        let old = self.values[place];
        if self.names.get(old as usize).and_then(Option::as_deref) == value {
            return;
        }
        self.release(old);
        self.values[place] = value.map_or(0, |value| self.acquire(value));
    }

    fn acquire(&mut self, value: &str) -> u32 {
        if self.names.is_empty() {
            self.names.push(None);
            self.counts.push(0);
        }
        let id = match self.ids.get(value) {
            Some(id) => *id,
            None => {
                let name: Arc<str> = value.into();
                let id = self.free.pop().unwrap_or_else(|| {
                    self.names.push(None);
                    self.counts.push(0);
                    u32::try_from(self.names.len() - 1).unwrap_or_default()
                });
                self.names[id as usize] = Some(name.clone());
                self.ids.insert(name, id);
                id
            }
        };
        self.counts[id as usize] += 1;
        id
    }

    fn release(&mut self, id: u32) {
        if id == 0 {
            return;
        }
        let place = id as usize;
        self.counts[place] -= 1;
        if self.counts[place] == 0 {
            if let Some(name) = self.names[place].take() {
                self.ids.remove(&name);
            }
            self.free.push(id);
        }
    }

    /// Which values pass a test, by id.
    fn passing(&self, test: &Test) -> Vec<bool> {
        let ids = |values: &[String]| -> Vec<u32> {
            let known = values.iter().filter_map(|own| self.ids.get(own.as_str()));
            known.copied().collect()
        };
        let mut passing = vec![matches!(test, Test::NotIn(_)); self.names.len()];
        match test {
            Test::In(values) | Test::NotIn(values) => {
                for id in ids(values) {
                    passing[id as usize] = matches!(test, Test::In(_));
                }
            }
            _ => {
                for (own, name) in passing.iter_mut().zip(&self.names) {
                    *own = test.passes(name.as_deref());
                }
            }
        }
        passing
    }
}

/// The labels of all nodes.
#[derive(Debug, Default)]
pub(super) struct LabelIndex {
    keys: BTreeMap<Arc<str>, usize>,
    columns: Vec<Column>,
    free: Vec<usize>,
}

impl LabelIndex {
    /// Puts a node's labels in the place of those it had.
    pub(super) fn replace(&mut self, slot: Slot, before: &Labels, after: &Labels) {
        for key in before.keys().filter(|key| !after.contains_key(*key)) {
            let Some(place) = self.column(key) else {
                continue;
            };
            let column = &mut self.columns[place];
            column.set(slot, None);
            if column.ids.is_empty() {
                *column = Column::default();
                self.keys.remove(key.as_str());
                self.free.push(place);
            }
        }
        for (key, value) in after {
            let place = match self.column(key) {
                Some(place) => place,
                None => {
                    let place = self.free.pop().unwrap_or_else(|| {
                        self.columns.push(Column::default());
                        self.columns.len() - 1
                    });
                    self.keys.insert(key.as_str().into(), place);
                    place
                }
            };
            self.columns[place].set(slot, Some(value));
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The column of a key, if a node has it.
    pub(super) fn column(&self, key: &str) -> Option<usize> {
        self.keys.get(key).copied()
    }

    /// The value that a node has in a column; 0: none.
    pub(super) fn value(&self, column: usize, slot: Slot) -> u32 {
        let values = &self.columns[column].values;
        values.get(slot as usize).copied().unwrap_or_default()
    }

    /// Above the largest value of a column.
    pub(super) fn values(&self, column: usize) -> usize {
        self.columns[column].names.len()
    }

    /// The nodes, among the first `slots`, that pass a condition.
    pub(super) fn matching(&self, requirement: &Requirement, slots: usize) -> NodeSet {
        let Some(place) = self.column(&requirement.key) else {
            return match requirement.test.passes(None) {
                true => NodeSet::all(slots),
                false => NodeSet::none(slots),
            };
        };
        let column = &self.columns[place];
        let passing = column.passing(&requirement.test);
        let mut set = NodeSet::none(slots);
        for (chunk, word) in column.values.chunks(64).zip(&mut set.words) {
            for (bit, value) in chunk.iter().enumerate() {
                *word |= u64::from(passing[*value as usize]) << bit;
            }
        }
        if passing.first() == Some(&true) {
            for slot in column.values.len()..slots {
                set.insert(u32::try_from(slot).unwrap_or(Slot::MAX));
            }
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, String)]) -> Labels {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect()
    }

    #[test]
    fn nothing_is_kept_of_labels_that_no_node_has() {
        let mut index = LabelIndex::default();
        let mut before = Labels::new();
        for round in 0..100 {
            let after = labels(&[("a", round.to_string()), (&format!("k{round}"), "v".into())]);
            index.replace(7, &before, &after);
            before = after;
        }
        let column = index.column("a").expect("a node has it");
        assert!(index.values(column) <= 3 && index.columns.len() <= 3);
        assert_eq!(index.keys.len(), 2);
        index.replace(7, &before, &Labels::new());
        assert!(index.keys.is_empty());
    }

    #[test]
    fn conditions_hold_for_nodes_beyond_a_column_too() {
        let mut index = LabelIndex::default();
        index.replace(0, &Labels::new(), &labels(&[("a", "1".into())]));
        let matching = |test: Test| {
            let key = "a".to_owned();
            let set = index.matching(&Requirement { key, test }, 100);
            [0, 1, 99].map(|slot| set.contains(slot))
        };
        let one = || vec!["1".to_owned()];
        assert_eq!(matching(Test::In(one())), [true, false, false]);
        assert_eq!(matching(Test::NotIn(one())), [false, true, true]);
        assert_eq!(matching(Test::DoesNotExist), [false, true, true]);
        assert_eq!(matching(Test::LessThan(2)), [true, false, false]);
    }
}
