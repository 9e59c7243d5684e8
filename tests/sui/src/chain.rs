//! The handle to a chain: what tests make happen, and what they may know of it.
//!
//! Invariant: nobody reads while an operation is under way; readers see whole checkpoints only.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use parking_lot::{RwLock, RwLockReadGuard};
use sui_sdk_types::{Address, Digest, Object, ValidatorCommittee};
use tokio::sync::watch;

use crate::ledger::{Ledger, Network};
use crate::operation::{ApiRequest, Operation, Receipt};

/// What a stored byte costs on a chain that was not forked, in MIST.
const STORAGE_PRICE: u64 = 7_600;

/// A chain; clones are the same one.
#[derive(Clone)]
pub struct Chain {
    shared: Arc<Shared>,
}

struct Shared {
    ledger: RwLock<Ledger>,
    /// The last checkpoint's number.
    sealed: watch::Sender<u64>,
}

impl Chain {
    /// A new chain; the validators' keys follow from `name`.
    ///
    /// # Errors
    /// Keys that can't be made.
    pub fn new(name: &str) -> Result<Self> {
        let ledger = Ledger::new(Network {
            name: name.to_owned(),
            storage_price: STORAGE_PRICE,
            genesis_ms: now_ms(),
        })?;
        Ok(Self::of(ledger))
    }

    /// Another chain on which the same happened: the same ids, owners and transactions, other
    /// digests, and validators of its own. What happens from here on happens to one of them.
    ///
    /// # Errors
    /// Keys that can't be made.
    pub fn fork(&self) -> Result<Self> {
        let ledger = self.read();
        let network = ledger.network();
        let fork = ledger.replay(Network {
            name: format!("{} forked", network.name),
            storage_price: network.storage_price + 1,
            genesis_ms: network.genesis_ms,
        })?;
        drop(ledger);
        Ok(Self::of(fork))
    }

    fn of(ledger: Ledger) -> Self {
        let (sealed, _) = watch::channel(ledger.latest().summary.sequence_number);
        Self {
            shared: Arc::new(Shared {
                ledger: RwLock::new(ledger),
                sealed,
            }),
        }
    }

    /// Does one operation, in a checkpoint of its own.
    ///
    /// # Errors
    /// What the Move code would abort with; nothing happened.
    pub fn apply(&self, operation: Operation) -> Result<Receipt> {
        let mut receipts = self.apply_all(&[operation])?;
        receipts.pop().context("an operation without receipt")
    }

    /// Does all operations in one checkpoint.
    ///
    /// # Errors
    /// What the Move code would abort with; nothing happened.
    pub fn apply_all(&self, operations: &[Operation]) -> Result<Vec<Receipt>> {
        let mut ledger = self.shared.ledger.write();
        let receipts = ledger.apply(operations, now_ms())?;
        let sealed = ledger.latest().summary.sequence_number;
        drop(ledger);
        self.shared.sealed.send_replace(sealed);
        Ok(receipts)
    }

    /// [`Operation::RegisterWorker`].
    ///
    /// # Errors
    /// The worker is there already.
    pub fn register_worker(
        &self,
        node_id: &str,
        owner: Address,
        stake: u64,
        seal_token: &str,
    ) -> Result<Receipt> {
        self.apply(Operation::RegisterWorker {
            node_id: node_id.to_owned(),
            owner,
            stake,
            seal_token: seal_token.to_owned(),
        })
    }

    /// [`Operation::SetStatus`].
    ///
    /// # Errors
    /// There is no such worker.
    pub fn set_status(&self, node_id: &str, status: &str) -> Result<Receipt> {
        self.apply(Operation::SetStatus {
            node_id: node_id.to_owned(),
            status: status.to_owned(),
        })
    }

    /// [`Operation::Withdraw`].
    ///
    /// # Errors
    /// There is no such worker.
    pub fn withdraw(&self, node_id: &str) -> Result<Receipt> {
        let node_id = node_id.to_owned();
        self.apply(Operation::Withdraw { node_id })
    }

    /// [`Operation::IssueToken`]: the token's id and the stake's.
    ///
    /// # Errors
    /// None that a caller can do anything about.
    pub fn issue_token(
        &self,
        owner: Address,
        stake: u64,
        until_ms: u64,
    ) -> Result<(Address, Address)> {
        let receipt = self.apply(Operation::IssueToken {
            owner,
            stake,
            expires_at_ms: until_ms,
        })?;
        match receipt.created[..] {
            [token, stake] => Ok((token, stake)),
            _ => anyhow::bail!("a token without stake"),
        }
    }

    /// [`Operation::SetStakeStatus`].
    ///
    /// # Errors
    /// There is no such stake.
    pub fn set_stake_status(&self, stake: Address, status: &str) -> Result<Receipt> {
        let status = status.to_owned();
        self.apply(Operation::SetStakeStatus { stake, status })
    }

    /// [`Operation::ScheduleApiRequest`].
    ///
    /// # Errors
    /// None that a caller can do anything about.
    pub fn schedule_api_request(&self, request: ApiRequest) -> Result<Receipt> {
        self.apply(Operation::ScheduleApiRequest(request))
    }

    /// [`Operation::EndEpoch`].
    ///
    /// # Errors
    /// Keys that can't be made.
    pub fn end_epoch(&self) -> Result<Receipt> {
        self.apply(Operation::EndEpoch)
    }

    /// The chain's identifier: the digest of its first checkpoint.
    pub fn chain_id(&self) -> Digest {
        let ledger = self.read();
        ledger.checkpoint(0).unwrap_or(ledger.latest()).digest
    }

    /// The number of the last checkpoint.
    pub fn latest_checkpoint(&self) -> u64 {
        self.read().latest().summary.sequence_number
    }

    /// Who signs the checkpoints of `epoch`, if it has begun.
    pub fn committee(&self, epoch: u64) -> Option<ValidatorCommittee> {
        self.read().committee(epoch).cloned()
    }

    /// The object as it is now.
    pub fn object(&self, id: Address) -> Option<Object> {
        self.read().live(id).map(|live| live.object.clone())
    }

    /// Tells of every sealed checkpoint (of the last one, where several came at once).
    pub(crate) fn sealed(&self) -> watch::Receiver<u64> {
        self.shared.sealed.subscribe()
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Ledger> {
        self.shared.ledger.read()
    }
}

/// The time, in Unix milliseconds.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |it| it.as_millis() as u64)
}
