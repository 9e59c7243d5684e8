//! What a stake permits its owner: pure.

/// MIST in one SUI.
const SUI: u64 = 1_000_000_000;

/// The most that a stake permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StakeTier {
    /// Nothing.
    None,
    /// To read.
    View,
    /// To run a worker node, too.
    Node,
    /// To administer the cluster, too.
    Administration,
}

impl StakeTier {
    /// As in the label of a node.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::View => "view",
            Self::Node => "node",
            Self::Administration => "administration",
        }
    }
}

/// From how much on a stake is of which tier, in MIST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StakeTiers {
    /// See [`StakeTier::View`].
    pub view: u64,
    /// See [`StakeTier::Node`].
    pub node: u64,
    /// See [`StakeTier::Administration`].
    pub administration: u64,
}

impl Default for StakeTiers {
    fn default() -> Self {
        Self {
            view: SUI / 2,
            node: SUI,
            administration: 10 * SUI,
        }
    }
}

impl StakeTiers {
    /// The tier of a stake of `amount` MIST.
    pub fn of(&self, amount: u64) -> StakeTier {
        [
            (self.administration, StakeTier::Administration),
            (self.node, StakeTier::Node),
            (self.view, StakeTier::View),
        ]
        .into_iter()
        .find_map(|(from, tier)| (amount >= from).then_some(tier))
        .unwrap_or(StakeTier::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_begins_at_its_amount() {
        let tiers = StakeTiers::default();
        for (amount, tier) in [
            (0, "none"),
            (SUI / 2 - 1, "none"),
            (SUI / 2, "view"),
            (SUI, "node"),
            (10 * SUI - 1, "node"),
            (10 * SUI, "administration"),
            (u64::MAX, "administration"),
        ] {
            assert_eq!(tiers.of(amount).as_str(), tier, "{amount}");
        }
    }
}
