//! Rules of a schema (`x-kubernetes-validations`), compiled once and evaluated over
//! objects under one budget.
//!
//! Invariants
//! - Old and new are compared only where they can be told to be the same: fields, entries
//!   of maps, elements of lists that are maps. Elsewhere a rule with `oldSelf` is not run.
//! - A spent budget ends all further rules, with an error.

use std::collections::BTreeMap;

use nautilus_cel::{
    Bindings, Budget, Declaration, Environment, EvalError, Field, Program, Shape, Type,
    Value as Cel, escape,
};
use nautilus_machinery::status::quote;
use nautilus_machinery::validation::Errors;
use serde_json::Value;

use crate::path::{parse_field_path, shown};
use crate::schema::{Rule, Schema};
use crate::validate::find_by_key;

/// Bytes of a message that an expression makes.
const MAX_MESSAGE_BYTES: usize = 5 * 1024;
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// The rules of a schema and of everything under it.
#[derive(Debug)]
pub struct Rules {
    declaration: Option<Declaration>,
    kind: String,
    rules: Vec<Compiled>,
    items: Option<Box<Rules>>,
    fields: BTreeMap<String, Rules>,
    each: Option<Box<Rules>>,
    /// For telling old elements: the list's type and keys.
    list: Schema,
}

/// A rule and its programs.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) rule: Rule,
    pub(crate) program: Result<Program, String>,
    pub(crate) message: Option<Result<Program, String>>,
    pub(crate) uses_old_self: bool,
    field_path: Option<String>,
}

/// What rules found.
#[derive(Debug, Default)]
pub struct RulesOutcome {
    /// What refuses the object.
    pub errors: Errors,
    /// What would have, had it not been so before.
    pub warnings: Vec<String>,
}

impl Rules {
    /// Compiles the rules of a schema; none if it has none.
    pub fn compile(schema: &Schema, is_root: bool) -> Option<Self> {
        if !schema.any(&|schema| !schema.rules.is_empty()) {
            return None;
        }
        let declaration = declare(schema, is_root, "selfType");
        Self::node(schema, declaration)
    }

    fn node(schema: &Schema, declaration: Option<Declaration>) -> Option<Self> {
        let rules = compile_rules(schema, declaration.as_ref());
        let inner = |declaration: Option<&Declaration>| match declaration.map(|d| &d.shape) {
            Some(Shape::List(inner) | Shape::Map(inner)) => Some((**inner).clone()),
            _ => None,
        };
        let items = schema
            .items
            .as_deref()
            .and_then(|items| Self::node(items, inner(declaration.as_ref())));
        let each = schema
            .each_value()
            .and_then(|each| Self::node(each, inner(declaration.as_ref())));
        let mut fields = BTreeMap::new();
        for (name, field) in &schema.properties {
            let declared = match (&declaration, escape(name)) {
                (Some(declaration), Some(identifier)) => match &declaration.shape {
                    Shape::Object(object) => object
                        .fields
                        .get(&identifier)
                        .map(|field| field.declaration.clone()),
                    _ => None,
                },
                (Some(_), None) => declare(field, field.embedded, "selfType"),
                (None, _) => None,
            };
            if declared.is_none() {
                continue;
            }
            if let Some(rules) = Self::node(field, declared) {
                fields.insert(name.clone(), rules);
            }
        }
        if rules.is_empty() && items.is_none() && each.is_none() && fields.is_empty() {
            return None;
        }
        Some(Self {
            declaration,
            kind: schema.kind.clone(),
            rules,
            items: items.map(Box::new),
            fields,
            each: each.map(Box::new),
            list: Schema {
                list_type: schema.list_type.clone(),
                list_map_keys: schema.list_map_keys.clone(),
                ..Schema::default()
            },
        })
    }

    /// Runs the rules over a value. With `old` it is an update, and what did not change is
    /// tolerated.
    pub fn evaluate(
        &self,
        path: &str,
        value: &Value,
        old: Option<&Value>,
        budget: &mut Budget,
    ) -> RulesOutcome {
        let mut evaluation = Evaluation {
            outcome: RulesOutcome::default(),
            budget,
            stopped: false,
        };
        let before = Before {
            same: old,
            parent_unchanged: false,
        };
        evaluation.visit(self, path, value, before, true);
        evaluation.outcome
    }
}

/// What a value was, and whether something around it that is known did not change.
#[derive(Clone, Copy)]
struct Before<'v> {
    same: Option<&'v Value>,
    parent_unchanged: bool,
}

struct Evaluation<'b> {
    outcome: RulesOutcome,
    budget: &'b mut Budget,
    stopped: bool,
}

impl Evaluation<'_> {
    fn invalid(&mut self, node: &Rules, path: &str, detail: &str) {
        self.outcome.errors.invalid_text(path, &node.kind, detail);
    }

    fn visit(
        &mut self,
        node: &Rules,
        path: &str,
        value: &Value,
        before: Before<'_>,
        is_root: bool,
    ) {
        if self.stopped || value.is_null() {
            return;
        }
        self.run(node, path, value, before);
        // Cheap first: most objects have no list in which the question arises.
        let unchanged = before.same.is_some_and(|old| old == value)
            || (before.same.is_none() && before.parent_unchanged);
        match value {
            Value::Array(items) => {
                let Some(each) = &node.items else {
                    return;
                };
                let old = before.same.and_then(Value::as_array);
                for (at, item) in items.iter().enumerate() {
                    let inner = Before {
                        same: old.and_then(|old| find_by_key(&node.list, old, item)),
                        parent_unchanged: unchanged,
                    };
                    self.visit(each, &format!("{path}[{at}]"), item, inner, false);
                }
            }
            Value::Object(entries) => {
                for (name, value) in entries {
                    let old = before.same.and_then(|old| old.get(name));
                    let ours = is_root && matches!(name.as_str(), "apiVersion" | "kind");
                    let inner = Before {
                        same: old,
                        parent_unchanged: unchanged && !ours,
                    };
                    if let Some(each) = &node.each {
                        self.visit(each, &format!("{path}[{name}]"), value, inner, false);
                    }
                    if let Some(field) = node.fields.get(name) {
                        let path = if path.is_empty() {
                            name.clone()
                        } else {
                            format!("{path}.{name}")
                        };
                        self.visit(field, &path, value, inner, false);
                    }
                }
            }
            _ => {}
        }
    }

    fn run(&mut self, node: &Rules, path: &str, value: &Value, before: Before<'_>) {
        if node.rules.is_empty() {
            return;
        }
        let Some(declaration) = &node.declaration else {
            return;
        };
        let this = match Cel::from_json(value, declaration) {
            Ok(this) => this,
            Err(error) => {
                return self.invalid(node, path, &error.to_string());
            }
        };
        let old = before
            .same
            .filter(|old| !old.is_null())
            .and_then(|old| Cel::from_json(old, declaration).ok());
        for compiled in &node.rules {
            if self.budget.is_exhausted() || self.budget.left() == 0 {
                self.invalid(node, path, OUT_OF_BUDGET);
                self.stopped = true;
                return;
            }
            let optional = compiled.rule.optional_old_self == Some(true);
            if compiled.uses_old_self && old.is_none() && !optional {
                continue;
            }
            let mut bindings = Bindings::default();
            bindings.set("self", this.clone());
            match (&old, optional) {
                (Some(old), true) => bindings.set("oldSelf", Cel::some(old.clone())),
                (None, true) => bindings.set("oldSelf", Cel::none()),
                (Some(old), false) => bindings.set("oldSelf", old.clone()),
                (None, false) => &mut bindings,
            };
            self.judge(node, compiled, path, value, before, &bindings);
            if self.stopped {
                return;
            }
        }
    }

    fn judge(
        &mut self,
        node: &Rules,
        compiled: &Compiled,
        path: &str,
        value: &Value,
        before: Before<'_>,
        bindings: &Bindings<'_>,
    ) {
        let rule = &compiled.rule;
        let program = match &compiled.program {
            Ok(program) => program,
            Err(why) => {
                return self.invalid(node, path, &format!("rule compile error: {why}"));
            }
        };
        let verdict = program.evaluate(bindings, self.budget);
        if self.budget.is_exhausted() {
            self.invalid(node, path, OUT_OF_BUDGET);
            self.stopped = true;
            return;
        }
        match verdict {
            Ok(Cel::Bool(true)) => {}
            Ok(_) => self.fail(node, compiled, path, value, before, bindings),
            Err(EvalError::CostExceeded) => {
                let detail = format!(
                    "'{}': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                    EvalError::CostExceeded,
                    rule.shown()
                );
                self.invalid(node, path, &detail);
                self.stopped = true;
            }
            Err(EvalError::Failed(why)) if why.starts_with("no such overload") => {
                let detail = format!(
                    "'{why}': call arguments did not match a supported operator, function or macro signature for rule: {}",
                    rule.shown()
                );
                self.invalid(node, path, &detail);
            }
            Err(EvalError::Failed(why)) => {
                let detail = format!("{why} evaluating rule: {}", rule.shown());
                self.invalid(node, path, &detail);
            }
        }
    }

    fn fail(
        &mut self,
        node: &Rules,
        compiled: &Compiled,
        path: &str,
        value: &Value,
        before: Before<'_>,
        bindings: &Bindings<'_>,
    ) {
        let rule = &compiled.rule;
        let detail = match self.message(compiled, bindings) {
            Ok(Some(message)) => message,
            Ok(None) if rule.message.is_empty() => format!("failed rule: {}", rule.shown()),
            Ok(None) => rule.message.trim().to_owned(),
            Err(why) => {
                self.invalid(node, path, &why);
                self.stopped = true;
                return;
            }
        };
        let at = match &compiled.field_path {
            Some(field) if path.is_empty() => field.clone(),
            Some(field) => format!("{path}.{field}"),
            None => path.to_owned(),
        };
        let at = if at.is_empty() {
            "<nil>".to_owned()
        } else {
            at
        };
        let mut errors = Errors::new();
        match rule.reason.as_deref() {
            Some("FieldValueForbidden") => errors.forbidden(&at, &detail),
            Some("FieldValueRequired") => errors.required(&at, &detail),
            Some("FieldValueDuplicate") => errors.duplicate(&at, value),
            _ if matches!(node.kind.as_str(), "object" | "array") => {
                errors.other(&at, "FieldValueInvalid", format!("Invalid value: {detail}"));
            }
            _ => errors.invalid(&at, value, &detail),
        }
        let unchanged = match before.same {
            Some(old) => old == value,
            None => before.parent_unchanged,
        };
        if !compiled.uses_old_self && unchanged {
            for cause in errors.into_causes() {
                self.outcome
                    .warnings
                    .push(format!("{}: {}", cause.field, cause.message));
            }
        } else {
            self.outcome.errors.extend(errors);
        }
    }

    /// What `messageExpression` makes, if it makes anything.
    fn message(
        &mut self,
        compiled: &Compiled,
        bindings: &Bindings<'_>,
    ) -> Result<Option<String>, String> {
        let Some(Ok(program)) = &compiled.message else {
            return Ok(None);
        };
        let made = program.evaluate(bindings, self.budget);
        if self.budget.is_exhausted() {
            return Err("messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run".to_owned());
        }
        match made {
            Err(EvalError::CostExceeded) => Err(format!(
                "no further validation rules will be run due to call cost exceeds limit for messageExpression: {}",
                quote(&compiled.rule.message_expression)
            )),
            Err(EvalError::Failed(_)) => Ok(None),
            Ok(value) => Ok(value
                .as_str()
                .map(str::trim)
                .filter(|text| {
                    !text.is_empty() && text.len() <= MAX_MESSAGE_BYTES && !text.contains('\n')
                })
                .map(str::to_owned)),
        }
    }
}

/// What expressions may name in rules over a value so declared.
pub(crate) fn environment(declaration: &Declaration, optional_old_self: bool) -> Environment {
    let mut environment = Environment::kubernetes();
    environment.declare("self", declaration.clone());
    let old = if optional_old_self {
        Declaration::other(Type::optional(declaration.type_of()))
    } else {
        declaration.clone()
    };
    environment.declare("oldSelf", old);
    environment
}

pub(crate) fn compile_rules(schema: &Schema, declaration: Option<&Declaration>) -> Vec<Compiled> {
    let Some(declaration) = declaration else {
        return Vec::new();
    };
    schema
        .rules
        .iter()
        .filter(|rule| !rule.rule.trim().is_empty())
        .map(|rule| compile_rule(schema, rule, declaration))
        .collect()
}

fn compile_rule(schema: &Schema, rule: &Rule, declaration: &Declaration) -> Compiled {
    let environment = environment(declaration, rule.optional_old_self == Some(true));
    let program = compile_as(&rule.rule, &environment, &Type::Bool, "");
    let message = (!rule.message_expression.is_empty() && program.is_ok()).then(|| {
        compile_as(
            &rule.message_expression,
            &environment,
            &Type::String,
            "messageExpression ",
        )
    });
    let field_path = (!rule.field_path.is_empty())
        .then(|| parse_field_path(&rule.field_path, schema, true).ok())
        .flatten()
        .map(|(steps, _)| shown(&steps));
    Compiled {
        uses_old_self: program
            .as_ref()
            .is_ok_and(|program| program.uses("oldSelf")),
        rule: rule.clone(),
        program,
        message,
        field_path,
    }
}

/// A program of that type, or why there is none, as the reference tells.
fn compile_as(
    source: &str,
    environment: &Environment,
    wanted: &Type,
    what: &str,
) -> Result<Program, String> {
    let program = Program::compile(source, environment, &[]).map_err(|error| {
        if error.at.is_some() {
            format!("{what}compilation failed: {error}")
        } else {
            error.to_string()
        }
    })?;
    if program.result_type().same(wanted) {
        return Ok(program);
    }
    Err(match wanted {
        Type::Bool => "cel expression must evaluate to a bool".to_owned(),
        _ => "messageExpression must evaluate to a string".to_owned(),
    })
}

/// How expressions see values of a schema; none where they cannot.
pub fn declare(schema: &Schema, is_root: bool, name: &str) -> Option<Declaration> {
    if schema.int_or_string {
        let max = schema.max_length.map(|max| bytes_of(max) * 4);
        return Some(Declaration {
            max_elements: Declaration::string(max).max_elements,
            ..Declaration::dynamic()
        });
    }
    let limit = |max: Option<i64>| max.map(|max| u64::try_from(max).unwrap_or_default());
    match schema.kind.as_str() {
        "array" => {
            let items = schema.items.as_deref()?;
            let element = declare(items, items.embedded, &format!("{name}.@idx"))?;
            Some(Declaration::list(element, limit(schema.max_items)))
        }
        "object" => {
            if let (Some(each), false) = (schema.each_value(), is_root) {
                let value = declare(each, each.embedded, &format!("{name}.@elem"))?;
                return Some(Declaration::map(value, limit(schema.max_properties)));
            }
            if schema.additional.is_some() && schema.each_value().is_some() {
                return None;
            }
            Some(declare_object(schema, is_root, name))
        }
        "string" => Some(declare_text(schema)),
        "boolean" => Some(Declaration::bool()),
        "number" => Some(Declaration::double()),
        "integer" => Some(Declaration::int()),
        _ => None,
    }
}

fn bytes_of(characters: i64) -> u64 {
    u64::try_from(characters).unwrap_or_default()
}

fn declare_object(schema: &Schema, is_root: bool, name: &str) -> Declaration {
    let mut fields = BTreeMap::new();
    let mut min_bytes = 2;
    for (key, field) in &schema.properties {
        if is_root && crate::prune::is_type_or_metadata(key) {
            continue;
        }
        let Some(declaration) = declare(field, field.embedded, &format!("{name}.{key}")) else {
            continue;
        };
        if schema.required.contains(key) && field.default.is_none() {
            let length = u64::try_from(key.len()).unwrap_or_default();
            min_bytes += length + declaration.min_bytes + 4;
        }
        if let Some(identifier) = escape(key) {
            let key = key.clone();
            fields.insert(identifier, Field { key, declaration });
        }
    }
    if is_root {
        let text = |key: &str| {
            let key = key.to_owned();
            let declaration = Declaration::string(None);
            (key.clone(), Field { key, declaration })
        };
        let metadata = BTreeMap::from([text("name"), text("generateName")]);
        let key = "metadata".to_owned();
        let declaration = Declaration::object(format!("{name}.metadata"), metadata);
        fields.insert(key.clone(), Field { key, declaration });
        fields.extend([text("apiVersion"), text("kind")]);
    }
    Declaration {
        min_bytes,
        ..Declaration::object(name, fields)
    }
}

fn declare_text(schema: &Schema) -> Declaration {
    let of = |shape: Shape, max: u64, min_bytes: u64| Declaration {
        shape,
        max_elements: Some(max),
        min_bytes,
    };
    match schema.format.as_str() {
        "byte" => Declaration {
            shape: Shape::Bytes,
            ..Declaration::string(schema.max_length.map(bytes_of))
        },
        "duration" => of(Shape::Duration, 32, 3),
        "date" => of(Shape::Date, 12, 12),
        "date-time" => of(Shape::Timestamp, 32, 21),
        _ => {
            let longest_value = || {
                schema
                    .one_of_values
                    .iter()
                    .filter_map(Value::as_str)
                    .map(|text| u64::try_from(text.len()).unwrap_or_default())
                    .max()
            };
            let max = match schema.max_length {
                Some(max) => Some(bytes_of(max) * 4),
                None => longest_value(),
            };
            Declaration::string(max)
        }
    }
}

/// Most values of a declaration that an object may hold.
pub(crate) fn max_cardinality(declaration: &Declaration) -> u64 {
    nautilus_cel::limits::MAX_REQUEST_BYTES / (declaration.min_bytes + 1)
}
