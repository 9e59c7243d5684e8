//! Evaluation: the value of an expression, and what it cost.
//!
//! Invariants
//! - Every step spends cost or work, so that evaluation ends.
//! - A spent budget ends it at once; `||`, `&&` and folds pass over failures only.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ast::{ACCUMULATOR, Comprehension, Expr, ExprKind, operators};
use crate::check::{Checked, Reference};
use crate::error::EvalError;
use crate::library::patterns::{Compiled, Patterns};
use crate::library::{Context, Outcome, Overload};
use crate::limits::{LIST_COST, MAP_COST, PER_CALL_COST, RUNTIME_COST, SELECT_COST, STRUCT_COST};
use crate::value::{Key, Map, Value, Work};

/// What may be spent on evaluations.
#[derive(Debug)]
pub struct Budget {
    left: u64,
    exhausted: bool,
}

impl Budget {
    /// For one expression.
    pub fn per_call() -> Self {
        Self::new(PER_CALL_COST)
    }

    /// For all rules over one object.
    pub fn per_object() -> Self {
        Self::new(RUNTIME_COST)
    }

    /// So much.
    pub fn new(cost: u64) -> Self {
        Self {
            left: cost,
            exhausted: false,
        }
    }

    /// What is left.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Whether more was spent than there was.
    pub fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// Takes the cost of one evaluation.
    pub fn spend(&mut self, cost: u64) {
        self.exhausted |= cost > self.left;
        self.left = self.left.saturating_sub(cost);
    }
}

/// Gives the fields of a variable when they are read.
pub type LazyFields<'a> = Box<dyn Fn(&str, &mut Budget) -> Outcome<'a> + 'a>;

/// The values of variables.
#[derive(Default)]
pub struct Bindings<'a> {
    values: BTreeMap<String, Value<'a>>,
    lazy: BTreeMap<String, LazyFields<'a>>,
}

impl<'a> Bindings<'a> {
    /// Binds a variable.
    pub fn set(&mut self, name: impl Into<String>, value: Value<'a>) -> &mut Self {
        self.values.insert(name.into(), value);
        self
    }

    /// Binds a variable whose fields are computed when they are read. What that costs is
    /// the function's to spend.
    pub fn set_lazy_fields(
        &mut self,
        name: impl Into<String>,
        fields: LazyFields<'a>,
    ) -> &mut Self {
        self.lazy.insert(name.into(), fields);
        self
    }
}

impl std::fmt::Debug for Bindings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

/// Evaluates a checked expression.
pub(crate) fn run<'a>(
    root: &Expr,
    checked: &Checked,
    patterns: &Compiled,
    bindings: &Bindings<'a>,
    budget: &mut Budget,
) -> Outcome<'a> {
    let mut evaluation = Evaluation {
        checked,
        bindings,
        budget,
        locals: Vec::new(),
        cost: 0,
        context: Context {
            work: Work::new(),
            patterns: Patterns::new(patterns),
        },
    };
    let outcome = evaluation.eval(root);
    let cost = evaluation.cost;
    budget.spend(cost);
    outcome
}

struct Evaluation<'e, 'a> {
    checked: &'e Checked,
    bindings: &'e Bindings<'a>,
    budget: &'e mut Budget,
    locals: Vec<(&'e str, Outcome<'a>)>,
    cost: u64,
    context: Context<'e>,
}

impl<'e, 'a> Evaluation<'e, 'a> {
    fn charge(&mut self, cost: u64) -> Result<(), EvalError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > PER_CALL_COST {
            return Err(EvalError::CostExceeded);
        }
        Ok(())
    }

    fn reference(&self, expr: &Expr) -> &'e Reference {
        static NONE: Reference = Reference::None;
        self.checked.references.get(expr.id).unwrap_or(&NONE)
    }

    fn eval(&mut self, expr: &'e Expr) -> Outcome<'a> {
        self.context.work.spend(1)?;
        match &expr.kind {
            ExprKind::Literal(value) => Ok(value.clone()),
            ExprKind::Ident(name) => self.ident(expr, name),
            ExprKind::Select {
                operand,
                field,
                test_only,
            } => self.select(expr, operand, field, *test_only),
            ExprKind::Call {
                function,
                target,
                args,
            } => self.call(expr, function, target.as_deref(), args),
            ExprKind::List(elements) => {
                let mut items = Vec::with_capacity(elements.len());
                for element in elements {
                    let value = self.eval(&element.value)?;
                    items.extend(present(value, element.optional)?);
                }
                self.charge(LIST_COST)?;
                Ok(Value::list(items))
            }
            ExprKind::Map(entries) => {
                let mut made = BTreeMap::new();
                for entry in entries {
                    let key = self.eval(&entry.key)?;
                    let value = self.eval(&entry.value)?;
                    let Some(value) = present(value, entry.optional)? else {
                        continue;
                    };
                    let key = key_of(&key)?;
                    if made.insert(key.clone(), value).is_some() {
                        let key = key.to_value();
                        return Err(EvalError::failed(format!("duplicate key in map: {key}")));
                    }
                }
                self.charge(MAP_COST)?;
                Ok(Value::Map(Map::Owned(Arc::new(made))))
            }
            ExprKind::Struct { fields, .. } => {
                let Reference::Object(object) = self.reference(expr) else {
                    return Err(EvalError::no_such_overload());
                };
                let mut made = BTreeMap::new();
                for field in fields {
                    let value = self.eval(&field.value)?;
                    if let Some(value) = present(value, field.optional)? {
                        made.insert(Key::String(field.name.as_str().into()), value);
                    }
                }
                self.charge(STRUCT_COST)?;
                let name = Arc::from(object.name.as_str());
                Ok(Value::Map(Map::Made(name, Arc::new(made))))
            }
            ExprKind::Comprehension(fold) => self.fold(fold),
        }
    }

    fn variable(&mut self, name: &str) -> Outcome<'a> {
        self.charge(SELECT_COST)?;
        match self.bindings.values.get(name) {
            Some(value) => Ok(value.clone()),
            None => Err(EvalError::failed(format!("no such attribute(s): {name}"))),
        }
    }

    fn ident(&mut self, expr: &Expr, name: &str) -> Outcome<'a> {
        match self.reference(expr) {
            Reference::Variable(name) => self.variable(name),
            Reference::TypeName(name) => Ok(Value::Type(Arc::clone(name))),
            _ => {
                self.charge(SELECT_COST)?;
                let found = self.locals.iter().rev().find(|(local, _)| *local == name);
                match found {
                    Some((_, value)) => value.clone(),
                    None => Err(EvalError::failed(format!("no such attribute(s): {name}"))),
                }
            }
        }
    }

    fn select(
        &mut self,
        expr: &Expr,
        operand: &'e Expr,
        field: &str,
        test_only: bool,
    ) -> Outcome<'a> {
        match self.reference(expr) {
            Reference::Variable(name) => return self.variable(name),
            Reference::TypeName(name) => return Ok(Value::Type(Arc::clone(name))),
            _ => {}
        }
        if let Reference::Variable(name) = self.reference(operand)
            && let Some(fields) = self.bindings.lazy.get(name)
        {
            self.charge(2 * SELECT_COST)?;
            if test_only {
                return Ok(Value::Bool(true));
            }
            return fields(field, self.budget);
        }
        let value = self.eval(operand)?;
        if test_only {
            return has(&value, field).map(Value::Bool);
        }
        self.charge(SELECT_COST)?;
        selected(&value, field)
    }

    fn call(
        &mut self,
        expr: &Expr,
        function: &str,
        target: Option<&'e Expr>,
        args: &'e [Expr],
    ) -> Outcome<'a> {
        let Reference::Function {
            name,
            member,
            overloads,
        } = self.reference(expr)
        else {
            return Err(EvalError::failed(format!("no such overload: {function}")));
        };
        match (name.as_str(), args) {
            (operators::AND, [left, right]) => return self.logic(left, right, false),
            (operators::OR, [left, right]) => return self.logic(left, right, true),
            (operators::CONDITIONAL, [condition, yes, no]) => {
                return match self.eval(condition)? {
                    Value::Bool(true) => self.eval(yes),
                    Value::Bool(false) => self.eval(no),
                    _ => Err(EvalError::no_such_overload()),
                };
            }
            (operators::NOT_STRICTLY_FALSE, [arg]) => {
                let value = self.eval(arg);
                self.charge(1)?;
                return match value {
                    Err(EvalError::CostExceeded) => Err(EvalError::CostExceeded),
                    Ok(Value::Bool(false)) => Ok(Value::Bool(false)),
                    _ => Ok(Value::Bool(true)),
                };
            }
            (operators::INDEX, [operand, index]) => {
                let (operand, index) = (self.eval(operand)?, self.eval(index)?);
                self.charge(1)?;
                return indexed(&operand, &index);
            }
            (operators::OPTIONAL_INDEX, [operand, index]) => {
                let (operand, index) = (self.eval(operand)?, self.eval(index)?);
                self.charge(1)?;
                return maybe_indexed(&operand, &index);
            }
            (operators::OPTIONAL_SELECT, [operand, field]) => {
                let ExprKind::Literal(Value::String(field)) = &field.kind else {
                    return Err(EvalError::no_such_overload());
                };
                let operand = self.eval(operand)?;
                self.charge(1)?;
                return maybe_selected(&operand, field);
            }
            (operators::MAP_INSERT, _) => return self.insert(args),
            (operators::ADD, [first, more]) if is_accumulator(first) => return self.grow(more),
            ("or" | "orValue", [other]) if *member => {
                if let Some(target) = target {
                    return self.or(name, target, other);
                }
            }
            _ => {}
        }
        let mut values = Vec::with_capacity(args.len() + 1);
        if *member && let Some(target) = target {
            values.push(self.eval(target)?);
        }
        for arg in args {
            values.push(self.eval(arg)?);
        }
        self.apply(overloads, &values)
    }

    fn apply(&mut self, overloads: &[&'static Overload], values: &[Value<'a>]) -> Outcome<'a> {
        let overload = overloads
            .iter()
            .find(|form| form.accepts(values))
            .ok_or_else(EvalError::no_such_overload)?;
        // What a call may take is paid before it, as far as its arguments say.
        self.charge(overload.cost.before(values))?;
        let result = (overload.call)(values, &mut self.context)?;
        self.charge(overload.cost.after(values, &result))?;
        Ok(result)
    }

    fn logic(&mut self, left: &'e Expr, right: &'e Expr, decisive: bool) -> Outcome<'a> {
        let left = self.eval(left);
        match left {
            Err(EvalError::CostExceeded) => return left,
            Ok(Value::Bool(value)) if value == decisive => return left,
            _ => {}
        }
        let right = self.eval(right);
        match (left, right) {
            (_, Err(EvalError::CostExceeded)) => Err(EvalError::CostExceeded),
            (_, Ok(Value::Bool(value))) if value == decisive => Ok(Value::Bool(decisive)),
            (Ok(Value::Bool(_)), Ok(Value::Bool(_))) => Ok(Value::Bool(!decisive)),
            (Err(failed), _) | (_, Err(failed)) => Err(failed),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn or(&mut self, name: &str, target: &'e Expr, other: &'e Expr) -> Outcome<'a> {
        let target = self.eval(target)?;
        self.charge(1)?;
        match (&target, name) {
            (Value::Optional(Some(_)), "or") => Ok(target),
            (Value::Optional(Some(value)), _) => Ok((**value).clone()),
            (Value::Optional(None), _) => self.eval(other),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    /// The fold's accumulator, taken out: what is made of it takes its place.
    fn take_accumulator(&mut self) -> Outcome<'a> {
        self.charge(SELECT_COST)?;
        let found = self
            .locals
            .iter_mut()
            .rev()
            .find(|(local, _)| *local == ACCUMULATOR);
        match found {
            Some((_, value)) => std::mem::replace(value, Ok(Value::Null)),
            None => Err(EvalError::no_such_overload()),
        }
    }

    /// `@result + more`
    fn grow(&mut self, more: &'e Expr) -> Outcome<'a> {
        // The addend is evaluated first: it never names the accumulator, and must find
        // nothing missing if it fails.
        let more = self.eval(more)?;
        let so_far = self.take_accumulator()?;
        self.charge(1)?;
        match (&so_far, &more) {
            (Value::Int(count), Value::Int(one)) => Ok(Value::Int(count.saturating_add(*one))),
            _ => crate::library::append(so_far, &more, &mut self.context),
        }
    }

    /// `@result` with an entry, or with all entries of a map.
    fn insert(&mut self, args: &'e [Expr]) -> Outcome<'a> {
        let mut added = Vec::new();
        match args {
            [_, key, value] => added.push((key_of(&self.eval(key)?)?, self.eval(value)?)),
            [_, entries] => match self.eval(entries)? {
                Value::Map(map) => added.extend(map.to_entries()?),
                _ => return Err(EvalError::no_such_overload()),
            },
            _ => return Err(EvalError::no_such_overload()),
        }
        self.charge(1)?;
        let Value::Map(Map::Owned(mut entries)) = self.take_accumulator()? else {
            return Err(EvalError::no_such_overload());
        };
        self.context.work.spend(added.len())?;
        let all = Arc::make_mut(&mut entries);
        for (key, value) in added {
            if all.insert(key.clone(), value).is_some() {
                let key = key.to_value();
                return Err(EvalError::failed(format!(
                    "insert failed: key {key} already exists"
                )));
            }
        }
        Ok(Value::Map(Map::Owned(entries)))
    }

    fn fold(&mut self, fold: &'e Comprehension) -> Outcome<'a> {
        let range = self.eval(&fold.range)?;
        let init = self.eval(&fold.init);
        if matches!(init, Err(EvalError::CostExceeded)) {
            return init;
        }
        let accumulator = self.locals.len();
        self.locals.push((&fold.accumulator, init));
        let count = match &range {
            Value::List(list) => list.len(),
            Value::Map(map) => map.len(),
            _ => return Err(EvalError::no_such_overload()),
        };
        let keys = match &range {
            Value::Map(map) => map.keys(),
            _ => Vec::new(),
        };
        for at in 0..count {
            let (first, second) = element(&range, &keys, at);
            match &fold.variable2 {
                Some(name) => {
                    self.locals.push((&fold.variable, Ok(first)));
                    self.locals.push((name, second));
                }
                None if keys.is_empty() => self.locals.push((&fold.variable, second)),
                None => self.locals.push((&fold.variable, Ok(first))),
            }
            let condition = self.eval(&fold.condition)?;
            if !matches!(condition, Value::Bool(true)) {
                self.locals.truncate(accumulator + 1);
                break;
            }
            let step = self.eval(&fold.step);
            self.locals.truncate(accumulator + 1);
            if matches!(step, Err(EvalError::CostExceeded)) {
                return step;
            }
            if let Some((_, value)) = self.locals.get_mut(accumulator) {
                *value = step;
            }
        }
        let result = self.eval(&fold.result);
        self.locals.truncate(accumulator);
        result
    }
}

fn is_accumulator(expr: &Expr) -> bool {
    matches!(&expr.kind, ExprKind::Ident(name) if name == ACCUMULATOR)
}

/// Index or key, and element or value.
fn element<'a>(range: &Value<'a>, keys: &[Key], at: usize) -> (Value<'a>, Outcome<'a>) {
    match (range, keys.get(at)) {
        (Value::List(list), _) => (crate::library::count(at), list.get(at)),
        (Value::Map(map), Some(key)) => {
            let value = map.get(key).unwrap_or(Ok(Value::Null));
            (key.to_value(), value)
        }
        _ => (Value::Null, Ok(Value::Null)),
    }
}

fn key_of(value: &Value<'_>) -> Result<Key, EvalError> {
    Key::of(value)
        .ok_or_else(|| EvalError::failed(format!("unsupported key type: {}", value.type_name())))
}

/// The value, or what is in it when it is optional.
fn present<'a>(value: Value<'a>, optional: bool) -> Result<Option<Value<'a>>, EvalError> {
    match (optional, value) {
        (false, value) => Ok(Some(value)),
        (true, Value::Optional(inner)) => Ok(inner.map(|inner| (*inner).clone())),
        (true, _) => Err(EvalError::no_such_overload()),
    }
}

fn has(value: &Value<'_>, field: &str) -> Result<bool, EvalError> {
    match value {
        Value::Map(map) => Ok(map.field(field).is_some()),
        Value::Optional(Some(inner)) => has(inner, field),
        Value::Optional(None) => Ok(false),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn no_such_key(key: impl std::fmt::Display) -> EvalError {
    EvalError::failed(format!("no such key: {key}"))
}

fn selected<'a>(value: &Value<'a>, field: &str) -> Outcome<'a> {
    match value {
        Value::Map(map) => map.field(field).unwrap_or_else(|| Err(no_such_key(field))),
        Value::Optional(_) => maybe_selected(value, field),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn maybe_selected<'a>(value: &Value<'a>, field: &str) -> Outcome<'a> {
    match value {
        Value::Map(map) => match map.field(field) {
            Some(value) => value.map(Value::some),
            None => Ok(Value::none()),
        },
        Value::Optional(Some(inner)) => maybe_selected(inner, field),
        Value::Optional(None) => Ok(Value::none()),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn whole_index(index: &Value<'_>) -> Option<i64> {
    match Key::of(index)? {
        Key::Int(at) => Some(at),
        _ => None,
    }
}

fn indexed<'a>(operand: &Value<'a>, index: &Value<'_>) -> Outcome<'a> {
    match operand {
        Value::List(list) => {
            let at = whole_index(index).ok_or_else(EvalError::no_such_overload)?;
            match usize::try_from(at) {
                Ok(position) if position < list.len() => list.get(position),
                _ => Err(EvalError::failed(format!("index out of bounds: {at}"))),
            }
        }
        Value::Map(map) => {
            let found = Key::of(index).and_then(|key| map.get(&key));
            found.unwrap_or_else(|| Err(no_such_key(index)))
        }
        Value::Optional(_) => maybe_indexed(operand, index),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn maybe_indexed<'a>(operand: &Value<'a>, index: &Value<'_>) -> Outcome<'a> {
    match operand {
        Value::List(list) => match whole_index(index).and_then(|at| usize::try_from(at).ok()) {
            Some(at) if at < list.len() => list.get(at).map(Value::some),
            _ => Ok(Value::none()),
        },
        Value::Map(map) => match Key::of(index).and_then(|key| map.get(&key)) {
            Some(value) => value.map(Value::some),
            None => Ok(Value::none()),
        },
        Value::Optional(Some(inner)) => maybe_indexed(inner, index),
        Value::Optional(None) => Ok(Value::none()),
        _ => Err(EvalError::no_such_overload()),
    }
}
