//! The part of the snapshot that is about devices, kept up by deltas.
//!
//! Invariants
//! - A change costs what it changes, not what there is; nothing of what is gone is kept.
//! - A claim counts as it will be from [`Inventory::assume`] until it is seen in a version
//!   that is not older than the one that was written, or forgotten. So does one that is still
//!   to be made, from [`Inventory::assume_made`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nautilus_machinery::timestamp::Instant;
use serde_json::Value;

use super::super::pod::{PodDeviceClaim, PodInfo};
use super::claim::{Claim, Class, Selectors, Spec};
use super::extended::{CLASS_PREFIX, is_made_for_resources};
use super::in_use::InUse;
use super::slice::{DeviceId, DeviceTaint, PoolId, Reach, Slice, TaintRule};
use crate::controller::Change;
use crate::kind;
use crate::object;
use crate::view::Key;

/// See the module.
#[derive(Debug, Default)]
pub(in super::super) struct Inventory {
    pools: BTreeMap<PoolId, BTreeMap<String, Arc<Slice>>>,
    slices: BTreeMap<String, Arc<Slice>>,
    /// Pools that have slices of one node, by its name, and how many.
    of_node: BTreeMap<String, BTreeMap<PoolId, u32>>,
    /// Pools that have others, and how many.
    of_many: BTreeMap<PoolId, u32>,
    rules: BTreeMap<String, TaintRule>,
    classes: BTreeMap<String, Arc<Class>>,
    /// Classes by the resource that they say their devices stand for, the one that counts
    /// first.
    behind: BTreeMap<String, BTreeSet<ByAge>>,
    claims: BTreeMap<Key, Known>,
    /// Claims that were made for resources of pods, by the pods' uids.
    made_for: BTreeMap<String, BTreeSet<Key>>,
    /// Such claims that were not written yet with devices, by the pods' uids.
    to_be_made: BTreeMap<String, ToBeMade>,
    selectors: Selectors,
    in_use: InUse,
}

/// When a class came, the newest first, and its name.
type ByAge = (Reverse<Option<Instant>>, String);

#[derive(Debug)]
struct Known {
    seen: Arc<Claim>,
    assumed: Option<Assumed>,
}

/// A claim as it will be seen.
#[derive(Debug)]
struct Assumed {
    claim: Arc<Claim>,
    /// As it was written; `None`: that is under way.
    version: Option<u64>,
}

/// Devices of a claim that was not written yet with them.
#[derive(Debug)]
struct ToBeMade {
    allocation: Value,
    /// The claim's uid, once it has one.
    claim: Option<String>,
}

impl Known {
    /// What counts.
    fn counted(&self) -> &Arc<Claim> {
        let assumed = self.assumed.as_ref();
        assumed.map_or(&self.seen, |own| &own.claim)
    }
}

impl Inventory {
    /// Takes a change of a kind of the group in; of others nothing.
    pub(in super::super) fn apply(&mut self, change: &Change) {
        let after = change.after.as_ref();
        let name = object::name(change.object());
        match change.kind {
            kind::DEVICE_SLICES => self.set_slice(name, after),
            kind::DEVICE_TAINT_RULES => match after {
                Some(rule) => {
                    self.rules.insert(name.to_owned(), TaintRule::read(rule));
                }
                None => drop(self.rules.remove(name)),
            },
            kind::DEVICE_CLASSES => self.set_class(name, after),
            kind::DEVICE_CLAIMS => self.set_claim(&Key::of(change.object()), after),
            _ => {}
        }
    }

    fn set_class(&mut self, name: &str, after: Option<&Arc<Value>>) {
        let selectors = &mut self.selectors;
        let next = after.map(|class| Arc::new(Class::read(class, selectors)));
        let place = |own: &Class| (Reverse(own.created), own.name.clone());
        if let Some(before) = self.classes.remove(name) {
            before.release(&mut self.selectors);
            if let Some(resource) = &before.resource {
                take_out(&mut self.behind, resource, &place(&before));
            }
        }
        let Some(class) = next else {
            return;
        };
        if let Some(resource) = &class.resource {
            let behind = self.behind.entry(resource.clone()).or_default();
            behind.insert(place(&class));
        }
        self.classes.insert(name.to_owned(), class);
    }

    fn set_slice(&mut self, name: &str, after: Option<&Arc<Value>>) {
        if let Some(before) = self.slices.remove(name) {
            if let Some(slices) = self.pools.get_mut(&before.pool) {
                slices.remove(name);
                if slices.is_empty() {
                    self.pools.remove(&before.pool);
                }
            }
            match &before.reach {
                Reach::Node(node) => {
                    if let Some(pools) = self.of_node.get_mut(node) {
                        one_less(pools, &before.pool);
                        if pools.is_empty() {
                            self.of_node.remove(node);
                        }
                    }
                }
                _ => one_less(&mut self.of_many, &before.pool),
            }
        }
        let Some(slice) = after.map(|own| Arc::new(Slice::read(own))) else {
            return;
        };
        let pools = match &slice.reach {
            Reach::Node(node) => self.of_node.entry(node.clone()).or_default(),
            _ => &mut self.of_many,
        };
        *pools.entry(slice.pool.clone()).or_default() += 1;
        let of_pool = self.pools.entry(slice.pool.clone()).or_default();
        of_pool.insert(name.to_owned(), slice.clone());
        self.slices.insert(name.to_owned(), slice);
    }

    fn set_claim(&mut self, key: &Key, after: Option<&Arc<Value>>) {
        let before = self.claims.remove(key);
        if let Some(allocation) = before.as_ref().and_then(|own| own.counted().allocation()) {
            self.in_use.take_away(allocation);
        }
        if let Some(before) = &before
            && let Some(pod) = pod_of(&before.seen.object)
        {
            take_out(&mut self.made_for, pod, key);
            if after.is_none_or(|after| before.seen.uid() != object::uid(after)) {
                self.settle(before.seen.uid(), pod);
            }
        }
        if let Some(pod) = after.and_then(|own| pod_of(own)) {
            let claims = self.made_for.entry(pod.to_owned()).or_default();
            claims.insert(key.clone());
        }
        let same = before
            .as_ref()
            .filter(|own| after.is_some_and(|after| own.seen.uid() == object::uid(after)));
        let next = after.map(|after| {
            let spec = match same {
                Some(own) => own.seen.spec.clone(),
                None => Arc::new(Spec::read(after, &mut self.selectors)),
            };
            Arc::new(Claim::new(after.clone(), spec))
        });
        if let Some(before) = before.as_ref().filter(|_| same.is_none()) {
            before.seen.spec.release(&mut self.selectors);
        }
        let is_same = same.is_some();
        let Some(seen) = next else {
            return;
        };
        let version = version(&seen.object);
        let assumed = before.filter(|_| is_same).and_then(|own| own.assumed);
        let is_newer = |own: &Assumed| own.version.is_none_or(|own| own > version);
        let known = Known {
            seen,
            assumed: assumed.filter(is_newer),
        };
        self.put(key.clone(), known);
    }

    fn put(&mut self, key: Key, known: Known) {
        let counted = known.counted().clone();
        if let Some(allocation) = counted.allocation() {
            self.in_use.add(allocation);
            if let Some(pod) = pod_of(&counted.object) {
                self.settle(counted.uid(), pod);
            }
        }
        self.claims.insert(key, known);
    }

    /// Counts devices of a claim that is to be made for resources of a pod, until it has them
    /// or is forgotten.
    pub(super) fn assume_made(&mut self, pod: &str, allocation: Value) {
        self.forget_made(pod);
        self.in_use.add(&allocation);
        let claim = None;
        let own = ToBeMade { allocation, claim };
        self.to_be_made.insert(pod.to_owned(), own);
    }

    /// The claim was made, and is to get its devices next. It is there from now on, whenever
    /// it is seen.
    pub(in super::super) fn made(&mut self, pod: &str, claim: &Arc<Value>) {
        if let Some(own) = self.to_be_made.get_mut(pod) {
            own.claim = Some(object::uid(claim).to_owned());
        }
        let key = Key::of(claim);
        if !self.claims.contains_key(&key) {
            self.set_claim(&key, Some(claim));
        }
    }

    /// Whether a claim counts as one that is there.
    pub(in super::super) fn has(&self, claim: &Value) -> bool {
        let known = self.claims.get(&Key::of(claim));
        known.is_some_and(|own| own.seen.uid() == object::uid(claim))
    }

    /// Nothing is to be made for a pod.
    pub(super) fn forget_made(&mut self, pod: &str) {
        if let Some(own) = self.to_be_made.remove(pod) {
            self.in_use.take_away(&own.allocation);
        }
    }

    /// A claim that was made counts by itself, or is gone.
    fn settle(&mut self, claim: &str, pod: &str) {
        let own = self.to_be_made.get(pod);
        if own.is_some_and(|own| own.claim.as_deref() == Some(claim)) {
            self.forget_made(pod);
        }
    }

    /// The claim that was made for resources of a pod.
    pub(super) fn made_for(&self, pod: &str) -> Option<&Arc<Claim>> {
        let mut claims = self.made_for.get(pod).into_iter().flatten();
        claims.find_map(|key| self.claim(key))
    }

    /// Counts a claim as it will be, until it is written or forgotten.
    pub(super) fn assume(&mut self, object: Value) {
        self.expect(object, None);
    }

    /// A claim was written as `object` says, with its new version. One that was decided on and
    /// has no devices by that yet stays as it will be.
    pub(in super::super) fn written(&mut self, object: Value) {
        let has_devices = object["status"]["allocation"].is_object();
        let known = self.claims.get(&Key::of(&object));
        let assumed = known.and_then(|own| own.assumed.as_ref());
        if has_devices || assumed.is_none_or(|own| own.version.is_some()) {
            let version = version(&object);
            self.expect(object, Some(version));
        }
    }

    fn expect(&mut self, object: Value, version_written: Option<u64>) {
        let key = Key::of(&object);
        let Some(mut known) = self.claims.remove(&key) else {
            return;
        };
        if let Some(allocation) = known.counted().allocation() {
            self.in_use.take_away(allocation);
        }
        if known.seen.uid() == object::uid(&object) {
            let is_news = version_written.is_none_or(|own| own > version(&known.seen.object));
            known.assumed = is_news.then(|| Assumed {
                claim: Arc::new(Claim::new(Arc::new(object), known.seen.spec.clone())),
                version: version_written,
            });
        }
        self.put(key, known);
    }

    /// What was under way with a claim was not written.
    pub(super) fn forget(&mut self, claim: &Value) {
        let key = Key::of(claim);
        let Some(mut known) = self.claims.remove(&key) else {
            return;
        };
        if let Some(allocation) = known.counted().allocation() {
            self.in_use.take_away(allocation);
        }
        known.assumed = known
            .assumed
            .filter(|own| own.version.is_some() || own.claim.uid() != object::uid(claim));
        self.put(key, known);
    }

    /// The claims of a pod, each once.
    ///
    /// # Errors
    /// Which is not there, in the words that users know.
    pub(in super::super) fn claims_of(&self, pod: &PodInfo) -> Result<Vec<&Arc<Claim>>, String> {
        let (namespace, pod_name) = (&pod.namespace, &pod.name);
        let mut claims = Vec::new();
        let mut names = BTreeSet::new();
        for own in &pod.device_claims {
            let (name, is_made) = match own {
                PodDeviceClaim::Named(name) => (name, false),
                PodDeviceClaim::Made(name) => (name, true),
                PodDeviceClaim::NotNeeded => continue,
                PodDeviceClaim::NotYet => {
                    return Err(format!(
                        "pod \"{namespace}/{pod_name}\": ResourceClaim not created yet"
                    ));
                }
                PodDeviceClaim::Unknown(name) => {
                    return Err(format!(
                        "pod \"{namespace}/{pod_name}\", spec.resourceClaim \"{name}\": none of \
                         the supported fields are set"
                    ));
                }
            };
            let Some(claim) = self.claim(&Key::new(namespace, name)) else {
                return Err(format!(
                    "could not find ResourceClaim \"{namespace}/{name}\""
                ));
            };
            if object::is_deleted(&claim.object) {
                return Err(format!("resourceclaim \"{name}\" is being deleted"));
            }
            if is_made && !object::is_controlled_by(&claim.object, &pod.uid) {
                return Err(format!(
                    "ResourceClaim {namespace}/{name} was not created for Pod \
                     {namespace}/{pod_name} (Pod is not owner)"
                ));
            }
            if names.insert(name) {
                claims.push(claim);
            }
        }
        Ok(claims)
    }

    /// A claim as it was seen or written last.
    fn claim(&self, key: &Key) -> Option<&Arc<Claim>> {
        let known = self.claims.get(key)?;
        let written = known.assumed.as_ref().filter(|own| own.version.is_some());
        Some(written.map_or(&known.seen, |own| &own.claim))
    }

    /// Whether devices of a claim were decided on, and that is not written yet.
    pub(super) fn is_under_way(&self, claim: &Claim) -> bool {
        let assumed = self.claims.get(&claim.key());
        let assumed = assumed.and_then(|own| own.assumed.as_ref());
        assumed.is_some_and(|own| own.version.is_none())
    }

    pub(super) fn class(&self, name: &str) -> Option<&Arc<Class>> {
        self.classes.get(name)
    }

    /// The class whose devices stand for a resource.
    pub(in super::super) fn class_behind(&self, resource: &str) -> Option<&Arc<Class>> {
        if let Some(name) = resource.strip_prefix(CLASS_PREFIX) {
            return self.class(name);
        }
        let (_, name) = self.behind.get(resource)?.first()?;
        self.class(name)
    }

    pub(super) fn in_use(&self) -> &InUse {
        &self.in_use
    }

    /// The pools that may have something for a node, by their names.
    pub(super) fn pools_near(&self, node: &str) -> BTreeSet<&PoolId> {
        let of_node = self.of_node.get(node).into_iter().flatten();
        let pools = of_node.chain(&self.of_many);
        pools.map(|(pool, _)| pool).collect()
    }

    /// The slices of a pool, by their names.
    pub(super) fn slices_of(&self, pool: &PoolId) -> impl Iterator<Item = &Slice> {
        let slices = self.pools.get(pool).into_iter();
        slices.flat_map(BTreeMap::values).map(|own| &**own)
    }

    /// Taints that rules give a device.
    pub(super) fn taints_by_rules(&self, id: &DeviceId) -> impl Iterator<Item = &DeviceTaint> {
        let rules = self.rules.values().filter(move |own| own.means(id));
        rules.map(|own| &own.taint)
    }

    #[cfg(test)]
    pub(in super::super) fn is_empty(&self) -> bool {
        self.pools.is_empty()
            && self.slices.is_empty()
            && self.of_node.is_empty()
            && self.of_many.is_empty()
            && self.rules.is_empty()
            && self.classes.is_empty()
            && self.behind.is_empty()
            && self.made_for.is_empty()
            && self.to_be_made.is_empty()
            && self.claims.is_empty()
            && self.selectors.is_empty()
            && self.in_use.is_empty()
    }
}

fn one_less(pools: &mut BTreeMap<PoolId, u32>, pool: &PoolId) {
    if let Some(count) = pools.get_mut(pool) {
        *count -= 1;
        if *count == 0 {
            pools.remove(pool);
        }
    }
}

fn take_out<T: Ord>(sets: &mut BTreeMap<String, BTreeSet<T>>, of: &str, own: &T) {
    if let Some(set) = sets.get_mut(of) {
        set.remove(own);
        if set.is_empty() {
            sets.remove(of);
        }
    }
}

/// The uid of the pod that a claim was made for the resources of.
fn pod_of(claim: &Value) -> Option<&str> {
    let owner = object::controller(claim).filter(|_| is_made_for_resources(claim))?;
    owner["uid"].as_str()
}

fn version(object: &Value) -> u64 {
    let text = object["metadata"]["resourceVersion"].as_str();
    text.and_then(|own| own.parse().ok()).unwrap_or_default()
}
