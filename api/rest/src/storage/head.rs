//! What is asked of an object with every write of another, read without the rest of it.

use nautilus_machine::KeyValue;
use nautilus_machinery::resource::Resource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Row, Storage, damaged};
use crate::failure::Failure;

/// An object of a built-in kind, of which these fields alone are known.
#[derive(Deserialize, Serialize)]
struct Head {
    metadata: Metadata,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deletion_timestamp: Option<String>,
}

impl Storage {
    /// One object of this node's state as it is, with no more of it than its labels and
    /// its `deletionTimestamp`.
    pub(crate) fn read_head(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Row>, Failure> {
        let row = self.read_row(&resource.key(namespace, name))?;
        row.as_ref().map(head).transpose()
    }
}

fn head(row: &KeyValue) -> Result<Row, Failure> {
    let head: Result<Head, _> = serde_json::from_slice(&row.value);
    let object = head.and_then(serde_json::to_value);
    Ok(Row {
        object: object.map_err(|error| damaged(row, &error))?,
        revision: row.mod_revision,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(value: &Value) -> KeyValue {
        KeyValue {
            key: "/nautilus/registry/namespaces/a".into(),
            value: value.to_string().into(),
            create_revision: 3,
            mod_revision: 7,
            version: 2,
            lease: None,
        }
    }

    #[test]
    fn a_head_is_the_labels_and_whether_the_object_goes() {
        let whole = json!({"kind": "Namespace", "metadata": {
            "name": "a", "labels": {"x": "y"}, "deletionTimestamp": "2026-01-02T03:04:05Z",
        }, "spec": {"finalizers": ["kubernetes"]}});
        let read = head(&row(&whole)).expect("an object");
        assert_eq!(read.revision, 7);
        assert_eq!(
            read.object,
            json!({"metadata": {
                "labels": {"x": "y"}, "deletionTimestamp": "2026-01-02T03:04:05Z",
            }})
        );
        let bare = head(&row(&json!({"metadata": {"name": "a"}}))).expect("an object");
        assert_eq!(bare.object, json!({"metadata": {}}));
    }

    #[test]
    fn a_damaged_object_is_named() {
        let failure = head(&row(&json!([]))).err().expect("no object");
        let message = failure.error.message();
        assert!(
            message.contains("the object under /nautilus/registry/namespaces/a is damaged: "),
            "{message}"
        );
    }
}
