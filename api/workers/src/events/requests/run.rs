//! The leader's part: every request's row brought to its end.
//!
//! Invariants
//! - Every write carries the term in which this node came to lead.
//! - Before a request reaches the API, its row says that it runs, and what it found to change.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use nautilus_machine::{
    Command, Compare, EventKind, Kv, Operation, Outcome as Applied, Proposal, Put, RangeRequest,
    Refusal, Revision, Txn, WatchError, WatchRequest,
};
use nautilus_machinery::identity::User;
use serde_json::Value;

use super::path::{MARK, Plan, Verb};
use super::queue::{Kept, Queue};
use super::row::{Outcome, REQUESTS_PREFIX, RequestRow, State, Target};
use super::{ApiAnswer, ApiRequest, ApiRequests};
use crate::clock::Clock;
use crate::events::Events;
use crate::events::batch::{Row, decode, encode};
use crate::events::effects::shortened;
use crate::events::limits::{
    EXECUTION_RETRY, EXECUTION_WAIT, EXECUTIONS_AT_ONCE, OUTPUT_LIMIT_BYTES, REQUEST_LIFETIME,
    REQUESTS_LIMIT, REQUESTS_PER_REQUESTER, SWEEP_INTERVAL, SWEPT_PER_PROPOSAL,
};
use crate::events::stakes;
use crate::limits::ROWS_PER_PAGE;
use crate::rows_store::{StoreError, delete};

/// What is said of a request whose leader was lost while it ran, where nothing tells its end.
const NOT_KNOWN: &str = "the leader was lost while it ran: what came of it is not known";

/// Requests that are done and kept, however young: the rest of the places is for those to come.
const DONE_LIMIT: usize = REQUESTS_LIMIT as usize / 2;
/// The same of one requester.
const DONE_PER_REQUESTER: usize = REQUESTS_PER_REQUESTER as usize / 2;
/// What is read of an object to learn which it is, in bytes.
const LOOK_LIMIT_BYTES: usize = 4 * 1024 * 1024;

/// Runs requests as the leader of `term`; returns when it is deposed.
pub(crate) async fn run(events: &Events, term: u64, api: &dyn ApiRequests) {
    let runner = Runner { events, term, api };
    loop {
        match runner.lead().await {
            Setback::Deposed => return,
            setback => tracing::warn!(reason = %setback, "the chain's API requests are read again"),
        }
        tokio::time::sleep(EXECUTION_RETRY).await;
    }
}

struct Runner<'a> {
    events: &'a Events,
    term: u64,
    api: &'a dyn ApiRequests,
}

/// Why a request's row could not be brought further.
#[derive(Debug, thiserror::Error)]
enum Setback {
    #[error("the log is in a newer term")]
    Deposed,
    #[error("somebody else has changed the row")]
    Overtaken,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error("no quorum: {0}")]
    Quorum(String),
}

/// What a request needs before it may run.
enum Prepared {
    Refused(Outcome),
    Run {
        plan: Box<Plan>,
        user: User,
        target: Option<Target>,
    },
}

impl Runner<'_> {
    async fn lead(&self) -> Setback {
        match self.keep_going().await {
            Ok(never) => match never {},
            Err(setback) => setback,
        }
    }

    async fn keep_going(&self) -> Result<std::convert::Infallible, Setback> {
        let kv = &*self.events.kv;
        let barrier = kv.read_barrier().await;
        let revision = barrier.map_err(|error| Setback::Quorum(error.to_string()))?;
        let mut queue = Queue::default();
        let clock = &*self.events.clock;
        read_rows(kv, clock, revision, &mut queue)?;
        let mut watcher = kv.watch(WatchRequest {
            range: RequestRow::all(),
            from: Some(revision + 1),
            previous: false,
        })?;
        let mut running = FuturesUnordered::new();
        let mut sweeps = tokio::time::interval(SWEEP_INTERVAL);
        sweeps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            while running.len() < EXECUTIONS_AT_ONCE
                && let Some(id) = queue.begin()
            {
                running.push(async {
                    let ended = self.bring_to_its_end(&id).await;
                    (id, ended)
                });
            }
            tokio::select! {
                events = watcher.next() => {
                    for event in events? {
                        match event.kind {
                            EventKind::Put => note(&mut queue, clock, &event.kv),
                            EventKind::Delete => {
                                if let Some(id) = request_id_of(&event.kv.key) {
                                    queue.gone(id);
                                }
                            }
                        }
                    }
                }
                Some((id, ended)) = running.next(), if !running.is_empty() => {
                    ended?;
                    queue.ended(&id);
                }
                _ = sweeps.tick() => self.sweep(&queue).await?,
            }
        }
    }

    /// Again and again until the row says that it is done. Fails when deposed.
    async fn bring_to_its_end(&self, id: &str) -> Result<(), Setback> {
        loop {
            match self.attempt(id).await {
                Ok(()) => return Ok(()),
                Err(Setback::Deposed) => return Err(Setback::Deposed),
                Err(setback) => {
                    tracing::debug!(request_id = id, reason = %setback, "an API request of the chain waits");
                    tokio::time::sleep(EXECUTION_RETRY).await;
                }
            }
        }
    }

    async fn attempt(&self, id: &str) -> Result<(), Setback> {
        let row = Row::<RequestRow>::read(&*self.events.kv, &RequestRow::key(id))?;
        let Some(request) = row.value else {
            return Ok(());
        };
        let is_taken_over = match request.state {
            State::Pending => false,
            State::Running { .. } => true,
            State::Done { .. } => return Ok(()),
        };
        let (plan, user, target) = match self.prepare(&request).await? {
            Prepared::Refused(outcome) => {
                let outcome = match is_taken_over {
                    true => Outcome::refused(504, format!("{}; {NOT_KNOWN}", outcome.error)),
                    false => outcome,
                };
                return self.finish(id, outcome).await;
            }
            Prepared::Run { plan, .. } if is_taken_over && !plan.can_be_repeated() => {
                return self.finish(id, Outcome::refused(504, NOT_KNOWN)).await;
            }
            Prepared::Run { plan, user, target } => (plan, user, target),
        };
        let now_ms = self.events.clock.unix_ms();
        let Some(running) = request.started(self.term, now_ms, target) else {
            return Ok(());
        };
        self.write(row.revision, &running).await?;
        let State::Running { target, .. } = &running.state else {
            return Ok(());
        };
        let outcome = self
            .perform(&plan, user, target.as_ref(), is_taken_over, id)
            .await;
        let word = if outcome.success {
            "success"
        } else {
            "failure"
        };
        metrics::counter!("nautilus_sui_api_requests_total",
            "verb" => plan.verb.as_str(), "outcome" => word)
        .increment(1);
        tracing::info!(
            request_id = id,
            requester = running.call.requester,
            verb = plan.verb.as_str(),
            code = outcome.code,
            "an API request of the chain has run"
        );
        // From here on only the row is written, however often.
        loop {
            match self.finish(id, outcome.clone()).await {
                Ok(()) => return Ok(()),
                Err(Setback::Deposed) => return Err(Setback::Deposed),
                Err(_) => tokio::time::sleep(EXECUTION_RETRY).await,
            }
        }
    }

    async fn prepare(&self, request: &RequestRow) -> Result<Prepared, Setback> {
        let requester = &request.call.requester;
        let stake = stakes::stake_of(&*self.events.kv, requester)?;
        let tier = self.events.settings.stake_tiers.of(stake);
        let Some(user) = stakes::user(requester, tier) else {
            let why = format!("the requester's active stake of {stake} MIST allows nothing");
            return Ok(Prepared::Refused(Outcome::refused(403, why)));
        };
        let plan = match Plan::of(&request.call) {
            Ok(plan) => Box::new(plan),
            Err(why) => return Ok(Prepared::Refused(Outcome::refused(400, why))),
        };
        let mut target = None;
        if plan.verb.has_target() && request.state == State::Pending {
            match self.look(&plan, &user).await {
                Ok(found) => target = Some(found.1),
                Err(outcome) => return Ok(Prepared::Refused(outcome)),
            }
        }
        Ok(Prepared::Run { plan, user, target })
    }

    /// The object that a request is about, as its requester may read it.
    async fn look(&self, plan: &Plan, user: &User) -> Result<(Value, Target), Outcome> {
        let Some(request) = plan.look() else {
            return Err(Outcome::refused(400, "name: is needed"));
        };
        let answer = self.ask(user.clone(), request, LOOK_LIMIT_BYTES).await?;
        if answer.code >= 400 {
            return Err(outcome_of(&answer));
        }
        let object: Value = serde_json::from_slice(&answer.body)
            .map_err(|_| Outcome::refused(500, "the object is larger than what can be read"))?;
        let text = |field: &str| {
            let text = object["metadata"][field].as_str();
            text.unwrap_or_default().to_owned()
        };
        let target = Target {
            uid: text("uid"),
            resource_version: text("resourceVersion"),
        };
        Ok((object, target))
    }

    async fn ask(
        &self,
        user: User,
        request: ApiRequest,
        limit_bytes: usize,
    ) -> Result<ApiAnswer, Outcome> {
        let asked = self.api.execute(user, request, limit_bytes);
        match tokio::time::timeout(EXECUTION_WAIT, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(reason)) => Err(Outcome::refused(500, reason)),
            Err(_) => {
                let waited_s = EXECUTION_WAIT.as_secs();
                let why = format!("no answer within {waited_s} s: what came of it is not known");
                Err(Outcome::refused(504, why))
            }
        }
    }

    async fn perform(
        &self,
        plan: &Plan,
        user: User,
        target: Option<&Target>,
        is_taken_over: bool,
        id: &str,
    ) -> Outcome {
        let began_ms = self.events.clock.monotonic_ms();
        let request = plan.request(target);
        let asked = self.ask(user.clone(), request, OUTPUT_LIMIT_BYTES).await;
        let mut outcome = match asked {
            Ok(answer) => outcome_of(&answer),
            Err(outcome) => outcome,
        };
        if is_taken_over && let Some(done) = self.was_done(plan, &user, outcome.code, id).await {
            outcome = done;
        }
        let now_ms = self.events.clock.monotonic_ms();
        outcome.execution_time_ms = now_ms.saturating_sub(began_ms);
        outcome
    }

    /// Whether what the API now refuses had been done before the former leader was lost.
    async fn was_done(&self, plan: &Plan, user: &User, code: u16, id: &str) -> Option<Outcome> {
        let done = |code, output: String| Outcome {
            success: true,
            output,
            error: String::new(),
            ..Outcome::refused(code, "")
        };
        match (plan.verb, code) {
            // The object as it was found is gone: by this request, or on its own.
            (Verb::Delete, 404 | 409) => Some(done(200, String::new())),
            (Verb::Create | Verb::Update | Verb::Patch, 409) => {
                let (object, _) = self.look(plan, user).await.ok()?;
                let is_ours = object["metadata"]["annotations"][MARK] == id;
                is_ours.then(|| {
                    let text = object.to_string();
                    let output = shortened(&text, OUTPUT_LIMIT_BYTES);
                    Outcome {
                        truncated: output.len() < text.len(),
                        ..done(200, output.to_owned())
                    }
                })
            }
            _ => None,
        }
    }

    /// Writes a request's end into its row as it stands.
    async fn finish(&self, id: &str, outcome: Outcome) -> Result<(), Setback> {
        let row = Row::<RequestRow>::read(&*self.events.kv, &RequestRow::key(id))?;
        match row.value {
            Some(request) if !matches!(request.state, State::Done { .. }) => {
                let done = request.finished(outcome, self.events.clock.unix_ms());
                self.write(row.revision, &done).await
            }
            _ => Ok(()),
        }
    }

    async fn write(&self, revision: Revision, row: &RequestRow) -> Result<(), Setback> {
        let key = RequestRow::key(&row.call.request_id);
        self.propose(Txn {
            compare: vec![Compare::mod_revision(key.clone(), revision)],
            then: vec![Operation::Put(Put::new(key, encode(row)))],
            otherwise: Vec::new(),
        })
        .await
    }

    async fn sweep(&self, queue: &Queue) -> Result<(), Setback> {
        let now_ms = self.events.clock.unix_ms();
        let kept = Kept {
            lifetime: REQUEST_LIFETIME,
            at_most: DONE_LIMIT,
            at_most_of_one: DONE_PER_REQUESTER,
        };
        let over = queue.expired(now_ms, kept);
        for over in over.chunks(SWEPT_PER_PROPOSAL) {
            let keys = over.iter().flat_map(|(id, requester)| {
                let mark = format!("{}{id}", RequestRow::asked_by(requester));
                [RequestRow::key(id), mark]
            });
            self.propose(Txn {
                then: keys.map(delete).collect(),
                ..Txn::default()
            })
            .await?;
        }
        Ok(())
    }

    async fn propose(&self, txn: Txn) -> Result<(), Setback> {
        let proposal = Proposal {
            guard_term: Some(self.term),
            ..Proposal::new(Command::Txn(txn))
        };
        let applied = self.events.kv.propose(proposal).await;
        match applied
            .map_err(|error| Setback::Quorum(error.to_string()))?
            .outcome
        {
            Applied::Txn {
                succeeded: true, ..
            } => Ok(()),
            Applied::Txn {
                succeeded: false, ..
            } => Err(Setback::Overtaken),
            Applied::Refused(Refusal::Fenced { .. }) => Err(Setback::Deposed),
            other => Err(Setback::Quorum(format!("unexpected outcome {other:?}"))),
        }
    }
}

/// The API's answer as a request's end.
fn outcome_of(answer: &ApiAnswer) -> Outcome {
    let text = String::from_utf8_lossy(&answer.body);
    let output = shortened(&text, OUTPUT_LIMIT_BYTES);
    let success = answer.code < 400;
    let status: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let message = status.and_then(|status| status["message"].as_str().map(str::to_owned));
    Outcome {
        success,
        code: answer.code,
        truncated: answer.truncated || output.len() < text.len(),
        output: output.to_owned(),
        error: match success {
            true => String::new(),
            false => message.unwrap_or_else(|| format!("the API answered {}", answer.code)),
        },
        execution_time_ms: 0,
    }
}

fn request_id_of(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key).ok()?.strip_prefix(REQUESTS_PREFIX)
}

fn note(queue: &mut Queue, clock: &dyn Clock, kv: &nautilus_machine::KeyValue) {
    match decode::<RequestRow>(kv) {
        Ok(row) => queue.put(&row),
        Err(error) => {
            tracing::error!(%error, "an API request of the chain is left out");
            let row: Value = serde_json::from_slice(&kv.value).unwrap_or_default();
            let requester = row["call"]["requester"].as_str().unwrap_or_default();
            if let Some(id) = request_id_of(&kv.key) {
                queue.unreadable(id, requester, clock.unix_ms());
            }
        }
    }
}

/// All rows at `revision`, page by page.
fn read_rows(
    kv: &dyn Kv,
    clock: &dyn Clock,
    revision: Revision,
    queue: &mut Queue,
) -> Result<(), StoreError> {
    let mut range = RequestRow::all();
    loop {
        let page = kv.range(&RangeRequest {
            revision: Some(revision),
            limit: Some(ROWS_PER_PAGE),
            ..RangeRequest::newest(range.clone())
        })?;
        page.kvs.iter().for_each(|kv| note(queue, clock, kv));
        match page.kvs.last() {
            Some(last) if page.more => {
                let mut next = last.key.to_vec();
                next.push(0);
                range.start = next.into();
            }
            _ => return Ok(()),
        }
    }
}
