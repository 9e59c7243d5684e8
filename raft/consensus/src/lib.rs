//! nautilus-consensus
