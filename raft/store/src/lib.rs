//! nautilus-store
