//! `metadata.managedFields`: one entry for each manager, operation, subresource and,
//! for updates, version.
//!
//! Invariants: entries that nothing touches are neither read nor written anew; what
//! is written is in the order of operation, time and manager.

use std::cmp::Ordering;
use std::fmt;

use nautilus_machinery::timestamp;
use serde_json::{Map, Value, json};

use crate::fields::{self, FIELDS_TYPE};
use crate::set::Set;
use crate::value::quoted;

/// How a manager came to own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Server-side apply.
    Apply,
    /// Every other write.
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// What tells entries apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The manager's name.
    pub manager: String,
    /// How it wrote.
    pub operation: Operation,
    /// The version it wrote in; empty for appliers, who keep one entry.
    pub api_version: String,
    /// Through which subresource, or empty.
    pub subresource: String,
}

impl Identity {
    /// The identity of a write.
    pub fn new(manager: &str, operation: Operation, api_version: &str, subresource: &str) -> Self {
        let manager = match manager {
            "" => "unknown",
            manager => manager,
        };
        let api_version = match operation {
            Operation::Apply => "",
            Operation::Update => api_version,
        };
        Self {
            manager: manager.to_owned(),
            operation,
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
        }
    }

    /// The text by which identities are ordered where nothing else orders them.
    pub(crate) fn key(&self) -> String {
        let mut map = Map::new();
        for (name, text) in [
            ("manager", self.manager.as_str()),
            ("operation", self.operation.as_str()),
            ("apiVersion", self.api_version.as_str()),
            ("subresource", self.subresource.as_str()),
        ] {
            if !text.is_empty() {
                map.insert(name.to_owned(), json!(text));
            }
        }
        Value::Object(map).to_string()
    }
}

/// As messages name an owner.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quoted(&self.manager))?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {}", quoted(&self.subresource))?;
        }
        if self.operation == Operation::Update {
            write!(f, " using {}", self.api_version)?;
        }
        Ok(())
    }
}

/// One entry. Its fields are kept as they came until they are asked for.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) identity: Identity,
    /// The version that the fields are of.
    pub(crate) api_version: String,
    /// RFC 3339, or empty.
    pub(crate) time: String,
    fields: Value,
    set: Option<Set>,
}

impl Entry {
    pub(crate) fn new(identity: Identity, api_version: &str, set: Set) -> Self {
        Self {
            identity,
            api_version: api_version.to_owned(),
            time: String::new(),
            fields: Value::Null,
            set: Some(set),
        }
    }

    /// The set; an entry whose fields can't be read owns nothing.
    pub(crate) fn set(&self) -> Set {
        match &self.set {
            Some(set) => set.clone(),
            None => fields::decode(&self.fields).unwrap_or_default(),
        }
    }

    pub(crate) fn set_to(&mut self, set: Set) {
        self.fields = Value::Null;
        self.set = Some(set);
    }

    /// Whether the entry may own anything of `set`, or a parent or child of it.
    pub(crate) fn may_touch(&self, set: &Set) -> bool {
        match &self.set {
            Some(own) => touches(own, set),
            None => fields::may_touch(&self.fields, set),
        }
    }

    /// Whether the entry owns all of `set`.
    pub(crate) fn holds(&self, set: &Set) -> bool {
        match &self.set {
            Some(own) => set.difference(own).is_empty(),
            None => fields::holds(&self.fields, set),
        }
    }

    /// Whether nothing is owned any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.set.as_ref().is_some_and(Set::is_empty)
    }

    fn seconds(&self) -> i64 {
        timestamp::parse(&self.time).map_or(0, |instant| instant.seconds)
    }

    fn write(self) -> Value {
        let mut map = Map::new();
        let mut put = |name: &str, value: Value| {
            map.insert(name.to_owned(), value);
        };
        put("manager", json!(self.identity.manager));
        put("operation", json!(self.identity.operation.as_str()));
        put("apiVersion", json!(self.api_version));
        if !self.time.is_empty() {
            put("time", json!(self.time));
        }
        put("fieldsType", json!(FIELDS_TYPE));
        put(
            "fieldsV1",
            match &self.set {
                Some(set) => fields::encode(set),
                None => match self.fields {
                    Value::Null => json!({}),
                    fields => fields,
                },
            },
        );
        if !self.identity.subresource.is_empty() {
            put("subresource", json!(self.identity.subresource));
        }
        Value::Object(map)
    }
}

fn touches(own: &Set, set: &Set) -> bool {
    set.nodes().iter().any(|node| {
        own.get(&node.element)
            .is_some_and(|own| node.member || touches(&own.below, &node.below))
    })
}

/// All entries of an object.
#[derive(Debug, Clone, Default)]
pub(crate) struct Managed {
    pub(crate) entries: Vec<Entry>,
}

impl Managed {
    /// Reads an object's entries without reading the fields.
    pub(crate) fn of(object: &Value) -> Result<Self, String> {
        Self::decode(object["metadata"].get("managedFields").cloned())
    }

    /// Reads `metadata.managedFields` without reading the fields.
    pub(crate) fn decode(list: Option<Value>) -> Result<Self, String> {
        let mut managed = Self::default();
        let Some(Value::Array(entries)) = list else {
            return Ok(managed);
        };
        for (at, entry) in entries.into_iter().enumerate() {
            let entry = decode_entry(at, entry)?;
            match managed.get_mut(&entry.identity) {
                Some(own) => *own = entry,
                None => managed.entries.push(entry),
            }
        }
        Ok(managed)
    }

    /// Reads all of it: a client's may be anything.
    pub(crate) fn decode_strictly(list: Option<Value>) -> Result<Self, String> {
        let managed = Self::decode(list)?;
        for entry in &managed.entries {
            fields::decode(&entry.fields)?;
        }
        Ok(managed)
    }

    pub(crate) fn get(&self, identity: &Identity) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.identity == *identity)
    }

    pub(crate) fn get_mut(&mut self, identity: &Identity) -> Option<&mut Entry> {
        self.entries
            .iter_mut()
            .find(|entry| entry.identity == *identity)
    }

    pub(crate) fn remove(&mut self, identity: &Identity) -> Option<Entry> {
        let at = self
            .entries
            .iter()
            .position(|entry| entry.identity == *identity)?;
        Some(self.entries.remove(at))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Writes `metadata.managedFields`; nothing where there are no entries.
    pub(crate) fn encode_into(mut self, object: &mut Value) {
        self.entries.sort_by(written_order);
        let list: Vec<Value> = self.entries.into_iter().map(Entry::write).collect();
        let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
            return;
        };
        match list.is_empty() {
            true => {
                metadata.shift_remove("managedFields");
            }
            false => {
                metadata.insert("managedFields".to_owned(), Value::Array(list));
            }
        }
    }
}

fn written_order(left: &Entry, right: &Entry) -> Ordering {
    let (l, r) = (&left.identity, &right.identity);
    l.operation
        .cmp(&r.operation)
        .then_with(|| left.seconds().cmp(&right.seconds()))
        .then_with(|| l.manager.cmp(&r.manager))
        .then_with(|| left.api_version.cmp(&right.api_version))
        .then_with(|| l.subresource.cmp(&r.subresource))
}

/// Oldest first, as entries are merged when there are too many.
pub(crate) fn age_order(left: &Entry, right: &Entry) -> Ordering {
    left.seconds()
        .cmp(&right.seconds())
        .then_with(|| left.identity.key().cmp(&right.identity.key()))
}

fn decode_entry(at: usize, mut entry: Value) -> Result<Entry, String> {
    let fields = match entry.get_mut("fieldsV1") {
        Some(fields) => fields.take(),
        None => Value::Null,
    };
    let text = |name: &str| entry[name].as_str().unwrap_or_default();
    let operation = match text("operation") {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return Err("operation must be `Apply` or `Update`".to_owned()),
    };
    let api_version = text("apiVersion");
    if api_version.is_empty() {
        return Err("apiVersion must not be empty".to_owned());
    }
    match text("fieldsType") {
        FIELDS_TYPE => {}
        "" => {
            return Err(format!("missing fieldsType in managed fields entry {at}"));
        }
        other => {
            return Err(format!(
                "invalid fieldsType {} in managed fields entry {at}",
                quoted(other)
            ));
        }
    }
    let mut identity = Identity::new("", operation, api_version, text("subresource"));
    identity.manager = text("manager").to_owned();
    Ok(Entry {
        identity,
        api_version: api_version.to_owned(),
        time: text("time").to_owned(),
        fields,
        set: None,
    })
}

/// Why a list of entries is none, if it is not.
pub fn check(list: Option<&Value>) -> Result<(), String> {
    Managed::decode_strictly(list.cloned()).map(|_| ())
}

/// Whether a client asks to forget who owns what: an empty list, or one empty entry.
pub fn asks_to_reset(list: Option<&Value>) -> bool {
    match list {
        Some(Value::Array(entries)) => match entries.as_slice() {
            [] => true,
            [Value::Object(only)] => only.values().all(Value::is_null),
            _ => false,
        },
        _ => false,
    }
}
