//! A quorum inside one process: real sockets on loopback, real files, a runtime per
//! node so that a node can be killed like a process.

#![allow(dead_code, unreachable_pub)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nautilus_consensus::transport::plain::PlainTransport;
use nautilus_consensus::{Consensus, ConsensusConfig, JoinRequest, join};
use nautilus_machine::{
    Cluster, Command, KeyRange, Kv, MemberRole, NewMember, NodeId, Operation, Proposal, Put,
    RangeRequest, Txn,
};
use nautilus_store::{Keyring, RootKey};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

pub type Tune = Arc<dyn Fn(&mut ConsensusConfig) + Send + Sync>;

pub struct Node {
    pub id: NodeId,
    pub address: SocketAddr,
    pub dir: PathBuf,
    tune: Tune,
    fault: Option<Fault>,
    running: Option<(Runtime, Arc<Consensus>)>,
}

pub type Fault = Arc<dyn Fn(usize) -> Option<std::io::Error> + Send + Sync>;

pub const SECRETS: &[u8] = b"the quorum's secrets";

fn keyring() -> Keyring {
    Keyring::new(RootKey::from_bytes([9; 32]))
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

impl Node {
    pub fn new(id: NodeId, dir: PathBuf, tune: Tune) -> Self {
        Self {
            id,
            address: free_address(),
            dir,
            tune,
            fault: None,
            running: None,
        }
    }

    pub fn start(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let address = self.address.to_string();
        let mut config = ConsensusConfig::new(
            self.id,
            &address,
            &format!("https://api-{}", self.id),
            self.dir.clone(),
        );
        config.segment_bytes = 4 << 20;
        (self.tune)(&mut config);
        let transport = Arc::new(PlainTransport::new(self.id, &format!("chip-{}", self.id)));
        let deadline = Instant::now() + Duration::from_secs(20);
        let consensus = loop {
            let started = runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind(self.address)
                    .await
                    .map_err(|error| error.to_string())?;
                let secrets = Arc::new(|_| Ok(Zeroizing::new(SECRETS.to_vec())));
                let fault = self.fault.clone().unwrap_or_else(|| Arc::new(|_| None));
                Consensus::start_with_write_fault(
                    config.clone(),
                    &keyring(),
                    transport.clone(),
                    listener,
                    secrets,
                    fault,
                )
                .await
                .map_err(|error| error.to_string())
            });
            match started {
                Ok(consensus) => break consensus,
                // The killed one's last blocking calls still hold the directory's locks.
                Err(error) if Instant::now() > deadline => {
                    panic!("node {} does not start: {error}", self.id)
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        self.running = Some((runtime, Arc::new(consensus)));
    }

    /// From the next start on, writes of the log fail when `fault` says so.
    pub fn fail_writes(&mut self, fault: Fault) {
        self.fault = Some(fault);
    }

    /// As SIGKILL does: no orderly end, sockets closed by force.
    pub fn kill(&mut self) {
        if let Some((runtime, consensus)) = self.running.take() {
            drop(consensus);
            runtime.shutdown_background();
        }
    }

    /// As [`Node::kill`]; returns when nothing of it touches its directory any more.
    pub fn kill_whole(&mut self) {
        if let Some((runtime, consensus)) = self.running.take() {
            drop(consensus);
            runtime.shutdown_timeout(Duration::from_secs(10));
        }
    }

    pub fn shutdown(&mut self) {
        if let Some((runtime, consensus)) = self.running.take() {
            runtime.block_on(consensus.shutdown());
            drop(consensus);
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub fn consensus(&self) -> &Arc<Consensus> {
        &self.running.as_ref().unwrap().1
    }

    pub fn kv(&self) -> Arc<dyn Kv> {
        self.consensus().kv()
    }

    pub fn cluster(&self) -> Arc<dyn Cluster> {
        self.consensus().cluster()
    }

    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.running.as_ref().unwrap().0.block_on(future)
    }

    pub fn runtime(&self) -> &Runtime {
        &self.running.as_ref().unwrap().0
    }
}

impl Drop for Node {
    /// As [`Node::kill`], but waits for what blocks: a thread inside RocksDB must not
    /// outlive the process's statics.
    fn drop(&mut self) {
        if let Some((runtime, consensus)) = self.running.take() {
            drop(consensus);
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

pub struct Quorum {
    pub nodes: Vec<Node>,
    pub folder: TempDir,
    tune: Tune,
}

impl Quorum {
    /// Node 1 alone.
    pub fn genesis(tune: Tune) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut first = Node::new(1, folder.path().join("1"), Arc::clone(&tune));
        first.start();
        first.run(first.consensus().initialize("chip-1")).unwrap();
        let quorum = Self {
            nodes: vec![first],
            folder,
            tune,
        };
        quorum.leader();
        quorum
    }

    /// So many voters.
    pub fn of(count: u64) -> Self {
        Self::tuned(count, Arc::new(|_| {}))
    }

    pub fn tuned(count: u64, tune: Tune) -> Self {
        let mut quorum = Self::genesis(tune);
        for id in 2..=count {
            quorum.add_learner(id);
            quorum.promote(id);
        }
        quorum
    }

    /// As an operator does: again, when the member is still behind.
    fn promote(&self, id: NodeId) {
        let first = self.node(1);
        let deadline = Instant::now() + Duration::from_secs(120);
        while let Err(error) = first.run(first.cluster().promote(id)) {
            let status = first.cluster().status();
            assert!(Instant::now() < deadline, "{error}: {status:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn add_learner(&mut self, id: NodeId) {
        let mut node = Node::new(
            id,
            self.folder.path().join(id.to_string()),
            Arc::clone(&self.tune),
        );
        let address = node.address.to_string();
        let any = self.nodes.iter().find(|node| node.is_running()).unwrap();
        any.run(any.cluster().add(NewMember {
            id,
            peer_address: address.clone(),
        }))
        .unwrap();
        node.start();
        let transport = Arc::new(PlainTransport::new(id, &format!("chip-{id}")));
        let request = JoinRequest {
            node_id: id,
            api_address: format!("https://api-{id}"),
            client_address: String::new(),
            peer_address: address,
        };
        let grant = node
            .run(join(transport, &[any.address.to_string()], request))
            .unwrap();
        assert_eq!(&grant.secrets[..], SECRETS);
        self.nodes.push(node);
    }

    pub fn node(&self, id: NodeId) -> &Node {
        self.nodes.iter().find(|node| node.id == id).unwrap()
    }

    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.id == id).unwrap()
    }

    /// The node that leads and serves.
    pub fn leader(&self) -> NodeId {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let running = self.nodes.iter().filter(|node| node.is_running());
            if let Some(leader) = running.clone().find(|node| node.kv().leadership().is_self) {
                return leader.id;
            }
            let statuses: Vec<_> = running.map(|node| node.cluster().status()).collect();
            assert!(Instant::now() < deadline, "no leader: {statuses:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn followers(&self) -> Vec<NodeId> {
        let leader = self.leader();
        let running = self.nodes.iter().filter(|node| node.is_running());
        running
            .map(|node| node.id)
            .filter(|id| *id != leader)
            .collect()
    }

    pub fn voters(&self) -> usize {
        let any = self.nodes.iter().find(|node| node.is_running()).unwrap();
        any.cluster()
            .members()
            .iter()
            .filter(|member| member.role == MemberRole::Voter)
            .count()
    }
}

pub fn put(key: &str, value: &str) -> Proposal {
    let put = Operation::Put(Put::new(key.as_bytes().to_vec(), value.as_bytes().to_vec()));
    Proposal::new(Command::Txn(Txn {
        then: vec![put],
        ..Txn::default()
    }))
}

pub fn get(kv: &dyn Kv, key: &str) -> Option<String> {
    let range = KeyRange::single(key.as_bytes().to_vec());
    let found = kv.range(&RangeRequest::newest(range)).unwrap();
    found
        .kvs
        .first()
        .map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
}

/// Waits for something that must come true.
pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !check() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
