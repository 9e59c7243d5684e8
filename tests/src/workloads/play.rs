//! Plays a scenario: takes its steps and reads what came of them.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use super::cluster::{Cluster, items, items_of};
use super::end_state::{difference, end_state};
use super::scenario::{Scenario, Step};
use crate::kubectl::words;

/// Kinds of objects in namespaces that are compared: where they are served.
const KINDS: [(&str, &str, &str); 17] = [
    ("api/v1", "pods", "Pod"),
    ("api/v1", "services", "Service"),
    ("api/v1", "endpoints", "Endpoints"),
    ("api/v1", "persistentvolumeclaims", "PersistentVolumeClaim"),
    ("api/v1", "resourcequotas", "ResourceQuota"),
    ("api/v1", "replicationcontrollers", "ReplicationController"),
    ("apis/apps/v1", "deployments", "Deployment"),
    ("apis/apps/v1", "replicasets", "ReplicaSet"),
    ("apis/apps/v1", "statefulsets", "StatefulSet"),
    ("apis/apps/v1", "daemonsets", "DaemonSet"),
    ("apis/apps/v1", "controllerrevisions", "ControllerRevision"),
    ("apis/batch/v1", "jobs", "Job"),
    ("apis/batch/v1", "cronjobs", "CronJob"),
    (
        "apis/discovery.k8s.io/v1",
        "endpointslices",
        "EndpointSlice",
    ),
    (
        "apis/policy/v1",
        "poddisruptionbudgets",
        "PodDisruptionBudget",
    ),
    (
        "apis/autoscaling/v2",
        "horizontalpodautoscalers",
        "HorizontalPodAutoscaler",
    ),
    ("apis/resource.k8s.io/v1", "resourceclaims", "ResourceClaim"),
];

/// Kinds outside of namespaces that are compared when the scenario has made them.
const CLUSTER_KINDS: [(&str, &str); 3] = [
    ("nodes", "Node"),
    ("persistentvolumes", "PersistentVolume"),
    ("namespaces", "Namespace"),
];

/// Kinds outside of namespaces that scenarios make and nobody compares.
const OUTSIDE: [&str; 5] = [
    "StorageClass",
    "PriorityClass",
    "DeviceClass",
    "ResourceSlice",
    "DeviceTaintRule",
];

/// Reasons of events that come or not, as it happens.
const CHANCE: [&str; 3] = ["FailedScheduling", "NodeNotReady", "RegisteredNode"];

/// How long a cluster may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often it is looked at.
const GLANCE: Duration = Duration::from_millis(300);

/// Scenarios that are played at a time.
const AT_A_TIME: usize = 6;

/// Plays scenarios: first those that mind no others, some at a time, then the others one
/// after the other. Returns what went wrong.
pub fn each<'a>(
    scenarios: &'a [Scenario],
    play: impl Fn(&'a Scenario) -> Result<()> + Sync,
) -> Vec<String> {
    let failures = Mutex::new(Vec::new());
    let one = |scenario: &'a Scenario| {
        if let Err(error) = play(scenario) {
            let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.push(format!("{}: {error:#}", scenario.name));
        }
    };
    let (alone, together): (Vec<_>, Vec<_>) = scenarios.iter().partition(|scenario| scenario.alone);
    let next = Mutex::new(together.into_iter());
    let take = || next.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(scenario) = take() {
                    one(scenario);
                }
            });
        }
    });
    alone.into_iter().for_each(one);
    failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
}

/// What came of a scenario.
#[derive(Debug, Default, PartialEq, Deserialize)]
pub struct Played {
    /// The state after each step.
    pub steps: Vec<Value>,
    /// Which events there were: `Kind Reason`.
    pub events: Vec<String>,
}

impl Played {
    /// JSON with a line for each object, so that changes read well.
    pub fn text(&self) -> String {
        let steps = self.steps.iter().map(|state| {
            let objects: Vec<String> = items_of(state).map(Value::to_string).collect();
            format!("  [\n    {}\n  ]", objects.join(",\n    "))
        });
        let steps = steps.collect::<Vec<_>>().join(",\n");
        format!(
            "{{\"steps\": [\n{steps}\n], \"events\": {}}}\n",
            json!(self.events)
        )
    }
}

/// A scenario under way.
pub struct Player<'a> {
    cluster: &'a Cluster,
    scenario: &'a Scenario,
    /// Its own namespace, and those that it has made.
    namespaces: Vec<String>,
    /// Objects outside of namespaces that it has made: kind and name.
    made: Vec<(String, String)>,
}

impl<'a> Player<'a> {
    /// Makes the scenario's namespace.
    ///
    /// # Errors
    /// When the cluster refuses, or makes no service account there.
    pub fn new(cluster: &'a Cluster, scenario: &'a Scenario) -> Result<Self> {
        let namespace = scenario.namespace();
        cluster.kubectl(&["create", "namespace", &namespace], "")?;
        let account = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
        let mut player = Self {
            cluster,
            scenario,
            namespaces: vec![namespace],
            made: Vec::new(),
        };
        player.until("a service account", |_| cluster.get(&account).map(|_| true))?;
        Ok(player)
    }

    /// Takes a step.
    ///
    /// # Errors
    /// When the cluster refuses it.
    pub fn take(&mut self, step: &Step) -> Result<()> {
        std::thread::sleep(Duration::from_secs(step.after_s));
        let own = self.scenario.namespace();
        if !step.create.is_empty() {
            let mut objects = step.create.clone();
            for object in &mut objects {
                let outside = self.note(object);
                let namespace = &mut object["metadata"]["namespace"];
                if !outside && namespace.is_null() {
                    *namespace = own.clone().into();
                }
            }
            let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
            let line = ["create", "-f", "-"];
            self.cluster.kubectl(&line, &list.to_string())?;
        }
        for line in &step.kubectl {
            let words = words(line);
            let mut line = vec!["--namespace", &own];
            line.extend(words.iter().map(String::as_str));
            self.cluster.kubectl(&line, "")?;
        }
        Ok(())
    }

    /// Remembers an object that stands outside of namespaces; says whether it does.
    fn note(&mut self, object: &Value) -> bool {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
        let compared = CLUSTER_KINDS.iter().any(|(_, own)| *own == kind);
        let outside = compared || OUTSIDE.contains(&kind.as_str());
        if kind == "Namespace" {
            self.namespaces.push(name.clone());
        }
        if outside {
            self.made.push((kind, name));
        }
        outside
    }

    /// What the cluster holds of the scenario.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn state(&self) -> Result<Value> {
        let mut objects = Vec::new();
        for namespace in &self.namespaces {
            for (root, plural, kind) in KINDS {
                let path = format!("/{root}/namespaces/{namespace}/{plural}");
                let list = self.cluster.get(&path)?;
                objects.extend(items(&list).map(|object| of_kind(object, kind)));
            }
        }
        let nodes = self.cluster.get("/api/v1/nodes")?;
        let nodes: Vec<Value> = items(&nodes).cloned().collect();
        for (plural, kind) in CLUSTER_KINDS {
            if !self.made.iter().any(|(own, _)| own == kind) {
                continue;
            }
            let list = self.cluster.get(&format!("/api/v1/{plural}"))?;
            let made = items(&list).filter(|object| {
                let mut made = self.made.iter();
                made.any(|(own, name)| own == kind && object["metadata"]["name"] == **name)
            });
            objects.extend(made.map(|object| of_kind(object, kind)));
        }
        let own = self.scenario.namespace();
        Ok(end_state(&objects, &nodes, &own, &self.scenario.placement))
    }

    /// Which events there are.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn events(&self) -> Result<Vec<String>> {
        let path = format!("/api/v1/namespaces/{}/events", self.namespaces[0]);
        let list = self.cluster.get(&path)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut events: Vec<String> = items(&list)
            .map(|event| {
                (
                    text(&event["involvedObject"]["kind"]),
                    text(&event["reason"]),
                )
            })
            .filter(|(_, reason)| !CHANCE.contains(&reason.as_str()))
            .map(|(kind, reason)| format!("{kind} {reason}"))
            .filter(|event| !self.scenario.either.contains(event))
            .collect();
        events.sort();
        events.dedup();
        Ok(events)
    }

    /// Takes every step and records what the cluster comes to rest at after each.
    ///
    /// # Errors
    /// When the cluster refuses a step or does not come to rest.
    pub fn record(&mut self) -> Result<Played> {
        let mut played = Played::default();
        for (at, step) in self.scenario.steps.iter().enumerate() {
            self.take(step).with_context(|| format!("step {at}"))?;
            let rest = Duration::from_secs(step.rest_s);
            let mut last = (self.state()?, Instant::now());
            self.until("rest", |player| {
                let state = player.state()?;
                if state != last.0 {
                    last = (state, Instant::now());
                }
                Ok(last.1.elapsed() >= rest)
            })?;
            played.steps.push(last.0);
        }
        played.events = self.events()?;
        Ok(played)
    }

    /// Takes every step, each once what is expected has come of the one before;
    /// `meanwhile` is called right after each.
    ///
    /// # Errors
    /// When the cluster refuses a step, or something else comes of it than is expected:
    /// what differs.
    pub fn repeat(&mut self, expected: &Played, meanwhile: impl Fn(usize)) -> Result<()> {
        if expected.steps.len() != self.scenario.steps.len() {
            bail!("recorded with other steps: run `make workloads-golden`");
        }
        for (at, step) in self.scenario.steps.iter().enumerate() {
            self.take(step).with_context(|| format!("step {at}"))?;
            meanwhile(at);
            let mut last = Vec::new();
            let came = self.until("the reference's state", |player| {
                last = difference(&expected.steps[at], &player.state()?);
                Ok(last.is_empty())
            });
            came.with_context(|| format!("after step {at}:\n  {}", last.join("\n  ")))?;
        }
        let mut events = Vec::new();
        let came = self.until("the reference's events", |player| {
            events = player.events()?;
            Ok(events == expected.events)
        });
        came.with_context(|| format!("events {events:?}, expected {:?}", expected.events))
    }

    /// Ends the scenario: everything that it has made goes. Waits for that if it was alone.
    ///
    /// # Errors
    /// When something does not go.
    pub fn end(mut self) -> Result<()> {
        let own = self.namespaces[0].clone();
        self.made.push(("Namespace".to_owned(), own));
        for (kind, name) in self.made.iter().rev() {
            let line = ["delete", kind, name, "--wait=false", "--ignore-not-found"];
            self.cluster.kubectl(&line, "")?;
        }
        if !self.scenario.alone {
            return Ok(());
        }
        for namespace in self.namespaces.clone() {
            let line = ["delete", "pods", "--all", "--force", "--grace-period=0"];
            let line = [&line[..], &["--wait=false", "--namespace", &namespace]].concat();
            self.cluster.kubectl(&line, "")?;
        }
        self.until("the scenario's end", |player| {
            let list = player.cluster.get("/api/v1/namespaces")?;
            let left = items(&list).filter_map(|own| own["metadata"]["name"].as_str());
            Ok(!left
                .into_iter()
                .any(|name| player.namespaces.iter().any(|own| own == name)))
        })
    }

    /// Looks until something holds. A cluster that does not answer is asked again.
    fn until(&mut self, awaited: &str, mut holds: impl FnMut(&Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = holds(self);
            if matches!(seen, Ok(true)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                seen?;
                bail!("{}: waited {PATIENCE:?} for {awaited}", self.scenario.name);
            }
            std::thread::sleep(GLANCE);
        }
    }
}

fn of_kind(object: &Value, kind: &str) -> Value {
    let mut object = object.clone();
    object["kind"] = kind.into();
    object
}
