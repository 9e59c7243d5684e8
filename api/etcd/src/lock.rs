//! The service `Lock`: who waits has a key under the lock's name, with its lease; the
//! oldest key holds the lock.

use tonic::{Request, Response, Status};

use crate::errors;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::request_op::Request as Op;
use crate::proto::v3lockpb::lock_server::Lock;
use crate::proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use crate::queue::{Place, created_at, found, get, oldest, operation, prefix_of, waiter_key};
use crate::session::Session;

#[tonic::async_trait]
impl Lock for Session {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let prefix = prefix_of(&request.name);
        let lease = self.lease_or_new(request.lease).await?;
        let key = waiter_key(&prefix, lease);
        let put = pb::PutRequest {
            key: key.clone(),
            lease,
            ..pb::PutRequest::default()
        };
        let txn = pb::TxnRequest {
            compare: vec![created_at(key.clone(), 0)],
            success: vec![
                operation(Op::RequestPut(put)),
                operation(Op::RequestRange(oldest(&prefix))),
            ],
            failure: vec![
                operation(Op::RequestRange(get(key.clone()))),
                operation(Op::RequestRange(oldest(&prefix))),
            ],
        };
        let mut response = self.run_txn(&metadata, txn).await?;
        let owner = found(&mut response, 1).into_iter().next();
        let mine = if response.succeeded {
            response.header.as_ref().map(|header| header.revision)
        } else {
            let own = found(&mut response, 0);
            own.first().map(|kv| kv.create_revision)
        };
        let mine = mine.ok_or(errors::KEY_NOT_FOUND)?;
        if owner.is_none_or(|owner| owner.create_revision == mine) {
            let header = response.header;
            return Ok(Response::new(LockResponse { header, key }));
        }
        let place = Place::hold(self, key.clone(), mine);
        self.wait_for_older(&metadata, &prefix, mine - 1).await?;
        let still = self.run_range(&metadata, get(key.clone())).await?;
        place.keep();
        if still.kvs.is_empty() {
            return Err(Status::unknown("mutex: session is expired"));
        }
        let header = still.header;
        Ok(Response::new(LockResponse { header, key }))
    }

    async fn unlock(
        &self,
        request: Request<UnlockRequest>,
    ) -> Result<Response<UnlockResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let delete = pb::DeleteRangeRequest {
            key: request.key,
            ..pb::DeleteRangeRequest::default()
        };
        let deleted = self.run_delete(&metadata, delete).await?;
        Ok(Response::new(UnlockResponse {
            header: deleted.header,
        }))
    }
}
