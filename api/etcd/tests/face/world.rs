//! A face on a loopback port, and its clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use nautilus_etcd::proto::etcdserverpb as pb;
use nautilus_etcd::proto::etcdserverpb::kv_client::KvClient;
use nautilus_etcd::proto::etcdserverpb::lease_client::LeaseClient;
use nautilus_etcd::proto::etcdserverpb::watch_client::WatchClient;
use nautilus_etcd::proto::v3electionpb::election_client::ElectionClient;
use nautilus_etcd::proto::v3lockpb::lock_client::LockClient;
use nautilus_etcd::{AuthOptions, AutoCompaction, EtcdContext, EtcdLimits, EtcdParts, serve};
use nautilus_machine::solo::SoloKv;
use nautilus_machine::{
    KvHash, Maintenance, MaintenanceError, RangeError, Revision, SnapshotStream, StoreSizes,
    UnixMillis,
};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use tonic::transport::Channel;

/// What every answer's header says of the quorum and the member.
pub(crate) const CLUSTER_ID: u64 = 77;
pub(crate) const MEMBER_ID: u64 = 1;

/// A face and what is behind it.
pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) solo: SoloKv,
    pub(crate) clock: Arc<AtomicU64>,
    channel: Channel,
    _stop: DropGuard,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(EtcdLimits::default()).await
    }

    pub(crate) async fn with(limits: EtcdLimits) -> Self {
        let clock = Arc::new(AtomicU64::new(1_000_000));
        let time = clock.clone();
        let solo = SoloKv::new(move || UnixMillis(time.load(Ordering::Relaxed)));
        let context = EtcdContext::new(EtcdParts {
            kv: Arc::new(solo.clone()),
            leases: Arc::new(solo.clone()),
            cluster: Arc::new(solo.clone()),
            maintenance: Arc::new(NoUpkeep),
            node_id: MEMBER_ID,
            cluster_id: CLUSTER_ID,
            limits,
            auth: AuthOptions::default(),
            auto_compaction: AutoCompaction::Off,
            metrics_text: Arc::new(|| "a_metric 1\n".to_owned()),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, None, context, stop.clone()));
        let channel = Channel::from_shared(format!("http://{address}"))
            .expect("a URL")
            .connect()
            .await
            .expect("a connection");
        Self {
            address,
            solo,
            clock,
            channel,
            _stop: stop.drop_guard(),
        }
    }

    pub(crate) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    pub(crate) fn leases(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    pub(crate) fn watches(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel.clone())
    }

    pub(crate) fn locks(&self) -> LockClient<Channel> {
        LockClient::new(self.channel.clone())
    }

    pub(crate) fn elections(&self) -> ElectionClient<Channel> {
        ElectionClient::new(self.channel.clone())
    }

    /// Writes a key and gives the revision.
    pub(crate) async fn put(&self, key: &str, value: &str) -> i64 {
        let response = self.kv().put(put(key, value)).await.expect("a put");
        response.into_inner().header.expect("a header").revision
    }

    pub(crate) async fn delete(&self, key: &str) -> i64 {
        let request = pb::DeleteRangeRequest {
            key: bytes(key),
            ..Default::default()
        };
        let response = self.kv().delete_range(request).await.expect("a deletion");
        response.into_inner().header.expect("a header").revision
    }

    pub(crate) async fn range(&self, request: pb::RangeRequest) -> pb::RangeResponse {
        let response = self.kv().range(request).await.expect("a range");
        response.into_inner()
    }

    /// The values found, as text.
    pub(crate) async fn keys(&self, request: pb::RangeRequest) -> Vec<String> {
        let kvs = self.range(request).await.kvs;
        kvs.iter().map(|kv| text(&kv.key)).collect()
    }

    pub(crate) async fn grant(&self, ttl: i64) -> i64 {
        let request = pb::LeaseGrantRequest { ttl, id: 0 };
        let response = self.leases().lease_grant(request).await.expect("a lease");
        response.into_inner().id
    }
}

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: bytes(key),
        value: bytes(value),
        ..Default::default()
    }
}

pub(crate) fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: bytes(key),
        ..Default::default()
    }
}

pub(crate) fn span(key: &str, end: &str) -> pb::RangeRequest {
    pb::RangeRequest {
        range_end: bytes(end),
        ..get(key)
    }
}

/// The code and message of a refusal.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, Status>) -> (tonic::Code, String) {
    let status = result.expect_err("a refusal");
    (status.code(), status.message().to_owned())
}

/// A fault, in the same form.
pub(crate) fn fault(fault: nautilus_etcd::errors::Fault) -> (tonic::Code, String) {
    (fault.code, fault.message.to_owned())
}

/// These tests need no upkeep.
struct NoUpkeep;

impl Maintenance for NoUpkeep {
    fn sizes(&self) -> StoreSizes {
        StoreSizes::default()
    }

    fn hash_kv(&self, _: Option<Revision>) -> BoxFuture<'_, Result<KvHash, RangeError>> {
        Box::pin(async { Err(RangeError::Storage("no store".to_owned())) })
    }

    fn defragment(&self) -> BoxFuture<'_, Result<(), MaintenanceError>> {
        Box::pin(async { Ok(()) })
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<SnapshotStream, MaintenanceError>> {
        Box::pin(async { Err(MaintenanceError("no store".to_owned())) })
    }
}
