//! From the words of a scheduled request to a request of the API: by the table of kinds. Pure.
//!
//! Invariants
//! - A creation has a name of its own before it runs, and bears the request's mark: whoever
//!   finds it knows whose it is.
//! - Connections (exec, attach, port-forward, proxies) are no requests of the chain.

use aws_lc_rs::digest;
use bytes::Bytes;
use http::Method;
use nautilus_machinery::resource::{self, Resource};
use serde_json::{Map, Value, json};

use super::ApiRequest;
use super::row::Target;
use crate::events::effects::ApiCall;

/// The annotation that names the request which wrote an object last.
pub(super) const MARK: &str = "nautilus.io/sui-request";
/// Subresources that are connections.
const CONNECTIONS: [&str; 4] = ["exec", "attach", "portforward", "proxy"];

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    List,
    Create,
    Update,
    Patch,
    Delete,
}

impl Verb {
    fn parse(method: &str, has_name: bool) -> Option<Self> {
        Some(match method.to_ascii_lowercase().as_str() {
            "get" if has_name => Self::Get,
            "get" | "list" => Self::List,
            "post" | "create" => Self::Create,
            "put" | "update" => Self::Update,
            "patch" => Self::Patch,
            "delete" => Self::Delete,
            _ => return None,
        })
    }

    /// The verb's name in the table of kinds.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }

    /// Whether it changes an object that is there.
    pub(super) fn has_target(self) -> bool {
        matches!(self, Self::Update | Self::Patch | Self::Delete)
    }
}

/// A request that makes sense.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    pub(super) verb: Verb,
    path: String,
    /// Of the whole object; empty where it has none to be found by.
    object_path: String,
    body: Option<Value>,
    /// Whether what it changes bears its mark: a subresource does not.
    is_marked: bool,
}

impl Plan {
    /// Reads a call; `Err` says what is wrong with it.
    pub(super) fn of(call: &ApiCall) -> Result<Self, String> {
        let (kind, subresource) = kind_of(&call.resource)?;
        if subresource.is_some_and(|name| CONNECTIONS.contains(&name)) {
            return Err(format!(
                "resource: {} is a connection, which no request of the chain can be",
                call.resource
            ));
        }
        let verb = Verb::parse(&call.method, !call.name.is_empty()).ok_or_else(|| {
            format!(
                "method: {:?} is none of GET, LIST, POST, PUT, PATCH, DELETE",
                call.method
            )
        })?;
        let verbs = match subresource {
            None => &kind.verbs,
            Some(name) => match kind.subresource(name) {
                Some(found) => &found.verbs,
                None => return Err(format!("resource: {} has no {name}", kind.plural)),
            },
        };
        if !verbs.iter().any(|offered| offered == verb.as_str()) {
            let what = call.resource.as_str();
            return Err(format!(
                "method: {what} can't be asked to {}",
                verb.as_str()
            ));
        }
        let mut body = match verb {
            Verb::Get | Verb::List | Verb::Delete => None,
            Verb::Create | Verb::Update | Verb::Patch => Some(object(&call.payload)?),
        };
        let namespace = namespace(kind, call, verb)?;
        let name = name(call, verb, body.as_ref(), subresource, kind)?;
        if let Some(object) = &mut body {
            complete(object, kind, namespace, &name, verb, subresource);
            if subresource.is_none() {
                object["metadata"]["annotations"][MARK] = call.request_id.as_str().into();
            }
        }
        let collection = collection_path(kind, namespace);
        let object_path = match name.as_str() {
            "" => String::new(),
            name => format!("{collection}/{name}"),
        };
        let path = match (verb, subresource) {
            (Verb::List | Verb::Create, None) => collection,
            (_, None) => object_path.clone(),
            (_, Some(subresource)) => format!("{object_path}/{subresource}"),
        };
        Ok(Self {
            verb,
            path,
            object_path,
            is_marked: subresource.is_none(),
            body,
        })
    }

    /// Whether one that was lost on its way may be made again: it changes nothing, or what it
    /// changed tells.
    pub(super) fn can_be_repeated(&self) -> bool {
        match self.verb {
            Verb::Get | Verb::List | Verb::Delete => true,
            Verb::Create | Verb::Update | Verb::Patch => self.is_marked,
        }
    }

    /// The request as it is made; with what it found before its first attempt, it changes that
    /// or nothing.
    pub(super) fn request(&self, target: Option<&Target>) -> ApiRequest {
        let (method, content_type) = match self.verb {
            Verb::Get | Verb::List => (Method::GET, None),
            Verb::Create => (Method::POST, Some("application/json")),
            Verb::Update => (Method::PUT, Some("application/json")),
            Verb::Patch => (Method::PATCH, Some("application/merge-patch+json")),
            Verb::Delete => (Method::DELETE, Some("application/json")),
        };
        let mut body = self.body.clone();
        if let Some(target) = target {
            match &mut body {
                Some(object) => {
                    let version = &mut object["metadata"]["resourceVersion"];
                    if version.as_str().is_none_or(str::is_empty) {
                        *version = target.resource_version.as_str().into();
                    }
                }
                None => {
                    body = Some(json!({
                        "kind": "DeleteOptions",
                        "apiVersion": "v1",
                        "preconditions": {"uid": target.uid},
                    }));
                }
            }
        }
        ApiRequest {
            method,
            path: self.path.clone(),
            content_type: content_type.filter(|_| body.is_some()),
            body: body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string())),
        }
    }

    /// The request for the whole object; `None` where there is none.
    pub(super) fn look(&self) -> Option<ApiRequest> {
        (!self.object_path.is_empty()).then(|| ApiRequest {
            method: Method::GET,
            path: self.object_path.clone(),
            content_type: None,
            body: Bytes::new(),
        })
    }
}

/// The kind that a word names, and its subresource: `pods`, `Pod`, `po`, `deployments.apps`,
/// `apps/v1/deployments`, `deployments/scale`.
fn kind_of(text: &str) -> Result<(&'static Resource, Option<&str>), String> {
    let unknown = || format!("resource: {text:?} is no kind of this API server");
    let parts: Vec<&str> = text.split('/').collect();
    let (group, version, word, subresource) = match parts[..] {
        [word] => (None, None, word, None),
        [version, word] if is_version(version) => (Some(""), Some(version), word, None),
        [word, subresource] => (None, None, word, Some(subresource)),
        [version, word, subresource] if is_version(version) => {
            (Some(""), Some(version), word, Some(subresource))
        }
        [group, version, word] => (Some(group), Some(version), word, None),
        [group, version, word, subresource] => {
            (Some(group), Some(version), word, Some(subresource))
        }
        _ => return Err(unknown()),
    };
    let (word, group) = match (word.split_once('.'), group) {
        (Some((word, group)), None) => (word, Some(group)),
        _ => (word, group),
    };
    let word = word.to_ascii_lowercase();
    let is_meant = |kind: &&std::sync::Arc<Resource>| {
        let is_named = kind.plural == word
            || kind.singular == word
            || kind.kind.eq_ignore_ascii_case(&word)
            || kind.short_names.contains(&word);
        is_named
            && group.is_none_or(|group| kind.group == group)
            && version.is_none_or(|version| kind.version == version)
    };
    let kind = resource::all().iter().find(is_meant).ok_or_else(unknown)?;
    Ok((kind, subresource))
}

fn is_version(text: &str) -> bool {
    let digits = text.strip_prefix('v').unwrap_or_default();
    digits.starts_with(|c: char| c.is_ascii_digit())
}

fn collection_path(kind: &Resource, namespace: Option<&str>) -> String {
    let root = match kind.group.as_str() {
        "" => format!("/api/{}", kind.version),
        group => format!("/apis/{group}/{}", kind.version),
    };
    match namespace {
        Some(namespace) => format!("{root}/namespaces/{namespace}/{}", kind.plural),
        None => format!("{root}/{}", kind.plural),
    }
}

/// Without one, a list is of every namespace and an object of `default`.
fn namespace<'a>(
    kind: &Resource,
    call: &'a ApiCall,
    verb: Verb,
) -> Result<Option<&'a str>, String> {
    if !kind.namespaced {
        return Ok(None);
    }
    match (call.namespace.as_str(), verb) {
        ("", Verb::List) => Ok(None),
        ("", _) => Ok(Some("default")),
        (namespace, _) if is_segment(namespace) => Ok(Some(namespace)),
        (namespace, _) => Err(format!("namespace: {namespace:?} is no name")),
    }
}

fn name(
    call: &ApiCall,
    verb: Verb,
    body: Option<&Value>,
    subresource: Option<&str>,
    kind: &Resource,
) -> Result<String, String> {
    let text = |field: &str| {
        let field = body.and_then(|object| object["metadata"][field].as_str());
        field.unwrap_or_default().to_owned()
    };
    let in_body = text("name");
    let name = match (call.name.as_str(), in_body.as_str()) {
        ("", "") if verb == Verb::Create && subresource.is_none() => {
            match text("generateName").as_str() {
                "" => String::new(),
                // Drawn from the request, so that it is found again.
                prefix => format!("{prefix}{}", suffix(&call.request_id)),
            }
        }
        ("", name) | (name, "") => name.to_owned(),
        (name, other) if name == other => name.to_owned(),
        (name, other) => {
            return Err(format!("name: {name:?} and the payload's {other:?} differ"));
        }
    };
    if verb == Verb::List {
        return match name.as_str() {
            "" => Ok(name),
            _ => Err("name: a list has none".to_owned()),
        };
    }
    // Reviews are made without a name, and not kept.
    let needs_none = verb == Verb::Create && subresource.is_none() && !kind.has_verb("get");
    if name.is_empty() && !needs_none {
        return Err("name: is needed".to_owned());
    }
    if !name.is_empty() && !is_segment(&name) {
        return Err(format!("name: {name:?} is no name"));
    }
    Ok(name)
}

/// Whether a text can be a segment of a path as it is.
fn is_segment(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    !text.is_empty() && text.chars().all(is_plain) && !text.chars().all(|c| c == '.')
}

/// Ten digits of a request's own.
fn suffix(request_id: &str) -> String {
    let hash = digest::digest(&digest::SHA256, request_id.as_bytes());
    hex::encode(&hash.as_ref()[..5])
}

fn object(payload: &str) -> Result<Value, String> {
    match serde_json::from_str(payload) {
        Ok(Value::Object(fields)) => Ok(Value::Object(fields)),
        Ok(_) => Err("payload: must be a JSON object".to_owned()),
        Err(error) => Err(format!("payload: is not JSON: {error}")),
    }
}

/// What the event says and the payload leaves out.
fn complete(
    object: &mut Value,
    kind: &Resource,
    namespace: Option<&str>,
    name: &str,
    verb: Verb,
    subresource: Option<&str>,
) {
    if !object["metadata"].is_object() {
        object["metadata"] = Value::Object(Map::new());
    }
    if !object["metadata"]["annotations"].is_object() && subresource.is_none() {
        object["metadata"]["annotations"] = Value::Object(Map::new());
    }
    if verb == Verb::Patch {
        return;
    }
    let (api_version, kind_name) = match subresource.and_then(|name| kind.subresource(name)) {
        Some(sub) => (
            resource::api_version(&sub.group, &sub.version),
            sub.kind.clone(),
        ),
        None => (kind.api_version(), kind.kind.clone()),
    };
    let mut default = |pointer: &[&str], value: &str| {
        let Some((last, parents)) = pointer.split_last() else {
            return;
        };
        let parent = parents
            .iter()
            .fold(&mut *object, |at, field| &mut at[*field]);
        if parent[*last].is_null() {
            parent[*last] = value.into();
        }
    };
    default(&["apiVersion"], &api_version);
    default(&["kind"], &kind_name);
    if !name.is_empty() {
        default(&["metadata", "name"], name);
    }
    if let Some(namespace) = namespace {
        default(&["metadata", "namespace"], namespace);
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use expect_test::expect;

    use super::*;

    fn call(method: &str, resource: &str, place: &str, payload: &str) -> ApiCall {
        let (namespace, name) = place.split_once('/').expect("a place");
        ApiCall {
            request_id: "r-1".into(),
            requester: "0xa1".into(),
            method: method.into(),
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
            payload: payload.into(),
            priority: 0,
        }
    }

    #[test]
    fn the_words_of_a_request_and_what_they_come_to() {
        let mut table = String::new();
        for (method, resource, place, payload) in [
            ("GET", "pods", "shop/web", ""),
            ("GET", "Pod", "/web", ""),
            ("list", "po", "/", ""),
            ("LIST", "deployments.apps", "shop/", ""),
            ("get", "apps/v1/deployments", "shop/web", ""),
            ("GET", "v1/nodes", "/n1", ""),
            ("GET", "pods/log", "shop/web", ""),
            ("GET", "deployments/scale", "shop/web", ""),
            ("POST", "configmaps", "shop/c", "{}"),
            (
                "POST",
                "pods",
                "shop/",
                r#"{"metadata":{"generateName":"job-"}}"#,
            ),
            (
                "PATCH",
                "deployments",
                "shop/web",
                r#"{"spec":{"replicas":2}}"#,
            ),
            (
                "PUT",
                "deployments/scale",
                "shop/web",
                r#"{"spec":{"replicas":2}}"#,
            ),
            ("DELETE", "pods", "shop/web", ""),
            ("POST", "selfsubjectaccessreviews", "/", r#"{"spec":{}}"#),
            ("POST", "pods/exec", "shop/web", "{}"),
            ("DELETE", "pods", "shop/", ""),
            ("POST", "pods", "shop/a", r#"{"metadata":{"name":"b"}}"#),
            ("POST", "pods", "shop/a", "[]"),
            ("BREW", "pods", "shop/a", ""),
            ("GET", "teapots", "shop/a", ""),
            ("GET", "pods", "shop/../secrets", ""),
            ("GET", "pods", "../web", ""),
            ("PUT", "pods/log", "shop/web", "{}"),
            ("GET", "pods/nothing", "shop/web", ""),
        ] {
            let line = match Plan::of(&call(method, resource, place, payload)) {
                Ok(plan) => {
                    let request = plan.request(None);
                    let body = String::from_utf8_lossy(&request.body).into_owned();
                    format!("{} {} {body}", request.method, request.path)
                }
                Err(error) => error,
            };
            writeln!(
                table,
                "{method} {resource} {place}\n    {}",
                line.trim_end()
            )
            .expect("writing to a string");
        }
        expect![[r#"
            GET pods shop/web
                GET /api/v1/namespaces/shop/pods/web
            GET Pod /web
                GET /api/v1/namespaces/default/pods/web
            list po /
                GET /api/v1/pods
            LIST deployments.apps shop/
                GET /apis/apps/v1/namespaces/shop/deployments
            get apps/v1/deployments shop/web
                GET /apis/apps/v1/namespaces/shop/deployments/web
            GET v1/nodes /n1
                GET /api/v1/nodes/n1
            GET pods/log shop/web
                GET /api/v1/namespaces/shop/pods/web/log
            GET deployments/scale shop/web
                GET /apis/apps/v1/namespaces/shop/deployments/web/scale
            POST configmaps shop/c
                POST /api/v1/namespaces/shop/configmaps {"metadata":{"annotations":{"nautilus.io/sui-request":"r-1"},"name":"c","namespace":"shop"},"apiVersion":"v1","kind":"ConfigMap"}
            POST pods shop/
                POST /api/v1/namespaces/shop/pods {"metadata":{"generateName":"job-","annotations":{"nautilus.io/sui-request":"r-1"},"name":"job-a5fa777a3d","namespace":"shop"},"apiVersion":"v1","kind":"Pod"}
            PATCH deployments shop/web
                PATCH /apis/apps/v1/namespaces/shop/deployments/web {"spec":{"replicas":2},"metadata":{"annotations":{"nautilus.io/sui-request":"r-1"}}}
            PUT deployments/scale shop/web
                PUT /apis/apps/v1/namespaces/shop/deployments/web/scale {"spec":{"replicas":2},"metadata":{"name":"web","namespace":"shop"},"apiVersion":"autoscaling/v1","kind":"Scale"}
            DELETE pods shop/web
                DELETE /api/v1/namespaces/shop/pods/web
            POST selfsubjectaccessreviews /
                POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews {"spec":{},"metadata":{"annotations":{"nautilus.io/sui-request":"r-1"}},"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview"}
            POST pods/exec shop/web
                resource: pods/exec is a connection, which no request of the chain can be
            DELETE pods shop/
                name: is needed
            POST pods shop/a
                name: "a" and the payload's "b" differ
            POST pods shop/a
                payload: must be a JSON object
            BREW pods shop/a
                method: "BREW" is none of GET, LIST, POST, PUT, PATCH, DELETE
            GET teapots shop/a
                resource: "teapots" is no kind of this API server
            GET pods shop/../secrets
                name: "../secrets" is no name
            GET pods ../web
                namespace: ".." is no name
            PUT pods/log shop/web
                method: pods/log can't be asked to update
            GET pods/nothing shop/web
                resource: pods has no nothing
        "#]].assert_eq(&table);
    }

    #[test]
    fn a_change_is_of_what_was_found_and_of_nothing_else() {
        let target = Target {
            uid: "u-7".into(),
            resource_version: "42".into(),
        };
        let body = |method, payload| {
            let plan = Plan::of(&call(method, "pods", "shop/web", payload)).expect("a plan");
            let request = plan.request(Some(&target));
            serde_json::from_slice::<Value>(&request.body).expect("JSON")
        };
        assert_eq!(body("PUT", "{}")["metadata"]["resourceVersion"], "42");
        assert_eq!(body("PATCH", "{}")["metadata"]["resourceVersion"], "42");
        assert_eq!(body("DELETE", "")["preconditions"]["uid"], "u-7");
        // What the requester has seen counts.
        let own = r#"{"metadata":{"resourceVersion":"7"}}"#;
        assert_eq!(body("PUT", own)["metadata"]["resourceVersion"], "7");
    }
}
