//! TPM 2.0 structures as bytes: big endian, sized buffers after their length in two
//! bytes (TPM 2.0 Library, part 2).

use super::TpmError;

/// The longest command or answer (the Linux driver's TPM_BUFSIZE).
pub(super) const MESSAGE_MAX_BYTES: usize = 4096;

/// Bytes being written.
#[derive(Default)]
pub(super) struct Body(Vec<u8>);

impl Body {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(super) fn u16(self, value: u16) -> Self {
        self.raw(&value.to_be_bytes())
    }

    pub(super) fn u32(self, value: u32) -> Self {
        self.raw(&value.to_be_bytes())
    }

    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A TPM2B.
    pub(super) fn sized(self, bytes: &[u8]) -> Self {
        let length = u16::try_from(bytes.len());
        assert!(length.is_ok(), "a buffer is shorter than a message");
        self.u16(length.unwrap_or_default()).raw(bytes)
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Bytes being read.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn raw(&mut self, length: usize) -> Result<&'a [u8], TpmError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(TpmError::Answer("it is shorter than its parts"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn u16(&mut self) -> Result<u16, TpmError> {
        let bytes = self.raw(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub(super) fn u32(&mut self) -> Result<u32, TpmError> {
        let bytes = self.raw(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A TPM2B's content.
    pub(super) fn sized(&mut self) -> Result<&'a [u8], TpmError> {
        let length = self.u16()?;
        self.raw(usize::from(length))
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }
}
