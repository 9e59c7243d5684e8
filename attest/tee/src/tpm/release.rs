//! Keys that a TPM releases only under the boot chain they were made under.
//!
//! A key is the data of a sealed object below the storage key, with a policy of
//! platform configuration registers and no password. Kept is `version (1), selection
//! of registers (1 + 3), name of the storage key, private part, public part`, the
//! last three each after its length.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::rand;
use nautilus_attest_protocol::{
    GeneratedKey, KEY_RELEASE_PURPOSE, KeyRelease, KeyReleaseError, ReleaseRequest,
};
use nautilus_attest_secret::{Secret, seal_to};
use zeroize::Zeroizing;

use super::connection::{
    Code, Connection, NO_ALGORITHM, SHA256, SessionKind, StorageKey, Subject, name_of,
};
use super::session::{AUDIT, CONTINUE, DECRYPT, ENCRYPT, Session};
use super::wire::{Body, Reader};
use super::{Tpm, TpmError};

/// The registers a key is bound to, when nothing is said: firmware and its
/// configuration, boot loader, Secure Boot's state, and the unified kernel image.
pub const DEFAULT_PCRS: &[u8] = &[0, 2, 4, 7, 11];

const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
/// Registers there are.
const REGISTERS: u8 = 24;
/// TPM_RC_POLICY_FAIL of session 1: the registers hold other values.
const POLICY_FAILED: u32 = 0x99d;

/// Platform configuration registers, of the bank of SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PcrSelection(u32);

/// Why a selection of registers is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PcrSelectionError {
    /// Not numbers of registers.
    #[error(
        "{0:?} is no register: write numbers from 0 to 23 with commas between, as in 0,2,4,7,11"
    )]
    Number(String),
    /// None: the key would be released to any boot chain.
    #[error("no register is named, so the key would be released to whatever boots")]
    Empty,
}

impl PcrSelection {
    /// The registers of these numbers.
    pub fn new(registers: &[u8]) -> Result<Self, PcrSelectionError> {
        let mut bits = 0;
        for register in registers {
            if *register >= REGISTERS {
                return Err(PcrSelectionError::Number(register.to_string()));
            }
            bits |= 1 << register;
        }
        if bits == 0 {
            return Err(PcrSelectionError::Empty);
        }
        Ok(Self(bits))
    }

    pub(super) fn encode(self) -> [u8; 3] {
        let [first, second, third, _] = self.0.to_le_bytes();
        [first, second, third]
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let [first, second, third] = *bytes else {
            return None;
        };
        let bits = u32::from_le_bytes([first, second, third, 0]);
        (bits != 0).then_some(Self(bits))
    }

    /// TPML_PCR_SELECTION.
    fn list(self) -> Vec<u8> {
        Body::new()
            .u32(1)
            .u16(SHA256)
            .u8(3)
            .raw(&self.encode())
            .into_bytes()
    }
}

impl fmt::Display for PcrSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chosen = (0..REGISTERS).filter(|register| self.0 & 1 << register != 0);
        let numbers: Vec<_> = chosen.map(|register| register.to_string()).collect();
        f.write_str(&numbers.join(","))
    }
}

impl FromStr for PcrSelection {
    type Err = PcrSelectionError;

    fn from_str(text: &str) -> Result<Self, PcrSelectionError> {
        let numbers: Result<Vec<u8>, _> = text
            .split(',')
            .map(str::trim)
            .filter(|number| !number.is_empty())
            .map(|number| {
                number
                    .parse()
                    .map_err(|_| PcrSelectionError::Number(number.to_owned()))
            })
            .collect();
        Self::new(&numbers?)
    }
}

/// Releases keys by a TPM. The evidence in a request is not judged: the TPM decides by
/// its own registers.
pub struct TpmRelease {
    pub(super) tpm: Arc<Tpm>,
    registers: PcrSelection,
}

impl TpmRelease {
    /// Makes keys that are bound to `registers`.
    pub fn new(tpm: Arc<Tpm>, registers: PcrSelection) -> Self {
        Self { tpm, registers }
    }

    fn failed(&self, registers: PcrSelection, error: &TpmError) -> KeyReleaseError {
        let service = self.tpm.name();
        match error {
            TpmError::Refused {
                response: POLICY_FAILED,
                ..
            } => KeyReleaseError::Refused {
                service,
                reason: format!(
                    "one of the registers {registers} has changed since the key was made: another \
                     firmware, boot loader or kernel was started"
                ),
            },
            TpmError::Refused { .. } | TpmError::Foreign(_) | TpmError::Forged => {
                KeyReleaseError::Refused {
                    service,
                    reason: error.to_string(),
                }
            }
            error => KeyReleaseError::Unavailable {
                service,
                reason: error.to_string(),
            },
        }
    }

    fn envelope(
        &self,
        key: &Secret<KEY_BYTES>,
        request: &ReleaseRequest<'_>,
    ) -> Result<Vec<u8>, KeyReleaseError> {
        seal_to(request.public_key, KEY_RELEASE_PURPOSE, key.expose()).map_err(|error| {
            KeyReleaseError::Refused {
                service: self.tpm.name(),
                reason: error.to_string(),
            }
        })
    }
}

impl KeyRelease for TpmRelease {
    fn name(&self) -> String {
        self.tpm.name()
    }

    fn generate(&self, request: &ReleaseRequest<'_>) -> Result<GeneratedKey, KeyReleaseError> {
        let key = Secret::try_fill(|key| rand::fill(key).map_err(|_| TpmError::Cryptography));
        let made = key.and_then(|key| {
            let kept = self.tpm.with_storage_key(|connection, storage| {
                let sealed = seal(connection, storage, self.registers, &key)?;
                Ok(Kept {
                    registers: self.registers,
                    storage: &storage.name,
                    private: &sealed.0,
                    public: &sealed.1,
                }
                .encode())
            })?;
            Ok((key, kept))
        });
        let (key, kept) = made.map_err(|error| self.failed(self.registers, &error))?;
        let envelope = self.envelope(&key, request)?;
        Ok(GeneratedKey { kept, envelope })
    }

    fn release(
        &self,
        kept: &[u8],
        request: &ReleaseRequest<'_>,
    ) -> Result<Vec<u8>, KeyReleaseError> {
        let kept = Kept::decode(kept).map_err(|error| self.failed(self.registers, &error))?;
        let key = self.tpm.with_storage_key(|connection, storage| {
            if storage.name != kept.storage {
                return Err(TpmError::Foreign("it is another TPM, or was cleared"));
            }
            unseal(connection, storage, &kept)
        });
        let key = key.map_err(|error| self.failed(kept.registers, &error))?;
        self.envelope(&key, request)
    }
}

/// What has to be shown to have a key again.
struct Kept<'a> {
    registers: PcrSelection,
    storage: &'a [u8],
    private: &'a [u8],
    public: &'a [u8],
}

impl<'a> Kept<'a> {
    fn encode(&self) -> Vec<u8> {
        Body::new()
            .u8(VERSION)
            .raw(&self.registers.encode())
            .sized(self.storage)
            .sized(self.private)
            .sized(self.public)
            .into_bytes()
    }

    fn decode(bytes: &'a [u8]) -> Result<Self, TpmError> {
        const NO_KEY: TpmError = TpmError::Answer("what was kept names no key");
        let mut reader = Reader::new(bytes);
        if reader.raw(1)?[0] != VERSION {
            return Err(NO_KEY);
        }
        let kept = Self {
            registers: PcrSelection::decode(reader.raw(3)?).ok_or(NO_KEY)?,
            storage: reader.sized()?,
            private: reader.sized()?,
            public: reader.sized()?,
        };
        if reader.rest().is_empty() {
            Ok(kept)
        } else {
            Err(NO_KEY)
        }
    }
}

/// Has the TPM seal `key` to the present values of `registers`: the private and the
/// public part of the object.
fn seal(
    connection: &mut Connection,
    storage: &StorageKey,
    registers: PcrSelection,
    key: &Secret<KEY_BYTES>,
) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
    /// TPM_ALG_KEYEDHASH.
    const KEYED_HASH: u16 = 0x0008;
    // fixedTPM, fixedParent, adminWithPolicy, noDA.
    const ATTRIBUTES: u32 = 1 << 1 | 1 << 4 | 1 << 7 | 1 << 10;
    let mut session = connection.start(SessionKind::Hmac, storage)?;
    let sealed = policy_now(connection, storage, &mut session, registers).and_then(|policy| {
        let public = Body::new()
            .u16(KEYED_HASH)
            .u16(SHA256)
            .u32(ATTRIBUTES)
            .sized(&policy)
            .u16(NO_ALGORITHM)
            .sized(&[]);
        let sensitive = Body::new().sized(&[]).sized(key.expose());
        let sensitive = Zeroizing::new(sensitive.into_bytes());
        let parameters = Body::new()
            .sized(&sensitive)
            .sized(&public.into_bytes())
            .sized(&[])
            .u32(0);
        let subject = Subject {
            handle: storage.handle,
            name: &storage.name,
        };
        let answer = connection.with_session(
            Code::Create,
            &[subject],
            &mut session,
            CONTINUE | DECRYPT | ENCRYPT,
            &mut Zeroizing::new(parameters.into_bytes()),
        )?;
        let mut reader = Reader::new(&answer.parameters);
        Ok((reader.sized()?.to_vec(), reader.sized()?.to_vec()))
    });
    connection.flush(session.handle);
    sealed
}

/// The policy that the present values of `registers` fulfil, as the TPM computes it.
fn policy_now(
    connection: &mut Connection,
    storage: &StorageKey,
    session: &mut Session,
    registers: PcrSelection,
) -> Result<Vec<u8>, TpmError> {
    let trial = connection.start(SessionKind::Trial, storage)?;
    let handle = trial.handle;
    let name = handle.to_be_bytes();
    let mut ask = |connection: &mut Connection, code, parameters: Vec<u8>| {
        let subject = Subject {
            handle,
            name: &name,
        };
        let mut parameters = Zeroizing::new(parameters);
        // Watched, so that nobody on the bus chooses registers or the digest for us.
        connection.with_session(code, &[subject], session, CONTINUE | AUDIT, &mut parameters)
    };
    let parameters = Body::new().sized(&[]).raw(&registers.list());
    let policy = ask(connection, Code::PolicyPcr, parameters.into_bytes())
        .and_then(|_| ask(connection, Code::PolicyGetDigest, Vec::new()))
        .and_then(|answer| Ok(Reader::new(&answer.parameters).sized()?.to_vec()));
    connection.flush(handle);
    policy
}

fn unseal(
    connection: &mut Connection,
    storage: &StorageKey,
    kept: &Kept<'_>,
) -> Result<Secret<KEY_BYTES>, TpmError> {
    let mut session = connection.start(SessionKind::Hmac, storage)?;
    let parameters = Body::new().sized(kept.private).sized(kept.public);
    let subject = Subject {
        handle: storage.handle,
        name: &storage.name,
    };
    let loaded = connection.with_session(
        Code::Load,
        &[subject],
        &mut session,
        CONTINUE,
        &mut Zeroizing::new(parameters.into_bytes()),
    );
    connection.flush(session.handle);
    let object = loaded?
        .handle
        .ok_or(TpmError::Answer("it loaded nothing"))?;
    let key = connection
        .start(SessionKind::Policy, storage)
        .and_then(|mut policy| {
            let key = unseal_loaded(connection, &mut policy, object, kept);
            connection.flush(policy.handle);
            key
        });
    connection.flush(object);
    key
}

fn unseal_loaded(
    connection: &mut Connection,
    policy: &mut Session,
    object: u32,
    kept: &Kept<'_>,
) -> Result<Secret<KEY_BYTES>, TpmError> {
    let parameters = Body::new()
        .u32(policy.handle)
        .sized(&[])
        .raw(&kept.registers.list());
    connection.plain(Code::PolicyPcr, &parameters.into_bytes())?;
    let subject = Subject {
        handle: object,
        name: &name_of(kept.public),
    };
    let answer = connection.with_session(
        Code::Unseal,
        &[subject],
        policy,
        CONTINUE | ENCRYPT,
        &mut Zeroizing::default(),
    )?;
    let data = Reader::new(&answer.parameters).sized()?;
    Secret::from_slice(data).ok_or(TpmError::Answer("the key has another length"))
}
