//! The request as webhooks and expressions see it: `AdmissionReview` and its answer.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nautilus_machinery::resource::Resource;
use nautilus_machinery::review::ReviewVersion;
use nautilus_machinery::status::{ApiError, quote};
use serde_json::{Value, json};

use crate::attributes::{Attributes, Operation};
use crate::values::{items, text};

const GROUP: &str = "admission.k8s.io";

/// Group, version and kind of what the request brings.
fn kind_of(resource: &Resource, subresource: Option<&str>) -> Value {
    let own = subresource.and_then(|name| resource.subresource(name));
    match own {
        Some(own) if !own.kind.is_empty() => {
            json!({"group": own.group, "version": own.version, "kind": own.kind})
        }
        _ => json!({
            "group": resource.group, "version": resource.version, "kind": resource.kind,
        }),
    }
}

fn resource_of(resource: &Resource) -> Value {
    json!({
        "group": resource.group, "version": resource.version, "resource": resource.plural,
    })
}

/// The `AdmissionRequest` without uid and objects; `matched` is the form of the kind
/// that a rule named.
pub fn request(asked: &Attributes<'_>, matched: &Resource) -> Value {
    let mut request = json!({
        "kind": kind_of(matched, asked.subresource),
        "resource": resource_of(matched),
        "requestKind": kind_of(asked.resource, asked.subresource),
        "requestResource": resource_of(asked.resource),
        "name": asked.name,
        "operation": asked.operation.as_str(),
        "userInfo": user_info(asked),
        "dryRun": asked.dry_run,
        "options": options(asked),
    });
    if let Some(subresource) = asked.subresource {
        request["subResource"] = json!(subresource);
        request["requestSubResource"] = json!(subresource);
    }
    if let Some(namespace) = asked.namespace {
        request["namespace"] = json!(namespace);
    }
    request
}

fn user_info(asked: &Attributes<'_>) -> Value {
    let user = asked.user;
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

fn options(asked: &Attributes<'_>) -> Value {
    let kind = match asked.operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => return Value::Null,
    };
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if asked.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    if !asked.field_manager.is_empty() && asked.operation != Operation::Delete {
        options["fieldManager"] = json!(asked.field_manager);
    }
    options
}

/// The review that is sent. Objects are in the form of the kind that a rule named.
pub fn review(
    version: ReviewVersion,
    mut request: Value,
    uid: &str,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Value {
    request["uid"] = json!(uid);
    request["object"] = object.cloned().unwrap_or(Value::Null);
    request["oldObject"] = old.cloned().unwrap_or(Value::Null);
    json!({
        "kind": "AdmissionReview", "apiVersion": format!("{GROUP}/{}", version.as_str()),
        "request": request,
    })
}

/// What a webhook may do with the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It may answer with a patch.
    Mutating,
    /// It may not.
    Validating,
}

/// A webhook's answer.
#[derive(Debug, Default)]
pub struct Answer {
    /// Why it refuses, if it does.
    pub refused: Option<ApiError>,
    /// A JSON patch (RFC 6902), if it has one.
    pub patch: Option<Value>,
    /// What the client should hear.
    pub warnings: Vec<String>,
    /// What the audit log should hold, without the webhook's name.
    pub audit: BTreeMap<String, String>,
}

/// Reads an answer to the review of that uid; the error says what is wrong with it.
pub fn answer(
    version: ReviewVersion,
    name: &str,
    role: Role,
    uid: &str,
    review: &Value,
) -> Result<Answer, String> {
    let response = &review["response"];
    if !response.is_object() {
        return Err("webhook response was absent".to_owned());
    }
    let patch = match version {
        ReviewVersion::V1 => {
            check_origin(uid, review)?;
            patch(
                role,
                response["patchType"].as_str(),
                text(&response["patch"]),
            )?
        }
        // Whoever answers in this version need not say the type, and may say too much.
        ReviewVersion::V1Beta1 => match (role, text(&response["patch"])) {
            (Role::Validating, _) | (_, "") => None,
            (Role::Mutating, encoded) => patch(role, Some("JSONPatch"), encoded)?,
        },
    };
    Ok(Answer {
        refused: (response["allowed"] != true).then(|| refusal(name, &response["status"])),
        patch,
        warnings: items(&response["warnings"])
            .map(|warning| text(warning).to_owned())
            .collect(),
        audit: response["auditAnnotations"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), text(value).to_owned()))
            .collect(),
    })
}

/// Checks that an answer is of the version, and to the request, that was asked.
fn check_origin(uid: &str, review: &Value) -> Result<(), String> {
    let got = text(&review["response"]["uid"]);
    if got != uid {
        return Err(format!(
            "expected response.uid={}, got {}",
            quote(uid),
            quote(got)
        ));
    }
    let (kind, version) = (text(&review["kind"]), text(&review["apiVersion"]));
    if kind != "AdmissionReview" || version != format!("{GROUP}/v1") {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        return Err(format!(
            "expected webhook response of {GROUP}/v1, Kind=AdmissionReview, got \
             {group}/{version}, Kind={kind}"
        ));
    }
    Ok(())
}

fn patch(role: Role, kind: Option<&str>, encoded: &str) -> Result<Option<Value>, String> {
    match (role, encoded, kind) {
        (Role::Validating, "", None) | (Role::Mutating, "", None) => Ok(None),
        (Role::Validating, "", Some(_)) => {
            Err("validating webhook may not return response.patchType".to_owned())
        }
        (Role::Validating, ..) => {
            Err("validating webhook may not return response.patch".to_owned())
        }
        (Role::Mutating, "", Some(_)) => {
            Err("webhook returned response.patchType but not response.patch".to_owned())
        }
        (Role::Mutating, _, None) => {
            Err("webhook returned response.patch but not response.patchType".to_owned())
        }
        (Role::Mutating, _, Some("")) => {
            Err("webhook returned invalid response.patchType of \"\"".to_owned())
        }
        (Role::Mutating, encoded, Some("JSONPatch")) => {
            let wrong =
                |why: String| format!("received undecodable patch in webhook response: {why}");
            let bytes = BASE64
                .decode(encoded)
                .map_err(|error| wrong(error.to_string()))?;
            let patch: Value =
                serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
            let empty = patch.as_array().is_none_or(Vec::is_empty);
            Ok((!empty).then_some(patch))
        }
        (Role::Mutating, _, Some(other)) => Err(format!("unsupported patch type {}", quote(other))),
    }
}

/// The refusal in the reference's words, with the webhook's code and reason.
fn refusal(name: &str, status: &Value) -> ApiError {
    let denied = format!("admission webhook {} denied the request", quote(name));
    let (message, reason) = (text(&status["message"]), text(&status["reason"]));
    let message = match (message, reason) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    let code = status["code"]
        .as_u64()
        .and_then(|code| u16::try_from(code).ok())
        .filter(|code| *code >= 400)
        .unwrap_or(400);
    ApiError::given(code, reason, &message, &status["details"])
}

/// 400: the webhook has effects of its own and can't take part in a dry run.
pub fn no_dry_run(name: &str) -> ApiError {
    ApiError::bad_request(format!(
        "admission webhook {} does not support dry run",
        quote(name)
    ))
}

/// 500: the webhook could not be asked, or answered what makes no sense.
pub fn call_failed(name: &str, why: &str) -> ApiError {
    ApiError::internal(format!("failed calling webhook {}: {why}", quote(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(response: &Value) -> Result<Answer, String> {
        let review = json!({
            "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response,
        });
        let v1 = ReviewVersion::V1;
        answer(v1, "w.example.com", Role::Mutating, "u", &review)
    }

    #[test]
    fn a_refusal_carries_the_webhook_s_words_and_code() {
        let status = json!({"message": "too large", "code": 422, "reason": "Invalid"});
        let answer = answered(&json!({"uid": "u", "allowed": false, "status": status}));
        let refused = answer.expect("it is one").refused.expect("it refuses");
        assert_eq!(
            refused.message(),
            "admission webhook \"w.example.com\" denied the request: too large"
        );
        assert_eq!(refused.code(), 422);
        assert_eq!(refused.to_status()["reason"], "Invalid");
        let plain = answered(&json!({"uid": "u", "allowed": false}));
        let refused = plain.expect("it is one").refused.expect("it refuses");
        assert_eq!(
            refused.message(),
            "admission webhook \"w.example.com\" denied the request without explanation"
        );
        assert_eq!(refused.code(), 400);
    }

    #[test]
    fn an_answer_to_another_review_is_none() {
        let wrong = answered(&json!({"uid": "v", "allowed": true}));
        assert_eq!(
            wrong.expect_err("it is another's"),
            "expected response.uid=\"u\", got \"v\""
        );
    }

    #[test]
    fn the_old_version_is_read_as_it_comes() {
        let patch = BASE64.encode(r#"[{"op":"add","path":"/a","value":1}]"#);
        let review = json!({"response": {"uid": "v", "allowed": true, "patch": patch}});
        let answered = |role| answer(ReviewVersion::V1Beta1, "w.example.com", role, "u", &review);
        let mutating = answered(Role::Mutating).expect("it is one");
        assert_eq!(
            mutating.patch,
            Some(json!([{"op": "add", "path": "/a", "value": 1}]))
        );
        let validating = answered(Role::Validating).expect("it is one");
        assert_eq!(validating.patch, None);
        assert!(validating.refused.is_none());
    }

    #[test]
    fn a_patch_needs_its_type() {
        let patch = BASE64.encode(r#"[{"op":"add","path":"/a","value":1}]"#);
        let typed = json!({"uid": "u", "allowed": true, "patch": patch, "patchType": "JSONPatch"});
        assert!(answered(&typed).expect("it is one").patch.is_some());
        let bare = json!({"uid": "u", "allowed": true, "patch": patch});
        assert!(answered(&bare).is_err());
    }
}
