//! Loading: an empty store takes over the keys of another as they were there, with
//! their revisions, versions and leases.
//!
//! The keys come in pieces, in any order. Until the last of them nothing else is
//! written; then the store stands at the revision given, compacted there.
//!
//! Every loaded version stands at its own revision, at the next position that is free
//! in it. So that the revision at which the store then stands is whole (its last row is
//! marked as last), it ends with a deletion of one of the quorum's own keys, which never
//! was; the next compaction removes it.
//!
//! Invariants
//! - A piece that is refused has changed nothing.
//! - A piece that comes twice, whole, is the same as once: whoever loads may try again
//!   when an answer was lost.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::encoding::{Change, Place, Stamp};
use crate::index::Life;
use crate::machine::{Machine, MachineError};
use crate::outcome::{Outcome, Refusal};
use crate::read::Sight;
use crate::rows::{RowBatch, RowError, Rows, Space};
use crate::types::{KeyValue, LeaseId, LogPosition, Revision};

/// Keys and leases that one piece has at most.
pub const LOAD_ITEMS_MAX: usize = 100_000;

/// The key whose deletion ends the last revision of a load.
const LOADED_MARK: &[u8] = b"/nautilus/loaded";

/// What one [`crate::Command::Load`] brings.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'a> {
    pub(crate) kvs: &'a [KeyValue],
    pub(crate) leases: &'a [(LeaseId, u64)],
    pub(crate) last: Option<Revision>,
}

impl Machine {
    pub(crate) fn load(
        &mut self,
        log: LogPosition,
        piece: Piece<'_>,
        rows: &dyn Rows,
        batch: &mut RowBatch,
    ) -> Result<Outcome, MachineError> {
        let Piece { kvs, leases, last } = piece;
        let is_empty = self.revision() == 1 && self.leases().len() == 0;
        if !self.is_loading() && !is_empty {
            return Ok(Outcome::Refused(Refusal::NotEmpty {
                revision: self.revision(),
            }));
        }
        let sight = Sight {
            rows,
            batch: Some(batch),
        };
        let new = match self.check_load(kvs, leases, last, sight)? {
            Ok(new) => new,
            Err(reason) => return Ok(Outcome::Refused(Refusal::LoadInvalid { reason })),
        };
        for (id, ttl_ms) in leases {
            if self.leases().get(*id).is_none() {
                self.add_lease(*id, *ttl_ms, batch);
            }
        }
        let mut subs = Subs::default();
        for kv in new {
            let sub = subs.next(kv.mod_revision, rows, batch)?;
            let place = Place {
                revision: kv.mod_revision,
                sub,
            };
            self.load_version(kv, place, log, batch);
        }
        self.set_loading(None);
        if let Some(revision) = last {
            let sub = subs.next(revision, rows, batch)?;
            self.end_load(Place { revision, sub }, log, batch);
        }
        Ok(Outcome::Done)
    }

    /// The keys that are new, or what is wrong.
    fn check_load<'a>(
        &self,
        kvs: &'a [KeyValue],
        leases: &[(LeaseId, u64)],
        last: Option<Revision>,
        sight: Sight<'_>,
    ) -> Result<Result<Vec<&'a KeyValue>, String>, RowError> {
        if kvs.len() + leases.len() > LOAD_ITEMS_MAX {
            return Ok(Err(format!(
                "a piece of {} keys and leases is larger than the limit of {LOAD_ITEMS_MAX}",
                kvs.len() + leases.len()
            )));
        }
        let here = match self.check_leases(leases) {
            Ok(here) => here,
            Err(reason) => return Ok(Err(reason)),
        };
        let latest = self.index().changed();
        if last.is_some_and(|last| last < latest.max(1)) {
            return Ok(Err(format!(
                "the last revision, {}, is before revision {latest}, which was loaded",
                last.unwrap_or_default()
            )));
        }
        let lives = |id: LeaseId| self.leases().get(id).is_some() || here.contains_key(&id);
        let mut seen: BTreeSet<&[u8]> = BTreeSet::new();
        let mut new = Vec::with_capacity(kvs.len());
        for kv in kvs {
            if let Err(wrong) = check_version(kv, last, lives) {
                return Ok(Err(format!("key {}: {wrong}", printable(&kv.key))));
            }
            if !seen.insert(&kv.key) {
                return Ok(Err(format!("key {} comes twice", printable(&kv.key))));
            }
            match self.index().living(&kv.key) {
                None => new.push(kv),
                Some((place, _)) if sight.put(&kv.key, place)? == *kv => {}
                Some((place, _)) => {
                    return Ok(Err(format!(
                        "key {} was loaded already, as another version (of revision {})",
                        printable(&kv.key),
                        place.revision
                    )));
                }
            }
        }
        Ok(Ok(new))
    }

    fn check_leases(&self, leases: &[(LeaseId, u64)]) -> Result<BTreeMap<LeaseId, u64>, String> {
        let mut seen = BTreeMap::new();
        for (id, ttl_ms) in leases {
            if id.0 == 0 || *ttl_ms == 0 {
                return Err(format!(
                    "lease {} of {ttl_ms} ms: id and time to live must not be 0",
                    id.0
                ));
            }
            let loaded = self.leases().get(*id).map(|lease| lease.ttl_ms);
            let before = seen.insert(*id, *ttl_ms).or(loaded);
            if before.is_some_and(|before| before != *ttl_ms) {
                return Err(format!(
                    "lease {} was loaded already, with another time",
                    id.0
                ));
            }
        }
        Ok(seen)
    }

    fn load_version(
        &mut self,
        kv: &KeyValue,
        place: Place,
        log: LogPosition,
        batch: &mut RowBatch,
    ) {
        let life = Life {
            create_revision: kv.create_revision,
            version: kv.version,
            lease: kv.lease,
        };
        let before = self.index_mut().put(&kv.key, place, |_| life);
        assert!(before.is_none(), "a key was loaded twice");
        self.leases_mut().attach(&kv.key, None, kv.lease);
        let mut stamp = Stamp::new(log, false);
        stamp.loaded = true;
        self.write_version(place, &Change::Put(kv.clone()), stamp, batch);
    }

    fn end_load(&mut self, place: Place, log: LogPosition, batch: &mut RowBatch) {
        let mark = Bytes::from_static(LOADED_MARK);
        self.set_loading(Some(place.revision));
        let before = self.index_mut().delete(&mark, place);
        assert!(before.is_none(), "the mark of a load was loaded");
        let stamp = Stamp::new(log, true);
        self.write_version(place, &Change::Tombstone(mark), stamp, batch);
    }
}

fn check_version(
    kv: &KeyValue,
    last: Option<Revision>,
    lives: impl Fn(LeaseId) -> bool,
) -> Result<(), String> {
    let (created, modified, version) = (kv.create_revision, kv.mod_revision, kv.version);
    if kv.key.is_empty() {
        return Err("it is empty".to_owned());
    }
    if kv.key == LOADED_MARK {
        return Err("it is the mark of a load".to_owned());
    }
    if created < 2 || modified < created || version == 0 {
        return Err(format!(
            "create revision {created}, mod revision {modified} and version {version} are not \
             those of a version"
        ));
    }
    if last.is_some_and(|last| modified > last) {
        return Err(format!(
            "mod revision {modified} is after the last revision, {}",
            last.unwrap_or_default()
        ));
    }
    match kv.lease {
        Some(id) if !lives(id) => Err(format!("lease {} was not loaded", id.0)),
        _ => Ok(()),
    }
}

/// The next free position of each revision.
#[derive(Default)]
struct Subs {
    known: BTreeMap<Revision, u32>,
}

impl Subs {
    fn next(
        &mut self,
        revision: Revision,
        rows: &dyn Rows,
        batch: &RowBatch,
    ) -> Result<u32, RowError> {
        let sub = match self.known.get(&revision) {
            Some(sub) => *sub,
            None => first_free(revision, rows, batch)?,
        };
        self.known.insert(revision, sub + 1);
        Ok(sub)
    }
}

/// Positions of a revision are taken from 0 on without a gap: found by doubling, then
/// by halving.
fn first_free(revision: Revision, rows: &dyn Rows, batch: &RowBatch) -> Result<u32, RowError> {
    let sight = Sight {
        rows,
        batch: Some(batch),
    };
    let is_taken = |sub: u32| {
        let place = Place { revision, sub };
        let row = sight.get(Space::Revision, &place.row_key())?;
        Ok::<bool, RowError>(row.is_some())
    };
    if !is_taken(0)? {
        return Ok(0);
    }
    let (mut taken, mut free) = (0, 1);
    while is_taken(free)? {
        taken = free;
        free *= 2;
    }
    while free - taken > 1 {
        let middle = taken.midpoint(free);
        if is_taken(middle)? {
            taken = middle;
        } else {
            free = middle;
        }
    }
    Ok(free)
}

/// A key in a message: its first bytes, escaped.
fn printable(key: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 64;
    let shown = &key[..key.len().min(SHOWN_BYTES_MAX)];
    let more = if shown.len() < key.len() { "..." } else { "" };
    format!("\"{}{more}\"", shown.escape_ascii())
}
