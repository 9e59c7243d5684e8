//! Serves apply requests.

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use nautilus_apply::scale::ScaleHandler;
use nautilus_machinery::scale::{self, ScalePaths};
use nautilus_machinery::status::ApiError;
use serde_json::Value;

use super::{Configuration, KindVersions, reset};
use crate::body;
use crate::failure::Failure;
use crate::options::WriteOptions;
use crate::resources::Call;
use crate::respond::{self, Form};
use crate::storage::take_version;

/// Turns of an apply between an object that is missing and one that others make.
const MAX_APPLY_ATTEMPTS: u32 = 8;

impl Call {
    /// Server-side apply: to the object that stands, or to make it.
    pub(crate) async fn apply(
        &self,
        content: &[u8],
        options: &WriteOptions,
        form: Form,
    ) -> Result<Response, Failure> {
        let config = Configuration::read(content)?;
        let warnings = self.warnings.as_ref();
        let writer = self.writer(options, warnings);
        let target = self.target();
        let storage = self.storage().applied();
        let made = |current: Option<&Value>| config.apply(&target, options, current, warnings);
        for _ in 0..MAX_APPLY_ATTEMPTS {
            let updated = storage
                .update(&target, &writer, |current| Ok(made(Some(current))?))
                .await;
            match updated {
                Err(failure) if failure.error.code() == 404 && target.subresource.is_none() => {}
                updated => {
                    let stored = updated?.into_object();
                    return respond::object(form, StatusCode::OK, target.resource, stored);
                }
            }
            self.may_create()?;
            let mut object = made(None)?;
            config.refuse_uid(&target)?;
            self.fill_namespace(&mut object)?;
            target.check_name(&object)?;
            take_version(&mut object);
            let created = storage
                .create(target.resource, target.namespace, object, &writer)
                .await;
            match created {
                // Somebody else made it meanwhile.
                Err(failure) if failure.error.reason() == "AlreadyExists" => {}
                created => {
                    return respond::object(form, StatusCode::CREATED, target.resource, created?);
                }
            }
        }
        Err(ApiError::conflict(target.resource, target.name).into())
    }

    /// Server-side apply to the scale of an object: who owns the replicas there owns them
    /// in the object.
    pub(crate) async fn apply_scale(
        &self,
        request: Request,
        options: &WriteOptions,
        form: Form,
        paths: &ScalePaths,
    ) -> Result<Response, Failure> {
        let limit = self.context.limits.max_body_bytes;
        let (parts, content) = request.into_parts();
        let content = body::read(&parts.headers, content, limit).await?;
        let config = Configuration::read(&content)?;
        let warnings = self.warnings.as_ref();
        let writer = self.writer(options, warnings);
        let resource = self.asked.resource.as_ref();
        let api_version = resource.api_version();
        let versions = KindVersions {
            resource,
            reset: reset::of(resource, None),
        };
        let handler = ScaleHandler {
            api_version: &api_version,
            replicas_path: &|version| {
                let found = match version == api_version {
                    true => Some(resource),
                    false => versions.in_version(version),
                };
                found?
                    .scale
                    .as_ref()
                    .map(|paths| paths.spec_replicas.clone())
            },
        };
        let mut scale_target = self.target();
        scale_target.resource = scale::kind();
        let make = |current: &Value| {
            let mut present = scale::get(paths, current)?;
            handler.to_scale(current, &mut present);
            let wanted = config.apply(&scale_target, options, Some(&present), warnings)?;
            let mut object = crate::scale::named(&self.target(), paths, current, &wanted)?;
            handler.to_parent(&wanted, &mut object);
            Ok(object)
        };
        let updated = self
            .storage()
            .applied()
            .update(&self.target(), &writer, make)
            .await?;
        let scale = scale::get(paths, &updated.into_object())?;
        respond::object(form, StatusCode::OK, scale::kind(), scale)
    }

    /// Whether the user may also make the object that the request would change.
    fn may_create(&self) -> Result<(), Failure> {
        let resource = &self.asked.resource;
        let asked = nautilus_access::Attributes {
            verb: "create".to_owned(),
            is_resource: true,
            group: resource.group.to_owned(),
            version: resource.version.to_owned(),
            resource: resource.plural.to_owned(),
            namespace: self.asked.namespace.clone().unwrap_or_default(),
            name: self.asked.name.clone().unwrap_or_default(),
            ..nautilus_access::Attributes::default()
        };
        match self.context.access.authorize(&self.user, &asked) {
            nautilus_access::Decision::Allow(_) => Ok(()),
            nautilus_access::Decision::NoOpinion(reason) => {
                Err(asked.forbidden(&self.user, &reason).into())
            }
        }
    }
}
