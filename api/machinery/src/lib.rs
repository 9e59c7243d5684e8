//! nautilus-machinery
