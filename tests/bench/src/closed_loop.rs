//! Clients that each have one call under way: the next one begins when the last is answered.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::drive::{Connection, Driver, Endpoint, What, drive};
use crate::http2::Session;

/// Connections to one member that the clients of a measurement share.
const CONNECTIONS_MAX: usize = 2;
/// Failed calls after which a measurement is given up.
const FAILURES_MAX: u64 = 100;

/// What the clients ask.
pub trait Work: 'static {
    /// Writes `client`'s next request and says of which method; `None`: it has no more.
    fn next(&mut self, client: usize, request: &mut Vec<u8>) -> Option<&'static str>;

    /// Looks at the answer.
    fn answered(&mut self, _client: usize, _answer: &[u8]) {}
}

/// How long it runs.
#[derive(Debug, Clone, Copy)]
pub enum Span {
    /// Until the work says that there is no more.
    All,
    /// For a time, not counting what comes before it.
    For {
        /// Not measured.
        warmup: Duration,
        /// Measured.
        measured: Duration,
    },
}

/// What a measurement found.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Answered calls within the measured time.
    pub calls: u64,
    /// The measured time.
    pub elapsed: Duration,
    /// Of each call, in microseconds, ascending.
    pub latencies_us: Vec<u32>,
}

impl Measured {
    /// Calls a second.
    pub fn per_second(&self) -> f64 {
        rate(self.calls, self.elapsed)
    }

    /// The latency below which `share` of the calls were, in milliseconds.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let last = self.latencies_us.len().saturating_sub(1);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let at = (to_f64(last as u64) * share).round() as usize;
        self.latencies_us
            .get(at)
            .map_or(f64::NAN, |us| f64::from(*us) / 1000.0)
    }
}

/// `count` a second.
pub fn rate(count: u64, elapsed: Duration) -> f64 {
    to_f64(count) / elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// A count as a number to reckon with.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a bench are far below 2^53"
)]
pub fn to_f64(count: u64) -> f64 {
    count as f64
}

/// Lets `clients` clients do `work` on `endpoints`, spread evenly, and gives the work back.
///
/// # Errors
/// When a connection fails or too many calls do.
pub async fn run<W: Work>(
    endpoints: &[Endpoint],
    clients: usize,
    span: Span,
    patience: Duration,
    work: W,
) -> anyhow::Result<(Measured, W)> {
    let connections = connect(endpoints, clients).await?;
    let driver = ClosedLoop::new(work, clients, connections.len(), span);
    let driver = drive(connections, driver, patience).await?;
    ensure!(
        driver.failures < FAILURES_MAX,
        "{} calls were refused",
        driver.failures
    );
    Ok(driver.outcome())
}

/// As many connections as `clients` need, member after member.
///
/// # Errors
/// When a member does not answer.
pub async fn connect(endpoints: &[Endpoint], clients: usize) -> anyhow::Result<Vec<Connection>> {
    let count = clients.min(endpoints.len() * CONNECTIONS_MAX);
    let mut connections = Vec::with_capacity(count);
    for endpoint in endpoints.iter().cycle().take(count) {
        connections.push(endpoint.connect().await?);
    }
    Ok(connections)
}

struct ClosedLoop<W> {
    work: W,
    connections: usize,
    began: Vec<Instant>,
    started: Instant,
    span: Span,
    last: Instant,
    under_way: usize,
    stopped: bool,
    failures: u64,
    latencies_us: Vec<u32>,
    request: Vec<u8>,
}

impl<W: Work> ClosedLoop<W> {
    fn new(work: W, clients: usize, connections: usize, span: Span) -> Self {
        let now = Instant::now();
        Self {
            work,
            connections,
            began: vec![now; clients],
            started: now,
            span,
            last: now,
            under_way: 0,
            stopped: false,
            failures: 0,
            latencies_us: Vec::with_capacity(1 << 16),
            request: Vec::new(),
        }
    }

    fn ask(&mut self, client: usize, session: &mut Session, now: Instant) {
        let over = match self.span {
            Span::All => false,
            Span::For { warmup, measured } => now - self.started >= warmup + measured,
        };
        self.stopped |= over || self.failures >= FAILURES_MAX;
        if self.stopped {
            return;
        }
        self.request.clear();
        if let Some(path) = self.work.next(client, &mut self.request) {
            self.began[client] = now;
            self.under_way += 1;
            session.call(client as u64, path, &self.request);
        }
    }

    fn outcome(mut self) -> (Measured, W) {
        let elapsed = match self.span {
            Span::All => self.last - self.started,
            Span::For { measured, .. } => measured,
        };
        self.latencies_us.sort_unstable();
        let measured = Measured {
            calls: self.latencies_us.len() as u64,
            elapsed,
            latencies_us: self.latencies_us,
        };
        (measured, self.work)
    }
}

impl<W: Work> Driver for ClosedLoop<W> {
    fn start(&mut self, at: usize, session: &mut Session) {
        let now = Instant::now();
        for client in (at..self.began.len()).step_by(self.connections) {
            self.ask(client, session, now);
        }
    }

    fn happened(&mut self, _at: usize, session: &mut Session, token: u64, what: What<'_>) {
        let client = usize::try_from(token).expect("a client's number");
        match what {
            What::Message(answer) => self.work.answered(client, answer),
            What::Piece { .. } => {}
            What::Ended { answered } => {
                let now = Instant::now();
                self.under_way -= 1;
                let since = now - self.started;
                let counts = match self.span {
                    Span::All => true,
                    Span::For { warmup, measured } => since >= warmup && since < warmup + measured,
                };
                if !answered {
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
