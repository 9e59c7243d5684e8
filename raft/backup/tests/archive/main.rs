//! Archives end to end: what goes in comes out, and nothing else is accepted.

#![allow(clippy::unwrap_used)]

mod damage;
mod restore;
mod roundtrip;
mod world;
