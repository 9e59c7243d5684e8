//! How far this node has applied, and who waits for it to get further.
//!
//! A waiter is woken once, when its own index is applied, not at every step.

use std::collections::BTreeMap;
use std::time::Instant;

use nautilus_machine::LogPosition;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

/// Waiters after which those that gave up are forgotten.
const SWEEP_EVERY: u64 = 1024;

/// Shared by the state machine, which advances it, and everyone who waits.
pub(crate) struct AppliedTracker {
    waiting: Mutex<Waiting>,
    newest: watch::Sender<Option<LogPosition>>,
}

#[derive(Default)]
struct Waiting {
    by_index: BTreeMap<(u64, u64), oneshot::Sender<()>>,
    next_ticket: u64,
}

impl AppliedTracker {
    pub(crate) fn new(applied: Option<LogPosition>) -> Self {
        Self {
            waiting: Mutex::new(Waiting::default()),
            newest: watch::channel(applied).0,
        }
    }

    pub(crate) fn newest(&self) -> Option<LogPosition> {
        *self.newest.borrow()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<LogPosition>> {
        self.newest.subscribe()
    }

    pub(crate) fn advance(&self, position: LogPosition) {
        let woken = {
            let mut waiting = self.waiting.lock();
            self.newest.send_replace(Some(position));
            let later = waiting.by_index.split_off(&(position.index + 1, 0));
            std::mem::replace(&mut waiting.by_index, later)
        };
        for (_, waiter) in woken {
            // One that gave up has dropped its receiver.
            let _ = waiter.send(());
        }
    }

    /// Returns whether `index` was applied before `deadline`.
    pub(crate) async fn wait_for(&self, index: u64, deadline: Instant) -> bool {
        let receiver = {
            let mut waiting = self.waiting.lock();
            if self
                .newest()
                .is_some_and(|position| position.index >= index)
            {
                return true;
            }
            let (sender, receiver) = oneshot::channel();
            waiting.next_ticket += 1;
            let ticket = waiting.next_ticket;
            if ticket.is_multiple_of(SWEEP_EVERY) {
                waiting.by_index.retain(|_, waiter| !waiter.is_closed());
            }
            waiting.by_index.insert((index, ticket), sender);
            receiver
        };
        matches!(
            tokio::time::timeout_at(deadline.into(), receiver).await,
            Ok(Ok(()))
        )
    }
}
