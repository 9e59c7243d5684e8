//! Answers of a watch stream on their way out, and their encoding.
//!
//! An answer with events is put together from the bytes of events that are encoded already:
//! field 11 of `WatchResponse`, its tag and length included, so that a thousand watchers of
//! a key copy the same bytes.

use bytes::{BufMut, Bytes, BytesMut};
use nautilus_machine::{Event, EventKind, WatchedEvent};
use prost::Message as _;
use prost::encoding::{encode_varint, encoded_len_varint};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic_prost::ProstCodec;

use crate::convert::key_value;
use crate::proto::etcdserverpb::{ResponseHeader, WatchRequest, WatchResponse};
use crate::proto::mvccpb;

/// Tags of `WatchResponse`'s fields: number and wire type.
const HEADER_TAG: u8 = 1 << 3 | 2;
const WATCH_ID_TAG: u8 = 2 << 3;
const FRAGMENT_TAG: u8 = 7 << 3;
const EVENTS_TAG: u8 = 11 << 3 | 2;

/// Bytes the encoder's buffer grows by.
const BUFFER_BYTES: usize = 8 * 1024;
/// Answers are collected up to so many bytes before they are handed to the connection.
const YIELD_BYTES: usize = 64 * 1024;

/// An answer.
#[derive(Debug)]
pub(crate) enum Frame {
    /// About the watch itself.
    Control(Box<WatchResponse>),
    /// Events of a watch.
    Events(EventsFrame),
}

/// Events of a watch.
#[derive(Debug)]
pub(crate) struct EventsFrame {
    pub(crate) header: ResponseHeader,
    pub(crate) watch_id: i64,
    /// More events of this answer follow.
    pub(crate) fragment: bool,
    /// Encoded by [`encode_event`].
    pub(crate) events: Vec<Bytes>,
}

impl EventsFrame {
    /// Bytes of the answer's encoding.
    fn encoded_len(&self) -> usize {
        let header = self.header.encoded_len();
        let head = 1 + encoded_len_varint(header as u64) + header;
        let id = match self.watch_id {
            0 => 0,
            id => 1 + encoded_len_varint(id.cast_unsigned()),
        };
        let fragment = if self.fragment { 2 } else { 0 };
        let events: usize = self.events.iter().map(Bytes::len).sum();
        head + id + fragment + events
    }

    fn encode(&self, buffer: &mut EncodeBuf<'_>) {
        buffer.reserve(self.encoded_len());
        buffer.put_u8(HEADER_TAG);
        encode_varint(self.header.encoded_len() as u64, buffer);
        self.header.encode_raw(buffer);
        if self.watch_id != 0 {
            buffer.put_u8(WATCH_ID_TAG);
            encode_varint(self.watch_id.cast_unsigned(), buffer);
        }
        if self.fragment {
            buffer.put_u8(FRAGMENT_TAG);
            buffer.put_u8(1);
        }
        for event in &self.events {
            buffer.put_slice(event);
        }
    }

    /// The same answer in pieces of less than `max_bytes` each, if one event allows it.
    pub(crate) fn fragments(self, max_bytes: usize) -> Vec<EventsFrame> {
        if self.events.len() < 2 || self.encoded_len() < max_bytes {
            return vec![self];
        }
        let piece = |events| EventsFrame {
            header: self.header,
            watch_id: self.watch_id,
            fragment: true,
            events,
        };
        let room = max_bytes.saturating_sub(piece(Vec::new()).encoded_len());
        let mut pieces = Vec::new();
        let mut events = Vec::new();
        let mut bytes = 0;
        for event in self.events {
            if !events.is_empty() && bytes + event.len() >= room {
                pieces.push(piece(std::mem::take(&mut events)));
                bytes = 0;
            }
            bytes += event.len();
            events.push(event);
        }
        let mut last = piece(events);
        last.fragment = false;
        pieces.push(last);
        pieces
    }
}

/// The bytes that stand for an event in an answer, shared by all who watch it.
pub(crate) fn shared_bytes(event: &WatchedEvent, previous: bool) -> Bytes {
    event.encoded(previous, |event| encode_event(event, previous))
}

fn encode_event(event: &Event, previous: bool) -> Bytes {
    let kind = match event.kind {
        EventKind::Put => mvccpb::event::EventType::Put,
        EventKind::Delete => mvccpb::event::EventType::Delete,
    };
    let prev_kv = event.prev.as_ref().filter(|_| previous);
    let message = mvccpb::Event {
        r#type: kind.into(),
        kv: Some(key_value(event.kv.clone())),
        prev_kv: prev_kv.map(|kv| key_value(kv.clone())),
    };
    let len = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(1 + encoded_len_varint(len as u64) + len);
    bytes.put_u8(EVENTS_TAG);
    encode_varint(len as u64, &mut bytes);
    message.encode_raw(&mut bytes);
    bytes.freeze()
}

/// Encodes [`Frame`]s.
#[derive(Debug, Default)]
pub(crate) struct FrameEncoder;

impl Encoder for FrameEncoder {
    type Item = Frame;
    type Error = Status;

    fn encode(&mut self, frame: Frame, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match frame {
            Frame::Control(response) => response
                .encode(buffer)
                .map_err(|error| Status::internal(format!("etcdserver: {error}")))?,
            Frame::Events(events) => events.encode(buffer),
        }
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

/// Reads etcd's requests and writes [`Frame`]s.
#[derive(Debug, Default)]
pub(crate) struct WatchCodec;

impl Codec for WatchCodec {
    type Encode = Frame;
    type Decode = WatchRequest;
    type Encoder = FrameEncoder;
    type Decoder = <ProstCodec<WatchResponse, WatchRequest> as Codec>::Decoder;

    fn encoder(&mut self) -> FrameEncoder {
        FrameEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<WatchResponse, WatchRequest>::raw_decoder(BufferSettings::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nautilus_machine::KeyValue;
    use proptest::prelude::*;

    fn event(key: &[u8], value: &[u8], revision: u64) -> Event {
        let kv = |revision| KeyValue {
            key: Bytes::copy_from_slice(key),
            value: Bytes::copy_from_slice(value),
            create_revision: 1,
            mod_revision: revision,
            version: revision,
            lease: None,
        };
        Event {
            kind: EventKind::Put,
            kv: kv(revision),
            prev: Some(kv(revision - 1)),
        }
    }

    fn encode(frame: &EventsFrame) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.put_u8(HEADER_TAG);
        encode_varint(frame.header.encoded_len() as u64, &mut bytes);
        frame.header.encode_raw(&mut bytes);
        if frame.watch_id != 0 {
            bytes.put_u8(WATCH_ID_TAG);
            encode_varint(frame.watch_id.cast_unsigned(), &mut bytes);
        }
        if frame.fragment {
            bytes.put_slice(&[FRAGMENT_TAG, 1]);
        }
        frame.events.iter().for_each(|event| bytes.put_slice(event));
        bytes
    }

    proptest! {
        #[test]
        fn an_answer_of_shared_bytes_reads_as_the_answer_it_stands_for(
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8),
            watch_id in any::<i64>(),
            previous in any::<bool>(),
            fragment in any::<bool>(),
        ) {
            let events: Vec<Event> = values
                .iter()
                .enumerate()
                .map(|(at, value)| event(b"key", value, at as u64 + 2))
                .collect();
            let frame = EventsFrame {
                header: ResponseHeader { cluster_id: 7, member_id: 3, revision: 9, raft_term: 2 },
                watch_id,
                fragment,
                events: events.iter().map(|event| encode_event(event, previous)).collect(),
            };
            let bytes = encode(&frame);
            prop_assert_eq!(bytes.len(), frame.encoded_len());
            let read = WatchResponse::decode(&bytes[..]).expect("a message");
            prop_assert_eq!(read.header, Some(frame.header));
            prop_assert_eq!((read.watch_id, read.fragment), (watch_id, fragment));
            prop_assert_eq!(read.events.len(), events.len());
            for (read, event) in read.events.iter().zip(&events) {
                prop_assert_eq!(read.kv.clone(), Some(key_value(event.kv.clone())));
                let prev = event.prev.clone().filter(|_| previous).map(key_value);
                prop_assert_eq!(read.prev_kv.clone(), prev);
            }
        }

        #[test]
        fn fragments_are_small_and_together_the_whole(
            sizes in prop::collection::vec(0usize..300, 1..20),
            max_bytes in 64usize..1_000,
        ) {
            let events: Vec<Bytes> = sizes
                .iter()
                .map(|size| encode_event(&event(b"key", &vec![1; *size], 5), false))
                .collect();
            let frame = EventsFrame {
                header: ResponseHeader { revision: 9, ..ResponseHeader::default() },
                watch_id: 4,
                fragment: false,
                events: events.clone(),
            };
            let pieces = frame.fragments(max_bytes);
            for piece in &pieces {
                prop_assert!(piece.encoded_len() < max_bytes || piece.events.len() == 1);
            }
            let (last, others) = pieces.split_last().expect("a piece");
            prop_assert!(!last.fragment && others.iter().all(|piece| piece.fragment));
            let together: Vec<Bytes> = pieces.into_iter().flat_map(|piece| piece.events).collect();
            prop_assert_eq!(together, events);
        }
    }
}
