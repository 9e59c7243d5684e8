//! Archives on a schedule, made by whoever leads.
//!
//! Invariants
//! - When the next one is due is read from the destination, so that neither a restart
//!   nor a new leader makes one too many or forgets one.
//! - An archive counts only after it was read back and its signature held; older ones
//!   are removed only after that, and only this quorum's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;

use crate::destination::{Destination, Stored, archive_name};
use crate::error::BackupError;
use crate::stream::{Audience, Source};

/// Pause after a failure, and between two looks of a node that does not lead.
const LOOK: Duration = Duration::from_secs(10);

/// When archives are made, and which are kept.
#[derive(Clone)]
pub struct Plan {
    /// Where they go.
    pub destination: Destination,
    /// From the beginning of one to the beginning of the next.
    pub interval: Duration,
    /// So many of the newest are kept, at least 1.
    pub keep: usize,
    /// Those older than this are removed, but for the newest; `None`: none for their age.
    pub max_age: Option<Duration>,
    /// To whom they are sealed.
    pub audience: Audience,
}

/// What one run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The archive's name.
    pub name: String,
    /// Its length.
    pub size_bytes: u64,
    /// How many were removed.
    pub removed: usize,
}

/// Makes archives while this node leads, until stopped.
pub async fn run_schedule(source: Source, plan: Plan, stopped: CancellationToken) {
    describe_metrics();
    let look = LOOK.min(plan.interval);
    loop {
        let pause = match step(&source, &plan).await {
            Ok(pause) => pause.min(look).max(Duration::from_millis(1)),
            Err(error) => {
                metrics::counter!("nautilus_backup_failures_total").increment(1);
                tracing::error!(%error, "a scheduled snapshot failed");
                look
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stopped.cancelled() => return,
        }
    }
}

fn describe_metrics() {
    metrics::describe_gauge!(
        "nautilus_backup_last_success_timestamp_seconds",
        metrics::Unit::Seconds,
        "When this node last made a scheduled snapshot that was read back whole."
    );
    metrics::describe_gauge!(
        "nautilus_backup_last_bytes",
        metrics::Unit::Bytes,
        "The length of that snapshot."
    );
    metrics::describe_gauge!(
        "nautilus_backup_archives",
        "Snapshots kept at the destination, as this node last saw it."
    );
    metrics::describe_counter!(
        "nautilus_backup_failures_total",
        "Scheduled snapshots that failed on this node."
    );
    metrics::counter!("nautilus_backup_failures_total").increment(0);
}

/// Makes an archive if one is due; says how long to wait.
async fn step(source: &Source, plan: &Plan) -> Result<Duration, BackupError> {
    if !source.kv.leadership().is_self {
        return Ok(plan.interval);
    }
    let archives = plan.destination.list(&source.cluster).await?;
    let due = archives.last().map_or(0, |last| {
        last.created_unix_ms.saturating_add(millis(plan.interval))
    });
    let now = now_ms();
    if now < due {
        return Ok(Duration::from_millis(due - now));
    }
    let kept = make(source, plan, archives, now).await?;
    tracing::info!(name = %kept.name, bytes = kept.size_bytes, removed = kept.removed, "made a scheduled snapshot");
    Ok(plan.interval)
}

/// Makes an archive, reads it back, and removes those that are no longer kept.
async fn make(
    source: &Source,
    plan: &Plan,
    mut archives: Vec<Stored>,
    now: u64,
) -> Result<Kept, BackupError> {
    let mut archive = source.archive(plan.audience.clone()).await?;
    let name = archive_name(&source.cluster, now, archive.revision);
    let destination = &plan.destination;
    let size_bytes = destination.put(&name, &mut archive.pieces).await?;
    if let Err(error) = destination.verify(&name, &archive.signer).await {
        // It would count as the last good one otherwise.
        let _ = destination.remove(&name).await;
        return Err(error);
    }
    metrics::gauge!("nautilus_backup_last_success_timestamp_seconds").set(now as f64 / 1000.0);
    metrics::gauge!("nautilus_backup_last_bytes").set(size_bytes as f64);
    archives.push(Stored {
        name: name.clone(),
        created_unix_ms: now,
        size_bytes,
    });
    let removable = superfluous(&archives, plan.keep, plan.max_age, now);
    for name in &removable {
        destination.remove(name).await?;
    }
    metrics::gauge!("nautilus_backup_archives").set((archives.len() - removable.len()) as f64);
    Ok(Kept {
        name,
        size_bytes,
        removed: removable.len(),
    })
}

/// Which archives are no longer kept; `archives` are oldest first, and the newest stays.
fn superfluous(
    archives: &[Stored],
    keep: usize,
    max_age: Option<Duration>,
    now: u64,
) -> Vec<String> {
    let oldest_kept = archives.len().saturating_sub(keep.max(1));
    let too_old = |archive: &Stored| {
        max_age.is_some_and(|age| archive.created_unix_ms.saturating_add(millis(age)) < now)
    };
    let but_the_newest = archives.len().saturating_sub(1);
    let numbered = archives.iter().enumerate().take(but_the_newest);
    numbered
        .filter(|(index, archive)| *index < oldest_kept || too_old(archive))
        .map(|(_, archive)| archive.name.clone())
        .collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archives(times: &[u64]) -> Vec<Stored> {
        times
            .iter()
            .map(|&created_unix_ms| Stored {
                name: created_unix_ms.to_string(),
                created_unix_ms,
                size_bytes: 1,
            })
            .collect()
    }

    #[test]
    fn the_oldest_go_first_and_the_newest_stays_whatever_its_age() {
        let all = archives(&[1_000, 2_000, 3_000, 4_000]);
        assert_eq!(superfluous(&all, 3, None, 5_000), ["1000"]);
        let second = Some(Duration::from_secs(1));
        assert_eq!(
            superfluous(&all, 9, second, 3_500),
            ["1000", "2000"],
            "by age"
        );
        assert_eq!(
            superfluous(&all, 1, second, 99_000),
            ["1000", "2000", "3000"]
        );
        assert!(superfluous(&all[..1], 1, second, 99_000).is_empty());
    }
}
