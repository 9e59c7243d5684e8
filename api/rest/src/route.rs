//! What a request asks for, read from its method and path alone.
//!
//! Knows nothing of users, bodies or storage. Everything that answers, authorizes,
//! counts or traces a request works on the one [`Route`] made here, so that they
//! can't disagree on what was asked.

use std::borrow::Cow;
use std::sync::Arc;

use http::{Method, Uri};
use metrics::SharedString;
use nautilus_machinery::resource::{Index, Resource};

use crate::aggregation::ApiService;
use crate::connect;
use crate::k3s::{self, K3sRequest};

/// The Kubernetes verb of a resource request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
}

/// A request for objects of one kind.
#[derive(Clone)]
pub(crate) struct ResourceRequest {
    pub(crate) verb: Verb,
    pub(crate) resource: Arc<Resource>,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
    /// What stands behind `proxy` in the path, as it came, from its slash on.
    pub(crate) proxied: Option<String>,
}

impl ResourceRequest {
    /// As many of these as there are kinds and subresources: both are from closed lists.
    fn template(&self) -> String {
        let Resource {
            group,
            version,
            plural,
            ..
        } = self.resource.as_ref();
        let mut path = match group.as_str() {
            "" => format!("/api/{version}"),
            group => format!("/apis/{group}/{version}"),
        };
        if self.namespace.is_some() {
            path.push_str("/namespaces/{namespace}");
        }
        path.push('/');
        path.push_str(plural);
        if self.name.is_some() {
            path.push_str("/{name}");
        }
        if let Some(subresource) = &self.subresource {
            path.push('/');
            path.push_str(subresource);
        }
        path
    }
}

/// The quorum's own requests about members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MemberRequest {
    List,
    Add,
    Promote(u64),
    Transfer(u64),
    Remove(u64),
}

/// The quorum's own requests about receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReceiptRequest {
    Receipt,
    Consistency,
}

/// What is asked.
#[derive(Clone)]
pub(crate) enum Route {
    /// `/healthz`, `/livez`, `/readyz` and one check of theirs.
    Health {
        endpoint: &'static str,
        check: Option<String>,
    },
    /// `/`.
    Root,
    Version,
    Metrics,
    /// `/api` (false) or `/apis` (true).
    Groups {
        named: bool,
    },
    /// `/apis/GROUP`.
    Group(String),
    /// `/api/v1` or `/apis/GROUP/VERSION`; the group of `/api` is empty.
    GroupVersion {
        group: String,
        version: String,
    },
    /// `/openapi/v2`.
    OpenApiV2,
    /// `/openapi/v3`.
    OpenApiIndex,
    /// `/openapi/v3/` and this path.
    OpenApiDocument(String),
    /// `/.well-known/openid-configuration`.
    OpenIdConfiguration,
    /// `/openid/v1/jwks`.
    OpenIdKeys,
    Credentials,
    Certificates,
    Leader,
    /// Why a pod goes where it goes.
    Explain,
    Status,
    Members(MemberRequest),
    Receipts(ReceiptRequest),
    Resource(ResourceRequest),
    /// Of an agent of K3s.
    K3s(K3sRequest),
    /// A node brings its tunnel.
    TunnelConnect,
    /// A master wants a connection through a tunnel that ends here.
    TunnelDial,
    /// Of a group and version that an extension server answers.
    Extension(Arc<ApiService>),
    /// A path that is served, with a method that is not.
    MethodNotAllowed,
    NotFound,
}

impl Route {
    /// The label of metrics and spans: low in cardinality.
    pub(crate) fn resource_label(&self) -> SharedString {
        match self {
            Self::Resource(request) => request.resource.plural.clone().into(),
            _ => SharedString::const_str(""),
        }
    }

    /// The verb's label, in capitals as the reference's metrics have it.
    pub(crate) fn verb_label(&self, method: &Method) -> &'static str {
        match self {
            Self::Resource(request) => match request.verb {
                Verb::Get => "GET",
                Verb::List => "LIST",
                Verb::Watch => "WATCH",
                Verb::Create => "POST",
                Verb::Update => "PUT",
                Verb::Patch => "PATCH",
                Verb::Delete => "DELETE",
                Verb::DeleteCollection => "DELETECOLLECTION",
            },
            _ => match *method {
                Method::GET | Method::HEAD => "GET",
                Method::POST => "POST",
                Method::PUT => "PUT",
                Method::DELETE => "DELETE",
                Method::PATCH => "PATCH",
                _ => "OTHER",
            },
        }
    }

    /// The route as a span's `http.route`, with names for what varies; nothing for a
    /// path that is not one of these.
    pub(crate) fn template(&self) -> Option<Cow<'static, str>> {
        let fixed = match self {
            Self::Health {
                endpoint,
                check: None,
            } => endpoint,
            Self::Health { endpoint, .. } => return Some(format!("{endpoint}/{{check}}").into()),
            Self::Root => "/",
            Self::Version => "/version",
            Self::Metrics => "/metrics",
            Self::Groups { named: false } => "/api",
            Self::Groups { named: true } => "/apis",
            Self::Group(_) => "/apis/{group}",
            Self::GroupVersion { group, .. } if group.is_empty() => "/api/{version}",
            Self::GroupVersion { .. } => "/apis/{group}/{version}",
            Self::OpenApiV2 => "/openapi/v2",
            Self::OpenApiIndex => "/openapi/v3",
            Self::OpenApiDocument(_) => "/openapi/v3/{path}",
            Self::OpenIdConfiguration => "/.well-known/openid-configuration",
            Self::OpenIdKeys => "/openid/v1/jwks",
            Self::Credentials => "/nautilus/v1/credentials",
            Self::Certificates => "/nautilus/v1/certificates",
            Self::Leader => "/nautilus/v1/leader",
            Self::Explain => "/nautilus/v1/scheduler/explain",
            Self::Status => "/nautilus/v1/status",
            Self::Members(asked) => match asked {
                MemberRequest::List | MemberRequest::Add => "/nautilus/v1/members",
                MemberRequest::Remove(_) => "/nautilus/v1/members/{id}",
                MemberRequest::Promote(_) => "/nautilus/v1/members/{id}/promote",
                MemberRequest::Transfer(_) => "/nautilus/v1/members/{id}/transfer",
            },
            Self::Receipts(ReceiptRequest::Receipt) => "/nautilus/v1/receipt",
            Self::Receipts(ReceiptRequest::Consistency) => "/nautilus/v1/receipt/consistency",
            Self::Resource(request) => return Some(request.template().into()),
            Self::K3s(_) => "/v1-k3s/{path}",
            Self::TunnelConnect => "/v1-k3s/connect",
            Self::TunnelDial => "/nautilus/v1/tunnel",
            Self::Extension(_) => "/apis/{group}/{version}/{path}",
            Self::MethodNotAllowed | Self::NotFound => return None,
        };
        Some(fixed.into())
    }

    /// Whether the answer is an object, a list or a document about the API: whole, and
    /// ours.
    pub(crate) fn is_document(&self) -> bool {
        match self {
            Self::Resource(request) => {
                let subresource = request.subresource.as_deref();
                !matches!(
                    subresource,
                    Some("log" | "exec" | "attach" | "portforward" | "proxy")
                )
            }
            Self::Groups { .. }
            | Self::Group(_)
            | Self::GroupVersion { .. }
            | Self::OpenApiV2
            | Self::OpenApiIndex
            | Self::OpenApiDocument(_) => true,
            _ => false,
        }
    }

    /// Whether the answer may go on for as long as the client listens.
    pub(crate) fn is_long_running(&self, uri: &Uri) -> bool {
        match self {
            Self::Resource(request) => {
                request.verb == Verb::Watch || connect::asked(request).is_some()
            }
            Self::Leader => query_flag(uri, "watch"),
            Self::Extension(_) => streams(uri),
            Self::TunnelConnect | Self::TunnelDial => true,
            _ => false,
        }
    }
}

/// Whether a path that another server answers asks for a stream, by the reference's
/// signs: a watch, or a subresource that connects.
fn streams(uri: &Uri) -> bool {
    let mut parts = uri
        .path()
        .split('/')
        .filter(|part| !part.is_empty())
        .skip(3);
    query_flag(uri, "watch")
        || parts.next() == Some("watch")
        || parts.any(|part| matches!(part, "attach" | "exec" | "log" | "portforward" | "proxy"))
}

/// Reads a request's method and target; `kinds` are those served.
pub(crate) fn parse(kinds: &Index, method: &Method, uri: &Uri) -> Route {
    let (path, proxied) = split_proxied(uri.path());
    let Some(segments) = segments(path) else {
        return Route::NotFound;
    };
    if let Some(proxied) = proxied {
        let route = parse_segments(kinds, method, uri, &segments);
        return match route {
            Route::Resource(request) => Route::Resource(ResourceRequest {
                proxied: Some(proxied.to_owned()),
                ..request
            }),
            other => other,
        };
    }
    parse_segments(kinds, method, uri, &segments)
}

/// A path up to a `proxy` of a node, a pod or a service, and what is asked for behind it.
fn split_proxied(path: &str) -> (&str, Option<&str>) {
    let mut ends = path.match_indices('/').map(|(at, _)| at).skip(1);
    let rest = |end: usize| (&path[..end], Some(&path[end..]));
    let parts: Vec<&str> = path.splitn(9, '/').collect();
    match parts.as_slice() {
        ["", "api", "v1", "nodes", _, "proxy", ..] => ends.nth(4).map_or((path, Some("")), rest),
        [
            "",
            "api",
            "v1",
            "namespaces",
            _,
            "pods" | "services",
            _,
            "proxy",
            ..,
        ] => ends.nth(6).map_or((path, Some("")), rest),
        _ => (path, None),
    }
}

fn parse_segments(kinds: &Index, method: &Method, uri: &Uri, segments: &[String]) -> Route {
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    if let Some(route) = k3s::parse(method, &parts) {
        return route;
    }
    let read_only = *method == Method::GET || *method == Method::HEAD;
    let reading = |route: Route| {
        if read_only {
            route
        } else {
            Route::MethodNotAllowed
        }
    };
    match parts.as_slice() {
        [] | ["index.html"] => reading(Route::Root),
        ["healthz"] => reading(Route::Health {
            endpoint: "/healthz",
            check: None,
        }),
        ["livez"] => reading(Route::Health {
            endpoint: "/livez",
            check: None,
        }),
        ["readyz"] => reading(Route::Health {
            endpoint: "/readyz",
            check: None,
        }),
        ["healthz", check @ ..] => health("/healthz", check),
        ["livez", check @ ..] => health("/livez", check),
        ["readyz", check @ ..] => health("/readyz", check),
        ["v1-k3s", "connect"] => reading(Route::TunnelConnect),
        ["version"] => reading(Route::Version),
        ["metrics"] => reading(Route::Metrics),
        ["api"] => reading(Route::Groups { named: false }),
        ["apis"] => reading(Route::Groups { named: true }),
        [".well-known", "openid-configuration"] => reading(Route::OpenIdConfiguration),
        ["openid", "v1", "jwks"] => reading(Route::OpenIdKeys),
        ["openapi", "v2"] => reading(Route::OpenApiV2),
        ["openapi", "v3"] => reading(Route::OpenApiIndex),
        ["openapi", "v3", rest @ ..] => reading(Route::OpenApiDocument(rest.join("/"))),
        ["nautilus", "v1", rest @ ..] => own(method, rest),
        ["api", "v1", rest @ ..] => group_version(kinds, method, uri, ("", "v1"), rest),
        ["apis", group] => reading(Route::Group((*group).to_owned())),
        ["apis", group, version, rest @ ..] => {
            group_version(kinds, method, uri, (group, version), rest)
        }
        _ => Route::NotFound,
    }
}

fn health(endpoint: &'static str, check: &[&str]) -> Route {
    Route::Health {
        endpoint,
        check: Some(check.join("/")),
    }
}

fn own(method: &Method, rest: &[&str]) -> Route {
    let id = |text: &str| text.parse::<u64>().ok();
    let found = match (method, rest) {
        (&Method::POST, ["credentials"]) => Some(Route::Credentials),
        (&Method::POST, ["certificates"]) => Some(Route::Certificates),
        (&Method::GET, ["tunnel"]) => Some(Route::TunnelDial),
        (&Method::GET, ["leader"]) => Some(Route::Leader),
        (&Method::GET, ["status"]) => Some(Route::Status),
        (&Method::GET, ["scheduler", "explain"]) => Some(Route::Explain),
        (&Method::GET, ["receipt"]) => Some(Route::Receipts(ReceiptRequest::Receipt)),
        (&Method::GET, ["receipt", "consistency"]) => {
            Some(Route::Receipts(ReceiptRequest::Consistency))
        }
        (&Method::GET, ["members"]) => Some(Route::Members(MemberRequest::List)),
        (&Method::POST, ["members"]) => Some(Route::Members(MemberRequest::Add)),
        (&Method::DELETE, ["members", text]) => {
            id(text).map(|id| Route::Members(MemberRequest::Remove(id)))
        }
        (&Method::POST, ["members", text, "promote"]) => {
            id(text).map(|id| Route::Members(MemberRequest::Promote(id)))
        }
        (&Method::POST, ["members", text, "transfer"]) => {
            id(text).map(|id| Route::Members(MemberRequest::Transfer(id)))
        }
        (
            _,
            ["credentials" | "certificates" | "leader" | "status" | "members" | "receipt"]
            | ["receipt", "consistency"]
            | ["scheduler", "explain"],
        ) => Some(Route::MethodNotAllowed),
        _ => None,
    };
    found.unwrap_or(Route::NotFound)
}

fn group_version(
    kinds: &Index,
    method: &Method,
    uri: &Uri,
    of: (&str, &str),
    rest: &[&str],
) -> Route {
    match rest {
        [] if *method == Method::GET || *method == Method::HEAD => Route::GroupVersion {
            group: of.0.to_owned(),
            version: of.1.to_owned(),
        },
        [] => Route::MethodNotAllowed,
        // The deprecated form: `/api/v1/watch/...` is the same path with `?watch=true`.
        ["watch", rest @ ..] if !rest.is_empty() => objects(kinds, method, uri, of, rest, true),
        rest => objects(kinds, method, uri, of, rest, false),
    }
}

fn objects(
    kinds: &Index,
    method: &Method,
    uri: &Uri,
    (group, version): (&str, &str),
    rest: &[&str],
    watch_path: bool,
) -> Route {
    let find = |plural: &str| kinds.find(group, version, plural);
    // `/namespaces/NAME/status` is a subresource of the namespace; `/namespaces/NAME/pods`
    // is a collection inside it.
    let inside = |plural: &str| find(plural).filter(|resource| resource.namespaced);
    let (resource, namespace, name, subresource) = match rest {
        ["namespaces", namespace, plural] if inside(plural).is_some() => {
            (inside(plural), Some(*namespace), None, None)
        }
        ["namespaces", namespace, plural, name] if inside(plural).is_some() => {
            (inside(plural), Some(*namespace), Some(*name), None)
        }
        ["namespaces", namespace, plural, name, sub] if inside(plural).is_some() => {
            (inside(plural), Some(*namespace), Some(*name), Some(*sub))
        }
        [plural] => (find(plural), None, None, None),
        [plural, name] => (outside(find(plural)), None, Some(*name), None),
        [plural, name, sub] => (outside(find(plural)), None, Some(*name), Some(*sub)),
        _ => (None, None, None, None),
    };
    let Some(resource) = resource else {
        return Route::NotFound;
    };
    if let Some(sub) = subresource
        && resource.subresource(sub).is_none()
    {
        return Route::NotFound;
    }
    let mut request = ResourceRequest {
        verb: Verb::Get,
        resource: resource.clone(),
        namespace: namespace.map(str::to_owned),
        name: name.map(str::to_owned),
        subresource: subresource.map(str::to_owned),
        proxied: None,
    };
    let connects = connect::asked(&request).is_some();
    let watching = !connects && (watch_path || query_flag(uri, "watch"));
    let Some(verb) = verb(method, name.is_some(), watching) else {
        return Route::MethodNotAllowed;
    };
    request.verb = verb;
    Route::Resource(request)
}

fn outside(resource: Option<&Arc<Resource>>) -> Option<&Arc<Resource>> {
    resource.filter(|resource| !resource.namespaced)
}

fn verb(method: &Method, named: bool, watching: bool) -> Option<Verb> {
    Some(match (method, named) {
        (&Method::GET | &Method::HEAD, _) if watching => Verb::Watch,
        (&Method::GET | &Method::HEAD, true) => Verb::Get,
        (&Method::GET | &Method::HEAD, false) => Verb::List,
        // A POST with a name is the creation of a subresource (`pods/NAME/binding`).
        (&Method::POST, _) => Verb::Create,
        (&Method::PUT, true) => Verb::Update,
        (&Method::PATCH, true) => Verb::Patch,
        (&Method::DELETE, true) => Verb::Delete,
        (&Method::DELETE, false) => Verb::DeleteCollection,
        _ => return None,
    })
}

/// The query's pairs, decoded; empty when it does not parse.
pub(crate) fn query_pairs(uri: &Uri) -> Vec<(String, String)> {
    axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map(|query| query.0)
        .unwrap_or_default()
}

/// Whether a boolean parameter is set, by the reference's rule: present and neither
/// `0` nor `false`.
pub(crate) fn query_flag(uri: &Uri, name: &str) -> bool {
    query_pairs(uri)
        .iter()
        .any(|(key, value)| key == name && truth(value))
}

/// The reference's reading of a boolean parameter.
pub(crate) fn truth(value: &str) -> bool {
    !matches!(value, "0") && !value.eq_ignore_ascii_case("false")
}

/// The path's segments, percent-decoded; `None` if one does not decode or climbs.
pub(crate) fn segments(path: &str) -> Option<Vec<String>> {
    path.split('/')
        .filter(|segment| !segment.is_empty())
        .map(decode_segment)
        .collect()
}

fn decode_segment(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    let safe = text != "." && text != ".." && !text.contains('/');
    safe.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_proxied_stays_as_it_came() {
        for (path, head, proxied) in [
            ("/api/v1/nodes/n/proxy", "/api/v1/nodes/n/proxy", Some("")),
            ("/api/v1/nodes/n/proxy/", "/api/v1/nodes/n/proxy", Some("/")),
            (
                "/api/v1/namespaces/a/services/https:s:/proxy/x//y%2F/",
                "/api/v1/namespaces/a/services/https:s:/proxy",
                Some("/x//y%2F/"),
            ),
            (
                "/api/v1/namespaces/proxy/pods/p",
                "/api/v1/namespaces/proxy/pods/p",
                None,
            ),
            ("/api/v1/nodes/proxy", "/api/v1/nodes/proxy", None),
        ] {
            assert_eq!(split_proxied(path), (head, proxied), "{path}");
        }
    }
}
