//! What this node remembers of tokens: verdicts by case, keys that tokens are bound to, and whether
//! the judge can be reached. Pure: times are arguments, the shell asks the judge and writes rows.
//!
//! ```text
//! age of a favourable verdict   0 ───── refresh ───── lifetime ───────── grace
//! a beat is told                  yes │ yes, and ask  │ ask first; yes if  │ ask
//!                                     │ meanwhile     │ nobody can tell    │
//! ```
//! Invariants
//! - A verdict is never used past the expiry it names, nor past the grace.
//! - Standing verdicts are those of rows; a stranger's token pushes none of them out. What strangers
//!   are told is remembered apart, within a smaller bound, and the oldest goes first.
//! - A row wins over what this node found itself while the row changed.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use nautilus_machine::Revision;

use super::PresentedKey;
use super::row::BoundKey;
use crate::judge::Verdict;
use crate::limits;
use crate::roster::millis;
use crate::token::TokenHash;

/// SHA-256 over token hash and node id.
pub(crate) type CaseId = [u8; 32];

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    pub(crate) unix_ms: u64,
    pub(crate) monotonic_ms: u64,
}

/// How long verdicts hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// A favourable one, without asking again. Zero: the judge is at hand and asked every time.
    pub(crate) lifetime: Duration,
    /// The same of an unfavourable one.
    pub(crate) negative_lifetime: Duration,
    /// A favourable one while the judge is out of reach, from when it was found.
    pub(crate) grace: Duration,
}

/// What a verdict is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// What a worker does all the time: an aging verdict will do.
    Beat,
    /// What it does once: only a verdict younger than the refresh age will do.
    Registration,
}

/// What is known of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    /// This holds.
    Stands(Verdict),
    /// This holds, and it is time to ask again meanwhile.
    Aging(Verdict),
    /// Nothing holds without asking; this does if the judge is out of reach.
    Ask(Option<Verdict>),
}

/// What a presented key comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyCheck {
    /// It may use the token.
    Fits,
    /// It may, once the token is bound so.
    Bind(BoundKey),
    /// The token is another key's.
    Other,
    /// It would have to be bound, and as many tokens are as may be.
    Full,
}

/// Whether the judge answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reach {
    /// What came of the last question; `None` before the first.
    pub(crate) reachable: Option<bool>,
    /// Since when it is so, in Unix milliseconds.
    pub(crate) since_ms: u64,
    /// While it does not answer: when a case that has something to go on asks again.
    retry_ms: u64,
}

/// One verdict in memory.
#[derive(Debug, Clone)]
struct Known {
    verdict: Verdict,
    /// When it was found, by this node's monotonic clock; before its start, below 0.
    judged_ms: i64,
}

#[derive(Debug, Clone)]
struct Standing {
    known: Known,
    revision: Revision,
    /// When the row says that it was found, in Unix milliseconds.
    written_at_ms: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Court {
    terms: Terms,
    standing: HashMap<CaseId, Standing>,
    passing: HashMap<CaseId, Known>,
    passing_by_age: BTreeSet<(i64, CaseId)>,
    keys: HashMap<TokenHash, (BoundKey, Revision)>,
    reach: Reach,
}

impl Court {
    pub(crate) fn new(terms: Terms, now: Now) -> Self {
        Self {
            terms,
            standing: HashMap::new(),
            passing: HashMap::new(),
            passing_by_age: BTreeSet::new(),
            keys: HashMap::new(),
            reach: Reach {
                reachable: None,
                since_ms: now.unix_ms,
                retry_ms: 0,
            },
        }
    }

    /// What is known of `case`.
    pub(crate) fn finding(&self, case: &CaseId, purpose: Purpose, now: Now) -> Finding {
        let (known, has_row) = match (self.standing.get(case), self.passing.get(case)) {
            (Some(standing), _) => (&standing.known, true),
            (None, Some(passing)) => (passing, false),
            (None, None) => return Finding::Ask(None),
        };
        if known.verdict == Verdict::Unavailable {
            // An event said that what stood there is out of date.
            return Finding::Ask(None);
        }
        let age = age(known, now);
        let verdict = not_past_expiry(known.verdict.clone(), now);
        let within_grace = (age < self.terms.grace).then(|| verdict.clone());
        if !matches!(verdict, Verdict::Active { .. }) {
            return if age < self.terms.negative_lifetime {
                Finding::Stands(verdict)
            } else {
                // A stranger's is not remembered for longer than it holds.
                Finding::Ask(within_grace.filter(|_| has_row))
            };
        }
        if age < self.refresh_age(case) {
            return Finding::Stands(verdict);
        }
        if age < self.terms.lifetime && purpose == Purpose::Beat {
            return self.aging(verdict, now);
        }
        match within_grace {
            // Known to be in vain: nobody waits for it.
            Some(verdict) if self.reach.reachable == Some(false) => self.aging(verdict, now),
            fallback => Finding::Ask(fallback),
        }
    }

    /// The row's revision, as far as this node knows; 0: there is none.
    pub(crate) fn revision(&self, case: &CaseId) -> Revision {
        self.standing.get(case).map_or(0, |known| known.revision)
    }

    /// Whether `verdict` is to be written: it differs from the row, or the row has aged, or it has
    /// none and speaks of a token that is somebody's. What anybody can bring about by making up a
    /// token goes into no log.
    pub(crate) fn is_worth_a_row(&self, case: &CaseId, verdict: &Verdict, now: Now) -> bool {
        match self.standing.get(case) {
            Some(row) => {
                let age_ms = now.unix_ms.saturating_sub(row.written_at_ms);
                row.known.verdict != *verdict || age_ms >= millis(self.rewritten_after())
            }
            // Refusals are remembered here: who is refused writes nothing to the log.
            None => {
                matches!(verdict, Verdict::Active { .. })
                    && self.standing.len() < limits::VERDICTS_LIMIT
            }
        }
    }

    /// Notes what the judge found and no row says; a row that changed since `asked_at`, its revision
    /// when the judge was asked, is newer and stays.
    pub(crate) fn judged(&mut self, case: CaseId, verdict: Verdict, asked_at: Revision, now: Now) {
        let known = Known {
            verdict,
            judged_ms: signed(now.monotonic_ms),
        };
        match self.standing.get_mut(&case) {
            Some(row) if row.revision == asked_at => row.known = known,
            Some(_) => {}
            None => self.pass(case, known),
        }
    }

    /// A row was read or written.
    pub(crate) fn row_put(
        &mut self,
        case: CaseId,
        verdict: Verdict,
        judged_at_ms: u64,
        revision: Revision,
        now: Now,
    ) {
        if revision <= self.revision(&case) {
            return;
        }
        self.forget_passing(&case);
        let age_ms = signed(now.unix_ms.saturating_sub(judged_at_ms));
        let known = Known {
            verdict,
            judged_ms: signed(now.monotonic_ms) - age_ms,
        };
        let standing = Standing {
            known,
            revision,
            written_at_ms: judged_at_ms,
        };
        // The leader keeps rows within the limit; this node's memory does not depend on it.
        if self.standing.len() < limits::VERDICTS_LIMIT || self.standing.contains_key(&case) {
            self.standing.insert(case, standing);
        } else {
            self.pass(case, standing.known);
        }
    }

    /// A row is gone as of `revision`.
    pub(crate) fn row_deleted(&mut self, case: &CaseId, revision: Revision) {
        if revision > self.revision(case) {
            self.standing.remove(case);
            self.forget_passing(case);
        }
    }

    /// Forgets every row: they are read anew.
    pub(crate) fn clear(&mut self) {
        self.standing.clear();
        self.keys.clear();
    }

    /// Whether a connection with `key` may use the token; `proof` is the timestamp of a valid proof
    /// by its owner.
    pub(crate) fn check_key(
        &self,
        token: &TokenHash,
        key: Option<PresentedKey>,
        proof: Option<i64>,
        token_expires_at_s: Option<u64>,
        now: Now,
    ) -> KeyCheck {
        let bound = self.keys.get(token).map(|(bound, _)| *bound);
        let is_full = bound.is_none() && self.keys.len() >= limits::VERDICTS_LIMIT;
        let is_the_nodes = key.is_some_and(|key| key.is_the_nodes);
        let key = key.map(|key| key.hash);
        let bind = BoundKey {
            key,
            proved_at_s: proof.max(bound.and_then(|bound| bound.proved_at_s)),
            token_expires_at_s,
            bound_at_ms: now.unix_ms,
        };
        match bound.and_then(|bound| bound.key) {
            None if key.is_none() => KeyCheck::Fits,
            // A token that nobody is bound to would serve any thief.
            None if is_full => KeyCheck::Full,
            None => KeyCheck::Bind(bind),
            Some(owner) if key == Some(owner) => KeyCheck::Fits,
            Some(_) if is_the_nodes => KeyCheck::Bind(bind),
            Some(_) if proof > bound.and_then(|bound| bound.proved_at_s) => KeyCheck::Bind(bind),
            Some(_) => KeyCheck::Other,
        }
    }

    /// The revision of the row that binds the token; 0: there is none.
    pub(crate) fn key_revision(&self, token: &TokenHash) -> Revision {
        self.keys.get(token).map_or(0, |(_, revision)| *revision)
    }

    /// A token was bound.
    pub(crate) fn key_put(&mut self, token: TokenHash, bound: BoundKey, revision: Revision) {
        if revision > self.key_revision(&token) {
            self.keys.insert(token, (bound, revision));
        }
    }

    /// A token's binding is gone as of `revision`.
    pub(crate) fn key_deleted(&mut self, token: &TokenHash, revision: Revision) {
        if revision > self.key_revision(token) {
            self.keys.remove(token);
        }
    }

    /// The judge answered, or did not. Returns whether that is news.
    pub(crate) fn reached(&mut self, reachable: bool, now: Now) -> bool {
        if !reachable {
            let pause_ms = millis(limits::JUDGE_RETRY);
            self.reach.retry_ms = now.monotonic_ms.saturating_add(pause_ms);
        }
        let is_news = self.reach.reachable != Some(reachable);
        if is_news {
            self.reach.reachable = Some(reachable);
            self.reach.since_ms = now.unix_ms;
        }
        is_news
    }

    pub(crate) fn reach(&self) -> Reach {
        self.reach
    }

    /// Verdicts remembered, and the bytes that they, the keys and the tables take.
    pub(crate) fn size(&self) -> (usize, usize) {
        let entry = |value: usize| size_of::<CaseId>() + value + 1;
        let bytes = self.standing.capacity() * entry(size_of::<Standing>())
            + self.passing.capacity() * entry(size_of::<Known>())
            + self.passing_by_age.len() * entry(size_of::<i64>())
            + self.keys.capacity() * entry(size_of::<(BoundKey, Revision)>())
            // Owners are addresses: `0x` and 64 digits.
            + self.standing.len() * limits::OWNER_BYTES;
        (self.standing.len() + self.passing.len(), bytes)
    }

    fn aging(&self, verdict: Verdict, now: Now) -> Finding {
        let in_vain = self.reach.reachable == Some(false) && now.monotonic_ms < self.reach.retry_ms;
        if in_vain {
            Finding::Stands(verdict)
        } else {
            Finding::Aging(verdict)
        }
    }

    /// A judge at hand is asked all the time: what it says is not written all the time.
    fn rewritten_after(&self) -> Duration {
        match self.terms.lifetime {
            Duration::ZERO => limits::VERDICT_LIFETIME / 2,
            lifetime => lifetime / 2,
        }
    }

    /// Half to three quarters of the lifetime, by the case: what was found together is not asked
    /// for together again.
    fn refresh_age(&self, case: &CaseId) -> Duration {
        let spread = self.terms.lifetime / 4;
        self.terms.lifetime / 2 + spread * u32::from(case[0]) / 256
    }

    fn pass(&mut self, case: CaseId, known: Known) {
        self.forget_passing(&case);
        while self.passing.len() >= limits::PASSING_VERDICTS_LIMIT {
            let Some((_, oldest)) = self.passing_by_age.pop_first() else {
                break;
            };
            self.passing.remove(&oldest);
        }
        self.passing_by_age.insert((known.judged_ms, case));
        self.passing.insert(case, known);
    }

    /// Forgets every favourable verdict that no row says: evictions don't reach them.
    pub(crate) fn forget_passing_active(&mut self) {
        let is_active = |known: &Known| matches!(known.verdict, Verdict::Active { .. });
        self.passing.retain(|_, known| !is_active(known));
        let passing = &self.passing;
        self.passing_by_age
            .retain(|(_, case)| passing.contains_key(case));
    }

    fn forget_passing(&mut self, case: &CaseId) {
        if let Some(known) = self.passing.remove(case) {
            self.passing_by_age.remove(&(known.judged_ms, *case));
        }
    }
}

/// The verdict as of now: one that names its end is none after it.
pub(crate) fn not_past_expiry(verdict: Verdict, now: Now) -> Verdict {
    match verdict {
        Verdict::Active {
            expires_at: Some(end_s),
            ..
        } if now.unix_ms / 1000 >= end_s => Verdict::Expired,
        other => other,
    }
}

fn age(known: &Known, now: Now) -> Duration {
    let age_ms = signed(now.monotonic_ms).saturating_sub(known.judged_ms);
    Duration::from_millis(u64::try_from(age_ms).unwrap_or(0))
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "court_tests.rs"]
mod tests;
