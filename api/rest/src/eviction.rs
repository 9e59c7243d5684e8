//! `pods/eviction`: a deletion that a disruption budget may forbid.
//!
//! Invariant: the budget is charged in the transaction that deletes or marks the pod.

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use nautilus_admission::attributes::Operation;
use nautilus_admission::disruption;
use nautilus_machine::types::KeyRange;
use nautilus_machine::{Compare, Operation as Write, Put, RangeRequest};
use nautilus_machinery::resource;
use nautilus_machinery::status::{self, ApiError};
use nautilus_machinery::strategy::DeleteOptions;
use serde_json::Value;

use crate::failure::Failure;
use crate::ids;
use crate::options::Version;
use crate::resources::{Call, write_options};
use crate::respond::{self, Form};
use crate::storage::{
    Companions, Storage, Target, attributes, metadata_text, stored_bytes, take_version,
    versioned_object,
};

/// Serves an eviction.
pub(crate) async fn serve(call: &Call, request: Request, form: Form) -> Result<Response, Failure> {
    let mut options = write_options(request.uri(), request.headers())?;
    let warnings = call.warnings.as_ref();
    let mut eviction = call.read_object(request, &options, warnings).await?;
    call.fill_namespace(&mut eviction)?;
    let target = call.target();
    if metadata_text(&eviction, "name") != target.name {
        return Err(
            ApiError::bad_request("name in URL does not match name in Eviction object").into(),
        );
    }
    options.dry_run |= DeleteOptions::from_value(&eviction["deleteOptions"])?.dry_run;
    let writer = call.writer(&options, warnings);
    let asked = attributes(Operation::Create, &target, &writer, None);
    let admission = &call.context.admission;
    admission
        .pass_other(&asked, &mut eviction, writer.remarks)
        .await?;
    let delete = DeleteOptions::from_value(&eviction["deleteOptions"])?;
    let pod = Target {
        subresource: None,
        ..target
    };
    let storage = call.storage();
    let present = storage.get(&pod, Version::Newest).await?;
    let storage = match disruption::ignores_budgets(&present) {
        true => storage,
        false => storage.evicting(),
    };
    storage.delete(&pod, &delete, &writer).await?;
    respond::status(
        form.agreed.format,
        StatusCode::CREATED,
        &status::success(201),
    )
}

/// Adds to the deletion of `pod` what its disruption budget becomes; 429 where there is no
/// room.
pub(crate) fn charge_budget(
    storage: &Storage,
    pod: &Value,
    companions: &mut Companions,
) -> Result<(), Failure> {
    let Some(budgets) = resource::find("policy", "v1", "poddisruptionbudgets") else {
        return Ok(());
    };
    let namespace = metadata_text(pod, "namespace");
    let range = KeyRange::prefix(budgets.namespace_prefix(namespace));
    let rows = storage.kv.range(&RangeRequest::newest(range))?.kvs;
    let all: Vec<Value> = rows
        .iter()
        .map(|row| versioned_object(budgets, row))
        .collect::<Result<_, _>>()?;
    let Some((index, mut changed)) = disruption::charge(pod, &all, &ids::now_rfc3339())? else {
        return Ok(());
    };
    take_version(&mut changed);
    let row = &rows[index];
    let key = String::from_utf8_lossy(&row.key).into_owned();
    companions
        .compare
        .push(Compare::mod_revision(key.clone(), row.mod_revision));
    let put = Put::new(key, stored_bytes(budgets, &changed)?);
    companions.then.push(Write::Put(put));
    Ok(())
}
