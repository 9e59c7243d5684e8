//! The facts about the types of the release served, loaded once from the
//! generated table (`schema/facts-v1.37.json`; how it is made and what its
//! letters mean stands in `schema/generate/main.go`).
//!
//! Invariants: the table is read only; a row this module does not understand is
//! left out instead of ending the process, and a test holds that none is.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::{LazyLock, OnceLock};

use serde_json::{Map, Value};

/// The release whose types these are, as `v1.37.2`.
pub fn release() -> &'static str {
    &SCHEMA.release
}

/// The type of that name (as `io.k8s.api.core.v1.Pod`), if it is in the table.
pub fn find(name: &str) -> Option<&'static Type> {
    SCHEMA.types.get(SCHEMA.place(name)?)
}

/// The type that a group, version and kind name.
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static Type> {
    let key = (group.to_owned(), version.to_owned(), kind.to_owned());
    SCHEMA.kinds.get(&key).and_then(|at| SCHEMA.types.get(*at))
}

/// Every type, ordered by name.
pub fn all() -> &'static [Type] {
    &SCHEMA.types
}

/// The OpenAPI name of `ObjectMeta`.
pub const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// The OpenAPI name of `DeleteOptions`.
pub const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
/// The OpenAPI name of `Status`.
pub const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
/// The OpenAPI name of a JSON schema.
pub const JSON_SCHEMA_PROPS: &str =
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
/// The OpenAPI name of `WatchEvent`.
pub const WATCH_EVENT: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";
/// The OpenAPI name of `PartialObjectMetadata`.
pub const PARTIAL_OBJECT_METADATA: &str =
    "io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata";
/// The OpenAPI name of `PartialObjectMetadataList`.
pub const PARTIAL_OBJECT_METADATA_LIST: &str =
    "io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadataList";

/// What a value looks like in JSON and on the protobuf wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// A string.
    String,
    /// A boolean.
    Bool,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// A double.
    Double,
    /// Bytes; base64 in JSON.
    Bytes,
    /// RFC 3339 with seconds; a message of seconds and nanoseconds in protobuf.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// A quantity: a string in JSON, a message of one string in protobuf.
    Quantity,
    /// A string or an integer.
    IntOrString,
    /// Any object.
    Raw,
    /// The field set of a manager; any object in JSON.
    FieldsV1,
    /// Go's duration text; nanoseconds in protobuf.
    Duration,
    /// Any JSON value; a message of its text in protobuf.
    Json,
    /// A JSON schema ([`JSON_SCHEMA_PROPS`]), or something else in its place.
    SchemaOr(SchemaOr),
    /// Another type of the table.
    Message(TypeName),
    /// A list; in a map, on the protobuf wire, a message that holds it.
    List(Box<Shape>),
    /// A map keyed by strings.
    Map(Box<Shape>),
}

/// The name of a type, which is looked up once.
#[derive(Clone)]
pub struct TypeName {
    name: String,
    found: OnceLock<Option<&'static Type>>,
}

impl TypeName {
    /// The type of that name, if it is in the table.
    pub fn find(&self) -> Option<&'static Type> {
        *self.found.get_or_init(|| find(&self.name))
    }
}

impl From<&str> for TypeName {
    fn from(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            found: OnceLock::new(),
        }
    }
}

impl Deref for TypeName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for TypeName {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(to)
    }
}

impl fmt::Display for TypeName {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(to)
    }
}

impl PartialEq for TypeName {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for TypeName {}

/// What may stand in place of a JSON schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaOr {
    /// A list of schemas.
    Schemas,
    /// A boolean.
    Bool,
    /// A list of strings.
    Strings,
}

/// One field of a type.
#[derive(Debug, Clone)]
pub struct Field {
    /// The JSON name (of an inlined field: the protobuf name).
    pub name: String,
    /// Its value.
    pub shape: Shape,
    /// Whether absence and the zero value differ.
    pub pointer: bool,
    /// The protobuf number; 0 where the field is not on the wire.
    pub number: u32,
    /// Left out of JSON when empty, by Go's rules.
    pub omit_empty: bool,
    /// Left out of JSON when zero, also for times and messages.
    pub omit_zero: bool,
    /// Named as required by the OpenAPI document.
    pub required: bool,
    /// Its fields stand in the owner's JSON object.
    pub inlined: bool,
    /// `kind` or `apiVersion`.
    pub type_meta: bool,
    /// Strategic merge: merged instead of replaced.
    pub patch_merge: bool,
    /// Strategic merge: a map that is replaced instead of merged.
    pub patch_replace: bool,
    /// Strategic merge: `$retainKeys` is allowed.
    pub retain_keys: bool,
    /// Strategic merge: the key of a list's elements.
    pub merge_key: Option<String>,
    /// `atomic`, `set` or `map`, where stated.
    pub list_type: Option<String>,
    /// The keys of a `map` list.
    pub list_keys: Vec<String>,
    /// `atomic` or `granular`, where stated.
    pub map_type: Option<String>,
    /// The values that it, or each of its elements, may have; empty: any.
    pub enumeration: Vec<String>,
    /// What an absent field is taken for, where stated.
    pub default: Option<Value>,
}

/// A type of the table.
#[derive(Debug)]
pub struct Type {
    /// The OpenAPI name.
    pub name: String,
    /// Its own fields, in the order JSON is written.
    pub fields: Vec<Field>,
    /// The group, version and kind of those that stand alone.
    pub kinds: Vec<(String, String, String)>,
    /// `atomic`, where the type says that it is owned as a whole.
    pub map_type: Option<String>,
    /// `x-kubernetes-unions`, where the type has some: a list.
    pub unions: Option<Value>,
    /// What an absent object of the type is written as, once it was asked for.
    pub(crate) empty: OnceLock<Option<Map<String, Value>>>,
    flat: BTreeMap<String, Field>,
    numbered: Vec<usize>,
    defaulting: Vec<usize>,
}

impl Type {
    /// The field of that JSON name, own or inlined.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.flat.get(name)
    }

    /// All fields that JSON may have, own and inlined.
    pub fn json_fields(&self) -> impl Iterator<Item = &Field> {
        self.flat.values()
    }

    /// The last part of the name, as `Pod`.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }

    /// The fields that stand on the protobuf wire, in its order.
    pub fn by_number(&self) -> impl Iterator<Item = &Field> {
        self.numbered.iter().filter_map(|at| self.fields.get(*at))
    }

    /// The fields that have a default, or whose values have fields that do, at any depth.
    pub fn defaulting(&self) -> impl Iterator<Item = &Field> {
        self.defaulting.iter().filter_map(|at| self.fields.get(*at))
    }
}

impl Shape {
    /// The type of the value, or of the elements in it.
    fn message(&self) -> Option<&TypeName> {
        match self {
            Self::Message(name) => Some(name),
            Self::List(inner) | Self::Map(inner) => inner.message(),
            _ => None,
        }
    }

    /// How Go calls the shape in its error messages.
    pub fn go_name(&self) -> String {
        match self {
            Self::String => "string".to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::Int32 => "int32".to_owned(),
            Self::Int64 => "int64".to_owned(),
            Self::Double => "float64".to_owned(),
            Self::Bytes => "[]uint8".to_owned(),
            Self::Time => "v1.Time".to_owned(),
            Self::MicroTime => "v1.MicroTime".to_owned(),
            Self::Quantity => "resource.Quantity".to_owned(),
            Self::IntOrString => "intstr.IntOrString".to_owned(),
            Self::Raw => "runtime.RawExtension".to_owned(),
            Self::FieldsV1 => "v1.FieldsV1".to_owned(),
            Self::Duration => "v1.Duration".to_owned(),
            Self::Json => "v1.JSON".to_owned(),
            Self::SchemaOr(SchemaOr::Schemas) => "v1.JSONSchemaPropsOrArray".to_owned(),
            Self::SchemaOr(SchemaOr::Bool) => "v1.JSONSchemaPropsOrBool".to_owned(),
            Self::SchemaOr(SchemaOr::Strings) => "v1.JSONSchemaPropsOrStringArray".to_owned(),
            Self::Message(name) => {
                let mut parts = name.rsplit('.');
                let kind = parts.next().unwrap_or_default();
                let version = parts.next().unwrap_or_default();
                format!("{version}.{kind}")
            }
            Self::List(element) => format!("[]{}", element.go_name()),
            Self::Map(element) => format!("map[string]{}", element.go_name()),
        }
    }
}

const FACTS: &str = include_str!("../schema/facts-v1.37.json");

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::load(FACTS));

#[derive(Default)]
struct Schema {
    release: String,
    types: Vec<Type>,
    /// Of each name its hash and its place, in the order of hashes: names are long and
    /// begin alike, so that comparing them is what a search by name would do.
    index: Vec<(u64, usize)>,
    kinds: BTreeMap<(String, String, String), usize>,
    skipped: usize,
}

impl Schema {
    fn load(text: &str) -> Self {
        let mut schema = Self::default();
        let Ok(table) = serde_json::from_str::<Value>(text) else {
            schema.skipped += 1;
            return schema;
        };
        schema.release = table["release"].as_str().unwrap_or_default().to_owned();
        for (name, entry) in table["types"].as_object().into_iter().flatten() {
            let rows = entry["f"].as_array().map_or(&[][..], Vec::as_slice);
            let fields: Vec<Field> = rows.iter().filter_map(parse_field).collect();
            schema.skipped += rows.len() - fields.len();
            let kinds = entry["g"].as_array().map_or(&[][..], Vec::as_slice);
            let kinds: Vec<_> = kinds.iter().filter_map(parse_kind).collect();
            let at = schema.types.len();
            schema.index.push((hash(name), at));
            for kind in &kinds {
                schema.kinds.insert(kind.clone(), at);
            }
            let mut numbered: Vec<usize> = (0..fields.len())
                .filter(|at| fields[*at].number > 0)
                .collect();
            numbered.sort_by_key(|at| fields[*at].number);
            schema.types.push(Type {
                name: name.clone(),
                fields,
                kinds,
                map_type: entry["m"].as_str().map(str::to_owned),
                unions: entry.get("u").cloned(),
                empty: OnceLock::new(),
                flat: BTreeMap::new(),
                numbered,
                defaulting: Vec::new(),
            });
        }
        schema.index.sort_unstable();
        schema.flatten();
        schema.find_defaults();
        schema
    }

    /// Until nothing is added: types may name one another in circles.
    fn find_defaults(&mut self) {
        loop {
            let leads = |field: &Field| {
                let inner = field.shape.message().and_then(|name| self.place(name));
                field.default.is_some()
                    || inner.is_some_and(|at| !self.types[at].defaulting.is_empty())
            };
            let found: Vec<Vec<usize>> = self
                .types
                .iter()
                .map(|found| {
                    let fields = found.fields.iter().enumerate();
                    fields
                        .filter(|(_, field)| leads(field))
                        .map(|(at, _)| at)
                        .collect()
                })
                .collect();
            let mut grown = false;
            for (own, found) in self.types.iter_mut().zip(found) {
                grown |= found.len() > own.defaulting.len();
                own.defaulting = found;
            }
            if !grown {
                return;
            }
        }
    }

    fn place(&self, name: &str) -> Option<usize> {
        let hash = hash(name);
        let from = self.index.partition_point(|(own, _)| *own < hash);
        let alike = self.index[from..]
            .iter()
            .take_while(|(own, _)| *own == hash);
        let mut places = alike.map(|(_, at)| *at);
        places.find(|at| self.types[*at].name == name)
    }

    fn flatten(&mut self) {
        let flat: Vec<_> = (0..self.types.len())
            .map(|at| self.flat_fields(at))
            .collect();
        for (found, flat) in self.types.iter_mut().zip(flat) {
            found.flat = flat;
        }
    }

    fn flat_fields(&self, at: usize) -> BTreeMap<String, Field> {
        let mut flat = BTreeMap::new();
        for field in &self.types[at].fields {
            match (&field.shape, field.inlined) {
                (Shape::Message(inner), true) => {
                    if let Some(inner) = self.place(inner) {
                        flat.extend(self.flat_fields(inner));
                    }
                }
                _ => {
                    flat.insert(field.name.clone(), field.clone());
                }
            }
        }
        flat
    }
}

/// FNV-1a, of eight bytes at a time.
fn hash(name: &str) -> u64 {
    const PRIME: u64 = 0x0100_0000_01b3;
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for chunk in name.as_bytes().chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash ^ u64::from_le_bytes(word))
            .wrapping_mul(PRIME)
            .rotate_left(29);
    }
    hash
}

fn parse_kind(row: &Value) -> Option<(String, String, String)> {
    let part = |at: usize| row.get(at).and_then(Value::as_str).map(str::to_owned);
    Some((part(0)?, part(1)?, part(2)?))
}

fn parse_field(row: &Value) -> Option<Field> {
    let code = row.get(1)?.as_str()?;
    let (pointer, code) = match code.strip_prefix('*') {
        Some(rest) => (true, rest),
        None => (false, code),
    };
    let flags = row.get(3)?.as_str()?;
    let extras = row.get(4);
    let extra = |key: &str| extras.and_then(|e| e[key].as_str()).map(str::to_owned);
    let strategy = extra("ps").unwrap_or_default();
    let texts = |key: &str| -> Vec<String> {
        let list = extras.and_then(|e| e[key].as_array());
        let list = list.map_or(&[][..], Vec::as_slice).iter();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    Some(Field {
        name: row.get(0)?.as_str()?.to_owned(),
        shape: parse_shape(code)?,
        pointer,
        number: u32::try_from(row.get(2)?.as_u64()?).ok()?,
        omit_empty: flags.contains('e'),
        omit_zero: flags.contains('z'),
        required: flags.contains('r'),
        inlined: flags.contains('n'),
        type_meta: flags.contains('t'),
        patch_merge: strategy.split(',').any(|part| part == "merge"),
        patch_replace: strategy == "replace",
        retain_keys: strategy.split(',').any(|part| part == "retainKeys"),
        merge_key: extra("mk"),
        list_type: extra("lt"),
        list_keys: texts("lk"),
        map_type: extra("mt"),
        enumeration: texts("en"),
        default: extras.and_then(|e| e.get("df")).cloned(),
    })
}

fn parse_shape(code: &str) -> Option<Shape> {
    let rest = code.get(1..)?;
    Some(match code.as_bytes().first()? {
        b's' => Shape::String,
        b'b' => Shape::Bool,
        b'i' => Shape::Int32,
        b'l' => Shape::Int64,
        b'd' => Shape::Double,
        b'y' => Shape::Bytes,
        b'T' => Shape::Time,
        b'M' => Shape::MicroTime,
        b'Q' => Shape::Quantity,
        b'I' => Shape::IntOrString,
        b'R' => Shape::Raw,
        b'F' => Shape::FieldsV1,
        b'D' => Shape::Duration,
        b'J' => Shape::Json,
        b'A' => Shape::SchemaOr(SchemaOr::Schemas),
        b'B' => Shape::SchemaOr(SchemaOr::Bool),
        b'S' => Shape::SchemaOr(SchemaOr::Strings),
        b'@' => Shape::Message(rest.into()),
        b'[' => Shape::List(Box::new(parse_shape(rest)?)),
        b'{' => Shape::Map(Box::new(parse_shape(rest)?)),
        b'*' => parse_shape(rest)?,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_is_understood() {
        assert_eq!(SCHEMA.skipped, 0);
        assert!(SCHEMA.types.len() > 100, "{} types", SCHEMA.types.len());
        assert_eq!(release(), "v1.37.2");
    }

    #[test]
    fn every_message_that_is_named_is_in_the_table() {
        for (owner, field) in all()
            .iter()
            .flat_map(|t| t.fields.iter().map(move |f| (t, f)))
        {
            if let Some(name) = field.shape.message() {
                assert!(
                    find(name).is_some(),
                    "{}.{}: {name}",
                    owner.name,
                    field.name
                );
            }
        }
    }

    #[test]
    fn a_volume_has_the_fields_of_its_inlined_source() {
        let volume = find("io.k8s.api.core.v1.Volume").expect("in the table");
        assert!(volume.field("emptyDir").is_some());
        assert!(volume.field("volumeSource").is_none());
    }

    #[test]
    fn nonsense_is_no_schema_and_no_panic() {
        assert_eq!(Schema::load("{").types.len(), 0);
        assert_eq!(
            Schema::load(r#"{"types":{"a":{"f":[["x"],["y","?",1,""]]}}}"#).skipped,
            2
        );
    }
}
