//! Forgetting old revisions without being asked: by age or by number, as etcd's
//! `--auto-compaction-mode` does it.
//!
//! Every node notes revisions, so that a new leader knows the past; only the leader
//! compacts.
//!
//! Invariant: a revision is compacted at only when it is at least as old, or at least as
//! many revisions back, as configured.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use nautilus_machine::{Command, Outcome, Proposal, Refusal, Revision};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::EtcdContext;

/// Longest time between two compactions by age.
const PERIOD_MAX: Duration = Duration::from_secs(3600);
/// Revisions noted in one such time.
const NOTES_PER_PERIOD: u32 = 10;
/// Shortest time between two notes.
const NOTE_INTERVAL_MIN: Duration = Duration::from_millis(10);
/// Notes that are kept, so that an absurd age does not grow without bound.
const NOTES_MAX: usize = 100_000;
/// Between two compactions by number.
const BY_NUMBER_INTERVAL: Duration = Duration::from_secs(300);

/// Which old revisions are forgotten without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AutoCompaction {
    /// None.
    #[default]
    Off,
    /// Those older than this.
    Periodic(Duration),
    /// All but so many of the newest.
    Revision(u64),
}

/// When to compact where: time and revisions in, a revision out.
#[derive(Debug)]
enum Rule {
    Age(ByAge),
    Number { kept: u64, last: Revision },
}

#[derive(Debug)]
struct ByAge {
    age: Duration,
    /// The newest revision at each tick, oldest first; the first is `age` old when full.
    notes: VecDeque<Revision>,
    last: Revision,
    /// When the last compaction was, since the start.
    last_at: Duration,
    /// What must pass after it: the whole age before the first one.
    pause: Duration,
}

impl Rule {
    fn new(mode: AutoCompaction) -> Option<Self> {
        match mode {
            AutoCompaction::Off => None,
            AutoCompaction::Periodic(age) if age.is_zero() => None,
            AutoCompaction::Periodic(age) => Some(Self::Age(ByAge {
                age,
                notes: VecDeque::new(),
                last: 0,
                last_at: Duration::ZERO,
                pause: age,
            })),
            AutoCompaction::Revision(kept) => Some(Self::Number { kept, last: 0 }),
        }
    }

    /// Between two ticks.
    fn interval(&self) -> Duration {
        match self {
            Self::Age(rule) => {
                let period = rule.age.min(PERIOD_MAX);
                (period / NOTES_PER_PERIOD).max(NOTE_INTERVAL_MIN)
            }
            Self::Number { .. } => BY_NUMBER_INTERVAL,
        }
    }

    /// Before the wait for the next tick.
    fn note(&mut self, revision: Revision) {
        let interval = self.interval();
        let Self::Age(rule) = self else { return };
        let full = rule.age.as_nanos() / interval.as_nanos().max(1) + 1;
        let full = usize::try_from(full).unwrap_or(usize::MAX).min(NOTES_MAX);
        rule.notes.push_back(revision);
        while rule.notes.len() > full {
            rule.notes.pop_front();
        }
    }

    /// At a tick: where to compact, if anywhere.
    fn due(&self, now: Duration, revision: Revision) -> Option<Revision> {
        match self {
            Self::Age(rule) => {
                let oldest = *rule.notes.front()?;
                let waited = now.saturating_sub(rule.last_at) >= rule.pause;
                (waited && oldest != rule.last).then_some(oldest)
            }
            Self::Number { kept, last } => {
                let at = revision.saturating_sub(*kept);
                (at > 0 && at != *last).then_some(at)
            }
        }
    }

    /// It was compacted at `revision`.
    fn compacted(&mut self, now: Duration, revision: Revision) {
        match self {
            Self::Age(rule) => {
                rule.last = revision;
                rule.last_at = now;
                rule.pause = rule.age.min(PERIOD_MAX);
            }
            Self::Number { last, .. } => *last = revision,
        }
    }
}

/// Compacts as configured, whenever this node leads, until `stop`.
pub(crate) async fn run(context: Arc<EtcdContext>, stop: CancellationToken) {
    let Some(mut rule) = Rule::new(context.parts.auto_compaction) else {
        return;
    };
    let kv = &context.parts.kv;
    let start = Instant::now();
    loop {
        rule.note(kv.revision());
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(rule.interval()) => {}
        }
        let now = start.elapsed();
        let Some(revision) = rule.due(now, kv.revision()) else {
            continue;
        };
        let leadership = kv.leadership();
        if !leadership.is_self {
            continue;
        }
        let proposal = Proposal {
            guard_term: Some(leadership.term),
            ..Proposal::new(Command::Compact { revision })
        };
        match kv.propose(proposal).await.map(|applied| applied.outcome) {
            Ok(Outcome::Done | Outcome::Refused(Refusal::Compacted)) => {
                tracing::info!(revision, "compacted as configured");
                metrics::counter!("nautilus_etcd_auto_compactions_total").increment(1);
                rule.compacted(now, revision);
            }
            Ok(other) => tracing::warn!(revision, ?other, "compaction was refused"),
            Err(error) => tracing::warn!(revision, %error, "compaction failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Runs a rule for so many ticks of a store that grows by 10 a tick; gives when it
    /// compacted, in ticks, and where.
    fn compactions(mode: AutoCompaction, ticks: u32) -> Vec<(u32, Revision)> {
        let mut rule = Rule::new(mode).expect("a rule");
        let interval = rule.interval();
        let mut done = Vec::new();
        for tick in 1..=ticks {
            rule.note(Revision::from(tick - 1) * 10 + 1);
            let now = interval * tick;
            if let Some(revision) = rule.due(now, Revision::from(tick) * 10 + 1) {
                rule.compacted(now, revision);
                done.push((tick, revision));
            }
        }
        done
    }

    #[test]
    fn nothing_younger_than_the_age_is_forgotten() {
        let done = compactions(AutoCompaction::Periodic(HOUR), 40);
        assert_eq!(done[0], (10, 1), "not before an hour has passed");
        for (tick, revision) in done {
            let written_at_tick = (revision - 1) / 10;
            assert!(
                u64::from(tick) - written_at_tick >= 10,
                "{revision} at {tick}"
            );
        }
    }

    #[test]
    fn a_day_is_kept_and_compacted_every_hour() {
        let done = compactions(AutoCompaction::Periodic(24 * HOUR), 300);
        let ticks: Vec<u32> = done.iter().map(|(tick, _)| *tick).collect();
        assert_eq!(ticks, [240, 250, 260, 270, 280, 290, 300]);
        for (tick, revision) in done {
            assert!(
                u64::from(tick) - (revision - 1) / 10 >= 240,
                "{revision} at {tick}"
            );
        }
    }

    #[test]
    fn a_quiet_store_is_compacted_once() {
        let mut rule = Rule::new(AutoCompaction::Periodic(HOUR)).expect("a rule");
        let mut done = 0;
        for tick in 1..=50 {
            rule.note(7);
            let now = rule.interval() * tick;
            if let Some(revision) = rule.due(now, 7) {
                rule.compacted(now, revision);
                done += 1;
            }
        }
        assert_eq!(done, 1);
    }

    #[test]
    fn by_number_the_newest_are_kept() {
        let done = compactions(AutoCompaction::Revision(25), 5);
        assert_eq!(done, [(3, 6), (4, 16), (5, 26)]);
    }

    #[test]
    fn off_or_no_age_is_no_rule() {
        assert!(Rule::new(AutoCompaction::Off).is_none());
        assert!(Rule::new(AutoCompaction::Periodic(Duration::ZERO)).is_none());
    }
}
