//! Conversion of objects of defined kinds by their definitions' webhooks.
//!
//! Rows are converted where they are read, before anything looks into them: whoever parses a
//! row of a defined kind finds it in the version it asked for.
//!
//! Invariants
//! - Only what is in another version is sent, in batches of at most [`MAX_BATCH_BYTES`] and
//!   [`MAX_BATCH_OBJECTS`]; a batch is converted whole or not at all.
//! - Kinds without a webhook are given back as they came, unread.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use nautilus_admission::hooks::{self, Address};
use nautilus_extension::definition::Conversion;
use nautilus_extension::{ConversionError, conversion_review, converted_objects};
use nautilus_machine::{Event, EventKind, KeyValue};
use nautilus_machinery::resource::Resource;
use nautilus_machinery::review::ReviewVersion;
use nautilus_machinery::status::ApiError;
use serde_json::Value;

use super::kind::Kind;
use crate::failure::Failure;
use crate::ids;
use crate::webhook::WebhookClients;

/// Bytes of objects that one review asks about; one object may be larger.
const MAX_BATCH_BYTES: usize = 1024 * 1024;
/// Objects that one review asks about.
const MAX_BATCH_OBJECTS: usize = 500;
/// For one review.
const CONVERSION_TIMEOUT: Duration = Duration::from_secs(30);

/// A definition's webhook.
pub(super) struct Converter {
    clients: Arc<WebhookClients>,
    address: Address,
    ca_bundle: String,
    /// None: it reads no version that is known.
    reviews: Option<ReviewVersion>,
}

impl std::fmt::Debug for Converter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_tuple("Converter")
            .field(&self.address)
            .finish()
    }
}

impl Converter {
    /// `None`: only `apiVersion` changes between the versions.
    pub(super) fn of(conversion: &Conversion, clients: &Arc<WebhookClients>) -> Option<Arc<Self>> {
        let Conversion::Webhook {
            client,
            review_versions,
        } = conversion
        else {
            return None;
        };
        Some(Arc::new(Self {
            clients: clients.clone(),
            address: hooks::address(client),
            ca_bundle: client["caBundle"].as_str().unwrap_or_default().to_owned(),
            reviews: ReviewVersion::first_known(review_versions.iter().map(String::as_str)),
        }))
    }

    /// Objects of one other version each, in this one.
    async fn convert(&self, objects: Vec<Value>, api_version: &str) -> Result<Vec<Value>, Failure> {
        let mut converted = Vec::with_capacity(objects.len());
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for object in objects {
            let size = object.to_string().len();
            if batch.len() == MAX_BATCH_OBJECTS
                || !batch.is_empty() && bytes + size > MAX_BATCH_BYTES
            {
                converted.extend(self.review(&batch, api_version).await?);
                batch.clear();
                bytes = 0;
            }
            bytes += size;
            batch.push(object);
        }
        converted.extend(self.review(&batch, api_version).await?);
        Ok(converted)
    }

    async fn review(&self, batch: &[Value], api_version: &str) -> Result<Vec<Value>, Failure> {
        let Some(first) = batch.first() else {
            return Ok(Vec::new());
        };
        let failed = |error: ConversionError| Failure::from(ApiError::unknown(error.to_string()));
        let Some(version) = self.reviews else {
            return Err(ApiError::unknown("no supported conversion review versions").into());
        };
        let uid = ids::uuid();
        let review = conversion_review(version, &uid, api_version, batch);
        let mut answer = self
            .clients
            .post(&self.address, &self.ca_bundle, CONVERSION_TIMEOUT, &review)
            .await
            .map_err(|why| failed(ConversionError::failed(first, &why)))?;
        converted_objects(version, &mut answer, &uid, api_version, batch).map_err(failed)
    }
}

/// The kind, and who has to be asked to convert its objects, if anybody has.
fn converted(resource: &Resource) -> Option<(&Kind, &Converter)> {
    let defined: &dyn Any = resource.defined.as_deref()?;
    let kind: &Kind = defined.downcast_ref()?;
    Some((kind, kind.converter.as_deref()?))
}

/// An object of a kind in another version of it; `None`: nobody has to be asked.
pub(crate) async fn in_version(
    resource: &Resource,
    object: &Value,
    api_version: &str,
) -> Result<Option<Value>, Failure> {
    let Some((_, converter)) = converted(resource).filter(|_| object["apiVersion"] != api_version)
    else {
        return Ok(None);
    };
    let mut converted = converter.convert(vec![object.clone()], api_version).await?;
    Ok(converted.pop())
}

/// An object of a kind in the version in which it is stored; `None`: nobody has to be asked.
pub(crate) async fn in_storage_version(
    resource: &Resource,
    object: &Value,
) -> Result<Option<Value>, Failure> {
    match converted(resource).and_then(|(kind, _)| kind.stored_as()) {
        Some(api_version) => in_version(resource, object, &api_version).await,
        None => Ok(None),
    }
}

/// Rows of a kind, their objects in its own version.
pub(crate) async fn own_rows(
    resource: &Resource,
    mut rows: Vec<KeyValue>,
) -> Result<Vec<KeyValue>, Failure> {
    if let Some((_, converter)) = converted(resource) {
        convert_rows(resource, converter, rows.iter_mut().collect()).await?;
    }
    Ok(rows)
}

/// Events of a kind, their objects in its own version.
pub(crate) async fn own_events(
    resource: &Resource,
    mut events: Vec<Event>,
) -> Result<Vec<Event>, Failure> {
    if let Some((_, converter)) = converted(resource) {
        let rows = events.iter_mut().flat_map(|event| {
            let put = (event.kind == EventKind::Put).then_some(&mut event.kv);
            put.into_iter().chain(event.prev.as_mut())
        });
        convert_rows(resource, converter, rows.collect()).await?;
    }
    Ok(events)
}

async fn convert_rows(
    resource: &Resource,
    converter: &Converter,
    rows: Vec<&mut KeyValue>,
) -> Result<(), Failure> {
    let own = resource.api_version();
    let (mut others, mut objects) = (Vec::new(), Vec::new());
    for row in rows {
        // What is damaged is told by who reads it.
        let Ok(object) = serde_json::from_slice::<Value>(&row.value) else {
            continue;
        };
        if object["apiVersion"] != own.as_str() {
            others.push(row);
            objects.push(object);
        }
    }
    let converted = converter.convert(objects, &own).await?;
    for (row, object) in others.into_iter().zip(converted) {
        row.value = object.to_string().into();
    }
    Ok(())
}
