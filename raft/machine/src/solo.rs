//! A quorum of one in memory, for tests of the faces: no log, no network, no disk.
//!
//! Invariants
//! - A proposal is applied before its answer is given, with the clock's time.
//! - A watcher reads the history itself: nothing is buffered for it, nothing is lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;

use crate::command::{Command, Entry, Proposal};
use crate::digest::DigestKey;
use crate::event::Event;
use crate::lease::LeaseView;
use crate::ledger::receipt::{Consistency, LedgerError, Receipt};
use crate::machine::{Machine, MachineError};
use crate::memory::MemoryRows;
use crate::outcome::{Applied, Outcome};
use crate::port::{
    BarrierError, CallError, Cluster, ClusterError, Kv, LeaderChannel, LeaderHandler, Leadership,
    LeaseError, LeaseTimes, Leases, Ledger, Member, MemberRole, NewMember, NodeStatus,
    ProposeError, RangeError, WatchError, WatchGroup, WatchRequest, Watcher,
};
use crate::read::HistoryScan;
use crate::rows::{RowBatch, RowError};
use crate::types::{
    KeyRange, LeaseId, LogPosition, NodeId, RangeRequest, RangeResponse, Revision, UnixMillis,
};
use crate::watching::SingleWatches;

/// Events that one [`Watcher::next`] gives at most, but for the rest of a revision.
const WATCH_EVENTS_MAX: usize = 1024;
/// The only node.
const SOLO_NODE: NodeId = 1;

/// [`Kv`], [`LeaderChannel`] and [`Cluster`] over one in-memory machine. Cheap to clone.
#[derive(Clone)]
pub struct SoloKv {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Box<dyn Fn() -> UnixMillis + Send + Sync>,
    state: Mutex<State>,
    revision: watch::Sender<Revision>,
    leadership: watch::Sender<Leadership>,
    handler: Mutex<Option<Arc<dyn LeaderHandler>>>,
}

struct State {
    machine: Machine,
    rows: MemoryRows,
    next_index: u64,
    /// When each lease ends unless it is kept alive.
    deadlines: BTreeMap<LeaseId, UnixMillis>,
}

impl SoloKv {
    /// An empty store that takes the time of its entries from `clock`.
    pub fn new(clock: impl Fn() -> UnixMillis + Send + Sync + 'static) -> Self {
        let machine = Machine::new(DigestKey::new(&[0; 32]));
        let revision = watch::Sender::new(machine.revision());
        let member = Member {
            id: SOLO_NODE,
            peer_address: "solo:1".to_owned(),
            api_address: "https://127.0.0.1:6443".to_owned(),
            client_address: "https://127.0.0.1:2379".to_owned(),
            role: MemberRole::Voter,
            platform: String::new(),
        };
        let leadership = Leadership {
            term: 1,
            leader: Some(member),
            is_self: true,
        };
        Self {
            shared: Arc::new(Shared {
                clock: Box::new(clock),
                state: Mutex::new(State {
                    machine,
                    rows: MemoryRows::default(),
                    next_index: 0,
                    deadlines: BTreeMap::new(),
                }),
                revision,
                leadership: watch::Sender::new(leadership),
                handler: Mutex::new(None),
            }),
        }
    }

    /// Sets who answers [`LeaderChannel::call`].
    pub fn set_handler(&self, handler: Arc<dyn LeaderHandler>) {
        *lock(&self.shared.handler) = Some(handler);
    }

    /// Pretends a change of leadership; entries are in its term from now on, which
    /// must not be lower than before.
    pub fn set_leadership(&self, leadership: Leadership) {
        self.shared.leadership.send_replace(leadership);
    }

    /// Applies a proposal at once; gives its events too. Leases whose time has run out
    /// end first.
    pub fn apply(&self, proposal: Proposal) -> Result<Applied, ProposeError> {
        let now = (self.shared.clock)();
        let mut state = lock(&self.shared.state);
        let due = state.deadlines.iter().filter(|(_, at)| **at <= now);
        let ids: Vec<LeaseId> = due.map(|(id, _)| *id).collect();
        if !ids.is_empty() {
            let expire = Proposal::new(Command::ExpireLeases { ids });
            self.apply_at(&mut state, now, expire)?;
        }
        self.apply_at(&mut state, now, proposal)
    }

    fn apply_at(
        &self,
        state: &mut State,
        now: UnixMillis,
        proposal: Proposal,
    ) -> Result<Applied, ProposeError> {
        let entry = Entry {
            time: now,
            proposal,
        };
        let position = LogPosition {
            term: self.shared.leadership.borrow().term,
            index: state.next_index,
        };
        let storage = |error: MachineError| ProposeError::Storage(error.to_string());
        let mut batch = RowBatch::default();
        let machine = &mut state.machine;
        let applied = machine
            .apply(position, &entry, &state.rows, &mut batch)
            .map_err(storage)?;
        machine.write_counters(&mut batch).map_err(storage)?;
        state.rows.write(batch);
        state.next_index += 1;
        match &applied.outcome {
            Outcome::Lease { id, ttl_ms } => {
                let deadline = UnixMillis(now.0.saturating_add(*ttl_ms));
                state.deadlines.insert(*id, deadline);
            }
            Outcome::LeasesEnded(ids) => {
                ids.iter().for_each(|id| {
                    state.deadlines.remove(id);
                });
            }
            _ => {}
        }
        self.shared.revision.send_replace(applied.revision);
        Ok(applied)
    }

    fn history(
        &self,
        range: &KeyRange,
        from: Revision,
        previous: bool,
    ) -> Result<crate::read::History, WatchError> {
        let storage = |error: RowError| WatchError::Storage(error.to_string());
        let state = lock(&self.shared.state);
        let compacted = state.machine.compacted_revision();
        if from < compacted {
            return Err(WatchError::Compacted { compacted });
        }
        let current = state.machine.revision();
        let mut scan = HistoryScan::collect(&state.rows, range, from, current, WATCH_EVENTS_MAX)
            .map_err(storage)?;
        scan.link(&state.machine)?;
        if !previous {
            return Ok(scan.without_previous());
        }
        scan.finish(&state.rows).map_err(storage)
    }
}

impl Kv for SoloKv {
    fn propose(&self, proposal: Proposal) -> BoxFuture<'_, Result<Applied, ProposeError>> {
        Box::pin(async move {
            let mut applied = self.apply(proposal)?;
            applied.events.clear();
            Ok(applied)
        })
    }

    fn read_barrier(&self) -> BoxFuture<'_, Result<Revision, BarrierError>> {
        Box::pin(async move { Ok(self.revision()) })
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, RangeError> {
        let state = lock(&self.shared.state);
        let located = state.machine.locate(request)?;
        located
            .read(&state.rows)
            .map_err(|error| RangeError::Storage(error.to_string()))
    }

    fn revision(&self) -> Revision {
        lock(&self.shared.state).machine.revision()
    }

    fn compacted_revision(&self) -> Revision {
        lock(&self.shared.state).machine.compacted_revision()
    }

    fn watch(&self, request: WatchRequest) -> Result<Box<dyn Watcher>, WatchError> {
        let changes = self.shared.revision.subscribe();
        let next = request.from.unwrap_or_else(|| self.revision() + 1).max(1);
        let compacted = self.compacted_revision();
        if next < compacted {
            return Err(WatchError::Compacted { compacted });
        }
        Ok(Box::new(SoloWatcher {
            kv: self.clone(),
            range: request.range,
            previous: request.previous,
            next,
            changes,
        }))
    }

    fn watch_group(&self) -> Box<dyn WatchGroup> {
        let kv = self.clone();
        Box::new(SingleWatches::new(move |request| kv.watch(request)))
    }

    fn leadership(&self) -> Leadership {
        self.shared.leadership.borrow().clone()
    }

    fn leadership_changes(&self) -> BoxStream<'static, Leadership> {
        let mut changes = self.shared.leadership.subscribe();
        changes.mark_changed();
        stream::unfold(changes, |mut changes| async move {
            changes.changed().await.ok()?;
            let leadership = changes.borrow_and_update().clone();
            Some((leadership, changes))
        })
        .boxed()
    }
}

struct SoloWatcher {
    kv: SoloKv,
    range: KeyRange,
    previous: bool,
    next: Revision,
    changes: watch::Receiver<Revision>,
}

impl Watcher for SoloWatcher {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Event>, WatchError>> {
        Box::pin(async move {
            loop {
                let current = *self.changes.borrow_and_update();
                if current >= self.next {
                    let history = self.kv.history(&self.range, self.next, self.previous)?;
                    self.next = history.through + 1;
                    if !history.events.is_empty() {
                        return Ok(history.events);
                    }
                    continue;
                }
                self.changes
                    .changed()
                    .await
                    .map_err(|_| WatchError::Closed)?;
            }
        })
    }

    fn progress(&self) -> Revision {
        self.next - 1
    }
}

impl LeaderChannel for SoloKv {
    fn call(&self, message: Bytes) -> BoxFuture<'_, Result<Bytes, CallError>> {
        let handler = lock(&self.shared.handler).clone();
        Box::pin(async move {
            match handler {
                Some(handler) => handler.handle(message).await.map_err(CallError::Refused),
                None => Err(CallError::Unavailable("no handler is set".to_owned())),
            }
        })
    }
}

impl Cluster for SoloKv {
    fn status(&self) -> NodeStatus {
        let leadership = self.leadership();
        let state = lock(&self.shared.state);
        let applied = state.machine.applied().unwrap_or_default();
        NodeStatus {
            id: SOLO_NODE,
            role: if leadership.is_self {
                "leader"
            } else {
                "follower"
            }
            .to_owned(),
            term: leadership.term,
            last_log: applied,
            applied,
            revision: state.machine.revision(),
            checkpoint: state
                .machine
                .checkpoint()
                .map(|(position, digest)| (position.index, hex(&digest.0))),
            digest: hex(&state.machine.digest().0),
        }
    }

    fn members(&self) -> Vec<Member> {
        self.leadership().leader.into_iter().collect()
    }

    fn add(&self, _member: NewMember) -> BoxFuture<'_, Result<(), ClusterError>> {
        fixed()
    }

    fn promote(&self, _id: NodeId) -> BoxFuture<'_, Result<(), ClusterError>> {
        fixed()
    }

    fn remove(&self, _id: NodeId) -> BoxFuture<'_, Result<(), ClusterError>> {
        fixed()
    }

    fn transfer(&self, _id: NodeId) -> BoxFuture<'_, Result<(), ClusterError>> {
        fixed()
    }

    fn update(&self, _id: NodeId, _address: String) -> BoxFuture<'_, Result<(), ClusterError>> {
        fixed()
    }
}

impl Ledger for SoloKv {
    fn receipt(
        &self,
        revision: Revision,
        key: Option<Bytes>,
    ) -> BoxFuture<'_, Result<Receipt, LedgerError>> {
        let state = lock(&self.shared.state);
        let view = state.machine.ledger();
        let receipt = view.receipt(revision, key.as_deref(), &state.rows);
        Box::pin(async move { receipt })
    }

    fn consistency(
        &self,
        from: u64,
        to: Option<u64>,
    ) -> BoxFuture<'_, Result<Consistency, LedgerError>> {
        let state = lock(&self.shared.state);
        let consistency = state.machine.ledger().consistent(from, to, &state.rows);
        Box::pin(async move { consistency })
    }
}

impl Leases for SoloKv {
    fn keep_alive(&self, id: LeaseId) -> BoxFuture<'_, Result<u64, LeaseError>> {
        let now = (self.shared.clock)();
        let mut state = lock(&self.shared.state);
        let lease = state.machine.lease(id).ok_or(LeaseError::NotFound);
        let renewed = lease.map(|lease| {
            let deadline = UnixMillis(now.0.saturating_add(lease.ttl_ms));
            state.deadlines.insert(id, deadline);
            lease.ttl_ms
        });
        Box::pin(async move { renewed })
    }

    fn remaining(&self, id: LeaseId) -> BoxFuture<'_, Result<LeaseTimes, LeaseError>> {
        let now = (self.shared.clock)();
        let state = lock(&self.shared.state);
        let lease = state.machine.lease(id).ok_or(LeaseError::NotFound);
        let deadline = state.deadlines.get(&id).copied().unwrap_or(now);
        let times = lease.map(|lease| LeaseTimes {
            ttl_ms: lease.ttl_ms,
            remaining_ms: deadline.0.saturating_sub(now.0),
        });
        Box::pin(async move { times })
    }

    fn lease(&self, id: LeaseId) -> Option<LeaseView> {
        lock(&self.shared.state).machine.lease(id)
    }

    fn lease_ids(&self) -> Vec<LeaseId> {
        lock(&self.shared.state).machine.lease_ids()
    }
}

fn fixed() -> BoxFuture<'static, Result<(), ClusterError>> {
    let error = ClusterError::Invalid("the membership of a quorum of one is fixed".to_owned());
    Box::pin(async move { Err(error) })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
