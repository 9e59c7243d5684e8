//! A fixed number of secret bytes.

#![expect(
    unsafe_code,
    reason = "it owns a block of the arena, as a box owns one of the allocator"
)]

use std::alloc::Layout;
use std::ptr::NonNull;

use zeroize::Zeroize as _;

use crate::arena;

/// `N` secret bytes, in memory that is locked and not dumped; wiped when dropped.
/// Neither shown nor copied but by [`Secret::expose`].
pub struct Secret<const N: usize>(NonNull<[u8; N]>);

// SAFETY: it owns its bytes, and gives them out by the borrow rules only.
unsafe impl<const N: usize> Send for Secret<N> {}
// SAFETY: as above.
unsafe impl<const N: usize> Sync for Secret<N> {}

impl<const N: usize> Secret<N> {
    /// Has `fill` write the bytes, which are zero before.
    ///
    /// # Errors
    /// Those of `fill`.
    pub fn try_fill<E>(fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        let Some(block) = arena::allocate(N) else {
            std::alloc::handle_alloc_error(Layout::new::<[u8; N]>())
        };
        let mut secret = Self(block.cast());
        // SAFETY: the block holds N zeroed bytes and is this value's alone.
        fill(unsafe { secret.0.as_mut() })?;
        Ok(secret)
    }

    /// Moves the bytes of `source` here and wipes it.
    pub fn take(source: &mut [u8; N]) -> Self {
        let taken = Self::try_fill::<std::convert::Infallible>(|bytes| {
            bytes.copy_from_slice(source);
            Ok(())
        });
        source.zeroize();
        match taken {
            Ok(secret) => secret,
            Err(never) => match never {},
        }
    }

    /// A copy of `bytes`, if there are `N`.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Self::try_fill(|secret| {
            if bytes.len() != N {
                return Err(());
            }
            secret.copy_from_slice(bytes);
            Ok(())
        })
        .ok()
    }

    /// The bytes, for as short a time as they are needed.
    pub fn expose(&self) -> &[u8; N] {
        // SAFETY: the block is this value's until it is dropped.
        unsafe { self.0.as_ref() }
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        // SAFETY: nobody can have borrowed it any more.
        unsafe { arena::release(self.0.cast()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_wiped_where_it_was() {
        let mut source = [7; 32];
        let secret = Secret::take(&mut source);
        assert_eq!(source, [0; 32]);
        assert_eq!(secret.expose(), &[7; 32]);
    }

    #[test]
    fn another_length_is_refused() {
        assert!(Secret::<32>::from_slice(&[1; 31]).is_none());
        assert!(Secret::<32>::from_slice(&[1; 33]).is_none());
        assert_eq!(Secret::<2>::from_slice(&[1, 2]).unwrap().expose(), &[1, 2]);
    }

    #[test]
    fn a_failed_filling_says_why() {
        let failed = Secret::<4>::try_fill(|_| Err("no entropy"));
        assert_eq!(failed.err(), Some("no entropy"));
    }
}
