//! API priority and fairness: who is served next when all can't be served at once.
//!
//! Source: KEP-1040. Requests are put into flows by flow schemas ([`schema`]), flows
//! into priority levels, whose seats ([`seats`]) are handed out by fair queues
//! ([`queues`]) among their flows.
//!
//! Pure: arrivals, ends and configurations in, tickets that may run out.
//!
//! Invariants
//! - Seats taken by all limited levels never exceed the sum of their nominal seats.
//! - A level can always use the seats it does not lend, whatever the others do.
//! - Within a flow requests are started in the order they came in; every flow with
//!   waiting requests is served in turn.

pub mod defaults;
mod queues;
mod schema;
mod seats;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use queues::Ticket;
pub use schema::{About, Classified, Digest, Flow, FlowSchema, PriorityLevel, Queuing, Schemas};
pub use seats::Share;

use queues::{Enqueued, LevelQueues};

/// What became of a request that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It runs; [`Fairness::finish`] must be called when it is done.
    Runs(Ticket),
    /// It waits; [`Fairness::start_next`] or [`Fairness::finish`] will name it, unless
    /// [`Fairness::give_up`] comes first.
    Waits(Ticket),
    /// There is no room: the level rejects or its queues are full.
    Refused(Refusal),
}

/// Why there is no room; as the reference's metrics have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The queues of the flow's hand are full.
    QueueFull,
    /// The level has no queues.
    ConcurrencyLimit,
}

impl Refusal {
    /// The metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::ConcurrencyLimit => "concurrency-limit",
        }
    }
}

/// One level as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelView {
    /// Its share of the seats.
    pub share: Share,
    /// Seats taken by running requests.
    pub used: u64,
    /// Requests that run.
    pub running: u64,
    /// Requests that wait.
    pub waiting: u64,
}

#[derive(Debug)]
struct Level {
    share: Share,
    queues: LevelQueues,
    /// Its configuration is gone; it stays until nothing of it runs or waits.
    retired: bool,
}

/// The state of one server.
#[derive(Debug)]
pub struct Fairness {
    /// Seats of the server.
    total: u64,
    levels: BTreeMap<Arc<str>, Level>,
    next_ticket: u64,
}

impl Fairness {
    /// A server of so many seats.
    pub fn new(total: u64, levels: &[PriorityLevel]) -> Self {
        let mut fairness = Self {
            total,
            levels: BTreeMap::new(),
            next_ticket: 0,
        };
        fairness.configure(levels);
        fairness
    }

    /// Takes on other levels. What waits in one that is gone is still served.
    pub fn configure(&mut self, levels: &[PriorityLevel]) {
        let shares = seats::shares(self.total, levels);
        for level in self.levels.values_mut() {
            level.retired = true;
            level.share = Share::RETIRED;
        }
        for (wanted, share) in levels.iter().zip(shares) {
            match self.levels.get_mut(&wanted.name) {
                Some(level) => {
                    level.retired = false;
                    level.share = share;
                    level.queues.configure(wanted.queuing);
                }
                None => {
                    let level = Level {
                        share,
                        queues: LevelQueues::new(wanted.queuing),
                        retired: false,
                    };
                    self.levels.insert(wanted.name.clone(), level);
                }
            }
        }
        self.reap();
    }

    /// The most seats that one request of the level may take.
    pub fn max_seats(&self, level: &str) -> u64 {
        self.levels.get(level).map_or(1, |level| {
            let nominal = level.share.nominal;
            let hand = level.queues.hand_size().max(1);
            (nominal * 15 / 100).min(nominal / hand).max(1)
        })
    }

    /// A request of a flow comes in and wants seats (at least one).
    pub fn arrive(&mut self, level: &str, flow: u64, seats: u64) -> Arrival {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let seats = seats.max(1);
        let free = self.may_start(level, seats);
        let Some(found) = self.levels.get_mut(level) else {
            return Arrival::Refused(Refusal::ConcurrencyLimit);
        };
        if free && found.queues.is_idle() {
            found.queues.run(ticket, seats);
            return Arrival::Runs(ticket);
        }
        match found.queues.enqueue(ticket, flow, seats) {
            Enqueued::Waits => Arrival::Waits(ticket),
            Enqueued::Full => Arrival::Refused(Refusal::QueueFull),
            Enqueued::NoQueues if free => {
                found.queues.run(ticket, seats);
                Arrival::Runs(ticket)
            }
            Enqueued::NoQueues => Arrival::Refused(Refusal::ConcurrencyLimit),
        }
    }

    /// A running request is done: its seats are free.
    pub fn finish(&mut self, level: &str, ticket: Ticket) {
        if let Some(found) = self.levels.get_mut(level) {
            found.queues.finish(ticket);
        }
        self.reap();
    }

    /// A waiting request does not wait any longer. False if it runs by now.
    pub fn give_up(&mut self, level: &str, ticket: Ticket) -> bool {
        let left = self
            .levels
            .get_mut(level)
            .is_some_and(|found| found.queues.remove(ticket));
        self.reap();
        left
    }

    /// The next waiting request that may run, which runs from now on. Levels below
    /// their nominal seats come first: who lent seats has them back before others
    /// borrow.
    pub fn start_next(&mut self) -> Option<Ticket> {
        let mut borrower = None;
        let mut chosen = None;
        for (name, level) in &self.levels {
            let Some(seats) = level.queues.next_seats() else {
                continue;
            };
            if !self.may_start(name, seats) {
                continue;
            }
            if level.queues.used() + seats <= level.share.nominal {
                chosen = Some(name.clone());
                break;
            }
            borrower.get_or_insert_with(|| name.clone());
        }
        let name = chosen.or(borrower)?;
        self.levels.get_mut(&name)?.queues.dispatch()
    }

    /// Whether a level may start a request of so many seats now.
    fn may_start(&self, name: &str, seats: u64) -> bool {
        let Some(level) = self.levels.get(name) else {
            return false;
        };
        if level.share.exempt {
            return true;
        }
        let used = level.queues.used();
        // A request wider than its level runs when it is alone there.
        let fits = used + seats <= level.share.upper || used == 0;
        let wanted = (used + seats).min(level.share.upper.max(used));
        let others: u64 = self
            .levels
            .iter()
            .filter(|(other, level)| &***other != name && !level.share.exempt)
            .map(|(_, other)| other.share.kept(other.queues.used()))
            .sum();
        fits && others + level.share.kept(wanted) <= self.capacity()
    }

    /// Seats of all limited levels: their nominal ones.
    pub fn capacity(&self) -> u64 {
        self.levels
            .values()
            .filter(|level| !level.share.exempt)
            .map(|level| level.share.nominal)
            .sum()
    }

    /// Every level as it stands, by name.
    pub fn levels(&self) -> impl Iterator<Item = (&Arc<str>, LevelView)> {
        self.levels.iter().map(|(name, level)| {
            let view = LevelView {
                share: level.share,
                used: level.queues.used(),
                running: level.queues.running(),
                waiting: level.queues.waiting(),
            };
            (name, view)
        })
    }

    fn reap(&mut self) {
        self.levels.retain(|_, level| {
            !level.retired || level.queues.running() > 0 || level.queues.waiting() > 0
        });
    }
}

#[cfg(test)]
mod tests;
