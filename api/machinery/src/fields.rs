//! Objects against their types: what a typed server makes of a JSON object, and
//! what strict decoding says of its fields.
//!
//! Invariants: [`conform`] is idempotent; what it returns has only fields of the
//! type, in the type's order, left out or filled in as Go's encoder does.

mod conforming;
mod strict;

use serde_json::{Map, Value, json};

pub use self::strict::{MAX_STRICT_ERRORS, unknown, unknown_and_duplicate};
use crate::quantity::Quantity;
use crate::schema::{self, Field, SchemaOr, Shape, Type};
use crate::status::ApiError;
use crate::timestamp;

/// Objects that more fields lead to are built anew without being looked at before: so an
/// object is read a few times at most, however deep what is wrong with it stands.
const PASSED_ON_DEPTH: usize = 2;

/// What to do about fields the type does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and warn.
    Warn,
    /// Refuse the request.
    Strict,
}

impl FieldValidation {
    /// Reads the query parameter; absent or empty means `Warn`.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        match text {
            "Ignore" => Ok(Self::Ignore),
            "" | "Warn" => Ok(Self::Warn),
            "Strict" => Ok(Self::Strict),
            other => Err(ApiError::bad_request(format!(
                "fieldValidation: Unsupported value: {}: supported values: \"Ignore\", \"Warn\", \"Strict\"",
                crate::status::quote(other)
            ))),
        }
    }
}

/// Drops unknown fields and writes the rest as a typed server would; leaves the
/// object alone if a field has a value of another type than its own.
pub fn prune(schema: &str, value: &mut Value) {
    if let Ok(conformed) = conform(schema, value) {
        *value = conformed;
    }
}

/// The object as a typed server would write it back: fields of the type only, in
/// its order, empty ones left out where the type says so, times and quantities
/// in canonical form. An error names the field and what it should be.
pub fn conform(schema: &str, value: &Value) -> Result<Value, ApiError> {
    conform_owned(schema, value.clone())
}

/// The same of an object that is not needed as it was: nothing of it is copied.
pub fn conform_owned(schema: &str, value: Value) -> Result<Value, ApiError> {
    let Some(found) = schema::find(schema) else {
        return Err(ApiError::internal(format!("no type {schema}")));
    };
    let Value::Object(mut map) = value else {
        return Err(cannot_be_handled(
            found,
            &value,
            &format!(
                "json: cannot unmarshal {} into Go value of type {}",
                word(&value),
                go(found)
            ),
        ));
    };
    // What an error says of the object, which is taken apart.
    let text = |name: &str| map.get(name).and_then(Value::as_str).map(str::to_owned);
    let (kind, version) = (text("kind"), text("apiVersion"));
    conform_message(found, &mut map, &Path::ROOT)
        .map(Value::Object)
        .map_err(|what| {
            let about = json!({ "kind": kind, "apiVersion": version });
            cannot_be_handled(found, &about, &what)
        })
}

/// One field of an object as a typed server would write it; `None` if it would not.
pub fn conform_field(schema: &str, name: &str, value: Option<Value>) -> Option<Value> {
    let found = schema::find(schema)?;
    let field = found.fields.iter().find(|field| field.name == name)?;
    let path = Path::ROOT.join(name);
    let written = match value {
        None | Some(Value::Null) => zero(field),
        Some(value) => conform_shape(&field.shape, value, found, &path).ok(),
    };
    written.filter(|value| !left_out(field, value))
}

/// Fills in the defaults that the types themselves state, where a field is
/// absent or zero. Defaults that depend on other fields are the strategies'.
pub fn apply_defaults(schema: &str, value: &mut Value) {
    if let (Some(found), Value::Object(map)) = (schema::find(schema), value) {
        default_message(found, map);
    }
}

fn default_message(found: &Type, map: &mut Map<String, Value>) {
    for field in found.defaulting() {
        if let (true, Some(inner)) = (field.inlined, message_of(&field.shape)) {
            default_message(inner, map);
            continue;
        }
        // A zero that is no pointer is as nothing.
        let stated = |default: &&Value| field.pointer || !is_empty(default) || default.is_object();
        if let Some(default) = field.default.as_ref().filter(stated) {
            let own = map.entry(field.name.clone()).or_insert(Value::Null);
            if own.is_null() || (!field.pointer && is_empty(own)) {
                *own = default.clone();
            }
        } else if let Some(own) = map.get_mut(&field.name) {
            default_shape(&field.shape, own);
        }
    }
}

fn default_shape(shape: &Shape, value: &mut Value) {
    match (shape, value) {
        (Shape::Message(name), Value::Object(map)) => {
            if let Some(inner) = name.find() {
                default_message(inner, map);
            }
        }
        (Shape::List(element), Value::Array(list)) => {
            list.iter_mut()
                .for_each(|item| default_shape(element, item));
        }
        (Shape::Map(element), Value::Object(map)) => {
            map.values_mut()
                .for_each(|item| default_shape(element, item));
        }
        _ => {}
    }
}

/// `Pod in version "v1" cannot be handled as a Pod: …`, 400.
pub(crate) fn cannot_be_handled(found: &Type, value: &Value, what: &str) -> ApiError {
    let expected = found.short_name();
    let kind = value["kind"]
        .as_str()
        .filter(|kind| !kind.is_empty())
        .unwrap_or(expected);
    let version = value["apiVersion"].as_str().unwrap_or("v1");
    let version = version.rsplit('/').next().unwrap_or(version);
    ApiError::bad_request(format!(
        "{kind} in version \"{version}\" cannot be handled as a {expected}: {what}"
    ))
}

/// The 400 of a strict request whose body has such errors.
pub fn strict_error(schema: &str, messages: &[String]) -> ApiError {
    let what = format!("strict decoding error: {}", messages.join(", "));
    match schema::find(schema) {
        Some(found) => cannot_be_handled(found, &Value::Null, &what),
        None => ApiError::bad_request(what),
    }
}

fn go(found: &Type) -> String {
    Shape::Message(found.name.as_str().into()).go_name()
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
}

/// Where a value stands: written out only where an error tells of it.
#[derive(Clone, Copy)]
struct Path<'a> {
    above: Option<&'a Path<'a>>,
    name: &'a str,
}

impl<'a> Path<'a> {
    const ROOT: Self = Self {
        above: None,
        name: "",
    };

    fn join(&'a self, name: &'a str) -> Self {
        Self {
            above: Some(self),
            name,
        }
    }

    /// How many fields lead there.
    fn depth(&self) -> usize {
        self.above.map_or(0, |above| 1 + above.depth())
    }

    fn text(&self) -> String {
        match self.above {
            Some(above) if above.above.is_some() => format!("{}.{}", above.text(), self.name),
            _ => self.name.to_owned(),
        }
    }
}

/// Takes the type's fields out of `input`; all of it at once, if nothing is to be changed.
fn conform_message(
    found: &Type,
    input: &mut Map<String, Value>,
    path: &Path<'_>,
) -> Result<Map<String, Value>, String> {
    if path.depth() <= PASSED_ON_DEPTH && conforming::is_conforming(found, input) {
        return Ok(std::mem::take(input));
    }
    let mut output = Map::with_capacity(input.len());
    conform_fields(found, input, &mut output, path)?;
    Ok(output)
}

fn conform_fields(
    found: &Type,
    input: &mut Map<String, Value>,
    output: &mut Map<String, Value>,
    path: &Path<'_>,
) -> Result<(), String> {
    for field in &found.fields {
        if field.inlined
            && let Some(inner) = message_of(&field.shape)
        {
            conform_fields(inner, input, output, path)?;
            continue;
        }
        let (name, value) = match input.swap_remove_entry(&field.name) {
            None => (None, zero(field)),
            Some((name, Value::Null)) => (Some(name), zero(field)),
            Some((name, value)) if resets_owners(field, &value) => (Some(name), Some(json!([{}]))),
            Some((name, value)) => {
                let path = path.join(&field.name);
                let value = conform_shape(&field.shape, value, found, &path)?;
                (Some(name), Some(value))
            }
        };
        if let Some(value) = value
            && !left_out(field, &value)
        {
            output.insert(name.unwrap_or_else(|| field.name.clone()), value);
        }
    }
    Ok(())
}

/// An empty list of owners asks to forget them, and so must not be left out like other
/// empty lists. One empty entry says the same.
fn resets_owners(field: &Field, value: &Value) -> bool {
    field.name == "managedFields" && value.as_array().is_some_and(Vec::is_empty)
}

pub(crate) fn message_of(shape: &Shape) -> Option<&'static Type> {
    match shape {
        Shape::Message(name) => name.find(),
        _ => None,
    }
}

/// What stands for an absent field, if anything.
fn zero(field: &Field) -> Option<Value> {
    if field.pointer {
        return (!field.omit_empty && !field.omit_zero).then_some(Value::Null);
    }
    match &field.shape {
        Shape::String => Some(json!("")),
        Shape::Bool => Some(json!(false)),
        Shape::Int32 | Shape::Int64 | Shape::IntOrString => Some(json!(0)),
        Shape::Double => Some(json!(0.0)),
        Shape::Quantity => Some(json!("0")),
        Shape::Duration => Some(json!("0s")),
        Shape::Bytes
        | Shape::List(_)
        | Shape::Map(_)
        | Shape::Time
        | Shape::MicroTime
        | Shape::Raw
        | Shape::Json
        | Shape::SchemaOr(_)
        | Shape::FieldsV1 => Some(Value::Null),
        Shape::Message(name) => {
            // Most have no field that is written when it is absent.
            let inner = name.find()?;
            empty(inner).map(|zero| Value::Object(zero.clone()))
        }
    }
}

/// What an absent object of the type is written as; worked out once.
fn empty(found: &'static Type) -> Option<&'static Map<String, Value>> {
    let made = || conform_message(found, &mut Map::new(), &Path::ROOT).ok();
    found.empty.get_or_init(made).as_ref()
}

/// Go's `omitempty` and `omitzero`.
fn left_out(field: &Field, value: &Value) -> bool {
    if field.omit_zero && !field.pointer && is_zero(&field.shape, value) {
        return true;
    }
    if !field.omit_empty {
        return false;
    }
    if field.pointer {
        return value.is_null();
    }
    match &field.shape {
        Shape::Message(_)
        | Shape::Time
        | Shape::MicroTime
        | Shape::Quantity
        | Shape::IntOrString
        | Shape::Raw
        | Shape::Json
        | Shape::SchemaOr(_)
        | Shape::FieldsV1
        | Shape::Duration => false,
        _ => is_empty(value),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn is_zero(shape: &Shape, value: &Value) -> bool {
    match shape {
        Shape::Message(name) => match (name.find(), value) {
            (Some(inner), Value::Object(map)) => empty(inner).is_some_and(|zero| zero == map),
            _ => value.is_null(),
        },
        Shape::Quantity => value == "0",
        _ => is_empty(value),
    }
}

fn conform_shape(
    shape: &Shape,
    value: Value,
    owner: &Type,
    path: &Path<'_>,
) -> Result<Value, String> {
    match (shape, value) {
        (Shape::Raw | Shape::Json | Shape::FieldsV1, value)
        | (Shape::String | Shape::IntOrString, value @ Value::String(_))
        | (Shape::Bool, value @ Value::Bool(_))
        | (Shape::Double, value @ Value::Number(_)) => Ok(value),
        (Shape::Int32 | Shape::IntOrString, Value::Number(number)) => match number.as_i64() {
            Some(whole) if i32::try_from(whole).is_ok() => Ok(json!(whole)),
            _ => Err(mismatch(shape, &Value::Number(number), owner, path)),
        },
        (Shape::Int64, Value::Number(number)) => match number.as_i64() {
            Some(whole) => Ok(json!(whole)),
            None => Err(mismatch(shape, &Value::Number(number), owner, path)),
        },
        (Shape::Quantity, Value::String(text)) => quantity(text.trim()),
        (Shape::Quantity, Value::Number(number)) => quantity(&number.to_string()),
        (Shape::Time, Value::String(text)) => match timestamp::parse(&text) {
            Some(instant) => Ok(json!(timestamp::format_seconds(instant.seconds))),
            None => Err(bad_time(&text)),
        },
        (Shape::MicroTime, Value::String(text)) => match timestamp::parse(&text) {
            Some(instant) => Ok(json!(timestamp::format_micros(instant))),
            None => Err(bad_time(&text)),
        },
        (Shape::Duration, Value::String(text)) => match timestamp::parse_duration(&text) {
            Some(nanoseconds) => Ok(json!(timestamp::format_duration(nanoseconds))),
            None => Err(format!(
                "time: invalid duration {}",
                crate::status::quote(&text)
            )),
        },
        (Shape::Bytes, Value::String(text)) => match crate::codec::base64_bytes(&text) {
            Some(bytes) => Ok(json!(crate::codec::base64_text(&bytes))),
            None => Err(format!(
                "illegal base64 data at input byte {}",
                crate::codec::base64_fault(&text)
            )),
        },
        (Shape::Message(name), Value::Object(mut map)) => match name.find() {
            Some(inner) => conform_message(inner, &mut map, path).map(Value::Object),
            None => Err(format!("no type {name}")),
        },
        (Shape::List(element), Value::Array(list)) => {
            conform_list(element, list, owner, path).map(Value::Array)
        }
        (Shape::Map(element), Value::Object(map)) => conform_map(element, map, owner, path),
        (Shape::SchemaOr(other), value) => conform_schema_or(*other, value, path),
        (_, value) => Err(mismatch(shape, &value, owner, path)),
    }
}

fn conform_list(
    element: &Shape,
    mut list: Vec<Value>,
    owner: &Type,
    path: &Path<'_>,
) -> Result<Vec<Value>, String> {
    for item in &mut list {
        *item = conform_element(element, item.take(), owner, path)?;
    }
    Ok(list)
}

/// As the reference's decoders do: the two lists take nothing that is neither for nothing.
fn conform_schema_or(other: SchemaOr, value: Value, path: &Path<'_>) -> Result<Value, String> {
    let Some(props) = schema::find(schema::JSON_SCHEMA_PROPS) else {
        return Err(format!("no type {}", schema::JSON_SCHEMA_PROPS));
    };
    match (other, value) {
        (_, Value::Object(mut map)) => conform_message(props, &mut map, path).map(Value::Object),
        (SchemaOr::Bool, value @ Value::Bool(_)) => Ok(value),
        (SchemaOr::Bool, _) => Err("boolean or JSON schema expected".to_owned()),
        (SchemaOr::Schemas | SchemaOr::Strings, Value::Array(list)) if !list.is_empty() => {
            let element = match other {
                SchemaOr::Strings => Shape::String,
                _ => Shape::Message(props.name.as_str().into()),
            };
            conform_list(&element, list, props, path).map(Value::Array)
        }
        _ => Ok(Value::Null),
    }
}

fn conform_map(
    element: &Shape,
    mut map: Map<String, Value>,
    owner: &Type,
    path: &Path<'_>,
) -> Result<Value, String> {
    for value in map.values_mut() {
        *value = conform_element(element, value.take(), owner, path)?;
    }
    if !map.keys().is_sorted() {
        map.sort_keys();
    }
    Ok(Value::Object(map))
}

/// A list's or map's element; null is the zero value there.
fn conform_element(
    element: &Shape,
    value: Value,
    owner: &Type,
    path: &Path<'_>,
) -> Result<Value, String> {
    match (element, value) {
        (Shape::String, Value::Null) => Ok(json!("")),
        (Shape::Quantity, Value::Null) => Ok(json!("0")),
        (Shape::Message(_), Value::Null) => {
            conform_shape(element, Value::Object(Map::new()), owner, path)
        }
        (Shape::Bytes | Shape::List(_) | Shape::Map(_), Value::Null) => Ok(Value::Null),
        (_, value) => conform_shape(element, value, owner, path),
    }
}

fn quantity(text: &str) -> Result<Value, String> {
    Quantity::parse(text)
        .map(|quantity| json!(quantity.canonical()))
        .map_err(str::to_owned)
}

fn bad_time(text: &str) -> String {
    let text = crate::status::quote(text);
    format!("parsing time {text} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text} as \"2006\"")
}

fn mismatch(shape: &Shape, value: &Value, owner: &Type, path: &Path<'_>) -> String {
    let got = match value {
        Value::Number(number) if matches!(shape, Shape::Int32 | Shape::Int64) => {
            format!("number {number}")
        }
        other => word(other),
    };
    format!(
        "json: cannot unmarshal {got} into Go struct field {}.{} of type {}",
        owner.short_name(),
        path.text(),
        shape.go_name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "io.k8s.api.core.v1.Pod";

    #[test]
    fn strict_decoding_names_each_field_once() {
        let body = br#"{"kind":"Pod","foo":1,"spec":{"containers":[{"name":"a","bar":{"x":1}}],"nodeName":"a","nodeName":"b"},"metadata":{"labels":{"a":"1","a":"2"}}}"#;
        assert_eq!(
            unknown_and_duplicate(POD, body),
            [
                r#"unknown field "foo""#,
                r#"unknown field "spec.containers[0].bar""#,
                r#"duplicate field "spec.nodeName""#,
                r#"duplicate field "metadata.labels.a""#,
            ]
        );
    }

    #[test]
    fn a_field_of_another_type_is_named_as_in_go() {
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "spec": {"containers": [{"name": 5}]}});
        assert_eq!(
            conform(POD, &pod)
                .expect_err("a number is no name")
                .message(),
            "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal number into \
             Go struct field Container.spec.containers.name of type string"
        );
    }

    #[test]
    fn stated_defaults_fill_what_is_absent() {
        let mut pod = json!({"spec": {"volumes": [{"rbd": {"image": "i", "pool": "p"}}], "containers": [{"ports": [{}]}]}});
        apply_defaults(POD, &mut pod);
        let volume = &pod["spec"]["volumes"][0]["rbd"];
        assert_eq!(
            (&volume["pool"], &volume["user"]),
            (&json!("p"), &json!("admin"))
        );
        assert_eq!(pod["spec"]["containers"][0]["ports"][0]["protocol"], "TCP");
    }

    #[test]
    fn a_pod_is_written_back_as_a_typed_server_does() {
        let pod = json!({
            "spec": {"containers": [{"resources": {"limits": {"cpu": "1000m"}}, "name": "a", "nope": 1}], "nodeName": ""},
            "metadata": {"name": "p", "labels": null, "creationTimestamp": null},
            "kind": "Pod", "apiVersion": "v1",
        });
        let conformed = conform(POD, &pod).expect("conforms");
        assert_eq!(
            conformed.to_string(),
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p"},"spec":{"containers":[{"name":"a","resources":{"limits":{"cpu":"1"}}}]},"status":{}}"#
        );
        assert_eq!(conform(POD, &conformed).expect("again"), conformed);
    }
}
