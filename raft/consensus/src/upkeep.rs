//! What a node does by itself: watch its own leadership, keep the leader's duties,
//! and take a snapshot and shorten the log after every checkpoint.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nautilus_machine::{Command, Leadership, LogPosition, Revision};
use openraft::async_runtime::WatchReceiver;

use crate::config::Compaction;
use crate::node_core::{Attempt, Core, now_ms};
use crate::types::TypeConfig;

/// How often the leader looks at what is due.
const TICK: Duration = Duration::from_millis(100);
/// Revisions that one entry compacts at most: it is applied in one piece, under the
/// store's lock and in memory, so the past goes in steps, one a round.
const COMPACT_STEP: u64 = 5_000;
/// How long a snapshot may take before the node stops waiting to shorten its log.
const SNAPSHOT_WAIT: Duration = Duration::from_secs(600);

/// Follows Raft's state: leadership, membership, metrics, and its end.
pub(crate) async fn observe(core: Arc<Core>) {
    let mut metrics = core.raft.metrics();
    let mut applied = core.machinery.tracker.subscribe();
    loop {
        let (leadership, running) = {
            let metrics = metrics.borrow_and_update();
            if !Arc::ptr_eq(&metrics.membership_config, &core.peers.membership()) {
                core.peers
                    .set_membership(Arc::clone(&metrics.membership_config));
            }
            publish(&metrics);
            (leadership(&core, &metrics), metrics.running_state.clone())
        };
        if let Err(fatal) = running {
            if !core.stop.is_cancelled() {
                core.fail(fatal.to_string());
            }
            core.leadership.send_modify(|present| {
                present.leader = None;
                present.is_self = false;
            });
            return;
        }
        let awaits_own_entry = leadership
            .leader
            .as_ref()
            .is_some_and(|leader| leader.id == core.config.node_id)
            && !leadership.is_self;
        announce(&core, leadership);
        let ended = tokio::select! {
            changed = metrics.changed() => changed.is_err(),
            changed = applied.changed(), if awaits_own_entry => changed.is_err(),
        };
        if ended {
            if !core.stop.is_cancelled() {
                core.fail("raft ended without a word (its core panicked)".into());
            }
            return;
        }
    }
}

fn leadership(core: &Core, metrics: &openraft::RaftMetrics<TypeConfig>) -> Leadership {
    let leader = metrics.current_leader.and_then(|id| core.peers.member(id));
    let term = metrics.current_term;
    let leads = metrics.current_leader == Some(core.config.node_id) && metrics.state.is_leader();
    let is_self = leads && core.applied().is_some_and(|applied| applied.term == term);
    Leadership {
        term,
        leader,
        is_self,
    }
}

fn announce(core: &Core, leadership: Leadership) {
    core.leadership.send_if_modified(|present| {
        if *present == leadership {
            return false;
        }
        let id = |leadership: &Leadership| leadership.leader.as_ref().map(|leader| leader.id);
        if id(present) != id(&leadership) {
            metrics::counter!("nautilus_raft_leader_changes_total").increment(1);
            tracing::info!(term = leadership.term, leader = ?id(&leadership), "leadership changed");
        }
        metrics::gauge!("nautilus_raft_is_leader").set(f64::from(u8::from(leadership.is_self)));
        *present = leadership;
        true
    });
}

fn publish(metrics: &openraft::RaftMetrics<TypeConfig>) {
    metrics::gauge!("nautilus_raft_term").set(metrics.current_term as f64);
    if let Some(committed) = &metrics.local_committed {
        metrics::gauge!("nautilus_raft_commit_index").set(committed.index as f64);
    }
}

/// The leader's duties, whenever and as long as this node leads.
pub(crate) async fn lead(core: Arc<Core>) {
    let mut changes = core.leadership.subscribe();
    loop {
        let term = {
            let leadership = changes.borrow_and_update();
            leadership.is_self.then_some(leadership.term)
        };
        if let Some(term) = term {
            tokio::select! {
                () = core.stop.cancelled() => return,
                () = duties(&core, term) => {}
            }
        } else {
            tokio::select! {
                () = core.stop.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// Ends when this node does not lead in `term` any more.
async fn duties(core: &Arc<Core>, term: u64) {
    let leads = || {
        let leadership = core.leadership.borrow();
        leadership.is_self && leadership.term == term
    };
    // No lease may end because of the election.
    while leads() {
        match core.propose_in_term(term, Command::ExtendLeases).await {
            Ok(_) => break,
            Err(error) => explain("extending leases", &error),
        }
        tokio::time::sleep(TICK).await;
    }
    let mut duty = Duty {
        past: VecDeque::new(),
        compact_goal: 0,
        last_checkpoint: checkpoint_index(core),
    };
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while leads() {
        ticks.tick().await;
        if let Err(error) = duty.round(core, term).await {
            explain("the leader's upkeep", &error);
        }
    }
}

fn explain(what: &str, error: &Attempt) {
    let (Attempt::NotTaken(reason) | Attempt::Unknown(reason)) = error;
    tracing::debug!(what, %reason, "not done; it is tried again");
}

fn checkpoint_index(core: &Core) -> u64 {
    core.store()
        .checkpoint()
        .map_or(0, |(position, _)| position.index)
}

struct Duty {
    /// Revisions and when they were the newest.
    past: VecDeque<(Instant, Revision)>,
    /// Everything before this revision is to go.
    compact_goal: Revision,
    last_checkpoint: u64,
}

impl Duty {
    async fn round(&mut self, core: &Arc<Core>, term: u64) -> Result<(), Attempt> {
        let due = core.store().next_lease_deadline();
        if due.is_some_and(|due| due.0 <= now_ms()) {
            core.propose_in_term(term, Command::ExpireLeases).await?;
        }
        let applied = core.applied().map_or(0, |position| position.index);
        if applied.saturating_sub(self.last_checkpoint) >= core.config.checkpoint_every_entries {
            let previous = core.store().checkpoint();
            let reply = core
                .propose_in_term(term, Command::Checkpoint { previous })
                .await?;
            self.last_checkpoint = reply.position.index;
        }
        if let Some(revision) = self.compact_to(core) {
            core.propose_in_term(term, Command::Compact { revision })
                .await?;
        }
        Ok(())
    }

    fn compact_to(&mut self, core: &Core) -> Option<Revision> {
        let (newest, compacted) = (core.store().revision(), core.store().compacted_revision());
        let due = self.due(core.config.compaction, newest, compacted);
        self.compact_goal = self.compact_goal.max(due.unwrap_or_default());
        next_step(self.compact_goal, compacted)
    }

    /// The revision up to which the past is due to be forgotten, if any is.
    fn due(
        &mut self,
        compaction: Compaction,
        newest: Revision,
        compacted: Revision,
    ) -> Option<Revision> {
        /// Fewer than this are not worth an entry.
        const COMPACT_AT_LEAST: u64 = 1000;
        match compaction {
            Compaction::Off => None,
            Compaction::KeepRevisions(keep) => {
                let upto = newest.saturating_sub(keep);
                (upto >= compacted + COMPACT_AT_LEAST.min(keep.max(1))).then_some(upto)
            }
            Compaction::Periodic(period) => match self.past.back() {
                None => {
                    self.past.push_back((Instant::now(), newest));
                    None
                }
                Some((at, revision)) if at.elapsed() >= period => {
                    let upto = *revision;
                    self.past.clear();
                    self.past.push_back((Instant::now(), newest));
                    Some(upto)
                }
                Some(_) => None,
            },
        }
    }
}

/// Where the next compaction on the way to `goal` stops.
fn next_step(goal: Revision, compacted: Revision) -> Option<Revision> {
    (goal > compacted).then(|| goal.min(compacted.saturating_add(COMPACT_STEP)))
}

/// After every checkpoint applied here: a snapshot, then a shorter log.
pub(crate) async fn shorten_log(core: Arc<Core>) {
    let mut checkpoints = core.machinery.checkpoints.subscribe();
    loop {
        let checkpoint = *checkpoints.borrow_and_update();
        if let Some(checkpoint) = checkpoint {
            tokio::select! {
                () = core.stop.cancelled() => return,
                () = snapshot_and_purge(&core, checkpoint) => {}
            }
        }
        tokio::select! {
            () = core.stop.cancelled() => return,
            changed = checkpoints.changed() => if changed.is_err() { return },
        }
    }
}

/// Only ever far behind the snapshot: whatever the core still has queued to apply
/// must find its log ids (openraft issue 2116).
async fn snapshot_and_purge(core: &Core, checkpoint: LogPosition) {
    if core.raft.trigger().snapshot().await.is_err() {
        return;
    }
    let reached = |metrics: &openraft::RaftMetrics<TypeConfig>| {
        metrics
            .snapshot
            .as_ref()
            .is_some_and(|snapshot| snapshot.index >= checkpoint.index)
    };
    let waited = core
        .raft
        .wait(Some(SNAPSHOT_WAIT))
        .metrics(reached, "snapshot")
        .await;
    let Ok(metrics) = waited else {
        tracing::warn!(
            index = checkpoint.index,
            "no snapshot came of the checkpoint; the log stays as it is"
        );
        return;
    };
    let snapshot = metrics.snapshot.map_or(0, |id| id.index);
    let upto = snapshot.saturating_sub(core.config.log_tail_entries);
    let purged = metrics.purged.map_or(0, |id| id.index);
    if upto > purged {
        // A core that stopped says so by itself.
        let _ = core.raft.trigger().purge_log(upto).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_past_is_compacted_in_steps_and_wholly() {
        let (goal, mut compacted, mut steps) = (3 * COMPACT_STEP + 7, 0, 0);
        while let Some(next) = next_step(goal, compacted) {
            assert!(next > compacted && next - compacted <= COMPACT_STEP);
            (compacted, steps) = (next, steps + 1);
        }
        assert_eq!((compacted, steps), (goal, 4));
    }
}
