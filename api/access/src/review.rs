//! Reviews: questions about users and what they may do, answered and not stored.
//!
//! Source: `authorization.k8s.io/v1` and `authentication.k8s.io/v1`.

use nautilus_machinery::identity::User;
use nautilus_machinery::selector::{FieldTerm, LabelSelector, field_terms};
use nautilus_machinery::status::ApiError;
use nautilus_machinery::validation::Errors;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::Decision;
use crate::attributes::Attributes;
use crate::rbac::Rule;

/// The group of access reviews.
const GROUP: &str = "authorization.k8s.io";

/// Which access review is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked<'a> {
    /// `SelfSubjectAccessReview`.
    Own,
    /// `SubjectAccessReview`.
    Other,
    /// `LocalSubjectAccessReview`, in the path's namespace.
    Local(&'a str),
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    resource_attributes: Option<ResourceAttributes>,
    non_resource_attributes: Option<PathAttributes>,
    user: String,
    groups: Vec<String>,
    uid: String,
    extra: std::collections::BTreeMap<String, Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResourceAttributes {
    namespace: String,
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    name: String,
    field_selector: Option<Selector>,
    label_selector: Option<Selector>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Selector {
    raw_selector: String,
    requirements: Vec<Requirement>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Requirement {
    key: String,
    operator: String,
    values: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PathAttributes {
    path: String,
    verb: String,
}

/// Answers an access review for `asker`: the object with its status.
pub fn access(
    asked: Asked<'_>,
    review: &Value,
    asker: &User,
    authorize: &dyn Fn(&User, &Attributes) -> Decision,
) -> Result<Value, ApiError> {
    let spec: Spec = match &review["spec"] {
        Value::Null => Spec::default(),
        spec => serde_json::from_value(spec.clone())
            .map_err(|error| ApiError::bad_request(error.to_string()))?,
    };
    validate(asked, review, &spec)?;
    let user = match asked {
        Asked::Own => asker.clone(),
        Asked::Other | Asked::Local(_) => User {
            name: spec.user,
            uid: spec.uid,
            groups: spec.groups,
            extra: spec.extra,
        },
    };
    let mut notes = Vec::new();
    let attributes = match (spec.resource_attributes, spec.non_resource_attributes) {
        (Some(resource), _) => resource.into_attributes(&mut notes),
        (None, path) => {
            let path = path.unwrap_or_default();
            Attributes {
                verb: path.verb,
                path: path.path,
                ..Attributes::default()
            }
        }
    };
    let decision = authorize(&user, &attributes);
    let mut status = Map::new();
    status.insert("allowed".to_owned(), decision.is_allowed().into());
    if !decision.reason().is_empty() {
        status.insert("reason".to_owned(), decision.reason().into());
    }
    if !notes.is_empty() {
        status.insert("evaluationError".to_owned(), notes.join("; ").into());
    }
    Ok(with_status(review, Value::Object(status)))
}

/// The review as it came, with this status.
fn with_status(review: &Value, status: Value) -> Value {
    let mut answer = review.clone();
    if answer["metadata"].is_null() {
        answer["metadata"] = json!({});
    }
    if answer["spec"].is_null() {
        answer["spec"] = json!({});
    }
    answer["status"] = status;
    answer
}

fn validate(asked: Asked<'_>, review: &Value, spec: &Spec) -> Result<(), ApiError> {
    const ONE: &str =
        "exactly one of nonResourceAttributes or resourceAttributes must be specified";
    let mut errors = Errors::new();
    if spec.resource_attributes.is_some() == spec.non_resource_attributes.is_some() {
        let value = spec.non_resource_attributes.as_ref();
        let value = value.map_or(Value::Null, PathAttributes::in_go);
        errors.invalid("spec", &value, ONE);
    }
    if asked != Asked::Own && spec.user.is_empty() && spec.groups.is_empty() {
        let detail = "at least one of user or group must be specified";
        errors.invalid_text("spec.user", "", detail);
    }
    if let Some(resource) = &spec.resource_attributes {
        for (name, selector) in [
            ("fieldSelector", &resource.field_selector),
            ("labelSelector", &resource.label_selector),
        ] {
            if let Some(selector) = selector {
                selector.validate(&format!("spec.resourceAttributes.{name}"), &mut errors);
            }
        }
    }
    let mut metadata = review["metadata"].clone();
    if let Some(fields) = metadata.as_object_mut() {
        fields.shift_remove("managedFields");
        if asked != Asked::Own {
            fields.retain(|key, _| !(key == "namespace" && matches!(asked, Asked::Local(_))));
        }
        if !fields.is_empty() {
            let detail = match asked {
                Asked::Local(_) => "must be empty except for namespace",
                _ => "must be empty",
            };
            errors.invalid("metadata", &review["metadata"], detail);
        }
    }
    if let Asked::Local(namespace) = asked {
        if let Some(resource) = &spec.resource_attributes
            && resource.namespace != namespace
        {
            let path = "spec.resourceAttributes.namespace";
            errors.invalid_text(path, &resource.namespace, "must match metadata.namespace");
        }
        if let Some(path) = &spec.non_resource_attributes {
            let detail = "disallowed on this kind of request";
            errors.invalid("spec.nonResourceAttributes", &path.in_go(), detail);
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    let causes = errors.into_causes();
    Err(ApiError::invalid_kind(
        &format!(".{GROUP}"),
        GROUP,
        "",
        "",
        causes,
    ))
}

impl PathAttributes {
    /// As the reference's messages show it.
    fn in_go(&self) -> Value {
        json!({ "Path": self.path, "Verb": self.verb })
    }
}

impl Selector {
    fn validate(&self, path: &str, errors: &mut Errors) {
        match (self.raw_selector.is_empty(), self.requirements.is_empty()) {
            (false, false) => errors.invalid_text(
                &format!("{path}.rawSelector"),
                &self.raw_selector,
                "may not specified at the same time as requirements",
            ),
            (true, true) => errors.required(
                &format!("{path}.requirements"),
                &format!("when {path} is specified, requirements or rawSelector is required"),
            ),
            _ => {}
        }
        for (at, requirement) in self.requirements.iter().enumerate() {
            let path = format!("{path}.requirements[{at}]");
            let none = requirement.values.is_empty();
            match requirement.operator.as_str() {
                "In" | "NotIn" if none => errors.required(
                    &format!("{path}.values"),
                    "must be specified when `operator` is 'In' or 'NotIn'",
                ),
                "Exists" | "DoesNotExist" if !none => errors.forbidden(
                    &format!("{path}.values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ),
                _ => {}
            }
            if requirement.key.is_empty() {
                errors.required(&format!("{path}.key"), "must be specified");
            }
        }
    }

    /// The terms that can be read, and whether all could.
    fn fields(&self) -> (Vec<FieldTerm>, bool) {
        if !self.raw_selector.is_empty() {
            return match field_terms(&self.raw_selector) {
                Ok(terms) => (terms, true),
                Err(_) => (Vec::new(), false),
            };
        }
        let mut terms = Vec::new();
        for requirement in &self.requirements {
            if let ("In" | "NotIn", [value]) =
                (requirement.operator.as_str(), requirement.values.as_slice())
            {
                terms.push(FieldTerm {
                    field: requirement.key.clone(),
                    equal: requirement.operator == "In",
                    value: value.clone(),
                });
            }
        }
        let whole = terms.len() == self.requirements.len();
        (terms, whole)
    }

    /// Terms of a label selector that can be read, and whether all could.
    fn labels(&self) -> (usize, bool) {
        if !self.raw_selector.is_empty() {
            let whole = LabelSelector::parse(&self.raw_selector).is_ok();
            return (0, whole);
        }
        let known = |requirement: &&Requirement| {
            ["In", "NotIn", "Exists", "DoesNotExist"].contains(&requirement.operator.as_str())
        };
        let count = self.requirements.iter().filter(known).count();
        (count, count == self.requirements.len())
    }
}

impl ResourceAttributes {
    fn into_attributes(self, notes: &mut Vec<String>) -> Attributes {
        let mut note = |name: &str, read: usize, whole: bool| {
            if !whole {
                let how = if read > 0 {
                    "partially ignored"
                } else {
                    "ignored"
                };
                notes.push(format!(
                    "spec.resourceAttributes.{name} {how} due to parse error"
                ));
            }
        };
        let mut fields = Vec::new();
        if let Some(selector) = &self.field_selector {
            let (terms, whole) = selector.fields();
            note("fieldSelector", terms.len(), whole);
            fields = terms;
        }
        if let Some(selector) = &self.label_selector {
            let (read, whole) = selector.labels();
            note("labelSelector", read, whole);
        }
        Attributes {
            verb: self.verb,
            is_resource: true,
            group: self.group,
            version: if self.version.is_empty() {
                "*".to_owned()
            } else {
                self.version
            },
            resource: self.resource,
            subresource: self.subresource,
            namespace: self.namespace,
            name: self.name,
            path: String::new(),
            fields,
        }
    }
}

/// The namespace that a `SelfSubjectRulesReview` asks about.
pub fn rules_namespace(review: &Value) -> Result<&str, ApiError> {
    review["spec"]["namespace"]
        .as_str()
        .filter(|namespace| !namespace.is_empty())
        .ok_or_else(|| ApiError::bad_request("no namespace on request"))
}

/// The answer to a `SelfSubjectRulesReview`; `error` says why the rules may not be all.
pub fn rules(rules: &[Rule], incomplete: bool, error: &str) -> Value {
    let mut status = json!({
        "resourceRules": [],
        "nonResourceRules": [],
        "incomplete": incomplete,
    });
    for rule in rules {
        if !rule.resources.is_empty() {
            let mut item = json!({
                "verbs": rule.verbs,
                "apiGroups": rule.api_groups,
                "resources": rule.resources,
            });
            if !rule.resource_names.is_empty() {
                item["resourceNames"] = json!(rule.resource_names);
            }
            push(&mut status["resourceRules"], item);
        }
        if !rule.non_resource_urls.is_empty() {
            let item = json!({ "verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls });
            push(&mut status["nonResourceRules"], item);
        }
    }
    if !error.is_empty() {
        status["evaluationError"] = error.into();
    }
    json!({
        "kind": "SelfSubjectRulesReview",
        "apiVersion": format!("{GROUP}/v1"),
        "metadata": {},
        "spec": {},
        "status": status,
    })
}

fn push(list: &mut Value, item: Value) {
    if let Some(list) = list.as_array_mut() {
        list.push(item);
    }
}

/// A user as `authentication.k8s.io/v1` shows it: empty fields are left out.
pub fn user_info(user: &User) -> Value {
    let mut info = Map::new();
    let mut put = |key: &str, value: Value, empty: bool| {
        if !empty {
            info.insert(key.to_owned(), value);
        }
    };
    put("username", user.name.as_str().into(), user.name.is_empty());
    put("uid", user.uid.as_str().into(), user.uid.is_empty());
    put("groups", json!(user.groups), user.groups.is_empty());
    put("extra", json!(user.extra), user.extra.is_empty());
    Value::Object(info)
}

/// The answer to a `SelfSubjectReview`, made at `now` (RFC 3339).
pub fn whoami(api_version: &str, user: &User, now: &str) -> Value {
    json!({
        "kind": "SelfSubjectReview",
        "apiVersion": api_version,
        "metadata": { "creationTimestamp": now },
        "status": { "userInfo": user_info(user) },
    })
}

/// The token that a `TokenReview` asks about, and for which audiences (empty: the
/// API's own).
pub fn token_asked(review: &Value) -> Result<(&str, Vec<String>), ApiError> {
    let token = review["spec"]["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(ApiError::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let audiences = review["spec"]["audiences"].as_array();
    let audiences = audiences
        .into_iter()
        .flatten()
        .filter_map(|audience| audience.as_str().map(str::to_owned))
        .collect();
    Ok((token, audiences))
}

/// The answer to a `TokenReview`: the user and the audiences that count, or why not.
pub fn token_answer(review: &Value, judged: Result<(&User, &[String]), &str>) -> Value {
    let status = match judged {
        Ok((user, audiences)) => {
            let mut status = json!({ "authenticated": true, "user": user_info(user) });
            if !audiences.is_empty() {
                status["audiences"] = json!(audiences);
            }
            status
        }
        Err("") => json!({ "user": {} }),
        Err(why) => json!({ "user": {}, "error": why }),
    };
    with_status(review, status)
}
