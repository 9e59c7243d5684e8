//! Whether two full nodes say the same. Pure.

use std::cmp::Ordering;

use nautilus_workers::chain::ChainEvent;

use crate::face::{ObjectState, TransactionState};

/// How two answers stand to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// They are the same.
    Same,
    /// One is behind the other: that passes.
    Late,
    /// Both can't be true.
    Contradiction(&'static str),
}

/// Answers that can be compared.
pub(crate) trait Compare {
    fn compare(&self, other: &Self) -> Comparison;
}

impl Compare for ObjectState {
    fn compare(&self, other: &Self) -> Comparison {
        match self.version.cmp(&other.version) {
            Ordering::Less | Ordering::Greater => Comparison::Late,
            Ordering::Equal if self.digest != other.digest => {
                Comparison::Contradiction("the same version of the object has two digests")
            }
            Ordering::Equal
                if self.type_tag != other.type_tag
                    || self.fields != other.fields
                    || self.owner != other.owner =>
            {
                Comparison::Contradiction("the same version of the object has two contents")
            }
            Ordering::Equal => Comparison::Same,
        }
    }
}

impl Compare for TransactionState {
    fn compare(&self, other: &Self) -> Comparison {
        if self.checkpoint.is_some() != other.checkpoint.is_some() {
            return Comparison::Late;
        }
        let same_events = self.events.len() == other.events.len()
            && self
                .events
                .iter()
                .zip(&other.events)
                .all(|(one, other)| same_event(one, other));
        if self.digest != other.digest || !same_events {
            return Comparison::Contradiction("the transaction has two lists of events");
        }
        if self.checkpoint != other.checkpoint {
            return Comparison::Contradiction("the transaction is in two checkpoints");
        }
        Comparison::Same
    }
}

/// Whether two full nodes tell the same of an event; only one of them may know its checkpoint.
pub(crate) fn same_event(one: &ChainEvent, other: &ChainEvent) -> bool {
    (&one.id, &one.module, &one.name, &one.sender, &one.fields)
        == (
            &other.id,
            &other.module,
            &other.name,
            &other.sender,
            &other.fields,
        )
}

impl<T: Compare> Compare for Option<T> {
    fn compare(&self, other: &Self) -> Comparison {
        match (self, other) {
            (None, None) => Comparison::Same,
            (Some(one), Some(other)) => one.compare(other),
            _ => Comparison::Late,
        }
    }
}
