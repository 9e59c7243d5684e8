//! nautilus-tests
