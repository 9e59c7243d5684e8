//! Who judges Seal tokens, and how long a verdict may be remembered.
//!
//! Invariants
//! - No verdict is used past the expiry it names.
//! - While the judge can't be reached, an old favourable verdict holds for
//!   [`limits::JUDGE_OUTAGE_GRACE`] and no longer; an unfavourable one is never invented.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use crate::chain::ChainEvidence;
use crate::clock::Clock;
use crate::limits;
use crate::roster::millis;
use crate::token::SealToken;

/// What a judge finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The token may speak for the node.
    Active {
        /// Who owns it.
        owner: String,
        /// The stake behind it, in MIST.
        stake_amount: u64,
        /// When it ends, in Unix seconds; `None`: it does not.
        expires_at: Option<u64>,
    },
    /// It has ended.
    Expired,
    /// Its stake was slashed.
    Slashed,
    /// Its stake was taken back.
    Withdrawn,
    /// Its stake is less than what a worker needs.
    StakeTooSmall {
        /// What it has, in MIST.
        amount: u64,
        /// What it needs, in MIST.
        needed: u64,
    },
    /// It belongs to another node or owner.
    NotOwner,
    /// Nobody knows it.
    Unknown,
    /// The judge can't tell now.
    Unavailable,
}

/// A verdict, and the state of the chain it was found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// What was found.
    pub verdict: Verdict,
    /// By what; `None` where no chain was asked, or nothing speaks for the token.
    pub evidence: Option<ChainEvidence>,
}

impl From<Verdict> for Judgement {
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict,
            evidence: None,
        }
    }
}

/// Judges Seal tokens: the file of development tokens here, the chain in production.
pub trait TokenJudge: Send + Sync + 'static {
    /// Whether `token` may speak for the worker `node_id`.
    fn judge<'a>(&'a self, token: &'a SealToken, node_id: &'a str) -> BoxFuture<'a, Judgement>;

    /// How long a favourable verdict holds without asking again.
    fn verdict_lifetime(&self) -> Duration {
        limits::VERDICT_LIFETIME
    }
}

/// A judge, and its recent favourable verdicts.
pub(crate) struct Tribunal {
    judge: Arc<dyn TokenJudge>,
    clock: Arc<dyn Clock>,
    remembered: Mutex<Remembered>,
}

/// Favourable verdicts by (token, node), bounded: the oldest go first.
#[derive(Default)]
struct Remembered {
    verdicts: BTreeMap<CaseId, Judged>,
    by_age: BTreeSet<(u64, CaseId)>,
}

/// SHA-256 over token hash and node id.
type CaseId = [u8; 32];

#[derive(Clone)]
struct Judged {
    verdict: Verdict,
    at_ms: u64,
}

impl Tribunal {
    pub(crate) fn new(judge: Arc<dyn TokenJudge>, clock: Arc<dyn Clock>) -> Self {
        Self {
            judge,
            clock,
            remembered: Mutex::default(),
        }
    }

    /// The verdict on `token` for `node_id`, remembered or fresh.
    pub(crate) async fn verdict(&self, token: &SealToken, node_id: &str) -> Verdict {
        let case = case_id(token, node_id);
        let old = self.remembered.lock().verdicts.get(&case).cloned();
        if let Some(judged) = &old
            && self.age_ms(judged) < millis(self.judge.verdict_lifetime())
        {
            return self.not_past_expiry(judged.verdict.clone());
        }
        self.ask(case, old, token, node_id).await
    }

    /// A fresh verdict: registrations are never judged from memory.
    pub(crate) async fn fresh_verdict(&self, token: &SealToken, node_id: &str) -> Verdict {
        self.ask(case_id(token, node_id), None, token, node_id)
            .await
    }

    async fn ask(
        &self,
        case: CaseId,
        old: Option<Judged>,
        token: &SealToken,
        node_id: &str,
    ) -> Verdict {
        let asked = tokio::time::timeout(limits::JUDGE_WAIT, self.judge.judge(token, node_id));
        let verdict = asked
            .await
            .map_or(Verdict::Unavailable, |judgement| judgement.verdict);
        match (&verdict, old) {
            (Verdict::Unavailable, Some(judged))
                if self.age_ms(&judged) < millis(limits::JUDGE_OUTAGE_GRACE) =>
            {
                self.not_past_expiry(judged.verdict)
            }
            (Verdict::Unavailable, _) => Verdict::Unavailable,
            (Verdict::Active { .. }, _) => {
                let judged = Judged {
                    verdict: verdict.clone(),
                    at_ms: self.clock.monotonic_ms(),
                };
                self.remembered.lock().insert(case, judged);
                self.not_past_expiry(verdict)
            }
            (_, _) => {
                self.remembered.lock().remove(&case);
                verdict
            }
        }
    }

    fn age_ms(&self, judged: &Judged) -> u64 {
        self.clock.monotonic_ms().saturating_sub(judged.at_ms)
    }

    fn not_past_expiry(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Active {
                expires_at: Some(end_s),
                ..
            } if self.clock.unix_ms() / 1000 >= end_s => Verdict::Expired,
            other => other,
        }
    }
}

impl Remembered {
    fn insert(&mut self, case: CaseId, judged: Judged) {
        self.remove(&case);
        while self.verdicts.len() >= limits::VERDICTS_LIMIT {
            let Some((_, oldest)) = self.by_age.pop_first() else {
                break;
            };
            self.verdicts.remove(&oldest);
        }
        self.by_age.insert((judged.at_ms, case));
        self.verdicts.insert(case, judged);
    }

    fn remove(&mut self, case: &CaseId) {
        if let Some(judged) = self.verdicts.remove(case) {
            self.by_age.remove(&(judged.at_ms, *case));
        }
    }
}

fn case_id(token: &SealToken, node_id: &str) -> CaseId {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&token.hash().0);
    context.update(node_id.as_bytes());
    let mut id = [0; 32];
    id.copy_from_slice(context.finish().as_ref());
    id
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Default)]
    struct Hands {
        now_ms: AtomicU64,
    }

    impl Clock for Hands {
        fn unix_ms(&self) -> u64 {
            self.now_ms.load(Ordering::SeqCst)
        }
        fn monotonic_ms(&self) -> u64 {
            self.now_ms.load(Ordering::SeqCst)
        }
    }

    struct Scripted {
        verdict: Mutex<Verdict>,
        asked: AtomicU64,
    }

    impl TokenJudge for Scripted {
        fn judge<'a>(&'a self, _: &'a SealToken, _: &'a str) -> BoxFuture<'a, Judgement> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let verdict = self.verdict.lock().clone();
            Box::pin(async move { verdict.into() })
        }
    }

    fn active(expires_at: Option<u64>) -> Verdict {
        Verdict::Active {
            owner: "0xa1".into(),
            stake_amount: 1,
            expires_at,
        }
    }

    fn court(verdict: Verdict) -> (Arc<Hands>, Arc<Scripted>, Tribunal, SealToken) {
        let hands = Arc::new(Hands::default());
        let judge = Arc::new(Scripted {
            verdict: Mutex::new(verdict),
            asked: AtomicU64::new(0),
        });
        let tribunal = Tribunal::new(judge.clone(), hands.clone());
        (
            hands,
            judge,
            tribunal,
            SealToken::new("seal".into()).expect("short"),
        )
    }

    #[tokio::test]
    async fn a_remembered_verdict_is_not_used_past_its_tokens_expiry() {
        let (hands, _, tribunal, token) = court(active(Some(10)));
        assert_eq!(tribunal.verdict(&token, "a").await, active(Some(10)));
        hands.now_ms.store(10_000, Ordering::SeqCst);
        assert_eq!(tribunal.verdict(&token, "a").await, Verdict::Expired);
    }

    #[tokio::test]
    async fn a_judge_is_asked_once_per_lifetime_and_for_each_node() {
        let (hands, judge, tribunal, token) = court(active(None));
        for _ in 0..5 {
            tribunal.verdict(&token, "a").await;
        }
        assert_eq!(judge.asked.load(Ordering::SeqCst), 1);
        tribunal.verdict(&token, "b").await;
        assert_eq!(judge.asked.load(Ordering::SeqCst), 2);
        hands
            .now_ms
            .store(millis(limits::VERDICT_LIFETIME), Ordering::SeqCst);
        tribunal.verdict(&token, "a").await;
        assert_eq!(judge.asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn an_unreachable_judge_costs_a_known_worker_nothing_until_the_grace_ends() {
        let (hands, judge, tribunal, token) = court(active(None));
        tribunal.verdict(&token, "a").await;
        *judge.verdict.lock() = Verdict::Unavailable;
        hands
            .now_ms
            .store(millis(limits::JUDGE_OUTAGE_GRACE) - 1, Ordering::SeqCst);
        assert_eq!(tribunal.verdict(&token, "a").await, active(None));
        hands
            .now_ms
            .store(millis(limits::JUDGE_OUTAGE_GRACE), Ordering::SeqCst);
        assert_eq!(tribunal.verdict(&token, "a").await, Verdict::Unavailable);
    }

    #[tokio::test]
    async fn an_unfavourable_verdict_ends_the_grace() {
        let (hands, judge, tribunal, token) = court(active(None));
        tribunal.verdict(&token, "a").await;
        hands
            .now_ms
            .store(millis(limits::VERDICT_LIFETIME), Ordering::SeqCst);
        *judge.verdict.lock() = Verdict::Slashed;
        assert_eq!(tribunal.verdict(&token, "a").await, Verdict::Slashed);
        *judge.verdict.lock() = Verdict::Unavailable;
        assert_eq!(tribunal.verdict(&token, "a").await, Verdict::Unavailable);
    }
}
