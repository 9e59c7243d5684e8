//! The stable endpoint: a TCP balancer in a small process of its own.
//!
//! kubectl knows one address; this process keeps it while nodes come and go. TLS
//! goes through it from end to end: it holds no key of a node and sees no request.
//! It asks every node whether it is ready and who leads, and gives a new connection
//! to a ready follower, so that the end of a leader cuts no watch; the leader comes
//! next, and a node that does not look ready last. If a node does not accept, the
//! next one is tried in the same connection.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::client::ApiClient;
use crate::kubeconfig::Kubeconfig;
use crate::up::layout::Layout;

/// Connections through the endpoint at once.
const MAX_CONNECTIONS: usize = 16_384;
/// To open a connection to a node before the next one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Between two looks at the nodes.
const LOOK_INTERVAL: Duration = Duration::from_millis(300);
/// For a node to answer a look.
const LOOK_TIMEOUT: Duration = Duration::from_millis(800);
/// Pause after a failed accept.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// After a stop, connections have so long to end by themselves.
const DRAIN: Duration = Duration::from_millis(500);

/// What to balance.
#[derive(Debug, Clone)]
pub(crate) struct ProxyConfig {
    /// Bound here.
    pub(crate) listen: SocketAddr,
    /// The nodes.
    pub(crate) backends: Backends,
    /// Credentials for asking who leads; read again until it is there.
    pub(crate) kubeconfig: PathBuf,
}

/// The nodes: id and `host:port` of the API.
#[derive(Debug, Clone)]
pub(crate) enum Backends {
    /// These.
    Fixed(Vec<(u64, String)>),
    /// Those of a folder, as an upgrade changes them.
    Folder(Layout),
}

impl Backends {
    /// The nodes as they are now; `None` when the folder can't be read just now.
    fn now(&self) -> Option<Vec<(u64, String)>> {
        match self {
            Self::Fixed(nodes) => Some(nodes.clone()),
            Self::Folder(layout) => {
                let quorum = layout.load().ok().flatten()?;
                let nodes = quorum.nodes.iter().filter(|node| !node.leaving);
                Some(nodes.map(|node| (node.id, node.api())).collect())
            }
        }
    }
}

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Backend {
    id: u64,
    ready: bool,
    connections: u64,
}

/// The order in which to try the nodes for a new connection: ready followers with
/// the fewest connections first, then a ready leader, then the rest.
fn order(backends: &[Backend], leader: Option<u64>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..backends.len()).collect();
    order.sort_by_key(|&index| {
        let backend = &backends[index];
        (
            !backend.ready,
            leader == Some(backend.id),
            backend.connections,
            backend.id,
        )
    });
    order
}

/// A node and its live numbers.
struct Target {
    id: u64,
    address: String,
    connections: AtomicU64,
}

/// What the last look brought.
#[derive(Default, Clone)]
struct View {
    ready: Vec<bool>,
    leader: Option<u64>,
}

/// The nodes and what the last look brought of each, in one order.
#[derive(Default, Clone)]
struct Nodes {
    targets: Vec<Arc<Target>>,
    view: View,
}

#[derive(Default)]
struct Balancer {
    nodes: Mutex<Nodes>,
}

impl Balancer {
    fn new(backends: Vec<(u64, String)>) -> Self {
        let balancer = Self::default();
        balancer.set_targets(backends);
        balancer
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Balances over these nodes from now on; says whether they are others than before.
    /// A node that goes keeps the connections it has.
    fn set_targets(&self, backends: Vec<(u64, String)>) -> bool {
        let mut nodes = self.lock();
        let present = nodes
            .targets
            .iter()
            .map(|target| (target.id, target.address.clone()));
        if present.eq(backends.iter().cloned()) {
            return false;
        }
        let kept = |id: u64, address: &str| {
            let mut targets = nodes.targets.iter();
            targets
                .find(|target| target.id == id && target.address == address)
                .cloned()
        };
        let targets = backends.into_iter().map(|(id, address)| {
            kept(id, &address).unwrap_or_else(|| {
                Arc::new(Target {
                    id,
                    address,
                    connections: AtomicU64::new(0),
                })
            })
        });
        let targets = targets.collect();
        *nodes = Nodes {
            targets,
            view: View::default(),
        };
        true
    }

    /// The nodes in the order in which to try them.
    fn order(&self) -> Vec<Arc<Target>> {
        let Nodes { targets, view } = self.lock().clone();
        let backends: Vec<Backend> = targets
            .iter()
            .enumerate()
            .map(|(index, target)| Backend {
                id: target.id,
                ready: view.ready.get(index).copied().unwrap_or(false),
                connections: target.connections.load(Ordering::Relaxed),
            })
            .collect();
        order(&backends, view.leader)
            .into_iter()
            .map(|index| Arc::clone(&targets[index]))
            .collect()
    }

    async fn carry(&self, mut client: TcpStream) {
        for target in self.order() {
            let connect = TcpStream::connect(target.address.as_str());
            let Ok(Ok(mut node)) = tokio::time::timeout(CONNECT_TIMEOUT, connect).await else {
                continue;
            };
            let _ = client.set_nodelay(true);
            let _ = node.set_nodelay(true);
            target.connections.fetch_add(1, Ordering::Relaxed);
            // How a carried connection ends is the two ends' affair.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut node).await;
            target.connections.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        tracing::warn!("no node accepts connections");
    }

    /// Looks at every node once.
    async fn look(&self, clients: &[ApiClient], authenticated: bool) -> View {
        let ready =
            futures_util::future::join_all(clients.iter().map(|client| client.ready(LOOK_TIMEOUT)))
                .await;
        let mut leader = None;
        if authenticated {
            for (client, _) in clients.iter().zip(&ready).filter(|(_, ready)| **ready) {
                if let Ok(Some(id)) = client.leader(LOOK_TIMEOUT).await {
                    leader = Some(id);
                    break;
                }
            }
        }
        View { ready, leader }
    }

    async fn keep_looking(self: Arc<Self>, backends: Backends, kubeconfig: PathBuf) {
        let mut clients: Vec<ApiClient> = Vec::new();
        let mut authenticated = false;
        let mut pause = tokio::time::interval(LOOK_INTERVAL);
        pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            pause.tick().await;
            let changed = backends.now().is_some_and(|now| self.set_targets(now));
            if changed || !authenticated {
                (clients, authenticated) = self.clients(&kubeconfig);
            }
            let next = self.look(&clients, authenticated).await;
            let mut nodes = self.lock();
            let view = &mut nodes.view;
            if next.leader != view.leader || next.ready != view.ready {
                tracing::info!(leader = ?next.leader, ready = ?next.ready, "nodes changed");
            }
            *view = next;
        }
    }

    /// A client per node: with the operator's certificate once there is one.
    fn clients(&self, kubeconfig: &std::path::Path) -> (Vec<ApiClient>, bool) {
        let credentials = Kubeconfig::read(kubeconfig).ok();
        let targets = self.lock().targets.clone();
        let clients = targets.iter().map(|target| {
            let server = format!("https://{}", target.address);
            match &credentials {
                Some(credentials) => ApiClient::new(&server, credentials),
                None => ApiClient::unverified(&server),
            }
        });
        match clients.collect::<anyhow::Result<Vec<_>>>() {
            Ok(clients) => (clients, credentials.is_some()),
            Err(error) => {
                tracing::warn!(%error, "can't look at the nodes");
                (Vec::new(), false)
            }
        }
    }
}

/// Balances until `stop` completes.
pub(crate) async fn run(config: ProxyConfig, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listen on {}", config.listen))?;
    let balancer = Balancer::new(config.backends.now().unwrap_or_default());
    let balancer = Arc::new(balancer);
    let looking =
        tokio::spawn(Arc::clone(&balancer).keep_looking(config.backends, config.kubeconfig));
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let tracker = TaskTracker::new();
    tracing::info!(listen = %config.listen, "the stable endpoint is open");
    tokio::pin!(stop);
    loop {
        let permit = tokio::select! {
            () = &mut stop => break,
            permit = Arc::clone(&permits).acquire_owned() => permit?,
        };
        let client = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => client,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            },
        };
        let balancer = Arc::clone(&balancer);
        tracker.spawn(async move {
            balancer.carry(client).await;
            drop(permit);
        });
    }
    looking.abort();
    tracker.close();
    // What is still open ends with the process.
    let _ = tokio::time::timeout(DRAIN, tracker.wait()).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(id: u64, ready: bool, connections: u64) -> Backend {
        Backend {
            id,
            ready,
            connections,
        }
    }

    #[test]
    fn followers_come_before_the_leader() {
        let backends = [
            backend(1, true, 0),
            backend(2, true, 5),
            backend(3, true, 4),
        ];
        assert_eq!(order(&backends, Some(1)), [2, 1, 0]);
    }

    #[test]
    fn a_node_that_is_not_ready_comes_last_even_after_the_leader() {
        let backends = [
            backend(1, true, 9),
            backend(2, false, 0),
            backend(3, true, 0),
        ];
        assert_eq!(order(&backends, Some(1)), [2, 0, 1]);
    }

    #[test]
    fn without_a_known_leader_the_least_loaded_comes_first() {
        let backends = [
            backend(1, true, 2),
            backend(2, true, 1),
            backend(3, true, 3),
        ];
        assert_eq!(order(&backends, None), [1, 0, 2]);
    }

    #[test]
    fn a_node_that_stays_keeps_its_count_when_others_come_and_go() {
        let balancer = Balancer::new(vec![(1, "a:1".into()), (2, "b:1".into())]);
        let second = Arc::clone(&balancer.lock().targets[1]);
        second.connections.fetch_add(3, Ordering::Relaxed);
        assert!(balancer.set_targets(vec![(2, "b:1".into()), (3, "c:1".into())]));
        assert!(!balancer.set_targets(vec![(2, "b:1".into()), (3, "c:1".into())]));
        let order: Vec<u64> = balancer.order().iter().map(|target| target.id).collect();
        assert_eq!(order, [3, 2]);
        assert_eq!(
            balancer.lock().targets[0]
                .connections
                .load(Ordering::Relaxed),
            3
        );
    }

    #[tokio::test]
    async fn a_dead_node_is_passed_over_in_the_same_connection() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let alive = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let dead = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = |listener: &TcpListener| listener.local_addr().expect("bound").to_string();
        let targets = vec![(1, address(&dead)), (2, address(&alive))];
        drop(dead);
        let balancer = Balancer::new(targets);
        let front = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut client = TcpStream::connect(front.local_addr().expect("bound"))
            .await
            .expect("open");
        let (accepted, _) = front.accept().await.expect("accepted");
        let carried = tokio::spawn(async move { balancer.carry(accepted).await });
        let (mut node, _) = alive.accept().await.expect("the second node is tried");
        client.write_all(b"ping").await.expect("sent");
        let mut heard = [0; 4];
        node.read_exact(&mut heard).await.expect("carried");
        assert_eq!(&heard, b"ping");
        drop((client, node));
        carried.await.expect("ends with its ends");
    }
}
