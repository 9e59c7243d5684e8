//! Rebuilds the machine from its rows, and checks that they are all there.
//!
//! Invariant: a machine is returned only if every row decodes, no row is missing in
//! the stretch that is not compacted, and the keyed sum over all rows is the one
//! that the machine's own row holds: rows added, deleted or put back by somebody
//! who can write the disk are noticed, each authentic row for itself or not.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::digest::{DigestKey, RowSum};
use crate::encoding::{
    Change, CountersRow, MACHINE_ROW, Place, VersionRow, decode_change, decode_counters,
    decode_lease, row_error,
};
use crate::index::{KeyIndex, Life};
use crate::lease::Leases;
use crate::ledger::tiles::Ledger;
use crate::machine::{Machine, MachineError};
use crate::read::Chain;
use crate::rows::{RowError, Rows, Space};
use crate::types::Revision;

impl Machine {
    /// Rebuilds the machine from the rows.
    pub fn restore(key: DigestKey, rows: &dyn Rows) -> Result<Self, MachineError> {
        let counters = read_counters(rows)?;
        let mut leases = restore_leases(&key, rows, &counters)?;
        let index = restore_versions(&key, rows, &counters)?;
        attach_leases(&index, &mut leases)?;
        let ledger = restore_ledger(&key, rows, &counters)?;
        Ok(Self::from_parts(key, index, leases, ledger, &counters))
    }
}

pub(crate) fn read_counters(rows: &dyn Rows) -> Result<CountersRow, MachineError> {
    let row = rows.get(Space::Meta, MACHINE_ROW)?;
    let row =
        row.ok_or_else(|| row_error(Space::Meta, MACHINE_ROW, "the machine's own row is missing"))?;
    Ok(decode_counters(&row)?)
}

pub(crate) fn restore_leases(
    key: &DigestKey,
    rows: &dyn Rows,
    counters: &CountersRow,
) -> Result<Leases, MachineError> {
    let mut leases = Leases::default();
    let mut sum = RowSum::default();
    each(rows, Space::Lease, &[], &mut |row_key, row| {
        let (id, ttl_ms) = decode_lease(row_key, &row)?;
        sum.add(&key.row(Space::Lease, row_key, &row));
        leases.insert(id, ttl_ms);
        Ok(())
    })?;
    if leases.len() != counters.lease_rows {
        return Err(MachineError::Rows(format!(
            "{} leases are there, {} were written",
            leases.len(),
            counters.lease_rows
        )));
    }
    match sum == counters.sums().leases {
        true => Ok(leases),
        false => Err(another_sum("leases")),
    }
}

/// Reads every tile, and takes the ledger's edge from them.
fn restore_ledger(
    key: &DigestKey,
    rows: &dyn Rows,
    counters: &CountersRow,
) -> Result<Ledger, MachineError> {
    let mut sum = RowSum::default();
    each(rows, Space::Ledger, &[], &mut |row_key, row| {
        sum.add(&key.row(Space::Ledger, row_key, &row));
        Ok(())
    })?;
    let ledger = Ledger::restore(&counters.ledger, rows)?;
    match sum == *ledger.sum() {
        true => Ok(ledger),
        false => Err(another_sum("ledger's tiles")),
    }
}

/// Hangs the keys on their leases, as their newest versions say.
pub(crate) fn attach_leases(index: &KeyIndex, leases: &mut Leases) -> Result<(), MachineError> {
    for (name, place, lease) in index.leased() {
        if leases.get(lease).is_none() {
            let reason = format!("it hangs on lease {}, whose row is missing", lease.0);
            return Err(row_error(Space::Revision, &place.row_key(), &reason).into());
        }
        leases.attach(&name, None, Some(lease));
    }
    Ok(())
}

fn restore_versions(
    key: &DigestKey,
    rows: &dyn Rows,
    counters: &CountersRow,
) -> Result<KeyIndex, MachineError> {
    let mut index = KeyIndex::default();
    let whole_from = match counters.loading {
        true => Revision::MAX,
        false => counters.compacted.max(2),
    };
    let mut versions = Versions::new(key, counters, whole_from);
    versions.read(rows, 0, &mut index)?;
    if versions.count != counters.version_rows {
        return Err(MachineError::Rows(format!(
            "{} versions are there, {} were written; those missing are older than the last \
             compaction's revision {}",
            versions.count, counters.version_rows, counters.compacted
        )));
    }
    match versions.sum == counters.sums().versions {
        true => Ok(index),
        false => Err(another_sum("versions")),
    }
}

pub(crate) fn another_sum(what: &str) -> MachineError {
    MachineError::Rows(format!(
        "the keyed sum of the {what} is not the one noted with the last entry: a row was \
         replaced by an older one, or the machine's own row was"
    ))
}

/// Version rows on their way into an index.
pub(crate) struct Versions<'a> {
    key: &'a DigestKey,
    counters: &'a CountersRow,
    /// From this revision on, no row is missing.
    whole_from: Revision,
    chain: Chain,
    pub(crate) count: u64,
    pub(crate) sum: RowSum,
}

impl<'a> Versions<'a> {
    pub(crate) fn new(key: &'a DigestKey, counters: &'a CountersRow, whole_from: Revision) -> Self {
        Self {
            key,
            counters,
            whole_from,
            chain: Chain::starting(whole_from),
            count: 0,
            sum: RowSum::default(),
        }
    }

    /// Reads the rows from revision `from` on into the index.
    pub(crate) fn read(
        &mut self,
        rows: &dyn Rows,
        from: Revision,
        index: &mut KeyIndex,
    ) -> Result<(), MachineError> {
        let start = Place {
            revision: from,
            sub: 0,
        };
        each(
            rows,
            Space::Revision,
            &start.row_key(),
            &mut |row_key, row| {
                let place = Place::from_row_key(row_key)?;
                let version = decode_change(place, &row)?;
                self.check(place, &version)?;
                self.sum.add(&self.key.row(Space::Revision, row_key, &row));
                self.count += 1;
                match version.change {
                    Change::Put(kv) => {
                        let life = Life {
                            create_revision: kv.create_revision,
                            version: kv.version,
                            lease: kv.lease,
                        };
                        index.put(&kv.key, place, |_| life);
                    }
                    Change::Tombstone(name) => {
                        index.delete(&name, place);
                    }
                }
                Ok(())
            },
        )?;
        if self.counters.revision >= self.whole_from {
            self.chain.ends_at(self.counters.revision)?;
        }
        Ok(())
    }

    fn check(&mut self, place: Place, version: &VersionRow) -> Result<(), RowError> {
        let broken = |reason: &str| row_error(Space::Revision, &place.row_key(), reason);
        if place.revision > self.counters.revision && !self.counters.loading {
            return Err(broken(&format!(
                "it is of a revision after the store's, which is {}",
                self.counters.revision
            )));
        }
        if let Change::Put(kv) = &version.change
            && kv.create_revision > place.revision
        {
            return Err(broken("it was created after it was written"));
        }
        if place.revision >= self.whole_from {
            self.chain.follow(place, version.stamp.last)?;
        }
        Ok(())
    }
}

type Visit<'a> = dyn FnMut(&[u8], Bytes) -> Result<(), RowError> + 'a;

/// Visits the rows of a space from a key on, and stops at the first failure.
fn each(rows: &dyn Rows, space: Space, from: &[u8], visit: &mut Visit<'_>) -> Result<(), RowError> {
    let mut failure = None;
    rows.scan(space, from, None, &mut |key, row| match visit(key, row) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failure = Some(error);
            ControlFlow::Break(())
        }
    })?;
    failure.map_or(Ok(()), Err)
}
