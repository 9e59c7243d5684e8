//! Reads answered from the cache, and by the store where the cache has no answer.
//!
//! Invariant: whoever answers, the client is told the same.

use std::sync::Arc;

use nautilus_machine::Revision;
use nautilus_machinery::resource::Resource;
use nautilus_machinery::status::ApiError;

use super::list::{Start, Token};
use super::{Page, Storage, Target};
use crate::cache::{Caches, Entry, Keyed as _, Selection, Snapshot, json_of_row};
use crate::failure::Failure;
use crate::options::{ListOptions, Version};

/// One page of a list, its objects as the cache holds them.
pub(crate) struct EntryPage {
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) revision: Revision,
    pub(crate) continue_token: Option<String>,
    pub(crate) remaining: Option<u64>,
}

/// One page, from whoever had it.
pub(crate) enum Listed {
    Entries(EntryPage),
    Objects(Page),
}

impl Storage {
    /// One page of the objects of a kind, of one namespace or of all.
    pub(crate) async fn list_cached(
        &self,
        caches: &Caches,
        resource: &Arc<Resource>,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<Listed, Failure> {
        let start = self.start(options).await?;
        let collection = caches.of(resource);
        let snapshot = match start.revision {
            // The past: the cache may have kept it for this list.
            Some(revision) => collection.snapshot_at(revision, self.kv.compacted_revision()),
            None if collection.reach(start.at_least).await => Some(collection.snapshot()),
            None => None,
        };
        let Some(snapshot) = snapshot else {
            let page = self.list_from(start, resource, namespace, options).await?;
            return Ok(Listed::Objects(page));
        };
        let selection = Selection::new(resource, namespace, &options.labels, &options.fields);
        let page = page(&snapshot, &start, &selection, resource, options.limit);
        if page.continue_token.is_some() {
            collection.keep(&snapshot);
        }
        Ok(Listed::Entries(page))
    }

    /// The JSON of one object for a client, where it needs no parsing; `None`: see
    /// [`Storage::get`].
    pub(crate) async fn get_json(
        &self,
        caches: &Caches,
        target: &Target<'_>,
        version: Version,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let at_least = match version {
            Version::Newest => self.barrier().await?,
            Version::Any => 0,
            Version::At(revision) => {
                self.reach(revision).await?;
                revision
            }
        };
        let key = target.key();
        // A cache that others have started answers if it is far enough; nobody waits.
        let collection = caches.existing(target.resource);
        if let Some(collection) = collection.filter(|collection| collection.is_at(at_least))
            && let Some(relative) = key.strip_prefix(&target.resource.storage_prefix())
            && let Some(entry) = collection.get(relative)
        {
            let mut json = Vec::with_capacity(entry.json_len());
            entry.write_json(entry.revision(), &mut json);
            return Ok(Some(json));
        }
        let row = self.read_row(&key)?;
        let row = row.ok_or_else(|| ApiError::not_found(target.resource, target.name))?;
        Ok(json_of_row(target.resource, &row))
    }
}

/// The selected objects from `start` on, `limit` of them at most.
fn page(
    snapshot: &Snapshot,
    start: &Start,
    selection: &Selection,
    resource: &Resource,
    limit: Option<u64>,
) -> EntryPage {
    let mut page = EntryPage {
        entries: Vec::new(),
        revision: start.revision.unwrap_or(snapshot.revision),
        continue_token: None,
        remaining: None,
    };
    if let Some(key) = selection.only(resource) {
        let entry = snapshot
            .tree
            .get(&key)
            .filter(|entry| selection.selects(entry));
        page.entries.extend(entry.cloned());
        return page;
    }
    let prefix = selection.prefix();
    let limit = limit
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(usize::MAX);
    let mut rest = snapshot.tree.cursor(&format!("{prefix}{}", start.key));
    while let Some(entry) = rest.next().filter(|entry| entry.is_within(&prefix)) {
        if page.entries.len() == limit {
            let next = &entry.key()[prefix.len()..];
            page.continue_token = Some(Token::encode(Some(page.revision), next));
            if selection.is_open() {
                let left = end_rank(snapshot, &prefix) - snapshot.tree.rank(entry.key());
                page.remaining = Some(left as u64);
            }
            return page;
        }
        if selection.selects(&entry) {
            page.entries.push(entry);
        }
    }
    page
}

/// How many keys come before the end of a prefix.
fn end_rank(snapshot: &Snapshot, prefix: &str) -> usize {
    match prefix.strip_suffix('/') {
        // `0` is what follows the slash in the order of bytes.
        Some(namespace) => snapshot.tree.rank(&format!("{namespace}0")),
        None => snapshot.tree.len(),
    }
}
