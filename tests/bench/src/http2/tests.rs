//! The client against a server made of frames.

use super::*;

fn message(length: usize) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&u32::try_from(length).expect("short").to_be_bytes());
    bytes.resize(MESSAGE_HEADER + length, 7);
    bytes
}

fn frames_of(output: &[u8]) -> Vec<(u8, u8, u32, usize)> {
    let mut rest = output.strip_prefix(PREFACE).unwrap_or(output);
    let mut all = Vec::new();
    while !rest.is_empty() {
        let length = usize::from(rest[1]) << 8 | usize::from(rest[2]);
        let stream = u32::from_be_bytes([rest[5], rest[6], rest[7], rest[8]]);
        all.push((rest[3], rest[4], stream, length));
        rest = &rest[FRAME_HEADER + length..];
    }
    all
}

#[test]
fn an_answer_in_pieces_is_one_message_and_an_end() {
    let mut session = Session::new("here");
    session.call(9, "/a/B", b"question");
    let mut answer = Vec::new();
    frame(&mut answer, HEADERS, END_HEADERS, 1, &[0x88]);
    frame(&mut answer, DATA, 0, 1, &message(40)[..20]);
    frame(&mut answer, DATA, 0, 1, &message(40)[20..]);
    frame(&mut answer, HEADERS, END_HEADERS | END_STREAM, 1, &[]);
    for byte in answer {
        session.receive(&[byte]).expect("well formed");
    }
    assert_eq!(
        session.events.list,
        [
            (9, Happened::Message { start: 0, end: 40 }),
            (9, Happened::Ended { answered: true })
        ]
    );
    assert!(session.streams.is_empty());
}

#[test]
fn a_plain_answer_is_told_in_pieces() {
    let mut session = Session::new("here");
    let request = Request {
        method: "PATCH",
        path: &format!("/{}", "a".repeat(300)),
        content_type: "application/json",
        body: b"{}",
    };
    session.request(3, &request);
    let mut answer = Vec::new();
    frame(&mut answer, HEADERS, END_HEADERS, 1, &[0x88]);
    frame(&mut answer, DATA, 0, 1, &[b'\n'; 600]);
    frame(&mut answer, DATA, END_STREAM, 1, b"");
    session.receive(&answer).expect("well formed");
    let piece = Happened::Piece {
        start: 0,
        end: PIECE_HEAD,
        bytes: 600,
        lines: 600,
    };
    assert_eq!(
        session.events.list,
        [(3, piece), (3, Happened::Ended { answered: true })]
    );
}

#[test]
fn numbers_are_those_of_the_standards_examples() {
    let mut block = Vec::new();
    number(&mut block, 5, 0, 10);
    number(&mut block, 5, 0, 1337);
    assert_eq!(block, [0b01010, 0b11111, 0b1001_1010, 0b0000_1010]);
}

#[test]
fn an_end_without_a_message_is_a_failure() {
    let mut session = Session::new("here");
    session.call(4, "/a/B", b"");
    let mut answer = Vec::new();
    frame(
        &mut answer,
        HEADERS,
        END_HEADERS | END_STREAM,
        1,
        &[0x88, 0x8f],
    );
    session.receive(&answer).expect("well formed");
    assert_eq!(
        session.events.list,
        [(4, Happened::Ended { answered: false })]
    );
}

#[test]
fn the_second_call_of_a_path_names_its_headers_by_index() {
    let mut session = Session::new("here");
    session.call(1, "/a/B", b"");
    session.output.clear();
    session.call(2, "/a/B", b"");
    let block = &session.output[FRAME_HEADER..][..6];
    assert_eq!(
        block,
        [0x83, 0x87, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62]
    );
}

#[test]
fn a_message_waits_for_the_peers_window_and_keeps_its_order() {
    let mut session = Session::new("here");
    let stream = session.open(1, "/a/B");
    session.send(stream, &vec![1; 65_000], false);
    session.output.clear();
    session.send(stream, &vec![2; 1000], false);
    session.send(stream, &[3; 10], true);
    assert_eq!(
        frames_of(&session.output),
        [(DATA, 0, 1, 65_535 - 65_005)],
        "only what fits"
    );
    session.output.clear();
    let mut update = Vec::new();
    frame(&mut update, WINDOW_UPDATE, 0, 0, &5000_u32.to_be_bytes());
    frame(&mut update, WINDOW_UPDATE, 0, 1, &5000_u32.to_be_bytes());
    session.receive(&update).expect("well formed");
    let sizes: Vec<_> = frames_of(&session.output);
    assert_eq!(
        sizes,
        [
            (DATA, 0, 1, 1005 - (65_535 - 65_005)),
            (DATA, END_STREAM, 1, 15)
        ]
    );
}
