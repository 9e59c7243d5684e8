//! One region of memory for everything secret: locked, left out of core dumps and of
//! forked children, wiped on release.
//!
//! Address space for all of it is reserved once, so that whether a pointer is ours is
//! a comparison; it becomes readable, and is locked, step by step as it is needed.
//! Blocks have sizes of powers of two and go back to a list of their size. Before
//! each stands a header with its size.
//!
//! Invariants: a block is given out to one owner at a time; bytes of a block are
//! zero when it is given out; a pointer that is not ours is never touched.

#![expect(
    unsafe_code,
    reason = "memory that is locked and not dumped is had from the system, not from the allocator"
)]

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use zeroize::Zeroize as _;

/// Address space reserved, in bytes: the most that is secret at one time.
const REGION_BYTES: usize = 1 << 30;
/// How much becomes usable, and is locked, at a time. A divisor of the region.
const STEP_BYTES: usize = 1 << 16;
/// Before each block; keeps blocks aligned to 16 bytes.
const HEADER_BYTES: usize = 16;
/// The smallest block with its header, as a power of two.
const MIN_CLASS: usize = 5;
/// The largest.
const MAX_CLASS: usize = 24;
const CLASSES: usize = MAX_CLASS + 1;
/// In each header of a block that is given out.
const GIVEN_OUT: usize = 0x6e61_7574;

static ARENA: Mutex<Option<Arena>> = Mutex::new(None);
/// Bytes in use that the system did not lock.
static UNLOCKED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// The system does not let this process lock memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the system does not lock the memory that holds keys ({bytes} bytes), so they may be swapped to disk: raise RLIMIT_MEMLOCK (LimitMEMLOCK= of systemd, `ulimit -l`), or turn swap off"
)]
pub struct LockRefused {
    /// How much is not locked.
    pub bytes: usize,
}

/// Whether all secret memory in use so far is locked.
pub fn locking() -> Result<(), LockRefused> {
    // The first step is taken here, if nobody did.
    if let Some(block) = allocate(1) {
        // SAFETY: just allocated, and nobody else knows it.
        unsafe { release(block) };
    }
    match UNLOCKED_BYTES.load(Ordering::Relaxed) {
        0 => Ok(()),
        bytes => Err(LockRefused { bytes }),
    }
}

/// A block of zeroes of at least `bytes`, aligned to 16; `None` when the region is
/// used up or the block would be larger than any.
pub(crate) fn allocate(bytes: usize) -> Option<NonNull<u8>> {
    let class = class_of(bytes)?;
    let mut arena = ARENA.lock().unwrap_or_else(PoisonError::into_inner);
    if arena.is_none() {
        *arena = Some(Arena::reserve()?);
    }
    arena.as_mut()?.take(class)
}

/// Wipes a block and takes it back. Leaves alone what is not one of ours.
///
/// # Safety
/// Nobody uses the block any more.
pub(crate) unsafe fn release(block: NonNull<u8>) {
    let mut arena = ARENA.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(arena) = arena.as_mut() {
        // SAFETY: the caller's promise.
        unsafe { arena.put_back(block) };
    }
}

/// The bytes a block of ours has room for.
pub(crate) fn room(block: NonNull<u8>) -> Option<usize> {
    let arena = ARENA.lock().unwrap_or_else(PoisonError::into_inner);
    let class = arena.as_ref()?.class_at(block)?;
    Some((1 << class) - HEADER_BYTES)
}

/// The power of two that holds `bytes` and a header.
fn class_of(bytes: usize) -> Option<usize> {
    let whole = bytes
        .checked_add(HEADER_BYTES)?
        .checked_next_power_of_two()?;
    let class = (whole.trailing_zeros() as usize).max(MIN_CLASS);
    (class <= MAX_CLASS).then_some(class)
}

struct Arena {
    base: NonNull<u8>,
    /// From `base`: readable and writable.
    usable: usize,
    /// From `base`: given out at least once.
    used: usize,
    /// Per class, the first free block; each holds the address of the next.
    free: [Option<NonNull<u8>>; CLASSES],
}

// SAFETY: it is only reached through the mutex.
unsafe impl Send for Arena {}

impl Arena {
    fn reserve() -> Option<Self> {
        // SAFETY: a new private mapping at an address of the system's choice.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                REGION_BYTES,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return None;
        }
        // A kernel without these still runs; what it does not do is no secret's end.
        for advice in [libc::MADV_DONTDUMP, libc::MADV_DONTFORK] {
            // SAFETY: the mapping just made, whole.
            unsafe { libc::madvise(base, REGION_BYTES, advice) };
        }
        Some(Self {
            base: NonNull::new(base.cast())?,
            usable: 0,
            used: 0,
            free: [None; CLASSES],
        })
    }

    fn take(&mut self, class: usize) -> Option<NonNull<u8>> {
        let whole = match self.free[class] {
            Some(block) => {
                // SAFETY: a free block is ours, aligned, and begins with the next's address.
                unsafe {
                    let link = block.cast::<Option<NonNull<u8>>>();
                    self.free[class] = link.read();
                    link.write(None);
                }
                block
            }
            None => self.extend(1 << class)?,
        };
        // SAFETY: a block has at least a header and 16 bytes.
        unsafe {
            whole.cast::<[usize; 2]>().write([class, GIVEN_OUT]);
            Some(whole.add(HEADER_BYTES))
        }
    }

    /// So many bytes that were never used.
    fn extend(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        let end = self.used.checked_add(bytes)?;
        if end > REGION_BYTES {
            return None;
        }
        while self.usable < end {
            // SAFETY: within the reserved mapping.
            let step = unsafe { self.base.add(self.usable) }.as_ptr().cast();
            // SAFETY: a part of the mapping that nobody has used yet.
            let opened =
                unsafe { libc::mprotect(step, STEP_BYTES, libc::PROT_READ | libc::PROT_WRITE) };
            if opened != 0 {
                return None;
            }
            // SAFETY: the part just made readable.
            if unsafe { libc::mlock(step, STEP_BYTES) } != 0 {
                UNLOCKED_BYTES.fetch_add(STEP_BYTES, Ordering::Relaxed);
            }
            self.usable += STEP_BYTES;
        }
        // SAFETY: `used` is within the mapping.
        let block = unsafe { self.base.add(self.used) };
        self.used = end;
        Some(block)
    }

    /// The class of a block that is given out.
    fn class_at(&self, block: NonNull<u8>) -> Option<usize> {
        let offset = block.addr().get().checked_sub(self.base.addr().get())?;
        if offset < HEADER_BYTES || offset >= self.used || offset % HEADER_BYTES != 0 {
            return None;
        }
        // SAFETY: within what was used, so readable, and aligned.
        let [class, mark] = unsafe { block.sub(HEADER_BYTES).cast::<[usize; 2]>().read() };
        (mark == GIVEN_OUT && (MIN_CLASS..=MAX_CLASS).contains(&class)).then_some(class)
    }

    /// # Safety
    /// Nobody uses the block any more.
    unsafe fn put_back(&mut self, block: NonNull<u8>) {
        let Some(class) = self.class_at(block) else {
            return;
        };
        // SAFETY: the whole block is ours, and by the caller's promise nobody else's.
        unsafe {
            let whole = block.sub(HEADER_BYTES);
            std::slice::from_raw_parts_mut(whole.as_ptr(), 1 << class).zeroize();
            whole
                .cast::<Option<NonNull<u8>>>()
                .write(self.free[class].take());
            self.free[class] = Some(whole);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of<'a>(block: NonNull<u8>, bytes: usize) -> &'a mut [u8] {
        // SAFETY: each block of these tests has one user.
        unsafe { std::slice::from_raw_parts_mut(block.as_ptr(), bytes) }
    }

    proptest! {
        #[test]
        fn blocks_do_not_overlap_and_come_as_zeroes(
            actions in proptest::collection::vec((any::<bool>(), 1usize..70_000), 1..60)
        ) {
            let mut held: Vec<(NonNull<u8>, usize, u8)> = Vec::new();
            for (index, (give_back, size)) in actions.into_iter().enumerate() {
                if give_back && !held.is_empty() {
                    let (block, size, mark) = held.swap_remove(size % held.len());
                    prop_assert!(bytes_of(block, size).iter().all(|byte| *byte == mark));
                    // SAFETY: taken out of the list of those in use.
                    unsafe { release(block) };
                } else {
                    let block = allocate(size).unwrap();
                    prop_assert_eq!(block.addr().get() % 16, 0);
                    prop_assert!(room(block).unwrap() >= size);
                    prop_assert!(bytes_of(block, size).iter().all(|byte| *byte == 0));
                    let mark = u8::try_from(index % 255).unwrap() + 1;
                    bytes_of(block, size).fill(mark);
                    held.push((block, size, mark));
                }
            }
            for (block, size, mark) in held {
                prop_assert!(bytes_of(block, size).iter().all(|byte| *byte == mark));
                // SAFETY: the last use.
                unsafe { release(block) };
            }
        }
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let mut foreign = [7_u8; 64];
        let pointer = NonNull::new(foreign.as_mut_ptr()).unwrap();
        assert_eq!(room(pointer), None);
        // SAFETY: it is not touched, which is what is tested.
        unsafe { release(pointer) };
        assert_eq!(foreign, [7; 64]);
    }

    #[test]
    fn more_than_the_largest_block_is_refused() {
        assert!(allocate(1 << MAX_CLASS).is_none());
        assert!(allocate(usize::MAX).is_none());
    }

    #[test]
    fn the_system_is_told_to_keep_it_out_of_dumps() {
        let block = allocate(100).unwrap();
        let address = block.addr().get();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut here = false;
        let mut flags = None;
        for line in maps.lines() {
            if let Some((range, _)) = line.split_once(' ')
                && let Some((start, end)) = range.split_once('-')
                && let (Ok(start), Ok(end)) = (
                    usize::from_str_radix(start, 16),
                    usize::from_str_radix(end, 16),
                )
            {
                here = (start..end).contains(&address);
            }
            if here && let Some(found) = line.strip_prefix("VmFlags:") {
                flags = Some(found.to_owned());
            }
        }
        let flags = flags.unwrap();
        let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
        assert!(has("dd"), "not left out of dumps: {flags}");
        assert!(has("dc"), "copied into children: {flags}");
        assert_eq!(has("lo"), locking().is_ok(), "{flags}");
        // SAFETY: its last use.
        unsafe { release(block) };
    }
}
