//! The package's events, in the chain's order.
//!
//! Invariant: what is given out is as well believed as [`crate::chain`] says: proved, or confirmed
//! by a second full node, where that is configured.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use nautilus_workers::chain::{ChainError, ChainEvent, Cursor, EventPage, EventSource};

use crate::agree::same_event;
use crate::chain::Chain;
use crate::face::Following;
use crate::{limits, page};

/// See the module.
pub struct ChainEvents {
    chain: Arc<Chain>,
    /// The first checkpoint that is followed; `None`: the one after the newest.
    first: Option<u64>,
}

impl ChainEvents {
    /// The events of `chain`, beginning with the checkpoint `first`, or with the next one.
    pub fn new(chain: Arc<Chain>, first: Option<u64>) -> Self {
        Self { chain, first }
    }

    async fn page_after(
        &self,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<EventPage, ChainError> {
        let Some(cursor) = after else {
            return self.beginning().await;
        };
        let page = match self.chain.following(&cursor, limit).await? {
            Following::Checkpoints { checkpoints, more } => {
                page::of_checkpoints(&cursor, checkpoints, more, limit)
            }
            Following::Events {
                events,
                more,
                passed,
            } => page::of_events(&cursor, events, more, limit, passed),
        };
        if self.chain.needs_agreement() {
            self.confirm(&page.events).await?;
        }
        Ok(page)
    }

    /// Where following begins: nothing has been given out.
    async fn beginning(&self) -> Result<EventPage, ChainError> {
        let checkpoint = match self.first {
            Some(first) => first.checked_sub(1),
            None => Some(self.chain.newest_checkpoint().await?),
        };
        Ok(EventPage {
            events: Vec::new(),
            next: Cursor {
                checkpoint,
                event: None,
            },
            more: self.first.is_some(),
        })
    }

    /// Two full nodes have each of these.
    async fn confirm(&self, events: &[ChainEvent]) -> Result<(), ChainError> {
        let digests: BTreeSet<String> = events.iter().map(|it| it.id.tx_digest.clone()).collect();
        let transactions: BTreeMap<String, Vec<ChainEvent>> = stream::iter(digests)
            .map(|digest| async move {
                let found = self.events_of(&digest).await?;
                Ok::<_, ChainError>((digest, found.unwrap_or_default()))
            })
            .buffer_unordered(limits::CONFIRMATIONS_AT_ONCE)
            .try_collect()
            .await?;
        for event in events {
            let known = transactions.get(&event.id.tx_digest);
            let is_confirmed =
                known.is_some_and(|known| known.iter().any(|it| same_event(it, event)));
            if !is_confirmed {
                return Err(ChainError::OutOfReach(format!(
                    "a second full node does not have the event {}/{}",
                    event.id.tx_digest, event.id.event_seq
                )));
            }
        }
        Ok(())
    }

    async fn events_of(&self, tx_digest: &str) -> Result<Option<Vec<ChainEvent>>, ChainError> {
        // What is no digest is no transaction's: the chain need not be asked.
        let Ok(digest) = tx_digest.parse() else {
            return Ok(None);
        };
        let transaction = self.chain.transaction(digest).await?;
        Ok(transaction.map(|it| it.events))
    }
}

impl EventSource for ChainEvents {
    fn page(
        &self,
        after: Option<Cursor>,
        limit: usize,
    ) -> BoxFuture<'_, Result<EventPage, ChainError>> {
        Box::pin(self.page_after(after, limit))
    }

    fn of_transaction(
        &self,
        tx_digest: &str,
    ) -> BoxFuture<'_, Result<Option<Vec<ChainEvent>>, ChainError>> {
        let tx_digest = tx_digest.to_owned();
        Box::pin(async move { self.events_of(&tx_digest).await })
    }
}
