//! Alarms: rows of the store that say what is wrong with which member, and what of it
//! every request looks at.
//!
//! Invariants
//! - Looking is an atomic load; the rows are followed by [`follow`], so that an alarm
//!   raised on one member is in force on all.
//! - An alarm ends only when an operator disarms it, as in etcd.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nautilus_machine::{
    Command, KeyRange, Kv, NodeId, Operation, Proposal, Put, RangeError, RangeRequest, Txn,
    WatchRequest,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::context::EtcdContext;
use crate::errors;
use crate::proto::etcdserverpb::{AlarmMember, AlarmType};

/// The rows: the member in 16 hexadecimal digits and the alarm's name follow.
const PREFIX: &str = "/nautilus/etcd/alarm/";
/// Between two looks at the store's size. What is written in between is how far a store
/// can grow beyond its quota.
const QUOTA_PERIOD: Duration = Duration::from_millis(500);
/// Pause before alarms are followed anew after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Whether NOSPACE or CORRUPT is in force anywhere in the quorum.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    no_space: AtomicBool,
    corrupt: AtomicBool,
}

impl Alarms {
    /// Refuses whatever adds to the store while NOSPACE is in force, and everything
    /// while CORRUPT is.
    pub(crate) fn may_grow(&self) -> Result<(), Status> {
        self.may_serve()?;
        if self.no_space.load(Ordering::Relaxed) {
            return Err(errors::NO_SPACE.into());
        }
        Ok(())
    }

    /// Refuses everything while CORRUPT is in force.
    pub(crate) fn may_serve(&self) -> Result<(), Status> {
        if self.corrupt.load(Ordering::Relaxed) {
            return Err(errors::CORRUPT.into());
        }
        Ok(())
    }

    fn note(&self, members: &[AlarmMember]) {
        let any = |kind: AlarmType| members.iter().any(|member| member.alarm() == kind);
        self.no_space
            .store(any(AlarmType::Nospace), Ordering::Relaxed);
        self.corrupt
            .store(any(AlarmType::Corrupt), Ordering::Relaxed);
    }
}

/// The alarms as this node has applied them, by member.
pub(crate) fn list(kv: &dyn Kv) -> Result<Vec<AlarmMember>, RangeError> {
    let rows = kv.range(&RangeRequest {
        keys_only: true,
        ..RangeRequest::newest(KeyRange::prefix(PREFIX))
    })?;
    Ok(rows
        .kvs
        .iter()
        .filter_map(|row| member_of(&row.key))
        .collect())
}

/// Raises an alarm of a member, or disarms it.
pub(crate) async fn set(
    context: &EtcdContext,
    alarm: AlarmMember,
    raised: bool,
) -> Result<(), Status> {
    let key = key_of(alarm);
    let operation = if raised {
        Operation::Put(Put::new(key, Bytes::new()))
    } else {
        Operation::Delete {
            range: KeyRange::single(key),
            prev_kv: false,
        }
    };
    let txn = Txn {
        then: vec![operation],
        ..Txn::default()
    };
    let proposed = context
        .parts
        .kv
        .propose(Proposal::new(Command::Txn(txn)))
        .await;
    proposed.map_err(|error| errors::not_proposed(&error))?;
    tracing::warn!(
        member = alarm.member_id,
        alarm = alarm.alarm().as_str_name(),
        raised,
        "an alarm was changed"
    );
    refresh(context).map_err(|error| errors::not_read(&error))
}

fn refresh(context: &EtcdContext) -> Result<(), RangeError> {
    let members = list(&*context.parts.kv)?;
    metrics::gauge!("nautilus_etcd_alarms")
        .set(f64::from(u32::try_from(members.len()).unwrap_or(u32::MAX)));
    context.alarms.note(&members);
    Ok(())
}

/// Keeps what requests look at in step with the rows, until `stop`.
pub(crate) async fn follow(context: Arc<EtcdContext>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let followed = tokio::select! {
            () = stop.cancelled() => return,
            followed = follow_once(&context) => followed,
        };
        tracing::debug!(reason = %followed, "alarms are followed anew");
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Ends with the reason.
async fn follow_once(context: &EtcdContext) -> String {
    let request = WatchRequest {
        range: KeyRange::prefix(PREFIX),
        from: None,
        previous: false,
    };
    let mut watch = match context.parts.kv.watch(request) {
        Ok(watch) => watch,
        Err(error) => return error.to_string(),
    };
    loop {
        if let Err(error) = refresh(context) {
            return error.to_string();
        }
        if let Err(error) = watch.next().await {
            return error.to_string();
        }
    }
}

/// Raises NOSPACE for this node when its store is larger than the quota, until `stop`.
pub(crate) async fn keep_quota(context: Arc<EtcdContext>, stop: CancellationToken) {
    let Some(quota_bytes) = context.parts.limits.quota_bytes else {
        return;
    };
    let alarm = AlarmMember {
        member_id: context.parts.node_id,
        alarm: AlarmType::Nospace.into(),
    };
    let key = KeyRange::single(key_of(alarm));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(QUOTA_PERIOD) => {}
        }
        let total_bytes = context.parts.maintenance.sizes().total_bytes;
        if total_bytes <= quota_bytes {
            continue;
        }
        let raised = context.parts.kv.range(&RangeRequest {
            count_only: true,
            ..RangeRequest::newest(key.clone())
        });
        if raised.is_ok_and(|rows| rows.count > 0) {
            continue;
        }
        tracing::error!(
            total_bytes,
            quota_bytes,
            "the store is larger than its quota: writes are refused until it is compacted and defragmented and the alarm is disarmed"
        );
        if let Err(error) = set(&context, alarm, true).await {
            tracing::warn!(%error, "NOSPACE could not be raised");
        }
    }
}

/// The key of an alarm's row.
fn key_of(alarm: AlarmMember) -> Bytes {
    let AlarmMember { member_id, .. } = alarm;
    let name = alarm.alarm().as_str_name();
    format!("{PREFIX}{member_id:016x}/{name}").into()
}

fn member_of(key: &[u8]) -> Option<AlarmMember> {
    let rest = std::str::from_utf8(key).ok()?.strip_prefix(PREFIX)?;
    let (member, name) = rest.split_once('/')?;
    Some(AlarmMember {
        member_id: NodeId::from_str_radix(member, 16).ok()?,
        alarm: AlarmType::from_str_name(name)?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rows_key_says_its_alarm() {
        let alarm = AlarmMember {
            member_id: 0xdead_beef,
            alarm: AlarmType::Corrupt.into(),
        };
        assert_eq!(
            key_of(alarm),
            "/nautilus/etcd/alarm/00000000deadbeef/CORRUPT"
        );
        assert_eq!(member_of(&key_of(alarm)), Some(alarm));
        assert_eq!(member_of(b"/nautilus/etcd/alarm/zz/CORRUPT"), None);
    }

    #[test]
    fn no_space_stops_growth_and_corruption_everything() {
        let alarms = Alarms::default();
        let raised = |kind: AlarmType| AlarmMember {
            member_id: 1,
            alarm: kind.into(),
        };
        assert!(alarms.may_grow().is_ok());
        alarms.note(&[raised(AlarmType::Nospace)]);
        assert!(alarms.may_grow().is_err() && alarms.may_serve().is_ok());
        alarms.note(&[raised(AlarmType::Corrupt)]);
        assert!(alarms.may_grow().is_err() && alarms.may_serve().is_err());
        alarms.note(&[]);
        assert!(alarms.may_grow().is_ok());
    }
}
