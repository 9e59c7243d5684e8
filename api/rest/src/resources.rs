//! Handlers of resource requests: one for all kinds, by verb.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use http::header::USER_AGENT;
use http::{HeaderMap, StatusCode, Uri};
use nautilus_admission::attributes::Operation;
use nautilus_machinery::codec::{self, MediaType};
use nautilus_machinery::identity::User;
use nautilus_machinery::resource::Subresource;
use nautilus_machinery::status::{self, ApiError};
use nautilus_machinery::strategy;
use nautilus_machinery::strategy::{Context, DeleteOptions};
use nautilus_machinery::table::IncludeObject;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use crate::audit::{Notes, Remarks};
use crate::body::{self, Warnings};
use crate::connect::{self, Connection};
use crate::context::RestContext;
use crate::custom;
use crate::failure::Failure;
use crate::fairness::Seats;
use crate::negotiate::{self, Agreed, Format, Rendering, Transforms, negotiate};
use crate::options::{ListOptions, Query, WriteOptions, parse_dry_run, parse_version};
use crate::patching::Patch;
use crate::respond::{self, Form};
use crate::route::{ResourceRequest, Verb};
use crate::storage::{Deleted, Listed, Storage, Target, Writer, attributes, metadata_text};
use crate::watch::{Ground, Session};
use crate::{ids, special, stream};

/// The OpenAPI name of `DeleteOptions`.
const DELETE_OPTIONS_SCHEMA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// One resource request being served.
pub(crate) struct Call {
    pub(crate) context: Arc<RestContext>,
    pub(crate) asked: ResourceRequest,
    pub(crate) user: User,
    /// What the audit log holds beside the request and its answer.
    pub(crate) notes: Arc<Notes>,
    /// What the client is told beside the answer, or beside the refusal.
    pub(crate) warnings: Arc<Warnings>,
    /// Held by a watch for as long as it runs.
    pub(crate) watch_permit: Option<OwnedSemaphorePermit>,
    /// Held until the answer's head is there; of a watch, until its initial events are.
    pub(crate) seats: Option<Seats>,
}

impl Call {
    /// Serves the request.
    pub(crate) async fn serve(self, request: Request) -> Result<Response, Failure> {
        let warnings = self.warnings.clone();
        let deprecated = strategy::deprecation(&self.asked.resource).map(str::to_owned);
        let answered = self.answer(request).await;
        let said = warnings.take();
        let repeated = |text: &String| said.contains(text);
        let mut all: Vec<String> = deprecated
            .filter(|text| !repeated(text))
            .into_iter()
            .collect();
        all.extend(said);
        let mut response = answered.map_err(|failure| failure.with_warnings(all.clone()))?;
        respond::warn(&mut response, &all);
        Ok(response)
    }

    async fn answer(self, request: Request) -> Result<Response, Failure> {
        self.check_verb()?;
        if let Some(connect) = connect::asked(&self.asked) {
            return Connection::of(self).serve(connect, request).await;
        }
        let agreed = negotiate(request.headers(), self.transforms())?;
        let agreed = self.speakable(agreed, request.headers())?;
        let form = Form {
            agreed,
            include: include(request.uri(), agreed)?,
        };
        if let Some(special) = special::of(&self.asked) {
            return special::serve(special, &self, request, form).await;
        }
        match (self.asked.verb, self.asked.subresource.as_deref()) {
            (Verb::Watch, None) => self.watch(request, form).await,
            (Verb::List, _) => self.list(request.uri(), form).await,
            (Verb::Get, _) => self.get(request.uri(), form).await,
            (Verb::Create, None) if self.asked.name.is_none() => self.create(request, form).await,
            (Verb::Update, _) => self.update(request, form).await,
            (Verb::Patch, _) => self.patch(request, form).await,
            (Verb::Delete, None) => self.delete(request, form).await,
            (Verb::DeleteCollection, None) => self.delete_collection(request, form).await,
            _ => Err(ApiError::method_not_allowed().into()),
        }
    }

    /// Only objects that are stored have columns; what is of a kind of its own is answered
    /// as it is.
    fn transforms(&self) -> Transforms {
        match special::of(&self.asked) {
            Some(_) => Transforms::None,
            None if self.asked.resource.is_stored() => Transforms::Table,
            None => Transforms::Metadata,
        }
    }

    /// Objects of defined kinds have no protobuf.
    fn speakable(&self, agreed: Agreed, headers: &HeaderMap) -> Result<Agreed, Failure> {
        if self.asked.resource.defined.is_none()
            || agreed.rendering != Rendering::Whole
            || agreed.format != Format::Protobuf
        {
            return Ok(agreed);
        }
        Ok(negotiate::without_protobuf(headers)?)
    }

    fn check_verb(&self) -> Result<(), Failure> {
        let verb = self.asked.verb.as_str();
        let known = match &self.asked.subresource {
            Some(name) => self
                .subresource(name)
                .is_some_and(|sub| sub.verbs.iter().any(|own| own == verb)),
            None => self.asked.resource.has_verb(verb),
        };
        // A collection of a namespaced kind across namespaces is for reading only.
        let homeless = self.asked.resource.namespaced
            && self.asked.namespace.is_none()
            && !matches!(self.asked.verb, Verb::List | Verb::Watch);
        if known && !homeless {
            Ok(())
        } else {
            Err(ApiError::method_not_allowed().into())
        }
    }

    fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.asked.resource.subresource(name)
    }

    pub(crate) fn storage(&self) -> Storage {
        self.context.storage().guarded(self.context.access.clone())
    }

    pub(crate) fn target(&self) -> Target<'_> {
        Target {
            resource: &self.asked.resource,
            namespace: self.asked.namespace.as_deref(),
            name: self.asked.name.as_deref().unwrap_or_default(),
            subresource: self.asked.subresource.as_deref(),
        }
    }

    /// The client hears warnings with its answer, the audit log the rest.
    pub(crate) fn remarks<'a>(&'a self, warnings: &'a Warnings) -> Remarks<'a> {
        Remarks {
            warnings: Some(warnings),
            notes: Some(&self.notes),
        }
    }

    pub(crate) fn writer<'a>(
        &'a self,
        options: &'a WriteOptions,
        warnings: &'a Warnings,
    ) -> Writer<'a> {
        Writer {
            user: &self.user,
            field_manager: &options.field_manager,
            dry_run: options.dry_run,
            remarks: self.remarks(warnings),
        }
    }

    /// The schema of the body of a write: the kind's, or the subresource's own.
    fn body_schema(&self) -> &str {
        let own = self
            .asked
            .subresource
            .as_deref()
            .and_then(|name| self.subresource(name));
        own.map_or(&self.asked.resource.schema, |sub| &sub.schema)
    }

    async fn get(&self, uri: &Uri, form: Form) -> Result<Response, Failure> {
        let version = parse_version(Query::of(uri).text("resourceVersion"))?;
        let target = self.target();
        if form.is_plain() && matches!(target.subresource, None | Some("status")) {
            let caches = &self.context.caches;
            if let Some(text) = self.storage().get_json(caches, &target, version).await? {
                return Ok(respond::json(StatusCode::OK, text));
            }
        }
        let object = self.storage().get(&target, version).await?;
        respond::object(form, StatusCode::OK, &self.asked.resource, object)
    }

    async fn list(&self, uri: &Uri, form: Form) -> Result<Response, Failure> {
        let resource = &self.asked.resource;
        let options = ListOptions::parse(uri, resource, false)?;
        let (caches, namespace) = (&self.context.caches, self.asked.namespace.as_deref());
        let storage = self.storage();
        match storage
            .list_cached(caches, resource, namespace, &options)
            .await?
        {
            Listed::Entries(page) => respond::entries(form, resource, page).await,
            Listed::Objects(page) => respond::list(form, resource, page),
        }
    }

    async fn watch(mut self, request: Request, form: Form) -> Result<Response, Failure> {
        let resource = self.asked.resource.clone();
        let mut options = ListOptions::parse(request.uri(), &resource, true)?;
        if let Some(name) = &self.asked.name {
            options.restrict_to(&resource, name)?;
        }
        let permit = self
            .watch_permit
            .take()
            .ok_or_else(|| ApiError::internal("a watch was served without its permit"))?;
        let namespace = self.asked.namespace.as_deref();
        let ground = Ground::from(&*self.context);
        let seats = self.seats.take();
        let session = Session::open(ground, &resource, namespace, &options, permit, seats).await?;
        stream::answer(request, session, form).await
    }

    async fn create(&self, request: Request, form: Form) -> Result<Response, Failure> {
        let options = write_options(request.uri(), request.headers())?;
        let warnings = self.warnings.as_ref();
        let mut object = self.read_object(request, &options, warnings).await?;
        self.fill_namespace(&mut object)?;
        let namespace = self.asked.namespace.as_deref();
        let resource = &self.asked.resource;
        let writer = self.writer(&options, warnings);
        if !resource.is_stored() {
            self.pass(&mut object, &writer).await?;
        }
        if let Some(answer) =
            crate::access::serve_review(&self.context, &self.user, resource, namespace, &object)
                .await
        {
            return respond::object(form, StatusCode::CREATED, resource, answer?);
        }
        if !resource.is_stored() {
            return Err(ApiError::method_not_allowed().into());
        }
        let created = self
            .storage()
            .create(&self.asked.resource, namespace, object, &writer)
            .await?;
        respond::object(form, StatusCode::CREATED, &self.asked.resource, created)
    }

    /// Lets what is created and not kept, a review or a request for a token, through admission.
    async fn pass(&self, object: &mut Value, writer: &Writer<'_>) -> Result<(), Failure> {
        let asked = attributes(Operation::Create, &self.target(), writer, None);
        let admission = &self.context.admission;
        admission.pass_other(&asked, object, writer.remarks).await
    }

    /// Gives a token of a service account.
    pub(crate) async fn create_token(
        &self,
        request: Request,
        form: Form,
    ) -> Result<Response, Failure> {
        let options = write_options(request.uri(), request.headers())?;
        let warnings = self.warnings.as_ref();
        let mut asked = self.read_object(request, &options, warnings).await?;
        let namespace = self.asked.namespace.as_deref().unwrap_or_default();
        let name = self.asked.name.as_deref().unwrap_or_default();
        let access = &self.context.access;
        let writer = self.writer(&options, warnings);
        self.pass(&mut asked, &writer).await?;
        let judged = attributes(Operation::Create, &self.target(), &writer, None);
        access.check_write(&judged, Some(&mut asked))?;
        let accounts = &access.accounts;
        let issued = accounts.token_request(namespace, name, &asked).await?;
        if let Some(warning) = issued.warning {
            warnings.add(warning);
        }
        self.notes.annotate(
            "authentication.kubernetes.io/issued-credential-id",
            &issued.credential,
        );
        let schema = self.body_schema();
        respond::of_schema(form, StatusCode::CREATED, schema, &issued.answer)
    }

    pub(crate) async fn read_object(
        &self,
        request: Request,
        options: &WriteOptions,
        warnings: &Warnings,
    ) -> Result<Value, Failure> {
        let (parts, content) = request.into_parts();
        let limit = self.context.limits.max_body_bytes;
        let content = body::read(&parts.headers, content, limit).await?;
        let validation = options.field_validation;
        let schema = self.body_schema();
        let resource = &self.asked.resource;
        if let (true, Some(defined)) = (schema.is_empty(), &resource.defined) {
            let defined = defined.as_ref();
            return Ok(custom::decode(
                resource,
                defined,
                &parts.headers,
                &content,
                validation,
                warnings,
            )?);
        }
        Ok(body::decode_object(
            schema,
            &parts.headers,
            &content,
            validation,
            warnings,
        )?)
    }

    pub(crate) fn fill_namespace(&self, object: &mut Value) -> Result<(), Failure> {
        let Some(namespace) = &self.asked.namespace else {
            return Ok(());
        };
        let own = metadata_text(object, "namespace");
        if own.is_empty() {
            object["metadata"]["namespace"] = namespace.as_str().into();
        } else if own != namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the \
                 request",
            )
            .into());
        }
        Ok(())
    }

    async fn update(&self, request: Request, form: Form) -> Result<Response, Failure> {
        let options = write_options(request.uri(), request.headers())?;
        let warnings = self.warnings.as_ref();
        let object = self.read_object(request, &options, warnings).await?;
        self.target().check_name(&object)?;
        let writer = self.writer(&options, warnings);
        let storage = self.storage();
        let updated = storage
            .update(&self.target(), &writer, |_| Ok(object.clone()))
            .await;
        let (code, stored) = match updated {
            Err(failure) if failure.error.code() == 404 && self.creates_on_update(&object) => {
                let namespace = self.asked.namespace.as_deref();
                let resource = &self.asked.resource;
                let created = storage.create(resource, namespace, object, &writer).await?;
                (StatusCode::CREATED, created)
            }
            updated => (StatusCode::OK, updated?.into_object()),
        };
        respond::object(form, code, &self.asked.resource, stored)
    }

    /// Whether an update of a missing object makes it: the kind says so, and the body
    /// names the object of the path without a version it should have.
    fn creates_on_update(&self, object: &Value) -> bool {
        self.asked.resource.create_on_update
            && self.asked.subresource.is_none()
            && self.asked.name.as_deref() == Some(metadata_text(object, "name"))
            && metadata_text(object, "resourceVersion").is_empty()
    }

    async fn patch(&self, request: Request, form: Form) -> Result<Response, Failure> {
        let options = write_options(request.uri(), request.headers())?;
        let (parts, content) = request.into_parts();
        let media = body::content_type(&parts.headers);
        let limit = self.context.limits.max_body_bytes;
        let content = body::read(&parts.headers, content, limit).await?;
        let is_apply = crate::apply::MEDIA_TYPES.contains(&media.as_str());
        options.check_patch(is_apply)?;
        if is_apply {
            return self.apply(&content, &options, form).await;
        }
        let patch = Patch::read(&media, content)?;
        let warnings = self.warnings.as_ref();
        let writer = self.writer(&options, warnings);
        let resource = &self.asked.resource;
        let apply = |current: &Value| {
            let validation = options.field_validation;
            Ok(match &resource.defined {
                Some(defined) => {
                    let defined = defined.as_ref();
                    patch.apply_defined(resource, defined, current, validation, warnings)?
                }
                None => patch.apply(&resource.schema, current, validation, warnings)?,
            })
        };
        let updated = self
            .storage()
            .update(&self.target(), &writer, apply)
            .await?;
        respond::object(
            form,
            StatusCode::OK,
            &self.asked.resource,
            updated.into_object(),
        )
    }

    pub(crate) async fn read_patch(&self, request: Request) -> Result<Patch, Failure> {
        let (parts, content) = request.into_parts();
        let media = body::content_type(&parts.headers);
        let limit = self.context.limits.max_body_bytes;
        let content = body::read(&parts.headers, content, limit).await?;
        Ok(Patch::read(&media, content)?)
    }

    /// Binds a pod to the node that the body names.
    pub(crate) async fn bind(&self, request: Request, form: Form) -> Result<Response, Failure> {
        let options = write_options(request.uri(), request.headers())?;
        let warnings = self.warnings.as_ref();
        let mut binding = self.read_object(request, &options, warnings).await?;
        self.fill_namespace(&mut binding)?;
        let pods = crate::storage::built_in("", "pods")?;
        let name = metadata_text(&binding, "name").to_owned();
        if self.asked.name.as_ref().is_some_and(|asked| *asked != name) {
            let why = "name in URL does not match name in Binding object";
            return Err(ApiError::bad_request(why).into());
        }
        let target = Target {
            resource: pods,
            namespace: self.asked.namespace.as_deref(),
            name: &name,
            subresource: Some("binding"),
        };
        let writer = self.writer(&options, warnings);
        let now = ids::now_rfc3339();
        let facts = Context {
            now: &now,
            uid: "",
            name_suffix: "",
            namespace: target.namespace,
            user: &writer.user.name,
            field_manager: writer.field_manager,
        };
        let bind = |pod: &Value| Ok(strategy::bind(pod, &binding, &facts)?);
        self.storage().update(&target, &writer, bind).await?;
        respond::status(
            form.agreed.format,
            StatusCode::CREATED,
            &status::success(201),
        )
    }

    async fn delete(&self, request: Request, form: Form) -> Result<Response, Failure> {
        let (options, write) = self.delete_options(request).await?;
        let warnings = self.warnings.as_ref();
        let writer = self.writer(&write, warnings);
        let target = self.target();
        match self.storage().delete(&target, &options, &writer).await? {
            Deleted::Marked(object) => {
                respond::object(form, StatusCode::OK, target.resource, object)
            }
            // Some kinds are answered with the object, others with a `Status`.
            Deleted::Removed(object) if target.resource.returns_deleted => {
                respond::object(form, StatusCode::OK, target.resource, object)
            }
            Deleted::Removed(object) => {
                let uid = metadata_text(&object, "uid");
                let value = status::deleted(target.resource, target.name, uid);
                respond::status(form.agreed.format, StatusCode::OK, &value)
            }
        }
    }

    async fn delete_collection(&self, request: Request, form: Form) -> Result<Response, Failure> {
        let resource = &self.asked.resource;
        let list = ListOptions::parse(request.uri(), resource, false)?;
        let (options, write) = self.delete_options(request).await?;
        let warnings = self.warnings.as_ref();
        let writer = self.writer(&write, warnings);
        let storage = self.storage();
        let namespace = self.asked.namespace.as_deref();
        let mut page = storage.list(resource, namespace, &list).await?;
        let mut deleted = Vec::with_capacity(page.items.len());
        for item in &page.items {
            let target = Target {
                resource,
                namespace,
                name: metadata_text(item, "name"),
                subresource: None,
            };
            match storage.delete(&target, &options, &writer).await {
                Ok(Deleted::Removed(object) | Deleted::Marked(object)) => deleted.push(object),
                Err(failure) if failure.error.code() == 404 => {}
                Err(failure) => return Err(failure),
            }
        }
        page.items = deleted;
        respond::list(form, resource, page)
    }

    /// DeleteOptions from the body where there is one, else from the query.
    async fn delete_options(
        &self,
        request: Request,
    ) -> Result<(DeleteOptions, WriteOptions), Failure> {
        let (parts, content) = request.into_parts();
        let mut write = write_options(&parts.uri, &parts.headers)?;
        let limit = self.context.limits.max_body_bytes;
        let content = body::read(&parts.headers, content, limit).await?;
        let value = if content.is_empty() {
            delete_options_of_query(&parts.uri)?
        } else {
            decode_delete_options(&parts.headers, &content)?
        };
        let dry_runs: Vec<&str> = value["dryRun"]
            .as_array()
            .map(|list| list.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        write.dry_run |= parse_dry_run(&dry_runs)?;
        Ok((DeleteOptions::from_value(&value)?, write))
    }
}

fn decode_delete_options(headers: &HeaderMap, content: &[u8]) -> Result<Value, ApiError> {
    match body::content_type(headers).as_str() {
        "application/vnd.kubernetes.protobuf" => {
            codec::decode(DELETE_OPTIONS_SCHEMA, MediaType::Protobuf, content)
        }
        "application/json" => codec::decode(DELETE_OPTIONS_SCHEMA, MediaType::Json, content),
        "application/yaml" | "application/x-yaml" => {
            let json = body::yaml_to_json(content)?;
            codec::decode(DELETE_OPTIONS_SCHEMA, MediaType::Yaml, &json)
        }
        _ => Err(ApiError::unsupported_media_type(&crate::negotiate::SERVED)),
    }
}

fn delete_options_of_query(uri: &Uri) -> Result<Value, ApiError> {
    let query = Query::of(uri);
    let mut value = json!({});
    if let Some(seconds) = query.number("gracePeriodSeconds")? {
        value["gracePeriodSeconds"] = seconds.into();
    }
    if let Some(policy) = query.text("propagationPolicy") {
        value["propagationPolicy"] = policy.into();
    }
    if let Some(orphan) = query.text("orphanDependents") {
        value["orphanDependents"] = crate::route::truth(orphan).into();
    }
    Ok(value)
}

pub(crate) fn write_options(uri: &Uri, headers: &HeaderMap) -> Result<WriteOptions, ApiError> {
    let agent = headers
        .get(USER_AGENT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    WriteOptions::parse(uri, agent)
}

fn include(uri: &Uri, agreed: Agreed) -> Result<IncludeObject, ApiError> {
    if !matches!(agreed.rendering, Rendering::Table(_)) {
        return Ok(IncludeObject::Metadata);
    }
    match Query::of(uri).text("includeObject") {
        None | Some("Metadata") => Ok(IncludeObject::Metadata),
        Some("None") => Ok(IncludeObject::None),
        Some("Object") => Ok(IncludeObject::Object),
        Some(other) => Err(ApiError::bad_request(format!(
            "includeObject: unsupported value {other:?}: must be None, Metadata or Object"
        ))),
    }
}
