//! Who may speak for a node: the judge's verdicts, remembered by the whole quorum.
//!
//! A node that meets a token without a standing verdict asks its own judge: no token travels to
//! another node. What it finds becomes a row, by compare-and-swap, with its evidence; every node
//! follows the rows in memory, so that whoever meets the token next, on whichever node and under
//! whichever leader, finds the verdict there. A verdict in use is asked for anew by the beats that
//! use it, ahead of its end, while they go on.
//!
//! Invariants
//! - One question for each case is under way on a node at a time, and at most
//!   [`VerdictSettings::questions_per_second`] begin in a second on the whole quorum, of which each
//!   member has its even share; whoever has nothing to go on is refused first when they are too
//!   many.
//! - Before this node has read the rows behind a barrier, it admits nobody.
//! - A judgement that was begun before an eviction is never written after it.
//! - A judge out of reach makes nobody's token invalid, and no unknown token valid.

mod condition;
mod court;
mod evict;
mod follow;
mod pace;
mod row;
mod store;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use nautilus_machine::{Kv, Revision};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};
use tokio_util::task::TaskTracker;

pub use condition::SUI_REACHABLE;
pub use evict::{EvictError, Eviction};
pub(crate) use row::evicted_key;
pub use row::{BoundKey, KeyHash, SEAL_KEYS_PREFIX, VERDICTS_PREFIX, VerdictRow};
pub(crate) use store::evicted_at;

use crate::answer::TokenProblem;
use crate::clock::Clock;
use crate::judge::{TokenJudge, Verdict};
use crate::limits;
use crate::proof::Proved;
use crate::rows_store;
use crate::token::{SealToken, TokenHash};
use court::{CaseId, Court, Finding, KeyCheck, Now, Purpose, Terms, not_past_expiry};
use pace::Pace;
use store::{Place, Written};

/// What an operator may set of the verdicts.
#[derive(Debug, Clone)]
pub struct VerdictSettings {
    /// How long a favourable verdict goes on, from when it was found, while the judge can't be
    /// reached; never past the token's own expiry.
    pub grace: Duration,
    /// How long a favourable verdict holds without asking again, where the judge is not at hand.
    pub lifetime: Duration,
    /// Questions that the quorum begins in a second, at most.
    pub questions_per_second: u32,
}

/// How many nodes share the questions.
pub type Members = Arc<dyn Fn() -> usize + Send + Sync>;

impl Default for VerdictSettings {
    fn default() -> Self {
        Self {
            grace: limits::JUDGE_OUTAGE_GRACE,
            lifetime: limits::VERDICT_LIFETIME,
            questions_per_second: limits::QUESTIONS_PER_SECOND,
        }
    }
}

/// The quorum's verdicts on this node.
pub struct Verdicts {
    kv: Arc<dyn Kv>,
    judge: Arc<dyn TokenJudge>,
    clock: Arc<dyn Clock>,
    terms: Terms,
    court: RwLock<Court>,
    pace: Mutex<Pace>,
    members: Members,
    under_way: Mutex<HashMap<CaseId, Answer>>,
    questions: TaskTracker,
    followed: watch::Sender<bool>,
}

type Answer = Shared<BoxFuture<'static, Verdict>>;

/// A token as somebody presented it.
pub struct Presented<'a> {
    /// The token.
    pub token: &'a Arc<SealToken>,
    /// The node that it shall speak for.
    pub node_id: &'a str,
    /// The client key of the connection it came over.
    pub key: Option<PresentedKey>,
    /// What the owner signed, where the token came with it.
    pub proof: Option<Proved>,
}

/// The client key of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresentedKey {
    /// Which.
    pub hash: KeyHash,
    /// Whether this quorum issued its certificate to the very node that the token shall speak for.
    /// A kubelet's key changes with each of its certificates, which it gets by the one before.
    pub is_the_nodes: bool,
}

/// A token that may speak for its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// Who owns it.
    pub owner: String,
    /// The stake behind it, in MIST.
    pub stake_amount: u64,
    /// When it ends, in Unix seconds; `None`: it does not.
    pub expires_at: Option<u64>,
    /// The revision at which verdicts about the node were ended last, before this was found; 0:
    /// never. What is written by it holds only while that stands.
    pub(crate) fence: Revision,
    /// Whether the token speaks for one node alone.
    pub(crate) is_exclusive: bool,
}

/// Why a token may not speak for a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It is a bad one.
    #[error("{0}")]
    Token(TokenProblem),
    /// Nobody can tell now: come again.
    #[error("{0}")]
    OutOfReach(&'static str),
}

/// One question on its way.
struct Question {
    case: CaseId,
    hash: TokenHash,
    token: Arc<SealToken>,
    node_id: String,
    /// Whether something stands to go on: then it waits behind strangers if it must.
    is_known: bool,
}

impl Verdicts {
    /// No verdicts yet: [`Verdicts::run`] reads and follows them.
    pub fn new(
        kv: Arc<dyn Kv>,
        judge: Arc<dyn TokenJudge>,
        clock: Arc<dyn Clock>,
        members: Members,
        settings: &VerdictSettings,
    ) -> Arc<Self> {
        let lifetime = judge.verdict_lifetime().min(settings.lifetime);
        let terms = Terms {
            lifetime,
            negative_lifetime: limits::NEGATIVE_VERDICT_LIFETIME.min(lifetime),
            grace: settings.grace,
        };
        let now = now(&*clock);
        Arc::new(Self {
            kv,
            judge,
            court: RwLock::new(Court::new(terms, now)),
            clock,
            terms,
            pace: Mutex::new(Pace::new(settings.questions_per_second)),
            members,
            under_way: Mutex::default(),
            questions: TaskTracker::new(),
            followed: watch::Sender::new(false),
        })
    }

    /// Whether the presented token may speak for its node in what a worker does all the time.
    pub async fn admit_beat(
        self: &Arc<Self>,
        presented: &Presented<'_>,
    ) -> Result<Admission, Denied> {
        self.admit(presented, Purpose::Beat).await
    }

    /// The same for what it does once: a verdict that has aged is not enough.
    pub async fn admit_registration(
        self: &Arc<Self>,
        presented: &Presented<'_>,
    ) -> Result<Admission, Denied> {
        self.admit(presented, Purpose::Registration).await
    }

    /// The node that a token was issued to, where the judge can tell.
    pub(crate) async fn node_of(&self, token: &SealToken) -> Option<String> {
        let asked = self.judge.node_of(token);
        let told = tokio::time::timeout(limits::JUDGE_WAIT, asked).await;
        told.unwrap_or_default()
    }

    /// Whether a judge that is not at hand answers, and since when, in Unix milliseconds; `None`
    /// before anybody has asked.
    pub fn reachable(&self) -> Option<(bool, u64)> {
        let reach = self.court.read().reach();
        let reachable = reach.reachable.filter(|_| !self.is_at_hand())?;
        Some((reachable, reach.since_ms))
    }

    /// Tells whether the chain answered somebody else's question: its events' follower knows when
    /// no token is judged.
    pub fn chain_answered(&self, answered: bool) {
        if !self.court.write().reached(answered, self.now()) {
            return;
        }
        if answered {
            tracing::info!("the judge of Seal tokens answers");
        } else {
            let grace_s = self.terms.grace.as_secs();
            tracing::warn!(grace_s, "the judge of Seal tokens is out of reach");
        }
    }

    /// A judge at hand is asked every time.
    fn is_at_hand(&self) -> bool {
        self.terms.lifetime.is_zero()
    }

    async fn admit(
        self: &Arc<Self>,
        presented: &Presented<'_>,
        purpose: Purpose,
    ) -> Result<Admission, Denied> {
        if !*self.followed.borrow() {
            let mut followed = self.followed.subscribe();
            let reading = followed.wait_for(|followed| *followed);
            if !matches!(
                tokio::time::timeout(limits::LEADER_WAIT, reading).await,
                Ok(Ok(_))
            ) {
                return Err(Denied::OutOfReach("the quorum's verdicts are not read yet"));
            }
        }
        let hash = presented.token.hash();
        let fence = match purpose {
            Purpose::Beat => 0,
            Purpose::Registration => store::evicted_at(&*self.kv, presented.node_id)
                .map_err(|_| Denied::OutOfReach("the quorum's verdicts can't be read"))?,
        };
        let verdict = self.verdict(&hash, presented, purpose).await;
        let is_exclusive = !self.judge.speaks_for_many();
        let admission = favourable(verdict, fence, is_exclusive)?;
        if is_exclusive {
            let other = rows_store::other_node_of_token(&*self.kv, &hash, presented.node_id);
            let other = other.map_err(|_| Denied::OutOfReach("the quorum's rows can't be read"))?;
            if other.is_some() {
                return Err(Denied::Token(TokenProblem::OtherNode));
            }
        }
        if let Some(proved) = &presented.proof
            && !proved.is_by(&admission.owner)
        {
            return Err(Denied::Token(TokenProblem::ProvedByAnother));
        }
        self.check_key(&hash, presented, &admission).await?;
        Ok(admission)
    }

    async fn verdict(
        self: &Arc<Self>,
        hash: &TokenHash,
        presented: &Presented<'_>,
        purpose: Purpose,
    ) -> Verdict {
        let case = case_id(hash, presented.node_id);
        let finding = self.court.read().finding(&case, purpose, self.now());
        let question = |is_known| Question {
            case,
            hash: *hash,
            token: Arc::clone(presented.token),
            node_id: presented.node_id.to_owned(),
            is_known,
        };
        match finding {
            Finding::Stands(verdict) => verdict,
            Finding::Aging(verdict) => {
                let _meanwhile = self.ask(question(true));
                verdict
            }
            Finding::Ask(fallback) => match self.ask(question(fallback.is_some())).await {
                Verdict::Unavailable => {
                    not_past_expiry(fallback.unwrap_or(Verdict::Unavailable), self.now())
                }
                verdict => not_past_expiry(verdict, self.now()),
            },
        }
    }

    /// The answer to a question, which is asked whether anybody waits for it or not.
    fn ask(self: &Arc<Self>, question: Question) -> Answer {
        let mut under_way = self.under_way.lock();
        if let Some(answer) = under_way.get(&question.case) {
            return answer.clone();
        }
        let (told, answer) = oneshot::channel();
        let answer = answer
            .map(|told| told.unwrap_or(Verdict::Unavailable))
            .boxed()
            .shared();
        // Strangers leave half of the places to those who have something to go on.
        let places = match question.is_known {
            true => limits::QUESTIONS_UNDER_WAY_LIMIT,
            false => limits::QUESTIONS_UNDER_WAY_LIMIT / 2,
        };
        if under_way.len() >= places {
            drop(told);
            count_question("refused");
            return answer;
        }
        let ended = UnderWay {
            verdicts: Arc::clone(self),
            case: question.case,
        };
        under_way.insert(question.case, answer.clone());
        self.questions.spawn(async move {
            let verdict = ended.verdicts.answer(&question).await;
            drop(ended);
            let _nobody_waits = told.send(verdict);
        });
        answer
    }

    async fn answer(&self, question: &Question) -> Verdict {
        let Question { case, node_id, .. } = question;
        // A row that this node has not applied yet spares the question.
        let caught_up = async { question.is_known || self.kv.read_barrier().await.is_ok() };
        match tokio::time::timeout(limits::LEADER_WAIT, caught_up).await {
            Ok(true) => {}
            _ => return Verdict::Unavailable,
        }
        let mut has_turn = false;
        for _ in 0..limits::QUESTION_ATTEMPTS {
            let place = match Place::read(&*self.kv, node_id, &question.hash) {
                Ok(place) => place,
                Err(error) => {
                    tracing::error!(%error, node_id, "a verdict can't be looked up");
                    return Verdict::Unavailable;
                }
            };
            if let Some((row, revision)) = &place.row {
                let (verdict, judged_at_ms) = (row.verdict.clone(), row.judged_at_ms);
                let mut court = self.court.write();
                court.row_put(*case, verdict, judged_at_ms, *revision, self.now());
            }
            let finding = self
                .court
                .read()
                .finding(case, Purpose::Registration, self.now());
            if let Finding::Stands(verdict) = finding {
                return verdict;
            }
            if !has_turn && !self.turn(question.is_known).await {
                count_question("refused");
                return Verdict::Unavailable;
            }
            has_turn = true;
            if let Some(verdict) = self.judge_and_write(question, place).await {
                return verdict;
            }
        }
        Verdict::Unavailable
    }

    /// Asks the judge and writes what it found; `None` when the rows changed meanwhile.
    async fn judge_and_write(&self, question: &Question, place: Place) -> Option<Verdict> {
        let Question { case, node_id, .. } = question;
        let asked = self.judge.judge(&question.token, node_id);
        let judgement = tokio::time::timeout(limits::JUDGE_WAIT, asked).await;
        let judgement = judgement.unwrap_or_else(|_| Verdict::Unavailable.into());
        let reachable = judgement.verdict != Verdict::Unavailable;
        self.chain_answered(reachable);
        if !reachable {
            count_question("unavailable");
            return Some(Verdict::Unavailable);
        }
        count_question("answered");
        let now = self.now();
        let verdict = judgement.verdict;
        let asked_at = place.revision();
        if !self.court.read().is_worth_a_row(case, &verdict, now) {
            if asked_at == 0 && matches!(verdict, Verdict::Active { .. }) {
                // There is no place for a row, without which no eviction reaches it.
                return Some(Verdict::Unavailable);
            }
            let mut court = self.court.write();
            court.judged(*case, verdict.clone(), asked_at, now);
            return Some(verdict);
        }
        let row = VerdictRow {
            verdict: verdict.clone(),
            evidence: judgement.evidence,
            judged_at_ms: now.unix_ms,
        };
        let court = match place.write(&*self.kv, &row).await {
            Written::At(revision) => {
                let mut court = self.court.write();
                court.row_put(*case, verdict.clone(), now.unix_ms, revision, self.now());
                court
            }
            Written::Overtaken => return None,
            // Without a row no eviction reaches it: nobody is admitted by it.
            Written::No if matches!(verdict, Verdict::Active { .. }) => {
                return Some(Verdict::Unavailable);
            }
            Written::No => {
                let mut court = self.court.write();
                court.judged(*case, verdict.clone(), asked_at, now);
                court
            }
        };
        record_size(&court);
        Some(verdict)
    }

    /// Waits for the turn to ask; false when that would take too long.
    async fn turn(&self, is_known: bool) -> bool {
        if self.is_at_hand() {
            return true;
        }
        let patience = if is_known {
            limits::QUESTION_PATIENCE
        } else {
            limits::STRANGERS_PATIENCE
        };
        let members = (self.members)();
        let now_ms = self.clock.monotonic_ms();
        let wait = self.pace.lock().turn(now_ms, patience, members);
        let Some(wait) = wait else { return false };
        tokio::time::sleep(wait).await;
        true
    }

    /// Lets the first key bind the token, and no other key use it.
    async fn check_key(
        &self,
        hash: &TokenHash,
        presented: &Presented<'_>,
        admission: &Admission,
    ) -> Result<(), Denied> {
        let proof = presented.proof.as_ref().map(|proved| proved.timestamp_s);
        for _ in 0..limits::QUESTION_ATTEMPTS {
            let (check, revision) = {
                let court = self.court.read();
                let end = admission.expires_at;
                let check = court.check_key(hash, presented.key, proof, end, self.now());
                (check, court.key_revision(hash))
            };
            let bound = match check {
                KeyCheck::Fits => return Ok(()),
                KeyCheck::Bind(bound) => bound,
                KeyCheck::Full => {
                    return Err(Denied::OutOfReach("no more tokens can be bound to keys"));
                }
                KeyCheck::Other => {
                    metrics::counter!("nautilus_seal_key_refusals_total").increment(1);
                    return Err(Denied::Token(
                        match (presented.proof.is_some(), presented.key) {
                            (true, _) => TokenProblem::ProofUsed,
                            (false, Some(_)) => TokenProblem::OtherKey,
                            (false, None) => TokenProblem::NoKey,
                        },
                    ));
                }
            };
            match store::bind(&*self.kv, hash, &bound, revision).await {
                Written::At(revision) => {
                    tracing::info!(
                        node_id = presented.node_id,
                        proved = presented.proof.is_some(),
                        "a token was bound to the client key of its connection"
                    );
                    self.court.write().key_put(*hash, bound, revision);
                    return Ok(());
                }
                Written::Overtaken => {
                    let found = store::read_bound(&*self.kv, hash).await;
                    if let Some((bound, revision)) = found {
                        self.court.write().key_put(*hash, bound, revision);
                    }
                }
                Written::No => break,
            }
        }
        Err(Denied::OutOfReach(
            "the token can't be bound to its key now",
        ))
    }

    fn now(&self) -> Now {
        now(&*self.clock)
    }
}

/// Ends a question, however it ends.
struct UnderWay {
    verdicts: Arc<Verdicts>,
    case: CaseId,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.verdicts.under_way.lock().remove(&self.case);
    }
}

fn favourable(verdict: Verdict, fence: Revision, is_exclusive: bool) -> Result<Admission, Denied> {
    let problem = match verdict {
        Verdict::Active {
            owner,
            stake_amount,
            expires_at,
        } => {
            return Ok(Admission {
                owner,
                stake_amount,
                expires_at,
                fence,
                is_exclusive,
            });
        }
        Verdict::Expired => TokenProblem::Expired,
        Verdict::Slashed => TokenProblem::Slashed,
        Verdict::Withdrawn => TokenProblem::Withdrawn,
        Verdict::StakeTooSmall { amount, needed } => TokenProblem::StakeTooSmall { amount, needed },
        Verdict::NotOwner => TokenProblem::NotOwner,
        Verdict::Unknown => TokenProblem::Unknown,
        Verdict::Unavailable => {
            return Err(Denied::OutOfReach(
                "the token can't be judged now: its judge is out of reach, or asked by too many",
            ));
        }
    };
    Err(Denied::Token(problem))
}

fn case_id(token: &TokenHash, node_id: &str) -> CaseId {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&token.0);
    context.update(node_id.as_bytes());
    let mut id = [0; 32];
    id.copy_from_slice(context.finish().as_ref());
    id
}

fn now(clock: &dyn Clock) -> Now {
    Now {
        unix_ms: clock.unix_ms(),
        monotonic_ms: clock.monotonic_ms(),
    }
}

fn count_question(outcome: &'static str) {
    metrics::counter!("nautilus_token_questions_total", "outcome" => outcome).increment(1);
}

fn record_size(court: &Court) {
    let (verdicts, bytes) = court.size();
    metrics::gauge!("nautilus_verdicts").set(verdicts as f64);
    metrics::gauge!("nautilus_verdicts_bytes").set(bytes as f64);
}

pub(crate) fn describe_metrics() {
    metrics::describe_gauge!(
        "nautilus_verdicts",
        "Verdicts on Seal tokens in this node's memory."
    );
    metrics::describe_gauge!(
        "nautilus_verdicts_bytes",
        metrics::Unit::Bytes,
        "Bytes that verdicts on Seal tokens and their keys take in this node's memory."
    );
    metrics::describe_counter!(
        "nautilus_token_questions_total",
        "Questions about Seal tokens for the judge, by outcome."
    );
    metrics::describe_counter!(
        "nautilus_seal_key_refusals_total",
        "Seal tokens refused because they are bound to another client key."
    );
    for outcome in ["answered", "unavailable", "refused"] {
        metrics::counter!("nautilus_token_questions_total", "outcome" => outcome).increment(0);
    }
    metrics::counter!("nautilus_seal_key_refusals_total").increment(0);
}
