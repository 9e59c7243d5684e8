//! Passwords: hashed and compared off the async threads, a few at a time.
//!
//! Invariants
//! - No password is kept: it is wiped after its hash or comparison.
//! - A user who is not there costs the asker as long as a wrong password.

use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::errors::{self, Fault};

/// Hashes and comparisons at once; more wait.
const HASHES_AT_ONCE: usize = 2;
/// Those that wait; more are refused.
const HASHES_WAITING_MAX: usize = 256;
/// The longest password: bcrypt would cut a longer one.
const PASSWORD_BYTES_MAX: usize = 72;

/// Makes and compares hashes.
pub(super) struct Passwords {
    cost: u32,
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// Compared with where there is no hash: it costs as much.
    nobodys: Arc<OnceLock<String>>,
}

impl Passwords {
    /// `cost` is bcrypt's, 4 to 31.
    pub(super) fn new(cost: u32) -> Self {
        Self {
            cost: cost.clamp(4, 31),
            running: Arc::new(Semaphore::new(HASHES_AT_ONCE)),
            waiting: Arc::new(Semaphore::new(HASHES_WAITING_MAX)),
            nobodys: Arc::default(),
        }
    }

    /// The hash of a password.
    pub(super) async fn hash(&self, password: Zeroizing<String>) -> Result<String, Fault> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(errors::PASSWORD_TOO_LONG);
        }
        let cost = self.cost;
        self.run(move || bcrypt::hash(password.as_bytes(), cost).ok())
            .await?
            .ok_or(errors::AUTH_FAILED)
    }

    /// Whether the password is the one of `hash`; never without one.
    pub(super) async fn is(
        &self,
        hash: Option<String>,
        password: Zeroizing<String>,
    ) -> Result<bool, Fault> {
        let known = hash.is_some();
        let (nobodys, cost) = (self.nobodys.clone(), self.cost);
        let same = self
            .run(move || {
                let hash = hash.unwrap_or_else(|| {
                    let made = nobodys.get_or_init(|| bcrypt::hash(b"", cost).unwrap_or_default());
                    made.clone()
                });
                bcrypt::verify(password.as_bytes(), &hash).unwrap_or(false)
            })
            .await?;
        Ok(known && same)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let _waiting = self
            .waiting
            .clone()
            .try_acquire_owned()
            .map_err(|_| errors::TOO_MANY_REQUESTS)?;
        let running = self
            .running
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| errors::STOPPED)?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(running);
            result
        });
        done.await.map_err(|_| errors::STOPPED)
    }
}

/// A hash that a client made itself, in the base64 it is sent in.
pub(super) fn from_client(encoded: &str) -> Result<String, Fault> {
    let hash = STANDARD.decode(encoded).ok();
    let hash = hash.and_then(|hash| String::from_utf8(hash).ok());
    hash.filter(|hash| hash.parse::<bcrypt::HashParts>().is_ok())
        .ok_or(errors::NO_PASSWORD_USER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    #[tokio::test]
    async fn only_the_password_itself_fits_its_hash() {
        let passwords = Passwords::new(4);
        let hash = passwords.hash(secret("pass")).await.ok();
        assert_eq!(passwords.is(hash.clone(), secret("pass")).await, Ok(true));
        assert_eq!(passwords.is(hash, secret("Pass")).await, Ok(false));
        assert_eq!(
            passwords.is(None, secret("")).await,
            Ok(false),
            "nobody's hash fits nothing"
        );
    }

    #[tokio::test]
    async fn a_password_that_bcrypt_would_cut_is_refused() {
        let refused = Passwords::new(4).hash(secret(&"x".repeat(73))).await;
        assert_eq!(refused, Err(errors::PASSWORD_TOO_LONG));
    }

    #[test]
    fn a_clients_hash_must_be_one_of_bcrypt() {
        let hash = bcrypt::hash(b"pass", 4).expect("a hash");
        assert_eq!(from_client(&STANDARD.encode(&hash)), Ok(hash));
        assert_eq!(
            from_client(&STANDARD.encode("plain")),
            Err(errors::NO_PASSWORD_USER)
        );
        assert_eq!(from_client("???"), Err(errors::NO_PASSWORD_USER));
    }
}
