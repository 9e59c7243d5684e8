//! An object's protobuf message, kept beside its JSON once somebody has asked for it.
//!
//! Invariant: all kept messages of a node together are at most [`MAX_ENCODED_BYTES`];
//! beyond that a message is made anew each time.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of protobuf messages that a node keeps.
const MAX_ENCODED_BYTES: usize = 256 << 20;

static KEPT_BYTES: AtomicUsize = AtomicUsize::new(0);

/// See the module.
#[derive(Default)]
pub(super) struct Encoded(OnceLock<Kept>);

struct Kept(Box<[u8]>);

impl Encoded {
    /// The message, made by `make` if it is not kept.
    pub(super) fn get<E>(
        &self,
        make: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Cow<'_, [u8]>, E> {
        if let Some(kept) = self.0.get() {
            return Ok(Cow::Borrowed(&kept.0));
        }
        let message = make()?;
        let kept = KEPT_BYTES.fetch_add(message.len(), Ordering::Relaxed) + message.len();
        if kept > MAX_ENCODED_BYTES {
            KEPT_BYTES.fetch_sub(message.len(), Ordering::Relaxed);
            return Ok(Cow::Owned(message));
        }
        metrics::gauge!("nautilus_watch_cache_protobuf_bytes").set(kept as f64);
        // Who is second keeps nothing: its message is uncounted as it is dropped.
        let kept = self.0.get_or_init(|| Kept(message.into()));
        Ok(Cow::Borrowed(&kept.0))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        KEPT_BYTES.fetch_sub(self.0.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_made_once() {
        let encoded = Encoded::default();
        let make = || Ok::<_, ()>(b"message".to_vec());
        assert_eq!(encoded.get(make).expect("made"), b"message".as_slice());
        let kept = encoded.get(|| Err(()));
        assert_eq!(kept.expect("kept"), b"message".as_slice());
    }
}
