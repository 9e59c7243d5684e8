//! Who may do what: the one place of this face that decides.
//!
//! While authentication is off, whoever has a client certificate of the group
//! `system:masters` or `nautilus:etcd` may do everything, and nobody else anything.
//! Once it is on, everybody is a user with roles: the one that the request's token was
//! given to, or without a token the one that the certificate's common name says.
//!
//! Invariant: whoever was let through holds a [`Grant`]; a write carries its guard, a
//! read asks [`Access::confirm`] after its barrier, so that neither a write nor a read
//! that comes after a right was revoked has it.

use std::sync::Arc;

use nautilus_machine::{Compare, Kv, LeaseId, Leases, Revision};
use nautilus_machinery::identity::User;
use tonic::Status;

use crate::auth::directory::{Directory, Identity};
use crate::auth::{AuthOptions, Authentication};
use crate::errors::{self, Fault};
use crate::proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest, request_op,
};

/// The group of those who may use this face, besides the masters.
pub const ETCD_GROUP: &str = "nautilus:etcd";

/// Transactions nested deeper are not looked into, but refused.
const TXN_DEPTH_MAX: usize = 16;

/// Who asks: the connection's certificate and the request's token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'a> {
    /// From the verified client certificate, or anonymous.
    pub(crate) user: &'a User,
    /// Of the metadata `token` or `authorization`.
    pub(crate) token: Option<&'a str>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
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
    /// meantime does not win the race. `None` while authentication was never used.
    pub(crate) guard: Option<Compare>,
    /// Whether authentication was on.
    pub(crate) with_rules: bool,
    version: Revision,
}

/// The rules in force.
pub(crate) struct Access {
    authentication: Authentication,
    leases: Arc<dyn Leases>,
}

impl Access {
    pub(crate) fn new(kv: Arc<dyn Kv>, leases: Arc<dyn Leases>, options: AuthOptions) -> Self {
        Self {
            authentication: Authentication::new(kv, options),
            leases,
        }
    }

    /// Users, roles and tokens.
    pub(crate) fn authentication(&self) -> &Authentication {
        &self.authentication
    }

    /// Refuses, or grants.
    #[allow(clippy::unused_async)]
    pub(crate) async fn check(
        &self,
        caller: Caller<'_>,
        wanted: Wanted<'_>,
    ) -> Result<Grant, Status> {
        let directory = self.authentication.directory()?;
        if directory.is_enabled() {
            let who = self.identify(&directory, caller)?;
            let judge = Judge {
                directory: &directory,
                who: who.as_ref(),
                leases: &*self.leases,
            };
            judge.judge(wanted)?;
        } else {
            let may = caller.user.is_master() || caller.user.in_group(ETCD_GROUP);
            if !may {
                return Err(no_group(caller.user));
            }
        }
        Ok(Grant {
            guard: directory.guard(),
            with_rules: directory.is_enabled(),
            version: directory.version(),
        })
    }

    /// Whether the rules that `grant` was given under are still in force on this node:
    /// after a read barrier, whether they were when the read began.
    pub(crate) fn confirm(&self, grant: &Grant) -> Result<(), Status> {
        let directory = self.authentication.directory()?;
        if directory.is_enabled() && directory.version() != grant.version {
            return Err(errors::AUTH_OLD_REVISION.into());
        }
        Ok(())
    }

    /// The guard of now for a write whose guard failed, if authentication was off when
    /// the write was judged and still is.
    pub(crate) fn guard_without_rules(&self, with_rules: bool) -> Result<Option<Compare>, Status> {
        let directory = self.authentication.directory()?;
        if with_rules || directory.is_enabled() {
            return Err(errors::AUTH_OLD_REVISION.into());
        }
        Ok(directory.guard())
    }

    /// Who the caller is to authentication.
    pub(crate) fn identify(
        &self,
        directory: &Directory,
        caller: Caller<'_>,
    ) -> Result<Option<Identity>, Fault> {
        let user = caller.user;
        let common_name = user.is_authenticated().then_some(&user.name[..]);
        self.authentication
            .identify(directory, caller.token, common_name)
    }
}

fn no_group(user: &User) -> Status {
    Status::permission_denied(format!(
        "etcdserver: permission denied: user {:?} has no client certificate of the group \
         system:masters or {ETCD_GROUP}",
        user.name
    ))
}

/// One request before the rules.
struct Judge<'a> {
    directory: &'a Directory,
    who: Option<&'a Identity>,
    leases: &'a dyn Leases,
}

impl Judge<'_> {
    fn judge(&self, wanted: Wanted<'_>) -> Result<(), Fault> {
        match wanted {
            Wanted::Range(range) => self.read(&range.key, &range.range_end),
            Wanted::Put(put) => self.put(put),
            Wanted::Delete(delete) => self.delete(delete),
            Wanted::Txn(txn) => self.txn(txn, 0),
            Wanted::Watch { key, range_end } => self.read(key, range_end),
            Wanted::RevokeLease(id) => self.lease(id, |key| self.write(key, b"")),
            Wanted::LeaseKeys(id) => self.lease(id, |key| self.read(key, b"")),
            // Each watch of it is judged by itself.
            Wanted::Stream => Ok(()),
            Wanted::Authenticated => self.who.map(|_| ()).ok_or(errors::USER_EMPTY),
            Wanted::Root => self.directory.is_root(self.who),
        }
    }

    fn read(&self, key: &[u8], range_end: &[u8]) -> Result<(), Fault> {
        self.directory.may_read(self.who, key, range_end)
    }

    fn write(&self, key: &[u8], range_end: &[u8]) -> Result<(), Fault> {
        self.directory.may_write(self.who, key, range_end)
    }

    fn put(&self, put: &PutRequest) -> Result<(), Fault> {
        self.write(&put.key, b"")?;
        if put.lease != 0 {
            // Whoever can't write all keys of a lease could not revoke it either.
            self.lease(put.lease, |key| self.write(key, b""))?;
        }
        if put.prev_kv {
            self.read(&put.key, b"")?;
        }
        Ok(())
    }

    fn delete(&self, delete: &DeleteRangeRequest) -> Result<(), Fault> {
        self.write(&delete.key, &delete.range_end)?;
        if delete.prev_kv {
            self.read(&delete.key, &delete.range_end)?;
        }
        Ok(())
    }

    fn txn(&self, txn: &TxnRequest, depth: usize) -> Result<(), Fault> {
        if depth > TXN_DEPTH_MAX {
            return Err(errors::TOO_MANY_OPS);
        }
        for compare in &txn.compare {
            self.read(&compare.key, &compare.range_end)?;
        }
        for operation in txn.success.iter().chain(&txn.failure) {
            match &operation.request {
                Some(request_op::Request::RequestRange(range)) => {
                    self.read(&range.key, &range.range_end)?;
                }
                Some(request_op::Request::RequestPut(put)) => self.put(put)?,
                Some(request_op::Request::RequestDeleteRange(delete)) => self.delete(delete)?,
                Some(request_op::Request::RequestTxn(nested)) => self.txn(nested, depth + 1)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Root may with every lease; others with those whose keys pass `may`.
    fn lease(&self, id: i64, may: impl Fn(&[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
        if self.who.is_none() {
            return Err(errors::USER_EMPTY);
        }
        if self.directory.is_root(self.who).is_ok() {
            return Ok(());
        }
        let lease = self.leases.lease(LeaseId(id));
        lease.map_or(Ok(()), |lease| {
            lease.keys.iter().try_for_each(|key| may(key))
        })
    }
}
