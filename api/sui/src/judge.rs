//! Judges Seal tokens by the chain.
//!
//! Invariant: a token is judged `Unavailable` whenever the chain is out of reach or can't be
//! believed; never `Active`, and never as if it were not there.

use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use nautilus_workers::chain::{ChainError, ChainEvidence};
use nautilus_workers::{Clock, Judgement, SealToken, TokenJudge, Verdict};
use sui_sdk_types::Address;
use sui_sdk_types::bcs::ToBcs as _;

use crate::chain::{Chain, Known};
use crate::checks::{self, TokenFacts};
use crate::layout::Layout;
use crate::shape::{self, Shape};

/// See the module.
pub struct ChainJudge {
    chain: Arc<Chain>,
    layout: Layout,
    needed: u64,
    clock: Arc<dyn Clock>,
    /// The id of the registry's table of workers, which never changes.
    workers_table: OnceLock<Address>,
}

impl ChainJudge {
    /// Judges by `chain`, whose package issues tokens by `layout`; a worker's stake must be at least
    /// `needed` MIST.
    pub fn new(chain: Arc<Chain>, layout: Layout, needed: u64, clock: Arc<dyn Clock>) -> Self {
        Self {
            chain,
            layout,
            needed,
            clock,
            workers_table: OnceLock::new(),
        }
    }

    async fn judged(&self, token: &SealToken, node_id: &str) -> Result<Judgement, ChainError> {
        match &self.layout {
            Layout::Registry { registry } => self.by_registry(*registry, token, node_id).await,
            Layout::Objects { token: of, stake } => self.by_objects(of, stake, token).await,
        }
    }

    async fn by_registry(
        &self,
        registry: Address,
        token: &SealToken,
        node_id: &str,
    ) -> Result<Judgement, ChainError> {
        let table = self.workers_table(registry).await?;
        let Ok(key) = node_id.to_bcs() else {
            return Ok(Verdict::Unknown.into());
        };
        let id = table.derive_dynamic_child_id(&shape::string_tag(), &key);
        let Some(worker) = self.chain.object(id, &shape::WORKER_FIELD).await? else {
            return Ok(Verdict::Unknown.into());
        };
        Ok(Judgement {
            verdict: checks::registered_worker(
                &worker.fields,
                token.expose(),
                node_id,
                self.needed,
            ),
            evidence: Some(evidence(&worker)),
        })
    }

    async fn workers_table(&self, registry: Address) -> Result<Address, ChainError> {
        if let Some(table) = self.workers_table.get() {
            return Ok(*table);
        }
        let found = self.chain.object(registry, &shape::WORKER_REGISTRY).await?;
        let table = found.and_then(|it| it.fields["workers"]["id"].as_str()?.parse().ok());
        let table = table.ok_or_else(|| {
            ChainError::OutOfReach(format!(
                "{registry} is no WorkerRegistry of the package {}; see sui.registry and \
                 sui.package",
                self.chain.package
            ))
        })?;
        Ok(*self.workers_table.get_or_init(|| table))
    }

    async fn by_objects(
        &self,
        token_shape: &Shape,
        stake_shape: &Shape,
        token: &SealToken,
    ) -> Result<Judgement, ChainError> {
        // What is no id is no object's: the chain need not be asked.
        let Ok(id) = token.expose().parse::<Address>() else {
            return Ok(Verdict::Unknown.into());
        };
        let Some(found) = self.chain.object(id, token_shape).await? else {
            return Ok(Verdict::Unknown.into());
        };
        let evidence = Some(evidence(&found));
        let facts = match TokenFacts::read(&found.fields, found.owner) {
            Ok(facts) => facts,
            Err(verdict) => return Ok(Judgement { verdict, evidence }),
        };
        let verdict = if facts.has_expired(self.clock.unix_ms()) {
            Verdict::Expired
        } else {
            match self.chain.object(facts.stake_id, stake_shape).await? {
                None => Verdict::Unknown,
                Some(stake) => facts.with_stake(&stake.fields, self.needed),
            }
        };
        Ok(Judgement { verdict, evidence })
    }
}

impl TokenJudge for ChainJudge {
    fn judge<'a>(&'a self, token: &'a SealToken, node_id: &'a str) -> BoxFuture<'a, Judgement> {
        Box::pin(async move {
            self.judged(token, node_id).await.unwrap_or_else(|error| {
                tracing::warn!(node_id, %error, "a token can't be judged");
                Verdict::Unavailable.into()
            })
        })
    }
}

fn evidence(known: &Known) -> ChainEvidence {
    ChainEvidence {
        object_id: known.id.to_string(),
        version: known.version,
        digest: known.digest.to_base58(),
        checkpoint: known.checkpoint,
    }
}
