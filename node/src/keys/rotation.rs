//! The reconciler of one node, and the beginning of a rotation.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use nautilus_consensus::{KeysError, NodeKeys};
use nautilus_machine::{Cluster, Kv, Member, MemberRole, NodeId, Revision};
use nautilus_store::{Generation, Keyring, Outcome, RootKey, Work};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::policy::{OnRetirement, store::RetiredNode};

use super::rows::{self, NextRoot, NodeRow, QuorumRow};

/// How often a node looks at what is to be done.
const TICK: Duration = Duration::from_millis(250);
/// How often progress is told while there is any; every telling also moves the log on.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How often what changes by itself (the number of data keys) is told.
const TELL_SELDOM: Duration = Duration::from_secs(60);
/// Pause after a failure on this node's own disk.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);
/// A root that nobody in reach has had for so long is drawn anew.
const LOST_AFTER: Duration = Duration::from_secs(30);
/// Reading costs so much less than writing.
const READ_SHARE: u64 = 8;
/// A sleep shorter than this is saved up.
const SLEEP_MIN: Duration = Duration::from_millis(5);

/// Seals the keyring to this node's disk, durably.
pub(crate) type SaveKeys = Arc<dyn Fn(&Keyring) -> Result<(), String> + Send + Sync>;

/// What a rotation works with.
pub(crate) struct RotationParts {
    pub(crate) node_id: NodeId,
    pub(crate) kv: Arc<dyn Kv>,
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) keys: NodeKeys,
    pub(crate) keyring: Keyring,
    pub(crate) save: SaveKeys,
    /// Bytes per second that are sealed anew at most.
    pub(crate) bytes_per_s: u64,
}

/// Why a rotation was not begun.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RotateError {
    /// One is being handed out.
    #[error(
        "generation {0} of the keys is being handed out; wait until it is in use (`nautilus keys status`)"
    )]
    UnderWay(Generation),
    /// What was asked makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The quorum or this node can't do it now.
    #[error("the rotation was not begun: {0}")]
    Unavailable(String),
}

/// The keys of one node and the way on to the next.
pub(crate) struct KeyRotation {
    parts: RotationParts,
    /// Held while the keyring and its file change.
    changing: Mutex<()>,
    progress: Arc<Progress>,
}

#[derive(Default)]
struct Progress {
    total_bytes: AtomicU64,
    done_bytes: AtomicU64,
}

/// What one run of the reconciler remembers; nothing of it is needed again.
#[derive(Default)]
struct Round {
    job: Option<JoinHandle<Result<Outcome, KeysError>>>,
    not_before: Option<Instant>,
    told: Option<(Instant, NodeRow)>,
    lost_since: Option<Instant>,
    complaint: String,
}

impl KeyRotation {
    pub(crate) fn new(parts: RotationParts) -> Arc<Self> {
        super::describe_metrics();
        Arc::new(Self {
            parts,
            changing: Mutex::new(()),
            progress: Arc::default(),
        })
    }

    pub(super) fn kv(&self) -> &dyn Kv {
        &*self.parts.kv
    }

    pub(super) fn members(&self) -> Vec<Member> {
        self.parts.cluster.members()
    }

    /// Draws the next root and announces it; gives its generation. `withhold` names
    /// members that must not get it.
    pub(crate) async fn rotate(
        &self,
        withhold: &BTreeSet<NodeId>,
        by: &str,
    ) -> Result<Generation, RotateError> {
        let unavailable = RotateError::Unavailable;
        let parts = &self.parts;
        let _changing = self.changing.lock().await;
        let barrier = parts.kv.read_barrier().await;
        barrier.map_err(|error| unavailable(error.to_string()))?;
        let (mut row, revision) = rows::quorum(self.kv()).map_err(unavailable)?;
        if let Some(next) = &row.next {
            return Err(RotateError::UnderWay(next.generation));
        }
        self.check_withheld(&self.members(), withhold)?;
        // For good: an id is never used again.
        row.withheld.extend(withhold);
        let generation = self.announce(row, revision).await.map_err(unavailable)?;
        tracing::info!(
            target: "nautilus::audit",
            user = by,
            generation,
            ?withhold,
            "a rotation of the quorum's keys begins"
        );
        Ok(generation)
    }

    fn check_withheld(
        &self,
        members: &[Member],
        withhold: &BTreeSet<NodeId>,
    ) -> Result<(), RotateError> {
        let invalid = |text: String| Err(RotateError::Invalid(text));
        if withhold.contains(&self.parts.node_id) {
            let text = "this node draws the keys and can't be the one without; ask another node";
            return invalid(text.to_owned());
        }
        let voters = members.iter().filter(|m| m.role == MemberRole::Voter);
        let (without, with): (Vec<_>, Vec<_>) = voters.partition(|m| withhold.contains(&m.id));
        if with.len() <= without.len() {
            return invalid(format!(
                "{} of {} voters would be left with keys, which is no majority; remove members \
                 or add others first",
                with.len(),
                with.len() + without.len()
            ));
        }
        Ok(())
    }

    /// Draws a root after all that there were, seals it here, and makes it the row's next.
    async fn announce(&self, mut row: QuorumRow, revision: Revision) -> Result<Generation, String> {
        let parts = &self.parts;
        let held = parts.keyring.generations().into_iter();
        let generation = held.chain(row.named()).max().unwrap_or_default() + 1;
        let root = RootKey::generate().map_err(|error| error.to_string())?;
        let fingerprint = hex::encode(root.fingerprint());
        let added = parts.keyring.add(generation, root);
        added.map_err(|error| error.to_string())?;
        self.save().await?;
        row.next = Some(NextRoot {
            generation,
            fingerprint,
            drawn_by: parts.node_id,
        });
        // When the outcome is not known the root stays: the next round finds out.
        if rows::put_quorum(self.kv(), &row, revision).await? {
            return Ok(generation);
        }
        parts.keyring.withdraw(generation);
        self.save().await?;
        Err("another change of the keys came first".to_owned())
    }

    /// Reconciles until told to stop.
    pub(crate) async fn run(self: Arc<Self>, stopped: CancellationToken) {
        let mut round = Round::default();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopped.cancelled() => break,
                _ = ticks.tick() => {}
            }
            let done = tokio::select! {
                () = stopped.cancelled() => break,
                done = self.round(&mut round, &stopped) => done,
            };
            let complaint = done.err().unwrap_or_default();
            if complaint != round.complaint && !complaint.is_empty() {
                tracing::warn!(reason = %complaint, "the keys are not as they are to be yet");
            }
            round.complaint = complaint;
        }
        if let Some(job) = round.job {
            // It ends by itself at its next step; what it left is for the next start.
            let _ = job.await;
        }
    }

    async fn round(&self, round: &mut Round, stopped: &CancellationToken) -> Result<(), String> {
        let _changing = self.changing.lock().await;
        let (row, revision) = rows::quorum(self.kv())?;
        self.take_back(&row).await?;
        let held = self.hold(&row).await;
        if held.is_ok() {
            round.lost_since = None;
        }
        self.lead(&row, revision, held.is_ok(), round).await?;
        self.follow(&row).await?;
        self.reseal(round, stopped).await?;
        self.tell(round).await?;
        held
    }

    /// Takes back a root that was superseded before anybody used it.
    async fn take_back(&self, row: &QuorumRow) -> Result<(), String> {
        let keyring = &self.parts.keyring;
        let unnamed = |row: &QuorumRow| {
            let ahead = keyring.generations().into_iter();
            ahead
                .filter(|held| *held > keyring.current().max(row.generation))
                .find(|held| !row.names(*held, &keyring.fingerprint(*held).unwrap_or_default()))
        };
        if unnamed(row).is_none() {
            return Ok(());
        }
        // What this node has applied may be old: a root is dropped on the quorum's word only.
        let barrier = self.parts.kv.read_barrier().await;
        barrier.map_err(|error| error.to_string())?;
        let (row, _) = rows::quorum(self.kv())?;
        if let Some(generation) = unnamed(&row) {
            keyring.withdraw(generation);
            self.save().await?;
            tracing::info!(generation, "a root key that nobody used was superseded");
        }
        Ok(())
    }

    /// Asks the other members for the roots that this node is to hold and does not.
    async fn hold(&self, row: &QuorumRow) -> Result<(), String> {
        let (parts, keyring) = (&self.parts, &self.parts.keyring);
        let missing = || {
            let named = row.named().filter(|g| *g >= keyring.current());
            let wanted = named.chain(keyring.missed());
            let missing = wanted.filter(|g| keyring.fingerprint(*g).is_none());
            missing.collect::<BTreeSet<_>>()
        };
        if missing().is_empty() || row.withheld.contains(&parts.node_id) {
            return Ok(());
        }
        let wanted = |generation: Generation, fingerprint: &[u8; 32]| {
            let is_named = row.named().any(|named| named == generation);
            missing().contains(&generation) && (!is_named || row.names(generation, fingerprint))
        };
        let mut reasons = Vec::new();
        for member in self.by_likelihood(row) {
            let answer = parts.keys.ask(member).await;
            let added = answer
                .map_err(|error| error.to_string())
                .and_then(|secrets| {
                    let added = keyring.add_from(&secrets, &wanted);
                    added.map_err(|error| format!("node {member}: {error}"))
                });
            match added {
                Ok(true) => {
                    self.save().await?;
                    tracing::info!(from = member, held = ?keyring.generations(), "root keys came over the attested channel");
                }
                Ok(false) => {}
                Err(reason) => reasons.push(reason),
            }
            if missing().is_empty() {
                return Ok(());
            }
        }
        Err(format!(
            "no member hands over generations {:?} of the keys: {}",
            missing(),
            reasons.join("; ")
        ))
    }

    /// The other members: who drew the next root first, then who leads.
    fn by_likelihood(&self, row: &QuorumRow) -> Vec<NodeId> {
        let drew = row.next.as_ref().map(|next| next.drawn_by);
        let leads = self.parts.kv.leadership().leader.map(|leader| leader.id);
        let members = self.members();
        let mut ids: Vec<_> = members.iter().map(|member| member.id).collect();
        ids.retain(|id| *id != self.parts.node_id && !row.withheld.contains(id));
        ids.sort_by_key(|id| (Some(*id) != drew, Some(*id) != leads));
        ids
    }

    /// The leader's part: makes a root current that a majority of voters holds, and draws
    /// another one for a root that is lost.
    async fn lead(
        &self,
        row: &QuorumRow,
        revision: Revision,
        is_held: bool,
        round: &mut Round,
    ) -> Result<(), String> {
        let Some(next) = row.next.clone() else {
            return Ok(());
        };
        if !self.parts.kv.leadership().is_self {
            return Ok(());
        }
        if !is_held {
            let since = *round.lost_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= LOST_AFTER {
                round.lost_since = None;
                tracing::warn!(
                    lost = next.generation,
                    "nobody in reach has the announced root key: another is drawn"
                );
                self.announce(row.clone(), revision).await?;
            }
            return Ok(());
        }
        let nodes = rows::nodes(self.kv())?;
        let members = self.members();
        let voters = || members.iter().filter(|m| m.role == MemberRole::Voter);
        let holds = |member: &&Member| {
            let node = nodes.get(&member.id);
            node.is_some_and(|node| node.held.contains(&next.generation))
        };
        if voters().filter(holds).count() * 2 <= voters().count() {
            return Ok(());
        }
        let current = QuorumRow {
            generation: next.generation,
            fingerprint: next.fingerprint,
            next: None,
            withheld: row.withheld.clone(),
        };
        if rows::put_quorum(self.kv(), &current, revision).await? {
            tracing::info!(
                generation = current.generation,
                "a majority holds the new root key: it is current"
            );
        }
        Ok(())
    }

    /// Seals under the quorum's generation from here on.
    async fn follow(&self, row: &QuorumRow) -> Result<(), String> {
        let keyring = &self.parts.keyring;
        if row.generation <= keyring.current() || keyring.fingerprint(row.generation).is_none() {
            return Ok(());
        }
        let advanced = keyring.advance(row.generation);
        advanced.map_err(|error| error.to_string())?;
        self.save().await
    }

    /// Seals anew what is of older generations, and destroys their roots after that.
    async fn reseal(&self, round: &mut Round, stopped: &CancellationToken) -> Result<(), String> {
        let (keys, keyring) = (&self.parts.keys, &self.parts.keyring);
        if let Some(job) = round.job.take_if(|job| job.is_finished()) {
            let outcome = job.await.map_err(|error| error.to_string())?;
            if let Err(error) = &outcome {
                round.not_before = Some(Instant::now() + FAILURE_PAUSE);
                return Err(error.to_string());
            }
        }
        let is_old = keyring.generations().iter().any(|g| *g < keyring.current());
        if !is_old || round.job.is_some() || round.not_before.is_some_and(|at| Instant::now() < at)
        {
            return Ok(());
        }
        let oldest = keys
            .oldest_generation()
            .map_err(|error| error.to_string())?;
        if oldest >= keyring.current() {
            keyring.destroy_old();
            self.save().await?;
            self.progress.total_bytes.store(0, Ordering::Relaxed);
            metrics::counter!("nautilus_keys_destroyed_total").increment(1);
            tracing::info!(
                target: "nautilus::audit",
                generation = keyring.current(),
                "nothing here needs older root keys: they are destroyed"
            );
            return Ok(());
        }
        let progress = Arc::clone(&self.progress);
        progress
            .total_bytes
            .store(keys.size_bytes(), Ordering::Relaxed);
        progress.done_bytes.store(0, Ordering::Relaxed);
        let (keys, stopped) = (keys.clone(), stopped.clone());
        let mut load = Load::new(self.parts.bytes_per_s);
        round.job = Some(tokio::task::spawn_blocking(move || {
            keys.reencrypt(&mut |work| {
                progress
                    .done_bytes
                    .fetch_add(work.seen_bytes, Ordering::Relaxed);
                metrics::counter!("nautilus_keys_reencryption_bytes_total")
                    .increment(work.written_bytes);
                if stopped.is_cancelled() {
                    return ControlFlow::Break(());
                }
                load.bound(work);
                ControlFlow::Continue(())
            })
        }));
        Ok(())
    }

    /// Writes this node's row when there is news.
    async fn tell(&self, round: &mut Round) -> Result<(), String> {
        let parts = &self.parts;
        let held = parts.keyring.generations();
        let is_over = held.iter().all(|held| *held >= parts.keyring.current());
        let total = self.progress.total_bytes.load(Ordering::Relaxed);
        let done = self.progress.done_bytes.load(Ordering::Relaxed);
        let row = NodeRow {
            generation: parts.keyring.current(),
            data_keys: parts.keys.epochs(),
            left_bytes: if is_over {
                0
            } else {
                total.saturating_sub(done)
            },
            done_bytes: if is_over { 0 } else { done },
            held,
        };
        let oldest = row.held.first().copied().unwrap_or_default();
        metrics::gauge!("nautilus_keys_generation").set(row.generation);
        metrics::gauge!("nautilus_keys_oldest_generation").set(oldest);
        metrics::gauge!("nautilus_keys_data_keys").set(row.data_keys as f64);
        metrics::gauge!("nautilus_keys_reencryption_left_bytes").set(row.left_bytes as f64);
        let before = match &round.told {
            Some((at, before)) => Some((at.elapsed(), before.clone())),
            None => rows::nodes(self.kv())?
                .remove(&parts.node_id)
                .map(|row| (TELL_SELDOM, row)),
        };
        let is_due = before.is_none_or(|(ago, before)| {
            (before.held != row.held || before.generation != row.generation)
                || (!is_over && ago >= TELL_EVERY)
                || (before != row && ago >= TELL_SELDOM)
        });
        if is_due {
            rows::put_node(self.kv(), parts.node_id, &row).await?;
            round.told = Some((Instant::now(), row));
        }
        Ok(())
    }

    async fn save(&self) -> Result<(), String> {
        let (save, keyring) = (Arc::clone(&self.parts.save), self.parts.keyring.clone());
        let saved = tokio::task::spawn_blocking(move || save(&keyring)).await;
        saved.map_err(|error| error.to_string())?
    }
}

/// The keys are rotated away from a node whose measurement is retired.
impl OnRetirement for KeyRotation {
    fn retired<'a>(&'a self, node: &'a RetiredNode) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move {
            let (row, _) = rows::quorum(self.kv()).map_err(anyhow::Error::msg)?;
            if row.withheld.contains(&node.id) {
                return Ok(());
            }
            let by = format!("policy of epoch {}", node.epoch);
            self.rotate(&BTreeSet::from([node.id]), &by).await?;
            Ok(())
        })
    }
}

/// Sleeps so that no more than so many bytes a second are worked through.
struct Load {
    bytes_per_s: u64,
    owed: Duration,
}

impl Load {
    fn new(bytes_per_s: u64) -> Self {
        Self {
            bytes_per_s: bytes_per_s.max(1),
            owed: Duration::ZERO,
        }
    }

    /// The time that work takes at this rate.
    fn cost(&self, work: Work) -> Duration {
        let bytes = work.written_bytes + work.seen_bytes / READ_SHARE;
        Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64)
    }

    fn bound(&mut self, work: Work) {
        self.owed += self.cost(work);
        if self.owed >= SLEEP_MIN {
            std::thread::sleep(std::mem::take(&mut self.owed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_of_as_many_bytes_as_its_rate_costs_a_second() {
        let load = Load::new(1 << 20);
        let work = Work {
            seen_bytes: 0,
            written_bytes: 1 << 20,
        };
        assert_eq!(load.cost(work), Duration::from_secs(1));
        let reading = Work {
            seen_bytes: 8 << 20,
            written_bytes: 0,
        };
        assert_eq!(load.cost(reading), Duration::from_secs(1));
    }
}
