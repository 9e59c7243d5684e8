//! The worker face as a worker sees it: requests in, answers and stored state out.

mod attacks;
mod events;
mod joining;
mod lifecycle;
mod tokens;
mod wire;
mod world;
