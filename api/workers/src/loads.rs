//! How busy workers are, asked of the leader from any node.

use nautilus_machine::LeaderChannel;

use crate::beat::tell_leader;
use crate::limits;
use crate::load::LoadReport;
use crate::message::{LeaderAnswer, LeaderMessage};

/// What these workers said last, in their order; `None` of one that has not said it, or is
/// silent. Fails when no leader answers within [`limits::LEADER_WAIT`].
pub async fn loads(
    channel: &dyn LeaderChannel,
    node_ids: &[String],
) -> Result<Vec<Option<LoadReport>>, String> {
    let mut loads = Vec::with_capacity(node_ids.len());
    for some in node_ids.chunks(limits::LOADS_PER_MESSAGE) {
        let message = LeaderMessage::Loads(some.iter().map(String::as_str).collect());
        let answer = tell_leader(channel, &message).await;
        match answer.map_err(|refusal| refusal.to_string())? {
            LeaderAnswer::Loads(answers) if answers.len() == some.len() => loads.extend(answers),
            _ => return Err("the leader answered something else than loads".to_owned()),
        }
    }
    Ok(loads)
}
