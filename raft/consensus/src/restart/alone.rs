//! A recovery that operators decided: this node goes on as the only voter.

use std::collections::{BTreeMap, BTreeSet};

use nautilus_machine::LogPosition;
use tokio::sync::oneshot;

use crate::config::ConsensusConfig;
use crate::log::{EntryKind, HardVote, RawEntry, Wal};
use crate::types::{Membership, NodeInfo};

/// Appends a membership of this node alone, in a term above every one on the disk. What
/// stands in the log before it is committed with it. `platform` is pinned.
pub(crate) async fn stand_alone(
    wal: &Wal,
    config: &ConsensusConfig,
    applied: Option<LogPosition>,
    platform: &str,
) -> Result<(), String> {
    let log = wal.reader();
    let last = log.bounds().1;
    if last < applied {
        return Err(format!(
            "the log ends at {last:?}, before what the store holds, {applied:?}: recover from another member's directory"
        ));
    }
    let voted = log.vote().map_or(0, |vote| vote.term);
    let term = voted.max(last.map_or(0, |last| last.term)) + 1;
    let position = LogPosition {
        term,
        index: last.map_or(0, |last| last.index + 1),
    };
    let own = NodeInfo {
        peer_address: config.peer_address.clone(),
        api_address: config.api_address.clone(),
        client_address: config.client_address.clone(),
        platform: platform.to_owned(),
        ..NodeInfo::default()
    };
    let id = config.node_id;
    let membership = Membership::new(vec![BTreeSet::from([id])], BTreeMap::from([(id, own)]));
    let membership = membership.map_err(|error| error.to_string())?;
    let body = postcard::to_stdvec(&membership).map_err(|error| error.to_string())?;
    let vote = HardVote {
        term,
        node: id,
        committed: false,
    };
    wal.save_vote(vote)
        .await
        .map_err(|error| error.to_string())?;
    let entry = RawEntry {
        position,
        kind: EntryKind::Membership,
        body: body.into(),
    };
    let (sender, written) = oneshot::channel();
    let done = move |result| {
        // Who waits is below, and does not go away.
        let _ = sender.send(result);
    };
    let appended = wal.append(vec![entry], done).await;
    appended.map_err(|error| error.to_string())?;
    let written = written.await.map_err(|error| error.to_string())?;
    written.map_err(|error| error.to_string())?;
    tracing::error!(
        node = id,
        term,
        index = position.index,
        "stands alone: operators made this node the only voter of its quorum"
    );
    Ok(())
}
