//! What the face does without being asked, on every node.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::context::EtcdContext;
use crate::{alarms, autocompact, cluster};

/// Follows alarms, keeps the quota, compacts as configured and promotes members that
/// were added as voters, until `stop`. Runs once, beside the first listener.
pub(crate) async fn upkeep(context: Arc<EtcdContext>, stop: CancellationToken) {
    tokio::join!(
        alarms::follow(context.clone(), stop.clone()),
        alarms::keep_quota(context.clone(), stop.clone()),
        autocompact::run(context.clone(), stop.clone()),
        cluster::keep_promises(context, stop),
    );
}
