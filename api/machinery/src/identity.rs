//! Who asks. Put into a request by the face that authenticated it, read by all
//! that judge it; holds no credential.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The user of requests that carry no credential.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group of every authenticated user.
pub const AUTHENTICATED_GROUP: &str = "system:authenticated";
/// The group of every unauthenticated user.
pub const UNAUTHENTICATED_GROUP: &str = "system:unauthenticated";
/// The group that may do everything.
pub const MASTERS_GROUP: &str = "system:masters";

/// What comes before the node's name in a kubelet's user.
pub const NODE_USER_PREFIX: &str = "system:node:";
/// The group of kubelets.
pub const NODES_GROUP: &str = "system:nodes";
/// What comes before the name of a service account's user.
const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// A user, the groups it is in, and what else its credential says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user's name.
    pub name: String,
    /// Tells apart users of one name over time; empty where the credential has none.
    #[serde(default)]
    pub uid: String,
    /// The groups, in the order the authenticator gave them.
    pub groups: Vec<String>,
    /// Further facts by key.
    #[serde(default)]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// The user of a request without credentials.
    pub fn anonymous() -> Self {
        Self {
            name: ANONYMOUS.to_owned(),
            groups: vec![UNAUTHENTICATED_GROUP.to_owned()],
            ..Self::default()
        }
    }

    /// A user who proved who it is; the group of the authenticated is added.
    pub fn authenticated(name: impl Into<String>, groups: Vec<String>) -> Self {
        let mut groups = groups;
        if !groups.iter().any(|group| group == AUTHENTICATED_GROUP) {
            groups.push(AUTHENTICATED_GROUP.to_owned());
        }
        Self {
            name: name.into(),
            groups,
            ..Self::default()
        }
    }

    /// A part of the server itself: what the quorum writes on its own behalf.
    pub fn internal(name: &str) -> Self {
        Self::authenticated(name, vec![MASTERS_GROUP.to_owned()])
    }

    /// The service account of a controller.
    pub fn controller(name: &str) -> Self {
        Self::service_account("kube-system", name, "")
    }

    /// The user of a service account.
    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        let groups = vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
        ];
        Self {
            uid: uid.to_owned(),
            ..Self::authenticated(
                format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}"),
                groups,
            )
        }
    }

    /// Namespace and name, where the user is a service account.
    pub fn as_service_account(&self) -> Option<(&str, &str)> {
        let (namespace, name) = self
            .name
            .strip_prefix(SERVICE_ACCOUNT_PREFIX)?
            .split_once(':')?;
        (!namespace.is_empty() && !name.is_empty() && !name.contains(':'))
            .then_some((namespace, name))
    }

    /// The user of a verified client certificate: its common name and organizations;
    /// anonymous when it has no name.
    pub fn of_certificate(der: &[u8]) -> Self {
        let Ok((_, certificate)) = x509_parser::parse_x509_certificate(der) else {
            return Self::anonymous();
        };
        let subject = certificate.subject();
        let Some(name) = subject
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok())
        else {
            return Self::anonymous();
        };
        let groups: Vec<String> = subject
            .iter_organization()
            .filter_map(|group| group.as_str().ok().map(str::to_owned))
            .collect();
        Self::authenticated(name, groups)
    }

    /// Whether the user proved who it is.
    pub fn is_authenticated(&self) -> bool {
        self.in_group(AUTHENTICATED_GROUP)
    }

    /// Whether the user may do everything.
    pub fn is_master(&self) -> bool {
        self.in_group(MASTERS_GROUP)
    }

    /// Whether the user is in `group`.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }
}

/// The client key that a request's connection proved to hold. Stands in the request's extensions
/// beside its [`User`], who may be another (a token's); absent without a client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientKey {
    /// SHA-256 over its SPKI.
    pub spki_sha256: [u8; 32],
    /// The name in its verified certificate.
    pub subject: Arc<str>,
}

/// What a face that is no part of the API wants in the audit event of its answer: stands in the
/// answer's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditNote {
    /// The annotation's key.
    pub key: &'static str,
    /// Its value.
    pub value: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_anonymous_user_is_neither_authenticated_nor_a_master() {
        let user = User::anonymous();
        assert!(!user.is_authenticated() && !user.is_master());
    }

    #[test]
    fn a_certificate_of_the_masters_group_makes_a_master() {
        let user = User::authenticated("admin", vec![MASTERS_GROUP.to_owned()]);
        assert!(user.is_authenticated() && user.is_master());
    }
}
