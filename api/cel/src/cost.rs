//! What expressions cost: estimated from declared sizes before they are accepted, and
//! counted while they run. The numbers are the reference's, whose policies are accepted
//! or refused by them.
//!
//! Invariant: arithmetic saturates; an unknown size is the largest one.

mod estimate;

pub(crate) use estimate::estimate;

use crate::limits::{LIST_COST, REGEX_FACTOR, STRUCT_COST, TRAVERSAL_FACTOR};
use crate::value::{Opaque, Value};

/// A range of sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeEstimate {
    /// At least.
    pub min: u64,
    /// At most.
    pub max: u64,
}

/// A range of costs.
pub type CostEstimate = SizeEstimate;

impl SizeEstimate {
    const UNKNOWN: Self = Self {
        min: 0,
        max: u64::MAX,
    };

    /// Exactly so much.
    pub const fn fixed(value: u64) -> Self {
        Self {
            min: value,
            max: value,
        }
    }

    #[must_use]
    fn plus(self, other: Self) -> Self {
        Self {
            min: self.min.saturating_add(other.min),
            max: self.max.saturating_add(other.max),
        }
    }

    /// Each times the other's.
    #[must_use]
    pub fn times(self, other: Self) -> Self {
        Self {
            min: self.min.saturating_mul(other.min),
            max: self.max.saturating_mul(other.max),
        }
    }

    #[must_use]
    fn scaled(self, factor: f64) -> Self {
        Self {
            min: scale(self.min, factor),
            max: scale(self.max, factor),
        }
    }

    #[must_use]
    fn union(self, other: Self) -> Self {
        Self {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }
}

/// The product, rounded up. Conversions from doubles saturate.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
fn scale(value: u64, factor: f64) -> u64 {
    (value as f64 * factor).ceil() as u64
}

/// How a function's cost is computed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cost {
    Fixed(u64),
    /// Walking over an argument so many times; `sized`: the result is as long.
    Walk {
        of: usize,
        times: u8,
        sized: bool,
    },
    /// One step for each element of the receiver.
    Elements,
    Logic,
    Choice,
    Equality,
    AddText,
    AddList,
    InList,
    Contains,
    Matches,
    Find,
    Replace,
    Split,
    Join,
    StringToBytes,
    BytesToString,
    Quote,
    Format,
    Within {
        cidr: bool,
        text: bool,
    },
    NamedFormat,
    Selector,
    Slice,
    Flatten,
    /// Every element with every other.
    SelfCompare {
        of: usize,
    },
    Range,
    Reverse,
    Sets(u8),
}

fn regex_cost(text: u64, pattern: u64) -> u64 {
    scale(text.saturating_add(1), TRAVERSAL_FACTOR).saturating_mul(scale(pattern, REGEX_FACTOR))
}

fn selector_cost(length: u64) -> u64 {
    let requirements = scale(scale(length, 0.5), (LIST_COST + STRUCT_COST) as f64);
    LIST_COST
        .saturating_add(scale(length, TRAVERSAL_FACTOR))
        .saturating_add(requirements)
}

impl Cost {
    /// What a call costs by its arguments alone.
    pub(crate) fn before(self, args: &[Value<'_>]) -> u64 {
        let size = |at: usize| args.get(at).map_or(1, Value::size);
        match self {
            Self::Walk { of, times, .. } => scale(size(of), TRAVERSAL_FACTOR * f64::from(times)),
            Self::Elements => args.first().map_or(1, |all| traversal(all, 0)),
            Self::Equality => scale(size(0).min(size(1)), TRAVERSAL_FACTOR),
            Self::AddText => scale(size(0).saturating_add(size(1)), TRAVERSAL_FACTOR),
            Self::InList => size(1),
            Self::Contains => {
                scale(size(0), TRAVERSAL_FACTOR).saturating_mul(scale(size(1), TRAVERSAL_FACTOR))
            }
            Self::Matches | Self::Find => regex_cost(size(0), size(1)),
            Self::Replace | Self::Split => scale(size(0), 2.0 * TRAVERSAL_FACTOR),
            Self::StringToBytes | Self::BytesToString | Self::Quote | Self::Format => {
                scale(size(0), TRAVERSAL_FACTOR)
            }
            Self::Within { cidr, text } => {
                let own = scale(size(0).saturating_mul(2), TRAVERSAL_FACTOR);
                let again = if cidr {
                    scale(size(0), TRAVERSAL_FACTOR) + 1
                } else {
                    0
                };
                let parsed = if text {
                    scale(size(1), TRAVERSAL_FACTOR)
                } else {
                    0
                };
                own + again + parsed
            }
            Self::NamedFormat => match args.first() {
                Some(Value::Opaque(Opaque::Format(format))) => regex_cost(size(1), format.pattern),
                _ => 1,
            },
            Self::Selector => selector_cost(size(1)),
            Self::Flatten => {
                let depth = match args.get(1) {
                    Some(Value::Int(depth)) => u64::try_from(*depth).unwrap_or(1),
                    _ => 1,
                };
                size(0).saturating_mul(depth).saturating_add(1 + LIST_COST)
            }
            Self::SelfCompare { of } => {
                let factor = match args.get(of) {
                    Some(Value::List(list)) => match list.get(0) {
                        Ok(Value::String(_) | Value::Bytes(_)) => 2.0 + TRAVERSAL_FACTOR,
                        _ => 2.0,
                    },
                    _ => 2.0,
                };
                scale(size(of).saturating_mul(size(of)), factor).saturating_add(1 + LIST_COST)
            }
            Self::Sets(times) => {
                1 + size(0)
                    .saturating_mul(size(1))
                    .saturating_mul(u64::from(times))
            }
            Self::Range => match args.first() {
                Some(Value::Int(end)) => u64::try_from(*end)
                    .unwrap_or_default()
                    .saturating_add(1 + LIST_COST),
                _ => 1,
            },
            Self::Join | Self::Slice | Self::Reverse => 0,
            Self::Fixed(cost) => cost,
            Self::Logic | Self::Choice | Self::AddList => 1,
        }
    }

    /// What a call costs by its result.
    pub(crate) fn after(self, _args: &[Value<'_>], result: &Value<'_>) -> u64 {
        match self {
            Self::Join => scale(result.size(), 2.0 * TRAVERSAL_FACTOR),
            Self::Slice | Self::Reverse => result.size().saturating_add(1 + LIST_COST),
            _ => 0,
        }
    }
}

/// The cost of walking over a tree of values; stops where values nest deeper than the
/// machinery lets in.
fn traversal(value: &Value<'_>, depth: usize) -> u64 {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    let walked = |bytes: usize| (bytes as f64 * TRAVERSAL_FACTOR) as u64;
    if depth > crate::limits::MAX_VALUE_DEPTH {
        return u64::MAX;
    }
    match value {
        Value::String(text) => walked(text.len()),
        Value::Bytes(bytes) => walked(bytes.len()),
        Value::List(list) => (0..list.len()).fold(0, |sum: u64, at| match list.get(at) {
            Ok(element) => sum.saturating_add(traversal(&element, depth + 1)),
            Err(_) => sum,
        }),
        Value::Map(map) => map.keys().iter().fold(0, |sum: u64, key| {
            let own = traversal(&key.to_value(), depth + 1);
            match map.get(key) {
                Some(Ok(value)) => sum
                    .saturating_add(own)
                    .saturating_add(traversal(&value, depth + 1)),
                _ => sum,
            }
        }),
        _ => 1,
    }
}
