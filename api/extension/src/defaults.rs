//! Defaulting: fields that are absent, or null where they may not be, get their defaults.

use serde_json::Value;

use crate::schema::Schema;

/// Sets defaults, outermost first, so that defaults of what was set come too.
pub fn apply_defaults(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(entries) => {
            for (name, field) in &schema.properties {
                if let Some(default) = &field.default {
                    let missing = entries
                        .get(name)
                        .is_none_or(|value| value.is_null() && !field.nullable);
                    if missing {
                        entries.insert(name.clone(), default.clone());
                    }
                }
            }
            for (name, value) in entries.iter_mut() {
                if let Some(field) = schema.properties.get(name) {
                    apply_defaults(value, field);
                } else if let Some(each) = schema.each_value() {
                    default_null(value, each);
                    apply_defaults(value, each);
                }
            }
        }
        Value::Array(items) => {
            if let Some(each) = schema.items.as_deref() {
                for item in items {
                    default_null(item, each);
                    apply_defaults(item, each);
                }
            }
        }
        _ => {}
    }
}

fn default_null(value: &mut Value, schema: &Schema) {
    if value.is_null()
        && !schema.nullable
        && let Some(default) = &schema.default
    {
        *value = default.clone();
    }
}

/// Drops fields that are null, may not be, and have no default.
pub fn prune_nulls(value: &mut Value, schema: Option<&Schema>) {
    match value {
        Value::Object(entries) => entries.retain(|name, value| {
            let field = schema.and_then(|schema| schema.field(name));
            if value.is_null() && field.is_some_and(|f| !f.nullable && f.default.is_none()) {
                return false;
            }
            prune_nulls(value, field);
            true
        }),
        Value::Array(items) => {
            let each = schema.and_then(|schema| schema.items.as_deref());
            for item in items {
                prune_nulls(item, each);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_come_with_their_own() {
        let schema = Schema::parse(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "default": {}, "properties": {
                "a": {"type": "integer", "default": 3},
                "b": {"type": "string", "nullable": true, "default": "x"},
                "c": {"type": "string"}
            }},
            "list": {"type": "array", "items": {"type": "object", "properties": {"d": {"type": "integer", "default": 1}}}}
        }}))
        .expect("a schema");
        let mut object = json!({"list": [{}, {"d": 2}]});
        apply_defaults(&mut object, &schema);
        assert_eq!(
            object,
            json!({"list": [{"d": 1}, {"d": 2}], "spec": {"a": 3, "b": "x"}})
        );
        let mut object = json!({"spec": {"a": null, "b": null, "c": null}});
        prune_nulls(&mut object, Some(&schema));
        apply_defaults(&mut object, &schema);
        assert_eq!(object, json!({"spec": {"a": 3, "b": null}}));
    }
}
