//! The leader's memory of the workers: who beat when, and whose change of state is
//! yet to be replicated. Pure: times are arguments, the shell proposes and reads rows.
//!
//! Invariants
//! - A worker is lost only after a whole deadline in which this roster could hear it:
//!   a new roster, or one that was stopped for a while, starts every deadline anew.
//! - A beat costs one look-up and one move in the wheel, and nothing is allocated for it;
//!   a change is due exactly while what is known differs from what is replicated.
//! - Of a row only what is compared is kept; how many workers are in each phase is counted
//!   as they change.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::deadlines::{Deadlines, Handle};
use crate::lifecycle::{Happening, Phase, Stake};
use crate::limits;
use crate::load::{Load, LoadReport};
use crate::owners::Owners;
use crate::row::WorkerRow;
use crate::token::TokenHash;
use crate::zones::{Disruption, Standing, Zones};

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

/// What a beat says; what it leaves out stays as it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeatFacts {
    /// State of the stake.
    pub stake: Option<Stake>,
    /// Stake in MIST.
    pub stake_amount: Option<u64>,
    /// Pods running.
    pub running_pods: Option<u32>,
    /// When the token that it came with ends, in Unix seconds; `None`: it does not.
    pub token_expires_at_s: Option<u64>,
    /// Use of the worker's resources.
    pub load: Load,
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

/// What of a worker is replicated when it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// The phase it is in.
    pub phase: Phase,
    /// Its stake.
    pub stake: Stake,
    /// Its stake in MIST.
    pub stake_amount: u64,
    /// The pods it runs.
    pub running_pods: u32,
    /// When its token ends, in Unix seconds.
    pub token_expires_at_s: Option<u64>,
}

impl State {
    fn of(row: &WorkerRow) -> Self {
        Self {
            phase: row.phase,
            stake: row.stake,
            stake_amount: row.stake_amount,
            running_pods: row.running_pods,
            token_expires_at_s: row.token_expires_at_s,
        }
    }
}

/// A state that is to be replicated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Whose.
    pub node_id: Arc<str>,
    /// What it comes to.
    pub state: State,
    /// What was known to be replicated when it was taken.
    pub known: State,
}

/// One worker in memory.
#[derive(Debug)]
struct Tracked {
    node_id: Arc<str>,
    owner: Arc<str>,
    token_hash: TokenHash,
    /// The end that is looked out for.
    watched_end_s: Option<u64>,
    registrations: u64,
    replicated: State,
    state: State,
    load: Load,
    heard_ms: u64,
    zone: Arc<str>,
    /// Since when, while it is silent.
    silent_since_ms: u64,
    deadline: Option<Handle>,
    is_due: bool,
}

impl Tracked {
    fn standing(&self) -> Standing {
        match self.state.phase {
            Phase::Registered | Phase::Ready => Standing::Heard,
            Phase::Lost => Standing::Silent {
                since_ms: self.silent_since_ms,
            },
            Phase::Evicted => Standing::Evicted,
        }
    }
}

/// What a look at the clock brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ticked {
    /// Workers that are lost now.
    pub lost: usize,
    /// Workers that are evicted now.
    pub evicted: usize,
}

/// All workers, as the leader sees them.
#[derive(Debug)]
pub struct Roster {
    /// Hashed with a key of this process, so that nobody can choose ids that collide.
    workers: HashMap<Arc<str>, Tracked>,
    owners: Owners,
    books: Books,
    all_placed: bool,
    last_tick_ms: u64,
}

/// What is noted of the workers together.
#[derive(Debug)]
struct Books {
    settings: RosterSettings,
    deadlines: Deadlines<Arc<str>>,
    due: BTreeSet<Arc<str>>,
    counts: Counts,
    zones: Zones,
    /// When tokens end that do, in Unix seconds, and whose.
    token_ends: BTreeSet<(u64, Arc<str>)>,
}

/// Workers in each phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts([usize; Phase::ALL.len()]);

impl Counts {
    /// How many are in `phase`.
    pub fn of(&self, phase: Phase) -> usize {
        self.0[phase as usize]
    }

    fn moved(&mut self, from: Option<Phase>, to: Option<Phase>) {
        if let Some(from) = from {
            self.0[from as usize] -= 1;
        }
        if let Some(to) = to {
            self.0[to as usize] += 1;
        }
    }
}

impl Roster {
    /// A new leader's roster: `rows` as replicated, every deadline whole from `now_ms`.
    pub fn new(
        settings: RosterSettings,
        rows: impl IntoIterator<Item = WorkerRow>,
        now_ms: u64,
    ) -> Self {
        let granule_ms = millis(limits::TICK);
        let deadlines = Deadlines::new(now_ms, granule_ms, WHEEL_SLOTS, settings.workers_limit);
        let mut roster = Self {
            workers: HashMap::new(),
            owners: Owners::default(),
            books: Books {
                settings,
                deadlines,
                due: BTreeSet::new(),
                counts: Counts::default(),
                zones: Zones::default(),
                token_ends: BTreeSet::new(),
            },
            all_placed: false,
            last_tick_ms: now_ms,
        };
        for row in rows {
            roster.row_written(&row, now_ms);
        }
        roster
    }

    /// Takes a beat of `node_id`, whose token belongs to `owner`.
    pub fn beat(&mut self, node_id: &str, owner: &str, facts: BeatFacts, now_ms: u64) -> Heard {
        let Some(worker) = self.workers.get_mut(node_id) else {
            return Heard::Unknown;
        };
        if *worker.owner != *owner {
            return Heard::NotOwner;
        }
        self.books.happens(worker, Happening::Beat, now_ms);
        let state = &mut worker.state;
        // A token whose beat is taken counts, whatever its end was at the registration. Beyond
        // that a worker's own word takes away and gives nothing back: the chain and a
        // registration do.
        state.stake = match (state.stake, facts.stake) {
            (Stake::Expired, None | Some(Stake::Active)) => Stake::Active,
            (Stake::Active | Stake::Expired, Some(said)) => said,
            (stake, _) => stake,
        };
        state.stake_amount = facts.stake_amount.unwrap_or(state.stake_amount);
        state.running_pods = facts.running_pods.unwrap_or(state.running_pods);
        // The judge's word, which may have moved since the registration.
        state.token_expires_at_s = facts.token_expires_at_s;
        worker.load = worker.load.updated(facts.load);
        worker.heard_ms = now_ms;
        self.books.watch_token(worker);
        self.books.restart_deadline(worker, now_ms);
        self.books.judge_due(worker);
        Heard::Acknowledged
    }

    /// Takes another sign of life of a worker that is known: its kubelet has renewed the
    /// lease of its node.
    pub fn alive(&mut self, node_id: &str, now_ms: u64) {
        if let Some(worker) = self.workers.get_mut(node_id) {
            self.books.happens(worker, Happening::Beat, now_ms);
            self.books.restart_deadline(worker, now_ms);
            self.books.judge_due(worker);
        }
    }

    /// Notes that the judge found the stake behind the worker's token gone; no sign of life.
    pub fn refused(&mut self, node_id: &str, token: &TokenHash, stake: Stake) {
        if let Some(worker) = self.workers.get_mut(node_id)
            && worker.token_hash == *token
        {
            worker.state.stake = stake;
            self.books.judge_due(worker);
        }
    }

    /// Looks which tokens have ended, whether or not their workers beat.
    pub fn end_tokens(&mut self, unix_s: u64) {
        while let Some((end, _)) = self.books.token_ends.first()
            && *end <= unix_s
        {
            let Some((_, node_id)) = self.books.token_ends.pop_first() else {
                return;
            };
            if let Some(worker) = self.workers.get_mut(&node_id)
                && worker.state.stake == Stake::Active
            {
                worker.state.stake = Stake::Expired;
                self.books.judge_due(worker);
            }
        }
    }

    /// A row was written, by this leader or by a registration on any node. Workers
    /// beyond the limit are not tracked; their beats are refused.
    pub fn row_written(&mut self, row: &WorkerRow, now_ms: u64) {
        if !self.workers.contains_key(row.node_id.as_str()) {
            if self.is_full() {
                return;
            }
            let worker = Tracked {
                node_id: row.node_id.as_str().into(),
                owner: self.owners.hold(&row.owner),
                token_hash: row.token_hash,
                watched_end_s: None,
                registrations: row.registrations,
                replicated: State::of(row),
                state: State::of(row),
                load: Load::default(),
                heard_ms: now_ms,
                zone: self.books.zones.name(""),
                silent_since_ms: now_ms,
                deadline: None,
                is_due: false,
            };
            self.books.counts.moved(None, Some(row.phase));
            let (zone, standing) = (&worker.zone, worker.standing());
            self.books.zones.enter(zone, &worker.node_id, standing);
            let node_id = Arc::clone(&worker.node_id);
            let worker = self.workers.entry(node_id).or_insert(worker);
            self.books.watch_token(worker);
            self.books.restart_deadline(worker, now_ms);
            return;
        }
        let Some(worker) = self.workers.get_mut(row.node_id.as_str()) else {
            return;
        };
        let before = std::mem::replace(&mut worker.replicated, State::of(row));
        // What somebody else wrote of the stake is the chain's own word.
        if row.stake != before.stake {
            worker.state.stake = row.stake;
        }
        if row.stake_amount != before.stake_amount {
            worker.state.stake_amount = row.stake_amount;
        }
        if row.token_expires_at_s != before.token_expires_at_s {
            worker.state.token_expires_at_s = row.token_expires_at_s;
        }
        if row.registrations != worker.registrations {
            worker.registrations = row.registrations;
            worker.token_hash = row.token_hash;
            let owner = std::mem::replace(&mut worker.owner, self.owners.hold(&row.owner));
            self.owners.release(&owner);
            self.books.happens(worker, Happening::Registration, now_ms);
            // A registration is judged afresh: what it found stands.
            worker.state.stake = row.stake;
            worker.state.stake_amount = row.stake_amount;
            worker.state.token_expires_at_s = row.token_expires_at_s;
            self.books.restart_deadline(worker, now_ms);
        }
        self.books.watch_token(worker);
        self.books.judge_due(worker);
    }

    /// A row was deleted.
    pub fn row_deleted(&mut self, node_id: &str) {
        if let Some(mut worker) = self.workers.remove(node_id) {
            self.books.forget(&mut worker);
            self.owners.release(&worker.owner);
        }
    }

    /// A worker's node is in `zone` now; in none if that is empty.
    pub fn placed(&mut self, node_id: &str, zone: &str) {
        if let Some(worker) = self.workers.get_mut(node_id)
            && *worker.zone != *zone
        {
            let name = self.books.zones.name(zone);
            let (zones, standing) = (&mut self.books.zones, worker.standing());
            zones.leave(&worker.zone, &worker.node_id, standing);
            zones.enter(&name, &worker.node_id, standing);
            worker.zone = name;
        }
    }

    /// Every worker whose node is in a zone was placed: from now on some may be evicted.
    pub fn all_placed(&mut self) {
        self.all_placed = true;
    }

    /// Looks at the clock: workers whose deadline has passed are lost, and of the lost those
    /// are evicted whose zone's turn has come.
    pub fn tick(&mut self, now_ms: u64) -> Ticked {
        let since_last_ms = now_ms.saturating_sub(self.last_tick_ms);
        self.last_tick_ms = self.last_tick_ms.max(now_ms);
        if since_last_ms > millis(limits::STALL_LIMIT) {
            self.restart_all_deadlines(now_ms);
            return Ticked::default();
        }
        let silent = self.books.deadlines.expire(now_ms);
        for node_id in &silent {
            if let Some(worker) = self.workers.get_mut(node_id) {
                worker.deadline = None;
                self.books
                    .happens(worker, Happening::DeadlinePassed, now_ms);
                self.books.judge_due(worker);
            }
        }
        Ticked {
            lost: silent.len(),
            evicted: self.evict(now_ms),
        }
    }

    fn evict(&mut self, now_ms: u64) -> usize {
        if !self.all_placed {
            return 0;
        }
        let orders = self.books.zones.tick(now_ms);
        if orders.start_anew {
            self.restart_all_deadlines(now_ms);
        }
        if orders.spare_everyone {
            for worker in self.workers.values_mut() {
                self.books.happens(worker, Happening::Spared, now_ms);
                self.books.judge_due(worker);
            }
        }
        for node_id in &orders.evict {
            if let Some(worker) = self.workers.get_mut(node_id) {
                self.books.happens(worker, Happening::Evicted, now_ms);
                self.books.judge_due(worker);
            }
        }
        orders.evict.len()
    }

    fn restart_all_deadlines(&mut self, now_ms: u64) {
        for worker in self.workers.values_mut() {
            self.books.restart_deadline(worker, now_ms);
        }
    }

    /// Up to `limit` changes that are due, taken off the list: whoever takes one
    /// proposes it, and gives it back with [`Roster::not_replicated`] if that fails.
    pub fn take_changes(&mut self, limit: usize) -> Vec<Change> {
        let mut changes = Vec::new();
        while changes.len() < limit {
            let Some(node_id) = self.books.due.pop_first() else {
                break;
            };
            if let Some(worker) = self.workers.get_mut(&node_id) {
                worker.is_due = false;
                changes.push(Change {
                    node_id,
                    state: worker.state,
                    known: worker.replicated,
                });
            }
        }
        changes
    }

    /// A change did not get into the log: it is due again if it still differs.
    pub fn not_replicated(&mut self, node_id: &str) {
        if let Some(worker) = self.workers.get_mut(node_id) {
            self.books.judge_due(worker);
        }
    }

    /// Whether changes are due.
    pub fn has_changes(&self) -> bool {
        !self.books.due.is_empty()
    }

    /// How many workers are in each phase.
    pub fn counts(&self) -> Counts {
        self.books.counts
    }

    /// How many zones are so disrupted.
    pub fn zones(&self, disruption: Disruption) -> usize {
        self.books.zones.count(disruption)
    }

    /// How busy a worker is that beats, as far as it says so.
    pub fn load(&self, node_id: &str, now_ms: u64) -> Option<LoadReport> {
        let worker = self.workers.get(node_id)?;
        let tells = worker.state.phase == Phase::Ready && worker.load != Load::default();
        tells.then(|| LoadReport {
            load: worker.load,
            age_ms: now_ms.saturating_sub(worker.heard_ms),
        })
    }

    /// The phase of one worker.
    pub fn phase(&self, node_id: &str) -> Option<Phase> {
        self.workers.get(node_id).map(|worker| worker.state.phase)
    }

    /// Whether no further worker can be tracked.
    pub fn is_full(&self) -> bool {
        self.workers.len() >= self.books.settings.workers_limit
    }
}

impl Books {
    fn happens(&mut self, worker: &mut Tracked, happening: Happening, now_ms: u64) {
        let before = worker.state.phase;
        let after = before.after(happening);
        if after == before {
            return;
        }
        self.counts.moved(Some(before), Some(after));
        let zone = Arc::clone(&worker.zone);
        self.zones.leave(&zone, &worker.node_id, worker.standing());
        if before.has_deadline() {
            worker.silent_since_ms = now_ms;
        }
        worker.state.phase = after;
        self.zones.enter(&zone, &worker.node_id, worker.standing());
    }

    fn judge_due(&mut self, worker: &mut Tracked) {
        let (state, row) = (&worker.state, &worker.replicated);
        let pods_moved =
            state.running_pods.abs_diff(row.running_pods) >= self.settings.pods_step.max(1);
        let is_due = state.phase != row.phase
            || state.stake != row.stake
            || state.token_expires_at_s != row.token_expires_at_s
            || pods_moved;
        if is_due && !worker.is_due {
            self.due.insert(Arc::clone(&worker.node_id));
        } else if worker.is_due && !is_due {
            self.due.remove(&worker.node_id);
        }
        worker.is_due = is_due;
    }

    fn restart_deadline(&mut self, worker: &mut Tracked, now_ms: u64) {
        let deadline_ms = now_ms.saturating_add(millis(self.settings.lost_after));
        if !worker.state.phase.has_deadline() {
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
            let node_id = Arc::clone(&worker.node_id);
            worker.deadline = self.deadlines.insert(node_id, deadline_ms);
        }
    }

    /// Looks out for the end of the worker's token.
    fn watch_token(&mut self, worker: &mut Tracked) {
        self.watch_end(worker, worker.state.token_expires_at_s);
    }

    fn watch_end(&mut self, worker: &mut Tracked, ends_at_s: Option<u64>) {
        if worker.watched_end_s == ends_at_s {
            return;
        }
        if let Some(end) = worker.watched_end_s {
            self.token_ends.remove(&(end, Arc::clone(&worker.node_id)));
        }
        if let Some(end) = ends_at_s {
            self.token_ends.insert((end, Arc::clone(&worker.node_id)));
        }
        worker.watched_end_s = ends_at_s;
    }

    fn forget(&mut self, worker: &mut Tracked) {
        self.watch_end(worker, None);
        self.counts.moved(Some(worker.state.phase), None);
        self.zones
            .leave(&worker.zone, &worker.node_id, worker.standing());
        if let Some(handle) = worker.deadline {
            self.deadlines.remove(handle);
        }
        if worker.is_due {
            self.due.remove(&worker.node_id);
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
