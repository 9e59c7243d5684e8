//! Which of the quorum's own rows are its identity: the one list.
//!
//! Identity is what makes a quorum this quorum: its authority's key, its operators, its policy,
//! its generations of keys and their escrow, the workers' token verdicts, alarms about its own disks and
//! promises about its own members. A restored quorum makes its own; Kubernetes objects and users' keys are not
//! identity and are restored.
//!
//! The etcd face's users, roles and whether they count are restored, as etcd does it: a
//! restored store must not be open to more than the one it came from. The key of simple
//! tokens stands in the same row; tokens of the old quorum end within their time to live.

/// Keys (ending without `/`) and prefixes (ending with `/`) that stay with their quorum.
pub const IDENTITY_ROWS: &[&str] = &[
    "/nautilus/ca",
    "/nautilus/front-proxy-ca",
    "/nautilus/operators/",
    "/nautilus/policy/",
    "/nautilus/keys/",
    "/nautilus/recovery/",
    "/nautilus/workers/",
    "/nautilus/etcd/alarm/",
    "/nautilus/etcd/promote/",
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
        assert!(is_identity(b"/nautilus/policy/current"));
        assert!(!is_identity(b"/nautilus/cat"));
        assert!(!is_identity(b"/nautilus/registry/pods/a"));
        assert!(!is_identity(b"/nautilus/etcd/auth/state"));
        assert!(is_identity(b"/nautilus/etcd/alarm/01/NOSPACE"));
    }
}
