//! Where pods go: rules, the queue, and what makes room.

pub mod plugin;
pub mod preempt;
pub mod queue;
