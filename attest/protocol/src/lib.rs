//! nautilus-attest-protocol
