//! Questions to the authorizer. Who decides is given by the caller through
//! [`Authorizer`]; this module only builds the question.

use std::sync::Arc;

use super::{Context, ONE, Outcome, Row, arg, text};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::limits::AUTHORIZE_COST;
use crate::value::{Opaque, Value};

const ASK: Cost = Cost::Fixed(AUTHORIZE_COST);

pub(super) const ROWS: &[Row] = &[
    ("path", "Authorizer.(string) -> PathCheck", ONE, path),
    ("group", "Authorizer.(string) -> GroupCheck", ONE, group),
    (
        "serviceAccount",
        "Authorizer.(string, string) -> Authorizer",
        ONE,
        service_account,
    ),
    (
        "resource",
        "GroupCheck.(string) -> ResourceCheck",
        ONE,
        resource,
    ),
    (
        "subresource",
        "ResourceCheck.(string) -> ResourceCheck",
        ONE,
        |args, _| narrowed(args, |check, text| check.subresource = text),
    ),
    (
        "namespace",
        "ResourceCheck.(string) -> ResourceCheck",
        ONE,
        |args, _| narrowed(args, |check, text| check.namespace = text),
    ),
    (
        "name",
        "ResourceCheck.(string) -> ResourceCheck",
        ONE,
        |args, _| narrowed(args, |check, text| check.name = text),
    ),
    (
        "fieldSelector",
        "ResourceCheck.(string) -> ResourceCheck",
        Cost::Selector,
        |args, _| narrowed(args, |check, text| check.field_selector = text),
    ),
    (
        "labelSelector",
        "ResourceCheck.(string) -> ResourceCheck",
        Cost::Selector,
        |args, _| narrowed(args, |check, text| check.label_selector = text),
    ),
    ("check", "PathCheck.(string) -> Decision", ASK, check),
    ("check", "ResourceCheck.(string) -> Decision", ASK, check),
    ("errored", "Decision.() -> bool", ONE, |args, _| {
        Ok(Value::Bool(decision(args)?.error.is_some()))
    }),
    ("error", "Decision.() -> string", ONE, |args, _| {
        Ok(Value::text(
            decision(args)?.error.as_deref().unwrap_or_default(),
        ))
    }),
    ("allowed", "Decision.() -> bool", ONE, |args, _| {
        Ok(Value::Bool(decision(args)?.allowed))
    }),
    ("reason", "Decision.() -> string", ONE, |args, _| {
        Ok(Value::text(&decision(args)?.reason))
    }),
];

/// Who decides what is allowed.
pub trait Authorizer: std::fmt::Debug + Send + Sync {
    /// The answer to one question. Must not wait.
    fn authorize(&self, check: &Check) -> Decision;
}

/// Whose rights are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Subject {
    /// The one who made the request.
    #[default]
    Requester,
    /// A service account.
    ServiceAccount {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// A question: a path, or a resource.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Check {
    /// Whose rights.
    pub subject: Subject,
    /// As `get`, or an HTTP method in lower case for a path.
    pub verb: String,
    /// A path that is no resource; none for a resource.
    pub path: Option<String>,
    /// The resource's group.
    pub group: String,
    /// The resource.
    pub resource: String,
    /// Its subresource, if any.
    pub subresource: String,
    /// The namespace, if any.
    pub namespace: String,
    /// The name, if any.
    pub name: String,
    /// A field selector as text, if any.
    pub field_selector: String,
    /// A label selector as text, if any.
    pub label_selector: String,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why.
    pub reason: String,
    /// What went wrong on the way, if anything.
    pub error: Option<String>,
}

/// A question under way, or its answer.
#[derive(Clone, Debug)]
pub enum AuthorizerValue {
    /// Nothing asked yet, but for whom.
    Authorizer(Arc<dyn Authorizer>, Subject),
    /// About a path.
    Path(Arc<dyn Authorizer>, Arc<Check>),
    /// About a group.
    Group(Arc<dyn Authorizer>, Arc<Check>),
    /// About a resource.
    Resource(Arc<dyn Authorizer>, Arc<Check>),
    /// Answered.
    Decision(Arc<Decision>),
}

impl AuthorizerValue {
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Authorizer(..) => "kubernetes.authorization.Authorizer",
            Self::Path(..) => "kubernetes.authorization.PathCheck",
            Self::Group(..) => "kubernetes.authorization.GroupCheck",
            Self::Resource(..) => "kubernetes.authorization.ResourceCheck",
            Self::Decision(_) => "kubernetes.authorization.Decision",
        }
    }
}

/// The variable `authorizer`.
pub fn authorizer_value<'a>(authorizer: Arc<dyn Authorizer>) -> Value<'a> {
    value(AuthorizerValue::Authorizer(authorizer, Subject::Requester))
}

/// The variable `authorizer.requestResource`: a question about what the request is about.
pub fn resource_check_value<'a>(authorizer: Arc<dyn Authorizer>, check: Check) -> Value<'a> {
    value(AuthorizerValue::Resource(authorizer, Arc::new(check)))
}

fn value<'a>(of: AuthorizerValue) -> Value<'a> {
    Value::Opaque(Opaque::Authorizer(of))
}

fn receiver<'v>(args: &'v [Value<'_>]) -> Result<&'v AuthorizerValue, EvalError> {
    match arg(args, 0)? {
        Value::Opaque(Opaque::Authorizer(of)) => Ok(of),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn decision<'v>(args: &'v [Value<'_>]) -> Result<&'v Decision, EvalError> {
    match receiver(args)? {
        AuthorizerValue::Decision(decision) => Ok(decision),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn path<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let AuthorizerValue::Authorizer(authorizer, subject) = receiver(args)? else {
        return Err(EvalError::no_such_overload());
    };
    let path = text(args, 1)?;
    if path.trim().is_empty() {
        return Err(EvalError::failed("path must not be empty"));
    }
    let check = Check {
        subject: subject.clone(),
        path: Some(path.to_owned()),
        ..Check::default()
    };
    Ok(value(AuthorizerValue::Path(
        Arc::clone(authorizer),
        Arc::new(check),
    )))
}

fn group<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let AuthorizerValue::Authorizer(authorizer, subject) = receiver(args)? else {
        return Err(EvalError::no_such_overload());
    };
    let check = Check {
        subject: subject.clone(),
        group: text(args, 1)?.to_owned(),
        ..Check::default()
    };
    Ok(value(AuthorizerValue::Group(
        Arc::clone(authorizer),
        Arc::new(check),
    )))
}

fn service_account<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let AuthorizerValue::Authorizer(authorizer, _) = receiver(args)? else {
        return Err(EvalError::no_such_overload());
    };
    let (namespace, name) = (text(args, 1)?, text(args, 2)?);
    let wrong = nautilus_machinery::validation::NameRule::DnsSubdomain.check(name, false);
    if !wrong.is_empty() {
        return Err(EvalError::failed("Invalid service account name"));
    }
    let wrong = nautilus_machinery::validation::dns_label(namespace);
    if !wrong.is_empty() {
        return Err(EvalError::failed("Invalid service account namespace"));
    }
    let subject = Subject::ServiceAccount {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    Ok(value(AuthorizerValue::Authorizer(
        Arc::clone(authorizer),
        subject,
    )))
}

fn resource<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let AuthorizerValue::Group(authorizer, check) = receiver(args)? else {
        return Err(EvalError::no_such_overload());
    };
    let resource = text(args, 1)?;
    if resource.trim().is_empty() {
        return Err(EvalError::failed("resource must not be empty"));
    }
    let check = Check {
        resource: resource.to_owned(),
        ..(**check).clone()
    };
    Ok(value(AuthorizerValue::Resource(
        Arc::clone(authorizer),
        Arc::new(check),
    )))
}

fn narrowed<'a>(args: &[Value<'a>], set: fn(&mut Check, String)) -> Outcome<'a> {
    let AuthorizerValue::Resource(authorizer, check) = receiver(args)? else {
        return Err(EvalError::no_such_overload());
    };
    let mut check = (**check).clone();
    set(&mut check, text(args, 1)?.to_owned());
    Ok(value(AuthorizerValue::Resource(
        Arc::clone(authorizer),
        Arc::new(check),
    )))
}

fn check<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let (AuthorizerValue::Path(authorizer, check) | AuthorizerValue::Resource(authorizer, check)) =
        receiver(args)?
    else {
        return Err(EvalError::no_such_overload());
    };
    let check = Check {
        verb: text(args, 1)?.to_owned(),
        ..(**check).clone()
    };
    let decision = authorizer.authorize(&check);
    Ok(value(AuthorizerValue::Decision(Arc::new(decision))))
}
