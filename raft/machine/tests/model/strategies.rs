//! Random commands.

use bytes::Bytes;
use nautilus_machine::{
    Command, Compare, CompareOp, CompareTarget, KeyRange, KeyValue, LeaseId, Operation, Put,
    RangeRequest, Txn,
};
use proptest::prelude::*;

const KEYS: u8 = 6;
const LEASES: i64 = 3;

fn key(number: u8) -> Bytes {
    Bytes::from(format!("k{number}"))
}

pub(crate) fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        (0..KEYS).prop_map(|n| KeyRange::single(key(n))),
        (0..KEYS, 0..KEYS).prop_map(|(a, b)| KeyRange::span(key(a), key(b))),
        Just(KeyRange::prefix("k")),
    ]
}

fn put() -> impl Strategy<Value = Put> {
    let flags = (any::<bool>(), 0..8u8, 0..8u8);
    (
        0..KEYS,
        0..4u8,
        proptest::option::weighted(0.4, 1..=LEASES),
        flags,
    )
        .prop_map(
            |(number, value, lease, (prev_kv, keep_value, keep_lease))| {
                let (ignore_value, ignore_lease) = (keep_value == 0, keep_lease == 0);
                Put {
                    key: key(number),
                    value: if ignore_value {
                        Bytes::new()
                    } else {
                        Bytes::from(vec![b'v', value])
                    },
                    lease: lease.filter(|_| !ignore_lease).map(LeaseId),
                    prev_kv,
                    ignore_value,
                    ignore_lease,
                }
            },
        )
}

pub(crate) fn request() -> impl Strategy<Value = RangeRequest> {
    let options = (any::<bool>(), 0..4u8, proptest::option::of(0..4u64));
    (range(), proptest::option::weighted(0.3, 0..25u64), options).prop_map(
        |(range, revision, (keys_only, count_only, limit))| RangeRequest {
            range,
            revision,
            limit,
            keys_only,
            count_only: count_only == 0,
        },
    )
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => put().prop_map(Operation::Put),
        2 => (range(), any::<bool>())
            .prop_map(|(range, prev_kv)| Operation::Delete { range, prev_kv }),
        1 => request().prop_map(Operation::Range),
    ]
}

fn txn() -> impl Strategy<Value = Txn> {
    let flat = (
        proptest::collection::vec(compare(), 0..2),
        proptest::collection::vec(operation(), 0..4),
        proptest::collection::vec(operation(), 0..3),
    );
    let flat = flat.prop_map(|(compare, then, otherwise)| Txn {
        compare,
        then,
        otherwise,
    });
    flat.prop_recursive(3, 12, 2, |inner| {
        let operations = || {
            let one = prop_oneof![
                2 => operation(),
                1 => inner.clone().prop_map(Operation::Txn),
            ];
            proptest::collection::vec(one, 0..3)
        };
        let compares = proptest::collection::vec(compare(), 0..2);
        (compares, operations(), operations()).prop_map(|(compare, then, otherwise)| Txn {
            compare,
            then,
            otherwise,
        })
    })
}

fn compare() -> impl Strategy<Value = Compare> {
    let target = prop_oneof![
        (0..4u64).prop_map(CompareTarget::Version),
        (0..12u64).prop_map(CompareTarget::CreateRevision),
        (0..12u64).prop_map(CompareTarget::ModRevision),
        (0..4u8).prop_map(|v| CompareTarget::Value(Bytes::from(vec![b'v', v]))),
        (0..=LEASES).prop_map(CompareTarget::Lease),
    ];
    let op = prop_oneof![
        Just(CompareOp::Equal),
        Just(CompareOp::NotEqual),
        Just(CompareOp::Greater),
        Just(CompareOp::Less),
    ];
    (range(), target, op).prop_map(|(range, target, op)| Compare { range, target, op })
}

fn command() -> impl Strategy<Value = Command> {
    let ids = proptest::collection::vec((0..=LEASES).prop_map(LeaseId), 0..3);
    prop_oneof![
        12 => txn().prop_map(Command::Txn),
        2 => (0..=LEASES, 0..30u64)
            .prop_map(|(id, ttl_ms)| Command::LeaseGrant { id: LeaseId(id), ttl_ms }),
        1 => (1..=LEASES).prop_map(|id| Command::LeaseRevoke { id: LeaseId(id) }),
        1 => ids.prop_map(|ids| Command::ExpireLeases { ids }),
        1 => (0..25u64).prop_map(|revision| Command::Compact { revision }),
        1 => Just(Command::CompactStep),
    ]
}

/// The pieces of a load, in any order, sound as a whole.
pub(crate) fn pieces() -> impl Strategy<Value = Vec<Command>> {
    let version = (1..4u64, 0..6u64, 0..3u64, 0..=LEASES, 0..4u8);
    let versions = proptest::collection::vec(proptest::option::of(version), usize::from(KEYS));
    (versions, 0..4u64).prop_map(|(versions, later)| {
        let leases = (1..=LEASES).map(|id| (LeaseId(id), 10)).collect();
        let mut pieces = vec![Command::Load {
            kvs: vec![],
            leases,
            last: None,
        }];
        let mut newest = 2;
        for (number, version) in (0..KEYS).zip(versions) {
            let Some((create, age, version, lease, value)) = version else {
                continue;
            };
            let kv = KeyValue {
                key: key(number),
                value: vec![value].into(),
                create_revision: create + 1,
                mod_revision: create + 1 + age,
                version: 1 + version.min(age),
                lease: (lease != 0).then_some(LeaseId(lease)),
            };
            newest = newest.max(kv.mod_revision);
            pieces.push(Command::Load {
                kvs: vec![kv],
                leases: vec![],
                last: None,
            });
        }
        pieces.push(Command::Load {
            kvs: vec![],
            leases: vec![],
            last: Some(newest + later),
        });
        pieces
    })
}

pub(crate) fn commands() -> impl Strategy<Value = Vec<(u64, Command, u8)>> {
    proptest::collection::vec((0..10u64, command(), 0..8u8), 1..60)
}
