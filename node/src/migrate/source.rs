//! Where keys come from, page by page: a running etcd at one revision, or a snapshot
//! file of one.

use std::collections::BTreeMap;
use std::sync::Arc;

use nautilus_backup::{EtcdSnapshot, Lease, Record};
use nautilus_machine::{KeyValue, LeaseId, Revision};

use super::client::EtcdClient;

/// Bytes of a page, about, and its keys, at most.
const PAGE_BYTES: usize = 1 << 20;
const PAGE_KEYS_MAX: usize = 1_024;
const PAGE_KEYS_FIRST: usize = 16;

/// A key space at one revision.
pub(crate) struct Source {
    from: From,
    /// The revision.
    pub(crate) revision: Revision,
    /// Leases and their times in seconds.
    pub(crate) leases: BTreeMap<LeaseId, u64>,
    next: Option<Vec<u8>>,
    limit: usize,
}

enum From {
    Live(EtcdClient),
    Snapshot(Arc<EtcdSnapshot>),
}

impl Source {
    /// A running etcd, as it is now. Leases are looked at before and after the revision,
    /// so that each that a key of it names is known.
    pub(crate) async fn live(client: EtcdClient) -> anyhow::Result<Self> {
        let mut leases = client.leases().await?;
        let revision = client.revision().await?;
        leases.extend(client.leases().await?);
        Ok(Self::new(From::Live(client), revision, leases))
    }

    /// A snapshot file.
    pub(crate) fn snapshot(snapshot: Arc<EtcdSnapshot>) -> Self {
        let leases = snapshot.leases().iter();
        let leases = leases.map(|(id, ttl_ms)| (*id, ttl_ms / 1000)).collect();
        let revision = snapshot.revision();
        Self::new(From::Snapshot(snapshot), revision, leases)
    }

    fn new(from: From, revision: Revision, leases: BTreeMap<LeaseId, u64>) -> Self {
        Self {
            from,
            revision,
            leases,
            next: Some(Vec::new()),
            limit: PAGE_KEYS_FIRST,
        }
    }

    /// Begins again with the first key.
    pub(crate) fn rewind(&mut self) {
        self.next = Some(Vec::new());
    }

    /// How many keys there are.
    pub(crate) async fn count(&self) -> anyhow::Result<u64> {
        match &self.from {
            From::Live(client) => client.count(b"", self.revision).await,
            From::Snapshot(snapshot) => Ok(snapshot.keys()),
        }
    }

    /// Gives everything to `take` as an archive's records: leases first, then keys in
    /// order; `reached` hears after each page how many keys it were. Returns that number.
    pub(crate) async fn records(
        &mut self,
        mut reached: impl FnMut(u64),
        mut take: impl FnMut(&Record) -> anyhow::Result<()>,
    ) -> anyhow::Result<u64> {
        for (&id, &seconds) in &self.leases {
            let ttl_ms = seconds.saturating_mul(1000);
            take(&Record::Lease(Lease { id, ttl_ms }))?;
        }
        let mut keys = 0;
        loop {
            let page = self.page().await?;
            if page.is_empty() {
                return Ok(keys);
            }
            keys += page.len() as u64;
            for kv in page {
                take(&Record::Key(kv))?;
            }
            reached(keys);
        }
    }

    /// The next keys, in order; none at the end.
    pub(crate) async fn page(&mut self) -> anyhow::Result<Vec<KeyValue>> {
        let Some(from) = self.next.take() else {
            return Ok(Vec::new());
        };
        let limit = self.limit;
        let kvs = match &self.from {
            From::Live(client) => {
                let page = client.page(&from, b"", limit, Some(self.revision)).await?;
                if !page.more {
                    self.next = None;
                }
                page.kvs
            }
            From::Snapshot(snapshot) => {
                let snapshot = Arc::clone(snapshot);
                tokio::task::spawn_blocking(move || snapshot.page(&from, limit)).await??
            }
        };
        if let Some(last) = kvs.last() {
            self.next = Some([&last.key[..], b"\0"].concat());
            let bytes: usize = kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
            let each = (bytes / kvs.len()).max(1);
            self.limit = (PAGE_BYTES / each).clamp(1, limit * 2).min(PAGE_KEYS_MAX);
        }
        Ok(kvs)
    }
}
