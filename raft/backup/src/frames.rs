//! The sealing of an archive's frames, one after the other.
//!
//! A frame is last u8 ‖ length u32 BE ‖ ciphertext and tag, by AES-256-GCM under the
//! archive's own random key; nonce = 0 (4 bytes) ‖ frame number; associated data =
//! SHA-256 of everything before the first frame ‖ number ‖ last.
//!
//! Invariant: the key is drawn for one archive and the number counts up, so that no
//! nonce comes twice; frames can't be swapped, dropped or taken from another archive.

use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};
use bytes::{Buf as _, Bytes, BytesMut};

use crate::error::BackupError;
use crate::keys::FileKey;

/// The largest frame, tag included.
pub(crate) const FRAME_BYTES: usize = 1 << 20;
/// What a tag takes.
pub(crate) const TAG_BYTES: usize = 16;
/// Plain bytes of a full frame.
pub(crate) const PLAIN_BYTES: usize = FRAME_BYTES - TAG_BYTES;
/// Bytes before a frame's ciphertext.
pub(crate) const HEAD_BYTES: usize = 5;

/// Where a frame stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// More follow.
    Inner,
    /// The archive's last.
    Last,
}

impl Position {
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Inner => 0,
            Self::Last => 1,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Inner),
            1 => Some(Self::Last),
            _ => None,
        }
    }
}

/// Seals or opens frames in their order.
pub(crate) struct Frames {
    key: LessSafeKey,
    bound: [u8; 32],
    number: u64,
}

impl Frames {
    /// `bound`: SHA-256 of everything before the first frame.
    pub(crate) fn new(key: &FileKey, bound: [u8; 32]) -> Self {
        Self {
            key: key.aead(),
            bound,
            number: 0,
        }
    }

    /// The frame with its head, ready to be written.
    pub(crate) fn seal(
        &mut self,
        plain: &mut BytesMut,
        at: Position,
    ) -> Result<Bytes, BackupError> {
        let (nonce, aad) = self.next(at);
        let length = plain.len() + TAG_BYTES;
        let mut frame = BytesMut::with_capacity(HEAD_BYTES + length);
        frame.extend_from_slice(&[at.byte()]);
        let length = u32::try_from(length).map_err(|_| BackupError::Crypto("a frame too long"))?;
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(plain);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(aad), &mut frame[HEAD_BYTES..])
            .map_err(|_| BackupError::Crypto("sealing a frame"))?;
        frame.extend_from_slice(tag.as_ref());
        plain.clear();
        Ok(frame.freeze())
    }

    /// The plain bytes of a frame's ciphertext.
    pub(crate) fn open(&mut self, mut sealed: Vec<u8>, at: Position) -> Result<Bytes, BackupError> {
        let number = self.number;
        let (nonce, aad) = self.next(at);
        let opened = self.key.open_in_place(nonce, Aad::from(aad), &mut sealed);
        let plain = opened.map_err(|_| BackupError::Damaged { number })?.len();
        sealed.truncate(plain);
        Ok(sealed.into())
    }

    fn next(&mut self, at: Position) -> (Nonce, [u8; 41]) {
        let number = self.number.to_be_bytes();
        self.number += 1;
        let mut nonce = [0; NONCE_LEN];
        nonce[4..].copy_from_slice(&number);
        let mut aad = [0; 41];
        aad[..32].copy_from_slice(&self.bound);
        aad[32..40].copy_from_slice(&number);
        aad[40] = at.byte();
        (Nonce::assume_unique_for_key(nonce), aad)
    }
}

/// A frame's head: where it stands and how long its ciphertext is.
pub(crate) fn parse_head(head: [u8; HEAD_BYTES]) -> Option<(Position, usize)> {
    let at = Position::from_byte(head[0])?;
    let length = (&head[1..]).get_u32() as usize;
    (TAG_BYTES..=FRAME_BYTES)
        .contains(&length)
        .then_some((at, length))
}
