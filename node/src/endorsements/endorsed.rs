//! This node's memory of endorsements, for its verifiers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use nautilus_attest_protocol::Endorsements;
use nautilus_machine::{EventKind, Kv, WatchRequest, types::KeyRange};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::row::{self, PREFIX, Row};

/// Pause before the rows are read again after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// Names that verifiers missed, remembered until they are noted.
const MAX_MISSED: usize = 64;

/// Rows of the store by the endorsement's name.
type Rows = BTreeMap<String, (About, Arc<[u8]>)>;

/// Endorsements at hand.
#[derive(Default)]
pub(crate) struct Endorsed {
    /// From files, for as long as the quorum has none of that name.
    files: BTreeMap<String, Arc<[u8]>>,
    /// From the store, those that are only wanted included.
    rows: RwLock<Rows>,
    missed: Mutex<BTreeSet<String>>,
    miss: Notify,
}

impl Endorsed {
    /// With these from files.
    pub(crate) fn new(files: BTreeMap<String, Arc<[u8]>>) -> Self {
        Self {
            files,
            ..Self::default()
        }
    }

    /// What the store has, by name.
    pub(super) fn rows(&self) -> Vec<(String, About)> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        rows.iter()
            .map(|(name, (about, _))| (name.clone(), about.clone()))
            .collect()
    }

    /// The names that verifiers looked for in vain since the last call; waits for one.
    pub(super) async fn missed(&self) -> BTreeSet<String> {
        loop {
            let missed = std::mem::take(&mut *self.missed_names());
            if !missed.is_empty() {
                return missed;
            }
            self.miss.notified().await;
        }
    }

    fn missed_names(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, rows: Vec<(String, Row)>) {
        let rows = rows.into_iter().map(|(name, row)| {
            let held = held(&name, row);
            (name, held)
        });
        let rows: BTreeMap<_, _> = rows.collect();
        *self.rows.write().unwrap_or_else(PoisonError::into_inner) = rows;
    }

    fn put(&self, name: String, row: Row) {
        let held = held(&name, row);
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        rows.insert(name, held);
    }

    fn remove(&self, name: &str) {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        rows.remove(name);
    }
}

impl Endorsements for Endorsed {
    fn find(&self, name: &str) -> Option<Arc<[u8]>> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let row = rows.get(name).filter(|(about, _)| !about.is_wanted);
        let found = row.map(|(_, bytes)| bytes).or_else(|| self.files.get(name));
        let found = found.cloned();
        drop(rows);
        if found.is_none() {
            let mut missed = self.missed_names();
            if missed.len() < MAX_MISSED && missed.insert(name.to_owned()) {
                self.miss.notify_one();
            }
        }
        found
    }
}

/// What is known of an endorsement besides its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct About {
    /// It is not there, but a verifier missed it.
    pub(super) is_wanted: bool,
    /// As in [`Row`].
    pub(super) fetched_at_ms: u64,
    /// As in [`Row`].
    pub(super) issued_at_ms: u64,
    /// As in [`Row`].
    pub(super) expires_at_ms: u64,
    /// As in [`Row`].
    pub(super) is_checked: bool,
    /// As in [`Row`].
    pub(super) source: String,
}

fn held(name: &str, row: Row) -> (About, Arc<[u8]>) {
    let about = About {
        is_wanted: row.is_wanted(),
        fetched_at_ms: row.fetched_at_ms,
        issued_at_ms: row.issued_at_ms,
        expires_at_ms: row.expires_at_ms,
        is_checked: row.is_checked,
        source: row.source,
    };
    if !about.is_wanted {
        metrics::gauge!("nautilus_endorsement_expiry_timestamp_seconds", "name" => name.to_owned())
            .set((about.expires_at_ms / 1000) as f64);
    }
    (about, row.bytes.into())
}

/// Keeps `endorsed` level with the store until told to stop.
pub(crate) async fn follow(endorsed: Arc<Endorsed>, kv: Arc<dyn Kv>, stopped: CancellationToken) {
    loop {
        tokio::select! {
            () = stopped.cancelled() => return,
            reason = follow_once(&endorsed, kv.as_ref()) => {
                tracing::debug!(reason, "endorsements are read again");
            }
        }
        tokio::select! {
            () = stopped.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Reads all rows, then follows their changes; gives the reason why it can't go on.
async fn follow_once(endorsed: &Endorsed, kv: &dyn Kv) -> String {
    let revision = match row::read_all(kv) {
        Ok((rows, revision)) => {
            endorsed.replace(rows);
            revision
        }
        Err(error) => {
            tracing::warn!(%error, "the endorsements can't be read");
            return error.to_string();
        }
    };
    let request = WatchRequest {
        range: KeyRange::prefix(PREFIX),
        from: Some(revision + 1),
        previous: false,
    };
    let mut watcher = match kv.watch(request) {
        Ok(watcher) => watcher,
        Err(error) => return error.to_string(),
    };
    loop {
        let events = match watcher.next().await {
            Ok(events) => events,
            Err(error) => return error.to_string(),
        };
        for event in events {
            let Some(name) = row::name_of(&event.kv.key) else {
                continue;
            };
            match event.kind {
                EventKind::Put => match Row::decode(&event.kv.value) {
                    Ok(row) => endorsed.put(name, row),
                    Err(error) => tracing::warn!(%name, %error, "an endorsement is not taken in"),
                },
                EventKind::Delete => endorsed.remove(&name),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nautilus_machine::UnixMillis;
    use nautilus_machine::solo::SoloKv;

    use super::*;

    fn row(text: &[u8], issued_at_ms: u64) -> Row {
        Row {
            bytes: text.to_vec(),
            issued_at_ms,
            ..Row::wanted()
        }
    }

    async fn until(endorsed: &Endorsed, name: &str, wanted: &[u8]) {
        let limit = Duration::from_secs(30);
        let level = async {
            while endorsed.find(name).as_deref() != Some(wanted) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(limit, level).await.expect("level");
    }

    #[tokio::test]
    async fn memory_follows_the_store_and_files_stand_in_before() {
        let files = BTreeMap::from([("a".to_owned(), Arc::from(&b"file"[..]))]);
        let endorsed = Arc::new(Endorsed::new(files));
        assert_eq!(endorsed.find("a").as_deref(), Some(&b"file"[..]));
        let kv = Arc::new(SoloKv::new(|| UnixMillis(1)));
        row::write(kv.as_ref(), "a", &row(b"row", 1))
            .await
            .expect("written");
        let stopped = CancellationToken::new();
        let following = tokio::spawn(follow(
            Arc::clone(&endorsed),
            Arc::clone(&kv) as _,
            stopped.clone(),
        ));
        until(&endorsed, "a", b"row").await;
        row::write(kv.as_ref(), "b", &row(b"later", 1))
            .await
            .expect("written");
        until(&endorsed, "b", b"later").await;
        stopped.cancel();
        following.await.expect("ended");
    }

    #[tokio::test]
    async fn what_a_verifier_misses_is_told_once() {
        let endorsed = Endorsed::default();
        assert!(endorsed.find("x").is_none() && endorsed.find("x").is_none());
        assert_eq!(endorsed.missed().await, BTreeSet::from(["x".to_owned()]));
    }
}
