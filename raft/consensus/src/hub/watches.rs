//! The watches of one group, and what waits for its reader.
//!
//! Invariants
//! - A watch is in exactly one of the two indexes: `level`, fed by the group's queue,
//!   or `behind`, fed by catching up.
//! - Nothing at or below a watch's `position` is given to it.
//! - What waits for a watch that was removed is passed over.

use std::collections::{HashMap, VecDeque};

use nautilus_machine::{KeyRange, Revision, WatchError, WatchMessage, WatchRequest, WatchedEvent};

use super::interest::Interest;
use super::ring::Batch;

/// Events of a message at most, but never less than a revision's.
const MESSAGE_EVENTS_MAX: usize = 1024;
/// Bytes of keys and values from which on a message takes no further revision.
const MESSAGE_BYTES: usize = 512 << 10;

/// Which index feeds a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    Level,
    Behind,
    /// It waits to be told its end.
    Ended,
}

pub(super) struct Watch {
    id: i64,
    serial: u64,
    pub(super) range: KeyRange,
    pub(super) previous: bool,
    /// Nothing up to here is given to it (again).
    pub(super) position: Revision,
    pub(super) course: Course,
    /// The group is registered at the hub for it.
    pub(super) registered: bool,
    /// It takes part in the round of catching up that is under way.
    pub(super) in_round: bool,
    /// The last such round that began for it or with it.
    pub(super) last_round: u64,
    newest_message: u64,
}

#[derive(Default)]
pub(super) struct Watches {
    slots: Vec<Option<Watch>>,
    free: Vec<u32>,
    ids: HashMap<i64, u32>,
    level: Interest<Vec<u32>>,
    behind: Interest<Vec<u32>>,
    ready: Ready,
    serials: u64,
    pub(super) level_count: usize,
    pub(super) behind_count: usize,
}

/// Messages for the reader, numbered from 1 on.
#[derive(Default)]
struct Ready {
    messages: VecDeque<Message>,
    popped: u64,
    events: usize,
}

struct Message {
    slot: u32,
    serial: u64,
    bytes: usize,
    body: Result<Vec<WatchedEvent>, WatchError>,
}

impl Watches {
    /// Adds a watch that is behind.
    pub(super) fn add(&mut self, id: i64, request: WatchRequest, position: Revision) -> u32 {
        self.serials += 1;
        let watch = Watch {
            id,
            serial: self.serials,
            range: request.range,
            previous: request.previous,
            position,
            course: Course::Behind,
            registered: false,
            in_round: false,
            last_round: 0,
            newest_message: 0,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let before = self.ids.insert(id, slot);
        assert!(before.is_none(), "watch {id} was added twice");
        self.behind
            .change(&watch.range, |members| members.push(slot));
        self.behind_count += 1;
        self.slots[slot as usize] = Some(watch);
        slot
    }

    /// Takes a watch out.
    pub(super) fn remove(&mut self, id: i64) -> Option<Watch> {
        let slot = self.ids.remove(&id)?;
        self.detach(slot);
        self.free.push(slot);
        self.slots[slot as usize].take()
    }

    pub(super) fn get(&self, id: i64) -> Option<&Watch> {
        let slot = self.ids.get(&id)?;
        self.slots[*slot as usize].as_ref()
    }

    pub(super) fn at(&mut self, slot: u32) -> Option<&mut Watch> {
        self.slots[slot as usize].as_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Watch)> {
        let slots = (0u32..).zip(&self.slots);
        slots.filter_map(|(slot, watch)| Some((slot, watch.as_ref()?)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Watch> {
        self.slots.iter_mut().flatten()
    }

    /// Feeds a watch that was behind from the group's queue from now on.
    pub(super) fn raise(&mut self, slot: u32) {
        self.detach(slot);
        let Some(watch) = &mut self.slots[slot as usize] else {
            return;
        };
        watch.course = Course::Level;
        self.level
            .change(&watch.range, |members| members.push(slot));
        self.level_count += 1;
    }

    /// Puts every level watch behind, after `position` at least. The caller
    /// unregisters them.
    pub(super) fn lower_all(&mut self, position: Revision) {
        self.level = Interest::default();
        for (slot, watch) in (0u32..).zip(&mut self.slots) {
            let Some(watch) = watch.as_mut().filter(|watch| watch.course == Course::Level) else {
                continue;
            };
            watch.course = Course::Behind;
            watch.registered = false;
            watch.position = watch.position.max(position);
            self.behind
                .change(&watch.range, |members| members.push(slot));
            self.level_count -= 1;
            self.behind_count += 1;
        }
    }

    /// Ends a watch, after what waits for it already.
    pub(super) fn end(&mut self, slot: u32, error: WatchError) {
        self.detach(slot);
        if let Some(watch) = &mut self.slots[slot as usize]
            && watch.course != Course::Ended
        {
            watch.course = Course::Ended;
            self.ready.messages.push_back(Message {
                slot,
                serial: watch.serial,
                bytes: 0,
                body: Err(error),
            });
        }
    }

    fn detach(&mut self, slot: u32) {
        let Some(watch) = &self.slots[slot as usize] else {
            return;
        };
        let (index, count) = match watch.course {
            Course::Level => (&mut self.level, &mut self.level_count),
            Course::Behind => (&mut self.behind, &mut self.behind_count),
            Course::Ended => return,
        };
        *count -= 1;
        index.reduce(&watch.range, |members| {
            if let Some(at) = members.iter().position(|member| *member == slot) {
                members.swap_remove(at);
            }
            members.is_empty()
        });
    }

    /// Gives a revision to all that are level.
    pub(super) fn deliver_level(&mut self, batch: &Batch) {
        let Self {
            slots,
            level,
            ready,
            ..
        } = self;
        deliver(batch, level, |slot, event| {
            if let Some(watch) = &mut slots[slot as usize]
                && watch.position < batch.revision
            {
                ready.push(slot, watch, event);
            }
        });
    }

    /// Gives a revision to all that take part in the round of catching up.
    pub(super) fn deliver_behind(&mut self, batch: &Batch) {
        let Self {
            slots,
            behind,
            ready,
            ..
        } = self;
        deliver(batch, behind, |slot, event| {
            if let Some(watch) = &mut slots[slot as usize]
                && watch.in_round
                && watch.position < batch.revision
            {
                ready.push(slot, watch, event);
            }
        });
    }

    /// Events that wait for the reader.
    pub(super) fn ready_events(&self) -> usize {
        self.ready.events
    }

    /// The events of the next message the versions before which are yet to be read,
    /// and their watch's serial number.
    pub(super) fn front_unread(&mut self) -> Option<(u64, Vec<WatchedEvent>)> {
        self.drop_orphans();
        let message = self.ready.messages.front()?;
        let watch = self.slots[message.slot as usize].as_ref()?;
        if !watch.previous {
            return None;
        }
        let events = message.body.as_ref().ok()?.iter();
        let unread: Vec<WatchedEvent> = events
            .filter(|event| event.unread_previous().is_some())
            .cloned()
            .collect();
        (!unread.is_empty()).then_some((watch.serial, unread))
    }

    /// Ends the watch of the next message in its place, if it is the one of `serial`.
    pub(super) fn end_front(&mut self, serial: u64, error: WatchError) {
        let front = self.ready.messages.front();
        if let Some(slot) = front
            .filter(|message| message.serial == serial)
            .map(|message| message.slot)
        {
            self.ready.pop();
            self.end(slot, error);
        }
    }

    /// Drops what waits at the front for watches that are gone.
    fn drop_orphans(&mut self) {
        while let Some(message) = self.ready.messages.front() {
            let watch = self.slots[message.slot as usize].as_ref();
            if watch.is_some_and(|watch| watch.serial == message.serial) {
                return;
            }
            self.ready.pop();
        }
    }

    /// The next message for the reader; an error ends its watch.
    pub(super) fn pop(&mut self) -> Option<WatchMessage> {
        self.drop_orphans();
        let message = self.ready.pop()?;
        let id = self.slots[message.slot as usize].as_ref()?.id;
        Some(WatchMessage {
            id,
            result: message.body,
        })
    }

    /// The revision before the first event that waits for the reader, of one watch or
    /// of any.
    pub(super) fn before_ready(&self, only: Option<&Watch>) -> Option<Revision> {
        let of_interest = |message: &&Message| {
            let watch = self.slots[message.slot as usize].as_ref();
            watch.is_some_and(|watch| watch.serial == message.serial)
                && only.is_none_or(|only| only.serial == message.serial)
        };
        let waiting = self.ready.messages.iter().filter(of_interest);
        waiting
            .filter_map(|message| Some(message.body.as_ref().ok()?.first()?.event().revision() - 1))
            .min()
    }
}

fn deliver(batch: &Batch, index: &Interest<Vec<u32>>, mut give: impl FnMut(u32, &WatchedEvent)) {
    for event in &batch.events {
        index.each(&event.event().kv.key, |members| {
            for slot in members {
                give(*slot, event);
            }
        });
    }
}

impl Ready {
    fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.popped += 1;
        self.events -= message.body.as_ref().map_or(0, Vec::len);
        Some(message)
    }

    fn push(&mut self, slot: u32, watch: &mut Watch, event: &WatchedEvent) {
        let kv = &event.event().kv;
        let (bytes, revision) = (kv.key.len() + kv.value.len(), kv.mod_revision);
        let event = event.clone();
        let event = if watch.previous {
            event.with_previous()
        } else {
            event
        };
        self.events += 1;
        if let Some(at) = watch.newest_message.checked_sub(self.popped + 1)
            && let Ok(at) = usize::try_from(at)
            && let Some(message) = self.messages.get_mut(at)
            && let Ok(events) = &mut message.body
        {
            let same = events
                .last()
                .is_some_and(|last| last.event().revision() == revision);
            if same || (events.len() < MESSAGE_EVENTS_MAX && message.bytes < MESSAGE_BYTES) {
                events.push(event);
                message.bytes += bytes;
                return;
            }
        }
        self.messages.push_back(Message {
            slot,
            serial: watch.serial,
            bytes,
            body: Ok(vec![event]),
        });
        watch.newest_message = self.popped + self.messages.len() as u64;
    }
}
