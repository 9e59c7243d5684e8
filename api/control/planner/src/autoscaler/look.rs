//! One look at an autoscaler: its target's scale, what its metrics propose, what is allowed
//! of that, and what its status says of it.

use std::sync::Arc;

use nautilus_machinery::selector::LabelSelector;
use nautilus_machinery::timestamp::Instant;
use serde_json::{Map, Value, json};

use super::behaviour::{self, Asked};
use super::measure::Source;
use super::memory::{Memory, Selectors};
use super::metric;
use super::replicas::{Measured, Tolerance};
use crate::kind::{AUTOSCALERS, PODS};
use crate::object;
use crate::plan::{Plan, Write};
use crate::view::{Key, Question, Target, View, Within};

/// What an autoscaler scales.
pub(super) fn target(scaler: &Value) -> Target {
    let own = &scaler["spec"]["scaleTargetRef"];
    let text = |field: &str| own[field].as_str().unwrap_or_default().to_owned();
    Target {
        api_version: text("apiVersion"),
        kind: text("kind"),
        namespace: object::namespace(scaler).to_owned(),
        name: text("name"),
    }
}

/// The status as it shall be.
pub(super) struct Status {
    own: Value,
    now: Instant,
}

impl Status {
    pub(super) fn of(scaler: &Value, now: Instant) -> Self {
        let own = match scaler["status"].is_object() {
            true => scaler["status"].clone(),
            false => json!({}),
        };
        Self { own, now }
    }

    pub(super) fn condition(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let condition = json!({
            "type": kind,
            "status": status,
            "lastTransitionTime": object::time_field(self.now),
            "reason": reason,
            "message": message,
        });
        nautilus_machinery::conditions::set(&mut self.own, &condition);
    }

    /// The replicas there are and shall be, and what the metrics say.
    fn counts(&mut self, scaler: &Value, current: i64, desired: i64, metrics: Vec<Value>) {
        self.own["currentReplicas"] = current.into();
        self.own["desiredReplicas"] = desired.into();
        self.own["currentMetrics"] = metrics.into();
        self.own["observedGeneration"] = scaler["metadata"]["generation"].clone();
    }

    /// Writes the status if it says anything new.
    pub(super) fn write(self, scaler: &Value, plan: &mut Plan) {
        let status = said(&self.own);
        if status == said(&scaler["status"]) {
            return;
        }
        let mut object = object::identity(scaler);
        object["status"] = status;
        object["status"]["desiredReplicas"] =
            self.own["desiredReplicas"].as_i64().unwrap_or(0).into();
        plan.then(Write::status(AUTOSCALERS, object));
    }
}

/// The fields that say something: no nulls, zeros, and nothing empty.
fn said(status: &Value) -> Value {
    let says = |value: &Value| match value {
        Value::Null => false,
        Value::Number(number) => number.as_i64() != Some(0),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    };
    let fields = status.as_object().into_iter().flatten();
    let fields = fields.filter(|(_, value)| says(value));
    let fields: Map<String, Value> = fields
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    Value::Object(fields)
}

/// What one look sees.
pub(super) struct Look<'a> {
    view: &'a dyn View,
    scaler: &'a Value,
    now: Instant,
    memory: &'a mut Memory,
    status: Status,
    events: Vec<Write>,
}

/// What all metrics together propose.
struct Proposed {
    replicas: i64,
    /// The metric that asks for most.
    by: String,
}

impl<'a> Look<'a> {
    pub(super) fn of(
        view: &'a dyn View,
        scaler: &'a Value,
        now: Instant,
        memory: &'a mut Memory,
    ) -> Self {
        Self {
            view,
            scaler,
            now,
            memory,
            status: Status::of(scaler, now),
            events: Vec::new(),
        }
    }

    fn warn(&mut self, reason: &'static str, message: String) {
        let event = Write::warning(AUTOSCALERS, self.scaler, reason, message);
        self.events.push(event);
    }

    pub(super) fn plan(mut self, others: Selectors, plan: &mut Plan) {
        let scale = match self.view.answer(&Question::Scale(target(self.scaler))) {
            Some(Ok(scale)) => scale,
            Some(Err((_, why))) => {
                self.warn("FailedGetScale", why.clone());
                let why = format!(
                    "the HPA controller was unable to get the target's current scale: {why}"
                );
                let status = &mut self.status;
                status.condition("AbleToScale", "False", "FailedGetScale", &why);
                return self.finish(plan);
            }
            None => return,
        };
        let message = "the HPA controller was able to get the target's current scale";
        let status = &mut self.status;
        status.condition("AbleToScale", "True", "SucceededGetScale", message);
        self.scale(scale, others, plan);
    }

    fn finish(self, plan: &mut Plan) {
        self.status.write(self.scaler, plan);
        plan.together(self.events);
    }

    /// Compares the replicas that there shall be with those that should be.
    fn scale(mut self, scale: &Value, others: Selectors, plan: &mut Plan) {
        let spec = &self.scaler["spec"];
        let current = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        let least = spec["minReplicas"].as_i64().unwrap_or(1);
        let most = spec["maxReplicas"].as_i64().unwrap_or(0);
        self.memory.begin(self.now, current);
        let was_zeroed = object::is_true(self.scaler, "ScaledToZero");
        let may_be_zero = object::items(&spec["metrics"])
            .any(|own| own["type"] == "Object" || own["type"] == "External");
        let may_leave_zero = was_zeroed && (least != 0 || may_be_zero);
        let mut metrics = Vec::new();
        let (desired, reason) = if current == 0 && !may_leave_zero {
            let why = "scaling is disabled since the replica count of the target is zero";
            let status = &mut self.status;
            status.condition("ScalingActive", "False", "ScalingDisabled", why);
            (current, String::new())
        } else if current > most && current != 0 {
            (
                most,
                "Current number of replicas above Spec.MaxReplicas".to_owned(),
            )
        } else if current < least && current != 0 {
            (
                least,
                "Current number of replicas below Spec.MinReplicas".to_owned(),
            )
        } else {
            let proposed = match self.proposed(scale, others, &mut metrics) {
                Ok(proposed) => proposed,
                Err(why) => {
                    let desired = self.status.own["desiredReplicas"].as_i64().unwrap_or(0);
                    self.status.counts(self.scaler, current, desired, metrics);
                    self.warn("FailedComputeMetricsReplicas", why);
                    return self.finish(plan);
                }
            };
            let mut reason = match proposed.replicas {
                more if more > current => format!("{} above target", proposed.by),
                less if less < current => "All metrics below target".to_owned(),
                _ => String::new(),
            };
            let mut desired = self.allowed(&Asked {
                current,
                desired: proposed.replicas.max(0),
                least,
                most,
            });
            if current == 0 && desired < least {
                desired = least;
                if reason.is_empty() {
                    "Current number of replicas below Spec.MinReplicas".clone_into(&mut reason);
                }
            }
            (desired, reason)
        };
        if desired != current {
            self.change(scale, desired, &reason, plan);
            let is_zeroed = desired == 0 && least == 0 && may_be_zero;
            let (status, reason, message) = match is_zeroed {
                true => (
                    "True",
                    "ScaledToZero",
                    "the HPA controller scaled the workload to zero",
                ),
                false => (
                    "False",
                    "NotScaledToZero",
                    "the HPA controller did not scale the workload to zero",
                ),
            };
            self.status
                .condition("ScaledToZero", status, reason, message);
            self.status.own["lastScaleTime"] = object::time_field(self.now);
        }
        self.status.counts(self.scaler, current, desired, metrics);
        self.finish(plan);
    }

    fn change(&mut self, scale: &Value, desired: i64, reason: &str, plan: &mut Plan) {
        let current = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        let mut scale = scale.clone();
        scale["spec"]["replicas"] = desired.into();
        let write = Write::Scale {
            target: target(self.scaler),
            scale,
        };
        let told = format!("New size: {desired}; reason: {reason}");
        plan.then(write.told(AUTOSCALERS, self.scaler, "SuccessfulRescale", told));
        self.memory.change(self.now, current, desired, reason);
        let message =
            format!("the HPA controller was able to update the target scale to {desired}");
        let status = &mut self.status;
        status.condition("AbleToScale", "True", "SucceededRescale", &message);
    }

    fn allowed(&mut self, asked: &Asked) -> i64 {
        let behaviour = &self.scaler["spec"]["behavior"];
        let allowed = behaviour::allow(behaviour, asked, self.memory, self.now);
        let (reason, message) = allowed.able;
        self.status
            .condition("AbleToScale", "True", reason, message);
        let (is_limited, reason, message) = allowed.limited;
        let limited = if is_limited { "True" } else { "False" };
        self.status
            .condition("ScalingLimited", limited, reason, message);
        allowed.replicas
    }

    /// The most that any metric asks for; unless those that are unknown might have asked for
    /// more than there is.
    fn proposed(
        &mut self,
        scale: &Value,
        others: Selectors,
        statuses: &mut Vec<Value>,
    ) -> Result<Proposed, String> {
        let pods = self.pods(scale, others)?;
        let pods: Vec<&Value> = pods.iter().map(|pod| &**pod).collect();
        let current = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        let there = scale["status"]["replicas"].as_i64().unwrap_or(0);
        let measured = Measured {
            current,
            tolerance: Tolerance::of(&self.scaler["spec"]["behavior"]),
            now: self.now,
            pods: &pods,
        };
        let source = Source {
            view: self.view,
            scaler: self.scaler,
            selector: scale["status"]["selector"].as_str().unwrap_or_default(),
        };
        let metrics: Vec<&Value> = object::items(&self.scaler["spec"]["metrics"]).collect();
        let (mut most, mut unknown) = (None::<Proposed>, Vec::new());
        for metric in &metrics {
            match metric::read(metric, source, &measured, there) {
                Ok(found) => {
                    statuses.push(found.status);
                    if most
                        .as_ref()
                        .is_none_or(|own| found.replicas > own.replicas)
                    {
                        most = Some(Proposed {
                            replicas: found.replicas,
                            by: found.name,
                        });
                    }
                }
                Err(why) => {
                    statuses.push(json!({"type": ""}));
                    self.warn(why.reason, why.why.clone());
                    unknown.push(why);
                }
            }
        }
        let is_less = most.as_ref().is_none_or(|own| own.replicas < current);
        if let Some(first) = unknown.first()
            && is_less
        {
            let why = format!(
                "the HPA was unable to compute the replica count: {}",
                first.why
            );
            let status = &mut self.status;
            status.condition("ScalingActive", "False", first.reason, &why);
            let (bad, all) = (unknown.len(), metrics.len());
            let first = &first.context;
            return Err(format!(
                "invalid metrics ({bad} invalid out of {all}), first error is: {first}"
            ));
        }
        let most = most.unwrap_or(Proposed {
            replicas: 0,
            by: String::new(),
        });
        let message = format!(
            "the HPA was able to successfully calculate a replica count from {}",
            most.by
        );
        let status = &mut self.status;
        status.condition("ScalingActive", "True", "ValidMetricFound", &message);
        Ok(most)
    }

    /// The pods of the target, which no other autoscaler may have.
    fn pods(&mut self, scale: &Value, others: Selectors) -> Result<Vec<Arc<Value>>, String> {
        let text = scale["status"]["selector"].as_str().unwrap_or_default();
        let invalid = |own: &mut Self, event: &'static str, why: &str, message: String| {
            own.warn(event, why.to_owned());
            let reason = if event == "AmbiguousSelector" {
                event
            } else {
                "InvalidSelector"
            };
            own.status
                .condition("ScalingActive", "False", reason, &message);
            Err(why.to_owned())
        };
        if text.is_empty() {
            let message = "the HPA target's scale is missing a selector".to_owned();
            return invalid(self, "SelectorRequired", "selector is required", message);
        }
        let selector = match LabelSelector::parse(text) {
            Ok(selector) => selector,
            Err(error) => {
                let why = format!(
                    "couldn't convert selector into a corresponding internal selector object: {error}"
                );
                return invalid(self, "InvalidSelector", &why, why.clone());
            }
        };
        self.memory.selector = Some(selector.clone());
        let namespace = object::namespace(self.scaler);
        let mut pods = self.view.list(PODS, Within::Namespace(namespace));
        pods.retain(|pod| selector.matches(pod));
        let own = Key::of(self.scaler);
        let selects = |other: &LabelSelector| pods.iter().any(|pod| other.matches(pod));
        let mut several: Vec<Key> = others
            .into_iter()
            .filter_map(|(key, other)| selects(&other).then_some(key))
            .collect();
        if !several.is_empty() {
            several.truncate(1);
            several.push(own);
            several.sort();
            let names: Vec<String> = several.iter().map(Key::to_string).collect();
            let names = names.join(" ");
            let why = format!(
                "pods by selector {text} are controlled by more than one HPA (e.g. [{names}])"
            );
            return invalid(self, "AmbiguousSelector", &why, why.clone());
        }
        Ok(pods)
    }
}
