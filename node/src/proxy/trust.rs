//! Which nodes may be used: those whose evidence was accepted not long ago.
//!
//! Invariants: a connection of the plain endpoint ends at a key that evidence has
//! vouched for, or is not made; a node that is refused loses the connections it had;
//! a node that shows another key is judged again before it gets a byte.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use rustls::client::ResolvesClientCert;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::balancer::{Balancer, Target};
use crate::attested::{
    Address, ExamineError, Examined, Judge, Pins, PublicMember, dial, examine, pinned_tls,
};

/// How often it is looked which node is due.
const TICK: Duration = Duration::from_millis(500);
/// A node that is not accepted is asked again after so long.
const RETRY: Duration = Duration::from_secs(2);
/// So many intervals after it was accepted, a node that does not answer no longer is.
const STALE_AFTER_INTERVALS: u32 = 3;

/// What a node's evidence is worth.
#[derive(Debug, Default)]
pub(super) enum Standing {
    /// Not judged.
    #[default]
    Unknown,
    /// Accepted.
    Accepted {
        /// The key that was vouched for.
        spki: Vec<u8>,
        /// When.
        at: Instant,
        /// Cancelled when it is accepted no longer.
        distrusted: CancellationToken,
    },
    /// Refused, and why.
    Refused(String),
}

impl Standing {
    /// Cancelled when the node is accepted no longer; never for one that is not judged.
    pub(super) fn distrusted(standing: &Mutex<Self>) -> CancellationToken {
        match &*standing.lock().unwrap_or_else(PoisonError::into_inner) {
            Self::Unknown => CancellationToken::new(),
            Self::Accepted { distrusted, .. } => distrusted.clone(),
            Self::Refused(_) => {
                let refused = CancellationToken::new();
                refused.cancel();
                refused
            }
        }
    }
}

/// Judges the nodes.
pub(super) struct Trust {
    judge: Judge,
    pins: Arc<Pins>,
    interval: Duration,
    /// Keeps the members' addresses for the next start.
    members: Option<PathBuf>,
    /// The quorum's name, once a node was accepted: another quorum's nodes are not ours.
    cluster: Mutex<Option<String>>,
    /// One node shows another key: asked once, not by every request that waits.
    judging: tokio::sync::Mutex<()>,
}

impl Trust {
    /// Evidence is asked for every `interval`; what accepted nodes name is kept in `members`.
    pub(super) fn new(
        judge: Judge,
        interval: Duration,
        members: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        anyhow::ensure!(!interval.is_zero(), "the interval of judging is not zero");
        Ok(Self {
            judge,
            pins: Arc::default(),
            interval,
            members,
            cluster: Mutex::default(),
            judging: tokio::sync::Mutex::default(),
        })
    }

    /// What is accepted.
    pub(super) fn judge(&self) -> &Judge {
        &self.judge
    }

    /// Whether a node may be used now.
    pub(super) fn is_accepted(&self, target: &Target) -> bool {
        let standing = target
            .standing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        matches!(&*standing, Standing::Accepted { at, .. } if !self.is_stale(*at))
    }

    fn is_stale(&self, at: Instant) -> bool {
        at.elapsed() > self.interval * STALE_AFTER_INTERVALS
    }

    /// TLS to accepted nodes only, with a client's certificate or without.
    pub(super) fn tls(
        &self,
        client: Option<Arc<dyn ResolvesClientCert>>,
    ) -> anyhow::Result<rustls::ClientConfig> {
        pinned_tls(Arc::clone(&self.pins), client)
    }

    /// A connection to an accepted node. One that shows another key than it did is
    /// judged first.
    pub(super) async fn connect(
        &self,
        target: &Target,
        tls: &Arc<rustls::ClientConfig>,
    ) -> anyhow::Result<TlsStream<TcpStream>> {
        match dial(&target.address, Arc::clone(tls)).await {
            Ok(dialed) => return Ok(dialed.stream),
            Err(error) if error.is_refused_key() => {}
            Err(error) => return Err(error.into()),
        }
        let _judging = self.judging.lock().await;
        match dial(&target.address, Arc::clone(tls)).await {
            Ok(dialed) => return Ok(dialed.stream),
            Err(error) if error.is_refused_key() => {}
            Err(error) => return Err(error.into()),
        }
        tracing::info!(address = %target.address, "a node shows another key; asking for evidence");
        self.ask(target).await.map_err(|reason| anyhow!(reason))?;
        Ok(dial(&target.address, Arc::clone(tls)).await?.stream)
    }

    /// Judges every node whenever it is due, and takes in those that accepted ones name.
    pub(super) async fn keep_judging(self: Arc<Self>, balancer: Arc<Balancer>) {
        let mut kept = Vec::new();
        let mut asked: BTreeMap<Address, Instant> = BTreeMap::new();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let targets = balancer.targets();
            let due = targets.iter().filter(|target| {
                let pause = if self.is_accepted(target) {
                    self.interval
                } else {
                    RETRY.min(self.interval)
                };
                let last = asked.get(&target.address);
                last.is_none_or(|last| last.elapsed() >= pause)
            });
            let due: Vec<_> = due.cloned().collect();
            for target in &due {
                asked.insert(target.address.clone(), Instant::now());
            }
            let answers = due.iter().map(|target| self.ask(target));
            let answers = futures_util::future::join_all(answers).await;
            let mut named = Vec::new();
            for member in answers.into_iter().flatten().flatten() {
                if let Ok(address) = member.api_address.parse() {
                    named.push((member.id, address));
                }
            }
            if named.is_empty() {
                continue;
            }
            balancer.learn(named, |target| self.is_accepted(target));
            let targets = balancer.targets().into_iter();
            let now: Vec<_> = targets.map(|target| target.address.clone()).collect();
            if let Some(path) = self.members.as_deref().filter(|_| kept != now) {
                keep(path, &now);
                kept = now;
            }
        }
    }

    /// Asks one node for evidence and notes what it is worth; gives the members that
    /// an accepted node names.
    async fn ask(&self, target: &Target) -> Result<Vec<PublicMember>, String> {
        match examine(&target.address, &self.judge).await {
            Ok(examined) => match self.fault(target, &examined) {
                None => Ok(self.accept(target, examined)),
                Some(reason) => Err(self.refuse(target, reason)),
            },
            Err(ExamineError::Refused(refused)) => Err(self.refuse(target, refused.to_string())),
            Err(error) => {
                self.silent(target);
                Err(error.to_string())
            }
        }
    }

    fn fault(&self, target: &Target, examined: &Examined) -> Option<String> {
        if let Err(refused) = self.judge.policy(&examined.claims) {
            return Some(refused.to_string());
        }
        let says = &examined.quorum;
        let mut cluster = self.cluster.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = cluster.get_or_insert_with(|| says.cluster.clone());
        if *cluster != says.cluster {
            return Some(format!(
                "it is of quorum {:?}, expected {cluster:?}",
                says.cluster
            ));
        }
        let id = target.id();
        (id != 0 && id != says.node_id)
            .then(|| format!("it is node {}, expected node {id}", says.node_id))
    }

    fn accept(&self, target: &Target, examined: Examined) -> Vec<PublicMember> {
        target.set_id(examined.quorum.node_id);
        let mut standing = target
            .standing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !self.pins.add(&examined.spki) {
            tracing::warn!("too many keys are trusted already; restart the proxy");
        }
        let distrusted = match &mut *standing {
            Standing::Accepted {
                spki, distrusted, ..
            } => {
                if *spki != examined.spki {
                    self.pins.remove(spki);
                }
                distrusted.clone()
            }
            Standing::Unknown | Standing::Refused(_) => {
                tracing::info!(
                    node = target.id(),
                    address = %target.address,
                    tee = %examined.claims.tee,
                    measurement = %examined.claims.measurement,
                    "a node's evidence is accepted"
                );
                CancellationToken::new()
            }
        };
        *standing = Standing::Accepted {
            spki: examined.spki,
            at: Instant::now(),
            distrusted,
        };
        examined.quorum.members
    }

    fn refuse(&self, target: &Target, reason: String) -> String {
        let mut standing = target
            .standing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !matches!(&*standing, Standing::Refused(known) if *known == reason) {
            tracing::warn!(node = target.id(), address = %target.address, reason, "a node is refused and not used");
        }
        self.drop_trust(&standing);
        *standing = Standing::Refused(reason.clone());
        reason
    }

    /// A node that does not answer keeps its standing for a while: it may be starting.
    fn silent(&self, target: &Target) {
        let mut standing = target
            .standing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if matches!(&*standing, Standing::Accepted { at, .. } if self.is_stale(*at)) {
            tracing::warn!(node = target.id(), address = %target.address, "a node gives no evidence any more");
            self.drop_trust(&standing);
            *standing = Standing::Refused("it gives no evidence any more".to_owned());
        }
    }

    fn drop_trust(&self, standing: &Standing) {
        if let Standing::Accepted {
            spki, distrusted, ..
        } = standing
        {
            self.pins.remove(spki);
            distrusted.cancel();
        }
    }
}

fn keep(path: &Path, members: &[Address]) {
    if let Err(error) = nautilus_client::write_members(path, members) {
        tracing::warn!(%error, path = %path.display(), "the members can't be kept");
    }
}

#[cfg(test)]
mod tests {
    use super::super::balancer::Preference;
    use super::*;
    use crate::attested::tests::{Script, World, script, shared};

    const LONG: Duration = Duration::from_secs(3600);

    fn proxy(world: &World, first: &Address, interval: Duration) -> (Arc<Trust>, Arc<Balancer>) {
        let trust = Arc::new(Trust::new(world.judge.clone(), interval, None).expect("an interval"));
        let backends = vec![(0, first.clone())];
        let balancer = Balancer::new(backends, Preference::Followers, Some(Arc::clone(&trust)));
        (trust, Arc::new(balancer))
    }

    /// Waits until the proxy uses exactly these nodes.
    async fn used(balancer: &Balancer, wanted: &[u64]) {
        let level = async {
            loop {
                let mut ids: Vec<u64> = balancer.order().iter().map(|node| node.id()).collect();
                ids.sort_unstable();
                if ids == wanted {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let limit = Duration::from_secs(30);
        tokio::time::timeout(limit, level)
            .await
            .expect("the wanted nodes");
    }

    #[tokio::test]
    async fn a_node_is_judged_before_it_gets_a_byte() {
        let world = World::new();
        let (address, spki) = world.node(shared(script(1))).await;
        let (trust, balancer) = proxy(&world, &address, LONG);
        let target = balancer.targets().remove(0);
        assert!(balancer.order().is_empty(), "nobody has judged it");
        let tls = Arc::new(trust.tls(None).expect("TLS"));
        trust
            .connect(&target, &tls)
            .await
            .expect("judged on the way");
        assert_eq!(balancer.order().len(), 1);
        // It comes back with another key, which the old evidence says nothing of.
        trust.pins.remove(&spki);
        trust.connect(&target, &tls).await.expect("judged again");
    }

    #[tokio::test]
    async fn a_node_that_can_t_prove_its_key_is_never_used() {
        let world = World::new();
        let (_, genuine) = world.node(shared(script(1))).await;
        let relaying = Script {
            relayed_spki: Some(genuine),
            ..script(2)
        };
        let (liar, _) = world.node(shared(relaying)).await;
        let honest = Script {
            members: vec![(2, liar.to_string())],
            ..script(1)
        };
        let (first, _) = world.node(shared(honest)).await;
        let (trust, balancer) = proxy(&world, &first, LONG);
        let judging = tokio::spawn(Arc::clone(&trust).keep_judging(Arc::clone(&balancer)));
        used(&balancer, &[1]).await;
        let target = loop {
            let targets = balancer.targets();
            if let Some(target) = targets.into_iter().find(|target| target.id() == 2) {
                break target;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let tls = Arc::new(trust.tls(None).expect("TLS"));
        let error = trust.connect(&target, &tls).await.expect_err("refused");
        assert!(
            error.to_string().contains("answers another question"),
            "{error}"
        );
        used(&balancer, &[1]).await;
        judging.abort();
    }

    #[tokio::test]
    async fn a_node_that_is_refused_later_loses_its_connections() {
        let world = World::new();
        let (_, genuine) = world.node(shared(script(1))).await;
        let says = shared(script(1));
        let (address, _) = world.node(Arc::clone(&says)).await;
        let (trust, balancer) = proxy(&world, &address, Duration::from_millis(50));
        let judging = tokio::spawn(Arc::clone(&trust).keep_judging(Arc::clone(&balancer)));
        used(&balancer, &[1]).await;
        let target = balancer.targets().remove(0);
        let distrusted = Standing::distrusted(&target.standing);
        assert!(!distrusted.is_cancelled());
        says.lock().expect("whole").relayed_spki = Some(genuine);
        used(&balancer, &[]).await;
        distrusted.cancelled().await;
        judging.abort();
    }
}
