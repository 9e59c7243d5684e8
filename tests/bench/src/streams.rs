//! Watches and keep-alives: calls that stay open and carry many messages.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::closed_loop::rate;
use crate::drive::{Connection, Driver, What};
use crate::http2::Session;
use crate::keys::{Random, Values};
use crate::message::{self, path};

/// The token of the writer's calls; watch streams have their own number.
const WRITER: u64 = u64::MAX;

/// How long, and how much of it is measured.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Not measured.
    pub warmup: Duration,
    /// Measured.
    pub measured: Duration,
}

impl Window {
    fn counts(&self, since: Duration) -> bool {
        since >= self.warmup && !self.is_over(since)
    }

    fn is_over(&self, since: Duration) -> bool {
        since >= self.warmup + self.measured
    }
}

/// Who watches what.
#[derive(Debug, Clone, Copy)]
pub struct FanOut {
    /// Watches in all.
    pub watches: usize,
    /// Watches that share a stream.
    pub per_stream: usize,
    /// Keys, each watched by equally many.
    pub keys: usize,
    /// Puts whose events have not all been delivered, at most.
    pub puts_under_way: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
}

/// Watches on all connections but the last, and a writer on the last that goes on as fast
/// as its events are delivered.
pub struct Watching {
    plan: FanOut,
    window: Window,
    watching_connections: usize,
    created: usize,
    writing_since: Option<Instant>,
    puts: u64,
    events: u64,
    counted: u64,
    refused: u64,
    random: Random,
    values: Values,
    request: Vec<u8>,
    over: bool,
}

impl Watching {
    /// For `connections`, the last of which writes.
    pub fn new(plan: FanOut, window: Window, connections: &[Connection]) -> Self {
        Self {
            plan,
            window,
            watching_connections: connections.len() - 1,
            created: 0,
            writing_since: None,
            puts: 0,
            events: 0,
            counted: 0,
            refused: 0,
            random: Random::new(23),
            values: Values::new(plan.value_bytes),
            request: Vec::new(),
            over: false,
        }
    }

    /// Events a second.
    ///
    /// # Errors
    /// When a watch or a put was refused.
    pub fn events_per_second(&self) -> anyhow::Result<f64> {
        ensure!(
            self.refused == 0,
            "{} watches or puts were refused",
            self.refused
        );
        Ok(rate(self.counted, self.window.measured))
    }

    fn key(at: usize) -> String {
        format!("bench/watched/{at:06}")
    }

    /// Events of one put.
    fn fan(&self) -> u64 {
        (self.plan.watches / self.plan.keys) as u64
    }

    fn write(&mut self, session: &mut Session) {
        if self.over || self.created < self.plan.watches {
            return;
        }
        self.writing_since.get_or_insert_with(Instant::now);
        while self.puts < self.events / self.fan() + self.plan.puts_under_way {
            let at = usize::try_from(self.puts).expect("few puts") % self.plan.keys;
            self.request.clear();
            message::put(
                &mut self.request,
                Self::key(at).as_bytes(),
                self.values.pick(&mut self.random),
            );
            session.call(WRITER, path::PUT, &self.request);
            self.puts += 1;
        }
    }

    fn watched(&mut self, answer: &[u8]) {
        if message::watch_created(answer) {
            self.created += 1;
        }
        if message::watch_canceled(answer) {
            self.refused += 1;
            self.over = true;
        }
        let events = message::watch_events(answer);
        self.events += events;
        if let Some(since) = self.writing_since.filter(|_| events > 0) {
            let since = since.elapsed();
            if self.window.counts(since) {
                self.counted += events;
            }
            self.over |= self.window.is_over(since);
        }
    }
}

impl Driver for Watching {
    const TICK: Option<Duration> = Some(Duration::from_micros(500));

    fn start(&mut self, at: usize, session: &mut Session) {
        if at == self.watching_connections {
            return;
        }
        let streams = self.plan.watches.div_ceil(self.plan.per_stream);
        for number in (at..streams).step_by(self.watching_connections) {
            let stream = session.open(number as u64, path::WATCH);
            let first = number * self.plan.per_stream;
            let last = (first + self.plan.per_stream).min(self.plan.watches);
            for watch in first..last {
                self.request.clear();
                let key = Self::key(watch % self.plan.keys);
                message::watch(&mut self.request, key.as_bytes());
                session.send(stream, &self.request, false);
            }
        }
    }

    fn happened(&mut self, at: usize, session: &mut Session, token: u64, what: What<'_>) {
        match what {
            What::Message(answer) if token != WRITER => self.watched(answer),
            What::Message(_) | What::Piece { .. } => {}
            What::Ended { answered } => {
                if token != WRITER || !answered {
                    self.refused += 1;
                    self.over = true;
                }
            }
        }
        if at == self.watching_connections {
            self.write(session);
        }
    }

    fn tick(&mut self, at: usize, session: &mut Session) {
        if at == self.watching_connections {
            self.write(session);
        }
        if let Some(since) = self.writing_since {
            self.over |= self.window.is_over(since.elapsed());
        }
    }

    fn finished(&self) -> bool {
        self.over
    }
}

/// Streams of keep-alives, each with one under way.
pub struct KeepingAlive {
    leases: Vec<u64>,
    streams: usize,
    connections: usize,
    window: Window,
    since: Instant,
    open: Vec<u32>,
    next: Vec<usize>,
    counted: u64,
    refused: u64,
    request: Vec<u8>,
    over: bool,
}

impl KeepingAlive {
    /// `streams` streams over `connections` connections, renewing `leases` in turn.
    pub fn new(leases: Vec<u64>, streams: usize, connections: usize, window: Window) -> Self {
        Self {
            next: (0..streams).collect(),
            open: vec![0; streams],
            leases,
            streams,
            connections,
            window,
            since: Instant::now(),
            counted: 0,
            refused: 0,
            request: Vec::new(),
            over: false,
        }
    }

    /// Renewals a second.
    ///
    /// # Errors
    /// When a lease was not known.
    pub fn per_second(&self) -> anyhow::Result<f64> {
        ensure!(self.refused == 0, "{} renewals were refused", self.refused);
        Ok(rate(self.counted, self.window.measured))
    }

    fn renew(&mut self, stream: usize, session: &mut Session) {
        let lease = self.leases[self.next[stream] % self.leases.len()];
        self.next[stream] += self.streams;
        self.request.clear();
        message::lease_keep_alive(&mut self.request, lease);
        session.send(self.open[stream], &self.request, false);
    }
}

impl Driver for KeepingAlive {
    fn start(&mut self, at: usize, session: &mut Session) {
        for stream in (at..self.streams).step_by(self.connections) {
            self.open[stream] = session.open(stream as u64, path::LEASE_KEEP_ALIVE);
            self.renew(stream, session);
        }
    }

    fn happened(&mut self, _at: usize, session: &mut Session, token: u64, what: What<'_>) {
        const TTL: u64 = 3;
        let since = self.since.elapsed();
        self.over |= self.window.is_over(since);
        match what {
            What::Piece { .. } => {}
            What::Message(answer) => {
                if message::number(answer, TTL) == 0 {
                    self.refused += 1;
                }
                self.counted += u64::from(self.window.counts(since));
                self.renew(usize::try_from(token).expect("a stream's number"), session);
            }
            What::Ended { .. } => {
                self.refused += 1;
                self.over = true;
            }
        }
    }

    fn finished(&self) -> bool {
        self.over
    }
}
