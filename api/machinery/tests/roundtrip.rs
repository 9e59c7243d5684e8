//! Properties of the codec on objects generated from the schema itself.

use nautilus_machinery::codec::{self, MediaType};
use nautilus_machinery::fields;
use nautilus_machinery::resource;
use nautilus_machinery::schema::{self, SchemaOr, Shape, Type};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Deepest message generated.
const DEPTH: usize = 6;

/// Draws an object of the type, its choices taken from `bytes` in turn.
fn generate(found: &Type, choices: &mut std::slice::Iter<'_, u8>, depth: usize) -> Value {
    let mut map = Map::new();
    for field in &found.fields {
        if field.type_meta {
            continue;
        }
        if field.inlined {
            if let Shape::Message(name) = &field.shape
                && let Some(inner) = schema::find(name)
                && let Value::Object(inner) = generate(inner, choices, depth)
            {
                map.extend(inner);
            }
            continue;
        }
        if choices.next().copied().unwrap_or(255) < 96 && depth > 0 {
            map.insert(field.name.clone(), value(&field.shape, choices, depth - 1));
        }
    }
    Value::Object(map)
}

fn value(shape: &Shape, choices: &mut std::slice::Iter<'_, u8>, depth: usize) -> Value {
    let choice = choices.next().copied().unwrap_or(0);
    let pick = usize::from(choice);
    match shape {
        Shape::String => json!(["", "a", "ä", "x\"y", "long text with spaces"][pick % 5]),
        Shape::Bool => json!(pick % 2 == 0),
        Shape::Int32 => json!([0, 1, -1, i32::MAX, i32::MIN][pick % 5]),
        Shape::Int64 => json!([0, 1, -1, i64::MAX, i64::MIN][pick % 5]),
        Shape::Double => json!([0.5, -2.25][pick % 2]),
        Shape::Bytes => json!(["", "AA==", "AAEC", "/+8="][pick % 4]),
        Shape::Time => json!(["2026-01-02T03:04:05Z", "1969-12-31T23:59:59Z"][pick % 2]),
        Shape::MicroTime => {
            json!(["2026-01-02T03:04:05.000006Z", "1960-01-01T00:00:00.999999Z"][pick % 2])
        }
        Shape::Quantity => json!(["0", "1", "100m", "1536Mi", "2k", "1e3", "-7"][pick % 7]),
        Shape::IntOrString => [json!(0), json!(-5), json!("50%"), json!("")][pick % 4].clone(),
        Shape::Raw | Shape::FieldsV1 => {
            [json!({"f:a": {}}), json!({"x": [1, "y"]})][pick % 2].clone()
        }
        Shape::Json => [json!({"x": [1]}), json!("y"), json!(false)][pick % 3].clone(),
        Shape::SchemaOr(other) => match (pick % 3, other) {
            (0, SchemaOr::Bool) => json!(pick % 2 == 0),
            (0, SchemaOr::Strings) => json!(["a", ""]),
            (0, SchemaOr::Schemas) => json!([{}, {"type": "string"}]),
            _ => match schema::find(schema::JSON_SCHEMA_PROPS) {
                Some(props) if depth > 0 => generate(props, choices, depth - 1),
                _ => json!({}),
            },
        },
        Shape::Duration => json!(["0s", "1m30s", "1.5s"][pick % 3]),
        Shape::Message(name) => match schema::find(name) {
            Some(inner) => generate(inner, choices, depth),
            None => json!({}),
        },
        Shape::List(element) => (0..pick % 3)
            .map(|_| value(element, choices, depth))
            .collect(),
        Shape::Map(element) => (0..pick % 3)
            .map(|at| {
                (
                    ["b", "a/c", "ü"][at].to_owned(),
                    value(element, choices, depth),
                )
            })
            .collect::<Map<String, Value>>()
            .into(),
    }
}

fn schemas() -> Vec<&'static str> {
    resource::all()
        .iter()
        .map(|resource| resource.schema.as_str())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn json_to_protobuf_and_back_is_the_identity(
        which in 0usize..1024,
        choices in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let schemas = schemas();
        let name = schemas[which % schemas.len()];
        let found = schema::find(name).expect("in the table");
        let object = generate(found, &mut choices.iter(), DEPTH);
        let json = codec::decode(name, MediaType::Json, object.to_string().as_bytes());
        let json = json.expect("generated objects conform");
        let wire = codec::encode_protobuf(name, &json).expect("what conforms can be written");
        let back = codec::decode(name, MediaType::Protobuf, &wire).expect("what was written can be read");
        // An empty list and no list are one on this wire, as in the reference.
        prop_assert_eq!(without_empty_lists(&back), without_empty_lists(&json));
    }

    #[test]
    fn conforming_twice_changes_nothing(
        which in 0usize..1024,
        choices in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let schemas = schemas();
        let name = schemas[which % schemas.len()];
        let found = schema::find(name).expect("in the table");
        let object = generate(found, &mut choices.iter(), DEPTH);
        let once = fields::conform(name, &object).expect("generated objects conform");
        prop_assert_eq!(fields::conform(name, &once).expect("again").to_string(), once.to_string());
    }

    #[test]
    fn what_is_passed_on_as_it_is_would_have_been_built_the_same(
        which in 0usize..1024,
        choices in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let schemas = schemas();
        let name = schemas[which % schemas.len()];
        let found = schema::find(name).expect("in the table");
        let shape = Shape::Message(name.into());
        let object = generate(found, &mut choices.iter(), DEPTH);
        for object in [fields::conform(name, &object).expect("generated objects conform"), object] {
            // What has an unknown field is built anew.
            let built = fields::conform(name, &with_unknown_fields(&shape, &object)).expect("conforms");
            let conformed = fields::conform(name, &object).expect("conforms");
            prop_assert_eq!(conformed.to_string(), built.to_string());
        }
    }

    #[test]
    fn a_damaged_body_is_refused_or_read_but_never_panics(
        choices in proptest::collection::vec(any::<u8>(), 0..300),
        at in any::<usize>(),
        byte in any::<u8>(),
    ) {
        let name = "io.k8s.api.core.v1.Pod";
        let found = schema::find(name).expect("in the table");
        let object = generate(found, &mut choices.iter(), DEPTH);
        let object = fields::conform(name, &object).expect("generated objects conform");
        let mut wire = codec::encode_protobuf(name, &object).expect("written");
        let at = at % wire.len();
        wire[at] = byte;
        let _ = codec::decode(name, MediaType::Protobuf, &wire);
        wire.truncate(at);
        let _ = codec::decode(name, MediaType::Protobuf, &wire);
    }
}

/// The same with a field that no type has in every message.
fn with_unknown_fields(shape: &Shape, value: &Value) -> Value {
    let props = || Shape::Message(schema::JSON_SCHEMA_PROPS.into());
    match (shape, value) {
        (Shape::Message(name), Value::Object(map)) => {
            let found = schema::find(name).expect("in the table");
            let inner = map.iter().map(|(name, inner)| {
                let field = found.field(name).map(|field| &field.shape);
                let inner =
                    field.map_or_else(|| inner.clone(), |own| with_unknown_fields(own, inner));
                (name.clone(), inner)
            });
            let unknown = ("unknown to all".to_owned(), json!(1));
            inner
                .chain([unknown])
                .collect::<Map<String, Value>>()
                .into()
        }
        (Shape::List(element), Value::Array(list)) => list
            .iter()
            .map(|item| with_unknown_fields(element, item))
            .collect(),
        (Shape::Map(element), Value::Object(map)) => map
            .iter()
            .map(|(key, item)| (key.clone(), with_unknown_fields(element, item)))
            .collect::<Map<String, Value>>()
            .into(),
        (Shape::SchemaOr(_), Value::Object(_)) => with_unknown_fields(&props(), value),
        (Shape::SchemaOr(SchemaOr::Schemas), Value::Array(_)) => {
            with_unknown_fields(&Shape::List(Box::new(props())), value)
        }
        _ => value.clone(),
    }
}

fn without_empty_lists(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, inner)| !inner.as_array().is_some_and(Vec::is_empty) && !inner.is_null())
            .map(|(key, inner)| (key.clone(), without_empty_lists(inner)))
            .collect::<Map<String, Value>>()
            .into(),
        Value::Array(list) => list.iter().map(without_empty_lists).collect(),
        other => other.clone(),
    }
}
