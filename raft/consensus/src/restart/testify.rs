//! A peer's side: what it tells a node that comes back, and a leader's word to it.

use std::sync::Arc;

use nautilus_attest_protocol::restart::{Incarnation, LogPlace, Tail, Testimony, chain_entry};
use nautilus_machine::{LogPosition, NodeId};
use openraft::async_runtime::WatchReceiver;
use tonic::Status;

use super::{LogEnd, Standing, TAIL_ENTRIES, incarnation_of, place};
use crate::log::WalReader;
use crate::node_core::Core;
use crate::service::malformed;
use crate::types::{MembershipNote, position};
use crate::wire::{Malformed, v1};

/// Hears that `node` has a new life, and testifies. What it heard is on disk before.
pub(crate) async fn testify(
    core: &Arc<Core>,
    node: NodeId,
    request: v1::TestifyRequest,
    headers: &tonic::metadata::MetadataMap,
) -> Result<v1::TestifyAnswer, Status> {
    let lives = Arc::clone(&core.lives);
    let known = lives.known();
    // An outlived one is told by whom: it may go above that.
    let heard = lives.hear_header(node, headers);
    if heard.is_ok() {
        core.registrar.moved(node, &request);
        let saved = tokio::task::spawn_blocking(move || lives.save()).await;
        saved
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(Status::internal)?;
    }
    let (log, asked) = (core.log.clone(), request.tail);
    let tail = tokio::task::spawn_blocking(move || compare(&log, asked)).await;
    let tail = tail.map_err(|error| Status::internal(error.to_string()))??;
    let (term, last) = promised(core);
    Ok(v1::TestifyAnswer {
        incarnation: core.lives.header(),
        known: known
            .into_iter()
            .map(|(node, life)| v1::Known {
                node,
                incarnation: life.to_string(),
            })
            .collect(),
        term,
        last: last.map(to_wire),
        acknowledged: acknowledged(core, node).map(to_wire),
        tail: match tail {
            Tail::Unknown => 0,
            Tail::Same => 1,
            Tail::Different => 2,
        },
        membership: membership(core)?,
    })
}

/// The highest term and log end that this node knows or has to reach.
fn promised(core: &Core) -> (u64, Option<LogPlace>) {
    let voted = core.log.vote().map_or(0, |vote| vote.term);
    let mut term = core.raft_term().max(voted);
    let mut last = core.log.bounds().1.map(place);
    let floor = match core.restart.standing() {
        Standing::Returning => *core.restart.told.lock(),
        Standing::Floored(floor) => floor,
        Standing::Steady => return (term, last),
    };
    term = term.max(floor.term);
    last = last.max(floor.last);
    (term, last)
}

/// What `node` acknowledged to this one, if it leads.
pub(super) fn acknowledged(core: &Core, node: NodeId) -> Option<LogPlace> {
    let metrics = core.raft.metrics();
    let metrics = metrics.borrow_watched();
    let matched = metrics.replication.as_ref()?.get(&node)?.as_ref()?;
    Some(place(position(matched)))
}

fn membership(core: &Core) -> Result<bytes::Bytes, Status> {
    let note = MembershipNote::from_stored(&core.peers.membership());
    let bytes = postcard::to_stdvec(&note).map_err(|error| Status::internal(error.to_string()))?;
    Ok(bytes.into())
}

/// A leader's word that this node's incarnation is committed.
pub(crate) fn readmit(
    core: &Core,
    leader: NodeId,
    headers: &tonic::metadata::MetadataMap,
    request: &v1::ReadmitRequest,
) -> Result<v1::ReadmitAnswer, Status> {
    let registered = request
        .registered
        .as_ref()
        .ok_or_else(|| malformed(&Malformed("no entry".into())))?;
    let life = request.incarnation.parse();
    let life = life.map_err(|_| malformed(&Malformed("no incarnation".into())))?;
    // A newer one than this is no refusal: this life may go above it, or has to end.
    let _ = core.lives.hear(core.config.node_id, life);
    let taken = request.incarnation == core.lives.header()
        && core.restart.standing() == Standing::Returning;
    if taken {
        let before = request.known_before.parse().ok();
        core.restart.registered.send_replace(Some(Testimony {
            node: leader,
            incarnation: incarnation_of(headers)?,
            known: before
                .map(|life: Incarnation| (core.config.node_id, life))
                .into_iter()
                .collect(),
            term: registered.term,
            last: Some(from_wire(registered)),
            acknowledged: request.acknowledged.as_ref().map(from_wire),
            tail: Tail::Unknown,
        }));
    }
    Ok(v1::ReadmitAnswer { taken })
}

pub(super) fn to_wire(place: LogPlace) -> v1::LogId {
    v1::LogId {
        term: place.term,
        index: place.index,
    }
}

pub(super) fn from_wire(id: &v1::LogId) -> LogPlace {
    LogPlace {
        term: id.term,
        index: id.index,
    }
}

/// The chain of hashes over the end of the log; nothing for an empty one. Blocks.
pub(super) fn tail(log: &WalReader) -> Result<Option<v1::LogTail>, String> {
    let (purged, last) = log.bounds();
    let Some(last) = last.filter(|last| purged < Some(*last)) else {
        return Ok(None);
    };
    let begin = purged.map_or(0, |purged| purged.index + 1);
    let from = begin.max((last.index + 1).saturating_sub(TAIL_ENTRIES));
    let digest = chain(log, from, last.index)?;
    Ok(digest.map(|digest| v1::LogTail {
        from,
        upto: Some(to_wire(place(last))),
        digest: digest.to_vec().into(),
    }))
}

/// What the log says at its end. Blocks.
pub(crate) fn log_end(log: &WalReader) -> Result<LogEnd, String> {
    let last = log.bounds().1;
    Ok(LogEnd {
        vote: log
            .vote()
            .map(|vote| (vote.term, vote.node, vote.committed)),
        last: last.map(|last| (last.term, last.index)),
        digest: tail(log)?.map_or_else(Vec::new, |tail| tail.digest.to_vec()),
    })
}

/// `None` when not all of these entries are here.
fn chain(log: &WalReader, from: u64, upto: u64) -> Result<Option<[u8; 32]>, String> {
    let mut digest = [0; 32];
    for index in from..=upto {
        // One at a time: entries are large now and then.
        let entries = log.read(index..index + 1, 1);
        let entries = entries.map_err(|error| error.to_string())?;
        let Some(entry) = entries
            .first()
            .filter(|entry| entry.position.index == index)
        else {
            return Ok(None);
        };
        let LogPosition { term, index } = entry.position;
        digest = chain_entry(
            &digest,
            LogPlace { term, index },
            entry.kind as u8,
            &entry.body,
        );
    }
    Ok(Some(digest))
}

fn compare(log: &WalReader, asked: Option<v1::LogTail>) -> Result<Tail, Status> {
    let Some(v1::LogTail {
        from,
        upto: Some(upto),
        digest,
    }) = asked
    else {
        return Ok(Tail::Unknown);
    };
    let span = upto.index.checked_sub(from);
    if span.is_none_or(|span| span >= TAIL_ENTRIES) {
        return Err(malformed(&Malformed("a tail of a wrong length".into())));
    }
    let end = log.read(upto.index..upto.index + 1, 1);
    let end = end.map_err(|error| Status::internal(error.to_string()))?;
    let same_end = end
        .first()
        .is_some_and(|entry| place(entry.position) == from_wire(&upto));
    if !same_end {
        return Ok(Tail::Unknown);
    }
    let own = chain(log, from, upto.index).map_err(Status::internal)?;
    Ok(match own {
        None => Tail::Unknown,
        Some(own) if own[..] == digest[..] => Tail::Same,
        Some(_) => Tail::Different,
    })
}
