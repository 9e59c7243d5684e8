//! Writing an archive.
//!
//! magic (8 bytes) ‖ header length u32 BE ‖ header (JSON) ‖ frames ‖ signature
//! (64 bytes, Ed25519 over a label and the SHA-256 of everything before it).
//!
//! Invariant: the file is whole only with its signature, which comes last; whatever
//! a failure leaves behind is refused when read.

use std::io::Write;

use aws_lc_rs::digest;
use bytes::{BufMut as _, BytesMut};
use nautilus_machine::Revision;

use crate::error::BackupError;
use crate::frames::{Frames, PLAIN_BYTES, Position};
use crate::header::{ARCHIVE_FORMAT, Header, RECIPIENTS_MAX, SealedTo};
use crate::keys::{FileKey, QuorumKey, Recipient, Signing};
use crate::record::{ContentHash, KIND_END, Record, Summary};

pub(crate) const MAGIC: &[u8; 8] = b"NAUTARC1";
const SIGNED_LABEL: &[u8] = b"nautilus archive v1";

/// To whom an archive is sealed and by whom it is signed.
pub struct Seal<'a> {
    /// Operators.
    pub recipients: &'a [Recipient],
    /// The quorum, if it is to be able to open it.
    pub quorum: Option<&'a QuorumKey>,
    /// The signer.
    pub signing: &'a Signing,
}

/// What an archive is of, known before the first key.
#[derive(Debug, Clone)]
pub struct ArchiveInfo {
    /// The quorum.
    pub cluster: String,
    /// The revision of its content.
    pub revision: Revision,
    /// Keys to come.
    pub keys: u64,
    /// Leases to come.
    pub leases: u64,
    /// When, by the maker's clock.
    pub created_unix_ms: u64,
}

/// Writes one archive, record by record.
pub struct ArchiveWriter<'a, W: Write> {
    sink: W,
    signing: &'a Signing,
    whole: digest::Context,
    frames: Frames,
    pending: BytesMut,
    content: ContentHash,
    expected: (u64, u64),
}

impl<'a, W: Write> ArchiveWriter<'a, W> {
    /// Writes the header.
    pub fn begin(mut sink: W, seal: &Seal<'a>, info: ArchiveInfo) -> Result<Self, BackupError> {
        let key = FileKey::generate()?;
        let mut sealed_to = Vec::new();
        if seal.recipients.len() > RECIPIENTS_MAX {
            return Err(BackupError::Content(format!(
                "more than {RECIPIENTS_MAX} recipients"
            )));
        }
        for recipient in seal.recipients {
            sealed_to.push(SealedTo::operator(recipient, &key)?);
        }
        if let Some(quorum) = seal.quorum {
            sealed_to.push(SealedTo::quorum(quorum, &key)?);
        }
        if sealed_to.is_empty() {
            return Err(BackupError::Content("nobody could open it".into()));
        }
        let expected = (info.keys, info.leases);
        let header = Header {
            format: ARCHIVE_FORMAT,
            cluster: info.cluster,
            revision: info.revision,
            keys: info.keys,
            leases: info.leases,
            created_unix_ms: info.created_unix_ms,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            signer: seal.signing.public().to_string(),
            sealed_to,
        };
        let clear = encode_clear(&header)?;
        let mut whole = digest::Context::new(&digest::SHA256);
        whole.update(&clear);
        let frames = Frames::new(&key, finish(whole.clone()));
        let written = sink.write_all(&clear);
        written.map_err(BackupError::io("write the archive"))?;
        Ok(Self {
            sink,
            signing: seal.signing,
            whole,
            frames,
            pending: BytesMut::with_capacity(PLAIN_BYTES),
            content: ContentHash::default(),
            expected,
        })
    }

    /// Adds a record.
    pub fn add(&mut self, record: &Record) -> Result<(), BackupError> {
        self.content.add(record);
        record.encode(&mut self.pending);
        while self.pending.len() > PLAIN_BYTES {
            let mut full = self.pending.split_to(PLAIN_BYTES);
            self.frame(&mut full, Position::Inner)?;
        }
        Ok(())
    }

    /// Ends the archive: the last frame and the signature.
    pub fn finish(mut self) -> Result<(W, Summary), BackupError> {
        let summary = std::mem::take(&mut self.content).finish();
        if (summary.keys, summary.leases) != self.expected {
            return Err(BackupError::Content(format!(
                "{} keys and {} leases came where {} and {} were announced",
                summary.keys, summary.leases, self.expected.0, self.expected.1
            )));
        }
        let mut last = std::mem::take(&mut self.pending);
        last.put_u8(KIND_END);
        last.put_u64(summary.keys);
        last.put_u64(summary.leases);
        last.put_slice(&summary.hash);
        while last.len() > PLAIN_BYTES {
            let mut full = last.split_to(PLAIN_BYTES);
            self.frame(&mut full, Position::Inner)?;
        }
        self.frame(&mut last, Position::Last)?;
        let signature = self.signing.sign(&signed(finish(self.whole.clone())));
        self.write_out(&signature)?;
        let flushed = self.sink.flush();
        flushed.map_err(BackupError::io("write the archive"))?;
        Ok((self.sink, summary))
    }

    fn frame(&mut self, plain: &mut BytesMut, at: Position) -> Result<(), BackupError> {
        let frame = self.frames.seal(plain, at)?;
        self.whole.update(&frame);
        self.write_out(&frame)
    }

    fn write_out(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        let written = self.sink.write_all(bytes);
        written.map_err(BackupError::io("write the archive"))
    }
}

fn encode_clear(header: &Header) -> Result<Vec<u8>, BackupError> {
    let header = header.encode()?;
    let length = u32::try_from(header.len()).unwrap_or(u32::MAX);
    let mut clear = Vec::with_capacity(MAGIC.len() + 4 + header.len());
    clear.extend_from_slice(MAGIC);
    clear.extend_from_slice(&length.to_be_bytes());
    clear.extend_from_slice(&header);
    Ok(clear)
}

/// What is signed.
pub(crate) fn signed(hash: [u8; 32]) -> Vec<u8> {
    [SIGNED_LABEL, &hash].concat()
}

pub(crate) fn finish(context: digest::Context) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}
