//! An object's bytes in the store.

use bytes::Bytes;
use nautilus_machine::{Compare, KeyValue};
use nautilus_machinery::convert;
use nautilus_machinery::resource::Resource;
use nautilus_machinery::status::ApiError;
use serde_json::Value;

use super::commit::Evidence;
use super::companions::Companions;
use super::write::put;
use super::{Storage, parse_object};
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

impl Storage {
    /// Writes an object's bytes anew in the version in which its kind is stored now. Nothing
    /// is written if they are those already, or if the object has changed since it was read.
    pub(crate) async fn rewrite(&self, resource: &Resource, row: KeyValue) -> Result<(), Failure> {
        let before = row.value.clone();
        let Some(row) = custom::own_rows(resource, vec![row]).await?.pop() else {
            return Ok(());
        };
        let object = parse_object(resource, &row)?;
        let bytes = bytes_to_store(resource, &object).await?;
        if bytes == before {
            return Ok(());
        }
        let key = String::from_utf8_lossy(&row.key).into_owned();
        let compare = Compare::mod_revision(key.clone(), row.mod_revision);
        let put = put(resource, &key, bytes.clone());
        let evidence = Evidence::Bytes(&bytes);
        self.swap(&key, compare, put, Companions::default(), evidence)
            .await?;
        Ok(())
    }
}
