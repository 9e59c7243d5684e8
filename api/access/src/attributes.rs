//! What a request asks for, as an authorizer sees it: read from the method, the
//! path's segments and the query alone, before anything is known of the kind.
//!
//! Source: the reference's request info resolver and authorization filter.
//!
//! Invariants
//! - A path is judged by the same segments that route it.
//! - A selector that cannot be read narrows nothing: the request is judged as if it
//!   asked for everything.

use nautilus_machinery::identity::User;
use nautilus_machinery::selector::{self, FieldTerm};
use nautilus_machinery::status::{ApiError, quote};

/// The attributes of one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// As `get`, `deletecollection`; the method in lower case for a path.
    pub verb: String,
    /// Whether it is about objects; else `path` says what about.
    pub is_resource: bool,
    /// The API group, empty for the core group.
    pub group: String,
    /// The version; `*` in reviews that name none.
    pub version: String,
    /// The plural, as `pods`.
    pub resource: String,
    /// As `status`; empty for none.
    pub subresource: String,
    /// The namespace; empty for none or all.
    pub namespace: String,
    /// The object's name; empty for none.
    pub name: String,
    /// The request's path.
    pub path: String,
    /// Terms of the field selector.
    pub fields: Vec<FieldTerm>,
}

/// Subresources that a namespace has; any other segment there is a kind inside it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];
/// Verbs whose requests may carry selectors.
const SELECTING: [&str; 3] = ["list", "watch", "deletecollection"];

impl Attributes {
    /// Reads a request: `method` in capitals, `segments` of the decoded path without
    /// empty ones, `query` decoded.
    pub fn of_request(
        method: &str,
        path: &str,
        segments: &[String],
        query: &[(String, String)],
    ) -> Self {
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => {
                return Self {
                    verb: method.to_ascii_lowercase(),
                    path: path.to_owned(),
                    ..Self::default()
                };
            }
        };
        let value = |name: &str| {
            query
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_str())
        };
        let (by_path, rest) = match rest {
            [verb @ ("watch" | "proxy"), tail @ ..] if !tail.is_empty() => (Some(*verb), tail),
            rest => (None, rest),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, sub, ..] if !NAMESPACE_SUBRESOURCES.contains(sub) => {
                (*namespace, &rest[2..])
            }
            ["namespaces", namespace, ..] => (*namespace, rest),
            rest => ("", rest),
        };
        let part = |at: usize| rest.get(at).copied().unwrap_or_default();
        let mut attributes = Self {
            verb: by_path.map_or_else(|| verb_of(method), str::to_owned),
            is_resource: true,
            group: group.to_owned(),
            version: version.to_owned(),
            resource: part(0).to_owned(),
            subresource: if by_path.is_some() { "" } else { part(2) }.to_owned(),
            namespace: namespace.to_owned(),
            name: part(1).to_owned(),
            path: path.to_owned(),
            fields: Vec::new(),
        };
        attributes.of_collection(value);
        if by_path.is_none()
            && SELECTING.contains(&attributes.verb.as_str())
            && let Some(selector) = value("fieldSelector")
        {
            attributes.fields = selector::field_terms(selector).unwrap_or_default();
        }
        attributes
    }

    /// A request without a name is about a collection, or about the one object that
    /// its selector names.
    fn of_collection<'a>(&mut self, value: impl Fn(&str) -> Option<&'a str>) {
        if !self.name.is_empty() {
            return;
        }
        match self.verb.as_str() {
            "get" => {
                let watching = value("watch")
                    .is_some_and(|flag| flag != "0" && !flag.eq_ignore_ascii_case("false"));
                self.verb = if watching { "watch" } else { "list" }.to_owned();
                let selected = value("fieldSelector")
                    .and_then(|text| selector::field_terms(text).ok())
                    .and_then(|terms| {
                        terms
                            .into_iter()
                            .find(|term| term.equal && term.field == "metadata.name")
                    })
                    .map(|term| term.value)
                    .filter(|name| is_path_segment(name));
                self.name = selected.unwrap_or_default();
            }
            "delete" => self.verb = "deletecollection".to_owned(),
            _ => {}
        }
    }

    /// `pods`, or `pods/status`.
    pub fn combined_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }

    /// 403 in the reference's words, with an authorizer's reason where it gave one.
    pub fn forbidden(&self, user: &User, reason: &str) -> ApiError {
        let mut why = sanitized(&self.refusal(user));
        if !reason.is_empty() {
            why.push_str(": ");
            why.push_str(reason);
        }
        ApiError::forbidden_on(&self.group, &self.resource, &self.name, &why)
    }

    fn refusal(&self, user: &User) -> String {
        let name = quote(&user.name);
        if !self.is_resource {
            return format!(
                "User {name} cannot {} path {}",
                self.verb,
                quote(&self.path)
            );
        }
        let scope = if self.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {}", quote(&self.namespace))
        };
        format!(
            "User {name} cannot {} resource {} in API group {} {scope}",
            self.verb,
            quote(&self.combined_resource()),
            quote(&self.group),
        )
    }
}

fn verb_of(method: &str) -> String {
    match method {
        "POST" => "create",
        "GET" | "HEAD" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
    .to_owned()
}

/// Whether a name may stand in a path.
fn is_path_segment(name: &str) -> bool {
    !matches!(name, "." | "..") && !name.contains(['/', '%'])
}

/// What looks like markup is escaped, as the reference does in refusals.
fn sanitized(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &str, target: &str) -> Attributes {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let segments: Vec<String> = path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect();
        let query: Vec<(String, String)> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Attributes::of_request(method, path, &segments, &query)
    }

    fn line(method: &str, target: &str) -> String {
        let a = read(method, target);
        if a.is_resource {
            format!(
                "{} {}/{} {} ns={} name={}",
                a.verb,
                a.group,
                a.version,
                a.combined_resource(),
                a.namespace,
                a.name
            )
        } else {
            format!("{} {}", a.verb, a.path)
        }
    }

    #[test]
    fn paths_are_read_as_the_reference_reads_them() {
        for (method, target, wanted) in [
            ("GET", "/api", "get /api"),
            ("GET", "/api/v1", "get /api/v1"),
            ("GET", "/apis/apps/v1", "get /apis/apps/v1"),
            ("POST", "/nope/x", "post /nope/x"),
            ("GET", "/api/v1/pods", "list /v1 pods ns= name="),
            ("GET", "/api/v1/pods?watch=1", "watch /v1 pods ns= name="),
            ("GET", "/api/v1/pods?watch=false", "list /v1 pods ns= name="),
            (
                "GET",
                "/api/v1/namespaces/a/pods?fieldSelector=metadata.name=x",
                "list /v1 pods ns=a name=x",
            ),
            (
                "GET",
                "/api/v1/namespaces/a",
                "get /v1 namespaces ns=a name=a",
            ),
            (
                "PUT",
                "/api/v1/namespaces/a/finalize",
                "update /v1 namespaces/finalize ns=a name=a",
            ),
            (
                "GET",
                "/api/v1/watch/namespaces/a/pods/x",
                "watch /v1 pods ns=a name=x",
            ),
            (
                "POST",
                "/api/v1/namespaces/a/pods/x/exec",
                "create /v1 pods/exec ns=a name=x",
            ),
            (
                "GET",
                "/api/v1/nodes/n/proxy/metrics/x",
                "get /v1 nodes/proxy ns= name=n",
            ),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/deployments",
                "deletecollection apps/v1 deployments ns=a name=",
            ),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                "patch apps/v1 deployments/scale ns=a name=d",
            ),
        ] {
            assert_eq!(line(method, target), wanted, "{method} {target}");
        }
    }

    #[test]
    fn a_refusal_is_worded_as_clients_expect() {
        let jane = User::authenticated("jane", vec![]);
        let refused = |method, target, reason| read(method, target).forbidden(&jane, reason);
        assert_eq!(
            refused("GET", "/api/v1/namespaces/a/pods/x", "").message(),
            "pods \"x\" is forbidden: User \"jane\" cannot get resource \"pods\" in API group \
             \"\" in the namespace \"a\""
        );
        assert_eq!(
            refused("GET", "/metrics", "").message(),
            "forbidden: User \"jane\" cannot get path \"/metrics\""
        );
        assert_eq!(
            refused("POST", "/apis/apps/v1/deployments", "RBAC: role lost").message(),
            "deployments.apps is forbidden: User \"jane\" cannot create resource \"deployments\" \
             in API group \"apps\" at the cluster scope: RBAC: role lost"
        );
    }
}
