//! Leases: keys that end together unless somebody keeps them alive.
//!
//! A lease's deadline is `max(renewed, extended) + ttl`, where `extended` is the
//! time of the last [`crate::Command::ExtendLeases`]: extending all of them writes
//! no row.
//!
//! Invariants
//! - A key hangs on the lease of its newest version, and on no other.
//! - `deadlines` holds every lease exactly once, at its deadline.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::types::{LeaseId, UnixMillis};

/// One lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) ttl_ms: u64,
    pub(crate) renewed: UnixMillis,
    pub(crate) keys: BTreeSet<Bytes>,
}

/// What can be known of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseView {
    /// Which.
    pub id: LeaseId,
    /// Its whole time to live in milliseconds.
    pub ttl_ms: u64,
    /// When it ends unless kept alive.
    pub deadline: UnixMillis,
    /// The keys that end with it, in order.
    pub keys: Vec<Bytes>,
}

/// All leases.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Leases {
    leases: BTreeMap<LeaseId, Lease>,
    deadlines: BTreeSet<(UnixMillis, LeaseId)>,
    extended: UnixMillis,
}

impl Leases {
    pub(crate) fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id)
    }

    pub(crate) fn len(&self) -> u64 {
        self.leases.len() as u64
    }

    pub(crate) fn extended(&self) -> UnixMillis {
        self.extended
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = LeaseId> {
        self.leases.keys().copied()
    }

    pub(crate) fn view(&self, id: LeaseId) -> Option<LeaseView> {
        let lease = self.leases.get(&id)?;
        Some(LeaseView {
            id,
            ttl_ms: lease.ttl_ms,
            deadline: self.deadline(lease),
            keys: lease.keys.iter().cloned().collect(),
        })
    }

    /// Adds a lease that does not live.
    pub(crate) fn insert(&mut self, id: LeaseId, ttl_ms: u64, renewed: UnixMillis) {
        let lease = Lease {
            ttl_ms,
            renewed,
            keys: BTreeSet::new(),
        };
        self.deadlines.insert((self.deadline(&lease), id));
        let before = self.leases.insert(id, lease);
        assert!(before.is_none(), "lease {} granted twice", id.0);
    }

    /// Starts the time of a living lease anew.
    pub(crate) fn renew(&mut self, id: LeaseId, time: UnixMillis) {
        let before = self.leases.get(&id).map(|lease| self.deadline(lease));
        let Some(before) = before else {
            panic!("lease {} renewed after its end", id.0)
        };
        self.deadlines.remove(&(before, id));
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.renewed = time;
        }
        let after = self.leases.get(&id).map(|lease| self.deadline(lease));
        self.deadlines.extend(after.map(|deadline| (deadline, id)));
    }

    pub(crate) fn remove(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.leases.remove(&id)?;
        self.deadlines.remove(&(self.deadline(&lease), id));
        Some(lease)
    }

    /// No deadline is before `time` + time to live from now on.
    pub(crate) fn extend_all(&mut self, time: UnixMillis) {
        self.extended = self.extended.max(time);
        self.deadlines = self
            .leases
            .iter()
            .map(|(id, lease)| (self.deadline(lease), *id))
            .collect();
    }

    /// Leases whose deadline is not after `time`, by deadline.
    pub(crate) fn due(&self, time: UnixMillis) -> Vec<LeaseId> {
        self.deadlines
            .iter()
            .take_while(|(deadline, _)| *deadline <= time)
            .map(|(_, id)| *id)
            .collect()
    }

    /// The earliest deadline.
    pub(crate) fn next_deadline(&self) -> Option<UnixMillis> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Moves `key` from one lease to another.
    pub(crate) fn attach(&mut self, key: &Bytes, from: Option<LeaseId>, to: Option<LeaseId>) {
        if from == to {
            return;
        }
        if let Some(lease) = from.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.remove(key);
        }
        if let Some(id) = to {
            let Some(lease) = self.leases.get_mut(&id) else {
                panic!("a key was attached to lease {}, which has ended", id.0)
            };
            lease.keys.insert(key.clone());
        }
    }

    fn deadline(&self, lease: &Lease) -> UnixMillis {
        UnixMillis(
            lease
                .renewed
                .max(self.extended)
                .0
                .saturating_add(lease.ttl_ms),
        )
    }
}
