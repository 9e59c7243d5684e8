//! The names openraft wants filled in, and the way between its types, the log's
//! and the wire's. Nothing here leaves the crate.
//!
//! An entry's payload is encoded once, on the leader; log, wire and followers
//! share those bytes, and only apply decodes them.

use std::fmt;

use bytes::Bytes;
use nautilus_attest_protocol::restart::Incarnation;
use nautilus_machine::{
    Applied, LogPosition, Member, MemberRole, NodeId, Outcome, Revision, UnixMillis,
};
use openraft::vote::leader_id_std::{CommittedLeaderId, LeaderId};
use serde::{Deserialize, Serialize};

use crate::log::{EntryKind, HardVote, RawEntry};

openraft::declare_raft_types!(
    /// Standard Raft: one leader per term.
    pub(crate) TypeConfig:
        D = LogData,
        R = Reply,
        NodeId = NodeId,
        Node = NodeInfo,
        LeaderId = LeaderId<u64, NodeId>,
);

pub(crate) type LogId = openraft::LogId<CommittedLeaderId<u64>>;
pub(crate) type Vote = openraft::Vote<LeaderId<u64, NodeId>>;
pub(crate) type Membership = openraft::Membership<NodeId, NodeInfo>;
pub(crate) type StoredMembership =
    openraft::StoredMembership<CommittedLeaderId<u64>, NodeId, NodeInfo>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId<u64>, NodeId, NodeInfo>;
pub(crate) type Payload = openraft::EntryPayload<LogData, NodeId, NodeInfo>;
pub(crate) type RaftEntry = openraft::Entry<CommittedLeaderId<u64>, Payload>;
pub(crate) type Raft = openraft::Raft<TypeConfig, crate::state_machine::StateMachine>;

/// A machine entry (stamped proposal), postcard.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogData(pub(crate) Bytes);

impl fmt::Debug for LogData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for LogData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The encoding of `nautilus_machine::Entry { time, proposal }` from a proposal that is
/// encoded already: postcard writes a structure's fields one after the other.
pub(crate) fn encode_entry(time: UnixMillis, proposal: &[u8]) -> Bytes {
    let mut buffer = [0; 10];
    // Ten bytes hold any 64-bit varint.
    let time: &[u8] = postcard::to_slice(&time, &mut buffer).map_or(&[], |written| written);
    let mut entry = Vec::with_capacity(time.len() + proposal.len());
    entry.extend_from_slice(time);
    entry.extend_from_slice(proposal);
    entry.into()
}

/// What the membership says of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct NodeInfo {
    /// `host:port` where peers reach it.
    pub(crate) peer_address: String,
    /// Where clients reach it; empty until it has joined.
    pub(crate) api_address: String,
    /// Where etcd clients reach it; empty without that face.
    pub(crate) client_address: String,
    /// The platform identity pinned when it joined; empty until then.
    pub(crate) platform: String,
    /// Its newest incarnation that was registered; older ones are refused.
    pub(crate) incarnation: Incarnation,
}

impl NodeInfo {
    pub(crate) fn member(&self, id: NodeId, role: MemberRole) -> Member {
        Member {
            id,
            peer_address: self.peer_address.clone(),
            api_address: self.api_address.clone(),
            client_address: self.client_address.clone(),
            role,
            platform: self.platform.clone(),
        }
    }
}

/// What apply tells the proposer: [`Applied`] without its events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppliedReply {
    pub(crate) position: LogPosition,
    pub(crate) time: UnixMillis,
    pub(crate) revision: Revision,
    pub(crate) outcome: Outcome,
}

impl From<AppliedReply> for Applied {
    fn from(reply: AppliedReply) -> Self {
        let AppliedReply {
            position,
            time,
            revision,
            outcome,
        } = reply;
        Self {
            position,
            time,
            revision,
            outcome,
            events: Vec::new(),
            previous: Vec::new(),
        }
    }
}

/// The answer through openraft; nothing for blank entries and memberships.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Reply(pub(crate) Option<AppliedReply>);

/// Every member with its role, by id.
pub(crate) fn members_of(membership: &StoredMembership) -> Vec<Member> {
    membership
        .nodes()
        .filter_map(|(id, _)| member_of(membership, *id))
        .collect()
}

/// The member of that id with its role, if there is one.
pub(crate) fn member_of(membership: &StoredMembership, id: NodeId) -> Option<Member> {
    let role = match membership.voter_ids().any(|voter| voter == id) {
        true => MemberRole::Voter,
        false => MemberRole::Learner,
    };
    membership.get_node(&id).map(|info| info.member(id, role))
}

pub(crate) fn position(id: &LogId) -> LogPosition {
    LogPosition {
        term: id.leader_id.term,
        index: id.index,
    }
}

pub(crate) fn log_id(position: LogPosition) -> LogId {
    LogId::new_term_index(position.term, position.index)
}

pub(crate) fn hard_vote(vote: &Vote) -> HardVote {
    HardVote {
        term: vote.leader_id.term,
        node: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(crate) fn raft_vote(vote: HardVote) -> Vote {
    match vote.committed {
        true => Vote::new_committed(vote.term, vote.node),
        false => Vote::new(vote.term, vote.node),
    }
}

pub(crate) fn raw_entry(entry: &RaftEntry) -> Result<RawEntry, postcard::Error> {
    let (kind, body) = match &entry.payload {
        Payload::Blank => (EntryKind::Blank, Bytes::new()),
        Payload::Normal(data) => (EntryKind::Command, data.0.clone()),
        Payload::Membership(membership) => (
            EntryKind::Membership,
            postcard::to_stdvec(membership)?.into(),
        ),
    };
    Ok(RawEntry {
        position: position(&entry.log_id),
        kind,
        body,
    })
}

pub(crate) fn raft_entry(entry: RawEntry) -> Result<RaftEntry, postcard::Error> {
    let payload = match entry.kind {
        EntryKind::Blank => Payload::Blank,
        EntryKind::Command => Payload::Normal(LogData(entry.body)),
        EntryKind::Membership => Payload::Membership(postcard::from_bytes(&entry.body)?),
    };
    Ok(RaftEntry {
        log_id: log_id(entry.position),
        payload,
    })
}

/// What stands in the clear part of a snapshot's sealed header, and in the notes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct SnapshotHeader {
    pub(crate) last: Option<LogPosition>,
    pub(crate) membership: MembershipNote,
}

/// A membership and the entry that made it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct MembershipNote {
    pub(crate) at: Option<LogPosition>,
    pub(crate) membership: Membership,
}

impl MembershipNote {
    pub(crate) fn from_stored(stored: &StoredMembership) -> Self {
        Self {
            at: stored.log_id().as_ref().map(position),
            membership: stored.membership().clone(),
        }
    }

    pub(crate) fn into_stored(self) -> StoredMembership {
        StoredMembership::new(self.at.map(log_id), self.membership)
    }
}

impl SnapshotHeader {
    pub(crate) fn into_meta(self) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: self.last.map(log_id),
            last_membership: self.membership.into_stored(),
        }
    }

    pub(crate) fn from_meta(meta: &SnapshotMeta) -> Self {
        Self {
            last: meta.last_log_id.as_ref().map(position),
            membership: MembershipNote::from_stored(&meta.last_membership),
        }
    }
}

#[cfg(test)]
mod tests {
    use nautilus_machine::{Command, Entry, Proposal};

    use super::*;

    #[test]
    fn an_entry_made_of_an_encoded_proposal_is_the_entrys_own_encoding() {
        for time in [0, 127, 128, 1_700_000_000_000, u64::MAX].map(UnixMillis) {
            let proposal = Proposal {
                guard_term: Some(300),
                ..Proposal::new(Command::Compact { revision: 70_000 })
            };
            let encoded = postcard::to_stdvec(&proposal).expect("encoded");
            let whole = postcard::to_stdvec(&Entry { time, proposal }).expect("encoded");
            assert_eq!(encode_entry(time, &encoded), whole);
        }
    }
}
