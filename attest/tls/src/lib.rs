//! nautilus-attest-tls
