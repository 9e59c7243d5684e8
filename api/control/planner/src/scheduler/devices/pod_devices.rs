//! A pod's claims on devices against all nodes: what is worked out once, then each node.

use std::borrow::Cow;
use std::sync::Arc;

use nautilus_machinery::timestamp::Instant;

use super::super::fit::MAX_SCORE;
use super::super::label_index::Slot;
use super::super::node::NodeInfo;
use super::super::plugin::Plugin;
use super::super::pod::PodInfo;
use super::super::rejection::Rejection;
use super::super::snapshot::Snapshot;
use super::allocation::allocation;
use super::allocator::{Allocated, Nothing, allocate};
use super::binding::{ClaimBinding, ExtendedBinding, PodDevices, Readiness, readiness};
use super::claim::{Ask, Claim, Spec};
use super::extended::{Extended, Wanted};

/// Most alternatives of a request.
const MAX_ALTERNATIVES: usize = 8;
const UNAVAILABLE: &str = "resourceclaim not available on the node";

/// See the module.
#[derive(Clone)]
pub(in super::super) struct Devices {
    /// Those that have devices.
    allocated: Vec<Arc<Claim>>,
    /// Those that have none yet.
    open: Arc<[Arc<Claim>]>,
    /// Resources that devices stand for on nodes that have none of themselves.
    extended: Option<Arc<Extended>>,
    now: Instant,
}

impl Devices {
    /// `None`: the pod has no claims, and asks for no resource that devices stand for.
    ///
    /// # Errors
    /// Why no node will do.
    pub(in super::super) fn new(
        snapshot: &Snapshot,
        pod: &PodInfo,
    ) -> Result<Option<Self>, Rejection> {
        let refuse = |what: String| Rejection::final_one(Plugin::DynamicResources, what);
        let inventory = &snapshot.devices;
        let claims = inventory.claims_of(pod).map_err(refuse)?;
        let extended = Extended::new(inventory, pod).map(Arc::new);
        if claims.is_empty() && extended.is_none() {
            return Ok(None);
        }
        let (allocated, open): (Vec<_>, Vec<_>) = claims
            .into_iter()
            .cloned()
            .partition(|own: &Arc<Claim>| own.allocation().is_some());
        for claim in &open {
            let key = claim.key();
            if inventory.is_under_way(claim) {
                return Err(refuse(format!(
                    "resource claim {key} is in the process of being allocated"
                )));
            }
            for request in &claim.spec.requests {
                if request.asks.is_empty() {
                    return Err(refuse(format!(
                        "resource claim {key}, request {}: unknown request type",
                        request.name
                    )));
                }
                let unknown = |own: &&Ask| inventory.class(&own.class).is_none();
                if let Some(ask) = request.asks.iter().find(unknown) {
                    let (name, class) = (&ask.name, &ask.class);
                    return Err(refuse(format!(
                        "request {name}: device class {class} does not exist"
                    )));
                }
            }
        }
        Ok(Some(Self {
            allocated,
            open: open.into(),
            extended,
            now: snapshot.now,
        }))
    }

    /// What is claimed on a node for resources.
    fn wanted(&self, node: &NodeInfo) -> Result<Option<Arc<Wanted>>, Rejection> {
        let extended = self.extended.as_ref();
        extended.map_or(Ok(None), |own| own.on(node))
    }

    /// The claims that are to get devices on a node.
    fn open_with(&self, wanted: Option<&Wanted>) -> Cow<'_, [Arc<Claim>]> {
        match wanted {
            None => Cow::Borrowed(&self.open),
            Some(own) => {
                let open = self.open.iter().chain([&own.claim]);
                Cow::Owned(open.cloned().collect())
            }
        }
    }

    /// Why a node will not do.
    pub(in super::super) fn filter(
        &self,
        snapshot: &Snapshot,
        node: &NodeInfo,
    ) -> Option<Rejection> {
        let plugin = Plugin::DynamicResources;
        let wanted = match self.wanted(node) {
            Ok(wanted) => wanted,
            Err(rejection) => return Some(rejection),
        };
        let open = self.open_with(wanted.as_deref());
        if !open.is_empty() {
            match allocate(&snapshot.devices, node, &open) {
                Ok(_) => {}
                Err(Nothing::Unfit(why)) => return Some(Rejection::final_one(plugin, why)),
                Err(Nothing::Failed(why)) => return Some(Rejection::failure(plugin, why)),
            }
        }
        let mut allocated = self.allocated.iter();
        allocated
            .any(|own| self.is_unavailable(own, node))
            .then(|| Rejection::final_one(plugin, UNAVAILABLE))
    }

    /// Whether a node can't reach a claim's devices, or they will not get ready.
    fn is_unavailable(&self, claim: &Claim, node: &NodeInfo) -> bool {
        claim.reach.as_ref().is_some_and(|own| !own.matches(node))
            || match readiness(&claim.object, self.now) {
                Ok(readiness) => readiness == Readiness::TimedOut,
                Err(_) => true,
            }
    }

    /// A claim whose devices may go, so that it gets others: nobody but the pod may use it,
    /// and it kept the pod from a node that was looked at. Otherwise the one that an earlier
    /// attempt made.
    pub(in super::super) fn to_free(
        &self,
        snapshot: &Snapshot,
        pod: &PodInfo,
        nodes: &[(Slot, Rejection)],
    ) -> Option<Arc<serde_json::Value>> {
        let turned_away = nodes.iter().filter(|(_, why)| {
            why.plugin == Plugin::DynamicResources
                && why.reasons.iter().any(|own| own == UNAVAILABLE)
        });
        let slots: Vec<Slot> = turned_away.map(|(slot, _)| *slot).collect();
        let mut allocated = self.allocated.iter();
        let found = allocated.find(|own| {
            let is_in_the_way = |slot: &Slot| self.is_unavailable(own, snapshot.at(*slot));
            own.is_free_for(&pod.uid) && slots.iter().any(is_in_the_way)
        });
        let stale = self.extended.as_ref().and_then(|own| own.stale.as_ref());
        found.or(stale).map(|own| own.object.clone())
    }

    /// What is to be written for a node that will do.
    pub(in super::super) fn on(
        &self,
        snapshot: &Snapshot,
        pod: &PodInfo,
        slot: Slot,
    ) -> PodDevices {
        let node = snapshot.at(slot);
        let wanted = self.wanted(node).ok().flatten();
        let claims = self.open_with(wanted.as_deref());
        let found = allocate(&snapshot.devices, node, &claims).unwrap_or_default();
        let extended = wanted.as_ref().zip(found.get(self.open.len()));
        let extended = extended.map(|(wanted, own)| {
            Box::new(ExtendedBinding {
                claim: wanted.claim.object.clone(),
                allocation: allocation(&wanted.claim, own, &node.name),
                mappings: wanted.mappings.clone(),
            })
        });
        let open = self.open.iter().zip(&found);
        let open = open.map(|(claim, own)| ClaimBinding {
            claim: claim.object.clone(),
            allocation: Some(allocation(claim, own, &node.name)),
            is_reserved: false,
        });
        let allocated = self.allocated.iter().map(|claim| ClaimBinding {
            claim: claim.object.clone(),
            allocation: None,
            is_reserved: claim.is_reserved_for(&pod.uid),
        });
        PodDevices {
            claims: allocated.chain(open).collect(),
            extended,
        }
    }

    /// How good the alternatives are that claims get; `None`: none has any.
    pub(in super::super) fn scores(&self, snapshot: &Snapshot, nodes: &[Slot]) -> Option<Vec<i64>> {
        let has_choice = |own: &Arc<Claim>| own.spec.requests.iter().any(|own| own.is_choice);
        let mut claims = self.allocated.iter().chain(self.open.iter());
        if !claims.any(has_choice) {
            return None;
        }
        let of_allocated: i64 = self
            .allocated
            .iter()
            .map(|own| score_of_allocated(own))
            .sum();
        let score = |slot: &Slot| {
            let node = snapshot.at(*slot);
            let wanted = self.wanted(node).ok().flatten();
            let claims = self.open_with(wanted.as_deref());
            let found = allocate(&snapshot.devices, node, &claims).unwrap_or_default();
            let open = self.open.iter().zip(&found);
            of_allocated
                + open
                    .map(|(own, found)| score_of_open(&own.spec, found))
                    .sum::<i64>()
        };
        let mut scores: Vec<i64> = nodes.iter().map(score).collect();
        let most = scores.iter().copied().max().unwrap_or_default();
        if most > 0 {
            for score in &mut scores {
                *score = MAX_SCORE * *score / most;
            }
        }
        Some(scores)
    }
}

/// The first alternative is worth the most.
fn score(spec: &Spec, is_taken: impl Fn(&Ask) -> bool) -> i64 {
    let choices = spec.requests.iter().filter(|own| own.is_choice);
    let asks = choices.flat_map(|own| own.asks.iter().enumerate());
    let taken = asks.filter(|(_, ask)| is_taken(ask));
    let worth = |at: usize| i64::try_from(MAX_ALTERNATIVES.saturating_sub(at)).unwrap_or_default();
    taken.map(|(at, _)| worth(at)).sum()
}

fn score_of_allocated(claim: &Claim) -> i64 {
    let results = claim.allocation().map(|own| &own["devices"]["results"]);
    score(&claim.spec, |ask| {
        let mut results = results.into_iter().flat_map(crate::object::items);
        results.any(|own| own["request"] == *ask.name)
    })
}

fn score_of_open(spec: &Spec, found: &Allocated<'_>) -> i64 {
    score(spec, |ask| {
        found.picked.iter().any(|own| own.ask.name == ask.name)
    })
}
