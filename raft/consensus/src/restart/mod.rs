//! Coming back: a node whose process was started again proves to its peers what it had
//! promised before it promises anything new. The rule is
//! [`nautilus_attest_protocol::restart`]; this is its shell.
//!
//! ```text
//!   Returning ──(leader registered it | all voters testified | counter)──► Floored
//!       ▲ every start                            log reached the floor │
//!       └──────────── outlived: the process ends ◄──────── Steady ◄────┘
//! ```
//! While `Returning` nothing of Raft is taken or said. `Floored`, the node takes entries
//! (and says truly what it holds), but votes only above its floor and never stands for
//! election. Every call between members carries the caller's incarnation, every answer
//! the answerer's; whoever is outlived is refused, and ends when it hears so.
//!
//! Invariants
//! - Incarnations a node testified under are on its disk before it testifies.
//! - An incarnation that stands in an entry is heard before that entry is acknowledged.
//! - A leader tells a node that it is registered only once that entry is committed, and
//!   the node has acknowledged nothing until then.

mod alone;
mod ask;
mod lives;
mod register;
mod testify;

use nautilus_attest_protocol::restart::{Floor, Freshness, LogPlace, Rejoin, Testimony};
use nautilus_machine::LogPosition;
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::Status;

pub(crate) use alone::stand_alone;
pub(crate) use ask::come_back;
pub(crate) use lives::{HEADER, Lives, LogEnd, Stamp, incarnation_of};
pub(crate) use register::{Registrar, register_lives};
pub(crate) use testify::{log_end, readmit, testify};

/// Entries at the end of the log whose hashes are chained and compared.
const TAIL_ENTRIES: u64 = 64;

/// How far a started node takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not at all.
    Returning,
    /// Above a floor that its log has not reached.
    Floored(Floor),
    /// As every other node.
    Steady,
}

/// What the restart protocol keeps of this process.
pub(crate) struct Restart {
    standing: watch::Sender<Standing>,
    /// The highest of what was heard while returning.
    told: Mutex<Floor>,
    /// A leader's word: the entry is its testimony's end.
    registered: watch::Sender<Option<Testimony>>,
    rejoined: watch::Sender<Option<Rejoin>>,
    freshness: Freshness,
}

impl Restart {
    pub(crate) fn new(lives: &Lives, log: &LogEnd) -> Self {
        let freshness = match lives.proven() == Some(log) {
            true => Freshness::Proven,
            false => Freshness::Unproven,
        };
        metrics::gauge!("nautilus_restart_returning").set(1.0);
        Self {
            standing: watch::channel(Standing::Returning).0,
            told: Mutex::default(),
            registered: watch::channel(None).0,
            rejoined: watch::channel(None).0,
            freshness,
        }
    }

    pub(crate) fn standing(&self) -> Standing {
        *self.standing.borrow()
    }

    /// How it came back, when it has.
    pub(crate) fn rejoined(&self) -> watch::Receiver<Option<Rejoin>> {
        self.rejoined.subscribe()
    }

    fn stand(&self, standing: Standing) {
        let returning = f64::from(u8::from(standing == Standing::Returning));
        metrics::gauge!("nautilus_restart_returning").set(returning);
        self.standing.send_replace(standing);
    }

    /// A node that founds a quorum has promised nothing.
    pub(crate) fn found(&self) {
        self.stand(Standing::Steady);
    }

    /// Whether entries are taken.
    pub(crate) fn takes_part(&self, own: u64) -> Result<(), Status> {
        match self.standing() {
            Standing::Returning => Err(not_back(own)),
            Standing::Floored(_) | Standing::Steady => Ok(()),
        }
    }

    /// Whether a vote in `term` for a log that ends at `last` may be given.
    pub(crate) fn may_vote(
        &self,
        own: u64,
        term: u64,
        last: Option<LogPosition>,
    ) -> Result<(), Status> {
        self.takes_part(own)?;
        match self.standing() {
            Standing::Floored(floor) if !floor.admits(term, last.map(place)) => {
                Err(Status::unavailable(format!(
                    "node {own} came back and votes for no log that may lack what it acknowledged"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Whether it may stand for election.
    pub(crate) fn may_stand(&self) -> bool {
        self.standing() == Standing::Steady
    }
}

/// In the refusal of a node that has not come back.
const RETURNING: &str = "nautilus-returning";

fn not_back(own: u64) -> Status {
    let mut status = Status::unavailable(format!(
        "node {own} was started again and has not come back yet"
    ));
    let waits = tonic::metadata::MetadataValue::from_static("1");
    status.metadata_mut().insert(RETURNING, waits);
    status
}

/// Whether a refusal says that the node has not come back.
pub(crate) fn is_returning(status: &Status) -> bool {
    status.metadata().contains_key(RETURNING)
}

pub(crate) fn place(position: LogPosition) -> LogPlace {
    LogPlace {
        term: position.term,
        index: position.index,
    }
}

pub(crate) fn position_of(place: LogPlace) -> LogPosition {
    LogPosition {
        term: place.term,
        index: place.index,
    }
}
