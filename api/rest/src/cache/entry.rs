//! One version of one object, as the cache keeps it: its JSON, encoded once, and beside
//! it what selectors ask for.
//!
//! Invariants
//! - An entry never changes; whoever holds it has that version.
//! - Its JSON is the form its kind serves, without a resourceVersion: that is spliced in
//!   while the bytes are copied to a client.
//! - Texts of labels and fields are shared among entries.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use nautilus_machine::{KeyValue, Revision};
use nautilus_machinery::codec::writer;
use nautilus_machinery::resource::Resource;
use nautilus_machinery::schema;
use nautilus_machinery::status::ApiError;
use serde_json::Value;

use super::encoded::Encoded;
use super::packed::{Body, Packer};
use super::scan::{Found, Shape};
use super::tree::Keyed;
use crate::failure::Failure;
use crate::storage::{take_version, versioned_object, with_version};

/// What an entry costs beyond its JSON and its key: the struct, its shares of the tree
/// and of interned texts, allocations.
const ENTRY_OVERHEAD_BYTES: usize = 320;
/// What a resourceVersion takes in JSON, at most.
const VERSION_BYTES: usize = r#","resourceVersion":"""#.len() + 20;
/// Texts that an interner keeps before it looks which are of use.
const FIRST_PURGE: usize = 1024;

/// See the module.
pub(crate) struct Entry {
    /// `namespace/name`, or `name`.
    key: Box<str>,
    revision: Revision,
    body: Body,
    /// Where the metadata ends in `body`.
    metadata_end: u32,
    metadata_filled: bool,
    labels: Labels,
    fields: Box<[Arc<str>]>,
    protobuf: Encoded,
}

/// Labels in the order of their names.
pub(crate) type Labels = Arc<[(Box<str>, Box<str>)]>;

impl Keyed for Entry {
    fn key(&self) -> &str {
        &self.key
    }
}

impl Entry {
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// `None` for an object outside of namespaces.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.key.split_once('/').map(|(namespace, _)| namespace)
    }

    /// Whether its key begins with a prefix.
    pub(crate) fn is_within(&self, prefix: &str) -> bool {
        self.key.starts_with(prefix)
    }

    /// A label's value.
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        let at = self.labels.binary_search_by(|(own, _)| (**own).cmp(name));
        at.ok().map(|at| &*self.labels[at].1)
    }

    /// The text of a selectable field, by its place among the kind's.
    pub(crate) fn field(&self, at: usize) -> &Arc<str> {
        &self.fields[at]
    }

    /// Bytes it takes in memory, about.
    pub(crate) fn weight(&self) -> usize {
        self.body.kept() + self.key.len() + ENTRY_OVERHEAD_BYTES
    }

    /// Bytes of [`Entry::write_json`], at most.
    pub(crate) fn json_len(&self) -> usize {
        self.body.len() + VERSION_BYTES
    }

    /// Appends the object as clients see it, at `revision`.
    pub(crate) fn write_json(&self, revision: Revision, out: &mut Vec<u8>) {
        let end = out.len() + self.metadata_end as usize;
        self.body.append_to(out);
        insert_version(end, self.metadata_filled, revision, out);
    }

    /// The object's protobuf message, at its own version.
    pub(crate) fn protobuf(&self, resource: &Resource) -> Result<Cow<'_, [u8]>, Failure> {
        self.protobuf.get(|| {
            let internal = |what: String| Failure::from(ApiError::internal(what));
            let found = schema::find(&resource.schema);
            let found = found.ok_or_else(|| internal(format!("no type {}", resource.schema)))?;
            let message = writer::message(found, &self.object(self.revision)?);
            message.map_err(|error| internal(format!("can't write {}: {error}", self.key)))
        })
    }

    /// The object as a tree, at `revision`.
    pub(crate) fn object(&self, revision: Revision) -> Result<Value, Failure> {
        let mut body = Vec::with_capacity(self.body.len());
        self.body.append_to(&mut body);
        let object = serde_json::from_slice(&body).map_err(|error| {
            ApiError::internal(format!("the cached {} is damaged: {error}", self.key))
        })?;
        Ok(with_version(object, revision))
    }
}

/// Inserts a resourceVersion at the end of the metadata, which is at `at`.
fn insert_version(at: usize, filled: bool, revision: Revision, out: &mut Vec<u8>) {
    let before = out.len();
    if filled {
        out.push(b',');
    }
    out.extend_from_slice(br#""resourceVersion":""#);
    let mut digits = [0; 20];
    out.extend_from_slice(decimal(revision, &mut digits));
    out.push(b'"');
    let inserted = out.len() - before;
    out[at..].rotate_right(inserted);
}

/// The JSON of a stored version as clients see it; `None` if it is stored in another form
/// than its kind serves.
pub(crate) fn json_of_row(resource: &Resource, row: &KeyValue) -> Option<Vec<u8>> {
    static BARE: LazyLock<Shape> = LazyLock::new(|| Shape::new(&[]));
    if resource.stored_as.is_some() || resource.defined.is_some() {
        return None;
    }
    let found = BARE.scan(&row.value).ok()?;
    let end = found.metadata_end.filter(|_| !found.versioned)?;
    if resource.api_version() != found.api_version {
        return None;
    }
    let mut json = Vec::with_capacity(row.value.len() + VERSION_BYTES);
    json.extend_from_slice(&row.value);
    insert_version(end, found.metadata_filled, row.mod_revision, &mut json);
    Some(json)
}

/// A number's digits, at the end of `digits`.
fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        let digit = (number % 10) as u8;
        digits[at] = b'0' + digit;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

/// Makes the entries of one kind.
pub(crate) struct Maker {
    resource: Arc<Resource>,
    prefix: String,
    api_version: String,
    shape: Shape,
    texts: Interner<Arc<str>>,
    label_sets: Interner<Labels>,
    packer: Packer,
}

impl Maker {
    pub(crate) fn new(resource: &Arc<Resource>) -> Self {
        Self {
            resource: resource.clone(),
            prefix: resource.storage_prefix(),
            api_version: resource.api_version(),
            shape: Shape::new(&resource.selectable),
            texts: Interner::default(),
            label_sets: Interner::default(),
            packer: Packer::default(),
        }
    }

    /// The key of an object within its kind; `None` for a key of another.
    pub(crate) fn key<'a>(&self, row: &'a KeyValue) -> Option<&'a str> {
        let key = row.key.strip_prefix(self.prefix.as_bytes())?;
        std::str::from_utf8(key).ok()
    }

    /// The entry of a stored version.
    pub(crate) fn entry(&mut self, key: &str, row: &KeyValue) -> Result<Arc<Entry>, Failure> {
        // A definition may have changed since the object was stored.
        let is_own_form = self.resource.stored_as.is_none() && self.resource.defined.is_none();
        let as_stored = is_own_form.then(|| self.shape.scan(&row.value));
        let (body, found): (Box<[u8]>, Found) = match as_stored {
            Some(Ok(found)) if self.serves(&found) => (row.value.as_ref().into(), found),
            _ => self.converted(row)?,
        };
        let damaged = || ApiError::internal(format!("the object under {key} has no metadata"));
        let metadata_end = found.metadata_end.ok_or_else(damaged)?;
        let fields = found.fields(&self.shape);
        let fields = fields.map(|text| self.texts.intern(text)).collect();
        let mut labels: Vec<(Box<str>, Box<str>)> = found
            .labels
            .iter()
            .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
            .collect();
        labels.sort_unstable();
        Ok(Arc::new(Entry {
            key: key.into(),
            revision: row.mod_revision,
            metadata_end: u32::try_from(metadata_end).map_err(|_| damaged())?,
            metadata_filled: found.metadata_filled,
            labels: self.label_sets.intern(&labels),
            fields,
            body: self.packer.pack(&body),
            protobuf: Encoded::default(),
        }))
    }

    fn serves(&self, found: &Found) -> bool {
        found.api_version == self.api_version && !found.versioned && found.metadata_end.is_some()
    }

    /// The long way: an object that is stored in another form than this kind serves.
    fn converted(&self, row: &KeyValue) -> Result<(Box<[u8]>, Found), Failure> {
        let mut object = versioned_object(&self.resource, row)?;
        take_version(&mut object);
        let internal = |error: String| ApiError::internal(error);
        let body = serde_json::to_vec(&object).map_err(|error| internal(error.to_string()))?;
        let found = self.shape.scan(&body).map_err(|_| {
            internal(format!(
                "the object under {} is damaged",
                String::from_utf8_lossy(&row.key)
            ))
        })?;
        Ok((body.into(), found))
    }
}

/// Keeps one copy of what is equal, for as long as somebody uses it.
struct Interner<T> {
    known: HashSet<T>,
    purge_at: usize,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self {
            known: HashSet::new(),
            purge_at: FIRST_PURGE,
        }
    }
}

impl<T: ?Sized + Eq + std::hash::Hash> Interner<Arc<T>> {
    fn intern(&mut self, wanted: &T) -> Arc<T>
    where
        for<'a> Arc<T>: From<&'a T>,
    {
        if let Some(known) = self.known.get(wanted) {
            return known.clone();
        }
        if self.known.len() >= self.purge_at {
            self.known.retain(|text| Arc::strong_count(text) > 1);
            self.purge_at = (2 * self.known.len()).max(FIRST_PURGE);
        }
        let new = Arc::<T>::from(wanted);
        self.known.insert(new.clone());
        new
    }
}

#[cfg(test)]
mod tests {
    use nautilus_machinery::resource;
    use serde_json::json;

    use super::*;

    fn row(object: &Value) -> KeyValue {
        KeyValue {
            key: "/nautilus/registry/x/n/a".into(),
            value: object.to_string().into(),
            create_revision: 7,
            mod_revision: 7,
            version: 1,
            lease: None,
        }
    }

    fn entry(group: &str, plural: &str, object: &Value) -> Arc<Entry> {
        let resource = resource::find(group, "v1", plural).expect("served");
        let made = Maker::new(resource).entry("n/a", &row(object));
        made.unwrap_or_else(|failure| panic!("{}", failure.error))
    }

    #[test]
    fn its_json_is_the_object_at_its_version() {
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}, "spec": {}});
        let entry = entry("", "pods", &pod);
        let mut text = Vec::new();
        entry.write_json(1200, &mut text);
        assert!(text.len() <= entry.json_len());
        let read: Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(read, with_version(pod, 1200));
        assert_eq!(entry.object(1200).ok(), Some(read));
        assert_eq!(entry.namespace(), Some("n"));
    }

    #[test]
    fn an_object_of_another_form_is_converted_once() {
        let event = json!({"kind": "Event", "apiVersion": "v1", "metadata": {"name": "a"},
            "involvedObject": {"kind": "Pod"}, "message": "m"});
        let entry = entry("events.k8s.io", "events", &event);
        let object = entry.object(7).unwrap_or_default();
        assert_eq!(object["regarding"]["kind"], "Pod");
        assert_eq!(object["apiVersion"], "events.k8s.io/v1");
    }

    #[test]
    fn texts_that_nobody_uses_are_forgotten() {
        let mut texts = Interner::<Arc<str>>::default();
        let kept = texts.intern("kept");
        for number in 0..10 * FIRST_PURGE {
            texts.intern(&number.to_string());
        }
        assert!(texts.known.len() <= FIRST_PURGE);
        assert!(Arc::ptr_eq(&kept, &texts.intern("kept")));
    }
}
