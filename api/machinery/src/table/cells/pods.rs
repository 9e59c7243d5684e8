//! Pods: what their containers do, in a word.

use serde_json::{Value, json};

use super::*;

/// Pods.
pub fn pod(pod: &Value, now: i64) -> Vec<Value> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let summary = PodSummary::of(pod);
    let restarts = match (summary.restarts, &summary.last_restart) {
        (0, _) | (_, None) => summary.restarts.to_string(),
        (restarts, Some(time)) => format!("{restarts} ({} ago)", since(&json!(time), now)),
    };
    let gates = list(&spec["readinessGates"]);
    let passed = gates
        .iter()
        .filter(|gate| has_condition(status, text(gate, "conditionType")));
    let gates = match gates.len() {
        0 => NONE.to_owned(),
        all => format!("{}/{all}", passed.count()),
    };
    vec![
        name(pod),
        json!(format!("{}/{}", summary.ready, summary.total)),
        json!(summary.reason),
        json!(restarts),
        age(pod, now),
        json!(or(
            status["podIPs"][0]["ip"].as_str().unwrap_or_default(),
            NONE
        )),
        json!(or(text(spec, "nodeName"), NONE)),
        json!(or(text(status, "nominatedNodeName"), NONE)),
        json!(gates),
    ]
}

#[derive(Default)]
struct PodSummary {
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<String>,
    reason: String,
}

impl PodSummary {
    fn of(pod: &Value) -> Self {
        let (spec, status) = (&pod["spec"], &pod["status"]);
        let phase = text(status, "phase");
        let mut summary = Self {
            total: list(&spec["containers"]).len()
                + list(&spec["initContainers"])
                    .iter()
                    .filter(|c| is_sidecar(c))
                    .count(),
            reason: or(text(status, "reason"), phase).to_owned(),
            ..Self::default()
        };
        let gated = list(&status["conditions"])
            .iter()
            .any(|own| own["type"] == "PodScheduled" && own["reason"] == "SchedulingGated");
        if gated {
            summary.reason = "SchedulingGated".to_owned();
        }
        let (initializing, sidecars) = summary.initial(spec, status);
        if !initializing || has_condition(status, "Initialized") {
            summary.restarts = sidecars.restarts;
            summary.last_restart = sidecars.last_restart;
            summary.main(status);
        }
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            if text(status, "reason") == "NodeLost" {
                summary.reason = "Unknown".to_owned();
            } else if !matches!(phase, "Failed" | "Succeeded") {
                summary.reason = "Terminating".to_owned();
            }
        }
        summary
    }

    fn count_restarts(&mut self, container: &Value) {
        self.restarts += container["restartCount"].as_i64().unwrap_or(0);
        let finished = container["lastState"]["terminated"]["finishedAt"].as_str();
        if let Some(finished) = finished
            && self
                .last_restart
                .as_deref()
                .is_none_or(|own| own < finished)
        {
            self.last_restart = Some(finished.to_owned());
        }
    }

    /// The init containers: whether they are still at work, and what the
    /// restartable ones among them count.
    fn initial(&mut self, spec: &Value, status: &Value) -> (bool, Self) {
        let mut sidecars = Self::default();
        let containers = list(&spec["initContainers"]);
        for (at, container) in list(&status["initContainerStatuses"]).iter().enumerate() {
            self.count_restarts(container);
            let own = containers.iter().find(|c| c["name"] == container["name"]);
            let sidecar = own.is_some_and(is_sidecar);
            if sidecar {
                sidecars.count_restarts(container);
            }
            let (terminated, waiting) = (
                &container["state"]["terminated"],
                text(&container["state"]["waiting"], "reason"),
            );
            if !terminated.is_null() && terminated["exitCode"].as_i64().unwrap_or(0) == 0 {
                continue;
            }
            if sidecar && container["started"] == true {
                self.ready += usize::from(container["ready"] == true);
                continue;
            }
            self.reason = if !terminated.is_null() {
                format!("Init:{}", end_of(terminated))
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{at}/{}", containers.len())
            };
            return (true, sidecars);
        }
        (false, sidecars)
    }

    fn main(&mut self, status: &Value) {
        let (mut running, mut failure) = (false, String::new());
        for container in list(&status["containerStatuses"]).iter().rev() {
            self.count_restarts(container);
            let state = &container["state"];
            let waiting = text(&state["waiting"], "reason");
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.reason);
            } else if !state["terminated"].is_null() {
                self.reason = end_of(&state["terminated"]);
                if state["terminated"]["exitCode"].as_i64().unwrap_or(0) != 0 {
                    failure.clone_from(&self.reason);
                }
            } else if container["ready"] == true && !state["running"].is_null() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" {
            if running && has_condition(status, "Ready") {
                self.reason = "Running".to_owned();
            } else if !failure.is_empty() {
                self.reason = failure;
            } else if running {
                self.reason = "NotReady".to_owned();
            }
        }
    }
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn end_of(terminated: &Value) -> String {
    let reason = text(terminated, "reason");
    if !reason.is_empty() {
        return reason.to_owned();
    }
    match terminated["signal"].as_i64().unwrap_or(0) {
        0 => format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or(0)),
        signal => format!("Signal:{signal}"),
    }
}
