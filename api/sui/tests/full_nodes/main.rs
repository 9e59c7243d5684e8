//! The chain by both faces of stand-ins for full nodes: true ones, and lying, forked, late, slow,
//! overloaded and dead ones.

mod applied;
mod attacks;
mod events;
mod judge;
mod outages;
mod tls;
mod world;
