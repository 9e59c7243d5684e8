//! Why a pod goes nowhere: per node, and in the sentence that users know.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::label_index::Slot;
use super::plugin::{Plugin, Plugins};

/// Why a node will not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Who says so.
    pub plugin: Plugin,
    /// Whether taking pods away could help.
    pub is_resolvable: bool,
    /// Whether something is wrong that is no matter of nodes: no other is looked at, and the
    /// pod is tried again after a while.
    pub is_failure: bool,
    /// Each counts on its own in the message.
    pub reasons: Vec<Cow<'static, str>>,
}

impl Rejection {
    /// Taking pods away could help.
    pub(super) fn resolvable(plugin: Plugin, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::of(plugin, true, reason.into())
    }

    /// Taking pods away does not help.
    pub(super) fn final_one(plugin: Plugin, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::of(plugin, false, reason.into())
    }

    /// Something is wrong.
    pub(super) fn failure(plugin: Plugin, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            is_failure: true,
            ..Self::final_one(plugin, reason)
        }
    }

    fn of(plugin: Plugin, is_resolvable: bool, reason: Cow<'static, str>) -> Self {
        Self {
            plugin,
            is_resolvable,
            is_failure: false,
            reasons: vec![reason],
        }
    }

    /// All that speaks against a node; `None`: nothing does.
    pub(super) fn of_all(
        plugin: Plugin,
        is_resolvable: bool,
        reasons: Vec<Cow<'static, str>>,
    ) -> Option<Self> {
        (!reasons.is_empty()).then_some(Self {
            plugin,
            is_resolvable,
            is_failure: false,
            reasons,
        })
    }
}

/// Why a pod goes nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unschedulable {
    /// How many nodes there are.
    pub all_nodes: usize,
    /// Why none was looked at.
    pub before: Option<Rejection>,
    /// Why each node that was looked at will not do.
    pub nodes: Vec<(Slot, Rejection)>,
    /// Why the others were not looked at.
    pub others: Option<String>,
    /// Plugins that kept nodes from being looked at.
    pub narrowed_by: Plugins,
    /// What went wrong, where that ended the search.
    pub failed: Option<Box<str>>,
    /// A claim on devices that may lose them, so that the pod gets others elsewhere.
    pub to_free: Option<Arc<Value>>,
}

impl Unschedulable {
    /// Everybody who stood in the way: what has to change for the pod to be tried again.
    pub fn plugins(&self) -> Plugins {
        let nodes = self.nodes.iter().map(|(_, own)| own.plugin);
        let all = nodes.chain(self.before.iter().map(|own| own.plugin));
        all.chain(self.narrowed_by.iter()).collect()
    }

    /// The message of the condition and of the event; `after` is what taking pods away
    /// came to, empty for nothing.
    pub fn message(&self, after: &str) -> String {
        if self.all_nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut message = format!("0/{} nodes are available:", self.all_nodes);
        let reasons = match &self.before {
            Some(before) => before.reasons.join(", "),
            None => self.histogram().join(", "),
        };
        if !reasons.is_empty() {
            message.push_str(&format!(" {reasons}."));
        }
        if !after.is_empty() {
            message.push_str(&format!(" {after}"));
        }
        message
    }

    /// Each reason with the number of nodes, as the reference sorts them: as text.
    fn histogram(&self) -> Vec<String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let reasons = self.nodes.iter().flat_map(|(_, own)| &own.reasons);
        for reason in reasons {
            *counts.entry(reason).or_default() += 1;
        }
        let absent = self.all_nodes.saturating_sub(self.nodes.len());
        if let Some(others) = self.others.as_deref().filter(|_| absent > 0) {
            *counts.entry(others).or_default() += absent;
        }
        let counts = counts.into_iter();
        let mut texts: Vec<String> = counts.map(|(own, n)| format!("{n} {own}")).collect();
        texts.sort();
        texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_counts_reasons_in_the_order_of_their_text() {
        let lacks = vec!["Insufficient cpu".into(), "Too many pods".into()];
        let fit = Rejection::of_all(Plugin::NodeResourcesFit, true, lacks);
        let fit = fit.expect("there are reasons");
        let taint =
            Rejection::final_one(Plugin::TaintToleration, "node(s) had untolerated taint(s)");
        let mut nodes: Vec<(Slot, Rejection)> = (0..10).map(|slot| (slot, fit.clone())).collect();
        nodes.push((10, taint));
        let mut unschedulable = Unschedulable {
            all_nodes: 12,
            nodes,
            others: Some("node(s) didn't satisfy plugin(s) [NodeAffinity]".into()),
            ..Unschedulable::default()
        };
        assert_eq!(
            unschedulable.message("preemption: no"),
            "0/12 nodes are available: 1 node(s) didn't satisfy plugin(s) [NodeAffinity], \
             1 node(s) had untolerated taint(s), 10 Insufficient cpu, 10 Too many pods. \
             preemption: no"
        );
        unschedulable.before = Some(Rejection::final_one(Plugin::NodeAffinity, "they conflict"));
        assert_eq!(
            unschedulable.message(""),
            "0/12 nodes are available: they conflict."
        );
        assert_eq!(
            Unschedulable::default().message(""),
            "no nodes available to schedule pods"
        );
    }
}
