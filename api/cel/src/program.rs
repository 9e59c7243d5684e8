//! A compiled expression.

use std::sync::Arc;

use crate::ast::{ExprKind, Parsed};
use crate::check::{Checked, Reference, check, walk};
use crate::cost::{CostEstimate, estimate};
use crate::environment::Environment;
use crate::error::{CompileError, EvalError};
use crate::evaluate::{Bindings, Budget, run};
use crate::library::patterns::{Compiled, compile};
use crate::parser::parse;
use crate::types::Type;
use crate::value::Value;

/// An expression that was parsed and checked.
#[derive(Debug, Clone)]
pub struct Program(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    parsed: Parsed,
    checked: Checked,
    patterns: Compiled,
    cost: CostEstimate,
}

impl Program {
    /// Compiles an expression over what the environment declares. With `results` its
    /// type must be one of them.
    pub fn compile(
        source: &str,
        environment: &Environment,
        results: &[Type],
    ) -> Result<Self, CompileError> {
        let parsed =
            parse(source, environment).map_err(|mistakes| CompileError::of(source, mistakes))?;
        let checked =
            check(&parsed, environment).map_err(|mistakes| CompileError::of(source, mistakes))?;
        let patterns = compile_patterns(&parsed, &checked)?;
        let cost = estimate(&parsed, &checked, environment);
        let program = Self(Arc::new(Parts {
            parsed,
            checked,
            patterns,
            cost,
        }));
        let result = program.result_type();
        match results {
            [] => {}
            _ if results.iter().any(|wanted| wanted.same(&result)) => {}
            [one] => return Err(CompileError::whole(format!("must evaluate to {one}"))),
            several => {
                let names: Vec<String> = several.iter().map(Type::to_string).collect();
                return Err(CompileError::whole(format!(
                    "must evaluate to one of [{}]",
                    names.join(" ")
                )));
            }
        }
        Ok(program)
    }

    /// The type of its value.
    pub fn result_type(&self) -> Type {
        let root = self.0.parsed.root.id;
        self.0.checked.types.get(root).cloned().unwrap_or(Type::Dyn)
    }

    /// What it costs at least and at most, as far as sizes are declared.
    pub fn cost(&self) -> CostEstimate {
        self.0.cost
    }

    /// Whether it names the variable.
    pub fn uses(&self, variable: &str) -> bool {
        let named = |reference: &Reference| matches!(reference, Reference::Variable(name) if name == variable);
        self.0.checked.references.iter().any(named)
    }

    /// Its value; spends the budget.
    pub fn evaluate<'a>(
        &self,
        bindings: &Bindings<'a>,
        budget: &mut Budget,
    ) -> Result<Value<'a>, EvalError> {
        let parts = &*self.0;
        run(
            &parts.parsed.root,
            &parts.checked,
            &parts.patterns,
            bindings,
            budget,
        )
    }
}

/// The patterns that are literals.
fn compile_patterns(parsed: &Parsed, checked: &Checked) -> Result<Compiled, CompileError> {
    let mut compiled = Compiled::new();
    let mut wrong = None;
    walk(&parsed.root, &mut |expr| {
        let ExprKind::Call { args, target, .. } = &expr.kind else {
            return;
        };
        let Some(Reference::Function { name, .. }) = checked.references.get(expr.id) else {
            return;
        };
        if !matches!(name.as_str(), "matches" | "find" | "findAll") {
            return;
        }
        let at = usize::from(target.is_none());
        if let Some(ExprKind::Literal(Value::String(text))) = args.get(at).map(|arg| &arg.kind) {
            match compile(text) {
                Ok(pattern) => {
                    compiled.insert(text.to_string(), pattern);
                }
                Err(why) => wrong = Some(why),
            }
        }
    });
    match wrong {
        Some(why) => Err(CompileError::whole(format!(
            "program instantiation failed: {why}"
        ))),
        None => Ok(compiled),
    }
}
