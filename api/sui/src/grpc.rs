//! A full node by its gRPC face, `sui.rpc.v2`.
//!
//! Invariant: everything that is signed is taken as BCS, so that what is read is what is signed.

use std::ops::RangeInclusive;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use http::Uri;
use nautilus_workers::chain::Cursor;
use prost::Message as _;
use rustls::RootCertStore;
use serde_json::{Map, Value};
use sui_rpc::field::{FieldMask, FieldMaskUtil as _};
use sui_rpc::proto::sui::rpc::v2 as proto;
use sui_rpc::proto::sui::rpc::v2::ledger_service_client::LedgerServiceClient;
use sui_sdk_types::{Address, Digest, Owner, TransactionEvents};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::event::{self, Place};
use crate::face::{
    Asked, CheckpointState, Face, FaceError, Following, ObjectState, Part, SignedSummary,
    TransactionProof, TransactionState, shortened,
};
use crate::meter::Meter;
use crate::{limits, tls, value};

const OBJECT_MASK: [&str; 2] = ["bcs", "json"];
const TRANSACTION_MASK: [&str; 5] = [
    "digest",
    "checkpoint",
    "timestamp",
    "effects.bcs",
    "events.bcs",
];
const SUMMARY_MASK: [&str; 3] = ["sequence_number", "summary.bcs", "signature"];
const CONTENTS_MASK: [&str; 1] = ["contents.bcs"];
const TRANSACTIONS_MASK: [&str; 3] = [
    "transactions.digest",
    "transactions.effects.bcs",
    "transactions.events.bcs",
];

/// A full node's gRPC face.
pub(crate) struct GrpcFace {
    channel: Channel,
    package: Address,
    meter: Meter,
}

impl GrpcFace {
    /// The face at `url` (`http` or `https`), which is connected to when it is first asked.
    pub(crate) fn new(
        url: &Uri,
        package: Address,
        roots: RootCertStore,
        meter: Meter,
    ) -> Result<Self, String> {
        let host = url.host().ok_or("the URL names no host")?.to_owned();
        let is_tls = url.scheme_str() == Some("https");
        let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let tls = if is_tls {
            let config = tls::client_config(roots, b"h2").map_err(|error| error.to_string())?;
            Some(TlsConnector::from(std::sync::Arc::new(config)))
        } else {
            None
        };
        // tonic would want TLS of its own for https: the connector brings it, the origin says so.
        let plain = format!("http://{host}:{port}");
        let endpoint = Endpoint::from_shared(plain)
            .map_err(|error| error.to_string())?
            .origin(url.clone())
            .connect_timeout(limits::CONNECT_TIMEOUT)
            .http2_keep_alive_interval(limits::KEEP_ALIVE)
            .tcp_nodelay(true);
        let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            tls::connect(host.clone(), port, tls.clone())
        }));
        Ok(Self {
            channel,
            package,
            meter,
        })
    }

    fn ledger(&self, limit_bytes: usize) -> LedgerServiceClient<Channel> {
        LedgerServiceClient::new(self.channel.clone()).max_decoding_message_size(limit_bytes)
    }

    async fn get_object(&self, id: Address) -> Result<Option<ObjectState>, FaceError> {
        let mut request = proto::GetObjectRequest::default();
        request.object_id = Some(id.to_string());
        request.read_mask = Some(FieldMask::from_paths(OBJECT_MASK));
        let mut ledger = self.ledger(limits::ANSWER_LIMIT_BYTES);
        let answer = async { found(ledger.get_object(request).await) };
        let Some(answer) = self.meter.counted("GetObject", answer).await? else {
            return Ok(None);
        };
        let object = answer.object.ok_or(missing("object"))?;
        object_state(id, &object).map(Some)
    }

    async fn get_transaction(&self, digest: Digest) -> Result<Option<TransactionState>, FaceError> {
        let mut request = proto::GetTransactionRequest::default();
        request.digest = Some(digest.to_base58());
        request.read_mask = Some(FieldMask::from_paths(TRANSACTION_MASK));
        let mut ledger = self.ledger(limits::ANSWER_LIMIT_BYTES);
        let answer = async { found(ledger.get_transaction(request).await) };
        let Some(answer) = self.meter.counted("GetTransaction", answer).await? else {
            return Ok(None);
        };
        let transaction = answer.transaction.ok_or(missing("transaction"))?;
        let state = self.transaction_state(&transaction, transaction.checkpoint, None)?;
        if state.digest == digest {
            Ok(Some(state))
        } else {
            Err(FaceError::Malformed("another transaction".to_owned()))
        }
    }

    async fn get_checkpoint(
        &self,
        sequence: Option<u64>,
        part: Part,
    ) -> Result<Option<CheckpointState>, FaceError> {
        let limit_bytes = limits::CHECKPOINT_LIMIT_BYTES;
        let found = self.checkpoint_within(sequence, part, limit_bytes).await?;
        Ok(found.map(|(state, _)| state))
    }

    async fn checkpoint_within(
        &self,
        sequence: Option<u64>,
        part: Part,
        limit_bytes: usize,
    ) -> Result<Option<(CheckpointState, usize)>, FaceError> {
        let mut paths = SUMMARY_MASK.to_vec();
        if part != Part::Summary {
            paths.extend(CONTENTS_MASK);
        }
        if part == Part::Transactions {
            paths.extend(TRANSACTIONS_MASK);
        }
        let mut request = proto::GetCheckpointRequest::default();
        request.checkpoint_id =
            sequence.map(proto::get_checkpoint_request::CheckpointId::SequenceNumber);
        request.read_mask = Some(FieldMask::from_paths(paths));
        let mut ledger = self.ledger(limit_bytes);
        let answer = async {
            let answer = found(ledger.get_checkpoint(request).await);
            // tonic's word for an answer that is longer than was allowed.
            answer.map_err(|error| match error {
                FaceError::TooLong(_) => FaceError::TooLong(limit_bytes),
                error => error,
            })
        };
        let Some(answer) = self.meter.counted("GetCheckpoint", answer).await? else {
            return Ok(None);
        };
        let checkpoint = answer.checkpoint.ok_or(missing("checkpoint"))?;
        let state = self.checkpoint_state(&checkpoint, part)?;
        match sequence {
            Some(asked) if asked != state.sequence => {
                Err(FaceError::Malformed("another checkpoint".to_owned()))
            }
            _ => Ok(Some((state, checkpoint.encoded_len()))),
        }
    }

    async fn get_end_of_epoch(&self, epoch: u64) -> Result<Option<u64>, FaceError> {
        let mut request = proto::GetEpochRequest::default();
        request.epoch = Some(epoch);
        request.read_mask = Some(FieldMask::from_paths(["epoch", "last_checkpoint"]));
        let mut ledger = self.ledger(limits::ANSWER_LIMIT_BYTES);
        let answer = async { found(ledger.get_epoch(request).await) };
        let answer = self.meter.counted("GetEpoch", answer).await?;
        Ok(answer
            .and_then(|answer| answer.epoch)
            .and_then(|epoch| epoch.last_checkpoint))
    }

    async fn checkpoints_after(&self, cursor: Cursor) -> Result<Following, FaceError> {
        let from = match (cursor.checkpoint, cursor.event) {
            (Some(read), _) => read.saturating_add(1),
            (None, Some(event)) => self.checkpoint_of(&event.tx_digest).await?,
            (None, None) => 0,
        };
        let newest = self.get_checkpoint(None, Part::Summary).await?;
        let newest = newest.ok_or(missing("checkpoint"))?.sequence;
        if newest.saturating_add(1) < from {
            return Err(FaceError::Lagging(format!(
                "its newest checkpoint is {newest}, and {from} comes next"
            )));
        }
        let end = newest.min(from.saturating_add(limits::CHECKPOINTS_PER_PAGE - 1));
        let checkpoints = self.some_of(from..=end).await?;
        let read = checkpoints.last().map(|it| it.sequence);
        Ok(Following::Checkpoints {
            checkpoints,
            more: read.is_some_and(|read| read < newest),
        })
    }

    /// The first of these checkpoints, as many as are to be held in memory together.
    async fn some_of(&self, range: RangeInclusive<u64>) -> Result<Vec<CheckpointState>, FaceError> {
        let first = *range.start();
        let mut sized = stream::iter(range)
            .map(|sequence| self.sized(sequence, limits::USUAL_CHECKPOINT_BYTES))
            .buffered(limits::CHECKPOINTS_AT_ONCE);
        let (mut checkpoints, mut bytes) = (Vec::new(), 0);
        while bytes < limits::PAGE_BYTES
            && let Some(next) = sized.next().await
        {
            match next {
                Ok((state, size)) => {
                    bytes += size;
                    checkpoints.push(state);
                }
                Err(FaceError::TooLong(_)) if checkpoints.is_empty() => {
                    drop(sized);
                    let large = self.sized(first, limits::CHECKPOINT_LIMIT_BYTES).await?;
                    return Ok(vec![large.0]);
                }
                // Its turn comes with the next page.
                Err(FaceError::TooLong(_)) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(checkpoints)
    }

    /// A whole checkpoint, and how many bytes it came in.
    async fn sized(
        &self,
        sequence: u64,
        limit_bytes: usize,
    ) -> Result<(CheckpointState, usize), FaceError> {
        let found = self
            .checkpoint_within(Some(sequence), Part::Transactions, limit_bytes)
            .await?;
        found.ok_or_else(|| FaceError::Gone(format!("checkpoint {sequence}")))
    }

    async fn checkpoint_of(&self, tx_digest: &str) -> Result<u64, FaceError> {
        let gone = || FaceError::Gone(format!("the transaction {}", shortened(tx_digest)));
        let digest = tx_digest.parse().map_err(|_| gone())?;
        let transaction = self.get_transaction(digest).await?.ok_or_else(gone)?;
        transaction.checkpoint.ok_or_else(gone)
    }

    fn checkpoint_state(
        &self,
        checkpoint: &proto::Checkpoint,
        part: Part,
    ) -> Result<CheckpointState, FaceError> {
        let summary = checkpoint.summary.as_ref().ok_or(missing("summary"))?;
        let summary: sui_sdk_types::CheckpointSummary = bcs(summary.bcs.as_ref(), "summary.bcs")?;
        let signature = checkpoint.signature.as_ref().ok_or(missing("signature"))?;
        let signature = signature.try_into().map_err(malformed)?;
        let contents: Option<sui_sdk_types::CheckpointContents> = match part {
            Part::Summary => None,
            _ => {
                let contents = checkpoint.contents.as_ref().ok_or(missing("contents"))?;
                Some(bcs(contents.bcs.as_ref(), "contents.bcs")?)
            }
        };
        let (sequence, timestamp_ms) = (summary.sequence_number, summary.timestamp_ms);
        let transactions = checkpoint.transactions.iter();
        let transactions: Result<_, _> = transactions
            .map(|it| self.transaction_state(it, Some(sequence), Some(timestamp_ms)))
            .collect();
        let digests = contents.iter().flat_map(|it| it.transactions());
        Ok(CheckpointState {
            sequence,
            timestamp_ms,
            digests: digests.map(|it| *it.transaction()).collect(),
            contents: contents.map(Box::new),
            signed: Some(Box::new(SignedSummary { summary, signature })),
            transactions: transactions?,
        })
    }

    fn transaction_state(
        &self,
        transaction: &proto::ExecutedTransaction,
        checkpoint: Option<u64>,
        timestamp_ms: Option<u64>,
    ) -> Result<TransactionState, FaceError> {
        let digest = parsed(transaction.digest.as_deref(), "digest")?;
        let effects = transaction.effects.as_ref().ok_or(missing("effects"))?;
        let effects: sui_sdk_types::TransactionEffects = bcs(effects.bcs.as_ref(), "effects.bcs")?;
        let events: Option<TransactionEvents> = match &transaction.events {
            Some(events) if events.bcs.is_some() => Some(bcs(events.bcs.as_ref(), "events.bcs")?),
            _ => None,
        };
        if effects.events_digest().is_some() && events.is_none() {
            return Err(missing("events.bcs"));
        }
        let timestamp_ms = timestamp_ms.or_else(|| {
            let at = transaction.timestamp?;
            let whole = u64::try_from(at.seconds).ok()?.checked_mul(1000)?;
            whole.checked_add(u64::try_from(at.nanos).ok()? / 1_000_000)
        });
        let place = Place {
            transaction: digest,
            timestamp_ms: timestamp_ms.unwrap_or_default(),
            checkpoint,
        };
        let followed = events
            .as_ref()
            .map(|events| event::of_transaction(self.package, events, place));
        Ok(TransactionState {
            digest,
            checkpoint,
            events: followed.unwrap_or_default(),
            proof: Some(Box::new(TransactionProof { effects, events })),
        })
    }
}

impl Face for GrpcFace {
    fn name(&self) -> &str {
        &self.meter.name
    }

    fn object(&self, id: Address) -> Asked<'_, Option<ObjectState>> {
        Box::pin(self.get_object(id))
    }

    fn transaction(&self, digest: Digest) -> Asked<'_, Option<TransactionState>> {
        Box::pin(self.get_transaction(digest))
    }

    fn checkpoint(&self, sequence: Option<u64>, part: Part) -> Asked<'_, Option<CheckpointState>> {
        Box::pin(self.get_checkpoint(sequence, part))
    }

    fn end_of_epoch(&self, epoch: u64) -> Asked<'_, Option<u64>> {
        Box::pin(self.get_end_of_epoch(epoch))
    }

    fn following(&self, cursor: Cursor, _limit: usize) -> Asked<'_, Following> {
        Box::pin(self.checkpoints_after(cursor))
    }
}

fn object_state(id: Address, object: &proto::Object) -> Result<ObjectState, FaceError> {
    let decoded: sui_sdk_types::Object = bcs(object.bcs.as_ref(), "bcs")?;
    let content = decoded
        .as_struct()
        .ok_or(FaceError::Malformed("a package".to_owned()))?;
    if content.object_id() != id {
        return Err(FaceError::Malformed("another object".to_owned()));
    }
    let fields = match object.json.as_deref().map(value::from_proto) {
        Some(Value::Object(fields)) => value::plain_fields(&fields),
        _ => Map::new(),
    };
    Ok(ObjectState {
        id,
        version: decoded.version(),
        digest: decoded.digest(),
        type_tag: content.object_type().clone(),
        owner: match decoded.owner() {
            Owner::Address(owner) | Owner::ConsensusAddress { owner, .. } => Some(*owner),
            _ => None,
        },
        fields,
        bytes: Some(Box::new(decoded)),
    })
}

/// `None` for what the full node does not know.
fn found<T>(answer: Result<tonic::Response<T>, Status>) -> Result<Option<T>, FaceError> {
    match answer {
        Ok(answer) => Ok(Some(answer.into_inner())),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(refusal(&status)),
    }
}

fn refusal(status: &Status) -> FaceError {
    let message = shortened(status.message());
    match status.code() {
        Code::ResourceExhausted => FaceError::RateLimited,
        Code::OutOfRange => FaceError::TooLong(limits::ANSWER_LIMIT_BYTES),
        Code::DeadlineExceeded | Code::Cancelled => FaceError::TimedOut(Duration::ZERO),
        Code::Unimplemented => FaceError::Unsupported("the full node does not serve it"),
        Code::Unavailable | Code::Unknown => FaceError::Unreachable(message),
        code => FaceError::Refused(format!("{code:?}: {message}")),
    }
}

fn bcs<'de, T: serde::Deserialize<'de>>(
    bytes: Option<&'de proto::Bcs>,
    field: &'static str,
) -> Result<T, FaceError> {
    bytes
        .ok_or(missing(field))?
        .deserialize()
        .map_err(|error| FaceError::Malformed(format!("{field}: {error}")))
}

fn parsed<T: std::str::FromStr>(text: Option<&str>, field: &'static str) -> Result<T, FaceError> {
    text.and_then(|text| text.parse().ok())
        .ok_or(missing(field))
}

fn missing(field: &'static str) -> FaceError {
    FaceError::Malformed(format!("{field} is missing or wrong"))
}

fn malformed(error: impl std::fmt::Display) -> FaceError {
    FaceError::Malformed(shortened(&error.to_string()))
}
