//! Pods that several disruption budgets are for: no eviction takes them, and an Event says so.
//!
//! Invariant: a pod is told of when it, and not when a budget, changes, as the reference does it.

use nautilus_machinery::timestamp::Instant;

use crate::controller::{Change, Controller};
use crate::disruption::{ACCOUNT, COMPONENT, is_counted_anew, selector};
use crate::kind::{self, Kind};
use crate::object;
use crate::plan::{Plan, Write};
use crate::view::{Key, View, Within};

/// Warns of them. A key is a pod.
pub(crate) struct Overlaps;

impl Controller for Overlaps {
    fn name(&self) -> &'static str {
        ACCOUNT
    }

    fn component(&self) -> &'static str {
        COMPONENT
    }

    fn follows(&self) -> &'static [Kind] {
        &[kind::DISRUPTION_BUDGETS, kind::PODS]
    }

    fn concerns(&self, view: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        if change.kind != kind::PODS || !is_counted_anew(change) {
            return;
        }
        // Most namespaces have no two budgets.
        let namespace = object::namespace(change.object());
        let budgets = Within::Namespace(namespace);
        if view.keys(kind::DISRUPTION_BUDGETS, budgets).len() > 1 {
            keys.push(Key::of(change.object()));
        }
    }

    fn reconcile(&self, view: &dyn View, key: &Key, _now: Instant) -> Plan {
        let mut plan = Plan::default();
        let Some(pod) = view.get(kind::PODS, &key.namespace, &key.name) else {
            return plan;
        };
        let budgets = view.list(kind::DISRUPTION_BUDGETS, Within::Namespace(&key.namespace));
        let mut names: Vec<&str> = budgets
            .iter()
            .filter(|budget| selector(budget).is_some_and(|own| own.matches(&pod)))
            .map(|budget| object::name(budget))
            .collect();
        names.sort_unstable();
        if let [first, _, ..] = names.as_slice() {
            let message = format!(
                "Pod {:?}/{:?} matches multiple PodDisruptionBudgets.  Chose {first:?} arbitrarily.",
                key.namespace, key.name
            );
            let reason = "MultiplePodDisruptionBudgets";
            plan.then(Write::warning(kind::PODS, &pod, reason, message));
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Cluster, at};

    #[test]
    fn a_pod_of_two_budgets_is_told_of_and_one_of_one_is_not() {
        let mut cluster = Cluster::default();
        for (name, app) in [("b", "web"), ("a", "web"), ("c", "db")] {
            cluster.put(
                kind::DISRUPTION_BUDGETS,
                json!({"metadata": {"namespace": "n", "name": name},
                    "spec": {"selector": {"matchLabels": {"app": app}}}}),
            );
        }
        for (app, told) in [("web", true), ("db", false), ("none", false)] {
            let pod = json!({"metadata": {"namespace": "n", "name": app, "labels": {"app": app}}});
            let key = Key::of(&cluster.put(kind::PODS, pod));
            let plan = Overlaps.reconcile(&cluster, &key, at(0));
            let events: Vec<String> = plan
                .steps
                .iter()
                .flatten()
                .filter_map(|write| match write {
                    Write::Event(event) => Some(format!("{} {}", event.reason, event.message)),
                    _ => None,
                })
                .collect();
            let expected = "MultiplePodDisruptionBudgets Pod \"n\"/\"web\" matches multiple \
                            PodDisruptionBudgets.  Chose \"a\" arbitrarily.";
            let expected: Vec<&str> = told.then_some(expected).into_iter().collect();
            assert_eq!(events, expected, "{app}");
        }
    }
}
