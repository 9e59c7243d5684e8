//! Which node gets a connection, and carrying it there.
//!
//! Every node is asked whether it is ready and who leads. A new connection goes to a
//! ready follower, so that the end of a leader cuts no watch (or to the leader first,
//! where that is preferred); a node that does not look ready comes last. If a node does
//! not accept, the next one is tried in the same connection. A node that gives no answer
//! at all for a while loses the connections it has: its host is frozen or cut off, and
//! their clients would wait in vain.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Backends;
use super::trust::{Standing, Trust};
use crate::attested::Address;
use crate::client::ApiClient;
use crate::kubeconfig::Kubeconfig;

/// To open a connection to a node before the next one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Between two looks at the nodes.
const LOOK_INTERVAL: Duration = Duration::from_millis(300);
/// For a node to answer a look.
const LOOK_TIMEOUT: Duration = Duration::from_millis(1_500);
/// A node that gives no answer to any look for so long loses its connections.
const SILENT_AFTER: Duration = Duration::from_secs(10);
/// Nodes balanced over, at most.
const MAX_TARGETS: usize = 64;

/// Who comes first for a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Preference {
    /// Ready followers: the end of a leader cuts no watch.
    Followers,
    /// The leader: a write takes one hop less.
    Leader,
}

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Backend {
    id: u64,
    ready: bool,
    connections: u64,
}

/// The order in which to try the nodes for a new connection: ready ones by preference
/// and the fewest connections, then the rest.
fn order(backends: &[Backend], leader: Option<u64>, preference: Preference) -> Vec<usize> {
    let mut order: Vec<usize> = (0..backends.len()).collect();
    order.sort_by_key(|&index| {
        let backend = &backends[index];
        let leads = leader == Some(backend.id);
        (
            !backend.ready,
            leads == (preference == Preference::Followers),
            backend.connections,
            backend.id,
        )
    });
    order
}

/// A node and its live numbers.
pub(super) struct Target {
    id: AtomicU64,
    /// Where it serves.
    pub(super) address: Address,
    /// By the command line or the folder: kept whoever the members are.
    given: bool,
    connections: AtomicU64,
    ready: AtomicBool,
    hearing: Mutex<Hearing>,
    /// What its evidence is worth.
    pub(super) standing: Mutex<Standing>,
}

/// Whether a node is heard of.
struct Hearing {
    /// When it last answered a look, or lost its connections.
    since: Instant,
    /// Cancelled when it fell silent.
    silent: CancellationToken,
}

impl Hearing {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            silent: CancellationToken::new(),
        }
    }

    /// After a look; says whether the node has just fallen silent.
    fn looked(&mut self, answered: bool, now: Instant) -> bool {
        if answered {
            self.since = now;
            return false;
        }
        let is_silent = now.duration_since(self.since) >= SILENT_AFTER;
        if is_silent {
            self.silent.cancel();
            // Connections that are made all the same have as long again.
            *self = Self::new(now);
        }
        is_silent
    }
}

impl Target {
    fn new(id: u64, address: Address, given: bool) -> Arc<Self> {
        Arc::new(Self {
            id: AtomicU64::new(id),
            address,
            given,
            connections: AtomicU64::new(0),
            ready: AtomicBool::new(false),
            hearing: Mutex::new(Hearing::new(Instant::now())),
            standing: Mutex::default(),
        })
    }

    /// Cancelled when the node falls silent.
    pub(super) fn silent(&self) -> CancellationToken {
        let hearing = self.hearing.lock();
        let hearing = hearing.unwrap_or_else(PoisonError::into_inner);
        hearing.silent.clone()
    }

    fn looked(&self, answered: bool) -> bool {
        let hearing = self.hearing.lock();
        let mut hearing = hearing.unwrap_or_else(PoisonError::into_inner);
        hearing.looked(answered, Instant::now())
    }

    /// Its id; 0 while that is not known.
    pub(super) fn id(&self) -> u64 {
        self.id.load(Ordering::Relaxed)
    }

    /// What its evidence or a member has said.
    pub(super) fn set_id(&self, id: u64) {
        self.id.store(id, Ordering::Relaxed);
    }

    /// Counts a connection for as long as the guard lives.
    pub(super) fn connected(self: &Arc<Self>) -> Connected {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Connected(Arc::clone(self))
    }
}

/// A connection that counts.
pub(super) struct Connected(Arc<Target>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The nodes, and who of them leads.
pub(super) struct Balancer {
    targets: RwLock<Vec<Arc<Target>>>,
    /// 0 while none is known.
    leader: AtomicU64,
    preference: Preference,
    trust: Option<Arc<Trust>>,
}

impl Balancer {
    /// Over these nodes; with `trust`, over those of them that are accepted and those
    /// that accepted ones name.
    pub(super) fn new(
        backends: Vec<(u64, Address)>,
        preference: Preference,
        trust: Option<Arc<Trust>>,
    ) -> Self {
        let targets = backends.into_iter();
        Self {
            targets: RwLock::new(targets.map(|(id, at)| Target::new(id, at, true)).collect()),
            leader: AtomicU64::new(0),
            preference,
            trust,
        }
    }

    /// Every node, used or not.
    pub(super) fn targets(&self) -> Vec<Arc<Target>> {
        self.targets
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes in the members that were named, as far as there is room, and lets go of those
    /// that were neither given nor named nor are to be kept.
    pub(super) fn learn(&self, named: Vec<(u64, Address)>, keep: impl Fn(&Target) -> bool) {
        let mut targets = self.targets.write().unwrap_or_else(PoisonError::into_inner);
        targets.retain(|target| {
            target.given || named.iter().any(|(_, at)| *at == target.address) || keep(target)
        });
        for (id, address) in named {
            let known = targets
                .iter()
                .any(|target| target.address == address || (id != 0 && target.id() == id));
            if !known && targets.len() < MAX_TARGETS {
                tracing::info!(node = id, %address, "a member was named");
                targets.push(Target::new(id, address, false));
            }
        }
    }

    /// Balances over these nodes from now on. One that stays keeps what is known of it;
    /// one that goes keeps the connections it has.
    pub(super) fn set_targets(&self, backends: Vec<(u64, Address)>) {
        let mut targets = self.targets.write().unwrap_or_else(PoisonError::into_inner);
        let kept = |id: u64, address: &Address| {
            let mut present = targets.iter();
            present
                .find(|target| target.address == *address && [0, id].contains(&target.id()))
                .cloned()
        };
        let next = backends
            .into_iter()
            .map(|(id, at)| kept(id, &at).unwrap_or_else(|| Target::new(id, at, true)));
        let next = next.collect();
        *targets = next;
    }

    /// The nodes to try for a new connection, best first.
    pub(super) fn order(&self) -> Vec<Arc<Target>> {
        let mut targets = self.targets();
        if let Some(trust) = &self.trust {
            targets.retain(|target| trust.is_accepted(target));
        }
        let backends: Vec<Backend> = targets
            .iter()
            .map(|target| Backend {
                id: target.id(),
                ready: target.ready.load(Ordering::Relaxed),
                connections: target.connections.load(Ordering::Relaxed),
            })
            .collect();
        let leader = Some(self.leader.load(Ordering::Relaxed)).filter(|id| *id != 0);
        order(&backends, leader, self.preference)
            .into_iter()
            .map(|index| Arc::clone(&targets[index]))
            .collect()
    }

    /// Carries one connection from end to end.
    pub(super) async fn carry(&self, mut client: TcpStream) {
        for target in self.order() {
            let connect = TcpStream::connect(target.address.authority());
            let Ok(Ok(mut node)) = tokio::time::timeout(CONNECT_TIMEOUT, connect).await else {
                continue;
            };
            let _ = client.set_nodelay(true);
            let _ = node.set_nodelay(true);
            let _counted = target.connected();
            let distrusted = Standing::distrusted(&target.standing);
            let silent = target.silent();
            // How a carried connection ends is the two ends' affair.
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut node) => {}
                () = distrusted.cancelled() => {}
                () = silent.cancelled() => {}
            }
            return;
        }
        tracing::warn!("no node accepts connections");
    }

    /// Looks at every node, again and again.
    pub(super) async fn keep_looking(self: Arc<Self>, backends: Backends, kubeconfig: PathBuf) {
        let mut named = backends.now();
        let mut clients: BTreeMap<Address, ApiClient> = BTreeMap::new();
        let mut authenticated = false;
        let mut pause = tokio::time::interval(LOOK_INTERVAL);
        pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            pause.tick().await;
            let now = backends.now();
            if now.is_some() && now != named {
                self.set_targets(now.clone().unwrap_or_default());
                named = now;
            }
            if self.trust.is_none() && !authenticated && kubeconfig.exists() {
                authenticated = true;
                clients.clear();
            }
            let targets = self.targets();
            for target in &targets {
                if clients.contains_key(&target.address) {
                    continue;
                }
                match self.client(target, &kubeconfig) {
                    Ok(client) => drop(clients.insert(target.address.clone(), client)),
                    Err(error) => tracing::warn!(%error, "can't look at a node"),
                }
            }
            self.look(&targets, &clients).await;
        }
    }

    /// Looks at every node once.
    async fn look(&self, targets: &[Arc<Target>], clients: &BTreeMap<Address, ApiClient>) {
        let looks = targets.iter().map(|target| async {
            match clients.get(&target.address) {
                Some(client) => client.readiness(LOOK_TIMEOUT).await,
                None => None,
            }
        });
        let mut leader = None;
        let found = futures_util::future::join_all(looks).await;
        for (target, answer) in targets.iter().zip(found) {
            // Nobody was asked where there is no client: that says nothing of the node.
            let was_asked = clients.contains_key(&target.address);
            if was_asked && target.looked(answer.is_some()) {
                tracing::warn!(node = target.id(), address = %target.address, "a node is silent");
            }
            let (ready, named) = answer.unwrap_or_default();
            if target.ready.swap(ready, Ordering::Relaxed) != ready {
                tracing::info!(node = target.id(), address = %target.address, ready, "a node changed");
            }
            leader = leader.or(named.filter(|_| ready));
        }
        let leader = leader.unwrap_or(0);
        if self.leader.swap(leader, Ordering::Relaxed) != leader {
            tracing::info!(leader, "the leader changed");
        }
    }

    /// A client for looking at a node: over its attested key, or with the operator's
    /// certificate once there is one.
    fn client(&self, target: &Target, kubeconfig: &Path) -> anyhow::Result<ApiClient> {
        let server = target.address.to_string();
        match (&self.trust, Kubeconfig::read(kubeconfig)) {
            (Some(trust), _) => ApiClient::with_tls(&server, trust.tls(None)?),
            (None, Ok(credentials)) => ApiClient::new(&server, &credentials),
            (None, Err(_)) => ApiClient::unverified(&server),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

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
        assert_eq!(order(&backends, Some(1), Preference::Followers), [2, 1, 0]);
    }

    #[test]
    fn the_leader_comes_first_where_it_is_preferred() {
        let backends = [
            backend(1, true, 3),
            backend(2, true, 9),
            backend(3, true, 0),
        ];
        assert_eq!(order(&backends, Some(2), Preference::Leader), [1, 2, 0]);
    }

    #[test]
    fn a_node_that_is_not_ready_comes_last_even_after_the_leader() {
        let backends = [
            backend(1, true, 9),
            backend(2, false, 0),
            backend(3, true, 0),
        ];
        assert_eq!(order(&backends, Some(1), Preference::Followers), [2, 0, 1]);
    }

    #[test]
    fn without_a_known_leader_the_least_loaded_comes_first() {
        let backends = [
            backend(1, true, 2),
            backend(2, true, 1),
            backend(3, true, 3),
        ];
        assert_eq!(order(&backends, None, Preference::Followers), [1, 0, 2]);
    }

    #[test]
    fn a_node_that_stays_keeps_its_count_when_others_come_and_go() {
        let at = |text: &str| text.parse::<Address>().expect("an address");
        let backends = vec![(1, at("a:1")), (2, at("b:1"))];
        let balancer = Balancer::new(backends, Preference::Followers, None);
        let second = Arc::clone(&balancer.targets()[1]);
        second.connections.fetch_add(3, Ordering::Relaxed);
        balancer.set_targets(vec![(2, at("b:1")), (3, at("c:1"))]);
        let order: Vec<u64> = balancer.order().iter().map(|target| target.id()).collect();
        assert_eq!(order, [3, 2]);
        let kept = &balancer.targets()[0];
        assert_eq!(kept.connections.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn members_come_and_go_and_those_given_stay() {
        let at = |text: &str| text.parse::<Address>().expect("an address");
        let balancer = Balancer::new(vec![(0, at("a:1"))], Preference::Followers, None);
        balancer.learn(vec![(1, at("b:1")), (2, at("c:1"))], |_| false);
        balancer.learn(vec![(2, at("c:1")), (3, at("d:1"))], |_| false);
        let known = || -> Vec<String> {
            let targets = balancer.targets().into_iter();
            targets.map(|target| target.address.authority()).collect()
        };
        assert_eq!(known(), ["a:1", "c:1", "d:1"]);
        balancer.learn(Vec::new(), |target| target.id() == 3);
        assert_eq!(known(), ["a:1", "d:1"]);
        balancer.learn(
            (1..200).map(|n| (n, at(&format!("e:{n}")))).collect(),
            |_| false,
        );
        assert_eq!(known().len(), MAX_TARGETS);
    }

    #[test]
    fn a_node_is_silent_after_a_while_without_any_answer() {
        let start = Instant::now();
        let mut hearing = Hearing::new(start);
        let token = hearing.silent.clone();
        let almost = SILENT_AFTER - Duration::from_millis(1);
        assert!(!hearing.looked(false, start + almost));
        assert!(!hearing.looked(true, start + almost));
        assert!(!hearing.looked(false, start + SILENT_AFTER));
        assert!(!token.is_cancelled());
        assert!(hearing.looked(false, start + almost + SILENT_AFTER));
        assert!(token.is_cancelled());
        assert!(!hearing.silent.is_cancelled(), "new connections have time");
    }

    #[tokio::test]
    async fn a_dead_node_is_passed_over_in_the_same_connection() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let alive = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let dead = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = |listener: &TcpListener| {
            let bound = listener.local_addr().expect("bound").to_string();
            bound.parse::<Address>().expect("an address")
        };
        let targets = vec![(1, address(&dead)), (2, address(&alive))];
        drop(dead);
        let balancer = Balancer::new(targets, Preference::Followers, None);
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
