//! A TPM 2.0, for TEEs that have no sealing key and no counter of their own: a key
//! released only to the boot chain it was made under, and a counter that only rises.
//!
//! Few commands are needed, so they are written here instead of linking the TSS's C
//! libraries into the TEE. Every command that matters runs in a session salted to the
//! TPM's storage key: the bus between TEE and TPM is the host's.
//!
//! What it can't do: a TPM proves nothing to us. A virtual one belongs to whoever
//! runs the machine, who then knows the key; and a host may put another TPM in its
//! place, whose answers look as good (a key of its own opens nothing that was sealed
//! before). A kind with a sealing key of its own never asks a TPM.
//!
//! Invariants: a secret parameter never crosses the bus in clear; an answer without
//! its session's HMAC is never used, but for public keys, which are compared with the
//! one kept at first; what is loaded is flushed again, errors or not.

mod connection;
mod counter;
mod release;
mod session;
#[cfg(test)]
mod tests;
mod wire;

use std::fs::OpenOptions;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use connection::{AES, CFB, Code, Connection, NO_ALGORITHM, Port, SHA256, StorageKey};
use session::DIGEST_BYTES;
use wire::{Body, Reader};

pub use counter::TpmCounter;
pub use release::{DEFAULT_PCRS, PcrSelection, PcrSelectionError, TpmRelease};

/// TPM_RH_OWNER, which is its own name.
const OWNER: u32 = 0x4000_0001;

/// Why a TPM did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum TpmError {
    /// Its device or socket.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It refused a command.
    #[error("TPM2_{command} ended with {response:#x}")]
    Refused {
        /// Which command.
        command: String,
        /// TPM_RC.
        response: u32,
    },
    /// It answered what no TPM answers.
    #[error("its answer is no TPM's: {0}")]
    Answer(&'static str),
    /// What it holds is not what it was given.
    #[error("{0}")]
    Foreign(&'static str),
    /// Somebody between us and it answered in its place.
    #[error("its answer is not authentic: somebody answers in its place")]
    Forged,
    /// The cryptographic library failed.
    #[error("the cryptographic library failed")]
    Cryptography,
}

/// One TPM. Commands run one at a time.
pub struct Tpm {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Tpm {
    /// The TPM at `path`: a device with a resource manager (`/dev/tpmrm0`), or a Unix
    /// socket that speaks raw commands.
    pub fn open(path: &Path) -> Result<Self, TpmError> {
        let is_socket = std::fs::metadata(path)?.file_type().is_socket();
        let port: Box<dyn Port> = if is_socket {
            Box::new(UnixStream::connect(path)?)
        } else {
            Box::new(OpenOptions::new().read(true).write(true).open(path)?)
        };
        Ok(Self {
            path: path.to_owned(),
            connection: Mutex::new(Connection(port)),
        })
    }

    fn name(&self) -> String {
        format!("the TPM {}", self.path.display())
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` with the storage key loaded, and unloads it.
    fn with_storage_key<T>(
        &self,
        work: impl FnOnce(&mut Connection, &StorageKey) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let mut connection = self.lock();
        let storage = load_storage_key(&mut connection)?;
        let done = work(&mut connection, &storage);
        connection.flush(storage.handle);
        done
    }
}

/// The owner's storage key on P-256: the same each time, out of the owner's seed (TCG
/// TPM v2.0 Provisioning Guidance, 7.5.1).
fn load_storage_key(connection: &mut Connection) -> Result<StorageKey, TpmError> {
    /// TPM_ALG_ECC, TPM_ECC_NIST_P256.
    const ECC: u16 = 0x0023;
    const P256: u16 = 0x0003;
    // fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, decrypt.
    const ATTRIBUTES: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 10 | 1 << 16 | 1 << 17;
    let public = Body::new()
        .u16(ECC)
        .u16(SHA256)
        .u32(ATTRIBUTES)
        .sized(&[])
        .u16(AES)
        .u16(128)
        .u16(CFB)
        .u16(NO_ALGORITHM)
        .u16(P256)
        .u16(NO_ALGORITHM)
        .sized(&[0; DIGEST_BYTES])
        .sized(&[0; DIGEST_BYTES]);
    let nothing_sensitive = Body::new().sized(&[]).sized(&[]);
    let parameters = Body::new()
        .sized(&nothing_sensitive.into_bytes())
        .sized(&public.into_bytes())
        .sized(&[])
        .u32(0);
    let answer =
        connection.with_empty_password(Code::CreatePrimary, &[OWNER], &parameters.into_bytes())?;
    let mut reader = Reader::new(&answer);
    let handle = reader.u32()?;
    let _length = reader.u32()?;
    let loaded = reader
        .sized()
        .and_then(|public| StorageKey::read(handle, public));
    if loaded.is_err() {
        connection.flush(handle);
    }
    loaded
}
