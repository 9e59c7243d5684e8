//! Answers: an object, list or `Status` in the form agreed on.

mod json_list;
pub(crate) mod protobuf;

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use nautilus_machine::Revision;
use nautilus_machinery::codec;
use nautilus_machinery::resource::Resource;
use nautilus_machinery::schema::{self, STATUS};
use nautilus_machinery::status::ApiError;
use nautilus_machinery::table::{self, IncludeObject};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::negotiate::{Agreed, Format, Rendering};
use crate::storage::{EntryPage, Page};
use json_list::JsonList;

pub(crate) const JSON_TYPE: &str = "application/json";
pub(crate) const PROTOBUF_TYPE: &str = "application/vnd.kubernetes.protobuf";
const YAML_TYPE: &str = "application/yaml";
/// Objects that are parsed and rendered where the request is served.
const MAX_RENDERED_INLINE: usize = 128;
/// Text of a `Warning` header, at most.
const MAX_WARNING_CHARS: usize = 256;

/// How objects of one request are rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) agreed: Agreed,
    pub(crate) include: IncludeObject,
}

impl Form {
    /// Whether it is the objects' own protobuf, which may be at hand.
    pub(crate) fn is_plain_protobuf(self) -> bool {
        self.agreed.format == Format::Protobuf && self.agreed.rendering == Rendering::Whole
    }

    /// Whether it is the objects' own JSON, which is at hand.
    pub(crate) fn is_plain(self) -> bool {
        self.agreed == Agreed::JSON
    }
}

/// One object.
pub(crate) fn object(
    form: Form,
    status: StatusCode,
    resource: &Resource,
    value: Value,
) -> Result<Response, Failure> {
    let (schema, value) = match form.agreed.rendering {
        Rendering::Whole => (resource.schema.as_str(), value),
        Rendering::Table(version) => {
            let meta = json!({ "resourceVersion": value["metadata"]["resourceVersion"] });
            let items = [value];
            let now = crate::ids::now_unix_s();
            (
                "",
                table::render(resource, &items, &meta, form.include, version, now, true),
            )
        }
        Rendering::Metadata(version) => (
            schema::PARTIAL_OBJECT_METADATA,
            table::partial_object_metadata(&value, version),
        ),
    };
    encoded(form.agreed.format, status, schema, &value)
}

/// The body of a subresource that is of a kind of its own; `schema` is its type.
pub(crate) fn of_schema(
    form: Form,
    status: StatusCode,
    schema: &str,
    value: &Value,
) -> Result<Response, Failure> {
    encoded(form.agreed.format, status, schema, value)
}

/// A page of a list.
pub(crate) fn list(form: Form, resource: &Resource, mut page: Page) -> Result<Response, Failure> {
    if form.agreed.rendering == Rendering::Whole && resource.defined.is_none() {
        // The list says it for all of them.
        for item in page.items.iter_mut().filter_map(Value::as_object_mut) {
            item.shift_remove("kind");
            item.shift_remove("apiVersion");
        }
    }
    let meta = list_meta(page.revision, page.continue_token, page.remaining);
    let schema = resource.list_schema();
    let (schema, value) = match form.agreed.rendering {
        Rendering::Whole => (
            schema.as_str(),
            json!({
                "kind": resource.list_kind(),
                "apiVersion": resource.api_version(),
                "metadata": meta,
                "items": page.items,
            }),
        ),
        Rendering::Table(version) => {
            let now = crate::ids::now_unix_s();
            (
                "",
                table::render_list(resource, &page.items, &meta, form.include, version, now),
            )
        }
        Rendering::Metadata(version) => (
            schema::PARTIAL_OBJECT_METADATA_LIST,
            table::partial_object_metadata_list(&page.items, &meta, version),
        ),
    };
    encoded(form.agreed.format, StatusCode::OK, schema, &value)
}

/// The metadata of a page.
fn list_meta(revision: Revision, token: Option<String>, remaining: Option<u64>) -> Value {
    let mut meta = json!({ "resourceVersion": revision.to_string() });
    if let Some(token) = token {
        meta["continue"] = token.into();
    }
    if let Some(remaining) = remaining.filter(|remaining| *remaining > 0) {
        meta["remainingItemCount"] = remaining.into();
    }
    meta
}

/// The JSON of one object, as it is at hand.
pub(crate) fn json(code: StatusCode, text: Vec<u8>) -> Response {
    bytes(code, JSON_TYPE, text)
}

/// A page of a list, from entries of the cache; a large one that has to be made of parsed
/// objects is made off the runtime's own threads.
pub(crate) async fn entries(
    form: Form,
    resource: &Arc<Resource>,
    page: EntryPage,
) -> Result<Response, Failure> {
    if form.is_plain() || page.entries.len() <= MAX_RENDERED_INLINE {
        return rendered(form, resource, page);
    }
    let resource = resource.clone();
    let rendering = tokio::task::spawn_blocking(move || rendered(form, &resource, page));
    let done = rendering.await;
    done.unwrap_or_else(|error| Err(ApiError::internal(error.to_string()).into()))
}

fn rendered(form: Form, resource: &Resource, page: EntryPage) -> Result<Response, Failure> {
    if form.is_plain() {
        let body = JsonList::new(resource, page).into_body();
        return Ok(bytes(StatusCode::OK, JSON_TYPE, body));
    }
    if form.is_plain_protobuf() && !resource.schema.is_empty() {
        let body = protobuf::list(resource, &page)?;
        return Ok(bytes(StatusCode::OK, PROTOBUF_TYPE, body));
    }
    let objects = page
        .entries
        .iter()
        .map(|entry| entry.object(entry.revision()));
    let page = Page {
        items: objects.collect::<Result<_, _>>()?,
        revision: page.revision,
        continue_token: page.continue_token,
        remaining: page.remaining,
    };
    list(form, resource, page)
}

/// A successful `Status`.
pub(crate) fn status(format: Format, code: StatusCode, value: &Value) -> Result<Response, Failure> {
    encoded(format, code, STATUS, value)
}

/// A refusal, in the client's format where it can be had.
pub(crate) fn failure(format: Format, failure: &Failure) -> Response {
    let code =
        StatusCode::from_u16(failure.error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let value = failure.to_status();
    let mut response = encoded(format, code, STATUS, &value)
        .or_else(|_| encoded(Format::Json, code, STATUS, &value))
        .unwrap_or_else(|_| plain(code, failure.error.message()));
    if let Some(seconds) = failure.error.retry_after_seconds() {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    warn(&mut response, &failure.warnings);
    response
}

/// Any JSON document of our own.
pub(crate) fn json_document(value: &Value) -> Result<Response, Failure> {
    encoded(Format::Json, StatusCode::OK, "", value)
}

/// Plain text.
pub(crate) fn plain(code: StatusCode, text: &str) -> Response {
    bytes(
        code,
        "text/plain; charset=utf-8",
        text.to_owned().into_bytes(),
    )
}

/// Bytes of a media type.
pub(crate) fn bytes(code: StatusCode, media: &str, content: impl Into<Body>) -> Response {
    let mut response = Response::new(content.into());
    *response.status_mut() = code;
    if let Ok(media) = HeaderValue::from_str(media) {
        response.headers_mut().insert(CONTENT_TYPE, media);
    }
    // Nothing here may be kept by a proxy unless a handler says so.
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Adds `Warning: 299` headers.
pub(crate) fn warn(response: &mut Response, warnings: &[String]) {
    for warning in warnings {
        let text: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_WARNING_CHARS)
            .flat_map(|c| match c {
                '"' | '\\' => vec!['\\', c],
                other => vec![other],
            })
            .collect();
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{text}\"").as_bytes()) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
}

fn encoded(
    format: Format,
    code: StatusCode,
    schema: &str,
    value: &Value,
) -> Result<Response, Failure> {
    let internal = |error: String| Failure::from(ApiError::internal(error));
    Ok(match format {
        Format::Protobuf if !schema.is_empty() => {
            bytes(code, PROTOBUF_TYPE, codec::encode_protobuf(schema, value)?)
        }
        Format::Yaml => {
            let text = serde_yaml_ng::to_string(value).map_err(|e| internal(e.to_string()))?;
            bytes(code, YAML_TYPE, text)
        }
        Format::Json | Format::Protobuf => {
            let text = serde_json::to_vec(value).map_err(|e| internal(e.to_string()))?;
            bytes(code, JSON_TYPE, text)
        }
    })
}
