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
    Change, CountersRow, MACHINE_ROW, Place, decode_change, decode_counters, decode_lease,
    row_error,
};
use crate::index::{KeyIndex, Life};
use crate::lease::Leases;
use crate::machine::{Machine, MachineError};
use crate::read::Chain;
use crate::rows::{RowError, Rows, Space};
use crate::types::LeaseId;

impl Machine {
    /// Rebuilds the machine from the rows.
    pub fn restore(key: DigestKey, rows: &dyn Rows) -> Result<Self, MachineError> {
        let counters = rows.get(Space::Meta, MACHINE_ROW)?.ok_or_else(|| {
            row_error(Space::Meta, MACHINE_ROW, "the machine's own row is missing")
        })?;
        let counters = decode_counters(&counters)?;
        let mut sum = RowSum::default();
        let mut leases = restore_leases(&key, rows, &counters, &mut sum)?;
        let (index, attached) = restore_versions(&key, rows, &counters, &mut sum)?;
        for (name, place, lease) in attached {
            if leases.get(lease).is_none() {
                let reason = format!("it hangs on lease {}, whose row is missing", lease.0);
                return Err(row_error(Space::Revision, &place.row_key(), &reason).into());
            }
            leases.attach(&name, None, Some(lease));
        }
        if sum.to_bytes() != counters.row_sum {
            return Err(MachineError::Rows(
                "their keyed sum is not the one noted with the last entry: a row was replaced \
                 by an older one, or the machine's own row was"
                    .to_owned(),
            ));
        }
        Ok(Self::from_parts(key, index, leases, &counters))
    }
}

fn restore_leases(
    key: &DigestKey,
    rows: &dyn Rows,
    counters: &CountersRow,
    sum: &mut RowSum,
) -> Result<Leases, MachineError> {
    let mut leases = Leases::default();
    each(rows, Space::Lease, &mut |row_key, row| {
        let (id, ttl_ms, renewed) = decode_lease(row_key, &row)?;
        sum.add(&key.row(Space::Lease, row_key, &row));
        leases.insert(id, ttl_ms, renewed);
        Ok(())
    })?;
    leases.extend_all(counters.leases_extended);
    if leases.len() != counters.lease_rows {
        return Err(MachineError::Rows(format!(
            "{} leases are there, {} were written",
            leases.len(),
            counters.lease_rows
        )));
    }
    Ok(leases)
}

type Attached = Vec<(Bytes, Place, LeaseId)>;

fn restore_versions(
    key: &DigestKey,
    rows: &dyn Rows,
    counters: &CountersRow,
    sum: &mut RowSum,
) -> Result<(KeyIndex, Attached), MachineError> {
    let mut index = KeyIndex::default();
    let mut count = 0u64;
    let first_whole = counters.compacted.max(2);
    let mut chain = Chain::starting(first_whole);
    each(rows, Space::Revision, &mut |row_key, row| {
        let place = Place::from_row_key(row_key)?;
        let version = decode_change(place, &row)?;
        if place.revision > counters.revision {
            let reason = format!(
                "it is of a revision after the store's, which is {}",
                counters.revision
            );
            return Err(row_error(Space::Revision, row_key, &reason));
        }
        if place.revision >= first_whole {
            chain.follow(place, version.last)?;
        }
        sum.add(&key.row(Space::Revision, row_key, &row));
        count += 1;
        match version.change {
            Change::Put(kv) => {
                let life = Life {
                    create_revision: kv.create_revision,
                    version: kv.version,
                    lease: kv.lease,
                };
                index.put(&kv.key, place, life);
            }
            Change::Tombstone(name) => index.delete(&name, place),
        }
        Ok(())
    })?;
    if counters.revision >= first_whole {
        chain.ends_at(counters.revision)?;
    }
    if count != counters.version_rows {
        return Err(MachineError::Rows(format!(
            "{count} versions are there, {} were written; those missing are older than the last \
             compaction's revision {}",
            counters.version_rows, counters.compacted
        )));
    }
    let attached = index
        .living()
        .filter_map(|(name, place, life)| Some((name.clone(), place, life.lease?)))
        .collect();
    Ok((index, attached))
}

type Visit<'a> = dyn FnMut(&[u8], Bytes) -> Result<(), RowError> + 'a;

/// Visits every row of a space, and stops at the first failure.
fn each(rows: &dyn Rows, space: Space, visit: &mut Visit<'_>) -> Result<(), RowError> {
    let mut failure = None;
    rows.scan(space, &[], None, &mut |key, row| match visit(key, row) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failure = Some(error);
            ControlFlow::Break(())
        }
    })?;
    failure.map_or(Ok(()), Err)
}
