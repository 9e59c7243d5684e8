//! The service `KV`.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use nautilus_machine::{Command, Operation, RangeRequest, Txn, TxnOutcome};
use prost::Message as _;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::access::Wanted;
use crate::convert::{self, OperationShape, TxnShape, key_value, signed};
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::response_op::Response as Answer;
use crate::range::Shape;
use crate::session::Session;
use crate::{check, errors};

/// Keys in one piece of a streamed range.
const STREAM_PIECE_KEYS: u64 = 1_024;

/// The pieces of a streamed range.
type RangeStream = Pin<Box<dyn Stream<Item = Result<pb::RangeStreamResponse, Status>> + Send>>;

#[tonic::async_trait]
impl pb::kv_server::Kv for Session {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.run_range(&metadata, request).await.map(Response::new)
    }

    type RangeStreamStream = RangeStream;

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<RangeStream>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.run_range_stream(&metadata, request)
            .await
            .map(Response::new)
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.run_put(&metadata, request).await.map(Response::new)
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.run_delete(&metadata, request).await.map(Response::new)
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.run_txn(&metadata, request).await.map(Response::new)
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.enter(&metadata, Wanted::Root).await?;
        // The old versions' rows go when the command is applied, so that `physical`
        // asks for nothing more. A negative revision lies before any compaction.
        let revision = u64::try_from(request.revision).map_err(|_| errors::COMPACTED)?;
        let applied = self.context.propose(Command::Compact { revision }).await?;
        Ok(Response::new(pb::CompactionResponse {
            header: Some(self.context.header(applied.revision)),
        }))
    }
}

impl Session {
    /// Range.
    pub(crate) async fn run_range(
        &self,
        metadata: &MetadataMap,
        request: pb::RangeRequest,
    ) -> Result<pb::RangeResponse, Status> {
        check::range(&request)?;
        let grant = self.enter(metadata, Wanted::Range(&request)).await?;
        if !request.serializable {
            self.context.barrier().await?;
        }
        self.context.access.confirm(&grant)?;
        let (read, shape) = Shape::of(request)?;
        let found = self.context.read(read).await?;
        let header = self.context.header(found.revision);
        let mut response = shape.finish(found);
        response.header = Some(header);
        Ok(response)
    }

    /// Put.
    pub(crate) async fn run_put(
        &self,
        metadata: &MetadataMap,
        request: pb::PutRequest,
    ) -> Result<pb::PutResponse, Status> {
        check::put(&request)?;
        self.check_size(request.encoded_len())?;
        let grant = self.enter(metadata, Wanted::Put(&request)).await?;
        self.context.alarms.may_grow()?;
        let txn = Txn {
            compare: Vec::new(),
            then: vec![Operation::Put(convert::put(request)?)],
            otherwise: Vec::new(),
        };
        let written = self.context.write(txn, grant).await?;
        let previous = match written.results.into_iter().next() {
            Some(TxnOutcome::Put(previous)) => previous,
            _ => None,
        };
        Ok(pb::PutResponse {
            header: Some(self.context.header(written.revision)),
            prev_kv: previous.map(key_value),
        })
    }

    /// DeleteRange.
    pub(crate) async fn run_delete(
        &self,
        metadata: &MetadataMap,
        request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, Status> {
        check::delete(&request)?;
        self.check_size(request.encoded_len())?;
        let grant = self.enter(metadata, Wanted::Delete(&request)).await?;
        let operation = Operation::Delete {
            range: convert::key_range(request.key, request.range_end)?,
            prev_kv: request.prev_kv,
        };
        let txn = Txn {
            compare: Vec::new(),
            then: vec![operation],
            otherwise: Vec::new(),
        };
        let written = self.context.write(txn, grant).await?;
        let (deleted, previous) = match written.results.into_iter().next() {
            Some(TxnOutcome::Delete { deleted, prev }) => (deleted, prev),
            _ => (0, Vec::new()),
        };
        Ok(pb::DeleteRangeResponse {
            header: Some(self.context.header(written.revision)),
            deleted: signed(deleted),
            prev_kvs: previous.into_iter().map(key_value).collect(),
        })
    }

    /// Txn. What only reads does not go through the log.
    pub(crate) async fn run_txn(
        &self,
        metadata: &MetadataMap,
        request: pb::TxnRequest,
    ) -> Result<pb::TxnResponse, Status> {
        check::txn(&request, self.context.parts.limits.max_txn_ops)?;
        self.check_size(request.encoded_len())?;
        let grant = self.enter(metadata, Wanted::Txn(&request)).await?;
        let kind = check::kind(&request);
        if kind.puts {
            self.context.alarms.may_grow()?;
        }
        let (txn, shape) = convert::txn(request)?;
        let (revision, succeeded, results) = if kind.writes {
            let written = self.context.write(txn, grant).await?;
            (written.revision, written.succeeded, written.results)
        } else {
            if !kind.serializable {
                self.context.barrier().await?;
            }
            self.context.access.confirm(&grant)?;
            self.context.read_txn(txn).await?
        };
        let mut response = txn_response(revision, succeeded, results, shape);
        response.header = Some(self.context.header(revision));
        Ok(response)
    }

    async fn run_range_stream(
        &self,
        metadata: &MetadataMap,
        request: pb::RangeRequest,
    ) -> Result<RangeStream, Status> {
        check::range(&request)?;
        let grant = self.enter(metadata, Wanted::Range(&request)).await?;
        if !request.serializable {
            self.context.barrier().await?;
        }
        self.context.access.confirm(&grant)?;
        let (read, shape) = Shape::of(request)?;
        if !shape.is_plain() {
            return Err(Status::unimplemented(
                "RangeStream does not support custom sort orders or revision filters",
            ));
        }
        let pages = Pages::new(self, read);
        Ok(stream::unfold(Some(pages), |pages| async move {
            let mut pages = pages?;
            match pages.next().await {
                Ok((piece, true)) => Some((Ok(piece), None)),
                Ok((piece, false)) => Some((Ok(piece), Some(pages))),
                Err(status) => Some((Err(status), None)),
            }
        })
        .boxed())
    }

    fn check_size(&self, bytes: usize) -> Result<(), Status> {
        if bytes > self.context.parts.limits.max_request_bytes {
            return Err(errors::REQUEST_TOO_LARGE.into());
        }
        Ok(())
    }
}

/// A streamed range: one piece after the other, all at the revision of the first.
struct Pages {
    context: std::sync::Arc<crate::context::EtcdContext>,
    read: RangeRequest,
    /// Keys still to be sent, when limited.
    left: Option<u64>,
    /// What the first piece said of the whole.
    whole: Option<(u64, u64)>,
}

impl Pages {
    fn new(session: &Session, read: RangeRequest) -> Self {
        Self {
            context: session.context.clone(),
            left: read.limit,
            whole: None,
            read,
        }
    }

    /// The next piece, and whether it is the last.
    async fn next(&mut self) -> Result<(pb::RangeStreamResponse, bool), Status> {
        let limit = self
            .left
            .map_or(STREAM_PIECE_KEYS, |left| left.min(STREAM_PIECE_KEYS));
        let mut request = self.read.clone();
        request.limit = Some(limit);
        let found = self.context.read(request).await?;
        let (revision, count) = *self.whole.get_or_insert((found.revision, found.count));
        if self.read.revision.is_none() {
            self.read.revision = Some(revision);
        }
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(found.kvs.len() as u64);
        }
        if let Some(last) = found.kvs.last() {
            self.read.range.start = after(&last.key);
        }
        let last = !found.more || self.left == Some(0) || found.kvs.is_empty();
        let mut response = pb::RangeResponse {
            kvs: found.kvs.into_iter().map(key_value).collect(),
            ..pb::RangeResponse::default()
        };
        if last {
            response.header = Some(self.context.header(revision));
            response.more = found.more;
            response.count = signed(count);
        }
        let piece = pb::RangeStreamResponse {
            range_response: Some(response),
        };
        Ok((piece, last))
    }
}

/// The first key after `key`.
fn after(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// The answer of a transaction; only the outermost header says more than the revision.
fn txn_response(
    revision: u64,
    succeeded: bool,
    results: Vec<TxnOutcome>,
    shape: TxnShape,
) -> pb::TxnResponse {
    let shapes = if succeeded {
        shape.then
    } else {
        shape.otherwise
    };
    let responses = results
        .into_iter()
        .zip(shapes)
        .map(|(result, shape)| pb::ResponseOp {
            response: Some(answer(revision, result, shape)),
        })
        .collect();
    pb::TxnResponse {
        header: Some(revision_header(revision)),
        succeeded,
        responses,
    }
}

fn answer(revision: u64, result: TxnOutcome, shape: OperationShape) -> Answer {
    let header = Some(revision_header(revision));
    match (result, shape) {
        (TxnOutcome::Range(found), OperationShape::Range(shape)) => {
            let mut response = shape.finish(found);
            response.header = header;
            Answer::ResponseRange(response)
        }
        (TxnOutcome::Txn { succeeded, results }, OperationShape::Txn(shape)) => {
            Answer::ResponseTxn(txn_response(revision, succeeded, results, shape))
        }
        (TxnOutcome::Delete { deleted, prev }, _) => {
            Answer::ResponseDeleteRange(pb::DeleteRangeResponse {
                header,
                deleted: signed(deleted),
                prev_kvs: prev.into_iter().map(key_value).collect(),
            })
        }
        (TxnOutcome::Put(previous), _) => Answer::ResponsePut(pb::PutResponse {
            header,
            prev_kv: previous.map(key_value),
        }),
        // A range or a transaction answers only what asked for one.
        (TxnOutcome::Range(_) | TxnOutcome::Txn { .. }, _) => {
            Answer::ResponsePut(pb::PutResponse::default())
        }
    }
}

fn revision_header(revision: u64) -> pb::ResponseHeader {
    pb::ResponseHeader {
        revision: signed(revision),
        ..pb::ResponseHeader::default()
    }
}
