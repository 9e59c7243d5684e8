//! Commands to a TPM, one at a time, over its device or a socket.

use std::io::{Read, Write};

use aws_lc_rs::{digest, rand};
use zeroize::{Zeroize as _, Zeroizing};

use super::TpmError;
use super::session::{CONTINUE, DECRYPT, DIGEST_BYTES, ENCRYPT, Salt, Session};
use super::wire::{Body, MESSAGE_MAX_BYTES, Reader};

const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;
const HEADER_BYTES: usize = 10;
/// TPM_RH_NULL.
const NOBODY: u32 = 0x4000_0007;
/// TPM_ALG_SHA256, TPM_ALG_AES, TPM_ALG_CFB, TPM_ALG_NULL.
pub(super) const SHA256: u16 = 0x000b;
pub(super) const AES: u16 = 0x0006;
pub(super) const CFB: u16 = 0x0043;
pub(super) const NO_ALGORITHM: u16 = 0x0010;
/// TPM_RC_RETRY, TPM_RC_YIELDED, TPM_RC_TESTING: ask again.
const ASK_AGAIN: [u32; 3] = [0x922, 0x908, 0x90a];
const ATTEMPTS: u32 = 20;
const ATTEMPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// TPM_CC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    NvDefineSpace = 0x12a,
    CreatePrimary = 0x131,
    NvIncrement = 0x134,
    NvRead = 0x14e,
    Create = 0x153,
    Load = 0x157,
    Unseal = 0x15e,
    FlushContext = 0x165,
    NvReadPublic = 0x169,
    StartAuthSession = 0x176,
    PolicyPcr = 0x17f,
    PolicyGetDigest = 0x189,
}

/// TPM_SE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionKind {
    Hmac = 0,
    Policy = 1,
    Trial = 3,
}

/// What a command is about: the handle, and the name that is signed in its place.
pub(super) struct Subject<'a> {
    pub(super) handle: u32,
    pub(super) name: &'a [u8],
}

/// A storage key in the TPM.
pub(super) struct StorageKey {
    pub(super) handle: u32,
    pub(super) name: Vec<u8>,
    x: Vec<u8>,
    y: Vec<u8>,
}

impl StorageKey {
    /// The key of `handle`, by its public area (TPMT_PUBLIC of an ECC key).
    pub(super) fn read(handle: u32, public: &[u8]) -> Result<Self, TpmError> {
        let mut reader = Reader::new(public);
        // Type, hash, attributes; then the policy, which is empty.
        reader.raw(8)?;
        reader.sized()?;
        // Symmetric cipher (3), scheme, curve, key derivation.
        reader.raw(12)?;
        Ok(Self {
            handle,
            name: name_of(public),
            x: reader.sized()?.to_vec(),
            y: reader.sized()?.to_vec(),
        })
    }
}

/// The name of what has this public area.
pub(super) fn name_of(public: &[u8]) -> Vec<u8> {
    let hash = digest::digest(&digest::SHA256, public);
    Body::new().u16(SHA256).raw(hash.as_ref()).into_bytes()
}

/// A TPM's device or socket.
pub(super) trait Port: Read + Write + Send {}

impl<T: Read + Write + Send> Port for T {}

/// The way to one TPM.
pub(super) struct Connection(pub(super) Box<dyn Port>);

impl Connection {
    /// A command without authorization; its handles stand first in `body`.
    pub(super) fn plain(&mut self, code: Code, body: &[u8]) -> Result<Vec<u8>, TpmError> {
        let length = HEADER_BYTES + body.len();
        let message = Zeroizing::new(
            Body::new()
                .u16(NO_SESSIONS)
                .u32(length as u32)
                .u32(code as u32)
                .raw(body)
                .into_bytes(),
        );
        let answer = self.exchange(code, &message)?;
        Ok(answer[HEADER_BYTES..].to_vec())
    }

    /// A command that the empty password authorizes.
    pub(super) fn with_empty_password(
        &mut self,
        code: Code,
        handles: &[u32],
        parameters: &[u8],
    ) -> Result<Vec<u8>, TpmError> {
        const PASSWORD: u32 = 0x4000_0009;
        let authorization = Body::new().u32(PASSWORD).sized(&[]).u8(CONTINUE).sized(&[]);
        let message = assemble(code, handles, &authorization.into_bytes(), parameters);
        Ok(self.exchange(code, &message)?[HEADER_BYTES..].to_vec())
    }

    /// A command that `session` authorizes or watches; gives the answer's parameters,
    /// and its handle where there is one.
    pub(super) fn with_session(
        &mut self,
        code: Code,
        subjects: &[Subject<'_>],
        session: &mut Session,
        attributes: u8,
        parameters: &mut Zeroizing<Vec<u8>>,
    ) -> Result<Answer, TpmError> {
        session.turn()?;
        if attributes & DECRYPT != 0 {
            let (length, rest) = parameters
                .split_first_chunk_mut::<2>()
                .ok_or(TpmError::Cryptography)?;
            let length = usize::from(u16::from_be_bytes(*length));
            let secret = rest.get_mut(..length).ok_or(TpmError::Cryptography)?;
            session.encrypt(secret)?;
        }
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(&(code as u32).to_be_bytes());
        for subject in subjects {
            hash.update(subject.name);
        }
        hash.update(parameters);
        let authorization = session.authorization(hash.finish().as_ref(), attributes);
        let handles: Vec<u32> = subjects.iter().map(|subject| subject.handle).collect();
        let message = assemble(code, &handles, &authorization, parameters);
        let answer = self.exchange(code, &message)?;
        Answer::open(&answer, code, session, attributes)
    }

    /// Starts a salted session.
    pub(super) fn start(
        &mut self,
        kind: SessionKind,
        storage: &StorageKey,
    ) -> Result<Session, TpmError> {
        let salt = Salt::agree(&storage.x, &storage.y)?;
        let mut nonce = [0; DIGEST_BYTES];
        rand::fill(&mut nonce).map_err(|_| TpmError::Cryptography)?;
        let body = Body::new()
            .u32(storage.handle)
            .u32(NOBODY)
            .sized(&nonce)
            .sized(&salt.encrypted)
            .u8(kind as u8)
            .u16(AES)
            .u16(128)
            .u16(CFB)
            .u16(SHA256);
        let answer = self.plain(Code::StartAuthSession, &body.into_bytes())?;
        let mut reader = Reader::new(&answer);
        let handle = reader.u32()?;
        Ok(Session::new(handle, &salt, nonce, reader.sized()?))
    }

    /// Frees what `handle` names. What can't be freed, the resource manager frees when
    /// the connection ends.
    pub(super) fn flush(&mut self, handle: u32) {
        let _ = self.plain(Code::FlushContext, &handle.to_be_bytes());
    }

    fn exchange(&mut self, code: Code, message: &[u8]) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        for _ in 0..ATTEMPTS {
            let answer = self.once(message)?;
            match u32::from_be_bytes([answer[6], answer[7], answer[8], answer[9]]) {
                0 => return Ok(answer),
                again if ASK_AGAIN.contains(&again) => std::thread::sleep(ATTEMPT_PAUSE),
                response => {
                    return Err(TpmError::Refused {
                        command: format!("{code:?}"),
                        response,
                    });
                }
            }
        }
        Err(TpmError::Answer("it asks to be asked again, and again"))
    }

    fn once(&mut self, message: &[u8]) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        self.0.write_all(message)?;
        let mut answer = Zeroizing::new(vec![0; MESSAGE_MAX_BYTES]);
        let mut read = 0;
        loop {
            let count = self.0.read(&mut answer[read..])?;
            if count == 0 {
                return Err(TpmError::Answer("it ends early"));
            }
            read += count;
            if read < HEADER_BYTES {
                continue;
            }
            let whole = u32::from_be_bytes([answer[2], answer[3], answer[4], answer[5]]) as usize;
            if !(HEADER_BYTES..=MESSAGE_MAX_BYTES).contains(&whole) || read > whole {
                return Err(TpmError::Answer("its length is not its own"));
            }
            if read == whole {
                answer.truncate(whole);
                return Ok(answer);
            }
        }
    }
}

fn assemble(
    code: Code,
    handles: &[u32],
    authorization: &[u8],
    parameters: &[u8],
) -> Zeroizing<Vec<u8>> {
    let length = HEADER_BYTES + 4 * handles.len() + 4 + authorization.len() + parameters.len();
    let mut body = Body::new()
        .u16(SESSIONS)
        .u32(length as u32)
        .u32(code as u32);
    for handle in handles {
        body = body.u32(*handle);
    }
    let body = body
        .u32(authorization.len() as u32)
        .raw(authorization)
        .raw(parameters);
    Zeroizing::new(body.into_bytes())
}

/// An answer that its session vouched for.
pub(super) struct Answer {
    pub(super) handle: Option<u32>,
    pub(super) parameters: Zeroizing<Vec<u8>>,
}

impl Answer {
    fn open(
        message: &[u8],
        code: Code,
        session: &mut Session,
        attributes: u8,
    ) -> Result<Self, TpmError> {
        let mut reader = Reader::new(message);
        if reader.u16()? != SESSIONS {
            return Err(TpmError::Forged);
        }
        reader.raw(HEADER_BYTES - 2)?;
        let handle = match code {
            Code::Load => Some(reader.u32()?),
            _ => None,
        };
        let length = reader.u32()?;
        let parameters = reader.raw(length as usize)?;
        let mut authorization = Reader::new(reader.rest());
        let nonce = authorization.sized()?;
        let said = authorization.raw(1)?[0];
        let tag = authorization.sized()?;

        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(&[0; 4]);
        hash.update(&(code as u32).to_be_bytes());
        hash.update(parameters);
        session.verify(hash.finish().as_ref(), nonce, said, tag)?;
        let mut parameters = Zeroizing::new(parameters.to_vec());
        if attributes & ENCRYPT != 0 {
            let Some((length, rest)) = parameters.split_first_chunk_mut::<2>() else {
                return Err(TpmError::Answer("it is shorter than its parts"));
            };
            let length = usize::from(u16::from_be_bytes(*length));
            let secret = rest.get_mut(..length);
            let secret = secret.ok_or(TpmError::Answer("it is shorter than its parts"))?;
            if let Err(error) = session.decrypt(secret) {
                secret.zeroize();
                return Err(error);
            }
        }
        Ok(Self { handle, parameters })
    }
}
