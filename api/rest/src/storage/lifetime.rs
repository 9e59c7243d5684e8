//! Objects that go by themselves: each is attached to a lease of its kind's lifetime.
//!
//! Objects written within [`SHARE_SECONDS`] share a lease, on whichever node they were
//! written: its id is made of the lifetime and the time, so that nobody has to remember
//! it, and it is granted by the first write that is refused for want of it.
//!
//! Invariants
//! - An object lives at least its kind's lifetime after its last write, and at most
//!   [`SHARE_SECONDS`] longer, by the leader's clock.

use std::time::{SystemTime, UNIX_EPOCH};

use nautilus_machine::types::LeaseId;
use nautilus_machine::{Command, Operation, Outcome, Proposal, Refusal};

use super::Storage;
use crate::failure::{Failure, propose_failure, refused};

/// How long a lease is given to new objects.
const SHARE_SECONDS: u64 = 10;
/// Ids of these leases start here: `naut` in ASCII, far from those that clients draw.
const FIRST_ID: i64 = 0x6e61_7574 << 32;

/// The lease of what is written now and lives for `seconds`.
pub(super) fn lease(seconds: u32) -> LeaseId {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let share = now.map_or(0, |since| since.as_secs() / SHARE_SECONDS);
    lease_of(seconds, share)
}

/// Bits 24 and up of the low half: the lifetime in hours, at most 255; below: the share,
/// which comes round after five years.
fn lease_of(seconds: u32, share: u64) -> LeaseId {
    let hours = i64::from((seconds / 3_600).clamp(1, 255));
    let share = i64::try_from(share & 0xff_ffff).unwrap_or_default();
    LeaseId(FIRST_ID | (hours << 24) | share)
}

/// The time to live of one of these leases, in milliseconds.
fn ttl_ms(lease: LeaseId) -> Option<u64> {
    let low = u64::try_from(lease.0.checked_sub(FIRST_ID)?).ok()?;
    let hours = (low < 1 << 32).then_some(low >> 24)?;
    Some((hours * 3_600 + SHARE_SECONDS) * 1_000)
}

impl Storage {
    /// Grants the leases that a refused command names.
    pub(super) async fn grant(&self, refused_command: &Command) -> Result<(), Failure> {
        let Command::Txn(txn) = refused_command else {
            return Ok(());
        };
        for operation in &txn.then {
            let Operation::Put(put) = operation else {
                continue;
            };
            let Some((id, ttl_ms)) = put.lease.and_then(|id| Some((id, ttl_ms(id)?))) else {
                continue;
            };
            let proposal = Proposal::new(Command::LeaseGrant { id, ttl_ms });
            let applied = self.kv.propose(proposal).await;
            match applied.map_err(|error| propose_failure(&error))?.outcome {
                Outcome::Refused(Refusal::LeaseExists) => {}
                Outcome::Refused(refusal) => return Err(refused(&refusal)),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_says_how_long_it_lives() {
        let lease = lease_of(3_600, 179_600_094);
        assert_eq!(ttl_ms(lease), Some(3_610_000));
        assert_eq!(ttl_ms(LeaseId(1)), None);
        assert_eq!(ttl_ms(LeaseId(i64::MAX)), None);
        assert_eq!(ttl_ms(LeaseId(i64::MIN)), None);
        assert_ne!(lease_of(3_600, 1), lease_of(3_600, 2));
        assert_ne!(lease_of(3_600, 1), lease_of(7_200, 1));
    }
}
