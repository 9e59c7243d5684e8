//! Clients that mean harm, or are broken: each costs itself, and nobody else.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nautilus_machinery::identity::User;
use nautilus_rest::{ConnectionLimits, RequestLimits, router, serve_plain_loopback};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{World, text, within};

const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";

async fn send(world: &World, media: &str, body: impl Into<reqwest::Body>) -> (u16, String) {
    let answer = world.send(Method::POST, CONFIGMAPS, media, body).await;
    let code = answer.status().as_u16();
    let text = within(answer.text()).await.unwrap();
    let status: Value = serde_json::from_str(&text).unwrap_or_default();
    (code, crate::world::text(&status["message"]))
}

/// The world is as it was.
async fn lives(world: &World) {
    let (status, _) = world.get("/readyz").await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_body_past_the_limit_is_refused_whether_it_says_its_length_or_not() {
    let world = World::start().await;
    let refusal = (413, "Request entity too large: limit is 3145728".to_owned());
    let large = vec![b' '; 4 << 20];
    assert_eq!(send(&world, JSON, large.clone()).await, refusal);
    let pieces = large
        .chunks(64 << 10)
        .map(|piece| Ok::<_, std::io::Error>(piece.to_vec()))
        .collect::<Vec<_>>();
    let streamed = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    assert_eq!(send(&world, JSON, streamed).await, refusal);
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        let path = format!("{CONFIGMAPS}/a");
        let media = match method {
            Method::PATCH => "application/merge-patch+json",
            _ => JSON,
        };
        let answer = world.send(method, &path, media, large.clone()).await;
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
    lives(&world).await;
}

#[tokio::test]
async fn documents_that_nest_or_grow_without_end_are_refused() {
    let world = World::start().await;
    let deep = |open: &str, close: &str| {
        let depth = 200_000;
        let (open, close) = (open.repeat(depth), close.repeat(depth));
        format!("{{\"metadata\":{{\"name\":\"a\"}},\"data\":{open}1{close}}}")
    };
    for body in [deep("[", "]"), deep("{\"a\":", "}")] {
        let (code, _) = send(&world, JSON, body.clone()).await;
        assert_eq!(code, 400);
        let (code, _) = send(&world, YAML, body.clone()).await;
        assert_eq!(code, 400);
        let path = format!("{CONFIGMAPS}/a");
        let media = "application/merge-patch+json";
        let answer = world.send(Method::PATCH, &path, media, body).await;
        assert!(answer.status().is_client_error(), "{}", answer.status());
    }
    // Each alias doubles what the one before it was.
    let mut bomb = "a0: &a0 [x, x]\n".to_owned();
    for level in 1..40 {
        let before = level - 1;
        bomb.push_str(&format!("a{level}: &a{level} [*a{before}, *a{before}]\n"));
    }
    let (code, message) = send(&world, YAML, bomb).await;
    assert_eq!(code, 400, "{message}");
    // A compressed body is not inflated.
    let answer = within(
        world
            .client
            .post(format!("{}{CONFIGMAPS}", world.base))
            .header("content-type", JSON)
            .header("content-encoding", "gzip")
            .body(vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3])
            .send(),
    )
    .await
    .unwrap();
    assert!(answer.status().is_client_error(), "{}", answer.status());
    lives(&world).await;
}

#[tokio::test]
async fn hostile_selectors_are_refused_or_answered_at_once() {
    let world = World::start().await;
    let list = |parameter: &str, selector: &str| {
        let escaped: String = selector
            .bytes()
            .map(|byte| format!("%{byte:02X}"))
            .collect();
        format!("{CONFIGMAPS}?{parameter}={escaped}")
    };
    let values: Vec<String> = (0..1_500).map(|value| format!("v{value}")).collect();
    let many = format!("a in ({})", values.join(","));
    let (status, _) = world.get(&list("labelSelector", &many)).await;
    assert_eq!(status, StatusCode::OK);
    let terms: Vec<String> = (0..1_500).map(|term| format!("k{term}!=v")).collect();
    let (status, _) = world.get(&list("labelSelector", &terms.join(","))).await;
    assert_eq!(status, StatusCode::OK);
    let nested = "(".repeat(5_000);
    for (parameter, selector) in [
        ("labelSelector", nested.as_str()),
        ("labelSelector", "a in (((("),
        ("labelSelector", "!!!!a"),
        ("labelSelector", "(a+)+$=x"),
        ("fieldSelector", nested.as_str()),
        ("fieldSelector", "metadata.name=a=b=c"),
        ("fieldSelector", "(a+)+$=x"),
    ] {
        let (status, answer) = world.get(&list(parameter, selector)).await;
        assert_eq!(
            status,
            StatusCode::BAD_REQUEST,
            "{parameter} {selector:.20}"
        );
        assert_eq!(answer["reason"], "BadRequest");
    }
    // A head past its limit is refused by its length alone.
    let long = "a,".repeat(60_000);
    let asked = world
        .client
        .get(format!("{}{CONFIGMAPS}?labelSelector={long}", world.base))
        .send();
    let refused = within(asked).await;
    assert!(refused.is_err() || refused.is_ok_and(|answer| answer.status().is_client_error()));
    lives(&world).await;
}

/// Another listener of the world, with its own limits.
async fn listen(world: &World, limits: ConnectionLimits) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let user = User::authenticated("admin", vec!["system:masters".into()]);
    let face = router(world.context.clone()).layer(axum::Extension(user));
    tokio::spawn(serve_plain_loopback(
        listener,
        face,
        limits,
        world.shutdown.clone(),
    ));
    address
}

/// What a server says on a connection until it closes it.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    // A reset is an end too.
    let _ = within(stream.read_to_end(&mut said)).await;
    said
}

#[tokio::test]
async fn who_sends_a_head_too_slowly_is_dropped() {
    let world = World::start().await;
    let limits = ConnectionLimits {
        header_read_timeout: Duration::from_millis(200),
        ..ConnectionLimits::default()
    };
    let address = listen(&world, limits).await;
    let mut slow = TcpStream::connect(address).await.unwrap();
    let head = b"GET /readyz HTTP/1.1\r\nhost: a\r\n";
    let began = Instant::now();
    let (mut reader, mut writer) = slow.split();
    let trickle = async {
        for byte in head.iter().cycle() {
            if writer.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ended = async {
        let mut said = Vec::new();
        let _ = reader.read_to_end(&mut said).await;
    };
    within(async {
        tokio::select! {
            () = trickle => {}
            () = ended => {}
        }
    })
    .await;
    assert!(began.elapsed() >= Duration::from_millis(200));
    lives(&world).await;
}

#[tokio::test]
async fn who_sends_a_body_too_slowly_is_answered_all_the_same() {
    let limits = RequestLimits {
        request_timeout: Duration::from_millis(300),
        ..RequestLimits::default()
    };
    let admin = User::authenticated("admin", vec!["system:masters".into()]);
    let world = World::start_with(admin, limits).await;
    let address = listen(&world, ConnectionLimits::default()).await;
    let mut slow = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {CONFIGMAPS} HTTP/1.1\r\nhost: a\r\ncontent-type: {JSON}\r\ncontent-length: 100\r\n\r\n{{"
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    within(slow.read_exact(&mut first)).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 504");
    lives(&world).await;
}

#[tokio::test]
async fn one_client_does_not_take_all_connections() {
    let world = World::start().await;
    let limits = ConnectionLimits {
        max_connections_per_client: 3,
        ..ConnectionLimits::default()
    };
    let address = listen(&world, limits).await;
    let ask = b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(ask).await.unwrap();
        let mut first = [0; 12];
        within(stream.read_exact(&mut first)).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        held.push(stream);
    }
    let mut fourth = TcpStream::connect(address).await.unwrap();
    assert_eq!(rest(&mut fourth).await, b"");
    // A place that is given back is there again.
    drop(held.pop());
    let again = async {
        loop {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let _ = stream.write_all(ask).await;
            let mut first = [0; 12];
            if stream.read_exact(&mut first).await.is_ok() {
                return first;
            }
        }
    };
    assert_eq!(&within(again).await, b"HTTP/1.1 200");
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// `GET http://a/readyz`, in HPACK's static entries and literals.
fn request() -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, 7];
    block.extend_from_slice(b"/readyz");
    block.extend_from_slice(&[0x01, 1, b'a']);
    block
}

/// The types of the frames in what a server said, with their payloads.
fn frames(said: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    let mut rest = said;
    while let Some((head, tail)) = rest.split_first_chunk::<9>() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let Some((payload, tail)) = tail.split_at_checked(length) else {
            break;
        };
        frames.push((head[3], payload.to_vec()));
        rest = tail;
    }
    frames
}

async fn speak_http2(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    stream
}

/// Sends pieces without end until the server closes; what it said.
async fn flood(stream: TcpStream, mut piece: impl FnMut(u32) -> Vec<u8>) -> Vec<u8> {
    let (mut reader, mut writer) = stream.into_split();
    let reading = tokio::spawn(async move {
        let mut said = Vec::new();
        let _ = reader.read_to_end(&mut said).await;
        said
    });
    let writing = async {
        for round in 0..2_000_000 {
            if writer.write_all(&piece(round)).await.is_err() {
                return;
            }
        }
        panic!("the server took it all");
    };
    within(writing).await;
    within(reading).await.unwrap()
}

#[tokio::test]
async fn streams_opened_and_reset_without_end_cost_the_connection() {
    let world = World::start().await;
    let address = listen(&world, ConnectionLimits::default()).await;
    let stream = speak_http2(address).await;
    let said = flood(stream, |round| {
        let id = 2 * round + 1;
        let mut both = frame(HEADERS, END_STREAM | END_HEADERS, id, &request());
        both.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
        both
    })
    .await;
    let frames = frames(&said);
    // MAX_CONCURRENT_STREAMS (3) is announced.
    let settings = &frames[0];
    assert_eq!(settings.0, SETTINGS);
    let announced = settings.1.chunks(6).find(|pair| pair[..2] == [0, 3]);
    assert_eq!(announced.expect("a limit")[2..], 1_000_u32.to_be_bytes());
    let end = frames.iter().find(|(kind, _)| *kind == GOAWAY);
    if let Some((_, payload)) = end {
        // ENHANCE_YOUR_CALM.
        assert_eq!(payload[4..8], 11_u32.to_be_bytes());
    }
    lives(&world).await;
}

#[tokio::test]
async fn a_head_that_goes_on_without_end_costs_the_connection() {
    let world = World::start().await;
    let address = listen(&world, ConnectionLimits::default()).await;
    let mut stream = speak_http2(address).await;
    let open = frame(HEADERS, END_STREAM, 1, &request());
    stream.write_all(&open).await.unwrap();
    // A literal header of 4 KiB, never the last.
    let mut block = vec![0x00, 1, b'x', 0x7f, 0x81, 0x1f];
    block.extend(vec![b'y'; 127 + 1 + 0x1f * 128]);
    flood(stream, |_| frame(CONTINUATION, 0, 1, &block)).await;
    lives(&world).await;
}

#[tokio::test]
async fn a_watch_on_a_hostile_selector_is_refused_before_it_begins() {
    let world = World::start().await;
    let (status, answer) = world
        .get(&format!(
            "{CONFIGMAPS}?watch=true&labelSelector=a%20in%20%28"
        ))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(text(&answer["status"]), "Failure");
    assert_eq!(json!("BadRequest"), answer["reason"]);
}
