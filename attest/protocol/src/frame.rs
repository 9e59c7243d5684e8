//! The frames of the attested handshake, and of the connection that comes of it, as
//! they travel inside TLS: after the handshake, what the two ends have to say to each
//! other goes in data frames, so that evidence can be renewed between them.
//!
//! A frame is one byte of kind, four bytes of length (big endian) and the body.
//! Each kind has its own limit, checked before a byte of the body is read.
//! Bodies are CBOR arrays in their canonical encoding, refused otherwise.

use std::fmt;

use minicbor::{Decoder, Encoder};

use crate::evidence::MAX_EVIDENCE_BYTES;
use crate::refused::Refused;

/// Version of the handshake and of the frames after it.
pub const HANDSHAKE_VERSION: u64 = 2;
/// Bytes before a frame's body.
pub const FRAME_HEADER_BYTES: usize = 5;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 32;
/// Longest cluster id, in bytes.
pub const MAX_CLUSTER_ID_BYTES: usize = 128;
/// Longest body of a hello, in bytes.
pub const MAX_HELLO_BYTES: usize = 256;
/// Longest reason in a verdict, in bytes; longer ones are cut.
pub const MAX_REASON_BYTES: usize = 1024;
/// Longest body of a verdict, in bytes.
pub const MAX_VERDICT_BYTES: usize = MAX_REASON_BYTES + 16;

/// Longest body of a challenge, in bytes.
pub const MAX_CHALLENGE_BYTES: usize = 64;
/// Longest body of a data frame, in bytes: with its header four full TLS records.
pub const MAX_DATA_BYTES: usize = 4 * 16_384 - FRAME_HEADER_BYTES;

/// Which end of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The end that dialed.
    Initiator,
    /// The end that accepted.
    Responder,
}

impl Role {
    /// The other end.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }

    /// The name, also as hashed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Initiator => "initiator",
            Self::Responder => "responder",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// A [`Hello`].
    Hello,
    /// Encoded [`crate::Evidence`].
    Evidence,
    /// A [`Verdict`].
    Verdict,
    /// A [`Challenge`], which asks for fresh evidence over a standing connection.
    Challenge,
    /// Bytes of whoever uses the connection, after the handshake.
    Data,
}

impl FrameKind {
    const ALL: [Self; 5] = [
        Self::Hello,
        Self::Evidence,
        Self::Verdict,
        Self::Challenge,
        Self::Data,
    ];

    fn code(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Hello => 1,
            Self::Evidence => 2,
            Self::Verdict => 3,
            Self::Challenge => 4,
        }
    }

    fn limit(self) -> usize {
        match self {
            Self::Hello => MAX_HELLO_BYTES,
            Self::Evidence => MAX_EVIDENCE_BYTES,
            Self::Verdict => MAX_VERDICT_BYTES,
            Self::Challenge => MAX_CHALLENGE_BYTES,
            Self::Data => MAX_DATA_BYTES,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Evidence => "evidence",
            Self::Verdict => "verdict",
            Self::Challenge => "challenge",
            Self::Data => "data",
        }
    }
}

impl fmt::Display for FrameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A received frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it holds.
    pub kind: FrameKind,
    /// Its body.
    pub body: Vec<u8>,
}

impl Frame {
    /// The whole frame's bytes.
    ///
    /// # Errors
    /// `TooLarge` when the body is past the kind's limit.
    pub fn encode(kind: FrameKind, body: &[u8]) -> Result<Vec<u8>, Refused> {
        let header = Self::header(kind, body.len())?;
        Ok([&header[..], body].concat())
    }

    /// The header of a body of `length` bytes.
    ///
    /// # Errors
    /// `TooLarge` when the body is past the kind's limit.
    pub fn header(kind: FrameKind, length: usize) -> Result<[u8; FRAME_HEADER_BYTES], Refused> {
        check_limit(kind, length)?;
        let length = u32::try_from(length).map_err(|_| too_large(kind, length))?;
        let [a, b, c, d] = length.to_be_bytes();
        Ok([kind.code(), a, b, c, d])
    }

    /// The kind and the body's length, from a header.
    ///
    /// # Errors
    /// `Malformed` for an unknown kind, `TooLarge` past the kind's limit.
    pub fn decode_header(header: [u8; FRAME_HEADER_BYTES]) -> Result<(FrameKind, usize), Refused> {
        let [code, length @ ..] = header;
        let kind = FrameKind::ALL
            .into_iter()
            .find(|kind| kind.code() == code)
            .ok_or_else(|| Refused::Malformed {
                what: "frame",
                reason: format!("unknown kind {code}"),
            })?;
        let length = u32::from_be_bytes(length) as usize;
        check_limit(kind, length)?;
        Ok((kind, length))
    }
}

fn check_limit(kind: FrameKind, length: usize) -> Result<(), Refused> {
    if length > kind.limit() {
        Err(too_large(kind, length))
    } else {
        Ok(())
    }
}

fn too_large(kind: FrameKind, size: usize) -> Refused {
    Refused::TooLarge {
        what: kind.name(),
        size,
        limit: kind.limit(),
    }
}

/// Who each end says it is. Nothing of it is believed before the evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// [`HANDSHAKE_VERSION`].
    pub version: u64,
    /// The sender's end.
    pub role: Role,
    /// The quorum it belongs to, at most [`MAX_CLUSTER_ID_BYTES`].
    pub cluster_id: String,
    /// Its id in it.
    pub node_id: u64,
    /// Fresh random bytes.
    pub nonce: [u8; NONCE_BYTES],
    /// The policy it judges by.
    pub policy_epoch: u64,
}

impl Hello {
    /// The frame's body.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::with_capacity(MAX_HELLO_BYTES));
        let written = encoder
            .array(6)
            .and_then(|e| e.u64(self.version))
            .and_then(|e| e.str(self.role.name()))
            .and_then(|e| e.str(&self.cluster_id))
            .and_then(|e| e.u64(self.node_id))
            .and_then(|e| e.bytes(&self.nonce))
            .and_then(|e| e.u64(self.policy_epoch))
            .is_ok();
        assert!(written, "writing CBOR to memory cannot fail");
        encoder.into_writer()
    }

    /// Reads a frame's body.
    pub fn decode(body: &[u8]) -> Result<Self, Refused> {
        let malformed = |reason: &dyn fmt::Display| Refused::Malformed {
            what: "hello",
            reason: reason.to_string(),
        };
        let cbor = |error: minicbor::decode::Error| malformed(&error);
        let mut decoder = Decoder::new(body);
        let length = decoder.array().map_err(cbor)?;
        let version = decoder.u64().map_err(cbor)?;
        if version != HANDSHAKE_VERSION {
            return Err(Refused::Version {
                seen: version,
                expected: HANDSHAKE_VERSION,
            });
        }
        if length != Some(6) {
            return Err(malformed(&"it has six fields"));
        }
        let role = match decoder.str().map_err(cbor)? {
            "initiator" => Role::Initiator,
            "responder" => Role::Responder,
            _ => return Err(malformed(&"unknown role")),
        };
        let cluster_id = decoder.str().map_err(cbor)?.to_owned();
        if cluster_id.len() > MAX_CLUSTER_ID_BYTES {
            let size = cluster_id.len();
            return Err(Refused::TooLarge {
                what: "cluster id",
                size,
                limit: MAX_CLUSTER_ID_BYTES,
            });
        }
        let node_id = decoder.u64().map_err(cbor)?;
        let nonce = decoder.bytes().map_err(cbor)?;
        let nonce = nonce
            .try_into()
            .map_err(|_| malformed(&"a nonce has 32 bytes"))?;
        let policy_epoch = decoder.u64().map_err(cbor)?;
        let hello = Self {
            version,
            role,
            cluster_id,
            node_id,
            nonce,
            policy_epoch,
        };
        if hello.encode() != body {
            return Err(malformed(&"not the canonical encoding, or bytes left over"));
        }
        Ok(hello)
    }
}

/// One end of a standing connection asks the other for fresh evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// Fresh random bytes.
    pub nonce: [u8; NONCE_BYTES],
    /// The policy the answer is judged by.
    pub policy_epoch: u64,
}

impl Challenge {
    /// The frame's body.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::with_capacity(MAX_CHALLENGE_BYTES));
        let written = encoder
            .array(2)
            .and_then(|e| e.bytes(&self.nonce))
            .and_then(|e| e.u64(self.policy_epoch))
            .is_ok();
        assert!(written, "writing CBOR to memory cannot fail");
        encoder.into_writer()
    }

    /// Reads a frame's body.
    pub fn decode(body: &[u8]) -> Result<Self, Refused> {
        let malformed = |reason: String| Refused::Malformed {
            what: "challenge",
            reason,
        };
        let cbor = |error: minicbor::decode::Error| malformed(error.to_string());
        let mut decoder = Decoder::new(body);
        if decoder.array().map_err(cbor)? != Some(2) {
            return Err(malformed("it has two fields".to_owned()));
        }
        let nonce = decoder.bytes().map_err(cbor)?;
        let nonce = nonce
            .try_into()
            .map_err(|_| malformed("a nonce has 32 bytes".to_owned()))?;
        let policy_epoch = decoder.u64().map_err(cbor)?;
        let challenge = Self {
            nonce,
            policy_epoch,
        };
        if challenge.encode() != body {
            return Err(malformed(
                "not the canonical encoding, or bytes left over".to_owned(),
            ));
        }
        Ok(challenge)
    }
}

/// How one end has judged the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Come in.
    Accepted,
    /// Stay out, and this is why.
    Refused {
        /// The text of a [`Refused`].
        reason: String,
    },
}

impl Verdict {
    /// The frame's body. A reason past [`MAX_REASON_BYTES`] is cut.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        let written = match self {
            Self::Accepted => encoder.array(1).and_then(|e| e.u64(0)).is_ok(),
            Self::Refused { reason } => encoder
                .array(2)
                .and_then(|e| e.u64(1))
                .and_then(|e| e.str(cut(reason)))
                .is_ok(),
        };
        assert!(written, "writing CBOR to memory cannot fail");
        encoder.into_writer()
    }

    /// Reads a frame's body. Control characters in the reason are escaped: the
    /// text goes into logs.
    pub fn decode(body: &[u8]) -> Result<Self, Refused> {
        let malformed = |reason: String| Refused::Malformed {
            what: "verdict",
            reason,
        };
        let cbor = |error: minicbor::decode::Error| malformed(error.to_string());
        let mut decoder = Decoder::new(body);
        let length = decoder.array().map_err(cbor)?;
        let verdict = match (length, decoder.u64().map_err(cbor)?) {
            (Some(1), 0) => Self::Accepted,
            (Some(2), 1) => {
                let reason = cut(decoder.str().map_err(cbor)?);
                Self::Refused {
                    reason: reason.to_owned(),
                }
            }
            _ => return Err(malformed("unknown verdict".to_owned())),
        };
        if verdict.encode() != body {
            return Err(malformed(
                "not the canonical encoding, or bytes left over".to_owned(),
            ));
        }
        Ok(match verdict {
            Self::Accepted => Self::Accepted,
            Self::Refused { reason } => Self::Refused {
                reason: printable(&reason),
            },
        })
    }
}

fn cut(reason: &str) -> &str {
    let mut end = reason.len().min(MAX_REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn any_hello()(
            initiator in any::<bool>(),
            cluster_id in "[a-zé]{0,60}",
            node_id in any::<u64>(),
            nonce in any::<[u8; 32]>(),
            policy_epoch in any::<u64>(),
        ) -> Hello {
            let role = if initiator { Role::Initiator } else { Role::Responder };
            Hello { version: HANDSHAKE_VERSION, role, cluster_id, node_id, nonce, policy_epoch }
        }
    }

    proptest! {
        #[test]
        fn a_hello_survives_its_encoding(hello in any_hello()) {
            let body = hello.encode();
            prop_assert!(body.len() <= MAX_HELLO_BYTES);
            prop_assert_eq!(Hello::decode(&body), Ok(hello));
        }

        #[test]
        fn a_flipped_byte_never_reads_as_the_same_hello(hello in any_hello(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut body = hello.encode();
            let at = at.index(body.len());
            body[at] ^= 1 << bit;
            prop_assert_ne!(Hello::decode(&body), Ok(hello));
        }

        #[test]
        fn a_truncated_hello_is_refused(hello in any_hello(), at in any::<prop::sample::Index>()) {
            let body = hello.encode();
            prop_assert!(Hello::decode(&body[..at.index(body.len())]).is_err());
        }

        #[test]
        fn any_reason_fits_a_verdict(reason in "\\PC{0,2000}") {
            let body = Verdict::Refused { reason: reason.clone() }.encode();
            prop_assert!(body.len() <= MAX_VERDICT_BYTES);
            let Ok(Verdict::Refused { reason: read }) = Verdict::decode(&body) else { panic!("not read back") };
            prop_assert!(reason.starts_with(&read));
        }

        #[test]
        fn arbitrary_bytes_never_make_a_decoder_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Hello::decode(&body);
            let _ = Verdict::decode(&body);
            let _ = Challenge::decode(&body);
        }
    }

    #[test]
    fn a_challenge_survives_its_encoding_and_nothing_else_reads_as_one() {
        let challenge = Challenge {
            nonce: [7; 32],
            policy_epoch: u64::MAX,
        };
        let mut body = challenge.encode();
        assert!(body.len() <= MAX_CHALLENGE_BYTES);
        assert_eq!(Challenge::decode(&body), Ok(challenge));
        body.push(0);
        assert!(Challenge::decode(&body).is_err());
    }

    #[test]
    fn a_header_with_a_length_past_its_kind_is_refused() {
        let refused = Frame::decode_header([1, 0, 0, 2, 0]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "hello of 512 bytes is larger than the limit of 256 bytes"
        );
        assert!(Frame::decode_header([9, 0, 0, 0, 1]).is_err());
    }

    #[test]
    fn control_characters_of_a_peer_do_not_reach_the_log() {
        let body = Verdict::Refused {
            reason: "a\u{1b}[31mb\nc".into(),
        }
        .encode();
        assert_eq!(
            Verdict::decode(&body),
            Ok(Verdict::Refused {
                reason: "a\u{fffd}[31mb\u{fffd}c".into()
            })
        );
    }
}
