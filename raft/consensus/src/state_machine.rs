//! openraft's state machine, over the store.
//!
//! Invariants: the applied log id and the membership are written in the same batch
//! as the entries they belong to; watchers hear of an entry after it is readable;
//! a checkpoint whose digest differs from the leader's ends the node.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use nautilus_machine::{Applied, Command, Entry, LogPosition, Outcome, Revision, UnixMillis};
use nautilus_store::{Store, View};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::applied::AppliedTracker;
use crate::hub::Hub;
use crate::lessor::Lessor;
use crate::snapshots::{SnapshotFile, Snapshots, load};
use crate::telemetry;
use crate::types::{
    AppliedReply, LogId, MembershipNote, Payload, Reply, SnapshotHeader, SnapshotMeta,
    StoredMembership, TypeConfig, log_id, position,
};

const NOTE_APPLIED: &str = "raft/applied";
const NOTE_MEMBERSHIP: &str = "raft/membership";
/// Entries written to the store in one batch at most.
const APPLY_ENTRIES: usize = 1024;
/// Batches from here on are written on a blocking thread.
const BLOCKING_ENTRIES: usize = 64;

type Responder = openraft::storage::ApplyResponder<TypeConfig>;

/// The adapter; owned by openraft's worker, which applies one batch at a time.
pub(crate) struct StateMachine {
    shared: Arc<Machinery>,
    applied: Option<LogPosition>,
    membership: MembershipNote,
}

/// What the adapter shares with the rest of the node.
pub(crate) struct Machinery {
    pub(crate) store: Arc<Store>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) tracker: AppliedTracker,
    pub(crate) newest: Newest,
    pub(crate) lessor: Lessor,
    pub(crate) snapshots: Snapshots,
    /// The newest checkpoint entry applied here.
    pub(crate) checkpoints: watch::Sender<Option<LogPosition>>,
}

/// The newest applied revision and time, readable while a batch is applied.
#[derive(Default)]
pub(crate) struct Newest {
    revision: AtomicU64,
    time_ms: AtomicU64,
}

impl Machinery {
    /// The store's newest revision that is readable.
    pub(crate) fn revision(&self) -> Revision {
        self.newest.revision.load(Ordering::Acquire)
    }

    /// The time of the last entry applied.
    pub(crate) fn time(&self) -> UnixMillis {
        UnixMillis(self.newest.time_ms.load(Ordering::Acquire))
    }

    /// The leader's clock hears of leases before anybody is told that they are there.
    fn tell_lessor(&self, applied: &Applied, entry: &Entry) {
        match (&applied.outcome, &entry.proposal.command) {
            (Outcome::Lease { id, ttl_ms }, _) => {
                self.lessor.granted(Instant::now(), *id, *ttl_ms);
            }
            (Outcome::LeasesEnded(ids), _) => self.lessor.ended(ids),
            (Outcome::Done, Command::Load { leases, .. }) => {
                for (id, ttl_ms) in leases {
                    self.lessor.granted(Instant::now(), *id, *ttl_ms);
                }
            }
            _ => {}
        }
    }

    /// Takes both from the store.
    fn reload_newest(&self) {
        let (revision, time) = (self.store.revision(), self.store.time());
        self.newest.revision.store(revision, Ordering::Release);
        self.newest.time_ms.store(time.0, Ordering::Release);
    }
}

impl StateMachine {
    pub(crate) fn new(shared: Arc<Machinery>) -> io::Result<Self> {
        let applied = applied_note(&shared.store)?;
        let membership = read_note(&shared.store, NOTE_MEMBERSHIP)?.unwrap_or_default();
        shared.reload_newest();
        if let Some(position) = applied {
            shared.tracker.advance(position);
        }
        Ok(Self {
            shared,
            applied,
            membership,
        })
    }

    async fn apply_chunk(&mut self, chunk: Vec<EntryResponder<TypeConfig>>) -> io::Result<()> {
        let started = Instant::now();
        let Some((last, _)) = chunk.last() else {
            return Ok(());
        };
        let last = position(&last.log_id);
        let mut commands = Vec::with_capacity(chunk.len());
        let mut responders: Vec<(LogPosition, Option<Responder>)> = Vec::with_capacity(chunk.len());
        let mut notes: Vec<(&'static str, Bytes)> = vec![(NOTE_APPLIED, encode(&Some(last))?)];
        let mut membership = None;
        for (entry, responder) in chunk {
            let at = position(&entry.log_id);
            match entry.payload {
                Payload::Blank => {}
                Payload::Normal(data) => commands.push((at, decode_entry(at, &data.0)?)),
                Payload::Membership(new) => {
                    membership = Some(MembershipNote {
                        at: Some(at),
                        membership: new,
                    });
                }
            }
            responders.push((at, responder));
        }
        if let Some(membership) = &membership {
            notes.push((NOTE_MEMBERSHIP, encode(membership)?));
        }
        let (commands, applied) = self.write(commands, notes).await?;
        self.applied = Some(last);
        if let Some(membership) = membership {
            self.membership = membership;
        }
        for (applied, (_, entry)) in applied.iter().zip(&commands) {
            self.compare_checkpoint(applied, entry)?;
            self.shared.tell_lessor(applied, entry);
        }
        self.announce(applied, responders, last);
        metrics::histogram!("nautilus_apply_duration_seconds").record(started.elapsed());
        metrics::gauge!("nautilus_applied_index").set(last.index as f64);
        Ok(())
    }

    /// Writes a batch; a large one on a blocking thread.
    async fn write(
        &self,
        commands: Vec<(LogPosition, Entry)>,
        notes: Vec<(&'static str, Bytes)>,
    ) -> io::Result<(Vec<(LogPosition, Entry)>, Vec<Applied>)> {
        let store = Arc::clone(&self.shared.store);
        if commands.is_empty() {
            store.put_notes(&notes).map_err(io::Error::other)?;
            return Ok((commands, Vec::new()));
        }
        let spans: Vec<_> = commands
            .iter()
            .filter_map(|(at, entry)| telemetry::apply_span(*at, entry))
            .collect();
        let large = commands.len() >= BLOCKING_ENTRIES;
        let work = move || {
            let applied = store.apply(&commands, &notes).map_err(io::Error::other)?;
            drop(spans);
            Ok((commands, applied))
        };
        if large {
            tokio::task::spawn_blocking(work)
                .await
                .map_err(io::Error::other)?
        } else {
            work()
        }
    }

    /// Tells watchers, waiters and proposers, in this order.
    fn announce(
        &self,
        mut applied: Vec<Applied>,
        responders: Vec<(LogPosition, Option<Responder>)>,
        last: LogPosition,
    ) {
        let mut replies = Vec::with_capacity(applied.len());
        for entry in &mut applied {
            let outcome = std::mem::replace(&mut entry.outcome, Outcome::Done);
            replies.push(AppliedReply {
                position: entry.position,
                time: entry.time,
                revision: entry.revision,
                outcome,
            });
        }
        if let Some(newest) = replies.last() {
            let shared = &self.shared.newest;
            shared.revision.store(newest.revision, Ordering::Release);
            shared.time_ms.store(newest.time.0, Ordering::Release);
        }
        self.shared.hub.publish(applied);
        self.shared.tracker.advance(last);
        let mut replies = replies.into_iter().peekable();
        for (at, responder) in responders {
            let reply = replies.next_if(|reply| reply.position == at);
            if let Some(responder) = responder {
                responder.send(Reply(reply));
            }
        }
    }

    fn compare_checkpoint(&self, applied: &Applied, entry: &Entry) -> io::Result<()> {
        let Command::Checkpoint { previous: theirs } = &entry.proposal.command else {
            return Ok(());
        };
        if let Outcome::Checkpoint { previous: ours, .. } = &applied.outcome
            && let (Some((theirs_at, theirs)), Some((ours_at, ours))) = (theirs, ours)
            && theirs_at == ours_at
            && theirs != ours
        {
            let text = format!(
                "replicas diverged: at log position {}.{} this node's digest is {} and the leader's is {}; stop this node, keep its data directory for analysis, and let it join again with an empty one",
                ours_at.term,
                ours_at.index,
                hex(&ours.0),
                hex(&theirs.0),
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.shared.checkpoints.send_replace(Some(applied.position));
        Ok(())
    }

    fn header(&self) -> SnapshotHeader {
        SnapshotHeader {
            last: self.applied,
            membership: self.membership.clone(),
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Arc<SnapshotFile>;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((
            self.applied.map(log_id),
            self.membership.clone().into_stored(),
        ))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut chunks = entries.ready_chunks(APPLY_ENTRIES);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.into_iter().collect::<io::Result<Vec<_>>>()?;
            self.apply_chunk(chunk).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        let view = self.shared.store.view().map_err(io::Error::other);
        SnapshotBuilder {
            shared: Arc::clone(&self.shared),
            header: self.header(),
            view: Mutex::new(Some(view)),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Arc<SnapshotFile>,
    ) -> io::Result<()> {
        let header = SnapshotHeader::from_meta(meta);
        let notes = [
            (NOTE_APPLIED, encode(&header.last)?),
            (NOTE_MEMBERSHIP, encode(&header.membership)?),
        ];
        let (store, path) = (Arc::clone(&self.shared.store), snapshot.path.clone());
        let install = move || {
            store.install(&path, &notes).map_err(|error| {
                // A file that can't be installed must not be found again at the next start.
                let _ = std::fs::remove_file(&path);
                io::Error::other(error)
            })
        };
        tokio::task::spawn_blocking(install)
            .await
            .map_err(io::Error::other)??;
        self.applied = header.last;
        self.membership = header.membership;
        let is_current = self
            .shared
            .snapshots
            .current()
            .is_some_and(|current| current.name == snapshot.name);
        if !is_current {
            let file = load(&snapshot.path, &self.shared.store).map_err(io::Error::other)?;
            self.shared.snapshots.adopt(file);
        }
        self.shared.reload_newest();
        self.shared.hub.restart();
        if let Some(position) = self.applied {
            self.shared.tracker.advance(position);
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let current = self.shared.snapshots.current();
        Ok(current.map(|file| Snapshot {
            meta: file.header.clone().into_meta(),
            snapshot: file,
        }))
    }
}

type Snapshot = openraft::Snapshot<
    openraft::vote::leader_id_std::CommittedLeaderId<u64>,
    u64,
    crate::types::NodeInfo,
    Arc<SnapshotFile>,
>;

/// Writes the state as it was when this was made.
pub(crate) struct SnapshotBuilder {
    shared: Arc<Machinery>,
    header: SnapshotHeader,
    view: Mutex<Option<io::Result<View>>>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = Arc<SnapshotFile>;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let view = self
            .view
            .lock()
            .take()
            .ok_or_else(|| io::Error::other("the view was used already"))??;
        let (shared, header) = (Arc::clone(&self.shared), self.header.clone());
        let write = move || shared.snapshots.write(view, &header, &shared.store);
        let file = tokio::task::spawn_blocking(write)
            .await
            .map_err(io::Error::other)??;
        self.shared.snapshots.adopt(file);
        let current = self.shared.snapshots.current();
        let file = current.ok_or_else(|| io::Error::other("the snapshot just made is gone"))?;
        Ok(Snapshot {
            meta: file.header.clone().into_meta(),
            snapshot: file,
        })
    }
}

fn decode_entry(at: LogPosition, bytes: &[u8]) -> io::Result<Entry> {
    postcard::from_bytes(bytes).map_err(|error| {
        let text = format!(
            "log entry {}.{} is of a version this node does not know ({error}); upgrade it before it goes on",
            at.term, at.index
        );
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

fn encode<T: serde::Serialize>(value: &T) -> io::Result<Bytes> {
    let bytes = postcard::to_stdvec(value).map_err(io::Error::other)?;
    Ok(bytes.into())
}

/// The last entry of any kind that the store holds.
pub(crate) fn applied_note(store: &Store) -> io::Result<Option<LogPosition>> {
    Ok(read_note(store, NOTE_APPLIED)?.unwrap_or_default())
}

fn read_note<T: serde::de::DeserializeOwned>(store: &Store, name: &str) -> io::Result<Option<T>> {
    let note = store.note(name).map_err(io::Error::other)?;
    let decode = |bytes: Bytes| {
        postcard::from_bytes(&bytes).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("note {name}: {error}"))
        })
    };
    note.map(decode).transpose()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String can't fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}
