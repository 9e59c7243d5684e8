//! A CustomResourceDefinition, as those who serve it need it, and its defaults.

mod check;
mod conversion;
mod plain;
mod schemas;

use std::sync::Arc;

use serde_json::{Value, json};

pub use check::{validate, validate_status, warnings};

use crate::columns::ColumnPath;
use crate::rules::Rules;
use crate::schema::{Schema, list, texts};

/// The finalizer that keeps a definition until its objects are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// What a definition defines.
#[derive(Debug)]
pub struct Definition {
    /// `plural.group`
    pub name: String,
    /// Its group.
    pub group: String,
    /// The names asked for.
    pub names: Names,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Its versions, as written.
    pub versions: Vec<Version>,
    /// How objects get from one version to another.
    pub conversion: Conversion,
    /// Unknown fields of objects are kept (definitions of before structural schemas).
    pub preserve_unknown: bool,
}

/// How a kind is called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// As `widgets`.
    pub plural: String,
    /// As `widget`.
    pub singular: String,
    /// As `Widget`.
    pub kind: String,
    /// As `WidgetList`.
    pub list_kind: String,
    /// As `wd`.
    pub short_names: Vec<String>,
    /// As `all`.
    pub categories: Vec<String>,
}

/// One version.
#[derive(Debug)]
pub struct Version {
    /// As `v1`.
    pub name: String,
    /// Whether it is served.
    pub served: bool,
    /// Whether objects are stored in it.
    pub storage: bool,
    /// What clients are warned of, if it is deprecated.
    pub deprecation: Option<String>,
    /// Its schema.
    pub schema: Arc<Schema>,
    /// The schema as it was written.
    pub written_schema: Value,
    /// The schema's rules.
    pub rules: Option<Rules>,
    /// Whether it has a status subresource.
    pub status: bool,
    /// Its scale subresource.
    pub scale: Option<Scale>,
    /// Its printer columns.
    pub columns: Vec<Column>,
    /// Paths of fields that selectors may name, as `.spec.color`.
    pub selectable: Vec<String>,
}

/// Where the scale subresource finds its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scale {
    /// As `.spec.replicas`.
    pub spec_replicas: String,
    /// As `.status.replicas`.
    pub status_replicas: String,
    /// As `.status.selector`.
    pub label_selector: Option<String>,
}

/// A printer column.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its heading.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: String,
    /// As `int32`, or empty.
    pub format: String,
    /// What it tells.
    pub description: String,
    /// 0: always shown.
    pub priority: u32,
    /// Where its values are.
    pub path: Option<ColumnPath>,
}

/// How objects are converted.
#[derive(Debug, Clone, PartialEq)]
pub enum Conversion {
    /// Only `apiVersion` changes.
    None,
    /// By a webhook: its `clientConfig` and the versions of reviews it knows.
    Webhook {
        /// `url` or `service`, and `caBundle`.
        client: Value,
        /// As `v1`, in order of preference.
        review_versions: Vec<String>,
    },
}

impl Definition {
    /// Reads a definition that was found valid when it was written. What cannot be read
    /// after all is an error, not an empty schema.
    pub fn parse(object: &Value) -> Result<Self, String> {
        let spec = &object["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let versions: Result<Vec<Version>, String> = list(&spec["versions"])
            .map(|version| parse_version(object, version))
            .collect();
        let conversion = &spec["conversion"];
        Ok(Self {
            name: text(&object["metadata"]["name"]),
            group: text(&spec["group"]),
            names: Names::parse(&spec["names"]),
            namespaced: spec["scope"] == "Namespaced",
            versions: versions?,
            conversion: match conversion["strategy"].as_str() {
                Some("Webhook") => Conversion::Webhook {
                    client: conversion["webhook"]["clientConfig"].clone(),
                    review_versions: texts(&conversion["webhook"]["conversionReviewVersions"]),
                },
                _ => Conversion::None,
            },
            preserve_unknown: spec["preserveUnknownFields"] == true,
        })
    }

    /// The version of that name.
    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.name == name)
    }

    /// The version in which objects are stored.
    pub fn storage_version(&self) -> Option<&Version> {
        self.versions.iter().find(|version| version.storage)
    }
}

impl Names {
    /// Reads `spec.names` or `status.acceptedNames`.
    pub fn parse(names: &Value) -> Self {
        let text = |key: &str| names[key].as_str().unwrap_or_default().to_owned();
        Self {
            plural: text("plural"),
            singular: text("singular"),
            kind: text("kind"),
            list_kind: text("listKind"),
            short_names: texts(&names["shortNames"]),
            categories: texts(&names["categories"]),
        }
    }

    /// As the status writes them.
    pub fn to_json(&self) -> Value {
        let mut names = json!({"plural": self.plural, "kind": self.kind});
        for (key, value) in [("singular", &self.singular), ("listKind", &self.list_kind)] {
            if !value.is_empty() {
                names[key] = json!(value);
            }
        }
        for (key, value) in [
            ("shortNames", &self.short_names),
            ("categories", &self.categories),
        ] {
            if !value.is_empty() {
                names[key] = json!(value);
            }
        }
        names
    }
}

fn parse_version(object: &Value, version: &Value) -> Result<Version, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = text(&version["name"]);
    let written_schema = version["schema"]["openAPIV3Schema"].clone();
    let schema = Schema::parse(&written_schema).map_err(|error| error.to_string())?;
    let rules = Rules::compile(&schema, true);
    let deprecated = version["deprecated"] == true;
    let group = text(&object["spec"]["group"]);
    let kind = text(&object["spec"]["names"]["kind"]);
    let deprecation = deprecated.then(|| match version["deprecationWarning"].as_str() {
        Some(warning) => warning.to_owned(),
        None => deprecation_warning(object, &group, &name, &kind),
    });
    let subresources = &version["subresources"];
    let scale = subresources["scale"].as_object().map(|_| {
        let scale = &subresources["scale"];
        Scale {
            spec_replicas: text(&scale["specReplicasPath"]),
            status_replicas: text(&scale["statusReplicasPath"]),
            label_selector: scale["labelSelectorPath"]
                .as_str()
                .filter(|path| !path.is_empty())
                .map(str::to_owned),
        }
    });
    Ok(Version {
        served: version["served"] == true,
        storage: version["storage"] == true,
        deprecation,
        schema: Arc::new(schema),
        written_schema,
        rules,
        status: subresources["status"].is_object(),
        scale,
        columns: list(&version["additionalPrinterColumns"])
            .map(parse_column)
            .collect(),
        selectable: list(&version["selectableFields"])
            .map(|field| text(&field["jsonPath"]))
            .collect(),
        name,
    })
}

/// What clients of a deprecated version are told, with the version to use instead.
fn deprecation_warning(object: &Value, group: &str, name: &str, kind: &str) -> String {
    let mut better: Vec<&str> = list(&object["spec"]["versions"])
        .filter(|version| version["served"] == true && version["deprecated"] != true)
        .filter_map(|version| version["name"].as_str())
        .collect();
    better.sort_by(|left, right| crate::version::compare(left, right));
    let newer = better
        .first()
        .filter(|best| crate::version::compare(best, name).is_lt());
    match newer {
        Some(best) => {
            format!("{group}/{name} {kind} is deprecated; use {group}/{best} {kind}")
        }
        None => format!("{group}/{name} {kind} is deprecated"),
    }
}

fn parse_column(column: &Value) -> Column {
    let text = |key: &str| column[key].as_str().unwrap_or_default().to_owned();
    Column {
        name: text("name"),
        kind: text("type"),
        format: text("format"),
        description: text("description"),
        priority: column["priority"]
            .as_u64()
            .and_then(|priority| u32::try_from(priority).ok())
            .unwrap_or_default(),
        path: ColumnPath::parse(&text("jsonPath")).ok(),
    }
}

/// Fills in what a definition may leave out.
pub fn apply_defaults(object: &mut Value) {
    let spec = &mut object["spec"];
    if !spec.is_object() {
        return;
    }
    if let Some(kind) = spec["names"]["kind"].as_str().map(str::to_owned) {
        let empty = |value: &Value| value.as_str().is_none_or(str::is_empty);
        if empty(&spec["names"]["singular"]) {
            spec["names"]["singular"] = json!(kind.to_lowercase());
        }
        if empty(&spec["names"]["listKind"]) && !kind.is_empty() {
            spec["names"]["listKind"] = json!(format!("{kind}List"));
        }
    }
    if spec["conversion"].is_null() {
        spec["conversion"] = json!({"strategy": "None"});
    }
    let service = spec
        .pointer_mut("/conversion/webhook/clientConfig/service")
        .filter(|service| service.is_object() && service["port"].is_null());
    if let Some(service) = service {
        service["port"] = json!(443);
    }
}

/// The status of a new definition, or of one whose storage version changed.
pub fn note_storage_version(object: &mut Value) {
    let storage = list(&object["spec"]["versions"])
        .find(|version| version["storage"] == true)
        .and_then(|version| version["name"].as_str())
        .map(str::to_owned);
    let Some(storage) = storage else {
        return;
    };
    let mut stored = texts(&object["status"]["storedVersions"]);
    if !stored.contains(&storage) {
        stored.push(storage);
        object["status"]["storedVersions"] = json!(stored);
    }
}
