//! Expressions as they are written: what does not compile is refused with the object that
//! has it, webhooks' conditions and policies' expressions alike.
//!
//! Invariant: a text that the object had as an expression anywhere passes again, so that an
//! object that an older release took can still be changed.

use std::collections::BTreeSet;

use nautilus_cel::{Environment, Program, Type};
use nautilus_machinery::resource::Resource;
use nautilus_machinery::status::ApiError;
use nautilus_machinery::strategy;
use nautilus_machinery::validation::Errors;
use serde_json::Value;

use super::{Variables, declare_patches, result_of};
use crate::expressions::{Names, environment};
use crate::values::{items, text};

/// Refuses an object of the group `admissionregistration.k8s.io` that is written for what is
/// wrong with its expressions. `old`: as it was.
pub fn check_written(
    resource: &Resource,
    old: Option<&Value>,
    object: &Value,
) -> Result<(), ApiError> {
    strategy::refuse_invalid(resource, object, mistakes(&resource.plural, object, old))
}

fn mistakes(plural: &str, object: &Value, old: Option<&Value>) -> Errors {
    let mut known = BTreeSet::new();
    if let Some(old) = old {
        sources(old, &mut known);
    }
    let mut written = Written {
        known,
        errors: Errors::new(),
    };
    match plural {
        "validatingwebhookconfigurations" | "mutatingwebhookconfigurations" => {
            written.hooks(object);
        }
        "validatingadmissionpolicies" | "mutatingadmissionpolicies" => {
            written.policy(&object["spec"]);
        }
        _ => {}
    }
    written.errors
}

/// The texts of all expressions of an object.
fn sources<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Array(all) => all.iter().for_each(|one| sources(one, found)),
        Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_str() {
                    Some(source) if name.to_lowercase().ends_with("expression") => {
                        found.insert(source);
                    }
                    _ => sources(field, found),
                }
            }
        }
        _ => {}
    }
}

struct Written<'a> {
    known: BTreeSet<&'a str>,
    errors: Errors,
}

impl Written<'_> {
    fn expression(&mut self, at: &str, source: &Value, scope: &Environment, results: &[Type]) {
        // What is missing, others say.
        let source = text(source);
        if source.trim().is_empty() || self.known.contains(source) {
            return;
        }
        match Program::compile(source, scope, &[]) {
            Err(error) => self.refuse(at, source, &error.to_string()),
            Ok(program) => {
                let found = program.result_type();
                if !results.iter().any(|wanted| found.same(wanted)) {
                    let detail = match results {
                        [wanted] => format!("must evaluate to {wanted} but got {found}"),
                        _ => {
                            let wanted: Vec<_> = results.iter().map(Type::to_string).collect();
                            let wanted = wanted.join(" ");
                            format!("must evaluate to one of [{wanted}] but got {found}")
                        }
                    };
                    self.errors.invalid_text(at, source, &detail);
                }
            }
        }
    }

    fn refuse(&mut self, at: &str, source: &str, error: &str) {
        let detail = format!("compilation failed: {error}");
        self.errors.invalid_text(at, source, &detail);
    }

    fn conditions(&mut self, at: &str, list: &Value, scope: &Environment) {
        for (index, one) in items(list).enumerate() {
            let at = format!("{at}[{index}].expression");
            self.expression(&at, &one["expression"], scope, &[Type::Bool]);
        }
    }

    fn hooks(&mut self, configuration: &Value) {
        let scope = environment(Names {
            authorizer: true,
            ..Names::default()
        });
        for (index, webhook) in items(&configuration["webhooks"]).enumerate() {
            let at = format!("webhooks[{index}].matchConditions");
            self.conditions(&at, &webhook["matchConditions"], &scope);
        }
    }

    fn policy(&mut self, spec: &Value) {
        let names = Names {
            params: spec["paramKind"].is_object(),
            authorizer: true,
            namespace: true,
        };
        let (variables, mut scope) = Variables::of(&spec["variables"], &environment(names));
        let compiled = items(&spec["variables"]).zip(variables.0.iter());
        for (index, (one, (_, program))) in compiled.enumerate() {
            let source = text(&one["expression"]);
            if let Err(error) = program
                && !source.trim().is_empty()
                && !self.known.contains(source)
            {
                self.refuse(
                    &format!("spec.variables[{index}].expression"),
                    source,
                    error,
                );
            }
        }
        self.conditions("spec.matchConditions", &spec["matchConditions"], &scope);
        let of_messages = environment(Names {
            authorizer: false,
            ..names
        });
        let of_messages = Variables::of(&spec["variables"], &of_messages).1;
        for (index, one) in items(&spec["validations"]).enumerate() {
            let at = format!("spec.validations[{index}]");
            let (expression, message) = (&one["expression"], &one["messageExpression"]);
            self.expression(
                &format!("{at}.expression"),
                expression,
                &scope,
                &[Type::Bool],
            );
            let at = format!("{at}.messageExpression");
            self.expression(&at, message, &of_messages, &[Type::String]);
        }
        for (index, one) in items(&spec["auditAnnotations"]).enumerate() {
            let at = format!("spec.auditAnnotations[{index}].valueExpression");
            let results = [Type::String, Type::Null];
            self.expression(&at, &one["valueExpression"], &scope, &results);
        }
        declare_patches(&mut scope);
        for (index, one) in items(&spec["mutations"]).enumerate() {
            if let Some((field, result)) = result_of(one) {
                let at = format!("spec.mutations[{index}].{field}.expression");
                self.expression(&at, &one[field]["expression"], &scope, &[result]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(plural: &str, object: &Value, old: Option<&Value>) -> Vec<String> {
        let found = mistakes(plural, object, old).into_causes();
        for cause in &found {
            let why = ["compilation failed: ERROR: <input>:1:", "must evaluate to "];
            assert!(
                why.iter().any(|why| cause.message.contains(why)),
                "{cause:?}"
            );
        }
        found.into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn every_expression_must_compile_where_it_stands() {
        let hooks = json!({"webhooks": [
            {"matchConditions": [{"expression": "request.name == 'a'"}, {"expression": "... []"}]},
            {"matchConditions": [{"expression": "params.a"}, {"expression": "authorizer != null"}]},
        ]});
        for plural in [
            "validatingwebhookconfigurations",
            "mutatingwebhookconfigurations",
        ] {
            assert_eq!(
                fields(plural, &hooks, None),
                [
                    "webhooks[0].matchConditions[1].expression",
                    "webhooks[1].matchConditions[0].expression"
                ]
            );
        }
        let policy = json!({"spec": {
            "variables": [{"name": "a", "expression": "object.a"}, {"name": "b", "expression": "variables.c"}],
            "matchConditions": [{"expression": "variables.a == 1"}, {"expression": "1"}],
            "validations": [
                {"expression": "variables.a", "messageExpression": "authorizer.path('/a')"},
                {"expression": "object.", "messageExpression": "'a'"},
            ],
            "auditAnnotations": [{"valueExpression": "1"}, {"valueExpression": "'a'"}],
            "mutations": [
                {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "1"}},
                {"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'test', path: '/a'}]"}},
            ],
        }});
        let wrong = fields("validatingadmissionpolicies", &policy, None);
        assert_eq!(
            wrong,
            [
                "spec.variables[1].expression",
                "spec.matchConditions[1].expression",
                "spec.validations[0].expression",
                "spec.validations[0].messageExpression",
                "spec.validations[1].expression",
                "spec.auditAnnotations[0].valueExpression",
                "spec.mutations[0].applyConfiguration.expression",
            ]
        );
        assert!(fields("validatingadmissionpolicies", &policy, Some(&policy)).is_empty());
        assert!(fields("validatingadmissionpolicybindings", &policy, None).is_empty());
    }
}
