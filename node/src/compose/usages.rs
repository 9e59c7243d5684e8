//! How busy nodes are, for `metrics.k8s.io`: what their workers told the leader.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nautilus_machine::LeaderChannel;
use nautilus_rest::{NodeUsage, NodeUsages};
use nautilus_workers::node_object::NODE_ID_ANNOTATION;
use nautilus_workers::{LoadReport, Share, loads};

/// Asks the leader.
pub(super) struct WorkersUsages(pub(super) Arc<dyn LeaderChannel>);

impl NodeUsages for WorkersUsages {
    fn of(&self, workers: Vec<String>) -> BoxFuture<'_, Result<Vec<Option<NodeUsage>>, String>> {
        Box::pin(async move {
            let reports = loads(&*self.0, &workers).await?;
            Ok(reports
                .into_iter()
                .map(|report| report.map(usage))
                .collect())
        })
    }

    fn worker_annotation(&self) -> &'static str {
        NODE_ID_ANNOTATION
    }
}

fn usage(report: LoadReport) -> NodeUsage {
    NodeUsage {
        cpu_basis_points: report.load.cpu.map(Share::basis_points),
        memory_basis_points: report.load.memory.map(Share::basis_points),
        age: Duration::from_millis(report.age_ms),
    }
}
