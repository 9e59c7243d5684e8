//! The whole decision for a pod as a document: what each node was turned away by, and what
//! each rule says of those that will do.

use serde_json::{Value, json};

use super::decide::Scheduler;
use super::pod::PodInfo;
use super::rejection::{Rejection, Unschedulable};
use super::search::{self, Explanation};
use crate::view::Key;

impl Scheduler {
    /// The decision for a pod as it would be now; `None`: neither waits it nor has it a node.
    /// A pod that has one is asked for as if it came once more.
    pub fn explain(&self, namespace: &str, name: &str) -> Option<Value> {
        let key = Key::new(namespace, name);
        let waiting = self.queue().waiting(&key);
        let placed = self.snapshot().placed_by_key(&key);
        let pod = match (&waiting, placed) {
            (_, Some((pod, _))) => pod,
            (Some(waiting), None) => waiting.pod,
            (None, None) => return None,
        };
        let (node, is_assumed) = match placed {
            Some((_, node)) => (Some(node), self.snapshot().is_assumed(&pod.uid)),
            None => (None, false),
        };
        let state = match (&waiting, node) {
            (_, Some(_)) if is_assumed => "Binding",
            (_, Some(_)) => "Bound",
            (Some(waiting), None) => waiting.state,
            (None, None) => return None,
        };
        let mut document = json!({
            "namespace": namespace,
            "name": name,
            "uid": pod.uid,
            "schedulerName": pod.scheduler_name,
            "priority": pod.priority,
            "state": state,
            "node": node,
            "nominatedNode": self.snapshot().nomination(&pod.uid),
        });
        if let Some(waiting) = waiting {
            document["attempts"] = waiting.attempts.into();
            let rejected = waiting.rejected.iter().map(|own| own.name());
            document["rejectedBy"] = rejected.collect();
            document["gates"] = pod.gates.iter().map(String::as_str).collect();
        }
        if let Some(profile) = self.profile_of(&pod.scheduler_name) {
            let asked = PodInfo {
                node_name: String::new(),
                ..(**pod).clone()
            };
            let explained = search::explain(self.snapshot(), &asked, profile);
            self.add_decision(&mut document, &explained);
        }
        Some(document)
    }

    fn add_decision(&self, document: &mut Value, explained: &Explanation) {
        let mut nodes = Vec::new();
        let mut best: Option<(i64, &str)> = None;
        for (at, verdict) in explained.verdicts.iter().enumerate() {
            nodes.push(match &verdict.rejection {
                Some(rejection) => {
                    let mut own = rejected(rejection);
                    own["node"] = verdict.node.as_str().into();
                    own["fits"] = false.into();
                    own
                }
                None => {
                    let mut total = 0;
                    let mut scores = json!({});
                    for own in &explained.scores {
                        let score = own.scores.get(at).copied().unwrap_or_default();
                        total += score * own.weight;
                        scores[own.plugin.name()] = json!({"score": score, "weight": own.weight});
                    }
                    if best.is_none_or(|(most, _)| total > most) {
                        best = Some((total, &verdict.node));
                    }
                    json!({"node": verdict.node, "fits": true, "total": total, "scores": scores})
                }
            });
        }
        if let Some((_, node)) = best {
            document["best"] = node.into();
        } else {
            let all_nodes = self.snapshot().len();
            let unschedulable = Unschedulable {
                all_nodes,
                before: explained.before.clone(),
                nodes: explained
                    .verdicts
                    .iter()
                    .filter_map(|own| {
                        let node = self.snapshot().node(&own.node)?;
                        Some((node.slot, own.rejection.clone()?))
                    })
                    .collect(),
                ..Unschedulable::default()
            };
            document["message"] = unschedulable.message("").into();
        }
        document["nodes"] = nodes.into();
    }
}

fn rejected(rejection: &Rejection) -> Value {
    let reasons: Vec<&str> = rejection.reasons.iter().map(|own| &**own).collect();
    json!({
        "plugin": rejection.plugin.name(),
        "reasons": reasons,
        "preemptionHelps": rejection.is_resolvable,
    })
}
