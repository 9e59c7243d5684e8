//! Who watches a kind: found by what changed, each with a bounded queue.
//!
//! Invariants
//! - A watcher is registered under one interest only, and every change that its
//!   selection concerns is found by that interest.
//! - A watcher whose queue is full is cut off: it gets what is in the queue, then the
//!   end. It never gets a later change, and nobody waits for it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use nautilus_machinery::resource::Resource;
use parking_lot::Mutex;

use super::change::{Change, Happened};
use super::entry::Entry;
use super::selection::{Interest, Selection};
use super::tree::Keyed as _;

/// Changes that wait for one watcher; few in tests, so that some are cut off.
const MAX_QUEUED: usize = if cfg!(test) { 4 } else { 1024 };

/// A change as one watcher sees it.
pub(crate) type Delivery = (Happened, Arc<Change>);

/// What waits for one watcher.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
}

#[derive(Default)]
struct QueueState {
    changes: VecDeque<Delivery>,
    waker: Option<Waker>,
    ended: bool,
}

impl Queue {
    /// Everything that waits, once there is something; `None` at the end.
    pub(super) fn poll_take(&self, context: &mut Context<'_>) -> Poll<Option<VecDeque<Delivery>>> {
        let mut state = self.state.lock();
        if !state.changes.is_empty() {
            return Poll::Ready(Some(std::mem::take(&mut state.changes)));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        if state
            .waker
            .as_ref()
            .is_none_or(|waker| !waker.will_wake(context.waker()))
        {
            state.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().changes.is_empty()
    }

    /// False if the watcher is cut off with this.
    fn push(&self, delivery: Delivery, wakers: &mut Vec<Waker>) -> bool {
        let mut state = self.state.lock();
        if state.ended {
            return true;
        }
        let fits = state.changes.len() < MAX_QUEUED;
        if fits {
            state.changes.push_back(delivery);
        } else {
            state.ended = true;
        }
        wakers.extend(state.waker.take());
        fits
    }

    fn end(&self, wakers: &mut Vec<Waker>) {
        let mut state = self.state.lock();
        state.ended = true;
        wakers.extend(state.waker.take());
    }
}

struct Watcher {
    queue: Arc<Queue>,
    selection: Arc<Selection>,
    interest: Interest,
}

/// See the module.
#[derive(Default)]
pub(super) struct Watchers {
    slots: Vec<Option<Watcher>>,
    free: Vec<usize>,
    everything: Vec<usize>,
    namespaces: HashMap<String, Vec<usize>>,
    objects: HashMap<String, Vec<usize>>,
    /// Per field that somebody's interest names: by its text.
    fields: HashMap<usize, HashMap<String, Vec<usize>>>,
}

impl Watchers {
    /// Registers a watcher; gives its number.
    pub(super) fn add(
        &mut self,
        resource: &Resource,
        selection: &Arc<Selection>,
        queue: &Arc<Queue>,
    ) -> usize {
        let interest = selection.interest(resource);
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        match &interest {
            Interest::Everything => self.everything.push(number),
            Interest::Namespace(namespace) => {
                self.namespaces
                    .entry(namespace.clone())
                    .or_default()
                    .push(number);
            }
            Interest::Object(key) => self.objects.entry(key.clone()).or_default().push(number),
            Interest::Field(field, text) => {
                let texts = self.fields.entry(*field).or_default();
                texts.entry(text.clone()).or_default().push(number);
            }
        }
        self.slots[number] = Some(Watcher {
            queue: queue.clone(),
            selection: selection.clone(),
            interest,
        });
        number
    }

    pub(super) fn remove(&mut self, number: usize) {
        let Some(watcher) = self.slots.get_mut(number).and_then(Option::take) else {
            return;
        };
        self.free.push(number);
        match &watcher.interest {
            Interest::Everything => self.everything.retain(|other| *other != number),
            Interest::Namespace(namespace) => leave(&mut self.namespaces, namespace, number),
            Interest::Object(key) => leave(&mut self.objects, key, number),
            Interest::Field(field, text) => {
                if let Some(texts) = self.fields.get_mut(field) {
                    leave(texts, text, number);
                    if texts.is_empty() {
                        self.fields.remove(field);
                    }
                }
            }
        }
    }

    /// Gives a change to all whom it concerns; says how many were cut off.
    pub(super) fn dispatch(&self, change: &Arc<Change>, wakers: &mut Vec<Waker>) -> usize {
        let mut cut_off = 0;
        let mut give = |numbers: &[usize]| {
            for watcher in numbers
                .iter()
                .filter_map(|number| self.slots[*number].as_ref())
            {
                if let Some(happened) = change.seen_by(&watcher.selection)
                    && !watcher.queue.push((happened, change.clone()), wakers)
                {
                    cut_off += 1;
                }
            }
        };
        give(&self.everything);
        let Some(entry) = change.after.as_ref().or(change.before.as_ref()) else {
            return cut_off;
        };
        if let Some(numbers) = entry.namespace().and_then(|own| self.namespaces.get(own)) {
            give(numbers);
        }
        if let Some(numbers) = self.objects.get(entry.key()) {
            give(numbers);
        }
        for (field, texts) in &self.fields {
            let text = |entry: &Option<Arc<Entry>>| {
                entry.as_ref().map(|entry| entry.field(*field).clone())
            };
            let (before, after) = (text(&change.before), text(&change.after));
            if let Some(numbers) = before.as_ref().and_then(|text| texts.get(&**text)) {
                give(numbers);
            }
            if before != after
                && let Some(numbers) = after.as_ref().and_then(|text| texts.get(&**text))
            {
                give(numbers);
            }
        }
        cut_off
    }

    /// Ends every watch.
    pub(super) fn end_all(&self, wakers: &mut Vec<Waker>) {
        for watcher in self.slots.iter().flatten() {
            watcher.queue.end(wakers);
        }
    }
}

fn leave(groups: &mut HashMap<String, Vec<usize>>, name: &str, number: usize) {
    if let Some(members) = groups.get_mut(name) {
        members.retain(|other| *other != number);
        if members.is_empty() {
            groups.remove(name);
        }
    }
}
