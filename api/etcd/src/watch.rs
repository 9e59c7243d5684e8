//! The service `Watch`: many watches on one stream.
//!
//! One task serves a stream: it reads the client's requests, takes what the watch group
//! gives and writes it out. The task is the one that sends the HTTP body, so that an event
//! passes no further queue on its way.
//!
//! Invariants
//! - Answers of a watch come after the one that says it was created.
//! - A progress notification is never ahead of an event that is yet to be sent.
//! - An event is encoded once, however many watch it ([`frame`]).
//! - While a client does not read, nothing is taken from its watch group, whose queue is
//!   bounded.

mod frame;
mod service;
mod stream;

pub(crate) use service::serve;
