//! What of a range request the key space does not do itself: order, bounds on revisions,
//! and the limit when it comes after them (etcd `server/etcdserver/txn/range.go`).

use std::cmp::Ordering;

use bytes::Bytes;
use nautilus_machine::{KeyValue, RangeRequest, RangeResponse};
use tonic::Status;

use crate::convert::{key_range, key_value, revision, signed};
use crate::errors;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::range_request::{SortOrder, SortTarget};

/// What is left to do with the keys found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    target: SortTarget,
    order: SortOrder,
    /// 0: none. Only used when the keys are sorted or filtered here.
    limit: usize,
    min_mod_revision: i64,
    max_mod_revision: i64,
    min_create_revision: i64,
    max_create_revision: i64,
    /// The values were read for the sake of their order alone.
    drop_values: bool,
    plain: bool,
}

impl Shape {
    /// The read of the key space that answers `request`, and what is left to do then.
    pub(crate) fn of(request: pb::RangeRequest) -> Result<(RangeRequest, Self), Status> {
        let invalid = |_| Status::from(errors::INVALID_SORT_OPTION);
        let target = SortTarget::try_from(request.sort_target).map_err(invalid)?;
        let asked = SortOrder::try_from(request.sort_order).map_err(invalid)?;
        let order = match (target, asked) {
            (SortTarget::Key, SortOrder::Ascend) => SortOrder::None,
            (SortTarget::Key, order) => order,
            (_, SortOrder::None) => SortOrder::Ascend,
            (_, order) => order,
        };
        let filtered = request.min_mod_revision != 0
            || request.max_mod_revision != 0
            || request.min_create_revision != 0
            || request.max_create_revision != 0;
        let limit = usize::try_from(request.limit).unwrap_or(0);
        // With no order asked, the limit counts in key order even if a target is named.
        let limited_below = asked == SortOrder::None || order == SortOrder::None;
        let limited_below = limited_below && !filtered;
        let by_value = target == SortTarget::Value && order != SortOrder::None;
        let shape = Self {
            target,
            order,
            limit: if limited_below { 0 } else { limit },
            min_mod_revision: request.min_mod_revision,
            max_mod_revision: request.max_mod_revision,
            min_create_revision: request.min_create_revision,
            max_create_revision: request.max_create_revision,
            drop_values: request.keys_only && by_value,
            plain: order == SortOrder::None && !filtered,
        };
        let read = RangeRequest {
            range: key_range(request.key, request.range_end)?,
            revision: revision(request.revision),
            limit: (limited_below && limit != 0).then_some(limit as u64),
            keys_only: request.keys_only && !by_value,
            count_only: request.count_only,
        };
        Ok((read, shape))
    }

    /// The answer, without its header.
    pub(crate) fn finish(self, mut found: RangeResponse) -> pb::RangeResponse {
        let mut more = found.more;
        if !self.plain {
            found.kvs.retain(|kv| self.wants(kv));
            self.sort(&mut found.kvs);
            if self.limit != 0 && found.kvs.len() > self.limit {
                found.kvs.truncate(self.limit);
                more = true;
            }
            if self.drop_values {
                for kv in &mut found.kvs {
                    kv.value = Bytes::new();
                }
            }
        }
        pb::RangeResponse {
            header: None,
            kvs: found.kvs.into_iter().map(key_value).collect(),
            more,
            count: signed(found.count),
        }
    }

    /// Whether order or filters are asked for.
    pub(crate) fn is_plain(&self) -> bool {
        self.plain
    }

    fn wants(&self, kv: &KeyValue) -> bool {
        let within = |number: u64, min: i64, max: i64| {
            let number = signed(number);
            (min == 0 || number >= min) && (max == 0 || number <= max)
        };
        within(
            kv.mod_revision,
            self.min_mod_revision,
            self.max_mod_revision,
        ) && within(
            kv.create_revision,
            self.min_create_revision,
            self.max_create_revision,
        )
    }

    fn sort(&self, kvs: &mut [KeyValue]) {
        let compare: fn(&KeyValue, &KeyValue) -> Ordering = match self.target {
            SortTarget::Key => |a, b| a.key.cmp(&b.key),
            SortTarget::Version => |a, b| a.version.cmp(&b.version),
            SortTarget::Create => |a, b| a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => |a, b| a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => |a, b| a.value.cmp(&b.value),
        };
        match self.order {
            SortOrder::None => {}
            SortOrder::Ascend => kvs.sort_by(compare),
            SortOrder::Descend => kvs.sort_by(|a, b| compare(b, a)),
        }
    }
}
