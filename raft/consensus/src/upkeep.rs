//! What a node does by itself: watch its own leadership, keep the leader's duties,
//! and take a snapshot and shorten the log after every checkpoint.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nautilus_machine::{Command, Leadership, LogPosition, Revision};
use openraft::async_runtime::WatchReceiver;

use crate::config::Compaction;
use crate::node_core::{Attempt, Core};
use crate::types::TypeConfig;

/// How often the leader looks at what is due.
const TICK: Duration = Duration::from_millis(100);
/// Steps of a compaction in one round: what is removed must not keep the leader from
/// its other duties.
const COMPACT_STEPS: usize = 32;
/// Leases that one entry ends at most.
const EXPIRED_AT_ONCE: usize = 1000;
/// Versions in a state up to which checkpoints come as configured.
const LARGE_STATE_ROWS: u64 = 100_000;
/// Entries between two checkpoints of however large a state: the log holds them.
const CHECKPOINT_ENTRIES_MAX: u64 = 1_000_000;
/// How often the store tells metrics what it holds.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// How long a snapshot may take before the node stops waiting to shorten its log.
const SNAPSHOT_WAIT: Duration = Duration::from_secs(600);

/// Follows Raft's state: leadership, membership, metrics, and its end.
pub(crate) async fn observe(core: Arc<Core>) {
    let mut metrics = core.raft.metrics();
    let mut applied = core.machinery.tracker.subscribe();
    let term = metrics::gauge!("nautilus_raft_term");
    let commit_index = metrics::gauge!("nautilus_raft_commit_index");
    loop {
        let (leadership, running) = {
            let metrics = metrics.borrow_and_update();
            if !Arc::ptr_eq(&metrics.membership_config, &core.peers.own_membership()) {
                core.peers
                    .set_membership(Arc::clone(&metrics.membership_config));
            }
            term.set(metrics.current_term as f64);
            if let Some(committed) = &metrics.local_committed {
                commit_index.set(committed.index as f64);
            }
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
    let _clock = LeaseClock::begin(core);
    let mut duty = Duty {
        past: VecDeque::new(),
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

/// Entries between two checkpoints. A checkpoint copies the whole state, so a large one
/// waits for a part of its size: the price per write stays the same.
fn checkpoint_after(core: &Core) -> u64 {
    let beyond = core.store().version_rows().saturating_sub(LARGE_STATE_ROWS);
    let entries = (beyond / 2).min(CHECKPOINT_ENTRIES_MAX);
    entries.max(core.config.checkpoint_every_entries)
}

struct Duty {
    /// Revisions and when they were the newest.
    past: VecDeque<(Instant, Revision)>,
    last_checkpoint: u64,
}

impl Duty {
    async fn round(&mut self, core: &Arc<Core>, term: u64) -> Result<(), Attempt> {
        expire_leases(core, term).await?;
        let applied = core.applied().map_or(0, |position| position.index);
        if applied.saturating_sub(self.last_checkpoint) >= checkpoint_after(core) {
            let previous = core.store().checkpoint();
            let reply = core
                .propose_in_term(term, Command::Checkpoint { previous })
                .await?;
            self.last_checkpoint = reply.position.index;
        }
        let (newest, compacted) = (core.store().revision(), core.store().compacted_revision());
        if let Some(revision) = self.due(core.config.compaction, newest, compacted) {
            core.propose_in_term(term, Command::Compact { revision })
                .await?;
        }
        // Others compact too: what any of them has left is removed here.
        for _ in 0..COMPACT_STEPS {
            if !core.store().compaction_pending() {
                break;
            }
            core.propose_in_term(term, Command::CompactStep).await?;
        }
        Ok(())
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

/// The clock of leases runs on this node as long as it leads.
struct LeaseClock<'a>(&'a Core);

impl<'a> LeaseClock<'a> {
    fn begin(core: &'a Core) -> Self {
        let (lessor, store) = (&core.machinery.lessor, core.store());
        lessor.begin();
        let ids = store.lease_ids();
        let leases = ids
            .into_iter()
            .filter_map(|id| Some((id, store.lease(id)?.ttl_ms)));
        lessor.add(Instant::now(), leases.collect::<Vec<_>>());
        Self(core)
    }
}

impl Drop for LeaseClock<'_> {
    fn drop(&mut self) {
        self.0.machinery.lessor.end();
    }
}

async fn expire_leases(core: &Arc<Core>, term: u64) -> Result<(), Attempt> {
    let lessor = &core.machinery.lessor;
    loop {
        let ids = lessor.due(Instant::now(), EXPIRED_AT_ONCE);
        if ids.is_empty() {
            return Ok(());
        }
        let ending = Command::ExpireLeases { ids: ids.clone() };
        if let Err(error) = core.propose_in_term(term, ending).await {
            lessor.again(&ids);
            return Err(error);
        }
    }
}

/// Tells metrics what the store holds, now and then.
pub(crate) async fn report(core: Arc<Core>) {
    let mut ticks = tokio::time::interval(REPORT_EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => core.store().report(),
            () = core.stop.cancelled() => return,
        }
    }
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
