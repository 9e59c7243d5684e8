//! Sealing: bytes that only the same code on the same platform opens.
//!
//! A blob is `magic, salt (32), platform id (32), length of the measurement (1),
//! measurement, ciphertext, tag (16)`. Its key is HKDF-SHA-384 of the platform
//! secret, salted with the blob's own random salt, over a label, the measurement
//! and the purpose: fresh for every blob, so the nonce may be constant. The header
//! is in clear, so that an error can say who sealed it, and is bound as associated
//! data, so that changing it only makes the blob unreadable.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use nautilus_attest_protocol::{MAX_MEASUREMENT_BYTES, Measurement, SealError};
use zeroize::Zeroizing;

use crate::platform::PlatformSecret;

/// The most that is sealed in one blob, in bytes: keys, not data.
pub const MAX_SEALED_PLAINTEXT_BYTES: usize = 1024 * 1024;

const MAGIC: &[u8; 8] = b"NTLSEAL1";
const SALT_BYTES: usize = 32;
const PLATFORM_BYTES: usize = 32;
const KEY_BYTES: usize = 32;
const FIXED_HEADER_BYTES: usize = MAGIC.len() + SALT_BYTES + PLATFORM_BYTES + 1;
const KEY_LABEL: &[u8] = b"nautilus simulated sealing key v1";

pub(crate) fn seal(
    secret: &PlatformSecret,
    measurement: &Measurement,
    label: &str,
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    if plaintext.len() > MAX_SEALED_PLAINTEXT_BYTES {
        return Err(SealError::TooLarge {
            size: plaintext.len(),
            limit: MAX_SEALED_PLAINTEXT_BYTES,
        });
    }
    let mut salt = [0; SALT_BYTES];
    rand::fill(&mut salt).map_err(|_| SealError::Cryptography)?;
    let code = measurement.as_bytes();
    let code_length = u8::try_from(code.len()).map_err(|_| SealError::Cryptography)?;
    let platform = hex::decode(secret.platform_id()).map_err(|_| SealError::Cryptography)?;
    let header = [&MAGIC[..], &salt, &platform, &[code_length], code].concat();

    let mut sealed = Zeroizing::new(Vec::with_capacity(plaintext.len() + AES_256_GCM.tag_len()));
    sealed.extend_from_slice(plaintext);
    let key = key(secret, &salt, measurement, label)?;
    let aad = Aad::from(associated_data(&header, label));
    key.seal_in_place_append_tag(nonce(), aad, &mut *sealed)
        .map_err(|_| SealError::Cryptography)?;
    Ok([&header[..], &sealed].concat())
}

pub(crate) fn unseal(
    secret: &PlatformSecret,
    running: &Measurement,
    label: &str,
    blob: &[u8],
) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let header = Header::read(blob)?;
    if header.measurement != *running {
        return Err(SealError::Measurement {
            sealed: header.measurement,
            running: running.clone(),
        });
    }
    if header.platform != secret.platform_id() {
        return Err(SealError::Platform {
            sealed: header.platform,
            running: secret.platform_id(),
        });
    }
    let (clear, ciphertext) = blob.split_at(header.length);
    let key = key(secret, header.salt, running, label)?;
    let mut opened = Zeroizing::new(ciphertext.to_vec());
    let aad = Aad::from(associated_data(clear, label));
    let length = match key.open_in_place(nonce(), aad, &mut opened) {
        Ok(plaintext) => plaintext.len(),
        Err(_) => {
            return Err(SealError::Corrupt {
                label: label.to_owned(),
            });
        }
    };
    opened.truncate(length);
    Ok(opened)
}

struct Header<'a> {
    salt: &'a [u8],
    platform: String,
    measurement: Measurement,
    length: usize,
}

impl<'a> Header<'a> {
    fn read(blob: &'a [u8]) -> Result<Self, SealError> {
        let limit = FIXED_HEADER_BYTES
            + MAX_MEASUREMENT_BYTES
            + MAX_SEALED_PLAINTEXT_BYTES
            + AES_256_GCM.tag_len();
        if blob.len() > limit {
            return Err(SealError::TooLarge {
                size: blob.len(),
                limit,
            });
        }
        let (fixed, rest) = blob
            .split_at_checked(FIXED_HEADER_BYTES)
            .ok_or(SealError::Malformed("it is shorter than its header"))?;
        let (magic, fixed) = fixed.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(SealError::Malformed(
                "it does not begin with the magic bytes",
            ));
        }
        let (salt, fixed) = fixed.split_at(SALT_BYTES);
        let (platform, code_length) = fixed.split_at(PLATFORM_BYTES);
        let code_length = usize::from(code_length[0]);
        let code = rest
            .get(..code_length)
            .ok_or(SealError::Malformed("it is shorter than its header"))?;
        let measurement = Measurement::new(code)
            .map_err(|_| SealError::Malformed("its measurement has no length"))?;
        Ok(Self {
            salt,
            platform: hex::encode(platform),
            measurement,
            length: FIXED_HEADER_BYTES + code_length,
        })
    }
}

fn key(
    secret: &PlatformSecret,
    salt: &[u8],
    measurement: &Measurement,
    label: &str,
) -> Result<LessSafeKey, SealError> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    secret.derive(
        salt,
        &[KEY_LABEL, measurement.as_bytes(), label.as_bytes()],
        &mut *bytes,
    );
    let key = UnboundKey::new(&AES_256_GCM, &*bytes).map_err(|_| SealError::Cryptography)?;
    Ok(LessSafeKey::new(key))
}

/// Each key seals once, so one nonce does for all.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn associated_data(header: &[u8], label: &str) -> Vec<u8> {
    [
        &(header.len() as u64).to_be_bytes(),
        header,
        label.as_bytes(),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret() -> PlatformSecret {
        let folder = tempfile::tempdir().unwrap();
        PlatformSecret::load_or_create(&folder.path().join("platform")).unwrap()
    }

    fn code(byte: u8) -> Measurement {
        Measurement::new([byte; 48]).unwrap()
    }

    #[test]
    fn the_same_code_on_the_same_platform_opens_it() {
        let secret = secret();
        let blob = seal(&secret, &code(1), "keys", b"top").unwrap();
        assert_eq!(&**unseal(&secret, &code(1), "keys", &blob).unwrap(), b"top");
        assert!(!blob.windows(3).any(|window| window == b"top"));
    }

    #[test]
    fn other_code_is_told_who_sealed_it() {
        let secret = secret();
        let blob = seal(&secret, &code(1), "keys", b"top").unwrap();
        let error = unseal(&secret, &code(2), "keys", &blob).unwrap_err();
        assert_eq!(
            error,
            SealError::Measurement {
                sealed: code(1),
                running: code(2)
            }
        );
        assert!(error.to_string().starts_with(&format!(
            "sealed under measurement {}, running {}",
            code(1),
            code(2)
        )));
    }

    #[test]
    fn a_header_rewritten_to_the_running_code_does_not_open() {
        let secret = secret();
        let mut blob = seal(&secret, &code(1), "keys", b"top").unwrap();
        blob[FIXED_HEADER_BYTES..FIXED_HEADER_BYTES + 48].fill(2);
        assert_eq!(
            unseal(&secret, &code(2), "keys", &blob),
            Err(SealError::Corrupt {
                label: "keys".into()
            })
        );
    }

    #[test]
    fn another_platform_is_told_where_it_was_sealed() {
        let blob = seal(&secret(), &code(1), "keys", b"top").unwrap();
        assert!(matches!(
            unseal(&secret(), &code(1), "keys", &blob),
            Err(SealError::Platform { .. })
        ));
    }

    #[test]
    fn another_purpose_does_not_open_it() {
        let secret = secret();
        let blob = seal(&secret, &code(1), "keys", b"top").unwrap();
        assert_eq!(
            unseal(&secret, &code(1), "token", &blob),
            Err(SealError::Corrupt {
                label: "token".into()
            })
        );
    }

    #[test]
    fn two_blobs_of_one_secret_share_no_ciphertext() {
        let secret = secret();
        let [a, b] = [0, 0].map(|_| seal(&secret, &code(1), "keys", &[0; 64]).unwrap());
        assert_ne!(a[FIXED_HEADER_BYTES + 48..], b[FIXED_HEADER_BYTES + 48..]);
    }

    proptest! {
        #[test]
        fn a_flipped_bit_or_a_cut_never_opens(at in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<bool>()) {
            let secret = secret();
            let mut blob = seal(&secret, &code(1), "keys", b"some key").unwrap();
            let at = at.index(blob.len());
            if cut { blob.truncate(at) } else { blob[at] ^= 1 << bit }
            prop_assert!(unseal(&secret, &code(1), "keys", &blob).is_err());
        }
    }
}
