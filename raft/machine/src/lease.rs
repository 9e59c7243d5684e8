//! Leases: keys that end together.
//!
//! The machine knows a lease's time to live, and not when it ends: the leader keeps
//! that in its memory, and says which leases have ended by
//! [`crate::Command::ExpireLeases`].
//!
//! Invariant: a key hangs on the lease of its newest version, and on no other.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::types::LeaseId;

/// One lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) ttl_ms: u64,
    pub(crate) keys: BTreeSet<Bytes>,
}

/// What can be known of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseView {
    /// Which.
    pub id: LeaseId,
    /// Its whole time to live in milliseconds.
    pub ttl_ms: u64,
    /// The keys that end with it, in order.
    pub keys: Vec<Bytes>,
}

/// All leases.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Leases {
    leases: BTreeMap<LeaseId, Lease>,
}

impl Leases {
    pub(crate) fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id)
    }

    pub(crate) fn len(&self) -> u64 {
        self.leases.len() as u64
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = LeaseId> {
        self.leases.keys().copied()
    }

    pub(crate) fn times(&self) -> impl Iterator<Item = (LeaseId, u64)> {
        self.leases.iter().map(|(id, lease)| (*id, lease.ttl_ms))
    }

    pub(crate) fn view(&self, id: LeaseId) -> Option<LeaseView> {
        let lease = self.leases.get(&id)?;
        Some(LeaseView {
            id,
            ttl_ms: lease.ttl_ms,
            keys: lease.keys.iter().cloned().collect(),
        })
    }

    /// Adds a lease that does not live.
    pub(crate) fn insert(&mut self, id: LeaseId, ttl_ms: u64) {
        let lease = Lease {
            ttl_ms,
            keys: BTreeSet::new(),
        };
        let before = self.leases.insert(id, lease);
        assert!(before.is_none(), "lease {} granted twice", id.0);
    }

    /// Ends a lease; its keys, which are to be deleted, hang on nothing from here on.
    pub(crate) fn take_keys(&mut self, id: LeaseId) -> Option<Lease> {
        self.leases.remove(&id)
    }

    /// Moves `key` from one lease, if it still lives, to another.
    pub(crate) fn attach(&mut self, key: &[u8], from: Option<LeaseId>, to: Option<LeaseId>) {
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
            // A copy of its own, so that a large request is not kept alive by it.
            lease.keys.insert(Bytes::copy_from_slice(key));
        }
    }
}
