//! nautilus-workers
