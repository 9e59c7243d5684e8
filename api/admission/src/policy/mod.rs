//! Admission policies in CEL: ValidatingAdmissionPolicy, MutatingAdmissionPolicy, and
//! the bindings that put them to work.
//!
//! Source: KEP-3488, KEP-3962 and their documentation. Everything is compiled when the
//! policy is read; a mistake counts when a request meets the policy, by its failure
//! policy.
//!
//! Invariants
//! - Evaluation is bounded by the reference's budgets, per policy and per request.
//! - Variables are evaluated when they are read, once for a request; they name earlier
//!   ones only.

mod trail;
mod typing;
mod validate;
mod written;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use nautilus_cel::{
    Bindings, Budget, Declaration, Environment, EvalError, Field, ObjectDeclaration, Program,
    Shape, Type, Value as Cel,
};
use nautilus_machinery::resource::Resource;
use nautilus_machinery::selector::LabelSelector;
use serde_json::{Value, json};

use crate::expressions::{Conditions, Expression, Input, Names, Verdict, bindings, environment};
use crate::matching::Matching;
use crate::values::{items, text};

pub use trail::Trail;
pub use typing::{TypedKind, declare_type, named_resources, type_checking};
pub use validate::{Action, Decision, Outcome, denied};
pub use written::check_written;

/// A policy of either kind.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// What it is about.
    pub matching: Matching,
    /// Group, version and kind of its parameters.
    pub param_kind: Option<(String, String, String)>,
    /// Whether mistakes let the request pass.
    pub ignores_failure: bool,
    conditions: Conditions,
    variables: Variables,
    validations: Vec<validate::Validation>,
    annotations: Vec<(String, Expression)>,
    mutations: Vec<Mutation>,
    /// Whether it is asked again when the object changed after it.
    pub reinvokes: bool,
}

/// A binding of either kind.
#[derive(Debug, Clone)]
pub struct Binding {
    /// Its name.
    pub name: String,
    /// The policy it puts to work.
    pub policy: String,
    /// What it is about, within what the policy is about.
    pub matching: Matching,
    /// Where parameters come from.
    pub params: Option<ParamRef>,
    /// What a failed validation comes to.
    pub actions: Vec<Action>,
}

/// Where a binding's parameters come from.
#[derive(Debug, Clone)]
pub struct ParamRef {
    /// One by name.
    pub name: Option<String>,
    /// In which namespace; none: the request's.
    pub namespace: Option<String>,
    /// Those that it selects.
    pub selector: Option<LabelSelector>,
    /// Whether there must be some.
    pub denies_missing: bool,
}

/// What one mutation makes.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A JSON patch (RFC 6902).
    Patch(Value),
    /// A partial object, to be merged by the rules of server-side apply.
    Apply(Value),
}

#[derive(Debug, Clone)]
enum Mutation {
    Patch(Expression),
    Apply(Expression),
}

impl Binding {
    /// Reads a binding of either kind.
    pub fn of(object: &Value) -> Self {
        let spec = &object["spec"];
        let reference = &spec["paramRef"];
        let own = |value: &Value| value.as_str().map(str::to_owned);
        Self {
            name: text(&object["metadata"]["name"]).to_owned(),
            policy: text(&spec["policyName"]).to_owned(),
            matching: Matching::of_resources(&spec["matchResources"]),
            params: reference.is_object().then(|| ParamRef {
                name: own(&reference["name"]),
                namespace: own(&reference["namespace"]),
                selector: reference["selector"]
                    .is_object()
                    .then(|| LabelSelector::of_object(&reference["selector"]).ok())
                    .flatten(),
                denies_missing: reference["parameterNotFoundAction"] == "Deny",
            }),
            actions: items(&spec["validationActions"])
                .filter_map(|action| Action::parse(text(action)))
                .collect(),
        }
    }
}

impl Policy {
    /// Reads a policy of either kind.
    pub fn of(object: &Value) -> Self {
        let spec = &object["spec"];
        let param = &spec["paramKind"];
        let names = Names {
            params: param.is_object(),
            authorizer: true,
            namespace: true,
        };
        let (variables, mut scope) = Variables::of(&spec["variables"], &environment(names));
        let conditions = Conditions::of(&spec["matchConditions"], &scope);
        let without_authorizer = {
            let names = Names {
                authorizer: false,
                ..names
            };
            Variables::of(&spec["variables"], &environment(names)).1
        };
        let validations = items(&spec["validations"])
            .map(|one| validate::Validation::of(one, &scope, &without_authorizer))
            .collect();
        let annotations = items(&spec["auditAnnotations"])
            .map(|one| {
                let source = text(&one["valueExpression"]);
                let results = [Type::String, Type::Null];
                let expression = Expression::new(source, &scope, &results);
                (text(&one["key"]).to_owned(), expression)
            })
            .collect();
        declare_patches(&mut scope);
        let mutations = items(&spec["mutations"])
            .filter_map(|one| Mutation::of(one, &scope))
            .collect();
        let api_version = text(&param["apiVersion"]);
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self {
            name: text(&object["metadata"]["name"]).to_owned(),
            matching: Matching::of_resources(&spec["matchConstraints"]),
            param_kind: param.is_object().then(|| {
                let kind = text(&param["kind"]);
                (group.to_owned(), version.to_owned(), kind.to_owned())
            }),
            ignores_failure: spec["failurePolicy"] == "Ignore",
            conditions,
            variables,
            validations,
            annotations,
            mutations,
            reinvokes: spec["reinvocationPolicy"] == "IfNeeded",
        }
    }

    /// Whether the request meets the policy's conditions.
    pub fn meets(&self, input: &Input<'_>) -> Verdict {
        if self.conditions.is_empty() {
            return Verdict::Matches;
        }
        match self.bind(input) {
            Ok(bindings) => self.conditions.judge(&bindings),
            Err(error) => Verdict::Fails(error.to_string()),
        }
    }

    /// How many mutations it has.
    pub fn mutations(&self) -> usize {
        self.mutations.len()
    }

    /// What one of its mutations makes of the object.
    pub fn mutate(&self, index: usize, input: &Input<'_>) -> Result<Option<Change>, String> {
        let Some(mutation) = self.mutations.get(index) else {
            return Ok(None);
        };
        let mut budget = Budget::per_object();
        let bindings = self.bind(input).map_err(|error| error.to_string())?;
        let (Mutation::Patch(expression) | Mutation::Apply(expression)) = mutation;
        let value = expression
            .evaluate(&bindings, &mut budget)?
            .to_json()
            .map_err(|error| error.to_string())?;
        Ok(Some(match mutation {
            Mutation::Patch(_) => Change::Patch(value),
            Mutation::Apply(_) => Change::Apply(value),
        }))
    }

    fn bind<'a>(&'a self, input: &Input<'a>) -> Result<Bindings<'a>, EvalError> {
        self.variables.bind(input)
    }
}

impl Mutation {
    fn of(value: &Value, scope: &Environment) -> Option<Self> {
        let (field, result) = result_of(value)?;
        let source = text(&value[field]["expression"]);
        let expression = Expression::new(source, scope, &[result]);
        Some(match field {
            "jsonPatch" => Self::Patch(expression),
            _ => Self::Apply(expression),
        })
    }
}

/// Where a mutation's expression stands, and what it must make.
fn result_of(mutation: &Value) -> Option<(&'static str, Type)> {
    match text(&mutation["patchType"]) {
        "JSONPatch" => {
            let patch = Type::Object(Arc::new(patch_declaration()));
            Some(("jsonPatch", Type::list(patch)))
        }
        "ApplyConfiguration" => {
            let object = Type::Object(Arc::new(open("Object")));
            Some(("applyConfiguration", object))
        }
        _ => None,
    }
}

/// An object of any fields.
fn open(name: &str) -> ObjectDeclaration {
    ObjectDeclaration {
        name: name.to_owned(),
        fields: BTreeMap::new(),
        open: true,
    }
}

/// One operation of a JSON patch.
fn patch_declaration() -> ObjectDeclaration {
    let string = || Declaration::string(None);
    let fields = [
        ("op", string()),
        ("path", string()),
        ("from", string()),
        ("value", Declaration::dynamic()),
    ];
    let field = |(key, declaration): (&str, Declaration)| {
        let key = key.to_owned();
        (key.clone(), Field { key, declaration })
    };
    ObjectDeclaration {
        name: "JSONPatch".to_owned(),
        fields: fields.into_iter().map(field).collect(),
        open: false,
    }
}

fn declare_patches(scope: &mut Environment) {
    scope.declare_object(open("Object"));
    scope.declare_object(patch_declaration());
}

/// A policy's variables, in their order.
#[derive(Debug, Clone)]
struct Variables(Arc<Vec<(String, Result<Program, String>)>>);

type Memo<'a> = Rc<RefCell<BTreeMap<String, Result<Cel<'a>, EvalError>>>>;

impl Variables {
    /// Compiles them, each over those before it; gives what expressions may name then.
    fn of(list: &Value, base: &Environment) -> (Self, Environment) {
        let mut fields: BTreeMap<String, Field> = BTreeMap::new();
        let with = |fields: &BTreeMap<String, Field>| {
            let mut scope = base.clone();
            let declaration = Declaration::object("kubernetes.variables", fields.clone());
            scope.declare("variables", declaration);
            scope
        };
        let mut variables = Vec::new();
        for one in items(list) {
            let name = text(&one["name"]).to_owned();
            let program = Program::compile(text(&one["expression"]), &with(&fields), &[]);
            let of = program.as_ref().map_or(Type::Dyn, Program::result_type);
            let field = Field {
                key: name.clone(),
                declaration: Declaration {
                    shape: Shape::Other(of),
                    ..Declaration::dynamic()
                },
            };
            fields.insert(name.clone(), field);
            variables.push((name, program.map_err(|error| error.to_string())));
        }
        let scope = with(&fields);
        (Self(Arc::new(variables)), scope)
    }

    fn bind<'a>(&'a self, input: &Input<'a>) -> Result<Bindings<'a>, EvalError> {
        bind_before(&self.0, input, &Memo::default())
    }
}

/// Binds a request's values, and the variables given.
fn bind_before<'a>(
    variables: &'a [(String, Result<Program, String>)],
    input: &Input<'a>,
    memo: &Memo<'a>,
) -> Result<Bindings<'a>, EvalError> {
    let mut bound = bindings(input)?;
    let (input, memo) = (input.clone(), memo.clone());
    let read = move |name: &str, budget: &mut Budget| {
        if let Some(known) = memo.borrow().get(name) {
            return known.clone();
        }
        let found = variables.iter().position(|(own, _)| own == name);
        let Some((index, (_, program))) = found.and_then(|at| Some((at, variables.get(at)?)))
        else {
            return Err(EvalError::Failed(format!("no such key: {name}")));
        };
        let value = match program {
            Err(error) => Err(EvalError::Failed(format!(
                "composited variable \"{name}\" fails to compile: {error}"
            ))),
            Ok(program) => bind_before(&variables[..index], &input, &memo)
                .and_then(|bindings| program.evaluate(&bindings, budget))
                .map_err(|error| match error {
                    EvalError::Failed(why) => EvalError::Failed(format!(
                        "composited variable \"{name}\" fails to evaluate: {why}"
                    )),
                    spent => spent,
                }),
        };
        memo.borrow_mut().insert(name.to_owned(), value.clone());
        value
    };
    bound.set_lazy_fields("variables", Box::new(read));
    Ok(bound)
}

/// A partial object with the kind of the object it is for.
pub fn with_kind(mut partial: Value, object: &Value) -> Value {
    for field in ["apiVersion", "kind"] {
        if !object[field].is_null() {
            partial[field] = object[field].clone();
        }
    }
    partial
}

/// A parameter with its kind: expressions may look at it.
pub fn with_kind_of(mut object: Value, resource: &Resource) -> Value {
    if object["kind"].is_null() {
        object["kind"] = json!(resource.kind);
        object["apiVersion"] = json!(resource.api_version());
    }
    object
}

/// The places in a partial object that are owned as a whole, as `.spec.tolerations`: a
/// mutation that set one would take away what it does not name. `is_atomic` knows a path
/// of fields; `None` stands for any element of a list.
pub fn atomics(partial: &Value, is_atomic: &dyn Fn(&[Option<&str>]) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    walk_atomics(partial, &mut Vec::new(), "", is_atomic, &mut found);
    found
}

fn walk_atomics<'v>(
    value: &'v Value,
    path: &mut Vec<Option<&'v str>>,
    shown: &str,
    is_atomic: &dyn Fn(&[Option<&str>]) -> bool,
    found: &mut Vec<String>,
) {
    if path.len() > MAX_DEPTH {
        return;
    }
    if (value.is_object() || value.is_array()) && is_atomic(path) {
        found.push(shown.to_owned());
    }
    for (name, inner) in value.as_object().into_iter().flatten() {
        path.push(Some(name));
        walk_atomics(inner, path, &format!("{shown}.{name}"), is_atomic, found);
        path.pop();
    }
    for (index, inner) in items(value).enumerate() {
        path.push(None);
        walk_atomics(inner, path, &format!("{shown}[{index}]"), is_atomic, found);
        path.pop();
    }
}

/// Nesting of a partial object that is looked at.
const MAX_DEPTH: usize = 200;

#[cfg(test)]
mod tests;
