//! Two sessions face to face, and one before a hostile peer.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;

fn headers(pairs: &[(&str, &str)]) -> Headers {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Hands one side's output to the other in pieces; the other's events.
fn deliver(from: &mut Session, to: &mut Session, piece: usize) -> Vec<Event> {
    let mut events = Vec::new();
    for bytes in from.take_output().chunks(piece) {
        to.receive(bytes);
        while let Some(event) = to.next_event().expect("a sound peer") {
            events.push(event);
        }
    }
    events
}

#[test]
fn a_stream_is_asked_for_accepted_used_and_ended() {
    let (mut client, mut server) = (Session::new(Role::Client), Session::new(Role::Server));
    let stream = client
        .open(headers(&[("streamType", "stdin"), ("port", "80")]))
        .unwrap();
    assert_eq!(
        deliver(&mut client, &mut server, 7),
        [Event::Opened {
            stream,
            headers: headers(&[("streamtype", "stdin"), ("port", "80")]),
            finished: false,
        }]
    );
    server.reply(stream, Headers::new()).unwrap();
    client.send(stream, Bytes::from_static(b"to you")).unwrap();
    client.finish(stream).unwrap();
    assert_eq!(
        client.send(stream, Bytes::from_static(b"more")),
        Err(StreamError::Finished(stream))
    );
    let events = deliver(&mut client, &mut server, 1_000);
    assert_eq!(events.len(), 2, "{events:?}");
    server.send(stream, Bytes::from_static(b"to me")).unwrap();
    server.finish(stream).unwrap();
    assert_eq!(server.open_streams(), 0);
    let events = deliver(&mut server, &mut client, 1_000);
    let ended = Event::Data {
        stream,
        data: Bytes::new(),
        finished: true,
    };
    assert_eq!(events.last(), Some(&ended));
    assert_eq!(client.open_streams(), 0);
}

#[test]
fn pings_come_back_to_who_sent_them_only() {
    let (mut client, mut server) = (Session::new(Role::Client), Session::new(Role::Server));
    let (odd, even) = (client.ping(), server.ping());
    assert_eq!((odd & 1, even & 1), (1, 0));
    assert_eq!(deliver(&mut client, &mut server, 100), []);
    assert_eq!(
        deliver(&mut server, &mut client, 100),
        [Event::Pong(odd)],
        "the server's own ping stands before its echo"
    );
    assert_eq!(deliver(&mut client, &mut server, 100), [Event::Pong(even)]);
}

#[test]
fn a_reset_ends_a_stream_at_once_and_what_comes_later_is_dropped() {
    let (mut client, mut server) = (Session::new(Role::Client), Session::new(Role::Server));
    let stream = client.open(Headers::new()).unwrap();
    deliver(&mut client, &mut server, 100);
    server.reset(stream, ResetReason::CANCEL).unwrap();
    client.send(stream, Bytes::from_static(b"late")).unwrap();
    assert_eq!(deliver(&mut client, &mut server, 100), []);
    assert_eq!(
        deliver(&mut server, &mut client, 100),
        [Event::Reset {
            stream,
            reason: ResetReason::CANCEL
        }]
    );
    assert_eq!(
        client.send(stream, Bytes::new()),
        Err(StreamError::NotOpen(stream))
    );
}

#[test]
fn no_stream_comes_after_the_end_was_said() {
    let (mut client, mut server) = (Session::new(Role::Client), Session::new(Role::Server));
    server.go_away();
    assert_eq!(
        deliver(&mut server, &mut client, 100),
        [Event::GoneAway { last_stream: 0 }]
    );
    assert_eq!(client.open(Headers::new()), Err(StreamError::GoneAway));
}

#[test]
fn streams_past_the_limit_are_refused_and_the_others_live() {
    let mut server = Session::new(Role::Server);
    let mut encoder = Encoder::new();
    let mut bytes = BytesMut::new();
    let limit = u32::try_from(MAX_STREAMS).unwrap();
    for index in 0..=limit {
        let syn = Frame::SynStream {
            stream: 2 * index + 1,
            associated: 0,
            priority: 0,
            finished: false,
            unidirectional: false,
            headers: headers(&[("streamtype", "data")]),
        };
        assert!(encoder.encode(&syn, &mut bytes));
    }
    server.receive(&bytes);
    let mut opened = 0;
    while let Some(event) = server.next_event().unwrap() {
        assert!(matches!(event, Event::Opened { .. }));
        opened += 1;
    }
    assert_eq!(opened, limit);
    let mut decoder = Decoder::new();
    decoder.receive(&server.take_output());
    assert_eq!(
        decoder.next().unwrap(),
        Some(Frame::RstStream {
            stream: 2 * limit + 1,
            reason: ResetReason::REFUSED_STREAM
        })
    );
    assert!(server.reply(1, Headers::new()).is_ok());
}

#[test]
fn a_stream_of_the_wrong_number_is_a_protocol_error_of_that_stream() {
    let mut server = Session::new(Role::Server);
    let mut encoder = Encoder::new();
    let mut bytes = BytesMut::new();
    for stream in [2, 5, 3] {
        let syn = Frame::SynStream {
            stream,
            associated: 0,
            priority: 0,
            finished: false,
            unidirectional: false,
            headers: Headers::new(),
        };
        assert!(encoder.encode(&syn, &mut bytes));
    }
    server.receive(&bytes);
    assert!(matches!(
        server.next_event(),
        Ok(Some(Event::Opened { stream: 5, .. }))
    ));
    assert_eq!(server.next_event(), Ok(None));
    let mut decoder = Decoder::new();
    decoder.receive(&server.take_output());
    for stream in [2, 3] {
        let reset = Frame::RstStream {
            stream,
            reason: ResetReason::PROTOCOL_ERROR,
        };
        assert_eq!(decoder.next(), Ok(Some(reset)));
    }
}

/// One control frame's bytes.
fn control(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80, 3];
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn refusal(bytes: &[u8]) -> SpdyError {
    let mut decoder = Decoder::new();
    decoder.receive(bytes);
    decoder.next().expect_err("a broken frame")
}

#[test]
fn broken_frames_are_named() {
    assert_eq!(
        refusal(&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]),
        SpdyError::Version(2)
    );
    assert_eq!(
        refusal(&[0x80, 3, 0, 6, 0, 0xff, 0xff, 0xff]),
        SpdyError::TooLong {
            length: 0x00ff_ffff,
            limit: MAX_CONTROL_BYTES
        }
    );
    assert_eq!(
        refusal(&control(6, &[0; 5])),
        SpdyError::Length {
            frame: "PING",
            length: 5
        }
    );
    assert_eq!(refusal(&control(3, &[0; 8])), SpdyError::StreamZero);
    assert_eq!(refusal(&[0; 8]), SpdyError::StreamZero);
    let plain = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    assert!(matches!(
        refusal(&control(2, &plain)),
        SpdyError::HeaderBlock(_)
    ));
}

#[test]
fn a_header_block_that_inflates_without_end_is_cut_off() {
    // A stored dictionary's worth of zeros, again and again: 60 KiB that become 60 MiB.
    let mut deflate = flate2::Compress::new(flate2::Compression::best(), false);
    let mut bomb = vec![0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2];
    let zeros = vec![0; 16 << 20];
    let mut piece = vec![0; 60 << 10];
    deflate
        .compress(&zeros, &mut piece, flate2::FlushCompress::Sync)
        .unwrap();
    let written = usize::try_from(deflate.total_out()).unwrap();
    assert_eq!(deflate.total_in(), 16 << 20);
    bomb.extend_from_slice(&piece[..written]);
    let mut payload = vec![0, 0, 0, 1];
    payload.extend_from_slice(&bomb);
    assert_eq!(
        refusal(&control(2, &payload)),
        SpdyError::HeaderBlockTooLarge {
            limit: MAX_HEADER_BYTES
        }
    );
}

#[test]
fn too_many_headers_are_refused_on_both_sides() {
    let many: Headers = (0..=MAX_HEADERS)
        .map(|index| (format!("h{index}"), String::new()))
        .collect();
    let mut client = Session::new(Role::Client);
    assert!(matches!(
        client.open(many),
        Err(StreamError::HeadersTooLarge { .. })
    ));
    assert!(client.take_output().is_empty());
    let stream = client.open(headers(&[("a", "b")])).unwrap();
    assert_eq!(stream, 1, "the session goes on");
}

fn any_headers() -> impl Strategy<Value = Headers> {
    let pair = ("[a-z-]{1,12}", "[ -~\u{e9}]{0,40}");
    proptest::collection::btree_map(pair.0, pair.1, 0..8).prop_map(|map| map.into_iter().collect())
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let stream = 1_u32..1 << 31;
    prop_oneof![
        (
            stream.clone(),
            0_u32..1 << 31,
            0_u8..8,
            any::<[bool; 2]>(),
            any_headers()
        )
            .prop_map(
                |(stream, associated, priority, [finished, unidirectional], headers)| {
                    Frame::SynStream {
                        stream,
                        associated,
                        priority,
                        finished,
                        unidirectional,
                        headers,
                    }
                }
            ),
        (stream.clone(), any::<bool>(), any_headers()).prop_map(|(stream, finished, headers)| {
            Frame::SynReply {
                stream,
                finished,
                headers,
            }
        }),
        (stream.clone(), any::<bool>(), any_headers()).prop_map(|(stream, finished, headers)| {
            Frame::Headers {
                stream,
                finished,
                headers,
            }
        }),
        (stream.clone(), any::<u32>()).prop_map(|(stream, reason)| Frame::RstStream {
            stream,
            reason: ResetReason(reason)
        }),
        Just(Frame::Settings),
        any::<u32>().prop_map(Frame::Ping),
        (0_u32..1 << 31, any::<u32>()).prop_map(|(last_stream, status)| Frame::GoAway {
            last_stream,
            status
        }),
        (0_u32..1 << 31, 0_u32..1 << 31)
            .prop_map(|(stream, delta)| Frame::WindowUpdate { stream, delta }),
        (
            stream,
            any::<bool>(),
            proptest::collection::vec(any::<u8>(), 0..300)
        )
            .prop_map(|(stream, finished, data)| Frame::Data {
                stream,
                finished,
                data: data.into()
            }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_it_was(frames in proptest::collection::vec(any_frame(), 0..12)) {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        let mut bytes = BytesMut::new();
        for frame in &frames {
            prop_assert!(encoder.encode(frame, &mut bytes));
        }
        decoder.receive(&bytes);
        let mut read = Vec::new();
        while let Some(frame) = decoder.next().unwrap() {
            read.push(frame);
        }
        prop_assert_eq!(read, frames);
    }

    #[test]
    fn content_comes_through_whole_however_it_is_cut(
        content in proptest::collection::vec(any::<u8>(), 0..100_000),
        piece in 1_usize..5_000,
    ) {
        let (mut client, mut server) = (Session::new(Role::Client), Session::new(Role::Server));
        let stream = client.open(headers(&[("streamtype", "stdin")])).unwrap();
        client.send(stream, content.clone().into()).unwrap();
        client.finish(stream).unwrap();
        let (mut received, mut ended) = (Vec::new(), false);
        for event in deliver(&mut client, &mut server, piece) {
            if let Event::Data { data, finished, .. } = event {
                prop_assert!(!ended);
                received.extend_from_slice(&data);
                ended = finished;
            }
        }
        prop_assert!(ended);
        prop_assert_eq!(received, content);
    }

    #[test]
    fn a_hostile_peer_is_refused_or_understood(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        sound in proptest::collection::vec(any_frame(), 0..4),
        flip in any::<(prop::sample::Index, u8)>(),
    ) {
        for role in [Role::Client, Role::Server] {
            let mut input = BytesMut::new();
            let mut encoder = Encoder::new();
            for frame in &sound {
                prop_assert!(encoder.encode(frame, &mut input));
            }
            if !input.is_empty() {
                let at = flip.0.index(input.len());
                input[at] ^= flip.1;
            }
            input.extend_from_slice(&bytes);
            let mut session = Session::new(role);
            session.receive(&input);
            while let Ok(Some(_)) = session.next_event() {}
            prop_assert!(session.open_streams() <= MAX_STREAMS);
        }
    }
}

/// What spdystream v0.5.1 wrote for [`recorded_frames`].
const RECORDED: [&str; 9] = [
    "80030001000000290000000100000000000078f9e3c6a7c26260606004a7b392a2d4c45c6851c29a0a0a6800000000\
     ffff",
    "80030001000000160000000300000000a000c22a052a651201000000ffff",
    "800300020000000e000000026260606000000000ffff",
    "80030008000000130000000182ca3256800b52862400000000ffff",
    "000000010100000568656c6c6f",
    "80030003000000080000000300000005",
    "800300060000000400000001",
    "80030007000000080000000200000000",
    "80030009000000080000000100010000",
];

fn recorded_frames() -> [Frame; 9] {
    let syn = |stream, priority, kind| Frame::SynStream {
        stream,
        associated: 0,
        priority,
        finished: false,
        unidirectional: false,
        headers: headers(&[("streamtype", kind)]),
    };
    [
        syn(1, 0, "error"),
        syn(3, 5, "data"),
        Frame::SynReply {
            stream: 2,
            finished: false,
            headers: Headers::new(),
        },
        Frame::Headers {
            stream: 1,
            finished: false,
            headers: headers(&[("x", "a"), ("x", "b")]),
        },
        Frame::Data {
            stream: 1,
            finished: true,
            data: Bytes::from_static(b"hello"),
        },
        Frame::RstStream {
            stream: 3,
            reason: ResetReason::CANCEL,
        },
        Frame::Ping(1),
        Frame::GoAway {
            last_stream: 2,
            status: 0,
        },
        Frame::WindowUpdate {
            stream: 1,
            delta: 65_536,
        },
    ]
}

#[test]
fn the_reference_librarys_frames_are_understood() {
    let hex = RECORDED.concat();
    let mut decoder = Decoder::new();
    // As slowly as a network can be.
    let mut read = Vec::new();
    for at in (0..hex.len()).step_by(2) {
        decoder.receive(&[u8::from_str_radix(&hex[at..at + 2], 16).unwrap()]);
        while let Some(frame) = decoder.next().unwrap() {
            read.push(frame);
        }
    }
    let mut expected: Vec<Frame> = recorded_frames().into();
    // Content is handed on as it comes.
    let content = b"hello"
        .iter()
        .enumerate()
        .map(|(index, byte)| Frame::Data {
            stream: 1,
            finished: index == 4,
            data: Bytes::copy_from_slice(&[*byte]),
        });
    expected.splice(4..=4, content);
    assert_eq!(read, expected);
}
