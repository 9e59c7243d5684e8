//! Reading every key of a range, page by page, at one revision.

use nautilus_machine::{KeyRange, KeyValue, Kv, RangeEnd, RangeError, RangeRequest, Revision};

use crate::limits;

/// Shows every key of `range` at `revision` to `visit`, in order.
pub(crate) fn scan(
    kv: &dyn Kv,
    mut range: KeyRange,
    revision: Revision,
    mut visit: impl FnMut(&KeyValue),
) -> Result<(), RangeError> {
    loop {
        let request = RangeRequest {
            revision: Some(revision),
            limit: Some(limits::ROWS_PER_PAGE),
            ..RangeRequest::newest(range.clone())
        };
        let page = kv.range(&request)?;
        page.kvs.iter().for_each(&mut visit);
        match page.kvs.last() {
            Some(last) if page.more => {
                let mut next = last.key.to_vec();
                next.push(0);
                range.start = next.into();
                debug_assert!(range.end != RangeEnd::Single);
            }
            _ => return Ok(()),
        }
    }
}
