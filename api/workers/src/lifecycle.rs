//! What a worker is to the quorum, and how that changes: one table, no clock.

use serde::{Deserialize, Serialize};

/// Where a worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Known, and yet to beat.
    Registered,
    /// Beats.
    Ready,
    /// Has missed its deadline.
    Lost,
    /// Has missed it, and its pods are taken from it.
    Evicted,
}

impl Phase {
    /// All, in the table's order.
    pub const ALL: [Self; 4] = [Self::Registered, Self::Ready, Self::Lost, Self::Evicted];

    /// As in rows and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Ready => "ready",
            Self::Lost => "lost",
            Self::Evicted => "evicted",
        }
    }

    /// The phase after `happening`.
    pub fn after(self, happening: Happening) -> Self {
        match (self, happening) {
            // A worker that registers again has shown that it lives: it stays ready.
            (_, Happening::Beat) | (Self::Ready, Happening::Registration) => Self::Ready,
            (_, Happening::Registration) => Self::Registered,
            (Self::Registered | Self::Ready, Happening::DeadlinePassed)
            | (Self::Evicted, Happening::Spared) => Self::Lost,
            (Self::Lost, Happening::Evicted) => Self::Evicted,
            (unmoved, Happening::DeadlinePassed | Happening::Evicted | Happening::Spared) => {
                unmoved
            }
        }
    }

    /// Whether a deadline runs in this phase.
    pub fn has_deadline(self) -> bool {
        match self {
            Self::Registered | Self::Ready => true,
            Self::Lost | Self::Evicted => false,
        }
    }
}

/// What can happen to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// It registered, for the first time or again.
    Registration,
    /// It beat.
    Beat,
    /// Its deadline passed without a beat.
    DeadlinePassed,
    /// It was silent, and its zone's turn came.
    Evicted,
    /// Everybody fell silent, so that nobody is to lose its pods.
    Spared,
}

impl Happening {
    /// All, in the table's order.
    pub const ALL: [Self; 5] = [
        Self::Registration,
        Self::Beat,
        Self::DeadlinePassed,
        Self::Evicted,
        Self::Spared,
    ];
}

/// What a worker, or its judge, says of its stake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stake {
    /// In place.
    Active,
    /// Taken as a penalty.
    Slashed,
    /// Taken back by its owner.
    Withdrawn,
    /// In place, and the token that spoke for it has ended: by the judge or the clock alone,
    /// never on the wire.
    Expired,
}

impl Stake {
    /// Parses the wire's `stake_status`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "active" => Some(Self::Active),
            "slashed" => Some(Self::Slashed),
            "withdrawn" => Some(Self::Withdrawn),
            _ => None,
        }
    }
}

/// The `Ready` condition of the worker's `Node`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// `True`.
    Ready,
    /// `False`: it has registered and is yet to beat.
    AwaitingBeat,
    /// `False`: it beats, and its stake is gone.
    StakeSlashed,
    /// `False`: it beats, and its stake was taken back.
    StakeWithdrawn,
    /// `False`: its token has ended.
    TokenExpired,
    /// `Unknown`: nothing was heard of it.
    Silent,
    /// `Unknown`: the same, and its pods are taken from it.
    Evicted,
}

impl Readiness {
    /// What a worker's phase and stake come to.
    pub fn of(phase: Phase, stake: Stake) -> Self {
        match (phase, stake) {
            (Phase::Lost, _) => Self::Silent,
            (Phase::Evicted, _) => Self::Evicted,
            (Phase::Registered | Phase::Ready, Stake::Slashed) => Self::StakeSlashed,
            (Phase::Registered | Phase::Ready, Stake::Withdrawn) => Self::StakeWithdrawn,
            (Phase::Registered | Phase::Ready, Stake::Expired) => Self::TokenExpired,
            (Phase::Registered, Stake::Active) => Self::AwaitingBeat,
            (Phase::Ready, Stake::Active) => Self::Ready,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_whole_table_of_transitions() {
        let mut table = String::new();
        for phase in Phase::ALL {
            for happening in Happening::ALL {
                let after = phase.after(happening);
                writeln!(
                    table,
                    "{:<10} + {:<14} = {}",
                    phase.as_str(),
                    format!("{happening:?}"),
                    after.as_str()
                )
                .expect("writing to a string");
            }
        }
        expect![[r#"
            registered + Registration   = registered
            registered + Beat           = ready
            registered + DeadlinePassed = lost
            registered + Evicted        = registered
            registered + Spared         = registered
            ready      + Registration   = ready
            ready      + Beat           = ready
            ready      + DeadlinePassed = lost
            ready      + Evicted        = ready
            ready      + Spared         = ready
            lost       + Registration   = registered
            lost       + Beat           = ready
            lost       + DeadlinePassed = lost
            lost       + Evicted        = evicted
            lost       + Spared         = lost
            evicted    + Registration   = registered
            evicted    + Beat           = ready
            evicted    + DeadlinePassed = evicted
            evicted    + Evicted        = evicted
            evicted    + Spared         = lost
        "#]]
        .assert_eq(&table);
    }

    proptest! {
        #[test]
        fn whatever_happened_before_a_beat_makes_a_worker_ready_and_silence_loses_it(
            happenings in prop::collection::vec(0..Happening::ALL.len(), 0..20),
        ) {
            let phase = happenings
                .into_iter()
                .fold(Phase::Registered, |phase, index| phase.after(Happening::ALL[index]));
            prop_assert_eq!(phase.after(Happening::Beat), Phase::Ready);
            let silent = phase.after(Happening::DeadlinePassed);
            prop_assert!(!silent.has_deadline());
            prop_assert_eq!(silent.after(Happening::Evicted), Phase::Evicted);
            prop_assert_eq!(silent.after(Happening::Spared), Phase::Lost);
        }
    }

    #[test]
    fn only_a_beating_worker_with_its_stake_in_place_is_ready() {
        for phase in Phase::ALL {
            for stake in [
                Stake::Active,
                Stake::Slashed,
                Stake::Withdrawn,
                Stake::Expired,
            ] {
                let ready = Readiness::of(phase, stake) == Readiness::Ready;
                assert_eq!(ready, phase == Phase::Ready && stake == Stake::Active);
            }
        }
    }
}
