//! What other masters may ask of this one. Every call is checked: the peer is a
//! member, on the platform pinned for it, and speaks for itself only.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use nautilus_attest_secret::seal_to;
use nautilus_machine::{NewMember, NodeId};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::RaftError;
use openraft::raft::{TransferLeaderRequest, VoteRequest};
use tonic::{Request, Response, Status, Streaming};

use crate::cluster::{self, Change};
use crate::forwarded;
use crate::join;
use crate::keys::HAND_OVER_PURPOSE;
use crate::loss;
use crate::node_core::Core;
use crate::receive;
use crate::restart;
use crate::transport::PeerIdentity;
use crate::types::{TypeConfig, Vote, position};
use crate::wire::{self, Malformed, v1};

/// The server's side of the protocol.
pub(crate) struct PeerService {
    pub(crate) core: Arc<Core>,
    pub(crate) receiving: Arc<tokio::sync::Mutex<()>>,
}

type Answer<T> = Result<Response<T>, Status>;

impl PeerService {
    /// The peer of a request, if it is the member it claims to be.
    fn member<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        let peer = identity(request)?;
        self.core
            .peers
            .check(&peer)
            .map_err(Status::permission_denied)?;
        self.core
            .lives
            .hear_header(peer.node_id, request.metadata())?;
        Ok(peer.node_id)
    }

    /// As [`Self::member`], for what a node answers only when it has come back.
    fn member_here<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        let peer = self.member(request)?;
        self.core.restart.takes_part(self.core.config.node_id)?;
        Ok(peer)
    }

    fn may_vote(&self, request: &VoteRequest<TypeConfig>) -> Result<(), Status> {
        let last = request.last_log_id.as_ref().map(position);
        let own = self.core.config.node_id;
        self.core
            .restart
            .may_vote(own, request.vote.leader_id.term, last)
    }
}

pub(crate) fn identity<T>(request: &Request<T>) -> Result<PeerIdentity, Status> {
    let peer = request.extensions().get::<PeerIdentity>().cloned();
    peer.ok_or_else(|| Status::unauthenticated("the connection has no attested peer"))
}

fn speaks_for_itself(vote: &Vote, peer: NodeId) -> Result<(), Status> {
    let claimed = vote.leader_id.voted_for;
    if claimed == peer {
        return Ok(());
    }
    Err(Status::permission_denied(format!(
        "node {peer} speaks for node {claimed}"
    )))
}

pub(crate) fn malformed(error: &Malformed) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: &RaftError<TypeConfig>) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl v1::peer_server::Peer for PeerService {
    type AppendStream = BoxStream<'static, Result<v1::AppendAnswer, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Answer<Self::AppendStream> {
        let peer = self.member_here(&request)?;
        let core = Arc::clone(&self.core);
        let identity = identity(&request)?;
        let life = restart::incarnation_of(request.metadata())?;
        let requests = request.into_inner().map(move |request| {
            core.peers
                .check(&identity)
                .map_err(Status::permission_denied)?;
            core.lives.hear(peer, life)?;
            let request = wire::from_append(request?).map_err(|error| malformed(&error))?;
            speaks_for_itself(&request.vote, peer)?;
            Ok(request)
        });
        // A refused or broken request ends the stream; the leader starts another one.
        let requests = requests.scan((), move |(), request: Result<_, Status>| {
            if let Err(status) = &request {
                tracing::debug!(peer, %status, "an append stream ended");
            }
            std::future::ready(request.ok())
        });
        let answers = self
            .core
            .raft
            .stream_append(requests)
            .map(|result| match result {
                Ok(result) => Ok(wire::to_append_answer(&result)),
                Err(fatal) => Err(Status::unavailable(fatal.to_string())),
            });
        Ok(Response::new(answers.boxed()))
    }

    async fn beat(&self, request: Request<v1::AppendRequest>) -> Answer<v1::AppendAnswer> {
        use openraft::raft::{AppendEntriesResponse as Appended, StreamAppendError};
        let peer = self.member_here(&request)?;
        let request = wire::from_append(request.into_inner()).map_err(|error| malformed(&error))?;
        speaks_for_itself(&request.vote, peer)?;
        let previous = request.prev_log_id;
        let last = request
            .entries
            .last()
            .map(|entry| entry.log_id)
            .or(previous);
        let result = match self
            .core
            .raft
            .append_entries(request)
            .await
            .map_err(|error| stopped(&error))?
        {
            Appended::Success => Ok(last),
            Appended::PartialSuccess(upto) => Ok(upto),
            Appended::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote)),
            Appended::Conflict => match previous {
                Some(previous) => Err(StreamAppendError::Conflict(previous)),
                None => return Err(Status::internal("a conflict before the first entry")),
            },
        };
        Ok(Response::new(wire::to_append_answer(&result)))
    }

    async fn request_vote(&self, request: Request<v1::VoteRequest>) -> Answer<v1::VoteAnswer> {
        let peer = self.member(&request)?;
        let mut request =
            wire::from_vote_request(request.into_inner()).map_err(|error| malformed(&error))?;
        speaks_for_itself(&request.vote, peer)?;
        self.may_vote(&request)?;
        if let Some(leader) = self.core.raft_leader() {
            // See `loss`: the lease of a leader this node found gone protects nobody.
            request.leadership_transfer |= self.core.losses.found(leader, self.core.raft_term());
        }
        let answer = self
            .core
            .raft
            .vote(request)
            .await
            .map_err(|error| stopped(&error))?;
        Ok(Response::new(wire::to_vote_answer(&answer)))
    }

    async fn request_pre_vote(&self, request: Request<v1::VoteRequest>) -> Answer<v1::VoteAnswer> {
        let peer = self.member(&request)?;
        let request =
            wire::from_vote_request(request.into_inner()).map_err(|error| malformed(&error))?;
        speaks_for_itself(&request.vote, peer)?;
        self.may_vote(&request)?;
        let answer = self
            .core
            .raft
            .pre_vote(request)
            .await
            .map_err(|error| stopped(&error))?;
        Ok(Response::new(wire::to_vote_answer(&answer)))
    }

    async fn confirm_loss(
        &self,
        request: Request<v1::ConfirmLossRequest>,
    ) -> Answer<v1::ConfirmLossAnswer> {
        self.member_here(&request)?;
        let v1::ConfirmLossRequest { leader, term } = request.into_inner();
        let lost = loss::confirm(&self.core, leader, term).await;
        let last = self.core.log.bounds().1.map(crate::types::log_id);
        Ok(Response::new(v1::ConfirmLossAnswer {
            lost,
            last: last.as_ref().map(wire::to_log_id),
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferRequest>,
    ) -> Answer<v1::TransferAnswer> {
        let peer = self.member_here(&request)?;
        if !self.core.restart.may_stand() {
            let refused = "this node came back and has not caught up yet".to_owned();
            return Ok(Response::new(v1::TransferAnswer { refused }));
        }
        let request = request.into_inner();
        let from = wire::from_vote(request.from).map_err(|error| malformed(&error))?;
        speaks_for_itself(&from, peer)?;
        let request =
            TransferLeaderRequest::new(from, request.to, request.last.map(wire::from_log_id));
        let result = self.core.raft.handle_transfer_leader(request).await;
        let result = result.map_err(|fatal| Status::unavailable(fatal.to_string()))?;
        let refused = result
            .err()
            .map(|refused| refused.to_string())
            .unwrap_or_default();
        Ok(Response::new(v1::TransferAnswer { refused }))
    }

    async fn snapshot_progress(
        &self,
        request: Request<v1::SnapshotProgressRequest>,
    ) -> Answer<v1::SnapshotProgressAnswer> {
        self.member(&request)?;
        let name = request.into_inner().name;
        let bytes = receive::progress(&self.core.machinery.snapshots, &name).await;
        let bytes = bytes.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(v1::SnapshotProgressAnswer { bytes }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotChunk>>,
    ) -> Answer<v1::SnapshotAnswer> {
        let peer = self.member_here(&request)?;
        let Ok(_one) = self.receiving.try_lock() else {
            return Err(Status::aborted("another snapshot is being received"));
        };
        let (vote, file) = receive::receive(&self.core.machinery, request.into_inner()).await?;
        speaks_for_itself(&vote, peer)?;
        let file = Arc::new(file);
        let snapshot = openraft::Snapshot {
            meta: file.header.clone().into_meta(),
            snapshot: Arc::clone(&file),
        };
        let answer = self.core.raft.install_full_snapshot(vote, snapshot).await;
        let answer = answer.map_err(|fatal| Status::unavailable(fatal.to_string()))?;
        self.core.machinery.snapshots.forget_unless_current(&file);
        Ok(Response::new(v1::SnapshotAnswer {
            vote: Some(wire::to_vote(&answer.vote)),
        }))
    }

    type AskStream = BoxStream<'static, Result<v1::AskAnswer, Status>>;

    async fn ask(&self, request: Request<Streaming<v1::AskRequest>>) -> Answer<Self::AskStream> {
        self.member(&request)?;
        let identity = identity(&request)?;
        let answers = forwarded::serve(&self.core, identity, request.into_inner());
        Ok(Response::new(answers))
    }

    async fn call(&self, request: Request<v1::CallRequest>) -> Answer<v1::CallAnswer> {
        use v1::call_answer::Result as Wire;
        self.member(&request)?;
        let result =
            match crate::channel::handle_here(&self.core, request.into_inner().message).await {
                Ok(Ok(answer)) => Wire::Answer(answer),
                Ok(Err(refused)) => Wire::Refused(refused),
                Err(not_leader) => Wire::NotLeader(not_leader),
            };
        Ok(Response::new(v1::CallAnswer {
            result: Some(result),
        }))
    }

    async fn change_member(
        &self,
        request: Request<v1::ChangeMemberRequest>,
    ) -> Answer<v1::ChangeMemberAnswer> {
        use v1::change_member_answer::Result as Wire;
        use v1::change_member_request::Change as Asked;
        self.member(&request)?;
        let change = match request.into_inner().change {
            Some(Asked::Update(v1::Admit { id, peer_address })) => {
                Change::Update(NewMember { id, peer_address })
            }
            Some(Asked::Admit(v1::Admit { id, peer_address })) => {
                Change::Admit(NewMember { id, peer_address })
            }
            Some(Asked::Promote(id)) => Change::Promote(id),
            Some(Asked::Remove(id)) => Change::Remove(id),
            Some(Asked::Transfer(id)) => Change::Transfer(id),
            None => return Err(malformed(&Malformed("no change".into()))),
        };
        let result = match cluster::change_here(&self.core, &change).await {
            Ok(()) => Wire::Done(true),
            Err(nautilus_machine::ClusterError::Invalid(reason)) => Wire::Invalid(reason),
            Err(nautilus_machine::ClusterError::Unavailable(reason)) => Wire::Unavailable(reason),
        };
        Ok(Response::new(v1::ChangeMemberAnswer {
            result: Some(result),
        }))
    }

    async fn testify(&self, request: Request<v1::TestifyRequest>) -> Answer<v1::TestifyAnswer> {
        let peer = identity(&request)?;
        self.core
            .peers
            .check(&peer)
            .map_err(Status::permission_denied)?;
        let headers = request.metadata().clone();
        let answer = restart::testify(&self.core, peer.node_id, request.into_inner(), &headers);
        answer.await.map(Response::new)
    }

    async fn readmit(&self, request: Request<v1::ReadmitRequest>) -> Answer<v1::ReadmitAnswer> {
        let peer = self.member(&request)?;
        let answer = restart::readmit(&self.core, peer, request.metadata(), request.get_ref());
        answer.map(Response::new)
    }

    async fn join(&self, request: Request<v1::JoinRequest>) -> Answer<v1::JoinAnswer> {
        use v1::join_answer::Result as Wire;
        let peer = identity(&request)?;
        let request = request.into_inner();
        let secrets_key = request.secrets_key.clone();
        let admitted = join::admit(&self.core, &peer, request).await;
        let secrets = admitted.and_then(|()| {
            // Not final: a node that is behind knows more in a moment.
            let secrets = (self.core.secrets)(peer.node_id);
            secrets.map_err(|reason| join::NotAdmitted::Elsewhere {
                address: String::new(),
                reason,
            })
        });
        let result = match secrets {
            Ok(secrets) => Wire::Grant(v1::Grant {
                secrets: join::granted(&secrets, &secrets_key)
                    .map_err(|error| Status::invalid_argument(error.to_string()))?
                    .into(),
                leader_id: self.core.config.node_id,
                leader_address: self.core.config.peer_address.clone(),
            }),
            Err(join::NotAdmitted::Elsewhere { address, reason }) => {
                Wire::Redirect(v1::Redirect { address, reason })
            }
            Err(join::NotAdmitted::Refused(reason)) => {
                tracing::warn!(peer = peer.node_id, %reason, "refused a node that asked to join");
                Wire::Refused(reason)
            }
        };
        Ok(Response::new(v1::JoinAnswer {
            result: Some(result),
        }))
    }

    async fn hand_over_keys(
        &self,
        request: Request<v1::HandOverKeysRequest>,
    ) -> Answer<v1::HandOverKeysAnswer> {
        use v1::hand_over_keys_answer::Result as Wire;
        let peer = self.member(&request)?;
        let secrets_key = request.into_inner().secrets_key;
        let result = match (self.core.secrets)(peer) {
            Ok(secrets) => {
                let sealed = seal_to(&secrets_key, HAND_OVER_PURPOSE, &secrets);
                let sealed = sealed.map_err(|error| Status::invalid_argument(error.to_string()))?;
                Wire::Secrets(sealed.into())
            }
            Err(reason) => {
                tracing::warn!(peer, %reason, "refused a member that asked for the keys");
                Wire::Refused(reason)
            }
        };
        Ok(Response::new(v1::HandOverKeysAnswer {
            result: Some(result),
        }))
    }
}

/// Whether this node leads and has applied an entry of its own term.
pub(crate) fn serves_as_leader(core: &Core) -> Option<u64> {
    let metrics = core.raft.metrics();
    let metrics = metrics.borrow_watched();
    let term = metrics.current_term;
    let leads = metrics.current_leader == Some(core.config.node_id) && metrics.state.is_leader();
    (leads && core.applied().is_some_and(|applied| applied.term == term)).then_some(term)
}

/// How long a leader that was just elected may take to serve.
pub(crate) const SERVING_SOON: Duration = Duration::from_secs(2);
