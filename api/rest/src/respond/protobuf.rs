//! Protobuf bodies put together from messages that the cache keeps.

use nautilus_machinery::codec::{PROTOBUF_MAGIC, writer};
use nautilus_machinery::resource::Resource;
use nautilus_machinery::schema;
use nautilus_machinery::status::ApiError;

use crate::cache::Entry;
use crate::failure::Failure;
use crate::storage::EntryPage;

/// The OpenAPI name of `ListMeta`.
const LIST_META_SCHEMA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// The body of one object at its own version.
pub(crate) fn object(resource: &Resource, entry: &Entry) -> Result<Vec<u8>, Failure> {
    let message = entry.protobuf(resource)?;
    let mut body = Vec::with_capacity(message.len() + 64);
    body.extend_from_slice(PROTOBUF_MAGIC);
    writer::unknown(&mut body, &resource.api_version(), &resource.kind, &message);
    Ok(body)
}

/// The body of a page.
pub(super) fn list(resource: &Resource, page: &EntryPage) -> Result<Vec<u8>, Failure> {
    let internal = |what: String| Failure::from(ApiError::internal(what));
    let found = schema::find(LIST_META_SCHEMA).ok_or_else(|| internal("no ListMeta".into()))?;
    let meta = super::list_meta(page.revision, page.continue_token.clone(), page.remaining);
    let meta = writer::message(found, &meta);
    let meta = meta.map_err(|error| internal(error.to_string()))?;
    let mut raw = Vec::new();
    writer::list_meta(&mut raw, &meta);
    for entry in &page.entries {
        writer::list_item(&mut raw, &entry.protobuf(resource)?);
    }
    let mut body = Vec::with_capacity(raw.len() + 64);
    body.extend_from_slice(PROTOBUF_MAGIC);
    writer::unknown(
        &mut body,
        &resource.api_version(),
        &resource.list_kind(),
        &raw,
    );
    Ok(body)
}
