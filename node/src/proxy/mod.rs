//! The stable endpoint: a small process of its own in front of a quorum's nodes.
//!
//! kubectl knows one address; this process keeps it while nodes come and go. It serves
//! * a TCP balancer ([`balancer`]): TLS goes through it from end to end;
//! * with `--plain`, HTTP without TLS for clients of this machine ([`plain`]): TLS to
//!   the node ends here, and this process's own certificate is added.
//!
//! With rules for evidence given, a node is used only while its evidence is accepted
//! ([`trust`]). The plain endpoint has no other way to know whom it speaks to, so it
//! always needs them.

mod balancer;
mod identity;
mod plain;
mod trust;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attested::{Address, Judge};
use crate::up::layout::Layout;
use balancer::Balancer;
pub(crate) use balancer::Preference;
pub(crate) use identity::Who;
use trust::Trust;

/// Connections through an endpoint at once.
const MAX_CONNECTIONS: usize = 16_384;
/// Pause after a failed accept.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// After a stop, connections have so long to end by themselves.
const DRAIN: Duration = Duration::from_millis(500);

/// What to balance.
pub(crate) struct ProxyConfig {
    /// The TCP endpoint.
    pub(crate) listen: Option<SocketAddr>,
    /// The nodes.
    pub(crate) backends: Backends,
    /// Who comes first for a new connection.
    pub(crate) preference: Preference,
    /// Credentials for looking at nodes that are not attested; read until it is there.
    pub(crate) kubeconfig: PathBuf,
    /// Uses only nodes whose evidence is accepted.
    pub(crate) attested: Option<Attested>,
}

/// The nodes: id, 0 where it is not known, and address.
#[derive(Debug, Clone)]
pub(crate) enum Backends {
    /// These, and those that accepted ones name.
    Fixed(Vec<(u64, Address)>),
    /// Those of a folder, as an upgrade changes them.
    Folder(Layout),
}

impl Backends {
    /// The nodes as they are now; `None` when the folder can't be read just now.
    fn now(&self) -> Option<Vec<(u64, Address)>> {
        match self {
            Self::Fixed(nodes) => Some(nodes.clone()),
            Self::Folder(layout) => {
                let quorum = layout.load().ok().flatten()?;
                let nodes = quorum.nodes.iter().filter(|node| !node.leaving);
                nodes
                    .map(|node| Some((node.id, node.api().parse().ok()?)))
                    .collect()
            }
        }
    }
}

/// How nodes are judged, and what that is good for.
pub(crate) struct Attested {
    /// What is accepted.
    pub(crate) judge: Judge,
    /// Evidence is asked for again after so long.
    pub(crate) interval: Duration,
    /// Keeps the members that accepted nodes name for the next start, and what it kept.
    pub(crate) members: Option<(PathBuf, Vec<Address>)>,
    /// The endpoint without TLS.
    pub(crate) plain: Option<Plain>,
}

/// The endpoint without TLS.
pub(crate) struct Plain {
    /// Bound here.
    pub(crate) listen: SocketAddr,
    /// Names besides `localhost` and addresses by which clients may call it.
    pub(crate) hosts: Vec<String>,
    /// Whose certificate is added.
    pub(crate) who: Who,
}

/// Balances until `stop` completes.
pub(crate) async fn run(config: ProxyConfig, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let stopped = CancellationToken::new();
    let tracker = TaskTracker::new();
    let trust = match &config.attested {
        Some(attested) => Some(Arc::new(Trust::new(
            attested.judge.clone(),
            attested.interval,
            attested.members.as_ref().map(|(path, _)| path.clone()),
        )?)),
        None => None,
    };
    let balancer = Balancer::new(
        config.backends.now().unwrap_or_default(),
        config.preference,
        trust.clone(),
    );
    let attested = config.attested.as_ref();
    if let Some((_, kept)) = attested.and_then(|attested| attested.members.as_ref()) {
        // Its id is for the node's own evidence to say.
        let kept = kept.iter().map(|address| (0, address.clone()));
        balancer.learn(kept.collect(), |_| true);
    }
    let balancer = Arc::new(balancer);
    let mut background = vec![tokio::spawn(
        Arc::clone(&balancer).keep_looking(config.backends, config.kubeconfig),
    )];
    if let Some(trust) = &trust {
        background.push(tokio::spawn(
            Arc::clone(trust).keep_judging(Arc::clone(&balancer)),
        ));
    }
    let mut serving = Vec::new();
    if let Some(address) = config.listen {
        let listener = bind(address).await?;
        let carrier = Arc::clone(&balancer);
        tracing::info!(listen = %address, attested = trust.is_some(), "the stable endpoint is open");
        serving.push(tokio::spawn(accept(
            listener,
            stopped.clone(),
            tracker.clone(),
            move |client| {
                let balancer = Arc::clone(&carrier);
                async move { balancer.carry(client).await }
            },
        )));
    }
    if let (Some(trust), Some(plain)) = (&trust, config.attested.and_then(|a| a.plain)) {
        let listener = bind(plain.listen).await?;
        let identity = identity::start(plain.who, Arc::clone(trust), Arc::clone(&balancer))?;
        if let Some(renewing) = identity.renewing {
            background.push(renewing);
        }
        let front = plain::Front::new(balancer, Arc::clone(trust), identity.resolver, plain.hosts)?;
        let front = Arc::new(front);
        tracing::info!(listen = %plain.listen, "the plain endpoint is open");
        serving.push(tokio::spawn(accept(
            listener,
            stopped.clone(),
            tracker.clone(),
            move |client| Arc::clone(&front).serve(client),
        )));
    }
    stop.await;
    stopped.cancel();
    for task in background {
        task.abort();
    }
    for task in serving {
        task.await.context("an endpoint ended")?;
    }
    tracker.close();
    // What is still open ends with the process.
    let _ = tokio::time::timeout(DRAIN, tracker.wait()).await;
    Ok(())
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address}"))
}

/// Hands every connection to `carry`, a bounded number at once.
async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    stopped: CancellationToken,
    tracker: TaskTracker,
    carry: impl Fn(TcpStream) -> F + Send,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let permit = tokio::select! {
            () = stopped.cancelled() => return,
            permit = Arc::clone(&permits).acquire_owned() => permit,
        };
        // The semaphore is never closed.
        let Ok(permit) = permit else { return };
        let client = tokio::select! {
            () = stopped.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => client,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            },
        };
        let carried = carry(client);
        tracker.spawn(async move {
            carried.await;
            drop(permit);
        });
    }
}
