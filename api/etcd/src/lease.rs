//! The service `Lease`.
//!
//! Invariant: the header of a keep-alive's answer is made before the lease is renewed, so
//! that no answer says of a lease that it lives at a revision at which it had ended.

use std::pin::Pin;

use aws_lc_rs::rand;
use futures_util::{Stream, StreamExt as _};
use nautilus_machine::{Command, LeaseError, LeaseId};
use tonic::{Request, Response, Status, Streaming};

use crate::access::Wanted;
use crate::errors;
use crate::limits::MAX_LEASE_TTL_SECONDS;
use crate::proto::etcdserverpb as pb;
use crate::session::Session;

/// Renewals of one stream that are under way at once; their answers keep the order.
const RENEWALS_AT_ONCE: usize = 64;
/// Draws of an id that is free.
const ID_ATTEMPTS: usize = 8;

/// The answers of a keep-alive stream.
type KeepAliveStream =
    Pin<Box<dyn Stream<Item = Result<pb::LeaseKeepAliveResponse, Status>> + Send>>;

#[tonic::async_trait]
impl pb::lease_server::Lease for Session {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.enter(&metadata, Wanted::Authenticated).await?;
        let response = self.grant_lease(request.id, request.ttl).await?;
        Ok(Response::new(response))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.enter(&metadata, Wanted::RevokeLease(request.id))
            .await?;
        let id = LeaseId(request.id);
        let applied = self.context.propose(Command::LeaseRevoke { id }).await?;
        Ok(Response::new(pb::LeaseRevokeResponse {
            header: Some(self.context.header(applied.revision)),
        }))
    }

    type LeaseKeepAliveStream = KeepAliveStream;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<KeepAliveStream>, Status> {
        let (metadata, _, inbound) = request.into_parts();
        self.enter(&metadata, Wanted::Authenticated).await?;
        let context = self.context.clone();
        let answers = inbound.map(move |request| {
            let context = context.clone();
            async move {
                let id = request?.id;
                let header = context.header_now();
                let ttl = match context.parts.leases.keep_alive(LeaseId(id)).await {
                    Ok(ttl_ms) => seconds(ttl_ms),
                    Err(LeaseError::NotFound) => 0,
                    Err(LeaseError::Unavailable(_)) => return Err(errors::NO_LEADER.into()),
                };
                Ok(pb::LeaseKeepAliveResponse {
                    header: Some(header),
                    id,
                    ttl,
                })
            }
        });
        let answers = answers.buffered(RENEWALS_AT_ONCE);
        let stopped = self.stop.clone().cancelled_owned();
        Ok(Response::new(answers.take_until(stopped).boxed()))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let wanted = if request.keys {
            Wanted::LeaseKeys(request.id)
        } else {
            Wanted::Authenticated
        };
        self.enter(&metadata, wanted).await?;
        let id = LeaseId(request.id);
        let mut response = pb::LeaseTimeToLiveResponse {
            header: Some(self.context.header_now()),
            id: request.id,
            ttl: -1,
            ..pb::LeaseTimeToLiveResponse::default()
        };
        match self.context.parts.leases.remaining(id).await {
            Ok(times) => {
                response.ttl = seconds(times.remaining_ms);
                response.granted_ttl = seconds(times.ttl_ms);
            }
            Err(LeaseError::NotFound) => return Ok(Response::new(response)),
            Err(LeaseError::Unavailable(_)) => return Err(errors::NO_LEADER.into()),
        }
        if request.keys {
            let view = self.context.parts.leases.lease(id);
            response.keys = view.map(|view| view.keys).unwrap_or_default();
        }
        Ok(Response::new(response))
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let (metadata, ..) = request.into_parts();
        self.enter(&metadata, Wanted::Authenticated).await?;
        self.context.barrier().await?;
        let ids = self.context.parts.leases.lease_ids();
        Ok(Response::new(pb::LeaseLeasesResponse {
            header: Some(self.context.header_now()),
            leases: ids
                .into_iter()
                .map(|id| pb::LeaseStatus { id: id.0 })
                .collect(),
        }))
    }
}

impl Session {
    /// Grants a lease; id 0 leaves the choice to us.
    pub(crate) async fn grant_lease(
        &self,
        id: i64,
        ttl_seconds: i64,
    ) -> Result<pb::LeaseGrantResponse, Status> {
        self.context.alarms.may_grow()?;
        if ttl_seconds > MAX_LEASE_TTL_SECONDS {
            return Err(errors::LEASE_TTL_TOO_LARGE.into());
        }
        let ttl = ttl_seconds.max(self.context.parts.limits.min_lease_ttl_seconds);
        let ttl_ms = u64::try_from(ttl).unwrap_or(0).saturating_mul(1_000);
        let exists = errors::LEASE_EXISTS;
        for _ in 0..ID_ATTEMPTS {
            let chosen = LeaseId(if id == 0 { random_id()? } else { id });
            let grant = Command::LeaseGrant { id: chosen, ttl_ms };
            match self.context.propose(grant).await {
                Ok(applied) => {
                    return Ok(pb::LeaseGrantResponse {
                        header: Some(self.context.header(applied.revision)),
                        id: chosen.0,
                        ttl,
                        error: String::new(),
                    });
                }
                Err(status) if id == 0 && status.message() == exists.message => {}
                Err(status) => return Err(status),
            }
        }
        Err(exists.into())
    }
}

/// A positive number.
fn random_id() -> Result<i64, Status> {
    let mut bytes = [0; 8];
    rand::fill(&mut bytes).map_err(|_| Status::internal("etcdserver: the random source failed"))?;
    Ok((i64::from_le_bytes(bytes) & i64::MAX).max(1))
}

/// Whole seconds, rounded down.
fn seconds(milliseconds: u64) -> i64 {
    i64::try_from(milliseconds / 1_000).unwrap_or(i64::MAX)
}
