//! Expressions about a request: what they may name, and the values of those names.
//!
//! Source: the documentation of match conditions and of admission policies.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use nautilus_cel::{
    Authorizer, Bindings, Budget, Check, Declaration, Environment, EvalError, Field, Program, Type,
    Value as Cel, authorizer_value, resource_check_value,
};
use nautilus_machinery::resource::Resource;
use serde_json::Value;

use crate::attributes::{Attributes, Operation};
use crate::values::{aggregate, items, text};

/// Cost of all match conditions of one webhook or policy together.
pub const MATCH_CONDITIONS_COST: u64 = 2_500_000;

/// What an expression may name beside the request and its objects.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names {
    /// `params`.
    pub params: bool,
    /// `authorizer`.
    pub authorizer: bool,
    /// `namespaceObject`.
    pub namespace: bool,
}

fn object(name: &str, fields: &[(&str, Declaration)]) -> Declaration {
    let fields = fields.iter().map(|(key, declaration)| {
        let field = Field {
            key: (*key).to_owned(),
            declaration: declaration.clone(),
        };
        ((*key).to_owned(), field)
    });
    Declaration::object(name, fields.collect::<BTreeMap<_, _>>())
}

fn string() -> Declaration {
    Declaration::string(None)
}

fn time() -> Declaration {
    let mut time = string();
    time.shape = nautilus_cel::Shape::Timestamp;
    time
}

fn texts() -> Declaration {
    Declaration::list(string(), None)
}

/// `AdmissionRequest`.
static REQUEST: LazyLock<Declaration> = LazyLock::new(|| {
    let kind = object(
        "kubernetes.GroupVersionKind",
        &[
            ("group", string()),
            ("version", string()),
            ("kind", string()),
        ],
    );
    let resource = object(
        "kubernetes.GroupVersionResource",
        &[
            ("group", string()),
            ("version", string()),
            ("resource", string()),
        ],
    );
    let user = object(
        "kubernetes.UserInfo",
        &[
            ("username", string()),
            ("uid", string()),
            ("groups", texts()),
            ("extra", Declaration::map(texts(), None)),
        ],
    );
    object(
        "kubernetes.AdmissionRequest",
        &[
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", string()),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", string()),
            ("name", string()),
            ("namespace", string()),
            ("operation", string()),
            ("userInfo", user),
            ("dryRun", Declaration::bool()),
            ("options", Declaration::dynamic()),
        ],
    )
});

/// `Namespace`, without what is nobody's business.
static NAMESPACE: LazyLock<Declaration> = LazyLock::new(|| {
    let labels = || Declaration::map(string(), None);
    let metadata = object(
        "kubernetes.NamespaceMetadata",
        &[
            ("name", string()),
            ("generateName", string()),
            ("namespace", string()),
            ("labels", labels()),
            ("annotations", labels()),
            ("UID", string()),
            ("creationTimestamp", time()),
            ("deletionGracePeriodSeconds", Declaration::int()),
            ("deletionTimestamp", time()),
            ("generation", Declaration::int()),
            ("resourceVersion", string()),
            ("finalizers", texts()),
        ],
    );
    let condition = object(
        "kubernetes.NamespaceCondition",
        &[
            ("status", string()),
            ("type", string()),
            ("lastTransitionTime", time()),
            ("message", string()),
            ("reason", string()),
        ],
    );
    let status = object(
        "kubernetes.NamespaceStatus",
        &[
            ("conditions", Declaration::list(condition, None)),
            ("phase", string()),
        ],
    );
    let spec = object("kubernetes.NamespaceSpec", &[("finalizers", texts())]);
    object(
        "kubernetes.Namespace",
        &[("metadata", metadata), ("spec", spec), ("status", status)],
    )
});

/// What the names stand for.
pub fn environment(names: Names) -> Environment {
    let mut environment = Environment::kubernetes();
    environment.declare("object", Declaration::dynamic());
    environment.declare("oldObject", Declaration::dynamic());
    environment.declare("request", REQUEST.clone());
    if names.params {
        environment.declare("params", Declaration::dynamic());
    }
    if names.namespace {
        environment.declare("namespaceObject", NAMESPACE.clone());
    }
    if names.authorizer {
        let authorizer = Type::Opaque("kubernetes.authorization.Authorizer");
        let check = Type::Opaque("kubernetes.authorization.ResourceCheck");
        environment.declare("authorizer", Declaration::other(authorizer));
        environment.declare("authorizer.requestResource", Declaration::other(check));
    }
    environment
}

/// The values of one request.
#[derive(Debug, Clone)]
pub struct Input<'a> {
    /// The object; `None` of a deletion.
    pub object: Option<&'a Value>,
    /// What it was before; `None` of a creation.
    pub old: Option<&'a Value>,
    /// See [`crate::review::request`].
    pub request: &'a Value,
    /// The namespace the object is in.
    pub namespace: Option<&'a Value>,
    /// The parameters of a binding.
    pub params: Option<&'a Value>,
    /// Who decides what the requester may do.
    pub authorizer: Arc<dyn Authorizer>,
    /// The question whether the request is allowed.
    pub check: Check,
}

/// The question whether the request itself is allowed.
pub fn request_check(asked: &Attributes<'_>, matched: &Resource) -> Check {
    let verb = match asked.operation {
        Operation::Create => "create",
        Operation::Update => "update",
        Operation::Delete => "delete",
        Operation::Connect => "connect",
    };
    Check {
        verb: verb.to_owned(),
        group: matched.group.to_string(),
        resource: matched.plural.to_string(),
        subresource: asked.subresource.unwrap_or_default().to_owned(),
        namespace: asked.namespace.unwrap_or_default().to_owned(),
        name: asked.name.to_owned(),
        ..Check::default()
    }
}

/// Binds the names to a request's values.
pub fn bindings<'a>(input: &Input<'a>) -> Result<Bindings<'a>, EvalError> {
    let dynamic = Declaration::dynamic();
    let or_null = |value: Option<&'a Value>, declared: &Declaration| match value {
        Some(value) => Cel::from_json(value, declared),
        None => Ok(Cel::Null),
    };
    let mut bindings = Bindings::default();
    bindings.set("object", or_null(input.object, &dynamic)?);
    bindings.set("oldObject", or_null(input.old, &dynamic)?);
    bindings.set("request", or_null(Some(input.request), &REQUEST)?);
    bindings.set("namespaceObject", or_null(input.namespace, &NAMESPACE)?);
    bindings.set("params", or_null(input.params, &dynamic)?);
    bindings.set("authorizer", authorizer_value(input.authorizer.clone()));
    bindings.set(
        "authorizer.requestResource",
        resource_check_value(input.authorizer.clone(), input.check.clone()),
    );
    Ok(bindings)
}

/// One expression, compiled; or why it was not.
#[derive(Debug, Clone)]
pub struct Expression {
    /// Its text.
    pub source: String,
    program: Result<Program, String>,
}

impl Expression {
    /// Compiles a text whose value must be of one of `results`.
    pub fn new(source: &str, environment: &Environment, results: &[Type]) -> Self {
        Self {
            source: source.to_owned(),
            program: Program::compile(source, environment, results)
                .map_err(|error| format!("compilation error: compilation failed: {error}")),
        }
    }

    /// Its value; the error in the reference's words.
    pub fn evaluate<'a>(
        &self,
        bindings: &Bindings<'a>,
        budget: &mut Budget,
    ) -> Result<Cel<'a>, String> {
        let program = self.program.as_ref().map_err(Clone::clone)?;
        let value = program.evaluate(bindings, budget);
        if budget.is_exhausted() {
            return Err(
                "validation failed due to running out of cost budget, no further \
                        validation rules will be run"
                    .to_owned(),
            );
        }
        value.map_err(|error| format!("expression '{}' resulted in error: {error}", self.source))
    }
}

/// The match conditions of a webhook or policy.
#[derive(Debug, Clone)]
pub struct Conditions(Vec<(String, Expression)>);

/// What they say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All of them hold.
    Matches,
    /// One of them does not.
    Skips,
    /// None is false, and some could not be evaluated.
    Fails(String),
}

impl Conditions {
    /// Reads a list of names and expressions.
    pub fn of(list: &Value, environment: &Environment) -> Self {
        let condition = |one: &Value| {
            let source = text(&one["expression"]);
            let expression = Expression::new(source, environment, &[Type::Bool]);
            (text(&one["name"]).to_owned(), expression)
        };
        Self(items(list).map(condition).collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Judges a request.
    pub fn judge(&self, bindings: &Bindings<'_>) -> Verdict {
        let mut budget = Budget::new(MATCH_CONDITIONS_COST);
        let mut errors = Vec::new();
        for (_, expression) in &self.0 {
            match expression.evaluate(bindings, &mut budget) {
                Ok(value) if value.as_bool() == Some(false) => return Verdict::Skips,
                Ok(_) => {}
                Err(error) => errors.push(error),
            }
        }
        aggregate(errors).map_or(Verdict::Matches, Verdict::Fails)
    }
}
