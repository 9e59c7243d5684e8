//! Devices that claims have.
//!
//! Invariant: taking a claim away undoes adding it; what nobody has is not kept.

use std::collections::BTreeMap;

use serde_json::Value;

use super::capacity::{Amounts, amounts};
use super::slice::DeviceId;
use crate::object;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct InUse {
    /// How many claims have a device whole: one, unless somebody gave it away twice.
    whole: BTreeMap<DeviceId, u32>,
    shared: BTreeMap<DeviceId, Shares>,
}

#[derive(Debug, Default)]
struct Shares {
    count: u32,
    taken: Amounts,
}

impl InUse {
    /// Counts the devices of an allocation (`status.allocation`).
    pub(super) fn add(&mut self, allocation: &Value) {
        for (id, share) in devices(allocation) {
            let Some(share) = share else {
                *self.whole.entry(id).or_default() += 1;
                continue;
            };
            let shares = self.shared.entry(id).or_default();
            shares.count += 1;
            for (name, amount) in share {
                let sum = shares.taken.get(&name).map(|own| own.plus(&amount));
                shares.taken.insert(name, sum.unwrap_or(amount));
            }
        }
    }

    /// Counts them no more.
    pub(super) fn take_away(&mut self, allocation: &Value) {
        for (id, share) in devices(allocation) {
            let Some(share) = share else {
                if let Some(count) = self.whole.get_mut(&id) {
                    *count -= 1;
                    if *count == 0 {
                        self.whole.remove(&id);
                    }
                }
                continue;
            };
            let Some(shares) = self.shared.get_mut(&id) else {
                continue;
            };
            shares.count -= 1;
            for (name, amount) in share {
                if let Some(own) = shares.taken.get_mut(&name) {
                    *own = own.minus(&amount);
                }
            }
            if shares.count == 0 {
                self.shared.remove(&id);
            }
        }
    }

    /// Whether a claim has all of a device.
    pub(super) fn has_whole(&self, id: &DeviceId) -> bool {
        self.whole.contains_key(id)
    }

    /// Whether a claim has a share of a device.
    pub(super) fn has_shares(&self, id: &DeviceId) -> bool {
        self.shared.contains_key(id)
    }

    /// What is taken of a device that is shared.
    pub(super) fn taken(&self, id: &DeviceId) -> Option<&Amounts> {
        self.shared.get(id).map(|own| &own.taken)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.shared.is_empty()
    }
}

/// The devices of an allocation, with what is taken of those that are shared. Access for
/// administration takes nothing.
fn devices(allocation: &Value) -> impl Iterator<Item = (DeviceId, Option<Amounts>)> {
    let results = object::items(&allocation["devices"]["results"]);
    let results = results.filter(|own| own["adminAccess"] != true);
    results.map(|own| {
        let text = |field: &str| own[field].as_str().unwrap_or_default();
        let id = DeviceId::new(text("driver"), text("pool"), text("device"));
        let is_share = own["shareID"].is_string();
        (id, is_share.then(|| amounts(&own["consumedCapacity"])))
    })
}
