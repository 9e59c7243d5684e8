//! One way in for every request: identity, limits, authorization, the handler, and
//! what every answer carries.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use nautilus_machinery::identity::{AuditNote, User};
use nautilus_machinery::status::ApiError;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};
use tracing::{Instrument as _, Span, field};

use crate::audit::{Notes, Recording};
use crate::context::RestContext;
use crate::failure::Failure;
use crate::fairness::{Marks, Seats};
use crate::negotiate::{Format, Transforms, negotiate};
use crate::resources::Call;
use crate::route::{self, Route};
use crate::{
    access, aggregation, compress, documents, health, ids, k3s, own, receipts, respond, trace,
    tunnel,
};

/// The leader's id, on every answer while one is known.
pub const LEADER_ID_HEADER: HeaderName = HeaderName::from_static("x-nautilus-leader-id");
/// Where the leader serves.
pub const LEADER_ADDRESS_HEADER: HeaderName = HeaderName::from_static("x-nautilus-leader-address");
/// Digest of the leader's evidence, where this node has verified it.
pub const LEADER_EVIDENCE_HEADER: HeaderName =
    HeaderName::from_static("x-nautilus-leader-evidence");
/// The term.
pub const TERM_HEADER: HeaderName = HeaderName::from_static("x-nautilus-term");
/// Names one request in logs and answers.
pub const AUDIT_ID_HEADER: HeaderName = HeaderName::from_static("audit-id");

/// Longest audit id taken from a client.
const MAX_AUDIT_ID_BYTES: usize = 64;

/// The face alone.
pub fn router(context: Arc<RestContext>) -> Router {
    router_with(context, Router::new())
}

/// The face, with other routes beside it (they must have no fallback). Their answers
/// carry the same headers and are counted and traced the same way; who may call them
/// is theirs to judge by the [`User`] in the request's extensions.
pub fn router_with(context: Arc<RestContext>, others: Router) -> Router {
    describe_metrics();
    others
        .fallback(dispatch)
        .layer(middleware::from_fn_with_state(context.clone(), around))
        .with_state(())
        .layer(axum::Extension(context))
}

/// Around every request: span, metrics, and the headers of every answer.
async fn around(
    State(context): State<Arc<RestContext>>,
    mut request: Request,
    next: Next,
) -> Response {
    let served = context.registry.served();
    let route = match context.aggregator.of_request(request.uri()) {
        Some(service) => Route::Extension(service),
        None => route::parse(&served.kinds, request.method(), request.uri()),
    };
    drop(served);
    let method = request.method().clone();
    let verb = route.verb_label(&method);
    let resource = route.resource_label();
    let audit_id = audit_id(request.headers());
    let span = span(&request, &route, &audit_id);
    let long_running = route.is_long_running(request.uri());
    let gzip = !long_running && route.is_document() && compress::is_wanted(request.headers());
    if let Ok(value) = HeaderValue::from_str(&audit_id) {
        request.headers_mut().insert(AUDIT_ID_HEADER, value);
    }
    request.extensions_mut().insert(RouteOf(route.clone()));
    let started = Instant::now();
    let mut response = {
        let _counted = InFlight::new(verb);
        match authenticate(&context, &mut request).await {
            Ok(()) => {
                let recording = Recording::begin(&context, &mut request, &route, &audit_id).await;
                let response = next.run(request).instrument(span.clone()).await;
                match recording {
                    Some(recording) => recording.end(response, long_running).await,
                    None => response,
                }
            }
            Err(refused) if refused.extensions().get::<AuditNote>().is_some() => {
                let recording = Recording::begin(&context, &mut request, &route, &audit_id).await;
                match recording {
                    Some(recording) => recording.end(refused, false).await,
                    None => refused,
                }
            }
            Err(refused) => refused,
        }
    };
    if gzip {
        response = compress::answer(response).await;
    }
    let status = response.status().as_u16();
    span.record("http.response.status_code", i64::from(status));
    if response.status().is_server_error() {
        span.record("error.type", status.to_string());
        span.record("otel.status_code", "ERROR");
    }
    let code = status.to_string();
    metrics::counter!("apiserver_request_total",
        "verb" => verb, "resource" => resource.clone(), "code" => code)
    .increment(1);
    if !long_running {
        metrics::histogram!("apiserver_request_duration_seconds",
            "verb" => verb, "resource" => resource)
        .record(started.elapsed().as_secs_f64());
    }
    add_headers(&context, &mut response, &audit_id);
    response
}

/// Puts the user of the request's own credential in the place of its connection's.
async fn authenticate(context: &RestContext, request: &mut Request) -> Result<(), Response> {
    let user = request
        .extensions()
        .get::<User>()
        .cloned()
        .unwrap_or_else(User::anonymous);
    let judged = context
        .access
        .user_of(user, request.headers(), request.uri().path())
        .await;
    match judged {
        Ok(user) => {
            request.extensions_mut().insert(user);
            Ok(())
        }
        Err(refused) => {
            tracing::info!(reason = %refused, "a credential does not count");
            let agreed = negotiate(request.headers(), Transforms::None);
            let format = agreed.map_or(Format::Json, |agreed| agreed.format);
            let mut response = respond::failure(format, &refused.answer().into());
            if let Some(note) = refused.note() {
                response.extensions_mut().insert(note);
            }
            Err(response)
        }
    }
}

fn describe_metrics() {
    metrics::describe_counter!(
        "apiserver_request_total",
        "Answered requests, by verb, resource and status code."
    );
    metrics::describe_histogram!(
        "apiserver_request_duration_seconds",
        metrics::Unit::Seconds,
        "Time from a request's head to the head of its answer; watches apart."
    );
    metrics::describe_gauge!(
        "apiserver_current_inflight_requests",
        "Requests being answered, by kind."
    );
    metrics::describe_gauge!("apiserver_registered_watchers", "Watches, by resource.");
    metrics::describe_counter!(
        "nautilus_tls_handshakes_refused_total",
        "TLS handshakes of clients that came to nothing."
    );
    metrics::describe_counter!(
        "nautilus_connections_refused_total",
        "Connections refused because their client has too many."
    );
    for (name, about) in [
        (
            "nautilus_watch_cache_objects",
            "Objects in the watch cache.",
        ),
        (
            "nautilus_watch_cache_bytes",
            "Bytes of objects in the watch cache, as packed.",
        ),
        (
            "nautilus_watch_cache_ring_bytes",
            "Bytes of past events kept for watchers.",
        ),
        (
            "nautilus_watch_cache_protobuf_bytes",
            "Bytes of objects kept in protobuf too.",
        ),
    ] {
        metrics::describe_gauge!(name, about);
    }
    for (name, about) in [
        (
            "apiserver_watch_cache_events_received_total",
            "Events that the watch cache took, by resource.",
        ),
        (
            "apiserver_terminated_watchers_total",
            "Watchers ended for being slow, by resource.",
        ),
        (
            "apiserver_admission_webhook_request_total",
            "Calls of admission webhooks, by webhook and code.",
        ),
        (
            "apiserver_admission_webhook_rejection_count",
            "Requests that webhooks refused or failed, by webhook.",
        ),
        (
            "apiserver_admission_webhook_fail_open_count",
            "Failed calls that were let pass, by webhook.",
        ),
    ] {
        metrics::describe_counter!(name, about);
    }
    metrics::describe_histogram!(
        "apiserver_admission_webhook_admission_duration_seconds",
        metrics::Unit::Seconds,
        "Time of one call of an admission webhook."
    );
    metrics::counter!("nautilus_tls_handshakes_refused_total").increment(0);
}

/// The parsed route, handed from the middleware to the handler.
#[derive(Clone)]
struct RouteOf(Route);

/// Counts a request while it is served.
struct InFlight(&'static str);

impl InFlight {
    fn new(verb: &'static str) -> Self {
        let kind = match verb {
            "GET" | "LIST" | "WATCH" => "readOnly",
            _ => "mutating",
        };
        metrics::gauge!("apiserver_current_inflight_requests", "request_kind" => kind)
            .increment(1.0);
        Self(kind)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        metrics::gauge!("apiserver_current_inflight_requests", "request_kind" => self.0)
            .decrement(1.0);
    }
}

fn span(request: &Request, route: &Route, audit_id: &str) -> Span {
    let template = route.template();
    let name = match &template {
        Some(template) => format!("{} {template}", request.method()),
        None => request.method().to_string(),
    };
    let span = tracing::info_span!(
        "http_request",
        otel.name = name,
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = %request.method(),
        http.route = template.as_deref(),
        http.response.status_code = field::Empty,
        error.type = field::Empty,
        url.path = request.uri().path(),
        url.scheme = request.extensions().get::<Scheme>().map(Scheme::as_str),
        audit_id,
    );
    trace::adopt(&span, request.headers());
    span
}

fn audit_id(headers: &HeaderMap) -> String {
    headers
        .get(&AUDIT_ID_HEADER)
        .and_then(|value| value.to_str().ok())
        .filter(|value| !value.is_empty() && value.len() <= MAX_AUDIT_ID_BYTES)
        .map_or_else(ids::uuid, str::to_owned)
}

fn add_headers(context: &RestContext, response: &mut Response, audit_id: &str) {
    let leadership = context.kv.leadership();
    let headers = response.headers_mut();
    headers.insert(TERM_HEADER, HeaderValue::from(leadership.term));
    if let Ok(value) = HeaderValue::from_str(audit_id) {
        headers.insert(AUDIT_ID_HEADER, value);
    }
    let Some(leader) = leadership.leader else {
        return;
    };
    headers.insert(LEADER_ID_HEADER, HeaderValue::from(leader.id));
    if let Ok(address) = HeaderValue::from_str(&leader.api_address) {
        headers.insert(LEADER_ADDRESS_HEADER, address);
    }
    if let Some(digest) = (context.node.evidence_digest)(leader.id)
        && let Ok(digest) = HeaderValue::from_str(&digest)
    {
        headers.insert(LEADER_EVIDENCE_HEADER, digest);
    }
}

/// The fallback: everything that is ours.
async fn dispatch(
    axum::Extension(context): axum::Extension<Arc<RestContext>>,
    request: Request,
) -> Response {
    let format =
        negotiate(request.headers(), Transforms::None).map_or(Format::Json, |agreed| agreed.format);
    let mut marks = None;
    let mut response = match admit_and_handle(&context, request, &mut marks).await {
        Ok(response) => response,
        Err(failure) => {
            if failure.error.code() >= 500 {
                tracing::warn!(code = failure.error.code(), error = %failure.error, "request failed");
            }
            respond::failure(format, &failure)
        }
    };
    if let Some(marks) = marks {
        marks.put_on(&mut response);
    }
    response
}

/// What a request holds while it is served.
struct Admitted {
    /// Of a health check.
    check: Option<OwnedSemaphorePermit>,
    watch: Option<OwnedSemaphorePermit>,
    seats: Option<Seats>,
    limit: Option<Duration>,
}

async fn admit_and_handle(
    context: &Arc<RestContext>,
    request: Request,
    marks: &mut Option<Marks>,
) -> Result<Response, Failure> {
    let route = match request.extensions().get::<RouteOf>() {
        Some(route) => route.0.clone(),
        None => {
            let served = context.registry.served();
            route::parse(&served.kinds, request.method(), request.uri())
        }
    };
    let user = request
        .extensions()
        .get::<User>()
        .cloned()
        .unwrap_or_else(User::anonymous);
    let asked = access::attributes(request.method(), request.uri(), &route)?;
    let wanted = access::wanted(request.headers())?;
    let notes = Notes::of(&request);
    let user = access::admit(&context.access, user, &asked, wanted, &route, &notes).await?;
    let mut admitted = admit(context, &route, request.uri())?;
    // What streams for long and is no watch holds no seat, as the reference has it.
    if admitted.limit.is_some() || asked.verb == "watch" {
        let marks = marks.insert(context.flow_control.classify(&user, &asked)?);
        let query = route::query_pairs(request.uri());
        let seats = context.flow_control.enter(marks, &asked, &query).await?;
        admitted.seats = Some(seats);
    }
    let limit = admitted.limit;
    let handling = handle(context.clone(), route, user, request, admitted);
    match limit {
        None => handling.await,
        Some(limit) => timeout(limit, handling).await.unwrap_or_else(|_| {
            Err(ApiError::timeout("the request did not complete in time", 1).into())
        }),
    }
}

/// Takes a place among the watches or the health checks, without waiting.
fn admit(context: &RestContext, route: &Route, uri: &Uri) -> Result<Admitted, Failure> {
    let watching = route.is_long_running(uri);
    let places = match route {
        Route::Health { .. } => Some(&context.health_checks),
        _ if watching => Some(&context.watches),
        _ => None,
    };
    let permit = places
        .map(|places| places.clone().try_acquire_owned())
        .transpose()
        .map_err(|_| ApiError::too_many_requests("too many requests, please try again later", 1))?;
    let (check, watch) = if watching {
        (None, permit)
    } else {
        (permit, None)
    };
    Ok(Admitted {
        check,
        watch,
        seats: None,
        limit: (!watching).then_some(context.limits.request_timeout),
    })
}

async fn handle(
    context: Arc<RestContext>,
    route: Route,
    user: User,
    request: Request,
    admitted: Admitted,
) -> Result<Response, Failure> {
    let Admitted {
        check: _check,
        watch,
        seats,
        ..
    } = admitted;
    let head_only = *request.method() == Method::HEAD;
    let response = match route {
        Route::Health { endpoint, check } => {
            health::answer(&context, endpoint, check.as_deref(), request.uri()).await
        }
        Route::Root => documents::paths(&context),
        Route::Version => documents::version(),
        Route::Metrics => Ok(respond::bytes(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            (context.node.metrics_text)(),
        )),
        Route::K3s(asked) => k3s::serve(&context, asked, &user, request).await,
        Route::TunnelConnect => tunnel::connect(&context, &user, request, watch).await,
        Route::TunnelDial => tunnel::dial(&context, request, watch).await,
        Route::Extension(service) => {
            let shutdown = context.shutdown.clone();
            let aggregator = context.aggregator.clone();
            aggregator
                .pass_on(&service, &user, request, watch, shutdown)
                .await
        }
        asked @ (Route::Groups { .. }
        | Route::Group(_)
        | Route::OpenApiIndex
        | Route::OpenApiV2) => aggregation::document(&context, &asked, request.headers()).await,
        Route::GroupVersion { group, version } => {
            documents::resources(&context, request.headers(), &group, &version)
        }
        Route::OpenApiDocument(path) => {
            let served = context.registry.served_full();
            context
                .documents
                .document(&served, &path, request.headers(), request.uri())
                .await
        }
        Route::OpenIdConfiguration => {
            let address = &context.node.api_address;
            context.access.accounts.configuration(address)
        }
        Route::OpenIdKeys => context.access.accounts.public_keys().await,
        Route::Credentials => own::credentials(&context, request).await,
        Route::Certificates => own::certificates(&context, request).await,
        Route::Leader => own::leader(&context, &request, watch),
        Route::Status => own::status(&context),
        Route::Explain => own::explain(&context, request.uri()),
        Route::Receipts(asked) => receipts::answer(&context, asked, request.uri()).await,
        Route::Members(asked) => own::members(&context, asked, request).await,
        Route::Resource(asked) => {
            Call {
                context,
                asked,
                user,
                notes: Notes::of(&request),
                warnings: Arc::default(),
                watch_permit: watch,
                seats,
            }
            .serve(request)
            .await
        }
        Route::MethodNotAllowed => Err(ApiError::method_not_allowed().into()),
        Route::NotFound => Err(ApiError::path_not_found().into()),
    }?;
    Ok(if head_only {
        response.map(|_| axum::body::Body::empty())
    } else {
        response
    })
}
