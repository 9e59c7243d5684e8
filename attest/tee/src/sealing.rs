//! Sealing: bytes that only the same code on the same platform opens.
//!
//! A blob is `magic (8), kind (1), salt (32), platform, measurement, what is kept of
//! the key, ciphertext, tag (16)`, the three in the middle each after its length (2
//! bytes, big endian). Its key is HKDF-SHA-384 of the TEE's sealing key, salted with
//! the blob's own random salt, over a label, the kind, the measurement and the
//! purpose: fresh for every blob, so the nonce may be constant. The header is in
//! clear, so that an error can say who sealed it, and is bound as associated data, so
//! that changing it only makes the blob unreadable.
//!
//! `NTLSEAL1` of earlier builds is not read: it was bound to the measurement of the
//! build that made it, so no later one could open it.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, rand};
use nautilus_attest_protocol::{Measurement, SealError, TeeKind};
use nautilus_attest_secret::Secret;
use zeroize::Zeroizing;

/// The most that is sealed in one blob, in bytes: keys, not data.
pub const MAX_SEALED_PLAINTEXT_BYTES: usize = 1024 * 1024;
/// The longest platform, measurement or kept part, in bytes.
const MAX_FIELD_BYTES: usize = 8 * 1024;

const MAGIC: &[u8; 8] = b"NTLSEAL2";
const MAGIC_OF_BEFORE: &[u8; 8] = b"NTLSEAL1";
const SALT_BYTES: usize = 32;
const KEY_LABEL: &[u8] = b"nautilus sealing key v2";

/// A TEE's own sealing key.
pub(crate) enum SealingKey {
    /// Of 16 bytes: SGX.
    Short(Secret<16>),
    /// Of 32 bytes: the others.
    Long(Secret<32>),
}

impl SealingKey {
    fn expose(&self) -> &[u8] {
        match self {
            Self::Short(key) => key.expose(),
            Self::Long(key) => key.expose(),
        }
    }
}

/// Where a TEE's sealing keys come from.
pub(crate) trait SealingRoot {
    /// A key to seal with, and what must be kept beside the blob to have it again. No
    /// secret, and as untrusted as the disk when it comes back.
    fn fresh(&self, label: &str) -> Result<(SealingKey, Vec<u8>), SealError>;
    /// The key of `kept`.
    fn again(&self, label: &str, kept: &[u8]) -> Result<SealingKey, SealError>;
}

/// Who seals.
pub(crate) struct Owner<'a> {
    pub(crate) kind: TeeKind,
    pub(crate) platform: &'a str,
    pub(crate) measurement: &'a Measurement,
}

pub(crate) fn seal(
    root: &dyn SealingRoot,
    owner: &Owner<'_>,
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
    let (sealing_key, kept) = root.fresh(label)?;
    let mut blob = Vec::new();
    blob.extend_from_slice(MAGIC);
    blob.push(number(owner.kind));
    blob.extend_from_slice(&salt);
    for field in [
        owner.platform.as_bytes(),
        owner.measurement.as_bytes(),
        &kept,
    ] {
        if field.len() > MAX_FIELD_BYTES {
            return Err(SealError::TooLarge {
                size: field.len(),
                limit: MAX_FIELD_BYTES,
            });
        }
        let length = u16::try_from(field.len()).map_err(|_| SealError::Cryptography)?;
        blob.extend_from_slice(&length.to_be_bytes());
        blob.extend_from_slice(field);
    }

    let mut sealed = Zeroizing::new(Vec::with_capacity(plaintext.len() + AES_256_GCM.tag_len()));
    sealed.extend_from_slice(plaintext);
    let key = key(&sealing_key, &salt, owner, label)?;
    let aad = Aad::from(associated_data(&blob, label));
    key.seal_in_place_append_tag(nonce(), aad, &mut *sealed)
        .map_err(|_| SealError::Cryptography)?;
    blob.extend_from_slice(&sealed);
    Ok(blob)
}

pub(crate) fn unseal(
    root: &dyn SealingRoot,
    running: &Owner<'_>,
    label: &str,
    blob: &[u8],
) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let header = Header::read(blob)?;
    if header.kind != number(running.kind) {
        return Err(SealError::Malformed("another kind of TEE sealed it"));
    }
    if header.measurement != *running.measurement {
        return Err(SealError::Measurement {
            sealed: header.measurement,
            running: running.measurement.clone(),
        });
    }
    if header.platform != running.platform {
        return Err(SealError::Platform {
            sealed: header.platform,
            running: running.platform.to_owned(),
        });
    }
    let sealing_key = root.again(label, header.kept)?;
    let (clear, ciphertext) = blob.split_at(header.length);
    let key = key(&sealing_key, header.salt, running, label)?;
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

/// The kind in a blob.
fn number(kind: TeeKind) -> u8 {
    match kind {
        TeeKind::Simulated => 0,
        TeeKind::Nitro => 1,
        TeeKind::Snp => 2,
        TeeKind::Tdx => 3,
        TeeKind::Sgx => 4,
    }
}

struct Header<'a> {
    kind: u8,
    salt: &'a [u8],
    platform: String,
    measurement: Measurement,
    kept: &'a [u8],
    length: usize,
}

impl<'a> Header<'a> {
    fn read(blob: &'a [u8]) -> Result<Self, SealError> {
        let limit = MAGIC.len()
            + 1
            + SALT_BYTES
            + 3 * (2 + MAX_FIELD_BYTES)
            + MAX_SEALED_PLAINTEXT_BYTES
            + AES_256_GCM.tag_len();
        if blob.len() > limit {
            return Err(SealError::TooLarge {
                size: blob.len(),
                limit,
            });
        }
        let mut rest = blob;
        let magic = take(&mut rest, MAGIC.len())?;
        if magic == MAGIC_OF_BEFORE {
            return Err(SealError::Malformed(
                "an earlier build sealed it, which only that build can open: let the node join anew",
            ));
        }
        if magic != MAGIC {
            return Err(SealError::Malformed(
                "it does not begin with the magic bytes",
            ));
        }
        let kind = take(&mut rest, 1)?[0];
        let salt = take(&mut rest, SALT_BYTES)?;
        let platform = std::str::from_utf8(take_field(&mut rest)?)
            .map_err(|_| SealError::Malformed("its platform is no text"))?;
        let measurement = Measurement::new(take_field(&mut rest)?)
            .map_err(|_| SealError::Malformed("its measurement has no length"))?;
        let kept = take_field(&mut rest)?;
        Ok(Self {
            kind,
            salt,
            platform: platform.escape_default().to_string(),
            measurement,
            kept,
            length: blob.len() - rest.len(),
        })
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], SealError> {
    let (taken, left) = rest
        .split_at_checked(length)
        .ok_or(SealError::Malformed("it is shorter than its header"))?;
    *rest = left;
    Ok(taken)
}

fn take_field<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], SealError> {
    let length = take(rest, 2)?;
    let length = usize::from(length[0]) << 8 | usize::from(length[1]);
    if length > MAX_FIELD_BYTES {
        return Err(SealError::Malformed("a field of its header is too long"));
    }
    take(rest, length)
}

fn key(
    sealing_key: &SealingKey,
    salt: &[u8],
    owner: &Owner<'_>,
    label: &str,
) -> Result<LessSafeKey, SealError> {
    let code = owner.measurement.as_bytes();
    let lengths = [code.len() as u64, label.len() as u64].map(u64::to_be_bytes);
    let kind = [number(owner.kind)];
    let info = [
        KEY_LABEL,
        &kind,
        &lengths[0],
        code,
        &lengths[1],
        label.as_bytes(),
    ];
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA384, salt).extract(sealing_key.expose());
    let expanded = extracted
        .expand(&info, &AES_256_GCM)
        .map_err(|_| SealError::Cryptography)?;
    Ok(LessSafeKey::new(UnboundKey::from(expanded)))
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
    use crate::platform::PlatformSecret;

    const PLATFORM: &str = "ab";

    fn secret() -> PlatformSecret {
        let folder = tempfile::tempdir().unwrap();
        PlatformSecret::load_or_create(&folder.path().join("platform")).unwrap()
    }

    fn code(byte: u8) -> Measurement {
        Measurement::new([byte; 48]).unwrap()
    }

    fn owner(measurement: &Measurement) -> Owner<'_> {
        Owner {
            kind: TeeKind::Simulated,
            platform: PLATFORM,
            measurement,
        }
    }

    fn opened(
        secret: &PlatformSecret,
        byte: u8,
        label: &str,
        blob: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        unseal(secret, &owner(&code(byte)), label, blob)
    }

    fn sealed(secret: &PlatformSecret, label: &str, plaintext: &[u8]) -> Vec<u8> {
        seal(secret, &owner(&code(1)), label, plaintext).unwrap()
    }

    #[test]
    fn the_same_code_on_the_same_platform_opens_it() {
        let secret = secret();
        let blob = sealed(&secret, "keys", b"top");
        assert_eq!(&**opened(&secret, 1, "keys", &blob).unwrap(), b"top");
        assert!(!blob.windows(3).any(|window| window == b"top"));
    }

    #[test]
    fn other_code_is_told_who_sealed_it() {
        let secret = secret();
        let blob = sealed(&secret, "keys", b"top");
        let error = opened(&secret, 2, "keys", &blob).unwrap_err();
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
        let mut blob = sealed(&secret, "keys", b"top");
        let at = blob.windows(48).position(|window| window == [1; 48]);
        blob[at.unwrap()..][..48].fill(2);
        assert_eq!(
            opened(&secret, 2, "keys", &blob),
            Err(SealError::Corrupt {
                label: "keys".into()
            })
        );
    }

    #[test]
    fn another_platform_is_told_where_it_was_sealed() {
        let secret = secret();
        let blob = sealed(&secret, "keys", b"top");
        let code = code(1);
        let elsewhere = Owner {
            platform: "cd",
            ..owner(&code)
        };
        assert_eq!(
            unseal(&secret, &elsewhere, "keys", &blob),
            Err(SealError::Platform {
                sealed: "ab".into(),
                running: "cd".into()
            })
        );
    }

    #[test]
    fn another_platforms_secret_or_another_purpose_does_not_open_it() {
        let secret = secret();
        let blob = sealed(&secret, "keys", b"top");
        assert_eq!(
            opened(&secret, 1, "token", &blob),
            Err(SealError::Corrupt {
                label: "token".into()
            })
        );
        assert!(opened(&super::tests::secret(), 1, "keys", &blob).is_err());
    }

    #[test]
    fn a_blob_of_an_earlier_build_is_named() {
        let mut blob = sealed(&secret(), "keys", b"top");
        blob[..8].copy_from_slice(MAGIC_OF_BEFORE);
        let error = opened(&secret(), 1, "keys", &blob).unwrap_err();
        assert!(error.to_string().contains("an earlier build"), "{error}");
    }

    #[test]
    fn two_blobs_of_one_secret_share_no_ciphertext() {
        let secret = secret();
        let [a, b] = [0, 0].map(|_| sealed(&secret, "keys", &[0; 64]));
        assert_eq!(a.len(), b.len());
        assert_ne!(a[a.len() - 80..], b[b.len() - 80..]);
    }

    proptest! {
        #[test]
        fn a_flipped_bit_or_a_cut_never_opens(at in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<bool>()) {
            let secret = secret();
            let mut blob = sealed(&secret, "keys", b"some key");
            let at = at.index(blob.len());
            if cut { blob.truncate(at) } else { blob[at] ^= 1 << bit }
            prop_assert!(opened(&secret, 1, "keys", &blob).is_err());
        }
    }
}
