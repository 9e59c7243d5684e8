//! A version of a defined kind as a [`Resource`].

use std::sync::Arc;

use nautilus_extension::custom;
use nautilus_extension::definition::{Column as Printed, Conversion, Definition, Names, Version};
use nautilus_extension::{ColumnPath, cell};
use nautilus_machinery::resource::{Cells, Column, Defined, Resource, Selectable, Subresource};
use nautilus_machinery::scale;
use nautilus_machinery::scale::{ScalePaths, ScaleSelector};
use nautilus_machinery::status::Cause;
use nautilus_machinery::strategy::rules::{PLAIN, Rules};
use nautilus_machinery::table::duration;
use nautilus_machinery::validation::Errors;
use serde_json::{Value, json};

static RULES: Rules = Rules {
    counts_generation: true,
    ..PLAIN
};

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// One version of a definition, for the machinery.
#[derive(Debug)]
struct Kind {
    definition: Arc<Definition>,
    at: usize,
}

impl Kind {
    fn version(&self) -> &Version {
        // Made for a version of the definition, which never changes.
        &self.definition.versions[self.at]
    }

    fn in_version(&self, mut object: Value, version: &Version) -> Value {
        if object.is_object() {
            object["apiVersion"] = json!(format!("{}/{}", self.definition.group, version.name));
        }
        object
    }
}

impl Defined for Kind {
    fn normalize(&self, object: &mut Value) -> Result<Vec<String>, Vec<Cause>> {
        custom::normalize(self.version(), self.definition.preserve_unknown, object)
            .map_err(Errors::into_causes)
    }

    fn check(
        &self,
        subresource: Option<&str>,
        old: Option<&Value>,
        object: &Value,
    ) -> (Errors, Vec<String>) {
        let findings = match (subresource, old) {
            (Some("status"), Some(old)) => custom::check_status(self.version(), object, old),
            _ => custom::check(self.version(), object, old),
        };
        (findings.errors, findings.warnings)
    }

    fn read_stored(&self, object: Value) -> Value {
        if self.unconvertible(object["apiVersion"].as_str()).is_some() {
            return object;
        }
        let mut object = self.in_version(object, self.version());
        // What was stored before the schema became what it is.
        let _ = custom::normalize(
            self.version(),
            self.definition.preserve_unknown,
            &mut object,
        );
        object
    }

    fn to_stored(&self, object: Value) -> Value {
        match self.definition.storage_version() {
            Some(_) if self.unconvertible(None).is_some() => object,
            Some(storage) => self.in_version(object, storage),
            None => object,
        }
    }

    fn unconvertible(&self, stored: Option<&str>) -> Option<String> {
        let definition = &self.definition;
        if definition.conversion == Conversion::None {
            return None;
        }
        let own = format!("{}/{}", definition.group, self.version().name);
        let is_own = match stored {
            Some(stored) => stored == own,
            None => self.version().storage,
        };
        (!is_own).then(|| {
            format!(
                "conversion webhook for {own}, Kind={} is not called by this server yet",
                definition.names.kind
            )
        })
    }

    fn has_status(&self) -> bool {
        self.version().status
    }

    fn schema(&self) -> (&Value, bool) {
        (
            &self.version().written_schema,
            self.definition.preserve_unknown,
        )
    }

    fn deprecation(&self) -> Option<&str> {
        self.version().deprecation.as_deref()
    }
}

/// The kinds of a definition, by the names that were accepted; the preferred version
/// first. Nothing can be created while the definition is `terminating`.
pub(super) fn resources(
    definition: &Arc<Definition>,
    names: &Names,
    terminating: bool,
) -> Vec<Arc<Resource>> {
    let mut order: Vec<usize> = (0..definition.versions.len())
        .filter(|at| definition.versions[*at].served)
        .collect();
    order.sort_by(|left, right| {
        let name = |at: &usize| definition.versions[*at].name.as_str();
        nautilus_extension::version::compare(name(left), name(right))
    });
    order
        .into_iter()
        .map(|at| {
            let mut made = resource(definition, names, at);
            if terminating {
                made.verbs.retain(|verb| verb != "create");
            }
            Arc::new(made)
        })
        .collect()
}

/// The kind in the version in which its objects are stored, served or not.
pub(super) fn stored(definition: &Arc<Definition>, names: &Names) -> Option<Resource> {
    let at = definition.versions.iter().position(|own| own.storage)?;
    Some(resource(definition, names, at))
}

fn resource(definition: &Arc<Definition>, names: &Names, at: usize) -> Resource {
    let version = &definition.versions[at];
    let storage = definition
        .storage_version()
        .map_or("", |storage| storage.name.as_str());
    let mut selectable = Resource::default().selectable;
    selectable.extend(version.selectable.iter().map(|path| {
        let path = path.trim_start_matches('.').to_owned();
        Selectable {
            label: path.clone(),
            path,
            default: String::new(),
        }
    }));
    let (columns, cells) = table(&version.columns);
    Resource {
        group: definition.group.clone(),
        version: version.name.clone(),
        kind: names.kind.clone(),
        plural: names.plural.clone(),
        singular: names.singular.clone(),
        namespaced: definition.namespaced,
        verbs: VERBS.map(str::to_owned).to_vec(),
        short_names: names.short_names.clone(),
        categories: names.categories.clone(),
        subresources: subresources(definition, names, version),
        columns,
        cells,
        selectable,
        storage_version_hash: hash(&definition.group, storage, &names.kind),
        unconditional_update: false,
        scale: version.scale.as_ref().map(|scale| {
            let plain = |path: &str| path.trim_start_matches('.').to_owned();
            ScalePaths {
                spec_replicas: plain(&scale.spec_replicas),
                status_replicas: plain(&scale.status_replicas),
                selector: match &scale.label_selector {
                    Some(path) => ScaleSelector::Text(plain(path)),
                    None => ScaleSelector::None,
                },
            }
        }),
        rules: &RULES,
        defined: Some(Arc::new(Kind {
            definition: Arc::clone(definition),
            at,
        })),
        ..Resource::default()
    }
}

/// As the reference makes it: of group, version and kind.
fn hash(group: &str, version: &str, kind: &str) -> String {
    use base64::Engine;
    let digest = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA256,
        format!("{group}/{version}/{kind}").as_bytes(),
    );
    base64::engine::general_purpose::STANDARD.encode(&digest.as_ref()[..8])
}

fn subresources(definition: &Definition, names: &Names, version: &Version) -> Vec<Subresource> {
    let make = |name: &str, group: &str, version: &str, kind: &str, schema: &str| Subresource {
        name: name.to_owned(),
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        verbs: ["get", "patch", "update"].map(str::to_owned).to_vec(),
        schema: schema.to_owned(),
    };
    let mut all = Vec::new();
    if version.scale.is_some() {
        all.push(make("scale", "autoscaling", "v1", "Scale", scale::SCHEMA));
    }
    if version.status {
        all.push(make(
            "status",
            &definition.group,
            &version.name,
            &names.kind,
            "",
        ));
    }
    all
}

/// The columns: the name, and those of the definition or the age.
fn table(printed: &[Printed]) -> (Vec<Column>, Cells) {
    let column = |name: &str, column_type: &str, format: &str, priority: u32| Column {
        name: name.to_owned(),
        column_type: column_type.to_owned(),
        format: format.to_owned(),
        priority,
        described_by: String::new(),
    };
    let mut columns = vec![column("Name", "string", "name", 0)];
    let mut paths: Vec<(String, Option<ColumnPath>)> = Vec::new();
    if printed.is_empty() {
        columns.push(column("Age", "date", "", 0));
        let created = ColumnPath::parse(".metadata.creationTimestamp").ok();
        paths.push(("date".to_owned(), created));
    }
    for own in printed {
        columns.push(column(&own.name, &own.kind, &own.format, own.priority));
        paths.push((own.kind.clone(), own.path.clone()));
    }
    let cells = Cells::new(move |object: &Value, now: i64| {
        let mut cells = vec![object["metadata"]["name"].clone()];
        for (kind, path) in &paths {
            let found = path
                .as_ref()
                .map_or_else(Vec::new, |path| path.find(object));
            let age = |seconds: i64| duration::human(now - seconds);
            cells.push(cell(kind, &found, &age));
        }
        cells
    });
    (columns, cells)
}
