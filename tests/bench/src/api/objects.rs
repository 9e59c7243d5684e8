//! The objects of the load: a pod as a deployment makes it, what a kubelet reports of it,
//! a deployment that is applied, a lease that is renewed.

use serde_json::{Value, json};

use super::closed::{Ask, Asks};
use crate::keys::Random;

/// Nodes that the pods are on.
pub const NODES: usize = 200;
/// Deployments that are applied in turn.
const DEPLOYMENTS: usize = 500;
/// Versions of each of them.
const VERSIONS: usize = 4;
/// The name of the pods' owner.
const OWNER: &str = "service-0-056daa1378";
/// Different reports of a pod's status.
const REPORTS: usize = 997;
/// Leases that are renewed at random.
pub const LEASES: usize = 200;
/// The type of a body.
const JSON: &str = "application/json";
/// Where all of it is.
const NAMESPACE: &str = "/api/v1/namespaces/default";
const DEPLOYMENTS_PATH: &str = "/apis/apps/v1/namespaces/default/deployments";
const LEASES_PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";

fn container(name: &str) -> Value {
    json!({
        "name": name, "image": "registry.example.com/team/service:1.24.3", "imagePullPolicy": "IfNotPresent",
        "args": ["--listen=:8080", "--log-format=json", "--config=/etc/service/config.yaml"],
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}},
            {"name": "REGION", "value": "eu-central-1"},
        ],
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "resources": {"limits": {"cpu": "500m", "memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 10,
            "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/service", "readOnly": true}],
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
    })
}

/// Creates the owner of all pods: without one that exists, whoever collects garbage would
/// delete them while they are measured.
pub fn create_owner() -> Ask {
    let mut create = Ask::get("");
    to(
        &mut create,
        "POST",
        JSON,
        format_args!("/apis/apps/v1/namespaces/default/replicasets"),
    );
    let labels = json!({"app": OWNER});
    let owner = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": OWNER},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "service", "image": "registry.example.com/team/service:1.24.3"}]}}},
    });
    create.body = owner.to_string().into_bytes();
    create
}

/// The uid in the beginning of an object's JSON.
pub fn uid(answer: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(answer);
    let (_, rest) = text.split_once(r#""uid":""#)?;
    Some(rest.split_once('"')?.0.to_owned())
}

/// A pod of the owner with this uid, on a node.
pub fn pod(number: usize, owner: &str) -> Value {
    let hash = format!("{:010x}", (number / 20) * 2_654_435_761 % 0xff_ffff_ffff);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": pod_name(number), "namespace": "default",
            "labels": {"app": format!("service-{}", number / 20), "pod-template-hash": hash, "tier": "backend"},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": OWNER,
                "uid": owner, "controller": true, "blockOwnerDeletion": true}],
        },
        "spec": {
            "nodeName": format!("node-{}", number % NODES), "restartPolicy": "Always",
            "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
            "containers": [container("service"), container("sidecar")],
            "volumes": [{"name": "config", "configMap": {"name": "service-config", "defaultMode": 420}}],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
        },
    })
}

fn pod_name(number: usize) -> String {
    format!("service-{}-{number:06}", number / 20)
}

/// What a kubelet reports of a pod; no two reports are alike.
pub fn pod_status(report: usize) -> Value {
    let time = format!(
        "2026-01-01T{:02}:{:02}:{:02}Z",
        report / 3600 % 24,
        report / 60 % 60,
        report % 60
    );
    let started = |name: &str| {
        json!({"name": name, "ready": true, "started": true, "restartCount": report % 1000, "image": "registry.example.com/team/service:1.24.3",
            "imageID": "registry.example.com/team/service@sha256:9b2c", "containerID": format!("containerd://{report:064x}"),
            "state": {"running": {"startedAt": time}}})
    };
    let condition =
        |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": time});
    json!({"status": {
        "phase": "Running", "hostIP": "10.0.0.1", "podIP": format!("10.0.{}.{}", report / 250, report % 250),
        "startTime": "2026-01-01T00:00:00Z",
        "conditions": [condition("Ready"), condition("ContainersReady")],
        "containerStatuses": [started("service"), started("sidecar")],
    }})
}

fn deployment(number: usize, version: usize) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": format!("applied-{number}"), "labels": {"app": format!("applied-{number}")},
            "annotations": {"example.com/version": version.to_string()}},
        "spec": {
            "replicas": 3, "selector": {"matchLabels": {"app": format!("applied-{number}")}},
            "template": {
                "metadata": {"labels": {"app": format!("applied-{number}")}},
                "spec": {"containers": [container("service"), container("sidecar")],
                    "volumes": [{"name": "config", "configMap": {"name": "service-config", "defaultMode": 420}}]},
            },
        },
    })
}

/// A lease that a node renews.
pub fn lease(number: usize) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": format!("node-{number}")},
        "spec": {"holderIdentity": format!("node-{number}"), "leaseDurationSeconds": 40, "renewTime": "2026-01-01T00:00:00.000000Z"}})
}

/// Bodies made before they are needed: what the generator spends is missing to the servers.
#[derive(Debug, Clone)]
pub struct Bodies(Vec<Vec<u8>>);

impl Bodies {
    fn of(values: impl Iterator<Item = Value>) -> Self {
        Self(values.map(|value| value.to_string().into_bytes()).collect())
    }

    fn write(&self, at: usize, body: &mut Vec<u8>) {
        body.clear();
        body.extend_from_slice(&self.0[at % self.0.len()]);
    }
}

/// A number below `bound`.
fn pick(random: &mut Random, bound: usize) -> usize {
    usize::try_from(random.below(bound as u64)).expect("below a size")
}

/// Writes `path` into a request.
fn to(
    ask: &mut Ask,
    method: &'static str,
    content_type: &'static str,
    path: std::fmt::Arguments<'_>,
) {
    use std::fmt::Write as _;
    ask.method = method;
    ask.content_type = content_type;
    ask.body.clear();
    ask.path.clear();
    ask.path.write_fmt(path).expect("text in memory");
}

fn get(ask: &mut Ask, path: std::fmt::Arguments<'_>) {
    to(ask, "GET", JSON, path);
}

fn get_pod(ask: &mut Ask, number: usize) {
    get(
        ask,
        format_args!("{NAMESPACE}/pods/service-{}-{number:06}", number / 20),
    );
}

/// Creates objects, each once.
pub struct Create {
    path: &'static str,
    bodies: std::vec::IntoIter<Vec<u8>>,
}

impl Create {
    /// The pods of a range, of the owner with this uid.
    pub fn pods(range: std::ops::Range<usize>, owner: &str) -> Self {
        Self {
            path: "/api/v1/namespaces/default/pods",
            bodies: Bodies::of(range.map(|number| pod(number, owner)))
                .0
                .into_iter(),
        }
    }

    /// The leases.
    pub fn leases() -> Self {
        Self {
            path: LEASES_PATH,
            bodies: Bodies::of((0..LEASES).map(lease)).0.into_iter(),
        }
    }
}

impl Asks for Create {
    fn next(&mut self, _client: usize, ask: &mut Ask) -> bool {
        let Some(body) = self.bodies.next() else {
            return false;
        };
        to(ask, "POST", JSON, format_args!("{}", self.path));
        ask.body = body;
        true
    }
}

/// Reads pods at random.
pub struct GetPods {
    /// How many there are.
    pub pods: usize,
    /// Which.
    pub random: Random,
}

impl Asks for GetPods {
    fn next(&mut self, _client: usize, ask: &mut Ask) -> bool {
        get_pod(ask, pick(&mut self.random, self.pods));
        true
    }
}

/// Lists all pods, consistently.
pub struct ListPods;

impl Asks for ListPods {
    fn next(&mut self, _client: usize, ask: &mut Ask) -> bool {
        get(ask, format_args!("/api/v1/pods"));
        true
    }
}

/// Reports the status of pods at random.
pub struct PatchStatus {
    pods: usize,
    random: Random,
    reports: Bodies,
}

impl PatchStatus {
    /// Of so many pods.
    pub fn new(pods: usize, seed: u64) -> Self {
        Self {
            pods,
            random: Random::new(seed),
            reports: Bodies::of((0..REPORTS).map(pod_status)),
        }
    }

    fn write(&mut self, ask: &mut Ask) {
        let number = pick(&mut self.random, self.pods);
        let path = format_args!(
            "{NAMESPACE}/pods/service-{}-{number:06}/status",
            number / 20
        );
        to(ask, "PATCH", "application/strategic-merge-patch+json", path);
        self.reports
            .write(pick(&mut self.random, REPORTS), &mut ask.body);
    }
}

impl Asks for PatchStatus {
    fn next(&mut self, _client: usize, ask: &mut Ask) -> bool {
        self.write(ask);
        true
    }
}

/// Applies deployments in turn, each time with a change.
pub struct Apply {
    asked: usize,
    bodies: Bodies,
}

impl Default for Apply {
    fn default() -> Self {
        let all =
            (0..DEPLOYMENTS * VERSIONS).map(|at| deployment(at % DEPLOYMENTS, at / DEPLOYMENTS));
        Self {
            asked: 0,
            bodies: Bodies::of(all),
        }
    }
}

impl Asks for Apply {
    fn next(&mut self, _client: usize, ask: &mut Ask) -> bool {
        self.asked += 1;
        let number = self.asked % DEPLOYMENTS;
        let path =
            format_args!("{DEPLOYMENTS_PATH}/applied-{number}?fieldManager=bench&force=true");
        to(ask, "PATCH", "application/apply-patch+yaml", path);
        self.bodies.write(self.asked, &mut ask.body);
        true
    }
}

/// What a cluster asks: of a hundred requests 74 read a pod, 10 report a status, 10 renew a
/// lease, 5 create a small object, one lists the pods of a node.
pub struct Mixed {
    status: PatchStatus,
    /// Distinguishes what is created from what other runs created.
    run: u64,
    asked: u64,
}

impl Mixed {
    /// Over so many pods.
    pub fn new(pods: usize, run: u64) -> Self {
        Self {
            status: PatchStatus::new(pods, run),
            run,
            asked: 0,
        }
    }

    /// Writes the next request.
    pub fn write(&mut self, ask: &mut Ask) {
        self.asked += 1;
        let (run, asked) = (self.run, self.asked);
        let random = &mut self.status.random;
        match pick(random, 100) {
            0..74 => get_pod(ask, pick(random, self.status.pods)),
            74..84 => self.status.write(ask),
            84..94 => {
                let path = format_args!("{LEASES_PATH}/node-{}", pick(random, LEASES));
                to(ask, "PATCH", "application/merge-patch+json", path);
                let micros = asked % 1_000_000;
                let renewed =
                    format!(r#"{{"spec":{{"renewTime":"2026-01-01T00:00:00.{micros:06}Z"}}}}"#);
                ask.body.extend_from_slice(renewed.as_bytes());
            }
            94..99 => {
                to(ask, "POST", JSON, format_args!("{NAMESPACE}/configmaps"));
                let data = format!(
                    r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"mixed-{run}-{asked}"}},"data":{{"message":"{:300}"}}}}"#,
                    "started"
                );
                ask.body.extend_from_slice(data.as_bytes());
            }
            _ => {
                let node = pick(random, NODES);
                get(
                    ask,
                    format_args!("/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-{node}"),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_and_versions_differ() {
        assert_ne!(pod_status(1), pod_status(2));
        assert_ne!(deployment(1, 1), deployment(1, 2));
    }
}
