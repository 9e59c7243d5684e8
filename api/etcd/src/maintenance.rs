//! etcd's Maintenance service over this node's store.
//!
//! A snapshot is the quorum's sealed one, not a database file of etcd's. Its stream has
//! the form that `etcdctl snapshot save` checks: padded with zeros to a multiple of 512
//! bytes, then the SHA-256 of all before. The sealed file says itself where it ends.

use std::time::Duration;

use aws_lc_rs::digest::{self, SHA256};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use nautilus_machine::{ClusterError, MaintenanceError, MemberRole, Revision, SnapshotStream};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::access::Wanted;
use crate::alarms;
use crate::errors::{self, Fault};
use crate::http::{CLUSTER_VERSION, ETCD_VERSION};
use crate::proto::etcdserverpb::{self as pb, maintenance_server::Maintenance};
use crate::session::Session;

/// What a snapshot's length is a multiple of, its checksum apart.
const SNAPSHOT_BLOCK_BYTES: u64 = 512;
/// Bytes of a snapshot's message.
const SNAPSHOT_PIECE_BYTES: usize = 256 * 1024;
/// How long a transfer of leadership is waited for.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(7);

type Answer<T> = Result<Response<T>, Status>;

impl Session {
    async fn root(&self, metadata: &MetadataMap) -> Result<(), Status> {
        self.context
            .access
            .check(self.caller(metadata), Wanted::Root)
            .await?;
        Ok(())
    }

    async fn user(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let caller = self.caller(metadata);
        self.context
            .access
            .check(caller, Wanted::Authenticated)
            .await?;
        Ok(())
    }

    fn header_now(&self) -> Option<pb::ResponseHeader> {
        Some(self.context.header_now())
    }

    async fn hash_at(&self, revision: Option<Revision>) -> Result<pb::HashKvResponse, Status> {
        let hashed = self.context.parts.maintenance.hash_kv(revision).await;
        let hashed = hashed.map_err(|error| errors::not_read(&error))?;
        Ok(pb::HashKvResponse {
            header: Some(self.context.header(hashed.current)),
            hash: hashed.hash,
            compact_revision: signed(hashed.compacted),
            hash_revision: signed(hashed.revision),
        })
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn failed(error: &MaintenanceError) -> Status {
    Status::unknown(format!("etcdserver: {error}"))
}

/// An alarm as `etcdctl endpoint status` prints it.
fn in_words(alarm: pb::AlarmMember) -> String {
    format!(
        "memberID:{} alarm:{} ",
        alarm.member_id,
        alarm.alarm().as_str_name()
    )
}

#[tonic::async_trait]
impl Maintenance for Session {
    type SnapshotStream =
        futures_util::stream::BoxStream<'static, Result<pb::SnapshotResponse, Status>>;

    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Answer<pb::AlarmResponse> {
        use pb::alarm_request::AlarmAction;
        let (metadata, _, said) = request.into_parts();
        let alarm = pb::AlarmMember {
            member_id: said.member_id,
            alarm: said.alarm,
        };
        let kind = pb::AlarmType::try_from(said.alarm).map_err(|_| unknown_method())?;
        let action = AlarmAction::try_from(said.action).map_err(|_| unknown_method())?;
        let kv = &self.context.parts.kv;
        if action == AlarmAction::Get {
            self.user(&metadata).await?;
        } else {
            self.root(&metadata).await?;
        }
        let barrier = kv.read_barrier().await;
        barrier.map_err(|error| errors::not_confirmed(&error))?;
        let mut present = alarms::list(&**kv).map_err(|error| errors::not_read(&error))?;
        let chosen = match action {
            AlarmAction::Get => {
                present.retain(|one| kind == pb::AlarmType::None || one.alarm() == kind);
                present
            }
            AlarmAction::Activate if kind == pb::AlarmType::None => Vec::new(),
            AlarmAction::Activate => {
                alarms::set(&self.context, alarm, true).await?;
                vec![alarm]
            }
            AlarmAction::Deactivate if present.contains(&alarm) => {
                alarms::set(&self.context, alarm, false).await?;
                vec![alarm]
            }
            AlarmAction::Deactivate => Vec::new(),
        };
        Ok(Response::new(pb::AlarmResponse {
            header: self.header_now(),
            alarms: chosen,
        }))
    }

    async fn status(&self, request: Request<pb::StatusRequest>) -> Answer<pb::StatusResponse> {
        self.user(request.metadata()).await?;
        let parts = &self.context.parts;
        let status = parts.cluster.status();
        let sizes = parts.maintenance.sizes();
        let leader = parts.kv.leadership().leader.map_or(0, |leader| leader.id);
        let members = parts.cluster.members();
        let own = members.iter().find(|member| member.id == parts.node_id);
        let mut faults = Vec::new();
        if leader == 0 {
            faults.push(errors::NO_LEADER.message.to_owned());
        }
        let alarms = alarms::list(&*parts.kv).map_err(|error| errors::not_read(&error))?;
        faults.extend(alarms.into_iter().map(in_words));
        Ok(Response::new(pb::StatusResponse {
            header: self.header_now(),
            version: ETCD_VERSION.to_owned(),
            db_size: signed(sizes.total_bytes),
            leader,
            raft_index: status.last_log.index,
            raft_term: status.term,
            raft_applied_index: status.applied.index,
            errors: faults,
            db_size_in_use: signed(sizes.in_use_bytes),
            is_learner: own.is_some_and(|member| member.role == MemberRole::Learner),
            storage_version: CLUSTER_VERSION.to_owned(),
            db_size_quota: parts.limits.quota_bytes.map_or(0, signed),
            downgrade_info: Some(pb::DowngradeInfo::default()),
        }))
    }

    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Answer<pb::DefragmentResponse> {
        self.root(request.metadata()).await?;
        let done = self.context.parts.maintenance.defragment().await;
        done.map_err(|error| failed(&error))?;
        Ok(Response::new(pb::DefragmentResponse {
            header: self.header_now(),
        }))
    }

    async fn hash(&self, request: Request<pb::HashRequest>) -> Answer<pb::HashResponse> {
        self.root(request.metadata()).await?;
        let hashed = self.hash_at(None).await?;
        Ok(Response::new(pb::HashResponse {
            header: hashed.header,
            hash: hashed.hash,
        }))
    }

    async fn hash_kv(&self, request: Request<pb::HashKvRequest>) -> Answer<pb::HashKvResponse> {
        self.root(request.metadata()).await?;
        let said = request.get_ref().revision;
        let revision = u64::try_from(said).map_err(|_| errors::COMPACTED)?;
        let revision = Some(revision).filter(|revision| *revision != 0);
        Ok(Response::new(self.hash_at(revision).await?))
    }

    async fn snapshot(
        &self,
        request: Request<pb::SnapshotRequest>,
    ) -> Answer<Self::SnapshotStream> {
        self.root(request.metadata()).await?;
        let maintenance = &self.context.parts.maintenance;
        let estimate_bytes = maintenance.sizes().total_bytes;
        let sealed = maintenance
            .snapshot()
            .await
            .map_err(|error| failed(&error))?;
        Ok(Response::new(framed(sealed, estimate_bytes).boxed()))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Answer<pb::MoveLeaderResponse> {
        self.root(request.metadata()).await?;
        let parts = &self.context.parts;
        if !parts.kv.leadership().is_self {
            return Err(errors::NOT_LEADER.into());
        }
        let target = request.get_ref().target_id;
        let is_voter = parts
            .cluster
            .members()
            .iter()
            .any(|member| member.id == target && member.role == MemberRole::Voter);
        if !is_voter {
            return Err(errors::BAD_LEADER_TRANSFEREE.into());
        }
        let moved = tokio::time::timeout(TRANSFER_TIMEOUT, parts.cluster.transfer(target)).await;
        match moved {
            Ok(Ok(())) => Ok(Response::new(pb::MoveLeaderResponse {
                header: self.header_now(),
            })),
            Ok(Err(ClusterError::Invalid(reason))) => {
                tracing::info!(%reason, "leadership was not transferred");
                Err(errors::BAD_LEADER_TRANSFEREE.into())
            }
            Ok(Err(ClusterError::Unavailable(_))) | Err(_) => {
                Err(errors::TIMEOUT_LEADER_TRANSFER.into())
            }
        }
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Answer<pb::DowngradeResponse> {
        use pb::downgrade_request::DowngradeAction;
        self.root(request.metadata()).await?;
        let said = request.get_ref();
        match DowngradeAction::try_from(said.action) {
            Ok(DowngradeAction::Validate | DowngradeAction::Enable) => {
                Err(downgrade_fault(&said.version).into())
            }
            // As in etcd: cancelling nothing is no error.
            Ok(DowngradeAction::Cancel) => Ok(Response::new(pb::DowngradeResponse {
                header: self.header_now(),
                version: cluster_minor().to_owned(),
            })),
            Err(_) => Err(unknown_method()),
        }
    }
}

fn unknown_method() -> Status {
    Status::unknown("etcdserver: unknown method")
}

/// The agreed version without its patch number.
fn cluster_minor() -> &'static str {
    CLUSTER_VERSION
        .rsplit_once('.')
        .map_or(CLUSTER_VERSION, |(minor, _)| minor)
}

/// There is no version to go back to; a version must be one all the same.
fn downgrade_fault(version: &str) -> Fault {
    let mut parts = 0;
    let numbers = version.split('.').all(|part| {
        parts += 1;
        part.parse::<u32>().is_ok()
    });
    if numbers && (2..=3).contains(&parts) {
        errors::INVALID_DOWNGRADE_TARGET
    } else {
        errors::WRONG_DOWNGRADE_VERSION
    }
}

/// The stream of a snapshot: pieces, padding, checksum.
fn framed(
    sealed: SnapshotStream,
    estimate_bytes: u64,
) -> impl Stream<Item = Result<pb::SnapshotResponse, Status>> + Send {
    let frame = Frame {
        sealed,
        rest: BytesMut::new(),
        hash: digest::Context::new(&SHA256),
        sent_bytes: 0,
        estimate_bytes,
        phase: Phase::Pieces,
    };
    futures_util::stream::unfold(frame, |mut frame| async move {
        let message = frame.next().await?;
        Some((message, frame))
    })
}

enum Phase {
    Pieces,
    Checksum,
    Done,
}

struct Frame {
    sealed: SnapshotStream,
    rest: BytesMut,
    hash: digest::Context,
    sent_bytes: u64,
    estimate_bytes: u64,
    phase: Phase,
}

impl Frame {
    async fn next(&mut self) -> Option<Result<pb::SnapshotResponse, Status>> {
        match self.phase {
            Phase::Pieces => {
                while self.rest.len() < SNAPSHOT_PIECE_BYTES {
                    match self.sealed.next().await {
                        Some(Ok(piece)) => self.rest.extend_from_slice(&piece),
                        Some(Err(error)) => {
                            self.phase = Phase::Done;
                            return Some(Err(failed(&error)));
                        }
                        None => return Some(Ok(self.last_piece())),
                    }
                }
                let piece = self.rest.split_to(SNAPSHOT_PIECE_BYTES).freeze();
                Some(Ok(self.piece(piece)))
            }
            Phase::Checksum => {
                self.phase = Phase::Done;
                let sum = self.hash.clone().finish();
                Some(Ok(response(Bytes::copy_from_slice(sum.as_ref()), 0)))
            }
            Phase::Done => None,
        }
    }

    fn last_piece(&mut self) -> pb::SnapshotResponse {
        // The pieces before are whole blocks.
        let mut last = std::mem::take(&mut self.rest);
        let block = usize::try_from(SNAPSHOT_BLOCK_BYTES).unwrap_or(usize::MAX);
        last.resize(last.len().next_multiple_of(block), 0);
        self.phase = Phase::Checksum;
        let mut message = self.piece(last.freeze());
        message.remaining_bytes = 0;
        message
    }

    fn piece(&mut self, piece: Bytes) -> pb::SnapshotResponse {
        self.hash.update(&piece);
        self.sent_bytes += piece.len() as u64;
        // How much is to come is known only as well as the store's size tells.
        let remaining = self.estimate_bytes.saturating_sub(self.sent_bytes).max(1);
        response(piece, remaining)
    }
}

fn response(blob: Bytes, remaining_bytes: u64) -> pb::SnapshotResponse {
    pb::SnapshotResponse {
        header: None,
        remaining_bytes,
        blob,
        version: CLUSTER_VERSION.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn received(lengths: &[usize]) -> Vec<u8> {
        let pieces: Vec<_> = lengths
            .iter()
            .map(|length| Ok(Bytes::from(vec![7; *length])))
            .collect();
        let sealed = futures_util::stream::iter(pieces).boxed();
        let messages: Vec<_> = framed(sealed, 1_000_000).collect().await;
        let last = messages.len() - 1;
        let mut all = Vec::new();
        for (at, message) in messages.into_iter().enumerate() {
            let message = message.expect("a piece");
            assert_eq!(message.remaining_bytes == 0, at + 1 >= last, "message {at}");
            all.extend_from_slice(&message.blob);
        }
        all
    }

    #[tokio::test]
    async fn a_snapshot_is_padded_and_ends_with_its_checksum() {
        for lengths in [&[1_000_000, 3][..], &[512], &[SNAPSHOT_PIECE_BYTES], &[]] {
            let all = received(lengths).await;
            assert_eq!(all.len() % 512, 32, "{lengths:?}");
            let (content, sum) = all.split_at(all.len() - 32);
            assert_eq!(digest::digest(&SHA256, content).as_ref(), sum);
            let sealed: usize = lengths.iter().sum();
            assert!(content[..sealed].iter().all(|byte| *byte == 7));
            assert!(content[sealed..].iter().all(|byte| *byte == 0));
        }
    }

    #[tokio::test]
    async fn a_snapshot_that_fails_has_no_checksum() {
        let pieces = [
            Ok(Bytes::from_static(b"a")),
            Err(MaintenanceError("broken".into())),
        ];
        let sealed = futures_util::stream::iter(pieces).boxed();
        let messages: Vec<_> = framed(sealed, 0).collect().await;
        assert_eq!(messages.len(), 1);
        assert!(messages[0].is_err());
    }

    #[test]
    fn there_is_nothing_to_downgrade_to() {
        assert_eq!(downgrade_fault("3.5"), errors::INVALID_DOWNGRADE_TARGET);
        assert_eq!(downgrade_fault("3.5.0"), errors::INVALID_DOWNGRADE_TARGET);
        for malformed in ["", "3", "v3.5", "3.5.0.1", "3.x"] {
            assert_eq!(
                downgrade_fault(malformed),
                errors::WRONG_DOWNGRADE_VERSION,
                "{malformed}"
            );
        }
    }
}
