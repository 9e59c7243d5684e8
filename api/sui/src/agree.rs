//! Whether two full nodes say the same. Pure.

use std::cmp::Ordering;

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
            Ordering::Equal if self.type_tag != other.type_tag || self.fields != other.fields => {
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
        let events = |it: &Self| -> Vec<_> {
            let events = it.events.iter();
            events
                .map(|event| (event.id.clone(), event.name.clone(), event.fields.clone()))
                .collect()
        };
        if self.digest != other.digest || events(self) != events(other) {
            return Comparison::Contradiction("the transaction has two lists of events");
        }
        if self.checkpoint != other.checkpoint {
            return Comparison::Contradiction("the transaction is in two checkpoints");
        }
        Comparison::Same
    }
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
