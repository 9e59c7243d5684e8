//! What is wrong with a validating policy's expressions by the types of the objects that it
//! names: warnings, which change nothing about how the policy works.
//!
//! Invariants
//! - Kinds that a policy names by wildcards are not looked at, nor more than [`MAX_KINDS`].
//! - A type that holds itself is an object without fields where it does.

use std::collections::BTreeMap;

use nautilus_cel::{Declaration, Environment, Field, Program, Shape, escape};
use nautilus_machinery::schema;
use serde_json::{Value, json};

use super::Variables;
use crate::expressions::{Names, environment};
use crate::values::{items, text};

/// Kinds that a policy's expressions are checked against.
const MAX_KINDS: usize = 10;

/// A kind, and what is declared of its objects.
#[derive(Debug, Clone)]
pub struct TypedKind {
    /// Its API version, as `apps/v1`.
    pub api_version: String,
    /// Its name.
    pub kind: String,
    /// Its objects.
    pub declaration: Declaration,
}

/// Group (empty for any), version and plural of what a policy names without wildcards, by
/// its rules.
pub fn named_resources(policy: &Value) -> Vec<(String, String, String)> {
    let mut named = Vec::new();
    for rule in items(&policy["spec"]["matchConstraints"]["resourceRules"]) {
        let sorted = |field: &str| {
            let mut names: Vec<&str> = items(&rule[field]).map(text).collect();
            names.sort_unstable();
            names
        };
        let (groups, versions) = (sorted("apiGroups"), sorted("apiVersions"));
        if groups
            .iter()
            .chain(&versions)
            .any(|name| name.contains('*'))
        {
            continue;
        }
        let plurals = sorted("resources");
        let plurals = plurals.iter().filter(|name| !name.contains(['*', '/']));
        for group in &groups {
            for version in &versions {
                for plural in plurals.clone() {
                    let of = |text: &str| text.to_owned();
                    named.push((of(group), of(version), of(plural)));
                }
            }
        }
    }
    named
}

/// The status that says what was found: `kinds` are those that the policy names, `params`
/// what is declared of its parameters.
pub fn type_checking(policy: &Value, kinds: &[TypedKind], params: Option<&Declaration>) -> Value {
    let spec = &policy["spec"];
    let scopes: Vec<(&TypedKind, Environment)> = kinds
        .iter()
        .take(MAX_KINDS)
        .map(|kind| (kind, scope(spec, kind, params)))
        .collect();
    let mut warnings = Vec::new();
    let mut check = |field: String, source: &str| {
        let wrong = scopes.iter().filter_map(|(kind, scope)| {
            let error = Program::compile(source, scope, &[]).err()?;
            let TypedKind {
                api_version, kind, ..
            } = kind;
            Some(format!("{api_version}, Kind={kind}: {error}\n"))
        });
        let wrong: Vec<String> = wrong.collect();
        if !wrong.is_empty() {
            warnings.push(json!({"fieldRef": field, "warning": wrong.join("\n")}));
        }
    };
    for (index, validation) in items(&spec["validations"]).enumerate() {
        for field in ["expression", "messageExpression"] {
            let source = text(&validation[field]);
            if !source.is_empty() {
                check(format!("spec.validations[{index}].{field}"), source);
            }
        }
    }
    match warnings.is_empty() {
        true => json!({}),
        false => json!({"expressionWarnings": warnings}),
    }
}

fn scope(spec: &Value, kind: &TypedKind, params: Option<&Declaration>) -> Environment {
    let mut scope = environment(Names {
        params: spec["paramKind"].is_object(),
        authorizer: true,
        namespace: true,
    });
    for name in ["object", "oldObject"] {
        scope.declare(name, kind.declaration.clone());
    }
    if let Some(params) = params {
        scope.declare("params", params.clone());
    }
    Variables::of(&spec["variables"], &scope).1
}

/// What is declared of a built-in type, by its OpenAPI name; `shown` names it in messages.
pub fn declare_type(name: &str, shown: &str) -> Option<Declaration> {
    declare(name, shown, &mut Vec::new())
}

fn declare(name: &str, shown: &str, within: &mut Vec<String>) -> Option<Declaration> {
    let of = schema::find(name)?;
    if within.iter().any(|outer| outer == name) {
        return Some(Declaration::object(shown, BTreeMap::new()));
    }
    within.push(name.to_owned());
    let mut fields = BTreeMap::new();
    for field in of.json_fields() {
        let at = format!("{shown}.{}", field.name);
        let (Some(declaration), Some(identifier)) = (
            declare_shape(&field.shape, &at, within),
            escape(&field.name),
        ) else {
            continue;
        };
        let key = field.name.clone();
        fields.insert(identifier, Field { key, declaration });
    }
    within.pop();
    Some(Declaration::object(shown, fields))
}

/// None: expressions can't name such a value.
fn declare_shape(
    shape: &schema::Shape,
    shown: &str,
    within: &mut Vec<String>,
) -> Option<Declaration> {
    use schema::Shape as Json;
    let text = |shape: Shape| Declaration {
        shape,
        ..Declaration::string(None)
    };
    Some(match shape {
        Json::String | Json::Duration => Declaration::string(None),
        Json::Bool => Declaration::bool(),
        Json::Int32 | Json::Int64 => Declaration::int(),
        Json::Double => Declaration::double(),
        Json::Bytes => text(Shape::Bytes),
        Json::Time | Json::MicroTime => text(Shape::Timestamp),
        Json::IntOrString => Declaration::dynamic(),
        Json::Raw | Json::FieldsV1 => Declaration::object(shown, BTreeMap::new()),
        Json::Message(name) => declare(name, shown, within)?,
        Json::List(element) => {
            let element = declare_shape(element, &format!("{shown}.@idx"), within)?;
            Declaration::list(element, None)
        }
        Json::Map(value) => {
            let value = declare_shape(value, &format!("{shown}.@elem"), within)?;
            Declaration::map(value, None)
        }
        Json::Quantity | Json::Json | Json::SchemaOr(_) => return None,
    })
}
