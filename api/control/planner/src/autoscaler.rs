//! Horizontal pod autoscaling: the replicas of any kind that has a scale, by what its pods,
//! other objects or the world outside measure.
//!
//! Source: the algorithm documented for HorizontalPodAutoscaler v2; KEP-853 (behaviour),
//! KEP-1610 (resources of containers), KEP-2021 (down to zero), KEP-4951 (tolerances).
//!
//! Invariants
//! - What is remembered ([`memory`]) only slows down what the measurements ask for: a new
//!   leader remembers the replicas that it found, and takes none away before the window of
//!   stabilisation is over.
//! - An autoscaler is looked at every [`PERIOD`], and when its spec changes; not when its
//!   own status does.

mod behaviour;
mod look;
mod measure;
mod memory;
mod metric;
mod replicas;
#[cfg(test)]
mod tests;

use std::time::Duration;

use nautilus_machinery::timestamp::Instant;

use crate::controller::{Change, Controller};
use crate::kind::{AUTOSCALERS, Kind, PODS};
use crate::plan::{Failed, Plan, Write};
use crate::view::{Key, Question, View};
use look::{Look, Status};
use memory::Memories;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(15);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Autoscalers {
    memories: Memories,
}

impl Controller for Autoscalers {
    fn name(&self) -> &'static str {
        "horizontal-pod-autoscaler"
    }

    fn follows(&self) -> &'static [Kind] {
        &[AUTOSCALERS, PODS]
    }

    fn concerns(&self, _: &dyn View, change: &Change, keys: &mut Vec<Key>) {
        if change.kind != AUTOSCALERS {
            return;
        }
        let [before, after] = [&change.before, &change.after].map(|own| own.as_deref());
        let spec = |own: Option<&serde_json::Value>| own.map(|own| own["spec"].clone());
        if spec(before) != spec(after) {
            keys.push(Key::of(change.object()));
        }
    }

    fn asks(&self, view: &dyn View, key: &Key) -> Vec<Question> {
        let scaler = view.get(AUTOSCALERS, &key.namespace, &key.name);
        scaler.map_or_else(Vec::new, |scaler| measure::questions(view, &scaler))
    }

    fn reconcile(&self, view: &dyn View, key: &Key, now: Instant) -> Plan {
        let mut plan = Plan::default();
        let Some(scaler) = view.get(AUTOSCALERS, &key.namespace, &key.name) else {
            self.memories.forget(key);
            return plan;
        };
        self.memories.with(key, |memory, others| {
            Look::of(view, &scaler, now, memory).plan(others, &mut plan);
        });
        plan.again(PERIOD);
        plan
    }

    fn report(&self, view: &dyn View, key: &Key, now: Instant, failed: &Failed) -> Plan {
        let mut told = Plan::default();
        let (Write::Scale { scale, .. }, Some(scaler)) = (
            &failed.write,
            view.get(AUTOSCALERS, &key.namespace, &key.name),
        ) else {
            return told;
        };
        let reason = self.memories.with(key, |memory, _| memory.take_back());
        let (size, why) = (&scale["spec"]["replicas"], &failed.message);
        let message = format!("New size: {size}; reason: {reason}; error: {why}");
        told.then(Write::warning(
            AUTOSCALERS,
            &scaler,
            "FailedRescale",
            message,
        ));
        let mut status = Status::of(&scaler, now);
        let why = format!("the HPA controller was unable to update the target scale: {why}");
        status.condition("AbleToScale", "False", "FailedUpdateScale", &why);
        status.write(&scaler, &mut told);
        told
    }
}
