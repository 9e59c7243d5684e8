//! What a face that is none of the workers' own asks of them: which node a Seal token speaks
//! for, and which nodes' certificates count no more.
//!
//! Invariants
//! - A token opens nothing that was not admitted just now, by the very verdicts that its worker's
//!   heartbeats go by.
//! - Who joins is registered: no node comes by a token without a row that its stake can take back.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use nautilus_machine::{KeyRange, KeyValue, Kv, WatchRequest};

use crate::answer::TokenProblem;
use crate::clock::Clock;
use crate::lifecycle::Stake;
use crate::limits;
use crate::machine::Machine;
use crate::node_object::node_name;
use crate::register::{self, Admitted, RegisterError};
use crate::removal::{BARRED_PREFIX, Barred};
use crate::rows_store::{self, Stored};
use crate::scan::scan;
use crate::tier::StakeTiers;
use crate::token::{SealToken, TokenHash};
use crate::verdicts::{Admission, Denied, Presented, Verdicts};

/// See the module.
pub struct Joins {
    kv: Arc<dyn Kv>,
    verdicts: Arc<Verdicts>,
    clock: Arc<dyn Clock>,
    tiers: StakeTiers,
}

/// Why nobody joins.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinRefusal {
    /// The token does not count.
    #[error("{0}")]
    Token(TokenProblem),
    /// The token is good, and what it was to open is taken.
    #[error("{0}")]
    Taken(String),
    /// Nobody can tell now: come again.
    #[error("{0}")]
    Unavailable(String),
}

impl From<Denied> for JoinRefusal {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Token(problem) => Self::Token(problem),
            Denied::OutOfReach(reason) => Self::Unavailable(reason.to_owned()),
        }
    }
}

impl From<RegisterError> for JoinRefusal {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::NotOwner => Self::Taken(error.to_string()),
            RegisterError::OtherNode => Self::Token(TokenProblem::OtherNode),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

impl Joins {
    /// Over the quorum's verdicts.
    pub fn new(
        kv: Arc<dyn Kv>,
        verdicts: Arc<Verdicts>,
        clock: Arc<dyn Clock>,
        tiers: StakeTiers,
    ) -> Self {
        Self {
            kv,
            verdicts,
            clock,
            tiers,
        }
    }

    /// The name of the node that `token` speaks for, which is then registered with it. Which
    /// node that is, the registration says; for a token that was never registered its judge, or
    /// `claimed`: the node's name as the asker gives it. A node other than the claimed one is
    /// refused.
    pub async fn node_of_token(
        &self,
        token: &str,
        claimed: Option<&str>,
    ) -> Result<String, JoinRefusal> {
        let unknown = || JoinRefusal::Token(TokenProblem::Unknown);
        let token = Arc::new(SealToken::new(token.to_owned()).ok_or_else(unknown)?);
        let hash = token.hash();
        let registered =
            rows_store::node_of_token(&*self.kv, &hash).map_err(|error| unavailable(&error))?;
        let is_claimed =
            |node_id: &str| claimed.is_none_or(|claimed| claimed == node_name(node_id));
        let stands = |node_id: &str| {
            let other = rows_store::other_node_of_token(&*self.kv, &hash, claimed.unwrap_or(""));
            other.map(|other| other.as_deref() == Some(node_id))
        };
        let registered = match registered {
            Some(node_id) if is_claimed(&node_id) => Some(node_id),
            // Whose node was removed has left its token to others.
            Some(node_id) if stands(&node_id).map_err(|error| unavailable(&error))? => {
                return Err(JoinRefusal::Token(TokenProblem::OtherNode));
            }
            _ => None,
        };
        let node_id = match registered {
            Some(node_id) => node_id,
            None => match self.verdicts.node_of(&token).await {
                Some(node_id) => node_id,
                None => claimed.map(str::to_owned).ok_or_else(unknown)?,
            },
        };
        let name = node_name(&node_id);
        if claimed.is_some_and(|claimed| claimed != name) {
            return Err(JoinRefusal::Token(TokenProblem::NotOwner));
        }
        let presented = Presented {
            token: &token,
            node_id: &node_id,
            key: None,
            proof: None,
        };
        let admission = self.verdicts.admit_beat(&presented).await?;
        if !self.stands(&node_id, &hash, &admission)? {
            self.register(&presented, hash).await?;
        }
        Ok(name)
    }

    /// Whether the worker is registered as it is admitted.
    fn stands(
        &self,
        node_id: &str,
        token_hash: &TokenHash,
        admission: &Admission,
    ) -> Result<bool, JoinRefusal> {
        let stored = Stored::read(&*self.kv, node_id).map_err(|error| unavailable(&error))?;
        Ok(stored.has_node()
            && stored.row().is_some_and(|row| {
                row.token_hash == *token_hash
                    && row.owner == admission.owner
                    && row.stake == Stake::Active
            }))
    }

    async fn register(
        &self,
        presented: &Presented<'_>,
        token_hash: TokenHash,
    ) -> Result<(), JoinRefusal> {
        let admitted = |admission: Admission| Admitted {
            node_id: presented.node_id.to_owned(),
            owner: admission.owner,
            token_hash,
            token_expires_at_s: admission.expires_at,
            stake_amount: admission.stake_amount,
            tier: self.tiers.of(admission.stake_amount),
            machine: Machine::default(),
            unix_ms: self.clock.unix_ms(),
            fence: admission.fence,
            is_exclusive: admission.is_exclusive,
        };
        let Admitted { node_id, owner, .. } = register::judge_and_register::<JoinRefusal>(
            &*self.kv,
            &self.verdicts,
            presented,
            admitted,
        )
        .await?;
        tracing::info!(node_id, owner, "worker registered by its token's first use");
        Ok(())
    }

    /// Tells every node that is barred, when it is, and all that are at the beginning. Ends by
    /// being dropped.
    pub async fn each_barred(&self, told: &(dyn Fn(&str) + Send + Sync)) {
        loop {
            let Err(lost) = self.follow_barred(told).await;
            tracing::debug!(error = lost, "barred nodes are read again");
            tokio::time::sleep(limits::CHANGE_RETRY).await;
        }
    }

    async fn follow_barred(
        &self,
        told: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Infallible, String> {
        let barrier = self.kv.read_barrier().await;
        let revision = barrier.map_err(|error| error.to_string())?;
        let range = KeyRange::prefix(BARRED_PREFIX);
        let mut watcher = self
            .kv
            .watch(WatchRequest {
                range: range.clone(),
                from: Some(revision + 1),
                previous: false,
            })
            .map_err(|error| error.to_string())?;
        // Those whose time comes, by it.
        let mut due: BTreeMap<String, u64> = BTreeMap::new();
        let read = scan(&*self.kv, range, revision, |kv| note(&mut due, kv));
        read.map_err(|error| error.to_string())?;
        loop {
            let now_ms = self.clock.unix_ms();
            due.retain(|name, from_ms| {
                let is_due = *from_ms <= now_ms;
                if is_due {
                    told(name);
                }
                !is_due
            });
            let next_ms = due.values().min().map(|from_ms| from_ms - now_ms);
            let next = async {
                match next_ms {
                    Some(left_ms) => tokio::time::sleep(Duration::from_millis(left_ms)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = next => {}
                events = watcher.next() => {
                    for event in events.map_err(|error| error.to_string())? {
                        note(&mut due, &event.kv);
                    }
                }
            }
        }
    }

    /// Why the certificates of the node `name` don't count at this time; `None`: they do.
    pub fn barred(&self, name: &str) -> Result<Option<String>, String> {
        let now_ms = self.clock.unix_ms();
        rows_store::barred(&*self.kv, name, now_ms).map_err(|error| error.to_string())
    }
}

/// Notes when the node of a row is barred; a row that is gone, or can't be read, bars nobody.
fn note(due: &mut BTreeMap<String, u64>, kv: &KeyValue) {
    let name = std::str::from_utf8(&kv.key).ok();
    let Some(name) = name.and_then(|key| key.strip_prefix(BARRED_PREFIX)) else {
        return;
    };
    match serde_json::from_slice::<Barred>(&kv.value) {
        Ok(barred) => due.insert(name.to_owned(), barred.from_ms),
        Err(_) => due.remove(name),
    };
}

fn unavailable(error: &rows_store::StoreError) -> JoinRefusal {
    JoinRefusal::Unavailable(error.to_string())
}
