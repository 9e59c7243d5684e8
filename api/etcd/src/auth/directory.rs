//! Users, roles and their rights as of one revision, and the cache of them.
//!
//! Invariants
//! - A directory is read whole from one revision of the store: it never mixes two states.
//! - [`Directories::current`] is never older than what this node had applied when it was
//!   called: it looks whether the state's row changed unless nothing at all did.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use bytes::Bytes;
use nautilus_machine::{Compare, KeyRange, Kv, RangeError, RangeRequest, Revision};

use super::ranges::RangeSet;
use super::rows::{
    ROLE_PREFIX, ROWS_PREFIX, Right, RoleRow, RowFault, STATE_KEY, StateRow, USER_PREFIX, UserRow,
};
use crate::errors::{self, Fault};

/// The user and the role that may do everything.
pub(super) const ROOT: &str = "root";

/// Who asks, once it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// A user's name, which need not exist (any more).
    pub(crate) user: String,
    /// The revision of the rules that its token was given under, where it says so.
    pub(crate) revision: Option<u64>,
}

/// Why there is no directory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirectoryError {
    #[error(transparent)]
    Range(#[from] RangeError),
    #[error(transparent)]
    Row(#[from] RowFault),
}

/// A user with the rights of all its roles.
pub(super) struct Account {
    pub(super) row: UserRow,
    reads: RangeSet,
    writes: RangeSet,
}

impl Account {
    fn new(row: UserRow, roles: &BTreeMap<String, RoleRow>) -> Self {
        let with = |wanted: Right| {
            let permissions = row.roles.iter().filter_map(|role| roles.get(role));
            let ranges = permissions
                .flat_map(|role| &role.permissions)
                .filter(|permission| [wanted, Right::ReadWrite].contains(&permission.right));
            RangeSet::of(ranges.map(|permission| (&permission.key, &permission.range_end)))
        };
        Self {
            reads: with(Right::Read),
            writes: with(Right::Write),
            row,
        }
    }

    pub(super) fn is_root(&self) -> bool {
        self.has_role(ROOT)
    }

    pub(super) fn has_role(&self, role: &str) -> bool {
        self.row.roles.iter().any(|has| has == role)
    }
}

/// Everything that authentication knows, as of one revision.
pub(crate) struct Directory {
    /// The revision at which the state's row was last written; 0: never.
    pub(super) version: Revision,
    pub(super) state: StateRow,
    pub(super) users: BTreeMap<String, Account>,
    pub(super) roles: BTreeMap<String, RoleRow>,
    pub(super) token_key: hmac::Key,
}

impl Directory {
    fn new(
        version: Revision,
        state: StateRow,
        users: BTreeMap<String, UserRow>,
        roles: BTreeMap<String, RoleRow>,
    ) -> Self {
        let users = users
            .into_iter()
            .map(|(name, row)| (name, Account::new(row, &roles)))
            .collect();
        Self {
            version,
            token_key: hmac::Key::new(hmac::HMAC_SHA256, &state.token_key.0[..]),
            state,
            users,
            roles,
        }
    }

    fn empty() -> Self {
        Self::new(0, StateRow::initial(), BTreeMap::new(), BTreeMap::new())
    }

    /// Whether requests must say who asks.
    pub(crate) fn is_enabled(&self) -> bool {
        self.state.enabled
    }

    /// The revision of the rules, as clients see it.
    pub(crate) fn revision(&self) -> u64 {
        self.state.revision
    }

    /// Tells two directories of one store apart.
    pub(crate) fn version(&self) -> Revision {
        self.version
    }

    /// Holds as long as nothing of authentication was changed. None where nothing ever
    /// was: then there is no rule that a write could race with.
    pub(crate) fn guard(&self) -> Option<Compare> {
        (self.version != 0).then(|| Compare::mod_revision(STATE_KEY, self.version))
    }

    /// etcd: `isOpPermitted` for reading.
    pub(crate) fn may_read(
        &self,
        who: Option<&Identity>,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<(), Fault> {
        self.may(who, |account| account.reads.covers(key, range_end))
    }

    /// etcd: `isOpPermitted` for writing.
    pub(crate) fn may_write(
        &self,
        who: Option<&Identity>,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<(), Fault> {
        self.may(who, |account| account.writes.covers(key, range_end))
    }

    fn may(
        &self,
        who: Option<&Identity>,
        allowed: impl FnOnce(&Account) -> bool,
    ) -> Result<(), Fault> {
        let who = who.ok_or(errors::USER_EMPTY)?;
        if who
            .revision
            .is_some_and(|revision| revision < self.revision())
        {
            return Err(errors::AUTH_OLD_REVISION);
        }
        match self.users.get(&who.user) {
            Some(account) if account.is_root() || allowed(account) => Ok(()),
            _ => Err(errors::PERMISSION_DENIED),
        }
    }

    /// etcd: `IsAdminPermitted`.
    pub(crate) fn is_root(&self, who: Option<&Identity>) -> Result<(), Fault> {
        let who = who.ok_or(errors::USER_EMPTY)?;
        let account = self.users.get(&who.user).ok_or(errors::USER_NOT_FOUND)?;
        if account.is_root() {
            Ok(())
        } else {
            Err(errors::PERMISSION_DENIED)
        }
    }

    /// Whether `who` has `role`.
    pub(crate) fn has_role(&self, who: Option<&Identity>, role: &str) -> bool {
        who.and_then(|who| self.users.get(&who.user))
            .is_some_and(|account| account.has_role(role))
    }
}

struct Cached {
    directory: Arc<Directory>,
    /// Up to this revision of the store the directory is known to be the newest.
    checked: AtomicU64,
}

/// The newest directory, read from the store when it changes.
pub(crate) struct Directories {
    kv: Arc<dyn Kv>,
    cached: ArcSwap<Cached>,
}

impl Directories {
    pub(crate) fn new(kv: Arc<dyn Kv>) -> Self {
        let cached = Cached {
            directory: Arc::new(Directory::empty()),
            checked: AtomicU64::new(0),
        };
        Self {
            kv,
            cached: ArcSwap::from_pointee(cached),
        }
    }

    /// The directory as this node has applied it.
    pub(crate) fn current(&self) -> Result<Arc<Directory>, DirectoryError> {
        let cached = self.cached.load();
        if cached.checked.load(Ordering::Acquire) >= self.kv.revision() {
            return Ok(cached.directory.clone());
        }
        let state = KeyRange::single(STATE_KEY);
        let answer = self.kv.range(&RangeRequest::newest(state))?;
        let version = answer.kvs.first().map_or(0, |row| row.mod_revision);
        if version == cached.directory.version {
            cached.checked.fetch_max(answer.revision, Ordering::AcqRel);
            return Ok(cached.directory.clone());
        }
        drop(cached);
        self.load()
    }

    fn load(&self) -> Result<Arc<Directory>, DirectoryError> {
        let all = KeyRange::prefix(ROWS_PREFIX);
        let answer = self.kv.range(&RangeRequest::newest(all))?;
        let mut version = 0;
        let mut state = StateRow::initial();
        let mut users = BTreeMap::new();
        let mut roles = BTreeMap::new();
        for row in &answer.kvs {
            if row.key == STATE_KEY {
                version = row.mod_revision;
                state = StateRow::decode(&row.value)?;
            } else if let Some(name) = name_of(&row.key, USER_PREFIX) {
                users.insert(name, UserRow::decode(&row.key, &row.value)?);
            } else if let Some(name) = name_of(&row.key, ROLE_PREFIX) {
                roles.insert(name, RoleRow::decode(&row.key, &row.value)?);
            }
        }
        let directory = Arc::new(Directory::new(version, state, users, roles));
        let loaded = Arc::new(Cached {
            directory: directory.clone(),
            checked: AtomicU64::new(answer.revision),
        });
        self.cached.rcu(|present| {
            let present_is_newer = present.checked.load(Ordering::Acquire) > answer.revision;
            if present_is_newer {
                present.clone()
            } else {
                loaded.clone()
            }
        });
        Ok(directory)
    }
}

fn name_of(key: &Bytes, prefix: &[u8]) -> Option<String> {
    let name = key.strip_prefix(prefix)?;
    Some(String::from_utf8_lossy(name).into_owned())
}
