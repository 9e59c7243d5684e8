//! The leader's memory of the workers: who beat when, and whose change of state is
//! yet to be replicated. Pure: times are arguments, the shell proposes and reads rows.
//!
//! Invariants
//! - A worker is lost only after a whole deadline in which this roster could hear it:
//!   a new roster, or one that was stopped for a while, starts every deadline anew.
//! - A beat costs memory only; a change is due exactly while what is known differs
//!   from what is replicated.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::deadlines::{Deadlines, Handle};
use crate::lifecycle::{Happening, Phase, Stake};
use crate::limits;
use crate::row::WorkerRow;

/// Slots of the wheel: one turn is longer than the default deadline.
const WHEEL_SLOTS: usize = 128;

/// The times and steps a roster goes by.
#[derive(Debug, Clone)]
pub struct RosterSettings {
    /// Silence after which a worker is lost.
    pub lost_after: Duration,
    /// Smallest change of the number of pods that is replicated.
    pub pods_step: u32,
    /// Most workers.
    pub workers_limit: usize,
    /// How long a node drains whose stake was withdrawn or whose token has ended.
    pub drain: Duration,
}

impl Default for RosterSettings {
    fn default() -> Self {
        Self {
            lost_after: limits::LOST_AFTER,
            pods_step: limits::PODS_STEP,
            workers_limit: limits::WORKERS_LIMIT,
            drain: limits::DRAIN,
        }
    }
}

/// What a beat says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BeatFacts {
    /// State of the stake; unchanged when absent.
    pub stake: Option<Stake>,
    /// Stake in MIST; unchanged when absent.
    pub stake_amount: Option<u64>,
    /// Pods running; unchanged when absent.
    pub running_pods: Option<u32>,
}

/// What became of a beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It counts.
    Acknowledged,
    /// No such worker in memory: look for its row.
    Unknown,
    /// The worker belongs to another owner.
    NotOwner,
}

/// A state that is to be replicated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Whose.
    pub node_id: String,
    /// The phase it is in.
    pub phase: Phase,
    /// Its stake.
    pub stake: Stake,
    /// Its stake in MIST.
    pub stake_amount: u64,
    /// The pods it runs.
    pub running_pods: u32,
}

/// One worker in memory.
#[derive(Debug)]
struct Tracked {
    replicated: WorkerRow,
    phase: Phase,
    stake: Stake,
    stake_amount: u64,
    running_pods: u32,
    deadline: Option<Handle>,
}

/// All workers, as the leader sees them.
#[derive(Debug)]
pub struct Roster {
    settings: RosterSettings,
    workers: BTreeMap<String, Tracked>,
    deadlines: Deadlines<String>,
    due: BTreeSet<String>,
    /// When tokens end that do, in Unix seconds, and whose.
    token_ends: BTreeSet<(u64, String)>,
    last_tick_ms: u64,
}

impl Roster {
    /// A new leader's roster: `rows` as replicated, every deadline whole from `now_ms`.
    pub fn new(settings: RosterSettings, rows: Vec<WorkerRow>, now_ms: u64) -> Self {
        let granule_ms = millis(limits::TICK);
        let deadlines = Deadlines::new(now_ms, granule_ms, WHEEL_SLOTS, settings.workers_limit);
        let mut roster = Self {
            settings,
            workers: BTreeMap::new(),
            deadlines,
            due: BTreeSet::new(),
            token_ends: BTreeSet::new(),
            last_tick_ms: now_ms,
        };
        for row in rows {
            roster.row_written(row, now_ms);
        }
        roster
    }

    /// Takes a beat of `node_id`, whose token belongs to `owner`.
    pub fn beat(&mut self, node_id: &str, owner: &str, facts: BeatFacts, now_ms: u64) -> Heard {
        let Some(worker) = self.workers.get_mut(node_id) else {
            return Heard::Unknown;
        };
        if worker.replicated.owner != owner {
            return Heard::NotOwner;
        }
        worker.phase = worker.phase.after(Happening::Beat);
        worker.stake = facts.stake.unwrap_or(match worker.stake {
            // A token whose beat is taken counts, whatever its end was at the registration.
            Stake::Expired => Stake::Active,
            stake => stake,
        });
        worker.stake_amount = facts.stake_amount.unwrap_or(worker.stake_amount);
        worker.running_pods = facts.running_pods.unwrap_or(worker.running_pods);
        self.restart_deadline(node_id, now_ms);
        self.judge_due(node_id);
        Heard::Acknowledged
    }

    /// Takes another sign of life of a worker that is known: its kubelet has renewed the
    /// lease of its node.
    pub fn alive(&mut self, node_id: &str, now_ms: u64) {
        if let Some(worker) = self.workers.get_mut(node_id) {
            worker.phase = worker.phase.after(Happening::Beat);
            self.restart_deadline(node_id, now_ms);
            self.judge_due(node_id);
        }
    }

    /// Notes that the judge found the stake behind the worker's token gone; no sign of life.
    pub fn refused(&mut self, node_id: &str, token: &crate::TokenHash, stake: Stake) {
        if let Some(worker) = self.workers.get_mut(node_id)
            && worker.replicated.token_hash == *token
        {
            worker.stake = stake;
            self.judge_due(node_id);
        }
    }

    /// Looks which tokens have ended, whether or not their workers beat.
    pub fn end_tokens(&mut self, unix_s: u64) {
        while let Some((end, _)) = self.token_ends.first()
            && *end <= unix_s
        {
            let Some((_, node_id)) = self.token_ends.pop_first() else {
                return;
            };
            if let Some(worker) = self.workers.get_mut(&node_id)
                && worker.stake == Stake::Active
            {
                worker.stake = Stake::Expired;
            }
            self.judge_due(&node_id);
        }
    }

    fn watch_token(&mut self, old: Option<u64>, new: Option<u64>, node_id: &str) {
        if old != new {
            if let Some(end) = old {
                self.token_ends.remove(&(end, node_id.to_owned()));
            }
            if let Some(end) = new {
                self.token_ends.insert((end, node_id.to_owned()));
            }
        }
    }

    /// A row was written, by this leader or by a registration on any node. Workers
    /// beyond the limit are not tracked; their beats are refused.
    pub fn row_written(&mut self, row: WorkerRow, now_ms: u64) {
        let node_id = row.node_id.clone();
        let ends = row.token_expires_at_s;
        if let Some(worker) = self.workers.get_mut(&node_id) {
            let ended = worker.replicated.token_expires_at_s;
            if row.registrations != worker.replicated.registrations {
                worker.phase = worker.phase.after(Happening::Registration);
                // A registration is judged afresh: what it found stands.
                worker.stake = row.stake;
                worker.stake_amount = row.stake_amount;
                worker.replicated = row;
                self.restart_deadline(&node_id, now_ms);
            } else {
                worker.replicated = row;
            }
            self.watch_token(ended, ends, &node_id);
        } else {
            if self.workers.len() >= self.settings.workers_limit {
                return;
            }
            let worker = Tracked {
                phase: row.phase,
                stake: row.stake,
                stake_amount: row.stake_amount,
                running_pods: row.running_pods,
                replicated: row,
                deadline: None,
            };
            self.workers.insert(node_id.clone(), worker);
            self.watch_token(None, ends, &node_id);
            self.restart_deadline(&node_id, now_ms);
        }
        self.judge_due(&node_id);
    }

    /// A row was deleted.
    pub fn row_deleted(&mut self, node_id: &str) {
        if let Some(worker) = self.workers.remove(node_id) {
            self.watch_token(worker.replicated.token_expires_at_s, None, node_id);
            if let Some(handle) = worker.deadline {
                self.deadlines.remove(handle);
            }
        }
        self.due.remove(node_id);
    }

    /// Looks at the clock: workers whose deadline has passed are lost. Returns how many.
    pub fn tick(&mut self, now_ms: u64) -> usize {
        let since_last_ms = now_ms.saturating_sub(self.last_tick_ms);
        self.last_tick_ms = self.last_tick_ms.max(now_ms);
        if since_last_ms > millis(limits::STALL_LIMIT) {
            self.restart_all_deadlines(now_ms);
            return 0;
        }
        let silent = self.deadlines.expire(now_ms);
        for node_id in &silent {
            if let Some(worker) = self.workers.get_mut(node_id) {
                worker.deadline = None;
                worker.phase = worker.phase.after(Happening::DeadlinePassed);
            }
            self.judge_due(node_id);
        }
        silent.len()
    }

    /// Up to `limit` changes that are due, taken off the list: whoever takes one
    /// proposes it, and gives it back with [`Roster::not_replicated`] if that fails.
    pub fn take_changes(&mut self, limit: usize) -> Vec<Change> {
        let mut changes = Vec::new();
        while changes.len() < limit {
            let Some(node_id) = self.due.pop_first() else {
                break;
            };
            if let Some(worker) = self.workers.get(&node_id) {
                changes.push(Change {
                    phase: worker.phase,
                    stake: worker.stake,
                    stake_amount: worker.stake_amount,
                    running_pods: worker.running_pods,
                    node_id,
                });
            }
        }
        changes
    }

    /// A change did not get into the log: it is due again if it still differs.
    pub fn not_replicated(&mut self, node_id: &str) {
        self.judge_due(node_id);
    }

    /// Whether changes are due.
    pub fn has_changes(&self) -> bool {
        !self.due.is_empty()
    }

    /// How many workers are in each phase.
    pub fn counts(&self) -> BTreeMap<Phase, usize> {
        let mut counts: BTreeMap<Phase, usize> =
            Phase::ALL.into_iter().map(|phase| (phase, 0)).collect();
        for worker in self.workers.values() {
            *counts.entry(worker.phase).or_default() += 1;
        }
        counts
    }

    /// The phase of one worker.
    pub fn phase(&self, node_id: &str) -> Option<Phase> {
        self.workers.get(node_id).map(|worker| worker.phase)
    }

    /// Whether no further worker can be tracked.
    pub fn is_full(&self) -> bool {
        self.workers.len() >= self.settings.workers_limit
    }

    fn judge_due(&mut self, node_id: &str) {
        let Some(worker) = self.workers.get(node_id) else {
            return;
        };
        let row = &worker.replicated;
        let pods_moved =
            worker.running_pods.abs_diff(row.running_pods) >= self.settings.pods_step.max(1);
        if worker.phase != row.phase || worker.stake != row.stake || pods_moved {
            self.due.insert(node_id.to_owned());
        } else {
            self.due.remove(node_id);
        }
    }

    fn restart_deadline(&mut self, node_id: &str, now_ms: u64) {
        let deadline_ms = now_ms.saturating_add(millis(self.settings.lost_after));
        let Some(worker) = self.workers.get_mut(node_id) else {
            return;
        };
        if !worker.phase.has_deadline() {
            if let Some(handle) = worker.deadline.take() {
                self.deadlines.remove(handle);
            }
            return;
        }
        let moved = worker
            .deadline
            .is_some_and(|handle| self.deadlines.reset(handle, deadline_ms));
        if !moved {
            // The wheel holds as many deadlines as the roster holds workers.
            worker.deadline = self.deadlines.insert(node_id.to_owned(), deadline_ms);
        }
    }

    fn restart_all_deadlines(&mut self, now_ms: u64) {
        let everyone: Vec<String> = self.workers.keys().cloned().collect();
        for node_id in everyone {
            self.restart_deadline(&node_id, now_ms);
        }
    }
}

/// A duration in whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "roster_tests.rs"]
mod tests;
