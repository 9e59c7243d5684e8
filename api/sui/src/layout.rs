//! Where a token, its stake and its owner stand on the chain. Configured, never guessed.

use sui_sdk_types::Address;

use crate::shape::Shape;

/// How the package issues tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// Workers in the table of the shared object `WorkerRegistry`, by their `node_id`.
    Registry {
        /// The shared object's id.
        registry: Address,
    },
    /// The token is the id of an object of its own, which names its stake.
    Objects {
        /// Its struct, with `owner`, `stake_id`, `expires_at` (ms).
        token: Shape,
        /// The stake's, with `stake_amount`, `status`.
        stake: Shape,
    },
}
