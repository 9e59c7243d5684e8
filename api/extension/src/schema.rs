//! A schema as a definition writes it (`JSONSchemaProps`), read once.
//!
//! Invariant: what a schema does not support (`$ref`, `definitions`, ...) is refused when
//! it is read, with the reference's words.

use std::collections::BTreeMap;
use std::sync::Arc;

use nautilus_cel::compile_pattern;
use regex::Regex;
use serde_json::Value;

/// A schema. Fields are named as in JSON; absence is the zero value or `None`.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    /// `type`
    pub kind: String,
    /// `description`
    pub description: String,
    /// `title`
    pub title: String,
    /// `format`
    pub format: String,
    /// `nullable`
    pub nullable: bool,
    /// `default`
    pub default: Option<Value>,
    /// `maximum`
    pub maximum: Option<f64>,
    /// `exclusiveMaximum`
    pub exclusive_maximum: bool,
    /// `minimum`
    pub minimum: Option<f64>,
    /// `exclusiveMinimum`
    pub exclusive_minimum: bool,
    /// `maxLength`, in characters
    pub max_length: Option<i64>,
    /// `minLength`, in characters
    pub min_length: Option<i64>,
    /// `pattern` and what it compiles to, or why it does not
    pub pattern: Option<(String, Result<Arc<Regex>, String>)>,
    /// `maxItems`
    pub max_items: Option<i64>,
    /// `minItems`
    pub min_items: Option<i64>,
    /// `uniqueItems`
    pub unique_items: bool,
    /// `multipleOf`
    pub multiple_of: Option<f64>,
    /// `maxProperties`
    pub max_properties: Option<i64>,
    /// `minProperties`
    pub min_properties: Option<i64>,
    /// `required`
    pub required: Vec<String>,
    /// `enum`
    pub one_of_values: Vec<Value>,
    /// `items`
    pub items: Option<Box<Schema>>,
    /// `properties`
    pub properties: BTreeMap<String, Schema>,
    /// `additionalProperties`
    pub additional: Option<Additional>,
    /// `allOf`
    pub all_of: Vec<Schema>,
    /// `anyOf`
    pub any_of: Vec<Schema>,
    /// `oneOf`
    pub one_of: Vec<Schema>,
    /// `not`
    pub not: Option<Box<Schema>>,
    /// `x-kubernetes-preserve-unknown-fields`
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`
    pub embedded: bool,
    /// `x-kubernetes-int-or-string`
    pub int_or_string: bool,
    /// `x-kubernetes-list-map-keys`
    pub list_map_keys: Vec<String>,
    /// `x-kubernetes-list-type`
    pub list_type: Option<String>,
    /// `x-kubernetes-map-type`
    pub map_type: Option<String>,
    /// `x-kubernetes-validations`
    pub rules: Vec<Rule>,
    /// `externalDocs` or `example` is there
    pub documented: bool,
}

/// `additionalProperties`: allowed or not, or all alike.
#[derive(Debug, Clone)]
pub enum Additional {
    /// `true` or `false`
    Any(bool),
    /// A schema.
    Each(Box<Schema>),
}

/// One of `x-kubernetes-validations`.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    /// `rule`
    pub rule: String,
    /// `message`
    pub message: String,
    /// `messageExpression`
    pub message_expression: String,
    /// `reason`
    pub reason: Option<String>,
    /// `fieldPath`
    pub field_path: String,
    /// `optionalOldSelf`
    pub optional_old_self: Option<bool>,
}

/// What a schema may not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SchemaError(pub String);

impl Schema {
    /// Reads `JSONSchemaProps`.
    pub fn parse(json: &Value) -> Result<Self, SchemaError> {
        for (key, message) in UNSUPPORTED {
            let found = &json[*key];
            let set = match found {
                Value::Null => false,
                Value::String(text) => !text.is_empty(),
                Value::Object(entries) => !entries.is_empty() || *key == "additionalItems",
                _ => true,
            };
            if set {
                return Err(SchemaError(format!(
                    "OpenAPIV3Schema '{message}' is not supported"
                )));
            }
        }
        let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
        let flag = |key: &str| json[key].as_bool().unwrap_or_default();
        let items = match &json["items"] {
            Value::Null => None,
            Value::Array(_) => {
                return Err(SchemaError(
                    "OpenAPIV3Schema 'items' must be a schema, but is an array".to_owned(),
                ));
            }
            schema => Some(Box::new(Self::parse(schema)?)),
        };
        let additional = match &json["additionalProperties"] {
            Value::Null => None,
            Value::Bool(allowed) => Some(Additional::Any(*allowed)),
            schema => Some(Additional::Each(Box::new(Self::parse(schema)?))),
        };
        let mut properties = BTreeMap::new();
        for (name, schema) in json["properties"].as_object().into_iter().flatten() {
            properties.insert(name.clone(), Self::parse(schema)?);
        }
        let each = |key: &str| -> Result<Vec<Self>, SchemaError> {
            list(&json[key]).map(Self::parse).collect()
        };
        let not = match &json["not"] {
            Value::Null => None,
            schema => Some(Box::new(Self::parse(schema)?)),
        };
        if json["x-kubernetes-preserve-unknown-fields"].as_bool() == Some(false) {
            return Err(SchemaError(
                "internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined"
                    .to_owned(),
            ));
        }
        let pattern = json["pattern"]
            .as_str()
            .filter(|pattern| !pattern.is_empty())
            .map(|pattern| (pattern.to_owned(), compile_pattern(pattern)));
        Ok(Self {
            kind: text("type"),
            description: text("description"),
            title: text("title"),
            format: text("format"),
            nullable: flag("nullable"),
            default: json
                .get("default")
                .filter(|value| !value.is_null())
                .cloned(),
            maximum: json["maximum"].as_f64(),
            exclusive_maximum: flag("exclusiveMaximum"),
            minimum: json["minimum"].as_f64(),
            exclusive_minimum: flag("exclusiveMinimum"),
            max_length: json["maxLength"].as_i64(),
            min_length: json["minLength"].as_i64(),
            pattern,
            max_items: json["maxItems"].as_i64(),
            min_items: json["minItems"].as_i64(),
            unique_items: flag("uniqueItems"),
            multiple_of: json["multipleOf"].as_f64(),
            max_properties: json["maxProperties"].as_i64(),
            min_properties: json["minProperties"].as_i64(),
            required: texts(&json["required"]),
            one_of_values: list(&json["enum"]).cloned().collect(),
            items,
            properties,
            additional,
            all_of: each("allOf")?,
            any_of: each("anyOf")?,
            one_of: each("oneOf")?,
            not,
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            list_map_keys: texts(&json["x-kubernetes-list-map-keys"]),
            list_type: json["x-kubernetes-list-type"].as_str().map(str::to_owned),
            map_type: json["x-kubernetes-map-type"].as_str().map(str::to_owned),
            rules: list(&json["x-kubernetes-validations"])
                .map(Rule::parse)
                .collect(),
            documented: !json["externalDocs"].is_null() || !json["example"].is_null(),
        })
    }

    /// The schema of a field of this, if it has one.
    pub fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or_else(|| self.each_value())
    }

    /// The schema of all values that no property names.
    pub fn each_value(&self) -> Option<&Self> {
        match &self.additional {
            Some(Additional::Each(schema)) => Some(schema),
            _ => None,
        }
    }

    /// Whether something in here satisfies the predicate, alternatives apart.
    pub fn any(&self, wanted: &dyn Fn(&Self) -> bool) -> bool {
        wanted(self)
            || self.items.as_deref().is_some_and(|items| items.any(wanted))
            || self.each_value().is_some_and(|value| value.any(wanted))
            || self.properties.values().any(|field| field.any(wanted))
    }
}

impl Rule {
    fn parse(json: &Value) -> Self {
        let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
        Self {
            rule: text("rule"),
            message: text("message"),
            message_expression: text("messageExpression"),
            reason: json["reason"].as_str().map(str::to_owned),
            field_path: text("fieldPath"),
            optional_old_self: json["optionalOldSelf"].as_bool(),
        }
    }

    /// How messages call it.
    pub(crate) fn shown(&self) -> &str {
        if self.message.is_empty() {
            self.rule.trim()
        } else {
            self.message.trim()
        }
    }
}

const UNSUPPORTED: &[(&str, &str)] = &[
    ("id", "id"),
    ("$schema", "schema"),
    ("$ref", "$ref"),
    ("patternProperties", "patternProperties"),
    ("dependencies", "dependencies"),
    ("additionalItems", "additionalItems"),
    ("definitions", "definitions"),
];

pub(crate) fn list(json: &Value) -> impl Iterator<Item = &Value> {
    json.as_array().into_iter().flatten()
}

pub(crate) fn texts(json: &Value) -> Vec<String> {
    list(json)
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}
