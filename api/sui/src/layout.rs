//! Where a token, its stake and its owner stand on the chain. Configured, never guessed.

use serde::{Deserialize, Serialize};

/// Which package issued the tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "layout", rename_all = "lowercase")]
pub enum Layout {
    /// Workers in the table of the shared object `WorkerRegistry`, by their `node_id`.
    Registry {
        /// The shared object's id: `0x` and hex.
        registry: String,
    },
    /// The token is the id of an object of its own, which names its stake.
    Objects,
}
