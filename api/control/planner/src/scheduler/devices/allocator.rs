//! The search for devices: which ones claims get on a node.
//!
//! What is asked for is worked out here, and what one pick changes; in which order picks are
//! tried stands in `walk`.
//!
//! Invariants
//! - Taking a pick back undoes it; nothing of the inventory changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::node::NodeInfo;
use super::capacity::{self, Amounts};
use super::claim::{Ask, Claim, Class, Mode, all_select};
use super::constraint::Held;
use super::inventory::Inventory;
use super::pool::{Counters, Pool, PoolState};
use super::slice::{Device, DeviceId, Reach, Slice};
use super::walk::{At, Frame, Outcome};

/// Devices of one claim, at most.
pub(super) const MAX_DEVICES: usize = 32;

/// A device that a claim gets.
#[derive(Debug)]
pub(super) struct Picked<'a> {
    pub(super) device: &'a Device,
    pub(super) slice: &'a Slice,
    pub(super) ask: &'a Ask,
    /// What it takes of a device that is shared.
    pub(super) share: Option<Amounts>,
}

/// What a claim gets.
#[derive(Debug)]
pub(super) struct Allocated<'a> {
    pub(super) picked: Vec<Picked<'a>>,
    /// For each request the alternative that was taken, and its class.
    pub(super) asks: Vec<(&'a Ask, &'a Class)>,
}

/// Why claims get nothing on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Nothing {
    /// Its devices won't do.
    Unfit(&'static str),
    /// Something is wrong, on whichever node.
    Failed(String),
}

/// What claims that have nothing yet get on a node.
///
/// # Errors
/// Why they get nothing.
pub(super) fn allocate<'a>(
    inventory: &'a Inventory,
    node: &'a NodeInfo,
    claims: &'a [Arc<Claim>],
) -> Result<Vec<Allocated<'a>>, Nothing> {
    let mut search = Search::new(inventory, node, claims).map_err(Nothing::Failed)?;
    match search.run().map_err(Nothing::Failed)? {
        Outcome::Yes => Ok(search.into_result()),
        Outcome::TooMany => Err(Nothing::Failed("allocation max size exceeded".to_owned())),
        Outcome::No => {
            let mut pools = search.pools.iter();
            Err(Nothing::Unfit(
                match pools.any(|own| own.state == PoolState::Invalid) {
                    true => "invalid resource pools were encountered",
                    false => "cannot allocate all claims",
                },
            ))
        }
    }
}

/// What is asked for, against the node.
pub(super) struct Need<'a> {
    ask: &'a Ask,
    class: &'a Class,
    pub(super) count: usize,
    /// All that are meant where all are asked for.
    pub(super) all: Option<Vec<usize>>,
    /// By device: whether it is meant, as far as it was looked at.
    meant: Vec<Option<bool>>,
}

/// A device with its slice and the place of its pool.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'a> {
    device: &'a Device,
    slice: &'a Slice,
    pool: usize,
}

/// What a pick changed.
pub(super) struct Undo {
    at: At,
    candidate: usize,
    took_counters: bool,
}

pub(super) struct Search<'a> {
    inventory: &'a Inventory,
    pub(super) node: &'a NodeInfo,
    pub(super) claims: &'a [Arc<Claim>],
    pools: Vec<Pool<'a>>,
    /// Those of all pools that can be used, in order.
    pub(super) candidates: Vec<Candidate<'a>>,
    /// By claim, request and alternative.
    pub(super) needs: Vec<Vec<Vec<Need<'a>>>>,
    /// By claim and request.
    pub(super) chosen: Vec<Vec<usize>>,
    /// By claim.
    constraints: Vec<Vec<Held<'a>>>,
    pub(super) picked: Vec<Vec<Picked<'a>>>,
    /// The claims that have a device, by their places.
    taken: BTreeMap<&'a DeviceId, Vec<usize>>,
    shares: BTreeMap<&'a DeviceId, Vec<Amounts>>,
    /// By pool: what was left before, and what is taken.
    left: Vec<Option<Counters<'a>>>,
    consumed: Vec<Counters<'a>>,
    pub(super) frames: Vec<Frame>,
    pub(super) looks: usize,
}

impl<'a> Search<'a> {
    fn new(
        inventory: &'a Inventory,
        node: &'a NodeInfo,
        claims: &'a [Arc<Claim>],
    ) -> Result<Self, String> {
        let pools = Pool::all(inventory, node);
        let mut candidates = Vec::new();
        for (at, pool) in pools.iter().enumerate() {
            if pool.state == PoolState::Usable {
                let slices = pool.slices.iter();
                candidates.extend(slices.flat_map(|slice| {
                    slice.devices.iter().map(move |device| Candidate {
                        device,
                        slice,
                        pool: at,
                    })
                }));
            }
        }
        let mut search = Self {
            inventory,
            node,
            claims,
            left: pools.iter().map(|_| None).collect(),
            consumed: pools.iter().map(|_| Counters::new()).collect(),
            pools,
            candidates,
            needs: Vec::new(),
            chosen: Vec::new(),
            constraints: Vec::new(),
            picked: claims.iter().map(|_| Vec::new()).collect(),
            taken: BTreeMap::new(),
            shares: BTreeMap::new(),
            frames: Vec::new(),
            looks: 0,
        };
        for claim in claims {
            search.add_claim(claim)?;
        }
        Ok(search)
    }

    fn add_claim(&mut self, claim: &'a Claim) -> Result<(), String> {
        let key = claim.key();
        let mut fewest = 0;
        let mut of_claim = Vec::new();
        for request in &claim.spec.requests {
            let needs = request.asks.iter().map(|ask| self.need(claim, ask));
            let needs = needs.collect::<Result<Vec<_>, _>>()?;
            let count = needs.iter().map(|own| own.count).min().unwrap_or_default();
            if count > MAX_DEVICES - fewest {
                return Err(format!(
                    "claim {key}, request {}: adding {count} devices exceeds the claim limit of \
                     {MAX_DEVICES}, with {fewest} already accounted for",
                    request.name
                ));
            }
            fewest += count;
            of_claim.push(needs);
        }
        let mut constraints = claim.spec.constraints.iter().enumerate();
        if let Some((at, _)) = constraints.find(|(_, own)| !own.is_known()) {
            return Err(format!(
                "claim {key}, constraint #{at}: empty constraint (unsupported constraint type?)"
            ));
        }
        self.chosen.push(vec![0; of_claim.len()]);
        self.needs.push(of_claim);
        let constraints = claim.spec.constraints.iter().map(Held::new);
        self.constraints.push(constraints.collect());
        Ok(())
    }

    fn need(&self, claim: &'a Claim, ask: &'a Ask) -> Result<Need<'a>, String> {
        let wrong =
            |what: String| format!("claim {}, request {}: {what}", claim.key(), ask.own_name);
        if let Some(at) = ask.selectors.iter().position(Option::is_none) {
            let (key, name) = (claim.key(), &ask.own_name);
            return Err(format!(
                "claim {key}, request {name}, selector #{at}: CEL expression empty (unsupported \
                 selector type?)"
            ));
        }
        let class = &ask.class;
        let class = self.inventory.class(class).ok_or_else(|| {
            wrong(format!(
                "could not retrieve device class {class}: deviceclass.resource.k8s.io \
                 \"{class}\" not found"
            ))
        })?;
        let mut need = Need {
            ask,
            class,
            count: 0,
            all: None,
            meant: vec![None; self.candidates.len()],
        };
        match &ask.mode {
            Mode::Count(count) => need.count = *count,
            Mode::Unknown(mode) => return Err(wrong(format!("unsupported count mode {mode}"))),
            Mode::All => {
                let unfit = self.pools.iter().find(|own| own.state != PoolState::Usable);
                if let Some(pool) = unfit {
                    let why = match pool.state {
                        PoolState::Invalid => "invalid",
                        _ => "being updated",
                    };
                    return Err(wrong(format!(
                        "asks for all devices, but resource pool {} is currently {why}",
                        pool.id
                    )));
                }
                let mut all = Vec::new();
                for (at, candidate) in self.candidates.iter().enumerate() {
                    let Device { id, capacity, .. } = candidate.device;
                    let is_meant = self.is_meant(claim, (ask, class), *candidate)?;
                    need.meant[at] = Some(is_meant);
                    if is_meant
                        && capacity::has_room(capacity, &ask.capacity, &[])
                            .map_err(|what| wrong(over_capacity(id, &what)))?
                    {
                        all.push(at);
                    }
                }
                need.count = all.len();
                need.all = Some(all);
            }
        }
        Ok(need)
    }

    /// Whether a request's selectors mean a device that the node can reach.
    fn is_meant(
        &self,
        claim: &Claim,
        (ask, class): (&Ask, &Class),
        candidate: Candidate<'_>,
    ) -> Result<bool, String> {
        let Candidate { device, slice, .. } = candidate;
        let of_ask = ask.selectors.iter().flatten().map(|(_, own)| own);
        Ok(class.means(device)?
            && all_select(of_ask, device, || format!("claim {}", claim.key()))?
            && match &slice.reach {
                Reach::PerDevice => device.reach.reaches(self.node),
                _ => true,
            })
    }

    /// Gives a device to a request, if it will do.
    pub(super) fn pick(&mut self, at: At, candidate: usize) -> Result<Option<Undo>, String> {
        let Candidate {
            device,
            slice,
            pool,
        } = self.candidates[candidate];
        let claim = &self.claims[at.claim];
        let request = &claim.spec.requests[at.request];
        let need = &self.needs[at.claim][at.request][at.alternative];
        let (ask, is_all, known) = (need.ask, need.all.is_some(), need.meant[candidate]);
        if !self.is_usable(at, device, ask) {
            return Ok(None);
        }
        let is_meant = match known {
            Some(known) => known,
            None => self.is_meant(claim, (ask, need.class), self.candidates[candidate])?,
        };
        self.needs[at.claim][at.request][at.alternative].meant[candidate] = Some(is_meant);
        if !is_meant {
            return Ok(None);
        }
        let over = |what: String| {
            let name = &ask.own_name;
            let what = over_capacity(&device.id, &what);
            format!("claim {}, request {name}: {what}", claim.key())
        };
        if !self.has_room(device, ask).map_err(over)? {
            return Ok(None);
        }
        let is_in_use = self.inventory.in_use().has_shares(&device.id)
            || self
                .shares
                .get(&device.id)
                .is_some_and(|own| !own.is_empty());
        // Who has a share of it already has paid for all.
        let is_paid = device.is_shared && is_in_use;
        let takes_counters = !is_paid && !device.consumes.is_empty();
        if takes_counters && !self.has_counters(pool, device) {
            return Ok(None);
        }
        let rules = self.inventory.taints_by_rules(&device.id);
        let mut taints = device.taints.iter().chain(rules);
        if taints.any(|taint| taint.keeps_off() && !ask.tolerates(taint)) {
            return Ok(None);
        }
        let constraints = &mut self.constraints[at.claim];
        if !constraints
            .iter()
            .all(|own| own.admits(&request.name, &ask.name, device))
        {
            return match is_all {
                true => Err(format!(
                    "claim {}, request {}: cannot add device {} because a claim constraint \
                     would not be satisfied",
                    claim.key(),
                    ask.own_name,
                    device.id
                )),
                false => Ok(None),
            };
        }
        for own in constraints {
            own.add(&request.name, &ask.name, device);
        }
        if takes_counters {
            for (key, amount) in taken_of(device) {
                let sum = self.consumed[pool].entry(key).or_default();
                *sum = sum.saturating_add(amount);
            }
        }
        let mut share = None;
        if device.is_shared {
            let amounts = capacity::consumed(&device.capacity, &ask.capacity).map_err(over)?;
            self.shares
                .entry(&device.id)
                .or_default()
                .push(amounts.clone());
            share = Some(amounts);
        } else {
            self.taken.entry(&device.id).or_default().push(at.claim);
        }
        self.picked[at.claim].push(Picked {
            device,
            slice,
            ask,
            share,
        });
        Ok(Some(Undo {
            at,
            candidate,
            took_counters: takes_counters,
        }))
    }

    /// Whether a device is free for a request, as far as whole devices go.
    fn is_usable(&self, at: At, device: &Device, ask: &Ask) -> bool {
        let taken = self.taken.get(&device.id);
        match ask.is_admin {
            true => !taken.is_some_and(|claims| claims.contains(&at.claim)),
            false => {
                !self.inventory.in_use().has_whole(&device.id) && taken.is_none_or(Vec::is_empty)
            }
        }
    }

    fn has_room(&self, device: &Device, ask: &Ask) -> Result<bool, String> {
        let before = self.inventory.in_use().taken(&device.id).into_iter();
        let now = self.shares.get(&device.id).into_iter().flatten();
        let taken: Vec<&Amounts> = before.chain(now).collect();
        capacity::has_room(&device.capacity, &ask.capacity, &taken)
    }

    /// Whether a pool has the counters for one more device.
    fn has_counters(&mut self, pool: usize, device: &'a Device) -> bool {
        let own = &self.pools[pool];
        let left = self.left[pool].get_or_insert_with(|| own.left(self.inventory));
        let mut sums = self.consumed[pool].clone();
        for (key, amount) in taken_of(device) {
            let sum = sums.entry(key).or_default();
            *sum = sum.saturating_add(amount);
        }
        left.iter()
            .all(|(key, left)| sums.get(key).copied().unwrap_or_default() <= *left)
    }

    pub(super) fn take_back(&mut self, undo: &Undo) {
        let at = undo.at;
        let Candidate { device, pool, .. } = self.candidates[undo.candidate];
        let request = &self.claims[at.claim].spec.requests[at.request];
        let Some(picked) = self.picked[at.claim].pop() else {
            return;
        };
        match picked.share {
            Some(_) => drop(self.shares.get_mut(&device.id).and_then(Vec::pop)),
            None => drop(self.taken.get_mut(&device.id).and_then(Vec::pop)),
        }
        for own in self.constraints[at.claim].iter_mut().rev() {
            own.take_back(&request.name, &picked.ask.name);
        }
        if undo.took_counters {
            for (key, amount) in taken_of(device) {
                if let Some(sum) = self.consumed[pool].get_mut(&key) {
                    *sum = sum.saturating_sub(amount);
                }
            }
        }
    }

    fn into_result(self) -> Vec<Allocated<'a>> {
        let asks = self.needs.iter().zip(&self.chosen).map(|(needs, chosen)| {
            let both = needs.iter().zip(chosen);
            let asks = both.filter_map(|(needs, chosen)| needs.get(*chosen));
            asks.map(|own| (own.ask, own.class)).collect()
        });
        let asks: Vec<Vec<_>> = asks.collect();
        let claims = self.picked.into_iter().zip(asks);
        claims
            .map(|(picked, asks)| Allocated { picked, asks })
            .collect()
    }
}

fn over_capacity(id: &DeviceId, what: &str) -> String {
    format!("checking capacity for device {id}: {what}")
}

fn taken_of(device: &Device) -> impl Iterator<Item = ((&str, &str), i128)> {
    device.consumes.iter().flat_map(|(set, own)| {
        let own = own.iter();
        own.map(|(name, amount)| ((set.as_str(), name.as_str()), *amount))
    })
}
