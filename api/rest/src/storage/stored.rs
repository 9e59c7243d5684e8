//! An object's bytes in the store.

use bytes::Bytes;
use nautilus_machinery::convert;
use nautilus_machinery::resource::Resource;
use nautilus_machinery::status::ApiError;
use serde_json::Value;

use crate::custom;
use crate::failure::Failure;

/// The bytes of an object of any kind in the version in which it is stored.
pub(super) async fn bytes_to_store(resource: &Resource, object: &Value) -> Result<Bytes, Failure> {
    match custom::in_storage_version(resource, object).await? {
        Some(converted) => Ok(Bytes::from(converted.to_string())),
        None => stored_bytes(resource, object),
    }
}

/// The same where nobody has to be asked.
pub(crate) fn stored_bytes(resource: &Resource, object: &Value) -> Result<Bytes, Failure> {
    let text = match resource.stored_as {
        // Of most kinds there is one form.
        None if resource.defined.is_none() => serde_json::to_vec(object),
        _ => serde_json::to_vec(&convert::to_stored(resource, object.clone())),
    };
    text.map(Bytes::from)
        .map_err(|error| ApiError::internal(error.to_string()).into())
}
