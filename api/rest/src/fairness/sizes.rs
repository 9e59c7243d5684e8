//! How many seats a request takes: one, but for lists by what they are about to load.
//!
//! Counts and sizes of a kind's objects are looked up at most every [`FRESH`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use nautilus_access::Attributes;
use nautilus_machine::types::KeyRange;
use nautilus_machine::{Kv, RangeRequest};
use nautilus_machinery::resource;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a kind's count is good for.
const FRESH: Duration = Duration::from_secs(10);
/// Objects whose sizes are averaged.
const SAMPLE: u64 = 16;
/// Bytes that one seat stands for.
const BYTES_PER_SEAT: u64 = 100_000;
/// A list holds so many bytes at once, at most.
const MAX_BYTES_AT_ONCE: u64 = 1_000_000;

/// Objects of a kind.
#[derive(Clone, Copy)]
struct Stock {
    objects: u64,
    /// Of one, in the mean.
    bytes: u64,
    at: Instant,
}

/// What is known of each kind, by its prefix; as many as there are kinds.
pub(super) struct Sizes {
    kv: Arc<dyn Kv>,
    stocks: Mutex<HashMap<String, Stock>>,
}

impl Sizes {
    pub(super) fn new(kv: Arc<dyn Kv>) -> Self {
        Self {
            kv,
            stocks: Mutex::default(),
        }
    }

    /// The seats of a request.
    pub(super) fn seats(&self, asked: &Attributes, query: &[(String, String)]) -> u64 {
        let text = |name: &str| {
            let found = query.iter().find(|(key, _)| key == name);
            found.map_or("", |(_, value)| value.as_str())
        };
        let lists = match asked.verb.as_str() {
            "list" => true,
            // A watch that begins with what is there.
            "watch" => {
                matches!(text("resourceVersion"), "" | "0") || text("sendInitialEvents") == "true"
            }
            _ => false,
        };
        if !lists || !asked.is_resource || !asked.name.is_empty() {
            return 1;
        }
        let Some(stock) = self.stock(asked) else {
            return 1;
        };
        let limit = text("limit").parse::<u64>().ok().filter(|limit| *limit > 0);
        let objects = stock.objects.min(limit.unwrap_or(u64::MAX));
        let bytes = objects.saturating_mul(stock.bytes).min(MAX_BYTES_AT_ONCE);
        bytes.div_ceil(BYTES_PER_SEAT).max(1)
    }

    fn stock(&self, asked: &Attributes) -> Option<Stock> {
        let kind = resource::find(&asked.group, &asked.version, &asked.resource)?;
        let prefix = kind.storage_prefix();
        let now = Instant::now();
        let known = self.stocks.lock().get(&prefix).copied();
        if let Some(known) = known.filter(|known| now - known.at < FRESH) {
            return Some(known);
        }
        let sample = RangeRequest {
            limit: Some(SAMPLE),
            ..RangeRequest::newest(KeyRange::prefix(prefix.clone()))
        };
        let answer = self.kv.range(&sample).ok()?;
        let bytes: usize = answer.kvs.iter().map(|row| row.value.len()).sum();
        let stock = Stock {
            objects: answer.count,
            bytes: u64::try_from(bytes / answer.kvs.len().max(1)).unwrap_or(u64::MAX),
            at: now,
        };
        self.stocks.lock().insert(prefix, stock);
        Some(stock)
    }
}
