//! In whose names the parts of the leader write.
//!
//! A controller has the service account and the role that it has in the reference: it can do
//! here what it could from outside, and no more. Only what kube-apiserver does by itself is
//! done by a [`User::internal`].

use std::sync::LazyLock;

use nautilus_machinery::identity::User;

use crate::audit::Remarks;
use crate::storage::Writer;

/// Who is named in `managedFields`.
const FIELD_MANAGER: &str = "nautilus";

/// A part's own user.
pub(crate) struct Account(LazyLock<User>);

impl Account {
    pub(crate) const fn new(user: fn() -> User) -> Self {
        Self(LazyLock::new(user))
    }

    pub(crate) fn user(&self) -> &User {
        &self.0
    }

    pub(crate) fn writer(&self) -> Writer<'_> {
        Writer {
            user: &self.0,
            field_manager: FIELD_MANAGER,
            dry_run: false,
            remarks: Remarks::default(),
        }
    }
}
