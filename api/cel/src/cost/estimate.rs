//! The estimate of an expression's cost: a walk over its parts with what is known of
//! the sizes of values, by declaration, by literal, or by what made them.
//!
//! Invariant: what is not known is the largest there is.

mod calls;

use super::{Cost, CostEstimate, SizeEstimate};
use crate::ast::{ACCUMULATOR, Comprehension, Expr, ExprKind, Parsed, operators};
use crate::check::{Checked, Reference};
use crate::declaration::{Declaration, Shape};
use crate::environment::Environment;
use crate::limits::{LIST_COST, MAP_COST, SELECT_COST, STRUCT_COST};
use crate::types::Type;
use crate::value::Value;

/// Estimates a checked expression.
pub(crate) fn estimate(
    parsed: &Parsed,
    checked: &Checked,
    environment: &Environment,
) -> CostEstimate {
    let count = parsed.offsets.len();
    let mut estimator = Estimator {
        checked,
        environment,
        paths: vec![None; count],
        sizes: vec![None; count],
        entries: vec![None; count],
        locals: Vec::new(),
    };
    estimator.cost(&parsed.root)
}

type Path = Vec<String>;

/// Sizes of what is in a list or a map.
#[derive(Clone, Copy)]
struct EntrySize {
    is_list: bool,
    key: SizeEstimate,
    value: SizeEstimate,
}

#[derive(Clone)]
struct Local {
    name: String,
    path: Option<Path>,
    size: Option<SizeEstimate>,
    entry: Option<EntrySize>,
}

/// What is known of an argument.
struct Node<'n> {
    expr: &'n Expr,
    path: Option<Path>,
    of: Type,
    size: Option<SizeEstimate>,
}

struct Estimator<'e> {
    checked: &'e Checked,
    environment: &'e Environment,
    paths: Vec<Option<Path>>,
    sizes: Vec<Option<SizeEstimate>>,
    entries: Vec<Option<EntrySize>>,
    locals: Vec<Local>,
}

const ONE: CostEstimate = CostEstimate::fixed(1);
const NOTHING: CostEstimate = CostEstimate::fixed(0);
const SELECT: CostEstimate = CostEstimate::fixed(SELECT_COST);

impl Estimator<'_> {
    fn type_of(&self, expr: &Expr) -> Type {
        self.checked
            .types
            .get(expr.id)
            .cloned()
            .unwrap_or(Type::Dyn)
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|local| local.name == name)
    }

    fn path(&self, expr: &Expr) -> Option<Path> {
        if let ExprKind::Ident(name) = &expr.kind
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(expr.id).cloned().flatten()
    }

    fn set_path(&mut self, expr: &Expr, path: Option<Path>) {
        if let Some(slot) = self.paths.get_mut(expr.id) {
            *slot = path;
        }
    }

    fn extend(path: Option<Path>, step: &str) -> Option<Path> {
        path.map(|mut path| {
            path.push(step.to_owned());
            path
        })
    }

    fn set_size(&mut self, expr: &Expr, size: Option<SizeEstimate>) {
        if let (Some(slot), Some(size)) = (self.sizes.get_mut(expr.id), size) {
            *slot = Some(size);
        }
    }

    fn set_entry(&mut self, expr: &Expr, entry: Option<EntrySize>) {
        if let (Some(slot), Some(entry)) = (self.entries.get_mut(expr.id), entry) {
            *slot = Some(entry);
        }
    }

    fn entry(&self, expr: &Expr) -> Option<EntrySize> {
        if let Some(entry) = self.entries.get(expr.id).copied().flatten() {
            return Some(entry);
        }
        match &expr.kind {
            ExprKind::Ident(name) => self.local(name)?.entry,
            _ => None,
        }
    }

    fn declared(&self, path: &[String]) -> Option<&Declaration> {
        let (first, rest) = path.split_first()?;
        // As the reference has it, whatever is no variable is as large as `self`.
        let mut at = self
            .environment
            .variable(first)
            .or_else(|| self.environment.variable("self"))?;
        for step in rest {
            at = match (step.as_str(), &at.shape) {
                ("@items", Shape::List(inner)) | ("@values", Shape::Map(inner)) => inner,
                ("@items" | "@values" | "@indices" | "@keys", _) => return None,
                // Whatever entry: its name says nothing of its size.
                (_, Shape::Map(inner)) if matches!(inner.shape, Shape::Any) => inner,
                (name, Shape::Object(object)) => &object.fields.get(name)?.declaration,
                _ => return None,
            };
        }
        Some(at)
    }

    fn declared_size(&self, path: &[String]) -> Option<SizeEstimate> {
        if let Some((last, before)) = path.split_last() {
            let map = |of: &Declaration| matches!(of.shape, Shape::Map(_));
            if last == "@keys" && self.declared(before).is_some_and(map) {
                return Some(NOTHING);
            }
        }
        let max = self.declared(path)?.max_elements.unwrap_or_default();
        Some(SizeEstimate { min: 0, max })
    }

    fn size(&mut self, expr: &Expr) -> Option<SizeEstimate> {
        if let Some(size) = self.sizes.get(expr.id).copied().flatten() {
            return Some(size);
        }
        match &expr.kind {
            ExprKind::Literal(value) => return Some(SizeEstimate::fixed(value.size())),
            ExprKind::List(elements) => return Some(SizeEstimate::fixed(elements.len() as u64)),
            ExprKind::Map(entries) => return Some(SizeEstimate::fixed(entries.len() as u64)),
            _ => {}
        }
        if let Some(path) = self.path(expr)
            && let Some(size) = self.declared_size(&path)
        {
            self.set_size(expr, Some(size));
            return Some(size);
        }
        if self.type_of(expr).is_scalar() {
            return Some(ONE);
        }
        match &expr.kind {
            ExprKind::Ident(name) => self.local(name)?.size,
            _ => None,
        }
    }

    fn size_or_unknown(&mut self, expr: &Expr) -> SizeEstimate {
        self.size(expr).unwrap_or(SizeEstimate::UNKNOWN)
    }

    fn cost(&mut self, expr: &Expr) -> CostEstimate {
        match &expr.kind {
            ExprKind::Literal(_) => NOTHING,
            ExprKind::Ident(name) => {
                let path = match self.local(name) {
                    Some(local) => local.path.clone(),
                    None => Some(vec![name.clone()]),
                };
                self.set_path(expr, path);
                SELECT
            }
            ExprKind::Select {
                operand,
                field,
                test_only,
            } => self.select(expr, operand, field, *test_only),
            ExprKind::Call { target, args, .. } => self.call(expr, target.as_deref(), args),
            ExprKind::List(elements) => {
                let mut sum = CostEstimate::fixed(LIST_COST);
                let mut item: Option<SizeEstimate> = None;
                for element in elements {
                    sum = sum.plus(self.cost(&element.value));
                    let size = self.size_or_unknown(&element.value);
                    item = Some(item.map_or(size, |item| item.union(size)));
                }
                let entry = EntrySize {
                    is_list: true,
                    key: ONE,
                    value: item.unwrap_or(NOTHING),
                };
                self.set_entry(expr, Some(entry));
                sum
            }
            ExprKind::Map(entries) => {
                let mut sum = CostEstimate::fixed(MAP_COST);
                let mut both: Option<(SizeEstimate, SizeEstimate)> = None;
                for entry in entries {
                    sum = sum
                        .plus(self.cost(&entry.key))
                        .plus(self.cost(&entry.value));
                    let key = self.size_or_unknown(&entry.key);
                    let value = self.size_or_unknown(&entry.value);
                    both = Some(both.map_or((key, value), |(k, v)| (k.union(key), v.union(value))));
                }
                let (key, value) = both.unwrap_or((NOTHING, NOTHING));
                let entry = EntrySize {
                    is_list: false,
                    key,
                    value,
                };
                self.set_entry(expr, Some(entry));
                sum
            }
            ExprKind::Struct { fields, .. } => fields
                .iter()
                .fold(CostEstimate::fixed(STRUCT_COST), |sum, field| {
                    sum.plus(self.cost(&field.value))
                }),
            ExprKind::Comprehension(fold) => self.fold(expr, fold),
        }
    }

    fn select(
        &mut self,
        expr: &Expr,
        operand: &Expr,
        field: &str,
        test_only: bool,
    ) -> CostEstimate {
        if let Some(Reference::Variable(name)) = self.checked.references.get(expr.id) {
            self.set_path(expr, Some(vec![name.clone()]));
            return SELECT;
        }
        let sum = self.cost(operand);
        if test_only {
            return sum;
        }
        let path = Self::extend(self.path(operand), field);
        self.set_path(expr, path);
        match self.type_of(operand) {
            Type::Map(_) | Type::Object(_) | Type::Param(_) => sum.plus(SELECT),
            _ => sum,
        }
    }

    fn node<'n>(&mut self, expr: &'n Expr) -> Node<'n> {
        let path = self
            .path(expr)
            .filter(|path| path.first().is_none_or(|first| first != ACCUMULATOR));
        Node {
            expr,
            path,
            of: self.type_of(expr),
            size: self.size(expr),
        }
    }

    fn call(&mut self, expr: &Expr, target: Option<&Expr>, args: &[Expr]) -> CostEstimate {
        let Some(Reference::Function {
            name,
            member,
            overloads,
        }) = self.checked.references.get(expr.id)
        else {
            return NOTHING;
        };
        if name == "dyn" {
            let Some(arg) = args.first() else {
                return ONE;
            };
            let cost = self.cost(arg).plus(ONE);
            let size = self.size(arg);
            self.set_size(expr, size);
            let entry = self.entry(arg);
            self.set_entry(expr, entry);
            return cost;
        }
        let mut nodes = Vec::with_capacity(args.len() + 1);
        let mut arg_costs = Vec::with_capacity(args.len());
        for arg in args {
            arg_costs.push(self.cost(arg));
            nodes.push(self.node(arg));
        }
        let mut sum = NOTHING;
        if let Some(target) = target.filter(|_| *member) {
            sum = sum.plus(self.cost(target));
            nodes.insert(0, self.node(target));
        }
        let args_sum = arg_costs.iter().fold(NOTHING, |sum, cost| sum.plus(*cost));
        let mut total: Option<CostEstimate> = None;
        let mut result: Option<SizeEstimate> = None;
        for overload in overloads {
            let (cost, size) = self.overload(expr, name, overload.cost, &nodes, &arg_costs);
            let cost = match overload.cost {
                Cost::Logic | Cost::Choice => cost,
                _ => cost.plus(args_sum),
            };
            total = Some(total.map_or(cost, |total| total.union(cost)));
            if let Some(size) = size {
                result = Some(result.map_or(size, |result| result.union(size)));
            }
            if name == operators::INDEX
                && let Some(operand) = args.first()
            {
                result = self.entry(operand).map(|entry| entry.value);
                let step = match overload.params.first() {
                    Some(Type::List(_)) => Some("@items"),
                    Some(Type::Map(_)) => Some("@values"),
                    _ => None,
                };
                if let Some(step) = step {
                    let path = Self::extend(self.path(operand), step);
                    self.set_path(expr, path);
                }
            }
            if result.is_none() {
                result = self.size(expr);
            }
        }
        self.set_size(expr, result);
        sum.plus(total.unwrap_or(NOTHING))
    }

    fn fold(&mut self, expr: &Expr, fold: &Comprehension) -> CostEstimate {
        let is_bind = matches!(&fold.range.kind, ExprKind::List(elements) if elements.is_empty())
            && matches!(&fold.condition.kind, ExprKind::Literal(Value::Bool(false)));
        let mut sum = self.cost(&fold.range).plus(self.cost(&fold.init));
        let accumulator = Local {
            name: fold.accumulator.clone(),
            path: self.path(&fold.init),
            size: self.size(&fold.init),
            entry: self.entry(&fold.init),
        };
        let depth = self.locals.len();
        self.locals.push(accumulator);
        if is_bind {
            sum = sum.plus(self.cost(&fold.result));
            self.locals.truncate(depth);
            let (size, entry) = (self.size(&fold.result), self.entry(&fold.result));
            self.set_size(expr, size);
            self.set_entry(expr, entry);
            return sum;
        }
        self.push_variables(fold);
        let each = self.cost(&fold.condition).plus(self.cost(&fold.step));
        self.locals.truncate(depth + 1);
        sum = sum.plus(self.cost(&fold.result));
        self.locals.truncate(depth);
        let count = self.size_or_unknown(&fold.range);
        sum = sum.plus(count.times(each));
        match &fold.init.kind {
            ExprKind::Literal(_) => {
                let size = self.size(&fold.init);
                self.set_size(expr, size);
            }
            ExprKind::List(_) | ExprKind::Map(_) => {
                self.set_size(expr, Some(count));
                let entry = self.entry(&fold.step);
                self.set_entry(expr, entry);
            }
            _ => {}
        }
        sum
    }

    fn push_variables(&mut self, fold: &Comprehension) {
        let entry = self.entry(&fold.range);
        let path = self.path(&fold.range);
        let is_list = match entry {
            Some(entry) => entry.is_list,
            None => matches!(self.type_of(&fold.range), Type::List(_)),
        };
        let (keys, values) = if is_list {
            ("@indices", "@items")
        } else {
            ("@keys", "@values")
        };
        let mut push = |name: &str, step: &str, size: Option<SizeEstimate>| {
            self.locals.push(Local {
                name: name.to_owned(),
                path: Self::extend(path.clone(), step),
                size,
                entry: None,
            });
        };
        let (key, value) = (entry.map(|e| e.key), entry.map(|e| e.value));
        match &fold.variable2 {
            Some(second) => {
                push(&fold.variable, keys, key);
                push(second, values, value);
            }
            None if is_list => push(&fold.variable, values, value),
            None => push(&fold.variable, keys, key),
        }
    }
}
