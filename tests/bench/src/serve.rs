//! What a cluster serves: puts, reads, transactions, watches, leases.

use std::time::Duration;

use anyhow::Context as _;

use crate::closed_loop::{Measured, Span, Work, connect, rate, run};
use crate::drive::{Endpoint, drive};
use crate::effort::Effort;
use crate::keys::{Contended, Fill, Gets, Mixed, Puts};
use crate::message;
use crate::plan::{Numbers, Wanted};
use crate::side::{Side, leader};
use crate::streams::{FanOut, KeepingAlive, Watching, Window};

/// For a measurement, whatever its length.
const PATIENCE: Duration = Duration::from_secs(300);
/// Keys of the rows that put.
const PUT_KEYS: u64 = 100_000;
/// Keys of the rows that read.
const READ_KEYS: u64 = 10_000;
/// Bytes of a value of the rows that read.
const READ_VALUE_BYTES: usize = 256;
/// Clients of the rows that do not say how many.
const CLIENTS: usize = 64;
/// Sizes of values of the rows that put.
const PUT_SIZES: [(usize, &str); 2] = [(256, "256b"), (1024, "1kib")];
/// Clients of the rows that put.
const PUT_CLIENTS: [usize; 3] = [1, 64, 512];
/// Streams of keep-alives.
const KEEP_ALIVE_STREAMS: usize = 64;
/// Leases that are kept alive.
const LEASES: u64 = 1000;
/// Seconds of a lease.
const LEASE_TTL_S: u64 = 600;

/// A cluster under measurement.
pub struct Bench<'a> {
    side: &'a dyn Side,
    effort: &'a Effort,
    wanted: &'a Wanted,
    all: Vec<Endpoint>,
    leader: usize,
}

/// All rows of this kind on a cluster that serves.
///
/// # Errors
/// When a row cannot be measured.
pub async fn measure(
    side: &dyn Side,
    effort: &Effort,
    wanted: &Wanted,
    numbers: &mut Numbers,
) -> anyhow::Result<()> {
    let mut bench = Bench {
        side,
        effort,
        wanted,
        all: side.endpoints(),
        leader: leader(side).await?,
    };
    bench.puts(numbers).await?;
    bench.reads(numbers).await?;
    bench.transactions(numbers).await?;
    bench.watches(numbers).await?;
    bench.leases(numbers).await
}

impl Bench<'_> {
    fn span(&self) -> Span {
        Span::For {
            warmup: self.effort.warmup,
            measured: self.effort.measured,
        }
    }

    fn window(&self) -> Window {
        Window {
            warmup: self.effort.warmup,
            measured: self.effort.measured,
        }
    }

    fn leader(&self) -> &[Endpoint] {
        &self.all[self.leader..=self.leader]
    }

    fn follower(&self) -> &[Endpoint] {
        let at = (self.leader + 1) % self.all.len();
        &self.all[at..=at]
    }

    async fn closed<W: Work>(
        &self,
        what: &str,
        endpoints: &[Endpoint],
        clients: usize,
        work: W,
    ) -> anyhow::Result<(Measured, W)> {
        let meter = crate::processes::Meter::start(&self.side.processes());
        let done = run(endpoints, clients, self.span(), PATIENCE, work)
            .await
            .with_context(|| format!("{}: {what}", self.side.name()))?;
        let per_second = done.0.per_second();
        crate::progress(&format!(
            "{:8} {what:36} {per_second:12.1}/s  p50 {:.2} ms  p99 {:.2} ms  {}",
            self.side.name(),
            done.0.quantile_ms(0.5),
            done.0.quantile_ms(0.99),
            meter.text(per_second),
        ));
        Ok(done)
    }

    async fn puts(&mut self, numbers: &mut Numbers) -> anyhow::Result<()> {
        if self
            .wanted
            .any(&["put_sequential_ms_p50", "put_sequential_ms_p99"])
        {
            let work = Puts::new(256, PUT_KEYS);
            let (found, _) = self
                .closed("put_sequential", self.leader(), 1, work)
                .await?;
            numbers.add("put_sequential_ms_p50", found.quantile_ms(0.5));
            numbers.add("put_sequential_ms_p99", found.quantile_ms(0.99));
        }
        for (bytes, size) in PUT_SIZES {
            for clients in PUT_CLIENTS {
                let what = format!("put_{size}_c{clients}_per_s");
                if !self.wanted.any(&[&what]) {
                    continue;
                }
                // A single client has one member: the one that leads.
                let members = if clients == 1 {
                    self.leader()
                } else {
                    &self.all
                };
                let work = Puts::new(bytes, PUT_KEYS);
                let (found, _) = self.closed(&what, members, clients, work).await?;
                numbers.add(&what, found.per_second());
            }
        }
        Ok(())
    }

    async fn fill(&self) -> anyhow::Result<()> {
        let fill = Fill::new(READ_VALUE_BYTES, 0, READ_KEYS);
        run(self.leader(), 8, Span::All, PATIENCE, fill)
            .await
            .context("fill")?;
        Ok(())
    }

    async fn reads(&mut self, numbers: &mut Numbers) -> anyhow::Result<()> {
        let rows = [
            "range_linearizable_leader_per_s",
            "range_linearizable_follower_per_s",
            "mixed_90_10_per_s",
        ];
        if !self.wanted.any(&rows) {
            return Ok(());
        }
        self.fill().await?;
        for (what, members) in [(rows[0], self.leader()), (rows[1], self.follower())] {
            if self.wanted.any(&[what]) {
                let work = Gets::new(READ_KEYS);
                let (found, _) = self.closed(what, members, CLIENTS, work).await?;
                numbers.add(what, found.per_second());
            }
        }
        if self.wanted.any(&[rows[2]]) {
            let work = Mixed::new(READ_VALUE_BYTES, READ_KEYS);
            let (found, _) = self.closed(rows[2], &self.all, CLIENTS, work).await?;
            numbers.add(rows[2], found.per_second());
        }
        Ok(())
    }

    async fn transactions(&mut self, numbers: &mut Numbers) -> anyhow::Result<()> {
        let what = "txn_contended_per_s";
        if self.wanted.any(&[what]) {
            let work = Contended::new(READ_VALUE_BYTES, CLIENTS);
            let (found, work) = self.closed(what, &self.all, CLIENTS, work).await?;
            anyhow::ensure!(work.swapped > 0, "no transaction swapped");
            numbers.add(what, found.per_second());
        }
        Ok(())
    }

    async fn watches(&mut self, numbers: &mut Numbers) -> anyhow::Result<()> {
        let one_key = FanOut {
            watches: 1000,
            per_stream: 100,
            keys: 1,
            puts_under_way: 4,
            value_bytes: 64,
        };
        let many_keys = FanOut {
            watches: 10_000,
            per_stream: 100,
            keys: 10_000,
            puts_under_way: 64,
            value_bytes: 64,
        };
        for (what, plan) in [
            ("watch_fanout_1000_events_per_s", one_key),
            ("watch_10000_keys_events_per_s", many_keys),
        ] {
            if !self.wanted.any(&[what]) {
                continue;
            }
            let meter = crate::processes::Meter::start(&self.side.processes());
            let mut connections = connect(&self.all, usize::MAX).await?;
            connections.extend(connect(self.leader(), 1).await?);
            let watching = Watching::new(plan, self.window(), &connections);
            let watching = drive(connections, watching, PATIENCE)
                .await
                .with_context(|| format!("{}: {what}", self.side.name()))?;
            let rate = watching.events_per_second()?;
            self.tell(what, rate, &meter);
            numbers.add(what, rate);
        }
        Ok(())
    }

    async fn leases(&mut self, numbers: &mut Numbers) -> anyhow::Result<()> {
        let what = "lease_keepalive_per_s";
        if !self.wanted.any(&[what]) {
            return Ok(());
        }
        let grants = Grants {
            next: self.effort.seed(),
            left: LEASES,
            granted: Vec::new(),
        };
        let (_, grants) = run(self.leader(), 32, Span::All, PATIENCE, grants)
            .await
            .context("grant leases")?;
        let meter = crate::processes::Meter::start(&self.side.processes());
        let connections = connect(&self.all, usize::MAX).await?;
        let renewing = KeepingAlive::new(
            grants.granted,
            KEEP_ALIVE_STREAMS,
            connections.len(),
            self.window(),
        );
        let renewing = drive(connections, renewing, PATIENCE)
            .await
            .with_context(|| format!("{}: {what}", self.side.name()))?;
        let rate = renewing.per_second()?;
        self.tell(what, rate, &meter);
        numbers.add(what, rate);
        Ok(())
    }

    fn tell(&self, what: &str, rate: f64, meter: &crate::processes::Meter) {
        crate::progress(&format!(
            "{:8} {what:36} {rate:12.1}/s  {}",
            self.side.name(),
            meter.text(rate)
        ));
    }
}

/// Grants leases, each once.
struct Grants {
    next: u64,
    left: u64,
    granted: Vec<u64>,
}

impl Work for Grants {
    fn next(&mut self, _client: usize, request: &mut Vec<u8>) -> Option<&'static str> {
        self.left = self.left.checked_sub(1)?;
        self.next += 1;
        message::lease_grant(request, self.next, LEASE_TTL_S);
        Some(message::path::LEASE_GRANT)
    }

    fn answered(&mut self, _client: usize, answer: &[u8]) {
        const ID: u64 = 2;
        self.granted.push(message::number(answer, ID));
    }
}

/// Calls a second of `work` by `clients` clients on all members.
///
/// # Errors
/// When it fails.
pub async fn per_second<W: Work>(
    side: &dyn Side,
    effort: &Effort,
    clients: usize,
    work: W,
) -> anyhow::Result<f64> {
    let span = Span::For {
        warmup: effort.warmup,
        measured: effort.measured,
    };
    let (found, _) = run(&side.endpoints(), clients, span, PATIENCE, work).await?;
    // A slow call may be longer than the measured time.
    if found.calls == 0 {
        let longest = effort.warmup + effort.measured;
        return Ok(rate(1, longest));
    }
    Ok(found.per_second())
}
