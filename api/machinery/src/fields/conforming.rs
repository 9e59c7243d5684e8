//! Whether an object is already as a typed server would write it, told by reading alone:
//! most objects are, and need not be taken apart and built anew.
//!
//! Invariant: never yes of an object that [`super::conform`] would change or refuse. No may
//! be said of one that it would leave as it is.

use serde_json::map::Iter;
use serde_json::{Map, Value};

use super::{Path, conform_shape, left_out, message_of, resets_owners, zero};
use crate::schema::{Field, Shape, Type};

/// Whether `map` has the type's fields only, in its order, each as it is written.
pub(super) fn is_conforming(found: &Type, map: &Map<String, Value>) -> bool {
    let mut left = Left::of(map);
    fields_conform(found, &mut left) && left.next.is_none()
}

/// The entries of an object that no field has claimed yet.
struct Left<'a> {
    next: Option<(&'a String, &'a Value)>,
    rest: Iter<'a>,
}

impl<'a> Left<'a> {
    fn of(map: &'a Map<String, Value>) -> Self {
        let mut rest = map.iter();
        Self {
            next: rest.next(),
            rest,
        }
    }

    /// The value of `field`, if it comes next.
    fn take(&mut self, field: &Field) -> Option<&'a Value> {
        let (_, value) = self.next.filter(|(name, _)| **name == field.name)?;
        self.next = self.rest.next();
        Some(value)
    }
}

fn fields_conform(found: &Type, left: &mut Left<'_>) -> bool {
    found.fields.iter().all(|field| {
        if field.inlined
            && let Some(inner) = message_of(&field.shape)
        {
            return fields_conform(inner, left);
        }
        match left.take(field) {
            None => !is_written_when_absent(field),
            Some(Value::Null) => zero(field) == Some(Value::Null) && !left_out(field, &Value::Null),
            Some(value) => {
                !resets_owners(field, value)
                    && !left_out(field, value)
                    && value_conforms(&field.shape, value, found)
            }
        }
    })
}

fn is_written_when_absent(field: &Field) -> bool {
    match field.pointer {
        true => !field.omit_empty && !field.omit_zero,
        false => zero(field).is_some_and(|zero| !left_out(field, &zero)),
    }
}

fn value_conforms(shape: &Shape, value: &Value, owner: &Type) -> bool {
    match (shape, value) {
        (Shape::Raw | Shape::Json | Shape::FieldsV1, _)
        | (Shape::String | Shape::IntOrString, Value::String(_))
        | (Shape::Bool, Value::Bool(_))
        | (Shape::Double, Value::Number(_)) => true,
        (Shape::Int32 | Shape::IntOrString, Value::Number(number)) => {
            number.as_i64().is_some_and(|n| i32::try_from(n).is_ok())
        }
        (Shape::Int64, Value::Number(number)) => number.is_i64(),
        (Shape::Message(name), Value::Object(map)) => {
            name.find().is_some_and(|inner| is_conforming(inner, map))
        }
        (Shape::List(element), Value::Array(list)) => {
            list.iter().all(|item| item_conforms(element, item, owner))
        }
        (Shape::Map(element), Value::Object(map)) => {
            map.keys().is_sorted() && map.values().all(|item| item_conforms(element, item, owner))
        }
        // Texts of one of several forms, and mistakes.
        (
            Shape::Time | Shape::MicroTime | Shape::Quantity | Shape::Duration | Shape::Bytes,
            Value::String(_),
        ) => conform_shape(shape, value.clone(), owner, &Path::ROOT)
            .is_ok_and(|written| written == *value),
        _ => false,
    }
}

fn item_conforms(element: &Shape, item: &Value, owner: &Type) -> bool {
    match item {
        Value::Null => matches!(
            element,
            Shape::Bytes
                | Shape::List(_)
                | Shape::Map(_)
                | Shape::Raw
                | Shape::Json
                | Shape::FieldsV1
        ),
        item => value_conforms(element, item, owner),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fields::conform;
    use crate::schema;

    const POD: &str = "io.k8s.api.core.v1.Pod";

    fn holds(value: &Value) -> bool {
        let map = value.as_object().expect("an object");
        is_conforming(schema::find(POD).expect("in the table"), map)
    }

    #[test]
    fn what_was_conformed_is_known_by_reading_and_what_was_not_is_told_from_it() {
        let given = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [
            {"name": "a", "image": "b", "resources": {"requests": {"memory": "1024Mi"}}},
        ]}});
        assert!(!holds(&given), "the quantity and fields that must be there");
        let written = conform(POD, &given).expect("a pod");
        assert!(holds(&written), "{written}");
        for (place, value) in [
            (
                "/spec/containers/0/resources/requests/memory",
                json!("1024Mi"),
            ),
            ("/spec/containers/0/image", json!("")),
            ("/spec/containers/0/name", json!(1)),
            ("/spec/containers", json!({})),
            ("/kind", json!(null)),
        ] {
            let mut other = written.clone();
            *other.pointer_mut(place).expect(place) = value;
            assert!(!holds(&other), "{other}");
        }
        let mut unknown = written;
        unknown["spec"]["unknown"] = json!(1);
        assert!(!holds(&unknown), "{unknown}");
    }
}
