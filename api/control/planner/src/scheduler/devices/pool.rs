//! Pools of devices as a node finds them.
//!
//! Invariant: only slices of a pool's newest generation count, and only if all of them are
//! there.

use std::collections::{BTreeMap, BTreeSet};

use super::super::node::NodeInfo;
use super::inventory::Inventory;
use super::slice::{Device, PoolId, Slice};

/// Whether devices can be had of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PoolState {
    Usable,
    /// Its driver is about to write it.
    Incomplete,
    /// Its slices contradict each other.
    Invalid,
}

/// A pool that a node can reach.
#[derive(Debug)]
pub(super) struct Pool<'a> {
    pub(super) id: &'a PoolId,
    pub(super) state: PoolState,
    /// Those of its slices with devices that the node can reach, by name.
    pub(super) slices: Vec<&'a Slice>,
    /// The others.
    elsewhere: Vec<&'a Slice>,
    /// What there is, in nanounits, by counter set and counter.
    counters: BTreeMap<&'a str, &'a BTreeMap<String, i128>>,
}

/// Counters by set and name.
pub(super) type Counters<'a> = BTreeMap<(&'a str, &'a str), i128>;

impl<'a> Pool<'a> {
    /// All that a node can reach: by name, those with devices that are only ready some time
    /// after they are allocated last.
    pub(super) fn all(inventory: &'a Inventory, node: &NodeInfo) -> Vec<Self> {
        let pools = inventory.pools_near(&node.name).into_iter();
        let pools = pools.filter_map(|id| Self::of(inventory, id, node));
        let (late, now): (Vec<Self>, Vec<Self>) = pools.partition(Self::has_conditions);
        now.into_iter().chain(late).collect()
    }

    fn of(inventory: &'a Inventory, id: &'a PoolId, node: &NodeInfo) -> Option<Self> {
        let near: Vec<&Slice> = inventory
            .slices_of(id)
            .filter(|own| own.reaches(node))
            .collect();
        let generation = near.iter().map(|own| own.generation).max()?;
        let is_current = |own: &&Slice| own.generation == generation;
        let near: Vec<&Slice> = near.into_iter().filter(is_current).collect();
        let count = near.first()?.slices;
        let mut far = Vec::new();
        if near.len() != count {
            let mut all = inventory.slices_of(id);
            if all.any(|own| own.generation > generation) {
                return None;
            }
            let all = inventory.slices_of(id).filter(is_current);
            far = all.filter(|own| !own.reaches(node)).collect();
        }
        let mut pool = Self {
            id,
            state: PoolState::Usable,
            slices: Vec::new(),
            elsewhere: Vec::new(),
            counters: BTreeMap::new(),
        };
        if near.len() + far.len() != count {
            pool.state = PoolState::Incomplete;
            return Some(pool);
        }
        for (slices, is_near) in [(near, true), (far, false)] {
            for slice in slices {
                match (slice.counters.is_empty(), is_near) {
                    (true, true) => pool.slices.push(slice),
                    (true, false) => pool.elsewhere.push(slice),
                    (false, _) if !pool.add_counters(slice) => pool.state = PoolState::Invalid,
                    (false, _) => {}
                }
            }
        }
        if !pool.is_sound() {
            pool.state = PoolState::Invalid;
        }
        if pool.state == PoolState::Invalid {
            pool.slices.clear();
        }
        Some(pool)
    }

    /// `false`: there is one of its name.
    fn add_counters(&mut self, slice: &'a Slice) -> bool {
        let mut sets = slice.counters.iter();
        sets.all(|(name, own)| self.counters.insert(name, own).is_none())
    }

    /// Whether names of devices are unique, and what they take of counters is there.
    fn is_sound(&self) -> bool {
        let mut names = BTreeSet::new();
        let mut own = self.slices.iter().flat_map(|own| &own.devices);
        own.all(|device| names.insert(&device.id.device))
            && self.devices().all(|device| {
                device.consumes.iter().all(|(set, taken)| {
                    let there = self.counters.get(set.as_str());
                    there.is_some_and(|there| taken.keys().all(|own| there.contains_key(own)))
                })
            })
    }

    fn devices(&self) -> impl Iterator<Item = &'a Device> {
        let slices = self.slices.iter().chain(&self.elsewhere);
        slices.flat_map(|own| &own.devices)
    }

    fn has_conditions(&self) -> bool {
        let mut devices = self.slices.iter().flat_map(|own| &own.devices);
        devices.any(|own| own.conditions.is_some())
    }

    /// What is left of its counters; below zero is as good as none.
    pub(super) fn left(&self, inventory: &Inventory) -> Counters<'a> {
        let in_use = inventory.in_use();
        let sets = self.counters.iter();
        let mut left: Counters<'a> = sets
            .flat_map(|(set, own)| {
                let own = own.iter();
                own.map(|(name, amount)| ((*set, name.as_str()), *amount))
            })
            .collect();
        let taken = self
            .devices()
            .filter(|own| in_use.has_whole(&own.id) || in_use.has_shares(&own.id));
        for (set, own) in taken.flat_map(|own| &own.consumes) {
            for (name, amount) in own {
                if let Some(left) = left.get_mut(&(set.as_str(), name.as_str())) {
                    *left = left.saturating_sub(*amount);
                }
            }
        }
        left
    }
}
