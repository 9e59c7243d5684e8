//! The framings of exec, attach, port-forward and of workers' tunnels: SPDY/3.1, the
//! WebSocket channel protocols, and the messages of a worker's outbound tunnel.
//!
//! Bytes in, frames out. Knows no socket, clock or task: who drives these state
//! machines reads from its peer only as fast as it can pass on what came, and that
//! is all the back pressure there is.
//!
//! Invariants
//! - Whatever a peer sends, memory stays within the named limits, and the answer is a
//!   frame, an event or an error, never a panic.
//! - What was written by one side of a machine here is read by the other as it was.

pub mod channel;
pub mod spdy;
pub mod subprotocol;
pub mod tunnel;
