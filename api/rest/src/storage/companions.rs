//! What else a write does in its own transaction: rows that must change with the object
//! or not at all, as the addresses a service takes or the quota a pod is charged to.
//!
//! Invariants
//! - Everything here is compared and written with the object in one transaction: nothing
//!   is taken or charged for an object that was not stored, and nothing twice.
//! - They are worked out anew for every attempt: a lost comparison of theirs is retried
//!   like one of the object itself.

use nautilus_admission::attributes::Attributes;
use nautilus_admission::disruption;
use nautilus_machine::{Compare, Operation};
use serde_json::Value;
use tokio::sync::OwnedMutexGuard;

use super::Storage;
use crate::eviction::charge_budget;
use crate::failure::Failure;
use crate::ids;

/// Comparisons and operations that go with a write.
#[derive(Default)]
pub(crate) struct Companions {
    pub(crate) compare: Vec<Compare>,
    pub(crate) then: Vec<Operation>,
    /// Held until the write is through: writers that change the same quotas take turns.
    pub(crate) turn: Option<OwnedMutexGuard<()>>,
}

impl Storage {
    /// The companions of a write of `object` (`None`: a removal of `asked.old`). May fill
    /// in what is given out with the write.
    pub(super) async fn companions(
        &self,
        asked: &Attributes<'_>,
        mut object: Option<&mut Value>,
    ) -> Result<Companions, Failure> {
        let mut companions = Companions::default();
        self.allocate(asked, object.as_deref_mut(), &mut companions)?;
        match (object, &self.admission) {
            (Some(object), Some(admission)) => {
                admission.charge(asked, object, &mut companions).await?;
            }
            (None, _) => self.evict(asked, &mut companions)?,
            _ => {}
        }
        Ok(companions)
    }

    /// The companions of a deletion that only marks its object.
    pub(super) fn mark_companions(
        &self,
        asked: &Attributes<'_>,
        marked: &mut Value,
    ) -> Result<Companions, Failure> {
        let mut companions = Companions::default();
        if self.evicting {
            self.evict(asked, &mut companions)?;
            disruption::mark(marked, &ids::now_rfc3339());
        }
        Ok(companions)
    }

    fn evict(&self, asked: &Attributes<'_>, companions: &mut Companions) -> Result<(), Failure> {
        match asked.old.filter(|_| self.evicting) {
            Some(pod) => charge_budget(self, pod, companions),
            None => Ok(()),
        }
    }
}
