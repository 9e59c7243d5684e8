//! Simple tokens: given for a password, good for a while after their last use.
//!
//! A token says who was let in, when, and by which setting of the password, under a
//! code that only the quorum's members can make: the key of it is a row of the store.
//! So every member accepts it, also when the member that gave it is gone.
//!
//! token = base64url(format ‖ given at ‖ generation ‖ nonce ‖ user ‖ code), numbers of
//! 8 bytes, big endian; code = the first 16 bytes of HMAC-SHA-256 over what is before.
//!
//! Invariants
//! - A token is void once its user's password is set anew or the user is deleted, and
//!   once authentication was turned off.
//! - A use prolongs it on the member where it was used (as in etcd); what the member
//!   remembers of uses is bounded: beyond the bound a token lives from when it was given.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;

use super::directory::{Directory, Identity};
use crate::errors::{self, Fault};

/// Tokens whose last use a member remembers.
pub(super) const USES_MAX: usize = 65_536;
/// The longest token that is looked at, in bytes.
pub(super) const TOKEN_BYTES_MAX: usize = 4096;

const FORMAT: u8 = 1;
const NONCE_BYTES: usize = 8;
const CODE_BYTES: usize = 16;
const HEAD_BYTES: usize = 1 + 8 + 8 + NONCE_BYTES;
/// A use is noted when the last note of one is older than this share of the life.
const NOTE_SHARE: u32 = 10;
/// How far members' clocks may differ.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Milliseconds since the Unix epoch.
pub(super) type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The system's clock.
pub(super) fn system_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

type Nonce = [u8; NONCE_BYTES];

/// Gives and judges simple tokens.
pub(super) struct SimpleTokens {
    life_ms: u64,
    clock: Clock,
    uses: Mutex<HashMap<Nonce, u64>>,
}

impl SimpleTokens {
    pub(super) fn new(life: Duration, clock: Clock) -> Self {
        Self {
            life_ms: u64::try_from(life.as_millis()).unwrap_or(u64::MAX),
            clock,
            uses: Mutex::default(),
        }
    }

    /// A token for `user`, which the directory has.
    pub(super) fn give(&self, directory: &Directory, user: &str) -> Result<String, Fault> {
        let account = directory.users.get(user).ok_or(errors::AUTH_FAILED)?;
        let mut nonce = Nonce::default();
        rand::fill(&mut nonce).map_err(|_| errors::AUTH_FAILED)?;
        let mut token = Vec::with_capacity(HEAD_BYTES + user.len() + CODE_BYTES);
        token.push(FORMAT);
        token.extend_from_slice(&(self.clock)().to_be_bytes());
        token.extend_from_slice(&account.row.generation.to_be_bytes());
        token.extend_from_slice(&nonce);
        token.extend_from_slice(user.as_bytes());
        let code = hmac::sign(&directory.token_key, &token);
        token.extend_from_slice(&code.as_ref()[..CODE_BYTES]);
        Ok(URL_SAFE_NO_PAD.encode(token))
    }

    /// Whose token it is, if it is good now; notes its use.
    pub(super) fn judge(&self, directory: &Directory, token: &str) -> Result<Identity, Fault> {
        let parts = Parts::read(directory, token).ok_or(errors::INVALID_AUTH_TOKEN)?;
        let account = directory.users.get(&parts.user);
        if account.is_none_or(|account| account.row.generation != parts.generation) {
            return Err(errors::INVALID_AUTH_TOKEN);
        }
        self.note_use(&parts)?;
        Ok(Identity {
            user: parts.user,
            revision: None,
        })
    }

    fn note_use(&self, parts: &Parts) -> Result<(), Fault> {
        let now = (self.clock)();
        let skew_ms = u64::try_from(CLOCK_SKEW.as_millis()).unwrap_or(u64::MAX);
        if parts.given_ms > now.saturating_add(skew_ms) {
            return Err(errors::INVALID_AUTH_TOKEN);
        }
        let note_after_ms = self.life_ms / u64::from(NOTE_SHARE);
        let age_ms = now.saturating_sub(parts.given_ms);
        if age_ms <= note_after_ms {
            return Ok(());
        }
        let mut uses = self.uses.lock();
        let last = uses
            .get(&parts.nonce)
            .copied()
            .unwrap_or(0)
            .max(parts.given_ms);
        let since_ms = now.saturating_sub(last);
        if since_ms > self.life_ms {
            uses.remove(&parts.nonce);
            return Err(errors::INVALID_AUTH_TOKEN);
        }
        if since_ms > note_after_ms {
            if uses.len() >= USES_MAX {
                let life_ms = self.life_ms;
                uses.retain(|_, used| now.saturating_sub(*used) <= life_ms);
            }
            if uses.len() < USES_MAX {
                uses.insert(parts.nonce, now);
            }
        }
        Ok(())
    }
}

struct Parts {
    given_ms: u64,
    generation: u64,
    nonce: Nonce,
    user: String,
}

impl Parts {
    /// `None` unless a member made the token under the directory's key.
    fn read(directory: &Directory, token: &str) -> Option<Self> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let token = URL_SAFE_NO_PAD.decode(token).ok()?;
        let said_at = token.len().checked_sub(CODE_BYTES)?;
        let (said, code) = token.split_at_checked(said_at)?;
        let expected = hmac::sign(&directory.token_key, said);
        aws_lc_rs::constant_time::verify_slices_are_equal(&expected.as_ref()[..CODE_BYTES], code)
            .ok()?;
        let (format, rest) = said.split_first()?;
        let (given, rest) = rest.split_first_chunk()?;
        let (generation, rest) = rest.split_first_chunk()?;
        let (nonce, user) = rest.split_first_chunk()?;
        (*format == FORMAT).then_some(())?;
        Some(Self {
            given_ms: u64::from_be_bytes(*given),
            generation: u64::from_be_bytes(*generation),
            nonce: *nonce,
            user: String::from_utf8(user.to_vec()).ok()?,
        })
    }
}
