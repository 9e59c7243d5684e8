//! The node's own side: asks every voter, and takes part when the rule says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nautilus_attest_protocol::restart::{
    Claim, Decision, Floor, Ground, Incarnation, LogPlace, Rejoin, Tail, Testimony, Verdict, judge,
};
use nautilus_machine::NodeId;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::VoteRequest;
use tokio::sync::watch;

use super::testify::{from_wire, tail};
use super::{Standing, place, position_of};
use crate::node_core::Core;
use crate::peers::chain;
use crate::types::{MembershipNote, StoredMembership, Vote, log_id};
use crate::wire::v1;

/// How long one voter may take to testify, connecting included.
const TESTIMONY: Duration = Duration::from_secs(2);
/// Between two rounds: the first and the last.
const ROUNDS_MS: (u64, u64) = (20, 500);
/// How often it says what it waits for.
const EXPLAIN: Duration = Duration::from_secs(5);
/// Times a start may find that peers know a newer life, and go above it.
const RAISES: usize = 3;

/// What was heard so far.
#[derive(Default)]
struct Heard {
    testimonies: BTreeMap<NodeId, Testimony>,
    /// To be asked again: they did not know of each other's lives yet.
    again: BTreeSet<NodeId>,
    raises: usize,
}

/// Brings the node back, and afterwards ends it when it is outlived.
pub(crate) async fn come_back(core: Arc<Core>) {
    tokio::select! {
        () = core.stop.cancelled() => return,
        came = returning(&core) => if let Err(reason) = came {
            core.fail(reason);
            return;
        },
    }
    let mut outlived = core.lives.outlived();
    tokio::select! {
        () = core.stop.cancelled() => {}
        () = regain(&core) => {}
        newer = newer_life(&core, &mut outlived) => return core.fail(fenced(&core, newer)),
    }
    tokio::select! {
        () = core.stop.cancelled() => {}
        newer = newer_life(&core, &mut outlived) => core.fail(fenced(&core, newer)),
    }
}

/// Resolves when this life is outlived.
async fn newer_life(
    core: &Core,
    outlived: &mut watch::Receiver<Option<Incarnation>>,
) -> Incarnation {
    loop {
        let newest = *outlived.borrow_and_update();
        if let Some(newer) = newest.filter(|newer| *newer > core.lives.own()) {
            return newer;
        }
        if outlived.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn fenced(core: &Core, newer: Incarnation) -> String {
    metrics::counter!("nautilus_restart_fenced_total").increment(1);
    format!(
        "fenced: node {} was started a second time, and its newer incarnation {newer} outlives this one, {}; two processes must not run one node: find out who started the other",
        core.config.node_id,
        core.lives.own(),
    )
}

/// Asks until the rule decides.
async fn returning(core: &Arc<Core>) -> Result<(), String> {
    let mut heard = Heard::default();
    let mut registered = core.restart.registered.subscribe();
    let mut standing = core.restart.standing.subscribe();
    let (mut pause_ms, last_pause_ms) = ROUNDS_MS;
    let mut explained = Instant::now();
    loop {
        if *standing.borrow_and_update() != Standing::Returning {
            return Ok(());
        }
        tokio::select! {
            () = round(core, &mut heard) => {}
            _ = registered.changed() => {}
            _ = standing.changed() => continue,
        }
        match decide(core, &heard) {
            Decision::Rejoin(rejoin) => return rejoin_above(core, rejoin).await,
            Decision::Forked(at) => return Err(forked(core, at)),
            Decision::Fenced(newer) if heard.raises < RAISES => {
                raise_above(core, &mut heard, newer).await?;
                continue;
            }
            Decision::Fenced(newer) => return Err(fenced(core, newer)),
            Decision::Wait(missing) => {
                heard.again.clone_from(&missing);
                if explained.elapsed() > EXPLAIN {
                    explained = Instant::now();
                    explain(&missing);
                }
            }
        }
        tokio::select! {
            _ = registered.changed() => {}
            _ = standing.changed() => {}
            () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
        }
        pause_ms = (pause_ms * 2).min(last_pause_ms);
    }
}

/// Peers knew a newer life: this one goes above it, and asks again.
async fn raise_above(
    core: &Arc<Core>,
    heard: &mut Heard,
    newer: Incarnation,
) -> Result<(), String> {
    heard.raises += 1;
    heard.testimonies.clear();
    core.restart.registered.send_replace(None);
    let lives = Arc::clone(&core.lives);
    let raised = tokio::task::spawn_blocking(move || lives.raise_above(newer)).await;
    raised.map_err(|error| error.to_string())?
}

fn explain(missing: &BTreeSet<NodeId>) {
    tracing::warn!(
        ?missing,
        "this node was started again and does not take part: it needs the word of every other voter, or of a leader with a majority of them; start those that are missing, or, if they are lost for good, see `nautilus recover --help`"
    );
}

fn forked(core: &Core, at: LogPlace) -> String {
    metrics::counter!("nautilus_disk_rollback_detected_total", "kind" => "forked").increment(1);
    format!(
        "forked disk: entry {at} of node {} has other contents than the quorum's; this directory is of another history: keep it for analysis, and let the node join again with an empty one",
        core.config.node_id
    )
}

/// The rule over what is known now.
fn decide(core: &Core, heard: &Heard) -> Decision {
    let outlived = *core.lives.outlived().borrow();
    if let Some(newer) = outlived.filter(|newer| *newer > core.lives.own()) {
        return Decision::Fenced(newer);
    }
    let vote = core.log.vote();
    let registered = core.restart.registered.borrow().clone();
    let claim = Claim {
        node: core.config.node_id,
        incarnation: core.lives.own(),
        disk_epoch: core.lives.disk_epoch(),
        term: core.raft_term().max(vote.map_or(0, |vote| vote.term)),
        last: core.log.bounds().1.map(place),
        freshness: core.restart.freshness,
        registered: registered.as_ref().and_then(|leader| leader.last),
    };
    let voters = core.peers.membership().voter_ids().collect();
    let mut testimonies: Vec<Testimony> = heard.testimonies.values().cloned().collect();
    testimonies.extend(registered.filter(|leader| !heard.testimonies.contains_key(&leader.node)));
    judge(&claim, &voters, &testimonies)
}

/// Asks everybody who has not testified, all at once.
async fn round(core: &Arc<Core>, heard: &mut Heard) {
    let own = core.config.node_id;
    let membership = core.peers.membership();
    let unheard: Vec<NodeId> = membership
        .voter_ids()
        .filter(|id| *id != own)
        .filter(|id| !heard.testimonies.contains_key(id) || heard.again.contains(id))
        .collect();
    if unheard.is_empty() {
        return;
    }
    let log = core.log.clone();
    // Without a tail peers have nothing to compare, and say so.
    let tail = tokio::task::spawn_blocking(move || tail(&log)).await;
    let tail = tail.ok().and_then(Result::ok).flatten();
    let mut asked = tokio::task::JoinSet::new();
    for id in unheard {
        let (core, tail) = (Arc::clone(core), tail.clone());
        asked.spawn(async move {
            let answer = tokio::time::timeout(TESTIMONY, ask(&core, id, tail)).await;
            (
                id,
                answer.unwrap_or_else(|_| Err("no answer in time".into())),
            )
        });
    }
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok((id, Ok(testimony))) => {
                let mut told = core.restart.told.lock();
                told.term = told.term.max(testimony.term);
                told.last = told.last.max(testimony.last).max(testimony.acknowledged);
                drop(told);
                match heard.testimonies.get_mut(&id) {
                    Some(before) => before.renew(testimony),
                    None => {
                        heard.testimonies.insert(id, testimony);
                    }
                }
            }
            Ok((id, Err(reason))) => tracing::debug!(node = id, %reason, "has not testified"),
            Err(error) => tracing::debug!(%error, "asking a peer ended badly"),
        }
    }
}

async fn ask(core: &Arc<Core>, id: NodeId, tail: Option<v1::LogTail>) -> Result<Testimony, String> {
    let mut client = core
        .peers
        .client_of(id)
        .await
        .map_err(|error| error.to_string())?;
    let config = &core.config;
    let request = v1::TestifyRequest {
        peer_address: config.peer_address.clone(),
        api_address: config.api_address.clone(),
        client_address: config.client_address.clone(),
        tail,
    };
    let answer = client.testify(request).await;
    let answer = answer.map_err(|status| chain(&status))?.into_inner();
    let life = |text: &str| {
        let life = text.parse::<Incarnation>();
        life.map_err(|error| error.to_string())
    };
    let incarnation = life(&answer.incarnation)?;
    let mut known = BTreeMap::new();
    for other in &answer.known {
        let other_life = life(&other.incarnation)?;
        known.insert(other.node, other_life);
        if other.node != config.node_id {
            // Outlived or not is the rule's to say.
            let _ = core.lives.hear(other.node, other_life);
        }
    }
    let note: MembershipNote =
        postcard::from_bytes(&answer.membership).map_err(|error| error.to_string())?;
    adopt(core, note.into_stored());
    Ok(Testimony {
        node: id,
        incarnation,
        known,
        term: answer.term,
        last: answer.last.as_ref().map(from_wire),
        acknowledged: answer.acknowledged.as_ref().map(from_wire),
        tail: match answer.tail {
            1 => Tail::Same,
            2 => Tail::Different,
            _ => Tail::Unknown,
        },
    })
}

/// A newer membership than this disk's says whom to ask.
fn adopt(core: &Core, told: StoredMembership) {
    if told.log_id() > core.peers.membership().log_id() {
        core.peers.set_told(Arc::new(told));
    }
}

async fn rejoin_above(core: &Arc<Core>, rejoin: Rejoin) -> Result<(), String> {
    report(core, &rejoin);
    let floor = rejoin.floor;
    raise_term(core, floor).await?;
    core.restart.stand(Standing::Floored(floor));
    core.restart.rejoined.send_replace(Some(rejoin));
    Ok(())
}

/// As if this node had voted in the floor's term, for somebody else.
async fn raise_term(core: &Core, floor: Floor) -> Result<(), String> {
    let voted = core.log.vote().map_or(0, |vote| vote.term);
    if floor.term <= voted {
        return Ok(());
    }
    let own = core.config.node_id;
    let membership = core.peers.membership();
    let other = membership.voter_ids().find(|id| *id != own);
    let last = core.log.bounds().1.map(place).max(floor.last);
    let mut request = VoteRequest::new(
        Vote::new(floor.term, other.unwrap_or(u64::MAX)),
        last.map(|last| log_id(position_of(last))),
    );
    // No lease of a leader holds it up: nobody is elected by it.
    request.leadership_transfer = true;
    let answer = core.raft.vote(request).await;
    answer.map_err(|error| error.to_string())?;
    match core.log.vote() {
        Some(vote) if vote.term >= floor.term => Ok(()),
        vote => Err(format!(
            "the vote on disk is {vote:?}, and was not raised to term {}",
            floor.term
        )),
    }
}

fn report(core: &Core, rejoin: &Rejoin) {
    let node = core.config.node_id;
    let incarnation = core.lives.own();
    let ground = match rejoin.ground {
        Ground::Registered => "registered",
        Ground::AllTestified => "testified",
        Ground::Counter => "counter",
    };
    metrics::counter!("nautilus_restart_rejoins_total", "ground" => ground).increment(1);
    match rejoin.verdict {
        Verdict::Consistent => {
            tracing::info!(node, %incarnation, ground, "came back");
        }
        Verdict::RolledBack { disk, acknowledged } => {
            metrics::counter!("nautilus_disk_rollback_detected_total", "kind" => "rolled_back")
                .increment(1);
            tracing::error!(
                node, %incarnation, ground, %acknowledged,
                disk = %disk.map_or_else(|| "nothing".to_owned(), |place| place.to_string()),
                "rolled back disk: the log ends before what this node had acknowledged; it does not vote before it has it again"
            );
        }
        Verdict::Replayed { disk_epoch, newest } => {
            metrics::counter!("nautilus_disk_rollback_detected_total", "kind" => "replayed")
                .increment(1);
            tracing::error!(
                node, %incarnation, ground, disk_epoch, %newest,
                "replayed disk: it is from before a later start of this node; it does not vote before it has caught up"
            );
        }
    }
}

/// Waits until the log has reached the floor; then the node is as every other.
async fn regain(core: &Arc<Core>) {
    let mut metrics = core.raft.metrics();
    loop {
        let floor = match core.restart.standing() {
            Standing::Floored(floor) => floor,
            Standing::Returning | Standing::Steady => return,
        };
        metrics.borrow_and_update();
        if floor.is_reached(core.log.bounds().1.map(place)) {
            core.restart.stand(Standing::Steady);
            core.peers.forget_told();
            core.raft.runtime_config().elect(true);
            tracing::info!(
                node = core.config.node_id,
                "has everything it had acknowledged"
            );
            return;
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}
