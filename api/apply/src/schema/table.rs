//! The built-in types, from the table of facts.
//!
//! A list is owned by element where its facts say so (`listType`, or a merge key
//! of strategic merge), a struct or map field by field unless it is `atomic`.

use std::sync::{Arc, LazyLock};

use nautilus_machinery::schema::{self as facts, Shape};
use serde_json::{Value, json};

use super::{Atom, Builder, DEDUCED, Field, List, Map, Scalar, Schema, TypeId, TypeView, UNTYPED};

/// The type of that OpenAPI name, if the table has it.
pub fn find(name: &str) -> Option<TypeView> {
    let (schema, named) = &*TABLE;
    named.get(name).map(|id| TypeView {
        schema: schema.clone(),
        id: *id,
    })
}

type Named = std::collections::BTreeMap<String, TypeId>;

static TABLE: LazyLock<(Arc<Schema>, Named)> = LazyLock::new(|| {
    let mut builder = Builder::default();
    for found in facts::all() {
        message(&mut builder, found);
    }
    let named = std::mem::take(&mut builder.named);
    (Arc::new(builder.finish()), named)
});

/// The type of that name in a schema being made.
pub(super) fn named(builder: &mut Builder, name: &str) -> TypeId {
    match facts::find(name) {
        Some(found) => message(builder, found),
        None => DEDUCED,
    }
}

fn message(builder: &mut Builder, found: &facts::Type) -> TypeId {
    if let Some(id) = builder.named.get(&found.name) {
        return *id;
    }
    let id = builder.reserve();
    builder.named.insert(found.name.clone(), id);
    let mut map = Map {
        atomic: found.map_type.as_deref() == Some("atomic"),
        ..Map::default()
    };
    fields(builder, found, &mut map);
    if map.fields.is_empty() {
        map.element = Some(DEDUCED);
    }
    builder.fill(id, Atom::of_map(map));
    id
}

fn fields(builder: &mut Builder, found: &facts::Type, map: &mut Map) {
    for field in &found.fields {
        if let (true, Shape::Message(name)) = (field.inlined, &field.shape) {
            if let Some(inner) = facts::find(name) {
                fields(builder, inner, map);
            }
            continue;
        }
        let field_type = Field {
            id: field_id(builder, field),
            default: field.default.clone().or_else(|| zero(field)),
        };
        map.fields.insert(field.name.clone(), field_type);
    }
}

/// Fields that are always written stand for their zero value where they are absent.
fn zero(field: &facts::Field) -> Option<Value> {
    if field.pointer || field.omit_empty {
        return None;
    }
    match field.shape {
        Shape::String => Some(json!("")),
        Shape::Bool => Some(json!(false)),
        Shape::Int32 | Shape::Int64 | Shape::Double => Some(json!(0)),
        _ => None,
    }
}

fn field_id(builder: &mut Builder, field: &facts::Field) -> TypeId {
    match &field.shape {
        Shape::List(element) => {
            let element = shape_id(builder, element);
            let (associative, keys) = match (field.list_type.as_deref(), field.patch_merge) {
                (Some("set"), _) => (true, Vec::new()),
                (Some("map"), _) => (true, field.list_keys.clone()),
                (None, true) => (true, field.merge_key.iter().cloned().collect()),
                _ => (false, Vec::new()),
            };
            builder.add(Atom::of_list(List {
                element,
                associative,
                keys,
            }))
        }
        Shape::Map(element) => {
            let element = shape_id(builder, element);
            builder.add(Atom::of_map(Map {
                element: Some(element),
                atomic: field.map_type.as_deref() == Some("atomic"),
                ..Map::default()
            }))
        }
        Shape::Message(name) => match (facts::find(name), field.map_type.as_deref()) {
            (Some(found), Some(map_type)) => {
                let mut map = Map {
                    atomic: map_type == "atomic",
                    ..Map::default()
                };
                fields(builder, found, &mut map);
                builder.add(Atom::of_map(map))
            }
            (Some(found), None) => message(builder, found),
            (None, _) => DEDUCED,
        },
        shape => shape_id(builder, shape),
    }
}

fn shape_id(builder: &mut Builder, shape: &Shape) -> TypeId {
    let (name, atom) = match shape {
        Shape::String | Shape::Bytes | Shape::Duration => {
            ("string", Atom::of_scalar(Scalar::String))
        }
        Shape::Bool => ("boolean", Atom::of_scalar(Scalar::Boolean)),
        Shape::Int32 | Shape::Int64 | Shape::Double => {
            ("numeric", Atom::of_scalar(Scalar::Numeric))
        }
        Shape::Time | Shape::MicroTime | Shape::Quantity | Shape::IntOrString => {
            ("untyped", Atom::of_scalar(Scalar::Untyped))
        }
        Shape::Raw => return UNTYPED,
        Shape::FieldsV1 => {
            let map = Map {
                element: Some(DEDUCED),
                ..Map::default()
            };
            ("free", Atom::of_map(map))
        }
        Shape::Message(name) => return named(builder, name),
        Shape::List(element) => {
            let element = shape_id(builder, element);
            return builder.add(Atom::of_list(List {
                element,
                associative: false,
                keys: Vec::new(),
            }));
        }
        Shape::Map(element) => {
            let element = shape_id(builder, element);
            return builder.add(Atom::of_map(Map {
                element: Some(element),
                ..Map::default()
            }));
        }
        #[allow(unreachable_patterns)]
        _ => return DEDUCED,
    };
    if let Some(id) = builder.named.get(name) {
        return *id;
    }
    let id = builder.add(atom);
    builder.named.insert(name.to_owned(), id);
    id
}
