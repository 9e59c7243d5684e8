//! nautilus-chaos-live
