//! A quorum that lost too many members to go on: its operators decide together, with
//! shares of a recovery secret.
//!
//! ```text
//! while it lives   leader ── keys, wrapped; shares, sealed ──► row ──► escrow.json of every node
//! recovery         node with bootstrap = "recover" ── evidence over its key ──► operator
//!                  operator's share ── sealed to that key ──► node
//!                  enough of them: the keys, a quorum of this node alone, a new authority
//! ```
//! The leader makes another escrow whenever the operators, their threshold or the roots
//! are others. Whoever holds shares of an older one, and the older file, can open what
//! was sealed under the roots of then; `nautilus keys rotate` ends that.
//!
//! Invariants
//! - A share leaves its operator only for a key that evidence of accepted code names.
//! - A node goes on alone only with keys that as many operators as the threshold opened,
//!   and that agree with those which it can still unseal: an escrow that the host made up
//!   opens no quorum.
//! - A recovered quorum never passes for the old one: its authority is new and named for
//!   the recovery, which stands in a row of its own.

mod desk;
mod escrow;
mod face;
mod keeper;
mod rows;
mod shamir;

pub(crate) use desk::{DeskParts, Recovered, recover};
pub(crate) use escrow::{ShareKey, submit};
pub(crate) use face::{Description, PATH, RecoveryAnswer, Submission, Taken, recovery_router};
pub(crate) use keeper::{EscrowKeeper, escrow_of};
pub(crate) use rows::{Recovery, finish};

/// Says what this part's metrics mean.
pub(crate) fn describe_metrics() {
    metrics::describe_gauge!(
        "nautilus_recovery_operators",
        "Operators who hold a share of the quorum's keys; 0 while there is no escrow."
    );
    metrics::describe_gauge!(
        "nautilus_recoveries",
        "How often operators have recovered this quorum."
    );
}
