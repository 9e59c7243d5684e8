//! A list's JSON, written piece by piece from objects already encoded.
//!
//! Invariant: beyond the entries, which are shared, one piece is in memory at a time.

use std::convert::Infallible;
use std::sync::Arc;
use std::vec::IntoIter;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use nautilus_machinery::resource::Resource;

use crate::cache::Entry;
use crate::storage::EntryPage;

/// Bytes of a piece, about.
const PIECE_BYTES: usize = 64 * 1024;

/// See the module.
pub(super) struct JsonList {
    /// What comes before the next object.
    head: Vec<u8>,
    entries: IntoIter<Arc<Entry>>,
    /// How an object begins that says of what kind it is, where its list says it.
    opening: Option<String>,
    over: bool,
}

impl JsonList {
    pub(super) fn new(resource: &Resource, page: EntryPage) -> Self {
        let metadata = super::list_meta(page.revision, page.continue_token, page.remaining);
        let head = format!(
            r#"{{"kind":"{}","apiVersion":"{}","metadata":{metadata},"items":["#,
            resource.list_kind(),
            resource.api_version(),
        );
        Self {
            head: head.into_bytes(),
            entries: page.entries.into_iter(),
            opening: resource.defined.is_none().then(|| {
                let (kind, version) = (&resource.kind, resource.api_version());
                format!(r#"{{"kind":"{kind}","apiVersion":"{version}","#)
            }),
            over: false,
        }
    }

    /// Whole if it is short, in pieces if not.
    pub(super) fn into_body(mut self) -> Body {
        let first = self.next().unwrap_or_default();
        if self.over {
            return Body::from(first);
        }
        let pieces = std::iter::once(first).chain(self);
        Body::from_stream(stream::iter(pieces.map(Ok::<_, Infallible>)))
    }
}

impl Iterator for JsonList {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        let mut piece = std::mem::take(&mut self.head);
        while piece.len() < PIECE_BYTES {
            let Some(entry) = self.entries.next() else {
                piece.extend_from_slice(b"]}");
                self.over = true;
                return Some(piece.into());
            };
            piece.reserve(entry.json_len() + 1);
            let at = piece.len();
            entry.write_json(entry.revision(), &mut piece);
            if let Some(opening) = &self.opening
                && piece[at..].starts_with(opening.as_bytes())
            {
                piece.drain(at + 1..at + opening.len());
            }
            if self.entries.len() > 0 {
                piece.push(b',');
            }
        }
        // The next piece needs as much room.
        self.head.reserve(PIECE_BYTES + PIECE_BYTES / 8);
        Some(piece.into())
    }
}
