//! One event as JSON.

use std::collections::BTreeMap;

use nautilus_machinery::identity::User;
use nautilus_machinery::timestamp::{Instant, format_micros};
use serde_json::{Map, Value, json};

use super::policy::{Level, Recorded, Stage};
use crate::attributes::Attributes;
use crate::review::user_info;

/// Bytes of a user agent that are recorded.
const MAX_AGENT_BYTES: usize = 1_024;

/// What is known of a request for its events.
#[derive(Debug, Clone)]
pub struct Event {
    /// How much is recorded.
    pub recorded: Recorded,
    /// The request's own name.
    pub audit_id: String,
    /// As the client sent it.
    pub request_uri: String,
    /// What was asked for.
    pub asked: Attributes,
    /// Who asked.
    pub user: User,
    /// As whom it went on.
    pub impersonated: Option<User>,
    /// Where it came from.
    pub source_ips: Vec<String>,
    /// As the client says.
    pub user_agent: String,
    /// When it came.
    pub received: Instant,
    /// Its body.
    pub request_object: Option<Value>,
    /// What was found out on the way.
    pub annotations: BTreeMap<String, String>,
}

/// How a request was answered.
#[derive(Debug, Clone, Default)]
pub struct Answered {
    /// The HTTP status.
    pub code: u16,
    /// The answer's body.
    pub object: Option<Value>,
}

impl Event {
    /// The event of a stage, or nothing where the policy leaves it out.
    pub fn at(&self, stage: Stage, now: Instant, answered: Option<&Answered>) -> Option<Value> {
        let Recorded {
            level, omit_stages, ..
        } = &self.recorded;
        if *level == Level::None || omit_stages.contains(&stage) {
            return None;
        }
        let mut event = Map::new();
        let mut put = |key: &str, value: Value| {
            event.insert(key.to_owned(), value);
        };
        put("kind", "Event".into());
        put("apiVersion", "audit.k8s.io/v1".into());
        put("level", level.as_str().into());
        put("auditID", self.audit_id.as_str().into());
        put("stage", stage.as_str().into());
        put("requestURI", self.request_uri.as_str().into());
        put("verb", self.asked.verb.as_str().into());
        put("user", user_info(&self.user));
        if let Some(user) = &self.impersonated {
            put("impersonatedUser", user_info(user));
        }
        if !self.source_ips.is_empty() {
            put("sourceIPs", json!(self.source_ips));
        }
        if !self.user_agent.is_empty() {
            let mut end = self.user_agent.len().min(MAX_AGENT_BYTES);
            while !self.user_agent.is_char_boundary(end) {
                end -= 1;
            }
            put("userAgent", self.user_agent[..end].into());
        }
        let late = stage != Stage::RequestReceived;
        if self.asked.is_resource {
            put("objectRef", self.reference(late));
        }
        if let Some(answered) = answered {
            put("responseStatus", status(answered));
        }
        // Bodies of what is no resource (as credentials) are never recorded.
        let bodies = self.asked.is_resource;
        if late
            && bodies
            && *level >= Level::Request
            && let Some(object) = &self.request_object
        {
            put("requestObject", self.body(object));
        }
        if bodies
            && *level == Level::RequestResponse
            && let Some(object) = answered.and_then(|answered| answered.object.as_ref())
        {
            put("responseObject", self.body(object));
        }
        let time = |at| format_micros(at).map_or(Value::Null, Value::from);
        put("requestReceivedTimestamp", time(self.received));
        put("stageTimestamp", time(now));
        if !self.annotations.is_empty() {
            put("annotations", json!(self.annotations));
        }
        Some(Value::Object(event))
    }

    /// What the request is about; what its body names, where the path does not.
    fn reference(&self, with_body: bool) -> Value {
        let metadata = |field: &str| {
            self.request_object
                .as_ref()
                .filter(|_| with_body)
                .and_then(|object| object["metadata"][field].as_str())
                .unwrap_or_default()
        };
        let or = |own: &str, field: &str| match own {
            "" => metadata(field).to_owned(),
            own => own.to_owned(),
        };
        let asked = &self.asked;
        let mut reference = Map::new();
        for (key, text) in [
            ("resource", asked.resource.clone()),
            ("namespace", or(&asked.namespace, "namespace")),
            ("name", or(&asked.name, "name")),
            ("uid", metadata("uid").to_owned()),
            ("apiGroup", asked.group.clone()),
            ("apiVersion", asked.version.clone()),
            ("resourceVersion", metadata("resourceVersion").to_owned()),
            ("subresource", asked.subresource.clone()),
        ] {
            if !text.is_empty() {
                reference.insert(key.to_owned(), text.into());
            }
        }
        Value::Object(reference)
    }

    fn body(&self, object: &Value) -> Value {
        let mut object = object.clone();
        if self.recorded.omit_managed_fields {
            strip(&mut object);
            if let Some(items) = object.get_mut("items").and_then(Value::as_array_mut) {
                items.iter_mut().for_each(strip);
            }
        }
        object
    }
}

fn strip(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove("managedFields");
    }
}

/// A `Status` as it was answered; else the code alone.
fn status(answered: &Answered) -> Value {
    let mut status = json!({ "metadata": {} });
    if let Some(object) = &answered.object
        && object["kind"] == "Status"
    {
        for field in ["status", "message", "reason", "details"] {
            if !object[field].is_null() {
                status[field] = object[field].clone();
            }
        }
    }
    status["code"] = answered.code.into();
    status
}
