//! Request bodies: bounded reading, and decoding by media type.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use nautilus_machinery::codec::{self, MediaType};
use nautilus_machinery::fields::{self, FieldValidation};
use nautilus_machinery::status::ApiError;
use parking_lot::Mutex;
use serde_json::Value;

use crate::negotiate::SERVED;

/// A body that is too large is thrown away for so long while the answer goes out,
/// so that a client on HTTP/1.1 reads the answer instead of a reset connection.
const DISCARD_TIME: Duration = Duration::from_secs(2);
/// Bytes thrown away, at most.
const DISCARD_BYTES: usize = 32 * 1024 * 1024;

/// Messages for `Warning` headers, gathered while a request is served.
#[derive(Debug, Default)]
pub(crate) struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    /// Keeps the last attempt's messages only.
    pub(crate) fn replace(&self, messages: Vec<String>) {
        *self.0.lock() = messages;
    }

    /// One more, unless it was said before.
    pub(crate) fn add(&self, message: String) {
        let mut messages = self.0.lock();
        if !messages.contains(&message) {
            messages.push(message);
        }
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// Reads a whole body of at most `limit` bytes. A larger one is refused from its
/// `Content-Length`, or as soon as it has shown that it is larger.
pub(crate) async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<usize>().ok());
    if announced.is_some_and(|announced| announced > limit) {
        discard(body);
        return Err(ApiError::too_large(limit));
    }
    let mut stream = body.into_data_stream();
    let mut bytes = BytesMut::with_capacity(announced.unwrap_or_default());
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| {
            ApiError::bad_request(format!("the request's body could not be read: {error}"))
        })?;
        if bytes.len() + chunk.len() > limit {
            discard(Body::from_stream(stream));
            return Err(ApiError::too_large(limit));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

/// Ends by itself after [`DISCARD_TIME`].
fn discard(body: Body) {
    tokio::spawn(tokio::time::timeout(DISCARD_TIME, async move {
        let mut stream = body.into_data_stream();
        let mut thrown = 0;
        while let Some(Ok(chunk)) = stream.next().await {
            thrown += chunk.len();
            if thrown > DISCARD_BYTES {
                return;
            }
        }
    }));
}

/// The media type of a request's body, without parameters; JSON when unset.
pub(crate) fn content_type(headers: &HeaderMap) -> String {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(|media| media.trim().to_ascii_lowercase())
        .filter(|media| !media.is_empty())
        .unwrap_or_else(|| "application/json".into())
}

/// Decodes an object of a schema's type, checking and dropping unknown fields.
pub(crate) fn decode_object(
    schema: &str,
    headers: &HeaderMap,
    body: &[u8],
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<Value, ApiError> {
    let (media, json) = match content_type(headers).as_str() {
        "application/vnd.kubernetes.protobuf" => {
            return codec::decode(schema, MediaType::Protobuf, body);
        }
        "application/json" => (MediaType::Json, Bytes::copy_from_slice(body)),
        "application/yaml" | "application/x-yaml" => (MediaType::Yaml, yaml_to_json(body)?),
        _ => return Err(ApiError::unsupported_media_type(&SERVED)),
    };
    let value = codec::decode(schema, media, &json)?;
    if validation != FieldValidation::Ignore {
        let unknown = fields::unknown_and_duplicate(schema, &json);
        if validation == FieldValidation::Strict && !unknown.is_empty() {
            return Err(fields::strict_error(schema, &unknown));
        }
        warnings.replace(unknown);
    }
    Ok(value)
}

/// Brackets and braces of a YAML text that are open at once, at most. Its scanner looks at
/// each of them again for every token, so that a few MiB of them would take it hours.
const MAX_YAML_OPEN: usize = 512;

/// YAML as JSON text. The parser bounds depth and the growth of aliases.
pub(crate) fn yaml_to_json(body: &[u8]) -> Result<Bytes, ApiError> {
    let mut open = 0_usize;
    for byte in body {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > MAX_YAML_OPEN {
            return Err(ApiError::bad_request(format!(
                "the object provided is unrecognized: more than {MAX_YAML_OPEN} brackets are open \
                 at once"
            )));
        }
    }
    let value: Value = serde_yaml_ng::from_slice(body).map_err(|error| {
        ApiError::bad_request(format!("the object provided is unrecognized: {error}"))
    })?;
    serde_json::to_vec(&value)
        .map(Bytes::from)
        .map_err(|error| ApiError::bad_request(error.to_string()))
}
