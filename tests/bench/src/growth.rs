//! How costs grow with the number of keys: operations, memory, start.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::closed_loop::{Span, run, to_f64};
use crate::effort::Effort;
use crate::keys::{Counts, Fill, Gets, Puts, Ranges};
use crate::plan::Numbers;
use crate::processes::resident;
use crate::serve::per_second;
use crate::side::{Side, leader, serving};

/// Bytes of a value.
const VALUE_BYTES: usize = 256;
/// Clients of the measured operations.
const CLIENTS: usize = 64;
/// Clients that fill the store.
const FILLERS: usize = 24;
/// For the store to be filled.
const FILL_PATIENCE: Duration = Duration::from_secs(1200);
/// For what was written to settle before memory is looked at.
const SETTLE: Duration = Duration::from_secs(2);
/// The most keys at which memory per key is told; the rows of the comparison have it at
/// the largest of these sizes, where fixed costs have vanished.
const MEMORY_KEYS_MAX: u64 = 1_000_000;

/// What is looked at by size, with its unit: what an operation costs, and memory.
pub const BY_SIZE: [(&str, &str); 5] = [
    ("put", "us"),
    ("get", "us"),
    ("range_of_100", "us"),
    ("count", "us"),
    MEMORY,
];
const MEMORY: (&str, &str) = ("memory_per_key", "B");

/// The name under which it is kept.
pub fn row_at((what, unit): (&str, &str), keys: u64) -> String {
    format!("growth_{what}_{unit}_at_{keys}")
}

/// All rows of this kind on a cluster that serves and is empty.
///
/// # Errors
/// When something cannot be measured.
pub async fn measure(
    side: &mut dyn Side,
    effort: &Effort,
    numbers: &mut Numbers,
) -> anyhow::Result<()> {
    tokio::time::sleep(SETTLE).await;
    let empty = resident(&side.processes())?;
    let mut present = 0;
    for &keys in &effort.growth {
        fill(side, present, keys).await?;
        present = keys;
        tokio::time::sleep(SETTLE).await;
        if keys <= MEMORY_KEYS_MAX {
            let now = resident(&side.processes())?;
            let members = to_f64(side.processes().len() as u64);
            let per_key =
                |now: u64, empty: u64| to_f64(now.saturating_sub(empty)) / members / to_f64(keys);
            let whole = per_key(now.whole_bytes, empty.whole_bytes);
            let anonymous = per_key(now.anonymous_bytes, empty.anonymous_bytes);
            crate::progress(&format!(
                "{:8} {keys} keys: {whole:.0} B a key resident, {anonymous:.0} B of it anonymous",
                side.name()
            ));
            numbers.add(&row_at(MEMORY, keys), whole);
            if Some(&keys) == effort.growth.iter().rfind(|keys| **keys <= MEMORY_KEYS_MAX) {
                numbers.add("bytes_per_key_resident", whole);
                numbers.add("bytes_per_key_anonymous", anonymous);
            }
        }
        costs(side, effort, keys, numbers).await?;
        for (size, what) in effort.start {
            if size == keys {
                let seconds = start_s(side).await?;
                crate::progress(&format!("{:8} {what}: {seconds:.2} s", side.name()));
                numbers.add(what, seconds);
            }
        }
    }
    Ok(())
}

async fn fill(side: &dyn Side, from: u64, to: u64) -> anyhow::Result<()> {
    let leader = leader(side).await?;
    let endpoint = &side.endpoints()[leader..=leader];
    let work = Fill::new(VALUE_BYTES, from, to);
    let (filled, _) = run(endpoint, FILLERS, Span::All, FILL_PATIENCE, work)
        .await
        .with_context(|| format!("{}: fill to {to} keys", side.name()))?;
    crate::progress(&format!(
        "{:8} filled from {from} to {to} keys in {:.1} s",
        side.name(),
        filled.elapsed.as_secs_f64()
    ));
    Ok(())
}

/// Microseconds per operation at a size.
async fn costs(
    side: &dyn Side,
    effort: &Effort,
    keys: u64,
    numbers: &mut Numbers,
) -> anyhow::Result<()> {
    let put = per_second(side, effort, CLIENTS, Puts::new(VALUE_BYTES, keys)).await?;
    let get = per_second(side, effort, CLIENTS, Gets::new(keys)).await?;
    let range = per_second(side, effort, CLIENTS, Ranges::new(keys)).await?;
    let count = per_second(side, effort, 1, Counts).await?;
    for (operation, rate) in BY_SIZE.into_iter().zip([put, get, range, count]) {
        crate::progress(&format!(
            "{:8} {keys} keys: {} {:.1} us",
            side.name(),
            operation.0,
            1e6 / rate
        ));
        numbers.add(&row_at(operation, keys), 1e6 / rate);
    }
    Ok(())
}

/// Stops all members in order, and times from their start until each answers a
/// linearizable read.
async fn start_s(side: &mut dyn Side) -> anyhow::Result<f64> {
    side.stop()?;
    let began = Instant::now();
    side.start()?;
    serving(side).await?;
    Ok(began.elapsed().as_secs_f64())
}
