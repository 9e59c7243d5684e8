//! Where things are on the stand-in's chain, and how they are laid out: the package's ids and types.
//!
//! Invariant: names, fields and their order are those of the published facts (`worker_registry`,
//! `k8s_scheduler`); the older package's token and stake are `seal_token::SealToken {id, owner,
//! stake_id, expires_at}` and `seal_token::Stake {id, owner, stake_amount, status}`.

use sui_sdk_types::{Address, Identifier, StructTag, TypeTag};

use crate::value::{MoveStruct, MoveValue, named_address, string_tag, tag};

/// The module of workers and their stakes.
pub const WORKER_REGISTRY: &str = "worker_registry";
/// The module of scheduled API requests.
pub const K8S_SCHEDULER: &str = "k8s_scheduler";
/// The older package's module.
pub const SEAL_TOKEN: &str = "seal_token";

const FRAMEWORK: Address = Address::TWO;

/// The package's id.
pub fn package() -> Address {
    named_address("package")
}

/// The id of the shared object `WorkerRegistry`.
pub fn registry_id() -> Address {
    named_address("registry")
}

/// The id of the registry's table of workers, the parent of its dynamic fields.
pub fn workers_table() -> Address {
    named_address("table of workers")
}

pub(crate) fn owners_table() -> Address {
    named_address("table of owners")
}

/// The dynamic field's id of the worker `node_id`.
pub fn worker_field(node_id: &str) -> Address {
    let key = MoveValue::String(node_id.to_owned());
    workers_table().derive_dynamic_child_id(&string_tag(), &key.bcs())
}

pub(crate) fn owner_field(owner: Address) -> Address {
    owners_table().derive_dynamic_child_id(&TypeTag::Address, owner.as_bytes())
}

/// The registry as it is at genesis.
pub(crate) fn genesis_registry() -> MoveStruct {
    let worker = struct_tag(worker_tag());
    MoveStruct::new(
        tag(package(), WORKER_REGISTRY, "WorkerRegistry"),
        vec![
            ("id", MoveValue::Uid(registry_id())),
            ("workers", table(workers_table(), string_tag(), worker)),
            (
                "owner_workers",
                table(
                    owners_table(),
                    TypeTag::Address,
                    TypeTag::Vector(Box::new(string_tag())),
                ),
            ),
            ("active_workers", MoveValue::Vector(Vec::new())),
            ("total_stake", MoveValue::U64(0)),
            ("total_workers", MoveValue::U64(0)),
            ("admin", MoveValue::Address(admin())),
        ],
    )
}

/// Who administers the registry: slashes, and sets join tokens.
pub fn admin() -> Address {
    named_address("admin")
}

/// A worker's entry in the registry's table, as it registers.
pub(crate) fn worker_entry(
    node_id: &str,
    owner: Address,
    stake: u64,
    seal_token: &str,
    now_ms: u64,
) -> MoveStruct {
    let worker = MoveStruct::new(
        worker_tag(),
        vec![
            ("node_id", text(node_id)),
            ("owner", MoveValue::Address(owner)),
            ("stake_amount", MoveValue::U64(stake)),
            ("status", text("active")),
            ("seal_token", text(seal_token)),
            ("join_token", text("")),
            ("registered_at", MoveValue::U64(now_ms)),
            ("last_heartbeat", MoveValue::U64(now_ms)),
            ("total_pods_served", MoveValue::U64(0)),
            ("reputation_score", MoveValue::U64(100)),
        ],
    );
    field_struct(
        worker_field(node_id),
        string_tag(),
        text(node_id),
        struct_tag(worker_tag()),
        MoveValue::Struct(worker),
    )
}

/// The older package's token.
pub(crate) fn token_struct(id: Address, owner: Address, stake: Address, ms: u64) -> MoveStruct {
    MoveStruct::new(
        tag(package(), SEAL_TOKEN, "SealToken"),
        vec![
            ("id", MoveValue::Uid(id)),
            ("owner", MoveValue::Address(owner)),
            ("stake_id", MoveValue::Id(stake)),
            ("expires_at", MoveValue::U64(ms)),
        ],
    )
}

/// The older package's stake.
pub(crate) fn stake_struct(id: Address, owner: Address, amount: u64, status: &str) -> MoveStruct {
    MoveStruct::new(
        tag(package(), SEAL_TOKEN, "Stake"),
        vec![
            ("id", MoveValue::Uid(id)),
            ("owner", MoveValue::Address(owner)),
            ("stake_amount", MoveValue::U64(amount)),
            ("status", text(status)),
        ],
    )
}

/// The type of workers.
fn worker_tag() -> StructTag {
    tag(package(), WORKER_REGISTRY, "WorkerNode")
}

fn struct_tag(tag: StructTag) -> TypeTag {
    TypeTag::Struct(Box::new(tag))
}

pub(crate) fn text(text: &str) -> MoveValue {
    MoveValue::String(text.to_owned())
}

fn table(id: Address, key: TypeTag, value: TypeTag) -> MoveValue {
    MoveValue::Struct(MoveStruct::new(
        StructTag::new(
            FRAMEWORK,
            Identifier::from_static("table"),
            Identifier::from_static("Table"),
            vec![key, value],
        ),
        vec![("id", MoveValue::Uid(id)), ("size", MoveValue::U64(0))],
    ))
}

/// `0x2::dynamic_field::Field<key, value>`.
pub(crate) fn field_struct(
    id: Address,
    key_tag: TypeTag,
    key: MoveValue,
    value_tag: TypeTag,
    value: MoveValue,
) -> MoveStruct {
    MoveStruct::new(
        StructTag::new(
            FRAMEWORK,
            Identifier::from_static("dynamic_field"),
            Identifier::from_static("Field"),
            vec![key_tag, value_tag],
        ),
        vec![("id", MoveValue::Uid(id)), ("name", key), ("value", value)],
    )
}
