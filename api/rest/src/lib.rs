//! nautilus-rest
