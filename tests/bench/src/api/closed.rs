//! Clients of the Kubernetes API that each have one request under way.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::closed_loop::{Measured, Span};
use crate::drive::{Connection, Driver, Endpoint, What, drive};
use crate::http2::{Request, Session};

/// How an answer begins that is no object but a refusal.
const REFUSAL: &[u8] = br#"{"kind":"Status""#;
/// Requests of one connection under way at once, at most; servers allow more.
const STREAMS_MAX: usize = 100;
/// Failed requests after which a measurement is given up.
const FAILURES_MAX: u64 = 100;

/// A request, in buffers that are used again.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Its method.
    pub method: &'static str,
    /// Path and query.
    pub path: String,
    /// The body's type.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl Ask {
    /// A GET.
    pub fn get(path: &str) -> Self {
        Self {
            method: "GET",
            path: path.to_owned(),
            content_type: "application/json",
            body: Vec::new(),
        }
    }

    /// As HTTP/2 takes it.
    pub fn request(&self) -> Request<'_> {
        Request {
            method: self.method,
            path: &self.path,
            content_type: self.content_type,
            body: &self.body,
        }
    }
}

/// What the clients ask.
pub trait Asks: 'static {
    /// Writes `client`'s next request; false: it has no more.
    fn next(&mut self, client: usize, ask: &mut Ask) -> bool;
}

/// Whether a piece of an answer is the beginning of a refusal.
pub fn is_refusal(head: &[u8]) -> bool {
    head.starts_with(REFUSAL)
}

/// Lets `clients` clients ask on `connections` connections.
///
/// # Errors
/// When a connection fails or too many requests do.
pub async fn run<A: Asks>(
    endpoint: &Endpoint,
    clients: usize,
    span: Span,
    patience: Duration,
    asks: A,
) -> anyhow::Result<Measured> {
    let connections = connect(endpoint, clients.div_ceil(STREAMS_MAX / 2)).await?;
    let now = Instant::now();
    let driver = Loop {
        asks,
        connections: connections.len(),
        began: vec![now; clients],
        refused: vec![false; clients],
        started: now,
        span,
        last: now,
        under_way: 0,
        stopped: false,
        failures: 0,
        first_refusal: None,
        latencies_us: Vec::with_capacity(1 << 16),
        ask: Ask::get("/"),
    };
    let driver = drive(connections, driver, patience).await?;
    ensure!(
        driver.failures < FAILURES_MAX,
        "{} requests were refused, the first with {}",
        driver.failures,
        driver.first_refusal.as_deref().unwrap_or_default()
    );
    Ok(driver.measured())
}

/// So many connections.
///
/// # Errors
/// When the server does not answer.
pub async fn connect(endpoint: &Endpoint, count: usize) -> anyhow::Result<Vec<Connection>> {
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        connections.push(endpoint.connect().await?);
    }
    Ok(connections)
}

struct Loop<A> {
    asks: A,
    connections: usize,
    began: Vec<Instant>,
    refused: Vec<bool>,
    started: Instant,
    span: Span,
    last: Instant,
    under_way: usize,
    stopped: bool,
    failures: u64,
    first_refusal: Option<String>,
    latencies_us: Vec<u32>,
    ask: Ask,
}

impl<A: Asks> Loop<A> {
    fn ask(&mut self, client: usize, session: &mut Session, now: Instant) {
        let over = match self.span {
            Span::All => false,
            Span::For { warmup, measured } => now - self.started >= warmup + measured,
        };
        self.stopped |= over || self.failures >= FAILURES_MAX;
        if self.stopped || !self.asks.next(client, &mut self.ask) {
            return;
        }
        self.began[client] = now;
        self.refused[client] = false;
        self.under_way += 1;
        session.request(client as u64, &self.ask.request());
    }

    fn measured(mut self) -> Measured {
        let elapsed = match self.span {
            Span::All => self.last - self.started,
            Span::For { measured, .. } => measured,
        };
        self.latencies_us.sort_unstable();
        Measured {
            calls: self.latencies_us.len() as u64,
            elapsed,
            latencies_us: self.latencies_us,
        }
    }
}

impl<A: Asks> Driver for Loop<A> {
    fn start(&mut self, at: usize, session: &mut Session) {
        let now = Instant::now();
        for client in (at..self.began.len()).step_by(self.connections) {
            self.ask(client, session, now);
        }
    }

    fn happened(&mut self, _at: usize, session: &mut Session, token: u64, what: What<'_>) {
        let client = usize::try_from(token).expect("a client's number");
        match what {
            What::Message(_) => {}
            What::Piece { head, .. } => {
                if is_refusal(head) {
                    self.refused[client] = true;
                    self.first_refusal
                        .get_or_insert_with(|| String::from_utf8_lossy(head).into_owned());
                }
            }
            What::Ended { answered } => {
                let now = Instant::now();
                self.under_way -= 1;
                let since = now - self.started;
                let counts = match self.span {
                    Span::All => true,
                    Span::For { warmup, measured } => since >= warmup && since < warmup + measured,
                };
                if !answered || self.refused[client] {
                    self.failures += 1;
                } else if counts {
                    self.last = now;
                    let latency = (now - self.began[client]).as_micros();
                    self.latencies_us
                        .push(u32::try_from(latency).unwrap_or(u32::MAX));
                }
                self.ask(client, session, now);
            }
        }
    }

    fn finished(&self) -> bool {
        self.under_way == 0
    }
}

/// One request on a connection of its own; gives the beginning of its answer.
///
/// # Errors
/// When the server cannot be reached or refuses.
pub async fn ask(endpoint: &Endpoint, ask: &Ask, patience: Duration) -> anyhow::Result<Vec<u8>> {
    struct Once {
        ask: Ask,
        answer: Option<Vec<u8>>,
        ended: bool,
    }
    impl Driver for Once {
        fn start(&mut self, _at: usize, session: &mut Session) {
            session.request(0, &self.ask.request());
        }
        fn happened(&mut self, _at: usize, _session: &mut Session, _token: u64, what: What<'_>) {
            match what {
                What::Message(_) => {}
                What::Piece { head, .. } => {
                    self.answer.get_or_insert_with(|| head.to_vec());
                }
                What::Ended { .. } => self.ended = true,
            }
        }
        fn finished(&self) -> bool {
            self.ended
        }
    }
    let once = Once {
        ask: ask.clone(),
        answer: None,
        ended: false,
    };
    let once = drive(connect(endpoint, 1).await?, once, patience).await?;
    let answer = once.answer.context("an answer without a body")?;
    ensure!(
        !is_refusal(&answer),
        "{} {}: {}",
        ask.method,
        ask.path,
        String::from_utf8_lossy(&answer)
    );
    Ok(answer)
}
