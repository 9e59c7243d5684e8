//! An open load: requests come at a rate, whether or not the last ones were answered, and
//! each one's time counts from when it was due.

use std::time::{Duration, Instant};

use super::closed::{Ask, connect, is_refusal};
use super::objects::Mixed;
use crate::closed_loop::{Measured, to_f64};
use crate::drive::{Driver, Endpoint, What, drive};
use crate::http2::Session;

/// Connections.
const CONNECTIONS: usize = 16;
/// Requests of one connection under way at once, at most; what is due beyond waits, and its
/// time counts.
const STREAMS_MAX: usize = 100;

/// What became of an offered load.
pub struct Offered {
    /// Those of the measured time that were answered.
    pub measured: Measured,
    /// Those that were due in the measured time.
    pub due: u64,
    /// Those that were refused, and how the first one was.
    pub refused: (u64, Option<String>),
}

impl Offered {
    /// The share of what was due that was answered well by the end.
    pub fn held(&self) -> f64 {
        to_f64(self.measured.calls) / to_f64(self.due.max(1))
    }
}

/// Offers `mixed` at `rate` requests a second.
///
/// # Errors
/// When a connection fails.
pub async fn offer(
    endpoint: &Endpoint,
    rate: f64,
    warmup: Duration,
    measured: Duration,
    patience: Duration,
    mixed: Mixed,
) -> anyhow::Result<Offered> {
    let connections = connect(endpoint, CONNECTIONS).await?;
    let driver = Open {
        mixed,
        interval: Duration::from_secs_f64(1.0 / rate),
        started: Instant::now(),
        warmup,
        measured,
        asked: 0,
        under_way: vec![0; CONNECTIONS],
        slots: Vec::new(),
        free: Vec::new(),
        refused: 0,
        first_refusal: None,
        latencies_us: Vec::new(),
        ask: Ask::get("/"),
    };
    let mut driver = drive(connections, driver, patience).await?;
    driver.latencies_us.sort_unstable();
    let due = driver.due(warmup + measured) - driver.due(warmup);
    Ok(Offered {
        measured: Measured {
            calls: driver.latencies_us.len() as u64,
            elapsed: measured,
            latencies_us: driver.latencies_us,
        },
        due,
        refused: (driver.refused, driver.first_refusal),
    })
}

struct Open {
    mixed: Mixed,
    interval: Duration,
    started: Instant,
    warmup: Duration,
    measured: Duration,
    asked: u64,
    under_way: Vec<usize>,
    /// Of each request under way: when it was due, and whether it was refused.
    slots: Vec<(Instant, bool)>,
    free: Vec<usize>,
    refused: u64,
    first_refusal: Option<String>,
    latencies_us: Vec<u32>,
    ask: Ask,
}

impl Open {
    /// Requests due within a time from the start.
    fn due(&self, since: Duration) -> u64 {
        u64::try_from(since.as_nanos() / self.interval.as_nanos().max(1)).unwrap_or(u64::MAX)
    }

    fn end(&self) -> Instant {
        self.started + self.warmup + self.measured
    }

    /// Asks what is due, as far as this connection takes it.
    fn ask_due(&mut self, at: usize, session: &mut Session) {
        let now = Instant::now();
        if now >= self.end() {
            return;
        }
        let due = self.due(now - self.started);
        while self.asked < due && self.under_way[at] < STREAMS_MAX {
            let since = self.interval.as_secs_f64() * to_f64(self.asked);
            self.asked += 1;
            self.under_way[at] += 1;
            let slot = self.free.pop().unwrap_or_else(|| {
                self.slots.push((now, false));
                self.slots.len() - 1
            });
            self.slots[slot] = (self.started + Duration::from_secs_f64(since), false);
            self.mixed.write(&mut self.ask);
            session.request(slot as u64, &self.ask.request());
        }
    }
}

impl Driver for Open {
    const TICK: Option<Duration> = Some(Duration::from_millis(1));

    fn start(&mut self, at: usize, session: &mut Session) {
        self.ask_due(at, session);
    }

    fn happened(&mut self, at: usize, session: &mut Session, token: u64, what: What<'_>) {
        let slot = usize::try_from(token).expect("a slot's number");
        match what {
            What::Message(_) => {}
            What::Piece { head, .. } => {
                if is_refusal(head) {
                    self.slots[slot].1 = true;
                    self.first_refusal
                        .get_or_insert_with(|| String::from_utf8_lossy(head).into_owned());
                }
            }
            What::Ended { answered } => {
                let now = Instant::now();
                let (due, refused) = self.slots[slot];
                self.free.push(slot);
                self.under_way[at] -= 1;
                if !answered || refused {
                    self.refused += 1;
                } else if due >= self.started + self.warmup && now < self.end() {
                    let latency = (now - due).as_micros();
                    self.latencies_us
                        .push(u32::try_from(latency).unwrap_or(u32::MAX));
                }
                self.ask_due(at, session);
            }
        }
    }

    fn tick(&mut self, at: usize, session: &mut Session) {
        self.ask_due(at, session);
    }

    fn finished(&self) -> bool {
        let over = Instant::now() >= self.end();
        // What is late then counts as not held.
        over && (self.under_way.iter().all(|count| *count == 0)
            || Instant::now() >= self.end() + Duration::from_secs(2))
    }
}
