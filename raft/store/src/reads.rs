//! Reading: ranges and history.
//!
//! The index is looked at under the machine's lock, rows are read without it. So a
//! row that is not there is looked up again before it is called corrupt: a compaction
//! or an installed snapshot may have passed by.

use std::sync::Arc;

use nautilus_machine::{
    History, HistoryScan, KeyRange, KeyValue, KvHash, Place, RangeError, RangeRequest,
    RangeResponse, Revision, RowError, WatchError, read_version,
};

use crate::error::StoreError;
use crate::layers::LayeredRows;
use crate::store::{State, Store};

/// Rows that a hash reads at a time.
const HASH_STEP_ROWS: usize = 4096;
/// How often a read is tried again when compactions or installs pass by.
const READ_ATTEMPTS_MAX: usize = 16;

impl Store {
    /// Reads a range.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, RangeError> {
        let mut last = None;
        for _ in 0..READ_ATTEMPTS_MAX {
            let (located, sight) = {
                let state = self.state.read();
                state
                    .check()
                    .map_err(|error| RangeError::Storage(error.to_string()))?;
                (state.machine.locate(request)?, Sight::of(&state))
            };
            match located.read(&*sight.rows) {
                Ok(response) => return Ok(response),
                Err(error) => last = Some(self.judge(&sight, error)?),
            }
        }
        Err(RangeError::Storage(too_often(last)))
    }

    /// The hash of every version up to `revision` (the newest when absent) that
    /// compaction has kept. Blocks for as long as all rows take to be read.
    pub fn hash_kv(&self, revision: Option<Revision>) -> Result<KvHash, RangeError> {
        let storage = |error: &dyn std::fmt::Display| RangeError::Storage(error.to_string());
        let (mut scan, view) = {
            // Between two writes, so that the engine has every row that the index names.
            let _settled = self.unsettled.lock();
            let state = self.state.read();
            state.check().map_err(|error| storage(&error))?;
            let view = Arc::clone(state.rows.engine()).view();
            (
                state.machine.hash_scan(revision)?,
                view.map_err(|error| storage(&error))?,
            )
        };
        let hashed = view.read(move |rows| {
            while !scan.step(rows, HASH_STEP_ROWS)? {}
            Ok::<_, RowError>(scan.finish())
        });
        hashed
            .map_err(|error| storage(&error))?
            .map_err(|error| storage(&error))
    }

    /// The version of `key` at `place`; `None` if it is compacted away.
    pub fn version(&self, key: &[u8], place: Place) -> Result<Option<KeyValue>, RowError> {
        let rows = Arc::clone(&self.state.read().rows);
        read_version(&*rows, key, place)
    }

    /// The events of `range` from revision `from` on: about `limit` of them at most,
    /// but never part of a revision. Everything up to `through` is there: go on from
    /// `through + 1`, until `through` is the store's revision. The versions before them
    /// are read only if `previous`.
    pub fn history(
        &self,
        range: &KeyRange,
        from: Revision,
        limit: usize,
        previous: bool,
    ) -> Result<History, WatchError> {
        let storage = |error: &dyn std::fmt::Display| WatchError::Storage(error.to_string());
        let mut last = None;
        for _ in 0..READ_ATTEMPTS_MAX {
            let (sight, current) = {
                let state = self.state.read();
                state.check().map_err(|error| storage(&error))?;
                (Sight::of(&state), state.machine.revision())
            };
            if from < sight.compacted {
                return Err(WatchError::Compacted {
                    compacted: sight.compacted,
                });
            }
            let scan = HistoryScan::collect(&*sight.rows, range, from, current, limit);
            let history = match scan {
                Ok(mut scan) => {
                    scan.link(&self.state.read().machine)?;
                    if previous {
                        scan.finish(&*sight.rows)
                    } else {
                        Ok(scan.without_previous())
                    }
                }
                Err(error) => Err(error),
            };
            match history {
                Ok(history) => return Ok(history),
                Err(error) => {
                    last = Some(self.judge(&sight, error).map_err(|error| storage(&error))?);
                }
            }
        }
        Err(WatchError::Storage(too_often(last)))
    }

    /// Whether a failed read is to be tried again (the error comes back) or is real.
    fn judge(&self, sight: &Sight, error: RowError) -> Result<RowError, RangeError> {
        let now = Sight::of(&self.state.read());
        let moved = now.compacted != sight.compacted || !Arc::ptr_eq(&now.rows, &sight.rows);
        if moved {
            return Ok(error);
        }
        Err(RangeError::Storage(StoreError::from(error).to_string()))
    }
}

/// What a read was based on.
struct Sight {
    rows: Arc<LayeredRows>,
    compacted: Revision,
}

impl Sight {
    fn of(state: &State) -> Self {
        Self {
            rows: Arc::clone(&state.rows),
            compacted: state.machine.compacted_revision(),
        }
    }
}

fn too_often(last: Option<RowError>) -> String {
    let last = last.map_or_else(String::new, |error| format!(", last: {error}"));
    format!("compactions overtook the read {READ_ATTEMPTS_MAX} times{last}")
}
