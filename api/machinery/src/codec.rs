//! Bodies of requests and answers: JSON and Kubernetes' protobuf, both from and
//! to the JSON form of an object, driven by the schema.
//!
//! Protobuf bodies are the four bytes `k8s\0` and a `runtime.Unknown` whose
//! `raw` is the message; see [`writer`] and [`reader`] for how messages differ
//! from the generic mapping to JSON.
//!
//! Invariants: depth is bounded on both sides; a decoded value conforms to its
//! type; malformed input is a 400 that says what is wrong and where.

pub mod reader;
pub mod writer;

use base64::Engine as _;
use serde_json::Value;

use crate::fields;
use crate::schema::{self, Type};
use crate::status::{ApiError, quote};

/// How deep messages and lists may nest, on either wire.
pub const MAX_DEPTH: usize = 64;
/// What a protobuf body starts with.
pub const PROTOBUF_MAGIC: &[u8; 4] = b"k8s\0";

/// The form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    /// `application/json`
    Json,
    /// `application/yaml`, already turned into JSON text by the caller.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

/// Reads a body as an object of `schema`. `kind` and `apiVersion` may be absent;
/// where they stand they must be the type's.
pub fn decode(schema: &str, media: MediaType, body: &[u8]) -> Result<Value, ApiError> {
    let Some(found) = schema::find(schema) else {
        return Err(ApiError::internal(format!("no type {schema}")));
    };
    match media {
        MediaType::Json | MediaType::Yaml => decode_json(found, body),
        MediaType::Protobuf => decode_protobuf(found, body),
    }
}

fn decode_json(found: &Type, body: &[u8]) -> Result<Value, ApiError> {
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        ApiError::bad_request(format!(
            "couldn't get version/kind; json parse error: {error}"
        ))
    })?;
    if depth_of(&value) > MAX_DEPTH {
        return Err(ApiError::bad_request(format!(
            "the object nests deeper than {MAX_DEPTH} levels"
        )));
    }
    let text = |name: &str| value[name].as_str().unwrap_or_default();
    check_kind(found, text("apiVersion"), text("kind"))?;
    let mut value = fields::conform_owned(&found.name, value)?;
    fill_kind(found, &mut value);
    Ok(value)
}

fn depth_of(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth_of).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth_of).max().unwrap_or(0),
        _ => 0,
    }
}

fn decode_protobuf(found: &Type, body: &[u8]) -> Result<Value, ApiError> {
    let refuse =
        |what: &str| ApiError::bad_request(format!("the protobuf body is malformed: {what}"));
    let Some(rest) = body.strip_prefix(PROTOBUF_MAGIC) else {
        return Err(ApiError::bad_request(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
        ));
    };
    let unknown = reader::unknown(rest).map_err(|error| refuse(&error.to_string()))?;
    if !unknown.content_encoding.is_empty() {
        return Err(refuse(&format!(
            "content encoding {}",
            quote(&unknown.content_encoding)
        )));
    }
    if unknown.kind.is_empty() && !found.kinds.is_empty() {
        return Err(ApiError::bad_request(
            "Object 'Kind' is missing in the protobuf envelope",
        ));
    }
    check_kind(found, &unknown.api_version, &unknown.kind)?;
    let mut value =
        reader::message(found, unknown.raw).map_err(|error| refuse(&error.to_string()))?;
    if let Value::Object(map) = &mut value {
        for (name, text) in [("kind", unknown.kind), ("apiVersion", unknown.api_version)] {
            if found.field(name).is_some() {
                map.insert(name.to_owned(), Value::String(text));
            }
        }
    }
    let mut value = fields::conform_owned(&found.name, value)?;
    fill_kind(found, &mut value);
    Ok(value)
}

/// Options and statuses stand in every group; other kinds in their own.
fn check_kind(found: &Type, api_version: &str, kind: &str) -> Result<(), ApiError> {
    if found.kinds.is_empty() || (api_version.is_empty() && kind.is_empty()) {
        return Ok(());
    }
    let of_meta = found.name.starts_with("io.k8s.apimachinery.");
    let versions: Vec<String> = found
        .kinds
        .iter()
        .filter(|(_, _, own)| kind.is_empty() || own == kind)
        .map(|(group, version, _)| crate::resource::api_version(group, version))
        .collect();
    let Some(expected) = versions.first() else {
        let version = api_version.rsplit('/').next().unwrap_or(api_version);
        let wanted = found.short_name();
        return Err(ApiError::bad_request(format!(
            "{kind} in version {} cannot be handled as a {wanted}: the object provided is \
             unrecognized (must be of type {wanted})",
            quote(version)
        )));
    };
    if !of_meta && !api_version.is_empty() && !versions.iter().any(|own| own == api_version) {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version \
             ({expected})"
        )));
    }
    Ok(())
}

fn fill_kind(found: &Type, value: &mut Value) {
    let (Some((group, version, kind)), Value::Object(map)) = (found.kinds.first(), value) else {
        return;
    };
    if found.field("kind").is_none() {
        return;
    }
    let mut filled = serde_json::Map::new();
    let api_version = crate::resource::api_version(group, version);
    for (name, default) in [("kind", kind.clone()), ("apiVersion", api_version)] {
        let text = map
            .get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty());
        filled.insert(
            name.to_owned(),
            Value::String(text.map_or(default, str::to_owned)),
        );
    }
    for (name, inner) in std::mem::take(map) {
        filled.entry(name).or_insert(inner);
    }
    *map = filled;
}

/// Writes an object, list, `Status` or options as a protobuf body. A
/// `WatchEvent` is written as clients read it from a watch: without envelope
/// and without length (see [`encode_watch_event`] for a whole frame).
pub fn encode_protobuf(schema: &str, value: &Value) -> Result<Vec<u8>, ApiError> {
    let Some(found) = schema::find(schema) else {
        return Err(ApiError::internal(format!("no type {schema}")));
    };
    let mut body = Vec::new();
    if schema == schema::WATCH_EVENT {
        let object = embedded_object(&value["object"])?;
        let kind = value["type"].as_str().unwrap_or_default();
        writer::watch_event(&mut body, kind, &object);
        return Ok(body);
    }
    let message = writer::message(found, value).map_err(|error| {
        ApiError::internal(format!(
            "can't write {} as protobuf: {error}",
            found.short_name()
        ))
    })?;
    let text = |name: &str, default: String| match value[name].as_str() {
        Some(text) if !text.is_empty() => text.to_owned(),
        _ => default,
    };
    let (group, version, kind) = found.kinds.first().cloned().unwrap_or_default();
    let api_version = text("apiVersion", crate::resource::api_version(&group, &version));
    body.extend_from_slice(PROTOBUF_MAGIC);
    writer::unknown(&mut body, &api_version, &text("kind", kind), &message);
    Ok(body)
}

/// One frame of a protobuf watch: four bytes of big-endian length, then the
/// `WatchEvent` whose object is a whole body of its own.
pub fn encode_watch_event(kind: &str, schema: &str, object: &Value) -> Result<Vec<u8>, ApiError> {
    watch_frame(kind, &encode_protobuf(schema, object)?)
}

/// The same, of an object that is a whole body already.
pub fn watch_frame(kind: &str, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let mut event = Vec::with_capacity(body.len() + 32);
    writer::watch_event(&mut event, kind, body);
    let length = u32::try_from(event.len())
        .map_err(|_| ApiError::internal("a watch event is larger than 4 GiB"))?;
    let mut frame = Vec::with_capacity(event.len() + 4);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&event);
    Ok(frame)
}

/// The object of a `RawExtension` in an event: by its own kind, else as JSON.
fn embedded_object(object: &Value) -> Result<Vec<u8>, ApiError> {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kind = object["kind"].as_str().unwrap_or_default();
    match schema::find_kind(group, version, kind) {
        Some(found) => encode_protobuf(&found.name, object),
        None => Ok(object.to_string().into_bytes()),
    }
}

/// Standard base64 as Go reads it: padded, line ends ignored, whatever bits after
/// the last byte.
const BASE64: base64::engine::GeneralPurpose = base64::engine::GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    base64::engine::GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

fn without_line_ends(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains(['\r', '\n']) {
        text.replace(['\r', '\n'], "").into()
    } else {
        text.into()
    }
}

/// The bytes that base64 stands for; `None` if malformed.
pub(crate) fn base64_bytes(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(without_line_ends(text).as_bytes()).ok()
}

/// Where [`base64_bytes`] stops reading, in bytes from the start.
pub(crate) fn base64_fault(text: &str) -> usize {
    match BASE64.decode(without_line_ends(text).as_bytes()) {
        Err(base64::DecodeError::InvalidByte(at, _)) => at,
        _ => text.len(),
    }
}

pub(crate) fn base64_text(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const POD: &str = "io.k8s.api.core.v1.Pod";
    const CONFIG_MAP: &str = "io.k8s.api.core.v1.ConfigMap";

    #[test]
    fn an_object_of_another_kind_is_refused() {
        let body = br#"{"kind":"Service","apiVersion":"v1"}"#;
        let error = decode(POD, MediaType::Json, body).expect_err("no pod");
        assert_eq!(error.code(), 400);
        let body = br#"{"kind":"Pod","apiVersion":"v2"}"#;
        let error = decode(POD, MediaType::Json, body).expect_err("no such version");
        assert_eq!(
            error.message(),
            "the API version in the data (v2) does not match the expected API version (v1)"
        );
    }

    #[test]
    fn options_may_name_any_group() {
        let body = br#"{"kind":"DeleteOptions","apiVersion":"apps/v1","gracePeriodSeconds":0}"#;
        let options = decode(schema::DELETE_OPTIONS, MediaType::Json, body).expect("options");
        assert_eq!(options["gracePeriodSeconds"], 0);
    }

    #[test]
    fn protobuf_and_back_is_the_same_object() {
        let object = json!({
            "kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "immutable": false,
            "data": {"a": "1", "b": ""}, "binaryData": {"c": "AAEC"},
        });
        let body = encode_protobuf(CONFIG_MAP, &object).expect("written");
        assert_eq!(
            decode(CONFIG_MAP, MediaType::Protobuf, &body).expect("read"),
            object
        );
    }

    #[test]
    fn deep_nesting_is_refused_on_both_wires() {
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        let body = format!("{{\"metadata\":{{\"x\":{deep}}}}}");
        assert_eq!(
            decode(POD, MediaType::Json, body.as_bytes())
                .expect_err("deep")
                .code(),
            400
        );
        let body = format!("{{\"x\":{}", "[".repeat(1_000_000));
        assert_eq!(
            decode(POD, MediaType::Json, body.as_bytes())
                .expect_err("deep")
                .code(),
            400
        );
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_are_refused_or_read_but_never_panic(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)
        ) {
            let _ = decode(POD, MediaType::Protobuf, &bytes);
            let mut body = PROTOBUF_MAGIC.to_vec();
            writer::unknown(&mut body, "v1", "Pod", &bytes);
            let _ = decode(POD, MediaType::Protobuf, &body);
        }
    }
}
