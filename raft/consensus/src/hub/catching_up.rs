//! Watches that are behind, brought level in rounds: one stretch of history, read once
//! for all who need it.
//!
//! Invariants
//! - Who takes part in a round is settled when it begins; a watch added meanwhile
//!   waits for the next.
//! - A round that reaches the hub's head registers its watches before anything newer
//!   is published, and is delivered to its end before the queue is looked at again.
//! - Every watch gets its turn: a round begins for the one that waited longest.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nautilus_machine::{Event, History, KeyRange, RangeEnd, Revision, WatchError, is_reserved};

use super::group::{Group, READ_EVENTS};
use super::ring::Batch;
use super::watches::{Course, Watch};

/// A round under way.
pub(super) enum Round {
    /// The store's history is being read.
    Reading(BoxFuture<'static, Result<History, WatchError>>),
    /// What was read is being sorted out.
    Delivering {
        batches: VecDeque<Arc<Batch>>,
        /// Everything up to here is in it.
        through: Revision,
        /// Its watches are level after it.
        registered: bool,
    },
}

impl Round {
    pub(super) fn is_registered(&self) -> bool {
        matches!(
            self,
            Self::Delivering {
                registered: true,
                ..
            }
        )
    }
}

impl Group {
    /// One step of catching up; false when there is none to do now.
    pub(super) fn poll_round(&mut self, context: &mut Context<'_>) -> bool {
        match self.round.take() {
            None => self.begin_round(),
            Some(Round::Reading(mut read)) => match read.poll_unpin(context) {
                Poll::Pending => {
                    self.round = Some(Round::Reading(read));
                    false
                }
                Poll::Ready(Ok(history)) => {
                    self.round = Some(Round::Delivering {
                        batches: batches(history.events),
                        through: history.through,
                        registered: false,
                    });
                    true
                }
                Poll::Ready(Err(error)) => {
                    self.fail_round(&error);
                    true
                }
            },
            Some(Round::Delivering {
                mut batches,
                through,
                registered,
            }) => {
                while self.has_room()
                    && let Some(batch) = batches.pop_front()
                {
                    self.watches.deliver_behind(&batch);
                }
                if batches.is_empty() {
                    self.end_round(through, registered);
                } else {
                    self.round = Some(Round::Delivering {
                        batches,
                        through,
                        registered,
                    });
                }
                true
            }
        }
    }

    /// Begins a round for the watch that waited longest, with all others of its kind
    /// that are not further behind.
    fn begin_round(&mut self) -> bool {
        if self.watches.behind_count == 0 {
            return false;
        }
        let behind = self
            .watches
            .iter()
            .map(|(_, watch)| watch)
            .filter(is_behind);
        let first = behind.min_by_key(|watch| (watch.last_round, watch.position));
        let Some((after, reserved)) =
            first.map(|watch| (watch.position, is_reserved(&watch.range.start)))
        else {
            return false;
        };
        self.rounds += 1;
        for watch in self.watches.iter_mut() {
            watch.in_round = is_behind(&&*watch)
                && watch.position >= after
                && is_reserved(&watch.range.start) == reserved;
        }
        let (number, watches) = (self.number, &self.watches);
        let members = || watches.iter().filter(|(_, watch)| watch.in_round);
        let stretch = self.hub.read_ring(after, READ_EVENTS, |state| {
            for (_, watch) in members() {
                state.follow(number, &watch.range);
            }
        });
        self.round = Some(match stretch {
            Some(stretch) => Round::Delivering {
                batches: stretch.batches,
                through: stretch.through,
                registered: stretch.level,
            },
            None => {
                let hull = hull(members().map(|(_, watch)| &watch.range));
                let previous = members().any(|(_, watch)| watch.previous);
                Round::Reading(self.read_history(hull, after + 1, previous))
            }
        });
        if self.round.as_ref().is_some_and(Round::is_registered) {
            for watch in self.watches.iter_mut().filter(|watch| watch.in_round) {
                watch.registered = true;
            }
        }
        true
    }

    fn read_history(
        &self,
        range: KeyRange,
        from: Revision,
        previous: bool,
    ) -> BoxFuture<'static, Result<History, WatchError>> {
        let store = Arc::clone(&self.hub.store);
        let turns = Arc::clone(&self.hub.history_reads);
        async move {
            let turn = turns
                .acquire_owned()
                .await
                .map_err(|_| WatchError::Closed)?;
            let read = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                store.history(&range, from, READ_EVENTS, previous)
            });
            read.await
                .map_err(|error| WatchError::Storage(error.to_string()))?
        }
        .boxed()
    }

    fn end_round(&mut self, through: Revision, registered: bool) {
        for slot in self.round_members() {
            if let Some(watch) = self.watches.at(slot) {
                // One that is ahead of the stretch had no turn.
                if watch.position < through || registered {
                    watch.last_round = self.rounds;
                }
                watch.position = watch.position.max(through);
                watch.in_round = false;
            }
            if registered {
                self.watches.raise(slot);
            }
        }
    }

    /// Ends the watches whose revisions are gone, or all of the round if nothing can
    /// be read.
    fn fail_round(&mut self, error: &WatchError) {
        for slot in self.round_members() {
            let Some(watch) = self.watches.at(slot) else {
                continue;
            };
            watch.in_round = false;
            let goes_on = matches!(error, WatchError::Compacted { compacted }
                if watch.position + 1 >= *compacted);
            if !goes_on {
                self.watches.end(slot, error.clone());
            }
        }
    }

    fn round_members(&self) -> Vec<u32> {
        let members = self.watches.iter();
        members
            .filter(|(_, watch)| watch.in_round && watch.course == Course::Behind)
            .map(|(slot, _)| slot)
            .collect()
    }
}

fn is_behind(watch: &&Watch) -> bool {
    watch.course == Course::Behind
}

/// Events of history by their revisions.
fn batches(events: Vec<Event>) -> VecDeque<Arc<Batch>> {
    let mut batches = VecDeque::new();
    let mut events = events.into_iter().peekable();
    while let Some(first) = events.next() {
        let revision = first.revision();
        let mut together = vec![first];
        while let Some(event) = events.next_if(|event| event.revision() == revision) {
            together.push(event);
        }
        batches.push_back(Arc::new(Batch::new(revision, together)));
    }
    batches
}

/// The smallest range that holds all of `ranges`, which start all among the reserved
/// keys or none of them.
fn hull<'a>(ranges: impl Iterator<Item = &'a KeyRange>) -> KeyRange {
    let mut ranges = ranges.cloned();
    let Some(mut hull) = ranges.next() else {
        return KeyRange::prefix("");
    };
    for range in ranges {
        if range == hull {
            continue;
        }
        let end = later(end_after(&hull), end_after(&range));
        hull.end = end.map_or(RangeEnd::Unbounded, RangeEnd::Key);
        hull.start = hull.start.min(range.start);
    }
    hull
}

/// The first key after a range; `None` if there is none.
fn end_after(range: &KeyRange) -> Option<bytes::Bytes> {
    match &range.end {
        RangeEnd::Single => Some([&range.start[..], &[0]].concat().into()),
        RangeEnd::Key(end) => Some(end.clone()),
        RangeEnd::Unbounded => None,
    }
}

fn later(one: Option<bytes::Bytes>, other: Option<bytes::Bytes>) -> Option<bytes::Bytes> {
    Some(one?.max(other?))
}
