//! One change of one object, shared by everybody who is told of it.
//!
//! Invariant: a frame is made once for all watchers that want the same event in the same
//! form.

use std::sync::Arc;

use bytes::Bytes;
use nautilus_machine::Revision;
use parking_lot::Mutex;

use super::entry::Entry;
use super::selection::Selection;
use crate::respond::Form;

/// Forms of one change that are kept; more are made anew for each watcher.
const MAX_FRAMES: usize = 8;

/// What a watcher is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happened {
    Added,
    Modified,
    Deleted,
}

impl Happened {
    /// The event's type on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// See the module. At least one of the two versions is there.
pub(crate) struct Change {
    revision: Revision,
    pub(crate) before: Option<Arc<Entry>>,
    pub(crate) after: Option<Arc<Entry>>,
    frames: Mutex<Vec<((Happened, Form), Bytes)>>,
}

impl Change {
    pub(crate) fn new(
        revision: Revision,
        before: Option<Arc<Entry>>,
        after: Option<Arc<Entry>>,
    ) -> Self {
        Self {
            revision,
            before,
            after,
            frames: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// What it is to who watches `selection`.
    pub(crate) fn seen_by(&self, selection: &Selection) -> Option<Happened> {
        let selects = |entry: &Option<Arc<Entry>>| {
            entry.as_ref().is_some_and(|entry| selection.selects(entry))
        };
        match (selects(&self.before), selects(&self.after)) {
            (false, false) => None,
            (false, true) => Some(Happened::Added),
            (true, true) => Some(Happened::Modified),
            (true, false) => Some(Happened::Deleted),
        }
    }

    /// The version that is shown: what left a selection as it last was in it.
    pub(crate) fn shown(&self, happened: Happened) -> Option<&Arc<Entry>> {
        match happened {
            Happened::Added | Happened::Modified => self.after.as_ref(),
            Happened::Deleted => self.before.as_ref(),
        }
    }

    /// Bytes it keeps in memory: the version that nothing else may hold, and room for
    /// the frames made of the other.
    pub(super) fn weight(&self) -> usize {
        let of = |entry: &Option<Arc<Entry>>| entry.as_ref().map_or(0, |entry| entry.weight());
        of(&self.before) + of(&self.after)
    }

    /// The event in one form, made by `make` for the first who asks.
    pub(crate) fn frame<E>(
        &self,
        happened: Happened,
        form: Form,
        make: impl FnOnce() -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        // Made under the lock: whoever comes meanwhile wants the same frame.
        let mut frames = self.frames.lock();
        if let Some((_, frame)) = frames.iter().find(|(own, _)| *own == (happened, form)) {
            return Ok(frame.clone());
        }
        let frame = make()?;
        if frames.len() < MAX_FRAMES {
            frames.push(((happened, form), frame.clone()));
        }
        Ok(frame)
    }
}
