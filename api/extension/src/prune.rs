//! Pruning: fields that a schema does not name are dropped, and named to the caller.

use serde_json::Value;

use crate::schema::{Additional, Schema};

/// Drops what the schema does not specify. With `is_root` the object's own `apiVersion`,
/// `kind` and `metadata` stay. Gives the paths of what was dropped, sorted.
pub fn prune(object: &mut Value, schema: &Schema, is_root: bool) -> Vec<String> {
    let mut pruning = Pruning {
        path: String::new(),
        dropped: Vec::new(),
    };
    pruning.visit(object, Some(schema), is_root);
    pruning.dropped.sort();
    pruning.dropped
}

pub(crate) fn is_type_or_metadata(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata")
}

struct Pruning {
    path: String,
    dropped: Vec<String>,
}

impl Pruning {
    fn under(&mut self, step: &str, visit: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if !self.path.is_empty() && !step.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(step);
        visit(self);
        self.path.truncate(length);
    }

    fn drop_field(&mut self, name: &str) {
        self.under(name, |pruning| pruning.dropped.push(pruning.path.clone()));
    }

    fn visit(&mut self, value: &mut Value, schema: Option<&Schema>, embedded: bool) {
        if let Some(schema) = schema.filter(|schema| schema.preserve_unknown) {
            return self.pass(value, schema, embedded);
        }
        match value {
            Value::Object(entries) => {
                let Some(schema) = schema else {
                    for name in entries.keys() {
                        self.drop_field(name);
                    }
                    entries.clear();
                    return;
                };
                let embedded = embedded || schema.embedded;
                entries.retain(|name, value| {
                    if embedded && is_type_or_metadata(name) {
                        return true;
                    }
                    if let Some(field) = schema.properties.get(name) {
                        self.under(name, |pruning| pruning.visit(value, Some(field), false));
                        return true;
                    }
                    match &schema.additional {
                        Some(additional) => {
                            let each = match additional {
                                Additional::Each(each) => Some(&**each),
                                Additional::Any(_) => None,
                            };
                            self.under(name, |pruning| pruning.visit(value, each, false));
                            true
                        }
                        None => {
                            if !is_type_or_metadata(name) || !self.path.is_empty() {
                                self.drop_field(name);
                            }
                            false
                        }
                    }
                });
            }
            Value::Array(items) => {
                let each = schema.and_then(|schema| schema.items.as_deref());
                for (at, item) in items.iter_mut().enumerate() {
                    self.under(&format!("[{at}]"), |pruning| {
                        pruning.visit(item, each, false);
                    });
                }
            }
            _ => {}
        }
    }

    /// Below a schema that keeps unknown fields, what it names is still pruned.
    fn pass(&mut self, value: &mut Value, schema: &Schema, embedded: bool) {
        match value {
            Value::Object(entries) => {
                let embedded = embedded || schema.embedded;
                for (name, value) in entries.iter_mut() {
                    if embedded && is_type_or_metadata(name) {
                        continue;
                    }
                    if let Some(field) = schema.properties.get(name) {
                        self.under(name, |pruning| pruning.visit(value, Some(field), false));
                    } else if let Some(additional) = &schema.additional {
                        let each = match additional {
                            Additional::Each(each) => Some(&**each),
                            Additional::Any(_) => None,
                        };
                        self.under(name, |pruning| pruning.visit(value, each, false));
                    }
                }
            }
            Value::Array(items) => {
                let Some(each) = schema.items.as_deref() else {
                    return;
                };
                for (at, item) in items.iter_mut().enumerate() {
                    self.under(&format!("[{at}]"), |pruning| {
                        pruning.pass(item, each, false);
                    });
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_named_stays() {
        let schema = Schema::parse(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"a": {"type": "integer"}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
                "inner": {"type": "object", "properties": {"b": {"type": "string"}}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object"}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"c": {"type": "string"}}}},
            "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}
        }}))
        .expect("a schema");
        let mut object = json!({
            "apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n"},
            "spec": {"a": 1, "b": 2}, "other": 1,
            "free": {"x": 1, "inner": {"b": "", "c": 1}},
            "map": {"k": {"gone": 1}}, "list": [{"c": "", "d": 1}],
            "pod": {"apiVersion": "v1", "kind": "Pod", "spec": {}}
        });
        let dropped = prune(&mut object, &schema, true);
        assert_eq!(
            dropped,
            ["free.inner.c", "list[0].d", "map.k.gone", "other", "spec.b"]
        );
        assert_eq!(
            object,
            json!({
                "apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n"},
                "spec": {"a": 1}, "free": {"x": 1, "inner": {"b": ""}},
                "map": {"k": {}}, "list": [{"c": ""}],
                "pod": {"apiVersion": "v1", "kind": "Pod", "spec": {}}
            })
        );
    }
}
