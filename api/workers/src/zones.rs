//! Which of the workers that fell silent lose their pods, and how fast. Pure.
//!
//! By the rules of the node lifecycle controller
//! (<https://kubernetes.io/docs/concepts/architecture/nodes/#rate-limits-on-eviction>), by
//! zone (the label `topology.kubernetes.io/zone`; nodes without it are one zone):
//!
//! | a zone's workers | one of its silent workers is evicted every |
//! |---|---|
//! | are mostly heard | [`limits::EVICTION_INTERVAL`] |
//! | are silent for the greater part ([`limits::DISRUPTED_ZONE_PERCENT`]) | [`limits::DISRUPTED_EVICTION_INTERVAL`]; never in a zone of [`limits::SMALL_ZONE`] or fewer |
//! | are all silent, and another zone's are not | [`limits::EVICTION_INTERVAL`] |
//! | are all silent in every zone | never: it is this side that is cut off |
//!
//! Invariants
//! - Nobody is evicted who is heard, nor sooner after another of the zone than the table says.
//! - Once somebody is heard again after all were silent, nobody is evicted for an interval.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::limits;
use crate::roster::millis;

/// What a worker is to its zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Heard within its deadline.
    Heard,
    /// Silent since then, in milliseconds.
    Silent {
        /// Since when.
        since_ms: u64,
    },
    /// Silent, and evicted.
    Evicted,
}

/// How much of a zone is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disruption {
    /// Little or nothing.
    Normal,
    /// The greater part.
    Partial,
    /// All of it.
    Full,
}

/// What follows from a look at the zones.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Workers to evict now.
    pub evict: Vec<Arc<str>>,
    /// All zones fell silent: nobody stays evicted.
    pub spare_everyone: bool,
    /// Somebody is heard after all were silent: every deadline starts anew.
    pub start_anew: bool,
}

/// All zones that have workers.
#[derive(Debug, Default)]
pub struct Zones {
    zones: BTreeMap<Arc<str>, Zone>,
    all_silent: bool,
}

#[derive(Debug, Default)]
struct Zone {
    heard: usize,
    silent: usize,
    /// Silent ones that are not evicted, those first who have been silent longest.
    waiting: BTreeSet<(u64, Arc<str>)>,
    /// Nobody is evicted before.
    next_ms: u64,
}

impl Zones {
    /// The one copy of a zone's name; that of no zone for whatever comes after
    /// [`limits::ZONES_LIMIT`].
    pub fn name(&self, zone: &str) -> Arc<str> {
        match self.zones.get_key_value(zone) {
            Some((name, _)) => Arc::clone(name),
            None if self.zones.len() < limits::ZONES_LIMIT => zone.into(),
            None => "".into(),
        }
    }

    /// A worker is in `zone` as of now.
    pub fn enter(&mut self, zone: &Arc<str>, worker: &Arc<str>, standing: Standing) {
        let zone = self.zones.entry(Arc::clone(zone)).or_default();
        match standing {
            Standing::Heard => zone.heard += 1,
            Standing::Silent { since_ms } => {
                zone.silent += 1;
                zone.waiting.insert((since_ms, Arc::clone(worker)));
            }
            Standing::Evicted => zone.silent += 1,
        }
    }

    /// It is so no more; `standing` is how it entered.
    pub fn leave(&mut self, name: &Arc<str>, worker: &Arc<str>, standing: Standing) {
        let Some(zone) = self.zones.get_mut(name) else {
            return;
        };
        match standing {
            Standing::Heard => zone.heard -= 1,
            Standing::Silent { since_ms } => {
                zone.silent -= 1;
                zone.waiting.remove(&(since_ms, Arc::clone(worker)));
            }
            Standing::Evicted => zone.silent -= 1,
        }
    }

    /// Looks at all zones.
    pub fn tick(&mut self, now_ms: u64) -> Orders {
        self.zones.retain(|_, zone| zone.heard + zone.silent > 0);
        let all_silent = !self.zones.is_empty()
            && self
                .zones
                .values()
                .all(|zone| zone.disruption() == Disruption::Full);
        let mut orders = Orders {
            spare_everyone: all_silent && !self.all_silent,
            start_anew: !all_silent && self.all_silent,
            ..Orders::default()
        };
        self.all_silent = all_silent;
        for zone in self.zones.values_mut() {
            if orders.start_anew {
                zone.next_ms = now_ms + millis(limits::EVICTION_INTERVAL);
            }
            if !all_silent {
                orders.evict.extend(zone.evict_one(now_ms));
            }
        }
        orders
    }

    /// How many zones are so disrupted.
    pub fn count(&self, disruption: Disruption) -> usize {
        self.zones
            .values()
            .filter(|zone| zone.disruption() == disruption)
            .count()
    }
}

impl Zone {
    fn disruption(&self) -> Disruption {
        let all = self.heard + self.silent;
        let mostly = self.silent * 100 >= all * limits::DISRUPTED_ZONE_PERCENT;
        match (self.heard, self.silent) {
            (_, 0) => Disruption::Normal,
            (0, _) => Disruption::Full,
            (_, silent) if silent > limits::DISRUPTED_ZONE_LEAST && mostly => Disruption::Partial,
            (_, _) => Disruption::Normal,
        }
    }

    fn interval_ms(&self) -> Option<u64> {
        match self.disruption() {
            Disruption::Normal | Disruption::Full => Some(millis(limits::EVICTION_INTERVAL)),
            Disruption::Partial if self.heard + self.silent > limits::SMALL_ZONE => {
                Some(millis(limits::DISRUPTED_EVICTION_INTERVAL))
            }
            Disruption::Partial => None,
        }
    }

    /// Whoever is evicted leaves, and enters again as evicted.
    fn evict_one(&mut self, now_ms: u64) -> Option<Arc<str>> {
        let interval_ms = self.interval_ms()?;
        if now_ms < self.next_ms {
            return None;
        }
        let (_, worker) = self.waiting.first()?;
        self.next_ms = now_ms.saturating_add(interval_ms);
        Some(Arc::clone(worker))
    }
}

#[cfg(test)]
#[path = "zones_tests.rs"]
mod tests;
