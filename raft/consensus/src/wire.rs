//! Our protocol's messages, and the way between them and the types behind.

use crate::log::{EntryKind, RawEntry};
use crate::types::{LogId, RaftEntry, TypeConfig, Vote, log_id, position, raft_entry, raw_entry};
use nautilus_machine::LogPosition;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};
use openraft::raft::{VoteRequest, VoteResponse};

/// Generated from `proto/nautilus.peer.v1.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub(crate) mod v1 {
    tonic::include_proto!("nautilus.peer.v1");
}

/// A message that can't be what was meant.
#[derive(Debug, Clone, thiserror::Error)]
#[error("malformed message: {0}")]
pub(crate) struct Malformed(pub(crate) String);

pub(crate) fn to_log_id(id: &LogId) -> v1::LogId {
    let LogPosition { term, index } = position(id);
    v1::LogId { term, index }
}

pub(crate) fn from_log_id(id: v1::LogId) -> LogId {
    log_id(LogPosition {
        term: id.term,
        index: id.index,
    })
}

pub(crate) fn to_vote(vote: &Vote) -> v1::Vote {
    let vote = crate::types::hard_vote(vote);
    v1::Vote {
        term: vote.term,
        node: vote.node,
        committed: vote.committed,
    }
}

pub(crate) fn from_vote(vote: Option<v1::Vote>) -> Result<Vote, Malformed> {
    let vote = vote.ok_or_else(|| Malformed("no vote".into()))?;
    let v1::Vote {
        term,
        node,
        committed,
    } = vote;
    Ok(crate::types::raft_vote(crate::log::HardVote {
        term,
        node,
        committed,
    }))
}

fn to_entry(entry: &RaftEntry) -> Result<v1::Entry, Malformed> {
    let raw = raw_entry(entry).map_err(|error| Malformed(error.to_string()))?;
    let LogPosition { term, index } = raw.position;
    Ok(v1::Entry {
        term,
        index,
        kind: raw.kind as u32,
        body: raw.body,
    })
}

fn from_entry(entry: v1::Entry) -> Result<RaftEntry, Malformed> {
    let kind = EntryKind::from_u32(entry.kind)
        .ok_or_else(|| Malformed(format!("unknown kind of entry {}", entry.kind)))?;
    let position = LogPosition {
        term: entry.term,
        index: entry.index,
    };
    let raw = RawEntry {
        position,
        kind,
        body: entry.body,
    };
    raft_entry(raw).map_err(|error| Malformed(error.to_string()))
}

pub(crate) fn to_append(
    request: &AppendEntriesRequest<TypeConfig>,
) -> Result<v1::AppendRequest, Malformed> {
    Ok(v1::AppendRequest {
        vote: Some(to_vote(&request.vote)),
        previous: request.prev_log_id.as_ref().map(to_log_id),
        committed: request.leader_commit.as_ref().map(to_log_id),
        entries: request
            .entries
            .iter()
            .map(to_entry)
            .collect::<Result<_, _>>()?,
    })
}

pub(crate) fn from_append(
    request: v1::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, Malformed> {
    Ok(AppendEntriesRequest {
        vote: from_vote(request.vote)?,
        prev_log_id: request.previous.map(from_log_id),
        entries: request
            .entries
            .into_iter()
            .map(from_entry)
            .collect::<Result<_, _>>()?,
        leader_commit: request.committed.map(from_log_id),
    })
}

pub(crate) fn to_append_answer(result: &StreamAppendResult<TypeConfig>) -> v1::AppendAnswer {
    use v1::append_answer::Result as Wire;
    let result = match result {
        Ok(upto) => Wire::Matched(v1::Matched {
            upto: upto.as_ref().map(to_log_id),
        }),
        Err(StreamAppendError::Conflict(id)) => Wire::Conflict(to_log_id(id)),
        Err(StreamAppendError::HigherVote(vote)) => Wire::Higher(to_vote(vote)),
    };
    v1::AppendAnswer {
        result: Some(result),
    }
}

pub(crate) fn from_append_answer(
    answer: v1::AppendAnswer,
) -> Result<StreamAppendResult<TypeConfig>, Malformed> {
    use v1::append_answer::Result as Wire;
    match answer.result {
        Some(Wire::Matched(matched)) => Ok(Ok(matched.upto.map(from_log_id))),
        Some(Wire::Conflict(id)) => Ok(Err(StreamAppendError::Conflict(from_log_id(id)))),
        Some(Wire::Higher(vote)) => Ok(Err(StreamAppendError::HigherVote(from_vote(Some(vote))?))),
        None => Err(Malformed("an answer without a result".into())),
    }
}

pub(crate) fn to_vote_request(request: &VoteRequest<TypeConfig>) -> v1::VoteRequest {
    v1::VoteRequest {
        vote: Some(to_vote(&request.vote)),
        last: request.last_log_id.as_ref().map(to_log_id),
        transfer: request.leadership_transfer,
    }
}

pub(crate) fn from_vote_request(
    request: v1::VoteRequest,
) -> Result<VoteRequest<TypeConfig>, Malformed> {
    let mut converted = VoteRequest::new(from_vote(request.vote)?, request.last.map(from_log_id));
    converted.leadership_transfer = request.transfer;
    Ok(converted)
}

pub(crate) fn to_vote_answer(answer: &VoteResponse<TypeConfig>) -> v1::VoteAnswer {
    v1::VoteAnswer {
        vote: Some(to_vote(&answer.vote)),
        granted: answer.vote_granted,
        last: answer.last_log_id.as_ref().map(to_log_id),
    }
}

pub(crate) fn from_vote_answer(
    answer: v1::VoteAnswer,
) -> Result<VoteResponse<TypeConfig>, Malformed> {
    Ok(VoteResponse::new(
        from_vote(answer.vote)?,
        answer.last.map(from_log_id),
        answer.granted,
    ))
}
