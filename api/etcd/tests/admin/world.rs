//! Members of a pretended quorum: faces over one in-memory machine, and what tests make
//! of the ports that it does not have.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use nautilus_etcd::proto::etcdserverpb as pb;
use nautilus_etcd::proto::etcdserverpb::auth_client::AuthClient;
use nautilus_etcd::proto::etcdserverpb::cluster_client::ClusterClient;
use nautilus_etcd::proto::etcdserverpb::kv_client::KvClient;
use nautilus_etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use nautilus_etcd::{AuthOptions, AutoCompaction, EtcdContext, EtcdLimits, EtcdParts, serve};
use nautilus_machine::solo::SoloKv;
use nautilus_machine::{
    Applied, BarrierError, Cluster, ClusterError, Kv, KvHash, Leadership, Maintenance,
    MaintenanceError, Member, MemberRole, NewMember, NodeId, NodeStatus, Proposal, ProposeError,
    RangeError, RangeRequest, RangeResponse, Revision, SnapshotStream, StoreSizes, UnixMillis,
    WatchError, WatchGroup, WatchRequest, Watcher,
};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// What a hash is in these tests.
pub(crate) const HASH: u32 = 77;
/// What a snapshot is in these tests.
pub(crate) const SNAPSHOT: &[u8] = b"sealed";

/// The quorum's state and what tests pretend of it.
pub(crate) struct World {
    pub(crate) solo: SoloKv,
    pub(crate) members: Arc<Members>,
    pub(crate) upkeep: Arc<Upkeep>,
}

impl World {
    pub(crate) fn new() -> Self {
        let solo = SoloKv::new(|| UnixMillis(1));
        Self {
            members: Arc::new(Members::of(&solo)),
            upkeep: Arc::new(Upkeep::default()),
            solo,
        }
    }

    /// Another member's face.
    pub(crate) async fn face(&self) -> Face {
        self.face_with(Arc::new(self.solo.clone()), |_| {}).await
    }

    pub(crate) async fn face_with(
        &self,
        kv: Arc<dyn Kv>,
        change: impl FnOnce(&mut EtcdParts),
    ) -> Face {
        let mut parts = EtcdParts {
            kv,
            leases: Arc::new(self.solo.clone()),
            cluster: self.members.clone(),
            maintenance: self.upkeep.clone(),
            node_id: 1,
            cluster_id: 9,
            limits: EtcdLimits::default(),
            auth: AuthOptions {
                bcrypt_cost: 4,
                ..AuthOptions::default()
            },
            auto_compaction: AutoCompaction::Off,
            metrics_text: Arc::new(String::new),
        };
        change(&mut parts);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let context = EtcdContext::new(parts);
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, None, context, stop.clone()));
        let channel = Channel::from_shared(format!("http://{address}"))
            .expect("an address")
            .connect_lazy();
        Face {
            kv: KvClient::new(channel.clone()),
            auth: AuthClient::new(channel.clone()),
            cluster: ClusterClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel.clone()),
            channel,
            _stop: Arc::new(stop.drop_guard()),
        }
    }
}

/// Clients of one member, which stops with the last of them.
#[derive(Clone)]
pub(crate) struct Face {
    pub(crate) kv: KvClient<Channel>,
    pub(crate) auth: AuthClient<Channel>,
    pub(crate) cluster: ClusterClient<Channel>,
    pub(crate) maintenance: MaintenanceClient<Channel>,
    pub(crate) channel: Channel,
    _stop: Arc<DropGuard>,
}

impl Face {
    pub(crate) async fn put(&mut self, token: &str, key: &str) -> Result<(), Status> {
        let put = pb::PutRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::from_static(b"v"),
            ..pb::PutRequest::default()
        };
        self.kv.put(with(token, put)).await.map(|_| ())
    }

    pub(crate) async fn get(&mut self, token: &str, key: &str, end: &str) -> Result<i64, Status> {
        let range = range(key, end);
        let found = self.kv.range(with(token, range)).await?;
        Ok(found.into_inner().count)
    }

    pub(crate) async fn token(&mut self, name: &str, password: &str) -> Result<String, Status> {
        let asked = pb::AuthenticateRequest {
            name: name.to_owned(),
            password: password.to_owned(),
        };
        Ok(self.auth.authenticate(asked).await?.into_inner().token)
    }
}

pub(crate) fn range(key: &str, end: &str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::copy_from_slice(end.as_bytes()),
        ..pb::RangeRequest::default()
    }
}

/// A request that carries a token, unless it is empty.
pub(crate) fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        let token = token.parse().expect("ASCII");
        request.metadata_mut().insert("token", token);
    }
    request
}

/// A membership that does what it is told.
pub(crate) struct Members {
    pub(crate) list: Mutex<Vec<Member>>,
    solo: SoloKv,
}

impl Members {
    fn of(solo: &SoloKv) -> Self {
        Self {
            list: Mutex::new(Cluster::members(solo)),
            solo: solo.clone(),
        }
    }

    /// The node has joined.
    pub(crate) fn join(&self, id: NodeId) {
        self.change(id, |member| {
            member.api_address = "https://there:6443".to_owned();
        });
    }

    pub(crate) fn role(&self, id: NodeId) -> Option<MemberRole> {
        let list = self.list.lock();
        list.iter()
            .find(|member| member.id == id)
            .map(|member| member.role)
    }

    fn change(&self, id: NodeId, change: impl FnOnce(&mut Member)) {
        let mut list = self.list.lock();
        if let Some(member) = list.iter_mut().find(|member| member.id == id) {
            change(member);
        }
    }
}

type Changed<'a> = BoxFuture<'a, Result<(), ClusterError>>;

impl Cluster for Members {
    fn status(&self) -> NodeStatus {
        Cluster::status(&self.solo)
    }

    fn members(&self) -> Vec<Member> {
        self.list.lock().clone()
    }

    fn add(&self, member: NewMember) -> Changed<'_> {
        self.list.lock().push(Member {
            id: member.id,
            peer_address: member.peer_address,
            ..Member::default()
        });
        Box::pin(async { Ok(()) })
    }

    fn promote(&self, id: NodeId) -> Changed<'_> {
        self.change(id, |member| member.role = MemberRole::Voter);
        Box::pin(async { Ok(()) })
    }

    fn remove(&self, id: NodeId) -> Changed<'_> {
        self.list.lock().retain(|member| member.id != id);
        Box::pin(async { Ok(()) })
    }

    fn transfer(&self, _id: NodeId) -> Changed<'_> {
        Box::pin(async { Ok(()) })
    }

    fn update(&self, id: NodeId, peer_address: String) -> Changed<'_> {
        self.change(id, |member| member.peer_address = peer_address);
        Box::pin(async { Ok(()) })
    }
}

/// A store whose size tests set.
#[derive(Default)]
pub(crate) struct Upkeep {
    pub(crate) total_bytes: AtomicU64,
    pub(crate) defragmented: AtomicU64,
}

impl Maintenance for Upkeep {
    fn sizes(&self) -> StoreSizes {
        StoreSizes {
            total_bytes: self.total_bytes.load(Ordering::Relaxed),
            in_use_bytes: 1,
        }
    }

    fn hash_kv(&self, revision: Option<Revision>) -> BoxFuture<'_, Result<KvHash, RangeError>> {
        Box::pin(async move {
            Ok(KvHash {
                hash: HASH,
                revision: revision.unwrap_or(5),
                compacted: 2,
                current: 5,
            })
        })
    }

    fn defragment(&self) -> BoxFuture<'_, Result<(), MaintenanceError>> {
        self.defragmented.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(()) })
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<SnapshotStream, MaintenanceError>> {
        let pieces = stream::iter([Ok(Bytes::from_static(SNAPSHOT))]).boxed();
        Box::pin(async { Ok(pieces) })
    }
}

/// A machine whose proposals wait while the gate is shut.
pub(crate) struct Gated {
    pub(crate) inner: SoloKv,
    /// Told when a proposal waits.
    pub(crate) waits: Arc<Notify>,
    /// Lets one go.
    pub(crate) gate: Arc<Notify>,
}

impl Kv for Gated {
    fn propose(&self, proposal: Proposal) -> BoxFuture<'_, Result<Applied, ProposeError>> {
        Box::pin(async move {
            self.waits.notify_one();
            self.gate.notified().await;
            self.inner.propose(proposal).await
        })
    }

    fn read_barrier(&self) -> BoxFuture<'_, Result<Revision, BarrierError>> {
        self.inner.read_barrier()
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, RangeError> {
        self.inner.range(request)
    }

    fn revision(&self) -> Revision {
        self.inner.revision()
    }

    fn compacted_revision(&self) -> Revision {
        self.inner.compacted_revision()
    }

    fn watch(&self, request: WatchRequest) -> Result<Box<dyn Watcher>, WatchError> {
        self.inner.watch(request)
    }

    fn watch_group(&self) -> Box<dyn WatchGroup> {
        self.inner.watch_group()
    }

    fn leadership(&self) -> Leadership {
        self.inner.leadership()
    }

    fn leadership_changes(&self) -> BoxStream<'static, Leadership> {
        self.inner.leadership_changes()
    }
}
