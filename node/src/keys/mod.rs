//! The quorum's generations of keys: handed out, used, and destroyed.
//!
//! A rotation is replicated data and a reconciler on every node:
//!
//! ```text
//! operator, or a retired measurement
//!   └─ a node draws the next root, seals it to itself, and announces it     rows.rs: next
//!        every member asks for it over its attested connection, seals it    rows.rs: held
//!          a majority of voters holds it: the leader makes it current       rows.rs: generation
//!            every node seals new data under it, then old data anew, and
//!            destroys the roots before it                                   rows.rs: oldest
//! ```
//! Rows say what is to be held, never the keys themselves. Every step looks at what is
//! there and does what is missing, so that it may end anywhere and be begun again.
//!
//! Invariants
//! - Nothing is sealed under a root before a majority of voters has it on disk.
//! - A root is given to a member only by a node that has applied the row which announces
//!   it, and so every removal before that row; never to one it is withheld from.
//! - A root is taken back only when a linearizable read says that it never will be used,
//!   and destroyed only when nothing on this node's disk needs it.

mod face;
mod rotation;
mod rows;

pub(crate) use face::{KeysAnswer, NodeAnswer, RotateRequest, keys_router};
pub(crate) use rotation::{KeyRotation, RotationParts};
pub(crate) use rows::{nodes as node_rows, secrets_for};

/// Says what this part's metrics mean.
pub(crate) fn describe_metrics() {
    metrics::describe_gauge!(
        "nautilus_keys_generation",
        "Generation of keys under which this node seals."
    );
    metrics::describe_gauge!(
        "nautilus_keys_oldest_generation",
        "Oldest generation of keys that this node still holds."
    );
    metrics::describe_gauge!(
        "nautilus_keys_data_keys",
        "Data keys of this node's log and rows."
    );
    metrics::describe_gauge!(
        "nautilus_keys_reencryption_left_bytes",
        "About how many bytes a rotation has yet to go through on this node."
    );
    metrics::describe_counter!(
        "nautilus_keys_reencryption_bytes_total",
        "Bytes written anew by rotations on this node."
    );
    metrics::describe_counter!(
        "nautilus_keys_destroyed_total",
        "Rotations whose old root keys this node has destroyed."
    );
}
