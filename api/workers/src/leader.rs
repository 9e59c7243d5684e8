//! The leader's end: takes beats into its [`Roster`], watches the clock, and proposes
//! the few changes of state that are worth a place in the log.
//!
//! Invariants
//! - Every proposal carries the term in which this node came to lead: a deposed
//!   leader's change fails.
//! - Before the rows are read under a read barrier of the new term, no beat is
//!   answered: the asker waits, and no live worker is taken for unknown or lost.
//! - No lock is held across an await.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use nautilus_machine::{
    Command, EventKind, KeyRange, Kv, LeaderHandler, Operation, Outcome, Proposal, RangeRequest,
    Refusal, Revision, Txn, TxnOutcome, WatchError, WatchRequest,
};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::kubelet_leases;
use crate::lifecycle::Phase;
use crate::limits;
use crate::message::{self, Beat, BeatAnswer, LeaderAnswer, LeaderMessage};
use crate::places;
use crate::roster::{Change, Counts, Heard, Roster, RosterSettings, State, Ticked};
use crate::row::WorkerRow;
use crate::rows_store::{StoreError, Stored, Writing};
use crate::scan::scan;
use crate::sweep::sweep;
use crate::terms;
use crate::zones::Disruption;

/// Takes workers' beats while this node leads. Made before the quorum is, which needs
/// it as its [`LeaderHandler`]; starts to answer when [`Leader::run`] has found out
/// that it leads.
pub struct Leader {
    clock: Arc<dyn Clock>,
    settings: RosterSettings,
    post: Mutex<Option<Post>>,
    changed: Notify,
    hints: Arc<Notify>,
}

/// Held while leading.
struct Post {
    term: u64,
    kv: Arc<dyn Kv>,
    roster: Roster,
}

/// Why a leader gave up what it was doing.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the log is in a newer term")]
    Deposed,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error("no quorum: {0}")]
    Unavailable(String),
}

impl Leader {
    /// A leader-to-be.
    pub fn new(clock: Arc<dyn Clock>, settings: RosterSettings) -> Arc<Self> {
        Arc::new(Self {
            clock,
            settings,
            post: Mutex::new(None),
            changed: Notify::new(),
            hints: Arc::default(),
        })
    }

    /// Told whenever a node of the quorum has reason to think that the chain has news.
    pub fn hints(&self) -> Arc<Notify> {
        Arc::clone(&self.hints)
    }

    /// Follows who leads and does the leader's work while it is this node. Ends with
    /// `shutdown` or with the node's leadership stream.
    pub async fn run(self: Arc<Self>, kv: Arc<dyn Kv>, shutdown: CancellationToken) {
        let (this, kv) = (&self, &kv);
        let work = |term| async move {
            loop {
                match this.lead(kv, term).await {
                    Ended::Deposed => return,
                    error => tracing::warn!(%error, "the roster of workers is read again"),
                }
                *this.post.lock() = None;
                tokio::time::sleep(limits::CHANGE_RETRY).await;
            }
        };
        let ended = || {
            *this.post.lock() = None;
            record_counts(Counts::default());
            record_zones(|_| 0);
        };
        terms::each(&**kv, &shutdown, work, ended).await;
    }

    async fn lead(&self, kv: &Arc<dyn Kv>, term: u64) -> Ended {
        let revision = match self.take_post(kv, term).await {
            Ok(revision) => revision,
            Err(ended) => return ended,
        };
        tokio::select! {
            ended = self.follow_rows(kv, revision) => ended,
            ended = self.follow_leases(kv, revision) => ended,
            ended = self.follow_places(kv, revision) => ended,
            ended = self.propose_changes(kv, term) => ended,
            ended = self.watch_the_clock() => ended,
            () = sweep(kv, &self.clock, term) => Ended::Unavailable("sweeping broke off".into()),
        }
    }

    /// Reads who is registered; deadlines start now. Returns the revision read at.
    async fn take_post(&self, kv: &Arc<dyn Kv>, term: u64) -> Result<Revision, Ended> {
        let barrier = kv.read_barrier().await;
        let revision = barrier.map_err(|error| Ended::Unavailable(error.to_string()))?;
        let reader = Arc::clone(kv);
        let reading = tokio::task::spawn_blocking(move || read_rows(&*reader, revision));
        let rows = reading
            .await
            .map_err(|error| Ended::Unavailable(error.to_string()))??;
        let workers = rows.len();
        let roster = Roster::new(self.settings.clone(), rows, self.clock.monotonic_ms());
        record_counts(roster.counts());
        *self.post.lock() = Some(Post {
            term,
            kv: Arc::clone(kv),
            roster,
        });
        self.changed.notify_one();
        tracing::info!(
            term,
            workers,
            "leads the workers; every deadline starts anew"
        );
        Ok(revision)
    }

    /// Rows written by registrations on any node, and by this leader itself.
    async fn follow_rows(&self, kv: &Arc<dyn Kv>, read_at: Revision) -> Ended {
        let request = WatchRequest {
            range: WorkerRow::all(),
            from: Some(read_at + 1),
            previous: false,
        };
        let mut watcher = match kv.watch(request) {
            Ok(watcher) => watcher,
            Err(error) => return error.into(),
        };
        loop {
            match watcher.next().await {
                Ok(events) => events.iter().for_each(|event| self.row_event(event)),
                Err(error) => return error.into(),
            }
        }
    }

    fn row_event(&self, event: &nautilus_machine::Event) {
        let now_ms = self.clock.monotonic_ms();
        let mut post = self.post.lock();
        let Some(post) = post.as_mut() else { return };
        match event.kind {
            EventKind::Put => match WorkerRow::decode(&event.kv) {
                Ok(row) => post.roster.row_written(&row, now_ms),
                Err(error) => tracing::error!(%error, "a worker can't be followed"),
            },
            EventKind::Delete => {
                if let Some(node_id) = WorkerRow::node_id_of(&event.kv.key) {
                    post.roster.row_deleted(node_id);
                }
            }
        }
        if post.roster.has_changes() {
            self.changed.notify_one();
        }
    }

    /// Renewals of kubelets' leases, each of which is a sign of life.
    async fn follow_leases(&self, kv: &Arc<dyn Kv>, read_at: Revision) -> Ended {
        let mut watcher = match kv.watch(kubelet_leases::request(read_at + 1)) {
            Ok(watcher) => watcher,
            Err(error) => return error.into(),
        };
        loop {
            match watcher.next().await {
                Ok(events) => {
                    let renewed = kubelet_leases::renewed(&**kv, &events);
                    let now_ms = self.clock.monotonic_ms();
                    if let Some(post) = self.post.lock().as_mut() {
                        renewed
                            .iter()
                            .for_each(|node_id| post.roster.alive(node_id, now_ms));
                        if post.roster.has_changes() {
                            self.changed.notify_one();
                        }
                    }
                }
                Err(error) => return error.into(),
            }
        }
    }

    /// In which zones the workers are. Until that is known, nobody is evicted.
    async fn follow_places(&self, kv: &Arc<dyn Kv>, read_at: Revision) -> Ended {
        let mut watcher = match kv.watch(places::request(read_at + 1)) {
            Ok(watcher) => watcher,
            Err(error) => return error.into(),
        };
        let reader = Arc::clone(kv);
        let reading = tokio::task::spawn_blocking(move || places::read(&*reader, read_at));
        match reading.await {
            Ok(Ok(places)) => self.place(&places, true),
            Ok(Err(error)) => return StoreError::from(error).into(),
            Err(error) => return Ended::Unavailable(error.to_string()),
        }
        loop {
            match watcher.next().await {
                Ok(events) => {
                    let written = events.iter().filter(|event| event.kind == EventKind::Put);
                    let places: Vec<_> =
                        written.filter_map(|event| places::of(&event.kv)).collect();
                    self.place(&places, false);
                }
                Err(error) => return error.into(),
            }
        }
    }

    fn place(&self, places: &[places::Place], all: bool) {
        if let Some(post) = self.post.lock().as_mut() {
            for place in places {
                post.roster.placed(&place.node_id, &place.zone);
            }
            if all {
                post.roster.all_placed();
            }
        }
    }

    async fn watch_the_clock(&self) -> Ended {
        let mut ticks = tokio::time::interval(limits::TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.tick();
        }
    }

    /// Looks at the clock once.
    pub(crate) fn tick(&self) {
        let now_ms = self.clock.monotonic_ms();
        let mut post = self.post.lock();
        let Some(post) = post.as_mut() else { return };
        let Ticked { lost, evicted } = post.roster.tick(now_ms);
        post.roster.end_tokens(self.clock.unix_ms() / 1000);
        if lost > 0 {
            tracing::warn!(lost, term = post.term, "workers fell silent");
        }
        if evicted > 0 {
            tracing::warn!(evicted, term = post.term, "silent workers lose their pods");
            metrics::counter!("nautilus_workers_evicted_total").increment(evicted as u64);
        }
        record_counts(post.roster.counts());
        record_zones(|disruption| post.roster.zones(disruption));
        if post.roster.has_changes() {
            self.changed.notify_one();
        }
    }

    async fn propose_changes(&self, kv: &Arc<dyn Kv>, term: u64) -> Ended {
        loop {
            let changes = match self.post.lock().as_mut() {
                Some(post) => post.roster.take_changes(limits::CHANGES_PER_PROPOSAL),
                None => return Ended::Deposed,
            };
            if changes.is_empty() {
                self.changed.notified().await;
                continue;
            }
            let failed = match self.propose(kv, term, &changes).await {
                Ok(failed) => failed,
                Err(Ended::Unavailable(reason)) => {
                    tracing::debug!(reason, "changes of workers wait for the quorum");
                    changes
                        .iter()
                        .map(|change| change.node_id.clone())
                        .collect()
                }
                Err(ended) => return ended,
            };
            if !failed.is_empty() {
                if let Some(post) = self.post.lock().as_mut() {
                    failed
                        .iter()
                        .for_each(|node_id| post.roster.not_replicated(node_id));
                }
                tokio::time::sleep(limits::CHANGE_RETRY).await;
            }
        }
    }

    /// Proposes `changes` in one transaction of independent ones; returns whose failed.
    async fn propose(
        &self,
        kv: &Arc<dyn Kv>,
        term: u64,
        changes: &[Change],
    ) -> Result<Vec<Arc<str>>, Ended> {
        let now_ms = self.clock.unix_ms();
        let mut then = Vec::new();
        let mut whose = Vec::new();
        for change in changes {
            match change_txn(&**kv, change, now_ms, self.settings.drain) {
                Ok(Some(txn)) => {
                    then.push(Operation::Txn(txn));
                    whose.push(change.node_id.clone());
                }
                Ok(None) => {}
                Err(error) => {
                    // One unreadable row must not hold up the others.
                    tracing::error!(%error, node_id = &*change.node_id, "a worker's change is lost");
                }
            }
        }
        if then.is_empty() {
            return Ok(Vec::new());
        }
        let command = Command::Txn(Txn {
            then,
            ..Txn::default()
        });
        let proposal = Proposal {
            guard_term: Some(term),
            ..Proposal::new(command)
        };
        let applied = kv
            .propose(proposal)
            .await
            .map_err(|error| Ended::Unavailable(error.to_string()))?;
        match applied.outcome {
            Outcome::Txn { results, .. } => Ok(whose
                .into_iter()
                .zip(results)
                .filter(|(_, result)| {
                    !matches!(
                        result,
                        TxnOutcome::Txn {
                            succeeded: true,
                            ..
                        }
                    )
                })
                .map(|(node_id, _)| node_id)
                .collect()),
            Outcome::Refused(Refusal::Fenced { .. }) => Err(Ended::Deposed),
            other => Err(Ended::Unavailable(format!("unexpected outcome {other:?}"))),
        }
    }

    async fn answer(&self, message: LeaderMessage<'_>) -> LeaderAnswer {
        match message {
            LeaderMessage::Refused {
                node_id,
                token,
                stake,
            } => {
                let mut post = self.post.lock();
                let Some(post) = post.as_mut() else {
                    return LeaderAnswer::NotLeading;
                };
                post.roster.refused(node_id, &token, stake);
                self.changed.notify_one();
                LeaderAnswer::Noted
            }
            LeaderMessage::Hinted => {
                self.hints.notify_one();
                LeaderAnswer::Noted
            }
            LeaderMessage::Loads(node_ids) => {
                let now_ms = self.clock.monotonic_ms();
                match self.post.lock().as_ref() {
                    Some(post) => LeaderAnswer::Loads(
                        node_ids
                            .iter()
                            .map(|node_id| post.roster.load(node_id, now_ms))
                            .collect(),
                    ),
                    None => LeaderAnswer::NotLeading,
                }
            }
            LeaderMessage::Beats(beats) => match self.take_beats(&beats).await {
                Ok(answers) => LeaderAnswer::Beats(answers),
                Err(NotLeading) => LeaderAnswer::NotLeading,
            },
        }
    }

    /// Takes beats in their order. Workers that memory does not know are looked up.
    async fn take_beats(&self, beats: &[Beat<'_>]) -> Result<Vec<BeatAnswer>, NotLeading> {
        let (heard, term, kv) = {
            let mut post = self.post.lock();
            let post = post.as_mut().ok_or(NotLeading)?;
            (self.hear(post, beats), post.term, Arc::clone(&post.kv))
        };
        if !heard.contains(&Heard::Unknown) {
            return Ok(heard.into_iter().map(|heard| known(heard, false)).collect());
        }
        let unknown = || {
            heard
                .iter()
                .zip(beats)
                .filter(|(heard, _)| **heard == Heard::Unknown)
        };
        let ids: Vec<&str> = unknown().map(|(_, beat)| beat.node_id).collect();
        let rows = find_rows(&kv, &ids).await.map_err(|error| {
            tracing::warn!(%error, "workers can't be looked up");
            NotLeading
        })?;
        let again: Vec<Beat<'_>> = unknown().map(|(_, beat)| *beat).collect();
        let mut found = {
            let mut post = self.post.lock();
            let post = post
                .as_mut()
                .filter(|post| post.term == term)
                .ok_or(NotLeading)?;
            let now_ms = self.clock.monotonic_ms();
            for row in rows.iter().flatten() {
                // The watch may have brought it meanwhile, and newer.
                if post.roster.phase(&row.node_id).is_none() {
                    post.roster.row_written(row, now_ms);
                }
            }
            let heard = self.hear(post, &again);
            heard
                .into_iter()
                .zip(&rows)
                .map(|(heard, row)| known(heard, row.is_some()))
        };
        let answers = heard.iter().map(|heard| match heard {
            Heard::Unknown => found.next().unwrap_or(BeatAnswer::NotRegistered),
            heard => known(*heard, false),
        });
        Ok(answers.collect())
    }

    fn hear(&self, post: &mut Post, beats: &[Beat<'_>]) -> Vec<Heard> {
        let now_ms = self.clock.monotonic_ms();
        let heard = beats
            .iter()
            .map(|beat| {
                post.roster
                    .beat(beat.node_id, beat.owner, beat.facts, now_ms)
            })
            .collect();
        if post.roster.has_changes() {
            self.changed.notify_one();
        }
        heard
    }
}

/// This node does not lead, or no longer in the term in which it was asked.
struct NotLeading;

/// The answer to a beat that was heard; `has_row`: a worker without a place in memory has a
/// row.
fn known(heard: Heard, has_row: bool) -> BeatAnswer {
    match heard {
        Heard::Acknowledged => BeatAnswer::Acknowledged,
        Heard::NotOwner => BeatAnswer::NotOwner,
        Heard::Unknown if has_row => BeatAnswer::Full,
        Heard::Unknown => BeatAnswer::NotRegistered,
    }
}

impl LeaderHandler for Leader {
    fn handle(&self, message: Bytes) -> BoxFuture<'_, Result<Bytes, String>> {
        Box::pin(async move {
            let answer = self.answer(message::decode(&message)?).await;
            message::encode(&answer)
        })
    }
}

/// The rows of workers that memory does not know: as applied here, and if one is not, as
/// committed anywhere before now.
async fn find_rows(kv: &Arc<dyn Kv>, node_ids: &[&str]) -> Result<Vec<Option<WorkerRow>>, Ended> {
    let read = || {
        let rows = node_ids.iter().map(|node_id| {
            let request = RangeRequest::newest(KeyRange::single(WorkerRow::key(node_id)));
            let found = kv.range(&request)?.kvs.into_iter().next();
            Ok(found.and_then(|row| {
                // One that can't be read must not hold up the others.
                let row = WorkerRow::decode(&row);
                row.map_err(|error| tracing::error!(%error, "a worker is left out"))
                    .ok()
            }))
        });
        rows.collect::<Result<Vec<_>, StoreError>>()
    };
    let rows = read()?;
    if rows.iter().all(Option::is_some) {
        return Ok(rows);
    }
    let barrier = kv.read_barrier().await;
    barrier.map_err(|error| Ended::Unavailable(error.to_string()))?;
    Ok(read()?)
}

/// All rows at `revision`. A row that can't be read is reported and left
/// out: its worker is refused until an operator deletes it.
fn read_rows(kv: &dyn Kv, revision: Revision) -> Result<Vec<WorkerRow>, StoreError> {
    let mut rows = Vec::new();
    scan(
        kv,
        WorkerRow::all(),
        revision,
        |kv| match WorkerRow::decode(kv) {
            Ok(row) => rows.push(row),
            Err(error) => tracing::error!(%error, "a worker is left out"),
        },
    )?;
    Ok(rows)
}

/// The transaction for one change; `None` when the worker's row is gone.
fn change_txn(
    kv: &dyn Kv,
    change: &Change,
    now_ms: u64,
    drain: Duration,
) -> Result<Option<Txn>, StoreError> {
    let stored = Stored::read(kv, &change.node_id)?;
    let Some(mut row) = stored.row().cloned() else {
        return Ok(None);
    };
    if !stored.has_node() && matches!(change.state.phase, Phase::Lost | Phase::Evicted) {
        // Somebody deleted the node of a worker that is gone.
        return Ok(Some(stored.remove()));
    }
    let State {
        phase,
        stake,
        stake_amount,
        running_pods,
        token_expires_at_s,
    } = change.state;
    if row.phase != phase {
        row.phase = phase;
        row.phase_since_ms = now_ms;
    }
    // The chain's events write these too: what this memory did not change is theirs, and so is
    // what they wrote that this memory has not heard of yet.
    if stake != change.known.stake && row.stake == change.known.stake {
        row.stake = stake;
    }
    if stake_amount != change.known.stake_amount && row.stake_amount == change.known.stake_amount {
        row.stake_amount = stake_amount;
    }
    let known_end = change.known.token_expires_at_s;
    if token_expires_at_s != known_end && row.token_expires_at_s == known_end {
        row.token_expires_at_s = token_expires_at_s;
    }
    row.running_pods = running_pods;
    let writing = Writing {
        unix_ms: now_ms,
        drain,
        told: None,
    };
    stored.replace(&row, &writing).map(Some)
}

/// Only the leader counts workers: elsewhere the gauges stand at zero.
pub(crate) fn record_counts(counts: Counts) {
    for phase in Phase::ALL {
        metrics::gauge!("nautilus_workers", "state" => phase.as_str()).set(counts.of(phase) as f64);
    }
}

/// The same of zones.
pub(crate) fn record_zones(count: impl Fn(Disruption) -> usize) {
    for (disruption, word) in [
        (Disruption::Normal, "normal"),
        (Disruption::Partial, "partial"),
        (Disruption::Full, "full"),
    ] {
        metrics::gauge!("nautilus_worker_zones", "disruption" => word)
            .set(count(disruption) as f64);
    }
}
