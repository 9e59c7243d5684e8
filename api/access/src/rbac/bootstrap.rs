//! The roles and bindings that every cluster has, from two compact tables: the reference's, and
//! our own for users of the chain.
//!
//! Source: what kube-apiserver v1.37 makes at its first start, recorded by
//! `bootstrap/record.py` and held by the digests beside it. The table's lines:
//! `KIND [NAMESPACE/]NAME`, with `label:K=V`, `gathers:K=V` (an aggregation selector)
//! and, for bindings, `to:KIND/NAME` where the role's name is another; then indented
//! `VERBS: GROUPS: RESOURCES[: NAMES]` or `VERBS: PATHS` for roles, `KIND NAME` for
//! subjects. `core` is the group without a name.

use serde_json::{Map, Value, json};

use super::GROUP;

const TABLE: &str = include_str!("../../bootstrap/roles.txt");
/// What the groups that a stake on the chain gives are bound to, in the same form.
const STAKES: &str = include_str!("../../bootstrap/stakes.txt");

/// An object to be there: where it belongs, and the whole of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    /// As `clusterroles`.
    pub plural: &'static str,
    /// For roles and role bindings.
    pub namespace: Option<String>,
    /// The object's name.
    pub name: String,
    /// As a client would create it.
    pub object: Value,
}

/// Everything of both tables, roles before bindings.
pub fn all() -> Vec<Expected> {
    let mut all = read(TABLE);
    all.extend(read(STAKES));
    all.sort_by_key(|expected| expected.plural.ends_with("bindings"));
    all
}

/// What the reference has of it.
#[cfg(test)]
pub(super) fn reference() -> Vec<Expected> {
    read(TABLE)
}

fn read(table: &str) -> Vec<Expected> {
    let mut all: Vec<Expected> = Vec::new();
    for line in table.lines() {
        match line.strip_prefix("  ") {
            None => all.extend(head(line)),
            Some(line) => {
                if let Some(expected) = all.last_mut() {
                    add(&mut expected.object, line);
                }
            }
        }
    }
    all
}

fn head(line: &str) -> Option<Expected> {
    let mut words = line.split(' ');
    let (plural, kind, list) = match words.next()? {
        "clusterrole" => ("clusterroles", "ClusterRole", "rules"),
        "clusterrolebinding" => ("clusterrolebindings", "ClusterRoleBinding", "subjects"),
        "role" => ("roles", "Role", "rules"),
        "rolebinding" => ("rolebindings", "RoleBinding", "subjects"),
        _ => return None,
    };
    let (namespace, name) = match words.next()?.split_once('/') {
        Some((namespace, name)) => (Some(namespace.to_owned()), name),
        None => (None, line.split(' ').nth(1)?),
    };
    let mut labels = json!({ "kubernetes.io/bootstrapping": "rbac-defaults" });
    let mut selectors = Vec::new();
    let mut role = (
        if namespace.is_some() {
            "Role"
        } else {
            "ClusterRole"
        },
        name.to_owned(),
    );
    for word in words {
        if let Some((key, value)) = word.strip_prefix("label:").and_then(|w| w.split_once('=')) {
            labels[key] = value.into();
        } else if let Some((key, value)) = word
            .strip_prefix("gathers:")
            .and_then(|w| w.split_once('='))
        {
            selectors.push(json!({ "matchLabels": { key: value } }));
        } else if let Some(name) = word.strip_prefix("to:role/") {
            role = ("Role", name.to_owned());
        } else if let Some(name) = word.strip_prefix("to:clusterrole/") {
            role = ("ClusterRole", name.to_owned());
        }
    }
    let mut object = json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": kind,
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": { "rbac.authorization.kubernetes.io/autoupdate": "true" },
        },
    });
    if let Some(namespace) = &namespace {
        object["metadata"]["namespace"] = namespace.as_str().into();
    }
    if list == "subjects" {
        object["roleRef"] = json!({ "apiGroup": GROUP, "kind": role.0, "name": role.1 });
    } else if selectors.is_empty() {
        object["rules"] = json!([]);
    } else {
        object["aggregationRule"] = json!({ "clusterRoleSelectors": selectors });
    }
    Some(Expected {
        plural,
        namespace,
        name: name.to_owned(),
        object,
    })
}

/// A rule or a subject.
fn add(object: &mut Value, line: &str) {
    let (list, item) = if object.get("roleRef").is_some() {
        ("subjects", subject(line))
    } else {
        ("rules", Some(rule(line)))
    };
    let Some(item) = item else { return };
    match object[list].as_array_mut() {
        Some(items) => items.push(item),
        None => object[list] = json!([item]),
    }
}

fn rule(line: &str) -> Value {
    let words = |text: &str| -> Value {
        text.split(' ')
            .map(|word| Value::from(if word == "core" { "" } else { word }))
            .collect()
    };
    let parts: Vec<&str> = line.split(": ").collect();
    let fields: &[&str] = match parts.len() {
        2 => &["verbs", "nonResourceURLs"],
        _ => &["verbs", "apiGroups", "resources", "resourceNames"],
    };
    let rule: Map<String, Value> = fields
        .iter()
        .zip(parts)
        .map(|(field, part)| ((*field).to_owned(), words(part)))
        .collect();
    Value::Object(rule)
}

fn subject(line: &str) -> Option<Value> {
    let (kind, name) = line.split_once(' ')?;
    Some(match kind {
        "serviceaccount" => {
            let (namespace, name) = name.split_once('/')?;
            json!({ "kind": "ServiceAccount", "name": name, "namespace": namespace })
        }
        "user" => json!({ "kind": "User", "apiGroup": GROUP, "name": name }),
        "group" => json!({ "kind": "Group", "apiGroup": GROUP, "name": name }),
        _ => return None,
    })
}
