//! nautilus-attest-tee
