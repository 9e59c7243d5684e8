//! Rolling updates of DaemonSets: old pods make way a few at a time, or new ones come
//! beside them first.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::{Look, Todo, pods};
use crate::object;
use crate::pods::{Rounding, scaled};

/// The pods of a node that are not on their way out.
enum Stand<'a> {
    /// Several of one kind: more than an update can judge.
    Crowded,
    Pods {
        new: Option<&'a Arc<Value>>,
        old: Option<&'a Arc<Value>>,
    },
}

impl Look<'_> {
    /// Whether a pod is of the present template.
    pub(super) fn is_updated(&self, pod: &Value) -> bool {
        pods::is_updated(pod, self.set, &self.revisions.hash)
    }

    /// Whether a node may have two pods for a while.
    pub(super) fn surges(&self) -> bool {
        self.limit("maxSurge", 1) > 0
    }

    fn limit(&self, field: &str, nodes: i64) -> i64 {
        let strategy = &self.set["spec"]["updateStrategy"];
        if strategy["type"] != "RollingUpdate" {
            return 0;
        }
        let limit = scaled(&strategy["rollingUpdate"][field], nodes, Rounding::Up);
        limit.unwrap_or_default()
    }

    /// Moves an update on, where the strategy does so by itself.
    pub(super) fn update(&self, todo: &mut Todo) {
        if self.set["spec"]["updateStrategy"]["type"] != "RollingUpdate" {
            return;
        }
        let eligible = self.nodes.iter().filter(|(_, runs)| runs.starts);
        let eligible: BTreeSet<&str> = eligible.map(|(node, _)| object::name(node)).collect();
        let desired = i64::try_from(eligible.len()).unwrap_or(i64::MAX);
        let surge = self.limit("maxSurge", desired);
        let unavailable = match self.limit("maxUnavailable", desired) {
            0 if surge == 0 && desired > 0 => 1,
            limit => limit,
        };
        if surge == 0 {
            let missing = eligible
                .iter()
                .filter(|name| !self.by_node.contains_key(**name));
            self.replace_old(unavailable, missing.count(), todo);
        } else {
            let is_eligible = |node: &str| eligible.contains(node);
            self.add_new(surge, desired, is_eligible, todo);
        }
    }

    fn stand<'a>(&self, pods: &'a [Arc<Value>]) -> Stand<'a> {
        let present = pods.iter().filter(|pod| !object::is_deleted(pod));
        let (new, old): (Vec<_>, Vec<_>) = present.partition(|pod| self.is_updated(pod));
        match (&new[..], &old[..]) {
            ([] | [_], [] | [_]) => Stand::Pods {
                new: new.first().copied(),
                old: old.first().copied(),
            },
            _ => Stand::Crowded,
        }
    }

    /// Removes old pods: those that are not available, and others up to `limit` nodes
    /// without an available one. `missing` nodes have no pod at all.
    fn replace_old(&self, limit: i64, missing: usize, todo: &mut Todo) {
        let mut unavailable = i64::try_from(missing).unwrap_or(i64::MAX);
        let mut candidates = Vec::new();
        for pods in self.by_node.values() {
            match self.stand(pods) {
                Stand::Pods {
                    new: None,
                    old: Some(old),
                } if self.is_available(old) => {
                    candidates.push(old);
                }
                Stand::Pods {
                    new: None,
                    old: Some(old),
                } => {
                    todo.remove.push(old.clone());
                    unavailable += 1;
                }
                Stand::Pods {
                    new: Some(new),
                    old: None,
                } if self.is_available(new) => {}
                Stand::Pods { .. } | Stand::Crowded => unavailable += 1,
            }
        }
        let room = usize::try_from(limit - unavailable).unwrap_or_default();
        todo.remove
            .extend(candidates.into_iter().take(room).cloned());
    }

    /// Makes new pods beside old ones: where the old is not available, and elsewhere up to
    /// `limit`; and removes the old where the new is available.
    fn add_new(
        &self,
        limit: i64,
        desired: i64,
        is_eligible: impl Fn(&str) -> bool,
        todo: &mut Todo,
    ) {
        let (mut surging, mut available) = (0, 0);
        let mut candidates = Vec::new();
        let mut out_of_place = Vec::new();
        for (node, pods) in &self.by_node {
            let Stand::Pods { new, old } = self.stand(pods) else {
                surging += 1;
                continue;
            };
            available += i64::from(old.or(new).is_some_and(|pod| self.is_available(pod)));
            match (old, new) {
                (None, _) => {}
                (Some(old), None) => match (is_eligible(node), self.is_available(old)) {
                    (true, true) => candidates.push(node),
                    (true, false) => todo.make.push((node.clone(), 0)),
                    (false, true) => out_of_place.push(old),
                    (false, false) => todo.remove.push(old.clone()),
                },
                (Some(old), Some(new)) if self.is_available(new) => todo.remove.push(old.clone()),
                (Some(_), Some(_)) => surging += 1,
            }
        }
        // Where a set moves to other nodes, the old ones serve until enough others do.
        let spare = usize::try_from(available - desired).unwrap_or_default();
        todo.remove
            .extend(out_of_place.into_iter().take(spare).cloned());
        let room = usize::try_from(limit - surging).unwrap_or_default();
        let chosen = candidates.into_iter().take(room);
        todo.make.extend(chosen.map(|node| (node.clone(), 0)));
    }
}
