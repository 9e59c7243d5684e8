//! How much is spent on a measurement.

use std::time::Duration;

/// Sizes and times of a run.
#[derive(Debug, Clone)]
pub struct Effort {
    /// Before each measured time.
    pub warmup: Duration,
    /// Measured.
    pub measured: Duration,
    /// Sizes at which growth is looked at, ascending.
    pub growth: Vec<u64>,
    /// The sizes at which starting is timed, and the rows' names.
    pub start: [(u64, &'static str); 2],
    /// Bytes of the data that is saved and restored.
    pub snapshot_bytes: u64,
    /// Leaders killed in each pair.
    pub kills: usize,
}

impl Effort {
    /// The comparison that is published; growth up to `growth_max` keys.
    pub fn full(growth_max: u64) -> Self {
        let sizes = [10_000, 100_000, 1_000_000, 5_000_000];
        Self {
            warmup: Duration::from_millis(700),
            measured: Duration::from_secs(3),
            growth: sizes
                .into_iter()
                .filter(|size| *size <= growth_max)
                .collect(),
            start: [
                (100_000, "start_100k_keys_s"),
                (1_000_000, "start_1m_keys_s"),
            ],
            snapshot_bytes: 1 << 30,
            kills: 3,
        }
    }

    /// Seconds in all: shows that everything works, not how fast.
    pub fn quick() -> Self {
        Self {
            warmup: Duration::from_millis(50),
            measured: Duration::from_millis(200),
            growth: vec![500, 1000],
            start: [(500, "start_100k_keys_s"), (1000, "start_1m_keys_s")],
            snapshot_bytes: 1 << 20,
            kills: 1,
        }
    }

    /// A number that differs between runs, to begin lease ids with.
    pub fn seed(&self) -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_secs() << 20)
    }
}
