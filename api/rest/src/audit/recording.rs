//! One request being recorded, from before it is judged to the end of its answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::{Body, Bytes, HttpBody as _, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use futures_util::StreamExt as _;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, StatusCode};
use nautilus_access::Attributes;
use nautilus_access::audit::{Answered, Event, Level, Stage};
use nautilus_machinery::codec::{self, MediaType};
use nautilus_machinery::identity::{AuditNote, User};
use nautilus_machinery::timestamp::Instant;
use serde_json::Value;

use super::{Audit, Notes};
use crate::body;
use crate::context::RestContext;
use crate::route::Route;
use crate::serve::RemoteAddress;

/// Bytes of an answer that are recorded, at most; of a larger one its code alone.
const MAX_ANSWER_BYTES: u64 = 4 * 1024 * 1024;
/// Addresses taken from a client's headers.
const MAX_SOURCES: usize = 8;

/// A request under way.
pub(crate) struct Recording {
    audit: Arc<Audit>,
    event: Event,
    notes: Arc<Notes>,
    /// Of the kind's objects, for answers in protobuf.
    schema: Option<String>,
}

impl Recording {
    /// Begins where the policy wants the request recorded; reads its body where it wants
    /// that.
    pub(crate) async fn begin(
        context: &RestContext,
        request: &mut Request,
        route: &Route,
        audit_id: &str,
    ) -> Option<Self> {
        let audit = context.node.audit.as_ref()?;
        let user = request.extensions().get::<User>()?.clone();
        let asked = crate::access::attributes(request.method(), request.uri(), route);
        let asked = asked.unwrap_or_else(|_| Attributes {
            verb: request.method().as_str().to_ascii_lowercase(),
            path: request.uri().path().to_owned(),
            ..Attributes::default()
        });
        let recorded = audit.policy.judge(&user, &asked);
        if recorded.level == Level::None {
            return None;
        }
        let notes = Arc::new(Notes::at(recorded.level));
        request.extensions_mut().insert(notes.clone());
        let (schema, body_schema) = schemas(route);
        let request_object = if asked.is_resource && recorded.level >= Level::Request {
            read_body(context, request, body_schema.as_deref()).await
        } else {
            None
        };
        let agent = request.headers().get(USER_AGENT);
        let uri = request.uri();
        let event = Event {
            recorded,
            audit_id: audit_id.to_owned(),
            request_uri: uri
                .path_and_query()
                .map_or_else(|| uri.path().to_owned(), ToString::to_string),
            asked,
            user,
            impersonated: None,
            source_ips: sources(request),
            user_agent: agent
                .and_then(|agent| agent.to_str().ok())
                .unwrap_or_default()
                .to_owned(),
            received: now(),
            request_object,
            annotations: BTreeMap::new(),
        };
        let recording = Self {
            audit: audit.clone(),
            event,
            notes,
            schema,
        };
        let received = recording.event.at(Stage::RequestReceived, now(), None);
        recording.audit.record(received).await;
        Some(recording)
    }

    /// Ends with the answer, or with the end of an answer that goes on.
    pub(crate) async fn end(mut self, response: Response, long_running: bool) -> Response {
        self.event.impersonated = self.notes.take_impersonated();
        self.event.annotations = self.notes.take_annotations();
        if let Some(note) = response.extensions().get::<AuditNote>() {
            let annotations = &mut self.event.annotations;
            annotations.insert(note.key.to_owned(), note.value.clone());
        }
        let code = response.status().as_u16();
        if long_running && response.status() == StatusCode::OK {
            let answered = Answered { code, object: None };
            let started = self
                .event
                .at(Stage::ResponseStarted, now(), Some(&answered));
            self.audit.record(started).await;
            let ending = Ending {
                recording: self,
                answered,
            };
            return response.map(|body| {
                Body::from_stream(body.into_data_stream().map(move |chunk| {
                    let _goes_on = &ending;
                    chunk
                }))
            });
        }
        let wanted = self.event.recorded.level == Level::RequestResponse || code >= 400;
        let (response, object) = match wanted {
            true => self.read_answer(response).await,
            false => (response, None),
        };
        let answered = Answered { code, object };
        let complete = self
            .event
            .at(Stage::ResponseComplete, now(), Some(&answered));
        self.audit.record(complete).await;
        response
    }

    /// The answer with its body as an object, where it is one of a known size.
    async fn read_answer(&self, response: Response) -> (Response, Option<Value>) {
        let known = response.body().size_hint().exact();
        if known.is_none_or(|bytes| bytes > MAX_ANSWER_BYTES) {
            return (response, None);
        }
        let (parts, body) = response.into_parts();
        let limit = usize::try_from(MAX_ANSWER_BYTES).unwrap_or(usize::MAX);
        let Ok(bytes) = to_bytes(body, limit).await else {
            return (Response::from_parts(parts, Body::empty()), None);
        };
        let object = object_of(&parts.headers, &bytes, self.schema.as_deref());
        (Response::from_parts(parts, Body::from(bytes)), object)
    }
}

/// Records the end of an answer that went on.
struct Ending {
    recording: Recording,
    answered: Answered,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let Recording { audit, event, .. } = &self.recording;
        let answered = Some(&self.answered);
        audit.record_now(event.at(Stage::ResponseComplete, now(), answered));
    }
}

fn now() -> Instant {
    let now = jiff::Timestamp::now();
    Instant {
        seconds: now.as_second(),
        nanoseconds: now.subsec_nanosecond(),
    }
}

/// The types of the kind's objects and of the body that is sent.
fn schemas(route: &Route) -> (Option<String>, Option<String>) {
    let Route::Resource(request) = route else {
        return (None, None);
    };
    let resource = &request.resource;
    let sub = request
        .subresource
        .as_deref()
        .and_then(|name| resource.subresource(name));
    let body = sub.map_or(&resource.schema, |sub| &sub.schema);
    (Some(body.to_string()), Some(body.to_string()))
}

async fn read_body(
    context: &RestContext,
    request: &mut Request,
    schema: Option<&str>,
) -> Option<Value> {
    let taken = std::mem::replace(request.body_mut(), Body::empty());
    if taken.is_end_stream() {
        return None;
    }
    let limit = context.limits.max_body_bytes;
    if taken
        .size_hint()
        .exact()
        .is_none_or(|bytes| bytes > limit as u64)
    {
        // Refused, or streamed: the handler sees to it.
        *request.body_mut() = taken;
        return None;
    }
    match body::read(request.headers(), taken, limit).await {
        Ok(bytes) => {
            let object = object_of(request.headers(), &bytes, schema);
            *request.body_mut() = Body::from(bytes);
            object
        }
        Err(_) => None,
    }
}

/// A body as an object; nothing where it is none.
fn object_of(headers: &HeaderMap, bytes: &Bytes, schema: Option<&str>) -> Option<Value> {
    let media = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let media = media.split(';').next().unwrap_or_default().trim();
    if media == "application/vnd.kubernetes.protobuf" {
        return codec::decode(schema?, MediaType::Protobuf, bytes).ok();
    }
    if media.ends_with("json") {
        return serde_json::from_slice(bytes).ok();
    }
    if media.ends_with("yaml") {
        let json = body::yaml_to_json(bytes).ok()?;
        return serde_json::from_slice(&json).ok();
    }
    None
}

/// Where a request came from: what proxies say, then the connection's own address.
fn sources(request: &Request) -> Vec<String> {
    let header = |name: &str| {
        let values = request.headers().get_all(name).iter();
        values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|address| address.trim().parse::<std::net::IpAddr>().ok())
            .map(|address| address.to_string())
            .collect::<Vec<_>>()
    };
    let mut sources = header("x-forwarded-for");
    for address in header("x-real-ip") {
        if !sources.contains(&address) {
            sources.push(address);
        }
    }
    sources.truncate(MAX_SOURCES);
    if let Some(RemoteAddress(remote)) = request.extensions().get::<RemoteAddress>() {
        let remote = remote.ip().to_string();
        if sources.last() != Some(&remote) {
            sources.push(remote);
        }
    }
    sources
}
