//! Who may do what: the one place of this face that decides.
//!
//! While authentication is off, whoever has a client certificate of the group
//! `system:masters` or `nautilus:etcd` may do everything, and nobody else anything.

use nautilus_machine::Compare;
use nautilus_machinery::identity::User;
use tonic::Status;

use crate::proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest};

/// The group of those who may use this face, besides the masters.
pub const ETCD_GROUP: &str = "nautilus:etcd";

/// Who asks: the connection's certificate and the request's token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'a> {
    /// From the verified client certificate, or anonymous.
    pub(crate) user: &'a User,
    /// Of the metadata `token` or `authorization`.
    #[allow(dead_code)]
    pub(crate) token: Option<&'a str>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
#[allow(dead_code)]
pub(crate) enum Wanted<'a> {
    /// To read a range.
    Range(&'a RangeRequest),
    /// To write a key; with `prev_kv` to read it too.
    Put(&'a PutRequest),
    /// To delete a range; with `prev_kv` to read it too.
    Delete(&'a DeleteRangeRequest),
    /// Everything in a transaction, both branches and nested ones.
    Txn(&'a TxnRequest),
    /// To see the changes of a range.
    Watch {
        /// Its first key.
        key: &'a [u8],
        /// Its end, as in a range request.
        range_end: &'a [u8],
    },
    /// To end a lease, and so to delete the keys attached to it.
    RevokeLease(i64),
    /// To read the names of the keys attached to a lease.
    LeaseKeys(i64),
    /// What any user may do once it proved who it is (grant, keep alive, members, status).
    Authenticated,
    /// To open a stream whose requests are judged one by one.
    Stream,
    /// What only root may do (compaction, maintenance, membership, users and roles).
    Root,
}

/// Leave to go on.
#[derive(Debug, Default)]
pub(crate) struct Grant {
    /// Must hold when the write is applied, so that a right that is revoked in the
    /// meantime does not win the race. `None` while authentication is off.
    pub(crate) guard: Option<Compare>,
}

/// The rules in force.
#[derive(Debug, Default)]
pub(crate) struct Access {}

impl Access {
    /// Refuses, or grants.
    #[allow(clippy::unused_async)]
    pub(crate) async fn check(
        &self,
        caller: Caller<'_>,
        _wanted: Wanted<'_>,
    ) -> Result<Grant, Status> {
        if caller.user.is_master() || caller.user.in_group(ETCD_GROUP) {
            return Ok(Grant::default());
        }
        Err(Status::permission_denied(format!(
            "etcdserver: permission denied: user {:?} has no client certificate of the group \
             system:masters or {ETCD_GROUP}",
            caller.user.name
        )))
    }
}
