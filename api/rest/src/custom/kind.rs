//! A version of a defined kind as a [`Resource`].

use std::sync::Arc;

use nautilus_extension::custom;
use nautilus_extension::definition::{Column as Printed, Definition, Names, Version};
use nautilus_extension::{ColumnPath, cell};
use nautilus_machinery::resource::{
    Cells, Column, Defined, Resource, Selectable, Subresource, api_version,
};
use nautilus_machinery::scale;
use nautilus_machinery::scale::{ScalePaths, ScaleSelector};
use nautilus_machinery::status::Cause;
use nautilus_machinery::strategy::rules::{PLAIN, Rules};
use nautilus_machinery::table::duration;
use nautilus_machinery::validation::Errors;
use serde_json::{Value, json};

use super::conversion::Converter;
use crate::webhook::WebhookClients;

static RULES: Rules = Rules {
    counts_generation: true,
    ..PLAIN
};

/// In the order that discovery lists them for defined kinds.
const VERBS: [&str; 8] = [
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "create",
    "update",
    "watch",
];

/// One version of a definition, for the machinery.
#[derive(Debug)]
pub(super) struct Kind {
    definition: Arc<Definition>,
    at: usize,
    /// Who converts between the versions, if more than `apiVersion` changes.
    pub(super) converter: Option<Arc<Converter>>,
}

impl Kind {
    fn version(&self) -> &Version {
        // Made for a version of the definition, which never changes.
        &self.definition.versions[self.at]
    }

    fn api_version(&self, version: &Version) -> String {
        api_version(&self.definition.group, &version.name)
    }

    /// The `apiVersion` of objects that are stored now.
    pub(super) fn stored_as(&self) -> Option<String> {
        let version = self.definition.storage_version()?;
        Some(self.api_version(version))
    }

    fn in_version(&self, mut object: Value, version: &Version) -> Value {
        if object.is_object() {
            object["apiVersion"] = json!(self.api_version(version));
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
            Some(storage) if self.converter.is_none() => self.in_version(object, storage),
            _ => object,
        }
    }

    fn reads(&self, stored: &str) -> bool {
        self.converter.is_none() || stored == self.api_version(self.version())
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
    clients: &Arc<WebhookClients>,
) -> Vec<Arc<Resource>> {
    let converter = Converter::of(&definition.conversion, clients);
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
            let mut made = resource(definition, names, at, converter.clone());
            if terminating {
                made.verbs.retain(|verb| verb != "create");
            }
            Arc::new(made)
        })
        .collect()
}

/// The kind in the version in which its objects are stored, served or not.
pub(super) fn stored(
    definition: &Arc<Definition>,
    names: &Names,
    clients: &Arc<WebhookClients>,
) -> Option<Resource> {
    let at = definition.versions.iter().position(|own| own.storage)?;
    let converter = Converter::of(&definition.conversion, clients);
    Some(resource(definition, names, at, converter))
}

fn resource(
    definition: &Arc<Definition>,
    names: &Names,
    at: usize,
    converter: Option<Arc<Converter>>,
) -> Resource {
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
        list_kind: names.list_kind.clone(),
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
            converter,
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
    if version.status {
        all.push(make(
            "status",
            &definition.group,
            &version.name,
            &names.kind,
            "",
        ));
    }
    if version.scale.is_some() {
        all.push(make("scale", "autoscaling", "v1", "Scale", scale::SCHEMA));
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
