//! JSON of Move values, from either face of a full node to the one form of [`crate::shape`]. Pure.

use serde_json::{Map, Value};

/// How deep values may be nested; Move allows no more.
const DEPTH_LIMIT: usize = 128;

/// The fields of a struct in their one form: `{"type", "fields"}` is its fields, `{"id": ".."}`
/// is the id.
pub(crate) fn plain_fields(fields: &Map<String, Value>) -> Map<String, Value> {
    fields
        .iter()
        .map(|(name, value)| (name.clone(), plain(value, DEPTH_LIMIT)))
        .collect()
}

fn plain(value: &Value, depth: usize) -> Value {
    match value {
        _ if depth == 0 => Value::Null,
        Value::Array(values) => values.iter().map(|value| plain(value, depth - 1)).collect(),
        Value::Object(members) => match (members.len(), members.get("fields"), members.get("id")) {
            (2, Some(Value::Object(fields)), _) if members.contains_key("type") => {
                let fields = fields.iter();
                Value::Object(
                    fields
                        .map(|(name, value)| (name.clone(), plain(value, depth - 1)))
                        .collect(),
                )
            }
            (1, _, Some(id @ Value::String(_))) => id.clone(),
            _ => Value::Object(
                members
                    .iter()
                    .map(|(name, value)| (name.clone(), plain(value, depth - 1)))
                    .collect(),
            ),
        },
        other => other.clone(),
    }
}

/// Protobuf's JSON value as serde's: whole numbers as such.
pub(crate) fn from_proto(value: &prost_types::Value) -> Value {
    from_proto_within(value, DEPTH_LIMIT)
}

fn from_proto_within(value: &prost_types::Value, depth: usize) -> Value {
    use prost_types::value::Kind;
    match &value.kind {
        _ if depth == 0 => Value::Null,
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(it)) => Value::Bool(*it),
        Some(Kind::StringValue(it)) => Value::String(it.clone()),
        Some(Kind::NumberValue(it)) => number(*it),
        Some(Kind::ListValue(list)) => list
            .values
            .iter()
            .map(|value| from_proto_within(value, depth - 1))
            .collect(),
        Some(Kind::StructValue(it)) => Value::Object(
            it.fields
                .iter()
                .map(|(name, value)| (name.clone(), from_proto_within(value, depth - 1)))
                .collect(),
        ),
    }
}

/// `u8` to `u32`: everything larger comes as text.
fn number(value: f64) -> Value {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float's cast saturates, and what is changed by it is kept as a float"
    )]
    let whole = value as u32;
    if (f64::from(whole) - value).abs() == 0.0 {
        whole.into()
    } else {
        value.into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_faces_come_to_one_form() {
        let typed = json!({
            "id": {"id": "0x1"},
            "workers": {"type": "0x2::table::Table<..>", "fields": {"id": {"id": "0x2"}, "size": "5"}},
            "list": [{"type": "a::b::C", "fields": {"x": "1"}}],
        });
        let plain = json!({
            "id": "0x1", "workers": {"id": "0x2", "size": "5"}, "list": [{"x": "1"}],
        });
        let (Value::Object(typed), Value::Object(plain)) = (typed, plain) else {
            unreachable!("both are objects");
        };
        assert_eq!(plain_fields(&typed), plain);
        assert_eq!(plain_fields(&plain), plain, "what is plain stays");
    }

    #[test]
    fn small_numbers_are_whole_again() {
        assert_eq!(number(0.0), json!(0));
        assert_eq!(number(255.0), json!(255));
        assert_eq!(number(1.5), json!(1.5));
        assert_eq!(number(-1.0), json!(-1.0));
    }
}
