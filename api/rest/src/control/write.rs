//! One write of a plan, as a request of its controller's account would do it.

use nautilus_control::Written;
use nautilus_machinery::fields;
use nautilus_machinery::patch;
use nautilus_machinery::resource::{self, Resource};
use nautilus_machinery::scale;
use nautilus_machinery::status::ApiError;
use nautilus_machinery::strategy::{self, Context, DeleteOptions};
use nautilus_planner::kind::{self, Kind};
use nautilus_planner::object;
use nautilus_planner::plan::{Delete, Failed, Write};
use serde_json::{Value, json};

use super::ClusterApi;
use crate::audit::Remarks;
use crate::failure::Failure;
use crate::ids;
use crate::storage::{Deleted, Storage, Target, Writer, metadata_text};

/// Who is named in `managedFields`, as the reference's controllers are.
const FIELD_MANAGER: &str = "kube-controller-manager";

/// Carries `write` out in the name of `user`.
pub(super) async fn carry_out(
    api: &ClusterApi,
    user: &str,
    write: &Write,
) -> Result<Written, Failed> {
    let outcome = Carrier { api, user }.write(write).await;
    outcome.map_err(|failure| {
        let error = &failure.error;
        Failed {
            write: write.clone(),
            code: error.code(),
            reason: error.reason().to_owned(),
            message: error.message().to_owned(),
            namespace_ends: failure.namespace_ends(),
        }
    })
}

struct Carrier<'a> {
    api: &'a ClusterApi,
    user: &'a str,
}

impl Carrier<'_> {
    async fn write(&self, write: &Write) -> Result<Written, Failure> {
        match write {
            Write::Create { kind, object } => self.create(*kind, object).await,
            Write::Update {
                kind,
                subresource,
                object,
            } => self.update(*kind, *subresource, object).await,
            Write::Patch {
                kind,
                subresource,
                namespace,
                name,
                uid,
                patch,
            } => {
                let place = (namespace.as_str(), name.as_str());
                self.patch(*kind, *subresource, place, uid, patch).await
            }
            Write::Delete(delete) => self.delete(self.storage(), delete).await,
            Write::Evict(delete) => self.delete(self.storage().evicting(), delete).await,
            Write::Bind {
                namespace,
                name,
                uid,
                node,
            } => self.bind((namespace, name), uid, node).await,
            Write::Scale { target, scale } => {
                let user = self.api.user(self.user);
                super::ask::set_scale(&self.api.context, &user, target, scale).await
            }
            Write::Event(_) | Write::Told(..) => {
                Err(ApiError::internal("an event is recorded, not written").into())
            }
        }
    }

    fn storage(&self) -> Storage {
        self.api.storage.clone()
    }

    async fn create(&self, kind: Kind, object: &Value) -> Result<Written, Failure> {
        let namespace = object::namespace(object);
        let resource = served(kind)?;
        let object = typed(resource, kind, object.clone())?;
        let namespace = kind.namespaced.then_some(namespace);
        let user = self.api.user(self.user);
        let made = self
            .api
            .storage
            .create(resource, namespace, object, &writer(&user))
            .await?;
        Ok(written(&made))
    }

    async fn update(
        &self,
        kind: Kind,
        subresource: Option<&'static str>,
        wanted: &Value,
    ) -> Result<Written, Failure> {
        let place = (object::namespace(wanted), object::name(wanted));
        let make = |resource: &Resource, current: &Value| {
            let next = match subresource {
                None => wanted.clone(),
                Some("scale") => {
                    let paths = resource.scale.as_ref();
                    let paths = paths.ok_or_else(ApiError::method_not_allowed)?;
                    return Ok(scale::set(resource, paths, current, wanted)?);
                }
                Some(part) => {
                    let mut next = current.clone();
                    next[part] = wanted[part].clone();
                    if let Some(annotations) = wanted["metadata"].get("annotations") {
                        next["metadata"]["annotations"] = annotations.clone();
                    }
                    next["metadata"]["resourceVersion"] =
                        wanted["metadata"]["resourceVersion"].clone();
                    next["metadata"]["uid"] = wanted["metadata"]["uid"].clone();
                    next
                }
            };
            typed(resource, kind, next)
        };
        self.change(self.storage(), kind, subresource, place, make)
            .await
    }

    async fn patch(
        &self,
        kind: Kind,
        subresource: Option<&'static str>,
        place: (&str, &str),
        uid: &str,
        change: &Value,
    ) -> Result<Written, Failure> {
        let make = |resource: &Resource, current: &Value| {
            if !uid.is_empty() && metadata_text(current, "uid") != uid {
                return Err(ApiError::conflict(resource, place.1).into());
            }
            let mut next = current.clone();
            patch::merge(&mut next, change);
            typed(resource, kind, next)
        };
        let storage = self.storage().asked_as("patch");
        self.change(storage, kind, subresource, place, make).await
    }

    async fn change(
        &self,
        storage: Storage,
        kind: Kind,
        subresource: Option<&'static str>,
        (namespace, name): (&str, &str),
        make: impl Fn(&Resource, &Value) -> Result<Value, Failure> + Send + Sync,
    ) -> Result<Written, Failure> {
        let resource = served(kind)?;
        let target = Target {
            resource,
            namespace: kind.namespaced.then_some(namespace),
            name,
            subresource,
        };
        let user = self.api.user(self.user);
        let make = |current: &Value| make(resource, current);
        let updated = storage.update(&target, &writer(&user), make).await?;
        Ok(written(&updated.into_object()))
    }

    async fn delete(&self, storage: Storage, delete: &Delete) -> Result<Written, Failure> {
        let resource = served(delete.kind)?;
        let target = Target {
            resource,
            namespace: delete.kind.namespaced.then_some(delete.namespace.as_str()),
            name: &delete.name,
            subresource: None,
        };
        let mut options = json!({"preconditions": {"uid": delete.uid}});
        if let Some(version) = &delete.resource_version {
            options["preconditions"]["resourceVersion"] = version.as_str().into();
        }
        if let Some(seconds) = delete.grace_seconds {
            options["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(policy) = delete.propagation {
            options["propagationPolicy"] = policy.as_str().into();
        }
        let options = DeleteOptions::from_value(&options)?;
        let user = self.api.user(self.user);
        match storage.delete(&target, &options, &writer(&user)).await {
            Ok(Deleted::Removed(object) | Deleted::Marked(object)) => Ok(written(&object)),
            Err(failure) if failure.error.code() == 404 => Ok(gone(delete)),
            // Another object has its name by now; of the same one it was another version.
            Err(failure) if failure.error.code() == 409 => {
                let present = self.api.storage.find(resource, &target.key()).await?;
                let is_same =
                    present.is_some_and(|row| metadata_text(&row.object, "uid") == delete.uid);
                if is_same {
                    Err(failure)
                } else {
                    Ok(gone(delete))
                }
            }
            Err(failure) => Err(failure),
        }
    }

    async fn bind(
        &self,
        (namespace, name): (&str, &str),
        uid: &str,
        node: &str,
    ) -> Result<Written, Failure> {
        let binding = json!({
            "metadata": {"namespace": namespace, "name": name, "uid": uid},
            "target": {"kind": "Node", "name": node},
        });
        let target = Target {
            resource: served(kind::PODS)?,
            namespace: Some(namespace),
            name,
            subresource: Some("binding"),
        };
        let user = self.api.user(self.user);
        let now = ids::now_rfc3339();
        let facts = Context {
            now: &now,
            uid: "",
            name_suffix: "",
            namespace: Some(namespace),
            user: &user.name,
            field_manager: FIELD_MANAGER,
        };
        let bind = |pod: &Value| Ok(strategy::bind(pod, &binding, &facts)?);
        let storage = self.storage().asked_as("create");
        let bound = storage.update(&target, &writer(&user), bind).await?;
        Ok(written(&bound.into_object()))
    }
}

fn served(kind: Kind) -> Result<&'static Resource, ApiError> {
    let found = resource::find(kind.group, kind.version, kind.plural);
    let found = found.map(|resource| &**resource);
    found.ok_or_else(|| ApiError::internal(format!("the table of kinds lacks {}", kind.plural)))
}

/// The object as a typed client would send it.
fn typed(resource: &Resource, kind: Kind, mut object: Value) -> Result<Value, Failure> {
    object["kind"] = kind.kind.into();
    object["apiVersion"] = kind.api_version().into();
    Ok(fields::conform_owned(&resource.schema, object)?)
}

fn writer(user: &nautilus_machinery::identity::User) -> Writer<'_> {
    Writer {
        user,
        field_manager: FIELD_MANAGER,
        dry_run: false,
        remarks: Remarks::default(),
    }
}

fn written(object: &Value) -> Written {
    Written {
        name: object::name(object).to_owned(),
        revision: metadata_text(object, "resourceVersion")
            .parse()
            .unwrap_or_default(),
    }
}

/// There was nothing to delete.
fn gone(delete: &Delete) -> Written {
    Written {
        name: delete.name.clone(),
        revision: 0,
    }
}
