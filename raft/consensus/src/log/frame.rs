//! A frame: a clear header that says where it belongs, and a sealed body that
//! opens only there.
//!
//! ```text
//! magic 4 | sealed length 4 | frame number 8 | first index 8 | sealed body | zeros to 8
//! ```
//! Little endian. The associated data is segment id, frame number, first index and
//! plain length, so that nothing of the header can be changed unseen.

use nautilus_store::{Aad, Envelope, Kind, SEAL_OVERHEAD_BYTES};

/// Bytes before the sealed body.
pub(crate) const HEADER_BYTES: usize = 24;
/// Bytes a frame may have at most; far above a batch of the largest proposals.
pub(crate) const MAX_FRAME_BYTES: usize = 64 << 20;
/// Frames start at multiples of this.
pub(crate) const ALIGN: usize = 8;

const MAGIC: [u8; 4] = *b"NLF1";
const POSITION_BYTES: usize = 28;

/// The clear part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes of the sealed body.
    pub(crate) length: u32,
    /// Counted over the whole log, from 1.
    pub(crate) number: u64,
    /// Index of the first entry inside, 0 for none.
    pub(crate) first_index: u64,
}

impl Header {
    /// `None` when the bytes are no header.
    pub(crate) fn parse(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (first_index, _) = rest.split_first_chunk::<8>()?;
        (*magic == MAGIC).then(|| Self {
            length: u32::from_le_bytes(*length),
            number: u64::from_le_bytes(*number),
            first_index: u64::from_le_bytes(*first_index),
        })
    }

    /// Bytes the frame takes on disk.
    pub(crate) fn span(&self) -> u64 {
        (HEADER_BYTES as u64 + u64::from(self.length)).next_multiple_of(ALIGN as u64)
    }

    fn position(&self, segment: u64, plain_length: u32) -> [u8; POSITION_BYTES] {
        let mut position = [0; POSITION_BYTES];
        position[..8].copy_from_slice(&segment.to_le_bytes());
        position[8..16].copy_from_slice(&self.number.to_le_bytes());
        position[16..24].copy_from_slice(&self.first_index.to_le_bytes());
        position[24..].copy_from_slice(&plain_length.to_le_bytes());
        position
    }
}

/// Bytes on disk of a frame with so many plain bytes.
pub(crate) fn frame_bytes(plain: usize) -> usize {
    (HEADER_BYTES + plain + SEAL_OVERHEAD_BYTES).next_multiple_of(ALIGN)
}

/// Appends the sealed frame to `out`; `header.length` is filled in.
pub(crate) fn seal(
    envelope: &Envelope,
    segment: u64,
    header: &Header,
    plain: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let plain_length = u32::try_from(plain.len()).map_err(|_| "too many bytes".to_owned())?;
    let position = header.position(segment, plain_length);
    let sealed = envelope.seal(
        Aad {
            kind: Kind::LogFrame,
            position: &position,
        },
        plain,
    );
    let length = u32::try_from(sealed.len()).map_err(|_| "too many bytes".to_owned())?;
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&header.number.to_le_bytes());
    out.extend_from_slice(&header.first_index.to_le_bytes());
    out.extend_from_slice(&sealed);
    out.resize(out.len().next_multiple_of(ALIGN), 0);
    Ok(())
}

/// The plain bytes of a frame that belongs to `segment`.
pub(crate) fn open(
    envelope: &Envelope,
    segment: u64,
    header: &Header,
    body: &[u8],
) -> Result<Vec<u8>, String> {
    let plain_length = body
        .len()
        .checked_sub(SEAL_OVERHEAD_BYTES)
        .ok_or("the frame is too short")?;
    let plain_length =
        u32::try_from(plain_length).map_err(|_| "the frame is too long".to_owned())?;
    let position = header.position(segment, plain_length);
    envelope
        .open(
            Aad {
                kind: Kind::LogFrame,
                position: &position,
            },
            body,
        )
        .map_err(|error| format!("frame {} does not open: {error}", header.number))
}
