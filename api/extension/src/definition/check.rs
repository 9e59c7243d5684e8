//! What is wrong with a definition, in the words of the reference. Its paths are those of
//! the reference's internal form, in which what all versions have alike stands above them
//! (`spec.validation` for `spec.versions[*].schema`).

use nautilus_machinery::validation::{Errors, dns_1035_label, dns_subdomain};
use serde_json::{Value, json};

use super::conversion::conversion;
use super::schemas::{SchemaCheck, check_schema};
use crate::path::{Step, parse_field_path, shown};
use crate::schema::{Schema, list, texts};

const COLUMN_TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: &[&str] = &[
    "byte",
    "date",
    "date-time",
    "double",
    "float",
    "int32",
    "int64",
    "password",
];
const APPROVAL: &str = "api-approved.kubernetes.io";
const APPROVAL_SOURCE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
const MAX_SELECTABLE: usize = 8;

/// Everything that is wrong with a new definition, or with a changed one beside what it
/// was.
pub fn validate(object: &Value, old: Option<&Value>) -> Errors {
    let mut errors = Errors::new();
    name(&mut errors, object, old);
    spec(
        &mut errors,
        &object["spec"],
        old.map(|old| &old["spec"]),
        is_established(old),
    );
    names(
        &mut errors,
        "status.acceptedNames",
        &object["status"]["acceptedNames"],
    );
    stored_versions(&mut errors, object);
    approval(&mut errors, object, old);
    if object["spec"]["preserveUnknownFields"] == true
        && old.is_none_or(|old| old["spec"]["preserveUnknownFields"] != true)
    {
        errors.invalid(
            "spec.preserveUnknownFields",
            &json!(true),
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        );
    }
    errors
}

/// What is wrong with a definition's status.
pub fn validate_status(object: &Value) -> Errors {
    let mut errors = Errors::new();
    names(
        &mut errors,
        "status.acceptedNames",
        &object["status"]["acceptedNames"],
    );
    errors
}

/// What is odd about a definition but served.
pub fn warnings(object: &Value, old: Option<&Value>) -> Vec<String> {
    let found = |object: &Value| -> Vec<String> {
        let mut found = Vec::new();
        for version in list(&object["spec"]["versions"]) {
            formats(&version["schema"]["openAPIV3Schema"], &mut found);
        }
        found.dedup();
        found
    };
    let before = old.map(found).unwrap_or_default();
    found(object)
        .into_iter()
        .filter(|warning| !before.contains(warning))
        .collect()
}

fn formats(schema: &Value, found: &mut Vec<String>) {
    if let Some(format) = schema["format"]
        .as_str()
        .filter(|format| !format.is_empty())
    {
        let kind = schema["type"].as_str().unwrap_or_default();
        if !crate::formats::is_known(kind, format) {
            found.push(format!("unrecognized format {format:?}"));
        }
    }
    if schema["items"].is_object() {
        formats(&schema["items"], found);
    }
    if schema["additionalProperties"].is_object() {
        formats(&schema["additionalProperties"], found);
    }
    for field in schema["properties"].as_object().into_iter().flatten() {
        formats(field.1, found);
    }
}

fn is_established(old: Option<&Value>) -> bool {
    old.is_some_and(|old| {
        list(&old["status"]["conditions"])
            .any(|condition| condition["type"] == "Established" && condition["status"] == "True")
    })
}

fn name(errors: &mut Errors, object: &Value, old: Option<&Value>) {
    if old.is_some() {
        return;
    }
    let spec = &object["spec"];
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let required = format!(
        "{}.{}",
        spec["names"]["plural"].as_str().unwrap_or_default(),
        spec["group"].as_str().unwrap_or_default()
    );
    if name != required {
        errors.invalid_text(
            "metadata.name",
            name,
            "must be spec.names.plural+\".\"+spec.group",
        );
    }
}

fn spec(errors: &mut Errors, spec: &Value, old: Option<&Value>, established: bool) {
    let group = spec["group"].as_str().unwrap_or_default();
    if group.is_empty() {
        errors.required("spec.group", "");
    } else {
        let wrong = dns_subdomain(group);
        if !wrong.is_empty() {
            errors.invalid_text("spec.group", group, &wrong.join(","));
        } else if !group.contains('.') {
            errors.invalid_text(
                "spec.group",
                group,
                "should be a domain with at least one dot",
            );
        }
    }
    match spec["scope"].as_str().unwrap_or_default() {
        "" => errors.required("spec.scope", ""),
        "Cluster" | "Namespaced" => {}
        other => errors.not_supported("spec.scope", other, &["Cluster", "Namespaced"]),
    }
    for (at, version) in list(&spec["versions"]).enumerate() {
        if version["schema"]["openAPIV3Schema"].is_null() {
            errors.required(&format!("spec.versions[{at}].schema.openAPIV3Schema"), "");
        }
    }
    versions(errors, spec, old);
    if let Some(first) = spec["versions"][0]["name"].as_str() {
        let wrong = dns_1035_label(first);
        if !wrong.is_empty() {
            errors.invalid_text("spec.version", first, &wrong.join(","));
        }
    }
    for name in ["plural", "singular", "kind", "listKind"] {
        if spec["names"][name].as_str().is_none_or(str::is_empty) {
            errors.required(&format!("spec.names.{name}"), "");
        }
    }
    names(errors, "spec.names", &spec["names"]);
    shared(errors, spec, old);
    conversion(errors, spec);
    if let Some(old) = old {
        let mut immutable = |path: &str, new: &Value, old: &Value| {
            if new != old {
                errors.invalid(path, new, "field is immutable");
            }
        };
        if established {
            immutable("spec.scope", &spec["scope"], &old["scope"]);
            immutable(
                "spec.names.kind",
                &spec["names"]["kind"],
                &old["names"]["kind"],
            );
        }
        immutable("spec.group", &spec["group"], &old["group"]);
        immutable(
            "spec.names.plural",
            &spec["names"]["plural"],
            &old["names"]["plural"],
        );
    }
}

/// The value of a field of all versions, if they have it alike.
fn alike<'v>(spec: &'v Value, field: &str) -> Option<&'v Value> {
    let mut versions = list(&spec["versions"]);
    let first = &versions.next()?[field];
    versions
        .all(|version| version[field] == *first)
        .then_some(first)
}

fn versions(errors: &mut Errors, spec: &Value, old: Option<&Value>) {
    let mut names: Vec<&str> = Vec::new();
    let mut storage = 0;
    let mut unique = true;
    for (at, version) in list(&spec["versions"]).enumerate() {
        let path = format!("spec.versions[{at}]");
        let name = version["name"].as_str().unwrap_or_default();
        storage += usize::from(version["storage"] == true);
        unique &= !names.contains(&name);
        names.push(name);
        let wrong = dns_1035_label(name);
        if !wrong.is_empty() {
            errors.invalid_text(&format!("{path}.name"), name, &wrong.join(","));
        }
        deprecation(errors, &path, version);
        if alike(spec, "schema").is_none() {
            let unchanged = is_unchanged(version, old);
            schema(errors, &format!("{path}.schema"), version, unchanged);
        }
        if alike(spec, "subresources").is_none() {
            subresources(
                errors,
                &format!("{path}.subresources"),
                &version["subresources"],
            );
        }
        if alike(spec, "additionalPrinterColumns").is_none() {
            columns(errors, &path, &version["additionalPrinterColumns"]);
        }
        if alike(spec, "selectableFields").is_none() {
            selectable(errors, &path, version);
        }
    }
    if !unique {
        errors.invalid(
            "spec.versions",
            &shown_versions(spec),
            "must contain unique version names",
        );
    }
    if storage != 1 {
        errors.invalid(
            "spec.versions",
            &shown_versions(spec),
            "must have exactly one version marked as storage version",
        );
    }
}

/// Versions as messages show them, with what all have alike left out.
fn shown_versions(spec: &Value) -> Value {
    list(&spec["versions"])
        .map(|version| {
            json!({
                "Name": version["name"],
                "Served": version["served"] == true,
                "Storage": version["storage"] == true,
                "Deprecated": version["deprecated"] == true,
                "DeprecationWarning": version["deprecationWarning"],
                "Schema": null,
                "Subresources": null,
                "AdditionalPrinterColumns": null,
                "SelectableFields": null,
            })
        })
        .collect()
}

/// What all versions have alike.
fn shared(errors: &mut Errors, spec: &Value, old: Option<&Value>) {
    let Some(first) = list(&spec["versions"]).next() else {
        return;
    };
    if alike(spec, "schema").is_some() {
        schema(errors, "spec.validation", first, is_unchanged(first, old));
    }
    if let Some(shared) = alike(spec, "subresources") {
        subresources(errors, "spec.subresources", shared);
    }
    if let Some(shared) = alike(spec, "additionalPrinterColumns") {
        columns(errors, "spec", shared);
    }
    if alike(spec, "selectableFields").is_some() {
        selectable(errors, "spec", first);
    }
}

fn is_unchanged(version: &Value, old: Option<&Value>) -> bool {
    old.is_some_and(|old| {
        list(&old["versions"])
            .find(|before| before["name"] == version["name"])
            .is_some_and(|before| before["schema"] == version["schema"])
    })
}

fn schema(errors: &mut Errors, path: &str, version: &Value, unchanged: bool) {
    let schema = &version["schema"]["openAPIV3Schema"];
    if schema.is_null() {
        return;
    }
    let has_status = version["subresources"]["status"].is_object();
    let check = SchemaCheck {
        has_status,
        suppress_cost: unchanged,
    };
    errors.extend(check_schema(
        &format!("{path}.openAPIV3Schema"),
        schema,
        check,
    ));
}

fn deprecation(errors: &mut Errors, path: &str, version: &Value) {
    let Some(warning) = version["deprecationWarning"].as_str() else {
        return;
    };
    let path = format!("{path}.deprecationWarning");
    if version["deprecated"] != true {
        return errors.invalid_text(&path, warning, "can only be set for deprecated versions");
    }
    if warning.len() > 256 {
        errors.invalid_text(&path, warning, "must be <= 256 characters long");
    }
    if warning.is_empty() {
        errors.invalid_text(&path, warning, "must not be an empty string");
    }
    if let Some((at, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        errors.invalid_text(
            &path,
            warning,
            &format!("must only contain printable UTF-8 characters; non-printable character found at index {at}"),
        );
    }
}

fn names(errors: &mut Errors, path: &str, names: &Value) {
    let text = |key: &str| names[key].as_str().unwrap_or_default();
    for key in ["plural", "singular"] {
        let wrong = dns_1035_label(text(key));
        if !text(key).is_empty() && !wrong.is_empty() {
            errors.invalid_text(&format!("{path}.{key}"), text(key), &wrong.join(","));
        }
    }
    for key in ["kind", "listKind"] {
        let wrong = dns_1035_label(&text(key).to_lowercase());
        if !text(key).is_empty() && !wrong.is_empty() {
            let detail = format!(
                "may have mixed case, but should otherwise match: {}",
                wrong.join(",")
            );
            errors.invalid_text(&format!("{path}.{key}"), text(key), &detail);
        }
    }
    let labels = |errors: &mut Errors, key: &str| {
        for (at, name) in texts(&names[key]).iter().enumerate() {
            let wrong = dns_1035_label(name);
            if !wrong.is_empty() {
                errors.invalid_text(&format!("{path}.{key}[{at}]"), name, &wrong.join(","));
            }
        }
    };
    labels(errors, "shortNames");
    if !text("kind").is_empty() && text("kind") == text("listKind") {
        errors.invalid_text(
            &format!("{path}.listKind"),
            text("listKind"),
            "kind and listKind may not be the same",
        );
    }
    labels(errors, "categories");
}

fn stored_versions(errors: &mut Errors, object: &Value) {
    let path = "status.storedVersions";
    let stored = texts(&object["status"]["storedVersions"]);
    if stored.is_empty() {
        return errors.invalid(path, &Value::Null, "must have at least one stored version");
    }
    for version in list(&object["spec"]["versions"]).filter(|version| version["storage"] == true) {
        let name = version["name"].as_str().unwrap_or_default();
        if !stored.iter().any(|stored| stored == name) {
            errors.invalid(
                path,
                &json!(stored),
                &format!("must have the storage version {name}"),
            );
        }
    }
    for (at, name) in stored.iter().enumerate() {
        let known = list(&object["spec"]["versions"]).any(|version| version["name"] == **name);
        if !known {
            errors.invalid_text(
                &format!("{path}[{at}]"),
                name,
                &format!("missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"),
            );
        }
    }
}

/// What the approval annotation says.
#[derive(PartialEq)]
enum Approval {
    Missing,
    Given,
    Wrong,
}

fn approval_of(object: &Value) -> Approval {
    match object["metadata"]["annotations"][APPROVAL].as_str() {
        None | Some("") => Approval::Missing,
        Some(text) if text.starts_with("unapproved") => Approval::Given,
        Some(text) if text.contains("://") && nautilus_cel::is_url(text) => Approval::Given,
        Some(_) => Approval::Wrong,
    }
}

fn approval(errors: &mut Errors, object: &Value, old: Option<&Value>) {
    let group = object["spec"]["group"].as_str().unwrap_or_default();
    let protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group == *domain || group.ends_with(&format!(".{domain}")));
    let state = approval_of(object);
    if !protected || old.is_some_and(|old| approval_of(old) == state) {
        return;
    }
    let path = format!("metadata.annotations[{APPROVAL}]");
    match state {
        Approval::Given => {}
        Approval::Missing => errors.required(
            &path,
            &format!("protected groups must have approval annotation \"{APPROVAL}\", {APPROVAL_SOURCE}"),
        ),
        Approval::Wrong => errors.invalid(
            &path,
            &object["metadata"]["annotations"][APPROVAL],
            &format!("protected groups must have approval annotation \"{APPROVAL}\" with either a URL or a reason starting with \"unapproved\", {APPROVAL_SOURCE}"),
        ),
    }
}

fn simple_path(errors: &mut Errors, at: &str, path: &str) -> bool {
    if path.starts_with('.') {
        return true;
    }
    errors.invalid_text(at, path, "must be a simple json path starting with .");
    false
}

fn subresources(errors: &mut Errors, path: &str, subresources: &Value) {
    let scale = &subresources["scale"];
    if !scale.is_object() {
        return;
    }
    for (key, prefix) in [
        ("specReplicasPath", ".spec"),
        ("statusReplicasPath", ".status"),
    ] {
        let at = format!("{path}.scale.{key}");
        let text = scale[key].as_str().unwrap_or_default();
        if text.is_empty() {
            errors.required(&at, "");
        } else if simple_path(errors, &at, text) && !text.starts_with(&format!("{prefix}.")) {
            errors.invalid_text(&at, text, &format!("should be a json path under {prefix}"));
        }
    }
    let text = scale["labelSelectorPath"].as_str().unwrap_or_default();
    let at = format!("{path}.scale.labelSelectorPath");
    if !text.is_empty()
        && simple_path(errors, &at, text)
        && !text.starts_with(".spec.")
        && !text.starts_with(".status.")
    {
        errors.invalid_text(
            &at,
            text,
            "should be a json path under either .spec or .status",
        );
    }
}

fn columns(errors: &mut Errors, path: &str, columns: &Value) {
    for (at, column) in list(columns).enumerate() {
        let path = format!("{path}.additionalPrinterColumns[{at}]");
        let text = |key: &str| column[key].as_str().unwrap_or_default();
        if text("name").is_empty() {
            errors.required(&format!("{path}.name"), "");
        }
        let types = format!("must be one of {}", COLUMN_TYPES.join(","));
        if text("type").is_empty() {
            errors.required(&format!("{path}.type"), &types);
        } else if !COLUMN_TYPES.contains(&text("type")) {
            errors.invalid_text(&format!("{path}.type"), text("type"), &types);
        }
        if !text("format").is_empty() && !COLUMN_FORMATS.contains(&text("format")) {
            let formats = format!("must be one of {}", COLUMN_FORMATS.join(","));
            errors.invalid_text(&format!("{path}.format"), text("format"), &formats);
        }
        let at = format!("{path}.JSONPath");
        if text("jsonPath").is_empty() {
            errors.required(&at, "");
        } else {
            simple_path(errors, &at, text("jsonPath"));
        }
    }
}

fn selectable(errors: &mut Errors, path: &str, version: &Value) {
    let fields: Vec<&Value> = list(&version["selectableFields"]).collect();
    if fields.is_empty() {
        return;
    }
    let path = format!("{path}.selectableFields");
    let Ok(schema) = Schema::parse(&version["schema"]["openAPIV3Schema"]) else {
        return;
    };
    let mut seen: Vec<String> = Vec::new();
    for (at, field) in fields.iter().enumerate() {
        let at = format!("{path}[{at}].jsonPath");
        let text = field["jsonPath"].as_str().unwrap_or_default();
        if text.is_empty() {
            errors.required(&at, "");
            continue;
        }
        let (steps, found) = match parse_field_path(text, &schema, false) {
            Ok(parsed) => parsed,
            Err(why) => {
                errors.invalid_text(&at, text, &format!("is an invalid path: {why}"));
                continue;
            }
        };
        if steps.first() == Some(&Step::Field("metadata".to_owned())) {
            errors.invalid_text(&at, text, "must not point to fields in metadata");
        }
        if !matches!(found.kind.as_str(), "string" | "boolean" | "integer") {
            errors.invalid_text(
                &at,
                text,
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
            );
        }
        let canonical = shown(&steps);
        if seen.contains(&canonical) {
            errors.duplicate(&at, &json!(text));
        } else {
            seen.push(canonical);
        }
    }
    if seen.len() > MAX_SELECTABLE {
        errors.too_many(&path, seen.len(), MAX_SELECTABLE);
    }
}
