//! The service `Election`: candidates queue as a lock's waiters do, each with the value
//! it proclaims; the oldest leads.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use nautilus_machine::{Event, EventKind, KeyRange, WatchRequest, Watcher};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::convert::{key_value, revision};
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::request_op::Request as Op;
use crate::proto::mvccpb;
use crate::proto::v3electionpb::election_server::Election;
use crate::proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use crate::queue::{
    Place, created_at, found, get, oldest, operation, prefix_of, waiter_key, watch_ended,
};
use crate::session::Session;

/// The proclamations of a followed election.
type Proclamations = Pin<Box<dyn Stream<Item = Result<LeaderResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Election for Session {
    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let prefix = prefix_of(&request.name);
        let lease = self.lease_or_new(request.lease).await?;
        let key = waiter_key(&prefix, lease);
        let txn = pb::TxnRequest {
            compare: vec![created_at(key.clone(), 0)],
            success: vec![put(&key, &request.value, lease)],
            failure: vec![operation(Op::RequestRange(get(key.clone())))],
        };
        let mut response = self.run_txn(&metadata, txn).await?;
        let header = response.header;
        let mut rev = header.as_ref().map_or(0, |header| header.revision);
        let mut leader = LeaderKey {
            name: request.name,
            key: key.clone(),
            rev,
            lease,
        };
        if !response.succeeded {
            let own = found(&mut response, 0).into_iter().next();
            let own = own.ok_or_else(not_leader)?;
            rev = own.create_revision;
            leader.rev = rev;
            if own.value != request.value {
                self.proclaim_as(&metadata, &leader, &request.value).await?;
            }
        }
        let place = Place::hold(self, key, rev);
        self.wait_for_older(&metadata, &prefix, rev - 1).await?;
        place.keep();
        Ok(Response::new(CampaignResponse {
            header,
            leader: Some(leader),
        }))
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let leader = request.leader.ok_or_else(missing_leader)?;
        let header = self.proclaim_as(&metadata, &leader, &request.value).await?;
        Ok(Response::new(ProclaimResponse { header }))
    }

    async fn leader(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<LeaderResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let prefix = prefix_of(&request.name);
        let response = self.run_range(&metadata, oldest(&prefix)).await?;
        let kv = response.kvs.into_iter().next();
        let kv = kv.ok_or_else(|| Status::unknown("election: no leader"))?;
        Ok(Response::new(LeaderResponse {
            header: response.header,
            kv: Some(kv),
        }))
    }

    type ObserveStream = Proclamations;

    async fn observe(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<Proclamations>, Status> {
        let (metadata, _, request) = request.into_parts();
        let observer = Observer {
            session: self.clone(),
            metadata,
            prefix: prefix_of(&request.name),
            followed: None,
            pending: Vec::new(),
        };
        let stream = stream::unfold(Some(observer), |observer| async move {
            let mut observer = observer?;
            match observer.next().await {
                Ok(response) => Some((Ok(response), Some(observer))),
                Err(status) => Some((Err(status), None)),
            }
        });
        let stopped = self.stop.clone().cancelled_owned();
        Ok(Response::new(stream.take_until(stopped).boxed()))
    }

    async fn resign(
        &self,
        request: Request<ResignRequest>,
    ) -> Result<Response<ResignResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let leader = request.leader.ok_or_else(missing_leader)?;
        let delete = pb::DeleteRangeRequest {
            key: leader.key.clone(),
            ..pb::DeleteRangeRequest::default()
        };
        let txn = pb::TxnRequest {
            compare: vec![created_at(leader.key, leader.rev)],
            success: vec![operation(Op::RequestDeleteRange(delete))],
            failure: Vec::new(),
        };
        let response = self.run_txn(&metadata, txn).await?;
        Ok(Response::new(ResignResponse {
            header: response.header,
        }))
    }
}

impl Session {
    /// Writes the leader's value, if it still leads.
    async fn proclaim_as(
        &self,
        metadata: &MetadataMap,
        leader: &LeaderKey,
        value: &Bytes,
    ) -> Result<Option<pb::ResponseHeader>, Status> {
        let txn = pb::TxnRequest {
            compare: vec![created_at(leader.key.clone(), leader.rev)],
            success: vec![put(&leader.key, value, leader.lease)],
            failure: Vec::new(),
        };
        let response = self.run_txn(metadata, txn).await?;
        if !response.succeeded {
            return Err(not_leader());
        }
        Ok(response.header)
    }
}

fn put(key: &Bytes, value: &Bytes, lease: i64) -> pb::RequestOp {
    operation(Op::RequestPut(pb::PutRequest {
        key: key.clone(),
        value: value.clone(),
        lease,
        ..pb::PutRequest::default()
    }))
}

fn not_leader() -> Status {
    Status::unknown("election: not leader")
}

fn missing_leader() -> Status {
    Status::invalid_argument("\"leader\" field must be provided")
}

/// Follows an election: the present leader's value, its changes, then the next leader's.
struct Observer {
    session: Session,
    metadata: MetadataMap,
    prefix: Bytes,
    /// The watch of the leader's key.
    followed: Option<Box<dyn Watcher>>,
    /// Events yet to be told, newest first.
    pending: Vec<Event>,
}

impl Observer {
    async fn next(&mut self) -> Result<LeaderResponse, Status> {
        loop {
            while let Some(event) = self.pending.pop() {
                match event.kind {
                    EventKind::Put => return Ok(self.tell(event)),
                    EventKind::Delete => {
                        self.pending.clear();
                        self.followed = None;
                    }
                }
            }
            let Some(watcher) = &mut self.followed else {
                if let Some(response) = self.find().await? {
                    return Ok(response);
                }
                continue;
            };
            let mut events = watcher.next().await.map_err(|error| watch_ended(&error))?;
            events.reverse();
            self.pending = events;
        }
    }

    /// Finds the leader, or waits for the first candidate.
    async fn find(&mut self) -> Result<Option<LeaderResponse>, Status> {
        let response = self
            .session
            .run_range(&self.metadata, oldest(&self.prefix))
            .await?;
        let now = response.header.as_ref().map_or(0, |header| header.revision);
        if let Some(kv) = response.kvs.into_iter().next() {
            self.follow(KeyRange::single(kv.key.clone()), now)?;
            return Ok(Some(LeaderResponse {
                header: response.header,
                kv: Some(kv),
            }));
        }
        let mut watcher = self.watch(KeyRange::prefix(self.prefix.clone()), now)?;
        loop {
            let events = watcher.next().await.map_err(|error| watch_ended(&error))?;
            if events.iter().any(|event| event.kind == EventKind::Put) {
                return Ok(None);
            }
        }
    }

    fn follow(&mut self, range: KeyRange, after: i64) -> Result<(), Status> {
        self.followed = Some(self.watch(range, after)?);
        Ok(())
    }

    fn watch(&self, range: KeyRange, after: i64) -> Result<Box<dyn Watcher>, Status> {
        let request = WatchRequest {
            range,
            from: revision(after).map(|revision| revision + 1),
            previous: false,
        };
        let watching = self.session.context.parts.kv.watch(request);
        watching.map_err(|error| watch_ended(&error))
    }

    fn tell(&self, event: Event) -> LeaderResponse {
        let header = self.session.context.header(event.revision());
        let kv: mvccpb::KeyValue = key_value(event.kv);
        LeaderResponse {
            header: Some(header),
            kv: Some(kv),
        }
    }
}
