//! How many pods each set of a Deployment shall have.

use super::annotations;
use super::rollout::Rollout;
use super::set::ReplicaSet;
use crate::object;

impl Rollout<'_> {
    /// The size of the new set for as many pods as there may be now.
    pub(super) fn new_size(&self, new: &ReplicaSet) -> i64 {
        let wanted = self.replicas();
        if !self.is_rolling() {
            return wanted;
        }
        let room = wanted + self.max_surge() - self.total();
        new.replicas() + room.min(wanted - new.replicas()).max(0)
    }

    /// Moves the new set towards its full size; says whether it did.
    pub(super) fn grow_new(&mut self) -> bool {
        let Some(new) = &self.new else {
            return false;
        };
        let wanted = self.replicas();
        let size = match new.replicas() > wanted {
            true => wanted,
            false => self.new_size(new),
        };
        self.scale_new(size)
    }

    /// Removes pods of old sets: those that are not available, and as many of the others as
    /// can be missed. Says whether it did.
    pub(super) fn shrink_old(&mut self) -> bool {
        if self.old.iter().all(|set| !set.is_active()) {
            return false;
        }
        let min_available = self.replicas() - self.max_unavailable();
        let new_unavailable: i64 = self
            .new
            .iter()
            .map(|set| set.replicas() - set.available())
            .sum();
        let removable = self.total() - min_available - new_unavailable;
        if removable <= 0 {
            return false;
        }
        let Some(mut removed) = self.remove_unhealthy(removable) else {
            return false;
        };
        let active = self.old.iter().filter(|set| set.is_active());
        let available: i64 = active.chain(&self.new).map(ReplicaSet::available).sum();
        removed += self.remove_available(available - min_available);
        removed > 0
    }

    /// Takes at most `limit` pods that are not available from old sets, oldest first: new
    /// pods that never get ready must not keep broken old ones alive. `None` where a set's
    /// status is behind, so that nobody knows what is available.
    fn remove_unhealthy(&mut self, limit: i64) -> Option<i64> {
        let mut removed = 0;
        for index in 0..self.old.len() {
            let set = &self.old[index];
            if removed >= limit {
                break;
            }
            if !set.is_active() || set.replicas() == set.available() {
                continue;
            }
            let count = (set.replicas() - set.available()).min(limit - removed);
            let size = set.replicas() - count;
            if count < 0 {
                return None;
            }
            self.scale_old(index, size);
            removed += count;
        }
        Some(removed)
    }

    /// Takes at most `limit` pods from old sets, oldest first.
    fn remove_available(&mut self, limit: i64) -> i64 {
        let mut removed = 0;
        for index in 0..self.old.len() {
            let size = self.old[index].replicas();
            let count = size.min(limit - removed).max(0);
            self.scale_old(index, size - count);
            removed += count;
        }
        removed
    }

    /// Meets a change of the number of pods: each set keeps its share.
    pub(super) fn scale(&mut self) {
        let active = self.sets().filter(|set| set.is_active()).count();
        if active <= 1 {
            self.scale_only();
        } else if self.is_saturated() {
            for index in 0..self.old.len() {
                self.scale_old(index, 0);
            }
        } else if self.is_rolling() {
            self.scale_in_proportion();
        }
    }

    /// The only set with pods has them all; without one, the newest.
    fn scale_only(&mut self) {
        let wanted = self.replicas();
        let old = self.old.iter().position(ReplicaSet::is_active);
        match (old, &self.new) {
            (Some(index), _) => self.scale_old(index, wanted),
            (None, Some(_)) => self.scale_new(wanted),
            (None, None) => match self.old.len().checked_sub(1) {
                Some(newest) => self.scale_old(newest, wanted),
                None => false,
            },
        };
    }

    /// Whether the new set has all pods, and they are available.
    fn is_saturated(&self) -> bool {
        let wanted = self.replicas();
        self.new.as_ref().is_some_and(|new| {
            new.replicas() == wanted && new.desired() == Some(wanted) && new.available() == wanted
        })
    }

    fn scale_in_proportion(&mut self) {
        let max = match self.replicas() {
            0 => 0,
            wanted => wanted + self.max_surge(),
        };
        let to_add = max - self.total();
        // In the order in which they get their shares; the new one is counted last.
        let mut order: Vec<(usize, &ReplicaSet)> = self.sets().enumerate().collect();
        order.retain(|(_, set)| set.is_active());
        order.sort_by(|(_, one), (_, two)| {
            let by_age = match to_add > 0 {
                true => two.age().cmp(&one.age()),
                false => one.age().cmp(&two.age()),
            };
            two.replicas().cmp(&one.replicas()).then(by_age)
        });
        let mut added = 0;
        let mut sizes: Vec<(usize, i64)> = Vec::with_capacity(order.len());
        for (index, set) in order {
            let share = self.share(set, to_add, added);
            added += share;
            sizes.push((index, set.replicas() + share));
        }
        if let Some((_, largest)) = sizes.first_mut() {
            *largest = (*largest + to_add - added).max(0);
        }
        for (index, size) in sizes {
            self.resize_set(index, size);
        }
    }

    /// What a set gets of the pods to add (or, below 0, to remove).
    fn share(&self, set: &ReplicaSet, to_add: i64, added: i64) -> i64 {
        let left = to_add - added;
        if left == 0 || to_add == 0 {
            return 0;
        }
        let share = self.fraction(set);
        match to_add > 0 {
            true => share.min(left),
            false => share.max(left),
        }
    }

    /// What a set would get in proportion to the size it had.
    fn fraction(&self, set: &ReplicaSet) -> i64 {
        if self.replicas() == 0 {
            return -set.replicas();
        }
        let before = match set.noted_max() {
            None | Some(0) => object::number(&self.next["status"]["replicas"]),
            Some(max) => max,
        };
        if before <= 0 {
            return 0;
        }
        let scaled = set.replicas() * (self.replicas() + self.max_surge());
        (2 * scaled + before) / (2 * before) - set.replicas()
    }

    pub(super) fn scale_old(&mut self, index: usize, size: i64) -> bool {
        let changes = self
            .old
            .get(index)
            .is_some_and(|set| set.replicas() != size);
        changes && self.resize_set(index, size)
    }

    pub(super) fn scale_new(&mut self, size: i64) -> bool {
        let changes = self.new.as_ref().is_some_and(|set| set.replicas() != size);
        changes && self.resize_set(self.old.len(), size)
    }

    /// Gives a set its size, and notes that of the deployment; says whether its own is
    /// another.
    fn resize_set(&mut self, index: usize, size: i64) -> bool {
        let (desired, max) = (self.replicas(), self.replicas() + self.max_surge());
        let set = match index.checked_sub(self.old.len()) {
            None => self.old.get_mut(index),
            Some(_) => self.new.as_mut(),
        };
        let Some(set) = set else {
            return false;
        };
        let before = set.replicas();
        set.next["spec"]["replicas"] = size.into();
        annotations::note_size(set, desired, max);
        if before == size {
            return false;
        }
        let direction = if before < size { "up" } else { "down" };
        let name = set.name();
        let message = format!("Scaled {direction} replica set {name} from {before} to {size}");
        self.tell_of_scaling(message);
        true
    }
}
