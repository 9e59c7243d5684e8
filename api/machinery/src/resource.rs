//! The kinds served. A kind is data (its names, verbs, subresources, columns, what may
//! be selected) and a set of [`Rules`]; nothing else in this crate or in the faces
//! knows kinds by name.
//!
//! Built-in kinds come from a generated table (`schema/kinds-v1.37.json`; how it is made
//! stands in `schema/kinds/main.go`) and a small hand-kept one ([`own`]). Others are made
//! at run time and looked up beside them in an [`Index`] of their owner's.
//!
//! Invariants: a kind is never changed once it is made; a row of the table that is not
//! understood is left out, and a test holds that none is.

mod defined;
mod index;
mod own;

use std::sync::{Arc, LazyLock};

use serde::Deserialize;
use serde_json::Value;

pub use self::defined::Defined;
pub use self::index::Index;
use crate::scale::ScalePaths;
use crate::schema;
use crate::strategy::rules::{self, Rules};
use crate::table::cells;
use crate::validation::NameRule;

/// A kind, as clients address it. Whoever keeps one holds it in an [`Arc`].
#[derive(Debug)]
pub struct Resource {
    /// API group, empty for the core group.
    pub group: String,
    /// Version, as `v1`.
    pub version: String,
    /// Kind, as `Pod`.
    pub kind: String,
    /// The kind of its lists; empty: the kind and `List`.
    pub list_kind: String,
    /// The path's name, as `pods`.
    pub plural: String,
    /// As `pod`.
    pub singular: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs of discovery, in alphabetical order.
    pub verbs: Vec<String>,
    /// As `po`.
    pub short_names: Vec<String>,
    /// As `all`.
    pub categories: Vec<String>,
    /// As `pods/status`.
    pub subresources: Vec<Subresource>,
    /// The OpenAPI name of the kind's type.
    pub schema: String,
    /// The columns of its table, in order.
    pub columns: Vec<Column>,
    /// The fields that a field selector may name.
    pub selectable: Vec<Selectable>,
    /// What discovery says about the stored version; empty for kinds that are not kept.
    pub storage_version_hash: String,
    /// The group and plural under which objects are stored, where it is another
    /// kind's: both are the same objects in two forms (see [`crate::convert`]).
    pub stored_as: Option<(String, String)>,
    /// Whether an update of an object that does not exist creates it.
    pub create_on_update: bool,
    /// Whether an update may leave out `metadata.resourceVersion` and so write over
    /// whatever is there.
    pub unconditional_update: bool,
    /// How long an object lives after its last write, in seconds; `None`: until it is
    /// deleted.
    pub lifetime_seconds: Option<u32>,
    /// Whether a deletion answers with the object instead of a `Status`.
    pub returns_deleted: bool,
    /// Which names are good.
    pub name_rule: NameRule,
    /// The values of the columns.
    pub cells: Cells,
    /// Where its scale stands, of kinds with that subresource.
    pub scale: Option<ScalePaths>,
    /// Defaults, validation, columns' values.
    pub rules: &'static Rules,
    /// What stands in place of a type of the table, for kinds made at run time.
    pub defined: Option<Arc<dyn Defined>>,
}

/// A subresource of a kind.
#[derive(Debug, Clone, Deserialize)]
pub struct Subresource {
    /// As `status`.
    pub name: String,
    /// Group of the body's kind.
    pub group: String,
    /// Version of the body's kind.
    pub version: String,
    /// The body's kind.
    pub kind: String,
    /// Verbs of discovery.
    pub verbs: Vec<String>,
    /// The OpenAPI name of the body's type.
    pub schema: String,
}

/// A column of a kind's table.
#[derive(Debug, Clone, Deserialize)]
pub struct Column {
    /// Its heading.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub column_type: String,
    /// `name` for the column that holds the object's name, else mostly empty.
    pub format: String,
    /// 0: always shown; 1: with `-o wide`.
    pub priority: u32,
    /// What it shows: a type and field whose documentation says so, or text.
    pub described_by: String,
}

/// The values of a kind's columns, of an object and the time in seconds since 1970.
#[derive(Clone)]
pub struct Cells(Arc<CellsFn>);

type CellsFn = dyn Fn(&Value, i64) -> Vec<Value> + Send + Sync;

impl Cells {
    /// Cells by a function.
    pub fn new(cells: impl Fn(&Value, i64) -> Vec<Value> + Send + Sync + 'static) -> Self {
        Self(Arc::new(cells))
    }

    /// The cells of one object.
    pub fn of(&self, object: &Value, now_unix_seconds: i64) -> Vec<Value> {
        (self.0)(object, now_unix_seconds)
    }
}

impl std::fmt::Debug for Cells {
    fn fmt(&self, output: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        output.write_str("Cells")
    }
}

/// A field that a field selector may name.
#[derive(Debug, Clone)]
pub struct Selectable {
    /// As the selector writes it.
    pub label: String,
    /// Where it stands in the object.
    pub path: String,
    /// What an absent field is taken for.
    pub default: String,
}

impl Default for Resource {
    /// What most kinds have; whoever makes one states what differs.
    fn default() -> Self {
        Self {
            group: String::new(),
            version: String::new(),
            kind: String::new(),
            list_kind: String::new(),
            plural: String::new(),
            singular: String::new(),
            namespaced: true,
            verbs: Vec::new(),
            short_names: Vec::new(),
            categories: Vec::new(),
            subresources: Vec::new(),
            schema: String::new(),
            columns: Vec::new(),
            selectable: own::selectable("metadata.name metadata.namespace"),
            storage_version_hash: String::new(),
            stored_as: None,
            create_on_update: false,
            unconditional_update: true,
            returns_deleted: false,
            lifetime_seconds: None,
            name_rule: NameRule::DnsSubdomain,
            cells: Cells::new(cells::plain),
            scale: None,
            rules: &rules::PLAIN,
            defined: None,
        }
    }
}

/// The built-in kinds: the core group first, groups as `/apis` lists them, in each the
/// preferred version first, then by plural name.
pub fn built_in() -> &'static Index {
    &BUILT_IN
}

/// Every built-in kind, in the order of [`built_in`].
pub fn all() -> &'static [Arc<Resource>] {
    BUILT_IN.all()
}

/// The built-in kind at that group, version and plural name.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Arc<Resource>> {
    BUILT_IN.find(group, version, plural)
}

/// The built-in kind of that group, version and kind name.
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static Arc<Resource>> {
    BUILT_IN.find_kind(group, version, kind)
}

impl Resource {
    /// `/nautilus/registry/pods/`, or `/nautilus/registry/<group>/<plural>/` for a named
    /// group: reserved keys, so that nobody writes objects past the API.
    pub fn storage_prefix(&self) -> String {
        let (group, plural) = match &self.stored_as {
            Some((group, plural)) => (group, plural),
            None => (&self.group, &self.plural),
        };
        if group.is_empty() {
            format!("/nautilus/registry/{plural}/")
        } else {
            format!("/nautilus/registry/{group}/{plural}/")
        }
    }

    /// The key of one object.
    pub fn key(&self, namespace: Option<&str>, name: &str) -> String {
        match namespace {
            Some(namespace) if self.namespaced => {
                format!("{}{name}", self.namespace_prefix(namespace))
            }
            _ => format!("{}{name}", self.storage_prefix()),
        }
    }

    /// The prefix of a namespace's objects.
    pub fn namespace_prefix(&self, namespace: &str) -> String {
        format!("{}{namespace}/", self.storage_prefix())
    }

    /// `v1` or `group/version`.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// As `PodList`.
    pub fn list_kind(&self) -> String {
        match self.list_kind.as_str() {
            "" => format!("{}List", self.kind),
            named => named.to_owned(),
        }
    }

    /// The OpenAPI name of the list's type.
    pub fn list_schema(&self) -> String {
        format!("{}List", self.schema)
    }

    /// `pods`, or `leases.coordination.k8s.io`: how messages call it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// Whether discovery lists the verb.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|own| own == verb)
    }

    /// Whether objects are kept: reviews and the like are answered and forgotten.
    pub fn is_stored(&self) -> bool {
        !self.storage_version_hash.is_empty()
    }
}

/// `v1` or `group/version`.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

const KINDS: &str = include_str!("../schema/kinds-v1.37.json");

static BUILT_IN: LazyLock<Index> = LazyLock::new(|| Index::new(load(KINDS)));

/// A row of the generated table.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Row {
    group: String,
    version: String,
    kind: String,
    plural: String,
    singular: String,
    namespaced: bool,
    verbs: Vec<String>,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
    #[serde(default)]
    storage_version_hash: String,
    schema: String,
    columns: Vec<Column>,
    #[serde(default)]
    subresources: Vec<Subresource>,
}

#[derive(Deserialize)]
struct Table {
    kinds: Vec<Value>,
}

fn load(text: &str) -> Vec<Arc<Resource>> {
    let Ok(table) = serde_json::from_str::<Table>(text) else {
        return Vec::new();
    };
    let rows = table.kinds.into_iter();
    rows.filter_map(|row| serde_json::from_value::<Row>(row).ok())
        .map(|row| Arc::new(own::complete(row)))
        .collect()
}

/// Whether every kind's types are in the schema (a test holds it).
pub fn is_consistent() -> bool {
    all().iter().all(|resource| {
        schema::find(&resource.schema).is_some()
            && resource
                .subresources
                .iter()
                .all(|sub| schema::find(&sub.schema).is_some())
            && (!resource.has_verb("list") || schema::find(&resource.list_schema()).is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_types() {
        assert!(is_consistent());
    }

    #[test]
    fn every_row_of_the_table_is_understood() {
        assert_eq!(all().len(), KINDS.lines().count() - 2);
        assert!(load("{").is_empty());
    }

    #[test]
    fn keys_nest_by_namespace() {
        let pods = find("", "v1", "pods").expect("served");
        assert_eq!(pods.key(Some("a"), "b"), "/nautilus/registry/pods/a/b");
        let nodes = find("", "v1", "nodes").expect("served");
        assert_eq!(nodes.key(None, "b"), "/nautilus/registry/nodes/b");
        let leases = find("coordination.k8s.io", "v1", "leases").expect("served");
        assert_eq!(
            leases.namespace_prefix("a"),
            "/nautilus/registry/coordination.k8s.io/leases/a/"
        );
    }

    #[test]
    fn both_kinds_of_events_share_their_keys() {
        let core = find("", "v1", "events").expect("served");
        let events = find("events.k8s.io", "v1", "events").expect("served");
        assert_eq!(core.key(Some("a"), "b"), events.key(Some("a"), "b"));
    }
}
