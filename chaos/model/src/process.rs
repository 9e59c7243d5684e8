//! One process of a node: what Raft keeps, and what the restart rule adds.

use std::collections::{BTreeMap, BTreeSet};

use nautilus_attest_protocol::restart::{
    Floor, INCARNATION_ID_BYTES, Incarnation, LogPlace, Tail, Testimony,
};

/// What an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// A client's write.
    Data,
    /// The newest epoch of a node.
    Register {
        /// Whose.
        node: u8,
        /// Which.
        epoch: u8,
    },
}

/// An entry of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Logged {
    /// The term of who appended it.
    pub term: u8,
    /// Its content.
    pub what: What,
}

/// What is on a disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Disk {
    /// The highest term.
    pub term: u8,
    /// The vote in it.
    pub voted: Option<u8>,
    /// The log, from index 1.
    pub log: Vec<Logged>,
    /// The newest epochs heard of.
    pub known: BTreeMap<u8, u8>,
}

impl Disk {
    /// The end of the log.
    pub fn last(&self) -> Option<LogPlace> {
        self.place(self.log.len())
    }

    /// The place of the entry at `length`, counted from 1.
    pub fn place(&self, length: usize) -> Option<LogPlace> {
        let entry = self.log.get(length.checked_sub(1)?)?;
        Some(LogPlace {
            term: u64::from(entry.term),
            index: length as u64,
        })
    }
}

/// What a process is to the others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Neither of the others.
    Follower,
    /// Votes counted so far, its own included.
    Candidate(BTreeSet<u8>),
    /// How much of its log each node acknowledged, and how much is committed.
    Leader {
        /// By node.
        acked: BTreeMap<u8, u8>,
        /// Entries.
        committed: u8,
    },
}

/// Whether it takes part.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Not yet: what it was told.
    Returning {
        /// One of each node.
        heard: Vec<Testimony>,
        /// A leader's word.
        registered: Option<LogPlace>,
    },
    /// It does, above a floor.
    Steady(Floor),
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Process {
    /// Whose.
    pub node: u8,
    /// Which life of it.
    pub epoch: u8,
    /// Its disk; written before anything is answered.
    pub disk: Disk,
    /// In its term.
    pub role: Role,
    /// Whether it takes part.
    pub standing: Standing,
    /// It started from a disk that may lack what the node acknowledged.
    pub forgetful: bool,
}

/// An epoch as the rule wants it.
pub(crate) fn incarnation(epoch: u8) -> Incarnation {
    Incarnation {
        epoch: u64::from(epoch),
        id: [0; INCARNATION_ID_BYTES],
    }
}

impl Process {
    /// Hears from a node; false when a newer life of it is known.
    pub fn hear(&mut self, node: u8, epoch: u8) -> bool {
        let known = self.disk.known.entry(node).or_default();
        let fenced = nautilus_attest_protocol::restart::fences(
            Some(incarnation(*known)),
            incarnation(epoch),
        );
        *known = (*known).max(epoch);
        !fenced
    }

    /// The floor it keeps; `None` while it does not take part.
    pub fn floor(&self) -> Option<Floor> {
        match &self.standing {
            Standing::Steady(floor) => Some(*floor),
            Standing::Returning { .. } => None,
        }
    }

    /// Whether it lacks what the node acknowledged, and has not caught up.
    pub fn is_forgetful(&self) -> bool {
        self.forgetful
            && self
                .floor()
                .is_none_or(|floor| !floor.is_reached(self.disk.last()))
    }

    /// What it tells a node that comes back.
    pub fn testify(&self, asker: &Process, known: BTreeMap<u8, u8>) -> Testimony {
        let (mut term, mut last) = (u64::from(self.disk.term), self.disk.last());
        match &self.standing {
            Standing::Steady(floor) => {
                term = term.max(floor.term);
                last = last.max(floor.last);
            }
            Standing::Returning { heard, .. } => {
                term = heard.iter().map(|by| by.term).fold(term, u64::max);
                last = heard.iter().map(|by| by.last).fold(last, Option::max);
            }
        }
        let acknowledged = match &self.role {
            Role::Leader { acked, .. } => acked
                .get(&asker.node)
                .and_then(|upto| self.disk.place(usize::from(*upto))),
            _ => None,
        };
        let end = asker.disk.log.len();
        let same_end = end > 0 && self.disk.place(end) == asker.disk.last();
        let tail = match same_end {
            false => Tail::Unknown,
            true if self.disk.log[..end] == asker.disk.log[..] => Tail::Same,
            true => Tail::Different,
        };
        Testimony {
            node: u64::from(self.node),
            incarnation: incarnation(self.epoch),
            known: known
                .into_iter()
                .map(|(node, epoch)| (u64::from(node), incarnation(epoch)))
                .collect(),
            term,
            last,
            acknowledged,
            tail,
        }
    }

    /// Appends and hears of what is registered, before anybody is told.
    pub fn store_log(&mut self, log: Vec<Logged>) {
        for entry in &log {
            if let What::Register { node, epoch } = entry.what {
                self.hear(node, epoch);
            }
        }
        self.disk.log = log;
    }
}
