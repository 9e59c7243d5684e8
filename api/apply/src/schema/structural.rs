//! Custom resources' types, from the JSON schema of a version
//! (`spec.versions[].schema.openAPIV3Schema`).
//!
//! Invariant: any JSON is taken; what a schema does not say is deduced from values.

use std::collections::BTreeMap;
use std::sync::Arc;

use nautilus_machinery::schema::OBJECT_META;
use serde_json::Value;

use super::{Atom, Builder, DEDUCED, Field, List, Map, Scalar, TypeId, TypeView, UNTYPED, table};

/// Deepest nesting of a schema that is followed; below, types are deduced.
const MAX_DEPTH: usize = 128;

/// The type of a custom resource; `None`: the version has no schema.
pub fn of_json_schema(root: Option<&Value>, preserve_unknown_fields: bool) -> TypeView {
    let mut builder = Builder::default();
    let Some(root) = root else {
        return TypeView {
            schema: Arc::new(builder.finish()),
            id: DEDUCED,
        };
    };
    let mut atom = atom_of(&mut builder, root, preserve_unknown_fields, 0);
    // The root is an object, whatever it says.
    let map = atom.map.get_or_insert_default();
    add_object_fields(&mut builder, map);
    let id = builder.add(Atom::of_map(atom.map.unwrap_or_default()));
    TypeView {
        schema: Arc::new(builder.finish()),
        id,
    }
}

fn add_object_fields(builder: &mut Builder, map: &mut Map) {
    let text = builder.add(Atom::of_scalar(Scalar::String));
    let metadata = table::named(builder, OBJECT_META);
    for (name, id) in [("apiVersion", text), ("kind", text), ("metadata", metadata)] {
        map.fields
            .insert(name.to_owned(), Field { id, default: None });
    }
}

fn type_of(builder: &mut Builder, schema: &Value, preserve: bool, depth: usize) -> TypeId {
    if depth > MAX_DEPTH {
        return DEDUCED;
    }
    let atom = atom_of(builder, schema, preserve, depth);
    builder.add(atom)
}

fn atom_of(builder: &mut Builder, schema: &Value, preserve: bool, depth: usize) -> Atom {
    let preserve = preserve || schema["x-kubernetes-preserve-unknown-fields"] == true;
    match schema["type"].as_str().unwrap_or_default() {
        "object" => Atom::of_map(map_of(builder, schema, preserve, depth)),
        "array" => Atom::of_list(list_of(builder, schema, preserve, depth)),
        "integer" | "number" => Atom::of_scalar(Scalar::Numeric),
        "boolean" => Atom::of_scalar(Scalar::Boolean),
        "string" => match schema["format"].as_str().unwrap_or_default() {
            "" | "byte" => Atom::of_scalar(Scalar::String),
            _ => Atom::of_scalar(Scalar::Untyped),
        },
        _ => Atom {
            scalar: Some(Scalar::Untyped),
            list: Some(list_of(builder, schema, preserve, depth)),
            map: Some(map_of(builder, schema, preserve, depth)),
        },
    }
}

fn map_of(builder: &mut Builder, schema: &Value, preserve: bool, depth: usize) -> Map {
    let properties = schema["properties"].as_object();
    let mut fields = BTreeMap::new();
    for (name, property) in properties.into_iter().flatten() {
        let field = Field {
            id: type_of(builder, property, preserve, depth + 1),
            default: property.get("default").cloned(),
        };
        fields.insert(name.clone(), field);
    }
    let embedded = schema["x-kubernetes-embedded-resource"] == true;
    let element = match &schema["additionalProperties"] {
        Value::Bool(true) => Some(DEDUCED),
        Value::Null if preserve || (fields.is_empty() && !embedded) => Some(DEDUCED),
        Value::Bool(false) | Value::Null => None,
        inner => Some(type_of(builder, inner, preserve, depth + 1)),
    };
    let mut map = Map {
        fields,
        element,
        atomic: schema["x-kubernetes-map-type"] == "atomic",
    };
    if embedded {
        add_object_fields(builder, &mut map);
    }
    map
}

fn list_of(builder: &mut Builder, schema: &Value, preserve: bool, depth: usize) -> List {
    let element = match &schema["items"] {
        Value::Object(_) => type_of(builder, &schema["items"], preserve, depth + 1),
        _ => UNTYPED,
    };
    let keys = || {
        let keys = schema["x-kubernetes-list-map-keys"].as_array();
        let keys = keys.into_iter().flatten().filter_map(Value::as_str);
        keys.map(str::to_owned).collect()
    };
    let (associative, keys) = match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => (true, Vec::new()),
        Some("map") => (true, keys()),
        _ => (false, Vec::new()),
    };
    List {
        element,
        associative,
        keys,
    }
}
