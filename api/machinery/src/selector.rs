//! Label and field selectors: the grammar, the errors and the matching of the
//! reference (`k8s.io/apimachinery/pkg/{labels,fields}`).
//!
//! Invariant: an empty selector matches everything; a parsed selector never
//! fails to answer.

mod field;

use std::fmt;

use serde_json::Value;

pub use self::field::{FieldSelector, FieldTerm, field_terms};
use crate::status::{ApiError, quote};
use crate::validation;

/// Longest selector read, in bytes.
pub const MAX_SELECTOR_BYTES: usize = 64 * 1024;

/// A parsed label selector.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

impl LabelSelector {
    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1,m<2`.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let refuse =
            |what: String| ApiError::bad_request(format!("unable to parse requirement: {what}"));
        if text.len() > MAX_SELECTOR_BYTES {
            return Err(refuse(format!("longer than {MAX_SELECTOR_BYTES} bytes")));
        }
        let mut parser = Parser {
            tokens: scan(text),
            at: 0,
        };
        parser
            .selector()
            .map(|requirements| Self { requirements })
            .map_err(ApiError::bad_request)
    }

    /// Reads a selector object: `matchLabels` and `matchExpressions`.
    ///
    /// # Errors
    /// 400: a key or value that no label has, or values that do not fit the operator.
    pub fn of_object(selector: &Value) -> Result<Self, ApiError> {
        let mut requirements = Vec::new();
        for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
            requirements.push(Requirement {
                key: key.clone(),
                operator: Operator::Equals,
                values: vec![value.as_str().unwrap_or_default().to_owned()],
            });
        }
        for expression in selector["matchExpressions"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let operator = match expression["operator"].as_str().unwrap_or_default() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(ApiError::bad_request(format!(
                        "{} is not a valid label selector operator",
                        quote(other)
                    )));
                }
            };
            let values = expression["values"].as_array().into_iter().flatten();
            requirements.push(Requirement {
                key: expression["key"].as_str().unwrap_or_default().to_owned(),
                operator,
                values: values
                    .filter_map(|value| value.as_str().map(str::to_owned))
                    .collect(),
            });
        }
        if let Some(faulty) = requirements.iter().find(|own| !own.is_valid()) {
            return Err(ApiError::bad_request(format!(
                "{} is not a valid label selector requirement",
                quote(&faulty.to_string())
            )));
        }
        Ok(Self { requirements })
    }

    /// Whether the selector selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether the object's labels satisfy every requirement.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.matches_labels(|name| labels.get(name).and_then(Value::as_str))
    }

    /// Whether labels satisfy every requirement; `label` gives one's value by its name.
    pub fn matches_labels<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| r.matches(label(&r.key)))
    }
}

impl fmt::Display for LabelSelector {
    /// As the reference writes a selector object: by key, values in order.
    fn fmt(&self, output: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&Requirement> = self.requirements.iter().collect();
        sorted.sort_by(|left, right| left.key.cmp(&right.key));
        for (at, requirement) in sorted.into_iter().enumerate() {
            let separator = if at == 0 { "" } else { "," };
            write!(output, "{separator}{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, output: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let mut values: Vec<&str> = self.values.iter().map(String::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        match self.operator {
            Operator::Equals => write!(output, "{key}={values}"),
            Operator::In => write!(output, "{key} in ({values})"),
            Operator::NotIn => write!(output, "{key} notin ({values})"),
            Operator::Exists => output.write_str(key),
            Operator::DoesNotExist => write!(output, "!{key}"),
            Operator::GreaterThan => write!(output, "{key}>{values}"),
            Operator::LessThan => write!(output, "{key}<{values}"),
        }
    }
}

impl Requirement {
    /// Whether labels can be what the requirement asks for.
    fn is_valid(&self) -> bool {
        let fits = match self.operator {
            Operator::In | Operator::NotIn => !self.values.is_empty(),
            Operator::Exists | Operator::DoesNotExist => self.values.is_empty(),
            Operator::Equals | Operator::GreaterThan | Operator::LessThan => self.values.len() == 1,
        };
        let values = &self.values;
        fits && validation::qualified_name(&self.key).is_empty()
            && values
                .iter()
                .all(|value| validation::label_value(value).is_empty())
    }

    fn matches(&self, label: Option<&str>) -> bool {
        let listed = |label: &str| self.values.iter().any(|value| value == label);
        let compared = |order: std::cmp::Ordering| {
            let bound = self
                .values
                .first()
                .and_then(|value| value.parse::<i64>().ok());
            match (label.and_then(|label| label.parse::<i64>().ok()), bound) {
                (Some(label), Some(bound)) => label.cmp(&bound) == order,
                _ => false,
            }
        };
        match self.operator {
            Operator::Equals | Operator::In => label.is_some_and(listed),
            Operator::NotIn => !label.is_some_and(listed),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::GreaterThan => compared(std::cmp::Ordering::Greater),
            Operator::LessThan => compared(std::cmp::Ordering::Less),
        }
    }
}

const SPECIAL: &[char] = &['=', '!', '(', ')', ',', '>', '<'];

/// Words and operators; an operator is `!`, `,`, `(`, `)` or a run of `=!<>`.
fn scan(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let Some(first) = rest.chars().next() else {
            return tokens;
        };
        let length = if SPECIAL.contains(&first) {
            ["==", "!="]
                .iter()
                .find(|two| rest.starts_with(**two))
                .map_or(1, |two| two.len())
        } else {
            rest.find(|c| SPECIAL.contains(&c) || matches!(c, ' ' | '\t' | '\r' | '\n'))
                .unwrap_or(rest.len())
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token.to_owned());
        rest = after;
    }
}

struct Parser {
    tokens: Vec<String>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> &str {
        self.tokens.get(self.at).map_or("", String::as_str)
    }

    fn next(&mut self) -> String {
        let token = self.peek().to_owned();
        self.at += 1;
        token
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        if self.peek().is_empty() {
            return Ok(requirements);
        }
        loop {
            if !is_word(self.peek()) && self.peek() != "!" {
                let found = self.peek();
                return Err(format!(
                    "found '{found}', expected: !, identifier, or 'end of string'"
                ));
            }
            let requirement = self
                .requirement()
                .map_err(|what| format!("unable to parse requirement: {what}"))?;
            requirements.push(requirement);
            match self.next().as_str() {
                "" => return Ok(requirements),
                "," if is_word(self.peek()) || self.peek() == "!" => {}
                "," => {
                    return Err(format!(
                        "found '{}', expected: identifier after ','",
                        self.peek()
                    ));
                }
                found => return Err(format!("found '{found}', expected: ',' or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = self.peek() == "!";
        if negated {
            self.at += 1;
        }
        let key = self.next();
        if !is_word(&key) {
            return Err(format!("found '{key}', expected: identifier"));
        }
        check_key(&key)?;
        if negated || matches!(self.peek(), "" | ",") {
            let operator = if negated {
                Operator::DoesNotExist
            } else {
                Operator::Exists
            };
            return Ok(Requirement {
                key,
                operator,
                values: Vec::new(),
            });
        }
        let (operator, values) = match self.next().as_str() {
            "in" => (Operator::In, self.values()?),
            "notin" => (Operator::NotIn, self.values()?),
            "=" | "==" => (Operator::In, vec![self.exact_value()?]),
            "!=" => (Operator::NotIn, vec![self.exact_value()?]),
            ">" => (Operator::GreaterThan, vec![self.exact_value()?]),
            "<" => (Operator::LessThan, vec![self.exact_value()?]),
            found => {
                return Err(format!(
                    "found '{found}', expected: in, notin, =, ==, !=, gt, lt"
                ));
            }
        };
        check_values(&key, operator, &values)?;
        Ok(Requirement {
            key,
            operator,
            values,
        })
    }

    fn exact_value(&mut self) -> Result<String, String> {
        match self.peek() {
            "" | "," => Ok(String::new()),
            word if is_word(word) => Ok(self.next()),
            found => Err(format!("found '{found}', expected: identifier")),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        let open = self.next();
        if open != "(" {
            return Err(format!("found '{open}' expected: '('"));
        }
        let mut values = Vec::new();
        loop {
            let value = if is_word(self.peek()) {
                self.next()
            } else {
                String::new()
            };
            if !values.contains(&value) {
                values.push(value);
            }
            match self.next().as_str() {
                "," => {}
                ")" => break,
                found => return Err(format!("found '{found}', expected: ',' or ')'")),
            }
        }
        values.sort();
        Ok(values)
    }
}

fn is_word(token: &str) -> bool {
    token
        .chars()
        .next()
        .is_some_and(|first| !SPECIAL.contains(&first))
}

fn check_key(key: &str) -> Result<(), String> {
    let wrong = validation::qualified_name(key);
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!(
        "<nil>: Invalid value: {}: {}",
        quote(key),
        wrong.join("; ")
    ))
}

fn check_values(key: &str, operator: Operator, values: &[String]) -> Result<(), String> {
    for (at, value) in values.iter().enumerate() {
        let bound = matches!(operator, Operator::GreaterThan | Operator::LessThan);
        if bound && value.parse::<i64>().is_err() {
            return Err(format!(
                "values[{at}]: Invalid value: {}: for 'Gt', 'Lt' operators, the value must be an integer",
                quote(value)
            ));
        }
        let wrong = validation::label_value(value);
        if !wrong.is_empty() {
            return Err(format!(
                "values[{at}][{key}]: Invalid value: {}: {}",
                quote(value),
                wrong.join("; ")
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::find;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn labels_select_as_the_reference_does() {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "front", "n": "5"}}});
        for (selector, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app in (web, api)", true),
            ("app notin (web)", false),
            ("missing notin (a)", true),
            ("missing!=a", true),
            ("app", true),
            ("!app", false),
            ("!missing", true),
            ("n>4,n<6", true),
            ("n>5", false),
            ("app=", false),
            ("app in (,web)", true),
        ] {
            let parsed = LabelSelector::parse(selector).expect(selector);
            assert_eq!(parsed.matches(&object), expected, "{selector}");
        }
    }

    #[test]
    fn a_bad_label_selector_is_refused_in_the_words_of_the_reference() {
        let messages: Vec<String> = ["a=b=c", "=a", "a in b", "a,,b", "a=b,", "x in (a", "a=%"]
            .iter()
            .map(|text| match LabelSelector::parse(text) {
                Ok(_) => format!("{text}: parsed"),
                Err(error) => format!("{text}: {}", error.message()),
            })
            .collect();
        expect![[r#"
            a=b=c: found '=', expected: ',' or 'end of string'
            =a: found '=', expected: !, identifier, or 'end of string'
            a in b: unable to parse requirement: found 'b' expected: '('
            a,,b: found ',', expected: identifier after ','
            a=b,: found '', expected: identifier after ','
            x in (a: unable to parse requirement: found '', expected: ',' or ')'
            a=%: unable to parse requirement: values[0][a]: Invalid value: "%": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"#]]
        .assert_eq(&messages.join("\n"));
    }

    #[test]
    fn fields_select_what_their_kind_allows() {
        let pods = find("", "v1", "pods").expect("served");
        let pod =
            json!({"metadata": {"name": "a", "namespace": "n"}, "status": {"phase": "Running"}});
        for (selector, expected) in [
            ("metadata.name=a", true),
            ("metadata.name==a,status.phase!=Failed", true),
            ("spec.nodeName=", true),
            ("spec.hostNetwork=false", true),
            ("status.phase=Pending", false),
        ] {
            let parsed = FieldSelector::parse(pods, selector).expect(selector);
            assert_eq!(parsed.matches(&pod), expected, "{selector}");
        }
        assert_eq!(
            FieldSelector::parse(pods, "spec.foo=1")
                .expect_err("unknown")
                .message(),
            "field label not supported: spec.foo"
        );
        let parsed = FieldSelector::parse(pods, "metadata.name=a").expect("parses");
        assert_eq!(parsed.exact_name(), Some("a"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_selector_or_refused(text in "\\PC{0,60}") {
            let pods = find("", "v1", "pods").expect("served");
            let _ = LabelSelector::parse(&text);
            let _ = FieldSelector::parse(pods, &text);
        }
    }
}
