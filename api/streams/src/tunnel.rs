//! The messages of a worker's outbound tunnel, one a WebSocket message, as the public
//! protocol of rancher/remotedialer has them: the side that was connected to asks the
//! other to open connections, and bytes of all of them share the socket.
//!
//! A message is its number, the connection's number, its type (each a zigzag varint, as
//! Go's `binary.PutVarint` writes it), for `Data` and `Connect` a deadline that nobody
//! reads any more, and the rest: of `Sync` the connections' numbers, eight bytes each, the
//! lowest first.

use bytes::{BufMut as _, Bytes, BytesMut};

const DATA: i64 = 1;
const CONNECT: i64 = 2;
const ERROR: i64 = 3;
const PAUSE: i64 = 6;
const RESUME: i64 = 7;
const SYNC: i64 = 8;
/// What stands where a deadline was, in milliseconds.
const DEADLINE_MS: i64 = 15_000;
/// Bytes of an error's text that are read.
const MAX_ERROR_BYTES: usize = 100;
/// Connections of one synchronization, at most.
const MAX_SYNC: usize = 65_536;
/// The text of an end in order.
pub const END: &str = "EOF";

/// What a message says of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tunnelled {
    /// Bytes of it.
    Data(Bytes),
    /// Open it, to `tcp` and `host:port`.
    Connect {
        /// `tcp`.
        protocol: String,
        /// `host:port`.
        address: String,
    },
    /// It is ended; [`END`] when all is well.
    Error(String),
    /// Send nothing on it for now.
    Pause,
    /// Go on sending.
    Resume,
    /// These connections live at the other side; others are gone.
    Sync(Vec<i64>),
    /// Of a type that does not concern this side.
    Other(i64),
}

/// A message of the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelMessage {
    /// Numbers the sender's messages.
    pub id: i64,
    /// Which connection.
    pub connection: i64,
    /// What it says.
    pub content: Tunnelled,
}

/// A message that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tunnel's message is malformed: {0}")]
pub struct TunnelError(&'static str);

impl TunnelMessage {
    /// Reads a WebSocket message.
    pub fn decode(message: &Bytes) -> Result<Self, TunnelError> {
        let mut rest = message.as_ref();
        let id = take_varint(&mut rest)?;
        let connection = take_varint(&mut rest)?;
        let kind = take_varint(&mut rest)?;
        if matches!(kind, DATA | CONNECT) {
            take_varint(&mut rest)?;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let content = match kind {
            DATA => Tunnelled::Data(message.slice(message.len() - rest.len()..)),
            CONNECT => {
                let (protocol, address) = std::str::from_utf8(rest)
                    .ok()
                    .and_then(|text| text.split_once('/'))
                    .ok_or(TunnelError("it names no address"))?;
                Tunnelled::Connect {
                    protocol: protocol.to_owned(),
                    address: address.to_owned(),
                }
            }
            ERROR => Tunnelled::Error(text(&rest[..rest.len().min(MAX_ERROR_BYTES)])),
            PAUSE => Tunnelled::Pause,
            RESUME => Tunnelled::Resume,
            SYNC => {
                let mut live = Vec::new();
                while let Some((number, tail)) = rest.split_first_chunk::<8>()
                    && live.len() < MAX_SYNC
                {
                    live.push(i64::from_le_bytes(*number));
                    rest = tail;
                }
                Tunnelled::Sync(live)
            }
            other => Tunnelled::Other(other),
        };
        Ok(Self {
            id,
            connection,
            content,
        })
    }

    /// The WebSocket message.
    pub fn encode(&self) -> Bytes {
        let (kind, rest): (i64, Bytes) = match &self.content {
            Tunnelled::Data(data) => (DATA, data.clone()),
            Tunnelled::Connect { protocol, address } => {
                (CONNECT, format!("{protocol}/{address}").into())
            }
            Tunnelled::Error(text) => (ERROR, text.clone().into()),
            Tunnelled::Pause => (PAUSE, Bytes::new()),
            Tunnelled::Resume => (RESUME, Bytes::new()),
            Tunnelled::Sync(live) => {
                let mut list = BytesMut::new();
                for connection in live {
                    list.put_i64_le(*connection);
                }
                (SYNC, list.freeze())
            }
            Tunnelled::Other(kind) => (*kind, Bytes::new()),
        };
        let mut message = BytesMut::with_capacity(40 + rest.len());
        for number in [self.id, self.connection, kind] {
            put_varint(&mut message, number);
        }
        if matches!(kind, DATA | CONNECT) {
            put_varint(&mut message, DEADLINE_MS);
        }
        message.put_slice(&rest);
        message.freeze()
    }
}

fn put_varint(output: &mut BytesMut, number: i64) {
    let mut left = (number.cast_unsigned() << 1) ^ (number >> 63).cast_unsigned();
    while left >= 0x80 {
        output.put_u8((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    output.put_u8(left as u8);
}

fn take_varint(rest: &mut &[u8]) -> Result<i64, TunnelError> {
    let mut number = 0_u64;
    for place in 0..10 {
        let (byte, tail) = rest
            .split_first()
            .ok_or(TunnelError("a number is cut short"))?;
        *rest = tail;
        if place == 9 && *byte > 1 {
            break;
        }
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
        }
    }
    Err(TunnelError("a number is too large"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_are_those_of_the_go_library() {
        let connect = TunnelMessage {
            id: 1,
            connection: 2,
            content: Tunnelled::Connect {
                protocol: "tcp".into(),
                address: "127.0.0.1:10250".into(),
            },
        };
        // 15000 is 30000 in zigzag, b0 ea 01 as a varint.
        let mut expected = vec![2, 4, 4, 0xb0, 0xea, 0x01];
        expected.extend_from_slice(b"tcp/127.0.0.1:10250");
        assert_eq!(connect.encode(), expected);
        let end = Bytes::from_static(&[1, 4, 6, b'E', b'O', b'F']);
        let read = TunnelMessage::decode(&end).unwrap();
        assert_eq!((read.id, read.connection), (-1, 2));
        assert_eq!(read.content, Tunnelled::Error(END.into()));
    }

    fn any_content() -> impl Strategy<Value = Tunnelled> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..100).prop_map(|d| Tunnelled::Data(d.into())),
            ("[a-z]{1,4}", "[a-z0-9.:]{1,20}")
                .prop_map(|(protocol, address)| { Tunnelled::Connect { protocol, address } }),
            "[ -~]{0,80}".prop_map(Tunnelled::Error),
            Just(Tunnelled::Pause),
            Just(Tunnelled::Resume),
            proptest::collection::vec(any::<i64>(), 0..9).prop_map(Tunnelled::Sync),
            (9_i64..99).prop_map(Tunnelled::Other),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_it_was(
            (id, connection) in any::<(i64, i64)>(),
            content in any_content(),
        ) {
            let message = TunnelMessage { id, connection, content };
            prop_assert_eq!(TunnelMessage::decode(&message.encode()), Ok(message));
        }

        #[test]
        fn nothing_a_worker_sends_harms(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = TunnelMessage::decode(&Bytes::from(bytes));
        }
    }
}
