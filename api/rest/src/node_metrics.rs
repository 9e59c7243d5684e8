//! `metrics.k8s.io/v1beta1`, of nodes: how busy workers are by their own word, for
//! `kubectl top nodes` and for whoever scales by it. Every node asks who knows.
//!
//! Pods are not measured: a worker says how many it runs, not what each takes. An extension
//! server that registers the same group and version (metrics-server) answers in place of
//! this one.
//!
//! Invariant: nothing is stored, and nothing is made up: a node that has not said how busy it
//! is, or how large, has no metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use futures_util::future::BoxFuture;
use http::StatusCode;
use nautilus_machinery::quantity::Quantity;
use nautilus_machinery::resource::Resource;
use nautilus_machinery::status::ApiError;
use serde_json::{Map, Value, json};

use crate::failure::Failure;
use crate::negotiate::{self, Format};
use crate::options::{ListOptions, Query, parse_version};
use crate::resources::Call;
use crate::respond::{self, Form};
use crate::route::Verb;
use crate::storage::{Storage, Target, built_in, versioned_object};

/// The group.
pub(crate) const GROUP: &str = "metrics.k8s.io";
/// Over what time a share of use is taken: workers say it with every beat.
const WINDOW: &str = "30s";
/// What each basis point is a part of.
const BASIS_POINTS: i128 = 10_000;
/// Nanounits in a kibibyte, as [`Quantity`] counts.
const NANO_IN_KI: i128 = 1_000_000_000 * 1024;

/// How busy one worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeUsage {
    /// Of its processors, in hundredths of a percent.
    pub cpu_basis_points: Option<u16>,
    /// Of its memory, in hundredths of a percent.
    pub memory_basis_points: Option<u16>,
    /// How long ago it said so.
    pub age: Duration,
}

/// Who knows how busy workers are.
pub trait NodeUsages: Send + Sync + 'static {
    /// Of the workers of these nodes (the annotation that `worker_annotation` names), in
    /// their order; `None` of one that has not said it.
    fn of(&self, workers: Vec<String>) -> BoxFuture<'_, Result<Vec<Option<NodeUsage>>, String>>;

    /// The annotation of a node with its worker's id.
    fn worker_annotation(&self) -> &'static str;
}

/// The kind that is served, as discovery tells it.
pub(crate) fn kind() -> Arc<Resource> {
    Arc::new(Resource {
        group: GROUP.into(),
        version: "v1beta1".into(),
        kind: "NodeMetrics".into(),
        plural: "nodes".into(),
        namespaced: false,
        verbs: vec!["get".into(), "list".into()],
        ..Resource::default()
    })
}

/// Serves a request for metrics of nodes.
pub(crate) async fn serve(call: &Call, request: Request, form: Form) -> Result<Response, Failure> {
    let Some(usages) = call.context.node.node_usages.clone() else {
        return Err(ApiError::method_not_allowed().into());
    };
    let form = match form.agreed.format {
        Format::Protobuf => Form {
            agreed: negotiate::without_protobuf(request.headers())?,
            ..form
        },
        _ => form,
    };
    let resource = call.asked.resource.as_ref();
    let storage = call.storage();
    match (call.asked.verb, call.asked.name.as_deref()) {
        (Verb::Get, Some(name)) => {
            let version = parse_version(Query::of(request.uri()).text("resourceVersion"))?;
            let target = Target {
                resource: built_in("", "nodes")?,
                namespace: None,
                name,
                subresource: None,
            };
            let node = storage.get(&target, version).await?;
            let measured = measure(&*usages, &[node]).await?.pop();
            let metrics = measured.ok_or_else(|| ApiError::not_found(resource, name))?;
            respond::of_schema(form, StatusCode::OK, "", &metrics)
        }
        (Verb::List, None) => {
            let options = ListOptions::parse(request.uri(), resource, false)?;
            let (nodes, revision) = nodes(&storage, &options).await?;
            let items = measure(&*usages, &nodes).await?;
            let list = json!({
                "kind": "NodeMetricsList",
                "apiVersion": resource.api_version(),
                "metadata": { "resourceVersion": revision.to_string() },
                "items": items,
            });
            respond::of_schema(form, StatusCode::OK, "", &list)
        }
        _ => Err(ApiError::method_not_allowed().into()),
    }
}

/// The nodes that are selected, at one revision.
async fn nodes(
    storage: &Storage,
    options: &ListOptions,
) -> Result<(Vec<Value>, nautilus_machine::Revision), Failure> {
    let resource = built_in("", "nodes")?;
    storage.barrier().await?;
    let range = nautilus_machine::types::KeyRange::prefix(resource.storage_prefix());
    let (rows, revision) = storage.rows(range).await?;
    let mut nodes = Vec::new();
    for row in &rows {
        let node = versioned_object(resource, row)?;
        if options.labels.matches(&node) && options.fields.matches(&node) {
            nodes.push(node);
        }
    }
    Ok((nodes, revision))
}

/// The metrics of those nodes that have any.
async fn measure(usages: &dyn NodeUsages, nodes: &[Value]) -> Result<Vec<Value>, Failure> {
    let annotation = usages.worker_annotation();
    let (mut workers, mut theirs) = (Vec::new(), Vec::new());
    for node in nodes {
        if let Some(worker) = node["metadata"]["annotations"][annotation].as_str() {
            workers.push(worker.to_owned());
            theirs.push(node);
        }
    }
    let told = usages.of(workers).await;
    let told = told.map_err(|reason| ApiError::unavailable(reason, 1))?;
    let now_s = crate::ids::now_unix_s();
    let measured = theirs.into_iter().zip(told);
    Ok(measured
        .filter_map(|(node, usage)| metrics(node, &usage?, now_s))
        .collect())
}

/// What a node uses: its shares of what it has.
fn metrics(node: &Value, usage: &NodeUsage, now_s: i64) -> Option<Value> {
    let capacity = &node["status"]["capacity"];
    let used = |what: &str, basis_points: Option<u16>| {
        let whole = Quantity::parse(capacity[what].as_str()?).ok()?;
        whole
            .nanounits()
            .checked_mul(i128::from(basis_points?))
            .map(|nano| nano / BASIS_POINTS)
    };
    let mut use_of = Map::new();
    if let Some(nano) = used("cpu", usage.cpu_basis_points) {
        use_of.insert("cpu".into(), format!("{nano}n").into());
    }
    if let Some(nano) = used("memory", usage.memory_basis_points) {
        // Rounded up, so that a share does not come out a little less.
        let kibibytes = (nano + NANO_IN_KI - 1) / NANO_IN_KI;
        use_of.insert("memory".into(), format!("{kibibytes}Ki").into());
    }
    let age_s = i64::try_from(usage.age.as_secs()).unwrap_or(i64::MAX);
    let labels = node["metadata"]["labels"].as_object();
    (use_of.len() == 2).then(|| {
        json!({
            "kind": "NodeMetrics",
            "apiVersion": "metrics.k8s.io/v1beta1",
            "metadata": {
                "name": node["metadata"]["name"],
                "creationTimestamp": crate::ids::rfc3339(now_s),
                "labels": labels.cloned().unwrap_or_default(),
            },
            "timestamp": crate::ids::rfc3339(now_s.saturating_sub(age_s)),
            "window": WINDOW,
            "usage": use_of,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const USAGE: NodeUsage = NodeUsage {
        cpu_basis_points: Some(1250),
        memory_basis_points: Some(5000),
        age: Duration::from_secs(10),
    };

    #[test]
    fn a_node_uses_its_shares_of_what_it_has() {
        let node = json!({
            "metadata": { "name": "w1", "labels": { "disk": "ssd" } },
            "status": { "capacity": { "cpu": "4", "memory": "8Gi", "pods": "110" } },
        });
        let metrics = metrics(&node, &USAGE, 1_790_000_010).expect("it is measured");
        assert_eq!(
            metrics["usage"],
            json!({ "cpu": "500000000n", "memory": "4194304Ki" })
        );
        assert_eq!(metrics["timestamp"], crate::ids::rfc3339(1_790_000_000));
        assert_eq!(metrics["metadata"]["labels"]["disk"], "ssd");
    }

    #[test]
    fn a_node_of_unknown_size_has_no_metrics() {
        let node = json!({
            "metadata": { "name": "w1" },
            "status": { "capacity": { "pods": "110" } },
        });
        assert_eq!(metrics(&node, &USAGE, 0), None);
    }
}
