//! The rows of one side.

use std::time::Duration;

use anyhow::Context as _;

use super::closed::{Ask, Asks, ask, connect, run};
use super::fanout;
use super::objects::{Apply, Create, GetPods, ListPods, Mixed, PatchStatus, create_owner, uid};
use super::open::offer;
use super::rows::ROWS;
use super::side::ApiSide;
use crate::closed_loop::{Measured, Span};
use crate::drive::{Driver, What, drive};
use crate::http2::Session;
use crate::keys::Random;
use crate::plan::{Numbers, Wanted};
use crate::processes::{Meter, resident};

/// For a measurement, whatever its length.
const PATIENCE: Duration = Duration::from_secs(900);
/// Clients of the rows that do not say how many, in a full run.
pub const CLIENTS: usize = 64;
/// Clients that list all pods.
const LIST_CLIENTS: usize = 4;
/// Rates of the mixed load, the first that is held counts.
const RATES: [f64; 16] = [
    10_000.0, 9_000.0, 8_000.0, 7_000.0, 6_000.0, 5_000.0, 4_000.0, 3_000.0, 2_500.0, 2_000.0,
    1_500.0, 1_000.0, 750.0, 500.0, 250.0, 100.0,
];
/// The share of the requests that a held rate answers in time.
const HELD: f64 = 0.98;
/// A load under which the slowest hundredth waits longer is not held.
const HELD_MS_P99: f64 = 1_000.0;

/// How much is spent on a side.
#[derive(Debug, Clone)]
pub struct ApiEffort {
    /// Before each measured time.
    pub warmup: Duration,
    /// Measured.
    pub measured: Duration,
    /// Without load, before memory is looked at.
    pub quiet: Duration,
    /// Clients of the rows that do not say how many.
    pub clients: usize,
    /// Pods while the rows are measured.
    pub pods: usize,
    /// Pods of the largest row of memory.
    pub many_pods: usize,
}

/// A side under measurement.
pub struct Bench<'a> {
    side: &'a dyn ApiSide,
    effort: &'a ApiEffort,
    wanted: &'a Wanted,
    numbers: &'a mut Numbers,
}

/// All rows, on a side that is ready and empty.
///
/// # Errors
/// When a row cannot be measured.
pub async fn measure(
    side: &dyn ApiSide,
    effort: &ApiEffort,
    wanted: &Wanted,
    numbers: &mut Numbers,
) -> anyhow::Result<()> {
    let mut bench = Bench {
        side,
        effort,
        wanted,
        numbers,
    };
    let answer = ask(&side.endpoint(), &create_owner(), PATIENCE).await?;
    let owner = uid(&answer).context("no uid of the pods' owner")?;
    let pods = Create::pods(0..effort.pods, &owner);
    let created = bench
        .closed("create", effort.clients, Span::All, pods)
        .await?;
    bench.note("create", &created);
    run(&side.endpoint(), 8, Span::All, PATIENCE, Create::leases())
        .await
        .context("create the leases")?;
    bench.memory("resident_10k_pods").await?;
    bench.rows().await?;
    if bench.wants_any("resident_100k_pods") {
        bench.many(&owner).await?;
        bench.memory("resident_100k_pods").await?;
    }
    Ok(())
}

impl Bench<'_> {
    fn span(&self) -> Span {
        Span::For {
            warmup: self.effort.warmup,
            measured: self.effort.measured,
        }
    }

    fn wants_any(&self, prefix: &str) -> bool {
        ROWS.iter()
            .any(|row| row.what.starts_with(prefix) && self.wanted.any(&[row.what]))
    }

    fn tell(&self, text: &str) {
        crate::progress(&format!("{:14} {text}", self.side.name()));
    }

    async fn closed<A: Asks>(
        &self,
        what: &str,
        clients: usize,
        span: Span,
        asks: A,
    ) -> anyhow::Result<Measured> {
        let meter = Meter::start(&self.side.processes());
        let found = run(&self.side.endpoint(), clients, span, PATIENCE, asks)
            .await
            .with_context(|| format!("{}: {what}", self.side.name()))?;
        let per_second = found.per_second();
        self.tell(&format!(
            "{what:24} {per_second:10.1}/s  p50 {:.2} ms  p99 {:.2} ms  {}",
            found.quantile_ms(0.5),
            found.quantile_ms(0.99),
            meter.text(per_second),
        ));
        Ok(found)
    }

    fn note(&mut self, what: &str, found: &Measured) {
        // A row without an answer in its time has no number.
        if found.calls == 0 {
            return;
        }
        let mut add = |name: String, number: f64| {
            if self.wanted.any(&[&name]) {
                self.numbers.add(&name, number);
            }
        };
        add(format!("{what}_per_s"), found.per_second());
        add(format!("{what}_ms_p50"), found.quantile_ms(0.5));
        add(format!("{what}_ms_p99"), found.quantile_ms(0.99));
    }

    async fn row<A: Asks>(&mut self, what: &str, clients: usize, asks: A) {
        if self.wants_any(what) {
            match self.closed(what, clients, self.span(), asks).await {
                Ok(found) => self.note(what, &found),
                // The other rows count all the same.
                Err(error) => self.tell(&format!("{what}: {error:#}")),
            }
        }
    }

    async fn rows(&mut self) -> anyhow::Result<()> {
        let pods = self.effort.pods;
        let random = Random::new(7);
        self.row("get", self.effort.clients, GetPods { pods, random })
            .await;
        self.row("list_10k_pods", LIST_CLIENTS, ListPods).await;
        self.row(
            "status_patch",
            self.effort.clients,
            PatchStatus::new(pods, 11),
        )
        .await;
        self.row("apply", self.effort.clients, Apply::default())
            .await;
        if self.wants_any("mixed") {
            self.mixed().await?;
        }
        let what = "watch_fanout_1000_events_per_s";
        if self.wants_any(what) {
            let meter = Meter::start(&self.side.processes());
            let ApiEffort {
                warmup, measured, ..
            } = *self.effort;
            let endpoint = self.side.endpoint();
            let rate = fanout::events_per_second(&endpoint, warmup, measured, PATIENCE)
                .await
                .with_context(|| format!("{}: {what}", self.side.name()))?;
            self.tell(&format!("{what:24} {rate:10.1}/s  {}", meter.text(rate)));
            self.numbers.add(what, rate);
        }
        Ok(())
    }

    /// The highest of [`RATES`] that is held, and the latencies under it.
    async fn mixed(&mut self) -> anyhow::Result<()> {
        let mut ceiling = f64::INFINITY;
        for (run, rate) in (0..).zip(RATES) {
            // An overloaded server has shown what it can answer.
            if rate > ceiling {
                continue;
            }
            let ApiEffort {
                warmup,
                measured,
                pods,
                ..
            } = *self.effort;
            let endpoint = self.side.endpoint();
            let meter = Meter::start(&self.side.processes());
            let mixed = Mixed::new(pods, 100 + run);
            let offered = offer(&endpoint, rate, warmup, measured, PATIENCE, mixed)
                .await
                .with_context(|| format!("{}: mixed", self.side.name()))?;
            let found = &offered.measured;
            let (p50, p99) = (found.quantile_ms(0.5), found.quantile_ms(0.99));
            let (refused, first) = &offered.refused;
            self.tell(&format!(
                "mixed at {rate:8.0}/s {:10.1}/s  p50 {p50:.2} ms  p99 {p99:.2} ms  held {:.3}, refused {refused} {}  {}",
                found.per_second(),
                offered.held(),
                first.as_deref().unwrap_or_default(),
                meter.text(found.per_second()),
            ));
            // Of the lowest the numbers are told in any case.
            let lowest = rate <= RATES[RATES.len() - 1];
            if lowest || (offered.held() >= HELD && p99 <= HELD_MS_P99) {
                self.numbers.add("mixed_held_per_s", rate);
                self.numbers.add("mixed_ms_p50", p50);
                self.numbers.add("mixed_ms_p99", p99);
                return Ok(());
            }
            ceiling = (found.per_second() * 1.1).max(rate / 4.0);
            // What was asked and not waited for is worked off first.
            tokio::time::sleep(self.effort.quiet).await;
        }
        Ok(())
    }

    /// Creates what is missing to the largest row.
    async fn many(&self, owner: &str) -> anyhow::Result<()> {
        const AT_ONCE: usize = 10_000;
        let mut from = self.effort.pods;
        while from < self.effort.many_pods {
            let to = (from + AT_ONCE).min(self.effort.many_pods);
            let what = format!("create up to {to}");
            self.closed(
                &what,
                self.effort.clients,
                Span::All,
                Create::pods(from..to, owner),
            )
            .await?;
            from = to;
        }
        Ok(())
    }

    /// Memory while an informer has listed the pods and goes on watching.
    async fn memory(&mut self, what: &str) -> anyhow::Result<()> {
        if !self.wants_any(what) {
            return Ok(());
        }
        let endpoint = self.side.endpoint();
        let once = Listing::new(self.effort.quiet);
        drive(connect(&endpoint, 1).await?, once, PATIENCE).await?;
        let server = resident(&[self.side.server()])?.whole_bytes;
        let all = resident(&self.side.processes())?.whole_bytes;
        self.tell(&format!(
            "{what:24} {} MiB, of all processes {} MiB",
            server >> 20,
            all >> 20
        ));
        self.numbers
            .add(&format!("{what}_bytes"), crate::closed_loop::to_f64(server));
        self.numbers.add(
            &format!("{what}_all_bytes"),
            crate::closed_loop::to_f64(all),
        );
        Ok(())
    }
}

/// An informer's list, its watch, and quiet.
struct Listing {
    quiet: Duration,
    quiet_since: Option<std::time::Instant>,
}

impl Listing {
    fn new(quiet: Duration) -> Self {
        Self {
            quiet,
            quiet_since: None,
        }
    }
}

impl Driver for Listing {
    const TICK: Option<Duration> = Some(Duration::from_millis(50));

    fn start(&mut self, _at: usize, session: &mut Session) {
        let list = Ask::get("/api/v1/pods?resourceVersion=0");
        session.request(0, &list.request());
    }

    fn happened(&mut self, _at: usize, session: &mut Session, token: u64, what: What<'_>) {
        if token == 0 && matches!(what, What::Ended { .. }) {
            self.quiet_since = Some(std::time::Instant::now());
            let watch = Ask::get(
                "/api/v1/pods?watch=true&sendInitialEvents=false&resourceVersionMatch=NotOlderThan",
            );
            session.request(1, &watch.request());
        }
    }

    fn finished(&self) -> bool {
        self.quiet_since
            .is_some_and(|since| since.elapsed() >= self.quiet)
    }
}
