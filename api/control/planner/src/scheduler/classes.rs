//! Pods by what other pods' constraints can tell of them: their namespace, labels,
//! affinity terms and whether they end. The replicas of one workload are one class, so that
//! a selector is held against it once, however many there are.
//!
//! Invariant: a class has at least one pod.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::label_index::Slot;
use super::pod::PodInfo;

/// Pods that no constraint tells apart.
#[derive(Debug)]
pub(super) struct Class {
    /// One of them.
    pub(super) example: Arc<PodInfo>,
    /// How many are on which node.
    pub(super) nodes: BTreeMap<Slot, u32>,
}

/// All classes.
#[derive(Debug, Default)]
pub(super) struct Classes {
    all: Vec<Option<Class>>,
    free: Vec<usize>,
    /// By namespace and likeness.
    ids: BTreeMap<String, BTreeMap<String, usize>>,
    with_terms: BTreeSet<usize>,
}

impl Classes {
    /// Counts a pod.
    pub(super) fn add(&mut self, pod: &Arc<PodInfo>, slot: Slot) {
        let known = self.ids.get(&pod.namespace);
        let known = known.and_then(|own| own.get(&pod.likeness)).copied();
        let id = known.unwrap_or_else(|| self.make(pod));
        if let Some(class) = &mut self.all[id] {
            *class.nodes.entry(slot).or_default() += 1;
        }
    }

    fn make(&mut self, pod: &Arc<PodInfo>) -> usize {
        let id = self.free.pop().unwrap_or_else(|| {
            self.all.push(None);
            self.all.len() - 1
        });
        self.all[id] = Some(Class {
            example: pod.clone(),
            nodes: BTreeMap::new(),
        });
        let of_namespace = self.ids.entry(pod.namespace.clone()).or_default();
        of_namespace.insert(pod.likeness.clone(), id);
        if !pod.affinities.is_empty() {
            self.with_terms.insert(id);
        }
        id
    }

    /// Takes a pod away.
    pub(super) fn remove(&mut self, pod: &PodInfo, slot: Slot) {
        let Some(of_namespace) = self.ids.get_mut(&pod.namespace) else {
            return;
        };
        let Some(id) = of_namespace.get(&pod.likeness).copied() else {
            return;
        };
        let Some(class) = &mut self.all[id] else {
            return;
        };
        if let Some(count) = class.nodes.get_mut(&slot) {
            *count -= 1;
            if *count == 0 {
                class.nodes.remove(&slot);
            }
        }
        if !class.nodes.is_empty() {
            return;
        }
        of_namespace.remove(&pod.likeness);
        if of_namespace.is_empty() {
            self.ids.remove(&pod.namespace);
        }
        self.with_terms.remove(&id);
        self.all[id] = None;
        self.free.push(id);
    }

    /// Those of a namespace.
    pub(super) fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = &Class> {
        let ids = self.ids.get(namespace).into_iter();
        ids.flat_map(BTreeMap::values)
            .filter_map(|id| self.all[*id].as_ref())
    }

    /// Those whose pods have affinity terms.
    pub(super) fn with_terms(&self) -> impl Iterator<Item = &Class> {
        self.with_terms
            .iter()
            .filter_map(|id| self.all[*id].as_ref())
    }

    /// The namespaces that have pods.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.ids.keys().map(String::as_str)
    }
}
