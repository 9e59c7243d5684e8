//! What a writer must be allowed beyond the request itself: to give rights away, to
//! approve and sign certificates, to write what a node writes.

use nautilus_access::rbac::{self, Guarded};
use nautilus_access::{Attributes, certificates, node, seal};
use nautilus_admission::attributes::{Attributes as Asked, Operation};
use nautilus_machinery::identity::User;
use nautilus_machinery::status::ApiError;
use serde_json::Value;

use super::Access;
use crate::k3s::password;

/// Why a Seal token's CSR is refused where the node came by a password.
const PASSWORD_FIRST: &str = "the node joined as an agent of K3s with a password: its certificates \
     are at /v1-k3s, with that password";

impl Access {
    /// Judges a write before its strategy does. `object` is what is to be written (the
    /// body of a subresource that has one of its own; nothing of a deletion); a
    /// certificate request learns here who made it.
    pub(crate) fn check_write(
        &self,
        asked: &Asked<'_>,
        object: Option<&mut Value>,
    ) -> Result<(), ApiError> {
        let object = match object {
            Some(object) => {
                self.prepare(asked, object);
                Some(&*object)
            }
            None => None,
        };
        if asked.user.is_master() && asked.resource.group != certificates::GROUP {
            return Ok(());
        }
        self.check_node(asked, object)?;
        match (asked.resource.group.as_str(), object) {
            (rbac::GROUP, Some(object)) => self.check_rights(asked, object),
            (certificates::GROUP, Some(object)) => self.check_certificate(asked, object),
            _ => Ok(()),
        }
    }

    fn prepare(&self, asked: &Asked<'_>, object: &mut Value) {
        if asked.operation == Operation::Create
            && asked.is(certificates::GROUP, "certificatesigningrequests")
        {
            certificates::prepare(object, asked.user);
        }
    }

    fn check_rights(&self, asked: &Asked<'_>, object: &Value) -> Result<(), ApiError> {
        let guarded = Guarded {
            plural: &asked.resource.plural,
            namespace: asked.namespace.unwrap_or_default(),
            request_name: if asked.old.is_some() { asked.name } else { "" },
        };
        let allowed = |attributes: &Attributes| self.authorize(asked.user, attributes).is_allowed();
        let check = match asked.resource.plural.as_str() {
            "roles" | "clusterroles" => rbac::check_role,
            _ => rbac::check_binding,
        };
        let policy = self.roles.policy();
        check(&policy, asked.user, guarded, object, asked.old, &allowed)
    }

    fn check_certificate(&self, asked: &Asked<'_>, object: &Value) -> Result<(), ApiError> {
        if asked.resource.plural != "certificatesigningrequests" {
            return Ok(());
        }
        let may = |attributes: &Attributes| self.authorize(asked.user, attributes).is_allowed();
        let refused = match (asked.operation, asked.old) {
            (Operation::Create, _) => match self.has_password(asked.user)? {
                true => Some(PASSWORD_FIRST.to_owned()),
                false => certificates::forbidden_creation(object),
            },
            (Operation::Update, Some(old)) => {
                let subresource = asked.subresource.unwrap_or_default();
                certificates::forbidden_update(subresource, old, object, &may)
            }
            _ => None,
        };
        match refused {
            Some(why) => Err(asked.forbidden(Some(object), &why)),
            None => Ok(()),
        }
    }

    /// Whether who joins with a Seal token joins as a node that has a password: the token alone
    /// takes nobody's place.
    fn has_password(&self, user: &User) -> Result<bool, ApiError> {
        let Some(node) = seal::node_of(user) else {
            return Ok(false);
        };
        let name = password::secret_name(node);
        let held = self.lookup("", "secrets", password::NAMESPACE, &name)?;
        Ok(held.is_some())
    }

    fn check_node(&self, asked: &Asked<'_>, object: Option<&Value>) -> Result<(), ApiError> {
        if node::name_of(asked.user).is_none() {
            return Ok(());
        }
        let lookup = |group: &str, plural: &str, namespace: &str, name: &str| {
            self.lookup(group, plural, namespace, name)
        };
        let may = |attributes: &Attributes| self.authorize(asked.user, attributes).is_allowed();
        let written = node::Written {
            operation: asked.operation.as_str(),
            group: &asked.resource.group,
            plural: &asked.resource.plural,
            subresource: asked.subresource.unwrap_or_default(),
            namespace: asked.namespace.unwrap_or_default(),
            name: asked.name,
            user: asked.user,
            object,
            old: asked.old,
            lookup: &lookup,
            authorize: &may,
        };
        node::restrict(&written).map_err(|restricted| match restricted {
            node::Restricted::Missing(error) => error,
            node::Restricted::Forbidden(why) => asked.forbidden(object, &why),
        })
    }

    /// An object of this node's state.
    pub(super) fn lookup(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, ApiError> {
        let resource = crate::storage::built_in(group, plural)?;
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        let key = resource.key(namespace, name);
        let row = self.storage.read(resource, &key);
        let row = row.map_err(|failure| failure.error)?;
        Ok(row.map(|row| row.object))
    }
}
