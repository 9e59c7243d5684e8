//! Header blocks: names and values, deflated against the draft's dictionary, one
//! stream of deflate for all blocks of one direction.
//!
//! The dictionary is set by running it through first: as a stored block into the
//! inflater, and out of the deflater with what comes of it thrown away. Either is then
//! in the state that a preset dictionary asks for (RFC 1950, section 2.2).

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary::{CHECKSUM, LENGTH, dictionary};
use super::error::SpdyError;
use super::{MAX_HEADER_BYTES, MAX_HEADERS};

/// Headers in their order: names in lower case, values as they came. A name that came
/// with several values stands once for each.
pub type Headers = Vec<(String, String)>;

/// zlib's head for a window of 32 KiB and a preset dictionary.
const ZLIB_HEAD: [u8; 2] = [0x78, 0xbb];
/// The head and the dictionary's checksum.
const HEAD_BYTES: usize = 6;
/// Separates the values of one name.
const SEPARATOR: char = '\0';

/// Reads one direction's blocks.
pub(super) struct BlockReader {
    inflate: Decompress,
    /// The stream's head was read.
    begun: bool,
}

impl BlockReader {
    pub(super) fn new() -> Self {
        Self {
            inflate: Decompress::new(false),
            begun: false,
        }
    }

    pub(super) fn read(&mut self, block: &[u8]) -> Result<Headers, SpdyError> {
        let block = if self.begun {
            block
        } else {
            self.begin(block)?
        };
        parse(&self.inflate(block)?)
    }

    /// Checks the stream's head and sets the dictionary; what follows the head.
    fn begin<'a>(&mut self, block: &'a [u8]) -> Result<&'a [u8], SpdyError> {
        let malformed = SpdyError::HeaderBlock;
        let (head, rest) = block
            .split_first_chunk::<HEAD_BYTES>()
            .ok_or(malformed("its stream has no head"))?;
        let [method, flags, sum @ ..] = *head;
        let sound = u16::from_be_bytes([method, flags]) % 31 == 0 && method & 0x0f == 8;
        if !sound || flags & 0x20 == 0 || u32::from_be_bytes(sum) != CHECKSUM {
            return Err(malformed("its stream is not of SPDY/3's dictionary"));
        }
        let words = dictionary();
        let mut stored = vec![0_u8];
        let length = u16::try_from(words.len()).unwrap_or_default();
        stored.extend_from_slice(&length.to_le_bytes());
        stored.extend_from_slice(&(!length).to_le_bytes());
        stored.extend_from_slice(&words);
        let set = self.inflate(&stored)?;
        assert_eq!(set.len(), LENGTH, "the dictionary came out of the inflater");
        self.begun = true;
        Ok(rest)
    }

    fn inflate(&mut self, mut input: &[u8]) -> Result<Vec<u8>, SpdyError> {
        let mut output = Vec::with_capacity(1_024);
        let mut piece = [0_u8; 2_048];
        loop {
            let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(input, &mut piece, FlushDecompress::Sync)
                .map_err(|_| SpdyError::HeaderBlock("it does not inflate"))?;
            let read = usize::try_from(self.inflate.total_in() - read).unwrap_or(usize::MAX);
            let written = usize::try_from(self.inflate.total_out() - written).unwrap_or(0);
            input = input.get(read..).unwrap_or_default();
            output.extend_from_slice(&piece[..written]);
            if output.len() > MAX_HEADER_BYTES {
                return Err(SpdyError::HeaderBlockTooLarge {
                    limit: MAX_HEADER_BYTES,
                });
            }
            if matches!(status, Status::StreamEnd) {
                return Err(SpdyError::HeaderBlock("its stream ends"));
            }
            if input.is_empty() && written < piece.len() {
                return Ok(output);
            }
            if read == 0 && written == 0 {
                return Err(SpdyError::HeaderBlock("it does not inflate"));
            }
        }
    }
}

fn parse(block: &[u8]) -> Result<Headers, SpdyError> {
    let mut rest = block;
    let count = take_length(&mut rest)?;
    if count > MAX_HEADERS {
        return Err(SpdyError::TooManyHeaders {
            count,
            limit: MAX_HEADERS,
        });
    }
    let mut headers = Headers::with_capacity(count);
    for _ in 0..count {
        let name = take_text(&mut rest)?.to_lowercase();
        if name.is_empty() {
            return Err(SpdyError::HeaderBlock("a name is empty"));
        }
        if headers.iter().any(|(other, _)| *other == name) {
            return Err(SpdyError::HeaderBlock("a name stands twice"));
        }
        for value in take_text(&mut rest)?.split(SEPARATOR) {
            if headers.len() == MAX_HEADERS {
                return Err(SpdyError::TooManyHeaders {
                    count: headers.len() + 1,
                    limit: MAX_HEADERS,
                });
            }
            headers.push((name.clone(), value.to_owned()));
        }
    }
    if rest.is_empty() {
        Ok(headers)
    } else {
        Err(SpdyError::HeaderBlock("more stands in it than its headers"))
    }
}

fn take_length(rest: &mut &[u8]) -> Result<usize, SpdyError> {
    let (length, tail) = rest
        .split_first_chunk::<4>()
        .ok_or(SpdyError::HeaderBlock("it is cut short"))?;
    *rest = tail;
    usize::try_from(u32::from_be_bytes(*length))
        .map_err(|_| SpdyError::HeaderBlock("it is cut short"))
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, SpdyError> {
    let length = take_length(rest)?;
    let (text, tail) = rest
        .split_at_checked(length)
        .ok_or(SpdyError::HeaderBlock("it is cut short"))?;
    *rest = tail;
    std::str::from_utf8(text).map_err(|_| SpdyError::HeaderBlock("it is not UTF-8"))
}

/// Writes one direction's blocks.
pub(super) struct BlockWriter {
    deflate: Compress,
    begun: bool,
}

impl BlockWriter {
    pub(super) fn new() -> Self {
        Self {
            deflate: Compress::new(Compression::fast(), false),
            begun: false,
        }
    }

    /// The block of these headers, or nothing when they are larger than the limits.
    pub(super) fn write(&mut self, headers: &[(String, String)]) -> Option<Vec<u8>> {
        let plain = plain_block(headers)?;
        let mut block = Vec::new();
        if !self.begun {
            self.deflate(&dictionary());
            block.extend_from_slice(&ZLIB_HEAD);
            block.extend_from_slice(&CHECKSUM.to_be_bytes());
            self.begun = true;
        }
        block.extend_from_slice(&self.deflate(&plain));
        Some(block)
    }

    fn deflate(&mut self, mut input: &[u8]) -> Vec<u8> {
        let mut output = Vec::with_capacity(input.len() + 64);
        let mut piece = [0_u8; 2_048];
        loop {
            let (read, written) = (self.deflate.total_in(), self.deflate.total_out());
            // Fails only after the stream was ended, which nothing here does.
            let status = self
                .deflate
                .compress(input, &mut piece, FlushCompress::Sync)
                .unwrap_or(Status::BufError);
            let read = usize::try_from(self.deflate.total_in() - read).unwrap_or(usize::MAX);
            let written = usize::try_from(self.deflate.total_out() - written).unwrap_or(0);
            input = input.get(read..).unwrap_or_default();
            output.extend_from_slice(&piece[..written]);
            let full = written == piece.len();
            if (input.is_empty() && !full) || matches!(status, Status::BufError) {
                assert!(input.is_empty(), "the deflater took all of a block");
                return output;
            }
        }
    }
}

fn plain_block(headers: &[(String, String)]) -> Option<Vec<u8>> {
    let mut names: Vec<(String, String)> = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        let name = name.to_lowercase();
        match names.iter_mut().find(|(other, _)| *other == name) {
            Some((_, values)) => {
                values.push(SEPARATOR);
                values.push_str(value);
            }
            None => names.push((name, value.clone())),
        }
    }
    let mut block = Vec::new();
    let length = |count: usize| u32::try_from(count).ok().map(u32::to_be_bytes);
    block.extend_from_slice(&length(names.len())?);
    for (name, values) in &names {
        for text in [name, values] {
            block.extend_from_slice(&length(text.len())?);
            block.extend_from_slice(text.as_bytes());
        }
    }
    (headers.len() <= MAX_HEADERS && block.len() <= MAX_HEADER_BYTES).then_some(block)
}
