//! Which of the quorum's own rows are its identity: the one list.
//!
//! Identity is what makes a quorum this quorum: its authority's key, its operators,
//! the workers' token verdicts, what its faces sign with, and alarms about its own
//! disks. A restored quorum makes its own; Kubernetes objects and users' keys are not
//! identity and are restored.

/// Keys (ending without `/`) and prefixes (ending with `/`) that stay with their quorum.
pub const IDENTITY_ROWS: &[&str] = &[
    "/nautilus/ca",
    "/nautilus/operators/",
    "/nautilus/workers/",
    "/nautilus/etcd/alarms/",
    "/nautilus/etcd/auth/token-key",
];

/// Whether `key` is part of the quorum's identity.
pub fn is_identity(key: &[u8]) -> bool {
    IDENTITY_ROWS.iter().any(|row| {
        if row.ends_with('/') {
            key.starts_with(row.as_bytes())
        } else {
            key == row.as_bytes()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_is_identity_and_objects_are_not() {
        assert!(is_identity(b"/nautilus/ca"));
        assert!(is_identity(b"/nautilus/operators/ab"));
        assert!(!is_identity(b"/nautilus/cat"));
        assert!(!is_identity(b"/nautilus/registry/pods/a"));
        assert!(!is_identity(b"/nautilus/etcd/auth/users/root"));
    }
}
