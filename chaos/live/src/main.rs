//! Kills and partitions a real quorum at random, and checks what it promised.

fn main() {}
