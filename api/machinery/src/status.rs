//! Errors as `meta.k8s.io` `Status` objects: the one place where codes, reasons
//! and the phrases that clients match are written.
//!
//! Source of reasons and details: the `Status` type of the release served
//! (`k8s.io/apimachinery/pkg/apis/meta/v1`).

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::resource::Resource;

mod details;
mod server_response;

pub use self::details::Cause;
use self::details::Details;

/// A refusal as the client will see it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    code: u16,
    reason: Cow<'static, str>,
    message: String,
    /// `None`: no `details` at all.
    details: Option<Box<Details>>,
}

impl ApiError {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: Cow::Borrowed(reason),
            message: message.into(),
            details: None,
        }
    }

    /// A refusal that another server gave: its code, reason, words and `details`.
    pub fn given(code: u16, reason: &str, message: &str, details: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let causes = details["causes"].as_array().into_iter().flatten();
        Self {
            code,
            reason: Cow::Owned(reason.to_owned()),
            message: message.to_owned(),
            details: details.is_object().then(|| {
                Box::new(Details {
                    name: text(&details["name"]),
                    group: text(&details["group"]),
                    kind: text(&details["kind"]),
                    uid: text(&details["uid"]),
                    causes: causes
                        .map(|cause| Cause {
                            field: text(&cause["field"]),
                            reason: text(&cause["reason"]),
                            message: text(&cause["message"]),
                        })
                        .collect(),
                    retry_after_seconds: details["retryAfterSeconds"]
                        .as_u64()
                        .and_then(|seconds| u32::try_from(seconds).ok())
                        .unwrap_or(0),
                })
            }),
        }
    }

    /// The same error with another code and reason.
    #[must_use]
    pub fn with_code(mut self, code: u16, reason: &str) -> Self {
        self.code = code;
        self.reason = Cow::Owned(reason.to_owned());
        self
    }

    fn of(
        resource: &Resource,
        name: &str,
        code: u16,
        reason: &'static str,
        message: String,
    ) -> Self {
        let details = Details {
            name: name.to_owned(),
            group: resource.group.to_owned(),
            kind: resource.plural.to_owned(),
            ..Details::default()
        };
        Self {
            code,
            reason: Cow::Borrowed(reason),
            message,
            details: Some(Box::new(details)),
        }
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401: no valid credential.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403: `user` may not do `verb` on a resource; `subresource` may be empty, as may `name`.
    pub fn forbidden(
        user: &str,
        verb: &str,
        resource: &Resource,
        subresource: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Self {
        let plural = if subresource.is_empty() {
            resource.plural.to_owned()
        } else {
            format!("{}/{subresource}", resource.plural)
        };
        let scope = match namespace {
            Some(namespace) if !namespace.is_empty() => {
                format!("in the namespace {}", quote(namespace))
            }
            _ => "at the cluster scope".to_owned(),
        };
        let why = format!(
            "User {} cannot {verb} resource {} in API group {} {scope}",
            quote(user),
            quote(&plural),
            quote(&resource.group),
        );
        Self::forbidden_because(resource, name, &why)
    }

    /// 403 on a resource, for a reason in words.
    pub fn forbidden_because(resource: &Resource, name: &str, why: &str) -> Self {
        let subject = resource.qualified();
        let message = if name.is_empty() {
            format!("{subject} is forbidden: {why}")
        } else {
            format!("{subject} {} is forbidden: {why}", quote(name))
        };
        Self::of(resource, name, 403, "Forbidden", message)
    }

    /// 403 on a resource by its names (each may be empty), for a reason in words.
    pub fn forbidden_on(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let subject = match (plural, group) {
            ("", _) => String::new(),
            (plural, "") => plural.to_owned(),
            (plural, group) => format!("{plural}.{group}"),
        };
        let message = match (subject.as_str(), name) {
            ("", _) => format!("forbidden: {why}"),
            (subject, "") => format!("{subject} is forbidden: {why}"),
            (subject, name) => format!("{subject} {} is forbidden: {why}", quote(name)),
        };
        let mut error = Self::new(403, "Forbidden", message);
        error.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: plural.to_owned(),
            ..Details::default()
        }));
        error
    }

    /// 403 on a path that is no resource.
    pub fn forbidden_path(user: &str, verb: &str, path: &str) -> Self {
        let message = format!(
            "forbidden: User {} cannot {verb} path {}",
            quote(user),
            quote(path)
        );
        let mut error = Self::new(403, "Forbidden", message);
        error.details = Some(Box::default());
        error
    }

    /// 404: no such object.
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {} not found", resource.qualified(), quote(name));
        Self::of(resource, name, 404, "NotFound", message)
    }

    /// 404: no such object of a kind known by its names.
    pub fn not_found_on(group: &str, plural: &str, name: &str) -> Self {
        let subject = if group.is_empty() {
            plural.to_owned()
        } else {
            format!("{plural}.{group}")
        };
        let message = format!("{subject} {} not found", quote(name));
        let mut error = Self::new(404, "NotFound", message);
        error.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: plural.to_owned(),
            ..Details::default()
        }));
        error
    }

    /// 404: no such path or resource.
    pub fn path_not_found() -> Self {
        let mut error = Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        );
        error.details = Some(Box::default());
        error
    }

    /// 409: an object of that name exists.
    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {} already exists", resource.qualified(), quote(name));
        Self::of(resource, name, 409, "AlreadyExists", message)
    }

    /// 409: the resourceVersion given is not the present one.
    pub fn conflict(resource: &Resource, name: &str) -> Self {
        Self::conflict_with(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and \
             try again",
        )
    }

    /// 409 for another reason.
    pub fn conflict_with(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {}: {why}",
            resource.qualified(),
            quote(name)
        );
        Self::of(resource, name, 409, "Conflict", message)
    }

    /// 409 for another reason, of an object that is called by its kind.
    pub fn conflict_of_kind(resource: &Resource, name: &str, why: &str) -> Self {
        let kind = match resource.group.as_str() {
            "" => resource.kind.clone(),
            group => format!("{}.{group}", resource.kind),
        };
        let mut error = Self::conflict_on(&kind, name, why);
        let details = error.details.get_or_insert_default();
        details.group.clone_from(&resource.group);
        details.kind.clone_from(&resource.kind);
        error
    }

    /// 409 on a subresource, named as `pods/binding`.
    pub fn conflict_on(kind: &str, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {kind} {}: {why}",
            quote(name)
        );
        let mut error = Self::new(409, "Conflict", message);
        error.details = Some(Box::new(Details {
            name: name.to_owned(),
            kind: kind.to_owned(),
            ..Details::default()
        }));
        error
    }

    /// 409: an apply would change what other managers own; each cause names a field.
    pub fn apply_conflict(message: impl Into<String>, causes: Vec<Cause>) -> Self {
        let mut error = Self::new(409, "Conflict", message);
        error.details = Some(Box::new(Details {
            causes,
            ..Details::default()
        }));
        error
    }

    /// 500 without a reason: what the reference says of errors it has no word for.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(500, "", message)
    }

    /// 422: the object breaks rules; each cause names a field.
    pub fn invalid(resource: &Resource, name: &str, causes: Vec<Cause>) -> Self {
        let kind = if resource.group.is_empty() {
            resource.kind.clone()
        } else {
            format!("{}.{}", resource.kind, resource.group)
        };
        Self::invalid_kind(&kind, &resource.group, &resource.kind, name, causes)
    }

    /// 422 for a kind that has no entry in the table; `qualified` is how the message
    /// calls it.
    pub fn invalid_kind(
        qualified: &str,
        group: &str,
        kind: &str,
        name: &str,
        causes: Vec<Cause>,
    ) -> Self {
        let mut seen: Vec<String> = Vec::new();
        for cause in &causes {
            let text = format!("{}: {}", cause.field, cause.message);
            if !seen.contains(&text) {
                seen.push(text);
            }
        }
        let what = match seen.len() {
            0 => String::new(),
            1 => format!(": {}", seen[0]),
            _ => format!(": [{}]", seen.join(", ")),
        };
        let mut error = Self::new(
            422,
            "Invalid",
            format!("{qualified} {} is invalid{what}", quote(name)),
        );
        error.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: kind.to_owned(),
            causes,
            ..Details::default()
        }));
        error
    }

    /// 422: a request's options (as `DeleteOptions`) break rules.
    pub fn invalid_options(kind: &str, causes: Vec<Cause>) -> Self {
        Self::invalid_kind(
            &format!("{kind}.meta.k8s.io"),
            "meta.k8s.io",
            kind,
            "",
            causes,
        )
    }

    /// 422: the request is well formed but can't be carried out (a JSON patch that
    /// does not fit the object).
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(422, "Invalid", message)
    }

    /// 410: the resourceVersion or continue token is too old.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 415: the body's media type is not one of those served.
    pub fn unsupported_media_type(served: &[&str]) -> Self {
        Self::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {}",
                served.join(", ")
            ),
        )
    }

    /// 406: no media type asked for is served.
    pub fn not_acceptable(served: &[&str]) -> Self {
        Self::new(
            406,
            "NotAcceptable",
            format!(
                "only the following media types are accepted: {}",
                served.join(", ")
            ),
        )
    }

    /// 405: the resource does not know the verb.
    pub fn method_not_allowed() -> Self {
        let mut error = Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        );
        error.details = Some(Box::default());
        error
    }

    /// 413: the body is larger than `limit_bytes`.
    pub fn too_large(limit_bytes: usize) -> Self {
        Self::new(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {limit_bytes}"),
        )
    }

    /// 429: try again later.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(429, "TooManyRequests", message).retry_after(retry_after_seconds)
    }

    /// 503: no quorum, or not ready.
    pub fn unavailable(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(503, "ServiceUnavailable", message).retry_after(retry_after_seconds)
    }

    /// 504: the outcome is not known.
    pub fn timeout(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let message = format!("Timeout: {}", message.into());
        Self::new(504, "Timeout", message).retry_after(retry_after_seconds)
    }

    /// 500: our own failure.
    pub fn internal(message: impl Into<String>) -> Self {
        let message = message.into();
        let mut error = Self::new(
            500,
            "InternalError",
            format!("Internal error occurred: {message}"),
        );
        error.details = Some(Box::new(Details {
            causes: vec![Cause {
                message,
                ..Cause::default()
            }],
            ..Details::default()
        }));
        error
    }

    /// The same error, telling the client when to come back.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// The same error with the object's uid among its details.
    #[must_use]
    pub fn with_uid(mut self, uid: &str) -> Self {
        self.details.get_or_insert_default().uid = uid.to_owned();
        self
    }

    /// The same error with another message.
    #[must_use]
    pub fn with_message(mut self, message: String) -> Self {
        self.message = message;
        self
    }

    /// The same error with one more cause.
    #[must_use]
    pub fn with_given_cause(mut self, cause: Cause) -> Self {
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// The same error with one more cause, which names no field.
    #[must_use]
    pub fn with_cause(mut self, message: &str) -> Self {
        let cause = Cause {
            message: message.to_owned(),
            ..Cause::default()
        };
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The reason: one CamelCase word.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The message for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The fields at fault, where there are any.
    pub fn causes(&self) -> &[Cause] {
        self.details.as_ref().map_or(&[], |details| &details.causes)
    }

    /// Seconds for a `Retry-After` header.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        self.details
            .as_ref()
            .map(|details| details.retry_after_seconds)
            .filter(|s| *s > 0)
    }

    /// The `Status` object.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        });
        if let Value::Object(map) = &mut status {
            if self.reason.is_empty() {
                map.shift_remove("reason");
            }
            if let Some(details) = &self.details {
                map.insert("details".to_owned(), details.to_value());
            }
            map.insert("code".to_owned(), json!(self.code));
        }
        status
    }
}

/// The `Status` of a successful delete: `details` names what was deleted.
pub fn deleted(resource: &Resource, name: &str, uid: &str) -> Value {
    let details = Details {
        name: name.to_owned(),
        group: resource.group.to_owned(),
        kind: resource.plural.to_owned(),
        uid: uid.to_owned(),
        ..Details::default()
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": details.to_value(),
    })
}

/// A bare successful `Status` with its code (as after a binding: 201).
pub fn success(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code})
}

/// Text in double quotes, escaped as Go's `%q` does for printable text.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            other if (other as u32) < 0x20 || other as u32 == 0x7f => {
                quoted.push_str(&format!("\\x{:02x}", other as u32));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests;
