//! etcd's Cluster service over the quorum's membership.
//!
//! Where the two differ: a member's id is chosen by etcd at random and here it is the
//! next free number, which the operator then starts the node with (`node_id`); and a
//! node is never a voter before it has joined and been judged, so a member that is added
//! as a voter comes in as a learner and [`keep_promises`] promotes it when it is there.
//!
//! Invariant: a voter is removed only where a majority of started voters stays.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nautilus_machine::{
    ClusterError, Command, KeyRange, Member, MemberRole, NewMember, NodeId, Operation, Proposal,
    Put, RangeRequest, Txn,
};
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::access::Wanted;
use crate::context::EtcdContext;
use crate::errors::{self, Fault};
use crate::proto::etcdserverpb::{self as pb, cluster_server::Cluster};
use crate::session::Session;

/// The rows of members that were added as voters and are not yet: the id follows.
const PROMISE_PREFIX: &str = "/nautilus/etcd/promote/";
/// Between two looks at them.
const PROMISE_PERIOD: Duration = Duration::from_secs(1);
/// Attempts to find a free id against others who add members.
const ADD_ATTEMPTS: usize = 4;
/// Bytes of a peer's URL.
const URL_BYTES_MAX: usize = 512;

type Answer<T> = Result<Response<T>, Status>;

/// A member in etcd's words; it has a name once it has joined.
fn to_proto(member: &Member) -> pb::Member {
    let joined = is_started(member);
    pb::Member {
        id: member.id,
        name: if joined {
            format!("nautilus-{}", member.id)
        } else {
            String::new()
        },
        peer_ur_ls: vec![format!("https://{}", member.peer_address)],
        client_ur_ls: Some(member.client_address.clone())
            .filter(|url| joined && !url.is_empty())
            .into_iter()
            .collect(),
        is_learner: member.role == MemberRole::Learner,
    }
}

fn is_started(member: &Member) -> bool {
    !member.api_address.is_empty() || !member.client_address.is_empty()
}

/// `host:port` of the one peer URL, as etcd checks it.
fn peer_address(urls: &[String]) -> Result<String, Fault> {
    let bad = errors::MEMBER_BAD_URLS;
    let [url] = urls else { return Err(bad) };
    let address = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))
        .ok_or(bad)?;
    let (host, port) = address.rsplit_once(':').ok_or(bad)?;
    let host_is_whole = !host.is_empty()
        && !host.contains(['/', '?', '#', '@'])
        && (!host.contains(':') || (host.starts_with('[') && host.ends_with(']')));
    let port_is_one = port.parse::<u16>().is_ok_and(|port| port != 0);
    if host_is_whole && port_is_one && url.len() <= URL_BYTES_MAX {
        Ok(address.to_owned())
    } else {
        Err(bad)
    }
}

/// Whether enough started voters stay when `leaves` goes.
fn may_remove(members: &[Member], leaves: NodeId) -> Result<(), Fault> {
    let member = members.iter().find(|member| member.id == leaves);
    let member = member.ok_or(errors::MEMBER_NOT_FOUND)?;
    if member.role == MemberRole::Learner {
        return Ok(());
    }
    let stay: Vec<&Member> = members
        .iter()
        .filter(|member| member.role == MemberRole::Voter && member.id != leaves)
        .collect();
    let started = stay.iter().filter(|member| is_started(member)).count();
    if stay.is_empty() || started < stay.len() / 2 + 1 {
        return Err(errors::MEMBER_NOT_ENOUGH_STARTED);
    }
    Ok(())
}

/// The quorum could not, or would not.
fn failed(error: &ClusterError, refused: impl FnOnce(&str) -> Status) -> Status {
    match error {
        ClusterError::Invalid(reason) => {
            tracing::info!(%reason, "a change of the membership was refused");
            refused(reason)
        }
        ClusterError::Unavailable(reason) => {
            tracing::warn!(%reason, "a change of the membership failed");
            errors::UNHEALTHY.into()
        }
    }
}

impl Session {
    /// The caller may change the membership, and the members are those of now.
    async fn members_for_change(&self, metadata: &MetadataMap) -> Result<Vec<Member>, Status> {
        self.context
            .access
            .check(self.caller(metadata), Wanted::Root)
            .await?;
        let barrier = self.context.parts.kv.read_barrier().await;
        barrier.map_err(|_| errors::UNHEALTHY)?;
        Ok(self.context.parts.cluster.members())
    }

    /// After a change: this node has applied it, or sees it as far as it can.
    async fn members_after(&self) -> Vec<pb::Member> {
        if let Err(error) = self.context.parts.kv.read_barrier().await {
            tracing::debug!(%error, "members are told as last known");
        }
        self.context
            .parts
            .cluster
            .members()
            .iter()
            .map(to_proto)
            .collect()
    }

    fn header_without_revision(&self) -> Option<pb::ResponseHeader> {
        Some(self.context.header(0))
    }
}

#[tonic::async_trait]
impl Cluster for Session {
    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Answer<pb::MemberAddResponse> {
        let (metadata, _, said) = request.into_parts();
        let peer_address = peer_address(&said.peer_ur_ls)?;
        let cluster = &self.context.parts.cluster;
        let mut refused = Status::from(errors::MEMBER_EXISTS);
        for _ in 0..ADD_ATTEMPTS {
            let members = self.members_for_change(&metadata).await?;
            if members
                .iter()
                .any(|member| member.peer_address == peer_address)
            {
                return Err(errors::PEER_URL_EXISTS.into());
            }
            let id = members.iter().map(|member| member.id).max().unwrap_or(0) + 1;
            let new = NewMember {
                id,
                peer_address: peer_address.clone(),
            };
            match cluster.add(new).await {
                Ok(()) => {
                    if !said.is_learner {
                        promise(&self.context, id).await?;
                    }
                    let members = self.members_after().await;
                    let member = members.iter().find(|member| member.id == id).cloned();
                    return Ok(Response::new(pb::MemberAddResponse {
                        header: self.header_without_revision(),
                        member,
                        members,
                    }));
                }
                Err(error) => {
                    refused = failed(&error, |reason| {
                        Status::failed_precondition(format!("etcdserver: {reason}"))
                    });
                    if matches!(error, ClusterError::Unavailable(_)) {
                        return Err(refused);
                    }
                }
            }
        }
        Err(refused)
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Answer<pb::MemberRemoveResponse> {
        let id = request.get_ref().id;
        let members = self.members_for_change(request.metadata()).await?;
        may_remove(&members, id)?;
        let removed = self.context.parts.cluster.remove(id).await;
        removed.map_err(|error| failed(&error, |_| errors::MEMBER_NOT_ENOUGH_STARTED.into()))?;
        forget_promise(&self.context, promise_key(id)).await;
        Ok(Response::new(pb::MemberRemoveResponse {
            header: self.header_without_revision(),
            members: self.members_after().await,
        }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Answer<pb::MemberUpdateResponse> {
        let id = request.get_ref().id;
        let peer_address = peer_address(&request.get_ref().peer_ur_ls)?;
        let members = self.members_for_change(request.metadata()).await?;
        if !members.iter().any(|member| member.id == id) {
            return Err(errors::MEMBER_NOT_FOUND.into());
        }
        let taken = |member: &Member| member.id != id && member.peer_address == peer_address;
        if members.iter().any(taken) {
            return Err(errors::PEER_URL_EXISTS.into());
        }
        let updated = self.context.parts.cluster.update(id, peer_address).await;
        updated.map_err(|error| failed(&error, |_| errors::MEMBER_NOT_FOUND.into()))?;
        Ok(Response::new(pb::MemberUpdateResponse {
            header: self.header_without_revision(),
            members: self.members_after().await,
        }))
    }

    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Answer<pb::MemberListResponse> {
        if request.get_ref().linearizable {
            let barrier = self.context.parts.kv.read_barrier().await;
            barrier.map_err(|error| errors::not_confirmed(&error))?;
        }
        let caller = self.caller(request.metadata());
        self.context
            .access
            .check(caller, Wanted::Authenticated)
            .await?;
        let members = self.context.parts.cluster.members();
        Ok(Response::new(pb::MemberListResponse {
            header: self.header_without_revision(),
            members: members.iter().map(to_proto).collect(),
        }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Answer<pb::MemberPromoteResponse> {
        let id = request.get_ref().id;
        let members = self.members_for_change(request.metadata()).await?;
        let member = members.iter().find(|member| member.id == id);
        let member = member.ok_or(errors::MEMBER_NOT_FOUND)?;
        if member.role == MemberRole::Voter {
            return Err(errors::MEMBER_NOT_LEARNER.into());
        }
        if !is_started(member) {
            return Err(errors::LEARNER_NOT_READY.into());
        }
        let promoted = self.context.parts.cluster.promote(id).await;
        promoted.map_err(|error| failed(&error, |_| errors::LEARNER_NOT_READY.into()))?;
        Ok(Response::new(pb::MemberPromoteResponse {
            header: self.header_without_revision(),
            members: self.members_after().await,
        }))
    }
}

/// Made once the member is there: a promise to nobody is forgotten.
async fn promise(context: &EtcdContext, id: NodeId) -> Result<(), Status> {
    let put = Put::new(promise_key(id), Bytes::new());
    write(context, Operation::Put(put)).await
}

fn promise_key(id: NodeId) -> Bytes {
    format!("{PROMISE_PREFIX}{id}").into()
}

async fn forget_promise(context: &EtcdContext, key: Bytes) {
    let forget = Operation::Delete {
        range: KeyRange::single(key),
        prev_kv: false,
    };
    if let Err(error) = write(context, forget).await {
        tracing::debug!(%error, "a promise is forgotten later");
    }
}

async fn write(context: &EtcdContext, operation: Operation) -> Result<(), Status> {
    let txn = Txn {
        then: vec![operation],
        ..Txn::default()
    };
    let proposed = context
        .parts
        .kv
        .propose(Proposal::new(Command::Txn(txn)))
        .await;
    proposed
        .map(|_| ())
        .map_err(|error| errors::not_proposed(&error))
}

/// Promotes members that were added as voters once they have joined and caught up,
/// whenever this node leads, until `stop`.
pub(crate) async fn keep_promises(context: Arc<EtcdContext>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PROMISE_PERIOD) => {}
        }
        if !context.parts.kv.leadership().is_self {
            continue;
        }
        let promised = context.parts.kv.range(&RangeRequest {
            keys_only: true,
            ..RangeRequest::newest(KeyRange::prefix(PROMISE_PREFIX))
        });
        let rows = match promised {
            Ok(promised) => promised.kvs,
            Err(error) => {
                tracing::warn!(%error, "promised promotions can't be read");
                continue;
            }
        };
        for row in rows {
            keep_promise(&context, row.key).await;
        }
    }
}

async fn keep_promise(context: &EtcdContext, key: Bytes) {
    let id = std::str::from_utf8(&key)
        .ok()
        .and_then(|key| key.strip_prefix(PROMISE_PREFIX)?.parse::<NodeId>().ok());
    let members = context.parts.cluster.members();
    let member = members.iter().find(|member| Some(member.id) == id);
    let kept = match member {
        Some(member) if member.role == MemberRole::Learner => {
            if !is_started(member) {
                return;
            }
            context
                .parts
                .cluster
                .promote(member.id)
                .await
                .map_err(|error| error.to_string())
        }
        _ => Ok(()),
    };
    if let Err(error) = kept {
        tracing::info!(?id, %error, "a member that was added as a voter is not promoted yet");
        return;
    }
    forget_promise(context, key).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: NodeId, role: MemberRole, started: bool) -> Member {
        Member {
            id,
            peer_address: format!("10.0.0.{id}:2380"),
            api_address: if started {
                "https://x".to_owned()
            } else {
                String::new()
            },
            role,
            ..Member::default()
        }
    }

    #[test]
    fn a_peers_url_has_a_scheme_a_host_and_a_port_and_nothing_else() {
        let of = |url: &str| peer_address(&[url.to_owned()]);
        assert_eq!(of("https://10.0.0.1:2380").as_deref(), Ok("10.0.0.1:2380"));
        assert_eq!(of("http://[::1]:2380").as_deref(), Ok("[::1]:2380"));
        for bad in [
            "10.0.0.1:2380",
            "https://10.0.0.1",
            "https://a:1/path",
            "https://:2380",
            "https://a:0",
            "https://a/b:1",
            "ftp://a:1",
            "https://::1:2380",
        ] {
            assert_eq!(of(bad), Err(errors::MEMBER_BAD_URLS), "{bad}");
        }
        assert_eq!(peer_address(&[]), Err(errors::MEMBER_BAD_URLS));
    }

    #[test]
    fn a_voter_goes_only_where_a_started_majority_stays() {
        use MemberRole::{Learner, Voter};
        let three = [
            member(1, Voter, true),
            member(2, Voter, true),
            member(3, Voter, true),
        ];
        assert_eq!(may_remove(&three, 3), Ok(()));
        assert_eq!(
            may_remove(&three[..1], 1),
            Err(errors::MEMBER_NOT_ENOUGH_STARTED)
        );
        let half = [
            member(1, Voter, true),
            member(2, Voter, false),
            member(3, Voter, true),
        ];
        assert_eq!(may_remove(&half, 3), Err(errors::MEMBER_NOT_ENOUGH_STARTED));
        assert_eq!(may_remove(&half, 2), Ok(()));
        let learner = [member(1, Voter, true), member(2, Learner, false)];
        assert_eq!(may_remove(&learner, 2), Ok(()));
        assert_eq!(may_remove(&learner, 9), Err(errors::MEMBER_NOT_FOUND));
    }

    #[test]
    fn a_member_has_a_name_once_it_has_joined() {
        let new = to_proto(&member(4, MemberRole::Learner, false));
        assert_eq!((new.name.as_str(), new.is_learner), ("", true));
        assert_eq!(new.peer_ur_ls, ["https://10.0.0.4:2380"]);
        assert_eq!(
            to_proto(&member(1, MemberRole::Voter, true)).name,
            "nautilus-1"
        );
    }
}
