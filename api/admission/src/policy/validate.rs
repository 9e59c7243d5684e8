//! Validations: what they decide, in which words, and what their bindings make of it.

use nautilus_cel::{Budget, Environment, Type, Value as Cel};
use nautilus_machinery::status::ApiError;
use serde_json::Value;

use super::{Binding, Policy};
use crate::attributes::Attributes;
use crate::expressions::{Expression, Input, Verdict};
use crate::values::text;

/// Bytes of a message that an expression made, at most.
const MAX_MESSAGE_BYTES: usize = 5 * 1024;
/// Bytes of an audit annotation; more are cut off.
const MAX_ANNOTATION_BYTES: usize = 10 * 1024;

/// What a failed validation comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The request is refused.
    Deny,
    /// The client is warned.
    Warn,
    /// The audit log says so.
    Audit,
}

impl Action {
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "Deny" => Self::Deny,
            "Warn" => Self::Warn,
            "Audit" => Self::Audit,
            _ => return None,
        })
    }

    /// As bindings write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "Deny",
            Self::Warn => "Warn",
            Self::Audit => "Audit",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Validation {
    expression: Expression,
    message: String,
    message_expression: Option<Expression>,
    reason: String,
}

impl Validation {
    pub(super) fn of(value: &Value, scope: &Environment, of_messages: &Environment) -> Self {
        let message_expression = value["messageExpression"].as_str();
        Self {
            expression: Expression::new(text(&value["expression"]), scope, &[Type::Bool]),
            message: text(&value["message"]).trim().to_owned(),
            message_expression: message_expression
                .filter(|source| !source.is_empty())
                .map(|source| Expression::new(source, of_messages, &[Type::String])),
            reason: match text(&value["reason"]) {
                "" => "Invalid",
                reason => reason,
            }
            .to_owned(),
        }
    }
}

/// A validation that did not hold, or could not be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Which validation.
    pub index: usize,
    /// Why.
    pub message: String,
    /// The reason of a refusal, as `Invalid`.
    pub reason: String,
}

/// What a policy says of a request, with one set of parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What did not hold.
    pub decisions: Vec<Decision>,
    /// Refusals that no binding's actions soften: annotations that could not be made.
    pub errors: Vec<Decision>,
    /// What the audit log should hold, by key.
    pub annotations: Vec<(String, String)>,
}

impl Policy {
    /// Judges a request.
    pub fn validate(&self, input: &Input<'_>) -> Outcome {
        let mut outcome = Outcome::default();
        let fail = |outcome: &mut Outcome, index: usize, message: String| {
            if !self.ignores_failure {
                outcome.decisions.push(Decision {
                    index,
                    message,
                    reason: "Invalid".to_owned(),
                });
            }
        };
        match self.meets(input) {
            Verdict::Matches => {}
            Verdict::Skips => return outcome,
            Verdict::Fails(why) => {
                fail(&mut outcome, 0, why);
                return outcome;
            }
        }
        let bindings = match self.bind(input) {
            Ok(bindings) => bindings,
            Err(error) => {
                fail(&mut outcome, 0, error.to_string());
                return outcome;
            }
        };
        let mut budget = Budget::per_object();
        for (index, validation) in self.validations.iter().enumerate() {
            match validation.expression.evaluate(&bindings, &mut budget) {
                Err(error) => {
                    fail(&mut outcome, index, error);
                    if budget.is_exhausted() {
                        return outcome;
                    }
                }
                Ok(value) if value.as_bool() == Some(true) => {}
                Ok(_) => {
                    let made = validation
                        .message_expression
                        .as_ref()
                        .and_then(|one| one.evaluate(&bindings, &mut budget).ok());
                    if budget.is_exhausted() {
                        let why = "failed messageExpression: running out of cost budget";
                        fail(&mut outcome, index, why.to_owned());
                        return outcome;
                    }
                    outcome.decisions.push(Decision {
                        index,
                        message: message(validation, made.as_ref()),
                        reason: validation.reason.clone(),
                    });
                }
            }
        }
        let mut budget = Budget::per_object();
        for (key, expression) in &self.annotations {
            match expression.evaluate(&bindings, &mut budget) {
                Ok(value) => {
                    let text = value.as_str().map(str::trim).unwrap_or_default();
                    if !text.is_empty() {
                        let end = text.floor_char_boundary(MAX_ANNOTATION_BYTES);
                        outcome
                            .annotations
                            .push((key.clone(), text[..end].to_owned()));
                    }
                }
                Err(_) if self.ignores_failure => {}
                Err(message) => outcome.errors.push(Decision {
                    index: 0,
                    message,
                    reason: String::new(),
                }),
            }
        }
        outcome
    }
}

/// The message: made by its expression, as written, or the expression that failed.
fn message(validation: &Validation, made: Option<&Cel<'_>>) -> String {
    let made = made.and_then(|value| value.as_str()).map(str::trim);
    let usable = made
        .filter(|made| !made.is_empty() && made.len() <= MAX_MESSAGE_BYTES && !made.contains('\n'));
    match (usable, validation.message.as_str()) {
        (Some(made), _) => made.to_owned(),
        (None, "") => format!("failed expression: {}", validation.expression.source.trim()),
        (None, message) => message.to_owned(),
    }
}

/// The refusal, with the reference's code for its reason. Without a binding the policy
/// itself is at fault.
pub fn denied(
    asked: &Attributes<'_>,
    object: Option<&Value>,
    kind: &str,
    policy: &Policy,
    binding: Option<&Binding>,
    decision: &Decision,
) -> ApiError {
    let name = &policy.name;
    let why = &decision.message;
    let message = match binding {
        Some(binding) => format!(
            "{kind} '{name}' with binding '{}' denied request: {why}",
            binding.name
        ),
        None => format!("{kind} '{name}' denied request: {why}"),
    };
    let (code, reason) = match decision.reason.as_str() {
        "" => (422, "Invalid"),
        "Forbidden" => (403, "Forbidden"),
        "Unauthorized" => (401, "Unauthorized"),
        "RequestEntityTooLarge" => (413, "RequestEntityTooLarge"),
        other => (422, other),
    };
    asked
        .forbidden(object, &message)
        .with_code(code, reason)
        .with_cause(&message)
}
