//! Workloads on a quorum with nodes by the thousand, played by kwok; the leader is killed in
//! the middle of each. Prints how long each took as JSON; fails when one does not end as it
//! must: every pod ready on a node that lives, none too many, every index of a job once.
//!
//! `workloads-large NODES`

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nautilus_tests::Quorum;
use nautilus_tests::workloads::{Cluster, Nodes};
use serde_json::{Value, json};

/// How long one workload may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// How often the cluster is looked at.
const GLANCE: Duration = Duration::from_secs(1);

/// Pods of the deployment for each node.
const PODS_PER_NODE: u64 = 2;

/// One node of so many is drained, and one falls silent.
const LOST: u64 = 100;

struct Large<'a> {
    quorum: &'a Quorum,
    cluster: &'a Cluster,
}

fn main() -> Result<()> {
    let nodes = std::env::args().nth(1).context("how many nodes?")?;
    let nodes: u64 = nodes.parse()?;
    let quorum = Quorum::start();
    let many = Nodes::Many(u32::try_from(nodes)?);
    let cluster = Cluster::start(&quorum.dir().join("kubeconfig"), &many);
    let large = Large {
        quorum: &quorum,
        cluster: &cluster,
    };
    let pods = nodes * PODS_PER_NODE;
    let surge = pods / 10;
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
        "spec": {
            "replicas": pods,
            "strategy": { "rollingUpdate": { "maxSurge": surge, "maxUnavailable": 0 } },
            "selector": { "matchLabels": { "app": "web" } },
            "template": template("web", "on", "Always"),
        },
    });
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "work" },
        "spec": {
            "completionMode": "Indexed", "completions": nodes, "parallelism": nodes / 2,
            "template": template("work", "complete", "Never"),
        },
    });
    let settled = || large.deployment(pods, pods + surge);

    large.timed("deployment", || large.create(&deployment), settled)?;
    let image = ["set", "image", "deployment/web", "c=registry.example/c:2"];
    large.timed("rollout", || large.kubectl(&image), settled)?;
    large.timed("job", || large.create(&job), || large.job(nodes))?;
    let drain = || {
        for node in 0..nodes / LOST {
            let name = format!("many-{node}");
            large.kubectl(&["drain", &name, "--ignore-daemonsets", "--force"])?;
        }
        Ok(())
    };
    large.timed("drain", drain, settled)?;
    let silent: Vec<String> = (nodes / LOST..2 * nodes / LOST)
        .map(|node| format!("many-{node}"))
        .collect();
    let fall_silent = || {
        for node in &silent {
            large.kubectl(&["label", "node", node, "played-by-"])?;
        }
        Ok(())
    };
    large.timed("death", fall_silent, || {
        Ok(large.left(&silent)? && large.deployment(pods, pods + surge + pods)?)
    })?;
    Ok(())
}

/// Pods that leave a silent node after five seconds.
fn template(app: &str, run: &str, restart: &str) -> Value {
    let tolerated = |key: &str| {
        json!({
            "key": format!("node.kubernetes.io/{key}"), "operator": "Exists",
            "effect": "NoExecute", "tolerationSeconds": 5,
        })
    };
    json!({
        "metadata": { "labels": { "app": app }, "annotations": { "workloads/run": run } },
        "spec": {
            "restartPolicy": restart,
            "tolerations": [tolerated("not-ready"), tolerated("unreachable")],
            "containers": [{
                "name": "c", "image": "registry.example/c:1",
                "resources": { "requests": { "cpu": "100m", "memory": "64Mi" } },
            }],
        },
    })
}

impl Large<'_> {
    fn kubectl(&self, arguments: &[&str]) -> Result<()> {
        self.cluster.kubectl(arguments, "").map(drop)
    }

    fn create(&self, object: &Value) -> Result<()> {
        let text = object.to_string();
        self.cluster
            .kubectl(&["create", "-f", "-"], &text)
            .map(drop)
    }

    /// Starts a workload, kills the leader, waits for the workload's end.
    fn timed(
        &self,
        name: &str,
        start: impl Fn() -> Result<()>,
        ended: impl Fn() -> Result<bool>,
    ) -> Result<()> {
        let from = Instant::now();
        start().context(name.to_owned())?;
        self.quorum.kill(&self.quorum.leader());
        self.quorum.up();
        loop {
            let seen = ended();
            if matches!(seen, Ok(true)) {
                break;
            }
            if from.elapsed() > PATIENCE {
                seen?;
                anyhow::bail!("{name}: not after {PATIENCE:?}");
            }
            std::thread::sleep(GLANCE);
        }
        println!(
            "{}",
            json!({ "workload": name, "seconds": from.elapsed().as_secs() })
        );
        Ok(())
    }

    fn read(&self, path: &str) -> Result<Value> {
        self.cluster.get(path)
    }

    /// Whether all pods of the deployment are of its newest revision, ready, and on nodes
    /// that live.
    ///
    /// # Errors
    /// When there are more pods than there may ever be.
    fn deployment(&self, wanted: u64, most: u64) -> Result<bool> {
        let deployment = self.read("/apis/apps/v1/namespaces/default/deployments/web")?;
        let status = &deployment["status"];
        let generation = &deployment["metadata"]["generation"];
        let pods = self.read("/api/v1/namespaces/default/pods?labelSelector=app%3Dweb")?;
        let pods = pods["items"].as_array().context("pods")?;
        let count = u64::try_from(pods.len())?;
        ensure!(count <= most, "{count} pods, at most {most}");
        let staying = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
        let staying = u64::try_from(pods.iter().filter(staying).count())?;
        let counts = [
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
        ];
        Ok(status["observedGeneration"] == *generation
            && staying == wanted
            && counts.iter().all(|count| status[*count] == wanted))
    }

    /// Whether no pod stays on these nodes.
    fn left(&self, nodes: &[String]) -> Result<bool> {
        let pods = self.read("/api/v1/namespaces/default/pods?labelSelector=app%3Dweb")?;
        let pods = pods["items"].as_array().context("pods")?;
        let stays = |pod: &Value| {
            let node = pod["spec"]["nodeName"].as_str();
            pod["metadata"]["deletionTimestamp"].is_null()
                && node.is_some_and(|node| nodes.iter().any(|own| own == node))
        };
        Ok(!pods.iter().any(stays))
    }

    /// Whether the job is done with all of its indexes.
    ///
    /// # Errors
    /// When it counts more than there are.
    fn job(&self, indexes: u64) -> Result<bool> {
        let job = self.read("/apis/batch/v1/namespaces/default/jobs/work")?;
        let succeeded = job["status"]["succeeded"].as_u64().unwrap_or_default();
        ensure!(succeeded <= indexes, "{succeeded} of {indexes} succeeded");
        let conditions = job["status"]["conditions"].as_array();
        let complete = conditions
            .into_iter()
            .flatten()
            .any(|own| own["type"] == "Complete");
        let all = format!("0-{}", indexes - 1);
        Ok(complete && job["status"]["completedIndexes"] == all)
    }
}
