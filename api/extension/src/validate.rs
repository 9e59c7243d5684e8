//! Values against schemas, in the words of the reference. On an update a value that was
//! there before and did not change is tolerated, wrong or not (KEP-4008): a definition
//! may become stricter without making its objects immutable.
//!
//! Invariant: a value is tolerated only where old and new can be told to be the same:
//! fields of objects, entries of maps, elements of lists that are maps.

use nautilus_machinery::status::quote;
use nautilus_machinery::validation::Errors;
use serde_json::Value;

use crate::formats;
use crate::lists::key_of;
use crate::schema::{Additional, Schema};

/// Checks a new value. `path` is where it stands, empty for an object.
pub fn validate(errors: &mut Errors, path: &str, schema: &Schema, value: &Value) {
    let outcome = Validation.check("", schema, value, Old::None);
    outcome.report(errors, path);
}

/// Checks a changed value, beside what it was.
pub fn validate_update(
    errors: &mut Errors,
    path: &str,
    schema: &Schema,
    old: &Value,
    value: &Value,
) {
    let outcome = Validation.check("", schema, value, Old::Same(old));
    outcome.report(errors, path);
}

/// What a value was before, if that can be told.
#[derive(Clone, Copy)]
enum Old<'v> {
    None,
    Same(&'v Value),
}

impl<'v> Old<'v> {
    fn field(self, name: &str) -> Self {
        match self {
            Self::Same(Value::Object(entries)) => entries.get(name).map_or(Self::None, Self::Same),
            _ => Self::None,
        }
    }

    fn element(self, schema: &Schema, item: &Value) -> Self {
        let Self::Same(Value::Array(items)) = self else {
            return Self::None;
        };
        find_by_key(schema, items, item).map_or(Self::None, |old: &'v Value| Self::Same(old))
    }
}

/// The element of a list that is a map with the same key as the item.
pub(crate) fn find_by_key<'v>(
    schema: &Schema,
    items: &'v [Value],
    item: &Value,
) -> Option<&'v Value> {
    if schema.list_type.as_deref() != Some("map") {
        return None;
    }
    let key = key_of(item, &schema.list_map_keys);
    items
        .iter()
        .find(|old| key_of(old, &schema.list_map_keys) == key)
}

/// One thing that is wrong.
struct Issue {
    /// The path from where the check began; may start with a dot.
    name: Option<String>,
    reason: &'static str,
    message: String,
}

#[derive(Default)]
struct Outcome {
    issues: Vec<Issue>,
    /// Checks that were passed: tells the alternative that was meant.
    passed: usize,
}

impl Outcome {
    fn merge(&mut self, other: Self) {
        self.issues.extend(other.issues);
        self.passed += other.passed;
    }

    fn is_valid(&self) -> bool {
        self.issues.is_empty()
    }

    fn add(&mut self, name: &str, reason: &'static str, message: String) {
        self.issues.push(Issue {
            name: Some(name.to_owned()),
            reason,
            message,
        });
    }

    fn invalid(&mut self, name: &str, value: &Value, detail: &str) {
        let value = match value {
            Value::String(text) => quote(text),
            Value::Null => "\"\"".to_owned(),
            other => other.to_string(),
        };
        self.add(
            name,
            "FieldValueInvalid",
            format!("Invalid value: {value}: {detail}"),
        );
    }

    fn wrong_type(&mut self, name: &str, wanted: &str, found: &str) {
        let message = format!(
            "Invalid value: {}: {name} in body must be of type {wanted}: {}",
            quote(found),
            quote(found)
        );
        self.add(name, "FieldValueTypeInvalid", message);
    }

    /// An error that names no field: the reference gives it none either.
    fn composite(&mut self, message: &str) {
        self.issues.push(Issue {
            name: None,
            reason: "FieldValueInvalid",
            message: format!("Invalid value: \"\": {message}"),
        });
    }

    fn report(self, errors: &mut Errors, path: &str) {
        for issue in self.issues {
            let name = issue.name.unwrap_or_default();
            let name = name.strip_prefix('.').unwrap_or(&name);
            let at = match (path.is_empty(), name.is_empty()) {
                (true, true) => "<nil>".to_owned(),
                (true, false) => name.to_owned(),
                (false, true) => path.to_owned(),
                (false, false) => format!("{path}.{name}"),
            };
            errors.other(&at, issue.reason, issue.message);
        }
    }
}

struct Validation;

impl Validation {
    fn check(&self, name: &str, schema: &Schema, value: &Value, old: Old<'_>) -> Outcome {
        let outcome = self.check_value(name, schema, value, old);
        if let Old::Same(old) = old
            && !outcome.is_valid()
            && old == value
        {
            return Outcome {
                issues: Vec::new(),
                passed: outcome.passed,
            };
        }
        outcome
    }

    fn check_value(&self, name: &str, schema: &Schema, value: &Value, old: Old<'_>) -> Outcome {
        let mut outcome = Outcome::default();
        let typed = type_check(&mut outcome, name, schema, value);
        if value.is_null() {
            enum_check(&mut outcome, name, schema, value);
            return outcome;
        }
        outcome.passed += usize::from(typed);
        self.alternatives(&mut outcome, name, schema, value);
        match value {
            Value::String(text) => text_check(&mut outcome, name, schema, text),
            Value::Number(_) => number_check(&mut outcome, name, schema, value),
            Value::Array(items) => self.items(&mut outcome, name, schema, items, old),
            _ => {}
        }
        enum_check(&mut outcome, name, schema, value);
        if let Value::Object(entries) = value {
            self.fields(&mut outcome, name, schema, entries, old);
        }
        outcome
    }

    fn alternatives(&self, outcome: &mut Outcome, name: &str, schema: &Schema, value: &Value) {
        let check = |schema: &Schema| self.check(name, schema, value, Old::None);
        if !schema.any_of.is_empty() {
            let mut best: Option<Outcome> = None;
            let mut valid = None;
            for any in &schema.any_of {
                let result = check(any);
                if result.is_valid() {
                    valid = Some(result);
                    break;
                }
                if best.as_ref().is_none_or(|best| result.passed > best.passed) {
                    best = Some(result);
                }
            }
            if valid.is_none() {
                outcome.composite(&format!(
                    "{} must validate at least one schema (anyOf)",
                    quote(name)
                ));
            }
            if let Some(merged) = valid.or(best) {
                outcome.merge(merged);
            }
        }
        if !schema.one_of.is_empty() {
            let mut best: Option<Outcome> = None;
            let mut valid = Vec::new();
            for one in &schema.one_of {
                let result = check(one);
                if result.is_valid() {
                    valid.push(result);
                } else if valid.is_empty()
                    && best.as_ref().is_none_or(|best| result.passed > best.passed)
                {
                    best = Some(result);
                }
            }
            match valid.len() {
                1 => valid.into_iter().for_each(|only| outcome.merge(only)),
                count => {
                    let found = match count {
                        0 => "Found none valid".to_owned(),
                        _ => format!("Found {count} valid alternatives"),
                    };
                    outcome.composite(&format!(
                        "{} must validate one and only one schema (oneOf). {found}",
                        quote(name)
                    ));
                    if let Some(best) = best.filter(|_| count == 0) {
                        outcome.merge(best);
                    }
                }
            }
        }
        let mut valid = 0;
        for all in &schema.all_of {
            let result = check(all);
            valid += usize::from(result.is_valid());
            outcome.merge(result);
        }
        if valid != schema.all_of.len() {
            let none = if valid == 0 { ". None validated" } else { "" };
            outcome.composite(&format!(
                "{} must validate all the schemas (allOf){none}",
                quote(name)
            ));
        }
        if schema
            .not
            .as_deref()
            .is_some_and(|not| check(not).is_valid())
        {
            outcome.composite(&format!(
                "{} must not validate the schema (not)",
                quote(name)
            ));
        }
    }

    fn items(
        &self,
        outcome: &mut Outcome,
        name: &str,
        schema: &Schema,
        items: &[Value],
        old: Old<'_>,
    ) {
        if let Some(each) = schema.items.as_deref() {
            for (at, item) in items.iter().enumerate() {
                let before = old.element(schema, item);
                outcome.merge(self.check(&format!("{name}[{at}]"), each, item, before));
            }
        }
        let size = i64::try_from(items.len()).unwrap_or(i64::MAX);
        if let Some(min) = schema.min_items.filter(|min| size < *min) {
            outcome.invalid(
                name,
                &Value::from(size),
                &format!("{name} in body should have at least {min} items"),
            );
        }
        if let Some(max) = schema.max_items.filter(|max| size > *max) {
            outcome.add(name, "FieldValueTooMany", too_many(size, max));
        }
    }

    fn fields(
        &self,
        outcome: &mut Outcome,
        name: &str,
        schema: &Schema,
        entries: &serde_json::Map<String, Value>,
        old: Old<'_>,
    ) {
        let size = i64::try_from(entries.len()).unwrap_or(i64::MAX);
        if let Some(min) = schema.min_properties.filter(|min| size < *min) {
            outcome.invalid(
                name,
                &Value::from(size),
                &format!("{name} in body should have at least {min} properties"),
            );
        }
        if let Some(max) = schema.max_properties.filter(|max| size > *max) {
            outcome.add(name, "FieldValueTooMany", too_many(size, max));
        }
        let unnamed = entries
            .iter()
            .filter(|(key, _)| !schema.properties.contains_key(*key));
        match &schema.additional {
            Some(Additional::Any(false)) => {
                for (key, _) in unnamed {
                    outcome.invalid(
                        name,
                        &Value::from(key.as_str()),
                        &format!("{name}.{key} in body is a forbidden property"),
                    );
                }
            }
            Some(Additional::Each(each)) => {
                for (key, value) in unnamed {
                    let before = old.field(key);
                    outcome.merge(self.check(&format!("{name}.{key}"), each, value, before));
                }
            }
            _ => {}
        }
        for (key, field) in &schema.properties {
            let Some(value) = entries.get(key) else {
                continue;
            };
            let at = if name.is_empty() {
                key.clone()
            } else {
                format!("{name}.{key}")
            };
            // What an object is cannot have been wrong before.
            let before = match (name.is_empty(), key.as_str()) {
                (true, "kind" | "apiVersion") => Old::None,
                _ => old.field(key),
            };
            outcome.merge(self.check(&at, field, value, before));
        }
        for key in &schema.required {
            if !entries.contains_key(key) {
                outcome.add(
                    &format!("{name}.{key}"),
                    "FieldValueRequired",
                    "Required value".to_owned(),
                );
            }
        }
    }
}

fn too_many(actual: i64, max: i64) -> String {
    let unit = if max == 1 { "item" } else { "items" };
    format!("Too many: {actual}: must have at most {max} {unit}")
}

fn type_check(outcome: &mut Outcome, name: &str, schema: &Schema, value: &Value) -> bool {
    let wanted: &[&str] = if schema.int_or_string {
        &["integer", "string"]
    } else if schema.kind.is_empty() {
        &[]
    } else {
        &[&schema.kind]
    };
    let format = if formats::is_known(&schema.kind, &schema.format) {
        schema.format.as_str()
    } else {
        ""
    };
    if value.is_null() {
        if !wanted.is_empty() && !schema.nullable {
            outcome.wrong_type(name, &wanted.join(","), "null");
            return false;
        }
        return true;
    }
    if wanted.is_empty() && format.is_empty() {
        return true;
    }
    let (found, found_format) = match value {
        Value::Bool(_) => ("boolean", ""),
        Value::String(_) => ("string", ""),
        Value::Number(number) if number.is_f64() => ("number", "float64"),
        Value::Number(_) => ("integer", "int64"),
        Value::Array(_) => ("array", ""),
        _ => ("object", ""),
    };
    let whole = value.as_f64().is_some_and(|number| number.fract() == 0.0);
    let fits = wanted.contains(&found)
        || (found == "number" && whole && wanted.contains(&"integer"))
        || (found == "integer" && wanted.contains(&"number"));
    let sequence = matches!(value, Value::String(_) | Value::Array(_));
    if !sequence && !format.is_empty() && !fits && found_format != format {
        outcome.wrong_type(name, format, found_format);
        return false;
    }
    let numeric = wanted.contains(&"number") || wanted.contains(&"integer");
    if !numeric && !format.is_empty() && sequence {
        return true;
    }
    if !fits {
        outcome.wrong_type(name, &wanted.join(","), found);
    }
    fits
}

fn text_check(outcome: &mut Outcome, name: &str, schema: &Schema, text: &str) {
    let value = Value::from(text);
    let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let before = outcome.issues.len();
    if let Some(max) = schema.max_length.filter(|max| length > *max) {
        let unit = if max == 1 { "byte" } else { "bytes" };
        outcome.add(
            name,
            "FieldValueTooLong",
            format!("Too long: may not be more than {max} {unit}"),
        );
    } else if let Some(min) = schema.min_length.filter(|min| length < *min) {
        outcome.invalid(
            name,
            &value,
            &format!("{name} in body should be at least {min} chars long"),
        );
    } else if let Some((pattern, compiled)) = &schema.pattern {
        match compiled {
            Ok(compiled) if compiled.is_match(text) => {}
            Ok(_) => outcome.invalid(
                name,
                &value,
                &format!("{name} in body should match '{pattern}'"),
            ),
            Err(why) => outcome.invalid(
                name,
                &value,
                &format!("{name} in body should match '{pattern}, but pattern is invalid: {why}'"),
            ),
        }
    }
    if formats::is_known(&schema.kind, &schema.format)
        && matches!(schema.kind.as_str(), "" | "string")
        && !formats::matches(&schema.format, text)
    {
        let message = format!(
            "Invalid value: {}: {name} in body must be of type {}: {}",
            quote(text),
            schema.format,
            quote(text)
        );
        outcome.add(name, "FieldValueTypeInvalid", message);
    }
    outcome.passed += usize::from(outcome.issues.len() == before);
}

fn number_check(outcome: &mut Outcome, name: &str, schema: &Schema, value: &Value) {
    let before = outcome.issues.len();
    let number = value.as_f64().unwrap_or_default();
    // Whole numbers are compared and written as such.
    let shown = |limit: f64| match value.as_i64() {
        #[allow(clippy::cast_possible_truncation)]
        Some(_) => (limit as i64).to_string(),
        None => limit.to_string(),
    };
    if schema.kind == "integer" {
        let whole = number.fract() == 0.0;
        let small = value
            .as_i64()
            .is_some_and(|value| i32::try_from(value).is_ok());
        if schema.format == "int32" && !small {
            outcome.composite(&format!(
                "Checked value must be of type integer with format int32 in {name}"
            ));
        } else if !whole {
            outcome.composite(&format!(
                "Checked value must be of type integer (default format) in {name}"
            ));
        }
    }
    if let Some(factor) = schema.multiple_of {
        multiple_check(outcome, name, factor, value);
    }
    if let Some(max) = schema.maximum {
        let exclusive = schema.exclusive_maximum;
        if number > max || (exclusive && number >= max) {
            let relation = if exclusive {
                "less than"
            } else {
                "less than or equal to"
            };
            outcome.invalid(
                name,
                value,
                &format!("{name} in body should be {relation} {}", shown(max)),
            );
        }
    }
    if let Some(min) = schema.minimum {
        let exclusive = schema.exclusive_minimum;
        if number < min || (exclusive && number <= min) {
            let relation = if exclusive {
                "greater than"
            } else {
                "greater than or equal to"
            };
            outcome.invalid(
                name,
                value,
                &format!("{name} in body should be {relation} {}", shown(min)),
            );
        }
    }
    outcome.passed += usize::from(outcome.issues.len() == before);
}

fn multiple_check(outcome: &mut Outcome, name: &str, factor: f64, value: &Value) {
    let number = value.as_f64().unwrap_or_default();
    // The factor of a whole number is read as one.
    let factor = if value.is_f64() {
        factor
    } else {
        factor.trunc()
    };
    if factor <= 0.0 {
        let detail = format!("factor MultipleOf declared for {name} must be positive: {factor}");
        return outcome.invalid(name, &Value::from(0), &detail);
    }
    if (number / factor).fract() != 0.0 {
        outcome.invalid(
            name,
            value,
            &format!("{name} in body should be a multiple of {factor}"),
        );
    }
}

fn enum_check(outcome: &mut Outcome, name: &str, schema: &Schema, value: &Value) {
    if schema.one_of_values.is_empty() {
        return;
    }
    let same = |allowed: &Value| {
        allowed == value
            || matches!((allowed.as_f64(), value.as_f64()), (Some(a), Some(b)) if a == b)
    };
    if !value.is_null() && schema.one_of_values.iter().any(same) {
        outcome.passed += 1;
        return;
    }
    let supported: Vec<String> = schema
        .one_of_values
        .iter()
        .map(|allowed| match allowed {
            Value::String(text) => quote(text),
            other => quote(&other.to_string()),
        })
        .collect();
    let shown = match value {
        Value::String(text) => quote(text),
        other => other.to_string(),
    };
    outcome.add(
        name,
        "FieldValueNotSupported",
        format!(
            "Unsupported value: {shown}: supported values: {}",
            supported.join(", ")
        ),
    );
}
