//! Archives end to end: what goes in comes out, and nothing else is accepted.

mod damage;
mod roundtrip;
mod world;
