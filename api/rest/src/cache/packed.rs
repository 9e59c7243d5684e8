//! Objects' bytes made small: LZ4 over a dictionary of other objects of their kind, which
//! are much alike. A pod takes a twentieth of its JSON, and is written out almost as fast
//! as it is copied.
//!
//! Invariants
//! - What is unpacked is what was packed, byte for byte.
//! - A dictionary never changes; it lives as long as a body that was packed by it, and a new
//!   one is made only after more bodies than the last one was made after.

use std::collections::VecDeque;
use std::sync::Arc;

use lz4_flex::block::{compress_with_dict, decompress_into_with_dict};

/// Bytes of a dictionary, at most.
const MAX_DICTIONARY_BYTES: usize = 8 * 1024;
/// Objects in it, at most.
const MAX_SAMPLES: usize = 4;
/// Shorter ones stay as they are.
const MIN_BYTES: usize = 256;
/// Bodies that the dictionary does little for, before it is made anew.
const FIRST_POOR: u32 = 64;

/// Bytes of one object.
pub(super) enum Body {
    Plain(Box<[u8]>),
    Packed {
        bytes: Box<[u8]>,
        /// Bytes of it unpacked.
        length: u32,
        dictionary: Arc<[u8]>,
    },
}

impl Body {
    /// Bytes of the object.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Packed { length, .. } => *length as usize,
        }
    }

    /// Bytes that are kept for it.
    pub(super) fn kept(&self) -> usize {
        match self {
            Self::Plain(bytes) | Self::Packed { bytes, .. } => bytes.len(),
        }
    }

    /// Appends the object.
    pub(super) fn append_to(&self, out: &mut Vec<u8>) {
        match self {
            Self::Plain(bytes) => out.extend_from_slice(bytes),
            Self::Packed {
                bytes,
                length,
                dictionary,
            } => {
                let start = out.len();
                out.resize(start + *length as usize, 0);
                let unpacked = decompress_into_with_dict(bytes, &mut out[start..], dictionary);
                let whole = unpacked.is_ok_and(|unpacked| unpacked == *length as usize);
                assert!(whole, "a body that was packed here unpacks");
            }
        }
    }
}

/// Packs the bodies of one kind.
pub(super) struct Packer {
    dictionary: Arc<[u8]>,
    /// What the next dictionary is made of, the newest last.
    samples: VecDeque<Box<[u8]>>,
    packed: u64,
    /// The dictionary is made anew after so many.
    renew_at: u64,
    /// Bodies in a row that took more than a third of their bytes.
    poor: u32,
    max_poor: u32,
}

impl Default for Packer {
    fn default() -> Self {
        Self {
            dictionary: Arc::default(),
            samples: VecDeque::new(),
            packed: 0,
            renew_at: 1,
            poor: 0,
            max_poor: FIRST_POOR,
        }
    }
}

impl Packer {
    pub(super) fn pack(&mut self, body: &[u8]) -> Body {
        let Ok(length) = u32::try_from(body.len()) else {
            return Body::Plain(body.into());
        };
        if body.len() < MIN_BYTES {
            return Body::Plain(body.into());
        }
        let packed = compress_with_dict(body, &self.dictionary);
        self.packed += 1;
        self.poor = if packed.len() * 3 > body.len() {
            self.poor + 1
        } else {
            0
        };
        let kept = if packed.len() * 4 < body.len() * 3 {
            Body::Packed {
                bytes: packed.into(),
                length,
                dictionary: self.dictionary.clone(),
            }
        } else {
            Body::Plain(body.into())
        };
        if self.packed >= self.renew_at {
            self.renew_at *= 4;
            self.renew(body);
        } else if self.poor >= self.max_poor {
            self.max_poor = self.max_poor.saturating_mul(2);
            self.poor = 0;
            self.renew(body);
        }
        kept
    }

    fn renew(&mut self, body: &[u8]) {
        let sample = &body[..body.len().min(MAX_DICTIONARY_BYTES)];
        self.samples.push_back(sample.into());
        let mut bytes: usize = self.samples.iter().map(|sample| sample.len()).sum();
        while self.samples.len() > MAX_SAMPLES || bytes > MAX_DICTIONARY_BYTES {
            let oldest = self.samples.pop_front();
            bytes -= oldest.map_or(bytes, |oldest| oldest.len());
        }
        let all: Vec<u8> = self.samples.iter().flatten().copied().collect();
        self.dictionary = all.into();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unpacked(body: &Body) -> Vec<u8> {
        let mut out = b"before".to_vec();
        body.append_to(&mut out);
        out.split_off(6)
    }

    #[test]
    fn what_is_alike_takes_little() {
        let mut packer = Packer::default();
        let object = |number: u32| {
            let text = "a field that all of them have,".repeat(60);
            format!("{{\"name\":\"object-{number}\",{text}}}").into_bytes()
        };
        let bodies: Vec<Body> = (0..100)
            .map(|number| packer.pack(&object(number)))
            .collect();
        for (number, body) in (0..).zip(&bodies) {
            assert_eq!(unpacked(body), object(number));
        }
        assert!(bodies[99].kept() * 10 < bodies[99].len());
    }

    proptest! {
        #[test]
        fn any_bytes_come_out_as_they_went_in(
            bodies in proptest::collection::vec(
                prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..2000),
                    "(abc|def|\"x\":1,){0,800}".prop_map(String::into_bytes),
                ],
                0..120,
            ),
        ) {
            let mut packer = Packer::default();
            let packed: Vec<Body> = bodies.iter().map(|body| packer.pack(body)).collect();
            for (body, packed) in bodies.iter().zip(&packed) {
                prop_assert_eq!(&unpacked(packed), body);
                prop_assert_eq!(packed.len(), body.len());
            }
        }
    }
}
