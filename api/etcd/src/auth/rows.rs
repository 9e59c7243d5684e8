//! How users, roles and the state of authentication stand in the store.
//!
//! One row for the state, which every change rewrites, one for each user and role.
//!
//! Invariants
//! - Each row begins with its format's version; another one is refused, not guessed.
//! - Whatever holds a hash or a key has neither `Debug` nor a serialisation of its own.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The row that every change of users, roles or the state rewrites.
pub(super) const STATE_KEY: &[u8] = b"/nautilus/etcd/auth/state";
/// Everything of authentication.
pub(super) const ROWS_PREFIX: &[u8] = b"/nautilus/etcd/auth/";
/// The user's name follows.
pub(super) const USER_PREFIX: &[u8] = b"/nautilus/etcd/auth/user/";
/// The role's name follows.
pub(super) const ROLE_PREFIX: &[u8] = b"/nautilus/etcd/auth/role/";
/// Bytes of the key that signs simple tokens.
pub(super) const TOKEN_KEY_BYTES: usize = 32;
/// Bytes of the random mark of one change.
pub(super) const CHANGE_BYTES: usize = 16;

const FORMAT: u8 = 1;

/// Why a row can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the row {key} of the etcd face's authentication can't be read: {reason}")]
pub(crate) struct RowFault {
    key: String,
    reason: String,
}

/// A row's key, made of its prefix and a name.
pub(super) fn key(prefix: &[u8], name: &str) -> Bytes {
    [prefix, name.as_bytes()].concat().into()
}

/// The key that signs simple tokens. Made anew whenever authentication is enabled, so
/// that no token outlives the time it was given in.
#[derive(Clone)]
pub(super) struct TokenKey(pub(super) Zeroizing<[u8; TOKEN_KEY_BYTES]>);

/// Whether authentication is on, and which revision its rules have.
#[derive(Clone)]
pub(super) struct StateRow {
    pub(super) enabled: bool,
    /// Counted up by each change of users and roles, from 1.
    pub(super) revision: u64,
    /// Drawn by who made the last change, who finds it here when it lost the answer.
    pub(super) change: [u8; CHANGE_BYTES],
    pub(super) token_key: TokenKey,
}

impl StateRow {
    /// Before anything was ever changed.
    pub(super) fn initial() -> Self {
        Self {
            enabled: false,
            revision: 1,
            change: [0; CHANGE_BYTES],
            token_key: TokenKey(Zeroizing::new([0; TOKEN_KEY_BYTES])),
        }
    }

    pub(super) fn encode(&self) -> Bytes {
        let key: &[u8; TOKEN_KEY_BYTES] = &self.token_key.0;
        encode(STATE_KEY, &(self.enabled, self.revision, self.change, key))
    }

    pub(super) fn decode(row: &[u8]) -> Result<Self, RowFault> {
        type Fields = (bool, u64, [u8; CHANGE_BYTES], [u8; TOKEN_KEY_BYTES]);
        let (enabled, revision, change, key): Fields = decode(STATE_KEY, row)?;
        Ok(Self {
            enabled,
            revision,
            change,
            token_key: TokenKey(Zeroizing::new(key)),
        })
    }
}

/// A user.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct UserRow {
    /// Sorted.
    pub(super) roles: Vec<String>,
    /// In bcrypt's own text form; `None`: no password lets in.
    pub(super) password_hash: Option<String>,
    /// Created without a password, for good: only a certificate tells who it is.
    pub(super) no_password: bool,
    /// The revision of the rules that set the password: tokens of another one are void.
    pub(super) generation: u64,
}

impl UserRow {
    pub(super) fn encode(&self, row_key: &[u8]) -> Bytes {
        let fields = (
            &self.roles,
            &self.password_hash,
            self.no_password,
            self.generation,
        );
        encode(row_key, &fields)
    }

    pub(super) fn decode(row_key: &[u8], row: &[u8]) -> Result<Self, RowFault> {
        type Fields = (Vec<String>, Option<String>, bool, u64);
        let (roles, password_hash, no_password, generation): Fields = decode(row_key, row)?;
        Ok(Self {
            roles,
            password_hash,
            no_password,
            generation,
        })
    }
}

/// What a permission lets do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Right {
    Read,
    Write,
    ReadWrite,
}

/// A right on a range of keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Permission {
    pub(super) right: Right,
    pub(super) key: Bytes,
    /// As in requests: empty for the key alone, one zero byte for no end.
    pub(super) range_end: Bytes,
}

/// A role: permissions, sorted by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RoleRow {
    pub(super) permissions: Vec<Permission>,
}

impl RoleRow {
    pub(super) fn encode(&self, row_key: &[u8]) -> Bytes {
        encode(row_key, &self.permissions)
    }

    pub(super) fn decode(row_key: &[u8], row: &[u8]) -> Result<Self, RowFault> {
        Ok(Self {
            permissions: decode(row_key, row)?,
        })
    }
}

fn encode<T: Serialize>(row_key: &[u8], fields: &T) -> Bytes {
    match postcard::to_extend(fields, vec![FORMAT]) {
        Ok(row) => row.into(),
        // Strings, numbers and vectors of them into memory: there is nothing to fail.
        Err(error) => unreachable!("{}: {error}", String::from_utf8_lossy(row_key)),
    }
}

fn decode<'a, T: Deserialize<'a>>(row_key: &[u8], row: &'a [u8]) -> Result<T, RowFault> {
    let fault = |reason: String| RowFault {
        key: String::from_utf8_lossy(row_key).into_owned(),
        reason,
    };
    match row.split_first() {
        Some((&FORMAT, fields)) => {
            postcard::from_bytes(fields).map_err(|error| fault(error.to_string()))
        }
        Some((format, _)) => Err(fault(format!("its format is {format}, not {FORMAT}"))),
        None => Err(fault("it is empty".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were() {
        let user = UserRow {
            roles: vec!["a".into(), "root".into()],
            password_hash: Some("$2b$04$x".into()),
            no_password: false,
            generation: 7,
        };
        let read = UserRow::decode(b"k", &user.encode(b"k")).ok();
        assert!(read == Some(user));
        let role = RoleRow {
            permissions: vec![Permission {
                right: Right::ReadWrite,
                key: Bytes::from_static(b"a"),
                range_end: Bytes::from_static(b"\0"),
            }],
        };
        assert_eq!(RoleRow::decode(b"k", &role.encode(b"k")).ok(), Some(role));
        let mut state = StateRow::initial();
        state.enabled = true;
        state.token_key.0[3] = 9;
        let read = StateRow::decode(&state.encode()).ok();
        assert!(
            read.is_some_and(|read| read.enabled && read.revision == 1 && read.token_key.0[3] == 9)
        );
    }

    #[test]
    fn a_row_of_another_format_is_refused() {
        let mut row = RoleRow::default().encode(b"k").to_vec();
        row[0] = 2;
        let fault = RoleRow::decode(b"some/row", &row)
            .err()
            .map(|fault| fault.to_string());
        assert!(
            fault.is_some_and(|text| text.contains("some/row") && text.contains("format is 2"))
        );
        assert!(RoleRow::decode(b"k", b"").is_err());
    }
}
