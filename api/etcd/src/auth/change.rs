//! Changes of users, roles and the state, planned on a directory: values in, rows out.
//! What each does, and its errors, are etcd's (`server/auth/store.go`, facts only).
//!
//! Invariant: a plan holds only against the directory it was made on; whoever proposes
//! it compares the state's row.

use std::collections::BTreeMap;

use bytes::Bytes;
use nautilus_machine::{Compare, KeyRange, Operation, Put, Txn};

use super::directory::{Account, Directory, ROOT};
use super::ranges;
use super::rows::{
    CHANGE_BYTES, Permission, ROLE_PREFIX, RoleRow, STATE_KEY, TOKEN_KEY_BYTES, TokenKey,
    USER_PREFIX, UserRow, key,
};
use crate::errors::{self, Fault};

/// Users of a quorum.
pub(super) const USERS_MAX: usize = 10_000;
/// Roles of a quorum.
pub(super) const ROLES_MAX: usize = 10_000;
/// Permissions of a role.
pub(super) const PERMISSIONS_MAX: usize = 1_000;
/// Bytes of a user's or role's name.
pub(super) const NAME_BYTES_MAX: usize = 256;

/// What is asked for.
pub(super) enum Change {
    Enable {
        /// For the tokens from now on.
        token_key: TokenKey,
    },
    Disable,
    UserAdd {
        name: String,
        password_hash: Option<String>,
        no_password: bool,
    },
    UserDelete {
        name: String,
    },
    UserChangePassword {
        name: String,
        password_hash: Option<String>,
    },
    UserGrantRole {
        name: String,
        role: String,
    },
    UserRevokeRole {
        name: String,
        role: String,
    },
    RoleAdd {
        name: String,
    },
    RoleDelete {
        name: String,
    },
    RoleGrantPermission {
        name: String,
        permission: Permission,
    },
    RoleRevokePermission {
        name: String,
        key: Bytes,
        range_end: Bytes,
    },
}

/// What the rows become: `None` goes.
#[derive(Default)]
pub(super) struct Plan {
    users: BTreeMap<String, Option<UserRow>>,
    roles: BTreeMap<String, Option<RoleRow>>,
    /// On or off, with the new key of tokens.
    enabled: Option<(bool, TokenKey)>,
    /// Whether the rules' revision grows.
    counts: bool,
}

impl Plan {
    fn user(name: String, row: Option<UserRow>) -> Self {
        Self {
            users: BTreeMap::from([(name, row)]),
            counts: true,
            ..Self::default()
        }
    }

    fn role(name: String, row: Option<RoleRow>) -> Self {
        Self {
            roles: BTreeMap::from([(name, row)]),
            counts: true,
            ..Self::default()
        }
    }

    fn is_empty(&self) -> bool {
        self.users.is_empty() && self.roles.is_empty() && self.enabled.is_none()
    }

    /// The transaction that makes it so, unless the rules were changed since; `None` when
    /// there is nothing to do. `change` marks it.
    pub(super) fn transaction(
        self,
        directory: &Directory,
        change: [u8; CHANGE_BYTES],
    ) -> Option<Txn> {
        if self.is_empty() {
            return None;
        }
        let mut state = directory.state.clone();
        state.change = change;
        state.revision += u64::from(self.counts);
        if let Some((enabled, token_key)) = self.enabled {
            state.enabled = enabled;
            state.token_key = token_key;
        }
        let mut then = vec![put(Bytes::from_static(STATE_KEY), state.encode())];
        for (name, row) in self.users {
            let key = key(USER_PREFIX, &name);
            then.push(match row {
                Some(row) => put(key.clone(), row.encode(&key)),
                None => delete(key),
            });
        }
        for (name, row) in self.roles {
            let key = key(ROLE_PREFIX, &name);
            then.push(match row {
                Some(row) => put(key.clone(), row.encode(&key)),
                None => delete(key),
            });
        }
        Some(Txn {
            compare: vec![Compare::mod_revision(STATE_KEY, directory.version)],
            then,
            otherwise: Vec::new(),
        })
    }
}

fn put(key: Bytes, value: Bytes) -> Operation {
    Operation::Put(Put::new(key, value))
}

fn delete(key: Bytes) -> Operation {
    Operation::Delete {
        range: KeyRange::single(key),
        prev_kv: false,
    }
}

/// Plans a change on `directory`.
pub(super) fn plan(directory: &Directory, change: Change) -> Result<Plan, Fault> {
    let generation = directory.state.revision + 1;
    match change {
        Change::Enable { token_key } => enable(directory, token_key),
        Change::Disable => Ok(disable(directory)),
        Change::UserAdd {
            name,
            password_hash,
            no_password,
        } => {
            checked_name(&name, errors::USER_EMPTY)?;
            if directory.users.contains_key(&name) {
                return Err(errors::USER_EXISTS);
            }
            bounded(directory.users.len(), USERS_MAX)?;
            let row = UserRow {
                roles: Vec::new(),
                password_hash,
                no_password,
                generation,
            };
            Ok(Plan::user(name, Some(row)))
        }
        Change::UserDelete { name } => {
            if directory.is_enabled() && name == ROOT {
                return Err(errors::INVALID_AUTH_MANAGEMENT);
            }
            user(directory, &name)?;
            Ok(Plan::user(name, None))
        }
        Change::UserChangePassword {
            name,
            password_hash,
        } => {
            let mut row = user(directory, &name)?.row.clone();
            if !row.no_password {
                row.password_hash = password_hash;
            }
            row.generation = generation;
            Ok(Plan::user(name, Some(row)))
        }
        Change::UserGrantRole { name, role } => grant_role(directory, name, role),
        Change::UserRevokeRole { name, role } => revoke_role(directory, name, &role),
        Change::RoleAdd { name } => {
            checked_name(&name, errors::ROLE_EMPTY)?;
            if directory.roles.contains_key(&name) {
                return Err(errors::ROLE_EXISTS);
            }
            bounded(directory.roles.len(), ROLES_MAX)?;
            Ok(Plan::role(name, Some(RoleRow::default())))
        }
        Change::RoleDelete { name } => delete_role(directory, name),
        Change::RoleGrantPermission { name, permission } => {
            grant_permission(directory, name, permission)
        }
        Change::RoleRevokePermission {
            name,
            key,
            range_end,
        } => {
            let mut row = role(directory, &name)?.clone();
            let before = row.permissions.len();
            row.permissions
                .retain(|permission| permission.key != key || permission.range_end != range_end);
            if row.permissions.len() == before {
                return Err(errors::PERMISSION_NOT_GRANTED);
            }
            Ok(Plan::role(name, Some(row)))
        }
    }
}

fn enable(directory: &Directory, token_key: TokenKey) -> Result<Plan, Fault> {
    if directory.is_enabled() {
        return Ok(Plan::default());
    }
    let root = directory
        .users
        .get(ROOT)
        .ok_or(errors::ROOT_USER_NOT_EXIST)?;
    if !root.is_root() {
        return Err(errors::ROOT_ROLE_NOT_EXIST);
    }
    Ok(Plan {
        enabled: Some((true, token_key)),
        ..Plan::default()
    })
}

fn disable(directory: &Directory) -> Plan {
    if !directory.is_enabled() {
        return Plan::default();
    }
    Plan {
        enabled: Some((false, TokenKey([0; TOKEN_KEY_BYTES].into()))),
        counts: true,
        ..Plan::default()
    }
}

fn grant_role(directory: &Directory, name: String, granted: String) -> Result<Plan, Fault> {
    let mut row = user(directory, &name)?.row.clone();
    if granted != ROOT {
        role(directory, &granted)?;
    }
    match row.roles.binary_search(&granted) {
        Ok(_) => Ok(Plan::default()),
        Err(at) => {
            row.roles.insert(at, granted);
            Ok(Plan::user(name, Some(row)))
        }
    }
}

fn revoke_role(directory: &Directory, name: String, revoked: &str) -> Result<Plan, Fault> {
    if directory.is_enabled() && name == ROOT && revoked == ROOT {
        return Err(errors::INVALID_AUTH_MANAGEMENT);
    }
    let mut row = user(directory, &name)?.row.clone();
    let before = row.roles.len();
    row.roles.retain(|role| role != revoked);
    if row.roles.len() == before {
        return Err(errors::ROLE_NOT_GRANTED);
    }
    Ok(Plan::user(name, Some(row)))
}

fn delete_role(directory: &Directory, name: String) -> Result<Plan, Fault> {
    if directory.is_enabled() && name == ROOT {
        return Err(errors::INVALID_AUTH_MANAGEMENT);
    }
    role(directory, &name)?;
    let had = directory
        .users
        .iter()
        .filter(|(_, account)| account.has_role(&name));
    let users = had
        .map(|(user, account)| {
            let mut row = account.row.clone();
            row.roles.retain(|role| *role != name);
            (user.clone(), Some(row))
        })
        .collect();
    Ok(Plan {
        users,
        ..Plan::role(name, None)
    })
}

fn grant_permission(
    directory: &Directory,
    name: String,
    granted: Permission,
) -> Result<Plan, Fault> {
    if !ranges::is_valid(&granted.key, &granted.range_end) {
        return Err(errors::INVALID_AUTH_MANAGEMENT);
    }
    let mut row = role(directory, &name)?.clone();
    let same = row.permissions.iter_mut().find(|permission| {
        permission.key == granted.key && permission.range_end == granted.range_end
    });
    match same {
        Some(permission) => permission.right = granted.right,
        None => {
            bounded(row.permissions.len(), PERMISSIONS_MAX)?;
            let at = row
                .permissions
                .partition_point(|permission| permission.key <= granted.key);
            row.permissions.insert(at, granted);
        }
    }
    Ok(Plan::role(name, Some(row)))
}

fn user<'a>(directory: &'a Directory, name: &str) -> Result<&'a Account, Fault> {
    directory.users.get(name).ok_or(errors::USER_NOT_FOUND)
}

fn role<'a>(directory: &'a Directory, name: &str) -> Result<&'a RoleRow, Fault> {
    directory.roles.get(name).ok_or(errors::ROLE_NOT_FOUND)
}

fn checked_name(name: &str, empty: Fault) -> Result<(), Fault> {
    if name.is_empty() {
        return Err(empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(errors::INVALID_AUTH_MANAGEMENT);
    }
    Ok(())
}

fn bounded(present: usize, limit: usize) -> Result<(), Fault> {
    if present >= limit {
        return Err(errors::TOO_MANY_REQUESTS);
    }
    Ok(())
}
