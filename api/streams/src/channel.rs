//! The WebSocket channel protocols: several byte streams in one socket, each message
//! headed by its channel's number.
//!
//! `channel.k8s.io` (also without a name) and `v4.channel.k8s.io` carry bytes; their
//! `base64.` forms carry text with the number as a digit. `v5.channel.k8s.io` is v4
//! with a message that ends a channel (KEP-4006): number 255 and the channel.

use bytes::{BufMut as _, Bytes, BytesMut};

/// A command's standard input, from the client.
pub const STDIN: u8 = 0;
/// A command's standard output.
pub const STDOUT: u8 = 1;
/// A command's standard error.
pub const STDERR: u8 = 2;
/// How the command ended: a `Status` object.
pub const ERROR: u8 = 3;
/// The terminal's sizes, from the client.
pub const RESIZE: u8 = 4;

/// Heads the message that ends a channel, in v5.
const CLOSE: u8 = 255;

/// A channel protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// The name of the subprotocol; empty for a client that names none.
    pub name: &'static str,
    form: Form,
    closes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Binary,
    Base64,
}

/// All of them.
pub const PROTOCOLS: [Protocol; 6] = [
    protocol("", Form::Binary, false),
    protocol("channel.k8s.io", Form::Binary, false),
    protocol("base64.channel.k8s.io", Form::Base64, false),
    protocol("v4.channel.k8s.io", Form::Binary, false),
    protocol("v4.base64.channel.k8s.io", Form::Base64, false),
    protocol(crate::subprotocol::V5_CHANNEL, Form::Binary, true),
];

const fn protocol(name: &'static str, form: Form, closes: bool) -> Protocol {
    Protocol { name, form, closes }
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Bytes on a channel.
    Data {
        /// The channel.
        channel: u8,
        /// The bytes.
        data: Bytes,
    },
    /// The sender's direction of a channel is ended.
    Close {
        /// The channel.
        channel: u8,
    },
}

/// A message that is none of the protocol's: the socket is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// Not one channel after the head of a closing message.
    #[error("a closing message names {0} channels, it should name one")]
    Close(usize),
    /// Content that is not base64.
    #[error("a message is not base64")]
    Base64,
}

impl Protocol {
    /// The protocol of that name.
    pub fn named(name: &str) -> Option<Self> {
        PROTOCOLS.into_iter().find(|protocol| protocol.name == name)
    }

    /// Whether messages are binary; they are text otherwise.
    pub fn is_binary(self) -> bool {
        self.form == Form::Binary
    }

    /// Reads a message; nothing for an empty one.
    pub fn decode(self, message: &Bytes) -> Result<Option<Input>, ChannelError> {
        let Some((&head, _)) = message.split_first() else {
            return Ok(None);
        };
        let rest = message.slice(1..);
        if self.closes && head == CLOSE {
            return match *rest {
                [channel] => Ok(Some(Input::Close { channel })),
                _ => Err(ChannelError::Close(rest.len())),
            };
        }
        let (channel, data) = match self.form {
            Form::Binary => (head, rest),
            Form::Base64 => (
                head.wrapping_sub(b'0'),
                base64::decode(&rest).ok_or(ChannelError::Base64)?,
            ),
        };
        Ok(Some(Input::Data { channel, data }))
    }

    /// The message that carries these bytes on a channel.
    pub fn encode(self, channel: u8, data: &[u8]) -> Bytes {
        let mut message = BytesMut::with_capacity(1 + data.len());
        match self.form {
            Form::Binary => {
                message.put_u8(channel);
                message.put_slice(data);
            }
            Form::Base64 => {
                message.put_u8(b'0'.wrapping_add(channel));
                base64::encode(data, &mut message);
            }
        }
        message.freeze()
    }

    /// The message that ends a channel, where the protocol has one.
    pub fn encode_close(self, channel: u8) -> Option<Bytes> {
        self.closes
            .then(|| Bytes::copy_from_slice(&[CLOSE, channel]))
    }
}

/// The standard alphabet with padding (RFC 4648, section 4).
mod base64 {
    use bytes::{BufMut as _, Bytes, BytesMut};

    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    pub(super) fn encode(data: &[u8], output: &mut BytesMut) {
        for group in data.chunks(3) {
            let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or_default());
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            for place in 0..4 {
                let index = usize::try_from(bits >> (18 - 6 * place) & 0x3f).unwrap_or_default();
                let padding = place > group.len();
                output.put_u8(if padding { b'=' } else { ALPHABET[index] });
            }
        }
    }

    pub(super) fn decode(text: &[u8]) -> Option<Bytes> {
        if !text.len().is_multiple_of(4) {
            return None;
        }
        let mut output = BytesMut::with_capacity(text.len() / 4 * 3);
        let groups = text.len() / 4;
        for (index, group) in text.chunks(4).enumerate() {
            let padding = group.iter().rev().take_while(|byte| **byte == b'=').count();
            if padding > 2 || (padding > 0 && index + 1 < groups) {
                return None;
            }
            let mut bits = 0_u32;
            for byte in &group[..4 - padding] {
                bits = bits << 6 | value(*byte)?;
            }
            bits <<= 6 * padding;
            output.put_slice(&bits.to_be_bytes()[1..4 - padding]);
        }
        Some(output.freeze())
    }

    fn value(byte: u8) -> Option<u32> {
        let place = ALPHABET.iter().position(|other| *other == byte)?;
        u32::try_from(place).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_are_those_of_the_reference() {
        let raw = Protocol::named("channel.k8s.io").unwrap();
        assert_eq!(raw.encode(STDIN, b"foo\n"), &[0, 102, 111, 111, 10][..]);
        let text = Protocol::named("base64.channel.k8s.io").unwrap();
        assert_eq!(text.encode(STDIN, b"foo\n"), "0Zm9vCg==");
        let v5 = Protocol::named("v5.channel.k8s.io").unwrap();
        assert_eq!(v5.encode_close(STDIN).unwrap(), &[255, 0][..]);
        assert_eq!(raw.encode_close(STDIN), None);
        assert!(Protocol::named("v6.channel.k8s.io").is_none());
    }

    #[test]
    fn broken_messages_are_named() {
        let v5 = Protocol::named("v5.channel.k8s.io").unwrap();
        assert_eq!(v5.decode(&Bytes::new()), Ok(None));
        let none = Bytes::from_static(&[255]);
        assert_eq!(v5.decode(&none), Err(ChannelError::Close(0)));
        let two = Bytes::from_static(&[255, 0, 1]);
        assert_eq!(v5.decode(&two), Err(ChannelError::Close(2)));
        let text = Protocol::named("v4.base64.channel.k8s.io").unwrap();
        for broken in ["0a", "0====", "0Zg==Zg==", "0Z*==", "0Zm9vC==="] {
            let message = Bytes::from_static(broken.as_bytes());
            assert_eq!(text.decode(&message), Err(ChannelError::Base64), "{broken}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_it_was(
            channel in 0_u8..5,
            data in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            for protocol in PROTOCOLS {
                let message = protocol.encode(channel, &data);
                prop_assert!(protocol.is_binary() || message.is_ascii());
                let data = Bytes::from(data.clone());
                prop_assert_eq!(
                    protocol.decode(&message),
                    Ok(Some(Input::Data { channel, data }))
                );
                if let Some(message) = protocol.encode_close(channel) {
                    prop_assert_eq!(protocol.decode(&message), Ok(Some(Input::Close { channel })));
                }
            }
        }

        #[test]
        fn nothing_a_client_sends_harms(message in proptest::collection::vec(any::<u8>(), 0..50)) {
            for protocol in PROTOCOLS {
                let _ = protocol.decode(&Bytes::from(message.clone()));
            }
        }
    }
}
