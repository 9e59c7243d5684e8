//! Lists in pages, each page of one list at the same revision.
//!
//! A continue token is the revision and the key to start from; it holds on every
//! node. After a compaction it is answered with 410 and a token that goes on from
//! the same key at the newest revision.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use nautilus_machine::types::{KeyRange, RangeEnd};
use nautilus_machine::{RangeError, RangeRequest, Revision};
use nautilus_machinery::resource::Resource;
use nautilus_machinery::status::ApiError;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Storage, versioned_object};
use crate::custom;
use crate::failure::Failure;
use crate::options::{ListOptions, Version, VersionMatch};

/// Keys read from the store in one go.
const PAGE_KEYS: u64 = 1_000;
/// Bytes of a continue token, at most.
const MAX_TOKEN_BYTES: usize = 2_048;

/// One page of a list.
pub(crate) struct Page {
    pub(crate) items: Vec<Value>,
    pub(crate) revision: Revision,
    pub(crate) continue_token: Option<String>,
    pub(crate) remaining: Option<u64>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Token {
    /// The form's name.
    v: String,
    /// The list's revision; -1: the newest.
    rv: i64,
    /// The key to start from, without the list's prefix.
    start: String,
}

const TOKEN_FORM: &str = "nautilus/v1";

impl Token {
    pub(super) fn encode(revision: Option<Revision>, start: &str) -> String {
        let rv = revision
            .and_then(|revision| i64::try_from(revision).ok())
            .unwrap_or(-1);
        let token = Self {
            v: TOKEN_FORM.into(),
            rv,
            start: start.into(),
        };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
    }

    fn decode(text: &str) -> Result<Self, ApiError> {
        let invalid = || ApiError::bad_request("continue key is not valid: it is none of this API");
        if text.len() > MAX_TOKEN_BYTES {
            return Err(invalid());
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid())?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
        if token.v == TOKEN_FORM {
            Ok(token)
        } else {
            Err(invalid())
        }
    }
}

/// Where a list starts reading.
pub(super) struct Start {
    /// The list shows this very revision; unset: one that is not older than `at_least`.
    pub(super) revision: Option<Revision>,
    /// This node's store has reached it.
    pub(super) at_least: Revision,
    /// Relative to the prefix.
    pub(super) key: String,
    /// Whether `revision` came from a token.
    resumed: bool,
}

impl Storage {
    /// One page of the objects of a kind, of one namespace or of all.
    pub(crate) async fn list(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<Page, Failure> {
        let start = self.start(options).await?;
        self.list_from(start, resource, namespace, options).await
    }

    /// The same, from where it starts.
    pub(super) async fn list_from(
        &self,
        start: Start,
        resource: &Resource,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<Page, Failure> {
        let prefix = prefix(resource, namespace);
        let by_name = options
            .fields
            .exact_name()
            .filter(|_| namespace.is_some() || !resource.namespaced);
        if let Some(name) = by_name {
            return self
                .list_one(resource, namespace, name, &start, options)
                .await;
        }
        self.scan(resource, &prefix, start, options).await
    }

    pub(super) async fn start(&self, options: &ListOptions) -> Result<Start, Failure> {
        if let Some(text) = &options.continue_token {
            if matches!(options.version, Version::At(_)) {
                return Err(ApiError::bad_request(
                    "specifying resource version is not allowed when using continue",
                )
                .into());
            }
            let token = Token::decode(text)?;
            let revision = Revision::try_from(token.rv).ok();
            let at_least = match revision {
                Some(revision) => {
                    self.reach(revision).await?;
                    revision
                }
                None => self.barrier().await?,
            };
            return Ok(Start {
                revision,
                at_least,
                key: token.start,
                resumed: true,
            });
        }
        let fresh = |revision, at_least| Start {
            revision,
            at_least,
            key: String::new(),
            resumed: false,
        };
        match options.version {
            Version::Newest => Ok(fresh(None, self.barrier().await?)),
            Version::Any => Ok(fresh(None, 0)),
            Version::At(revision) => {
                self.reach(revision).await?;
                let exact = match options.version_match {
                    VersionMatch::Exact => true,
                    VersionMatch::NotOlderThan => false,
                    // Documented: with a limit an unset match means this very revision.
                    VersionMatch::Unset => options.limit.is_some(),
                };
                Ok(fresh(exact.then_some(revision), revision))
            }
        }
    }

    async fn list_one(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        start: &Start,
        options: &ListOptions,
    ) -> Result<Page, Failure> {
        let request = RangeRequest {
            revision: start.revision,
            ..RangeRequest::newest(KeyRange::single(resource.key(namespace, name)))
        };
        let answer = self.kv.range(&request)?;
        let mut items = Vec::new();
        for row in &custom::own_rows(resource, answer.kvs).await? {
            let object = versioned_object(resource, row)?;
            if options.labels.matches(&object) && options.fields.matches(&object) {
                items.push(object);
            }
        }
        let revision = start.revision.unwrap_or(answer.revision);
        Ok(Page {
            items,
            revision,
            continue_token: None,
            remaining: None,
        })
    }

    async fn scan(
        &self,
        resource: &Resource,
        prefix: &str,
        start: Start,
        options: &ListOptions,
    ) -> Result<Page, Failure> {
        let end = KeyRange::prefix(prefix.to_owned()).end;
        let mut page = Page {
            items: Vec::new(),
            revision: start.revision.unwrap_or_default(),
            continue_token: None,
            remaining: None,
        };
        let mut pinned = start.revision;
        let mut next = Bytes::from(format!("{prefix}{}", start.key));
        loop {
            let wanted = options.limit.map(|limit| limit - page.items.len() as u64);
            let request = RangeRequest {
                range: KeyRange {
                    start: next.clone(),
                    end: end.clone(),
                },
                revision: pinned,
                limit: Some(wanted.unwrap_or(PAGE_KEYS).min(PAGE_KEYS)),
                keys_only: false,
                count_only: false,
            };
            let answer = match self.range_off_thread(request).await {
                Err(RangeError::Compacted { .. }) if start.resumed => {
                    return Err(Failure::expired_continue(Token::encode(None, &start.key)));
                }
                answer => answer?,
            };
            page.revision = *pinned.get_or_insert(answer.revision);
            let taken = answer.kvs.len() as u64;
            let last = answer.kvs.last().map(|row| row.key.clone());
            for row in &custom::own_rows(resource, answer.kvs).await? {
                let object = versioned_object(resource, row)?;
                if options.labels.matches(&object) && options.fields.matches(&object) {
                    page.items.push(object);
                }
            }
            let Some(last) = last.filter(|_| answer.more) else {
                return Ok(page);
            };
            next = successor(&last);
            if options
                .limit
                .is_some_and(|limit| page.items.len() as u64 >= limit)
            {
                let relative = String::from_utf8_lossy(&next[prefix.len()..]).into_owned();
                page.continue_token = Some(Token::encode(Some(page.revision), &relative));
                if options.labels.is_empty() && options.fields.is_empty() {
                    page.remaining = Some(answer.count - taken);
                }
                return Ok(page);
            }
        }
    }

    /// Reads a large range without holding up the runtime's own threads.
    async fn range_off_thread(
        &self,
        request: RangeRequest,
    ) -> Result<nautilus_machine::RangeResponse, RangeError> {
        let kv = self.kv.clone();
        match tokio::task::spawn_blocking(move || kv.range(&request)).await {
            Ok(answer) => answer,
            Err(error) => Err(RangeError::Storage(error.to_string())),
        }
    }

    /// Every row of a kind within a range, at one revision, in the kind's version.
    pub(crate) async fn rows_of(
        &self,
        resource: &Resource,
        range: KeyRange,
    ) -> Result<(Vec<nautilus_machine::KeyValue>, Revision), Failure> {
        let (rows, revision) = self.rows(range).await?;
        Ok((custom::own_rows(resource, rows).await?, revision))
    }

    /// Every row of a range, at one revision, as it is stored.
    pub(crate) async fn rows(
        &self,
        range: KeyRange,
    ) -> Result<(Vec<nautilus_machine::KeyValue>, Revision), Failure> {
        let (mut rows, mut pinned) = (Vec::new(), None);
        let KeyRange {
            start: mut next,
            end,
        } = range;
        loop {
            let request = RangeRequest {
                range: KeyRange {
                    start: next.clone(),
                    end: end.clone(),
                },
                revision: pinned,
                limit: Some(PAGE_KEYS),
                keys_only: false,
                count_only: false,
            };
            let answer = self.range_off_thread(request).await?;
            let revision = *pinned.get_or_insert(answer.revision);
            let last = answer
                .kvs
                .last()
                .filter(|_| answer.more)
                .map(|row| row.key.clone());
            rows.extend(answer.kvs);
            let Some(last) = last else {
                return Ok((rows, revision));
            };
            next = successor(&last);
        }
    }
}

/// The prefix of a kind's keys, in one namespace or in all.
fn prefix(resource: &Resource, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) if resource.namespaced => resource.namespace_prefix(namespace),
        _ => resource.storage_prefix(),
    }
}

/// What to watch for a kind: all of it, a namespace, or one key.
pub(crate) fn watch_range(
    resource: &Resource,
    namespace: Option<&str>,
    name: Option<&str>,
) -> KeyRange {
    match name {
        Some(name) if namespace.is_some() || !resource.namespaced => KeyRange {
            start: resource.key(namespace, name).into(),
            end: RangeEnd::Single,
        },
        _ => KeyRange::prefix(prefix(resource, namespace)),
    }
}

fn successor(key: &[u8]) -> Bytes {
    let mut next = key.to_vec();
    next.push(0);
    next.into()
}
