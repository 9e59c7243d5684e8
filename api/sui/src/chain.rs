//! The chain as far as it is believed: full nodes' answers, proved by validators' signatures and
//! confirmed by a second full node where that is configured.
//!
//! Invariants
//! - With [`Verification::Checkpoints`], nothing is given out that validators did not sign.
//! - With [`Agreement::Two`], nothing is given out that only one full node says.
//! - An object is never given out in an older version than before (of the last
//!   [`limits::NEWEST_LIMIT`] objects).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nautilus_workers::Clock;
use nautilus_workers::chain::{ChainError, Cursor};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use sui_sdk_types::{Address, Digest};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agree::{Compare, Comparison};
use crate::committees::Committees;
use crate::event::{self, Place};
use crate::face::{
    CheckpointState, Face, FaceError, Following, ObjectState, Part, TransactionState,
};
use crate::grpc::GrpcFace;
use crate::json_rpc::JsonRpcFace;
use crate::meter::{Meter, Rate};
use crate::pool::{Endpoint, Pool, Told};
use crate::settings::{Agreement, ChainSettings, FaceKind, FullNode, SettingsError, Verification};
use crate::shape::Shape;
use crate::{limits, proof};

/// The chain that tokens are judged by.
pub struct Chain {
    pool: Pool,
    pub(crate) package: Address,
    agreement: Agreement,
    committees: Option<Arc<Committees>>,
    newest: Arc<Mutex<Newest>>,
}

impl Chain {
    /// The chain of `settings`; nobody is asked yet.
    pub fn new(
        settings: &ChainSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, SettingsError> {
        settings.check()?;
        let committees = match &settings.verification {
            Verification::None => None,
            Verification::Checkpoints(committee) => {
                let committees = Committees::new(committee.as_ref().clone());
                Some(Arc::new(committees.map_err(SettingsError::Committee)?))
            }
        };
        let rate = Rate::new(settings.requests_per_second, Arc::clone(&clock));
        let proves = |node: &&FullNode| {
            let proves = committees.is_none() || node.face == FaceKind::Grpc;
            if !proves {
                let name = node.name();
                tracing::warn!(
                    name,
                    "a full node is not asked: its face gives no signatures"
                );
            }
            proves
        };
        let endpoints: Result<Vec<_>, _> = settings
            .full_nodes
            .iter()
            .filter(proves)
            .map(|node| {
                let name = node.name();
                let meter = Meter {
                    name: name.clone(),
                    rate: Arc::clone(&rate),
                    request_timeout: settings.request_timeout,
                };
                let (url, package) = (&node.url, settings.package);
                let roots = settings.authorities.clone();
                let face: Result<Arc<dyn Face>, String> = match node.face {
                    FaceKind::Grpc => GrpcFace::new(url, package, roots, meter)
                        .map(|face| Arc::new(face) as Arc<dyn Face>),
                    FaceKind::JsonRpc => JsonRpcFace::new(url, package, roots, meter)
                        .map(|face| Arc::new(face) as Arc<dyn Face>),
                };
                match face {
                    Ok(face) => Ok(Endpoint { name, face }),
                    Err(reason) => Err(SettingsError::FullNode { name, reason }),
                }
            })
            .collect();
        describe_metrics();
        Ok(Arc::new(Self {
            pool: Pool::new(endpoints?, clock, settings.hedge_after),
            package: settings.package,
            agreement: settings.agreement,
            committees,
            newest: Arc::default(),
        }))
    }

    /// Whether the chain has answered of late.
    pub fn is_reachable(&self) -> bool {
        self.pool.is_reachable()
    }

    /// Looks for the chain whenever nobody else has, so that its reachability is known.
    pub async fn watch(self: Arc<Self>, stopped: CancellationToken) {
        loop {
            if let Err(error) = self.newest_checkpoint().await {
                tracing::warn!(%error, "the chain was looked for");
            }
            tokio::select! {
                () = stopped.cancelled() => return,
                () = tokio::time::sleep(limits::PROBE_INTERVAL) => {}
            }
        }
    }

    /// The newest version of the object `id`, of the struct `shape`; `None`: there is none, or it
    /// is something else.
    pub(crate) async fn object(
        &self,
        id: Address,
        shape: &Shape,
    ) -> Result<Option<Known>, ChainError> {
        let (committees, newest) = (self.committees.clone(), Arc::clone(&self.newest));
        let answer = self
            .agreed(limits::ANSWER_TIMEOUT, "object", move |face| {
                let (committees, newest) = (committees.clone(), Arc::clone(&newest));
                Box::pin(async move {
                    let object = face.object(id).await?;
                    let Some(object) = object else {
                        return Ok(None);
                    };
                    newest.lock().look(id, object.version)?;
                    let checkpoint = match &committees {
                        None => None,
                        Some(committees) => Some(proved_object(&*face, committees, &object).await?),
                    };
                    Ok(Some(Found { object, checkpoint }))
                })
            })
            .await?;
        let Some(Found { object, checkpoint }) = answer else {
            return Ok(None);
        };
        self.newest.lock().learn(id, object.version);
        let is_proved = self.committees.is_some();
        Ok(self.known(object, checkpoint, shape, is_proved))
    }

    /// The object, if it is of the struct, with its content from its bytes where these are proved.
    fn known(
        &self,
        object: ObjectState,
        checkpoint: Option<u64>,
        shape: &Shape,
        is_proved: bool,
    ) -> Option<Known> {
        if !shape.is_of(self.package, &object.type_tag) {
            tracing::debug!(object = %object.id, found = %object.type_tag, "another struct");
            return None;
        }
        let content = object.bytes.as_ref().and_then(|bytes| bytes.as_struct());
        let fields = match content {
            Some(content) if is_proved || object.fields.is_empty() => {
                match shape.decode(content.contents()) {
                    Ok(fields) => fields,
                    Err(error) => {
                        tracing::warn!(object = %object.id, %error, "an object has another form");
                        return None;
                    }
                }
            }
            _ => object.fields,
        };
        Some(Known {
            id: object.id,
            version: object.version,
            digest: object.digest,
            owner: object.owner,
            checkpoint,
            fields,
        })
    }

    /// A transaction that is in a checkpoint; `None`: there is none of that digest yet.
    pub(crate) async fn transaction(
        &self,
        digest: Digest,
    ) -> Result<Option<TransactionState>, ChainError> {
        let committees = self.committees.clone();
        let answer = self
            .agreed(limits::ANSWER_TIMEOUT, "transaction", move |face| {
                let committees = committees.clone();
                Box::pin(async move {
                    let transaction = face.transaction(digest).await?;
                    let Some(transaction) = transaction.filter(|it| it.checkpoint.is_some()) else {
                        return Ok(None);
                    };
                    let Some(committees) = &committees else {
                        return Ok(Some(transaction));
                    };
                    proved_transaction(&*face, committees, transaction)
                        .await
                        .map(Some)
                })
            })
            .await?;
        Ok(answer)
    }

    /// The newest checkpoint's number, proved where that is configured; of two full nodes where
    /// two must agree the one that is behind.
    pub(crate) async fn newest_checkpoint(&self) -> Result<u64, ChainError> {
        let deadline = Instant::now() + limits::ANSWER_TIMEOUT;
        let asked = match self.agreement {
            Agreement::One => 1,
            Agreement::Two => 2,
        };
        let told = self.pool.ask(asked, deadline, |face| {
            let committees = self.committees.clone();
            async move {
                let newest = face.checkpoint(None, Part::Summary).await?;
                let newest =
                    newest.ok_or_else(|| FaceError::Gone("the newest checkpoint".to_owned()))?;
                if let Some(committees) = &committees {
                    committees.check(&*face, &newest).await?;
                }
                Ok(newest)
            }
        });
        let newest = told.await?.into_iter().map(|told| told.answer.sequence);
        newest
            .min()
            .ok_or_else(|| ChainError::OutOfReach("nobody answered".to_owned()))
    }

    /// What comes after `cursor`, proved where that is configured.
    pub(crate) async fn following(
        &self,
        cursor: &Cursor,
        limit: usize,
    ) -> Result<Following, ChainError> {
        let committees = self.committees.clone();
        let package = self.package;
        let deadline = Instant::now() + limits::EVENTS_TIMEOUT;
        let told = self
            .pool
            .ask(1, deadline, |face| {
                let (committees, cursor) = (committees.clone(), cursor.clone());
                async move {
                    let mut following = face.following(cursor, limit).await?;
                    let Some(committees) = &committees else {
                        return Ok(following);
                    };
                    let Following::Checkpoints { checkpoints, .. } = &mut following else {
                        return Err(FaceError::Unsupported("what validators signed"));
                    };
                    for checkpoint in checkpoints {
                        committees.check(&*face, checkpoint).await?;
                        prove_whole(package, checkpoint)?;
                    }
                    Ok(following)
                }
            })
            .await
            .map_err(|unanswered| {
                if unanswered.is_gone() {
                    ChainError::LostCursor {
                        cursor: Box::new(cursor.clone()),
                        reason: unanswered.to_string(),
                    }
                } else {
                    unanswered.into()
                }
            })?;
        let told = told.into_iter().next();
        let told = told.ok_or_else(|| ChainError::OutOfReach("nobody answered".to_owned()))?;
        Ok(told.answer)
    }

    /// Whether events need to be confirmed by a second full node.
    pub(crate) fn needs_agreement(&self) -> bool {
        self.agreement == Agreement::Two
    }

    /// What one full node says, or two alike; those that differ by being late are asked again.
    async fn agreed<T: Compare>(
        &self,
        within: Duration,
        what: &'static str,
        question: impl Fn(Arc<dyn Face>) -> BoxFuture<'static, Result<T, FaceError>>,
    ) -> Result<T, ChainError> {
        let count = match self.agreement {
            Agreement::One => 1,
            Agreement::Two => 2,
        };
        let deadline = Instant::now() + within;
        let mut between = String::new();
        for _ in 0..limits::LAG_ATTEMPTS {
            let mut told = self.pool.ask(count, deadline, &question).await?.into_iter();
            let one = told
                .next()
                .ok_or_else(|| ChainError::OutOfReach("nobody answered".to_owned()))?;
            let Some(other) = told.next() else {
                return Ok(one.answer);
            };
            let comparison = one.answer.compare(&other.answer);
            if comparison == Comparison::Same {
                return Ok(one.answer);
            }
            between = disagreement(what, &one, &other, &comparison);
            if comparison != Comparison::Late {
                metrics::counter!("nautilus_sui_disagreements_total").increment(1);
                tracing::error!(reason = between, "two full nodes contradict each other");
                break;
            }
            if Instant::now() + limits::LAG_PAUSE >= deadline {
                break;
            }
            tokio::time::sleep(limits::LAG_PAUSE).await;
        }
        Err(ChainError::OutOfReach(between))
    }
}

fn disagreement<T>(what: &str, one: &Told<T>, other: &Told<T>, how: &Comparison) -> String {
    let how = match how {
        Comparison::Contradiction(how) => how,
        _ => "one is behind the other",
    };
    format!("{} and {} differ about the {what}: {how}", one.by, other.by)
}

/// An object that is believed.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) id: Address,
    pub(crate) version: u64,
    pub(crate) digest: Digest,
    /// The account that holds it, where one does.
    pub(crate) owner: Option<Address>,
    /// The checkpoint that proves it, where one was asked for.
    pub(crate) checkpoint: Option<u64>,
    pub(crate) fields: Map<String, Value>,
}

/// An object, and the checkpoint that proves it.
struct Found {
    object: ObjectState,
    checkpoint: Option<u64>,
}

impl Compare for Found {
    fn compare(&self, other: &Self) -> Comparison {
        self.object.compare(&other.object)
    }
}

/// The checkpoint in which validators signed this version of the object.
async fn proved_object(
    face: &dyn Face,
    committees: &Committees,
    object: &ObjectState,
) -> Result<u64, FaceError> {
    let unproved = || FaceError::Unsupported("what validators signed");
    let bytes = object.bytes.as_deref().ok_or_else(unproved)?;
    let digest = bytes.previous_transaction();
    let transaction = face.transaction(digest).await?;
    let transaction =
        transaction.ok_or_else(|| FaceError::Gone(format!("the transaction {digest}")))?;
    let of = transaction.proof.as_deref().ok_or_else(unproved)?;
    proof::object_in_effects(bytes, &of.effects)?;
    checkpoint_of(face, committees, &transaction).await
}

/// The transaction, if its events are those that validators signed.
async fn proved_transaction(
    face: &dyn Face,
    committees: &Committees,
    mut transaction: TransactionState,
) -> Result<TransactionState, FaceError> {
    let of = transaction.proof.as_deref();
    let of = of.ok_or(FaceError::Unsupported("what validators signed"))?;
    proof::events_in_effects(transaction.digest, of.events.as_ref(), &of.effects)?;
    let sequence = checkpoint_of(face, committees, &transaction).await?;
    for event in &mut transaction.events {
        event.checkpoint = Some(sequence);
    }
    Ok(transaction)
}

/// The signed checkpoint that holds the transaction with its effects.
async fn checkpoint_of(
    face: &dyn Face,
    committees: &Committees,
    transaction: &TransactionState,
) -> Result<u64, FaceError> {
    let of = transaction.proof.as_deref();
    let of = of.ok_or(FaceError::Unsupported("what validators signed"))?;
    // Executed, but in no checkpoint yet: that passes.
    let sequence = transaction
        .checkpoint
        .ok_or_else(|| FaceError::Lagging("the transaction is in no checkpoint yet".to_owned()))?;
    let checkpoint = face.checkpoint(Some(sequence), Part::Contents).await?;
    let checkpoint =
        checkpoint.ok_or_else(|| FaceError::Gone(format!("the checkpoint {sequence}")))?;
    let contents = checkpoint.contents.as_ref();
    let contents = contents.ok_or(FaceError::Unsupported("a checkpoint's contents"))?;
    committees.check(face, &checkpoint).await?;
    proof::effects_in_contents(&of.effects, contents)?;
    Ok(sequence)
}

/// A checkpoint whose summary and contents are proved: its transactions are those of the contents,
/// all of them, and their events are read anew from what is proved.
fn prove_whole(package: Address, checkpoint: &mut CheckpointState) -> Result<(), FaceError> {
    let contents = checkpoint.contents.as_deref();
    let contents = contents.ok_or(FaceError::Unsupported("a checkpoint's contents"))?;
    let listed = contents.transactions();
    if listed.len() != checkpoint.transactions.len() {
        return Err(FaceError::Forged(
            "the checkpoint has another number of transactions".to_owned(),
        ));
    }
    for (listed, transaction) in listed.iter().zip(&mut checkpoint.transactions) {
        let of = transaction.proof.as_deref();
        let of = of.ok_or(FaceError::Unsupported("what validators signed"))?;
        if *listed.transaction() != transaction.digest || *listed.effects() != of.effects.digest() {
            return Err(proof::Forged::Contents.into());
        }
        proof::events_in_effects(transaction.digest, of.events.as_ref(), &of.effects)?;
        let place = Place {
            transaction: transaction.digest,
            timestamp_ms: checkpoint.timestamp_ms,
            checkpoint: Some(checkpoint.sequence),
        };
        let followed = of.events.as_ref();
        transaction.events = followed
            .map(|events| event::of_transaction(package, events, place))
            .unwrap_or_default();
    }
    Ok(())
}

/// The newest version of each object that was seen; the oldest sight is forgotten first.
#[derive(Default)]
struct Newest {
    versions: BTreeMap<Address, u64>,
    by_age: VecDeque<Address>,
}

impl Newest {
    /// Whether `version` is as new as any before.
    fn look(&self, id: Address, version: u64) -> Result<(), FaceError> {
        match self.versions.get(&id) {
            Some(newest) if *newest > version => Err(FaceError::Lagging(format!(
                "it has version {version} of {id}, and {newest} was seen"
            ))),
            _ => Ok(()),
        }
    }

    /// `version` is believed.
    fn learn(&mut self, id: Address, version: u64) {
        if let Some(newest) = self.versions.get_mut(&id) {
            *newest = version.max(*newest);
            return;
        }
        if self.by_age.len() >= limits::NEWEST_LIMIT
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.versions.remove(&oldest);
        }
        self.versions.insert(id, version);
        self.by_age.push_back(id);
    }
}

fn describe_metrics() {
    metrics::describe_counter!(
        "nautilus_sui_requests_total",
        "Requests to the chain's full nodes, by outcome."
    );
    metrics::describe_histogram!(
        "nautilus_sui_request_duration_seconds",
        metrics::Unit::Seconds,
        "Time from a request to a full node to its answer."
    );
    metrics::describe_gauge!(
        "nautilus_sui_reachable",
        "Whether the chain has answered of late."
    );
    metrics::describe_counter!(
        "nautilus_sui_disagreements_total",
        "Answers of two full nodes that can't both be true."
    );
    metrics::gauge!("nautilus_sui_reachable").set(0.0);
    metrics::counter!("nautilus_sui_disagreements_total").increment(0);
}
