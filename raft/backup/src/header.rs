//! What an archive says of itself to whoever holds it, without a key.
//!
//! Invariant: the header is bound to every frame and to the signature; it says
//! nothing that was not known when writing began.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nautilus_machine::Revision;
use serde::{Deserialize, Serialize};

use crate::error::BackupError;
use crate::keys::{FileKey, Opener, QuorumKey, Recipient, SignerKey, random};

/// The format that this program writes, and the only one it reads.
pub const ARCHIVE_FORMAT: u32 = 1;
/// Recipients of one archive, at most.
pub(crate) const RECIPIENTS_MAX: usize = 64;
/// Bytes of a header, at most.
pub(crate) const HEADER_BYTES_MAX: usize = 64 << 10;
const SALT_BYTES: usize = 32;

/// An archive's header, readable by everybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The format's number.
    pub format: u32,
    /// The quorum that it is of; for an import, where it came from.
    pub cluster: String,
    /// The revision of the key space in it.
    pub revision: Revision,
    /// Keys in it.
    pub keys: u64,
    /// Leases in it.
    pub leases: u64,
    /// When it was begun, by its maker's clock.
    pub created_unix_ms: u64,
    /// The version of the program that made it.
    pub program: String,
    /// Who signs it, in text.
    pub signer: String,
    /// Who can open it.
    pub sealed_to: Vec<SealedTo>,
}

/// One way to open an archive. Byte fields are base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum SealedTo {
    /// By a quorum with the same root key.
    Quorum {
        /// This archive's salt.
        salt: String,
        /// The archive's key, sealed.
        sealed_key: String,
    },
    /// By the owner of this public key (HPKE, RFC 9180: DHKEM(X25519, HKDF-SHA256),
    /// HKDF-SHA256, AES-256-GCM, base mode).
    Operator {
        /// The public key, in text.
        recipient: String,
        /// The encapsulated secret.
        encapsulated: String,
        /// The archive's key, sealed.
        sealed_key: String,
    },
}

impl SealedTo {
    pub(crate) fn quorum(quorum: &QuorumKey, key: &FileKey) -> Result<Self, BackupError> {
        let salt = random::<SALT_BYTES>()?;
        Ok(Self::Quorum {
            salt: BASE64.encode(salt),
            sealed_key: BASE64.encode(quorum.wrap(key, &salt)?),
        })
    }

    pub(crate) fn operator(recipient: &Recipient, key: &FileKey) -> Result<Self, BackupError> {
        let (encapsulated, sealed) = recipient.wrap(key)?;
        Ok(Self::Operator {
            recipient: recipient.to_string(),
            encapsulated: BASE64.encode(encapsulated),
            sealed_key: BASE64.encode(sealed),
        })
    }

    fn open(&self, opener: &Opener) -> Option<FileKey> {
        let bytes = |text: &str| BASE64.decode(text).ok();
        match (self, opener) {
            (Self::Quorum { salt, sealed_key }, Opener::Quorum(quorum)) => {
                quorum.unwrap(&bytes(salt)?, &bytes(sealed_key)?)
            }
            (
                Self::Operator {
                    encapsulated,
                    sealed_key,
                    ..
                },
                Opener::Operator(identity),
            ) => identity.unwrap(&bytes(encapsulated)?, &bytes(sealed_key)?),
            _ => None,
        }
    }

    /// For people: `the quorum`, or the recipient.
    pub fn describe(&self) -> String {
        match self {
            Self::Quorum { .. } => "the quorum".to_owned(),
            Self::Operator { recipient, .. } => recipient.clone(),
        }
    }
}

impl Header {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, BackupError> {
        let bytes = serde_json::to_vec(self);
        let bytes = bytes.map_err(|error| BackupError::Content(error.to_string()))?;
        if bytes.len() > HEADER_BYTES_MAX || self.sealed_to.len() > RECIPIENTS_MAX {
            return Err(BackupError::Content(format!(
                "more than {RECIPIENTS_MAX} recipients"
            )));
        }
        Ok(bytes)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BackupError> {
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let unknown = |error: serde_json::Error| BackupError::NotAnArchive(error.to_string());
        let versioned: Versioned = serde_json::from_slice(bytes).map_err(unknown)?;
        if versioned.format != ARCHIVE_FORMAT {
            return Err(BackupError::NotAnArchive(format!(
                "its format is {}, this program reads {ARCHIVE_FORMAT}",
                versioned.format
            )));
        }
        serde_json::from_slice(bytes).map_err(unknown)
    }

    pub(crate) fn signer_key(&self) -> Result<SignerKey, BackupError> {
        self.signer.parse()
    }

    pub(crate) fn open(&self, opener: &Opener) -> Result<FileKey, BackupError> {
        let opened = self.sealed_to.iter().find_map(|sealed| sealed.open(opener));
        opened.ok_or_else(|| BackupError::WrongKey {
            sealed_to: self.recipients().join(", "),
        })
    }

    /// To whom it is sealed, for people.
    pub fn recipients(&self) -> Vec<String> {
        self.sealed_to.iter().map(SealedTo::describe).collect()
    }
}
