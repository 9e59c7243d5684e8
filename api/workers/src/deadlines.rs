//! A timer wheel: many deadlines, nearly all of which are moved before they pass.
//!
//! Pure: time is an argument. Invariants, checked against a sorted map below:
//! - a deadline never fires before its time, and fires in the first
//!   [`Deadlines::expire`] whose time is at least one granule past it;
//! - insert, move and remove cost the same however many deadlines there are;
//! - a handle of a deadline that has fired or was removed does nothing.

/// No entry: ends a bucket's list.
const NONE: u32 = u32::MAX;

/// Deadlines, each with a value that comes back when it passes.
#[derive(Debug)]
pub struct Deadlines<T> {
    granule_ms: u64,
    /// The last granule that has been looked at.
    current: u64,
    /// Heads of the lists; the deadline's granule modulo their number is its bucket.
    buckets: Box<[u32]>,
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    limit: usize,
}

/// Refers to one deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle {
    index: u32,
    generation: u32,
}

#[derive(Debug)]
struct Entry<T> {
    value: Option<T>,
    granule: u64,
    previous: u32,
    next: u32,
    generation: u32,
}

impl<T> Deadlines<T> {
    /// An empty wheel at `now_ms`. Deadlines up to `granule_ms * buckets` ahead are
    /// visited once; farther ones once per turn of the wheel. Holds at most `limit`
    /// (capped to what a 32-bit index reaches).
    pub fn new(now_ms: u64, granule_ms: u64, buckets: usize, limit: usize) -> Self {
        let granule_ms = granule_ms.max(1);
        Self {
            granule_ms,
            current: now_ms / granule_ms,
            buckets: vec![NONE; buckets.max(1)].into_boxed_slice(),
            entries: Vec::new(),
            free: Vec::new(),
            limit: limit.min(NONE as usize - 1),
        }
    }

    /// How many deadlines are set.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets a deadline; `None` when the wheel is full.
    pub fn insert(&mut self, value: T, deadline_ms: u64) -> Option<Handle> {
        let granule = self.granule_of(deadline_ms);
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.entries.len() < self.limit => {
                let index = u32::try_from(self.entries.len()).ok()?;
                self.entries.push(Entry {
                    value: None,
                    granule: 0,
                    previous: NONE,
                    next: NONE,
                    generation: 0,
                });
                index
            }
            None => return None,
        };
        let entry = &mut self.entries[index as usize];
        entry.value = Some(value);
        entry.granule = granule;
        let generation = entry.generation;
        self.link(index);
        Some(Handle { index, generation })
    }

    /// Moves a deadline; `false` when the handle is of the past.
    pub fn reset(&mut self, handle: Handle, deadline_ms: u64) -> bool {
        if !self.lives(handle) {
            return false;
        }
        let granule = self.granule_of(deadline_ms);
        self.unlink(handle.index);
        self.entries[handle.index as usize].granule = granule;
        self.link(handle.index);
        true
    }

    /// Takes a deadline out; `None` when the handle is of the past.
    pub fn remove(&mut self, handle: Handle) -> Option<T> {
        if !self.lives(handle) {
            return None;
        }
        self.unlink(handle.index);
        self.release(handle.index)
    }

    /// The values of all deadlines that have passed by `now_ms`, each once. Time that
    /// goes back is taken as standing still.
    pub fn expire(&mut self, now_ms: u64) -> Vec<T> {
        let now = now_ms / self.granule_ms;
        let mut passed = Vec::new();
        if now <= self.current {
            return passed;
        }
        // After a long pause every bucket is visited once, not once per granule missed.
        let span = (now - self.current).min(self.buckets.len() as u64);
        for granule in now - span + 1..=now {
            let mut index = self.buckets[self.bucket_of(granule)];
            while index != NONE {
                let next = self.entries[index as usize].next;
                if self.entries[index as usize].granule <= now {
                    self.unlink(index);
                    passed.extend(self.release(index));
                }
                index = next;
            }
        }
        self.current = now;
        passed
    }

    /// The first granule that begins at or after the deadline and is yet to be visited.
    fn granule_of(&self, deadline_ms: u64) -> u64 {
        deadline_ms.div_ceil(self.granule_ms).max(self.current + 1)
    }

    fn bucket_of(&self, granule: u64) -> usize {
        // The remainder is below the number of buckets, which is a usize.
        (granule % self.buckets.len() as u64) as usize
    }

    fn lives(&self, handle: Handle) -> bool {
        self.entries
            .get(handle.index as usize)
            .is_some_and(|entry| entry.generation == handle.generation && entry.value.is_some())
    }

    fn link(&mut self, index: u32) {
        let bucket = self.bucket_of(self.entries[index as usize].granule);
        let head = self.buckets[bucket];
        if head != NONE {
            self.entries[head as usize].previous = index;
        }
        let entry = &mut self.entries[index as usize];
        entry.previous = NONE;
        entry.next = head;
        self.buckets[bucket] = index;
    }

    fn unlink(&mut self, index: u32) {
        let (previous, next, granule) = {
            let entry = &self.entries[index as usize];
            (entry.previous, entry.next, entry.granule)
        };
        if previous == NONE {
            let bucket = self.bucket_of(granule);
            self.buckets[bucket] = next;
        } else {
            self.entries[previous as usize].next = next;
        }
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
    }

    fn release(&mut self, index: u32) -> Option<T> {
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(index);
        entry.value.take()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const GRANULE_MS: u64 = 10;

    #[derive(Debug, Clone)]
    enum Step {
        Insert { ahead_ms: u64 },
        Reset { which: usize, ahead_ms: u64 },
        Remove { which: usize },
        Advance { by_ms: u64 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..2000_u64).prop_map(|ahead_ms| Step::Insert { ahead_ms }),
            (any::<usize>(), 0..2000_u64)
                .prop_map(|(which, ahead_ms)| Step::Reset { which, ahead_ms }),
            any::<usize>().prop_map(|which| Step::Remove { which }),
            (0..900_u64).prop_map(|by_ms| Step::Advance { by_ms }),
        ];
        prop::collection::vec(step, 1..120)
    }

    proptest! {
        #[test]
        fn the_wheel_fires_what_a_sorted_map_would_fire(
            steps in steps(), buckets in 1..40_usize, start in 0..5000_u64,
        ) {
            let mut now = start;
            let mut wheel = Deadlines::new(now, GRANULE_MS, buckets, 1000);
            let mut model: BTreeMap<usize, u64> = BTreeMap::new();
            let mut handles = Vec::new();
            for step in steps {
                match step {
                    Step::Insert { ahead_ms } => {
                        let value = handles.len();
                        handles.push(wheel.insert(value, now + ahead_ms).expect("room"));
                        model.insert(value, now + ahead_ms);
                    }
                    Step::Reset { which, ahead_ms } if !handles.is_empty() => {
                        let value = which % handles.len();
                        let lives = model.contains_key(&value);
                        prop_assert_eq!(wheel.reset(handles[value], now + ahead_ms), lives);
                        if lives {
                            model.insert(value, now + ahead_ms);
                        }
                    }
                    Step::Remove { which } if !handles.is_empty() => {
                        let value = which % handles.len();
                        let expected = model.remove(&value).map(|_| value);
                        prop_assert_eq!(wheel.remove(handles[value]), expected);
                    }
                    Step::Advance { by_ms } => {
                        now += by_ms;
                        for value in wheel.expire(now) {
                            let deadline = model.remove(&value);
                            prop_assert!(deadline.is_some_and(|at| at <= now), "{value} fired early or twice");
                        }
                        // At most one granule late.
                        prop_assert!(model.values().all(|at| at + GRANULE_MS > now));
                    }
                    Step::Reset { .. } | Step::Remove { .. } => {}
                }
                prop_assert_eq!(wheel.len(), model.len());
            }
            let mut rest = wheel.expire(now + 10_000);
            rest.sort_unstable();
            prop_assert_eq!(rest, model.keys().copied().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_full_wheel_refuses_and_takes_again_after_a_removal() {
        let mut wheel = Deadlines::new(0, 1, 4, 2);
        let first = wheel.insert('a', 1).expect("room for the first");
        wheel.insert('b', 1).expect("room for the second");
        assert!(wheel.insert('c', 1).is_none());
        assert_eq!(wheel.remove(first), Some('a'));
        assert!(wheel.insert('c', 1).is_some());
    }

    #[test]
    fn a_handle_of_the_past_does_not_touch_its_successor() {
        let mut wheel = Deadlines::new(0, 1, 4, 2);
        let old = wheel.insert('a', 1).expect("room");
        wheel.remove(old);
        wheel.insert('b', 5).expect("room");
        assert!(!wheel.reset(old, 1));
        assert_eq!(wheel.remove(old), None);
        assert_eq!(wheel.expire(5), ['b']);
    }
}
