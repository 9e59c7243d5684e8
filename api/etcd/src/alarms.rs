//! The alarms in force, as every request looks at them.
//!
//! Invariant: looking is an atomic load; raising and lowering is done by whoever
//! follows the quorum's rows of alarms.

use std::sync::atomic::{AtomicBool, Ordering};

use tonic::Status;

use crate::errors;

/// Whether NOSPACE or CORRUPT is in force anywhere in the quorum.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    no_space: AtomicBool,
    corrupt: AtomicBool,
}

impl Alarms {
    /// Refuses whatever adds to the store while NOSPACE is in force, and everything
    /// while CORRUPT is.
    pub(crate) fn may_grow(&self) -> Result<(), Status> {
        self.may_serve()?;
        if self.no_space.load(Ordering::Relaxed) {
            return Err(errors::NO_SPACE.into());
        }
        Ok(())
    }

    /// Refuses everything while CORRUPT is in force.
    pub(crate) fn may_serve(&self) -> Result<(), Status> {
        if self.corrupt.load(Ordering::Relaxed) {
            return Err(errors::CORRUPT.into());
        }
        Ok(())
    }
}
