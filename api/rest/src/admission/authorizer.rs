//! The authorizer as expressions ask it.

use std::fmt;
use std::sync::Arc;

use nautilus_access::Attributes;
use nautilus_cel::{Authorizer, Check, Decision, Subject};
use nautilus_machinery::identity::User;

use crate::access::Access;

/// Decides for one requester.
pub(super) struct AccessAuthorizer {
    access: Arc<Access>,
    user: User,
}

impl AccessAuthorizer {
    pub(super) fn of(access: &Arc<Access>, user: &User) -> Arc<dyn Authorizer> {
        Arc::new(Self {
            access: access.clone(),
            user: user.clone(),
        })
    }
}

impl fmt::Debug for AccessAuthorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessAuthorizer").finish_non_exhaustive()
    }
}

impl Authorizer for AccessAuthorizer {
    fn authorize(&self, check: &Check) -> Decision {
        let account;
        let user = match &check.subject {
            Subject::Requester => &self.user,
            Subject::ServiceAccount { namespace, name } => {
                account = User::authenticated(
                    format!("system:serviceaccount:{namespace}:{name}"),
                    vec![
                        "system:serviceaccounts".to_owned(),
                        format!("system:serviceaccounts:{namespace}"),
                    ],
                );
                &account
            }
        };
        let asked = Attributes {
            verb: check.verb.clone(),
            is_resource: check.path.is_none(),
            group: check.group.clone(),
            version: "*".to_owned(),
            resource: check.resource.clone(),
            subresource: check.subresource.clone(),
            namespace: check.namespace.clone(),
            name: check.name.clone(),
            path: check.path.clone().unwrap_or_default(),
            ..Attributes::default()
        };
        let decision = self.access.authorize(user, &asked);
        Decision {
            allowed: decision.is_allowed(),
            reason: decision.reason().to_owned(),
            error: None,
        }
    }
}
