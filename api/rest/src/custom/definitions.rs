//! Definitions as they are written, and the kinds that every node makes of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use nautilus_extension::definition::{self, Definition, Names};
use nautilus_machine::Revision;
use nautilus_machinery::resource::{self, Resource};
use nautilus_machinery::status::ApiError;
use nautilus_machinery::strategy;
use parking_lot::Mutex;
use serde_json::Value;

use super::kind;
use crate::context::RestContext;
use crate::lister::{self, Place, Sink};
use crate::webhook::WebhookClients;

/// Definitions of a quorum.
const MAX_DEFINITIONS: usize = 10_000;

/// Whether the kind is that of definitions.
fn is_definition(resource: &Resource) -> bool {
    resource.group == "apiextensions.k8s.io" && resource.plural == "customresourcedefinitions"
}

/// The kind of definitions.
pub(super) fn definitions() -> Option<&'static Arc<Resource>> {
    resource::find("apiextensions.k8s.io", "v1", "customresourcedefinitions")
}

/// Fills in what a definition may leave out; other objects are left alone.
pub(crate) fn default_definition(resource: &Resource, object: &mut Value) {
    if is_definition(resource) {
        definition::apply_defaults(object);
    }
}

/// What only who serves definitions can say of one that is written: its storage version is
/// noted, and what is wrong refuses it. Other objects pass.
pub(crate) fn check_definition(
    resource: &Resource,
    subresource: Option<&str>,
    old: Option<&Value>,
    object: &mut Value,
) -> Result<(), ApiError> {
    if !is_definition(resource) {
        return Ok(());
    }
    let errors = match subresource {
        Some(_) => definition::validate_status(object),
        None => {
            definition::apply_defaults(object);
            definition::note_storage_version(object);
            definition::validate(object, old)
        }
    };
    strategy::refuse_invalid(resource, object, errors)
}

/// A definition that is followed.
struct Followed {
    /// Of the spec; tells whether the kinds have to be made anew.
    spec: Value,
    accepted: Value,
    /// Its objects are being removed; none may be added.
    terminating: bool,
    resources: Vec<Arc<Resource>>,
}

/// Makes this node serve the kinds of definitions, from now until `shutdown`.
pub(crate) fn follow(context: &Arc<RestContext>) {
    let Some(resource) = definitions() else {
        return;
    };
    let kinds = Arc::new(Kinds {
        context: Arc::downgrade(context),
        followed: Mutex::default(),
    });
    lister::follow(
        context.kv.clone(),
        resource.clone(),
        Ok,
        kinds,
        context.shutdown.clone(),
    );
}

/// The kinds made of definitions, by the definitions' names.
struct Kinds {
    context: Weak<RestContext>,
    followed: Mutex<BTreeMap<String, Followed>>,
}

impl Sink<Value> for Kinds {
    fn reset(&self, _: Revision, objects: BTreeMap<Place, Arc<Value>>) {
        let Some(context) = self.context.upgrade() else {
            return;
        };
        let mut followed = self.followed.lock();
        let before = std::mem::take(&mut *followed);
        for ((_, name), object) in objects.into_iter().take(MAX_DEFINITIONS) {
            if let Some(made) = make(before.get(&name), &object, &context.webhook_clients) {
                followed.insert(name, made);
            }
        }
        publish(&context, &followed);
    }

    fn change(&self, _: Revision, changes: Vec<(Place, Option<Arc<Value>>)>) {
        let Some(context) = self.context.upgrade() else {
            return;
        };
        let clients = &context.webhook_clients;
        let mut followed = self.followed.lock();
        for ((_, name), object) in changes {
            let made = object.and_then(|object| make(followed.get(&name), &object, clients));
            match made {
                Some(made) => followed.insert(name, made),
                None => followed.remove(&name),
            };
        }
        publish(&context, &followed);
    }
}

fn publish(context: &RestContext, followed: &BTreeMap<String, Followed>) {
    let all: Vec<Arc<Resource>> = followed
        .values()
        .flat_map(|definition| definition.resources.iter().cloned())
        .collect();
    context.serve_kinds(all);
}

/// The kinds of a definition that is established; those of before, where nothing that
/// matters to them has changed.
fn make(
    before: Option<&Followed>,
    object: &Value,
    clients: &Arc<WebhookClients>,
) -> Option<Followed> {
    if !holds(object, "Established") {
        return None;
    }
    let spec = object["spec"].clone();
    let accepted = object["status"]["acceptedNames"].clone();
    let terminating = holds(object, "Terminating");
    let unchanged = |before: &&Followed| {
        before.spec == spec && before.accepted == accepted && before.terminating == terminating
    };
    if let Some(before) = before.filter(unchanged) {
        return Some(Followed {
            spec,
            accepted,
            terminating,
            resources: before.resources.clone(),
        });
    }
    match Definition::parse(object) {
        Ok(definition) => Some(Followed {
            resources: kind::resources(
                &Arc::new(definition),
                &Names::parse(&accepted),
                terminating,
                clients,
            ),
            spec,
            accepted,
            terminating,
        }),
        Err(error) => {
            let name = &object["metadata"]["name"];
            tracing::warn!(%name, %error, "a definition cannot be served");
            None
        }
    }
}

/// Whether a condition of a definition is true.
pub(super) fn holds(object: &Value, condition: &str) -> bool {
    object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|own| own["type"] == condition && own["status"] == "True")
}
