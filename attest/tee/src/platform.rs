//! The simulated platform: a per-node secret in a file, standing for the secret
//! fused into a chip. Its public face is the platform id; sealing keys are drawn
//! from it.

use std::path::Path;

use aws_lc_rs::{hkdf, rand};
use nautilus_attest_protocol::SealError;
use nautilus_attest_secret::Secret;

use crate::sealing::{SealingKey, SealingRoot};
use crate::secret_file::{self, SecretFileError};

const SECRET_BYTES: usize = 32;
const PLATFORM_ID_BYTES: usize = 32;
const PLATFORM_ID_LABEL: &[u8] = b"nautilus simulated platform id v1";
const SEALING_LABEL: &[u8] = b"nautilus simulated sealing root v2";

/// The secret of one simulated platform. Neither shown nor copied.
pub struct PlatformSecret(Secret<SECRET_BYTES>);

impl PlatformSecret {
    /// Reads the secret from `path`, which is made on first use with mode 0600.
    pub fn load_or_create(path: &Path) -> Result<Self, SecretFileError> {
        if let Some(content) = secret_file::read(path)? {
            let secret = Secret::from_slice(&content);
            return secret.map(Self).ok_or_else(|| SecretFileError::Content {
                path: path.to_owned(),
                expected: "the 32 bytes of a platform secret",
            });
        }
        let secret = Secret::try_fill(|bytes| rand::fill(bytes));
        let secret = secret.map_err(|_| SecretFileError::Cryptography {
            path: path.to_owned(),
        })?;
        secret_file::create(path, secret.expose())?;
        Ok(Self(secret))
    }

    /// The platform's public identity, lower-case hex of 32 bytes. It says nothing
    /// about the secret.
    pub fn platform_id(&self) -> String {
        let mut id = [0; PLATFORM_ID_BYTES];
        self.derive(&[], &[PLATFORM_ID_LABEL], &mut id);
        hex::encode(id)
    }

    /// HKDF-SHA-384 of the secret; each of `info` is preceded by its length.
    fn derive(&self, salt: &[u8], info: &[&[u8]], out: &mut [u8]) {
        struct Length(usize);
        impl hkdf::KeyType for Length {
            fn len(&self) -> usize {
                self.0
            }
        }
        let mut parts: Vec<[u8; 8]> = Vec::with_capacity(info.len());
        parts.extend(info.iter().map(|part| (part.len() as u64).to_be_bytes()));
        let joined: Vec<&[u8]> = parts
            .iter()
            .zip(info)
            .flat_map(|(length, part)| [&length[..], part])
            .collect();
        let key = hkdf::Salt::new(hkdf::HKDF_SHA384, salt).extract(self.0.expose());
        let filled = key
            .expand(&joined, Length(out.len()))
            .and_then(|okm| okm.fill(out));
        assert!(
            filled.is_ok(),
            "HKDF gives up to 255 blocks, and at most 32 bytes are asked"
        );
    }
}

impl SealingRoot for PlatformSecret {
    fn fresh(&self, label: &str) -> Result<(SealingKey, Vec<u8>), SealError> {
        Ok((self.again(label, &[])?, Vec::new()))
    }

    fn again(&self, _label: &str, kept: &[u8]) -> Result<SealingKey, SealError> {
        if !kept.is_empty() {
            return Err(SealError::Malformed("a platform's key needs nothing kept"));
        }
        let key = Secret::try_fill(|key| {
            self.derive(&[], &[SEALING_LABEL], key);
            Ok::<_, SealError>(())
        });
        key.map(SealingKey::Long)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_keeps_its_identity() {
        let folder = tempfile::tempdir().unwrap();
        let first = PlatformSecret::load_or_create(&folder.path().join("a")).unwrap();
        let again = PlatformSecret::load_or_create(&folder.path().join("a")).unwrap();
        let other = PlatformSecret::load_or_create(&folder.path().join("b")).unwrap();
        assert_eq!(first.platform_id(), again.platform_id());
        assert_ne!(first.platform_id(), other.platform_id());
        assert_eq!(first.platform_id().len(), 64);
    }

    #[test]
    fn a_damaged_secret_is_not_replaced_by_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        secret_file::create(&path, b"short").unwrap();
        assert!(matches!(
            PlatformSecret::load_or_create(&path),
            Err(SecretFileError::Content { .. })
        ));
    }
}
