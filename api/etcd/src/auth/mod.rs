//! Users, roles and tokens: etcd's authentication over rows of the store.
//!
//! - [`rows`]: how they are stored; [`directory`]: the newest state of them, cached;
//! - [`change`]: what each request changes; [`ranges`]: whether keys are covered;
//! - [`tokens`] and [`jwt`]: the two kinds of tokens; [`password`]: hashes;
//! - [`service`]: the RPCs.
//!
//! Invariants
//! - Every change compares the row of the state, so changes never overlap, and a write
//!   that was allowed under rules that are gone when it is applied fails and is judged
//!   again (see [`Directory::guard`]).
//! - Passwords and tokens are never logged.

pub(crate) mod change;
pub(crate) mod directory;
mod jwt;
mod password;
mod ranges;
mod rows;
mod service;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use nautilus_machine::Kv;
use zeroize::Zeroizing;

pub use jwt::{JwtKeys, TokenKindError};

use self::directory::{Directories, Directory, Identity};
use self::jwt::WebTokens;
use self::password::Passwords;
use self::tokens::{Clock, SimpleTokens, system_clock};
use crate::errors::{self, Fault};

/// The kind of tokens that users get.
#[derive(Clone)]
pub enum TokenKind {
    /// Good for a while after their last use.
    Simple,
    /// JSON web tokens.
    Jwt(JwtKeys),
}

impl TokenKind {
    /// Reads etcd's `--auth-token`: `simple`, or `jwt` with its options. Key files that
    /// it names are read now; `duration` reads Go's form of a duration.
    ///
    /// # Errors
    /// When the kind, an option or a key file is not what etcd would accept.
    pub fn read(
        text: &str,
        life: Duration,
        duration: impl Fn(&str) -> Option<Duration>,
    ) -> Result<Self, TokenKindError> {
        let (kind, options) = text.split_once(',').unwrap_or((text, ""));
        match kind {
            "" | "simple" => Ok(Self::Simple),
            "jwt" => JwtKeys::read(options, life, duration).map(Self::Jwt),
            _ => Err(TokenKindError::UnknownKind(kind.to_owned())),
        }
    }
}

/// How users are let in.
#[derive(Clone)]
pub struct AuthOptions {
    /// `--auth-token`
    pub tokens: TokenKind,
    /// `--auth-token-ttl`: a simple token's life after its last use.
    pub token_life: Duration,
    /// `--bcrypt-cost`, 4 to 31.
    pub bcrypt_cost: u32,
}

impl Default for AuthOptions {
    fn default() -> Self {
        Self {
            tokens: TokenKind::Simple,
            token_life: Duration::from_secs(300),
            bcrypt_cost: 10,
        }
    }
}

enum Tokens {
    Simple(SimpleTokens),
    Web(Box<WebTokens>),
}

/// What one node needs to authenticate.
pub(crate) struct Authentication {
    directories: Directories,
    tokens: Tokens,
    passwords: Passwords,
}

impl Authentication {
    pub(crate) fn new(kv: Arc<dyn Kv>, options: AuthOptions) -> Self {
        Self::with_clock(kv, options, Arc::new(system_clock))
    }

    fn with_clock(kv: Arc<dyn Kv>, options: AuthOptions, clock: Clock) -> Self {
        let tokens = match options.tokens {
            TokenKind::Simple => Tokens::Simple(SimpleTokens::new(options.token_life, clock)),
            TokenKind::Jwt(keys) => Tokens::Web(Box::new(WebTokens::new(keys, clock))),
        };
        Self {
            directories: Directories::new(kv),
            tokens,
            passwords: Passwords::new(options.bcrypt_cost),
        }
    }

    /// The rules as this node has applied them.
    pub(crate) fn directory(&self) -> Result<Arc<Directory>, tonic::Status> {
        self.directories.current().map_err(|error| {
            tracing::error!(%error, "the rules of authentication can't be read");
            tonic::Status::internal(format!("etcdserver: {error}"))
        })
    }

    /// Who asks: whoever the token says, or without one the certificate.
    pub(crate) fn identify(
        &self,
        directory: &Directory,
        token: Option<&str>,
        common_name: Option<&str>,
    ) -> Result<Option<Identity>, Fault> {
        let Some(token) = token else {
            return Ok(common_name.map(|name| Identity {
                user: name.to_owned(),
                revision: None,
            }));
        };
        let token = token.strip_prefix("Bearer ").unwrap_or(token);
        let identity = match &self.tokens {
            Tokens::Simple(tokens) => tokens.judge(directory, token),
            Tokens::Web(tokens) => tokens.judge(token),
        };
        identity.map(Some)
    }

    /// A token for whoever knows the user's password.
    async fn authenticate(
        &self,
        directory: &Directory,
        name: &str,
        password: Zeroizing<String>,
    ) -> Result<String, Fault> {
        if !directory.is_enabled() {
            return Err(errors::AUTH_NOT_ENABLED);
        }
        let row = directory.users.get(name).map(|account| &account.row);
        if row.is_some_and(|row| row.no_password) {
            return Err(errors::NO_PASSWORD_USER);
        }
        let hash = row.and_then(|row| row.password_hash.clone());
        if !self.passwords.is(hash, password).await? {
            return Err(errors::AUTH_FAILED);
        }
        match &self.tokens {
            Tokens::Simple(tokens) => tokens.give(directory, name),
            Tokens::Web(tokens) => tokens
                .give(name, directory.revision())
                .unwrap_or(Err(errors::VERIFY_ONLY)),
        }
    }
}
