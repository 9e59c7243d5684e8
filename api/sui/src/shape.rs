//! The Move structs of the package as they lie on the chain, and the way from their BCS to the
//! one JSON form that both faces of a full node come to. Pure.
//!
//! The form: `u8` to `u32` as numbers, `u64` as text, addresses and ids as `0x` and 64 hex
//! digits, `String` as text, a `Table` as `{"id", "size"}`.
//!
//! Invariant: bytes are decoded whole or not at all; nothing is guessed from their length.

use std::borrow::Cow;

use serde_json::{Map, Value};
use sui_sdk_types::{Address, Identifier, StructTag, TypeTag};

/// A Move struct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// The module that defines it.
    pub module: Cow<'static, str>,
    /// Its name there.
    pub name: Cow<'static, str>,
    /// Its members, in the order of their definition.
    pub members: Cow<'static, [Member]>,
}

/// A member of a struct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: Cow<'static, str>,
    /// Its type.
    pub kind: Kind,
}

/// The types that the package's structs use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `bool`
    Bool,
    /// `u8`
    U8,
    /// `u64`
    U64,
    /// `address`, `ID`, `UID`
    Address,
    /// `String`
    Text,
    /// `vector<String>`
    Texts,
    /// `Table<K, V>`: its id and its size.
    Table,
    /// A struct in the struct.
    Struct(&'static Shape),
}

/// Bytes that are not the struct, or a text that describes none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// They end too soon, or go on.
    #[error("{0}: the bytes are not of this struct: {1}")]
    Bytes(String, &'static str),
    /// `module::Struct {name: kind, ..}` was expected.
    #[error("{0:?}: {1}")]
    Text(String, &'static str),
}

/// Declares structs: their module and name, and their members in order.
macro_rules! shapes {
    ($( $(#[$meta:meta])* $item:ident = $module:ident::$name:ident { $( $member:ident: $kind:expr, )* } )*) => {
        $(
            $(#[$meta])*
            pub static $item: Shape = {
                static MEMBERS: &[Member] = &[
                    $( Member { name: Cow::Borrowed(stringify!($member)), kind: $kind } ),*
                ];
                Shape {
                    module: Cow::Borrowed(stringify!($module)),
                    name: Cow::Borrowed(stringify!($name)),
                    members: Cow::Borrowed(MEMBERS),
                }
            };
        )*
    };
}

shapes! {
    /// The shared object of all workers.
    WORKER_REGISTRY = worker_registry::WorkerRegistry {
        id: Kind::Address,
        workers: Kind::Table,
        owner_workers: Kind::Table,
        active_workers: Kind::Texts,
        total_stake: Kind::U64,
        total_workers: Kind::U64,
        admin: Kind::Address,
    }
    /// A worker.
    WORKER_NODE = worker_registry::WorkerNode {
        node_id: Kind::Text,
        owner: Kind::Address,
        stake_amount: Kind::U64,
        status: Kind::Text,
        seal_token: Kind::Text,
        join_token: Kind::Text,
        registered_at: Kind::U64,
        last_heartbeat: Kind::U64,
        total_pods_served: Kind::U64,
        reputation_score: Kind::U64,
    }
    /// `Field<String, WorkerNode>`: how a worker lies in the table of workers.
    WORKER_FIELD = dynamic_field::Field {
        id: Kind::Address,
        name: Kind::Text,
        value: Kind::Struct(&WORKER_NODE),
    }
    /// A token that is an object of its own, unless the configuration says otherwise.
    SEAL_TOKEN = seal_token::SealToken {
        id: Kind::Address,
        owner: Kind::Address,
        stake_id: Kind::Address,
        expires_at: Kind::U64,
    }
    /// The stake that such a token names, unless the configuration says otherwise.
    STAKE = seal_token::Stake {
        id: Kind::Address,
        owner: Kind::Address,
        stake_amount: Kind::U64,
        status: Kind::Text,
    }
    /// A worker was registered.
    WORKER_REGISTERED = worker_registry::WorkerRegisteredEvent {
        node_id: Kind::Text,
        owner: Kind::Address,
        stake_amount: Kind::U64,
        seal_token: Kind::Text,
        timestamp: Kind::U64,
    }
    /// A worker's status is another one.
    WORKER_STATUS_CHANGED = worker_registry::WorkerStatusChangedEvent {
        node_id: Kind::Text,
        old_status: Kind::Text,
        new_status: Kind::Text,
        timestamp: Kind::U64,
    }
    /// A worker's stake grew.
    STAKE_DEPOSITED = worker_registry::StakeDepositedEvent {
        node_id: Kind::Text,
        owner: Kind::Address,
        amount: Kind::U64,
        timestamp: Kind::U64,
    }
    /// A worker was given its join token.
    JOIN_TOKEN_SET = worker_registry::JoinTokenSetEvent {
        node_id: Kind::Text,
        join_token: Kind::Text,
        timestamp: Kind::U64,
    }
    /// Somebody asks the API by way of the chain.
    API_REQUEST_SCHEDULED = k8s_scheduler::K8sAPIRequestScheduledEvent {
        request_id: Kind::Text,
        method: Kind::Text,
        resource: Kind::Text,
        namespace: Kind::Text,
        name: Kind::Text,
        payload: Kind::Text,
        seal_token: Kind::Text,
        requester: Kind::Address,
        priority: Kind::U8,
        assigned_worker: Kind::Text,
        timestamp: Kind::U64,
    }
    /// What came of that.
    API_RESULT = k8s_scheduler::K8sAPIResultEvent {
        request_id: Kind::Text,
        assigned_worker: Kind::Text,
        success: Kind::Bool,
        output: Kind::Text,
        error: Kind::Text,
        execution_time_ms: Kind::U64,
        timestamp: Kind::U64,
    }
    /// Who does that.
    WORKER_ASSIGNED = k8s_scheduler::WorkerAssignedEvent {
        request_id: Kind::Text,
        worker_id: Kind::Text,
        workload_count: Kind::U64,
        timestamp: Kind::U64,
    }
}

/// The events that are followed.
pub static EVENTS: [&Shape; 7] = [
    &WORKER_REGISTERED,
    &WORKER_STATUS_CHANGED,
    &STAKE_DEPOSITED,
    &JOIN_TOKEN_SET,
    &API_REQUEST_SCHEDULED,
    &API_RESULT,
    &WORKER_ASSIGNED,
];

/// The modules whose events are followed.
pub const EVENT_MODULES: [&str; 2] = ["worker_registry", "k8s_scheduler"];

impl Shape {
    /// The followed event of this name.
    pub fn of_event(module: &str, name: &str) -> Option<&'static Self> {
        EVENTS
            .into_iter()
            .find(|event| event.module == module && event.name == name)
    }

    /// Reads `module::Struct {name: kind, ..}`; kinds are `bool`, `u8`, `u64`, `address`, `id`,
    /// `string`.
    pub fn parse(text: &str) -> Result<Self, ShapeError> {
        let wrong = |reason| ShapeError::Text(text.to_owned(), reason);
        let (path, rest) = text
            .split_once('{')
            .ok_or(wrong("write module::Struct {name: kind, ..}"))?;
        let (module, name) = path
            .trim()
            .split_once("::")
            .ok_or(wrong("the module stands before the struct, by ::"))?;
        let members = rest
            .trim_end()
            .strip_suffix('}')
            .ok_or(wrong("the closing } is missing"))?;
        let members: Result<Vec<Member>, ShapeError> = members
            .split(',')
            .filter(|member| !member.trim().is_empty())
            .map(|member| {
                let (name, kind) = member
                    .split_once(':')
                    .ok_or(wrong("a member is name: kind"))?;
                let kind = match kind.trim() {
                    "bool" => Kind::Bool,
                    "u8" => Kind::U8,
                    "u64" => Kind::U64,
                    "address" | "id" => Kind::Address,
                    "string" => Kind::Text,
                    _ => return Err(wrong("kinds are bool, u8, u64, address, id, string")),
                };
                Ok(Member {
                    name: identifier(name)
                        .ok_or(wrong("a member has no name"))?
                        .into(),
                    kind,
                })
            })
            .collect();
        Ok(Self {
            module: identifier(module).ok_or(wrong("no module"))?.into(),
            name: identifier(name).ok_or(wrong("no struct"))?.into(),
            members: members?.into(),
        })
    }

    /// Whether a type is this struct of `package`; a worker's field in a table is the framework's,
    /// of a `String` and of the package's worker.
    pub fn is_of(&self, package: Address, type_tag: &StructTag) -> bool {
        if *self != WORKER_FIELD {
            return self.is_named(package, type_tag) && type_tag.type_params().is_empty();
        }
        match type_tag.type_params() {
            [TypeTag::Struct(key), TypeTag::Struct(worker)] => {
                self.is_named(Address::TWO, type_tag)
                    && is_string(key)
                    && WORKER_NODE.is_named(package, worker)
            }
            _ => false,
        }
    }

    fn is_named(&self, address: Address, type_tag: &StructTag) -> bool {
        *type_tag.address() == address
            && type_tag.module().as_str() == self.module
            && type_tag.name().as_str() == self.name
    }

    /// The struct in `bytes`, which must end with it.
    pub fn decode(&self, bytes: &[u8]) -> Result<Map<String, Value>, ShapeError> {
        let wrong = |reason| ShapeError::Bytes(format!("{}::{}", self.module, self.name), reason);
        let mut reader = Reader(bytes);
        let fields = reader.members(&self.members).map_err(wrong)?;
        if reader.0.is_empty() {
            Ok(fields)
        } else {
            Err(wrong("there are more than it has"))
        }
    }
}

/// `0x1::string::String`, the key of the table of workers.
pub(crate) fn string_tag() -> TypeTag {
    let (module, name) = ("string", "String");
    TypeTag::Struct(Box::new(StructTag::new(
        Address::from_static("0x1"),
        Identifier::from_static(module),
        Identifier::from_static(name),
        Vec::new(),
    )))
}

fn is_string(type_tag: &StructTag) -> bool {
    matches!(string_tag(), TypeTag::Struct(string) if *string == *type_tag)
}

fn identifier(text: &str) -> Option<String> {
    let text = text.trim();
    let fits = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    fits.then(|| text.to_owned())
}

/// What is not read yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn members(&mut self, members: &[Member]) -> Result<Map<String, Value>, &'static str> {
        members
            .iter()
            .map(|member| Ok((member.name.to_string(), self.value(member.kind)?)))
            .collect()
    }

    fn value(&mut self, kind: Kind) -> Result<Value, &'static str> {
        Ok(match kind {
            Kind::Bool => match self.byte()? {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                _ => return Err("a bool is neither 0 nor 1"),
            },
            Kind::U8 => self.byte()?.into(),
            Kind::U64 => self.u64()?.to_string().into(),
            Kind::Address => self.address()?.into(),
            Kind::Text => self.text()?.into(),
            Kind::Texts => {
                // Every text takes a byte at least: no length makes this allocate more than there is.
                let count = self.length()?;
                let texts: Result<Vec<Value>, _> =
                    (0..count).map(|_| self.text().map(Value::from)).collect();
                texts?.into()
            }
            Kind::Table => {
                let id = self.address()?;
                let size = self.u64()?.to_string();
                serde_json::json!({"id": id, "size": size})
            }
            Kind::Struct(shape) => self.members(&shape.members)?.into(),
        })
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or("they end before it does")?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        Ok(self.take(1)?[0])
    }

    fn u64(&mut self) -> Result<u64, &'static str> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(bytes))
    }

    fn address(&mut self) -> Result<String, &'static str> {
        Ok(format!("0x{}", hex::encode(self.take(32)?)))
    }

    /// ULEB128, as BCS writes lengths: at most 32 bits, in its shortest form.
    fn length(&mut self) -> Result<usize, &'static str> {
        let mut value: u64 = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 || value > u64::from(u32::MAX) {
                    return Err("a length is not in its only form");
                }
                return usize::try_from(value).map_err(|_| "a length is too large");
            }
        }
        Err("a length does not end")
    }

    fn text(&mut self) -> Result<String, &'static str> {
        let length = self.length()?;
        let bytes = self.take(length)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| "a text is not UTF-8")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use sui_sdk_types::bcs::ToBcs as _;

    use super::*;

    type Worker = (
        String,
        [u8; 32],
        u64,
        String,
        String,
        String,
        u64,
        u64,
        u64,
        u64,
    );

    fn worker() -> Worker {
        let (seal, join) = ("seal".to_owned(), String::new());
        let owner = [0xa1; 32];
        let status = "active".to_owned();
        (
            "worker-1".into(),
            owner,
            7,
            status,
            seal,
            join,
            1,
            2,
            3,
            u64::MAX,
        )
    }

    #[test]
    fn a_worker_is_read_as_the_chain_wrote_it() {
        let field = ([0x0f_u8; 32], "worker-1", worker());
        let bytes = field.to_bcs().expect("BCS");
        let fields = WORKER_FIELD.decode(&bytes).expect("a field");
        assert_eq!(fields["name"], "worker-1");
        assert_eq!(fields["value"]["owner"], format!("0x{}", "a1".repeat(32)));
        assert_eq!(fields["value"]["stake_amount"], "7");
        assert_eq!(fields["value"]["reputation_score"], u64::MAX.to_string());
    }

    #[test]
    fn a_registry_is_read_with_its_tables() {
        let table = ([2u8; 32], 5u64);
        let registry = (
            [1u8; 32],
            table,
            ([3u8; 32], 0u64),
            vec!["a", "b"],
            9u64,
            2u64,
            [4u8; 32],
        );
        let fields = WORKER_REGISTRY
            .decode(&registry.to_bcs().expect("BCS"))
            .expect("a registry");
        assert_eq!(
            fields["workers"],
            json!({"id": format!("0x{}", "02".repeat(32)), "size": "5"})
        );
        assert_eq!(fields["active_workers"], json!(["a", "b"]));
    }

    #[test]
    fn bytes_that_go_on_or_break_off_are_no_worker() {
        let mut bytes = worker().to_bcs().expect("BCS");
        assert!(WORKER_NODE.decode(&bytes).is_ok());
        assert!(WORKER_NODE.decode(&bytes[..bytes.len() - 1]).is_err());
        bytes.push(0);
        assert!(WORKER_NODE.decode(&bytes).is_err());
    }

    #[test]
    fn a_shape_is_written_in_the_configuration() {
        let text = "seal_token::SealToken {id: id, owner: address, stake_id: id, expires_at: u64}";
        assert_eq!(Shape::parse(text).expect("a shape"), SEAL_TOKEN.clone());
        for text in [
            "",
            "a {b: u64}",
            "a::b {c}",
            "a::b {c: u65}",
            "a::b {c: u64",
            "a:: {c: u64}",
        ] {
            assert!(Shape::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail_otherwise_than_by_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            for shape in EVENTS.into_iter().chain([&WORKER_REGISTRY, &WORKER_FIELD]) {
                if let Ok(fields) = shape.decode(&bytes) {
                    prop_assert_eq!(fields.len(), shape.members.len());
                }
            }
        }
    }
}
