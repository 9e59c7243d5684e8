//! Literals that can never be right: texts that are no time, span or pattern where one
//! is made of them, and lists and maps of mixed types (but for the arguments of
//! `format`).

use super::{Checked, Reference};
use crate::ast::{Expr, ExprKind, Parsed};
use crate::error::Mistake;
use crate::library::patterns;
use crate::types::Type;
use crate::value::Value;

/// The mistakes in a checked expression's literals.
pub(super) fn mistakes(parsed: &Parsed, checked: &Checked) -> Vec<Mistake> {
    let mut literals = Literals {
        parsed,
        checked,
        mistakes: Vec::new(),
    };
    literals.visit(&parsed.root, false);
    literals.mistakes
}

struct Literals<'l> {
    parsed: &'l Parsed,
    checked: &'l Checked,
    mistakes: Vec<Mistake>,
}

impl Literals<'_> {
    fn wrong(&mut self, id: usize, message: String) {
        self.mistakes.push(Mistake {
            at: self.parsed.offsets.get(id).copied().unwrap_or_default(),
            message,
        });
    }

    fn visit(&mut self, expr: &Expr, mut may_mix: bool) {
        match &expr.kind {
            ExprKind::Call { target, args, .. } => {
                if let Some(Reference::Function { name, .. }) = self.checked.references.get(expr.id)
                {
                    may_mix |= name == "format";
                    self.argument(name, target.is_some(), args);
                }
            }
            ExprKind::List(elements) if !may_mix => {
                let values = elements.iter().map(|e| (&e.value, e.optional));
                self.alike(values);
            }
            ExprKind::Map(entries) if !may_mix => {
                self.alike(entries.iter().map(|entry| (&entry.key, false)));
                self.alike(entries.iter().map(|entry| (&entry.value, entry.optional)));
            }
            _ => {}
        }
        expr.kind
            .each_child(&mut |child| self.visit(child, may_mix));
    }

    fn alike<'x>(&mut self, values: impl Iterator<Item = (&'x Expr, bool)>) {
        let mut first: Option<Type> = None;
        for (value, optional) in values {
            let of = self.checked.types.get(value.id).cloned();
            let of = match of.unwrap_or(Type::Dyn) {
                Type::Optional(inner) if optional => (*inner).clone(),
                other => other,
            };
            match &first {
                None => first = Some(of),
                Some(first) if first.same(&of) => {}
                Some(first) => {
                    let message = format!("expected type '{first}' but found '{of}'");
                    return self.wrong(value.id, message);
                }
            }
        }
    }

    fn argument(&mut self, name: &str, member: bool, args: &[Expr]) {
        let arg = match name {
            "matches" if !member => args.get(1),
            "matches" | "duration" | "timestamp" => args.first(),
            _ => None,
        };
        let Some((arg, ExprKind::Literal(Value::String(text)))) = arg.map(|arg| (arg, &arg.kind))
        else {
            return;
        };
        let good = match name {
            "matches" => patterns::compile(text).is_ok(),
            "duration" => nautilus_machinery::timestamp::parse_duration(text).is_some(),
            _ => nautilus_machinery::timestamp::parse(text).is_some(),
        };
        if !good {
            self.wrong(arg.id, format!("invalid {name} argument"));
        }
    }
}
