//! The estimated cost of each function, and the size of what it gives.

use super::{EntrySize, Estimator, NOTHING, Node, ONE};
use crate::ast::{Expr, ExprKind, operators};
use crate::cost::{Cost, CostEstimate, SizeEstimate, selector_cost};
use crate::limits::{LIST_COST, NAMED_FORMAT_PATTERN, REGEX_FACTOR, TRAVERSAL_FACTOR};
use crate::types::Type;
use crate::value::Value;

impl Estimator<'_> {
    /// The cost of one form of a function without its arguments' (but for those that do
    /// not evaluate all of them), and the size of its result.
    pub(super) fn overload(
        &mut self,
        expr: &Expr,
        name: &str,
        cost: Cost,
        nodes: &[Node<'_>],
        arg_costs: &[CostEstimate],
    ) -> (CostEstimate, Option<SizeEstimate>) {
        let size = |at: usize| {
            nodes
                .get(at)
                .and_then(|node| node.size)
                .unwrap_or(SizeEstimate::UNKNOWN)
        };
        let arg_cost = |at: usize| arg_costs.get(at).copied().unwrap_or(NOTHING);
        let walk = |of: SizeEstimate| of.scaled(TRAVERSAL_FACTOR);
        let literal = |at: usize| match nodes.get(at).map(|node| &node.expr.kind) {
            Some(ExprKind::Literal(Value::Int(value))) => u64::try_from(*value).ok(),
            _ => None,
        };
        let listed = |factor: f64, of: SizeEstimate| {
            let cost = of.scaled(factor).plus(CostEstimate::fixed(1 + LIST_COST));
            (cost, Some(of))
        };
        match cost {
            Cost::Fixed(cost) => (CostEstimate::fixed(cost), None),
            Cost::Walk { of, times, sized } => {
                let of = size(of);
                let cost = of.scaled(TRAVERSAL_FACTOR * f64::from(times));
                (cost, sized.then_some(of))
            }
            Cost::Elements => (self.elements(nodes, size(0), name), None),
            Cost::Logic => {
                let both = arg_cost(0).plus(arg_cost(1));
                let cost = CostEstimate {
                    min: arg_cost(0).min,
                    max: both.max,
                };
                (cost, None)
            }
            Cost::Choice => {
                let of = size(1).union(size(2));
                let entry = match (nodes.get(1), nodes.get(2)) {
                    (Some(yes), Some(no)) => union(self.entry(yes.expr), self.entry(no.expr)),
                    _ => None,
                };
                self.set_entry(expr, entry);
                (arg_cost(0).plus(arg_cost(1).union(arg_cost(2))), Some(of))
            }
            Cost::Equality => (equality(name, nodes, size(0), size(1)), None),
            Cost::AddText | Cost::AddList => {
                let of = size(0).plus(size(1));
                if let [left, right] = nodes {
                    let entry = union(self.entry(left.expr), self.entry(right.expr));
                    self.set_entry(expr, entry);
                }
                let cost = match cost {
                    Cost::AddList => ONE,
                    _ => walk(of),
                };
                (cost, Some(of))
            }
            Cost::InList => (size(1), None),
            Cost::Contains => (walk(size(0)).times(walk(size(1))), None),
            Cost::Matches => (regex_estimate(size(0), size(1)), None),
            Cost::Find => {
                let found = SizeEstimate {
                    min: 0,
                    max: size(0).max,
                };
                (regex_estimate(size(0), size(1)), Some(found))
            }
            Cost::Replace => {
                let cost = size(0).scaled(2.0 * TRAVERSAL_FACTOR);
                (cost, Some(replaced(size(0), size(1), size(2))))
            }
            Cost::Split => {
                let parts = SizeEstimate {
                    min: 0,
                    max: literal(2).unwrap_or(size(0).max),
                };
                (size(0).scaled(2.0 * TRAVERSAL_FACTOR), Some(parts))
            }
            Cost::Join => {
                let of = self.joined(nodes, size(0), (nodes.len() > 1).then(|| size(1)));
                (walk(of), Some(of))
            }
            Cost::StringToBytes => {
                let of = size(0);
                let bytes = SizeEstimate {
                    min: of.min,
                    max: of.max.saturating_mul(4),
                };
                (walk(of), Some(bytes))
            }
            Cost::BytesToString => {
                let of = size(0);
                let text = SizeEstimate {
                    min: of.min / 4,
                    max: of.max,
                };
                (walk(of), Some(text))
            }
            Cost::Quote => {
                let of = size(0);
                let quoted = SizeEstimate {
                    min: of.min.saturating_add(2),
                    max: of.max.saturating_mul(2).saturating_add(2),
                };
                (walk(of), Some(quoted))
            }
            Cost::Format => (walk(size(0)), None),
            Cost::Within { cidr, text } => {
                let address = SizeEstimate { min: 4, max: 16 };
                let mut cost = walk(address.plus(address));
                if cidr {
                    cost = cost.plus(walk(address)).plus(ONE);
                }
                if text {
                    cost = cost.plus(walk(size(1)));
                }
                (cost, None)
            }
            Cost::NamedFormat => {
                #[allow(clippy::cast_precision_loss)]
                let pattern = NAMED_FORMAT_PATTERN as f64 * REGEX_FACTOR;
                (walk(size(1)).scaled(pattern), None)
            }
            Cost::Selector => {
                let of = size(1);
                let cost = CostEstimate {
                    min: selector_cost(of.min),
                    max: selector_cost(of.max),
                };
                (cost, None)
            }
            Cost::Slice => {
                let start = literal(1).unwrap_or_default();
                let end = literal(2).unwrap_or(size(0).max);
                listed(1.0, SizeEstimate::fixed(end.saturating_sub(start)))
            }
            #[allow(clippy::cast_precision_loss)]
            Cost::Flatten => {
                let depth = if nodes.len() > 1 {
                    literal(1).unwrap_or(u64::MAX)
                } else {
                    1
                };
                listed(depth as f64, size(0))
            }
            Cost::SelfCompare { of } => {
                let text = matches!(
                    nodes.get(of).map(|node| &node.of),
                    Some(Type::List(element)) if matches!(**element, Type::String | Type::Bytes)
                );
                let factor = if text && name != "distinct" {
                    2.0 + TRAVERSAL_FACTOR
                } else {
                    2.0
                };
                listed(factor, size(of).times(size(of)))
            }
            Cost::Range => listed(1.0, SizeEstimate::fixed(literal(0).unwrap_or(u64::MAX))),
            Cost::Reverse => listed(1.0, size(0)),
            Cost::Sets(times) => {
                let cost = size(0).times(size(1)).scaled(f64::from(times));
                (cost.plus(ONE), None)
            }
        }
    }

    /// Size of what is in a list of that node, as far as it is declared.
    fn element_size(&self, list: &Node<'_>) -> SizeEstimate {
        let path = Self::extend(list.path.clone(), "@items");
        path.and_then(|path| self.declared_size(&path))
            .unwrap_or(SizeEstimate::UNKNOWN)
    }

    fn elements(&self, nodes: &[Node<'_>], size: SizeEstimate, name: &str) -> CostEstimate {
        let Some(target) = nodes.first() else {
            return ONE;
        };
        match &target.of {
            Type::List(element) | Type::Optional(element) => {
                let each = match **element {
                    Type::String | Type::Bytes => {
                        ONE.plus(self.element_size(target).scaled(TRAVERSAL_FACTOR))
                    }
                    _ => ONE,
                };
                size.times(each)
            }
            Type::Map(_) => size,
            _ if name == "includes" => size,
            _ => size.scaled(TRAVERSAL_FACTOR),
        }
    }

    fn joined(
        &self,
        nodes: &[Node<'_>],
        count: SizeEstimate,
        separator: Option<SizeEstimate>,
    ) -> SizeEstimate {
        let Some(list) = nodes.first() else {
            return NOTHING;
        };
        let mut size = match &list.of {
            Type::List(_) => count.times(self.element_size(list)),
            _ => NOTHING,
        };
        if let Some(separator) = separator {
            size = size.plus(separator.times(SizeEstimate {
                min: count.min.saturating_sub(1),
                max: count.max.saturating_sub(1),
            }));
        }
        size
    }
}

fn union(left: Option<EntrySize>, right: Option<EntrySize>) -> Option<EntrySize> {
    let (left, right) = (left?, right?);
    Some(EntrySize {
        is_list: left.is_list,
        key: left.key.union(right.key),
        value: left.value.union(right.value),
    })
}

fn regex_estimate(text: SizeEstimate, pattern: SizeEstimate) -> CostEstimate {
    text.plus(ONE)
        .scaled(TRAVERSAL_FACTOR)
        .times(pattern.scaled(REGEX_FACTOR))
}

fn equality(
    name: &str,
    nodes: &[Node<'_>],
    left: SizeEstimate,
    right: SizeEstimate,
) -> CostEstimate {
    if let (operators::EQUALS, [a, b]) = (name, nodes) {
        match (&a.of, &b.of) {
            (Type::Opaque("kubernetes.NamedFormat"), Type::Opaque("kubernetes.NamedFormat")) => {
                return CostEstimate { min: 1, max: 7 };
            }
            (Type::Opaque(a), Type::Opaque(b)) if a == b => return ONE,
            _ => {}
        }
    }
    let max = left.max.min(right.max);
    CostEstimate {
        min: u64::from(max > 0),
        max,
    }
    .scaled(TRAVERSAL_FACTOR)
}

/// Bounds of a text in which `old` was replaced by `new`.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
fn replaced(of: SizeEstimate, old: SizeEstimate, new: SizeEstimate) -> SizeEstimate {
    let quotient = |of: u64, by: u64| (of as f64 / by as f64).ceil() as u64;
    let (most, kept_most) = if old.min == 0 {
        (of.max.saturating_add(1), of.max)
    } else if new.max <= old.min {
        (0, of.max)
    } else {
        (quotient(of.max, old.min), 0)
    };
    let (fewest, kept_fewest) = if old.max == 0 {
        (of.min.saturating_add(1), of.min)
    } else if old.max <= new.min {
        (0, of.min)
    } else {
        (quotient(of.min, old.max), 0)
    };
    let count = SizeEstimate {
        min: fewest,
        max: most,
    };
    count.times(new).plus(SizeEstimate {
        min: kept_fewest,
        max: kept_most,
    })
}
