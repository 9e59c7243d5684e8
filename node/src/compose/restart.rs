//! What a node does about its own restart beyond consensus: an event says what was found
//! wrong with the disk, or that operators recovered it, so that nobody has to read logs.

use std::sync::Arc;
use std::time::Duration;

use nautilus_consensus::{Rejoin, Verdict};
use nautilus_rest::{MasterEvent, RestContext, record_master_event};
use tokio_util::sync::CancellationToken;

use super::Node;
use crate::config::NodeConfig;
use crate::recovery::Recovery;

/// Pause before an event is written again.
const EVENT_PAUSE: Duration = Duration::from_secs(1);

/// An event about the disk, if something was wrong with it.
pub(super) async fn tell_of_disk(
    node_id: u64,
    rejoined: Rejoin,
    context: Arc<RestContext>,
    stopped: CancellationToken,
) {
    if let Some(event) = event_of(node_id, &rejoined) {
        tell(event, context, stopped).await;
    }
}

/// Writes an event, once there is a quorum to take it.
async fn tell(event: MasterEvent, context: Arc<RestContext>, stopped: CancellationToken) {
    loop {
        match record_master_event(&context, &event).await {
            Ok(()) => return,
            Err(error) => tracing::debug!(%error, "the event is not written yet"),
        }
        tokio::select! {
            () = stopped.cancelled() => return,
            () = tokio::time::sleep(EVENT_PAUSE) => {}
        }
    }
}

fn event_of(node_id: u64, rejoined: &Rejoin) -> Option<MasterEvent> {
    let floor = rejoined.floor;
    let regained = floor.last.map_or_else(String::new, |last| {
        format!("; it votes again once its log has reached {last}")
    });
    let (reason, suffix, found) = match rejoined.verdict {
        Verdict::Consistent => return None,
        Verdict::RolledBack { disk, acknowledged } => (
            "DiskRolledBack",
            format!("rolled-back-{}-{}", acknowledged.term, acknowledged.index),
            format!(
                "the disk of master {node_id} is an old copy: its log ends at {}, but it had acknowledged {acknowledged}",
                disk.map_or_else(|| "nothing".to_owned(), |disk| disk.to_string()),
            ),
        ),
        Verdict::Replayed { disk_epoch, newest } => (
            "DiskReplayed",
            format!("replayed-{}", newest.epoch),
            format!(
                "the disk of master {node_id} is from before a later start: it is of epoch {disk_epoch}, but its peers know {newest}"
            ),
        ),
    };
    Some(MasterEvent {
        node_id,
        suffix,
        reason,
        message: format!("{found}{regained}. Find out who put it back: the host can't be trusted"),
    })
}

/// Tells of the disk once the node has come back and there is a quorum.
pub(super) fn follow_up(
    node: &Node,
    config: &NodeConfig,
    context: &Arc<RestContext>,
    stopped: &CancellationToken,
) {
    let (id, context) = (config.node_id, Arc::clone(context));
    let (rejoined, told) = (node.consensus.rejoined(), stopped.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = told.clone().cancelled_owned() => {}
            rejoined = rejoined => tell_of_disk(id, rejoined, context, told).await,
        }
    });
}

/// An event about a recovery by operators.
pub(super) fn tell_of_recovery(
    recovery: &Recovery,
    context: &Arc<RestContext>,
    stopped: &CancellationToken,
) {
    let event = MasterEvent {
        node_id: recovery.node_id,
        suffix: format!("recovered-{}", recovery.recovery),
        reason: "QuorumRecovered",
        message: format!(
            "operators ({}) made master {} the only voter of this quorum, under a new authority; what \
             the lost masters alone had acknowledged is gone. Add masters, and rotate the keys: the \
             lost disks hold them",
            recovery.operators.join(", "),
            recovery.node_id,
        ),
    };
    tokio::spawn(tell(event, Arc::clone(context), stopped.clone()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rolled_back_disk_is_an_event_by_name_and_a_consistent_one_is_none() {
        use nautilus_attest_protocol::restart::{Floor, LogPlace};
        use nautilus_consensus::Ground;
        let place = |index| LogPlace { term: 2, index };
        let mut rejoined = Rejoin {
            floor: Floor {
                term: 3,
                last: Some(place(9)),
            },
            ground: Ground::AllTestified,
            verdict: Verdict::RolledBack {
                disk: Some(place(4)),
                acknowledged: place(8),
            },
        };
        let event = event_of(2, &rejoined).expect("an event");
        assert_eq!(event.reason, "DiskRolledBack");
        assert!(event.message.contains("ends at 2.4") && event.message.contains("2.8"));
        rejoined.verdict = Verdict::Consistent;
        assert_eq!(event_of(2, &rejoined), None);
    }
}
