//! An object's bytes in the store.

use bytes::Bytes;
use nautilus_machine::{Compare, KeyValue};
use nautilus_machinery::convert;
use nautilus_machinery::resource::Resource;
use nautilus_machinery::status::ApiError;
use serde_json::Value;

use super::commit::Evidence;
use super::companions::Companions;
use super::write::{Writer, put};
use super::{Storage, Target, metadata_text, parse_object};
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
    /// Writes objects' bytes anew in the version in which their kind, given as it is stored, is
    /// stored now. Nothing is written of those that are in it already, or that have changed
    /// since they were read.
    pub(crate) async fn rewrite(
        &self,
        stored: &Resource,
        rows: Vec<KeyValue>,
        writer: &Writer<'_>,
    ) -> Result<(), Failure> {
        let before: Vec<Bytes> = rows.iter().map(|row| row.value.clone()).collect();
        for (row, before) in custom::own_rows(stored, rows).await?.iter().zip(before) {
            let object = parse_object(stored, row)?;
            let bytes = stored_bytes(stored, &object)?;
            if bytes == before {
                continue;
            }
            let target = Target {
                resource: stored,
                namespace: stored
                    .namespaced
                    .then(|| metadata_text(&object, "namespace")),
                name: metadata_text(&object, "name"),
                subresource: None,
            };
            self.allow("patch", &target, writer).await?;
            let key = String::from_utf8_lossy(&row.key).into_owned();
            let compare = Compare::mod_revision(key.clone(), row.mod_revision);
            let put = put(stored, &key, bytes.clone());
            let evidence = Evidence::Bytes(&bytes);
            self.swap(&key, compare, put, Companions::default(), evidence)
                .await?;
        }
        Ok(())
    }
}
