//! The leader's part: endorsements are fetched before they end.
//!
//! An endorsement is due when half of the time that it held at its arrival is gone, and
//! at once when a verifier has missed it. A fetch that fails is tried again after a
//! pause that doubles, with jitter, so that quorums that lost their source together do
//! not come back together. What is wrong is told when the end is in sight.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nautilus_attest_protocol::Refused;
use nautilus_attest_tee::inspect_endorsement;
use nautilus_machine::{Command, Kv, Operation, Proposal, Put, Txn};
use nautilus_machinery::resource;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::endorsed::{About, Endorsed};
use super::row::{self, Row, RowError};
use super::source::{Fetcher, Sources};

/// How often the leader looks what is due.
const TICK: Duration = Duration::from_secs(1);
/// The first pause after a failure.
const PAUSE_MIN: Duration = Duration::from_secs(5);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(3600);
/// An end so near is told.
const IN_SIGHT: Duration = Duration::from_secs(7 * 86_400);
/// It is told again after so long.
const TELL_AGAIN: Duration = Duration::from_secs(86_400);
/// Fetched at once.
const FETCHES: usize = 4;

/// Refreshes while this node leads, and notes what this node's verifiers miss.
pub(crate) struct Keeper {
    kv: Arc<dyn Kv>,
    endorsed: Arc<Endorsed>,
    fetcher: Option<Fetcher>,
}

/// Why an endorsement was not refreshed.
#[derive(Debug, thiserror::Error)]
enum RefreshError {
    #[error("{0:#}")]
    Fetch(anyhow::Error),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Row(#[from] RowError),
    #[error("the source has only one that ended at {expired_at_ms} ms (since 1970)")]
    Ended { expired_at_ms: u64 },
}

/// What goes wrong with one endorsement.
struct Failing {
    failures: u32,
    again_at_ms: u64,
}

impl Keeper {
    /// From these sources; without any it only notes and tells.
    pub(crate) fn new(
        kv: Arc<dyn Kv>,
        endorsed: Arc<Endorsed>,
        sources: Sources,
    ) -> anyhow::Result<Self> {
        let fetcher = match sources.is_empty() {
            true => None,
            false => Some(Fetcher::new(sources)?),
        };
        Ok(Self {
            kv,
            endorsed,
            fetcher,
        })
    }

    /// Until told to stop.
    pub(crate) async fn run(self, stopped: CancellationToken) {
        tokio::select! {
            () = stopped.cancelled() => {}
            () = self.note() => {}
            () = self.keep() => {}
        }
    }

    /// Tells the quorum what verifiers here look for in vain.
    async fn note(&self) {
        loop {
            for name in self.endorsed.missed().await {
                match row::write(self.kv.as_ref(), &name, &Row::wanted()).await {
                    Ok(()) => tracing::info!(name, "an endorsement is wanted"),
                    // The verifier misses it again.
                    Err(error) => tracing::warn!(name, %error, "a wanted endorsement is not noted"),
                }
            }
        }
    }

    async fn keep(&self) {
        let mut failing: BTreeMap<String, Failing> = BTreeMap::new();
        let mut told: BTreeMap<String, u64> = BTreeMap::new();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !self.kv.leadership().is_self {
                failing.clear();
                continue;
            }
            let now_ms = now_ms();
            let rows = self.endorsed.rows();
            self.tell(&rows, now_ms, &mut told).await;
            let Some(fetcher) = &self.fetcher else {
                continue;
            };
            let due = rows.iter().filter(|(name, about)| {
                let waits = failing
                    .get(name)
                    .is_some_and(|failing| now_ms < failing.again_at_ms);
                !waits && is_due(about, now_ms) && fetcher.has(name)
            });
            let due: Vec<&str> = due.map(|(name, _)| name.as_str()).take(FETCHES).collect();
            let fetches = due.iter().map(|name| self.refresh(fetcher, name, now_ms));
            let outcomes = futures_util::future::join_all(fetches).await;
            for (name, outcome) in due.into_iter().zip(outcomes) {
                let vendor = name.split('/').next().unwrap_or_default().to_owned();
                let Err(error) = outcome else {
                    failing.remove(name);
                    metrics::counter!("nautilus_endorsement_refreshes_total", "vendor" => vendor)
                        .increment(1);
                    tracing::info!(name, "an endorsement was refreshed");
                    continue;
                };
                metrics::counter!("nautilus_endorsement_refresh_failures_total", "vendor" => vendor)
                    .increment(1);
                let failures = failing.get(name).map_or(0, |failing| failing.failures) + 1;
                let pause = pause(failures, random_share());
                tracing::warn!(
                    name,
                    %error,
                    failures,
                    again_in_s = pause.as_secs(),
                    "an endorsement could not be refreshed"
                );
                let again_at_ms = now_ms.saturating_add(millis(pause));
                let entry = Failing {
                    failures,
                    again_at_ms,
                };
                failing.insert(name.to_owned(), entry);
            }
        }
    }

    async fn refresh(
        &self,
        fetcher: &Fetcher,
        name: &str,
        now_ms: u64,
    ) -> Result<(), RefreshError> {
        let fetched = fetcher.fetch(name).await.map_err(RefreshError::Fetch)?;
        let row = checked(name, fetched.bytes, fetched.url, now_ms)?;
        let expired_at_ms = row.expires_at_ms;
        row::write(self.kv.as_ref(), name, &row).await?;
        if expired_at_ms <= now_ms {
            return Err(RefreshError::Ended { expired_at_ms });
        }
        Ok(())
    }

    /// Warns of every end in sight, once a day.
    async fn tell(&self, rows: &[(String, About)], now_ms: u64, told: &mut BTreeMap<String, u64>) {
        for (name, about) in rows {
            let in_sight = now_ms.saturating_add(millis(IN_SIGHT)) >= about.expires_at_ms;
            let recently = told
                .get(name)
                .is_some_and(|at| now_ms < at.saturating_add(millis(TELL_AGAIN)));
            if about.is_wanted || !in_sight || recently {
                continue;
            }
            told.insert(name.clone(), now_ms);
            let ends = shown_time(about.expires_at_ms);
            tracing::warn!(name, ends, "the end of an endorsement is in sight");
            if let Err(error) = self.event(name, &ends, now_ms).await {
                tracing::warn!(
                    name,
                    error,
                    "the event of an endorsement's end was not written"
                );
            }
        }
    }

    /// The same as a Kubernetes Event, for whoever watches those.
    async fn event(&self, name: &str, ends: &str, now_ms: u64) -> Result<(), String> {
        let events = resource::find("", "v1", "events").ok_or("there are no events")?;
        let object = format!("endorsement.{}", name.replace('/', "."));
        let now = shown_time(now_ms);
        let event = json!({
            "kind": "Event",
            "apiVersion": "v1",
            "metadata": {
                "name": object,
                "namespace": "default",
                "uid": uid().ok_or("the system gave no random bytes")?,
                "creationTimestamp": now,
            },
            "involvedObject": { "kind": "Endorsement", "name": name },
            "reason": "EndorsementExpiring",
            "message": format!(
                "the endorsement {name} ends at {ends}; without a newer one evidence that needs it \
                 is refused. See `nautilus attest collateral list`"
            ),
            "source": { "component": "nautilus" },
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "type": "Warning",
        });
        let key = events.key(Some("default"), &object);
        let proposal = Proposal::new(Command::Txn(Txn {
            compare: Vec::new(),
            then: vec![Operation::Put(Put::new(
                key,
                event.to_string().into_bytes(),
            ))],
            otherwise: Vec::new(),
        }));
        let written = self.kv.propose(proposal).await;
        written.map(drop).map_err(|error| error.to_string())
    }
}

/// A row of an endorsement that is what its name says.
pub(super) fn checked(
    name: &str,
    bytes: Vec<u8>,
    source: String,
    now_ms: u64,
) -> Result<Row, Refused> {
    let facts = inspect_endorsement(name, &bytes)?;
    Ok(Row {
        bytes,
        fetched_at_ms: now_ms,
        issued_at_ms: facts.issued_at_ms,
        expires_at_ms: facts.expires_at_ms,
        is_checked: facts.is_checked,
        source,
    })
}

fn is_due(about: &About, now_ms: u64) -> bool {
    if about.is_wanted {
        return true;
    }
    let held = about.expires_at_ms.saturating_sub(about.fetched_at_ms);
    now_ms >= about.fetched_at_ms.saturating_add(held / 2)
}

/// Doubles from [`PAUSE_MIN`] to [`PAUSE_MAX`]; `share`, from 0 to 1, takes up to half
/// of it away.
fn pause(failures: u32, share: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let whole = PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX);
    whole.mul_f64(1.0 - share.clamp(0.0, 1.0) / 2.0)
}

fn random_share() -> f64 {
    let mut bytes = [0; 4];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.0,
    }
}

/// A random (version 4) UUID.
fn uid() -> Option<String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let text = hex::encode(bytes);
    Some(format!(
        "{}-{}-{}-{}-{}",
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..]
    ))
}

/// RFC 3339 with seconds.
pub(crate) fn shown_time(at_ms: u64) -> String {
    let seconds = i64::try_from(at_ms / 1000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| at_ms.to_string(), |at| at.to_string())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, millis)
}

/// Says what the metrics of endorsements mean.
pub(crate) fn describe_metrics() {
    metrics::describe_gauge!(
        "nautilus_endorsement_expiry_timestamp_seconds",
        "When an endorsement ends, in seconds since the epoch, by name."
    );
    metrics::describe_counter!(
        "nautilus_endorsement_refreshes_total",
        "Endorsements fetched by this node while it led, by vendor."
    );
    metrics::describe_counter!(
        "nautilus_endorsement_refresh_failures_total",
        "Fetches of endorsements that came to nothing, by vendor."
    );
    // A rate over a counter that is not there yet misses its first increment.
    for vendor in ["amd", "intel"] {
        metrics::counter!("nautilus_endorsement_refreshes_total", "vendor" => vendor).increment(0);
        metrics::counter!("nautilus_endorsement_refresh_failures_total", "vendor" => vendor)
            .increment(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(fetched_at_ms: u64, expires_at_ms: u64) -> About {
        About {
            is_wanted: false,
            fetched_at_ms,
            issued_at_ms: 0,
            expires_at_ms,
            is_checked: true,
            source: String::new(),
        }
    }

    #[test]
    fn an_endorsement_is_due_at_half_of_what_it_had_left() {
        assert!(!is_due(&about(1000, 2000), 1499));
        assert!(is_due(&about(1000, 2000), 1500));
        assert!(is_due(&about(3000, 2000), 3000), "it had ended already");
        let missed = About {
            is_wanted: true,
            ..about(0, u64::MAX)
        };
        assert!(is_due(&missed, 0));
    }

    #[test]
    fn pauses_double_up_to_an_hour_and_differ() {
        assert_eq!(pause(1, 0.0), Duration::from_secs(5));
        assert_eq!(pause(2, 0.0), Duration::from_secs(10));
        assert_eq!(pause(2, 1.0), Duration::from_secs(5));
        assert_eq!(pause(40, 0.0), PAUSE_MAX);
        assert_eq!(pause(u32::MAX, 0.5), PAUSE_MAX.mul_f64(0.75));
    }

    #[test]
    fn a_time_is_shown_as_the_api_shows_it() {
        assert_eq!(shown_time(1_790_002_880_999), "2026-09-21T15:01:20Z");
    }
}
