//! The cryptographic library's own memory: AWS-LC takes it from the arena.
//!
//! Expanded AES keys, private keys, contexts of hashes and ciphers: the library
//! copies what it is given. With this, every such copy is locked, left out of core
//! dumps and wiped when the library frees it.

#![expect(unsafe_code, reason = "these functions are called from C")]

use std::ffi::{c_char, c_int, c_void};
use std::ptr::{self, NonNull};

use crate::arena;

/// Others set the library's memory functions before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic library's memory functions are already set")]
pub struct AlreadyInUse;

/// From now on AWS-LC allocates from locked memory that is not dumped. To be called
/// before anything uses the library, first thing in `main`.
pub fn protect_cryptographic_library() -> Result<(), AlreadyInUse> {
    // SAFETY: the three functions fulfil the contract of malloc, realloc and free for
    // one another's pointers; no other thread runs yet.
    let set = unsafe {
        aws_lc_sys::CRYPTO_set_mem_functions(Some(allocate), Some(reallocate), Some(release))
    };
    if set == 1 { Ok(()) } else { Err(AlreadyInUse) }
}

unsafe extern "C" fn allocate(bytes: usize, _file: *const c_char, _line: c_int) -> *mut c_void {
    arena::allocate(bytes).map_or(ptr::null_mut(), |block| block.as_ptr().cast())
}

unsafe extern "C" fn reallocate(
    old: *mut c_void,
    bytes: usize,
    _file: *const c_char,
    _line: c_int,
) -> *mut c_void {
    let Some(old) = NonNull::new(old.cast::<u8>()) else {
        return arena::allocate(bytes).map_or(ptr::null_mut(), |block| block.as_ptr().cast());
    };
    let Some(room) = arena::room(old) else {
        return ptr::null_mut();
    };
    if room >= bytes {
        return old.as_ptr().cast();
    }
    let Some(new) = arena::allocate(bytes) else {
        return ptr::null_mut();
    };
    // SAFETY: both are ours and apart, and the new one is the larger; the library uses
    // the old one no more.
    unsafe {
        ptr::copy_nonoverlapping(old.as_ptr(), new.as_ptr(), room);
        arena::release(old);
    }
    new.as_ptr().cast()
}

unsafe extern "C" fn release(block: *mut c_void, _file: *const c_char, _line: c_int) {
    if let Some(block) = NonNull::new(block.cast()) {
        // SAFETY: the library uses it no more.
        unsafe { arena::release(block) };
    }
}
