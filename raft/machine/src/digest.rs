//! The keyed, order-independent digest of the logical state.
//!
//! Every live row adds HMAC-SHA-256(key, space ‖ key length ‖ key ‖ value) to a
//! sum modulo 2^256, and takes it off again when it is deleted or replaced: O(1)
//! per write, equal on every replica whatever the order of its batches.
//!
//! Why it is keyed: an unkeyed sum of hashes falls to the generalised birthday
//! attack (Wagner 2002): whoever writes values could search for a set of rows
//! whose hashes sum to that of another set, and hide a divergence. The digest also
//! leaves the enclave (status, logs), where an unkeyed one would let a reader
//! guess the values of a small store. Under a secret key the terms are pseudorandom
//! and neither is possible. (Multiset hash by addition: Clarke et al. 2003.)
//!
//! Why HMAC and nothing cheaper: with the processor's SHA instructions it is about a
//! tenth of the time of applying a put, so that another keyed hash could save little;
//! and AES-GMAC would need a nonce that never repeats, which a lease's row has not.
//!
//! Invariant: `RowSum` after any sequence of adds and removes depends only on the
//! multiset that remains.

use aws_lc_rs::hmac;

use crate::encoding::Place;
use crate::rows::Space;
use crate::types::Digest;

/// The key of the digest, derived from the quorum's root key: the same on all
/// members, known to nobody else. Has neither `Debug` nor `Serialize`.
#[derive(Clone)]
pub struct DigestKey(hmac::Key);

impl DigestKey {
    /// Takes 32 secret bytes.
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The term of one row.
    pub(crate) fn row(&self, space: Space, key: &[u8], value: &[u8]) -> RowTerm {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&[space as u8]);
        context.update(&(key.len() as u64).to_be_bytes());
        context.update(key);
        context.update(value);
        RowTerm(to_array(context.sign().as_ref()))
    }

    /// What hides the change at a place in its leaf of the ledger: given out with that
    /// leaf, and telling nothing of any other.
    pub(crate) fn blinding(&self, place: Place) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(b"nautilus leaf blinding v1");
        context.update(&place.row_key());
        to_array(context.sign().as_ref())
    }

    /// The digest of a whole state: the rows' sums, the
    /// ledger's root and the counters that are part of it.
    pub(crate) fn state(
        &self,
        sums: [&RowSum; 3],
        ledger_root: &[u8; 32],
        counters: &[u64],
    ) -> Digest {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(b"nautilus state v3");
        for sum in sums {
            context.update(&sum.to_bytes());
        }
        context.update(ledger_root);
        for counter in counters {
            context.update(&counter.to_be_bytes());
        }
        Digest(to_array(context.sign().as_ref()))
    }
}

/// One row's part of the sum.
pub(crate) struct RowTerm([u8; 32]);

/// The sum of the terms of the live rows, modulo 2^256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RowSum {
    low: u128,
    high: u128,
}

impl RowSum {
    pub(crate) fn add(&mut self, term: &RowTerm) {
        let (low, high) = halves(&term.0);
        let (sum, carry) = self.low.overflowing_add(low);
        self.low = sum;
        self.high = self.high.wrapping_add(high).wrapping_add(u128::from(carry));
    }

    pub(crate) fn remove(&mut self, term: &RowTerm) {
        let (low, high) = halves(&term.0);
        let (difference, borrow) = self.low.overflowing_sub(low);
        self.low = difference;
        self.high = self
            .high
            .wrapping_sub(high)
            .wrapping_sub(u128::from(borrow));
    }

    pub(crate) fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.high.to_be_bytes());
        bytes[16..].copy_from_slice(&self.low.to_be_bytes());
        bytes
    }

    /// What was added to `earlier` to come here.
    pub(crate) fn since(mut self, earlier: &Self) -> Self {
        self.remove(&RowTerm(earlier.to_bytes()));
        self
    }

    pub(crate) fn from_bytes(bytes: &[u8; 32]) -> Self {
        let (low, high) = halves(bytes);
        Self { low, high }
    }
}

/// The low and the high half of a big-endian 256-bit number.
fn halves(bytes: &[u8; 32]) -> (u128, u128) {
    let mut high = [0; 16];
    let mut low = [0; 16];
    high.copy_from_slice(&bytes[..16]);
    low.copy_from_slice(&bytes[16..]);
    (u128::from_be_bytes(low), u128::from_be_bytes(high))
}

fn to_array(bytes: &[u8]) -> [u8; 32] {
    let mut array = [0; 32];
    array.copy_from_slice(bytes);
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_rows_does_not_matter_and_removal_undoes_addition() {
        let key = DigestKey::new(&[7; 32]);
        let terms: Vec<RowTerm> = (0..50u8)
            .map(|n| key.row(Space::Revision, &[n], &[n, n]))
            .collect();
        let mut forward = RowSum::default();
        terms.iter().for_each(|term| forward.add(term));
        let mut backward = RowSum::default();
        terms.iter().rev().for_each(|term| backward.add(term));
        assert_eq!(forward, backward);
        assert_eq!(RowSum::from_bytes(&forward.to_bytes()), forward);
        terms.iter().for_each(|term| forward.remove(term));
        assert_eq!(forward, RowSum::default());
    }

    #[test]
    fn another_key_gives_another_digest() {
        let sum = RowSum::default();
        let one = DigestKey::new(&[1; 32]).state([&sum; 3], &[0; 32], &[1]);
        let two = DigestKey::new(&[2; 32]).state([&sum; 3], &[0; 32], &[1]);
        assert_ne!(one, two);
    }
}
