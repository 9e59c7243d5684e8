//! Types of all parts of an expression, and what every name and call means. The
//! reference's algorithm: unification over signatures with parameters, `dyn` fits
//! everywhere, literals of lists and maps are homogeneous.
//!
//! Invariant: an expression without mistakes has a meaning for every name and call.

mod literals;

use std::sync::Arc;

use crate::ast::{Comprehension, Element, Entry, Expr, ExprKind, FieldInit, Parsed, operators};
use crate::environment::Environment;
use crate::error::Mistake;
use crate::library::{self, Overload, type_identifier};
use crate::limits::MAX_ERRORS;
use crate::types::{Substitutions, Type, most_general};
use crate::value::Value;

/// What a name or a call means.
#[derive(Debug, Clone, Default)]
pub(crate) enum Reference {
    #[default]
    None,
    /// A variable of a fold.
    Local,
    /// A declared variable, by its whole name.
    Variable(String),
    /// A type.
    TypeName(Arc<str>),
    /// A function: its name, whether the receiver is an argument, the forms that fit.
    Function {
        name: String,
        member: bool,
        overloads: Vec<&'static Overload>,
    },
    /// An object that is made.
    Object(Arc<crate::declaration::ObjectDeclaration>),
}

/// A checked expression's types and meanings, by the parts' ids.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) types: Vec<Type>,
    pub(crate) references: Vec<Reference>,
}

/// Checks an expression.
pub(crate) fn check(parsed: &Parsed, environment: &Environment) -> Result<Checked, Vec<Mistake>> {
    let count = parsed.offsets.len();
    let mut checker = Checker {
        parsed,
        environment,
        substitutions: Substitutions::default(),
        locals: Vec::new(),
        types: vec![Type::Dyn; count],
        references: vec![Reference::None; count],
        mistakes: Vec::new(),
    };
    checker.check(&parsed.root);
    if !checker.mistakes.is_empty() {
        return Err(checker.mistakes);
    }
    let types = checker
        .types
        .iter()
        .map(|of| checker.substitutions.resolve(of, true))
        .collect();
    let checked = Checked {
        types,
        references: checker.references,
    };
    let mistakes = literals::mistakes(parsed, &checked);
    if mistakes.is_empty() {
        Ok(checked)
    } else {
        Err(mistakes)
    }
}

struct Checker<'c> {
    parsed: &'c Parsed,
    environment: &'c Environment,
    substitutions: Substitutions,
    locals: Vec<(String, Type)>,
    types: Vec<Type>,
    references: Vec<Reference>,
    mistakes: Vec<Mistake>,
}

impl Checker<'_> {
    fn wrong(&mut self, id: usize, message: String) {
        // One more than is shown, so that the rest is counted as cut off.
        if self.mistakes.len() <= MAX_ERRORS {
            self.mistakes.push(Mistake {
                at: self.parsed.offsets.get(id).copied().unwrap_or_default(),
                message,
            });
        }
    }

    fn set(&mut self, id: usize, of: Type) {
        if let Some(slot) = self.types.get_mut(id) {
            *slot = of;
        }
    }

    fn refer(&mut self, id: usize, reference: Reference) {
        if let Some(slot) = self.references.get_mut(id) {
            *slot = reference;
        }
    }

    fn type_of(&self, expr: &Expr) -> Type {
        self.types.get(expr.id).cloned().unwrap_or(Type::Dyn)
    }

    fn resolved(&self, expr: &Expr) -> Type {
        self.substitutions.resolve(&self.type_of(expr), false)
    }

    fn check(&mut self, expr: &Expr) {
        let of = match &expr.kind {
            ExprKind::Literal(value) => literal_type(value),
            ExprKind::Ident(name) => self.ident(expr.id, name),
            ExprKind::Select {
                operand,
                field,
                test_only,
            } => self.select(expr, operand, field, *test_only),
            ExprKind::Call {
                function,
                target,
                args,
            } => self.call(expr.id, function, target.as_deref(), args),
            ExprKind::List(elements) => self.list(elements),
            ExprKind::Map(entries) => self.map(entries),
            ExprKind::Struct { name, fields } => self.object(expr.id, name, fields),
            ExprKind::Comprehension(fold) => self.fold(fold),
        };
        self.set(expr.id, of);
    }

    fn local(&self, name: &str) -> Option<Type> {
        let found = self.locals.iter().rev().find(|(local, _)| local == name);
        found.map(|(_, of)| of.clone())
    }

    fn global(&mut self, id: usize, name: &str) -> Option<Type> {
        if let Some(declaration) = self.environment.variable(name) {
            let of = declaration.type_of();
            self.refer(id, Reference::Variable(name.to_owned()));
            return Some(of);
        }
        let of = match self.environment.object(name) {
            Some(object) => Type::Object(object),
            None => type_identifier(name)?,
        };
        self.refer(id, Reference::TypeName(Arc::from(name)));
        Some(Type::Type(Some(Arc::new(of))))
    }

    fn ident(&mut self, id: usize, name: &str) -> Type {
        if let Some(of) = self.local(name) {
            self.refer(id, Reference::Local);
            return of;
        }
        match self.global(id, name) {
            Some(of) => of,
            None => {
                self.undeclared(id, name);
                Type::Error
            }
        }
    }

    fn undeclared(&mut self, id: usize, name: &str) {
        self.wrong(
            id,
            format!("undeclared reference to '{name}' (in container '')"),
        );
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &str, test_only: bool) -> Type {
        if let Some(name) = expr.qualified_name() {
            let first = name.split('.').next().unwrap_or_default();
            if self.local(first).is_none()
                && let Some(of) = self.global(expr.id, &name)
            {
                return of;
            }
        }
        let of = self.field_of(expr.id, operand, field, false);
        if test_only {
            return Type::Bool;
        }
        self.substitutions.resolve(&of, false)
    }

    fn field_of(&mut self, id: usize, operand: &Expr, field: &str, optional: bool) -> Type {
        self.check(operand);
        let target = self.resolved(operand);
        let (target, was_optional) = match target {
            Type::Optional(inner) => ((*inner).clone(), true),
            other => (other, false),
        };
        let of = match &target {
            Type::Map(entry) => entry.1.clone(),
            Type::Object(object) => match object.fields.get(field) {
                Some(found) => found.declaration.type_of(),
                None if object.open => Type::Dyn,
                None => {
                    self.wrong(id, format!("undefined field '{field}'"));
                    Type::Error
                }
            },
            Type::Opaque(name) if is_object(name) => {
                self.wrong(id, format!("undefined field '{field}'"));
                Type::Error
            }
            Type::Param(_) => {
                self.substitutions.assign(&Type::Dyn, &target);
                Type::Dyn
            }
            other => {
                if !other.is_dyn_or_error() {
                    self.wrong(
                        id,
                        format!("type '{other}' does not support field selection"),
                    );
                }
                Type::Dyn
            }
        };
        if was_optional || optional {
            return Type::optional(of);
        }
        of
    }

    fn call(&mut self, id: usize, function: &str, target: Option<&Expr>, args: &[Expr]) -> Type {
        if function == operators::OPTIONAL_SELECT {
            return self.optional_select(id, args);
        }
        for arg in args {
            self.check(arg);
        }
        let mut arg_types: Vec<Type> = args.iter().map(|arg| self.type_of(arg)).collect();
        let Some(target) = target else {
            return self.resolve(id, function, false, &arg_types, args);
        };
        if let Some(prefix) = target.qualified_name() {
            let name = format!("{prefix}.{function}");
            if !library::find(&name).is_empty() && !self.environment.hides(&name) {
                return self.resolve(id, &name, false, &arg_types, args);
            }
        }
        self.check(target);
        arg_types.insert(0, self.type_of(target));
        self.resolve(id, function, true, &arg_types, args)
    }

    fn optional_select(&mut self, id: usize, args: &[Expr]) -> Type {
        let [operand, field] = args else {
            return Type::Error;
        };
        let ExprKind::Literal(Value::String(name)) = &field.kind else {
            return Type::Error;
        };
        let of = self.field_of(id, operand, name, true);
        self.refer(
            id,
            Reference::Function {
                name: operators::OPTIONAL_SELECT.to_owned(),
                member: false,
                overloads: library::find(operators::OPTIONAL_SELECT).iter().collect(),
            },
        );
        self.substitutions.resolve(&of, false)
    }

    fn resolve(
        &mut self,
        id: usize,
        name: &str,
        member: bool,
        arg_types: &[Type],
        args: &[Expr],
    ) -> Type {
        let forms = library::find(name);
        if forms.is_empty() || self.environment.hides(name) {
            self.undeclared(id, name);
            return Type::Error;
        }
        if name == operators::AND || name == operators::OR {
            return self.logic(id, name, arg_types, args);
        }
        let mut fitting = Vec::new();
        let mut result: Option<Type> = None;
        for form in forms.iter().filter(|form| form.member == member) {
            let base = self.substitutions.len();
            for _ in 0..form.type_params {
                self.substitutions.fresh();
            }
            let params: Vec<Type> = form.params.iter().map(|p| shifted(p, base)).collect();
            if !self.substitutions.assign_all(arg_types, &params) {
                continue;
            }
            fitting.push(form);
            let gives = self
                .substitutions
                .resolve(&shifted(&form.result, base), false);
            result = Some(match result {
                None => gives,
                Some(Type::Dyn) => Type::Dyn,
                Some(before) if before.same(&gives) => before,
                Some(_) => Type::Dyn,
            });
        }
        let Some(result) = result else {
            let shown: Vec<String> = arg_types
                .iter()
                .map(|of| self.substitutions.resolve(of, true).to_string())
                .collect();
            let signature = match (member, shown.split_first()) {
                (true, Some((receiver, rest))) => format!("{receiver}.({})", rest.join(", ")),
                _ => format!("({})", shown.join(", ")),
            };
            self.wrong(
                id,
                format!("found no matching overload for '{name}' applied to '{signature}'"),
            );
            return Type::Error;
        };
        self.refer(
            id,
            Reference::Function {
                name: name.to_owned(),
                member,
                overloads: fitting,
            },
        );
        result
    }

    fn logic(&mut self, id: usize, name: &str, arg_types: &[Type], args: &[Expr]) -> Type {
        let mut good = true;
        for (of, arg) in arg_types.iter().zip(args) {
            if !self.substitutions.assign(of, &Type::Bool) {
                let of = self.substitutions.resolve(of, false);
                self.wrong(arg.id, format!("expected type 'bool' but found '{of}'"));
                good = false;
            }
        }
        self.refer(
            id,
            Reference::Function {
                name: name.to_owned(),
                member: false,
                overloads: library::find(name).iter().collect(),
            },
        );
        if good { Type::Bool } else { Type::Error }
    }

    fn mismatch(&mut self, id: usize, expected: &Type, actual: &Type) {
        let expected = self.substitutions.resolve(expected, false);
        let actual = self.substitutions.resolve(actual, false);
        self.wrong(
            id,
            format!("expected type '{expected}' but found '{actual}'"),
        );
    }

    fn join(&mut self, previous: Option<Type>, current: Type) -> Type {
        let Some(previous) = previous else {
            return current;
        };
        if self.substitutions.assign(&previous, &current) {
            return most_general(&previous, &current);
        }
        // That elements differ is told when all is known: see `Literals`.
        Type::Dyn
    }

    /// The type under an optional element, entry or field.
    fn unwrapped(&mut self, value: &Expr, optional: bool) -> Type {
        let of = self.type_of(value);
        if !optional {
            return of;
        }
        match self.substitutions.resolve(&of, false) {
            Type::Optional(inner) => (*inner).clone(),
            Type::Dyn => Type::Dyn,
            other => {
                self.mismatch(value.id, &Type::optional(other.clone()), &other);
                other
            }
        }
    }

    fn list(&mut self, elements: &[Element]) -> Type {
        let mut common = None;
        for element in elements {
            self.check(&element.value);
            let of = self.unwrapped(&element.value, element.optional);
            common = Some(self.join(common, of));
        }
        Type::list(common.unwrap_or_else(|| self.substitutions.fresh()))
    }

    fn map(&mut self, entries: &[Entry]) -> Type {
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            self.check(&entry.key);
            let key = self.type_of(&entry.key);
            keys = Some(self.join(keys, key));
            self.check(&entry.value);
            let value = self.unwrapped(&entry.value, entry.optional);
            values = Some(self.join(values, value));
        }
        let key = keys.unwrap_or_else(|| self.substitutions.fresh());
        let value = values.unwrap_or_else(|| self.substitutions.fresh());
        Type::map(key, value)
    }

    fn object(&mut self, id: usize, name: &str, fields: &[FieldInit]) -> Type {
        let object = self.environment.object(name);
        if object.is_none() {
            match type_identifier(name) {
                Some(_) => self.wrong(id, format!("'{name}' is not a message type")),
                None => self.undeclared(id, name),
            }
        }
        for field in fields {
            self.check(&field.value);
            let of = self.unwrapped(&field.value, field.optional);
            let Some(object) = &object else {
                continue;
            };
            let Some(declared) = object.fields.get(&field.name) else {
                if !object.open {
                    self.wrong(field.id, format!("undefined field '{}'", field.name));
                }
                continue;
            };
            let declared = declared.declaration.type_of();
            if !self.substitutions.assign(&declared, &of) {
                let of = self.substitutions.resolve(&of, false);
                self.wrong(
                    field.id,
                    format!(
                        "expected type of field '{}' is '{declared}' but provided type is '{of}'",
                        field.name
                    ),
                );
            }
        }
        match object {
            Some(object) => {
                self.refer(id, Reference::Object(Arc::clone(&object)));
                Type::Object(object)
            }
            None => Type::Error,
        }
    }

    fn fold(&mut self, fold: &Comprehension) -> Type {
        self.check(&fold.range);
        self.check(&fold.init);
        let range = self.resolved(&fold.range);
        let accumulated = self.type_of(&fold.init);
        self.locals
            .push((fold.accumulator.clone(), accumulated.clone()));
        let two = fold.variable2.is_some();
        let (first, second) = match &range {
            Type::List(element) if two => (Type::Int, (**element).clone()),
            Type::List(element) => ((**element).clone(), Type::Dyn),
            Type::Map(entry) => (entry.0.clone(), entry.1.clone()),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.substitutions.assign(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                self.wrong(
                    fold.range.id,
                    format!(
                        "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                    ),
                );
                (Type::Error, Type::Error)
            }
        };
        let depth = self.locals.len();
        self.locals.push((fold.variable.clone(), first));
        if let Some(name) = &fold.variable2 {
            self.locals.push((name.clone(), second));
        }
        self.check(&fold.condition);
        self.assert(&fold.condition, &Type::Bool);
        self.check(&fold.step);
        self.assert(&fold.step, &accumulated);
        self.locals.truncate(depth);
        self.check(&fold.result);
        self.locals.truncate(depth - 1);
        self.resolved(&fold.result)
    }

    fn assert(&mut self, expr: &Expr, expected: &Type) {
        let actual = self.type_of(expr);
        if !self.substitutions.assign(expected, &actual) {
            self.mismatch(expr.id, expected, &actual);
        }
    }
}

/// Whether the reference holds values of the type for objects, which have no field.
fn is_object(name: &str) -> bool {
    !matches!(name, "net.IP" | "net.CIDR")
}

/// The type with its parameters numbered from `base`.
fn shifted(of: &Type, base: usize) -> Type {
    match of {
        Type::Param(at) => Type::Param(at + base),
        Type::List(element) => Type::list(shifted(element, base)),
        Type::Optional(inner) => Type::optional(shifted(inner, base)),
        Type::Map(entry) => Type::map(shifted(&entry.0, base), shifted(&entry.1, base)),
        Type::Type(Some(inner)) => Type::Type(Some(Arc::new(shifted(inner, base)))),
        other => other.clone(),
    }
}

fn literal_type(value: &Value<'_>) -> Type {
    match value {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::Uint(_) => Type::Uint,
        Value::Double(_) => Type::Double,
        Value::String(_) => Type::String,
        Value::Bytes(_) => Type::Bytes,
        _ => Type::Dyn,
    }
}

/// Every part, outermost first.
pub(crate) fn walk(expr: &Expr, visit: &mut dyn FnMut(&Expr)) {
    visit(expr);
    expr.kind.each_child(&mut |child| walk(child, visit));
}
