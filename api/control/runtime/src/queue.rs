//! Which keys a controller looks at next.
//!
//! Invariants
//! - A key that is being looked at is not given out again; what happens to it meanwhile has
//!   it looked at once more.
//! - A key waits once, however often it is asked for; of several times the earliest counts.
//! - What failed waits [`FIRST_BACKOFF`] and twice as long each time, to [`MAX_BACKOFF`],
//!   unless something happens to it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use nautilus_planner::view::Key;
use tokio::time::Instant;

/// Wait after a first failure.
const FIRST_BACKOFF: Duration = Duration::from_millis(5);
/// The longest wait after failures.
const MAX_BACKOFF: Duration = Duration::from_secs(300);

#[derive(Default)]
struct Entry {
    ready: bool,
    looked_at: bool,
    again: bool,
    /// When it becomes ready by itself.
    due: Option<Instant>,
    failures: u32,
}

/// See the module. As many keys as a controller has objects, at most.
#[derive(Default)]
pub(crate) struct Queue {
    entries: BTreeMap<Key, Entry>,
    ready: VecDeque<Key>,
    /// May hold times that are no key's any more.
    due: BinaryHeap<Reverse<(Instant, Key)>>,
}

impl Queue {
    /// A key is to be looked at; says whether that is news.
    pub(crate) fn add(&mut self, key: Key) -> bool {
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.looked_at {
            return !std::mem::replace(&mut entry.again, true);
        }
        if std::mem::replace(&mut entry.ready, true) {
            return false;
        }
        entry.due = None;
        self.ready.push_back(key);
        true
    }

    /// A key is to be looked at at a time, or earlier.
    pub(crate) fn add_at(&mut self, key: Key, at: Instant) {
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.ready || entry.due.is_some_and(|due| due <= at) {
            return;
        }
        entry.due = Some(at);
        self.due.push(Reverse((at, key)));
    }

    /// The next key, which is looked at from now on.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Key> {
        while let Some(Reverse((at, _))) = self.due.peek()
            && *at <= now
            && let Some(Reverse((at, key))) = self.due.pop()
        {
            let own = self.entries.get(&key).and_then(|entry| entry.due);
            if own == Some(at) {
                self.add(key);
            }
        }
        let key = self.ready.pop_front()?;
        let entry = self.entries.entry(key.clone()).or_default();
        (entry.ready, entry.looked_at, entry.due) = (false, true, None);
        Some(key)
    }

    /// When a key becomes ready by itself.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// A key was looked at, with success.
    pub(crate) fn done(&mut self, key: &Key, again_at: Option<Instant>) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.failures = 0;
        }
        self.end(key, again_at);
    }

    /// A key was looked at in vain; gives the time of the next look.
    pub(crate) fn failed(&mut self, key: &Key, now: Instant) -> Instant {
        let failures = self.entries.get(key).map_or(0, |entry| entry.failures);
        let wait = FIRST_BACKOFF
            .saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX))
            .min(MAX_BACKOFF);
        if let Some(entry) = self.entries.get_mut(key) {
            entry.failures = failures.saturating_add(1).min(31);
        }
        self.end(key, Some(now + wait));
        now + wait
    }

    fn end(&mut self, key: &Key, again_at: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        entry.looked_at = false;
        let again = std::mem::take(&mut entry.again);
        let due = entry.due.take();
        let failed = entry.failures > 0;
        if let Some(at) = again_at.into_iter().chain(due).min() {
            self.add_at(key.clone(), at);
        } else if !again && !failed {
            self.entries.remove(key);
        }
        if again {
            self.add(key.clone());
        }
    }

    /// Keys that are ready.
    pub(crate) fn depth(&self) -> usize {
        self.ready.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("n", name)
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_is_looked_at_in_one_place() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        assert!(queue.add(key("a")));
        assert!(!queue.add(key("a")));
        assert!(queue.add(key("b")));
        assert_eq!(queue.take(now), Some(key("a")));
        assert!(queue.add(key("a")), "it is looked at once more");
        assert!(!queue.add(key("a")));
        assert_eq!(queue.take(now), Some(key("b")));
        assert_eq!(queue.take(now), None);
        queue.done(&key("a"), None);
        queue.done(&key("b"), None);
        assert_eq!(queue.take(now), Some(key("a")));
        queue.done(&key("a"), None);
        assert_eq!(queue.take(now), None);
        assert!(queue.entries.is_empty(), "nothing is remembered");
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_of_several_times_counts() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        for seconds in [9, 3, 6] {
            queue.add_at(key("a"), after(seconds));
        }
        assert_eq!(queue.next_due(), Some(after(3)));
        assert_eq!(queue.take(after(2)), None);
        assert_eq!(queue.take(after(3)), Some(key("a")));
        queue.done(&key("a"), Some(after(20)));
        assert_eq!(queue.take(after(19)), None, "the other times are void");
        assert_eq!(queue.take(after(20)), Some(key("a")));
        queue.done(&key("a"), None);
        assert!(queue.entries.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_twice_as_long_each_time_and_success_forgets_them() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        queue.add(key("a"));
        let mut waits = Vec::new();
        for _ in 0..18 {
            assert_eq!(queue.take(now), Some(key("a")));
            let at = queue.failed(&key("a"), now);
            waits.push((at - now).as_millis());
            assert_eq!(queue.take(at - Duration::from_millis(1)), None);
            now = at;
        }
        assert_eq!(waits[..4], [5, 10, 20, 40]);
        assert_eq!(waits[17], MAX_BACKOFF.as_millis());
        assert_eq!(queue.take(now), Some(key("a")));
        queue.done(&key("a"), None);
        queue.add(key("a"));
        assert_eq!(queue.take(now), Some(key("a")));
        assert_eq!((queue.failed(&key("a"), now) - now).as_millis(), 5);
    }
}
