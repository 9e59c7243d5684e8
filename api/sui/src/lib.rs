//! The chain behind Seal tokens: clients of Sui's full nodes.

pub mod layout;
