//! Saving all data into a file and making a new cluster from it, with each side's own tools.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::closed_loop::{Span, run};
use crate::drive::ask;
use crate::effort::Effort;
use crate::keys::{Fill, KEYS_END, key};
use crate::message;
use crate::plan::Numbers;
use crate::side::{Side, leader, serving};

/// Bytes of a value.
const VALUE_BYTES: usize = 32 << 10;
/// Clients that fill the store.
const FILLERS: usize = 16;
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// For the store to be filled.
const FILL_PATIENCE: Duration = Duration::from_secs(600);

/// All rows of this kind on a cluster that serves and is empty; `folder` is for the file and
/// the new cluster.
///
/// # Errors
/// When something cannot be measured.
pub async fn measure(
    side: &mut dyn Side,
    effort: &Effort,
    folder: &Path,
    numbers: &mut Numbers,
) -> anyhow::Result<()> {
    let leading = leader(side).await?;
    let keys = effort.snapshot_bytes / VALUE_BYTES as u64;
    let endpoint = &side.endpoints()[leading..=leading];
    run(
        endpoint,
        FILLERS,
        Span::All,
        FILL_PATIENCE,
        Fill::new(VALUE_BYTES, 0, keys),
    )
    .await
    .with_context(|| format!("{}: fill", side.name()))?;
    let file = folder.join("snapshot");
    let began = Instant::now();
    side.save_snapshot(&file)?;
    let saved_s = began.elapsed().as_secs_f64();
    crate::progress(&format!(
        "{:8} snapshot saved in {saved_s:.2} s",
        side.name()
    ));
    numbers.add("snapshot_1gib_s", saved_s);
    side.stop()?;
    let began = Instant::now();
    side.restore(&file, &folder.join("restored"))?;
    serving(side).await?;
    let restored_s = began.elapsed().as_secs_f64();
    crate::progress(&format!("{:8} restored in {restored_s:.2} s", side.name()));
    numbers.add("restore_1gib_s", restored_s);
    let mut request = Vec::new();
    message::count(&mut request, &key(0), KEYS_END);
    let answer = ask(
        &side.endpoints()[0],
        message::path::RANGE,
        request,
        PATIENCE,
    )
    .await?;
    let found = message::range_count(&answer);
    ensure!(
        found == keys,
        "{}: {found} of {keys} keys were restored",
        side.name()
    );
    Ok(())
}
