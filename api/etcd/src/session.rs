//! One connection: whose it is, and the context its requests are served from. The
//! services are implemented on it.

use std::sync::Arc;

use nautilus_machinery::identity::User;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::access::{Caller, Grant, Wanted};
use crate::context::EtcdContext;
use crate::errors;

/// The metadata in which clients carry the token of [`authenticate`](crate::proto::etcdserverpb::auth_server::Auth).
const TOKEN_KEYS: [&str; 2] = ["token", "authorization"];
/// The metadata with which a client refuses answers of a member without a leader.
const REQUIRE_LEADER_KEY: &str = "hasleader";

/// A connection's state, shared by its requests. Cheap enough to clone for a stream.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) context: Arc<EtcdContext>,
    pub(crate) user: User,
    /// Ends its streams.
    pub(crate) stop: CancellationToken,
}

impl Session {
    /// Judges a request before anything else is done for it.
    pub(crate) async fn enter(
        &self,
        metadata: &MetadataMap,
        wanted: Wanted<'_>,
    ) -> Result<Grant, Status> {
        self.context.alarms.may_serve()?;
        if requires_leader(metadata) && !self.context.has_leader() {
            return Err(errors::NO_LEADER.into());
        }
        let caller = self.caller(metadata);
        self.context.access.check(caller, wanted).await
    }

    /// Who asks.
    pub(crate) fn caller<'a>(&'a self, metadata: &'a MetadataMap) -> Caller<'a> {
        let token = TOKEN_KEYS
            .iter()
            .find_map(|key| metadata.get(*key))
            .and_then(|value| value.to_str().ok());
        Caller {
            user: &self.user,
            token,
        }
    }
}

/// Whether the client wants `etcdserver: no leader` rather than to wait.
pub(crate) fn requires_leader(metadata: &MetadataMap) -> bool {
    metadata
        .get(REQUIRE_LEADER_KEY)
        .is_some_and(|value| value.as_bytes() == b"true")
}
