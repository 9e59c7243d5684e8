//! The wire forms of a watch: JSON lines, protobuf frames, WebSocket messages.

use axum::body::Body;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts as _, Request};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, StatusCode};
use nautilus_machinery::schema::{PARTIAL_OBJECT_METADATA, STATUS};
use nautilus_machinery::status::ApiError;
use nautilus_machinery::{codec, table};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::ids;
use crate::negotiate::{Format, Rendering};
use crate::respond::{self, Form, JSON_TYPE, PROTOBUF_TYPE};
use crate::watch::{Session, Told, WireEvent};

/// The annotation of the bookmark that closes the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";
/// Bytes of a message a watching client may send us over a WebSocket.
const MAX_CLIENT_MESSAGE_BYTES: usize = 4 * 1024;

/// What a JSON frame holds besides the object, in bytes.
const JSON_FRAME_BYTES: usize = 40;

/// Writes a session's events in one form.
struct Encoder {
    form: Form,
    /// The next table carries its columns.
    columns_due: bool,
}

impl Encoder {
    fn new(form: Form) -> Self {
        Self {
            form,
            columns_due: true,
        }
    }

    fn is_protobuf(&self) -> bool {
        self.form.agreed.format == Format::Protobuf
    }

    fn encode(&mut self, session: &Session, event: WireEvent) -> Result<Bytes, ApiError> {
        match event {
            WireEvent::Object(told) => self.encode_object(session, &told),
            WireEvent::Bookmark {
                revision,
                initial_events_end,
            } => {
                let object = bookmark(session, revision, initial_events_end);
                let object = self.render_bookmark(session, object);
                self.frame("BOOKMARK", self.schema(session), &object)
            }
            WireEvent::Error(error) => self.frame("ERROR", STATUS, &error.to_status()),
        }
    }

    /// The frame that other watchers may have had made, or one of this watcher's own.
    fn encode_object(&mut self, session: &Session, told: &Told) -> Result<Bytes, ApiError> {
        let with_columns = matches!(self.form.agreed.rendering, Rendering::Table(_))
            && std::mem::take(&mut self.columns_due);
        let form = self.form;
        match &told.change {
            Some(change) if !with_columns => {
                change.frame(told.happened, form, || self.frame_of(session, told, false))
            }
            _ => self.frame_of(session, told, with_columns),
        }
    }

    fn frame_of(
        &self,
        session: &Session,
        told: &Told,
        with_columns: bool,
    ) -> Result<Bytes, ApiError> {
        let kind = told.happened.as_str();
        if self.form.is_plain() {
            let mut line = Vec::with_capacity(told.entry.json_len() + JSON_FRAME_BYTES);
            line.extend_from_slice(br#"{"type":""#);
            line.extend_from_slice(kind.as_bytes());
            line.extend_from_slice(br#"","object":"#);
            told.entry.write_json(told.revision, &mut line);
            line.extend_from_slice(b"}\n");
            return Ok(line.into());
        }
        let own = told.revision == told.entry.revision();
        if own && self.form.is_plain_protobuf() && !session.resource.schema.is_empty() {
            let body = respond::protobuf::object(&session.resource, &told.entry);
            let body = body.map_err(|failure| failure.error)?;
            return codec::watch_frame(kind, &body).map(Bytes::from);
        }
        let object = told
            .entry
            .object(told.revision)
            .map_err(|failure| failure.error)?;
        let object = self.render(session, object, with_columns);
        self.frame(kind, self.schema(session), &object)
    }

    /// The type of what is sent of an object.
    fn schema<'a>(&self, session: &'a Session) -> &'a str {
        match self.form.agreed.rendering {
            Rendering::Metadata(_) => PARTIAL_OBJECT_METADATA,
            Rendering::Whole | Rendering::Table(_) => &session.resource.schema,
        }
    }

    fn frame(&self, kind: &str, schema: &str, object: &Value) -> Result<Bytes, ApiError> {
        if self.is_protobuf() {
            return codec::encode_watch_event(kind, schema, object).map(Bytes::from);
        }
        let mut line = serde_json::to_vec(&json!({ "type": kind, "object": object }))
            .map_err(|error| ApiError::internal(error.to_string()))?;
        line.push(b'\n');
        Ok(line.into())
    }

    fn render(&self, session: &Session, object: Value, with_columns: bool) -> Value {
        match self.form.agreed.rendering {
            Rendering::Whole => object,
            Rendering::Table(version) => {
                let version_meta = &object["metadata"]["resourceVersion"];
                let meta = json!({ "resourceVersion": version_meta });
                let include = self.form.include;
                let now = ids::now_unix_s();
                let items = [object];
                table::render(
                    &session.resource,
                    &items,
                    &meta,
                    include,
                    version,
                    now,
                    with_columns,
                )
            }
            Rendering::Metadata(version) => table::partial_object_metadata(&object, version),
        }
    }

    /// A bookmark is no object of the kind: its table has no row.
    fn render_bookmark(&mut self, session: &Session, object: Value) -> Value {
        match self.form.agreed.rendering {
            Rendering::Whole => object,
            Rendering::Metadata(version) => table::partial_object_metadata(&object, version),
            Rendering::Table(version) => {
                let meta = &object["metadata"];
                let with_columns = std::mem::take(&mut self.columns_due);
                let include = self.form.include;
                let now = ids::now_unix_s();
                table::render(
                    &session.resource,
                    &[],
                    meta,
                    include,
                    version,
                    now,
                    with_columns,
                )
            }
        }
    }
}

fn bookmark(session: &Session, revision: u64, initial_events_end: bool) -> Value {
    let mut metadata = json!({ "resourceVersion": revision.to_string() });
    if initial_events_end {
        metadata["annotations"] = json!({ INITIAL_EVENTS_END: "true" });
    }
    json!({
        "kind": session.resource.kind,
        "apiVersion": session.resource.api_version(),
        "metadata": metadata,
    })
}

/// Whether the client asks for a WebSocket.
pub(crate) fn wants_websocket(headers: &HeaderMap) -> bool {
    let has = |name, token: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    has(CONNECTION, "upgrade") && has(UPGRADE, "websocket")
}

/// Answers with the session's events until it ends.
pub(crate) async fn answer(
    request: Request,
    session: Session,
    form: Form,
) -> Result<Response, Failure> {
    if wants_websocket(request.headers()) {
        return websocket(request, session, form).await;
    }
    let encoder = Encoder::new(form);
    let media = match encoder.is_protobuf() {
        true => format!("{PROTOBUF_TYPE};stream=watch"),
        false => JSON_TYPE.to_owned(),
    };
    let frames = stream::unfold(
        (session, encoder),
        |(mut session, mut encoder)| async move {
            let chunk = next_chunk(&mut session, &mut encoder).await?;
            Some((chunk, (session, encoder)))
        },
    );
    Ok(respond::bytes(
        StatusCode::OK,
        &media,
        Body::from_stream(frames),
    ))
}

/// The next events in one chunk; `None` at the end.
async fn next_chunk(
    session: &mut Session,
    encoder: &mut Encoder,
) -> Option<Result<Bytes, std::convert::Infallible>> {
    let events = session.next().await?;
    let alone = events.len() == 1;
    let mut chunk = Vec::new();
    for event in events {
        match encoder.encode(session, event) {
            // Shared with others as it is.
            Ok(frame) if alone => return Some(Ok(frame)),
            Ok(frame) => chunk.extend_from_slice(&frame),
            Err(error) => {
                tracing::error!(%error, "a watch event could not be written");
                session.stop();
                break;
            }
        }
    }
    Some(Ok(chunk.into()))
}

async fn websocket(request: Request, session: Session, form: Form) -> Result<Response, Failure> {
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    let response = upgrade
        .max_message_size(MAX_CLIENT_MESSAGE_BYTES)
        .on_upgrade(move |socket| speak(socket, session, Encoder::new(form)));
    Ok(response)
}

/// One event a message, until the session or the client ends it.
async fn speak(mut socket: WebSocket, mut session: Session, mut encoder: Encoder) {
    loop {
        let events = tokio::select! {
            events = session.next() => events,
            received = socket.recv() => match received {
                // Clients of a watch have nothing to say but pings, which are answered.
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
        };
        let Some(events) = events else { break };
        for event in events {
            let Ok(frame) = encoder.encode(&session, event) else {
                return;
            };
            let message = match encoder.is_protobuf() {
                true => Message::Binary(frame),
                false => match std::str::from_utf8(&frame) {
                    Ok(text) => Message::Text(text.trim_end().into()),
                    Err(_) => return,
                },
            };
            if socket.send(message).await.is_err() {
                return;
            }
        }
    }
    let _ = socket.send(Message::Close(None)).await;
}
