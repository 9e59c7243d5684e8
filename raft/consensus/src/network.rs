//! openraft's network, over the peers' clients.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::Stream;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt};
use nautilus_machine::NodeId;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkV2};
use tokio::io::AsyncReadExt;
use tokio::io::AsyncSeekExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::config::{CONNECT_TIMEOUT, SNAPSHOT_CHUNK_BYTES, SNAPSHOT_STALL};
use crate::peers::{Client, Lane, Peers, chain};
use crate::restart::{self, Registrar, incarnation_of};
use crate::snapshots::SnapshotFile;
use crate::state_machine::Machinery;
use crate::types::{NodeInfo, TypeConfig, Vote};
use crate::wire::{self, Malformed, v1};

/// Chunks of a snapshot read ahead of the network.
const CHUNKS_AHEAD: usize = 4;
/// Waits between tries to reach a peer, in milliseconds; the last one repeats.
const BACKOFF_MS: [u64; 6] = [10, 20, 50, 100, 200, 300];

/// Makes a connection for each of openraft's tasks.
pub(crate) struct NetworkFactory {
    pub(crate) peers: Arc<Peers>,
    pub(crate) registrar: Arc<Registrar>,
    pub(crate) machinery: Weak<Machinery>,
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: NodeId, _node: &NodeInfo) -> PeerNetwork {
        PeerNetwork {
            peers: Arc::clone(&self.peers),
            registrar: Arc::clone(&self.registrar),
            machinery: Weak::clone(&self.machinery),
            target,
            streaming: true,
        }
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, _node: &NodeInfo) -> PeerNetwork {
        PeerNetwork {
            peers: Arc::clone(&self.peers),
            registrar: Arc::clone(&self.registrar),
            machinery: Weak::clone(&self.machinery),
            target,
            streaming: false,
        }
    }
}

/// The way to one peer.
pub(crate) struct PeerNetwork {
    peers: Arc<Peers>,
    registrar: Arc<Registrar>,
    /// Weak: a task that still ends must not keep the store's directory locked.
    machinery: Weak<Machinery>,
    target: NodeId,
    /// Replication streams its appends; a heartbeat is one call.
    streaming: bool,
}

impl PeerNetwork {
    fn client(&self, lane: Lane) -> Client {
        self.peers.client(self.target, lane)
    }

    fn failed(&self, status: &tonic::Status) -> RPCError<TypeConfig> {
        self.peers.lives().hear_refusal(self.target, status);
        if restart::is_returning(status) {
            self.registrar.waits(self.target);
        }
        let text = format!("node {}: {}", self.target, chain(status));
        RPCError::Unreachable(Unreachable::from_string(text))
    }

    async fn call<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, RPCError<TypeConfig>> {
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(answer)) => {
                let heard = self
                    .peers
                    .lives()
                    .hear_header(self.target, answer.metadata());
                heard.map_err(|outlived| {
                    let text = format!("node {}: {}", self.target, outlived.message());
                    RPCError::Unreachable(Unreachable::from_string(text))
                })?;
                Ok(answer.into_inner())
            }
            Ok(Err(status)) => Err(self.failed(&status)),
            Err(_) => Err(RPCError::Network(NetworkError::from_string(format!(
                "node {} did not answer within {limit:?}",
                self.target
            )))),
        }
    }
}

fn malformed(error: &Malformed) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(error))
}

impl RaftNetworkV2<TypeConfig> for PeerNetwork {
    type SnapshotData = Arc<SnapshotFile>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = wire::to_append(&request).map_err(|error| malformed(&error))?;
        let mut client = self.client(Lane::Raft);
        let answer = self.call(option.hard_ttl(), client.beat(request)).await?;
        let result = wire::from_append_answer(answer).map_err(|error| malformed(&error))?;
        Ok(match result {
            Ok(_) => AppendEntriesResponse::Success,
            Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
            RPCError<TypeConfig>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if !self.streaming {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            // openraft waits in the stream, before its first request, after a failure: a peer that
            // refuses connections would be asked without a pause by whoever connects first.
            let Some(first) = input.next().await else {
                return Ok(futures_util::stream::empty().boxed());
            };
            let input = futures_util::stream::iter([first]).chain(input);
            // An entry that can't be encoded ends the stream; it was encoded before, in the log.
            let requests = input
                .map(|request| wire::to_append(&request))
                .take_while(|request| {
                    if let Err(error) = request {
                        tracing::error!(%error, "an entry can't be sent");
                    }
                    std::future::ready(request.is_ok())
                });
            let mut client = self.client(Lane::Raft);
            let requests = requests.filter_map(|request| std::future::ready(request.ok()));
            let mut life = None;
            let call = async {
                let answers = client.append(requests).await?;
                life = Some(incarnation_of(answers.metadata())?);
                Ok(answers)
            };
            let answers = self.call(CONNECT_TIMEOUT, call).await?;
            let target = self.target;
            let (peers, life) = (Arc::clone(&self.peers), life.unwrap_or_default());
            #[expect(clippy::result_large_err, reason = "the error is openraft's")]
            let answers = answers.map(move |answer| match answer {
                // What an outlived one acknowledged counts no more.
                Ok(_) if peers.lives().is_outlived(target, life) => {
                    let text = format!("node {target}: incarnation {life} is outlived");
                    Err(RPCError::Unreachable(Unreachable::from_string(text)))
                }
                Ok(answer) => wire::from_append_answer(answer).map_err(|error| malformed(&error)),
                Err(status) => {
                    let text = format!("node {target}: {}", chain(&status));
                    Err(RPCError::Unreachable(Unreachable::from_string(text)))
                }
            });
            Ok(answers.boxed())
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client(Lane::Raft);
        let call = client.request_vote(wire::to_vote_request(&request));
        wire::from_vote_answer(self.call(option.hard_ttl(), call).await?)
            .map_err(|error| malformed(&error))
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client(Lane::Raft);
        let call = client.request_pre_vote(wire::to_vote_request(&request));
        wire::from_vote_answer(self.call(option.hard_ttl(), call).await?)
            .map_err(|error| malformed(&error))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let file = snapshot.snapshot;
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(&vote, &file) => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let message = v1::TransferRequest {
            from: Some(wire::to_vote(request.from_leader())),
            to: *request.to_node_id(),
            last: request.last_log_id().map(wire::to_log_id),
        };
        let mut client = self.client(Lane::Raft);
        let limit = option.hard_ttl().max(CONNECT_TIMEOUT);
        let answer = self.call(limit, client.transfer_leader(message)).await?;
        if answer.refused.is_empty() {
            return Ok(Ok(()));
        }
        Err(RPCError::Network(NetworkError::from_string(answer.refused)))
    }

    fn backoff(&self) -> Option<Backoff> {
        let last = BACKOFF_MS[BACKOFF_MS.len() - 1];
        let waits = BACKOFF_MS.into_iter().chain(std::iter::repeat(last));
        Some(Backoff::new(waits.map(Duration::from_millis)))
    }
}

type Snapshot = openraft::Snapshot<
    openraft::vote::leader_id_std::CommittedLeaderId<u64>,
    NodeId,
    NodeInfo,
    Arc<SnapshotFile>,
>;

impl PeerNetwork {
    /// Sends what the peer does not have of the file yet, and waits until it is installed.
    async fn send_snapshot(
        &self,
        vote: &Vote,
        file: &Arc<SnapshotFile>,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let mut client = self.client(Lane::Bulk);
        let asked = client.snapshot_progress(v1::SnapshotProgressRequest {
            name: file.name.clone(),
        });
        let there = self.call(CONNECT_TIMEOUT, asked).await?.bytes;
        let from = if there <= file.size_bytes { there } else { 0 };
        tracing::info!(
            target_node = self.target,
            name = file.name,
            bytes = file.size_bytes,
            from,
            "sending a snapshot"
        );
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
        let reader = tokio::spawn(read_chunks(
            Arc::clone(file),
            wire::to_vote(vote),
            from,
            sender,
        ));
        let answer = client.install_snapshot(ReceiverStream::new(chunks)).await;
        reader.abort();
        let answer = match answer {
            Ok(answer) => answer,
            Err(status) => {
                if status.code() == tonic::Code::DataLoss {
                    self.doubt(file).await;
                }
                let text = format!("node {}: {}", self.target, chain(&status));
                return Err(StreamingError::Network(NetworkError::from_string(text)));
            }
        };
        let vote =
            wire::from_vote(answer.into_inner().vote).map_err(|error| NetworkError::new(&error))?;
        Ok(SnapshotResponse::new(vote))
    }
}

impl PeerNetwork {
    /// The receiver says that a snapshot is damaged: if it is so here already, it would
    /// be so every time, and another one is made.
    async fn doubt(&self, file: &Arc<SnapshotFile>) {
        let Some(machinery) = self.machinery.upgrade() else {
            return;
        };
        let (shared, path) = (Arc::clone(&machinery), file.path.clone());
        let verified = tokio::task::spawn_blocking(move || shared.store.verify(&path)).await;
        if let Ok(Err(error)) = verified {
            tracing::error!(%error, "this node's own snapshot is damaged; making another one");
            // Whoever shortens the log takes a snapshot first.
            machinery
                .checkpoints
                .send_modify(|newest| *newest = (*newest).max(file.header.last));
        }
    }
}

/// Reads the file from `from` on; ends when the receiver does not take a chunk in time.
async fn read_chunks(
    file: Arc<SnapshotFile>,
    vote: v1::Vote,
    from: u64,
    sender: mpsc::Sender<v1::SnapshotChunk>,
) -> std::io::Result<()> {
    let mut reader = tokio::fs::File::open(&file.path).await?;
    reader.seek(std::io::SeekFrom::Start(from)).await?;
    let start = v1::SnapshotStart {
        name: file.name.clone(),
        size_bytes: file.size_bytes,
        vote: Some(vote),
    };
    let mut queue = VecDeque::from([v1::SnapshotChunk {
        start: Some(start),
        offset: from,
        data: Default::default(),
    }]);
    let mut offset = from;
    loop {
        while let Some(chunk) = queue.pop_front() {
            let sent = tokio::time::timeout(SNAPSHOT_STALL, sender.send(chunk)).await;
            if !matches!(sent, Ok(Ok(()))) {
                return Ok(());
            }
        }
        let mut data = vec![0; SNAPSHOT_CHUNK_BYTES];
        let length = reader.read(&mut data).await?;
        if length == 0 {
            return Ok(());
        }
        data.truncate(length);
        queue.push_back(v1::SnapshotChunk {
            start: None,
            offset,
            data: data.into(),
        });
        offset += length as u64;
    }
}
