//! The gap that the end of a leader leaves: clients on the two others put all the time, one
//! every few milliseconds, and give up on a call that is not answered soon, to try another.
//! The gap is the longest time without an acknowledged put.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::drive::{Driver, What, drive};
use crate::http2::Session;
use crate::keys::key;
use crate::message::{self, path};
use crate::side::{Side, leader, serving};

/// Between two puts on one connection.
const PROBE: Duration = Duration::from_millis(2);
/// After which a client gives up on a put.
const GIVE_UP: Duration = Duration::from_millis(250);
/// Before the kill.
const CALM: Duration = Duration::from_millis(700);
/// After the first acknowledgement by the next leader.
const AFTER: Duration = Duration::from_millis(700);
/// For all of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Acknowledgements without a pause after which the new leader counts as settled.
const SETTLED: u64 = 50;

struct Probing {
    victim: Pid,
    began: Instant,
    killed: Option<Instant>,
    acknowledged: Instant,
    gap: Duration,
    since_gap: u64,
    sent: u64,
    under_way: Vec<Vec<(u64, u32, Instant)>>,
    failed_kill: bool,
}

impl Driver for Probing {
    const TICK: Option<Duration> = Some(PROBE);

    fn start(&mut self, _at: usize, _session: &mut Session) {}

    fn happened(&mut self, at: usize, _session: &mut Session, token: u64, what: What<'_>) {
        match what {
            What::Piece { .. } => {}
            What::Message(_) => {
                let now = Instant::now();
                if self.killed.is_some() {
                    let gap = now - self.acknowledged;
                    if gap > self.gap {
                        self.gap = gap;
                        self.since_gap = 0;
                    }
                    self.since_gap += 1;
                }
                self.acknowledged = now;
            }
            What::Ended { .. } => self.under_way[at].retain(|(number, ..)| *number != token),
        }
    }

    fn tick(&mut self, at: usize, session: &mut Session) {
        let now = Instant::now();
        if self.killed.is_none() && now - self.began > CALM {
            self.failed_kill = kill_process(self.victim, Signal::KILL).is_err();
            self.killed = Some(now);
        }
        self.under_way[at].retain(|(_, stream, sent)| {
            let waits = now - *sent < GIVE_UP;
            if !waits {
                session.cancel(*stream);
            }
            waits
        });
        let mut request = Vec::new();
        message::put(&mut request, &key(self.sent % 1000), b"failover");
        let stream = session.open(self.sent, path::PUT);
        session.send(stream, &request, true);
        self.under_way[at].push((self.sent, stream, now));
        self.sent += 1;
    }

    fn finished(&self) -> bool {
        let quiet = self.killed.is_some_and(|killed| killed.elapsed() > AFTER);
        self.failed_kill
            || (quiet && self.since_gap > SETTLED && self.gap > PROBE)
                && self.acknowledged.elapsed() < GIVE_UP
    }
}

/// Kills the leader, measures the gap in milliseconds, and brings the member back.
///
/// # Errors
/// When there is no leader to kill, or none comes after it.
pub async fn gap_ms(side: &mut dyn Side) -> anyhow::Result<f64> {
    let victim = leader(side).await?;
    let pid = *side
        .processes()
        .get(victim)
        .context("the leader's process")?;
    let mut connections = Vec::new();
    for (at, endpoint) in side.endpoints().iter().enumerate() {
        if at != victim {
            connections.push(endpoint.connect().await?);
        }
    }
    let now = Instant::now();
    let probing = Probing {
        victim: i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .context("a process id")?,
        began: now,
        killed: None,
        acknowledged: now,
        gap: Duration::ZERO,
        since_gap: 0,
        sent: 0,
        under_way: vec![Vec::new(); connections.len()],
        failed_kill: false,
    };
    let probing = drive(connections, probing, PATIENCE).await?;
    ensure!(!probing.failed_kill, "the leader could not be killed");
    side.kill(victim)?;
    side.start()?;
    serving(side).await?;
    Ok(probing.gap.as_secs_f64() * 1000.0)
}
