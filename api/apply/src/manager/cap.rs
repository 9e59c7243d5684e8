//! A bound on the entries of updates: every controller and person that ever wrote an
//! object would have one.
//!
//! Invariant: nothing that was owned is lost; entries of applies are not touched.

use super::MAX_UPDATE_ENTRIES;
use crate::managed::{Entry, Identity, Managed, Operation, age_order};

/// The manager of updates that were merged.
const ANCIENT: &str = "ancient-changes";

/// Merges the oldest entries of updates, version by version, until few are left.
pub(super) fn cap_updates(managed: &mut Managed) {
    let mut updates: Vec<&Entry> = managed
        .entries
        .iter()
        .filter(|entry| entry.identity.operation == Operation::Update)
        .collect();
    let mut left = updates.len();
    if left <= MAX_UPDATE_ENTRIES {
        return;
    }
    updates.sort_by(|left, right| age_order(left, right));
    let oldest: Vec<Identity> = updates.iter().map(|entry| entry.identity.clone()).collect();
    let mut firsts: Vec<(String, Identity)> = Vec::new();
    for identity in oldest {
        if left <= MAX_UPDATE_ENTRIES {
            break;
        }
        let Some(version) = managed
            .get(&identity)
            .map(|entry| entry.api_version.clone())
        else {
            continue;
        };
        let Some((_, first)) = firsts.iter().find(|(known, _)| *known == version) else {
            firsts.push((version, identity));
            continue;
        };
        let bucket = Identity::new(ANCIENT, Operation::Update, &version, "");
        if managed.get(&bucket).is_none()
            && let Some(mut entry) = managed.remove(first)
        {
            entry.identity = bucket.clone();
            managed.entries.push(entry);
        }
        if identity == bucket {
            continue;
        }
        let Some(merged) = managed.remove(&identity) else {
            continue;
        };
        if let Some(entry) = managed.get_mut(&bucket) {
            entry.set_to(entry.set().union(&merged.set()));
            entry.time = merged.time;
        }
        left -= 1;
    }
}
