//! A stranger's view of a quorum: what a client outside trusts, and why.
//!
//! A client knows no authority and no key beforehand, only which code it accepts. It
//! opens a connection, sends a nonce, and the node answers with evidence over that
//! nonce and the key with which it serves. If the evidence is genuine, fresh, for the
//! very key that this connection has proved possession of, and within the policy,
//! then the code at the other end is known, and so is everything it says on this
//! connection. Nothing is looked up elsewhere while judging.
//!
//! Invariants: no word of a node counts before its evidence is accepted; a node is
//! only ever believed about itself and about who the members are. One node is asked by
//! `nautilus-client`, as workers do it; the members and their keys are looked after here.

mod judge;
mod pins;
mod survey;

pub(crate) use judge::{JudgeArgs, absolute, judge};
pub(crate) use nautilus_client::{
    Address, ExamineError, Examined, Judge, PublicMember, dial, examine, spki_of,
};
pub(crate) use pins::{Pins, pinned_tls};
pub(crate) use survey::{Outcome, Survey, survey};
#[cfg(test)]
pub(crate) use survey::{Shown, Verdict};

#[cfg(test)]
pub(crate) mod tests;
