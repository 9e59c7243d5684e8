//! What is wrong with the schema of a definition: its structure, its defaults, what it
//! may not hold, its rules and what they cost.

use nautilus_cel::{Budget, Declaration};
use nautilus_machinery::validation::Errors;
use serde_json::{Value, json};

use super::plain::{lists, plain, rule_texts};
use crate::metadata::validate_embedded;
use crate::prune::{is_type_or_metadata, prune};
use crate::rules::{Rules, compile_rules, declare, max_cardinality};
use crate::schema::{Schema, list};
use crate::structural;
use crate::validate::validate;

/// Cost of one rule; the reference's `StaticEstimatedCostLimit`.
const MAX_RULE_COST: u64 = 10_000_000;
/// Cost of all rules of a schema; the reference's `StaticEstimatedCRDCostLimit`.
const MAX_SCHEMA_COST: u64 = 100_000_000;
/// The most expensive rules that are named.
const MAX_NAMED: usize = 4;

/// Fields of a root schema that stay true of the status alone.
const AT_ROOT_WITH_STATUS: &[&str] = &[
    "description",
    "type",
    "format",
    "title",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "multipleOf",
    "required",
    "items",
    "properties",
    "externalDocs",
    "example",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];
const AT_ROOT_NAMES: &str = "[Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields XValidations]";

/// What a check depends on.
#[derive(Clone, Copy)]
pub(super) struct SchemaCheck {
    /// Whether the version has a status subresource.
    pub(super) has_status: bool,
    /// The schema was accepted before, whatever its rules cost.
    pub(super) suppress_cost: bool,
}

/// Everything that is wrong with a schema.
pub(super) fn check_schema(path: &str, json: &Value, check: SchemaCheck) -> Errors {
    let mut errors = Errors::new();
    if check.has_status {
        status_root(&mut errors, path, json);
    }
    if json["nullable"] == true {
        errors.forbidden(
            &format!("{path}.nullable"),
            "nullable cannot be true at the root",
        );
    }
    let parsed = Schema::parse(json);
    let mut rules_schema = None;
    let mut unreadable = None;
    match &parsed {
        Err(error) => unreadable = Some(error.to_string()),
        Ok(schema) => {
            let structural = structural::check(path, schema);
            if structural.is_empty() {
                let defaults = check_defaults(path, schema);
                if defaults.is_empty() {
                    rules_schema = Some(schema);
                }
                errors.extend(defaults);
            } else {
                errors.extend(structural);
            }
        }
    }
    let mut walk = Walk {
        suppress_cost: check.suppress_cost,
        total: 0,
        expensive: Vec::new(),
        rules: Errors::new(),
    };
    let context = rules_schema.map(|schema| Context {
        declaration: declare(schema, true, "selfType"),
        schema,
        cardinality: Some(1),
    });
    let scope = Scope {
        is_root: true,
        inside_metadata: false,
        no_defaults: None,
        uncorrelatable: None,
    };
    let mut own = Errors::new();
    walk.schema(&mut own, path, json, &scope, context.as_ref());
    errors.extend(own);
    errors.extend(walk.rules);
    if let (true, Some(why)) = (errors.is_empty(), unreadable) {
        errors.invalid_text(path, "", &why);
    }
    if walk.total > MAX_SCHEMA_COST {
        walk.expensive
            .sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        for (_, at) in walk.expensive.iter().take(MAX_NAMED) {
            errors.forbidden(
                at,
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema",
            );
        }
        errors.forbidden(
            path,
            &over_budget(
                "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema",
                walk.total,
                MAX_SCHEMA_COST,
            ),
        );
    }
    errors
}

fn status_root(errors: &mut Errors, path: &str, json: &Value) {
    for (name, value) in json.as_object().into_iter().flatten() {
        if value.is_null() || *value == json!(false) || *value == json!("") || *value == json!([]) {
            continue;
        }
        if name == "type" && value != "object" {
            return errors.invalid(
                &format!("{path}.type"),
                value,
                "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled",
            );
        }
        if !AT_ROOT_WITH_STATUS.contains(&name.as_str()) {
            return errors.invalid(
                path,
                json,
                &format!("only {AT_ROOT_NAMES} fields are allowed at the root of the schema if the status subresource is enabled"),
            );
        }
    }
}

fn over_budget(what: &str, cost: u64, limit: u64) -> String {
    #[allow(clippy::cast_precision_loss)]
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// Defaults are what the schema allows: pruned, valid, and passing its rules.
fn check_defaults(path: &str, schema: &Schema) -> Errors {
    let mut errors = Errors::new();
    let mut budget = Budget::per_object();
    defaults(&mut errors, path, schema, true, false, &mut budget);
    errors
}

fn defaults(
    errors: &mut Errors,
    path: &str,
    schema: &Schema,
    is_root: bool,
    inside_metadata: bool,
    budget: &mut Budget,
) {
    let inside_metadata = inside_metadata && !schema.embedded;
    if let Some(default) = &schema.default {
        let at = format!("{path}.default");
        let mut pruned = default.clone();
        prune(&mut pruned, schema, schema.embedded);
        if !inside_metadata && pruned != *default {
            errors.invalid(&at, default, "must not have unknown fields");
        }
        let mut found = Errors::new();
        validate_embedded(&mut found, &at, default, schema);
        if found.is_empty() {
            validate(&mut found, &at, schema, default);
        }
        if found.is_empty()
            && let Some(rules) = Rules::compile(schema, schema.embedded)
        {
            found.extend(rules.evaluate(&at, default, Some(default), budget).errors);
            if found.is_empty() {
                found.extend(rules.evaluate(&at, default, None, budget).errors);
            }
        }
        errors.extend(found);
    }
    if let Some(items) = &schema.items {
        defaults(
            errors,
            &format!("{path}.items"),
            items,
            false,
            inside_metadata,
            budget,
        );
    }
    for (name, field) in &schema.properties {
        let inside = inside_metadata || ((is_root || schema.embedded) && is_type_or_metadata(name));
        let at = format!("{path}.properties[{name}]");
        defaults(errors, &at, field, false, inside, budget);
    }
}

/// What is true of a place in a schema.
#[derive(Clone)]
pub(super) struct Scope {
    pub(super) is_root: bool,
    pub(super) inside_metadata: bool,
    /// Why defaults may not be set, where they may not.
    pub(super) no_defaults: Option<String>,
    /// The schema above which old and new cannot be told to be the same.
    pub(super) uncorrelatable: Option<String>,
}

impl Scope {
    fn inner(&self) -> Self {
        Self {
            is_root: false,
            ..self.clone()
        }
    }
}

/// The schema read, where rules are checked.
#[derive(Clone)]
struct Context<'s> {
    schema: &'s Schema,
    declaration: Option<Declaration>,
    /// Most values that an object can hold here; none where nothing bounds them.
    cardinality: Option<u64>,
}

impl<'s> Context<'s> {
    fn child(&self, schema: &'s Schema, declaration: Option<Declaration>) -> Self {
        let factor = match self.schema.kind.as_str() {
            "object" if self.schema.additional.is_some() => self.schema.max_properties,
            "array" => self.schema.max_items,
            _ => Some(1),
        };
        let factor = factor.map(|factor| u64::try_from(factor).unwrap_or_default());
        Self {
            schema,
            declaration,
            cardinality: match (self.cardinality, factor) {
                (Some(own), Some(factor)) => Some(own.saturating_mul(factor)),
                _ => None,
            },
        }
    }

    fn inner(&self) -> Option<Declaration> {
        match self
            .declaration
            .as_ref()
            .map(|declaration| &declaration.shape)
        {
            Some(nautilus_cel::Shape::List(inner) | nautilus_cel::Shape::Map(inner)) => {
                Some((**inner).clone())
            }
            _ => None,
        }
    }

    fn items(&self) -> Option<Self> {
        let items = self.schema.items.as_deref()?;
        Some(self.child(items, self.inner()))
    }

    fn each(&self) -> Option<Self> {
        Some(self.child(self.schema.each_value()?, self.inner()))
    }

    fn property(&self, name: &str) -> Option<Self> {
        let field = self.schema.properties.get(name)?;
        Some(self.child(field, declare(field, field.embedded, "selfType")))
    }
}

struct Walk {
    suppress_cost: bool,
    total: u64,
    expensive: Vec<(u64, String)>,
    /// What is wrong with rules; told after everything else.
    rules: Errors,
}

impl Walk {
    fn schema(
        &mut self,
        errors: &mut Errors,
        path: &str,
        json: &Value,
        scope: &Scope,
        context: Option<&Context<'_>>,
    ) {
        if !json.is_object() {
            return;
        }
        let mut own = Errors::new();
        plain(&mut own, path, json, scope);
        self.additional(&mut own, path, json, scope, context);
        self.properties(&mut own, path, json, scope, context);
        let inner = scope.inner();
        self.schema(&mut own, &format!("{path}.not"), &json["not"], &inner, None);
        for key in ["allOf", "oneOf", "anyOf"] {
            for (at, schema) in list(&json[key]).enumerate() {
                self.schema(
                    &mut own,
                    &format!("{path}.{key}[{at}]"),
                    schema,
                    &inner,
                    None,
                );
            }
        }
        if json["items"].is_object() {
            let mut inner = scope.inner();
            if json["x-kubernetes-list-type"] != "map" && inner.uncorrelatable.is_none() {
                inner.uncorrelatable = Some(path.to_owned());
            }
            let context = context.and_then(Context::items);
            let at = format!("{path}.items");
            self.schema(&mut own, &at, &json["items"], &inner, context.as_ref());
        }
        lists(&mut own, path, json);
        rule_texts(&mut own, path, json);
        if let (true, Some(context)) = (own.is_empty(), context) {
            self.rules(path, scope, context);
        }
        errors.extend(own);
    }

    fn additional(
        &mut self,
        errors: &mut Errors,
        path: &str,
        json: &Value,
        scope: &Scope,
        context: Option<&Context<'_>>,
    ) {
        let additional = &json["additionalProperties"];
        if additional.is_null() {
            return;
        }
        let at = format!("{path}.additionalProperties");
        let named = json["properties"]
            .as_object()
            .is_some_and(|fields| !fields.is_empty());
        if named && *additional != json!(true) {
            errors.forbidden(
                &at,
                "additionalProperties and properties are mutual exclusive",
            );
        }
        let mut inner = scope.inner();
        if scope.inside_metadata {
            inner.no_defaults =
                Some("inside additionalProperties applying to object metadata".to_owned());
        }
        let context = context.and_then(Context::each);
        self.schema(errors, &at, additional, &inner, context.as_ref());
    }

    fn properties(
        &mut self,
        errors: &mut Errors,
        path: &str,
        json: &Value,
        scope: &Scope,
        context: Option<&Context<'_>>,
    ) {
        let embedded = json["x-kubernetes-embedded-resource"] == true;
        for (name, field) in json["properties"].as_object().into_iter().flatten() {
            let mut inner = scope.inner();
            if (scope.is_root || embedded) && is_type_or_metadata(name) {
                inner.inside_metadata = true;
                if scope.is_root {
                    inner.no_defaults = Some(format!("in top-level {name}"));
                }
            }
            let context = context.and_then(|context| context.property(name));
            let at = format!("{path}.properties[{name}]");
            self.schema(errors, &at, field, &inner, context.as_ref());
        }
    }

    fn rules(&mut self, path: &str, scope: &Scope, context: &Context<'_>) {
        if context.schema.rules.is_empty() {
            return;
        }
        let Some(declaration) = &context.declaration else {
            return self.rules.other(
                &format!("{path}.x-kubernetes-validations"),
                "InternalError",
                "Internal error: internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations".to_owned(),
            );
        };
        let times = context
            .cardinality
            .unwrap_or_else(|| max_cardinality(declaration));
        for (index, compiled) in compile_rules(context.schema, Some(declaration))
            .iter()
            .enumerate()
        {
            let at = format!("{path}.x-kubernetes-validations[{index}]");
            let rule = &compiled.rule;
            match &compiled.program {
                Ok(program) => {
                    let cost = program.cost().max.saturating_mul(times);
                    self.charge(&format!("{at}.rule"), "estimated rule cost", cost);
                }
                Err(why) => self.rules.other(
                    &format!("{at}.rule"),
                    "FieldValueInvalid",
                    format!("Invalid value: {}: {why}", shown_rule(rule)),
                ),
            }
            match &compiled.message {
                Some(Ok(program)) => {
                    let at = format!("{at}.messageExpression");
                    self.charge(&at, "estimated messageExpression cost", program.cost().max);
                }
                Some(Err(why)) => self.rules.other(
                    &format!("{at}.messageExpression"),
                    "FieldValueInvalid",
                    format!("Invalid value: {}: {why}", shown_rule(rule)),
                ),
                None => {}
            }
            match (&scope.uncorrelatable, compiled.uses_old_self) {
                (Some(above), true) => self.rules.invalid_text(
                    &format!("{at}.rule"),
                    &rule.rule,
                    &format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {above}"),
                ),
                (_, false) if rule.optional_old_self.is_some() && compiled.program.is_ok() => {
                    self.rules.invalid(
                        &format!("{at}.optionalOldSelf"),
                        &json!(rule.optional_old_self),
                        "may not be set if oldSelf is not used in rule",
                    );
                }
                _ => {}
            }
        }
    }

    fn charge(&mut self, path: &str, what: &str, cost: u64) {
        if cost > MAX_RULE_COST && !self.suppress_cost {
            self.rules
                .forbidden(path, &over_budget(what, cost, MAX_RULE_COST));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= MAX_SCHEMA_COST / 100 {
            self.expensive.push((cost, path.to_owned()));
        }
    }
}

/// A rule as the reference's messages show it: its internal form, escaped for HTML.
fn shown_rule(rule: &crate::schema::Rule) -> String {
    json!({
        "Rule": rule.rule,
        "Message": rule.message,
        "MessageExpression": rule.message_expression,
        "Reason": rule.reason,
        "FieldPath": rule.field_path,
        "OptionalOldSelf": rule.optional_old_self,
    })
    .to_string()
    .replace('<', "\\u003c")
    .replace('>', "\\u003e")
    .replace('&', "\\u0026")
}
