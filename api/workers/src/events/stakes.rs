//! What an address has at stake, by what the chain's events have told, and which user that
//! makes it.

use nautilus_machine::{KeyRange, Kv, RangeRequest};
use nautilus_machinery::identity::User;

use super::batch::Row;
use super::limits::NODES_PER_OWNER;
use super::nodes::ChainNode;
use crate::lifecycle::Stake;
use crate::rows_store::StoreError;
use crate::tier::StakeTier;

/// What comes before the address in the name of a user of the chain.
const USER_PREFIX: &str = "sui:";

/// The active stake behind an address: of the nodes that were registered as its own, in MIST.
pub(crate) fn stake_of(kv: &dyn Kv, owner: &str) -> Result<u64, StoreError> {
    let prefix = ChainNode::owned_by(owner);
    let request = RangeRequest {
        limit: Some(NODES_PER_OWNER),
        ..RangeRequest::newest(KeyRange::prefix(prefix.clone()))
    };
    let mut sum = 0_u64;
    for mark in kv.range(&request)?.kvs {
        let node_id = std::str::from_utf8(&mark.key).ok();
        let Some(node_id) = node_id.and_then(|key| key.strip_prefix(&prefix)) else {
            continue;
        };
        let node = Row::<ChainNode>::read(kv, &ChainNode::key(node_id))?.value;
        let node = node.filter(|node| node.owner.as_deref() == Some(owner));
        if let Some(node) = node.filter(|node| node.stake() == Stake::Active) {
            sum = sum.saturating_add(node.stake_amount);
        }
    }
    Ok(sum)
}

/// The name of an address as a user.
pub(crate) fn user_name(address: &str) -> String {
    format!("{USER_PREFIX}{address}")
}

/// The user that an address is by its stake: RBAC binds the groups. `None`: the stake allows
/// nothing.
pub(crate) fn user(address: &str, tier: StakeTier) -> Option<User> {
    let groups: Vec<String> = [
        (StakeTier::View, "nautilus:stake:view"),
        (StakeTier::Node, "nautilus:stake:node"),
        (StakeTier::Administration, "nautilus:stake:admin"),
    ]
    .into_iter()
    .filter(|(needed, _)| tier >= *needed)
    .map(|(_, group)| group.to_owned())
    .collect();
    (!groups.is_empty()).then(|| User::authenticated(user_name(address), groups))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stake_makes_its_owner_a_member_of_every_group_up_to_its_tier() {
        let groups = |tier| user("0xa1", tier).map(|user| user.groups.join(" "));
        assert_eq!(groups(StakeTier::None), None);
        assert_eq!(
            groups(StakeTier::View).as_deref(),
            Some("nautilus:stake:view system:authenticated")
        );
        assert_eq!(
            groups(StakeTier::Administration).as_deref(),
            Some(
                "nautilus:stake:view nautilus:stake:node nautilus:stake:admin system:authenticated"
            )
        );
    }
}
