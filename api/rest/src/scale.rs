//! The scale subresource, of every kind that says where its scale stands.
//!
//! Invariant: a scale is written by writing the object itself: its version, its rules and
//! what admission says of it hold.

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use nautilus_machinery::scale::{self, ScalePaths};
use nautilus_machinery::status::ApiError;
use serde_json::Value;

use crate::body;
use crate::failure::Failure;
use crate::options::{Query, parse_version};
use crate::resources::{Call, write_options};
use crate::respond::{self, Form};
use crate::route::Verb;
use crate::storage::Target;

/// Serves a request for a scale.
pub(crate) async fn serve(call: &Call, request: Request, form: Form) -> Result<Response, Failure> {
    let resource = call.asked.resource.as_ref();
    let Some(paths) = &resource.scale else {
        return Err(ApiError::method_not_allowed().into());
    };
    match call.asked.verb {
        Verb::Get => {
            let version = parse_version(Query::of(request.uri()).text("resourceVersion"))?;
            let object = call.storage().get(&call.target(), version).await?;
            let scale = scale::get(paths, &object)?;
            respond::object(form, StatusCode::OK, scale::kind(), scale)
        }
        Verb::Update => {
            let options = write_options(request.uri(), request.headers())?;
            let warnings = call.warnings.as_ref();
            let wanted = call.read_object(request, &options, warnings).await?;
            let make = |current: &Value| named(&call.target(), paths, current, &wanted);
            let writer = call.writer(&options, warnings);
            let updated = call.storage().update(&call.target(), &writer, make).await?;
            let scale = scale::get(paths, &updated.into_object())?;
            respond::object(form, StatusCode::OK, scale::kind(), scale)
        }
        Verb::Patch => {
            let options = write_options(request.uri(), request.headers())?;
            let media = body::content_type(request.headers());
            let is_apply = crate::apply::MEDIA_TYPES.contains(&media.as_str());
            options.check_patch(is_apply)?;
            if is_apply {
                return call.apply_scale(request, &options, form, paths).await;
            }
            let warnings = call.warnings.as_ref();
            let patch = call.read_patch(request).await?;
            let make = |current: &Value| {
                let present = scale::get(paths, current)?;
                let validation = options.field_validation;
                let wanted = patch.apply(scale::SCHEMA, &present, validation, warnings)?;
                named(&call.target(), paths, current, &wanted)
            };
            let writer = call.writer(&options, warnings);
            let updated = call.storage().update(&call.target(), &writer, make).await?;
            let scale = scale::get(paths, &updated.into_object())?;
            respond::object(form, StatusCode::OK, scale::kind(), scale)
        }
        _ => Err(ApiError::method_not_allowed().into()),
    }
}

/// The object with the scale of a body, which must name the object of the path.
pub(crate) fn named(
    target: &Target<'_>,
    paths: &ScalePaths,
    current: &Value,
    wanted: &Value,
) -> Result<Value, Failure> {
    target.check_name(wanted)?;
    Ok(scale::set(target.resource, paths, current, wanted)?)
}
