//! A monotonic counter in the TPM's memory (TPM_NT_COUNTER).
//!
//! It starts above every counter that this TPM has ever had, so that removing it and
//! making it again does not set it back (TPM 2.0 Library, part 1, "NV Counter").
//! Whoever owns the TPM can raise it, but never lower it: a value above the one
//! written down is no proof of a rollback, a value below is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nautilus_attest_protocol::{Counter, CounterError};
use zeroize::Zeroizing;

use super::connection::{Code, Connection, SHA256, SessionKind, StorageKey, Subject, name_of};
use super::session::CONTINUE;
use super::wire::{Body, Reader};
use super::{OWNER, Tpm, TpmError};

/// Where it lives: one of the indexes that the owner gives out.
const INDEX: u32 = 0x0180_6e61;
const VALUE_BYTES: u16 = 8;
/// AUTHWRITE, TPM_NT_COUNTER, AUTHREAD, NO_DA.
const ATTRIBUTES: u32 = 1 << 2 | 1 << 4 | 1 << 18 | 1 << 25;
/// TPMA_NV_WRITTEN.
const WRITTEN: u32 = 1 << 29;
/// TPM_RC_HANDLE of the first handle: there is no such index.
const NO_SUCH_INDEX: u32 = 0x18b;

/// The counter of one TPM. There is one in each: nodes that share a TPM share it.
pub struct TpmCounter {
    pub(super) tpm: Arc<Tpm>,
    highest: AtomicU64,
}

impl TpmCounter {
    /// The counter of `tpm`, made if there is none.
    pub fn open(tpm: Arc<Tpm>) -> Result<Self, CounterError> {
        let counter = Self {
            tpm,
            highest: AtomicU64::new(0),
        };
        let made =
            counter
                .tpm
                .with_storage_key(|connection, storage| match is_written(connection) {
                    Err(TpmError::Refused {
                        response: NO_SUCH_INDEX,
                        ..
                    }) => {
                        define(connection, storage)?;
                        increment(connection, storage)
                    }
                    Ok(false) => increment(connection, storage),
                    Ok(true) => Ok(()),
                    Err(error) => Err(error),
                });
        made.map_err(|error| counter.failed(&error))?;
        counter.read()?;
        Ok(counter)
    }

    fn name(&self) -> String {
        format!("{INDEX:#010x} of {}", self.tpm.name())
    }

    fn failed(&self, error: &TpmError) -> CounterError {
        let reason = error.to_string();
        let counter = self.name();
        match error {
            TpmError::Foreign(_) | TpmError::Forged => CounterError::Replaced { counter, reason },
            _ => CounterError::Unavailable { counter, reason },
        }
    }

    /// No value is less than one that was seen.
    fn checked(&self, value: u64) -> Result<u64, CounterError> {
        let highest = self.highest.fetch_max(value, Ordering::SeqCst);
        if value < highest {
            return Err(CounterError::Replaced {
                counter: self.name(),
                reason: format!("it stands at {value} after {highest}"),
            });
        }
        Ok(value)
    }
}

impl Counter for TpmCounter {
    fn read(&self) -> Result<u64, CounterError> {
        let value = self.tpm.with_storage_key(read);
        self.checked(value.map_err(|error| self.failed(&error))?)
    }

    fn increment(&self) -> Result<u64, CounterError> {
        let before = self.highest.load(Ordering::SeqCst);
        let value = self.tpm.with_storage_key(|connection, storage| {
            increment(connection, storage)?;
            read(connection, storage)
        });
        let value = self.checked(value.map_err(|error| self.failed(&error))?)?;
        if value <= before {
            return Err(CounterError::Replaced {
                counter: self.name(),
                reason: format!("it stands at {value} after {before} was incremented"),
            });
        }
        Ok(value)
    }
}

/// TPMS_NV_PUBLIC.
fn public(attributes: u32) -> Vec<u8> {
    Body::new()
        .u32(INDEX)
        .u16(SHA256)
        .u32(attributes)
        .sized(&[])
        .u16(VALUE_BYTES)
        .into_bytes()
}

/// Whether the index, which must be a counter of ours, was ever written.
fn is_written(connection: &mut Connection) -> Result<bool, TpmError> {
    let answer = connection.plain(Code::NvReadPublic, &INDEX.to_be_bytes())?;
    let found = Reader::new(&answer).sized()?;
    if found == public(ATTRIBUTES | WRITTEN) {
        Ok(true)
    } else if found == public(ATTRIBUTES) {
        Ok(false)
    } else {
        Err(TpmError::Foreign(
            "the index holds something else than our counter",
        ))
    }
}

fn define(connection: &mut Connection, storage: &StorageKey) -> Result<(), TpmError> {
    let parameters = Body::new().sized(&[]).sized(&public(ATTRIBUTES));
    let owner = Subject {
        handle: OWNER,
        name: &OWNER.to_be_bytes(),
    };
    in_session(
        connection,
        storage,
        Code::NvDefineSpace,
        &[owner],
        parameters.into_bytes(),
    )?;
    Ok(())
}

fn increment(connection: &mut Connection, storage: &StorageKey) -> Result<(), TpmError> {
    let written = is_written(connection)?;
    let name = name_of(&public(if written {
        ATTRIBUTES | WRITTEN
    } else {
        ATTRIBUTES
    }));
    let subjects = index_twice(&name);
    in_session(
        connection,
        storage,
        Code::NvIncrement,
        &subjects,
        Vec::new(),
    )?;
    Ok(())
}

fn read(connection: &mut Connection, storage: &StorageKey) -> Result<u64, TpmError> {
    let name = name_of(&public(ATTRIBUTES | WRITTEN));
    let parameters = Body::new().u16(VALUE_BYTES).u16(0);
    let answer = in_session(
        connection,
        storage,
        Code::NvRead,
        &index_twice(&name),
        parameters.into_bytes(),
    )?;
    let value = Reader::new(&answer).sized()?;
    let value = value.try_into();
    let value = value.map_err(|_| TpmError::Answer("a counter has 8 bytes"))?;
    Ok(u64::from_be_bytes(value))
}

/// The index authorizes what is done to it.
fn index_twice(name: &[u8]) -> [Subject<'_>; 2] {
    [(), ()].map(|()| Subject {
        handle: INDEX,
        name,
    })
}

fn in_session(
    connection: &mut Connection,
    storage: &StorageKey,
    code: Code,
    subjects: &[Subject<'_>],
    parameters: Vec<u8>,
) -> Result<Zeroizing<Vec<u8>>, TpmError> {
    let mut session = connection.start(SessionKind::Hmac, storage)?;
    let answer = connection.with_session(
        code,
        subjects,
        &mut session,
        CONTINUE,
        &mut Zeroizing::new(parameters),
    );
    connection.flush(session.handle);
    Ok(answer?.parameters)
}
